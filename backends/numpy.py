"""NumPy: kernels in blocks (`numpy_blocks`), derivatives written out."""

from __future__ import annotations

import sys
from math import prod
from types import SimpleNamespace

import numpy as np

from softmaxkit import _rows, _softmax
from softmaxkit.backends import numpy_blocks as blocks
from softmaxkit.backends.numpy_blocks import silent, wide_dtype

LIBRARY = "NumPy"

_this = sys.modules[__name__]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


# --- operations -----------------------------------------------------------------------------------
@silent
def softmax(x, axis, where, temperature, dtype):
    if _is_small(x, axis, where, temperature, dtype):
        out = x - np.maximum.reduce(x, axis, keepdims=True)
        np.exp(out, out=out)
        out /= np.add.reduce(out, axis, keepdims=True)
        return out
    return _softmax.softmax(_this, x, axis, where, temperature, dtype)


@silent
def log_softmax(x, axis, where, temperature, dtype):
    if _is_small(x, axis, where, temperature, dtype):
        out = np.empty(x.shape, x.dtype)
        by_rows = (-1, x.shape[axis], 1)
        blocks.write_log_softmax(x.reshape(by_rows), out.reshape(by_rows), blocks.fresh)
        return out
    return _softmax.log_softmax(_this, x, axis, where, temperature, dtype)


@silent
def logsumexp(x, axis, where, keepdims, dtype):
    return _softmax.logsumexp(_this, x, axis, where, keepdims, dtype)


@silent
def cross_entropy(logits, targets, **options):
    return _rows.cross_entropy(_this, logits, targets, **options)


@silent
def focal_loss(logits, targets, **options):
    return _rows.focal_loss(_this, logits, targets, **options)


@silent
def binary_cross_entropy(logits, targets, **options):
    return _rows.binary_cross_entropy(_this, logits, targets, **options)


@silent
def sigmoid_focal_loss(logits, targets, **options):
    return _rows.sigmoid_focal_loss(_this, logits, targets, **options)


@silent
def smooth_labels(targets, smoothing, axis, where):
    return _rows.smooth_labels(_this, targets, smoothing, axis, where)


def one_hot(labels, num_classes, axis, dtype, labels_checked):
    labels = np.expand_dims(labels, axis)
    classes = np.arange(num_classes).reshape((-1,) + (1,) * (labels.ndim - axis - 1))
    return (labels == classes).astype(default_float(labels) if dtype is None else dtype)


@silent
def value_and_grad(operation, logits, targets, options):
    value, pull = getattr(_rows, operation)(_once, logits, targets, gradient=True, **options)
    return value, pull(logits, 1.0)


@silent
def value_and_pull(operation, logits, targets, options):
    """Return a loss, and a function of (logits, cotangent) that gives the logits' cotangent."""
    value, pull = getattr(_rows, operation)(_this, logits, targets, gradient=True, **options)
    return value, silent(pull)


@silent
def vjp(operation, x, cotangent, options):
    return _softmax.vjp(_this, operation, x, cotangent, options)


def _is_small(x, axis, where, temperature, dtype):
    """Tell a call that needs no blocks and has no options, which are 3 µs of the 10 of (32, 10)."""
    return (
        0 < x.size <= blocks.SMALL_ELEMENTS
        and (x.dtype is _FLOAT32 or x.dtype is _FLOAT64)
        and axis == x.ndim - 1
        and where is temperature is dtype is None
    )


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


def shape(x):
    return x.shape


_KINDS = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}


def kind(x):
    return _KINDS.get(x.dtype.kind) or _kind_by_name(x.dtype)


def _kind_by_name(dtype):
    # Those of ml_dtypes, such as bfloat16 and int4, are NumPy's kind "V".
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


exp = np.exp
expm1 = np.expm1
any = np.any
amax = np.max
ones_like = np.ones_like
permute = np.transpose
size = np.size


def sum(x, axis):
    if type(axis) is not int or x.size < blocks.SHARED_ELEMENTS or x.dtype != wide_dtype(x.dtype):
        return np.add.reduce(x, axis)
    return blocks.sum_classes(x, axis)


def default_float(x):
    return np.dtype(np.float64)


def astype(x, dtype):
    # np.float32(3).astype gives a NumPy scalar, so 0-d results are scalars as NumPy's own are.
    return x if x.dtype == dtype else x.astype(dtype)


def compute(x):
    return x.astype(wide_dtype(x.dtype), copy=False)


def compute_like(x, logits):
    return x.astype(wide_dtype(logits.dtype), copy=False)


def as_index(labels):
    return labels.astype(np.int64, copy=False)


def stop_gradient(x):
    return x


def take(vector, labels):
    return vector[labels]


def length(x, axis, like):
    return x.shape[axis]


def broadcast_like(x, like):
    return np.broadcast_to(x, like.shape)


def merge_last(x, count):
    keep = x.ndim - count
    return x.reshape((*x.shape[:keep], prod(x.shape[keep:])))


def reshape_like(x, like):
    return x.reshape(like.shape)


def softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x):
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


# --- kernels --------------------------------------------------------------------------------------
softmax_rows = blocks.softmax_rows
log_softmax_rows = blocks.log_softmax_rows
row_statistics = blocks.row_statistics
row_gradient = blocks.row_gradient

# What value_and_grad, which wants one gradient at once, hands to the loss family.
_once = SimpleNamespace(**globals())
_once.row_statistics = blocks.statistics_kept
