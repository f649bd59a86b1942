"""optax, softmaxkit.jax.optax in its place."""

import jax
import optax
from common import FLOAT32, jax_network, jax_training, report, weights

import softmaxkit.jax.optax


def train(library):
    optimizer = library.sgd(0.5, momentum=0.9)

    @jax.jit
    def step(params, state, x, y):
        def loss_fn(params):
            logits = jax_network(params, x)
            return library.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, gradient = jax.value_and_grad(loss_fn)(params)
        updates, state = optimizer.update(gradient, state, params)
        return library.apply_updates(params, updates), state, loss

    params = jax.tree.map(jax.numpy.asarray, weights())
    return jax_training(step, params, optimizer.init(params))


if __name__ == "__main__":
    report(train, optax, softmaxkit.jax.optax, tolerance=FLOAT32)
