"""Triton kernels over tiles of rows; `triton` calls them.

A row is reduced as in `softmaxkit._statistics`, where the names of its statistics are explained:
each lane of a tile reads every BLOCK-th class and merges it, as a part of one class, into the part
that it has; the parts of the lanes are merged at the end. The logits are read once for that.

With EXACT, e^d has all digits of float32 for every d; otherwise it loses d/2 ULP, which logits in
half precision do not show.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

if os.environ.get("SOFTMAXKIT_TRITON") == "interpret":
    os.environ["TRITON_INTERPRET"] = "1"  # Triton reads it when it is imported

import triton
import triton.language as tl


class Entries(NamedTuple):
    """A tensor of the logits' shape as (outer, classes, inner): its memory and its strides."""

    memory: Any
    outer: int
    of_class: int
    inner: int


class Rows(NamedTuple):
    """The statistics of rows, in the order of (outer, inner); None for what is not wanted."""

    log_p: Any
    dot: Any
    lse: Any
    top: Any
    rest: Any
    mass: Any
    beside: Any


LOWEST: tl.constexpr = tl.constexpr(-3.4028234663852886e38)
LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
# ln 2 in two parts; products of the first with integers below 2^9 are exact.
LN2_HIGH: tl.constexpr = tl.constexpr(0.693145751953125)
LN2_LOW: tl.constexpr = tl.constexpr(1.4286068203094172e-06)


# --- functions of numbers -------------------------------------------------------------------------
@triton.jit
def exp_of_gap(d, EXACT: tl.constexpr):
    """Return e^d for d <= 0; tl.exp rounds d / ln 2 first."""
    if EXACT:
        d = tl.where(d < -104.0, -104.0, d)  # e^-104 is 0; NaN stays
        whole = tl.floor(d * LOG2_E + 0.5)
        fraction = (d - whole * LN2_HIGH) - whole * LN2_LOW
        e = tl.exp2(fraction * LOG2_E) * tl.exp2(whole)
    else:
        e = tl.exp2(d * LOG2_E)
    return e


@triton.jit
def log1p(x):
    """Return log(1 + x): the rounding error of 1 + x cancels in the quotient (Kahan)."""
    u = 1.0 + x
    return tl.where(u == 1.0, x, tl.log(u) * (x / (u - 1.0)))


@triton.jit
def finite_or_nan(top):
    return tl.where(tl.abs(top) == float("inf"), float("nan"), top)


@triton.jit
def over(value, temperature, EXACT: tl.constexpr):
    if temperature is not None:
        if EXACT:
            value = tl.div_rn(value, temperature + tl.zeros_like(value))
        else:
            value = value * (1.0 / temperature)
    return value


@triton.jit
def capped(z, softcap):
    """Return softcap · tanh(z / softcap)."""
    v = z / softcap
    size = tl.abs(v)
    e = tl.exp(-2.0 * size)
    u = v * v
    # tanh v = v + v u P(u) up to 0.625: P interpolates in Chebyshev's points, 0.9 ULP.
    p = 0.020997179672122 - 0.006096714176237583 * u
    p = 0.1333276927471161 + u * (-0.05385090783238411 + u * p)
    p = -0.333333283662796 + u * p
    small = v + v * (u * p)
    large = tl.where(v < 0, -1.0, 1.0) * ((1.0 - e) / (1.0 + e))
    return softcap * tl.where(size < 0.625, small, tl.where(v != v, v, large))


@triton.jit
def slope_of_cap(z, softcap):
    """Return its derivative, 1 / cosh²."""
    e = tl.exp(-2.0 * tl.abs(z / softcap))
    return 4.0 * e / ((1.0 + e) * (1.0 + e))


