"""Row-wise kernels on NumPy arrays: blocks that stay in the cache, in-place ufuncs, threads."""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from softmaxkit import _threads
from softmaxkit.backends.numpy_sums import dot_block, sum_block

# A block is small enough for the caches, and large enough for two threads not to wait for each
# other at the interpreter's lock after each step: (2048, 1000) softmax took two of them 2.12 ns per
# element with blocks of 1 << 14, 1.01 of 1 << 16, 0.79 of 1 << 18, and one of them 1.3 to 1.6.
BLOCK_ELEMENTS = 1 << 18
# A thread alone waits for no other, and with smaller blocks a result and scratch memory are less
# than what the C library gives back to the system each time, to be had again by page faults: with
# 1 << 17 log-softmax of (100, 1000) took 0.41 ms, with 1 << 16 0.11; without such luck smoothing of
# (400, 1000) 0.58 and 0.74.
LONE_ELEMENTS = 1 << 16
# From this many elements on, other threads are worth waking: softmax of (1000, 1000) takes 0.56 of
# the time so, its gradient of cross-entropy the same; of (300, 1000) that took 1.25 times as long.
SHARED_ELEMENTS = 1 << 19
# With fewer classes, or columns behind the class axis, work along short rows costs more than
# turning a block over: (200000, 10) softmax took 23 ms by rows and 5 ms by classes.
FEW_CLASSES = 64
FEW_COLUMNS = 64
# So small an array is not turned over.
SMALL_ELEMENTS = 1 << 12
# NumPy spreads the one number of a row over its buffer (8192 elements) to subtract it from shorter
# rows. With a buffer no longer than a row, 1000 classes took 0.10 ns per element instead of 0.17.
BUFFER_ELEMENTS = 512
# A result begins where a cache line does, so that TensorFlow can take it over without a copy.
_ALIGNMENT = 64

_ONE = np.array(1, np.float32)  # 0.3 µs less than 1 to add

silent = np.errstate(all="ignore")  # inf - inf, log 0 and underflow are results here, not news


def wide_dtype(dtype):
    return dtype if dtype.kind == "f" and dtype.itemsize >= 4 else np.dtype(np.float32)


