"""The times of JAX and CuPy for gpu.py: value and gradient of cross-entropy, and a copy.

A time is that of a call until its results are there: the launch and the wait are included, since
these libraries have no events around what a compiler made of a call.
"""

from functools import partial
from importlib import import_module
from statistics import median
from time import perf_counter

from gpu_cases import Row, attempted, cupy_on_gpu, jax_on_gpu

import softmaxkit
from softmaxkit.bench.results import COPY, OURS, shown_shape

SHAPES, DRY_SHAPES = ((8192, 128256), (8192, 32768), (8192, 1000), (65536, 10)), ((256, 10),)
ROUNDS, WARM_UP = 20, 3


def jax_times(device):
    """Milliseconds under jit beside optax and a copy."""
    found, reason = attempted(jax_on_gpu if device == "cuda" else partial(import_module, "jax"))
    if found is None:
        yield Row("", "JAX", note=f"skipped: {reason}")
        return
    import jax

    def contestants(dtype, shape):
        x = jax.random.normal(jax.random.key(0), shape, dtype)
        labels = jax.random.randint(jax.random.key(1), shape[:1], 0, shape[1])
        losses = {OURS: softmaxkit.cross_entropy}
        optax, _ = attempted(import_module, "optax.losses")
        if optax is not None:
            theirs = optax.softmax_cross_entropy_with_integer_labels
            losses["optax"] = lambda x, y: theirs(x, y).mean()
        for name, loss in losses.items():
            yield name, partial(jax.jit(jax.value_and_grad(loss)), x, labels)
        yield COPY, partial(jax.jit(jax.numpy.copy), x)

    for dtype in ("bfloat16", "float32"):
        for shape in SHAPES if device == "cuda" else DRY_SHAPES:
            yield from raced(
                f"JAX, {dtype}, {shown_shape(shape)}",
                partial(contestants, dtype, shape),
                jax.block_until_ready,
            )


def cupy_times(device):
    """Milliseconds beside a copy."""
    adapter, reason = attempted(cupy_on_gpu)
    if adapter is None:
        yield Row("", "CuPy", note=f"skipped: {reason}")
        return
    import cupy

    def contestants(shape):
        x = cupy.random.standard_normal(shape, dtype="float32")
        labels = cupy.random.randint(0, shape[1], shape[0])
        yield OURS, partial(softmaxkit.value_and_grad(softmaxkit.cross_entropy), x, labels)
        yield COPY, x.copy

    for shape in SHAPES:
        yield from raced(
            f"CuPy, float32, {shown_shape(shape)}",
            partial(contestants, shape),
            lambda _: cupy.cuda.runtime.deviceSynchronize(),
        )


def raced(under, contestants, wait):
    """Yield a row for each contestant; they alternate."""
    calls, reason = attempted(dict, contestants())
    seconds, reason = attempted(timed, calls, wait) if calls else (None, reason)
    if seconds is None:
        yield Row(under, "all of it", note=f"not measured: {reason}")
        return
    for name, values in seconds.items():
        ratio = median(values) / median(seconds[OURS])
        yield Row(under, name, {"ms": median(values) * 1e3, "÷ ours": ratio})


def timed(calls, wait):
    seconds = {name: [] for name in calls}
    for i in range(WARM_UP + ROUNDS):
        for name, call in calls.items():
            start = perf_counter()
            wait(call())
            if i >= WARM_UP:
                seconds[name].append(perf_counter() - start)
    return seconds
