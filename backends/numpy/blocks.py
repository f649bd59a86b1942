"""NumPy: how a large array is cut into blocks that stay in the cache, which threads share."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from softmaxkit._axes import SUM_CLASSES
from softmaxkit.backends.numpy import pool

# Elements of a block when several threads work: with smaller blocks, they wait for each other at
# the interpreter's lock. softmax of (2048, 1000): 2.12 ns per element with 1 << 14, 0.79 with
# 1 << 18. benchmarks/thresholds.py measures this number and the others.
BLOCK_ELEMENTS = 1 << 18
# Elements of a block when one thread works: with larger blocks, the C library returns scratch
# memory after each call. log_softmax of (100, 1000): 0.41 ms with 1 << 17, 0.11 with 1 << 16.
LONE_ELEMENTS = 1 << 16
# From this many elements on, other threads are woken. softmax of (1000, 1000) then takes 0.56 of
# the time; softmax of (300, 1000) would take 1.25.
SHARED_ELEMENTS = 1 << 19
# Up to this many classes, a block is turned over, so that loops run along the rows instead of the
# classes: softmax of (200000, 10) 23 -> 5 ms. Up to this many columns behind the class axis count
# as few, too.
FEW = 64
# An array of up to this many elements is too small to be turned over.
SMALL_ELEMENTS = 1 << 12
# From this many classes on, NumPy's buffer is made this short: to subtract the one number of a row
# from a row shorter than the buffer, NumPy first fills the buffer with it. With 1000 classes
# 0.17 -> 0.10 ns per element.
BUFFER_ELEMENTS = 512
# Up to this many classes, a float32 sum is one product with ones: (4096, 4096) takes 0.91 to 0.95
# of the time of a reduction. Longer rows are summed in parts of this length, to as many digits.
PART_CLASSES = 512
# From this many bytes on, a result is aligned like TensorFlow's tensors, so that TensorFlow can use
# it without a copy. Finding an aligned address takes 2 µs of the 20 of a small softmax.
LARGE_BYTES = 1 << 16
_ALIGNMENT = 64

silent = np.errstate(all="ignore")  # inf - inf, log 0 and underflow are valid results here


def wide_dtype(dtype):
    return dtype if dtype.kind == "f" and dtype.itemsize >= 4 else np.dtype(np.float32)


class Layout:
    """How an array is cut along its rows. The array and its blocks are viewed as (outer, C, inner).

    A block is processed in place, or turned over: copied as (1, C, rows) if it has few classes,
    otherwise as (rows, C, 1). In all these forms, axis 1 is the class axis.
    """

    def __init__(self, shape, axis, dtype):
        outer, classes, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        self.dtype = dtype
        self.shape, self.row_shape = shape, shape[:axis] + shape[axis + 1 :]
        self.full, self.per_row = (outer, classes, inner), (outer, 1, inner)
        self.size = outer * classes * inner
        self.by_class = classes <= FEW
        short = inner < FEW and (inner > 1 or self.by_class)
        self.turned = short and self.size > SMALL_ELEMENTS
        self.is_shared = self.size >= SHARED_ELEMENTS
        self.block = BLOCK_ELEMENTS if self.is_shared else min(LONE_ELEMENTS, BLOCK_ELEMENTS)

    def each(self, work):
        """Call `work(blocks, room)` for all blocks, in several threads if the array is large."""
        if self.size <= self.block:
            return work([...], Room(self.dtype))
        outer, classes, inner = self.full
        rows = self.block // classes
        columns = inner if self.turned else min(max(rows, FEW), inner)
        several = max(rows // columns, 1)
        blocks = [
            (slice(o, o + several), slice(None), slice(i, i + columns))
            for o in range(0, outer, several)
            for i in range(0, inner, columns)
        ]
        has_long_rows = classes >= BUFFER_ELEMENTS and (inner == 1 or self.turned)

        @silent  # in the thread that works
        def quietly(blocks):
            if has_long_rows:
                np.setbufsize(BUFFER_ELEMENTS)  # until np.errstate ends
            work(blocks, Room(self.dtype))

        return pool.share(quietly, blocks) if self.is_shared else quietly(blocks)

    def load(self, view, room, name="loaded"):
        """Return a block to be read, copied to `room` if it has to be turned over or cast."""
        if not self.copies(view):
            return view
        ordered = self._order(view)
        z = room(name, ordered.shape)
        z[...] = ordered
        return z.reshape(self._form(view)) if self.turned else z

    def copies(self, x):
        """Return whether `load` copies the blocks of `x`."""
        return self.turned or x.dtype != self.dtype

    def store(self, view, z):
        """Write a block, turned over or not, to its place in a result."""
        view = self._order(view)
        view[...] = z.reshape(view.shape)

    def rows(self, values, block):
        """Return the block's part of values per row; return a number or None unchanged."""
        if is_number(values):
            return values
        view = values[block]
        return view.reshape(self._form(view)) if self.turned else view

    def by_row(self, values):
        """Reshape values that broadcast to the rows like blocks; leave floats and None alone."""
        if values is None or type(values) is float:
            return values
        return _seen(values, self.row_shape, self.per_row)

    def across(self, values):
        """Do the same for values that broadcast to the logits; return a number unchanged."""
        return values if is_number(values) else _seen(values, self.shape, self.full)

    def _order(self, view):
        return view.transpose((1, 0, 2) if self.by_class else (0, 2, 1)) if self.turned else view

    def _form(self, view):
        outer, classes, inner = view.shape
        return (1, classes, outer * inner) if self.by_class else (outer * inner, classes, 1)


