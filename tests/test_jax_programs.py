"""JAX programs with a loss in them: scans, donated buffers, x64 off and on."""

from functools import partial

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (4, 3))
LOSSES = {
    "cross_entropy": np.array([[0, 2, -100, 1], [1, 1, 0, 2], [-100] * 4]),
    "focal_loss": RNG.dirichlet(np.ones(3), (3, 4)),
    "binary_cross_entropy": RNG.integers(2, size=(3, 4, 3)),
    "sigmoid_focal_loss": RNG.uniform(size=(3, 4, 3)),
}
# Of float64: some ten roundings; entries of a gradient are differences of larger terms.
exact = partial(np.testing.assert_allclose, rtol=1e-12, atol=4e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_scan_over_batches(jax, name):
    traces = []

    @jax.jit
    def mean(scale, batches, targets):
        def body(total, batch):
            traces.append(name)
            return total + getattr(softmaxkit, name)(scale * batch[0], batch[1]), None

        return jax.lax.scan(body, jax.numpy.zeros(()), (batches, targets))[0]

    first = RNG.normal(size=(3, 4, 3))
    for batches in (first, -first):
        truth = sum(map(getattr(reference, name), 2 * batches, LOSSES[name]))
        exact(mean(2.0, batches, LOSSES[name]), truth)
    assert len(traces) == 1
    gradients = map(partial(reference.gradient, name), 2 * first, LOSSES[name])
    truth = sum((x * g).sum() for x, g in zip(first, gradients, strict=True))
    exact(jax.jit(jax.grad(mean))(2.0, first, LOSSES[name]), truth)


@pytest.mark.parametrize("name", LOSSES)
def test_donated_buffers(jax, name):
    """JAX warns, which is an error here, of a donated buffer that nothing can use."""
    operation, targets = getattr(softmaxkit, name), LOSSES[name][1]
    value_and_grad = jax.jit(softmaxkit.value_and_grad(operation), donate_argnums=0)
    x = jax.numpy.asarray(LOGITS)
    compiled = value_and_grad.lower(x, targets).compile()
    assert compiled.memory_analysis().alias_size_in_bytes == x.nbytes
    exact(operation(x, targets), getattr(reference, name)(LOGITS, targets))
    assert not x.is_deleted()
    _, gradient = value_and_grad(x, targets)
    exact(gradient, reference.gradient(name, LOGITS, targets))

    @partial(jax.jit, donate_argnums=0)
    def step(w, x):
        return w - jax.grad(lambda w: operation(x @ w, targets))(w)

    control = jax.numpy.ones(3)
    jax.jit(lambda w: w + 1, donate_argnums=0)(control)
    w = jax.numpy.asarray(np.eye(3))
    exact(step(w, LOGITS), np.eye(3) - LOGITS.T @ reference.gradient(name, LOGITS, targets))
    assert x.is_deleted() == w.is_deleted() == control.is_deleted()


X64 = """
import jax, jax.numpy as jnp, numpy as np, softmaxkit as s
def check(x64):
    jax.config.update("jax_enable_x64", x64)
    y, q = jnp.asarray([0, 1, 2]), np.eye(3)
    assert y.dtype == ("int64" if x64 else "int32")
    for dtype in ("float32", "float64") if x64 else ("float16", "bfloat16", "float32"):
        x = jnp.asarray(q, dtype)
        results = [
            s.cross_entropy(x, [0, 1, 2], temperature=2.5, label_smoothing=0.1, z_loss=0.1),
            s.focal_loss(x, np.arange(3, dtype="uint64"), sample_weight=np.ones(3), gamma=0.5),
            *s.value_and_grad(s.cross_entropy)(x, y, weight=np.array([1.0, 2.0, 5.0])),
            jax.grad(s.focal_loss)(x, y.astype("uint8")), s.softmax(x, temperature=np.ones(3)),
            s.log_softmax(x, where=q > 0), s.logsumexp(x, None), s.smooth_labels(x, 0.1),
            s.binary_cross_entropy(x, x), s.sigmoid_focal_loss(x, q, alpha=0.25),
        ]
        assert {str(each.dtype) for each in results} == {dtype}, (dtype, results)
    assert s.one_hot(y, 3).dtype == s.softmax(y).dtype == ("float64" if x64 else "float32")
for x64 in (False, True, False):
    check(x64)
print("checked")
"""


def test_x64_off_and_on(jax, run_python, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    assert run_python(X64) == "checked\n"


MESHES = """
import jax, numpy as np, softmaxkit
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
random = np.random.default_rng(0)
x, y = random.normal(size=(8, 200)).astype("float32"), random.integers(0, 200, 8)
w = random.random(200).astype("float32")
def step(x, y, w):
    return jax.value_and_grad(
        lambda x: softmaxkit.cross_entropy(x, y, weight=w, label_smoothing=0.1)
    )(x)
value, gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)(
    x.astype("float64"), y, weight=w.astype("float64"), label_smoothing=0.1
)
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((2, 2), ("rows", "classes"), axis_types=(kind, kind))
    for of_x, of_w in ((P("rows"), P()), (P("rows", "classes"), P("classes")), (P(), P("classes"))):
        with jax.set_mesh(mesh):
            laid = [
                jax.device_put(v, NamedSharding(mesh, spec))
                for v, spec in ((x, of_x), (y, P("rows")), (w, of_w))
            ]
            got = jax.jit(step)(*laid)
        # Some ten roundings of float32.
        np.testing.assert_allclose(got[0], value, rtol=1e-6)
        np.testing.assert_allclose(got[1], gradient, rtol=1e-5, atol=1e-8)
mesh = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Auto,))
by_row = jax.shard_map(
    lambda x, y: softmaxkit.cross_entropy(x, y, weight=w, reduction="none"),
    mesh=mesh, in_specs=(P("rows"), P("rows")), out_specs=P("rows"),
)
rows = softmaxkit.cross_entropy(x.astype("float64"), y, weight=w, reduction="none")
np.testing.assert_allclose(jax.jit(by_row)(x, y), rows, rtol=1e-6)
print("checked")
"""


def test_meshes_of_four_devices(jax, run_python, monkeypatch):
    if not hasattr(jax, "set_mesh"):
        pytest.skip("JAX before 0.8: it has no jax.set_mesh")
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "4")
    assert run_python(MESHES) == "checked\n"
