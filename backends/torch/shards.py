"""PyTorch: losses over classes that lie in shards, one for each process of a group.

If the logits are a product, each process multiplies all rows by its own classes, one block of
classes after another: once for the loss, and once more for the gradients. The host never waits for
an accelerator: the lengths of the shards stay there, as tensors. Not measured on a GPU.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from softmaxkit import _chunk, _linear, _losses
from softmaxkit._chunk import ByBlocks
from softmaxkit._losses import Saved
from softmaxkit._shard import Place, Shard, ShardOfLogits
from softmaxkit._statistics import Part, Request, Rows
from softmaxkit.backends import Operands
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import shard_rows
from softmaxkit.backends.torch.arrays import is_differentiated_again, is_traced, result_dtype
from softmaxkit.backends.torch.linear import PRODUCTS, outside_autocast
from softmaxkit.backends.torch.memory import HALF
from softmaxkit.backends.torch.shard_rows import Group

LIBRARY = "PyTorch"


# --- where a shard is -----------------------------------------------------------------------------
def place(group, like, length, where, axis):
    """Ask the other processes for the lengths of their shards and the counts of their masks."""
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    counts = None
    if where is not None:
        shape = list(where.shape)
        shape[axis] = length
        counts = where.expand(shape).sum(axis)
    lengths = (torch.arange(size, device=like.device) == rank) * length
    parts = [lengths] if counts is None else [lengths, counts.reshape(-1)]
    found = Group(group).sum(torch.cat(parts))
    lengths = found[:size]
    if counts is not None:
        counts = found[size:].reshape(counts.shape)
    if lengths.is_cpu and ops.has_values(lengths):
        lengths = lengths.tolist()
        return Place(sum(lengths[:rank]), sum(lengths), counts)
    return Place(lengths[:rank].sum(), lengths.sum(), counts)


def weights_here(weight, group, place, length):
    weight = Group(group).for_each(weight)
    if isinstance(place.first, int):
        return weight[place.first : place.first + length]
    index = place.first + torch.arange(length, device=weight.device)
    here = weight.index_select(0, index.clamp(max=len(weight) - 1))
    # Weights of a wrong length give NaN: to raise an error, the host would wait for the device.
    return torch.where(place.number == len(weight), here, torch.nan)


# --- the loss -------------------------------------------------------------------------------------
def loss(logits, targets, options, group, place):
    if logits.dtype in HALF:
        options = options._replace(dtype=result_dtype(logits, options.dtype))
    shard = ShardOfLogits(ops, shard_rows.statistics, Group(group), place, options.axis)
    value, _ = _losses.over_classes(ops, shard, logits, targets, options, classes=shard)
    return value


# --- logits that are a product --------------------------------------------------------------------
def linear_loss(operands, targets, options, group, place):
    """Return the loss; every process has the same `hidden`, and a shard of the vocabulary."""
    hidden = operands.hidden
    operands, targets, options = _linear.flattened(ops, operands, targets, options)
    if place.taking_part is not None:  # one count, for all rows
        place = place._replace(taking_part=place.taking_part.reshape(1))

    def of_call(operands, targets, options):
        given = options.of_logits
        each, normalizer = each_row(operands, targets, options, Group(group), place)
        value, _ = _losses.reduced(ops, each.loss, given.reduction, normalizer, each.counted)
        return value.to(operands.hidden.dtype if given.dtype is None else given.dtype)

    value = outside_autocast(of_call, operands, targets, options)
    return value if value.ndim == 0 else value.reshape(hidden.shape[:-1])


def each_row(operands, targets, options, group, place):
    """Return the losses of the rows before they are weighted and reduced, and the normalizer."""
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    # `for_each` sums the gradients by `hidden` over the shards: in float32 or wider, as it is here.
    hidden = group.for_each(ops.compute(operands.hidden)).to(operands.hidden.dtype)
    operands = operands._replace(hidden=hidden)
    of_each_class = targets, given.weight, given.label_smoothing, given.temperature
    if is_traced() or any(_trains(one) for one in of_each_class):
        like, _ = _chunk.logits(ops, PRODUCTS, operands, options.softcap)
        given = given._replace(temperature=_of_rows(given.temperature))
        kernel = ShardOfLogits(ops, shard_rows.statistics, group, place, 1)
    else:
        like = _linear.one_row(ops, operands)
        kernel = _Product(operands, options._replace(of_logits=given), group, place)
        given = given._replace(temperature=None)
    given = _losses.in_dtype_of(ops, given, like)
    each = _losses.of_each_row(ops, kernel, like, targets, given, classes=kernel)
    return each, given.normalizer


def _trains(value):
    return isinstance(value, Tensor) and torch.is_grad_enabled() and value.requires_grad


def _of_rows(temperature):
    varies = isinstance(temperature, Tensor) and temperature.ndim
    return temperature[:, None] if varies else temperature


class _Product(Shard):
    """The classes of a shard whose logits are a product, and the kernel that reduces their rows."""

    def __init__(self, operands, options, group, place):
        super().__init__(ops, group, place, 1)
        self._operands, self._options, self.given = operands, options, options.of_logits

    def row_statistics(self, x, request, lse, keep):
        hidden, weight_matrix, bias = self._operands
        if request.skip is not None:  # NaN in a row that does not count must not leak
            hidden = torch.where(request.skip[:, None], 0.0, hidden)
        log_p, dot, lse = _Statistics.apply(self, request, hidden, weight_matrix, bias)
        return Rows(log_p, dot, None, lse), None

    def by_blocks(self, operands, where, temperature):
        """Return the logits in blocks of the vocabulary."""
        length, step = len(operands.weight_matrix), self._options.block_size
        blocks = [slice(start, min(start + step, length)) for start in range(0, length, step)]
        given = self.given._replace(where=where, temperature=_of_rows(temperature))
        options = self._options._replace(of_logits=given)
        return _Blocks(ops, PRODUCTS, operands, options, blocks or [slice(0, 0)], shard=self)

    def at_once(self, operands, request):
        """Return log p, Σ w log p and the logsumexp by operations that autograd can follow."""
        given = self.given
        z, _ = _chunk.logits(ops, PRODUCTS, operands, self._options.softcap)
        shard = ShardOfLogits(ops, shard_rows.statistics, self._group, self._place, 1)
        x, shift, _ = shard.masked_and_scaled(z, given.where, _of_rows(given.temperature))
        (log_p, dot, _, lse), _ = shard.row_statistics(x, request, lse=True, keep=False)
        return log_p, dot, lse if shift is None else lse + shift


class _Blocks(ByBlocks):
    """Blocks whose kernels are those of shards of logits, unless there is a temperature."""

    def _part(self, z, request, block):
        if self._temperature is not None:
            return super()._part(z, request, block)
        return shard_rows.part_of(z, self._here(request, block))

    def _by_logits(self, z, saved, block):
        if self._temperature is not None:
            return super()._by_logits(z, saved, block)
        _, rest, _, _, mass, beside, _, _ = self.whole
        by_log_p, by_dot, _, by_lse = saved.by_rows
        by_rest = None if by_lse is None else by_lse / (1.0 + rest)
        rows, by_rows = (self.reduced.log_p, rest, mass, beside), (by_log_p, by_dot, by_rest)
        here = self._here(saved.request, block)
        return shard_rows.gradient(z, here, self.whole.top, rows, by_rows, again=False)

    def _here(self, request, block):
        weights = request.weights
        if isinstance(weights, Tensor) and weights.ndim:
            weights = weights[:, block]
        return Request(1, self._labels(request, block), weights)


class _Statistics(torch.autograd.Function):
    """The statistics of whole rows, given the operands of this shard's product."""

    @staticmethod
    def forward(ctx, product, request, *operands):
        ctx.product, ctx.axis, given = product, request.axis, product.given
        chunk = product.by_blocks(Operands(*operands), given.where, given.temperature)
        labels = request.labels
        if labels is not None:
            labels = product.labels_here(labels)
        here = request._replace(labels=labels)
        rows, _ = chunk.row_statistics(None, here, lse=True, keep=False)
        ctx.number = None if isinstance(request.weights, Tensor) else request.weights
        weights = request.weights if isinstance(request.weights, Tensor) else None
        top, rest, _, _, mass, beside, _, _ = chunk.whole
        temperature = given.temperature
        ctx.temperature = None if isinstance(temperature, Tensor) else temperature
        temperature = temperature if isinstance(temperature, Tensor) else None
        ctx.save_for_backward(
            *(*operands, request.labels, weights, request.skip, given.where, temperature),
            *(rows.log_p, top, rest, mass, beside),
        )
        ctx.set_materialize_grads(False)
        return rows.log_p, rows.dot, rows.lse

    @staticmethod
    def backward(ctx, *of_rows):
        product = ctx.product
        *operands, labels, weights, skip, where, temperature = ctx.saved_tensors[:8]
        log_p, top, rest, mass, beside = ctx.saved_tensors[8:]
        operands, wanted = Operands(*operands), Operands(*ctx.needs_input_grad[2:])
        temperature = ctx.temperature if temperature is None else temperature
        request = Request(ctx.axis, labels, ctx.number if weights is None else weights, skip)
        if any(one is not None and is_differentiated_again(one) for one in of_rows):
            return None, None, *_differentiably(product, operands, request, of_rows, wanted)
        by_log_p, by_dot, by_lse = of_rows
        here = request._replace(
            labels=None if by_log_p is None else product.labels_here(labels),
            weights=None if by_dot is None else request.weights,
        )
        chunk = product.by_blocks(operands, where, temperature)
        chunk.whole = Part(top, rest, mass=mass, beside=beside)
        chunk.reduced = Rows(None if by_log_p is None else log_p, None, None, None)
        saved = Saved(None, Rows(by_log_p, by_dot, mass, by_lse), here)
        hidden, weight_matrix, _ = operands
        found = Operands(
            *(
                torch.zeros_like(one, dtype=top.dtype) if is_wanted else None
                for one, is_wanted in zip(operands, wanted, strict=True)
            )
        )
        for block in chunk.blocks:
            of_z = chunk.gradient(saved, None, block)
            if wanted.hidden:
                found.hidden.add_(PRODUCTS.product(of_z, weight_matrix[block]))
            if wanted.weight_matrix:
                found.weight_matrix[block] = PRODUCTS.add_outer(None, of_z, hidden)
            if wanted.bias:
                found.bias[block] = of_z.sum(0)
        pairs = zip(found, operands, strict=True)
        return None, None, *(one if one is None else one.to(of.dtype) for one, of in pairs)


def _differentiably(product, operands, request, of_rows, wanted):
    """Return gradients that can be differentiated again."""
    inputs = [one for one, is_wanted in zip(operands, wanted, strict=True) if is_wanted]
    with torch.enable_grad():
        rows = product.at_once(operands, request)
        pairs = [(row, of) for row, of in zip(rows, of_rows, strict=True) if of is not None]
        rows, of_rows = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(rows, inputs, of_rows, create_graph=True))
    return [next(found) if is_wanted else None for is_wanted in wanted]
