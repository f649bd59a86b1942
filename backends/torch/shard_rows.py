"""PyTorch: the statistics of rows whose classes lie in shards, one for each process of a group.

The maxima of the whole rows are exchanged first, so that each shard can sum its classes relative to
them, in blocks of rows. Not measured on a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from softmaxkit import _shard, _statistics
from softmaxkit._axes import expand
from softmaxkit._statistics import Factors, Part, Request, Rows
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch.arrays import is_differentiated_again
from softmaxkit.backends.torch.memory import (
    Scratch,
    as_blocks,
    empty,
    part,
    rows_as_blocks,
    slices,
)


class Group:
    """The processes of a group, or of those of several mesh dimensions, one after the other."""

    def __init__(self, *groups):
        self._groups = groups

    def sum(self, x):
        return self._reduced(x, dist.ReduceOp.SUM)

    def max(self, x):
        return self._reduced(x, dist.ReduceOp.MAX)

    def totals(self, axis, *arrays):
        """Return sums over the classes of all shards, which can be differentiated to any order."""
        sums = torch.stack([one.sum(axis) for one in arrays])
        return self.for_each(_Summed.apply(sums, self)).unbind()

    def for_each(self, value):
        trains = isinstance(value, Tensor) and torch.is_grad_enabled() and value.requires_grad
        return _ForEach.apply(value, self) if trains else value

    def _reduced(self, x, op):
        x = x.detach().clone(memory_format=torch.contiguous_format)
        for group in self._groups:
            dist.all_reduce(x, op, group)
        return x


class _ForEach(torch.autograd.Function):
    """A value that every process uses with its own classes: its gradients are summed over them."""

    @staticmethod
    def forward(ctx, value, group):
        ctx.group = group
        return value.view_as(value)

    @staticmethod
    def backward(ctx, of_value):
        return _Summed.apply(of_value, ctx.group), None


class _Summed(torch.autograd.Function):
    """The sum over the processes. All do the same with it, so each has its whole gradient."""

    @staticmethod
    def forward(ctx, value, group):
        return group.sum(value)

    @staticmethod
    def backward(ctx, of_sum):
        return of_sum, None


def statistics(x, request, top, weight, group, number):
    """Reduce rows to `Rows`, given their maxima `top`; also sum `weight` over the shards.

    Labels are indices into this shard; `number` is how many classes all shards have. `weight` has
    one number for each row. With weights, the `Rows` have their mass, too.
    """
    found = _Statistics.apply(x, request.weights, weight, _Known(request, top, group, number))
    log_p, dot, rest, mass, _, weight = found
    lse = top + torch.log1p(rest)
    lse = lse if request.skip is None else torch.where(request.skip, 0.0, lse)
    return Rows(log_p, dot, mass, lse), weight


class _Known(NamedTuple):
    request: Request
    top: Tensor
    group: Group
    number: int | Tensor


class _Statistics(torch.autograd.Function):
    """The statistics of whole rows, from their classes in this shard.

    The gradients by the logits and the weights need no collective; derivatives of these do.
    """

    @staticmethod
    def forward(ctx, x, weights, weight, known):
        request, top, group, number = known
        columns = _columns(x, request, torch.where(top.abs() == torch.inf, torch.nan, top))
        summed = _shard.summed(ops, group, (*columns, weight))
        holders, others, log_p, dot, mass, beside, weight = summed
        rest = others + (holders - 1.0)
        if dot is not None and mass is None:
            known_here = not isinstance(number, Tensor)
            mass = weights * (rest.new_full((), number) if known_here else number.to(rest.dtype))
        log_sum = torch.log1p(rest)
        log_p = None if log_p is None else log_p - log_sum
        if dot is not None:
            dot = dot - mass * torch.where(mass == 0, 0.0, log_sum)
        if request.skip is not None:
            log_p, dot, rest = (
                one if one is None else torch.where(request.skip, 0.0, one)
                for one in (log_p, dot, rest)
            )
        ctx.axis, ctx.group = request.axis, group
        ctx.number = None if isinstance(weights, Tensor) else weights
        saved = weights if isinstance(weights, Tensor) else None
        ctx.save_for_backward(
            *(x, saved, request.labels, request.skip, top, log_p, rest, mass, beside)
        )
        ctx.set_materialize_grads(False)
        return log_p, dot, rest, mass, beside, weight

    @staticmethod
    def backward(ctx, *by_found):
        x, weights, labels, skip, top, *rows = ctx.saved_tensors
        weights = ctx.number if weights is None else weights
        *by_rows, by_weight = by_found
        again = any(one is not None and is_differentiated_again(one) for one in by_rows)
        with torch.set_grad_enabled(again):
            rows = [ctx.group.for_each(one) for one in rows]
            by_rows = [ctx.group.for_each(one) for one in by_rows]
            request = Request(ctx.axis, labels, weights, skip)
            by_x = by_weights = None
            if ctx.needs_input_grad[0]:
                by_x = gradient(x, request, top, rows, by_rows[:3], again=again)
            if ctx.needs_input_grad[1]:
                by_weights = _by_weights(x, request, top, rows, by_rows)
        return by_x, by_weights, by_weight, None


def part_of(z, request):
    """Return the part of rows of which these are some classes, along axis 1."""
    labels, weights = request.labels, request.weights
    if z.shape[1] == 0:
        weights = weights if weights is None else torch.zeros_like(z)
        return _statistics.part(ops, z, 1, labels, weights)
    top = z.amax(1)
    known = torch.where(top == -torch.inf, 0.0, torch.where(top == torch.inf, torch.nan, top))
    holders, others, _, dot, mass, beside = _columns(z, request, known)
    label = None if labels is None else _at(labels[:, None], z, 0.0).squeeze(1)
    if dot is not None and mass is None:
        one = weights * torch.ones_like(top)
        mass, beside = one * z.shape[1], one * (z.shape[1] - 1)
    return Part(top, others + (holders - 1.0), label, dot, mass, beside)


def rest_of(x, axis, top, group):
    """Return Σ e^d - 1 of whole rows, given their maxima."""
    columns = _columns(x, Request(axis), torch.where(top.abs() == torch.inf, torch.nan, top))
    holders, others, *_ = _shard.summed(ops, group, columns)
    return others + (holders - 1.0)


def _columns(x, request, top):
    """Return what this shard adds to the sums of whole rows, given their maxima.

    These are the terms of `_statistics.merge`: how many classes have the maximum, Σ e^d over the
    others, d of the label, Σ w d, Σ w, and Σ w without the classes of the maximum.
    """
    axis, labels, weights, _ = request
    source, wide = as_blocks(x, axis), top.dtype
    varies = isinstance(weights, Tensor) and weights.ndim
    if varies:
        weights = as_blocks(weights.expand(x.shape), axis)
    per_row = rows_as_blocks(x, axis, (top, labels))
    wanted = True, True, labels is not None, weights is not None, varies, varies
    sums = [torch.empty_like(per_row[0]) if one else None for one in wanted]
    scratch = Scratch()
    for block in slices(source):
        some = scratch.cast(part(source, block), "z", wide)
        of_top, index = (part(one, block) for one in per_row)
        holders, others, label, dot, mass, beside = (part(one, block) for one in sums)
        d = torch.sub(some, of_top, out=scratch.like(some, "d"))
        if labels is not None:
            label.copy_(_at(index, d, 0.0))
        if varies:
            w = scratch.cast(part(weights, block), "w", wide)
            product = torch.mul(w, d, out=scratch.like(d, "product"))
            product.masked_fill_((w == 0) & (d == -torch.inf), 0.0)  # 0 log 0 = 0
            torch.sum(product, 1, keepdim=True, out=dot)
            torch.sum(w, 1, keepdim=True, out=mass)
            torch.sum(torch.mul(w, d != 0, out=product), 1, keepdim=True, out=beside)
        elif weights is not None:
            dot.copy_(d.sum(1, keepdim=True).mul_(weights))
        e = d.exp_()
        whole = e.sum(1, keepdim=True)
        # e^d is 1 at the maximum, where its fractional part is 0, and less at every other class.
        torch.sum(e.frac_(), 1, keepdim=True, out=others)
        torch.round(whole.sub_(others), out=holders)
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    return [one if one is None else one.reshape(rows) for one in sums]


def _at(index, values, otherwise):
    """Return the values at indices along axis 1, `otherwise` where an index is out of range."""
    length = values.shape[1]
    if length == 0:
        return torch.full_like(index, otherwise, dtype=values.dtype)
    here = (index >= 0) & (index < length)
    return torch.where(here, values.gather(1, torch.where(here, index, 0)), otherwise)


def gradient(x, request, top, rows, by_rows, *, again):
    """Return the gradient by the logits; with `again`, autograd can follow its operations."""
    axis, labels, weights, skip = request
    log_p, rest, mass, beside = rows
    by_log_p, by_dot, by_rest = by_rows
    labels, log_p = (None, None) if by_log_p is None else (labels, log_p)
    weights = None if by_dot is None else weights
    by_lse = None if by_rest is None else by_rest * (1.0 + rest)
    whole = Part(top, rest, mass=mass, beside=beside)
    of_rows = _statistics.factors(ops, whole, Rows(by_log_p, by_dot, None, by_lse), log_p, weights)
    top = torch.where(top.abs() == torch.inf, torch.nan, top)
    varies = isinstance(weights, Tensor) and weights.ndim
    if again:
        z = ops.compute(x)
        weights = weights.to(z.dtype).expand(x.shape) if varies else weights
        d, given = z - expand(top, axis), {"labels": labels, "weights": weights, "again": True}
        out = _statistics.spread(ops, z, d, axis, of_rows, **given)
        out = out if skip is None else torch.where(expand(skip, axis), 0.0, out)
        return out.to(x.dtype)
    out, scratch = empty(x.shape, x.dtype, x.device), Scratch()
    source, target = as_blocks(x, axis), as_blocks(out, axis)
    if varies:
        weights = as_blocks(weights.expand(x.shape), axis)
    per_row = rows_as_blocks(x, axis, (top, labels, skip, *of_rows))
    for block in slices(source):
        of_top, index, skipped, *of_block = (part(one, block) for one in per_row)
        result = part(target, block)
        z = scratch.cast(part(source, block), "z", top.dtype)
        d = torch.sub(z, of_top, out=result if x.dtype is top.dtype else scratch.like(z, "d"))
        w = part(weights, block)
        if varies:
            w = scratch.cast(w, "w", top.dtype)
            of_block = Factors(*(_squeezed(one) for one in of_block))
            d = _statistics.spread(ops, z, d, 1, of_block, labels=_squeezed(index), weights=w)
        else:
            _spread_in_place(d, index, Factors(*of_block))
        if skipped is not None:
            d.masked_fill_(skipped, 0.0)
        if d is not result:
            result.copy_(d)
    return out


def _squeezed(rows):
    return rows.squeeze(1) if isinstance(rows, Tensor) and rows.ndim else rows


def _spread_in_place(d, index, of_rows):
    """Overwrite d with the gradient: `_statistics.spread` for weights that are one number."""
    e = d.exp_()
    e_y = None if index is None else _at(index, e, 0.0)
    e.mul_(of_rows.of_e)
    if of_rows.added is not None:
        e.add_(of_rows.added)
    if index is None or e.shape[1] == 0:
        return
    at_label = of_rows.at_label
    if of_rows.of_e_at_label is not None:
        at_label = at_label + of_rows.of_e_at_label * e_y
    here = (index >= 0) & (index < e.shape[1])
    index = torch.where(here, index, 0)
    e.scatter_(1, index, torch.where(here, at_label, e.gather(1, index)))


def _by_weights(x, request, top, rows, by_rows):
    """Return the gradient by the weights, through Σ w log p, Σ w and Σ w beside the maximum."""
    axis, _, weights, skip = request
    _, rest, _, _ = rows
    _, by_dot, _, by_mass, by_beside = by_rows
    d = _statistics.centred(ops, ops.compute(x), top, axis)
    found = torch.zeros_like(d)
    if by_dot is not None:
        log_p = d - expand(torch.log1p(rest), axis)
        log_p = torch.where((weights == 0) & (log_p == -torch.inf), 0.0, log_p)
        found = expand(by_dot, axis) * log_p
    if by_mass is not None:
        found = found + expand(by_mass, axis)
    if by_beside is not None:
        found = found + torch.where(d == 0, 0.0, expand(by_beside, axis))
    if skip is not None:
        found = torch.where(expand(skip, axis), 0.0, found)
    return found.sum_to_size(weights.shape).to(weights.dtype)
