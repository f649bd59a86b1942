"""PyTorch: kernels for eager tensors of any device, in blocks of rows, without autograd.

A block is (outer, C) or (outer, C, inner), in float32 or wider: half precision is converted block
by block, never whole. The kernels lean on torch's own fused softmax and log-softmax where these are
fast and exact, and give back the digits that are lost where one class dominates its row. Whether
there is such a row is looked up on the CPU only: on an accelerator that would wait for the device.
Not measured on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from softmaxkit._statistics import Request, Rows

HALF = (torch.float16, torch.bfloat16)
WIDE = (torch.float32, torch.float64)
# Elements of a block. On the CPU its scratch stays in the cache: 4 MiB of float32, best of 128 KiB
# to 8. On an accelerator it is to fill the device; 16 MiB of float32, not measured on one.
BLOCK_ELEMENTS = 1 << 20
ACCELERATOR_ELEMENTS = 1 << 22
# CPU: rows shorter, and columns longer, than torch's own softmax is good at; see `has_kernel`.
SHORT_ROW, LONG_COLUMN = 16, 256
# Below this many logits calls cost more than that.
SHORT_ELEMENTS = 2000
# Above this log p, log Σ e^d has lost digits of float32, and of half precision.
DOMINANT, DOMINANT_IN_HALF = -0.5, -1e-2
# Below this log p, p is near the smallest numbers of float32, and its logarithm not that of e^d.
FAINT = -69.0
# Results on the CPU of more bytes are put in NumPy's memory, for which Linux is asked for pages of
# 2 MiB: log_softmax of (4096, 4096) 30 -> 12 ms.
FRESH_BYTES = 1 << 22


def wide_dtype(dtype):
    return torch.float64 if dtype is torch.float64 else torch.float32


# --- memory and blocks ----------------------------------------------------------------------------
def empty(shape, dtype, device):
    """Return memory for a result; SOFTMAXKIT_NUMPY_MEMORY=0 has all of it allocated by torch."""
    size = prod(shape) * dtype.itemsize
    off = os.environ.get("SOFTMAXKIT_NUMPY_MEMORY") == "0"
    if device.type != "cpu" or size <= FRESH_BYTES or off:
        return torch.empty(shape, dtype=dtype, device=device)
    memory = torch.from_numpy(np.empty(size, np.uint8)).untyped_storage()
    # No view, which autograd would note.
    return torch.empty(0, dtype=dtype, device=device).set_(memory, 0, shape)


def as_blocks(x, axis):
    """See the logits as (outer, C) or (outer, C, inner)."""
    if x.ndim == 2 and axis == 1:
        return x
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    return x.reshape((outer, x.shape[axis]) if inner == 1 else (outer, x.shape[axis], inner))


def _rows_as_blocks(x, axis, values):
    """Lay what broadcasts to the rows of `x` along its blocks; leave Python numbers as they are."""
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    form = (outer, 1) if inner == 1 else (outer, 1, inner)
    return [
        value if not isinstance(value, Tensor) else value.expand(rows).reshape(form)
        for value in values
    ]


def slices(x: Tensor) -> Iterator[slice | None]:
    """Cut along the first axis; None stands for an only block."""
    elements = BLOCK_ELEMENTS if x.is_cpu else ACCELERATOR_ELEMENTS
    if x.numel() <= elements:
        yield None
        return
    step = max(elements // x.shape[1:].numel(), 1)
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def part(values, block):
    """Return the block of a tensor, or a number as it is."""
    return values if block is None or not isinstance(values, Tensor) else values[block]


class _Scratch:
    """Memory of the size of a block, the same for each block."""

    def __init__(self):
        self.memory = None

    def like(self, z, dtype):
        if self.memory is None or self.memory.shape != z.shape:
            of_first = None if self.memory is None else self.memory[: len(z)]
            fits = of_first is not None and of_first.shape == z.shape
            self.memory = of_first if fits else torch.empty(z.shape, dtype=dtype, device=z.device)
        return self.memory


def has_kernel(x, axis=1):
    """Tell whether torch's own softmax along that axis is fast and exact enough.

    On the CPU, rows shorter than a vector register it takes one number at a time: (200000, 10) in
    16 ms, by whole operations in 4.4 ms. Along another axis than the last it adds one class after
    the other: 17 ULP off at 5000 classes, 200 at 300 of which the first dominates.
    """
    if not x.is_cpu:
        return True
    if x.shape[axis + 1 :].numel() == 1:
        return x.shape[axis] >= SHORT_ROW or x.numel() <= SHORT_ELEMENTS
    return x.shape[axis] <= LONG_COLUMN


# --- activations ----------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    # Except along the last axis, torch's CPU kernel rounds e^d to half before it divides: 1.4 ULP.
    rounds = x.dtype not in WIDE and not (x.dtype in HALF and (axis == x.ndim - 1 or not x.is_cpu))
    if dtype is x.dtype and not rounds and has_kernel(x, axis):
        return _whole(torch.softmax, x, axis)
    return _each(_softmax_into, x, axis, dtype)


def log_softmax(x, axis, dtype):
    if dtype is not x.dtype or x.dtype not in WIDE or not has_kernel(x, axis):
        dominant = DOMINANT if dtype in WIDE else DOMINANT_IN_HALF
        return _each(partial(_log_softmax_into, dominant=dominant), x, axis, dtype)
    # In blocks (4096, 4096) takes 20 ms, not 16: in new memory the two threads of a block wait for
    # the same pages.
    out = _whole(torch.log_softmax, x, axis)
    blocks = as_blocks(out, axis)
    for block in slices(blocks):
        _sharpen(part(blocks, block), DOMINANT)
    return out


def _whole(kernel, x, axis):
    if x.nbytes <= FRESH_BYTES:
        return kernel(x, axis)
    return kernel(x, axis, out=empty(x.shape, x.dtype, x.device))


def _each(kernel, x, axis, dtype):
    """Have `kernel(block, result)` write every block of the result; half precision in float32."""
    out = empty(x.shape, dtype, x.device)
    wide = wide_dtype(x.dtype)
    source, target, scratch = as_blocks(x, axis), as_blocks(out, axis), _Scratch()
    for block in slices(source):
        z, result = part(source, block).to(wide), part(target, block)
        in_place = result if dtype is wide else scratch.like(z, wide)
        kernel(z, in_place)
        if in_place is not result:
            result.copy_(in_place)
    return out


def _softmax_into(z, out):
    if has_kernel(z):
        torch.softmax(z, 1, out=out)
    else:
        torch.sub(z, z.amax(1, keepdim=True), out=out)
        out.exp_()
        out.div_(out.sum(1, keepdim=True))


def _log_softmax_into(z, out, dominant=DOMINANT):
    if has_kernel(z):
        torch.log_softmax(z, 1, out=out)
        _sharpen(out, dominant)
    else:
        torch.sub(z, z.amax(1, keepdim=True), out=out)
        out.sub_(_log_sum(torch.exp(out)))


def _log_sum(e):
    """Return log Σ e from e = e^(z - max), which is 1 at the maxima; spoils `e`."""
    whole = e.sum(1, keepdim=True)
    others = e.frac_().sum(1, keepdim=True)  # the maxima are gone
    return torch.log1p(others + ((whole - others).round_() - 1))


def _sharpen(log_p, dominant):
    """Give back to log p of a class that dominates its row the digits that log Σ e^d has lost."""
    highest = log_p.amax(1, keepdim=True)
    sure = highest > dominant
    if not log_p.is_cpu:
        log_p.copy_(_by_the_others(log_p, (log_p == highest) & sure))
    elif sure.any():
        sure, rows = sure.squeeze(1), log_p.movedim(1, -1)
        chosen = rows[sure]
        rows[sure] = _by_the_others(chosen, chosen == chosen.amax(1, keepdim=True))


def _by_the_others(log_p, at):
    """Return log p with log1p(-Σ p) over the other classes where `at` is True."""
    others = torch.exp(log_p).masked_fill_(at, 0.0).sum(1, keepdim=True)
    return torch.where(at, torch.log1p(-others), log_p)


def softmax_gradient(p, cotangent, axis):
    return _softmax_gradient(p, cotangent, axis, of_logits=False)


def softmax_gradient_of_logits(x, cotangent, axis):
    return _softmax_gradient(x, cotangent, axis, of_logits=True)


def _softmax_gradient(source, cotangent, axis, of_logits):
    """Return p (v - Σ p v), where `source` is p, or the logits of which p is made.

    See `softmaxkit._activations.softmax_derivative`: from v is taken what nearly is Σ p v, or v_k
    where p_k > 1/2.
    """
    out = empty(source.shape, source.dtype, source.device)
    wide = wide_dtype(source.dtype)
    given, target, of_out = (as_blocks(one, axis) for one in (source, out, cotangent))
    room, room_for_p = _Scratch(), _Scratch()
    for block in slices(given):
        p, v, result = part(given, block), part(of_out, block).to(wide), part(target, block)
        if of_logits:
            z, p = p.to(wide), room_for_p.like(p, wide)
            _softmax_into(z, p)
        u = torch.mul(p, v, out=room.like(p, wide))
        shift = u.sum(1, keepdim=True)
        sure = p.amax(1, keepdim=True) > 0.5
        if not p.is_cpu or sure.any():
            v_k = torch.where(p > 0.5, v, 0.0).sum(1, keepdim=True)
            shift = torch.where(sure, v_k, shift)
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
    """What a gradient is made of: log p of the labels, and perhaps p, in the gradient's memory."""

    log_p: Tensor | None = None
    p: Tensor | None = None


