"""NumPy: rows in blocks that stay in the L2 cache, in-place ufuncs, derivatives written out."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import prod

import numpy as np

from softmaxkit import _rows, _softmax

LIBRARY = "NumPy"

_this = sys.modules[__name__]

# A block of logits and its scratch copy stay in a 1 MiB L2 cache.
BLOCK_ELEMENTS = 1 << 16
# Below this many classes a reduction along short rows costs more than transposing the block:
# (200000, 10) softmax took 23 ms by rows and 5 ms by classes.
FEW_CLASSES = 64

_silent = np.errstate(all="ignore")  # inf - inf, log 0 and underflow are results here, not news


# --- operations -----------------------------------------------------------------------------------
@_silent
def softmax(x, axis, where, temperature, dtype):
    return _softmax.softmax(_this, x, axis, where, temperature, dtype)


@_silent
def log_softmax(x, axis, where, temperature, dtype):
    return _softmax.log_softmax(_this, x, axis, where, temperature, dtype)


@_silent
def logsumexp(x, axis, where, keepdims, dtype):
    return _softmax.logsumexp(_this, x, axis, where, keepdims, dtype)


@_silent
def cross_entropy(logits, targets, **options):
    return _rows.cross_entropy(_this, logits, targets, **options)


@_silent
def focal_loss(logits, targets, **options):
    return _rows.focal_loss(_this, logits, targets, **options)


@_silent
def binary_cross_entropy(logits, targets, **options):
    return _rows.binary_cross_entropy(_this, logits, targets, **options)


@_silent
def sigmoid_focal_loss(logits, targets, **options):
    return _rows.sigmoid_focal_loss(_this, logits, targets, **options)


@_silent
def smooth_labels(targets, smoothing, axis, where):
    return _rows.smooth_labels(_this, targets, smoothing, axis, where)


def one_hot(labels, num_classes, axis, dtype, labels_checked):
    labels = np.expand_dims(labels, axis)
    classes = np.arange(num_classes).reshape((-1,) + (1,) * (labels.ndim - axis - 1))
    return (labels == classes).astype(default_float(labels) if dtype is None else dtype)


def value_and_grad(operation, logits, targets, options):
    value, pull = value_and_pull(operation, logits, targets, options)
    return value, pull(logits, 1.0)


@_silent
def value_and_pull(operation, logits, targets, options):
    """Return a loss, and a function of (logits, cotangent) that gives the logits' cotangent."""
    value, pull = getattr(_rows, operation)(_this, logits, targets, gradient=True, **options)
    return value, _silent(pull)


@_silent
def vjp(operation, x, cotangent, options):
    return _softmax.vjp(_this, operation, x, cotangent, options)


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
sum = np.sum
any = np.any
amax = np.max
ones_like = np.ones_like
permute = np.transpose
size = np.size


def default_float(x):
    return np.dtype(np.float64)


def astype(x, dtype):
    # np.float32(3).astype gives a NumPy scalar, so 0-d results are scalars as NumPy's own are.
    return x.astype(dtype, copy=False)


def _wide(dtype):
    return dtype if dtype.kind == "f" and dtype.itemsize >= 4 else np.dtype(np.float32)


def compute(x):
    return x.astype(_wide(x.dtype), copy=False)


def compute_like(x, logits):
    return x.astype(_wide(logits.dtype), copy=False)


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
# The logits are seen as (outer, C, inner). A block is a range of outer and one of inner; in scratch
# it is (rows, C), or (C, rows) where that reduces faster.
Block = tuple[slice, slice]


