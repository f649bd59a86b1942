"""NumPy: kernels in blocks (`numpy_blocks`), derivatives written out."""

from __future__ import annotations

import builtins
import sys
from functools import partial
from math import prod
from types import SimpleNamespace

import numpy as np

from softmaxkit import _rows, _softmax
from softmaxkit.backends import numpy_blocks as blocks
from softmaxkit.backends import numpy_plain as plain
from softmaxkit.backends.numpy_blocks import silent, wide_dtype
from softmaxkit.backends.numpy_sums import ones

LIBRARY = "NumPy"

_this = sys.modules[__name__]

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


# --- operations -----------------------------------------------------------------------------------
@silent
def softmax(x, axis, where, temperature, dtype):
    if _is_small(x, axis, where, temperature, dtype):
        return blocks.small_rows(blocks.write_softmax, x)
    return _softmax.softmax(_this, x, axis, where, temperature, dtype)


@silent
def log_softmax(x, axis, where, temperature, dtype):
    if _is_small(x, axis, where, temperature, dtype):
        return blocks.small_rows(blocks.write_log_softmax, x)
    return _softmax.log_softmax(_this, x, axis, where, temperature, dtype)


@silent
def logsumexp(x, axis, where, keepdims, dtype):
    return _softmax.logsumexp(_this, x, axis, where, keepdims, dtype)


@silent
def cross_entropy(logits, targets, **options):
    return _loss("cross_entropy", _this, logits, targets, options)


@silent
def focal_loss(logits, targets, **options):
    return _loss("focal_loss", _this, logits, targets, options)


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
    # With more classes the rows' numbers are few beside the logits, and this was no faster:
    # (4096, 4096) took 25 ms so and 20 as a whole, focal (8, 21, 256, 256) 33 and 44.
    large = logits.size > blocks.BLOCK_ELEMENTS and "axis" in options
    if large and logits.shape[options["axis"]] <= blocks.FEW_CLASSES:
        count = _count_of_rows(logits, targets, options)
        if count is not None:
            return _by_blocks(
                getattr(_rows, operation), logits, targets, options | {"normalizer": count}
            )
    value, pull = _loss(operation, _once, logits, targets, options, gradient=True)
    return value, pull(logits, 1.0)


def _loss(operation, ops, logits, targets, options, gradient=False):
    if plain.is_plain(operation, logits, targets, options):
        return plain.loss(ops, logits, targets, options, gradient, keep=ops is _once)
    return getattr(_rows, operation)(ops, logits, targets, gradient=gradient, **options)


def _count_of_rows(logits, targets, options):
    """Return what the rows' sum is divided by, or None if it takes more than the options to tell.

    Also None where an option is an array laid along the rows, or the rows are what is asked for.
    """
    per_row = "sample_weight", "where", "ignore_index", "temperature", "dtype"
    if (
        options["reduction"] == "none"
        or logits.dtype != wide_dtype(logits.dtype)
        or builtins.any(options[name] is not None for name in per_row)
    ):
        return None
    if options["reduction"] == "sum":
        return 1.0
    normalizer = options["normalizer"]
    unweighted = kind(targets) == "int" and options.get("weight", options.get("alpha")) is None
    if normalizer == "count" or (normalizer == "weight" and unweighted):
        return float(logits.size // logits.shape[options["axis"]])
    return normalizer if type(normalizer) is float else None


def _by_blocks(loss, logits, targets, options):
    """Compute value and gradient of a block of rows while it is in the cache, and then the next.

    Nothing is kept of the rows but the sum of their losses.
    """
    layout = blocks.Layout(logits.shape, options["axis"], logits.dtype)
    out = np.empty(logits.shape, logits.dtype)
    x, gradient = logits.reshape(layout.full), out.reshape(layout.full)
    labels = kind(targets) == "int"
    given = targets.reshape(layout.per_row if labels else layout.full)
    options = options | {"axis": 1, "reduction": "mean"}
    values = {}

    def work(some, room):
        ops = SimpleNamespace(**vars(_once))
        for block in some:
            z, target, of_block = x[block], given[block], gradient[block]
            target = target[:, 0] if labels else target
            # A block of few classes that is not in one piece is (1, C, columns), as if turned over.
            ops.row_statistics = partial(blocks.statistics_kept, out=of_block, room=room)
            value, pull = loss(ops, z, target, gradient=True, **options)
            values[block[0].start, block[2].start] = float(value)
            pull(z, 1.0)

    layout.each(work)
    # In one order, whichever thread was first.
    return logits.dtype.type(builtins.sum(values[at] for at in sorted(values))), out


@silent
def value_and_pull(operation, logits, targets, options):
    """Return a loss, and a function of (logits, cotangent) that gives the logits' cotangent."""
    value, pull = _loss(operation, _this, logits, targets, options, gradient=True)
    return value, silent(pull)


def vjp(operation, x, cotangent, options):
    value = getattr(_this, operation)(x, *options)
    return value, pull(operation, value, x, cotangent, options)


@silent
def pull(operation, value, x, cotangent, options):
    # v - p Σ v cancels: in float32 it lost 3.9 ULP. What fits a cache is made in float64.
    wide = x.astype(_FLOAT64) if x.size <= blocks.BLOCK_ELEMENTS else x
    return astype(_softmax.pull(_this, operation, value, wide, cotangent, options), x.dtype)


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


def sum(x, axis):
    if axis is None and x.ndim == 1 and x.size <= blocks.FEW_CLASSES:
        return x.dot(ones(x.size, x.dtype))
    if type(axis) is not int or x.size <= blocks.SMALL_ELEMENTS or x.dtype != wide_dtype(x.dtype):
        return np.add.reduce(x, axis)
    return blocks.sum_classes(x, axis)


def size(x):
    return x.size


def default_float(x):
    return np.dtype(np.float64)


def astype(x, dtype):
    # np.float32(3).astype gives a NumPy scalar, so 0-d results are scalars as NumPy's own are.
    return x if x.dtype == dtype else x.astype(dtype)


def compute(x):
    return x.astype(wide_dtype(x.dtype), copy=False)


def compute_like(x, logits):
    return x.astype(wide_dtype(logits.dtype), copy=False)


weights_like = compute_like


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