def is_number(values):
    return values is None or type(values) is float or values.ndim == 0


def _seen(values, shape, form):
    return (values if values.shape == shape else np.broadcast_to(values, shape)).reshape(form)


class Room:
    """Named scratch arrays of one thread; new ones for each block would cost page faults."""

    def __init__(self, dtype):
        self.dtype, self.arrays = dtype, {}

    def __call__(self, name, shape):
        size = prod(shape)
        flat = self.arrays.get(name)
        if flat is None or flat.size < size:
            flat = self.arrays[name] = np.empty(size, self.dtype)
        return flat[:size].reshape(shape)


def empty(shape, dtype):
    """Return memory for a result, aligned if it is large."""
    size = prod(shape) * dtype.itemsize
    if size < LARGE_BYTES:
        return np.empty(shape, dtype)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


# --- sums over the classes of a block -------------------------------------------------------------
def sum_block(z):
    """Return the sums of a block over its classes, with axis 1 of length 1."""
    # NumPy adds pairwise along rows, but one number after another across them.
    _, classes, columns = z.shape
    if columns == 1 and z.dtype == np.float32:
        return dot_rows(z, _ones(classes, z.dtype))
    if columns != 1 and classes > SUM_CLASSES:
        whole = classes // SUM_CLASSES * SUM_CLASSES
        parts = z[:, :whole].reshape(len(z), -1, SUM_CLASSES, columns).sum(2)
        parts = parts.sum(1, keepdims=True)
        return parts + z[:, whole:].sum(1, keepdims=True)
    return np.add.reduce(z, 1, keepdims=True)


def dot_rows(z, w):
    """Return Σ w z of a float32 block (rows, C, 1), in parts for accuracy; `w` is alike or (C,)."""
    rows, w = z[:, :, 0], w if w.ndim == 1 else w[:, :, 0]
    count, classes = rows.shape
    parts = -(-classes // PART_CLASSES)
    if parts == 1:
        return np.vecdot(rows, w)[:, None, None]
    length = classes // parts
    whole = parts * length
    form = w.shape[:-1]
    first = w[..., :whole].reshape(*form, parts, length)
    total = np.add.reduce(np.vecdot(rows[:, :whole].reshape(count, parts, length), first), 1)
    if whole < classes:
        total += np.vecdot(rows[:, whole:], w[..., whole:])
    return total[:, None, None]


@lru_cache(maxsize=16)
def _ones(length, dtype):
    vector = np.ones(length, dtype)
    vector.flags.writeable = False
    return vector


def sum_classes(x, axis):
    layout = Layout(x.shape, axis, x.dtype)
    out, source = np.empty(layout.per_row, x.dtype), x.reshape(layout.full)

    def work(blocks, room):
        for block in blocks:
            part = out[block]
            part[...] = sum_block(layout.load(source[block], room)).reshape(part.shape)

    layout.each(work)
    return out.reshape(layout.row_shape)
