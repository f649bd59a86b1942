"""JAX: what is lowered for a GPU or TPU is plain XLA, without the detours that a CPU needs.

Lowering for a platform needs no device of it. The programs are read here, and never run.
"""

from functools import partial

import pytest

import softmaxkit
from softmaxkit.conformance.case import ACTIVATIONS, BINARY_LOSSES

ROWS, WIDTH = 48, 8
# Operations that no plain formula has; backends/jax/cpu.py says what they are for.
DETOURS = {"slice", "floor", "scatter", "optimization_barrier", "while", "sort"}
CUT, CONDITION = "long rows, cut", "a condition on values, for which a GPU would wait"
# What linear cross-entropy has everywhere: a loop over chunks, and jax.checkpoint.
LOOP, AGAIN = {"while", "slice"}, {"optimization_barrier"}


# The same at any number of classes but for these: few, many, and those of long rows.
@pytest.mark.parametrize(
    ("classes", "on_cpu"),
    [
        (50, {"slice", "floor", CONDITION}),
        (200, {"slice", "floor", CONDITION, "scatter", "optimization_barrier"}),
        (40000, {"slice", "floor", CONDITION, "scatter", "optimization_barrier", CUT}),
    ],
)
def test_what_a_cpu_needs_is_lowered_for_a_cpu_alone(jax, classes, on_cpu):
    def every(x, y, w, labels):
        smoothed = partial(softmaxkit.cross_entropy, weight=w, label_smoothing=0.1)
        losses = (softmaxkit.cross_entropy, smoothed, partial(softmaxkit.focal_loss, alpha=w))
        of_labels = [softmaxkit.value_and_grad(f)(x, labels) for f in losses[:1]]
        of_others = [softmaxkit.value_and_grad(f)(x, t) for f in losses[1:] for t in (labels, y)]
        activations = softmaxkit.softmax, softmaxkit.log_softmax, softmaxkit.logsumexp
        pulled = [jax.grad(lambda x, f=f: (f(x) ** 2).sum())(x) for f in activations]
        return of_labels, of_others, pulled, softmaxkit.binary_cross_entropy(x, y)

    x, labels, weight = arrays(jax, classes, "float32")
    found = detours(jax.jit(every).trace(x, x, weight, labels), x.shape)
    assert found == {"cpu": on_cpu, "cuda": set(), "tpu": set()}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_call(jax, dtype):
    for name, given, options, own in calls(jax, dtype):
        of_arrays = {key: one for key, one in options.items() if hasattr(one, "shape")}
        traced = jax.jit(with_derivatives(jax, name, options)).trace(given, of_arrays)
        found = detours(traced, given[0].shape)
        call = f"{name} of {given} with {options}"
        assert found["cuda"] == found["tpu"] == own, call
        assert found["cpu"] > own, call


def arrays(jax, classes, dtype):
    """Return logits, labels and class weights without values."""
    shapes = ((ROWS, classes), dtype), ((ROWS,), "int32"), ((classes,), dtype)
    return [jax.ShapeDtypeStruct(*one) for one in shapes]


def calls(jax, dtype):
    """Yield operations with their arrays and options, and the detours that are theirs everywhere.

    Those of bfloat16 are the calls that have a number of their own, which might be wider.
    """
    x, labels, weight = arrays(jax, 1000, dtype)
    mask = jax.ShapeDtypeStruct(x.shape, "bool")
    by_row = jax.ShapeDtypeStruct((ROWS, 1), dtype)
    yield "cross_entropy", (x, labels), {"where": mask, "label_smoothing": 0.1}, set()
    yield "cross_entropy", (x, labels), {"temperature": by_row, "z_loss": 0.1}, set()
    yield "cross_entropy", (x, x), {"weight": weight}, set()
    if dtype != "float32":
        return
    for name in ACTIVATIONS:
        yield name, (x,), {}, set()
    for options in ({}, {"reduction": "none"}, {"label_smoothing": 0.1}, {"weight": weight}):
        yield "cross_entropy", (x, labels), options, set()
    yield "focal_loss", (x, labels), {"alpha": weight}, set()
    yield "focal_loss", (x, x), {}, set()
    yield "poly_loss_cross_entropy", (x, labels), {}, set()
    for name in BINARY_LOSSES:
        yield name, (x, x), {}, set()
    factors = (jax.ShapeDtypeStruct((n, WIDTH), dtype) for n in x.shape)
    given, options = (*factors, labels), {"chunk_size": 20, "label_smoothing": 0.1}
    yield "linear_cross_entropy", given, options, LOOP
    yield "linear_cross_entropy", given, options | {"reduction": "none"}, LOOP | AGAIN


def with_derivatives(jax, name, options):
    """Return an operation with its derivatives by all floating arrays but those of the options."""

    def call(given, of_arrays):
        floating = [one for one in given if jax.numpy.issubdtype(one.dtype, jax.numpy.floating)]
        rest, every = given[len(floating) :], options | of_arrays
        operation = getattr(softmaxkit, name)
        value, pull = jax.vjp(lambda *some: operation(*some, *rest, **every), *floating)
        return value, pull(value)

    return call


def detours(traced, logits):
    """Return what is found in a program as lowered for each platform.

    Nowhere may it call the host, or have an array of float64, while 64-bit types are on.
    """
    found = {}
    for platform in ("cpu", "cuda", "tpu"):
        lowered = traced.lower(lowering_platforms=(platform,))
        program = list(operations(lowered.compiler_ir().operation))
        names = {op.name.removeprefix("stablehlo.") for op in program}
        assert "custom_call" not in names, platform
        # Numbers of Python are scalars of float64.
        types = {str(one.type) for op in program for one in op.results}
        assert not [one for one in types if one.endswith("xf64>")], platform
        found[platform] = names & DETOURS
        found[platform] |= {CONDITION} if any(map(_is_condition, program)) else set()
        found[platform] |= {CUT} if any(_cuts(op, logits) for op in program) else set()
    return found


def operations(parent):
    """Yield the operations inside one, with those inside them."""
    for region in parent.regions:
        for block in region:
            for one in block.operations:
                yield one.operation
                yield from operations(one.operation)


def _is_condition(op):
    # JAX lowers the choice of a platform to a case of one branch, or of constants.
    if op.name not in ("stablehlo.if", "stablehlo.case") or len(op.regions) == 1:
        return False
    return not {one.name for one in operations(op)} <= {"stablehlo.constant", "stablehlo.return"}


def _cuts(op, logits):
    if op.name != "stablehlo.reshape" or tuple(op.operands[0].type.shape) != logits:
        return False
    return len(op.results[0].type.shape) == len(logits)
