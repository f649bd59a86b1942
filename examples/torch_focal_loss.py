"""A convolutional network on PyTorch, trained on digits of which one is rare; then focal loss.

Only one import line changes. The same network is trained with torch's cross-entropy and with
softmaxkit's, with the same numbers; then with focal loss, which attends to images that are not yet
right, and with the older remedy for a rare class, weights.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import softmaxkit.torch as F  # was: import torch.nn.functional as F

RARE = 8  # the digit that is hard to come by,
KEPT = 10  # with this many training images; the others have about 90
SEEDS = 3

torch.set_num_threads(1)
images, labels = load_digits(return_X_y=True)
images = (images / 16).astype("float32").reshape(-1, 1, 8, 8)
train_images, test_images, train_labels, test_labels = map(
    torch.as_tensor,
    train_test_split(images, labels, test_size=0.5, stratify=labels, random_state=0),
)
kept = (train_labels != RARE) | ((train_labels == RARE).cumsum(0) <= KEPT)
train_images, train_labels = train_images[kept], train_labels[kept]
# In inverse proportion to how often a class is seen, 1 on average.
weight = len(train_labels) / (10 * train_labels.bincount())


def network(seed):
    """Return two convolutions and a linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 4 * 4, 10),
    )


def train(loss_fn, seed):
    """Return a network after ten epochs."""
    model = network(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _epoch in range(10):
        for batch in torch.randperm(len(train_labels)).split(64):
            optimizer.zero_grad()
            loss = loss_fn(model(train_images[batch]), train_labels[batch])
            loss.backward()
            optimizer.step()
    return model


def report(name, loss_fn):
    """Print means over the seeds: all digits, the rare one, how sure and how good p is."""
    rows = []
    for seed in range(SEEDS):
        logits = train(loss_fn, seed)(test_images).detach()
        confidence, predicted = F.softmax(logits, dim=1).max(dim=1)
        right = (predicted == test_labels).double()
        recall = right[test_labels == RARE].mean()
        surplus = confidence.double().mean() - right.mean()
        rows.append([right.mean(), recall, surplus, F.cross_entropy(logits, test_labels)])
    accuracy, recall, surplus, nll = torch.tensor(rows).mean(dim=0)
    print(f"{name:30} {accuracy:8.1%} {recall:9.1%} {surplus:+10.1%} {nll:9.3f}")


def first_step(loss_fn):
    """Return the loss of an untrained network, and its derivative by every parameter."""
    model = network(seed=0)
    loss = loss_fn(model(train_images), train_labels)
    loss.backward()
    return loss, torch.cat([one.grad.flatten() for one in model.parameters()])


(theirs, their_gradient), (ours, our_gradient) = map(
    first_step, (nn.functional.cross_entropy, F.cross_entropy)
)
difference = (our_gradient - their_gradient).abs().max() / their_gradient.abs().max()
print(
    f"first loss: torch {theirs:.6f}, softmaxkit {ours:.6f}; gradients differ by {difference:.0e}"
)
print(f"{len(train_labels)} training images, {KEPT} of them an {RARE}; means over {SEEDS} seeds\n")
print(
    f"{'training loss':30} {'accuracy':>8} {f'recall {RARE}':>9} {'too sure':>10} {'test nll':>9}"
)
report("torch cross_entropy", nn.functional.cross_entropy)
report("cross_entropy", F.cross_entropy)
report("focal_loss", F.focal_loss)
report("cross_entropy, class weights", lambda x, y: F.cross_entropy(x, y, weight=weight))
report("focal_loss, class weights", lambda x, y: F.focal_loss(x, y, alpha=weight))
