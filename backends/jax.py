"""JAX: row statistics with a custom_jvp rule, each operation jitted once for its static options."""

from __future__ import annotations

import sys
from functools import partial, reduce
from math import prod
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softmaxkit import _rows, _softmax

LIBRARY = "JAX"

_this = sys.modules[__name__]

# XLA reduces a short axis, or one that is not the last, slowly; so many classes are added up one by
# one in a loop over rows, which it vectorises. Cross-entropy of 200000 x 10: 1.3 ms, not 2.6; of
# 8 x 21 x 256 x 256 along axis 1: 4.6 ms, not 31; of 4 x 50 x 200 x 200: 4.7 ms, not 22. At 64
# classes on the last axis and at 81 on another it is a draw, and compiles in 0.3 s.
_FEW_LAST = 32
_FEW = 96

# Beyond this many classes a sum of more than exp(x - top) is first written out in the size of the
# logits: 121 ms at 256 x 128256, where that of exp takes 27. Added up in 8 parts: 46 ms.
_LONG = 65536

_STATIC = ("axis", "gamma", "ignore_index", "reduction", "normalizer", "dtype", "labels_checked")


# --- operations -----------------------------------------------------------------------------------
@partial(jax.jit, static_argnums=(1, 4))
def softmax(x, axis, where, temperature, dtype):
    return _softmax.softmax(_this, x, axis, where, temperature, dtype)


@partial(jax.jit, static_argnums=(1, 4))
def log_softmax(x, axis, where, temperature, dtype):
    return _softmax.log_softmax(_this, x, axis, where, temperature, dtype)


@partial(jax.jit, static_argnums=(1, 3, 4))
def logsumexp(x, axis, where, keepdims, dtype):
    return _softmax.logsumexp(_this, x, axis, where, keepdims, dtype)


def cross_entropy(logits, targets, **options):
    return _jitted("cross_entropy", logits, targets, **_split(options))


def focal_loss(logits, targets, **options):
    return _jitted("focal_loss", logits, targets, **_split(options))


def binary_cross_entropy(logits, targets, **options):
    return _jitted("binary_cross_entropy", logits, targets, **_split(options))


def sigmoid_focal_loss(logits, targets, **options):
    return _jitted("sigmoid_focal_loss", logits, targets, **_split(options))


@partial(jax.jit, static_argnums=2)
def smooth_labels(targets, smoothing, axis, where):
    return _rows.smooth_labels(_this, targets, smoothing, axis, where)


@partial(jax.jit, static_argnums=(1, 2, 3, 4))
def one_hot(labels, num_classes, axis, dtype, labels_checked):
    # Not in 8 bits, where the 256th class is the 0th.
    labels = as_index(labels)
    out = jax.nn.one_hot(labels, num_classes, axis=axis, dtype=dtype or default_float(labels))
    if labels_checked:
        return out
    wrong = jnp.expand_dims((labels < 0) | (labels >= num_classes), axis)
    return jnp.where(wrong, jnp.nan, out)


def value_and_grad(operation, logits, targets, options):
    return _jitted_value_and_grad(operation, logits, targets, **_split(options))


def vjp(operation, x, cotangent, options):
    axis, where, third, dtype = options
    keepdims = third if operation == "logsumexp" else None
    temperature = third if keepdims is None else None
    return _jitted_vjp(operation, axis, keepdims, dtype, x, cotangent, where, temperature)


def _split(options):
    # Static: a name, and a Python gamma, as x**2 is cheaper than a power. Traced: arrays, and a
    # number that a training loop changes at each step.
    options["traced"] = {
        name: options.pop(name)
        for name, static in (("gamma", float), ("normalizer", str))
        if not isinstance(options.get(name), static | None)
    }
    return options


def _apply(operation, logits, targets, traced, **options):
    return getattr(_rows, operation)(_this, logits, targets, **options, **traced)


@partial(jax.jit, static_argnums=0, static_argnames=_STATIC)
def _jitted(operation, logits, targets, **options):
    return _apply(operation, logits, targets, **options)


