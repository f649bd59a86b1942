"""JAX: the loss of logits that are a product, in a loop over chunks of rows.

The gradients of a loss that is one number are computed in the forward pass. Its tangent is these
gradients times the tangents of the operands: it is linear in them, so that JAX can transpose it,
and it can be differentiated again. Losses that are not reduced are computed again, chunk by chunk,
where a derivative needs them.
"""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import PartitionSpec

from softmaxkit import _linear
from softmaxkit._chunk import Products
from softmaxkit._linear import Totals
from softmaxkit._statistics import Rows
from softmaxkit.backends import LinearOutputs, Operands
from softmaxkit.backends.jax import arrays as ops
from softmaxkit.backends.jax import rows as kernels
from softmaxkit.backends.jax.arrays import is_array, is_plain, sharding_of, wide_dtype

# Rows of the weight matrix's gradient to which a product is added at once.
_ROWS = 1 << 13


def loss(operands, targets, options):
    """Return the loss; the arrays among its options may be traced."""
    flat, labels, of_flat = _linear.flattened(ops, operands, targets, options)
    given = of_flat.of_logits
    beside = {name: value for name, value in given._asdict().items() if is_array(value)}

    def whole(beside):
        return of_flat._replace(of_logits=given._replace(**beside))

    if given.reduction == "none" or options.all_outputs:
        outputs = _rows(flat, labels, whole(beside))
        outputs, _ = _linear.reduced(ops, outputs, flat, labels, given)
    else:
        outputs = LinearOutputs(_reduced(whole)(flat, labels, beside))
    return _linear.shaped(ops, operands, options, outputs, None)[0]


def _rows(operands, targets, options):
    """Return the outputs of the rows, not reduced."""
    # Widen the operands: a loop sums a gradient in the dtype of its operand.
    dtypes = [None if one is None else one.dtype for one in operands]
    wide = operands._make(None if one is None else ops.compute(one) for one in operands)
    options = options._replace(block_size=None)  # autodiff of merged parts gives poor gradients

    def chunk(_, xs):
        some = wide._replace(hidden=xs[0])
        pairs = zip(some, dtypes, strict=True)
        some = some._make(None if one is None else one.astype(dtype) for one, dtype in pairs)
        some, given = _linear.prepared(ops, PRODUCTS, some, options)
        outputs, _, _ = _linear.of_chunk(
            ops, kernels, PRODUCTS, some, xs[1], here(options, given, xs[2])
        )
        return None, outputs

    _, rows = scan(jax.checkpoint(chunk), None, wide.hidden, targets, options)
    return rows


def _reduced(whole):
    """Return a function of the operands, the targets and the arrays among the options."""

    @jax.custom_jvp
    def value(operands, targets, beside):
        return _with_gradients(operands, targets, whole(beside), None)[0]

    def of_value(primals, tangents):
        leaves, tree = jax.tree.flatten(primals)
        moves = [(i, d) for i, d in enumerate(_leaves(tangents)) if not isinstance(d, SymbolicZero)]
        operands, targets, beside = primals
        count = len(jax.tree.leaves(operands))
        if any(i >= count for i, _ in moves):

            def plain(*moved):
                every = list(leaves)
                for (i, _), leaf in zip(moves, moved, strict=True):
                    every[i] = leaf
                operands, targets, beside = jax.tree.unflatten(tree, every)
                return _plainly(operands, targets, whole(beside))

            return jax.jvp(plain, [leaves[i] for i, _ in moves], [d for _, d in moves])
        tangents = [None if isinstance(d, SymbolicZero) else d for d in tangents[0]]
        wanted = Operands(*(d is not None for d in tangents))
        out, found = _with_gradients(operands, targets, whole(beside), wanted)
        pairs = zip(found, tangents, strict=True)
        products = [(g * d.astype(g.dtype)).sum() for g, d in pairs if d is not None]
        return out, sum(products, jnp.zeros_like(out)).astype(out.dtype)

    value.defjvp(of_value, symbolic_zeros=True)
    return value


def _leaves(tangents):
    return jax.tree.leaves(tangents, is_leaf=lambda one: isinstance(one, SymbolicZero))


def _plainly(operands, targets, options):
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    options = here(options._replace(block_size=None), given, {})
    rows, _, _ = _linear.of_chunk(ops, kernels, PRODUCTS, operands, targets, options)
    return _linear.reduced(ops, rows, operands, targets, given)[0].loss


