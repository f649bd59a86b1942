"""PyTorch: the loss of logits that are a product, with a vocabulary sharded over a device mesh."""

from __future__ import annotations

from math import prod

import torch
from torch.distributed.tensor import Replicate, Shard

from softmaxkit import _linear, _losses
from softmaxkit._losses import Counted
from softmaxkit._shard import Place
from softmaxkit.backends import Operands
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch.arrays import beside
from softmaxkit.backends.torch.linear import outside_autocast
from softmaxkit.backends.torch.mesh import Sharded, here, whole
from softmaxkit.backends.torch.shard_rows import Group
from softmaxkit.backends.torch.shards import each_row


def linear_loss(operands, targets, options):
    """Return the loss; mesh dimensions that do not shard the classes may shard the rows."""
    return outside_autocast(_loss, operands, targets, options)


def _loss(operands, targets, options):
    weight_matrix, given = operands.weight_matrix, options.of_logits
    given = given._make(beside(weight_matrix, one) for one in given)
    hidden, bias, targets = (
        beside(weight_matrix, one) for one in (operands.hidden, operands.bias, targets)
    )
    classes, mesh = Sharded(weight_matrix, 0), weight_matrix.device_mesh
    of_rows = _of_rows(hidden, classes.placements)
    by_rows = Group(*(mesh.get_group(dim) for dim, one in enumerate(of_rows) if one.is_shard()))

    def of_vocabulary(value):
        return by_rows.for_each(here(value, mesh, classes.placements, 1))

    def of_row(value):
        return here(value, mesh, of_rows, hidden.ndim - 1)

    local = Operands(
        hidden.redistribute(mesh, of_rows).to_local(),
        by_rows.for_each(classes.local),
        of_vocabulary(bias),
    )
    where = of_vocabulary(given.where)
    taking_part = None if where is None else classes.group.sum(where.sum().reshape(1))
    block_size, rows = options.block_size, local.hidden.shape[:-1]
    if block_size is None:  # as many logits at a time as chunks of rows would have
        block_size = max(options.chunk_size * classes.number // max(prod(rows), 1), 1)
    of_logits = given._replace(
        where=where,
        weight=of_vocabulary(given.weight),
        sample_weight=of_row(given.sample_weight),
        temperature=of_row(given.temperature),
        label_smoothing=of_row(given.label_smoothing),
        z_loss=of_row(given.z_loss),
    )
    of_targets = _of_targets(targets, of_rows, classes.placements)
    call = _linear.flattened(
        *(ops, local, targets.redistribute(mesh, of_targets).to_local()),
        options._replace(of_logits=of_logits, block_size=block_size),
    )
    place = Place(classes.first, classes.number, taking_part)
    each, _ = each_row(*call, classes.group, place)

    def of_all(value):
        if not isinstance(value, torch.Tensor) or not value.ndim:
            return value
        return whole(value.reshape(rows), mesh, of_rows, hidden.shape[:-1])

    counted, loss = Counted(*map(of_all, each.counted)), of_all(each.loss)
    normalizer = given.normalizer
    if isinstance(normalizer, torch.Tensor):
        normalizer = normalizer.to(loss.dtype)
    value, _ = _losses.reduced(ops, loss, given.reduction, normalizer, counted)
    return value.to(hidden.dtype if given.dtype is None else given.dtype)


def _of_rows(hidden, of_classes):
    """Return the placements of the rows: replicated over mesh dimensions that shard classes."""
    return tuple(
        one
        if one.is_shard() and one.dim < hidden.ndim - 1 and not of_class.is_shard()
        else Replicate()
        for one, of_class in zip(hidden.placements, of_classes, strict=True)
    )


def _of_targets(targets, of_rows, of_classes):
    if not targets.is_floating_point():
        return of_rows
    return [
        Shard(targets.ndim - 1) if of_class.is_shard() else row
        for row, of_class in zip(of_rows, of_classes, strict=True)
    ]
