"""NumPy: what an array is, and the array functions of the loss family."""

from __future__ import annotations

import operator
from math import prod

import numpy as np

from softmaxkit import _axes
from softmaxkit.backends.numpy import blocks
from softmaxkit.backends.numpy.blocks import wide_dtype


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return type(value) is np.ndarray and value.dtype.kind in "fiub"


def is_array(value):
    return hasattr(value, "dtype")


def is_compiling():
    return False


def asarray(value, like):
    return value


def unusable(x):
    return None


def device_of(x):
    return None


def visible(x):
    return x


def has_values(x):
    return True


def is_accelerated(x):
    return False


def to_host(x):
    return x


def shape(x):
    return x.shape


same_length = operator.eq


_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}


def kind(x):
    return _KINDS.get(x.dtype.kind) or _kind_by_name(x.dtype)


def _kind_by_name(dtype):
    # The dtypes of ml_dtypes, such as bfloat16 and int4, have NumPy's kind "V".
    if dtype.name.startswith(("float", "bfloat")):
        return "float"
    return "int" if dtype.name.startswith(("int", "uint")) else "other"


def as_dtype(dtype, like):
    dtype = np.dtype(dtype)
    if dtype.kind != "f" and _kind_by_name(dtype) != "float":
        raise TypeError(dtype)
    return dtype


# --- array functions for the loss family ----------------------------------------------------------
def where(condition, a, b):
    if type(b) is float and hasattr(a, "dtype"):
        b = np.asarray(b, a.dtype)  # NumPy promotes bfloat16 and a Python float to float64
    return np.where(condition, a, b)


equal = operator.eq
exp = np.exp
expm1 = np.expm1
log1p = np.log1p
any = np.any
amax = np.max
argmax = np.argmax
maximum = np.maximum
ones_like = np.ones_like
permute = np.transpose


def sum(x, axis):
    if type(axis) is not int or x.size <= blocks.SMALL_ELEMENTS or x.dtype != wide_dtype(x.dtype):
        return np.add.reduce(x, axis)
    return blocks.sum_classes(x, axis)


def mean(x):
    return np.add.reduce(x, None) / max(x.size, 1)


def size(x):
    return x.size


def default_float(x):
    return np.dtype(np.float64)


def astype(x, dtype):
    # np.float32(3).astype returns a NumPy scalar, so 0-d results are scalars, like NumPy's own.
    return x if x.dtype == dtype else x.astype(dtype)


def compute(x):
    return x.astype(wide_dtype(x.dtype), copy=False)


def widest(x):
    return x.astype(np.float64, copy=False)


def compute_like(x, logits):
    return x.astype(wide_dtype(logits.dtype), copy=False)


weights_like = compute_like


def as_index(labels):
    return labels.astype(np.int64, copy=False)


def stop_gradient(x):
    return x


def take(vector, labels):
    return vector[labels]


def pick(x, labels, axis):
    return np.take_along_axis(x, np.expand_dims(labels, axis), axis).squeeze(axis)


def at_class(labels, like, axis):
    index = np.arange(like.shape[axis])
    return _axes.along(index, like.ndim, axis) == np.expand_dims(labels, axis)


def length(x, axis, like):
    return x.shape[axis]


def broadcast_like(x, like):
    return np.broadcast_to(x, like.shape)


def merge_last(x, count):
    keep = x.ndim - count
    return x.reshape((*x.shape[:keep], prod(x.shape[keep:])))


def reshape(x, shape):
    return x.reshape(shape)


concat = np.concatenate


def reshape_like(x, like):
    return x.reshape(like.shape)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)
