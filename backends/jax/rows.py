"""The row statistics of JAX, with their derivative, for every device and transform.

The device for which they are compiled decides how they are computed: by plain operations or, on a
CPU, in the way that XLA needs there (`cpu`). The derivative is one rule, which is linear in the
tangents, so that JAX can transpose it, and which can be differentiated again.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softmaxkit import _statistics
from softmaxkit._axes import expand
from softmaxkit._statistics import Rows
from softmaxkit.backends.jax import arrays as ops
from softmaxkit.backends.jax import cpu
from softmaxkit.backends.jax.arrays import (
    class_numbers,
    compute,
    expm1,
    is_plain,
    where,
    wide_dtype,
)


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
    # Class k gets the number that makes the entries sum to 0; in the transpose, its cotangent is
    # first subtracted from the others. In rows without such a class, NumPy's and torch's kernels
    # subtract Σ p v twice. That would take 1.3 times as long here; without it, what all cotangents
    # of a row have in common costs digits.
    return p, out - at * out.sum(axis, keepdims=True)


def _dominates(p):
    """Return 1 where p > 1/2, else 0."""

    def plain(p):
        return (p > 0.5).astype(p.dtype)

    return lax.platform_dependent(lax.stop_gradient(p), cpu=cpu.dominates, default=plain)


def log_softmax(x, axis, dtype):
    return _log_softmax(compute(x), axis).astype(dtype)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _log_softmax(x, axis):
    on_cpu, plain = (partial(f, axis) for f in (cpu.log_softmax, _plain_log_softmax))
    return _by_platform(on_cpu, plain, x)


def _plain_log_softmax(axis, x):
    _, _, log_sum, top = _plain_statistics(axis, x, None, None)
    return x - expand(top, axis) - expand(log_sum, axis)


@_log_softmax.defjvp
def _log_softmax_jvp(axis, primals, tangents):
    def moved(log_p, dx):
        u, total = _beside_dominating(jnp.exp(log_p), dx, axis)
        return u - expand(total, axis)

    log_p = _log_softmax(*primals, axis)
    # Recompute it where it is needed, as in `_statistics_jvp`.
    return log_p, jax.checkpoint(moved, prevent_cse=False)(log_p, *tangents)


def _beside_dominating(p, dx, axis):
    """Return dx - dx_k and Σ p (dx - dx_k) where p_k > 1/2, elsewhere dx and Σ p dx.

    Class k takes no part in either, nor in their transpose: what it added in one place would be
    subtracted in another, at the cost of digits.
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


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def statistics(x, axis, labels, weights, skip):
    """Return log p at the label, the dot product (both if requested), log Σ e^(x-top) and top."""
    on_cpu, plain = (partial(f, axis) for f in (cpu.statistics, _plain_statistics))
    rows = _by_platform(on_cpu, plain, x, labels, weights)
    if skip is not None:
        rows = tuple(v if v is None else where(skip, 0.0, v) for v in rows)
    return rows


def _plain_statistics(axis, x, labels, weights):
    if weights is not None:
        weights = ops.broadcast_like(weights, x)
    whole = _statistics.part(ops, x, axis, labels, weights)
    rows = _statistics.finish(ops, whole)
    return rows.log_p, rows.dot, _statistics.log_sum(ops, whole), whole.top


def _by_platform(on_cpu, plain, x, *others):
    if not is_plain(x):
        return plain(x, *others)
    return lax.platform_dependent(x, *others, cpu=on_cpu, default=plain)


def _mass(x, axis, weights):
    """Return Σ w."""
    if weights.ndim == 0:
        return weights * x.shape[axis]
    times = 1 if weights.shape[axis] == x.shape[axis] else x.shape[axis]
    return weights.sum(axis, keepdims=True) * times


@partial(statistics.defjvp, symbolic_zeros=True)
def _statistics_jvp(axis, primals, tangents):
    x, labels, weights, skip = primals
    dx, _, dweights, _ = (None if isinstance(d, SymbolicZero) else d for d in tangents)
    rows = statistics(x, axis, labels, weights, skip)
    # Recompute them where they are needed: in eager mode, p would be kept for the backward pass.
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
    else:
        by_compared, by_set = (partial(f, axis) for f in (_by_compared_labels, _by_set_labels))
        given = labels, skip, picked, (p, d, log_sum), dx
        if is_plain(x) and cpu.sets_labels(x, axis):
            d_picked, d_log_sum = lax.platform_dependent(*given, cpu=by_set, default=by_compared)
        else:
            d_picked, d_log_sum = by_compared(*given)
    if weights is not None:
        mass = _mass(x, axis, weights)
        mass = mass.squeeze(axis) if mass.ndim else mass
        u, total = dx, d_log_sum
        if weights.ndim:  # w - p Σ w would cancel where one class dominates
            u, total = _beside_dominating(p, dx, axis)
        d_dot = (weights * u).sum(axis) - mass * total
        if dweights is not None:
            log_p = d - log_sum if skip is None else where(skip_c, 0.0, d - log_sum)
            d_dot = d_dot + _weighted(dweights, log_p, weights).sum(axis)
    return d_picked, d_dot, d_log_sum


# Both return dx_y - Σ p dx and Σ p dx, with 1 - p = -expm1(log p) at the label, so that saturated
# rows keep their digits.
def _by_set_labels(axis, labels, skip, picked, given, dx):
    p, _, _ = given
    # The label is set in dx, so that the transpose sets it after multiplying by p, in one pass.
    by_others = (p * cpu.but_labels(dx, labels)).sum(axis)
    dx_y = ops.pick(dx, labels, axis)
    return -(by_others + expm1(picked) * dx_y), by_others + jnp.exp(picked) * dx_y


def _by_compared_labels(axis, labels, skip, picked, given, dx):
    _, *d_and_log_sum = given
    # Every class of a skipped row counts as its label, so that NaN does not come through. With one
    # more select in place of that, XLA does not vectorise: cross-entropy with its gradient of
    # 200000 x 10 takes 5.5 ms, and 3.2 this way.
    classes = dx.shape[axis]
    first, last = labels, labels
    if skip is not None:
        first, last = where(skip, 0, labels), where(skip, classes, labels)
    each = class_numbers(labels.dtype, dx, axis)
    here = (each >= jnp.expand_dims(first, axis)) & (each <= jnp.expand_dims(last, axis))
    beside, at_label = (jnp.expand_dims(f(picked), axis) for f in (expm1, jnp.exp))
    return tuple(
        sign * (_unless(here, rows, *d_and_log_sum) * dx).sum(axis)
        for sign, rows in ((-1, beside), (1, at_label))
    )


@jax.custom_jvp
def _unless(here, rows, d, log_sum):
    """Return p, but `rows` where `here`, so that NaN does not come through in any derivative.

    It is computed from e^d: d - log Σ e^d would be rounded more coarsely.
    """
    return where(here, rows, jnp.exp(d) * jnp.exp(-log_sum))


@_unless.defjvp
def _unless_jvp(primals, tangents):
    here, rows, d, log_sum = primals
    _, d_rows, d_d, d_log_sum = tangents
    p = _unless(here, jnp.zeros_like(rows), d, log_sum)
    return _unless(*primals), where(here, d_rows, p * (d_d - d_log_sum))


def _weighted(factor, log_p, weights=None):
    weights = factor if weights is None else weights
    return factor * where((weights == 0) & (log_p == -jnp.inf), 0.0, log_p)  # 0 log 0 = 0
