"""Dask: kernels along the class axis, as tasks on chunks of rows and of classes.

One task for each chunk reduces it to a `Part` (`softmaxkit._statistics`). Others merge the parts of
the same rows, in a tree. One more for each chunk makes the result from the chunk and from what its
whole rows reduce to. The tasks use the functions of the library whose arrays the chunks are. Dask
takes what rows reduce to for an array in the shape of the rows: it does not look into the chunks,
each of which is a `Part`.
"""

from __future__ import annotations

import dask.array as da
import numpy as np

from softmaxkit import _statistics
from softmaxkit._activations import softmax_derivative
from softmaxkit._axes import expand, no_classes
from softmaxkit._statistics import Part, Request, Rows, centred, log_sum, rest_of
from softmaxkit.backends.array_api import arrays as of_chunk
from softmaxkit.backends.dask import arrays as ops
from softmaxkit.backends.dask.arrays import chunked_like, meta_of, rows_of
from softmaxkit.backends.dask.blocks import by_blocks

# How many parts a task merges. A larger number would keep more of them in memory at once, a smaller
# one would make more tasks.
FAN_IN = 8

_INF = float("inf")

_silent = np.errstate(all="ignore")  # of a task, because it holds for the thread that computes


def softmax(x, axis, dtype):
    chunks = _Chunks(ops.compute(x), axis)
    whole = chunks.merged(chunks.each(_part_for_softmax))
    return chunks.each(_softmax, whole, dtype=dtype)


def log_softmax(x, axis, dtype):
    chunks = _Chunks(ops.compute(x), axis)
    return chunks.each(_log_softmax, chunks.reduced(Request(axis)), dtype=dtype)


def softmax_gradient(p, cotangent, axis):
    return softmax_derivative(ops, p, cotangent, axis)


@by_blocks
def _part_for_softmax(z, axis):
    """Return a part for softmax, which divides by Σ e^d: `rest` needs no digits beyond its."""
    if no_classes(of_chunk, z, axis):
        return _statistics.part(of_chunk, z, axis)
    top = of_chunk.amax(z, axis)
    total = of_chunk.sum(of_chunk.exp(centred(of_chunk, z, top, axis)), axis)
    return Part(top, of_chunk.where(top == -_INF, 0.0, total) - 1.0)


@by_blocks
def _softmax(z, whole, axis, result):
    e = of_chunk.exp(centred(of_chunk, z, whole.top, axis))
    return of_chunk.astype(e / expand(1.0 + rest_of(of_chunk, whole), axis), result)


@by_blocks
def _log_softmax(z, whole, axis, result):
    d = centred(of_chunk, z, whole.top, axis)
    return of_chunk.astype(d - expand(log_sum(of_chunk, whole), axis), result)


# --- row statistics -------------------------------------------------------------------------------
def row_statistics(x, request, lse, keep):
    chunks = _Chunks(ops.compute(x), request.axis)
    whole = chunks.reduced(request)
    has_weights = request.weights is not None
    wanted = Rows(request.labels is not None, has_weights, has_weights, lse)
    rows = (
        chunks.rows(_finished, whole, request.skip, field=name) if one else None
        for name, one in wanted._asdict().items()
    )
    return Rows(*rows), (whole, request.weights)


def row_gradient(x, request, kept, of_rows):
    axis, labels, weights, skip = request
    chunks, (whole, weights_before) = _Chunks(ops.compute(x), axis), kept
    mass = beside = None
    if weights is not weights_before:
        is_top = chunks.x == expand(chunks.rows(_top, whole), axis)
        mass, beside = of_rows.mass, ops.sum(ops.where(is_top, 0.0, weights), axis)
    companions = chunks.first, labels, chunks.across(weights), skip
    cotangents = of_rows.log_p, of_rows.dot, of_rows.lse
    return chunks.each(_gradient, *companions, whole, mass, beside, *cotangents)


