"""JAX: what an array is, and the array functions of the loss family."""

from __future__ import annotations

import operator
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, reshard
from jax.sharding import PartitionSpec as P


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, jax.Array)  # JAX's typed literals are treated as NumPy's arrays


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
    if isinstance(x, np.ndarray):  # one of JAX's typed literals
        return np.asarray(x)
    if isinstance(x, jax.core.Tracer) or _device(x).platform != "cpu":
        return None
    return np.asarray(x)


def has_values(x):
    return not isinstance(x, jax.core.Tracer)


def is_accelerated(x):
    platform = jax.default_backend() if isinstance(x, jax.core.Tracer) else _device(x).platform
    return platform != "cpu"


def to_host(x):
    return np.asarray(x)


def _device(x):
    return next(iter(x.devices()))


def shape(x):
    return x.shape


same_length = operator.eq


_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}


def kind(x):
    known = _KINDS.get(getattr(x.dtype, "kind", None))
    if known is None:  # a dtype of ml_dtypes, such as bfloat16 or int4, or a PRNG key
        families = (("float", jnp.floating), ("int", jnp.integer))
        known = next((name for name, of in families if jnp.issubdtype(x.dtype, of)), "other")
    return known


def as_dtype(dtype, like):
    wanted = jnp.dtype(dtype)
    dtype = jax.dtypes.canonicalize_dtype(wanted)
    if dtype != wanted:
        jnp.zeros((), wanted)  # JAX warns that it has no 64-bit types
    if not (jnp.issubdtype(dtype, jnp.floating) and hasattr(jnp, dtype.name)):  # no float128
        raise TypeError(dtype)
    return dtype


def is_plain(x):
    """Return False for a symbolic shape (jax.export), and for an explicit sharding."""
    return sharding_of(x) is None and all(isinstance(n, int) for n in x.shape)


def sharding_of(x):
    """Return the sharding of `x` if it is part of its type, else None."""
    sharding = jax.typeof(x).sharding
    return sharding if AxisType.Explicit in sharding.mesh.axis_types else None


# --- array functions for the loss family ----------------------------------------------------------
def where(condition, a, b):
    if sharding_of(condition) is not None:
        condition, a, b = _laid_alike(condition, a, b)
    return jnp.where(condition, a, b)


def _laid_alike(*arrays):
    """Return arrays in their common shape and sharding, which jnp.where does not provide."""
    shape = jnp.broadcast_shapes(*map(jnp.shape, arrays))
    whole = [sharding_of(v) for v in arrays if is_array(v) and v.shape == shape]
    laid = [sharding for sharding in whole if sharding is not None]
    if not shape or not laid:
        return arrays
    sharding = max(laid, key=lambda one: len(one.spec) - one.spec.count(None))
    return [_laid(v, shape, sharding) if jnp.ndim(v) else v for v in arrays]


def _laid(x, shape, sharding):
    """Return `x` broadcast to a shape with a sharding."""
    own = zip(x.shape[::-1], shape[::-1], sharding.spec[::-1], strict=False)
    spec = [axis if n == of_all else None for n, of_all, axis in own]
    x = reshard(x, sharding.update(spec=P(*spec[::-1])))
    return jnp.broadcast_to(x, shape, out_sharding=sharding)


exp = jnp.exp
log1p = jnp.log1p
any = jnp.any
amax = jnp.max
argmax = jnp.argmax
maximum = jnp.maximum
ones_like = jnp.ones_like
permute = jnp.transpose
sigmoid = jax.nn.sigmoid
stop_gradient = lax.stop_gradient


@jax.custom_jvp
def expm1(x):
    return jnp.expm1(x)


# The derivative of jnp.expm1 is expm1(x) + 1, which loses the digits of a small e^x.
expm1.defjvps(lambda dx, _, x: dx * jnp.exp(x))


def default_float(x):
    return jax.dtypes.canonicalize_dtype(np.float64)


def astype(x, dtype):
    return x.astype(dtype)


def wide_dtype(dtype):
    return dtype if dtype == np.float64 else np.dtype(np.float32)


def compute(x):
    return x.astype(wide_dtype(x.dtype))


def widest(x):
    return x.astype(jax.dtypes.canonicalize_dtype(np.float64))


def compute_like(x, logits):
    return jnp.asarray(x, wide_dtype(logits.dtype))


weights_like = compute_like


def equal(a, b):
    if type(b) is int and jnp.issubdtype(a.dtype, jnp.integer):
        info = jnp.iinfo(a.dtype)
        if not info.min <= b <= info.max:  # without 64-bit types: ignore_index=2**40
            return jnp.zeros_like(a, bool)
    return a == b


def as_index(labels):
    index = jax.dtypes.canonicalize_dtype(np.int64)
    if jnp.issubdtype(labels.dtype, jnp.unsignedinteger):
        # 2**32 - 100 as int32 would be -100, and ignored.
        labels = jnp.minimum(labels, min(jnp.iinfo(labels.dtype).max, jnp.iinfo(index).max))
    return labels.astype(index)


def take(vector, labels):
    return vector.at[labels].get(mode="promise_in_bounds", out_sharding=sharding_of(labels))


def pick(x, labels, axis):
    if sharding_of(x) is not None:  # the class may lie on another device
        return jnp.sum(where(at_class(labels, x, axis), x, 0), axis)
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds").squeeze(axis)


def at_class(labels, like, axis):
    return class_numbers(labels.dtype, like, axis) == jnp.expand_dims(labels, axis)


def class_numbers(dtype, like, axis):
    """Return the class index of each logit."""
    return lax.broadcasted_iota(dtype, like.shape, axis, out_sharding=sharding_of(like))


def length(x, axis, like):
    return _number(x.shape[axis], like)


def size(x):
    return _number(x.size, x)


def _number(count, like):
    return count if isinstance(count, int) else jnp.asarray(count, like.dtype)  # a symbol


def broadcast_like(x, like):
    sharding = sharding_of(like)
    if sharding is not None:
        return _laid(x, like.shape, sharding)
    return jnp.broadcast_to(x, like.shape)


@jax.custom_jvp
def softplus(x):
    return jax.nn.softplus(x)


# The derivative of jax.nn.softplus is exp(x - softplus(x)), which is |x| / 2 ULP off.
softplus.defjvps(lambda dx, _, x: dx * sigmoid(x))


def sum(x, axis):
    if axis is None and is_plain(x) and x.size:
        return lax.platform_dependent(x, cpu=_sum_apart, default=jnp.sum)
    return jnp.sum(x, axis)


def mean(x):
    return sum(x, None) / max(x.size, 1.0)


# The sum stands behind a condition: otherwise XLA computes each number inside the sum, one by one.
# Binary cross-entropy of 8192 x 1000: 135 -> 50 ms. An optimization_barrier does not help.
def _sum_apart(x):
    first = lax.stop_gradient(x.reshape(-1)[0])
    return lax.cond(first == first, jnp.sum, lambda x: jnp.sum(x) + first, x)  # False only for NaN


def merge_last(x, count):
    keep = x.ndim - count
    sharding = sharding_of(x)
    if sharding is not None:  # each device gets all of the merged axis
        sharding = sharding.update(spec=P(*sharding.spec[:keep], None))
    shape = (*x.shape[:keep], prod(x.shape[keep:]))
    return lax.reshape(x, shape, out_sharding=sharding)


def reshape(x, shape):
    return jnp.reshape(x, shape)


concat = jnp.concatenate


def reshape_like(x, like):
    return lax.reshape(x, like.shape, out_sharding=sharding_of(like))
