"""The row statistics of JAX, in the passes that XLA makes of them, with their derivative."""

from __future__ import annotations

from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softmaxkit._axes import along, expand
from softmaxkit._statistics import Rows

# XLA reduces a short axis, or one that is not the last, slowly; so many classes are added up one by
# one in a loop over rows, which it vectorises. Cross-entropy of 200000 x 10: 1.3 ms, not 2.6; of
# 200000 x 100: 9.6, not 22 (log-softmax: 33, not 29; of 20000 x 100: 1.0, not 1.3); of
# 8 x 21 x 256 x 256 along axis 1: 4.6, not 31; of 8 x 150 x 16384: 8.3, not 15; of
# 2 x 150 x 65536: 78, not 222. With more classes gradients of probabilities slow down (20000 x 128:
# 5.5, not 3.8; 4 x 192 x 16384: 110, not 64). At the limits it compiles in 0.3 to 1 s.
FEW_LAST = 100
FEW = 160
# An odd number of rows it does not vectorise: beyond so many the reductions are faster.
# Cross-entropy of 31623 x 32: 1.1 ms, not 2.3; log-softmax: 0.5, not 2.4; at 101 rows it is a draw.
ODD = 256

# Beyond this many classes XLA writes exp(x - top) out in the size of the logits before it sums:
# 55 ms at 256 x 128256. The same numbers as 1024 rows of 32064 take 6.
LONG = 32768
# With so many classes or more the labels are set in the gradient, row by row, and not looked for in
# every entry: cross-entropy with its gradient of 4096 x 4096 takes 27 ms so, not 37.
SET_CLASSES = 64
# Of more logits, with at most so many classes, it makes one kernel of log-softmax, two sums of e^d
# included: 4096 x 4096 takes 24 ms so; by one sum 25, or 34 where a class dominates a row. Of fewer
# the two cost more: 256 x 1000 took 0.64 ms, by one sum 0.33, or 0.48.
WHOLE_ELEMENTS, WHOLE_CLASSES = 1 << 22, 4096


def wide_dtype(dtype):
    return dtype if dtype == np.float64 else np.dtype(np.float32)


def compute(x):
    return x.astype(wide_dtype(x.dtype))


# --- kernels --------------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    return jax.nn.softmax(compute(x), axis).astype(dtype)


def log_softmax(x, axis, dtype):
    _, _, log_sum, top = statistics(compute(x), axis, True, None, None, None)
    return (x - expand(top, axis) - expand(log_sum, axis)).astype(dtype)


def row_statistics(x, request, lse, keep):
    axis, labels, weights, skip = request
    if weights is not None:
        weights = jnp.asarray(weights, wide_dtype(x.dtype))
    log_p, dot, log_sum, top = statistics(compute(x), axis, False, labels, weights, skip)
    return Rows(log_p, dot, None, top + log_sum if lse else None), None


@jax.custom_jvp
def expm1(x):
    return jnp.expm1(x)


# jnp.expm1 differentiates to expm1(x) + 1, which is rounded at 1 where e^x is small.
expm1.defjvps(lambda dx, _, x: dx * jnp.exp(x))


# XLA's CPU fusions make one pass of a sum over sub, mul, exp, floor, max and min. A comparison or a
# select below a sum is first written out: at 4096 x 4096 the sum of exp(d) takes 5 ms, that of
# where(d == 0, 0, exp(d)) 35. Hence arithmetic below. The barriers keep x - top from being shared
# between two sums, for which it would be written out, too.
@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def statistics(x, axis, whole, labels, weights, skip):
    """Return log p at the label, the dot product, log Σ e^(x-top) and top, each where asked for.

    `whole`: they go into a result in the size of the logits.
    """
    top = x.max(axis, keepdims=True)
    picked = dot = at_label = None
    if labels is not None:
        at_label = _pick(x, axis, labels) - top
    if _few(x, axis) or (whole and _is_one_kernel(x, axis)):
        log_sum = _log_sum(x, axis, top)
    else:
        log_sum = _log_sum_unless_dominated(x, axis, top, at_label if weights is None else None)
    if labels is not None:
        picked = at_label - log_sum
    if weights is not None:
        dot = _dot(x, axis, weights, top, log_sum)
    rows = tuple(v if v is None else v.squeeze(axis) for v in (picked, dot, log_sum, top))
    if skip is not None:
        rows = tuple(v if v is None else jnp.where(skip, 0.0, v) for v in rows)
    return rows


def _is_one_kernel(x, axis):
    many = isinstance(x.size, int) and x.size > WHOLE_ELEMENTS  # jax.export has symbolic ones
    return axis == x.ndim - 1 and many and x.shape[axis] <= WHOLE_CLASSES


def _few(x, axis):
    classes = x.shape[axis]
    if axis != x.ndim - 1:
        return classes <= FEW
    rows = x.size // classes
    odd = isinstance(rows, int) and rows > ODD and rows % 2
    return classes <= FEW_LAST and not odd


