"""flax.nnx, nnx.jit."""

import optax
from common import CLASSES, FEATURES, HIDDEN, jax_training, report
from flax import nnx

import softmaxkit


class Network(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(FEATURES, HIDDEN, rngs=rngs)
        self.output = nnx.Linear(HIDDEN, CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.output(nnx.relu(self.hidden(x)))


def train(loss_fn):
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-3), wrt=nnx.Param)

    @nnx.jit
    def descend(model, optimizer, x, y):
        loss, gradient = nnx.value_and_grad(lambda model: loss_fn(model(x), y))(model)
        optimizer.update(model, gradient)
        return loss

    def step(_, x, y):
        loss = descend(model, optimizer, x, y)
        return nnx.state(model, nnx.Param), loss

    return jax_training(step, None)


def theirs(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


if __name__ == "__main__":
    # float32; Adam divides by gradients, small ones too.
    report(train, theirs, softmaxkit.cross_entropy, tolerance=1e-5)
