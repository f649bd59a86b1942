"""Array-API libraries: what an array is, and the array functions of the loss family."""

from __future__ import annotations

import operator
from functools import cache
from math import isnan, isqrt, prod

import numpy as np
from array_api_compat import array_namespace, device, is_cupy_array, is_lazy_array, to_device

from softmaxkit import _axes


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, type(like))


def is_array(value):
    return hasattr(value, "dtype")


def is_compiling():
    return False


def asarray(value, like):
    if value.dtype == np.float64 and "float64" not in _floating(like):
        value = value.astype(np.float32)
    # MLX would convert NumPy's float64 to float32.
    dtype = like.dtype if str(like.dtype).endswith(f".{value.dtype}") else None
    return array_namespace(like).asarray(value, dtype=dtype, **placed(like))


def _floating(like):
    """Return the floating dtypes of the standard that the device of `like` has, by name."""
    info = array_namespace(like).__array_namespace_info__()
    return info.dtypes(kind="real floating", **placed(like))


def placed(like):
    """Return the `device=` argument for an array to be used with `like`; MLX has none."""
    return {} if _is_mlx(like) else {"device": device(like)}


def _is_mlx(x):
    return type(x).__module__ == "mlx.core"


# The functions of a library that are called without checking that they exist.
NEEDED = (
    "any", "arange", "argmax", "asarray", "astype", "broadcast_to", "exp", "expand_dims", "expm1",
    "finfo", "float32", "int64", "isdtype", "log1p", "max", "maximum", "ones_like", "permute_dims",
    "reshape", "squeeze", "sum", "take", "where", "__array_namespace_info__",
)  # fmt: skip


_complete = set()  # types of arrays whose library has all of them


def unusable(x):
    kind = type(x)
    if kind not in _complete:
        xp = array_namespace(x)
        lacking = ", ".join(name for name in NEEDED if not hasattr(xp, name))
        if lacking:
            name = f"{kind.__module__.partition('.')[0]}.{kind.__qualname__}"
            wanted = f"expected an array whose library has {lacking} of the array-API standard"
            return TypeError, f"is a {name}; {wanted}; convert it to a NumPy array"
        _complete.add(kind)
    return None


def device_of(x):
    return None


def visible(x):
    # A lazy array would have to be computed first, and for an array on a device the host would have
    # to wait. (MLX is lazy, and would compute the array to answer is_lazy_array.)
    if _is_mlx(x) or is_lazy_array(x) or "cpu" not in str(device(x)).lower():
        return None
    return np.asarray(x)


def has_values(x):
    return True


def is_accelerated(x):
    return not is_lazy_array(x) and "cpu" not in str(device(x)).lower()


def to_host(x):
    return np.asarray(to_device(x, "cpu") if is_cupy_array(x) else x)


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
    xp = array_namespace(like)
    known = _floating(like)
    # Beyond the standard, if the library has them.
    known |= {name: getattr(xp, name) for name in ("float16", "bfloat16") if hasattr(xp, name)}
    for name, one in known.items():
        if dtype == name if isinstance(dtype, str) else type(dtype) is type(one) and dtype == one:
            return one
    raise TypeError(dtype)


# --- array functions for the loss family ----------------------------------------------------------
def where(condition, a, b):
    xp = array_namespace(condition)
    like = a if hasattr(a, "dtype") else b
    dtype = like.dtype if hasattr(like, "dtype") else default_float(condition)
    here = placed(condition)
    a, b = (v if hasattr(v, "dtype") else xp.asarray(v, dtype=dtype, **here) for v in (a, b))
    return xp.where(condition, a, b)


def exp(x):
    xp = array_namespace(x)
    out = xp.exp(x)
    if _is_mlx(x):  # exp is |x| ULP off (in float64: 4e-7), expm1 one ULP; x <= 0
        out = out + xp.stop_gradient(1.0 / (xp.expm1(-x) + 1.0) - out)
    return out


def expm1(x):
    return array_namespace(x).expm1(x)


def log1p(x):
    return array_namespace(x).log1p(x)


equal = operator.eq


def maximum(a, b):
    return array_namespace(a).maximum(a, b)


def argmax(x, axis):
    xp = array_namespace(x)
    if 0 in x.shape:  # Dask and MLX have no argmax of an empty array
        return astype(xp.sum(x, axis=axis), "int64")
    return stop_gradient(xp.argmax(x, axis=axis))


