"""Two known digits and eight unknown ones, on PyTorch: the answer "not sure enough".

A network learns 3 and 8, and is then shown every digit. The temperature and the threshold are
chosen on known digits that it did not learn from. The network can be sure that a digit is a 3
rather than an 8, not that it is one of the two: if nine in ten of the known digits are to be
answered, so are more than six in ten of the unknown ones.

python examples/reject_others_torch.py picture.png also draws a picture, with matplotlib.
"""

import sys

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.nn import Linear, ReLU, Sequential

from softmaxkit.calibration import classify, fit_temperature, threshold_for
from softmaxkit.torch.functional import cross_entropy

images, digits = map(torch.as_tensor, load_digits(return_X_y=True))
images = (images / 16).float()
known = (digits == 3) | (digits == 8)
labels = (digits[known] == 8).long()
rows, test = train_test_split(torch.arange(len(labels)), stratify=labels, random_state=0)
train, held_out = train_test_split(rows, train_size=90, stratify=labels[rows], random_state=0)

torch.manual_seed(0)
model = Sequential(Linear(64, 32), ReLU(), Linear(32, 2))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for _step in range(100):
    optimizer.zero_grad()
    cross_entropy(model(images[known][train]), labels[train]).backward()
    optimizer.step()

with torch.no_grad():
    known_logits, unknown_logits = model(images[known]), model(images[~known])
temperature = fit_temperature(known_logits[held_out], labels[held_out])
print(
    f"{len(train)} digits to learn; T = {temperature:.2f} and thresholds on {len(held_out)}; "
    f"test: {len(test)} known, {len(unknown_logits)} unknown\n"
)
print("coverage asked for  threshold  known: answered  right of these  unknown: rejected")
for coverage in (1.0, 0.9, 0.7):
    threshold = threshold_for(
        known_logits[held_out], labels[held_out], coverage=coverage, temperature=temperature
    )
    found = classify(known_logits[test], threshold=threshold, temperature=temperature)
    others = classify(unknown_logits, threshold=threshold, temperature=temperature)
    answered, rejected = (found != -1).float().mean(), (others == -1).float().mean()
    right = (found == labels[test])[found != -1].float().mean()
    print(f"{coverage:<18.0%} {threshold:10.4f} {answered:16.1%} {right:15.1%} {rejected:18.1%}")

if len(sys.argv) > 1:
    from matplotlib import pyplot

    from softmaxkit.calibration import plot_reliability, plot_risk_coverage

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    plot_reliability(known_logits[test], labels[test], ax=left, temperature=temperature)
    # An unknown digit is wrong, whatever it is taken for.
    logits = torch.cat([known_logits[test], unknown_logits])
    wrong = 1 - classify(unknown_logits)
    plot_risk_coverage(known_logits[test], labels[test], ax=right, label="known digits")
    plot_risk_coverage(logits, torch.cat([labels[test], wrong]), ax=right, label="all digits")
    figure.savefig(sys.argv[1], dpi=100)
