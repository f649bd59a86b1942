"""The row statistics of JAX, in the passes that XLA makes of them, with their derivative."""

from __future__ import annotations

from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softmaxkit._axes import along, expand
from softmaxkit._statistics import Rows
from softmaxkit.backends.jax.arrays import compute, expm1, wide_dtype

# XLA reduces a short axis, or one that is not the last, slowly; so many classes are added up one by
# one in a loop over rows, which it vectorises. Cross-entropy of 200000 x 10: 1.3 ms, not 2.6; of
# 200000 x 100: 9.6, not 22 (log-softmax: 33, not 29; of 20000 x 100: 1.0, not 1.3); of
# 8 x 21 x 256 x 256 along axis 1: 4.6, not 31; of 8 x 150 x 16384: 8.3, not 15; of
# 2 x 150 x 65536: 78, not 222. With more classes gradients of probabilities slow down (20000 x 128:
# 5.5, not 3.8; 4 x 192 x 16384: 110, not 64). At the limits it compiles in 0.3 to 1 s.
FEW_LAST = 100
FEW = 160

# Beyond this many classes XLA writes exp(x - top) out in the size of the logits before it sums:
# 55 ms at 256 x 128256. The same numbers as 1024 rows of 32064 take 6.
LONG = 32768
# With so many classes or more the labels are set in the gradient, row by row, and not looked for in
# every entry: cross-entropy with its gradient of 4096 x 4096 takes 27 ms so, not 37.
SET_CLASSES = 64


# --- kernels --------------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    return _softmax(compute(x), axis).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _softmax(x, axis):
    return jax.nn.softmax(x, axis)


@_softmax.defjvp
def _softmax_jvp(axis, primals, tangents):
    p, (dx,) = _softmax(*primals, axis), tangents
    at = _dominates(p)
    out = (p - at * p) * (dx - (p * dx).sum(axis, keepdims=True))
    # Class k gets what makes the entries sum to 0; in the transpose, its cotangent is taken off the
    # others first. NumPy's and torch's kernels take Σ p v off twice in rows without such a class.
    # That would take 1.3 times as long here; without it, what all cotangents of a row have in
    # common costs digits.
    return p, out - at * out.sum(axis, keepdims=True)


def _dominates(p):
    """Return 1 where p > 1/2, else 0."""
    return lax.stop_gradient(-jnp.floor(0.5 - p))


def log_softmax(x, axis, dtype):
    return _log_softmax(compute(x), axis).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(x, axis):
    _, _, log_sum, top = statistics(x, axis, None, None, None)
    return x - expand(top, axis) - expand(log_sum, axis)


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    def moved(log_p, dx):
        u, total = _beside_dominating(jnp.exp(log_p), dx, axis)
        return u - expand(total, axis)

    log_p = _log_softmax(*primals, axis)
    # Recomputed where it is needed, as in `_statistics_jvp`.
    return log_p, jax.checkpoint(moved, prevent_cse=False)(log_p, *tangents)


def _beside_dominating(p, dx, axis):
    """Return dx - dx_k and Σ p (dx - dx_k) where p_k > 1/2, elsewhere dx and Σ p dx.

    Class k takes part in neither, nor in their transpose: what it added there would be taken off
    again elsewhere, with its digits.
    """
    at = _dominates(p)
    u = (dx - (at * dx).sum(axis, keepdims=True)) * (1.0 - at)
    return u, (p * u).sum(axis)


def row_statistics(x, request, lse, keep):
    axis, labels, weights, skip = request
    if weights is not None:
        weights = jnp.asarray(weights, wide_dtype(x.dtype))
    log_p, dot, log_sum, top = statistics(compute(x), axis, labels, weights, skip)
    return Rows(log_p, dot, None, top + log_sum if lse else None), None


# XLA's CPU fusions make one pass of a sum over sub, mul, exp, floor, max and min. A comparison or a
# select below a sum is first written out: at 4096 x 4096 the sum of exp(d) takes 5 ms, that of
# where(d == 0, 0, exp(d)) 35. Hence arithmetic below. The barriers keep x - top from being shared
# between two sums, for which it would be written out, too.
@partial(jax.custom_jvp, nondiff_argnums=(1,))
def statistics(x, axis, labels, weights, skip):
    """Return log p at the label, the dot product, log Σ e^(x-top) and top, each where asked for."""
    top = x.max(axis, keepdims=True)
    picked = dot = at_label = None
    if labels is not None:
        at_label = _pick(x, axis, labels) - top
    if _few(x, axis):
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


