"""Dask: a chunk of NumPy is processed in blocks of rows, of the size that NumPy's backend has.

A part of (1024, 4096) logits in float32 takes 9.4 ns per element whole, 5.2 in blocks; its gradient
6.8 and 3.7. Blocks also bound the memory of the steps, each of which has a result of the size of
what it works on.
"""

from __future__ import annotations

from functools import wraps

import numpy as np

from softmaxkit.backends.numpy import blocks


def by_blocks(function):
    """Let function(z, *values, axis=...) work on one block of the rows of a chunk after another.

    Of the values, those in the shape of `z` or of its rows are cut like `z`; what broadcasts to
    them is left whole. So are the chunks of other libraries, and what has a single row.
    """

    @wraps(function)
    @np.errstate(all="ignore")  # in the thread that computes
    def by_blocks_of_rows(z, *values, axis, **options):
        rows = [one for one in range(z.ndim) if one != axis]
        if not isinstance(z, np.ndarray) or not rows or z.size <= blocks.BLOCK_ELEMENTS:
            return function(z, *values, axis=axis, **options)
        cut = max(rows, key=z.shape.__getitem__)
        # The place of that axis in an array with all axes, and in one with those of the rows.
        places = {z.ndim: cut, z.ndim - 1: cut - (cut > axis)}
        count = z.shape[cut]
        step = max(blocks.BLOCK_ELEMENTS * count // z.size, 1)
        out = None
        for start in range(0, count, step):
            block = slice(start, start + step)
            some = (_each(lambda one: _cut(one, places, count, block), v) for v in (z, *values))
            found = function(*some, axis=axis, **options)
            if out is None:
                out = _each(lambda one: _room(one, places, count), found)
            for target, one in zip(_listed(out), _listed(found), strict=True):
                if one is not None:
                    _cut(target, places, count, block)[...] = one
        return out

    return by_blocks_of_rows


def _cut(value, places, count, block):
    place = places.get(getattr(value, "ndim", None))
    if place is None or value.shape[place] != count:
        return value
    return value[(slice(None),) * place + (block,)]


def _room(block, places, count):
    """Return memory for the result of all rows, given that of the first block."""
    if block is None:
        return None
    place = places[block.ndim]
    return np.empty((*block.shape[:place], count, *block.shape[place + 1 :]), block.dtype)


def _each(function, value):
    """Apply a function to a value or, if that is a named tuple, to each of its fields."""
    return value._make(map(function, value)) if isinstance(value, tuple) else function(value)


def _listed(value):
    return value if isinstance(value, tuple) else (value,)
