"""Handwritten digits by softmax regression, on JAX: value_and_grad inside one jitted step."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softmaxkit

images, labels = load_digits(return_X_y=True)
train_images, test_images, train_labels, test_labels = train_test_split(
    images / 16, labels, stratify=labels, random_state=0
)


def predict(params, images):
    """Return the logits."""
    return images @ params["weight"] + params["bias"]


def loss_fn(params, images, labels):
    """Return the mean cross-entropy."""
    return softmaxkit.cross_entropy(predict(params, images), labels)


@jax.jit
def step(params, images, labels):
    """Take one step of gradient descent."""
    loss, grads = jax.value_and_grad(loss_fn)(params, images, labels)
    return jax.tree.map(lambda p, g: p - 0.5 * g, params, grads), loss


rng = np.random.default_rng(0)
params = {"weight": jnp.zeros((64, 10)), "bias": jnp.zeros(10)}
for _epoch in range(30):
    order = rng.permutation(len(train_labels))
    for batch in np.split(order, range(32, len(order), 32)):
        params, loss = step(params, train_images[batch], train_labels[batch])

accuracy = jnp.mean(predict(params, test_images).argmax(axis=1) == test_labels)
print(f"test accuracy {accuracy:.4f}")