def _with_gradients(operands, targets, options, wanted):
    """Return a reduced loss, and the gradients by the operands that are wanted."""
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    hidden, weight_matrix, bias = operands
    totals = None
    if wanted is not None:
        blocks = _linear.blocks_of(ops, options, weight_matrix)
        pairs = zip((weight_matrix, bias), wanted[1:], strict=True)
        nothing = 0.0
        if is_plain(hidden):
            # In shard_map, what a loop carries must vary over the same devices as its results.
            every = [one for one in (*operands, targets, *given) if is_array(one)]
            nothing = sum(one.ravel()[:0].sum() for one in every)
        totals = Totals(
            *(_zeros(one, blocks, nothing) if w else [None] * len(blocks) for one, w in pairs)
        )

    def chunk(totals, xs):
        some = Operands(xs[0], weight_matrix, bias)
        outputs, of_hidden, totals = _linear.of_chunk(
            *(ops, _Written, PRODUCTS, some, xs[1], here(options, given, xs[2])),
            wanted=wanted,
            totals=totals,
        )
        return totals, (outputs, of_hidden)

    totals, (outputs, of_hidden) = scan(chunk, totals, hidden, targets, options)
    outputs, of_sum = _linear.reduced(ops, outputs, operands, targets, given)
    if wanted is None:
        return outputs.loss, None
    return outputs.loss, _linear.gradients(ops, PRODUCTS, of_hidden, totals, of_sum)


def _zeros(array, blocks, nothing):
    dtype = wide_dtype(array.dtype)
    zeros = [jnp.zeros(array[block, ...].shape, dtype) for block in blocks]
    return [one + jnp.asarray(nothing, dtype) for one in zeros]


def scan(chunk, totals, hidden, targets, options):
    """Call `chunk` for `chunk_size` rows at a time, then for the rest; return what it returns."""
    given, step = options.of_logits, options.chunk_size
    by_row = {name: getattr(given, name) for name in _linear.BY_ROW}
    by_row = {name: one for name, one in by_row.items() if is_array(one) and one.ndim}
    every = hidden, targets, by_row
    if not is_plain(hidden) or hidden.shape[0] <= step:
        return chunk(totals, every)
    times, rest = divmod(hidden.shape[0], step)
    end = times * step
    first = jax.tree.map(lambda one: one[:end].reshape(times, step, *one.shape[1:]), every)
    totals, found = lax.scan(chunk, totals, first)
    found = jax.tree.map(lambda one: one.reshape(-1, *one.shape[2:]), found)
    if rest:
        totals, last = chunk(totals, jax.tree.map(lambda one: one[end:], every))
        found = jax.tree.map(lambda *parts: jnp.concatenate(parts), found, last)
    return totals, found


def here(options, given, by_row):
    """Return the options of a chunk, given those that differ between its rows."""
    given = _linear.of_rows_alone(ops, given._replace(**by_row), lambda one: one)
    return options._replace(of_logits=given)


class _Written:
    """Row statistics that keep the function which carries their cotangents back."""

    @staticmethod
    def row_statistics(x, request, lse, keep):
        def of(x):
            rows, _ = kernels.row_statistics(x, request, lse, keep=False)
            return [one for one in rows if one is not None]

        if not keep:
            return kernels.row_statistics(x, request, lse, keep)
        found, pull = jax.vjp(of, x)
        is_there = request.labels is not None, request.weights is not None, False, lse
        left = iter(found)
        return Rows(*(next(left) if there else None for there in is_there)), (found, pull)

    @staticmethod
    def row_gradient(x, request, kept, of_rows):
        found, pull = kept
        given = [one for one in of_rows._replace(mass=None) if one is not None]
        pairs = zip(given, found, strict=True)
        given = [ops.broadcast_like(jnp.asarray(g, v.dtype), v) for g, v in pairs]
        if request.skip is not None:
            given = [jnp.where(request.skip, 0.0, one) for one in given]
        return pull(given)[0]


# --- products -------------------------------------------------------------------------------------
def _operand(x):
    return x


def _product(a, b):
    return _contracted(a.astype(b.dtype), b, 1, 0)


def _against(a, b):
    common = jnp.promote_types(a.dtype, b.dtype)
    return _contracted(a.astype(common), b.astype(common), 1, 1)


def _outer(a, b):
    return _contracted(a.astype(b.dtype), b, 0, 0)


def _contracted(a, b, of_a, of_b):
    """Contract an axis of `a` with an axis of `b`, without a transposed copy."""
    sharding = sharding_of(a)
    if sharding is not None:  # sharded as both factors are, but no mesh axis twice
        rows, columns = sharding.spec[1 - of_a], jax.typeof(b).sharding.spec[1 - of_b]
        spec = PartitionSpec(rows, None if columns == rows else columns)
        sharding = sharding.update(spec=spec)
    return lax.dot_general(
        a,
        b,
        (((of_a,), (of_b,)), ((), ())),
        preferred_element_type=wide_dtype(b.dtype),
        out_sharding=sharding,
    )


def _add_outer(total, a, b):
    if total is None or not is_plain(a) or len(total) < 2 * _ROWS:
        outer = _outer(a, b)
        return outer if total is None else total + outer

    def add(total, start, count):
        columns = lax.dynamic_slice_in_dim(a, start, count, 1)
        before = lax.dynamic_slice_in_dim(total, start, count, 0)
        return lax.dynamic_update_slice_in_dim(total, before + _outer(columns, b), start, 0)

    whole, rest = divmod(len(total), _ROWS)
    total = lax.fori_loop(0, whole, lambda i, total: add(total, i * _ROWS, _ROWS), total)
    return add(total, whole * _ROWS, rest) if rest else total


PRODUCTS = Products(_operand, _product, _against, _add_outer, operator.mul)
