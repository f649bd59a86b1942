"""A JAX and optax training loop whose last batch is padded, so that `jit` compiles one shape.

`softmaxkit.jax` has optax's names: the second line of the table is the first with another import,
and the same numbers. The third line uses two options that optax lacks: labels of -1 are left out of
the loss and its mean, so that no image is dropped, and class indices are smoothed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit
import softmaxkit.jax

BATCH = 100
EPOCHS = 20
PADDING = -1

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    (images / 16).astype("float32"), labels, stratify=labels, random_state=0
)


def network(key):
    """Return the parameters of a network with one hidden layer."""
    initialize = jax.nn.initializers.he_normal()
    first, second = jax.random.split(key)
    return {
        "hidden": {"w": initialize(first, (64, 128)), "b": jnp.zeros(128)},
        "output": {"w": initialize(second, (128, 10)), "b": jnp.zeros(10)},
    }


def apply(params, images):
    """Return the logits."""
    hidden = jax.nn.relu(images @ params["hidden"]["w"] + params["hidden"]["b"])
    return hidden @ params["output"]["w"] + params["output"]["b"]


def whole_batches(rng):
    """Yield shuffled batches, and drop the images that do not fill one."""
    order = rng.permutation(len(train_labels))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        batch = order[start : start + BATCH]
        yield train_images[batch], train_labels[batch]


def padded_batches(rng):
    """Yield shuffled batches; the last is filled up with images whose label is `PADDING`."""
    order = rng.permutation(len(train_labels))
    for start in range(0, len(order), BATCH):
        batch = np.resize(order[start : start + BATCH], BATCH)
        real = np.arange(BATCH) < len(order) - start
        yield train_images[batch], np.where(real, train_labels[batch], PADDING)


def train(loss_fn, batches):
    """Return parameters, how many images were used in an epoch, and how often `step` was traced."""
    optimizer = optax.adamw(3e-3)
    traced = 0

    @jax.jit
    def step(params, state, images, labels):
        nonlocal traced
        traced += 1
        gradient = jax.grad(lambda params: loss_fn(apply(params, images), labels))(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    params = network(jax.random.key(0))
    state = optimizer.init(params)
    rng = np.random.default_rng(0)
    for _epoch in range(EPOCHS):
        used = 0
        for batch_images, batch_labels in batches(rng):
            params, state = step(params, state, batch_images, batch_labels)
            used += np.sum(batch_labels != PADDING)
    return params, used, traced


def smoothed(logits, labels):
    """Return the mean over the images that are not padding."""
    return softmaxkit.cross_entropy(logits, labels, ignore_index=PADDING, label_smoothing=0.1)


runs = {
    "optax": (
        lambda x, y: optax.softmax_cross_entropy_with_integer_labels(x, y).mean(),
        whole_batches,
    ),
    "softmaxkit.jax": (
        lambda x, y: softmaxkit.jax.softmax_cross_entropy_with_integer_labels(x, y).mean(),
        whole_batches,
    ),
    "softmaxkit, padded, smoothed": (smoothed, padded_batches),
}
print(f"{len(train_labels)} training images in batches of {BATCH}, {EPOCHS} epochs\n")
print(f"{'loss':29} {'used':>5} {'traced':>7} {'test loss':>10} {'accuracy':>9} {'confidence':>11}")
for name, (loss_fn, batches) in runs.items():
    params, used, traced = train(loss_fn, batches)
    logits = apply(params, test_images)
    loss = softmaxkit.cross_entropy(logits, test_labels)
    accuracy = jnp.mean(logits.argmax(1) == test_labels)
    sure = softmaxkit.softmax(logits).max(1).mean()
    print(f"{name:29} {used:5} {traced:7} {loss:10.5f} {accuracy:9.1%} {sure:11.1%}")
