"""PyTorch: kernels for eager tensors of any device, in blocks of rows, without autograd.

Half precision is converted block by block, never whole. The kernels use torch's own fused softmax
and log-softmax where these are fast and exact, and restore the digits that are lost where one class
dominates its row. Only on the CPU do they first check whether there is such a row: on an
accelerator, the check would wait for the device. Not measured on a GPU.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from softmaxkit._axes import SUM_CLASSES
from softmaxkit._statistics import Rows
from softmaxkit.backends.torch.memory import (
    HALF,
    WIDE,
    Scratch,
    as_blocks,
    empty,
    is_large,
    part,
    rows_as_blocks,
    slices,
    wide_dtype,
)

# On the CPU, torch's own softmax is slow for rows shorter than this; see `has_kernel`.
SHORT_ROW = 16
# Up to this many logits, it is still faster than the calls of separate operations.
SHORT_ELEMENTS = 2000
# From this row length on, torch's own softmax on the CPU loses digits of Σ e^d; see `_even`.
LONG_ROW = 1 << 14
# Above this log p, log Σ e^d has lost digits of float32, or of half precision.
DOMINANT, DOMINANT_IN_HALF = -0.5, -1e-2
# Below this log p, p is near the smallest numbers of float32, and its logarithm loses digits.
FAINT = -69.0


def has_kernel(x, axis=1):
    """Return whether torch's own softmax along that axis is fast and exact enough.

    Along an axis other than the last, it adds one class after another: 17 ULP off at 5000 classes,
    200 at 300 classes of which the first dominates. On the CPU, it processes rows shorter than a
    vector register one number at a time: (200000, 10) takes 16 ms, and 4.4 ms with operations on
    whole blocks.
    """
    if x.shape[axis + 1 :].numel() > 1:
        return x.shape[axis] <= SUM_CLASSES
    return not x.is_cpu or x.shape[axis] >= SHORT_ROW or x.numel() <= SHORT_ELEMENTS


# --- activations ----------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    # Except along the last axis, torch's CPU kernel rounds e^d to half before it divides: 1.4 ULP.
    rounds = x.dtype not in WIDE and not (x.dtype in HALF and (axis == x.ndim - 1 or not x.is_cpu))
    if dtype is x.dtype and not rounds and has_kernel(x, axis):
        out = _whole(torch.softmax, x, axis)
        if is_summed_in_sequence(out, axis):
            blocks = as_blocks(out, axis)
            for block in slices(blocks):
                _even(part(blocks, block))
        return out
    return _each(_softmax_into, x, axis, dtype)


def log_softmax(x, axis, dtype):
    if dtype is not x.dtype or x.dtype not in WIDE or not has_kernel(x, axis):
        dominant = DOMINANT if dtype in WIDE else DOMINANT_IN_HALF
        return _each(partial(_log_softmax_into, dominant=dominant), x, axis, dtype)
    # Not in blocks, where (4096, 4096) takes 20 ms instead of 16: in new memory, the two threads of
    # a block wait for the same pages.
    out = _whole(torch.log_softmax, x, axis)
    blocks, scratch = as_blocks(out, axis), Scratch()
    for block in slices(blocks):
        log_p = part(blocks, block)
        _even_log(log_p, scratch)
        _sharpen(log_p, DOMINANT, scratch)
    return out


def _whole(kernel, x, axis):
    return (
        kernel(x, axis, out=empty(x.shape, x.dtype, x.device)) if is_large(x) else kernel(x, axis)
    )


def _each(kernel, x, axis, dtype):
    """Write each block of the result with `kernel(z, out, scratch)`, half precision in float32."""
    out = empty(x.shape, dtype, x.device)
    wide = wide_dtype(x.dtype)
    source, target, scratch = as_blocks(x, axis), as_blocks(out, axis), Scratch()
    for block in slices(source):
        z, result = scratch.cast(part(source, block), "z", wide), part(target, block)
        in_place = result if dtype is wide else scratch.like(z, "result")
        kernel(z, in_place, scratch)
        if in_place is not result:
            result.copy_(in_place)
    return out


def _softmax_into(z, out, scratch=None):
    if has_kernel(z):
        torch.softmax(z, 1, out=out)
        _even(out)
    else:
        torch.sub(z, z.amax(1, keepdim=True), out=out)
        out.exp_()
        out.div_(out.sum(1, keepdim=True))


def _log_softmax_into(z, out, scratch, dominant=DOMINANT):
    if has_kernel(z):
        torch.log_softmax(z, 1, out=out)
        _even_log(out, scratch)
        _sharpen(out, dominant, scratch)
    else:
        torch.sub(z, z.amax(1, keepdim=True), out=out)
        out.sub_(_log_sum(torch.exp(out)))


def is_summed_in_sequence(x, axis=1):
    """Return whether torch's own softmax adds the e^d of such rows one after another.

    If they are nearly equal, Σ p differs from 1 by 1e-6 at 32768 classes and by 4e-5 at 262144.
    Accelerators add in pairs.
    """
    return x.is_cpu and x.shape[axis] >= LONG_ROW and x.dtype in WIDE


def _even(p):
    """Divide p of long rows by its accurate sum; it takes an eighth of the time of the softmax."""
    if is_summed_in_sequence(p):
        p.div_(p.sum(1, keepdim=True))


def _even_log(log_p, scratch):
    """Do the same for log p."""
    if is_summed_in_sequence(log_p):
        p = torch.exp(log_p, out=scratch.like(log_p, "beside"))
        log_p.sub_(p.sum(1, keepdim=True).log_())


def _log_sum(e):
    """Return log Σ e for e = e^(z - max), which is 1 at the maxima; overwrites `e`."""
    whole = e.sum(1, keepdim=True)
    others = e.frac_().sum(1, keepdim=True)  # without the maxima, whose fraction is 0
    return torch.log1p(others + ((whole - others).round_() - 1))


def _sharpen(log_p, dominant, scratch):
    """Restore the digits of log p that log Σ e^d has lost where a class dominates its row."""
    highest = log_p.amax(1, keepdim=True)
    rows = _rows_of(highest, dominant)
    if rows is not None:
        chosen, sure = log_p[rows], highest[rows] > dominant
        at = _at(chosen, dominant, scratch)
        e = torch.exp(chosen, out=scratch.like(chosen, "beside"))
        others = e.addcmul_(e, at, value=-1).sum(1, keepdim=True)
        _put(log_p, rows, at, torch.where(sure, torch.log1p(-others), 0.0), scratch)


# Masks below are numbers, 1 and 0: with a boolean mask, a pass over a block takes 3 to 5 times as
# long on the CPU.
def _at(x, limit, scratch):
    """Return 1 where a class dominates its row, else 0."""
    return torch.gt(x, limit, out=scratch.like(x, "at"))


def _rows_of(highest, limit):
    """Return an index of the rows (or of all) if `highest` exceeds the limit in some, else None."""
    if highest.is_cpu:
        # If a row is NaN, so is the maximum, which is then not <= limit: other rows may exceed it.
        if highest.numel() == 0 or highest.amax().item() <= limit:
            return None
        if highest.ndim == 2:
            return (highest > limit).squeeze(1).nonzero().squeeze(1)
    return slice(None)


def _put(block, rows, at, value, scratch):
    """Write the value of each row at the class that dominates it."""
    chosen = block[rows]
    chosen.mul_(torch.lt(at, 0.5, out=scratch.like(at, "beside"))).addcmul_(at, value)
    if isinstance(rows, Tensor):  # otherwise `chosen` is a view
        block[rows] = chosen


def softmax_gradient(p, cotangent, axis):
    return _softmax_gradient(p, cotangent, axis, of_logits=False)


def softmax_gradient_of_logits(x, cotangent, axis):
    return _softmax_gradient(x, cotangent, axis, of_logits=True)


def _softmax_gradient(source, cotangent, axis, of_logits):
    """Return p (v - Σ p v), where `source` is p, or the logits from which p is computed.

    As in `softmaxkit._activations.softmax_derivative`, an approximation of Σ p v is first
    subtracted from v, or v_k where p_k > 1/2.
    """
    out = empty(source.shape, source.dtype, source.device)
    wide = wide_dtype(source.dtype)
    given, target, of_out = (as_blocks(one, axis) for one in (source, out, cotangent))
    scratch = Scratch()
    for block in slices(given):
        p = scratch.cast(part(given, block), "given", wide)
        v = scratch.cast(part(of_out, block), "v", wide)
        result = part(target, block)
        if of_logits:
            z, p = p, scratch.like(p, "p")
            _softmax_into(z, p)
        u = torch.mul(p, v, out=scratch.like(p, "u"))
        shift = u.sum(1, keepdim=True)
        highest = p.amax(1, keepdim=True)
        rows = _rows_of(highest, 0.5)
        if rows is not None:
            v_k = _at(p[rows], 0.5, scratch).mul_(v[rows]).sum(1, keepdim=True)
            shift[rows] = torch.where(highest[rows] > 0.5, v_k, shift[rows])
        torch.sub(v, shift, out=u)
        if result.dtype is wide:
            torch.mul(p, u, out=result)
            total = result.sum(1, keepdim=True)
            result.addcmul_(p, total, value=-1)
        else:
            total = torch.mul(p, u).sum(1, keepdim=True)
            result.copy_(u.sub_(total).mul_(p))
    return out


# --- row statistics -------------------------------------------------------------------------------
class Kept(NamedTuple):
    """Saved for the gradient: log p of the labels, and perhaps p, which the gradient overwrites.

    `triton` keeps what the rows reduce to instead of p: see `softmaxkit._statistics.Part`.
    """

    log_p: Tensor | None = None
    p: Tensor | None = None
    top: Tensor | None = None
    rest: Tensor | None = None
    mass: Tensor | None = None
    beside: Tensor | None = None


def row_statistics(x, request, lse, keep):
    axis, labels, weights, skip = request
    (index,) = rows_as_blocks(x, axis, [labels])
    # Forward and backward with p kept / recomputed, in ms: (1000, 1000) 1.3 / 2.4, (4096, 4096)
    # 15 / 20, (256, 128256) 24 / 50, (8, 21, 256, 256) 17 / 21, (200000, 10) 5.7 / 6.7. Both need
    # the memory of one gradient. With weights, keeping p gains nothing: 15 / 15.
    p = None
    if keep and labels is not None and weights is None and not lse and x.dtype in WIDE:
        p = softmax(x, axis, x.dtype)
        log_p, dot, log_total = _picked(as_blocks(x, axis), as_blocks(p, axis), index), None, None
    else:
        log_p, dot, log_total = _in_scratch(x, axis, index, weights, lse)
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    found = (v if v is None else v.reshape(rows) for v in (log_p, dot, log_total))
    if skip is not None:
        found = (v if v is None else v.masked_fill(skip, 0.0) for v in found)
    log_p, dot, log_total = found
    return Rows(log_p, dot, None, log_total), Kept(log_p, p)


def _picked(z, p, index):
    """Return log p at `index`, given the probabilities, which may be overwritten there."""
    p_y = p.gather(1, index)
    log_p = p_y.log()
    if not p.is_cpu or not bool((log_p >= FAINT).all()):
        highest, at = z.max(1, keepdim=True)
        d = z.gather(1, index) - highest
        log_p = torch.where(log_p < FAINT, d + p.gather(1, at).log_(), log_p)
    if not p.is_cpu or bool((log_p > DOMINANT).any()):
        others = p.scatter_(1, index, 0.0).sum(1, keepdim=True)
        log_p = torch.where(log_p > DOMINANT, torch.log1p(-others), log_p)
    return log_p


def _in_scratch(x, axis, index, weights, lse):
    """Return log p of the labels, Σ w log p and log Σ e^z, computed block by block."""
    wide = wide_dtype(x.dtype)
    source = as_blocks(x, axis)
    wanted = index is not None, weights is not None, lse
    per_row = (len(source), 1, *source.shape[2:])
    log_p_y, dot, log_total = (x.new_empty(per_row, dtype=wide) if one else None for one in wanted)
    if not (wanted[0] or wanted[1] or lse):
        return log_p_y, dot, log_total
    if isinstance(weights, Tensor):
        weights = as_blocks(weights.expand(x.shape), axis)
    scratch = Scratch()
    for block in slices(source):
        z = scratch.cast(part(source, block), "z", wide)
        log_p = scratch.like(z, "log_p")
        if not (wanted[1] or lse):  # softmax takes half as long as log-softmax
            _softmax_into(z, log_p)
            part(log_p_y, block).copy_(_picked(z, log_p, part(index, block)))
            continue
        _log_softmax_into(z, log_p, scratch)
        if index is not None:
            torch.gather(log_p, 1, part(index, block), out=part(log_p_y, block))
        if lse:
            tops = z.amax(1, keepdim=True), log_p.amax(1, keepdim=True)
            torch.sub(*tops, out=part(log_total, block))
        if weights is not None:
            w = part(weights, block)
            w = scratch.cast(w, "w", wide) if isinstance(w, Tensor) else w
            part(dot, block).copy_(_dot(w, log_p))
    return log_p_y, dot, log_total


def _dot(w, log_p):
    """Return Σ w log p, where 0 log 0 = 0; overwrites `log_p`."""
    if not isinstance(w, Tensor):
        return log_p.sum(1, keepdim=True).mul_(w)
    if not log_p.is_cpu or bool((log_p.amin(1) == -torch.inf).any()):
        log_p.masked_fill_((w == 0) & (log_p == -torch.inf), 0.0)
    return log_p.mul_(w).sum(1, keepdim=True)


# --- their gradient -------------------------------------------------------------------------------
def row_gradient(x, request, kept, of_rows):
    """Carry the cotangents of the rows back to `x`, in its dtype; `of_rows` needs no mass."""
    axis, labels, weights, skip = request
    out = empty(x.shape, x.dtype, x.device) if kept.p is None else kept.p
    source, target = as_blocks(x, axis), as_blocks(out, axis)
    if isinstance(weights, Tensor):
        weights = as_blocks(weights.expand(x.shape), axis)
    by_log_p, by_dot, _, by_lse = of_rows
    per_row = rows_as_blocks(x, axis, (labels, skip, kept.log_p, by_log_p, by_dot, by_lse))
    wide, scratch = wide_dtype(x.dtype), Scratch()
    for block in slices(source):
        result = part(target, block)
        p = result if x.dtype is wide else scratch.like(result, "p", wide)
        if kept.p is None:
            _softmax_into(scratch.cast(part(source, block), "z", wide), p)
        of_rows = _RowsOfBlock(*(part(value, block) for value in per_row))
        _gradient_of_p(scratch, p, part(weights, block), of_rows)
        if p is not result:
            result.copy_(p)
    return out


class _RowsOfBlock(NamedTuple):
    labels: Tensor | None
    skip: Tensor | None
    log_p: Tensor | None  # of the labels
    by_log_p: Tensor | None
    by_dot: Tensor | float | None
    by_lse: Tensor | None


def _gradient_of_p(scratch, p, w, of_rows):
    """Overwrite p of a block with the gradient of its rows."""
    labels, skip, log_p, by_log_p, by_dot, by_lse = of_rows
    factor = 0.0 if by_lse is None else by_lse  # factor of p at the label
    rows = None
    if isinstance(w, Tensor):
        w = scratch.cast(w, "w", p.dtype)
        mass, p_k = w.sum(1, keepdim=True), p.amax(1, keepdim=True)
        factor = factor - by_dot * mass
        rows = _rows_of(p_k, 0.5)
        if rows is not None:
            of_these = _RowsOfBlock(*(part(one, rows) for one in of_rows))
            these = (part(one, rows) for one in (p, w, mass, p_k))
            at, there = _where_dominated(scratch, *these, of_these)
    elif w is not None:
        factor = factor - by_dot * (w * p.shape[1])
    p.mul_(factor if labels is None else factor - by_log_p)
    if labels is not None:
        at_label = -by_log_p * torch.expm1(log_p)  # 1 - p without cancellation
        if not (isinstance(factor, float) and factor == 0):
            at_label = at_label + factor * torch.exp(log_p)
        p.scatter_(1, labels, at_label)
    if isinstance(w, Tensor):
        p.addcmul_(w, by_dot) if isinstance(by_dot, Tensor) else p.add_(w, alpha=by_dot)
    elif w is not None:
        p.add_(by_dot * w)
    if rows is not None:
        _put(p, rows, at, there, scratch)
    if skip is not None:
        p.masked_fill_(skip, 0.0)


def _where_dominated(scratch, p, w, mass, p_k, of_rows):
    """Return 1 where p_k > 1/2, and the gradient there.

    At k, w_k - p_k Σ w would cancel; it equals w_k Σ p - p_k Σ w with both sums without k.
    """
    at, beside = _at(p, 0.5, scratch), scratch.like(p, "beside")
    rest, others = (
        torch.addcmul(one, one, at, value=-1, out=beside).sum(1, keepdim=True) for one in (p, w)
    )
    there = of_rows.by_dot * ((mass - others) * rest - p_k * others)
    if of_rows.by_lse is not None:
        there = there + of_rows.by_lse * p_k
    if of_rows.labels is not None:
        is_label = at.gather(1, of_rows.labels) > 0
        there = there + of_rows.by_log_p * torch.where(is_label, rest, -p_k)
    return at, torch.where(p_k > 0.5, there, 0.0)


# --- sums -----------------------------------------------------------------------------------------
def sum_in_float32(x, axis):
    """Sum half-precision numbers over the classes, in float32."""
    source = as_blocks(x, axis)
    out = x.new_empty((len(source), *source.shape[2:]), dtype=torch.float32)
    for block in slices(source):
        torch.sum(part(source, block), 1, dtype=torch.float32, out=part(out, block))
    return out.reshape(x.shape[:axis] + x.shape[axis + 1 :])