def row_statistics(x, request, lse, keep):
    axis, labels, weights, skip = request
    (index,) = _rows_as_blocks(x, axis, [labels])
    # Forward and backward with p kept / made anew, in ms: (1000, 1000) 1.3 / 2.4, (4096, 4096)
    # 15 / 20, (256, 128256) 24 / 50, (8, 21, 256, 256) 17 / 21, (200000, 10) 5.7 / 6.7. Both need
    # the memory of one gradient. With weights there is nothing to gain: 15 / 15.
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
    """Return log p at `index`, given the probabilities; they may be lost there."""
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
    """Return log p of the labels, Σ w log p, and log Σ e^z, by log p of each block."""
    wide = wide_dtype(x.dtype)
    source = as_blocks(x, axis)
    wanted = index is not None, weights is not None, lse
    per_row = (len(source), 1, *source.shape[2:])
    log_p_y, dot, log_total = (x.new_empty(per_row, dtype=wide) if one else None for one in wanted)
    if not (wanted[0] or wanted[1] or lse):
        return log_p_y, dot, log_total
    if isinstance(weights, Tensor):
        weights = as_blocks(weights.expand(x.shape), axis)
    scratch = _Scratch()
    for block in slices(source):
        z = part(source, block).to(wide)
        log_p = scratch.like(z, wide)
        _log_softmax_into(z, log_p)
        if index is not None:
            torch.gather(log_p, 1, part(index, block), out=part(log_p_y, block))
        if lse:
            tops = z.amax(1, keepdim=True), log_p.amax(1, keepdim=True)
            torch.sub(*tops, out=part(log_total, block))
        if weights is not None:
            part(dot, block).copy_(_dot(part(weights, block), log_p))
    return log_p_y, dot, log_total


