"""PyTorch: kernels along the class axis, as autograd and every transform of torch see them.

Under torch.compile they use `compiled`, unless the traced code takes derivatives other than one
first derivative. Where else more than a value and a first derivative is needed (`arrays.is_eager`),
they use plain operations, whose own derivatives are exact to every order and in both modes.
Otherwise they use `eager`, as one node of the graph; or, for few logits on the CPU, where calls
cost more than arithmetic, torch's own functions in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softmaxkit._activations import softmax_derivative
from softmaxkit._axes import expand
from softmaxkit._statistics import Request, Rows
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import compiled, eager, mesh
from softmaxkit.backends.torch.arrays import (
    has_written_derivative,
    is_differentiated_again,
    is_eager,
)
from softmaxkit.backends.torch.blocks import Kept
from softmaxkit.backends.torch.memory import WIDE

# Up to this many logits, torch's own functions in float64 are faster than a node in Python: forward
# and backward of cross-entropy at (32, 10) 98 -> 45 µs.
FEW_ELEMENTS = 1 << 14
# Below this p, 1 - p in float64 has all digits of float32.
CERTAIN = 1 - 1e-8
LOG_CERTAIN = -1e-8


# --- activations ----------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    if mesh.is_sharded(x, axis):
        return mesh.softmax(x, axis, dtype)
    if has_written_derivative():
        return compiled.softmax(x, axis, dtype)
    if not is_eager(x):
        return _softmax(ops.compute(x), axis).to(dtype)
    if not _is_differentiated(x):
        return eager.softmax(x, axis, dtype)
    if _are_few(x):
        p = torch.softmax(x, axis, torch.float64)
        if p.amax().item() < CERTAIN:  # False for NaN
            return p.to(dtype)
    return _Softmax.apply(x, axis, dtype)


def log_softmax(x, axis, dtype):
    if mesh.is_sharded(x, axis):
        return mesh.log_softmax(x, axis, dtype)
    if has_written_derivative():
        return compiled.log_softmax(x, axis, dtype)
    if not is_eager(x):
        return _log_softmax(ops.compute(x), axis).to(dtype)
    if _are_few(x):
        log_p = torch.log_softmax(x, axis, torch.float64)
        if log_p.amax().item() < LOG_CERTAIN:
            return log_p.to(dtype)
    if not _is_differentiated(x):
        return eager.log_softmax(x, axis, dtype)
    return _LogSoftmax.apply(x, axis, dtype)


class _Softmax(torch.autograd.Function):
    """Softmax that saves its result, or the logits if the result may have lost small p."""

    @staticmethod
    def forward(ctx, x, axis, dtype):
        out = eager.softmax(x, axis, dtype)
        ctx.axis, ctx.of_logits = axis, compiled.loses_small_p(x, dtype)
        ctx.save_for_backward(x if ctx.of_logits else out)
        return out

    @staticmethod
    def backward(ctx, of_out):
        (kept,) = ctx.saved_tensors
        if not is_differentiated_again(of_out):
            gradient = eager.softmax_gradient_of_logits if ctx.of_logits else eager.softmax_gradient
            return gradient(kept, of_out, ctx.axis), None, None
        with torch.enable_grad():
            p = ops.compute(kept)
            p = _softmax(p, ctx.axis) if ctx.of_logits else p
            of_x = softmax_derivative(ops, p, of_out.to(p.dtype), ctx.axis)
            return of_x.to(kept.dtype), None, None


class _LogSoftmax(torch.autograd.Function):
    """The same for log-softmax; its result can replace the logits: log-softmax is idempotent."""

    @staticmethod
    def forward(ctx, x, axis, dtype):
        out = eager.log_softmax(x, axis, dtype)
        ctx.axis, ctx.of_logits = axis, not (dtype is x.dtype and dtype in WIDE)
        ctx.save_for_backward(x if ctx.of_logits else out)
        return out

    @staticmethod
    def backward(ctx, of_out):
        (z,) = ctx.saved_tensors
        if not is_differentiated_again(of_out):
            request, of_rows = Request(ctx.axis, weights=of_out), Rows(None, 1.0, None, None)
            return eager.row_gradient(z, request, Kept(), of_rows), None, None
        with torch.enable_grad():
            log_p = _log_softmax(ops.compute(z), ctx.axis)
            (of_z,) = torch.autograd.grad(log_p, z, of_out.to(log_p.dtype), create_graph=True)
        return of_z, None, None


# --- row statistics -------------------------------------------------------------------------------
def row_statistics(x, request, lse, keep):
    if mesh.is_sharded(x, request.axis):
        return mesh.row_statistics(x, request), None
    if has_written_derivative():
        return compiled.row_statistics(x, request, lse), None
    if not is_eager(x):
        return _row_statistics(x, request), None
    if _are_few(x):
        rows = _in_float64(x, request, lse)
        if rows is not None:
            return rows, None
    weights = request.weights
    if not _is_differentiated(x, weights):
        return eager.row_statistics(x, request, lse, keep=False)
    log_p, dot, log_total = _RowStatistics.apply(x, weights, request, lse)
    return Rows(log_p, dot, None, log_total), None


class _RowStatistics(torch.autograd.Function):
    """Row statistics that save the logits, a few numbers per row, and perhaps p."""

    @staticmethod
    def forward(ctx, x, weights, request, lse):
        rows, kept = eager.row_statistics(x, request, lse, keep=ctx.needs_input_grad[0])
        ctx.axis, ctx.is_fresh = request.axis, True
        ctx.number = None if isinstance(weights, Tensor) else weights
        saved = None if ctx.number is not None else weights
        ctx.save_for_backward(x, saved, request.labels, request.skip, *kept)
        ctx.set_materialize_grads(False)
        return rows.log_p, rows.dot, rows.lse

    @staticmethod
    def backward(ctx, *of_rows):
        x, weights, labels, skip, *saved = ctx.saved_tensors
        kept = Kept(*saved)
        weights = weights if ctx.number is None else ctx.number
        by_log_p, by_dot, by_lse = of_rows
        request = Request(
            ctx.axis,
            None if by_log_p is None else labels,
            None if by_dot is None else weights,
            skip,
        )
        if any(of_row is not None and is_differentiated_again(of_row) for of_row in of_rows):
            by_x, by_weights = _differentiably(ctx, x, request, of_rows)
            return by_x, by_weights, None, None
        by_x = by_weights = None
        if ctx.needs_input_grad[0]:
            # The first gradient overwrites p. autograd must not see that: it would refuse a second
            # backward pass, which computes p again, identical to the last bit.
            if kept.p is not None:
                p = kept.p.data if ctx.is_fresh else eager.softmax(x, ctx.axis, x.dtype)
                kept = kept._replace(p=p)
            ctx.is_fresh = False
            by_x = eager.row_gradient(x, request, kept, Rows(by_log_p, by_dot, None, by_lse))
        if ctx.needs_input_grad[1] and by_dot is not None:
            log_p = eager.log_softmax(x, ctx.axis, by_dot.dtype)
            log_p.masked_fill_((weights == 0) & (log_p == -torch.inf), 0.0)
            by_weights = log_p.mul_(expand(by_dot, ctx.axis))
            if skip is not None:
                by_weights.masked_fill_(expand(skip, ctx.axis), 0.0)
            by_weights = by_weights.sum_to_size(weights.shape)
        return by_x, by_weights, None, None


def _differentiably(ctx, x, request, of_rows):
    """Return cotangents of the logits and the weights that can be differentiated again."""
    needs = ctx.needs_input_grad[:2]
    inputs = [one for one, is_needed in zip((x, request.weights), needs, strict=True) if is_needed]
    with torch.enable_grad():
        log_p, dot, _, lse = _row_statistics(x, request)
        pairs = zip((log_p, dot, lse), of_rows, strict=True)
        rows, cotangents = zip(*((row, of) for row, of in pairs if of is not None), strict=True)
        found = iter(torch.autograd.grad(rows, inputs, cotangents, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needs]


def _in_float64(x, request, lse):
    """Compute rows from torch's log-softmax in float64; return None if that loses digits."""
    axis, labels, weights, skip = request
    z = x if skip is None else torch.where(expand(skip, axis), 0.0, x)
    log_p = torch.log_softmax(z, axis, torch.float64)
    if not (log_p.amax().item() < LOG_CERTAIN and (weights is None or log_p.amin().isfinite())):
        return None
    log_p_y = dot = log_total = None
    if labels is not None and axis == 1 and log_p.ndim == 2:  # one node, not three
        log_p_y = -torch.nn.functional.nll_loss(log_p, labels, reduction="none")
    elif labels is not None:
        log_p_y = ops.pick(log_p, labels, axis)
    if weights is not None:
        is_tensor = isinstance(weights, Tensor)
        dot = (weights * log_p).sum(axis) if is_tensor else weights * log_p.sum(axis)
    if lse:
        log_total = torch.logsumexp(z.double(), axis)
    return _but_skipped(Rows(log_p_y, dot, None, log_total), skip)