class _Layout:
    """How the rows of `x` along `axis` are cut into blocks."""

    def __init__(self, x: np.ndarray, axis: int):
        self.classes = x.shape[axis]
        self.outer, self.inner = prod(x.shape[:axis]), prod(x.shape[axis + 1 :])
        self.full = (self.outer, self.classes, self.inner)
        self.row_shape = x.shape[:axis] + x.shape[axis + 1 :]
        self.class_axis = 1 if self.inner == 1 and self.classes > FEW_CLASSES else 0

    def blocks(self) -> Iterator[Block]:
        rows = max(BLOCK_ELEMENTS // max(self.classes, 1), 1 if self.inner == 1 else 16)
        inner = max(min(rows, self.inner), 1)
        outer = max(rows // inner, 1)
        for o in range(0, self.outer, outer):
            for i in range(0, self.inner, inner):
                yield slice(o, o + outer), slice(i, i + inner)

    def load(self, x: np.ndarray, block: Block, dtype: np.dtype) -> np.ndarray:
        """Copy a block of an array of the logits' shape into scratch."""
        view = x.reshape(self.full)[block[0], :, block[1]]
        if self.class_axis == 1:
            return view[:, :, 0].astype(dtype, order="C")
        by_class = np.empty((view.shape[1], view.shape[0], view.shape[2]), dtype)
        by_class[...] = view.transpose(1, 0, 2)
        return by_class.reshape(self.classes, -1)

    def store(self, out: np.ndarray, block: Block, z: np.ndarray) -> None:
        view = out.reshape(self.full)[block[0], :, block[1]]
        if self.class_axis == 1:
            view[:, :, 0] = z
        else:
            by_class = (view.shape[1], view.shape[0], view.shape[2])
            view[...] = z.reshape(by_class).transpose(1, 0, 2)

    def rows(self, values: np.ndarray, block: Block) -> np.ndarray:
        """Return the block's part of one number per row, with a class axis of length 1."""
        part = values.reshape(self.outer, self.inner)[block].reshape(-1)
        return np.expand_dims(part, self.class_axis)

    def store_rows(self, out: np.ndarray, block: Block, values: np.ndarray) -> None:
        view = out.reshape(self.outer, self.inner)[block]
        view[...] = values.reshape(view.shape)


def softmax_rows(x, axis, dtype):
    def kernel(z, class_axis):
        z -= z.max(class_axis, keepdims=True)
        np.exp(z, out=z)
        z /= _sum(z, class_axis)
        return z

    return _map_rows(kernel, x, axis, dtype)


def log_softmax_rows(x, axis, dtype):
    def kernel(z, class_axis):
        z -= z.max(class_axis, keepdims=True)
        z -= _log_sum(z, class_axis)
        return z

    return _map_rows(kernel, x, axis, dtype)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    wide = _wide(x.dtype)
    layout = _Layout(x, axis)
    top, log_sum = np.empty(layout.row_shape, wide), np.empty(layout.row_shape, wide)
    dot = picked = None
    if weights is not None:
        dot = np.empty(layout.row_shape, wide)
        weights = np.broadcast_to(weights, x.shape)
    for block in layout.blocks():
        z = layout.load(x, block, wide)
        top_n = z.max(layout.class_axis, keepdims=True)
        z -= top_n
        log_sum_n = _log_sum(z, layout.class_axis)
        layout.store_rows(top, block, top_n)
        layout.store_rows(log_sum, block, log_sum_n)
        if dot is not None:
            z -= log_sum_n
            w = layout.load(weights, block, wide)
            np.copyto(z, 0, where=(w == 0) & (z == -np.inf))  # 0 log 0 = 0
            z *= w
            layout.store_rows(dot, block, _sum(z, layout.class_axis))
    if labels is not None:
        at_label = np.take_along_axis(x, np.expand_dims(labels, axis), axis).squeeze(axis)
        picked = np.asarray(at_label.astype(wide) - top - log_sum)
    if skip is not None:
        for statistic in (picked, dot, log_sum, top):
            if statistic is not None:
                np.copyto(statistic, 0, where=skip)
    return picked, dot, log_sum, top


def row_gradient(x, axis, rows, labels, weights, skip, a, b, c):
    log_p, _, log_sum, top = rows
    layout = _Layout(x, axis)
    out = np.empty(x.shape, log_sum.dtype)
    a, b, c = (
        None if v is None else np.broadcast_to(np.asarray(v, out.dtype), layout.row_shape)
        for v in (a, b, c)
    )
    if labels is not None:
        # a p + b as (a+b) p + b (1-p): in saturated rows a is -b, and 1 - p = -expm1(log p).
        at_label = (a + b) * np.exp(log_p) - b * np.expm1(log_p)
        index, at_label = np.expand_dims(labels, axis), np.expand_dims(at_label, axis)
    for block in layout.blocks():
        z = layout.load(x, block, out.dtype)
        z -= layout.rows(top, block)
        z -= layout.rows(log_sum, block)
        np.exp(z, out=z)
        z *= layout.rows(a, block)
        layout.store(out, block, z)
    if labels is not None:
        np.put_along_axis(out, index, at_label, axis)
    if weights is not None:
        out += np.expand_dims(c, axis) * weights
    if skip is not None:
        np.copyto(out, 0, where=np.expand_dims(skip, axis))
    return out


def _map_rows(kernel, x, axis, dtype):
    """Apply `kernel` to each block of rows."""
    layout = _Layout(x, axis)
    out = np.empty(x.shape, dtype)
    for block in layout.blocks():
        z = layout.load(x, block, _wide(x.dtype))
        layout.store(out, block, kernel(z, layout.class_axis))
    return out


def _sum(z, class_axis):
    # NumPy sums pairwise along rows, but one after the other across them.
    if class_axis == 0 and len(z) > 256:
        whole = len(z) // 128 * 128
        parts = z[:whole].reshape(-1, 128, z.shape[1]).sum(1).sum(0)
        return parts + z[whole:].sum(0, keepdims=True)
    return z.sum(class_axis, keepdims=True)


def _log_sum(d, class_axis):
    """Return log Σ e^d, where max d is 0, as log1p of the sum without one maximum."""
    e = np.exp(d)
    ones = np.floor(e)  # 1 at the maxima
    e -= ones
    return np.log1p(_sum(e, class_axis) + (_sum(ones, class_axis) - 1))
