"""JAX: what an array is, and the array functions of the loss family."""

from __future__ import annotations

from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# On the CPU a sum over all of so many numbers or more stands behind a condition: else XLA computes
# each number within the sum, one by one. Cross-entropy of 200000 x 10 took 53 ms, so 2; binary
# cross-entropy of 8192 x 1000 took 40, so 13. An optimization_barrier does not keep them apart.
APART = 4096


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
ones_like = jnp.ones_like
permute = jnp.transpose
sigmoid = jax.nn.sigmoid
stop_gradient = lax.stop_gradient


@jax.custom_jvp
def expm1(x):
    return jnp.expm1(x)


# jnp.expm1 differentiates to expm1(x) + 1, which is rounded at 1 where e^x is small.
expm1.defjvps(lambda dx, _, x: dx * jnp.exp(x))


def default_float(x):
    return jax.dtypes.canonicalize_dtype(np.float64)


def astype(x, dtype):
    return x.astype(dtype)


def wide_dtype(dtype):
    return dtype if dtype == np.float64 else np.dtype(np.float32)


def compute(x):
    return x.astype(wide_dtype(x.dtype))


def compute_like(x, logits):
    return jnp.asarray(x, wide_dtype(logits.dtype))


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