# --- plain operations, whose derivatives are exact ------------------------------------------------
def _terms(x, axis):
    """Return max x, d = x - max x, e^d, Σ e^d - 1, and True at a class with p > 1/2.

    If such a class holds the maximum, autodiff goes through the maximum and through the other
    classes only: the class itself is constant in d and rest, so that no derivative is subtracted in
    one place and added in another. In rows without one, the maximum is a constant, since any shift
    cancels.
    """
    top = x.amax(axis, keepdim=True)
    highest = top.detach()
    highest = torch.where(highest.abs() == torch.inf, torch.nan, highest)
    at_top = x.detach() == highest
    ties = at_top.sum(axis, keepdim=True) - 1
    others = torch.where(at_top, 0.0, torch.exp(x.detach() - highest)).sum(axis, keepdim=True)
    dominates = at_top & (ties == 0) & (others < 1)
    top = torch.where((ties == 0) & (others < 1), top, highest)
    d = torch.where(dominates, 0.0, x - top)
    e = torch.exp(d)
    rest = torch.where(at_top, e - 1.0, e).sum(axis, keepdim=True) + ties
    return top, d, e, rest, dominates


def _softmax(x, axis):
    _, _, e, rest, dominates = _terms(x, axis)
    p = e / (1.0 + rest)
    # Compute p_k as 1 - Σ p over the other classes, which keeps the digits of its derivative.
    others = torch.where(dominates, 0.0, p).sum(axis, keepdim=True)
    return torch.where(dominates, p.detach() + (others.detach() - others), p)