def _dot(w, log_p):
    """Return Σ w log p, where 0 log 0 = 0; spoils `log_p`."""
    if not isinstance(w, Tensor):
        return log_p.sum(1, keepdim=True).mul_(w)
    if not log_p.is_cpu or bool((log_p.amin(1) == -torch.inf).any()):
        log_p.masked_fill_((w == 0) & (log_p == -torch.inf), 0.0)
    return log_p.mul_(w).sum(1, keepdim=True)


# --- their gradient -------------------------------------------------------------------------------
def row_gradient(x, request, kept, of_rows):
    """Carry the cotangents of the rows back, in the dtype of `x`; `of_rows` needs no mass."""
    return _row_gradient(x, request, kept, of_rows, _softmax_into)


def log_softmax_gradient(log_p, cotangent, axis):
    """Return the cotangent of logits of which the log-softmax is `log_p`: v - p Σ v."""
    request, of_rows = Request(axis, weights=cotangent), Rows(None, 1.0, None, None)
    return _row_gradient(log_p, request, Kept(), of_rows, lambda log_p, p: torch.exp(log_p, out=p))


def _row_gradient(x, request, kept, of_rows, softmax_into):
    axis, labels, weights, skip = request
    out = empty(x.shape, x.dtype, x.device) if kept.p is None else kept.p
    source, target = as_blocks(x, axis), as_blocks(out, axis)
    if isinstance(weights, Tensor):
        weights = as_blocks(weights.expand(x.shape), axis)
    by_log_p, by_dot, _, by_lse = of_rows
    per_row = _rows_as_blocks(x, axis, (kept.log_p, labels, skip, by_log_p, by_dot, by_lse))
    wide, scratch = wide_dtype(x.dtype), _Scratch()
    for block in slices(source):
        result = part(target, block)
        p = result if x.dtype is wide else scratch.like(result, wide)
        if kept.p is None:
            softmax_into(part(source, block).to(wide), p)
        _gradient_of_p(p, part(weights, block), *(part(value, block) for value in per_row))
        if p is not result:
            result.copy_(p)
    return out


