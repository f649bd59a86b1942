"""PyTorch under torch.compile: kernels along the class axis with the derivatives written out.

One reading of the logits forward; one reading, and writing of the gradient, back. Of the plain
operations of `rows` inductor makes code that takes four to eight times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softmaxkit import _statistics
from softmaxkit._activations import softmax_derivative
from softmaxkit._axes import expand
from softmaxkit._statistics import Part, Rows, centred
from softmaxkit.backends.torch import arrays as ops


def softmax(x, axis, dtype):
    return _Softmax.apply(ops.compute(x), axis).to(dtype)


def log_softmax(x, axis, dtype):
    return _LogSoftmax.apply(ops.compute(x), axis)[0].to(dtype)


def row_statistics(x, request):
    axis, labels, weights, skip = request
    x = ops.compute(x)
    if skip is not None:
        x = torch.where(expand(skip, axis), 0.0, x)
    log_p, dot, lse, _, _ = _RowStatistics.apply(x, axis, labels, weights)
    rows = log_p, dot, None, lse
    if skip is not None:
        rows = [v if v is None else torch.where(skip, 0.0, v) for v in rows]
    return Rows(*rows)


def _sums(x, axis):
    """Return max x, x - max x, and Σ e^(x - max x) - 1, where e^0 = 1 is kept out of the sum."""
    top = x.amax(axis)
    d = centred(ops, x, top, axis)
    e = torch.exp(d)
    ones = torch.floor(e)
    return top, d, (e - ones).sum(axis) + (ones.sum(axis) - 1.0)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(x, axis):
        return torch.softmax(x, axis)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.axis = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, of_out):
        (p,) = ctx.saved_tensors
        return softmax_derivative(ops, p, of_out, ctx.axis), None


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(x, axis):
        top, d, rest = _sums(x, axis)
        return d - expand(torch.log1p(rest), axis), top, rest

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis = inputs
        _, top, rest = output
        ctx.mark_non_differentiable(top, rest)
        ctx.save_for_backward(x, top, rest)

    @staticmethod
    def backward(ctx, of_out, _top, _rest):
        return _gradient(
            ctx.axis, ctx.saved_tensors, None, of_out, Rows(None, 1.0, None, None)
        ), None


class _RowStatistics(torch.autograd.Function):
    @staticmethod
    def forward(x, axis, labels, weights):
        top, d, rest = _sums(x, axis)
        log_sum = torch.log1p(rest)
        log_p = dot = None
        if labels is not None:
            log_p = ops.pick(d, labels, axis) - log_sum
        if weights is not None:
            dot = (weights * _log_p(d, log_sum, axis, weights)).sum(axis)
        return log_p, dot, top + log_sum, top, rest

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis, labels, weights = inputs
        *_, top, rest = output
        ctx.mark_non_differentiable(top, rest)
        ctx.number = None if isinstance(weights, Tensor) else weights
        saved = weights if isinstance(weights, Tensor) else None
        ctx.save_for_backward(x, labels, saved, top, rest)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, by_log_p, by_dot, by_lse, _top, _rest):
        x, labels, weights, top, rest = ctx.saved_tensors
        by_weights = None
        if by_dot is not None and ctx.needs_input_grad[3]:
            d = centred(ops, x, top, ctx.axis)
            log_p = _log_p(d, torch.log1p(rest), ctx.axis, weights)
            by_weights = (expand(by_dot, ctx.axis) * log_p).sum_to_size(weights.shape)
        of_rows = Rows(by_log_p, by_dot, None, by_lse)
        weights = weights.expand(x.shape) if isinstance(weights, Tensor) else ctx.number
        by_x = _gradient(ctx.axis, (x, top, rest), labels, weights, of_rows)
        return by_x, None, None, by_weights


def _log_p(d, log_sum, axis, weights):
    log_p = d - expand(log_sum, axis)
    if isinstance(weights, Tensor):  # 0 log 0 = 0
        log_p = torch.where((weights == 0) & (log_p == -torch.inf), 0.0, log_p)
    return log_p


def _gradient(axis, saved, labels, weights, of_rows):
    x, top, rest = saved
    labels = None if of_rows.log_p is None else labels
    weights = None if of_rows.dot is None else weights
    mass = beside = None
    if isinstance(weights, Tensor):
        at_top = x == expand(top, axis)
        mass, beside = weights.sum(axis), torch.where(at_top, 0.0, weights).sum(axis)
    elif weights is not None:
        mass, beside = weights * x.shape[axis], weights * (x.shape[axis] - 1)
    whole = Part(top, rest, None, None, mass, beside)
    return _statistics.gradient(ops, x, axis, whole, of_rows, labels=labels, weights=weights)