def _few(x, axis):
    return x.shape[axis] <= (FEW_LAST if axis == x.ndim - 1 else FEW)


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
    total = (_total_but_zeros if _few(x, axis) else _total)(x, axis, weights, top)
    return total - mass * (x.shape[axis] // weights.shape[axis]) * log_sum


def _total(x, axis, weights, top):
    """Return Σ w (x-top), where 0 (-inf) is 0."""
    # Of top - x: of x - top, which another sum has, too, XLA would make an array.
    (negative,) = _sums(lambda z, w, top: (w * (top - z),), axis, x, weights, top)

    def plain(x, weights, top, negative):
        return -negative

    def but_zeros(x, weights, top, negative):
        return _total_but_zeros(x, axis, weights, top)

    return _shorter_if(jnp.isfinite(negative).all(), plain, but_zeros, x, weights, top, negative)


def _total_but_zeros(x, axis, weights, top):
    (total,) = _sums(
        lambda z, w, top: (jnp.where(w == 0, 0.0, w * (z - top)),), axis, x, weights, top
    )
    return total


def _mass(x, axis, weights):
    """Return Σ w."""
    if weights.ndim == 0:
        return weights * x.shape[axis]
    return weights.sum(axis, keepdims=True) * (x.shape[axis] // weights.shape[axis])


@partial(statistics.defjvp, symbolic_zeros=True)
def _statistics_jvp(axis, primals, tangents):
    x, labels, weights, skip = primals
    dx, _, dweights, _ = (None if isinstance(d, SymbolicZero) else d for d in tangents)
    rows = statistics(x, axis, labels, weights, skip)
    # Recomputed where they are needed: in eager mode p would be kept for the way back.
    moved = jax.checkpoint(_tangents, static_argnums=0, prevent_cse=False)
    d_picked, d_dot, d_log_sum = moved(axis, x, (labels, weights, skip), rows, dx, dweights)
    return rows, (d_picked, d_dot, d_log_sum, jnp.zeros_like(rows[3]))


def _tangents(axis, x, beside, rows, dx, dweights):
    labels, weights, skip = beside
    picked, _, log_sum, top = rows
    d, log_sum = x - expand(top, axis), expand(log_sum, axis)
    skip_c = None if skip is None else jnp.expand_dims(skip, axis)
    p = _unless(False if skip is None else skip_c, jnp.zeros((), x.dtype), d, log_sum)
    dx = jnp.zeros_like(x) if dx is None else dx
    d_picked = d_dot = None
    if labels is None:
        d_log_sum = (p * dx).sum(axis)
    elif _sets(x, axis):
        d_picked, d_log_sum = _by_set_labels(axis, labels, picked, p, dx)
    else:
        d_picked, d_log_sum = _by_compared_labels(axis, labels, skip, picked, (d, log_sum), dx)
    if weights is not None:
        mass = _mass(x, axis, weights)
        mass = mass.squeeze(axis) if mass.ndim else mass
        u, total = dx, d_log_sum
        if weights.ndim:  # w - p Σ w would cancel where one class dominates
            u, total = _beside_dominating(p, dx, axis)
        d_dot = (weights * u).sum(axis) - mass * total
        if dweights is not None:
            log_p = d - log_sum if skip is None else jnp.where(skip_c, 0.0, d - log_sum)
            d_dot = d_dot + _weighted(dweights, log_p, weights).sum(axis)
    return d_picked, d_dot, d_log_sum


# Both give dx_y - Σ p dx and Σ p dx, with 1 - p = -expm1(log p) at the label: saturated rows keep
# their digits.
def _by_set_labels(axis, labels, picked, p, dx):
    # Set in dx, the label of a gradient is set when p has been multiplied: one pass.
    by_others = (p * _but_labels(dx, labels)).sum(axis)
    dx_y = _pick(dx, axis, labels).squeeze(axis)
    return -(by_others + expm1(picked) * dx_y), by_others + jnp.exp(picked) * dx_y


def _but_labels(dx, labels):
    """Return `dx`, the last axis its classes, with 0 at the labels."""

    def one(row, label):
        return row.at[label].set(0.0, mode="promise_in_bounds", unique_indices=True)

    for _ in range(labels.ndim):
        one = jax.vmap(one)
    return one(dx, labels)


def _by_compared_labels(axis, labels, skip, picked, d_and_log_sum, dx):
    # Every class of a skipped row counts as its label: NaN does not come through. A select more
    # for that, and XLA does not vectorise: cross-entropy with its gradient of 200000 x 10 took
    # 5.5 ms, so 3.2.
    classes = dx.shape[axis]
    first, last = labels, labels
    if skip is not None:
        first, last = jnp.where(skip, 0, labels), jnp.where(skip, classes, labels)
    each = along(jnp.arange(classes), dx.ndim, axis)
    here = (each >= jnp.expand_dims(first, axis)) & (each <= jnp.expand_dims(last, axis))
    beside, at_label = (jnp.expand_dims(f(picked), axis) for f in (expm1, jnp.exp))
    return tuple(
        sign * (_unless(here, rows, *d_and_log_sum) * dx).sum(axis)
        for sign, rows in ((-1, beside), (1, at_label))
    )


def _sets(x, axis):
    return axis == x.ndim - 1 and x.shape[axis] >= SET_CLASSES


@jax.custom_jvp
def _unless(here, rows, d, log_sum):
    """Return p, but `rows` where `here`: NaN does not come through in any derivative.

    From e^d: d - log Σ e^d would be rounded more coarsely.
    """
    return jnp.where(here, rows, jnp.exp(d) * jnp.exp(-log_sum))


@_unless.defjvp
def _unless_jvp(primals, tangents):
    here, rows, d, log_sum = primals
    _, d_rows, d_d, d_log_sum = tangents
    p = _unless(here, jnp.zeros_like(rows), d, log_sum)
    return _unless(*primals), jnp.where(here, d_rows, p * (d_d - d_log_sum))


def _pick(x, axis, labels):
    index = jnp.expand_dims(labels, axis)
    return jnp.take_along_axis(x, index, axis, mode="promise_in_bounds")


def _weighted(factor, log_p, weights=None):
    weights = factor if weights is None else weights
    return factor * jnp.where((weights == 0) & (log_p == -jnp.inf), 0.0, log_p)  # 0 log 0 = 0
