"""JAX: losses over classes that lie in shards, one for each device along an axis of a mesh.

They are for use inside `jax.shard_map`, which knows which values are the same on all devices, and
sums the gradients by these over the devices. Transforms see a single rule for tangents, which is
linear in them, as in `rows`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero

from softmaxkit import _chunk, _linear, _losses, _shard, _statistics
from softmaxkit._axes import expand
from softmaxkit._losses import Counted
from softmaxkit._shard import Place, ShardOfLogits
from softmaxkit._statistics import Part, Rows
from softmaxkit.backends.jax import arrays as ops
from softmaxkit.backends.jax.arrays import compute, is_array
from softmaxkit.backends.jax.linear import PRODUCTS, here, scan

LIBRARY = "JAX"

# Results of collectives are saved under this name, so that gradients do not repeat the collectives.
_OF_ALL = "softmaxkit_rows"


class Group:
    """The devices along one or more axes of a mesh."""

    def __init__(self, axis_name):
        self.axis_name = axis_name

    def sum(self, x):
        return lax.psum(x, self.axis_name)

    def max(self, x):
        return checkpoint_name(lax.pmax(lax.stop_gradient(x), self.axis_name), _OF_ALL)

    def for_each(self, value):
        return value  # shard_map sums its gradients


def place(group, like, length, where, axis):
    """Return where the shard lies; all shards have the same length."""
    counts = None
    if where is not None:
        shape = list(where.shape)
        shape[axis] = length
        counts = lax.psum(jnp.broadcast_to(where, shape).sum(axis), group)
    return Place(lax.axis_index(group) * length, lax.axis_size(group) * length, counts)


def weights_here(weight, group, place, length):
    return lax.dynamic_slice_in_dim(weight, place.first, length)


# --- the loss -------------------------------------------------------------------------------------
def loss(logits, targets, options, group, place):
    shard = ShardOfLogits(ops, statistics, Group(group), place, options.axis)
    return _losses.over_classes(ops, shard, logits, targets, options, classes=shard)[0]


def linear_loss(operands, targets, options, group, place):
    """Return the loss, in chunks of rows; the gradients compute the logits of each once more."""
    flat, labels, of_flat = _linear.flattened(ops, operands, targets, options)
    given = of_flat.of_logits
    if place.taking_part is not None:  # one count, for all rows
        place = place._replace(taking_part=place.taking_part.reshape(1))
    # The loop sums a gradient in the dtype of its operand, so the operands are wide. Adding an
    # empty sum over the shard makes shard_map take `hidden` for one that differs between devices:
    # its gradient is then summed over them once, after the loop, and not for each chunk.
    dtypes = [None if one is None else one.dtype for one in flat]
    wide = flat._make(None if one is None else compute(one) for one in flat)
    wide = wide._replace(hidden=wide.hidden + wide.weight_matrix.ravel()[:0].sum())

    def chunk(_, xs):
        some = wide._replace(hidden=xs[0])
        pairs = zip(some, dtypes, strict=True)
        some = some._make(None if one is None else one.astype(dtype) for one, dtype in pairs)
        some, given = _linear.prepared(ops, PRODUCTS, some, of_flat)
        given = here(of_flat, given, xs[2]).of_logits
        shard = ShardOfLogits(ops, statistics, Group(group), place, 1)
        bare = given._replace(weight=None, normalizer=None)
        skip = _losses.counted(ops, xs[1], _linear.one_row(ops, some), bare, shard).skip
        if skip is not None:  # NaN in a row that does not count must not leak
            some = some._replace(hidden=ops.where(skip[:, None], 0.0, some.hidden))
        z, _ = _chunk.logits(ops, PRODUCTS, some, of_flat.softcap)
        given = _losses.in_dtype_of(ops, given, z)
        each = _losses.of_each_row(ops, shard, z, xs[1], given, classes=shard)
        by_row = [one if is_array(one) else None for one in each.counted]
        return None, (each.loss, by_row)

    policy = jax.checkpoint_policies.save_only_these_names(_OF_ALL)
    _, (each, counted) = scan(
        jax.checkpoint(chunk, policy=policy), None, wide.hidden, labels, of_flat
    )
    given = _losses.in_dtype_of(ops, given, each)
    value, _ = _losses.reduced(ops, each, given.reduction, given.normalizer, Counted(*counted))
    value = value.astype(operands.hidden.dtype if given.dtype is None else given.dtype)
    return value.reshape(operands.hidden.shape[:-1]) if value.ndim else value


# --- statistics of whole rows ---------------------------------------------------------------------
def statistics(x, request, top, weight, group, number):
    """Reduce rows to `Rows`, given their maxima `top`; also sum `weight` over the shards.

    Labels are indices into this shard; `number` is how many classes all shards have. `weight` has
    one number for each row. With weights, the `Rows` have their mass, too.
    """
    axis, labels, weights, skip = request
    x = compute(x)
    if weights is not None:
        weights = jnp.asarray(weights, x.dtype)
        if weights.ndim:
            weights = jnp.broadcast_to(weights, x.shape)
    if skip is not None:
        x, top = ops.where(expand(skip, axis), 0.0, x), ops.where(skip, 0.0, top)
    static = axis, group.axis_name, number
    log_p, dot, rest, mass, _, weight = _whole(static, x, labels, weights, weight, top)
    rows = Rows(log_p, dot, mass, top + jnp.log1p(rest))
    if skip is not None:
        rows = Rows(*(one if one is None else ops.where(skip, 0.0, one) for one in rows))
    return rows, weight


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _whole(static, x, labels, weights, weight, top):
    """Return log p, the dot product, Σ e^d - 1, Σ w, Σ w beside the maximum, and Σ weight."""
    axis, group, number = static
    varies = weights is not None and weights.ndim
    part = _statistics.part(ops, x, axis, labels, weights if varies else None)
    terms = _statistics.terms(ops, part, top, None)
    dot = None
    if weights is not None and not varies:
        dot = weights * _statistics.centred(ops, x, top, axis).sum(axis)
    *sums, dot, weight = _shard.summed(ops, Group(group), (*terms, dot, weight))
    whole = _statistics.of_terms(top, sums)
    if dot is not None:
        whole = whole._replace(dot=dot, mass=weights * number)
    rows = _statistics.finish(ops, whole)
    return rows.log_p, rows.dot, whole.rest, whole.mass, whole.beside, weight


@partial(_whole.defjvp, symbolic_zeros=True)
def _whole_jvp(static, primals, tangents):
    x, labels, weights, _, top = primals
    dx, _, dweights, dweight, _ = (
        None if isinstance(one, SymbolicZero) else one for one in tangents
    )
    found = tuple(
        one if one is None else checkpoint_name(one, _OF_ALL) for one in _whole(static, *primals)
    )
    # The factors of the tangents are recomputed where they are needed, as in `rows`.
    moved = jax.checkpoint(partial(_tangents, static), prevent_cse=False)
    return found, moved((x, labels, weights, top), found, (dx, dweights, dweight))


def _tangents(static, primals, found, moves):
    axis, group, number = static
    x, labels, weights, top = primals
    log_p, _, rest, mass, beside, _ = found
    dx, dweights, dweight = moves
    varies = weights is not None and weights.ndim
    whole, one = Part(top, rest, mass=mass, beside=beside), jnp.ones_like(rest)
    d = _statistics.centred(ops, x, top, axis)

    def of_logits(cotangents, log_p=None, labels=None, weights=None):
        if dx is None:
            return jnp.zeros_like(x).sum(axis)
        of_rows = _statistics.factors(ops, whole, cotangents, log_p, weights)
        by_x = _statistics.spread(
            *(ops, x, d, axis, of_rows), labels=labels, weights=weights, again=True
        )
        return (by_x * dx).sum(axis)

    by_log_p = by_dot = by_mass = by_beside = None
    by_rest = of_logits(Rows(None, None, None, 1.0 + rest))
    if labels is not None:
        by_log_p = of_logits(Rows(one, None, None, None), log_p, labels)
    if weights is not None:
        by_dot = of_logits(Rows(None, one, None, None), weights=weights)
        if dweights is not None:
            log_p_c = d - expand(jnp.log1p(rest), axis)
            log_p_c = ops.where((weights == 0) & (log_p_c == -jnp.inf), 0.0, log_p_c)
            by_dot = by_dot + (dweights * log_p_c).sum(axis)
    if varies:
        by = jnp.zeros_like(x) if dweights is None else dweights
        by_mass, by_beside = by.sum(axis), ops.where(d == 0, 0.0, by).sum(axis)
    if found[5] is not None and dweight is None:
        dweight = jnp.zeros_like(x).sum(axis)
    columns = by_log_p, by_dot, by_rest, by_mass, by_beside, dweight
    *sums, by_weight = _shard.summed(ops, Group(group), columns)
    if weights is not None and not varies:
        sums[3] = jnp.zeros_like(mass) if dweights is None else dweights * number
    return *sums, by_weight