@partial(jax.jit, static_argnums=0, static_argnames=_STATIC)
def _jitted_value_and_grad(operation, logits, targets, **options):
    value, vjp = jax.vjp(lambda z: _apply(operation, z, targets, **options), logits)
    return value, vjp(jnp.ones_like(value))[0]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _jitted_vjp(operation, axis, keepdims, dtype, x, cotangent, where, temperature):
    third = temperature if keepdims is None else keepdims

    def function(z):
        return getattr(_softmax, operation)(_this, z, axis, where, third, dtype)

    value, pull = jax.vjp(function, x)
    return value, pull(cotangent.astype(value.dtype))[0]


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, jax.Array)  # not its typed literals, which NumPy's way serves


def is_array(value):
    return hasattr(value, "dtype")


def is_compiling():
    return False


def asarray(value, like):
    # Uncommitted, so that it follows the logits to their device.
    return jnp.asarray(value)


def unusable(x):
    return None


def device_of(x):
    return None


def visible(x):
    if isinstance(x, np.ndarray):  # a typed literal of JAX's own
        return np.asarray(x)
    if isinstance(x, jax.core.Tracer) or _device(x).platform != "cpu":
        return None
    return np.asarray(x)


def _device(x):
    return next(iter(x.devices()))


def shape(x):
    return x.shape


_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}


def kind(x):
    known = _KINDS.get(getattr(x.dtype, "kind", None))
    if known is None:  # a dtype of ml_dtypes, such as bfloat16 or int4, or a PRNG key
        families = (("float", jnp.floating), ("int", jnp.integer))
        known = next((name for name, of in families if jnp.issubdtype(x.dtype, of)), "other")
    return known


def as_dtype(dtype, like):
    dtype = jax.dtypes.canonicalize_dtype(jnp.dtype(dtype))
    if not (jnp.issubdtype(dtype, jnp.floating) and hasattr(jnp, dtype.name)):  # no float128
        raise TypeError(dtype)
    return dtype


# --- array functions for the loss family ----------------------------------------------------------
where = jnp.where
exp = jnp.exp
sum = jnp.sum
any = jnp.any
amax = jnp.max
ones_like = jnp.ones_like
permute = jnp.transpose
sigmoid = jax.nn.sigmoid
stop_gradient = lax.stop_gradient


def default_float(x):
    return jax.dtypes.canonicalize_dtype(np.float64)


def astype(x, dtype):
    return x.astype(dtype)


def _wide(dtype):
    return dtype if dtype == np.float64 else np.dtype(np.float32)


def compute(x):
    return x.astype(_wide(x.dtype))


def compute_like(x, logits):
    return jnp.asarray(x, _wide(logits.dtype))


def as_index(labels):
    index = jax.dtypes.canonicalize_dtype(np.int64)
    if jnp.issubdtype(labels.dtype, jnp.unsignedinteger):
        # 2**32 - 100 as int32 would be -100, and ignored.
        labels = jnp.minimum(labels, min(jnp.iinfo(labels.dtype).max, jnp.iinfo(index).max))
    return labels.astype(index)


def take(vector, labels):
    return vector.at[labels].get(mode="promise_in_bounds")


def length(x, axis, like):
    return x.shape[axis]


def size(x):
    return x.size


def broadcast_like(x, like):
    return jnp.broadcast_to(x, like.shape)


@jax.custom_jvp
def softplus(x):
    return jax.nn.softplus(x)


# jax.nn.softplus differentiates to exp(x - softplus(x)), which is |x| / 2 ULP off.
softplus.defjvps(lambda dx, _, x: dx * sigmoid(x))


@jax.custom_jvp
def expm1(x):
    return jnp.expm1(x)


# jnp.expm1 differentiates to expm1(x) + 1, which is rounded at 1 where e^x is small.
expm1.defjvps(lambda dx, _, x: dx * jnp.exp(x))


def merge_last(x, count):
    keep = x.ndim - count
    return x.reshape((*x.shape[:keep], prod(x.shape[keep:])))


def reshape_like(x, like):
    return x.reshape(like.shape)


# --- kernels --------------------------------------------------------------------------------------
def softmax_rows(x, axis, dtype):
    wide = compute(x)
    return jax.nn.softmax(wide, axis).astype(dtype)


def log_softmax_rows(x, axis, dtype):
    _, _, log_sum, top = _row_statistics(compute(x), axis, True, None, None, None)
    return (x - _softmax.expand(top, axis) - _softmax.expand(log_sum, axis)).astype(dtype)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    if weights is not None:
        weights = jnp.asarray(weights, _wide(x.dtype))
    return _row_statistics(compute(x), axis, False, labels, weights, skip)