class Layout:
    """How an array is cut along its rows. It is seen as (outer, C, inner), and so are its blocks.

    A block is worked on where it stands, or turned over: copied as (1, C, rows) if it has few
    classes, else as (rows, C, 1). In all these forms axis 1 is that of the classes.
    """

    def __init__(self, shape, axis, dtype, shared=False):
        outer, classes, inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        self.dtype = dtype
        self.shape, self.row_shape = shape, shape[:axis] + shape[axis + 1 :]
        self.full, self.per_row = (outer, classes, inner), (outer, 1, inner)
        self.size = outer * classes * inner
        self.by_class = classes <= FEW_CLASSES
        short = inner < FEW_COLUMNS and (inner > 1 or self.by_class)
        self.turned = short and self.size > SMALL_ELEMENTS
        shared = shared or self.size >= SHARED_ELEMENTS
        self.block = BLOCK_ELEMENTS if shared else min(LONE_ELEMENTS, BLOCK_ELEMENTS)
        # A single block, worked on where it stands.
        self.whole = self.size <= self.block and not self.turned

    def each(self, work, room=None):
        """Have `work` done on every block, by several threads if there are many."""
        if self.size <= self.block:
            return work([...], room or Room(self.dtype))
        outer, classes, inner = self.full
        rows = self.block // classes
        columns = inner if self.turned else min(max(rows, FEW_COLUMNS), inner)
        several = max(rows // columns, 1)
        blocks = [
            (slice(o, o + several), slice(None), slice(i, i + columns))
            for o in range(0, outer, several)
            for i in range(0, inner, columns)
        ]
        long_rows = classes >= BUFFER_ELEMENTS and (inner == 1 or self.turned)

        @silent  # of the thread that works
        def quietly(blocks):
            if long_rows:
                np.setbufsize(BUFFER_ELEMENTS)  # until np.errstate ends
            work(blocks, Room(self.dtype))

        if self.size < SHARED_ELEMENTS:
            return quietly(blocks)
        return _threads.share(quietly, blocks)

    def load(self, view, room, name="loaded"):
        """Return a block to be read, copied to `room` if it is turned over or cast."""
        if not self.copies(view):
            return view
        ordered = self._order(view)
        z = room(name, ordered.shape)
        z[...] = ordered
        return z.reshape(self._form(view)) if self.turned else z

    def copies(self, x):
        """Tell whether `load` copies the blocks of `x`."""
        return self.turned or x.dtype != self.dtype

    def load_any(self, weights, block, room):
        """Return None or a number as it is, and of an array the block, to be read."""
        return weights if _is_number(weights) else self.load(weights[block], room, "weights")

    def store(self, view, z):
        view = self._order(view)
        view[...] = z.reshape(view.shape)

    def turn(self, view):
        """Return the memory of a block, which is contiguous if blocks are turned, in their form."""
        return view.reshape(self._form(view)) if self.turned else view

    def part(self, block):
        """Return a function that gives the block's part of values per row, or a number as it is."""
        return lambda values: values if _is_number(values) else self.turn(values[block])

    def by_row(self, *values):
        """Return None and numbers, and what broadcasts to the rows as arrays of blocks."""
        shape, seen_as = self.row_shape, self.per_row
        return [v if v is None else _broadcast(v, shape, seen_as) for v in values]

    def across(self, values):
        """Return None, a number, or what broadcasts to the logits as an array of blocks."""
        return _broadcast(values, self.shape, self.full)

    def _order(self, view):
        return view.transpose((1, 0, 2) if self.by_class else (0, 2, 1)) if self.turned else view

    def _form(self, view):
        outer, classes, inner = view.shape
        return (1, classes, outer * inner) if self.by_class else (outer * inner, classes, 1)


def _is_number(values):
    return values is None or type(values) is float or values.ndim == 0


def _broadcast(values, shape, seen_as):
    if _is_number(values):
        return values
    if values.shape != shape:
        values = np.broadcast_to(values, shape)
    return values.reshape(seen_as)


class Room:
    """Scratch arrays of one thread, by name; fresh ones for each block would cost page faults."""

    def __init__(self, dtype):
        self.dtype, self.arrays = dtype, {}

    def __call__(self, name, shape):
        size = prod(shape)
        flat = self.arrays.get(name)
        if flat is None or flat.size < size:
            flat = self.arrays[name] = np.empty(size, self.dtype)
        return flat[:size].reshape(shape)


def fresh(name, shape):
    """Stand for the `Room` of an only block: where a ufunc is given None, its result is new."""


def small_rows(kernel, x):
    """Apply a kernel, which writes to its second argument, to a small array along its last axis."""
    out = np.empty(x.shape, x.dtype)
    by_rows = (-1, x.shape[-1], 1)
    kernel(x.reshape(by_rows), out.reshape(by_rows), fresh)
    return out


def softmax_rows(x, axis, dtype):
    return _by_blocks(write_softmax, x, axis, dtype)


def write_softmax(z, out, room):
    np.subtract(z, _top(z)[0], out=out)
    np.exp(out, out=out)
    np.divide(out, sum_block(out), out=out)


def log_softmax_rows(x, axis, dtype):
    return _by_blocks(write_log_softmax, x, axis, dtype)


def write_log_softmax(z, out, room):
    top, at = _top(z)
    d = np.subtract(z, top, out=out)
    at_top = None if at is None else d.reshape(-1)[at]
    e = np.exp(d, out=room("e", z.shape))
    return np.subtract(d, np.log1p(_rest(e, at_top, at, None, room)), out=d)


def _by_blocks(kernel, x, axis, dtype):
    """Apply a kernel, which writes to its second argument, to each block."""
    layout = Layout(x.shape, axis, wide_dtype(x.dtype))
    out = _aligned(x.shape, np.dtype(dtype))
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


class _Rows(tuple):
    """Row statistics, and in `kept` what the gradient is made of.

    (layout, room, e^d in the shape of x or None, and as arrays of blocks Σ e^d - 1, log Σ e^d, max)
    """


def row_statistics(x, axis, labels, weights, skip, lse=True):
    return _statistics(x, axis, labels, weights, skip, lse, None)


def statistics_kept(x, axis, labels, weights, skip, lse=True, out=None, room=None):
    """Keep the exponentials for one gradient in the memory that it will be in, `out` if given."""
    if out is None:
        out = np.empty(x.shape, wide_dtype(x.dtype))
    return _statistics(x, axis, labels, weights, skip, lse, out, room)


def _statistics(x, axis, labels, weights, skip, lse, kept, room=None):
    # With a room, `x` is a block itself, and is not cut again.
    layout = Layout(x.shape, axis, wide_dtype(x.dtype), shared=room is not None)
    source = x.reshape(layout.full)
    labels = labels if labels is None else labels.reshape(layout.per_row)
    weights = layout.across(weights)
    exponentials = kept if kept is None else kept.reshape(layout.full)
    if layout.whole:
        z = source.astype(layout.dtype, copy=False)
        rows = statistics_of_block(z, False, labels, weights, exponentials, room or fresh)
    else:
        each = weights is not None and not _is_number(weights)
        wanted = labels is not None, weights is not None, True, True, kept is not None, each
        rows = [np.empty(layout.per_row, layout.dtype) if one else None for one in wanted]

        def work(blocks, room):
            for block in blocks:
                z, part = layout.load(source[block], room), layout.part(block)
                copied, w = layout.copies(source), layout.load_any(weights, block, room)
                found = statistics_of_block(z, copied, part(labels), w, part(exponentials), room)
                for row, values in zip(rows, found, strict=True):
                    if row is not None:
                        target = row[block]
                        target[...] = values.reshape(target.shape)

        layout.each(work, room)
    log_p, dot, log_sum, top, rest, total = rows
    given = log_p, dot, *((log_sum, top) if lse else (None, None))
    rows = _Rows([v if v is None else v.reshape(layout.row_shape) for v in given])
    rows.kept = layout, room, kept, rest, log_sum, top
    rows.total = total if total is None else total.reshape(layout.row_shape)
    if skip is not None:
        for statistic in rows:
            if statistic is not None:
                np.copyto(statistic, 0, where=skip)
    return rows


def statistics_of_block(z, copied, labels, weights, kept, room):
    """Return of a block's rows log p_y, Σ w log p, log Σ e^d, max, Σ e^d without one maximum, Σ w.

    `copied` tells that `z` may be written to, `kept` is where the e^d are to stay, or None.
    """
    top, at = _top(z)
    # In as few arrays as can be: those of one block are to share the cache.
    alike = _is_number(weights)
    through = kept is not None and alike
    out = kept if through else z if copied else room("d", z.shape)
    d = np.subtract(z, top, out=out, order="C")
    log_p = dot = total = None
    if labels is not None:
        entries, index = _entries(d, labels)
        log_p = entries[index].reshape(top.shape)
    at_top = None if at is None else d.reshape(-1)[at]  # 0, or NaN for a maximum of inf
    if alike:
        if weights is not None:
            dot = sum_block(d)
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
        dot, total = dot_block(d, weights)
        dot = dot - total * log_sum  # nothing cancels where no weight is negative
    elif weights is not None:  # Σ d and -log_sum are of one sign: nothing cancels
        dot = weights * (dot - z.shape[1] * log_sum) if weights != 0 else 0 * log_sum
    return log_p, dot, log_sum, top, rest, total


def row_gradient(x, axis, rows, labels, weights, skip, a, b, c):
    layout, room, out, rest, log_sum, top = rows.kept
    if out is None:
        source = x.reshape(layout.full)
        out = _aligned(x.shape, layout.dtype)
        target = out.reshape(layout.full)
        rest = None
    else:
        source = target = out.reshape(layout.full)
    per_row = rest, log_sum, top, *layout.by_row(rows[0], labels, skip, a, b, c)
    weights = layout.across(weights)
    if layout.whole:
        write_gradient(source, target, weights, *per_row, room or fresh)
        return out

    def work(blocks, room):
        for block in blocks:
            part = layout.part(block)
            z = layout.load(source[block], room) if rest is None else part(source)
            result = room("loaded", z.shape) if layout.turned else target[block]
            w = layout.load_any(weights, block, room)
            write_gradient(z, result, w, *map(part, per_row), room)
            if layout.turned:
                layout.store(target[block], result)

    layout.each(work, room)
    return out


def write_gradient(z, out, weights, rest, log_sum, top, log_p, labels, skip, a, b, c, room):
    """Write a·p + b·1_y + c·w of a block to `out`; `z` holds logits, or with `rest` the e^d."""
    if rest is None:
        np.subtract(z, top, out=out)
        out -= log_sum
        np.exp(out, out=out)
        out *= a
    else:
        np.multiply(z, a / (rest + _ONE), out=out)
    if labels is not None:
        # a p + b as (a+b) p - b (p-1): in saturated rows a is -b, and p - 1 = expm1(log p).
        at_label = -b * np.expm1(log_p)
        both = a + b
        if not (_is_number(both) and both == 0):
            at_label += both * np.exp(log_p)
        entries, index = _entries(out, labels)
        entries[index] = at_label if z.shape[2] != 1 else at_label.reshape(-1)
    if _is_number(weights):
        if weights is not None:
            out += weights * c
    else:
        out += np.multiply(weights, c, out=room("ones", out.shape))
    if skip is not None:
        np.copyto(out, 0, where=skip)


def sum_classes(x, axis):
    layout = Layout(x.shape, axis, x.dtype)
    out, source = np.empty(layout.per_row, x.dtype), x.reshape(layout.full)

    def work(blocks, room):
        for block in blocks:
            part = out[block]
            part[...] = sum_block(layout.load(source[block], room)).reshape(part.shape)

    layout.each(work)
    return out.reshape(layout.row_shape)


def _aligned(shape, dtype):
    size = prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _top(z):
    """Return the maximum of each row, and for (rows, C, 1) where one is, an index of all entries.

    argmax costs what max does along 1000 classes, and a third along 128.
    """
    if z.shape[2] != 1:
        return np.maximum.reduce(z, 1, keepdims=True), None
    at = z[:, :, 0].argmax(1)
    at += _starts(z.size, z.shape[1])
    return z.reshape(-1)[at][:, None, None], at


def _rest(e, at_top, at, spare, room):
    """Return Σ e^d without one maximum, where e^d is 1, so that log1p of it keeps its digits.

    That entry of `e` may be lost. `spare` is an array to write to, or None.
    """
    if at is not None:
        e.reshape(-1)[at] = at_top
        return sum_block(e)
    total = sum_block(e)
    rest = total - 1
    if not (total >= 2).all():  # from 2 on nothing is lost; below there is one maximum
        ones = np.floor(e, out=room("ones", e.shape) if spare is None else spare)
        np.copyto(rest, sum_block(np.subtract(e, ones, out=ones)), where=total < 2)
    return rest


def _entries(z, labels):
    """Return a view of a block, its rows contiguous, and the index of each row's label in it."""
    if z.shape[2] == 1:
        return z.reshape(-1), labels.reshape(-1) + _starts(z.size, z.shape[1])
    return z, (np.arange(len(z))[:, None, None], labels, np.arange(z.shape[2]))


# Of one block by rows, so at most BLOCK_ELEMENTS / FEW_CLASSES of them: 32 kB.
@lru_cache(maxsize=16)
def _starts(size, classes):
    starts = np.arange(0, size, classes)
    starts.flags.writeable = False
    return starts
