"""JAX: row statistics with a custom_jvp rule, each operation jitted once for its static options."""

from __future__ import annotations

import sys
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from softmaxkit import _rows, _softmax

LIBRARY = "JAX"

_this = sys.modules[__name__]

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
stop_gradient = jax.lax.stop_gradient


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
    _, _, log_sum, top = row_statistics(x, axis, None, None, None)
    return (x - _softmax.expand(top, axis) - _softmax.expand(log_sum, axis)).astype(dtype)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    if weights is not None:
        weights = jnp.asarray(weights, _wide(x.dtype))
    return _row_statistics(compute(x), axis, labels, weights, skip)


# XLA's CPU fusions make one pass of a sum over sub, mul, exp, floor, max and min. A comparison, a
# select or a conversion below a sum is first written out in the size of the logits, and so is what
# two sums share: at 4096 x 4096 the sum of exp(d) takes 5 ms, of where(d == 0, 0, exp(d)) 35 ms.
# Hence arithmetic below, and the barriers.
@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _row_statistics(x, axis, labels, weights, skip):
    top = x.max(axis, keepdims=True)
    picked = dot = None
    if labels is not None and (weights is None or weights.ndim == 0):
        log_sum, picked = _beside_label(x, axis, labels, top)
    else:
        log_sum = _log_sum(x, axis, top)
        if labels is not None:
            picked = _pick(x, axis, labels) - top - log_sum
    if weights is not None:
        dot = _dot(x, axis, weights, top, log_sum)
    rows = tuple(v if v is None else v.squeeze(axis) for v in (picked, dot, log_sum, top))
    if skip is not None:
        rows = tuple(v if v is None else jnp.where(skip, 0.0, v) for v in rows)
    return rows


def _log_sum(x, axis, top):
    """Return log Σ e^(x-top), from the sum without the maximum where that is most of it."""
    e = jnp.exp(x - top)
    others = (e - jnp.floor(e)).sum(axis, keepdims=True)  # 0 at the maximum
    total = jnp.exp(x - jax.lax.optimization_barrier(top)).sum(axis, keepdims=True)
    # Two maxima make the total 2 or more.
    return jnp.where(total < 2, jnp.log1p(others), jnp.log(total))


def _beside_label(x, axis, labels, top):
    """Return log Σ e^(x-top), and log p at the label, from the sum without the label.

    One pass less than `_log_sum`. Where the label is no maximum, p ≤ 1/2 and log p ≤ -log 2: the
    digits that 1 + Σ loses are none of its.
    """
    # Floats count classes exactly to 2**24.
    exact = x.dtype if x.shape[axis] <= 1 << 24 else np.int32
    classes = _softmax.along(jnp.arange(x.shape[axis], dtype=exact), x.ndim, axis)
    away = abs(classes - jnp.expand_dims(labels, axis).astype(exact))
    elsewhere = jnp.minimum(away, 1).astype(x.dtype)  # 0 at the label, else 1
    others = (jnp.exp(x - top) * elsewhere).sum(axis, keepdims=True)
    at_label = _pick(x, axis, labels) - top
    log_sum = jnp.where(at_label == 0, jnp.log1p(others), jnp.log(others + jnp.exp(at_label)))
    return log_sum, at_label - log_sum


def _dot(x, axis, weights, top, log_sum):
    """Return Σ w log p, where 0 log 0 is 0."""
    top = jax.lax.optimization_barrier(top)
    if weights.ndim == 0:
        total = (x - top).sum(axis, keepdims=True) - x.shape[axis] * log_sum
        return jnp.where(weights == 0, 0.0, weights * total)
    d = jnp.maximum(x - top, jnp.finfo(x.dtype).min)
    dot = (weights * d).sum(axis, keepdims=True)
    mass = jnp.broadcast_to(weights, x.shape).sum(axis, keepdims=True)
    # e^(d/2^126), 0 at -inf and at least 0.01 elsewhere, finds a weight on -inf.
    small = jnp.exp((x - jax.lax.optimization_barrier(top)) * jnp.finfo(x.dtype).tiny)
    lost = (weights * jnp.maximum(0.01 - small, 0.0)).sum(axis, keepdims=True)
    return jnp.where(lost == 0, dot - mass * log_sum, -jnp.inf * lost)


@partial(_row_statistics.defjvp, symbolic_zeros=True)
def _row_statistics_jvp(axis, primals, tangents):
    x, labels, weights, skip = primals
    dx, _, dweights, _ = tangents
    rows = _row_statistics(x, axis, labels, weights, skip)
    picked, _, log_sum, top = rows
    beside = None if labels is None else expm1(picked)
    # Arithmetic on rows is not to be repeated at each class.
    log_sum, top, labels, beside = jax.lax.optimization_barrier((log_sum, top, labels, beside))
    log_p = x - _softmax.expand(top, axis) - _softmax.expand(log_sum, axis)
    dx = jnp.zeros_like(x) if isinstance(dx, SymbolicZero) else dx
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
        d_dot = (weights * (dx - _softmax.expand(d_log_sum, axis))).sum(axis)
        if not isinstance(dweights, SymbolicZero):
            d_dot = d_dot + _weighted(dweights, log_p, weights).sum(axis)
    return rows, (d_picked, d_dot, d_log_sum, jnp.zeros_like(rows[3]))


def _pick(x, axis, labels):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds")


def _weighted(factor, log_p, weights=None):
    weights = factor if weights is None else weights
    return factor * jnp.where((weights == 0) & (log_p == -jnp.inf), 0.0, log_p)  # 0 log 0 = 0
