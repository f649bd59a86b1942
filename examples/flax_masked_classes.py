"""flax.nnx: classes that a row cannot have, left out of its softmax.

Each image comes with the knowledge whether its digit is even: five of ten classes are possible.
`where` leaves the others out of the loss and of the probabilities. The usual way is to set their
logits to -1e9, with the same result until labels are smoothed: then each of these classes gets a
share of the label, and costs 1e9 times that share.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    (images / 16).astype("float32"), labels, stratify=labels, random_state=0
)


class Network(nnx.Module):
    """Images -> hidden layer -> logits."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.output = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, images):
        """Return the logits."""
        return self.output(nnx.relu(self.hidden(images)))


def possible(labels):
    """Return (N, 10): True for digits that are even, or odd, as the label is."""
    return jnp.arange(10) % 2 == labels[:, None] % 2


def by_optax(logits, labels, smoothing):
    """Return optax's loss, with logits of -1e9 for the other classes."""
    logits = jnp.where(possible(labels), logits, -1e9)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, 10), smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()


def by_where(logits, labels, smoothing):
    """Return softmaxkit's loss; labels are smoothed over the classes that take part."""
    return softmaxkit.cross_entropy(
        logits, labels, where=possible(labels), label_smoothing=smoothing
    )


def every_class(logits, labels, smoothing):
    """Return the loss without knowing which classes are possible."""
    return softmaxkit.cross_entropy(logits, labels, label_smoothing=smoothing)


def train(loss_fn, smoothing):
    """Return a trained network, and the loss of its last batch."""
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, images, labels):
        loss, gradient = nnx.value_and_grad(
            lambda model: loss_fn(model(images), labels, smoothing)
        )(model)
        optimizer.update(model, gradient)
        return loss

    rng = np.random.default_rng(0)
    for _epoch in range(8):
        order = rng.permutation(len(train_labels))
        for start in range(0, len(order) - 31, 32):
            batch = order[start : start + 32]
            loss = step(model, optimizer, train_images[batch], train_labels[batch])
    return model, loss


print(f"{'loss':29} {'last batch':>11} {'accuracy':>9} {'confidence':>11}")
for name, loss_fn, smoothing in [
    ("every class, softmaxkit", every_class, 0.0),
    ("-1e9, optax", by_optax, 0.0),
    ("where, softmaxkit", by_where, 0.0),
    ("-1e9, optax, smoothed", by_optax, 0.1),
    ("where, softmaxkit, smoothed", by_where, 0.1),
]:
    model, loss = train(loss_fn, smoothing)
    where = None if loss_fn is every_class else possible(test_labels)
    p = softmaxkit.softmax(model(test_images), where=where)
    accuracy = jnp.mean(p.argmax(1) == test_labels)
    print(f"{name:29} {loss:11.6g} {accuracy:9.1%} {p.max(1).mean():11.1%}")
