"""PyTorch: kernels for a DTensor whose classes are sharded over a device mesh.

Each process reduces its own classes, and the processes exchange only a few numbers for each row.
Everything else about a DTensor, such as a mean over sharded rows, is left to torch.
"""

from __future__ import annotations

from functools import partial

import torch

from softmaxkit import _statistics
from softmaxkit._activations import softmax_derivative
from softmaxkit._axes import expand
from softmaxkit._statistics import Request, Rows
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import shard_rows
from softmaxkit.backends.torch.arrays import PLAIN, is_differentiated_again
from softmaxkit.backends.torch.compiled import loses_small_p
from softmaxkit.backends.torch.shard_rows import Group


def is_sharded(x, axis):
    """Return whether the class axis of `x` is sharded, and each of its placements known here."""
    if type(x) in PLAIN or not hasattr(x, "device_mesh"):
        return False
    from torch.distributed.tensor import Replicate, Shard

    known = all(type(one) in (Replicate, Shard) for one in x.placements)
    return known and any(one.is_shard(axis) for one in x.placements)


class Sharded:
    """The part of a DTensor that this process has, and where it lies among the classes."""

    def __init__(self, x, axis):
        self.mesh, self.placements, self.axis = x.device_mesh, x.placements, axis
        self.shape, self.number = x.shape, x.shape[axis]
        self.local = x.to_local()
        self.first, length, groups = 0, self.number, []
        for dim, one in enumerate(self.placements):
            if one.is_shard(axis):
                groups.append(self.mesh.get_group(dim))
                step = -(-length // self.mesh.size(dim))
                start = min(self.mesh.get_local_rank(dim) * step, length)
                self.first, length = self.first + start, min(step, length - start)
        self.group = Group(*groups)
        self.of_rows = placements_without(self.placements, axis)

    def rows(self, value):
        """Return this process's part of a value of the rows."""
        return here(value, self.mesh, self.of_rows, len(self.shape) - 1)

    def of_classes(self, value):
        """Return this process's part of a value that broadcasts to the logits."""
        return here(value, self.mesh, self.placements, len(self.shape))

    def whole_rows(self, value):
        """Return a DTensor of the rows, given this process's part."""
        shape = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        return whole(value, self.mesh, self.of_rows, shape)

    def top(self):
        """Return the maxima of the rows."""
        x = self.local.detach()
        if x.shape[self.axis] == 0:
            return self.group.max(ops.compute(x).sum(self.axis) - torch.inf)
        return self.group.max(ops.compute(x.amax(self.axis)))


def placements_without(placements, axis):
    """Return the placements of the rows, which have no class axis."""
    from torch.distributed.tensor import Replicate, Shard

    return tuple(
        Shard(one.dim - (one.dim > axis)) if one.is_shard() and one.dim != axis else Replicate()
        for one in placements
    )


def here(value, mesh, placements, ndim):
    """Return this process's part of a value that broadcasts to an array of `ndim` axes so placed.

    If that array is sharded along an axis along which the value broadcasts, the processes get the
    same part of the value, and its gradients are summed over them.
    """
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(value, DTensor):
        return value
    if ndim > value.ndim:
        value = value[(None,) * (ndim - value.ndim)]
    placed = tuple(
        one if one.is_shard() and value.shape[one.dim] > 1 else Replicate() for one in placements
    )
    groups = [
        mesh.get_group(dim)
        for dim, (one, its) in enumerate(zip(placements, placed, strict=True))
        if one.is_shard() and its.is_replicate()
    ]
    return Group(*groups).for_each(value.redistribute(mesh, placed).to_local())


def whole(value, mesh, placements, shape):
    """Return a DTensor, given this process's part."""
    from torch.distributed.tensor import DTensor

    if value is None:
        return None
    stride = torch.empty(shape, device="meta").stride()
    return _Placed.apply(
        DTensor.from_local(value, mesh, placements, run_check=False, shape=shape, stride=stride)
    )


class _Placed(torch.autograd.Function):
    """A DTensor whose gradient is placed as it is.

    `from_local` would redistribute the gradient, too, but in a way that autograd does not follow:
    second gradients would be wrong.
    """

    @staticmethod
    def forward(ctx, value):
        ctx.mesh, ctx.placements = value.device_mesh, value.placements
        return value.view_as(value)

    @staticmethod
    def backward(ctx, of_value):
        return of_value.redistribute(ctx.mesh, ctx.placements)


def softmax(x, axis, dtype):
    sharded = Sharded(x, axis)
    out, _ = _Softmax.apply(sharded.local, axis, dtype, sharded.group, sharded.top())
    return whole(out, sharded.mesh, sharded.placements, sharded.shape)


def log_softmax(x, axis, dtype):
    sharded = Sharded(x, axis)
    out, _ = _LogSoftmax.apply(sharded.local, axis, dtype, sharded.group, sharded.top())
    return whole(out, sharded.mesh, sharded.placements, sharded.shape)


def row_statistics(x, request):
    sharded = Sharded(x, request.axis)
    labels, skip = (sharded.rows(one) for one in (request.labels, request.skip))
    labels = None if labels is None else labels - sharded.first
    here = Request(request.axis, labels, sharded.of_classes(request.weights), skip)
    rows, _ = shard_rows.statistics(
        sharded.local, here, sharded.top(), None, sharded.group, sharded.number
    )
    return Rows(*(sharded.whole_rows(one) for one in rows._replace(mass=None)))


class _Softmax(torch.autograd.Function):
    """Softmax that saves its result, or the logits if the result may have lost small p."""

    @staticmethod
    def forward(ctx, x, axis, dtype, group, top):
        rest = shard_rows.rest_of(x, axis, top, group)
        out = _p(x, axis, top, rest).to(dtype)
        ctx.axis, ctx.group, ctx.of_logits = axis, group, loses_small_p(x, dtype)
        ctx.save_for_backward(x if ctx.of_logits else out, top, rest)
        ctx.set_materialize_grads(False)
        return out, rest

    @staticmethod
    def backward(ctx, of_out, by_rest):
        kept, top, rest = ctx.saved_tensors
        axis, group = ctx.axis, ctx.group
        given = [one for one in (of_out, by_rest) if one is not None]
        with torch.set_grad_enabled(any(is_differentiated_again(one) for one in given)):
            rest = group.for_each(rest)
            p = _p(kept, axis, top, rest) if ctx.of_logits else ops.compute(kept)
            by_x = 0.0
            if of_out is not None:
                total = partial(group.totals, axis)
                by_x = softmax_derivative(ops, p, of_out.to(p.dtype), axis, total)
            if by_rest is not None:
                by_x = by_x + expand(group.for_each(by_rest) * (1.0 + rest), axis) * p
            return by_x.to(kept.dtype), None, None, None, None


def _p(x, axis, top, rest):
    return torch.exp(_statistics.centred(ops, ops.compute(x), top, axis)) / expand(1.0 + rest, axis)


class _LogSoftmax(torch.autograd.Function):
    """Log-softmax that saves the logits."""

    @staticmethod
    def forward(ctx, x, axis, dtype, group, top):
        rest = shard_rows.rest_of(x, axis, top, group)
        ctx.axis, ctx.group = axis, group
        ctx.save_for_backward(x, top, rest)
        ctx.set_materialize_grads(False)
        d = _statistics.centred(ops, ops.compute(x), top, axis)
        return (d - expand(torch.log1p(rest), axis)).to(dtype), rest

    @staticmethod
    def backward(ctx, of_out, by_rest):
        x, top, rest = ctx.saved_tensors
        axis, group = ctx.axis, ctx.group
        given = [one for one in (of_out, by_rest) if one is not None]
        again = any(is_differentiated_again(one) for one in given)
        with torch.set_grad_enabled(again):
            request, mass, beside, by_dot = Request(axis), None, None, None
            rest, by_rest = group.for_each(rest), group.for_each(by_rest)
            if of_out is not None:
                v, by_dot = of_out.to(top.dtype), 1.0
                request = Request(axis, weights=v)
                others = torch.where(ops.compute(x.detach()) == expand(top, axis), 0.0, v)
                mass, beside = group.totals(axis, v, others)
            rows, by_rows = (None, rest, mass, beside), (None, by_dot, by_rest)
            by_x = shard_rows.gradient(x, request, top, rows, by_rows, again=again)
        return by_x, None, None, None, None
