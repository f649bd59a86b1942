"""NumPy: kernels along the class axis, on blocks (outer, C, inner), with in-place ufuncs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from softmaxkit._statistics import Rows
from softmaxkit.backends.numpy.blocks import (
    Layout,
    dot_rows,
    empty,
    is_number,
    sum_block,
    wide_dtype,
)


# --- activations ----------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    return _by_blocks(_write_softmax, x, axis, dtype)


def log_softmax(x, axis, dtype):
    return _by_blocks(_write_log_softmax, x, axis, dtype)


def _write_softmax(z, out, room):
    np.subtract(z, _top(z)[0], out=out)
    np.exp(out, out=out)
    np.divide(out, sum_block(out), out=out)


def _write_log_softmax(z, out, room):
    top, at = _top(z)
    d = np.subtract(z, top, out=out)
    at_top = None if at is None else d.reshape(-1)[at]
    e = np.exp(d, out=room("e", z.shape))
    np.subtract(d, np.log1p(_rest(e, at_top, at, None, room)), out=d)


def _by_blocks(kernel, x, axis, dtype):
    """Apply a kernel, which writes to its second argument, to each block."""
    layout = Layout(x.shape, axis, wide_dtype(x.dtype))
    out = empty(x.shape, np.dtype(dtype))
    source, target = x.reshape(layout.full), out.reshape(layout.full)
    in_place = not layout.turned and out.dtype == layout.dtype

    def work(blocks, room):
        for block in blocks:
            z = layout.load(source[block], room)
            result = target[block] if in_place else room("result", z.shape)
            kernel(z, result, room)
            if not in_place:
                layout.store(target[block], result)

    layout.each(work)
    return out


def softmax_gradient(p, cotangent, axis):
    layout = Layout(p.shape, axis, p.dtype)
    out = empty(p.shape, p.dtype)
    source, target = p.reshape(layout.full), out.reshape(layout.full)
    given = layout.across(cotangent)

    def work(blocks, room):
        for block in blocks:
            p, v = layout.load(source[block], room), layout.load(given[block], room, "v")
            result = room("result", p.shape) if layout.turned else target[block]
            _write_softmax_gradient(p, v, result, room)
            if layout.turned:
                layout.store(target[block], result)

    layout.each(work)
    return out


def _write_softmax_gradient(p, v, out, room):
    highest, at = _top(p)
    shift = _dot(p, v, out)
    sure = highest > 0.5
    if sure.any():
        # v_k, read at the index of the maximum if there is one, else summed over p > 1/2.
        own = sum_block(v * (p > 0.5)) if at is None else v.reshape(-1)[at][:, None, None]
        shift = np.where(sure, own, shift)
    u = np.subtract(v, shift, out=out)
    u -= _dot(p, u, room("term", p.shape))
    u *= p


def _dot(a, b, room):
    """Return Σ a b of a block; `room` may be overwritten."""
    if a.shape[2] == 1 and a.dtype == np.float32:
        return dot_rows(a, b)
    return sum_block(np.multiply(a, b, out=room))


# --- row statistics -------------------------------------------------------------------------------
class Kept(NamedTuple):
    """Saved for the gradient: numbers per row, and perhaps e^d, which the gradient overwrites."""

    top: np.ndarray
    rest: np.ndarray
    log_p: np.ndarray | None
    exponentials: np.ndarray | None


def row_statistics(x, request, lse, keep):
    layout = Layout(x.shape, request.axis, wide_dtype(x.dtype))
    source, weights = x.reshape(layout.full), layout.across(request.weights)
    labels = layout.by_row(request.labels)
    exponentials = empty(x.shape, layout.dtype) if keep else None
    room_for_e = exponentials.reshape(layout.full) if keep else None
    wanted = True, True, labels is not None, weights is not None, weights is not None
    found = [np.empty(layout.per_row, layout.dtype) if one else None for one in wanted]

    def work(blocks, room):
        for block in blocks:
            z, copied = layout.load(source[block], room), layout.copies(source)
            asked = layout.rows(labels, block), _part(layout, weights, block, room)
            e = None if room_for_e is None else layout.rows(room_for_e, block)
            for row, values in zip(found, _statistics(z, copied, *asked, e, room), strict=True):
                if row is not None:
                    target = row[block]
                    target[...] = values.reshape(target.shape)

    layout.each(work)
    top, rest, log_p, dot, mass = (v if v is None else v.reshape(layout.row_shape) for v in found)
    kept = Kept(top, rest, log_p, exponentials)
    rows = Rows(log_p, dot, mass, top + np.log1p(rest) if lse else None)
    if request.skip is not None:
        rows = Rows(*(v if v is None else np.where(request.skip, v.dtype.type(0), v) for v in rows))
    return rows, kept


def _part(layout, weights, block, room):
    return weights if is_number(weights) else layout.load(weights[block], room, "weights")


def _statistics(z, copied, labels, weights, kept, room):
    """Return max, Σ e^d - 1, log p_y, Σ w log p and Σ w of a block's rows.

    If `copied`, `z` may be overwritten; `kept` is memory in which to keep e^d, or None.
    """
    top, at = _top(z)
    # Use as few arrays as possible: those of one block have to share the cache.
    alike = is_number(weights)
    through = kept is not None and alike
    out = kept if through else z if copied else room("d", z.shape)
    d = np.subtract(z, top, out=out)
    log_p = dot = mass = None
    if labels is not None:
        entries, index = _entries(d, labels)
        log_p = entries[index].reshape(top.shape)
    at_top = None if at is None else d.reshape(-1)[at]  # 0, or NaN for a maximum of inf
    if alike:
        dot = None if weights is None else sum_block(d)
        e = np.exp(d, out=d)
    else:
        e = np.exp(d, out=room("e", z.shape) if kept is None else kept)
    rest = _rest(e, at_top, at, z if copied and through else None, room)
    if kept is not None and at is not None:
        e.reshape(-1)[at] = 1
    log_sum = np.log1p(rest)
    if log_p is not None:
        log_p -= log_sum
    if not alike:
        dot, mass = _dot_and_mass(d, weights)
        dot = dot - mass * log_sum  # nothing cancels where no weight is negative
    elif weights is not None:  # Σ d and -log_sum have the same sign: nothing cancels
        mass = np.full_like(top, weights * z.shape[1])
        dot = weights * (dot - z.shape[1] * log_sum) if weights != 0 else 0 * log_sum
    return top, rest, log_p, dot, mass


def _dot_and_mass(d, w):
    """Return Σ w d of a block, where 0 x inf is 0, and Σ w; overwrites `d`."""
    dot = _dot(d, w, d)
    if np.isnan(dot).any():  # 0 log 0, or NaN
        by_rows = d.shape[2] == 1 and d.dtype == np.float32
        np.copyto(d, 0, where=w == 0)
        dot = dot_rows(d, w) if by_rows else sum_block(d)
    return dot, sum_block(w)


def _rest(e, at_top, at, spare, room):
    """Return Σ e^d without one maximum, where e^d is 1, so that log1p of it keeps its digits.

    That entry of `e` may be overwritten. `spare` is scratch memory, or None.
    """
    if at is not None:
        e.reshape(-1)[at] = at_top
        return sum_block(e)
    total = sum_block(e)
    rest = total - 1
    if not (total >= 2).all():  # from 2 on, no digits are lost; below, there is one maximum
        ones = np.floor(e, out=room("ones", e.shape) if spare is None else spare)
        np.copyto(rest, sum_block(np.subtract(e, ones, out=ones)), where=total < 2)
    return rest


# --- their gradient -------------------------------------------------------------------------------
def row_gradient(x, request, kept, of_rows):
    layout = Layout(x.shape, request.axis, wide_dtype(x.dtype))
    out = kept.exponentials
    from_e = out is not None
    if not from_e:
        out = empty(x.shape, layout.dtype)
    target = out.reshape(layout.full)
    source = target if from_e else x.reshape(layout.full)
    weights = layout.across(request.weights)
    per_row = [
        layout.by_row(values)
        for values in (kept.top, kept.rest, kept.log_p, request.labels, request.skip, *of_rows)
    ]

    def work(blocks, room):
        for block in blocks:
            z = layout.rows(source, block) if from_e else layout.load(source[block], room)
            result = room("result", z.shape) if layout.turned else target[block]
            w = _part(layout, weights, block, room)
            values = [layout.rows(each, block) for each in per_row]
            _write_gradient(z, result, w, from_e, values, room)
            if layout.turned:
                layout.store(target[block], result)

    layout.each(work)
    return out


def _write_gradient(z, out, weights, from_e, values, room):
    """Write the gradient of a block's rows to `out`; `z` holds logits, or e^d if `from_e`."""
    top, rest, log_p, labels, skip, by_log_p, by_dot, mass, by_lse = values
    factor: Any = 0.0 if by_lse is None else by_lse  # factor of p at the label
    if by_dot is not None:
        factor = factor - by_dot * mass
    sure = None
    if not is_number(weights):
        sure = _where_one_dominates(z, 1 if from_e else top, weights, rest, room)
    sum_of_e = rest + z.dtype.type(1)
    elsewhere = factor if by_log_p is None else factor - by_log_p
    if not from_e:
        np.subtract(z, top, out=out)
        z = np.exp(out, out=out)
    np.multiply(z, elsewhere / sum_of_e, out=out)
    if labels is not None:
        at_label = -by_log_p * np.expm1(log_p)  # 1 - p without cancellation
        if not (is_number(factor) and factor == 0):
            at_label += factor * np.exp(log_p)
        entries, index = _entries(out, labels)
        entries[index] = at_label if out.shape[2] != 1 else at_label.reshape(-1)
    if is_number(weights):
        if weights is not None:
            out += weights * by_dot
    else:
        out += np.multiply(weights, by_dot, out=room("product", out.shape))
        if sure is not None:
            _mend(out, sure, values)
    if skip is not None:
        np.copyto(out, 0, where=skip)


