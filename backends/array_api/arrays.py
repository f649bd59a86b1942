"""Array-API libraries: what an array is, and the array functions of the loss family."""

from __future__ import annotations

import operator
from functools import cache
from math import isnan, isqrt, prod

import numpy as np
from array_api_compat import array_namespace, device, is_lazy_array

from softmaxkit import _axes


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, type(like))


def is_array(value):
    return hasattr(value, "dtype")


def is_compiling():
    return False


def asarray(value, like):
    return array_namespace(like).asarray(value, device=device(like))


def unusable(x):
    if all(n == n for n in x.shape):  # Dask writes NaN for what it does not know yet
        return None
    remedy = "expected a known shape; call its compute_chunk_sizes()"
    return ValueError, f"has unknown chunk sizes; {remedy}"


def device_of(x):
    return None


def visible(x):
    # What is lazy would have to compute first, and what is elsewhere would have to be waited for.
    if is_lazy_array(x) or "cpu" not in str(device(x)).lower():
        return None
    return np.asarray(x)


def shape(x):
    return tuple(None if n is None or isnan(n) else n for n in x.shape)


same_length = operator.eq


_KINDS = {
    "bool": "bool",
    "integral": "int",
    "real floating": "float",
    "complex floating": "complex",
}


def kind(x):
    xp = array_namespace(x)
    for name, answer in _KINDS.items():
        if xp.isdtype(x.dtype, name):
            return answer
    return "other"


def as_dtype(dtype, like):
    info = array_namespace(like).__array_namespace_info__()
    known = info.dtypes(kind="real floating", device=device(like))
    for name, one in known.items():
        if dtype == name if isinstance(dtype, str) else type(dtype) is type(one) and dtype == one:
            return one
    raise TypeError(dtype)


# --- array functions for the loss family ----------------------------------------------------------
def where(condition, a, b):
    xp = array_namespace(condition)
    like = a if hasattr(a, "dtype") else b
    dtype = like.dtype if hasattr(like, "dtype") else default_float(condition)
    a, b = (v if hasattr(v, "dtype") else xp.asarray(v, dtype=dtype) for v in (a, b))
    return xp.where(condition, a, b)


def exp(x):
    return array_namespace(x).exp(x)


def expm1(x):
    return array_namespace(x).expm1(x)


def log1p(x):
    return array_namespace(x).log1p(x)


equal = operator.eq


def maximum(a, b):
    return array_namespace(a).maximum(a, b)


def argmax(x, axis):
    xp = array_namespace(x)
    if 0 in x.shape:  # nor a place of it
        return astype(xp.sum(x, axis=axis), "int64")
    return xp.argmax(x, axis=axis)


def mean(x):
    return array_namespace(x).sum(x) / max(x.size, 1)


def sum(x, axis):
    xp = array_namespace(x)
    if type(axis) is int and x.shape[axis] > _axes.SUM_CLASSES and not is_lazy_array(x):
        part = _divisor(x.shape[axis])
        x = xp.reshape(x, (*x.shape[:axis], -1, part, *x.shape[axis + 1 :]))
        x = xp.sum(x, axis=axis + 1)
    return xp.sum(x, axis=axis)


@cache
def _divisor(length):
    """Return the divisor of `length` nearest to its root from below."""
    return next(part for part in range(isqrt(length), 0, -1) if length % part == 0)


def any(x, axis):
    return array_namespace(x).any(x, axis=axis)


def amax(x, axis):
    xp = array_namespace(x)
    if 0 in x.shape:  # Dask has no maximum of nothing
        return xp.sum(x, axis=axis)
    return xp.max(x, axis=axis)


def ones_like(x):
    return array_namespace(x).ones_like(x)


def permute(x, order):
    return array_namespace(x).permute_dims(x, tuple(order))


def merge_last(x, count):
    return array_namespace(x).reshape(
        x, (*x.shape[: x.ndim - count], prod(x.shape[x.ndim - count :]))
    )


def reshape_like(x, like):
    return array_namespace(x).reshape(x, like.shape)


def default_float(x):
    info = array_namespace(x).__array_namespace_info__()
    return info.default_dtypes(device=device(x))["real floating"]


def astype(x, dtype):
    xp = array_namespace(x)
    return xp.astype(x, getattr(xp, dtype) if isinstance(dtype, str) else dtype, copy=False)


def compute(x):
    return compute_like(x, x)


def compute_like(x, logits):
    xp = array_namespace(logits)
    return astype(x, logits.dtype if xp.finfo(logits.dtype).bits >= 32 else xp.float32)


weights_like = compute_like


def as_index(labels):
    if str(labels.dtype).endswith("uint64"):  # 2**64 - 100 as int64 would be -100, and ignored
        labels = where(labels > 2**62, 2**62, labels)
    return astype(labels, "int64")


def stop_gradient(x):
    return x


def take(vector, labels):
    xp = array_namespace(vector)
    if 0 in labels.shape:  # which Dask does not reshape
        return astype(labels, vector.dtype)
    return xp.reshape(xp.take(vector, xp.reshape(labels, (-1,)), axis=0), labels.shape)


def pick(x, labels, axis):
    xp = array_namespace(x)
    if hasattr(xp, "take_along_axis"):
        index = xp.expand_dims(labels, axis=axis)
        return xp.squeeze(xp.take_along_axis(x, index, axis=axis), axis=axis)
    return xp.sum(where(at_class(labels, x, axis), x, 0.0), axis=axis)  # Dask has none


def at_class(labels, like, axis):
    xp = array_namespace(labels)
    index = xp.arange(like.shape[axis], dtype=labels.dtype, device=device(labels))
    return _axes.along(index, labels.ndim + 1, axis) == xp.expand_dims(labels, axis=axis)


def length(x, axis, like):
    return x.shape[axis]


def size(x):
    return prod(x.shape)


def broadcast_like(x, like):
    return array_namespace(x).broadcast_to(x, like.shape)


def softplus(x):
    xp = array_namespace(x)
    return where(x > 0, x, 0.0) + xp.log1p(xp.exp(-abs(x)))


def sigmoid(x):
    small = exp(-abs(x))
    return where(x >= 0, 1.0, small) / (1.0 + small)
