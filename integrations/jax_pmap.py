"""jax.pmap, 4 devices of the CPU."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import optax
from common import FLOAT32, jax_network, jax_training, report, weights

import softmaxkit


def train(loss_fn):
    def on_a_device(params, x, y):
        loss, gradient = jax.value_and_grad(lambda params: loss_fn(jax_network(params, x), y))(
            params
        )
        loss, gradient = jax.lax.pmean((loss, gradient), "devices")
        return jax.tree.map(lambda each, by: each - 0.5 * by, params, gradient), loss

    spread = jax.pmap(on_a_device, axis_name="devices")

    def step(params, x, y):
        params, loss = spread(params, x.reshape(4, -1, x.shape[1]), y.reshape(4, -1))
        return params, loss[0]

    start = jax.tree.map(lambda each: jax.numpy.stack([each] * 4), weights())
    return jax_training(step, start)


def theirs(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


if __name__ == "__main__":
    report(train, theirs, softmaxkit.cross_entropy, tolerance=FLOAT32)