def _sums(terms, axis, *arrays):
    """Return the sums over the classes of the arrays that `terms` makes of `arrays`."""
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
        return [_total(column) for column in zip(*each, strict=True)]
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


def _total(column):
    """Return the sum of a few arrays, in groups of eight.

    One by one, 100 classes cost cross-entropy 7.9 ULP, not 4, in the same time.
    """
    groups = (column[i : i + 8] for i in range(0, len(column), 8))
    return reduce(add, (reduce(add, group) for group in groups))


def _parts(classes):
    """Return into how many rows to cut a row: 1 if it is not long, or cannot be cut evenly."""
    least, most = -(-classes // LONG), classes // 512
    return next((n for n in range(least, most + 1) if classes % n == 0), 1)


def _log_sum(x, axis, top):
    """Return log Σ e^(x-top), with the digits of the sum beside one maximum."""
    others, maxima = _others_and_maxima(x, axis, top)
    return jnp.log1p(others + (maxima - 1.0))


def _others_and_maxima(x, axis, top):
    """Return Σ e^(x-top) without the maxima, and how many they are."""

    def terms(z, top):
        e = jnp.exp(z - top)
        ones = jnp.floor(e)  # 1 at a maximum, else 0
        return e - ones, ones

    return _sums(terms, axis, x, top)


def _log_sum_unless_dominated(x, axis, top, at_label):
    """Return the same, where one sum will do for rows that no class dominates.

    With `at_label` the digits are those that log p needs at the label.
    """
    (total,) = _sums(lambda z, top: (jnp.exp(z - top),), axis, x, lax.optimization_barrier(top))
    needed = total if at_label is None else jnp.where(at_label == 0, total, 2.0)

    def one(x, top, total):
        return jnp.log(total)

    def both(x, top, total):
        others, _ = _others_and_maxima(x, axis, top)
        # A second maximum makes the total 2 or more.
        return jnp.where(total < 2, jnp.log1p(others), jnp.log(total))

    return _shorter_if(needed.min() >= 2, one, both, x, top, total)  # a row of NaN: both


def _shorter_if(enough, shorter, longer, *arrays):
    """Return what either function makes of the arrays; `longer` is right in any case.

    On other devices than the CPU by that: to choose, a GPU would make the host wait for it.
    """

    def as_needed(enough, *arrays):
        return lax.cond(enough, shorter, longer, *arrays)

    def always(enough, *arrays):
        return longer(*arrays)

    return lax.platform_dependent(enough, *arrays, cpu=as_needed, default=always)


def _dot(x, axis, weights, top, log_sum):
    """Return Σ w log p, where 0 log 0 is 0."""
    if weights.ndim == 0:
        (negative,) = _sums(lambda z, top: (top - z,), axis, x, top)
        return jnp.where(weights == 0, 0.0, -weights * (negative + x.shape[axis] * log_sum))
    (mass,) = _sums(lambda w: (w,), axis, weights)
    if _few(x, axis):
        total = _total_but_zeros(
            x, axis, weights, top, _finite_part_by_select, _lost_part_by_select
        )
    else:
        total = _total_of_logs(x, axis, weights, top)
    return total - mass * (x.shape[axis] // weights.shape[axis]) * log_sum


def _total_of_logs(x, axis, weights, top):
    """Return Σ w (x-top), where 0 (-inf) is 0."""
    # Of top - x: of x - top, which another sum has, too, XLA would make an array.
    (negative,) = _sums(lambda z, w, top: (w * (top - z),), axis, x, weights, top)

    def plain(x, weights, top, negative):
        return -negative

    def safe(x, weights, top, negative):
        return _total_but_zeros(x, axis, weights, top, _finite_part, _lost_part)

    return _shorter_if(jnp.isfinite(negative).all(), plain, safe, x, weights, top, negative)


def _total_but_zeros(x, axis, weights, top, *parts):
    total, lost = (_weighted_sum(part, x, axis, weights, top) for part in parts)
    return jnp.where(lost == 0, total, total - jnp.inf * lost)


def _weighted_sum(part, x, axis, weights, top):
    away = lax.optimization_barrier(top)
    (total,) = _sums(lambda z, w, away: (part(w, z - away),), axis, x, weights, away)
    return total


def _finite_part(w, d):
    return w * jnp.maximum(d, jnp.finfo(d.dtype).min)


def _lost_part(w, d):
    # e^(d/2^126), 0 at -inf and at least 0.01 elsewhere, finds a weight on -inf.
    return w * jnp.maximum(0.01 - jnp.exp(d * jnp.finfo(d.dtype).tiny), 0.0)


def _finite_part_by_select(w, d):
    return jnp.where(d == -jnp.inf, 0.0, w * d)


def _lost_part_by_select(w, d):
    return jnp.where(d == -jnp.inf, w, 0.0)


def _mass(x, axis, weights):
    """Return Σ w."""
    if weights.ndim == 0:
        return weights * x.shape[axis]
    return weights.sum(axis, keepdims=True) * (x.shape[axis] // weights.shape[axis])


@partial(statistics.defjvp, symbolic_zeros=True)
def _statistics_jvp(axis, whole, primals, tangents):
    x, labels, weights, skip = primals
    dx, _, dweights, _ = (None if isinstance(d, SymbolicZero) else d for d in tangents)
    rows = statistics(x, axis, whole, labels, weights, skip)
    # Recomputed where they are needed: in eager mode p would be kept for the way back.
    moved = jax.checkpoint(_tangents, static_argnums=0, prevent_cse=False)
    d_picked, d_dot, d_log_sum = moved(axis, x, labels, weights, skip, rows, dx, dweights)
    return rows, (d_picked, d_dot, d_log_sum, jnp.zeros_like(rows[3]))


def _tangents(axis, x, labels, weights, skip, rows, dx, dweights):
    picked, _, log_sum, top = rows
    log_p = x - expand(top, axis) - expand(log_sum, axis)
    dx = jnp.zeros_like(x) if dx is None else dx
    d_picked = d_dot = None
    if labels is not None:
        move = _by_set_labels if _sets(x, axis) else _by_compared_labels
        d_picked, d_log_sum = move(axis, labels, skip, picked, log_p, dx)
    else:
        p = jnp.exp(log_p)
        if skip is not None:
            p = _unless(jnp.expand_dims(skip, axis), jnp.zeros((), x.dtype), log_p)
        d_log_sum = (p * dx).sum(axis)
    if weights is not None:
        mass = _mass(x, axis, weights)
        mass = mass.squeeze(axis) if mass.ndim else mass
        d_dot = (weights * dx).sum(axis) - mass * d_log_sum
        if dweights is not None:
            log_p = log_p if skip is None else jnp.where(jnp.expand_dims(skip, axis), 0.0, log_p)
            d_dot = d_dot + _weighted(dweights, log_p, weights).sum(axis)
    return d_picked, d_dot, d_log_sum


# Both give dx_y - Σ p dx and Σ p dx, with 1 - p = -expm1(log p) at the label: saturated rows keep
# their digits.
def _by_set_labels(axis, labels, skip, picked, log_p, dx):
    if skip is not None:
        log_p = jnp.where(jnp.expand_dims(skip, axis), -jnp.inf, log_p)
    # Set in dx, the label of a gradient is set when p has been multiplied: one pass.
    by_others = (jnp.exp(log_p) * _but_labels(dx, labels)).sum(axis)
    dx_y = _pick(dx, axis, labels).squeeze(axis)
    return -(by_others + expm1(picked) * dx_y), by_others + jnp.exp(picked) * dx_y


def _but_labels(dx, labels):
    """Return `dx`, the last axis its classes, with 0 at the labels."""

    def one(row, label):
        return row.at[label].set(0.0, mode="promise_in_bounds", unique_indices=True)

    for _ in range(labels.ndim):
        one = jax.vmap(one)
    return one(dx, labels)


def _by_compared_labels(axis, labels, skip, picked, log_p, dx):
    # Every class of a skipped row counts as its label: NaN does not come through. A select more
    # for that, and XLA does not vectorise: cross-entropy with its gradient of 200000 x 10 took
    # 5.5 ms, so 3.2.
    classes = log_p.shape[axis]
    first, last = labels, labels
    if skip is not None:
        first, last = jnp.where(skip, 0, labels), jnp.where(skip, classes, labels)
    each = along(jnp.arange(classes), log_p.ndim, axis)
    here = (each >= jnp.expand_dims(first, axis)) & (each <= jnp.expand_dims(last, axis))
    beside, at_label = (jnp.expand_dims(f(picked), axis) for f in (expm1, jnp.exp))
    return tuple(
        sign * (_unless(here, rows, log_p) * dx).sum(axis)
        for sign, rows in ((-1, beside), (1, at_label))
    )


def _sets(x, axis):
    return axis == x.ndim - 1 and x.shape[axis] >= SET_CLASSES


@jax.custom_jvp
def _unless(here, rows, log_p):
    """Return e^(log p), but `rows` where `here`: NaN does not come through in any derivative."""
    return jnp.where(here, rows, jnp.exp(log_p))


@_unless.defjvp
def _unless_jvp(primals, tangents):
    here, rows, log_p = primals
    _, d_rows, d_log_p = tangents
    p = _unless(here, jnp.zeros_like(rows), log_p)
    return _unless(*primals), jnp.where(here, d_rows, p * d_log_p)


def _pick(x, axis, labels):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds")


def _weighted(factor, log_p, weights=None):
    weights = factor if weights is None else weights
    return factor * jnp.where((weights == 0) & (log_p == -jnp.inf), 0.0, log_p)  # 0 log 0 = 0