@by_blocks
def _part(z, first, labels, weights, skip, axis):
    z, labels, weights = _of_chunk(z, axis, first, labels, weights, skip)
    if weights is not None and not of_chunk.is_array(weights):
        weights = weights * of_chunk.ones_like(z)
    return _statistics.part(of_chunk, z, axis, labels, weights)


@_silent
def _merged(parts, axis, keepdims):
    return _statistics.merge(of_chunk, parts)


@_silent
def _finished(whole, skip, field):
    value = getattr(_statistics.finish(of_chunk, whole), field)
    return value if skip is None else of_chunk.where(skip, 0.0, value)


def _top(whole):
    return whole.top


@by_blocks
def _gradient(z, first, labels, weights, skip, whole, *by_row, axis):
    mass, beside, by_log_p, by_dot, by_lse = by_row
    z, labels, weights = _of_chunk(z, axis, first, labels, weights, skip)
    log_p = _statistics.finish(of_chunk, whole).log_p
    if mass is not None:
        whole = whole._replace(mass=mass, beside=beside)
    cotangents = Rows(by_log_p, by_dot, None, by_lse)
    out = _statistics.gradient(
        of_chunk, z, axis, whole, cotangents, labels=labels, log_p=log_p, weights=weights
    )
    return out if skip is None else of_chunk.where(expand(skip, axis), 0.0, out)


def _of_chunk(z, axis, first, labels, weights, skip):
    """Return logits, which are 0 in rows to skip, labels as indices into them, and weights."""
    if skip is not None:
        z = of_chunk.where(expand(skip, axis), 0.0, z)
    if labels is not None:
        labels = labels - first[0]
    if of_chunk.is_array(weights):
        weights = of_chunk.broadcast_like(weights, z)
    return z, labels, weights


class _Chunks:
    """Logits, and how the chunks of other arrays are matched with theirs."""

    def __init__(self, x, axis):
        self.x, self._axis, self._every = x, axis, tuple(range(x.ndim))
        lengths = np.asarray(x.chunks[axis])
        # The index of the first class of each chunk, as an array with a chunk for each.
        self.first = da.from_array(np.cumsum(lengths) - lengths, chunks=1)

    def across(self, weights):
        """Return weights, which broadcast to the logits, with as many axes as the logits have."""
        if not ops.is_array(weights):
            return weights
        return weights[(None,) * (self.x.ndim - weights.ndim) + (...,)]

    def reduced(self, request):
        """Return what whole rows reduce to."""
        _, labels, weights, skip = request
        return self.merged(self.each(_part, self.first, labels, self.across(weights), skip))

    def merged(self, parts):
        return da.reduction(
            parts,
            chunk=_as_it_is,
            aggregate=_merged,
            axis=self._axis,
            split_every=FAN_IN,
            concatenate=False,
            dtype=self.x.dtype,
            meta=meta_of(self.x, self.x.ndim - 1),
            name="merged",
        )

    def each(self, function, *beside, dtype=None):
        """Apply a function to each chunk and to the matching chunks of other arrays."""
        return self._made(self._every, function, (self.x, *beside), dtype, axis=self._axis)

    def rows(self, function, *by_row, **options):
        """Apply a function to each chunk of what rows reduce to, and of other values of rows."""
        return self._made(rows_of(self._every, self._axis), function, by_row, None, **options)

    def _made(self, index, function, values, dtype, **options):
        pairs = [pair for one in values for pair in self._laid(one)]
        meta = meta_of(self.x, len(index), dtype)
        options = options if dtype is None else options | {"result": dtype}
        return da.blockwise(function, index, *pairs, meta=meta, align_arrays=False, **options)

    def _laid(self, value):
        """Return a value in the chunks of the logits, and the axes of the logits that it has."""
        if not isinstance(value, da.Array):
            return value, None
        if value is self.first:
            return value, (self._axis,)
        if value.ndim == 0:
            return value, ()
        if value.ndim == self.x.ndim:
            return chunked_like(value, self.x.chunks), self._every
        rows = rows_of(self._every, self._axis)
        return chunked_like(value, rows_of(self.x.chunks, self._axis)), rows


def _as_it_is(part, axis, keepdims):
    return part