# --- tiles ----------------------------------------------------------------------------------------
@triton.jit
def rows_of_tile(tile, inner, tiles, ROWS: tl.constexpr):
    """Return the outer index of a tile of rows, the inner ones, and which of these there are."""
    i = (tile % tiles) * ROWS + tl.arange(0, ROWS)
    return (tile // tiles).to(tl.int64), i.to(tl.int64), i < inner


@triton.jit
def classes_of_block(start, classes, present, BLOCK: tl.constexpr):
    """Return the classes from `start` on, and which entries of the tile there are."""
    c = start + tl.arange(0, BLOCK)
    return c, present[:, None] & (c < classes)[None, :]


@triton.jit
def at(entries, o, i, c, ALIGNED: tl.constexpr):
    """Return the places of the entries; the first of each row is a multiple of ALIGNED."""
    first = o * entries.outer + i * entries.inner
    if ALIGNED > 1:
        first = tl.multiple_of(first, ALIGNED)
    return entries.memory + first[:, None] + c.to(tl.int64)[None, :] * entries.of_class


@triton.jit
def of_rows(values, row, present):
    """Load a number for each row, to be used with its classes."""
    return tl.load(values + row, mask=present, other=1.0)[:, None]


@triton.jit
def logits(x, where, softcap, o, i, c, mask, ALIGNED: tl.constexpr):
    z = tl.load(at(x, o, i, c, ALIGNED), mask=mask, other=-float("inf")).to(tl.float32)
    if softcap is not None:
        z = tl.where(mask, capped(z, softcap), -float("inf"))
    if where is not None:
        takes_part = tl.load(at(where, o, i, c, 1), mask=mask, other=0)
        z = tl.where(takes_part != 0, z, -float("inf"))
    return z


@triton.jit
def reduced(
    x, where, softcap, temperature, weights, weight, classes, o, i, present,
    EXACT: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Return top, rest, dot, mass and beside of rows."""
    top = tl.full([ROWS, BLOCK], LOWEST, tl.float32)
    rest = tl.full([ROWS, BLOCK], -1.0, tl.float32)
    dot = tl.zeros([ROWS, BLOCK], tl.float32)
    mass = tl.zeros([ROWS, BLOCK], tl.float32)
    beside = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, classes, BLOCK):
        c, mask = classes_of_block(start, classes, present, BLOCK)
        z = logits(x, where, softcap, o, i, c, mask, ALIGNED)
        higher = z > top
        gap = top - z
        if weights is not None or weight is not None:
            if weights is not None:
                w = tl.load(at(weights, o, i, c, 1), mask=mask, other=0.0).to(tl.float32)
            else:
                w = tl.where(mask, weight, 0.0)
            dot += tl.where(higher, tl.where(mass == 0, 0.0, mass * gap), 0.0)  # 0 log 0 = 0
            dot -= tl.where(higher | (w == 0), 0.0, w * gap)
            beside = tl.where(higher, mass, beside + w)
            mass += w
        s = exp_of_gap(over(-tl.abs(gap), temperature, EXACT), EXACT)
        rest = tl.where(higher, (rest + 1.0) * s, rest + s)
        top = tl.where(higher, z, top)
    highest = tl.max(top, 1)
    holds = top == highest[:, None]
    gap = top - highest[:, None]
    s = exp_of_gap(over(gap, temperature, EXACT), EXACT)
    holders = tl.sum(holds.to(tl.float32), 1)
    # The brackets come first because rest may be tiny.
    rest_of_row = tl.sum(tl.where(holds, rest, (rest + 1.0) * s), 1) + (holders - 1.0)
    dot_of_row = tl.sum(dot + tl.where(mass == 0, 0.0, mass * gap), 1)
    beside_of_row = tl.sum(tl.where(holds, beside, mass), 1)
    highest = tl.where(rest_of_row < 0, -float("inf"), highest)
    return highest, rest_of_row, dot_of_row, tl.sum(mass, 1), beside_of_row


# --- kernels --------------------------------------------------------------------------------------
@triton.jit
def statistics(
    x, where, softcap, temperature, weights, weight, labels, skip, found, classes, inner, tiles,
    EXACT: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Reduce rows to `found`; those to be skipped are not read."""
    classes *= ALIGNED  # Triton then knows that it is a multiple
    o, i, present = rows_of_tile(tl.program_id(0), inner, tiles, ROWS)
    row = o * inner + i
    counts = present
    if skip is not None:
        counts = present & (tl.load(skip + row, mask=present, other=1) == 0)
    of_row, of_class = None, None
    if temperature is not None:
        of_class = of_rows(temperature, row, present)
        of_row = tl.load(temperature + row, mask=present, other=1.0)
    top, rest, dot, mass, beside = reduced(
        x, where, softcap, of_class, weights, weight, classes, o, i, counts,
        EXACT, ALIGNED, ROWS, BLOCK,
    )  # fmt: skip
    finite = finite_or_nan(top)
    beyond = tl.where(finite == top, log1p(rest), float("nan"))
    if found.log_p is not None:
        y = tl.load(labels + row, mask=counts, other=0)
        first = x.memory + o * x.outer + i * x.inner
        z = tl.load(first + y * x.of_class, mask=counts, other=0.0).to(tl.float32)
        if softcap is not None:
            z = capped(z, softcap)
        if where is not None:
            first = where.memory + o * where.outer + i * where.inner
            takes_part = tl.load(first + y * where.of_class, mask=counts, other=0)
            z = tl.where(takes_part != 0, z, -float("inf"))
        log_p = over(z - finite, of_row, EXACT) - beyond
        tl.store(found.log_p + row, tl.where(counts, log_p, 0.0), mask=present)
    if found.dot is not None:
        dot = over(dot, of_row, EXACT) - mass * tl.where(mass == 0, 0.0, beyond)
        tl.store(found.dot + row, tl.where(counts, dot, 0.0), mask=present)
    if found.lse is not None:
        lse = over(finite, of_row, EXACT) + beyond
        tl.store(found.lse + row, tl.where(counts, lse, 0.0), mask=present)
    if found.top is not None:
        tl.store(found.top + row, top, mask=present)
        tl.store(found.rest + row, rest, mask=present)
    if found.mass is not None:
        tl.store(found.mass + row, mass, mask=present)
        tl.store(found.beside + row, beside, mask=present)


@triton.jit
def gradient(
    x, where, softcap, temperature, weights, labels, skip, top, factors, out,
    classes, inner, tiles, across,
    EXACT: tl.constexpr, ALIGNED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write what rows contribute to the cotangent of each logit: see `_statistics.spread`."""
    classes *= ALIGNED  # Triton then knows that it is a multiple
    pid = tl.program_id(0)
    o, i, present = rows_of_tile(pid // across, inner, tiles, ROWS)
    row = o * inner + i
    counts = present
    if skip is not None:
        counts = present & (tl.load(skip + row, mask=present, other=1) == 0)
    c = (pid % across) * BLOCK + tl.arange(0, BLOCK)
    there = present[:, None] & (c < classes)[None, :]
    mask = counts[:, None] & (c < classes)[None, :]
    if temperature is not None:
        temperature = of_rows(temperature, row, present)
    z = logits(x, where, softcap, o, i, c, mask, ALIGNED)
    highest = finite_or_nan(of_rows(top, row, counts))
    e = exp_of_gap(over(z - highest, temperature, EXACT), EXACT)
    of_z = tl.zeros([ROWS, BLOCK], tl.float32)
    if factors.of_e is not None:
        of_z = of_rows(factors.of_e, row, counts) * e
        if factors.added is not None:
            of_z += of_rows(factors.added, row, counts)
        if labels is not None:
            at_label = of_rows(factors.at_label, row, counts)
            if factors.of_e_at_label is not None:
                at_label += of_rows(factors.of_e_at_label, row, counts) * e
            y = tl.load(labels + row, mask=counts, other=0)
            of_z = tl.where(c[None, :] == y[:, None], at_label, of_z)
    if weights is not None:
        w = tl.load(at(weights, o, i, c, 1), mask=mask, other=0.0).to(tl.float32)
        there_of_w = of_rows(factors.of_w_there, row, counts) * w
        there_of_w -= of_rows(factors.less_there, row, counts)
        elsewhere = of_rows(factors.of_w, row, counts) * w
        elsewhere -= of_rows(factors.less_of_e, row, counts) * e
        dominates = z == of_rows(factors.dominating, row, counts)
        of_z += tl.where(dominates, there_of_w, elsewhere)
    of_z = over(of_z, temperature, EXACT)
    if softcap is not None:
        v = tl.load(at(x, o, i, c, ALIGNED), mask=mask, other=0.0).to(tl.float32)
        of_z *= slope_of_cap(v, softcap)
    if where is not None:
        takes_part = tl.load(at(where, o, i, c, 1), mask=mask, other=0)
        of_z = tl.where(takes_part != 0, of_z, 0.0)
    of_z = tl.where(mask, of_z, 0.0)
    tl.store(at(out, o, i, c, ALIGNED), of_z.to(out.memory.dtype.element_ty), mask=there)


@triton.jit
def softmax(
    x, out, classes, inner, tiles,
    LOG: tl.constexpr, EXACT: tl.constexpr, ALIGNED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write p or, with LOG, log p."""
    classes *= ALIGNED  # Triton then knows that it is a multiple
    o, i, present = rows_of_tile(tl.program_id(0), inner, tiles, ROWS)
    top, rest, _, _, _ = reduced(
        x, None, None, None, None, None, classes, o, i, present, EXACT, ALIGNED, ROWS, BLOCK
    )
    top = finite_or_nan(top)
    beyond = log1p(rest)
    for start in range(0, classes, BLOCK):
        c, mask = classes_of_block(start, classes, present, BLOCK)
        d = logits(x, None, None, o, i, c, mask, ALIGNED) - top[:, None]
        value = d - beyond[:, None] if LOG else exp_of_gap(d, EXACT) / (1.0 + rest)[:, None]
        tl.store(at(out, o, i, c, ALIGNED), value.to(out.memory.dtype.element_ty), mask=mask)


@triton.jit
def probabilities(x, top, total, o, i, c, mask, EXACT: tl.constexpr, ALIGNED: tl.constexpr):
    """Return p of logits whose maximum and Σ e^d are given, else the probabilities read."""
    if top is None:
        p = tl.load(at(x, o, i, c, ALIGNED), mask=mask, other=0.0).to(tl.float32)
    else:
        z = logits(x, None, None, o, i, c, mask, ALIGNED)
        p = tl.where(mask, exp_of_gap(z - top[:, None], EXACT) / total[:, None], 0.0)
    return p


@triton.jit
def softmax_gradient(
    x, v, out, classes, inner, tiles,
    OF_LOGITS: tl.constexpr, EXACT: tl.constexpr, ALIGNED: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write p (v - Σ p v), given p or logits: see `_activations.softmax_derivative`."""
    classes *= ALIGNED  # Triton then knows that it is a multiple
    o, i, present = rows_of_tile(tl.program_id(0), inner, tiles, ROWS)
    top, total = None, None
    if OF_LOGITS:
        top, rest, _, _, _ = reduced(
            x, None, None, None, None, None, classes, o, i, present, EXACT, ALIGNED, ROWS, BLOCK
        )
        top = finite_or_nan(top)
        total = 1.0 + rest
    all_v = tl.zeros([ROWS, BLOCK], tl.float32)
    v_k = tl.zeros([ROWS, BLOCK], tl.float32)
    found = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, classes, BLOCK):
        c, mask = classes_of_block(start, classes, present, BLOCK)
        p = probabilities(x, top, total, o, i, c, mask, EXACT, ALIGNED)
        of_p = tl.load(at(v, o, i, c, 1), mask=mask, other=0.0).to(tl.float32)
        all_v += p * of_p
        v_k += tl.where(p > 0.5, of_p, 0.0)
        found += (p > 0.5).to(tl.float32)
    shift = tl.where(tl.sum(found, 1) > 0, tl.sum(v_k, 1), tl.sum(all_v, 1))[:, None]
    left = tl.zeros([ROWS, BLOCK], tl.float32)
    for start in range(0, classes, BLOCK):
        c, mask = classes_of_block(start, classes, present, BLOCK)
        p = probabilities(x, top, total, o, i, c, mask, EXACT, ALIGNED)
        of_p = tl.load(at(v, o, i, c, 1), mask=mask, other=0.0).to(tl.float32)
        left += tl.where(mask, p * (of_p - shift), 0.0)
    left_of_row = tl.sum(left, 1)[:, None]
    for start in range(0, classes, BLOCK):
        c, mask = classes_of_block(start, classes, present, BLOCK)
        p = probabilities(x, top, total, o, i, c, mask, EXACT, ALIGNED)
        of_p = tl.load(at(v, o, i, c, 1), mask=mask, other=0.0).to(tl.float32)
        of_z = p * ((of_p - shift) - left_of_row)
        tl.store(at(out, o, i, c, ALIGNED), of_z.to(out.memory.dtype.element_ty), mask=mask)
