"""Any array-API library, eager or lazy, through array-api-compat; derivatives written out.

Tested with array-api-strict and Dask. Only functions of the standard are used, no data-dependent
shapes and no assignment into arrays, so that lazy libraries stay lazy.
"""

from __future__ import annotations

import sys
from functools import cache
from math import isnan, isqrt, prod

import numpy as np
from array_api_compat import array_namespace, device, is_lazy_array

from softmaxkit import _rows, _softmax

LIBRARY = "array API"

_this = sys.modules[__name__]

# From this many classes on a sum over them is made in two steps.
SPLIT_CLASSES = 256
_silent = np.errstate(all="ignore")  # libraries built on NumPy share its warnings


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
    xp = array_namespace(labels)
    dtype = default_float(labels) if dtype is None else dtype
    labels = as_index(labels)
    out = astype(_at_label(labels, num_classes, axis), dtype)
    if labels_checked:
        return out
    wrong = xp.expand_dims((labels < 0) | (labels >= num_classes), axis=axis)
    return where(wrong, float("nan"), out)


@_silent
def value_and_grad(operation, logits, targets, options):
    loss = getattr(_rows, operation)
    value, pull = loss(_this, logits, targets, gradient=True, **options)
    return value, pull(logits, 1.0)


@_silent
def vjp(operation, x, cotangent, options):
    return _softmax.vjp(_this, operation, x, cotangent, options)


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


def sum(x, axis):
    return array_namespace(x).sum(x, axis=axis)


def any(x, axis):
    return array_namespace(x).any(x, axis=axis)


def amax(x, axis):
    return _max(x, axis, False)


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


# --- kernels --------------------------------------------------------------------------------------
def softmax_rows(x, axis, dtype):
    xp = array_namespace(x)
    d, finite = _centred(compute(x), axis)
    e = xp.exp(d)
    return astype(where(finite, e / _sum_classes(e, axis), float("nan")), dtype)


def log_softmax_rows(x, axis, dtype):
    x = compute(x)
    _, _, log_sum, top = row_statistics(x, axis, None, None, None)
    d, _ = _centred(x, axis, _softmax.expand(top, axis))
    return astype(d - _softmax.expand(log_sum, axis), dtype)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    xp = array_namespace(x)
    x = compute(x)
    if skip is not None:
        x = where(_softmax.expand(skip, axis), 0.0, x)
    top = _max(x, axis, True)
    d, finite = _centred(x, axis, top)
    others = _sum_classes(where(d == 0, 0.0, xp.exp(d)), axis)
    ties = xp.sum(astype(d == 0, d.dtype), axis=axis, keepdims=True)
    log_sum = where(finite, xp.log1p(others + (ties - 1)), float("nan"))
    picked = dot = None
    if labels is not None:
        picked = xp.squeeze(_pick(d, axis, labels) - log_sum, axis=axis)
    if weights is not None:
        log_p = d - log_sum
        if not isinstance(weights, float):
            log_p = where((weights == 0) & (log_p == float("-inf")), 0.0, log_p)  # 0 log 0 = 0
        dot = xp.squeeze(_sum_classes(weights * log_p, axis), axis=axis)
    rows = picked, dot, xp.squeeze(log_sum, axis=axis), xp.squeeze(top, axis=axis)
    if skip is not None:
        rows = tuple(v if v is None else where(skip, 0.0, v) for v in rows)
    return rows


def row_gradient(x, axis, rows, labels, weights, skip, a, b, c):
    log_p, _, log_sum, top = rows
    x = compute(x)
    if skip is not None:
        x = where(_softmax.expand(skip, axis), 0.0, x)
    d, _ = _centred(x, axis, _softmax.expand(top, axis))
    out = exp(d - _softmax.expand(log_sum, axis)) * _row(a, axis)
    if labels is not None:
        # a p + b as (a+b) p + b (1-p): in saturated rows a is -b, and 1 - p = -expm1(log p).
        at_label = (a + b) * exp(log_p) - b * expm1(log_p)
        out = where(_at_label(labels, x.shape[axis], axis), _row(at_label, axis), out)
    if weights is not None:
        out = out + weights * _row(c, axis)
    return out if skip is None else where(_softmax.expand(skip, axis), 0.0, out)


def _sum_classes(x, axis):
    """Sum over many classes in two steps: a library may add them one after the other."""
    xp = array_namespace(x)
    classes = x.shape[axis]
    if not is_lazy_array(x) and classes >= SPLIT_CLASSES:
        part = _divisor(classes)
        x = xp.reshape(x, (*x.shape[:axis], classes // part, part, *x.shape[axis + 1 :]))
        x = xp.sum(x, axis=axis + 1)
    return xp.sum(x, axis=axis, keepdims=True)


@cache
def _divisor(length):
    """Return the divisor of `length` nearest to its root from below."""
    return next(part for part in range(isqrt(length), 0, -1) if length % part == 0)


def _max(x, axis, keepdims):
    xp = array_namespace(x)
    if 0 not in x.shape:
        return xp.max(x, axis=axis, keepdims=keepdims)
    return xp.sum(x, axis=axis, keepdims=keepdims)  # of nothing; Dask has no maximum of it


def _centred(x, axis, top=None):
    """Return x - max, and which rows have a finite maximum; the others are 0 here.

    A lazy library computes later, where no errstate silences the warning of inf - inf.
    """
    top = _max(x, axis, True) if top is None else top
    finite = array_namespace(x).isfinite(top)
    return where(finite, x, 0.0) - where(finite, top, 0.0), finite


def _row(value, axis):
    return value if isinstance(value, float) or value.ndim == 0 else _softmax.expand(value, axis)


def _at_label(labels, classes, axis):
    """Return True at the label of each row, with the class axis put in."""
    xp = array_namespace(labels)
    index = xp.arange(classes, dtype=labels.dtype, device=device(labels))
    return _softmax.along(index, labels.ndim + 1, axis) == xp.expand_dims(labels, axis=axis)


def _pick(x, axis, labels):
    xp = array_namespace(x)
    if hasattr(xp, "take_along_axis"):
        return xp.take_along_axis(x, xp.expand_dims(labels, axis=axis), axis=axis)
    at_label = _at_label(labels, x.shape[axis], axis)  # Dask has no take_along_axis
    return xp.sum(where(at_label, x, 0.0), axis=axis, keepdims=True)
