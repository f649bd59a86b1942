"""NumPy: kernels in blocks, with explicit derivatives."""

from __future__ import annotations

import numpy as np

from softmaxkit import _activations, _losses
from softmaxkit.backends.numpy import arrays as ops
from softmaxkit.backends.numpy import pool
from softmaxkit.backends.numpy import rows as kernels
from softmaxkit.backends.numpy.arrays import (
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
from softmaxkit.backends.numpy.blocks import silent
from softmaxkit.backends.numpy.linear import linear_loss, linear_value_and_grad

LIBRARY = "NumPy"


@silent
def activation(operation, x, options):
    out = getattr(_activations, operation)(ops, kernels, x, options)
    return out if out.ndim else out[()]  # a scalar, as NumPy's own reductions return


@silent
def pull(operation, value, x, cotangent, options):
    """Return the vector-Jacobian product of an activation whose value is known."""
    return _activations.pull(ops, kernels, operation, x, cotangent, options, value=value)


def vjp(operation, x, cotangent, options):
    value = activation(operation, x, options)
    return value, pull(operation, value, x, cotangent, options)


@silent
def loss(logits, targets, options):
    return _losses.loss(ops, kernels, logits, targets, options)[0]


@silent
def value_and_grad(logits, targets, options):
    value, saved = _losses.loss(ops, kernels, logits, targets, options, save=True, keep=True)
    return value, _losses.gradient(ops, kernels, logits, options, saved, 1.0)


@silent
def value_and_pull(logits, targets, options):
    """Return a loss, and a function of (logits, cotangent) that returns the logits' cotangent."""
    value, saved = _losses.loss(ops, kernels, logits, targets, options, save=True)

    @silent
    def pull(logits, of_value):
        return _losses.gradient(ops, kernels, logits, options, saved, of_value)

    return value, pull


@silent
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(ops, targets, smoothing, axis, where)


@silent
def by_rows(function, rows, options):
    return function(ops, rows, *options)


def each(work, blocks):
    pool.share(lambda some: [work(block) for block in some], blocks)


def one_hot(labels, num_classes, axis, dtype, unseen):
    labels = np.expand_dims(labels, axis)
    classes = np.arange(num_classes).reshape((-1,) + (1,) * (labels.ndim - axis - 1))
    return (labels == classes).astype(ops.default_float(labels) if dtype is None else dtype)
