"""Two known digits and eight unknown ones, on NumPy: the answer "not sure enough".

A network learns 3 and 8, and is then shown every digit. The temperature and the threshold are
chosen on known digits that it did not learn from. The network can be sure that a digit is a 3
rather than an 8, not that it is one of the two: if nine in ten of the known digits are to be
answered, so are more than six in ten of the unknown ones.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit
from softmaxkit.calibration import classify, fit_temperature, threshold_for

images, digits = load_digits(return_X_y=True)
images = images / 16
known = (digits == 3) | (digits == 8)
labels = (digits[known] == 8).astype(int)
rows, test = train_test_split(np.arange(len(labels)), stratify=labels, random_state=0)
train, held_out = train_test_split(rows, train_size=90, stratify=labels[rows], random_state=0)

rng = np.random.default_rng(0)
weight_1, bias_1 = rng.normal(0, 0.2, (64, 32)), np.zeros(32)
weight_2, bias_2 = rng.normal(0, 0.2, (32, 2)), np.zeros(2)
loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)


def predict(images):
    """Return the hidden layer, and the logits."""
    hidden = np.maximum(images @ weight_1 + bias_1, 0)
    return hidden, hidden @ weight_2 + bias_2


for _step in range(500):
    x = images[known][train]
    hidden, logits = predict(x)
    _, gradient = loss_and_gradient(logits, labels[train])
    hidden_gradient = gradient @ weight_2.T * (hidden > 0)
    weight_2 -= 0.3 * hidden.T @ gradient
    bias_2 -= 0.3 * gradient.sum(axis=0)
    weight_1 -= 0.3 * x.T @ hidden_gradient
    bias_1 -= 0.3 * hidden_gradient.sum(axis=0)

known_logits, unknown_logits = predict(images[known])[1], predict(images[~known])[1]
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
    answered, rejected = np.mean(found != -1), np.mean(others == -1)
    right = np.mean((found == labels[test])[found != -1])
    print(f"{coverage:<18.0%} {threshold:10.4f} {answered:16.1%} {right:15.1%} {rejected:18.1%}")