def _log_softmax(x, axis):
    _, d, _, rest, _ = _terms(x, axis)
    return d - torch.log1p(rest)


def _row_statistics(x, request):
    axis, labels, weights, skip = request
    x = ops.compute(x)
    if skip is not None:
        x = torch.where(expand(skip, axis), 0.0, x)
    top, d, _, rest, _ = _terms(x, axis)
    log_sum = torch.log1p(rest)
    log_p = dot = None
    if labels is not None:
        # Subtract before squeezing: DTensor cannot remove the class axis of a pending sum.
        log_p = (d.gather(axis, labels.unsqueeze(axis)) - log_sum).squeeze(axis)
    if weights is not None:
        log_p_c = d - log_sum
        if isinstance(weights, Tensor):  # 0 log 0 = 0
            log_p_c = torch.where((weights == 0) & (log_p_c == -torch.inf), 0.0, log_p_c)
        dot = (weights * log_p_c).sum(axis)
    return _but_skipped(Rows(log_p, dot, None, (top + log_sum).squeeze(axis)), skip)


def _but_skipped(rows, skip):
    if skip is None:
        return rows
    return Rows(*[v if v is None else torch.where(skip, 0.0, v) for v in rows])


# --- what the caller needs ------------------------------------------------------------------------
def _is_differentiated(x, weights=None):
    if not torch.is_grad_enabled():
        return False
    return x.requires_grad or (isinstance(weights, Tensor) and weights.requires_grad)


def _are_few(x):
    if not (x.is_cpu and 0 < x.numel() <= FEW_ELEMENTS and x.dtype is not torch.float64):
        return False
    return not eager.serves(x)
