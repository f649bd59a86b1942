"""PyTorch: the operations.

`rows` has the kernels that autograd sees, `eager` the kernels inside its nodes. Nothing
synchronises with a device or copies to the host. Not measured on a GPU.
"""

from __future__ import annotations

from itertools import islice

import torch
from torch import Tensor

from softmaxkit import _activations, _losses
from softmaxkit._statistics import Request, Rows
from softmaxkit.backends import BinaryOptions, ClassOptions
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import blocks, eager
from softmaxkit.backends.torch import rows as kernels
from softmaxkit.backends.torch.arrays import (
    PLAIN,
    as_dtype,
    asarray,
    beside,
    device_of,
    has_values,
    is_accelerated,
    is_array,
    is_compiling,
    is_differentiated_again,
    is_eager,
    is_native,
    kind,
    result_dtype,
    same_length,
    shape,
    to_host,
    unusable,
    visible,
)
from softmaxkit.backends.torch.blocks import Kept
from softmaxkit.backends.torch.linear import linear_loss, linear_value_and_grad
from softmaxkit.backends.torch.memory import HALF

LIBRARY = "PyTorch"


# --- activations ----------------------------------------------------------------------------------
def activation(operation, x, options):
    if x.dtype in HALF:
        options = options._replace(dtype=result_dtype(x, options.dtype))
    if type(x) not in PLAIN:
        options = options._make(beside(x, value) for value in options)
    return getattr(_activations, operation)(ops, kernels, x, options)


# --- losses ---------------------------------------------------------------------------------------
def loss(logits, targets, options):
    if logits.dtype in HALF:
        options = options._replace(dtype=result_dtype(logits, options.dtype))
    if type(logits) not in PLAIN:
        targets = beside(logits, targets)
        options = options._make(beside(logits, value) for value in options)
    elif _is_all_that_trains(logits, targets, options) and _is_node(logits, targets, options):
        return _Loss.apply(logits, targets, options)
    return _losses.loss(ops, kernels, logits, targets, options)[0]


def _is_node(logits, targets, options):
    return _is_by_logit(targets, options) or eager.serves(logits)


def _is_by_logit(targets, options):
    """Return True for a loss with many operations on each logit, not only on each row."""
    if isinstance(options, BinaryOptions):
        return True
    every_class = options.label_smoothing is not None or targets.is_floating_point()
    return every_class and not _losses.is_linear(options)


def _is_all_that_trains(logits, targets, options):
    if not (torch.is_grad_enabled() and logits.requires_grad and is_eager(logits)):
        return False
    return not any(isinstance(one, Tensor) and one.requires_grad for one in (targets, *options))


class _Loss(torch.autograd.Function):
    """A loss as one node of the graph, with the explicit derivative from `_losses`.

    Autograd then neither saves nor differentiates each step of a long formula.
    """

    @staticmethod
    def forward(ctx, logits, targets, options):
        of_classes = isinstance(options, ClassOptions)
        value, saved, ctx.is_fused = _value_and_saved(logits, targets, options)
        leaves = (*saved.kept, *saved.by_rows, *saved.request) if of_classes else saved
        ctx.options = options
        ctx.numbers = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        # Save the options too, so that autograd refuses those that were changed in place.
        every = (logits, targets, *leaves, *options)
        ctx.save_for_backward(*[one if isinstance(one, Tensor) else None for one in every])
        return value

    @staticmethod
    def backward(ctx, of_value):
        logits, targets, *tensors = ctx.saved_tensors
        options = ctx.options
        if is_differentiated_again(of_value):
            with torch.enable_grad():
                value, _ = _losses.loss(ops, kernels, logits, targets, options)
                (of_logits,) = torch.autograd.grad(value, logits, of_value, create_graph=True)
            return of_logits, None, None
        pairs = zip(ctx.numbers, tensors, strict=False)  # the options follow
        leaves = iter([number if tensor is None else tensor for number, tensor in pairs])
        if not isinstance(options, ClassOptions):
            saved = _losses.SavedOfEach(*leaves)
            return _losses.gradient(ops, eager, logits, options, saved, of_value), None, None
        parts = (one._make(islice(leaves, len(one._fields))) for one in (Kept, Rows, Request))
        saved = _losses.Saved(*parts)
        return _gradient(logits, targets, options, saved, of_value, ctx.is_fused), None, None


def _value_and_saved(logits, targets, options):
    """Return a loss, what its gradient needs, and whether one kernel took all options."""

    def fused(triton):
        each = triton.fused(logits, targets, options)
        if each is None:
            return _losses.loss(ops, triton, logits, targets, options, save=True), False
        call = ops, each, logits, targets, options
        return _losses.over_classes(*call, save=True, classes=each), True

    def plain():
        return _losses.loss(ops, blocks, logits, targets, options, save=True), False

    is_wide = options.dtype is torch.float64 or isinstance(options, BinaryOptions)
    (value, saved), is_fused = plain() if is_wide else eager.attempted(logits, fused, plain)
    return value, saved, is_fused


def _gradient(logits, targets, options, saved, of_value, is_fused):
    call = logits, options, saved, of_value

    def fused(triton):
        each = triton.fused(logits, targets, options)
        return _losses.gradient_over_classes(ops, each, *call, classes=each)

    def plain():
        return _losses.gradient_over_classes(ops, eager, *call)

    return eager.attempted(logits, fused, plain) if is_fused else plain()


# --- labels ---------------------------------------------------------------------------------------
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(ops, targets, smoothing, axis, where)


def by_rows(function, rows, options):
    return function(ops, rows, *options)


def each(work, blocks):
    for block in blocks:
        work(block)


def one_hot(labels, num_classes, axis, dtype, unseen):
    dtype = torch.get_default_dtype() if dtype is None else dtype
    labels = labels.long().unsqueeze(axis)
    wrong = None if unseen is None else (labels < 0) | (labels >= num_classes)
    if wrong is not None:
        labels = labels.masked_fill(wrong, 0)
    size = list(labels.shape)
    size[axis] = num_classes
    out = torch.zeros(size, dtype=_filled(dtype), device=labels.device).scatter(axis, labels, 1)
    out = out if wrong is None else out.masked_fill(wrong, float("nan"))
    return out.to(dtype)


def _filled(dtype):
    """Return `dtype`, or float32 for 8-bit floats, in which torch cannot write single entries."""
    return dtype if dtype.itemsize > 1 else torch.float32


# --- gradients ------------------------------------------------------------------------------------
def value_and_grad(logits, targets, options):
    return _value_and_product(lambda leaf: loss(leaf, targets, options), logits)


def vjp(operation, x, cotangent, options):
    return _value_and_product(lambda leaf: activation(operation, leaf, options), x, cotangent)


def _value_and_product(function, x, cotangent=None):
    """Return a value and its vector-Jacobian product; the default cotangent is ones."""
    if is_compiling():  # Dynamo traces torch.func, but not autograd.grad
        value, pull = torch.func.vjp(function, x)
        cotangent = torch.ones_like(value) if cotangent is None else cotangent.to(value.dtype)
        return value, pull(cotangent)[0]
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        value = function(leaf)
        cotangent = torch.ones_like(value) if cotangent is None else cotangent.to(value.dtype)
        (product,) = torch.autograd.grad(value, leaf, cotangent)
    return value.detach(), product
