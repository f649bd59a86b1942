"""What PyTorch, optax and softmaxkit return for inputs that occur in practice.

python examples/why.py              # needs torch, jax and optax
python examples/why.py float16      # this line alone
"""

import sys

import jax
import jax.numpy as jnp
import optax
import torch
import torch.nn.functional as F

import softmaxkit as sk

INF, NAN = float("inf"), float("nan")


def shown(values):
    """Return numbers as text."""
    numbers = [f"{value + 0.0:.4g}" for value in torch.as_tensor(values).flatten().tolist()]
    return numbers[0] if len(numbers) == 1 else f"[{', '.join(numbers)}]"


def loss_and_gradient(function, logits, *arguments, row=0):
    """Return the loss, and the gradient of one row, as text."""
    logits = torch.as_tensor(logits).requires_grad_()
    loss = function(logits, *arguments)
    loss.sum().backward()
    return f"{shown(loss.detach())}, gradient {shown(logits.grad[row])}"


def mask():
    """Take softmax of a row of which every class is masked."""
    x, no_class = torch.tensor([[1.0, 2.0]]), torch.zeros(1, 2, dtype=torch.bool)
    masked = F.softmax(x.masked_fill(~no_class, -INF), -1)
    return shown(masked), shown(sk.softmax(x, where=no_class))


def ignored():
    """Take the loss of two rows, and the gradient of one that is ignored and holds NaN."""
    logits, labels = [[2.0, 0.0], [NAN, NAN]], torch.tensor([0, -100])
    return [
        loss_and_gradient(f, logits, labels, row=1) for f in (F.cross_entropy, sk.cross_entropy)
    ]


def saturated():
    """Take cross-entropy of the logits [20, 0] and the label 0, which is log(1 + e^-20)."""
    logits, labels = [[20.0, 0.0]], torch.tensor([0])
    return [loss_and_gradient(f, logits, labels) for f in (F.cross_entropy, sk.cross_entropy)]


def float16():
    """Take the mean of 66000 losses of log 2 = 0.6931 each, in float16."""
    logits, labels = torch.zeros(66000, 2, dtype=torch.float16), torch.zeros(66000).long()
    return [loss_and_gradient(f, logits, labels) for f in (F.cross_entropy, sk.cross_entropy)]


def smoothing():
    """Smooth the label beside a class of weight 0 and a logit of -inf."""
    logits, labels = torch.tensor([[2.0, 1.0, -INF]]), torch.tensor([0])
    options = {"weight": torch.tensor([1.0, 1.0, 0.0]), "label_smoothing": 0.1}
    return [shown(f(logits, labels, **options)) for f in (F.cross_entropy, sk.cross_entropy)]


def empty():
    """Take the mean loss of a batch of which every label is ignored."""
    logits, labels = torch.tensor([[2.0, 1.0]]), torch.tensor([-100])
    return [shown(f(logits, labels)) for f in (F.cross_entropy, sk.cross_entropy)]


def label():
    """Pass the label -1 for the logits [2, 0], under jax.jit."""
    logits, labels = jnp.array([[2.0, 0.0]]), jnp.array([-1])
    losses = optax.softmax_cross_entropy_with_integer_labels, sk.cross_entropy
    return [shown(float(jax.jit(f)(logits, labels).sum())) for f in losses]


def focal():
    """Take focal loss with gamma 0.5 of the logits [30, 0] and the label 0."""

    def usual(logits, labels, gamma=0.5):
        loss = F.cross_entropy(logits, labels, reduction="none")
        return (1 - torch.exp(-loss)) ** gamma * loss

    logits, labels = [[30.0, 0.0]], torch.tensor([0])
    return (
        loss_and_gradient(usual, logits, labels),
        loss_and_gradient(lambda x, y: sk.focal_loss(x, y, gamma=0.5), logits, labels),
    )


FACTS = (mask, ignored, saturated, float16, smoothing, empty, label, focal)

if __name__ == "__main__":
    chosen = [fact for fact in FACTS if fact.__name__ in sys.argv[1:]] or FACTS
    for fact in chosen:
        theirs, ours = fact()
        print(f"{fact.__name__}: {fact.__doc__}")
        print(f"  {'optax' if fact is label else 'torch':10}  {theirs}\n  softmaxkit  {ours}")
