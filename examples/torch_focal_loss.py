"""A convolutional network on PyTorch, trained on digits of which one is rare; then focal loss.

One import line makes the change, ``import softmaxkit.torch as F`` for ``import torch.nn.functional
as F``: the first two lines of the table are the same training with either. The others ask what
helps the rare digit: focal loss (it attends to what is not yet right), class weights, or both.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import softmaxkit.torch as F  # was: import torch.nn.functional as F

RARE = 8  # the digit that is hard to come by
KEPT = 10  # training images of it that are left; the other digits have about 90
SEEDS = 3

torch.set_num_threads(1)
images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32").reshape(-1, 1, 8, 8)
train_images, test_images, train_labels, test_labels = map(
    torch.as_tensor,
    train_test_split(images, labels, test_size=0.5, stratify=labels, random_state=0),
)
rare = (train_labels == RARE).nonzero().squeeze(1)
kept = torch.ones(len(train_labels), dtype=torch.bool)
kept[rare[KEPT:]] = False
train_images, train_labels = train_images[kept], train_labels[kept]
# The usual weights: in inverse proportion to how often a class is seen, 1 on average.
weight = len(train_labels) / (10 * train_labels.bincount())


def network():
    """Two convolutions and a linear layer: 14 thousand parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(512, 10)),
    )


def train(loss_fn, seed):
    """Return the probabilities of the test images after 12 epochs, and the last mean loss."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _epoch in range(12):
        losses = []
        for batch in torch.randperm(len(train_labels)).split(64):
            optimizer.zero_grad()
            loss = loss_fn(model(train_images[batch]), train_labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    with torch.no_grad():
        return F.softmax(model(test_images), dim=1), sum(losses) / len(losses)


def report(name, loss_fn):
    """Print the mean over the seeds of what matters, in percent of the test images."""
    rows = []
    for seed in range(SEEDS):
        p, loss = train(loss_fn, seed)
        confidence, predicted = p.max(dim=1)
        right = (predicted == test_labels).float()
        rows.append([loss, right.mean(), right[test_labels == RARE].mean(), confidence.mean()])
    loss, accuracy, recall, confidence = torch.tensor(rows).double().mean(dim=0)
    surplus = confidence - accuracy
    print(f"{name:32} {loss:8.5f} {accuracy:9.1%} {recall:9.1%} {surplus:+11.1%}")


print(f"{len(train_labels)} images to train on, {KEPT} of them an {RARE}; means over {SEEDS} seeds")
print(f"{'loss':32} {'training':>8} {'accuracy':>9} {f'recall {RARE}':>9} {'overconf.':>11}")
report("torch cross_entropy", nn.functional.cross_entropy)
report("softmaxkit cross_entropy", F.cross_entropy)
report("softmaxkit focal_loss, gamma 2", F.focal_loss)
report("softmaxkit focal_loss, gamma 5", lambda x, y: F.focal_loss(x, y, gamma=5.0))
report("cross_entropy, class weights", lambda x, y: F.cross_entropy(x, y, weight=weight))
report("focal_loss, class weights", lambda x, y: F.focal_loss(x, y, alpha=weight))
