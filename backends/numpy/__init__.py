"""NumPy: kernels in blocks, derivatives written out."""

from __future__ import annotations

import numpy as np

from softmaxkit import _activations, _losses
from softmaxkit.backends import ActivationOptions, BinaryOptions, ClassOptions
from softmaxkit.backends.numpy import arrays as ops
from softmaxkit.backends.numpy import rows as kernels
from softmaxkit.backends.numpy.arrays import (
    as_dtype,
    asarray,
    device_of,
    is_array,
    is_compiling,
    is_native,
    kind,
    shape,
    unusable,
    visible,
)
from softmaxkit.backends.numpy.blocks import silent

LIBRARY = "NumPy"


@silent
def softmax(x, axis, where, temperature, dtype):
    options = ActivationOptions(axis, where, temperature, dtype)
    return _activations.softmax(ops, kernels, x, options)


@silent
def log_softmax(x, axis, where, temperature, dtype):
    options = ActivationOptions(axis, where, temperature, dtype)
    return _activations.log_softmax(ops, kernels, x, options)


@silent
def logsumexp(x, axis, where, keepdims, dtype):
    options = ActivationOptions(axis, where, None, dtype, keepdims)
    return _activations.logsumexp(ops, kernels, x, options)


@silent
def cross_entropy(logits, targets, **options):
    return _losses.loss(ops, kernels, logits, targets, ClassOptions(**options))[0]


@silent
def focal_loss(logits, targets, **options):
    options = ClassOptions(weight=options.pop("alpha"), **options)
    return _losses.loss(ops, kernels, logits, targets, options)[0]


@silent
def binary_cross_entropy(logits, targets, **options):
    return _losses.loss(ops, kernels, logits, targets, BinaryOptions(**options))[0]


@silent
def sigmoid_focal_loss(logits, targets, **options):
    return _losses.loss(ops, kernels, logits, targets, BinaryOptions(**options))[0]


@silent
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(ops, targets, smoothing, axis, where)


def one_hot(labels, num_classes, axis, dtype, labels_checked):
    labels = np.expand_dims(labels, axis)
    classes = np.arange(num_classes).reshape((-1,) + (1,) * (labels.ndim - axis - 1))
    return (labels == classes).astype(ops.default_float(labels) if dtype is None else dtype)


@silent
def value_and_grad(operation, logits, targets, options):
    value, pull = _value_and_pull(operation, logits, targets, options, once=True)
    return value, pull(logits, 1.0)


@silent
def value_and_pull(operation, logits, targets, options):
    """Return a loss, and a function of (logits, cotangent) that gives the logits' cotangent."""
    value, pull = _value_and_pull(operation, logits, targets, options, once=False)
    return value, silent(pull)


def _value_and_pull(operation, logits, targets, options, once):
    if operation == "focal_loss":
        options["weight"] = options.pop("alpha")
    is_binary = operation in ("binary_cross_entropy", "sigmoid_focal_loss")
    options = (BinaryOptions if is_binary else ClassOptions)(**options)
    value, saved = _losses.loss(ops, kernels, logits, targets, options, save=True, keep=once)

    def pull(logits, of_value):
        return _losses.gradient(ops, kernels, logits, options, saved, of_value)

    return value, pull


@silent
def pull(operation, value, x, cotangent, options):
    """Return the vector-Jacobian product of an activation whose value is there."""
    axis, where, third, dtype = options
    if operation == "logsumexp":
        options = ActivationOptions(axis, where, None, dtype, keepdims=third)
    else:
        options = ActivationOptions(axis, where, third, dtype)
    return _activations.pull(ops, kernels, operation, x, cotangent, options, value=value)


def vjp(operation, x, cotangent, options):
    value = _ACTIVATIONS[operation](x, *options)
    return value, pull(operation, value, x, cotangent, options)


_ACTIVATIONS = {"softmax": softmax, "log_softmax": log_softmax, "logsumexp": logsumexp}
