"""PyTorch's kernels along the class axis: softmax, log-softmax, row statistics, derivatives."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from softmaxkit.backends import numpy as host
from softmaxkit.backends import torch_blocks as blocks
from softmaxkit.backends.torch_state import (
    HALF,
    PLAIN,
    WIDE,
    host_array,
    in_blocks,
    in_nested_forward_mode,
    is_compiling,
    is_eager,
    is_traced,
)


def expm1(x):
    # torch differentiates it to expm1(x) + 1, which is rounded at 1 where e^x is small.
    e = torch.exp(x)
    return torch.expm1(x.detach()) + (e - e.detach())


def softmax_rows(x, axis, dtype):
    dtype = x.dtype if dtype is None else dtype
    # Except along the last axis, torch's CPU kernel rounds e^d to half before it divides: 1.4 ULP.
    rounded = x.dtype in HALF and axis != x.ndim - 1 and x.is_cpu
    if dtype is x.dtype and not rounded:
        if is_eager(x) and _gains_by_blocks(x, axis):
            return _by_output(x, axis, blocks.softmax, _softmax_derivative)
        try:
            return torch.softmax(x, axis)
        except NotImplementedError:  # torch has none of 8 bits
            pass
    if dtype is x.dtype and _is_half_in_blocks(x):
        return blocks.each(blocks.softmax_into, x, axis)
    wide = torch.float64 if dtype is torch.float64 else blocks.wide_dtype(x.dtype)
    return torch.softmax(x, axis, dtype=wide).to(dtype)


def _gains_by_blocks(x, axis):
    is_large = x.nbytes > blocks.FRESH_BYTES
    if x.dtype not in WIDE:
        return is_large and x.dtype in HALF and blocks.has_kernel(x.shape, axis)
    has_short_rows = x.shape[axis] < blocks.SHORT_ROW and x.stride(axis) == 1
    return is_large or (has_short_rows and x.numel() > blocks.SHORT_ELEMENTS)


def _is_half_in_blocks(x):
    """Tell half precision that no derivative is asked of: none would be exact from the result."""
    asked = torch.is_grad_enabled() and x.requires_grad
    return x.dtype in HALF and not asked and is_eager(x) and x.numel() > blocks.HOST_ELEMENTS


def log_softmax_rows(x, axis, dtype):
    if dtype is x.dtype and _is_half_in_blocks(x):
        into = partial(blocks.log_softmax_into, dominant=blocks.DOMINANT_IN_HALF)
        return blocks.each(into, x, axis)
    # Once: of half-precision x the two parts of the gradient would be rounded each.
    x = x.to(blocks.wide_dtype(x.dtype))
    if is_eager(x) and x.numel():
        if x.numel() <= blocks.HOST_ELEMENTS and x.dtype is not torch.float64:
            log_p = torch.log_softmax(x, axis, dtype=torch.float64)
            if log_p.amax().item() < blocks.DOMINANT_IN_FLOAT64:  # NaN is not
                return log_p.to(dtype)
        return _by_output(x, axis, _eager_log_softmax, _log_softmax_derivative).to(dtype)
    _, _, log_sum, top = row_statistics(x, axis, None, None, None)
    return (x - top.unsqueeze(axis) - log_sum.unsqueeze(axis)).to(dtype)


def _eager_log_softmax(x, axis):
    if x.numel() <= blocks.HOST_ELEMENTS:
        out = host.log_softmax(host_array(x), axis, None, None, None)
        return torch.as_tensor(out, dtype=x.dtype, device=x.device)
    return blocks.log_softmax(x, axis)


def _by_output(x, axis, compute, derivative):
    if torch.is_grad_enabled() and x.requires_grad:
        return _ByOutput.apply(x, axis, compute, derivative)
    return compute(x, axis)


class _ByOutput(torch.autograd.Function):
    """An eager activation whose derivative torch has as a function of its output."""

    @staticmethod
    def forward(ctx, x, axis, compute, derivative):
        ctx.axis, ctx.derivative = axis, derivative
        out = compute(x, axis)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, of_out):
        (out,) = ctx.saved_tensors
        of_x = None
        if not (torch.is_grad_enabled() or is_traced() or is_legacy_batchedtensor(of_out)):
            of_x = blocks.empty(out.shape, out.dtype)
        return ctx.derivative(of_out, out, ctx.axis, of_x), None, None, None


def _softmax_derivative(of_out, out, axis, of_x):
    return torch._softmax_backward_data(of_out, out, axis, out.dtype, grad_input=of_x)


def _log_softmax_derivative(of_out, out, axis, of_x):
    return torch._log_softmax_backward_data(of_out, out, axis, out.dtype, out=of_x)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    only_value = not (lse or torch.is_grad_enabled() or is_traced())
    if only_value and in_blocks(x) and blocks.has_kernel(x.shape, axis):
        rows = blocks.picked_and_dot(x, axis, labels, weights)
        return rows if skip is None else _but_skipped(rows, skip)
    if not (weights is None or isinstance(weights, Tensor)):
        weights = x.new_full((1,) * x.ndim, weights, dtype=blocks.wide_dtype(x.dtype))
    if is_compiling():
        return _RowStatistics.apply(x, axis, labels, weights, skip)
    if type(x) not in PLAIN or in_nested_forward_mode():
        # Blocks would break a DTensor and its like up; and torch runs a Function's rule of forward
        # mode without the tangents of a forward mode around it: jacfwd of jacfwd would be wrong.
        if skip is not None:
            x = torch.where(skip.unsqueeze(axis), 0.0, x)
        rows = _statistics(x, axis, labels, weights)
        if skip is not None:
            rows = [v if v is None else torch.where(skip, 0.0, v) for v in rows]
        return rows
    if not torch.is_grad_enabled() and not is_traced():
        return _RowStatistics.forward(x, axis, labels, weights, skip)
    return _TransformableRowStatistics.apply(x, axis, labels, weights, skip)


def are_worth_keeping(x):
    """Tell whether to keep the probabilities, so that a gradient is made in their memory.

    Forward and backward with them / made anew, in ms: (1000, 1000) 1.3 / 2.4, (4096, 4096) 15 / 20,
    (256, 128256) 24 / 50, (8, 21, 256, 256) 17 / 21, (200000, 10) 5.7 / 6.7. Both need the memory
    of one gradient. With smoothing or probabilities as targets there is nothing to gain: 15 / 15.
    """
    return x.dtype in WIDE and in_blocks(x)


def picked_and_probabilities(x, axis, labels, skip):
    """Compute row statistics of which only log p of the labels is there, and the probabilities."""
    picked, p = blocks.picked_and_probabilities(x, axis, labels)
    picked = picked if skip is None else picked.masked_fill(skip, 0.0)
    return (picked, None, None, None), p


def _but_skipped(rows, skip):
    return tuple(v if v is None else v.masked_fill(skip, 0.0) for v in rows)


def _statistics(x, axis, labels, weights):
    """Compute the row statistics by ops whose own derivative is right, ties of the max included."""
    x = x.to(blocks.wide_dtype(x.dtype))
    top = x.amax(axis, keepdim=True)
    d = x - top
    others = torch.where(d == 0, 0.0, torch.exp(d)).sum(axis, keepdim=True)
    log_sum = torch.log1p(others + ((d == 0).sum(axis, keepdim=True) - 1))
    picked = dot = None
    if labels is not None:
        index = labels.unsqueeze(axis)
        picked = (d.gather(axis, index) - log_sum).squeeze(axis)
    if weights is not None:
        dot = blocks.weighted(weights, d - log_sum).sum(axis)
    return picked, dot, log_sum.squeeze(axis), top.squeeze(axis)


class _RowStatistics(torch.autograd.Function):
    """Row statistics that keep the logits and a few numbers per row for the backward pass.

    These are saved as outputs, so that second derivatives flow through them; the max is a
    constant, since any shift cancels.
    """

    @staticmethod
    def forward(x, axis, labels, weights, skip):
        if in_blocks(x):
            rows = blocks.statistics(x, axis, labels, weights)
        else:
            rows = _statistics(x, axis, labels, weights)
        return rows if skip is None else _but_skipped(rows, skip)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis, labels, weights, skip = inputs
        log_p, _, log_sum, top = output
        ctx.mark_non_differentiable(top)
        ctx.save_for_backward(x, labels, weights, skip, log_p, log_sum, top)
        ctx.save_for_forward(x, labels, weights, skip, log_p, log_sum, top)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, of_picked, of_dot, of_log_sum, _):
        x, labels, weights, skip, log_p_y, log_sum, top = ctx.saved_tensors
        axis = ctx.axis
        by_x = by_weights = None
        if of_dot is not None and ctx.needs_input_grad[3]:
            log_p = x.to(top.dtype) - top.unsqueeze(axis) - log_sum.unsqueeze(axis)
            log_p = torch.where((weights == 0) & (log_p == -torch.inf), 0.0, log_p)
            by_weights = of_dot.unsqueeze(axis) * log_p
            if skip is not None:
                by_weights = torch.where(skip.unsqueeze(axis), 0.0, by_weights)
            by_weights = by_weights.sum_to_size(weights.shape)
        if ctx.needs_input_grad[0]:
            a = of_log_sum
            if of_picked is not None:
                a = -of_picked if a is None else a - of_picked
            if of_dot is not None:
                total = weights.expand(x.shape).sum(axis) * of_dot
                a = -total if a is None else a - total
            if a is not None:
                at_label = None
                if of_picked is not None:
                    at_label = _at_label(log_p_y, a, of_picked)
                if in_blocks(x) and not torch.is_grad_enabled():
                    by_x = blocks.gradient(x, axis, labels, weights, skip, a, at_label, of_dot)
                else:
                    by_x = _gradient(
                        x, axis, labels, weights, skip, log_sum, top, a, at_label, of_dot
                    )
        return by_x, None, None, by_weights, None


class _TransformableRowStatistics(_RowStatistics):
    """With rules for forward mode and vmap, which Dynamo refuses ("Unsupported custom jvp")."""

    @staticmethod
    def jvp(ctx, dx, _axis, _labels, dweights, _skip):
        x, labels, weights, skip, log_p_y, log_sum, top = ctx.saved_tensors
        axis = ctx.axis
        log_p = x.to(top.dtype) - top.unsqueeze(axis) - log_sum.unsqueeze(axis)
        dx = torch.zeros_like(log_p) if dx is None else dx.to(log_p.dtype)
        if skip is not None:
            dx = torch.where(skip.unsqueeze(axis), 0.0, dx)
            log_p = torch.where(skip.unsqueeze(axis), 0.0, log_p)
        p = torch.exp(log_p)
        d_log_sum = (p * dx).sum(axis)
        d_picked = d_dot = None
        if labels is not None:
            # dx_y - Σ p dx, with 1 - p = -expm1(log p) at the label: saturated rows keep digits.
            at_label = expm1(log_p_y).unsqueeze(axis)
            d_picked = -(p.scatter(axis, labels.unsqueeze(axis), at_label) * dx).sum(axis)
        if weights is not None:
            d_dot = (weights * (dx - d_log_sum.unsqueeze(axis))).sum(axis)
            if dweights is not None:
                d_dot = d_dot + blocks.weighted(dweights, log_p).sum(axis)
        return d_picked, d_dot, d_log_sum, None

    @staticmethod
    def vmap(info, in_dims, x, axis, labels, weights, skip):
        # A batch only adds rows: it becomes the first axis.
        def batched(value, dim):
            if value is None:
                return None
            if dim is None:
                return value.unsqueeze(0).expand(info.batch_size, *value.shape)
            return value.movedim(dim, 0)

        x, labels, weights, skip = (
            batched(value, in_dims[i])
            for i, value in ((0, x), (2, labels), (3, weights), (4, skip))
        )
        if weights is not None:  # it broadcasts from the right, and the batch stands left
            ones = (1,) * (x.ndim - weights.ndim)
            weights = weights.reshape(info.batch_size, *ones, *weights.shape[1:])
        rows = _TransformableRowStatistics.apply(x, axis + 1, labels, weights, skip)
        return rows, tuple(None if v is None else 0 for v in rows)


def row_gradient(x, axis, rows, labels, weights, skip, a, b, c, kept=None):
    """Return a·p + b·1_y + c·w; `kept` are the probabilities, in memory that it may have."""
    log_p, _, log_sum, top = rows
    at_label = None if labels is None else _at_label(log_p, a, b)
    if in_blocks(x):
        return blocks.gradient(x, axis, labels, weights, skip, a, at_label, c, kept)
    a, c = (
        v
        if v is None
        else torch.as_tensor(v, dtype=top.dtype, device=top.device).broadcast_to(top.shape)
        for v in (a, c)
    )
    return _gradient(x, axis, labels, weights, skip, log_sum, top, a, at_label, c)


def _at_label(log_p, a, b):
    # a p + b as (a+b) p + b (1-p): in saturated rows a is -b, and 1 - p = -expm1(log p) keeps its
    # digits.
    both = a + b
    at_label = expm1(log_p) * -b
    return at_label if type(both) is float and both == 0 else both * torch.exp(log_p) + at_label


def _gradient(x, axis, labels, weights, skip, log_sum, top, a, at_label, c):
    """a·p + c·w, and `at_label` for a·p at the labels; differentiable."""
    p = torch.exp(x.to(top.dtype) - top.unsqueeze(axis) - log_sum.unsqueeze(axis))
    out = a.unsqueeze(axis) * p
    if at_label is not None:
        out = out.scatter(axis, labels.unsqueeze(axis), at_label.unsqueeze(axis))
    if c is not None:
        out = out + c.unsqueeze(axis) * weights
    if skip is not None:
        out = torch.where(skip.unsqueeze(axis), 0.0, out)
    return out.to(x.dtype)