# XLA's CPU fusions make one pass of sums over sub, mul, exp, floor, max and min, up to a result in
# the size of the logits: log-softmax of 4096 x 4096 is one kernel. A comparison or a select below a
# sum is first written out: at 4096 x 4096 the sum of exp(d) takes 5 ms, of where(d == 0, 0, exp(d))
# 35 ms. Hence arithmetic below. The barriers keep x - top from being shared between two sums, for
# which it would be written out, too.
@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _row_statistics(x, axis, whole, labels, weights, skip):
    """Return log p at the label, the dot product, log Σ e^(x-top) and top, each where asked for.

    `whole`: they go into a result in the size of the logits.
    """
    top = x.max(axis, keepdims=True)
    picked = dot = at_label = None
    if labels is not None:
        at_label = _pick(x, axis, labels) - top
    if _few(x, axis) or (whole and axis == x.ndim - 1 and x.shape[axis] <= _LONG):
        log_sum = _log_sum(x, axis, top)
    else:
        log_sum = _log_sum_unless_dominated(x, axis, top, at_label if weights is None else None)
    if labels is not None:
        picked = at_label - log_sum
    if weights is not None:
        dot = _dot(x, axis, weights, top, log_sum)
    rows = tuple(v if v is None else v.squeeze(axis) for v in (picked, dot, log_sum, top))
    if skip is not None:
        rows = tuple(v if v is None else jnp.where(skip, 0.0, v) for v in rows)
    return rows


def _few(x, axis):
    return x.shape[axis] <= (_FEW_LAST if axis == x.ndim - 1 else _FEW)


def _sums(terms, axis, *arrays):
    """Return the sums over the classes of the arrays that `terms` makes of `arrays`."""
    classes = arrays[0].shape[axis]

    def of(start, stop):
        part = (
            v if v.shape[axis] == 1 else lax.slice_in_dim(v, start, stop, axis=axis) for v in arrays
        )
        return terms(*part)

    def by_slices(width, stop):
        slices = [of(c, c + width) for c in range(0, stop, width)]
        return [reduce(add, column) for column in zip(*slices, strict=True)]

    if _few(arrays[0], axis):
        return by_slices(1, classes)
    if classes <= _LONG:
        return [v.sum(axis, keepdims=True) for v in terms(*arrays)]
    width, tail = divmod(classes, 8)
    # The select, of NaN for NaN, parts two fusions: else the slices are written out.
    totals = [
        jnp.where(v == v, v, jnp.nan).sum(axis, keepdims=True)
        for v in by_slices(width, classes - tail)
    ]
    rest = [v.sum(axis, keepdims=True) for v in of(classes - tail, classes)]
    return [add(*pair) for pair in zip(totals, rest, strict=True)]


def _log_sum(x, axis, top):
    """Return log Σ e^(x-top), with the digits of the sum beside one maximum."""
    others, maxima = _others_and_maxima(x, axis, top)
    return jnp.log1p(others + (maxima - 1.0))


def _others_and_maxima(x, axis, top):
    """Return Σ e^(x-top) without the maxima, and how many they are."""

    def terms(z):
        e = jnp.exp(z - top)
        ones = jnp.floor(e)  # 1 at a maximum, else 0
        return e - ones, ones

    return _sums(terms, axis, x)


def _log_sum_unless_dominated(x, axis, top, at_label):
    """Return the same, where one sum will do for rows that no class dominates.

    With `at_label` the digits are those that log p needs at the label.
    """
    total = jnp.exp(x - lax.optimization_barrier(top)).sum(axis, keepdims=True)
    # A second maximum makes the total 2 or more.
    dominated = total < 2
    if at_label is not None:
        dominated &= at_label == 0

    def both(x, top, total, dominated):
        others, _ = _others_and_maxima(x, axis, top)
        return jnp.where(dominated, jnp.log1p(others), jnp.log(total))

    def one(x, top, total, dominated):
        return jnp.log(total)

    return lax.cond(dominated.any(), both, one, x, top, total, dominated)


