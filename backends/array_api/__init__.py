"""Any array-API library, eager or lazy, through array-api-compat, with explicit derivatives.

Tested with array-api-strict and MLX; Dask has a package over this one.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace

from softmaxkit import _activations, _losses
from softmaxkit._axes import along
from softmaxkit.backends.array_api import arrays as ops
from softmaxkit.backends.array_api import rows as kernels
from softmaxkit.backends.array_api.arrays import (
    as_dtype,
    asarray,
    device_of,
    has_values,
    is_accelerated,
    is_array,
    is_compiling,
    is_native,
    kind,
    same_length,
    shape,
    to_host,
    unusable,
    visible,
)
from softmaxkit.backends.array_api.linear import linear_loss, linear_value_and_grad

LIBRARY = "array API"

_silent = np.errstate(all="ignore")  # libraries built on NumPy share its warnings


@_silent
def activation(operation, x, options):
    return getattr(_activations, operation)(ops, kernels, x, options)


@_silent
def vjp(operation, x, cotangent, options):
    value = activation(operation, x, options)
    product = _activations.pull(ops, kernels, operation, x, cotangent, options, value=value)
    return value, product


@_silent
def loss(logits, targets, options):
    return _losses.loss(ops, kernels, logits, targets, options)[0]


@_silent
def value_and_grad(logits, targets, options):
    value, saved = _losses.loss(ops, kernels, logits, targets, options, save=True)
    return value, _losses.gradient(ops, kernels, logits, options, saved, 1.0)


@_silent
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(ops, targets, smoothing, axis, where)


@_silent
def by_rows(function, rows, options):
    return function(ops, rows, *options)


def each(work, blocks):
    for block in blocks:
        work(block)


def one_hot(labels, num_classes, axis, dtype, unseen):
    xp = array_namespace(labels)
    labels = xp.expand_dims(ops.as_index(labels), axis=axis)
    classes = xp.arange(num_classes, dtype=labels.dtype, **ops.placed(labels))
    is_label = along(classes, labels.ndim, axis) == labels
    out = ops.astype(is_label, ops.default_float(labels) if dtype is None else dtype)
    if unseen is None:
        return out
    return ops.where((labels < 0) | (labels >= num_classes), float("nan"), out)
