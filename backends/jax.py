"""JAX: row statistics with a custom_jvp rule, each operation jitted once for its static options."""

from __future__ import annotations

import sys
from functools import partial
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from softmaxkit import _activations, _losses
from softmaxkit.backends import ActivationOptions, BinaryOptions, ClassOptions
from softmaxkit.backends import jax_rows as kernels

LIBRARY = "JAX"

_this = sys.modules[__name__]

# On the CPU a sum over all of so many numbers or more stands behind a condition: else XLA computes
# each number within the sum, one by one. Cross-entropy of 200000 x 10 took 53 ms, so 2; binary
# cross-entropy of 8192 x 1000 took 40, so 13. An optimization_barrier does not keep them apart.
APART = 4096

_STATIC = ("axis", "gamma", "ignore_index", "reduction", "normalizer", "dtype", "labels_checked")


# --- operations -----------------------------------------------------------------------------------
@partial(jax.jit, static_argnums=(1, 4))
def softmax(x, axis, where, temperature, dtype):
    options = ActivationOptions(axis, where, temperature, dtype)
    return _activations.softmax(_this, kernels, x, options)


@partial(jax.jit, static_argnums=(1, 4))
def log_softmax(x, axis, where, temperature, dtype):
    options = ActivationOptions(axis, where, temperature, dtype)
    return _activations.log_softmax(_this, kernels, x, options)


@partial(jax.jit, static_argnums=(1, 3, 4))
def logsumexp(x, axis, where, keepdims, dtype):
    options = ActivationOptions(axis, where, None, dtype, keepdims)
    return _activations.logsumexp(_this, kernels, x, options)


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
    return _losses.smooth_labels(_this, targets, smoothing, axis, where)


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
    options |= traced
    if operation == "focal_loss":
        options["weight"] = options.pop("alpha")
    is_binary = operation in ("binary_cross_entropy", "sigmoid_focal_loss")
    options = (BinaryOptions if is_binary else ClassOptions)(**options)
    return _losses.loss(_this, kernels, logits, targets, options)[0]


@partial(jax.jit, static_argnums=0, static_argnames=_STATIC)
def _jitted(operation, logits, targets, **options):
    return _apply(operation, logits, targets, **options)


@partial(jax.jit, static_argnums=0, static_argnames=_STATIC)
def _jitted_value_and_grad(operation, logits, targets, **options):
    value, vjp = jax.vjp(lambda z: _apply(operation, z, targets, **options), logits)
    return value, vjp(jnp.ones_like(value))[0]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _jitted_vjp(operation, axis, keepdims, dtype, x, cotangent, where, temperature):
    options = ActivationOptions(axis, where, temperature, dtype, bool(keepdims))

    def function(z):
        return getattr(_activations, operation)(_this, kernels, z, options)

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
log1p = jnp.log1p
any = jnp.any
amax = jnp.max
argmax = jnp.argmax
maximum = jnp.maximum
expm1 = kernels.expm1
ones_like = jnp.ones_like
permute = jnp.transpose
sigmoid = jax.nn.sigmoid
stop_gradient = lax.stop_gradient


def default_float(x):
    return jax.dtypes.canonicalize_dtype(np.float64)


def astype(x, dtype):
    return x.astype(dtype)


compute = kernels.compute


def compute_like(x, logits):
    return jnp.asarray(x, kernels.wide_dtype(logits.dtype))


weights_like = compute_like


def as_index(labels):
    index = jax.dtypes.canonicalize_dtype(np.int64)
    if jnp.issubdtype(labels.dtype, jnp.unsignedinteger):
        # 2**32 - 100 as int32 would be -100, and ignored.
        labels = jnp.minimum(labels, min(jnp.iinfo(labels.dtype).max, jnp.iinfo(index).max))
    return labels.astype(index)


def take(vector, labels):
    return vector.at[labels].get(mode="promise_in_bounds")


def pick(x, labels, axis):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds").squeeze(axis)


def at_class(labels, like, axis):
    index = lax.broadcasted_iota(labels.dtype, like.shape, axis)
    return index == jnp.expand_dims(labels, axis)


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


def sum(x, axis):
    if axis is None and isinstance(x.size, int) and x.size >= APART:  # jax.export: symbolic ones
        return lax.platform_dependent(x, cpu=_sum_apart, default=jnp.sum)
    return jnp.sum(x, axis)


def mean(x):
    return sum(x, None) / max(x.size, 1.0)


def _sum_apart(x):
    first = lax.stop_gradient(x.reshape(-1)[0])
    return lax.cond(first == first, jnp.sum, lambda x: jnp.sum(x) + first, x)  # else NaN


def merge_last(x, count):
    keep = x.ndim - count
    return x.reshape((*x.shape[:keep], prod(x.shape[keep:])))


def reshape_like(x, like):
    return x.reshape(like.shape)