def mean(x):
    return sum(x, None) / max(x.size, 1)


def sum(x, axis):
    xp = array_namespace(x)
    if _is_mlx(x):
        return _mlx_sum(xp, x, axis)
    if type(axis) is int and x.shape[axis] > _axes.SUM_CLASSES and not is_lazy_array(x):
        part = _divisor(x.shape[axis])
        x = xp.reshape(x, (*x.shape[:axis], -1, part, *x.shape[axis + 1 :]))
        x = xp.sum(x, axis=axis + 1)
    return xp.sum(x, axis=axis)


def _mlx_sum(xp, x, axis):
    """Sum in groups of eight, repeatedly: MLX adds in sequence, and 20,000 rows are 2e-4 off."""
    if axis is None:
        x, axis = xp.reshape(x, (-1,)), 0
    while type(axis) is int and x.shape[axis] > 8:
        each, left = divmod(x.shape[axis], 8)
        ends = [(slice(None),) * axis + (slice(*end),) for end in ((8 * each,), (8 * each, None))]
        eights = xp.reshape(x[ends[0]], (*x.shape[:axis], 8, each, *x.shape[axis + 1 :]))
        parts = xp.sum(eights, axis=axis)
        x = xp.concat([parts, x[ends[1]]], axis=axis) if left else parts
    return xp.sum(x, axis=axis)


@cache
def _divisor(length):
    """Return the largest divisor of `length` that is at most its square root."""
    return next(part for part in range(isqrt(length), 0, -1) if length % part == 0)


def any(x, axis):
    return array_namespace(x).any(x, axis=axis)


def amax(x, axis):
    xp = array_namespace(x)
    if 0 in x.shape:  # Dask and MLX have no maximum of an empty array
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


def reshape(x, shape):
    return array_namespace(x).reshape(x, tuple(shape))


def concat(parts):
    return array_namespace(parts[0]).concat(list(parts))


def reshape_like(x, like):
    return array_namespace(x).reshape(x, like.shape)


def default_float(x):
    info = array_namespace(x).__array_namespace_info__()
    return info.default_dtypes(**placed(x))["real floating"]


def astype(x, dtype):
    xp = array_namespace(x)
    dtype = getattr(xp, dtype) if isinstance(dtype, str) else dtype
    return x if x.dtype == dtype else xp.astype(x, dtype)


def compute(x):
    return compute_like(x, x)


def widest(x):
    return astype(x, _floating(x).get("float64", array_namespace(x).float32))


def compute_like(x, logits):
    xp = array_namespace(logits)
    return astype(x, logits.dtype if xp.finfo(logits.dtype).bits >= 32 else xp.float32)


weights_like = compute_like


def as_index(labels):
    if str(labels.dtype).endswith("uint64"):  # 2**64 - 100 as int64 would be -100, and ignored
        labels = where(labels > 2**62, 2**62, labels)
    return astype(labels, "int64")


def stop_gradient(x):
    return array_namespace(x).stop_gradient(x) if _is_mlx(x) else x


def take(vector, labels):
    xp = array_namespace(vector)
    if 0 in labels.shape:  # Dask does not reshape empty arrays
        return astype(labels, vector.dtype)
    return xp.reshape(xp.take(vector, xp.reshape(labels, (-1,)), axis=0), labels.shape)


def pick(x, labels, axis):
    xp = array_namespace(x)
    if hasattr(xp, "take_along_axis"):
        index = xp.expand_dims(labels, axis=axis)
        return xp.squeeze(xp.take_along_axis(x, index, axis=axis), axis=axis)
    return xp.sum(where(at_class(labels, x, axis), x, 0.0), axis=axis)  # Dask lacks take_along_axis


def at_class(labels, like, axis):
    xp = array_namespace(labels)
    index = xp.arange(like.shape[axis], dtype=labels.dtype, **placed(labels))
    return _axes.along(index, labels.ndim + 1, axis) == xp.expand_dims(labels, axis=axis)


def length(x, axis, like):
    return x.shape[axis]


def size(x):
    return prod(x.shape)


def broadcast_like(x, like):
    return array_namespace(x).broadcast_to(x, like.shape)


def softplus(x):
    xp = array_namespace(x)
    return where(x > 0, x, 0.0) + xp.log1p(exp(-abs(x)))


def sigmoid(x):
    small = exp(-abs(x))
    return where(x >= 0, 1.0, small) / (1.0 + small)