def _dot(x, axis, weights, top, log_sum):
    """Return Σ w log p, where 0 log 0 is 0."""
    if weights.ndim == 0:
        away = lax.optimization_barrier(top)
        (total,) = _sums(lambda z: (z - away,), axis, x)
        return jnp.where(weights == 0, 0.0, weights * (total - x.shape[axis] * log_sum))
    parts = (_finite_part, _lost_part)
    if _few(x, axis) or x.shape[axis] > _LONG:
        parts = (_finite_part_by_select, _lost_part_by_select)
    dot, lost = (_weighted_sum(part, x, axis, weights, top) for part in parts)
    dot = dot - _mass(x, axis, weights) * log_sum
    return jnp.where(lost == 0, dot, -jnp.inf * lost)


def _weighted_sum(part, x, axis, weights, top):
    away = lax.optimization_barrier(top)
    (total,) = _sums(lambda z, w: (part(w, z - away),), axis, x, weights)
    return total


def _finite_part(w, d):
    return w * jnp.maximum(d, jnp.finfo(d.dtype).min)


def _lost_part(w, d):
    # e^(d/2^126), 0 at -inf and at least 0.01 elsewhere, finds a weight on -inf.
    return w * jnp.maximum(0.01 - jnp.exp(d * jnp.finfo(d.dtype).tiny), 0.0)


def _finite_part_by_select(w, d):
    return jnp.where(d == -jnp.inf, 0.0, w * d)


def _lost_part_by_select(w, d):
    return jnp.where(d == -jnp.inf, w, 0.0)


def _mass(x, axis, weights):
    """Return Σ w."""
    if weights.ndim == 0:
        return weights * x.shape[axis]
    return weights.sum(axis, keepdims=True) * (x.shape[axis] // weights.shape[axis])


@partial(_row_statistics.defjvp, symbolic_zeros=True)
def _row_statistics_jvp(axis, whole, primals, tangents):
    x, labels, weights, skip = primals
    dx, _, dweights, _ = (None if isinstance(d, SymbolicZero) else d for d in tangents)
    rows = _row_statistics(x, axis, whole, labels, weights, skip)
    # Recomputed where they are needed: in eager mode p would be kept for the way back.
    moved = jax.checkpoint(_tangents, static_argnums=0, prevent_cse=False)
    d_picked, d_dot, d_log_sum = moved(axis, x, labels, weights, skip, rows, dx, dweights)
    return rows, (d_picked, d_dot, d_log_sum, jnp.zeros_like(rows[3]))


def _tangents(axis, x, labels, weights, skip, rows, dx, dweights):
    picked, _, log_sum, top = rows
    beside = None if labels is None else expm1(picked)
    # Arithmetic on rows is not to be repeated at each class.
    log_sum, top, labels, beside = lax.optimization_barrier((log_sum, top, labels, beside))
    log_p = x - _softmax.expand(top, axis) - _softmax.expand(log_sum, axis)
    dx = jnp.zeros_like(x) if dx is None else dx
    if skip is not None:
        kept = ~jnp.expand_dims(skip, axis)
        log_p, dx = jnp.where(kept, log_p, 0.0), jnp.where(kept, dx, 0.0)
    d_log_sum = (jnp.exp(log_p) * dx).sum(axis)
    d_picked = d_dot = None
    if labels is not None:
        # dx_y - Σ p dx, with 1 - p = -expm1(log p) at the label: saturated rows keep their digits.
        classes = _softmax.along(jnp.arange(x.shape[axis]), x.ndim, axis)
        at_label = classes == jnp.expand_dims(labels, axis)
        p = jnp.where(at_label, jnp.expand_dims(beside, axis), jnp.exp(log_p))
        d_picked = -(p * dx).sum(axis)
    if weights is not None:
        mass = _mass(x, axis, weights)
        mass = mass.squeeze(axis) if mass.ndim else mass
        d_dot = (weights * dx).sum(axis) - mass * d_log_sum
        if dweights is not None:
            d_dot = d_dot + _weighted(dweights, log_p, weights).sum(axis)
    return d_picked, d_dot, d_log_sum


def _pick(x, axis, labels):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds")


def _weighted(factor, log_p, weights=None):
    weights = factor if weights is None else weights
    return factor * jnp.where((weights == 0) & (log_p == -jnp.inf), 0.0, log_p)  # 0 log 0 = 0
