"""jax.shard_map, 4 devices of the CPU."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import jax
import optax
from common import FLOAT32, jax_network, jax_training, report, weights
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import softmaxkit


def train(loss_fn):
    mesh = jax.make_mesh((4,), ("devices",), axis_types=(AxisType.Auto,))

    @jax.jit
    @jax.shard_map(mesh=mesh, in_specs=(P(), P("devices"), P("devices")), out_specs=P())
    def step(params, x, y):
        def mean(params):
            return jax.lax.pmean(loss_fn(jax_network(params, x), y), "devices")

        loss, gradient = jax.value_and_grad(mean)(params)
        return jax.tree.map(lambda each, by: each - 0.5 * by, params, gradient), loss

    return jax_training(step, jax.tree.map(jax.numpy.asarray, weights()))


def theirs(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


if __name__ == "__main__":
    report(train, theirs, softmaxkit.cross_entropy, tolerance=FLOAT32)
