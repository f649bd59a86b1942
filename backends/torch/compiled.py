"""PyTorch under torch.compile: kernels along the class axis with explicit derivatives.

In the forward pass, inductor reads the logits twice, for the maximum and for the sums; in the
backward pass once, to write the gradient, and once more if cotangents or weights are summed. The
code that it generates from the plain operations of `rows` takes four to eight times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from softmaxkit import _statistics
from softmaxkit._axes import expand
from softmaxkit._statistics import Factors, Part, Request, Rows
from softmaxkit.backends.torch import arrays as ops


def softmax(x, axis, dtype):
    return _Softmax.apply(x, axis, dtype)


def log_softmax(x, axis, dtype):
    return _LogSoftmax.apply(ops.compute(x), axis)[0].to(dtype)


def row_statistics(x, request, lse):
    axis, labels, weights, skip = request
    if labels is weights is None and not lse:
        return Rows(None, None, None, None)
    log_p, dot, log_total, _, _ = _RowStatistics.apply(
        ops.compute(x), axis, labels, weights, skip, lse
    )
    return Rows(log_p, dot, None, log_total)


def _sums(x, axis):
    """Return max x, x - max x and Σ e^(x - max x) - 1, with the e^0 = 1 of maxima counted apart."""
    top = x.amax(axis)
    top = _written_out(torch.where(top.abs() == torch.inf, torch.nan, top))
    d = x - expand(top, axis)
    highest = d == 0
    # Use e^d only once: on a CPU, inductor would write it to memory if it were used twice.
    others = torch.where(highest, 0.0, torch.exp(d)).sum(axis)
    return top, d, others + (torch.where(highest, 1.0, 0.0).sum(axis) - 1.0)


def _written_out(rows):
    """Make inductor store the numbers of rows, which it would recompute for every class."""
    if not isinstance(rows, Tensor):
        return rows
    flat = rows.reshape(-1)
    return flat.as_strided(flat.shape, (1,)).reshape(rows.shape)


def loses_small_p(x, dtype):
    """Return whether a result in this dtype is too inexact to compute softmax's derivative from.

    bfloat16 rounds p, too, but only relative to its size, as it will round the gradient.
    """
    return dtype is not x.dtype or dtype is torch.float16


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(x, axis, dtype):
        return torch.softmax(ops.compute(x), axis).to(dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis, dtype = inputs
        ctx.of_logits = loses_small_p(x, dtype)
        ctx.save_for_backward(x if ctx.of_logits else output)

    @staticmethod
    def backward(ctx, of_out):
        (kept,) = ctx.saved_tensors
        p = ops.compute(kept)
        p = torch.softmax(p, ctx.axis) if ctx.of_logits else p
        return _softmax_gradient(p, of_out.to(p.dtype), ctx.axis).to(kept.dtype), None, None


def _softmax_gradient(p, v, axis):
    """Return p (v - Σ p v); at a class k with p_k > 1/2, the value that makes the entries sum to 0.

    This takes one pass for the sums and one for the result. Unlike `softmax_derivative`, it does
    not first subtract what all cotangents of a row have in common: that would take two more passes.
    """
    dominates = p > 0.5
    product = p * v
    rest = torch.where(dominates, 0.0, p).sum(axis)
    others = torch.where(dominates, 0.0, product).sum(axis)
    total = others + torch.where(dominates, product, 0.0).sum(axis)
    total, at_dominating = _written_out(total), _written_out(total * rest - others)
    return torch.where(dominates, expand(at_dominating, axis), p * (v - expand(total, axis)))


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(x, axis):
        top, d, rest = _sums(x, axis)
        return d - expand(_written_out(torch.log1p(rest)), axis), top, rest

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis = inputs
        _, top, rest = output
        ctx.mark_non_differentiable(top, rest)
        ctx.save_for_backward(x, top, rest)

    @staticmethod
    def backward(ctx, of_out, _top, _rest):
        x, top, rest = ctx.saved_tensors
        whole, weights = _beside(Part(top, rest), x, of_out, ctx.axis)
        of_rows = Rows(None, 1.0, None, None)
        return _gradient(x, ctx.axis, whole, of_rows, weights=weights), None


class _RowStatistics(torch.autograd.Function):
    @staticmethod
    def forward(x, axis, labels, weights, skip, lse):
        rows, kept = Written.row_statistics(x, Request(axis, labels, weights, skip), lse)
        return rows.log_p, rows.dot, rows.lse, kept.top, kept.rest

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis, labels, weights, skip, _ = inputs
        log_p, _, _, top, rest = output
        ctx.mark_non_differentiable(top, rest)
        ctx.number = None if isinstance(weights, Tensor) else weights
        saved = weights if isinstance(weights, Tensor) else None
        ctx.save_for_backward(x, labels, saved, skip, log_p, top, rest)

    @staticmethod
    def backward(ctx, by_log_p, by_dot, by_lse, _top, _rest):
        axis = ctx.axis
        x, labels, weights, skip, log_p, top, rest = ctx.saved_tensors
        by_weights = None
        if ctx.needs_input_grad[3]:
            log_p_c = x - expand(top, axis) - expand(torch.log1p(rest), axis)
            log_p_c = torch.where((weights == 0) & (log_p_c == -torch.inf), 0.0, log_p_c)
            by_weights = expand(by_dot, axis) * log_p_c
            if skip is not None:
                by_weights = torch.where(expand(skip, axis), 0.0, by_weights)
            by_weights = by_weights.sum_to_size(weights.shape)
        request = Request(axis, labels, ctx.number if weights is None else weights, skip)
        kept, of_rows = Kept(log_p, top, rest), Rows(by_log_p, by_dot, None, by_lse)
        by_x = Written.row_gradient(x, request, kept, of_rows)
        return by_x, None, None, by_weights, None, None


class Kept(NamedTuple):
    """Saved for the gradient, beside the logits."""

    log_p: Tensor | None  # of the labels
    top: Tensor
    rest: Tensor


class Written:
    """Row statistics and their explicit gradient, for a caller that calls both itself."""

    log_softmax = staticmethod(log_softmax)

    @staticmethod
    def row_statistics(x, request, lse, keep=False):
        axis, labels, weights, skip = request
        top, d, rest = _sums(x, axis)
        log_sum = torch.log1p(rest)
        log_p = dot = None
        if labels is not None:
            log_p = ops.pick(d, labels, axis) - log_sum
        if isinstance(weights, Tensor):  # 0 log 0 = 0
            dot = (weights * torch.where((weights == 0) & (d == -torch.inf), 0.0, d)).sum(axis)
            dot = dot - weights.expand(x.shape).sum(axis) * log_sum
        elif weights is not None:
            dot = weights * (d.sum(axis) - x.shape[axis] * log_sum)
        rows = Rows(log_p, dot, None, top + log_sum if lse else None)
        if skip is not None:
            rows = Rows(*[v if v is None else torch.where(skip, 0.0, v) for v in rows])
        return rows, Kept(rows.log_p, top, rest)

    @staticmethod
    def row_gradient(x, request, kept, of_rows):
        axis, labels, weights, skip = request
        log_p, top, rest = kept
        if isinstance(weights, Tensor):
            whole, weights = _beside(Part(top, rest), x, weights, axis)
        else:
            mass = weights if weights is None else weights * x.shape[axis]
            whole = Part(top, rest, mass=mass)
        by_x = _gradient(x, axis, whole, of_rows, labels=labels, log_p=log_p, weights=weights)
        return by_x if skip is None else torch.where(expand(skip, axis), 0.0, by_x)


def _gradient(x, axis, whole, of_rows, *, labels=None, log_p=None, weights=None):
    of_rows = _statistics.factors(ops, whole, of_rows, log_p, weights)
    of_rows = Factors(*[_written_out(one) for one in of_rows])
    d = x - expand(whole.top, axis)
    return _statistics.spread(ops, x, d, axis, of_rows, labels=labels, weights=weights)


def _beside(whole, x, weights, axis):
    """Add the sums of weights that the gradient of Σ w log p needs; also return w broadcast."""
    weights = weights.expand(x.shape)
    at_top = x == expand(whole.top, axis)
    beside = torch.where(at_top, 0.0, weights).sum(axis)
    return whole._replace(mass=weights.sum(axis), beside=beside), weights