def _where_one_dominates(z, top, weights, rest, room):
    """Return where a class has p > 1/2, and Σ w of the others in its row; None if there is none.

    In a block (rows, C, 1), the first is an index (rows, classes, 0), otherwise a mask. `z` may
    hold e^d, with a `top` of 1.
    """
    sure = rest < 1
    if not sure.any():
        return None
    if z.shape[2] != 1:
        at = z == np.where(sure, top, np.nan)
        others = room("others", z.shape)
        np.copyto(others, weights)
        np.copyto(others, 0, where=at)
        return at, sum_block(others)
    rows = np.flatnonzero(sure)
    place = z[rows, :, 0].argmax(1)
    others = weights[rows, :, 0]  # a copy
    others[np.arange(len(rows)), place] = 0
    return (rows, place, 0), others.sum(1)


def _mend(out, sure, values):
    """Write the derivative at dominating classes, where w - p Σ w would lose its digits."""
    at, others = sure
    by_rows = out.shape[2] == 1
    if by_rows:
        values = [v if is_number(v) else v[at[0], 0, 0] for v in values]
    _, rest, _, labels, _, by_log_p, by_dot, mass, by_lse = values
    p, misses = 1 / (1 + rest), rest / (1 + rest)
    entry = by_dot * ((mass - others) * misses - p * others)
    if by_lse is not None:
        entry = entry + by_lse * p
    if by_log_p is not None:
        if by_rows:
            is_label = labels == at[1]
        else:
            entries, index = _entries(at, labels)
            is_label = entries[index]
        entry = entry + by_log_p * np.where(is_label, misses, -p)
    if by_rows:
        out[at] = entry
    else:
        np.copyto(out, entry, where=at)


# --- entries of a block ---------------------------------------------------------------------------
def _top(z):
    """Return the maximum of each row and, for (rows, C, 1), its index in the flattened block.

    argmax takes as long as max along 1000 classes, and a third as long along 128.
    """
    if z.shape[2] != 1:
        return np.maximum.reduce(z, 1, keepdims=True), None
    at = z[:, :, 0].argmax(1)
    at += _starts(z.size, z.shape[1])
    return z.reshape(-1)[at][:, None, None], at


def _entries(z, labels):
    """Return a view of a block with contiguous rows, and the index of each row's label in it."""
    if z.shape[2] == 1:
        return z.reshape(-1), labels.reshape(-1) + _starts(z.size, z.shape[1])
    return z, (np.arange(len(z))[:, None, None], labels, np.arange(z.shape[2]))


# A block (rows, C, 1) has at most BLOCK_ELEMENTS / FEW rows, whose starts take 32 kB.
@lru_cache(maxsize=16)
def _starts(size, classes):
    starts = np.arange(0, size, classes)
    starts.flags.writeable = False
    return starts
