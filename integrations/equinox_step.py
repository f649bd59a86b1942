"""Equinox, filter_jit and filter_value_and_grad."""

import equinox as eqx
import jax
import optax
from common import CLASSES, FEATURES, FLOAT32, HIDDEN, jax_training, report

import softmaxkit


def train(loss_fn):
    model = eqx.nn.MLP(FEATURES, CLASSES, HIDDEN, depth=1, key=jax.random.key(0))

    @eqx.filter_jit
    def step(model, x, y):
        loss, gradient = eqx.filter_value_and_grad(lambda model: loss_fn(jax.vmap(model)(x), y))(
            model
        )
        updates = jax.tree.map(lambda each: -0.5 * each, gradient)
        return eqx.apply_updates(model, updates), loss

    outcome = jax_training(step, model)
    arrays = [each for each in outcome.arrays if eqx.is_array(each)]  # not the activation
    return outcome._replace(arrays=arrays)


def theirs(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


if __name__ == "__main__":
    report(train, theirs, softmaxkit.cross_entropy, tolerance=FLOAT32)