def _gradient_of_p(p, w, log_p, labels, skip, by_log_p, by_dot, by_lse):
    """Put the gradient of a block's rows in the place of p."""
    factor = 0.0 if by_lse is None else by_lse  # of p, at the label
    dominates = None
    if isinstance(w, Tensor):
        w = w.to(p.dtype)
        factor = factor - by_dot * w.sum(1, keepdim=True)
        if not p.is_cpu or (p.amax(1) > 0.5).any():
            dominates = p > 0.5
            there = _where_dominated(p, w, dominates, labels, by_log_p, by_dot, by_lse)
    elif w is not None:
        factor = factor - by_dot * (w * p.shape[1])
    p.mul_(factor if labels is None else factor - by_log_p)
    if labels is not None:
        at_label = -by_log_p * torch.expm1(log_p)  # 1 - p, which keeps its digits
        if not (isinstance(factor, float) and factor == 0):
            at_label = at_label + factor * torch.exp(log_p)
        p.scatter_(1, labels, at_label)
    if isinstance(w, Tensor):
        p.addcmul_(w, by_dot) if isinstance(by_dot, Tensor) else p.add_(w, alpha=by_dot)
    elif w is not None:
        p.add_(by_dot * w)
    if dominates is not None:
        torch.where(dominates, there, p, out=p)
    if skip is not None:
        p.masked_fill_(skip, 0.0)


def _where_dominated(p, w, dominates, labels, by_log_p, by_dot, by_lse):
    """Return the gradient at the class k of p > 1/2, for rows that have one.

    There w_k - p_k Σ w cancels; it is w_k Σ p - p_k Σ w, both sums without k.
    """
    p_k = p.amax(1, keepdim=True)
    rest = torch.where(dominates, 0.0, p).sum(1, keepdim=True)
    others = torch.where(dominates, 0.0, w).sum(1, keepdim=True)
    w_k = torch.where(dominates, w, 0.0).sum(1, keepdim=True)
    out = by_dot * (w_k * rest - p_k * others)
    if by_lse is not None:
        out = out + by_lse * p_k
    if labels is not None:
        out = out + by_log_p * torch.where(dominates.gather(1, labels), rest, -p_k)
    return out


# --- sums -----------------------------------------------------------------------------------------
def sum_in_float32(x, axis):
    """Sum half precision over the classes."""
    source = as_blocks(x, axis)
    out = x.new_empty((len(source), *source.shape[2:]), dtype=torch.float32)
    for block in slices(source):
        torch.sum(part(source, block), 1, dtype=torch.float32, out=part(out, block))
    return out.reshape(x.shape[:axis] + x.shape[axis + 1 :])
