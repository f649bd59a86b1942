"""Multinomial logistic regression on each library, written as its users would write it.

Each function takes the same task and yields after every epoch: same first weights, same batches in
the same order, float32, plain gradient descent. What differs is who computes the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from softmaxkit import value_and_grad

__all__ = ["TRAINERS", "Epoch", "Task"]


@dataclass(frozen=True)
class Task:
    """Digits, a loss of softmaxkit with its options, and where and how descent goes."""

    train_images: np.ndarray
    train_labels: np.ndarray
    validation_images: np.ndarray
    validation_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    loss: Callable[..., Any]
    options: dict[str, Any]
    learning_rate: float
    batch_size: int
    epochs: int
    seed: int

    def batches(self) -> Iterator[np.ndarray]:
        """Yield for each epoch the indices of its batches; the digits left over sit it out."""
        rng = np.random.default_rng(self.seed)
        steps = len(self.train_labels) // self.batch_size
        for _ in range(self.epochs):
            order = rng.permutation(len(self.train_labels))
            yield order[: steps * self.batch_size].reshape(steps, self.batch_size)


@dataclass(frozen=True)
class Epoch:
    """The model after one epoch; `weight` is (pixels, classes)."""

    train_loss: float
    test_loss: float
    test_logits: np.ndarray
    weight: np.ndarray
    bias: np.ndarray


def train_numpy(task: Task) -> Iterator[Epoch]:
    """Use no framework: `value_and_grad` of softmaxkit, and the chain rule of a linear layer."""
    loss_and_gradient = value_and_grad(task.loss)
    weight, bias = task.weight.copy(), task.bias.copy()
    for batches in task.batches():
        for batch in batches:
            images, labels = task.train_images[batch], task.train_labels[batch]
            _, gradient = loss_and_gradient(images @ weight + bias, labels, **task.options)
            weight -= task.learning_rate * (images.T @ gradient)
            bias -= task.learning_rate * gradient.sum(axis=0)

        train_logits = task.train_images @ weight + bias
        test_logits = task.test_images @ weight + bias
        yield Epoch(
            float(task.loss(train_logits, task.train_labels, **task.options)),
            float(task.loss(test_logits, task.test_labels, **task.options)),
            test_logits,
            weight.copy(),
            bias.copy(),
        )


def train_torch(task: Task) -> Iterator[Epoch]:
    """Use `nn.Linear`, `optim.SGD` and ``loss.backward()``."""
    import torch

    loss_function = partial(task.loss, **task.options)
    train_images, train_labels, test_images, test_labels = map(
        torch.from_numpy,
        (task.train_images, task.train_labels, task.test_images, task.test_labels),
    )
    model = torch.nn.Linear(*task.weight.shape)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(task.weight.T))
        model.bias.copy_(torch.from_numpy(task.bias))
    optimizer = torch.optim.SGD(model.parameters(), lr=task.learning_rate)

    for batches in task.batches():
        for batch in torch.from_numpy(batches):
            optimizer.zero_grad()
            loss = loss_function(model(train_images[batch]), train_labels[batch])
            loss.backward()
            optimizer.step()

        with torch.no_grad():
            test_logits = model(test_images)
            train_loss = loss_function(model(train_images), train_labels).item()
            test_loss = loss_function(test_logits, test_labels).item()
        yield Epoch(
            train_loss,
            test_loss,
            test_logits.numpy(),
            model.weight.detach().numpy().T.copy(),
            model.bias.detach().numpy().copy(),
        )


def train_jax(task: Task) -> Iterator[Epoch]:
    """Use a dictionary of parameters, `jax.value_and_grad` and one jitted step."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def predict(params, images):
        # On a GPU or TPU the default precision of a float32 product is less than float32.
        return jnp.matmul(images, params["weight"], precision="highest") + params["bias"]

    @jax.jit
    def loss_function(params, images, labels):
        return task.loss(predict(params, images), labels, **task.options)

    @jax.jit
    def step(params, images, labels):
        _, gradient = jax.value_and_grad(loss_function)(params, images, labels)
        return jax.tree.map(lambda p, g: p - task.learning_rate * g, params, gradient)

    params = {"weight": jnp.asarray(task.weight), "bias": jnp.asarray(task.bias)}
    for batches in task.batches():
        for batch in batches:
            params = step(params, task.train_images[batch], task.train_labels[batch])

        yield Epoch(
            float(loss_function(params, task.train_images, task.train_labels)),
            float(loss_function(params, task.test_images, task.test_labels)),
            np.asarray(predict(params, task.test_images)),
            np.asarray(params["weight"]),
            np.asarray(params["bias"]),
        )


def train_tensorflow(task: Task) -> Iterator[Epoch]:
    """Use `tf.Variable`, `tf.GradientTape` and one `tf.function` step."""
    import tensorflow as tf

    # On a GPU the default precision of a float32 product is less than float32.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    weight, bias = tf.Variable(task.weight), tf.Variable(task.bias)

    def predict(images):
        return images @ weight + bias

    @tf.function
    def loss_function(images, labels):
        return task.loss(predict(images), labels, **task.options)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            loss = task.loss(predict(images), labels, **task.options)
        variables = weight, bias
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            # Not tf.keras.optimizers.SGD: with KERAS_BACKEND=torch it takes no tf.Variable.
            variable.assign_sub(task.learning_rate * gradient)

    train_images, train_labels, test_images, test_labels = map(
        tf.constant, (task.train_images, task.train_labels, task.test_images, task.test_labels)
    )
    for batches in task.batches():
        for batch in batches:
            step(tf.gather(train_images, batch), tf.gather(train_labels, batch))

        yield Epoch(
            float(loss_function(train_images, train_labels)),
            float(loss_function(test_images, test_labels)),
            predict(test_images).numpy(),
            weight.numpy(),
            bias.numpy(),
        )


# NumPy first: the others are compared with it.
TRAINERS: dict[str, Callable[[Task], Iterator[Epoch]]] = {
    "numpy": train_numpy,
    "torch": train_torch,
    "jax": train_jax,
    "tensorflow": train_tensorflow,
}
