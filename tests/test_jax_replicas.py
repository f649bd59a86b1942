"""JAX in data parallel: devices share each batch by jit, by shard_map, or by pmap."""

from pathlib import Path

PROGRAM = """
from functools import partial
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
import replicas, softmaxkit

jax.config.update("jax_enable_x64", True)
mesh = jax.make_mesh((4,), ("data",))

def train(how, case, mean):
    operation, options, weighted = replicas.CASES[case]
    add_up = partial(jax.lax.psum if mean == "global" else jax.lax.pmean, axis_name="data")

    def loss(params, x, y, sample_weight, denominators):
        first, second, bias = params
        given = options | ({"sample_weight": sample_weight} if weighted else {})
        if how != "jit" and mean == "global":
            given["normalizer"] = jax.lax.psum(denominators.sum(), "data")
        hidden = jax.numpy.tanh(x @ first)
        if operation == "linear_cross_entropy":
            value = softmaxkit.linear_cross_entropy(hidden, second, y, bias=bias, **given)
        else:
            value = getattr(softmaxkit, operation)(hidden @ second.T + bias, y, **given)
        return add_up(value) if how == "shard_map" else value

    derivatives = jax.value_and_grad(loss)
    if how == "pmap":
        step = jax.pmap(
            lambda *given: add_up(derivatives(*given)),
            "data", in_axes=(None, 0, 0, 0, 0), out_axes=None,
        )
    elif how == "shard_map":
        of_batch = (P("data"),) * 4
        step = jax.jit(
            jax.shard_map(derivatives, mesh=mesh, in_specs=(P(), *of_batch), out_specs=P())
        )
    else:
        step = jax.jit(derivatives)
    arrays = replicas.X, replicas.Y, replicas.SAMPLE_WEIGHT, replicas.denominators(case)
    params, steps = replicas.START, []
    for batch in zip(*arrays, strict=True):
        if how == "pmap":
            batch = [each.reshape(4, -1, *each.shape[1:]) for each in batch]
        else:
            params = jax.device_put(params, NamedSharding(mesh, P()))
            batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
        value, gradients = step(params, *batch)
        steps.append((value, gradients))
        params = [each - replicas.RATE * by for each, by in zip(params, gradients, strict=True)]
    return steps, params

for case in replicas.CASES:
    apart = replicas.distance(case, *train("jit", case, "global"))
    assert apart < replicas.CLOSE, (case, apart)
    replicas.check(case, partial(train, "shard_map"))
    print(case)
replicas.check("all weights", partial(train, "pmap"))
print("pmap")
"""


def test_a_mean_over_the_batch_of_all_devices(jax, run_python, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    cases = ["ignored rows", "all weights", "focal loss", "linear", "pmap"]
    assert run_python(PROGRAM, Path(__file__).parent).splitlines() == cases
