"""Row statistics, written for the passes that XLA makes of them on a CPU.

On a CPU, XLA fuses a sum over sub, mul, exp, floor, max and min into one pass. It first writes a
comparison or a select below a sum to memory: at 4096 x 4096, the sum of exp(d) takes 5 ms, that of
where(d == 0, 0, exp(d)) 35. The functions below use arithmetic instead. `rows` says what each of
them computes, and has the plain form, which XLA turns into one pass on a GPU or TPU.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import jax
import jax.numpy as jnp
from jax import lax

# XLA reduces a short axis, or one that is not the last, slowly. Up to this many classes are
# therefore added one by one in a loop over rows, which it vectorises. Cross-entropy of 200000 x 10:
# 2.6 -> 1.3 ms; of 200000 x 100: 22 -> 9.6 (log-softmax: 29 -> 33; of 20000 x 100: 1.3 -> 1.0); of
# 8 x 21 x 256 x 256 along axis 1: 31 -> 4.6. With more classes, gradients of probabilities slow
# down (20000 x 128: 3.8 -> 5.5). At the limit, compilation takes 0.3 s.
FEW = 100

# Up to this many classes, XLA computes the whole of log-softmax, with two sums, in one pass:
# 98304 x 512: 131 -> 92 ms. At 2048 x 8192, that would take 92 ms, not 43.
WHOLE = 4096

# Beyond this many classes, XLA writes all of exp(x - top) to memory before it sums: 55 ms at
# 256 x 128256. The same numbers as 1024 rows of 32064 take 6 ms.
LONG = 32768


def dominates(p):
    return -jnp.floor(0.5 - p)


# The barriers keep XLA from sharing x - top between two sums, which would write it to memory.
def statistics(axis, x, labels, weights):
    top = x.max(axis, keepdims=True)
    picked = dot = at_label = None
    if labels is not None:
        index = jnp.expand_dims(labels, axis)
        at_label = jnp.take_along_axis(x, index, axis, mode="promise_in_bounds") - top
    if _few(x, axis):
        rest = _rest(x, axis, top)
    else:
        rest = _rest_by_one_sum(x, axis, top, at_label if weights is None else None)
    log_sum = jnp.log1p(rest)
    if labels is not None:
        picked = at_label - log_sum
    if weights is not None:
        dot = _dot(x, axis, weights, top, log_sum)
    return tuple(v if v is None else v.squeeze(axis) for v in (picked, dot, log_sum, top))


def log_softmax(axis, x):
    top = x.max(axis, keepdims=True)
    rest = (_rest if x.shape[axis] <= WHOLE else _rest_by_one_sum)(x, axis, top)
    return x - top - jnp.log1p(rest)


def _few(x, axis):
    return x.shape[axis] <= FEW


def _sums(terms, axis, *arrays):
    """Return the sums over the classes of the arrays that `terms` computes from `arrays`."""
    shape = arrays[0].shape
    classes = shape[axis]
    if _few(arrays[0], axis):
        each = (
            terms(
                *(
                    v if v.shape[axis] == 1 else lax.slice_in_dim(v, c, c + 1, axis=axis)
                    for v in arrays
                )
            )
            for c in range(classes)
        )
        return [_added(column) for column in zip(*each, strict=True)]
    parts = _parts(classes) if axis == len(shape) - 1 else 1
    if parts == 1:
        return [v.sum(axis, keepdims=True) for v in terms(*arrays)]
    cut = (
        jnp.repeat(v.reshape(-1, 1), parts, 0)
        if v.shape[-1] == 1
        else jnp.broadcast_to(v, shape).reshape(-1, classes // parts)
        for v in arrays
    )
    return [v.sum(1).reshape(*shape[:-1], parts).sum(axis, keepdims=True) for v in terms(*cut)]


def _added(column):
    """Return the sum of a few arrays, in groups of eight.

    Added one by one, 100 classes cost cross-entropy 7.9 ULP instead of 4, in the same time.
    """
    groups = (column[i : i + 8] for i in range(0, len(column), 8))
    return reduce(add, (reduce(add, group) for group in groups))


def _parts(classes):
    """Return into how many rows to cut a row: 1 if it is not long, or cannot be cut evenly.

    On several devices it may be sharded, and XLA would gather it to cut it.
    """
    if jax.device_count("cpu") > 1:
        return 1
    least = -(-classes // LONG)
    return next((n for n in range(least, 8 * least) if classes % n == 0), 1)


def _rest(x, axis, top):
    """Return Σ e^(x-top) - 1, summed without one maximum."""

    def terms(z, top):
        e = jnp.exp(z - top)
        ones = jnp.floor(e)  # 1 at a maximum, else 0
        return e - ones, ones

    others, maxima = _sums(terms, axis, x, top)
    return others + (maxima - 1.0)


def _rest_by_one_sum(x, axis, top, at_label=None):
    """Return the same with a single sum where that suffices: in rows that no class dominates.

    With `at_label`, the result has only the digits that log p at the label needs.
    """
    (total,) = _sums(lambda z, top: (jnp.exp(z - top),), axis, x, lax.optimization_barrier(top))
    needed = total if at_label is None else jnp.where(at_label == 0, total, 2.0)

    def one(x, top, total):
        return total - 1.0

    def both(x, top, total):
        def but_maximum(z, top):
            e = jnp.exp(z - top)
            return (e - jnp.floor(e),)

        (others,) = _sums(but_maximum, axis, x, top)
        return jnp.where(total < 2, others, total - 1.0)  # a second maximum makes it 2 or more

    return lax.cond(needed.min() >= 2, one, both, x, top, total)  # a NaN selects `both`


def _dot(x, axis, weights, top, log_sum):
    """Return Σ w log p, where 0 log 0 is 0."""
    if weights.ndim == 0:
        (negative,) = _sums(lambda z, top: (top - z,), axis, x, top)
        return jnp.where(weights == 0, 0.0, -weights * (negative + x.shape[axis] * log_sum))
    (mass,) = _sums(lambda w: (w,), axis, weights)
    total = (_total_but_zeros if _few(x, axis) else _total)(x, axis, weights, top)
    return total - mass * (x.shape[axis] // weights.shape[axis]) * log_sum


def _total(x, axis, weights, top):
    """Return Σ w (x-top), where 0 (-inf) is 0."""
    # Add -top: otherwise XLA would broadcast top to every class, for this and another sum.
    (total,) = _sums(lambda z, w, less: (w * (z + less),), axis, x, weights, -top)

    def plain(x, weights, top, total):
        return total

    def but_zeros(x, weights, top, total):
        return _total_but_zeros(x, axis, weights, top)

    finite = jnp.isfinite(total).all()
    return lax.cond(finite, plain, but_zeros, x, weights, top, total)


def _total_but_zeros(x, axis, weights, top):
    (total,) = _sums(
        lambda z, w, top: (jnp.where(w == 0, 0.0, w * (z - top)),), axis, x, weights, top
    )
    return total


# The entries at the labels are set in the gradient, row by row, instead of comparing every class
# with the label: cross-entropy with its gradient of 4096 x 4096: 37 -> 27 ms.
def sets_labels(x, axis):
    return axis == x.ndim - 1 and not _few(x, axis)


def but_labels(dx, labels):
    """Return `dx`, whose last axis is the class axis, with 0 at the labels."""

    def one(row, label):
        return row.at[label].set(0.0, mode="promise_in_bounds", unique_indices=True)

    for _ in range(labels.ndim):
        one = jax.vmap(one)
    return one(dx, labels)
