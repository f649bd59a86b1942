"""Row-wise kernels for eager tensors on the CPU: blocks that stay in the cache, no autograd.

They lean on torch's own fused softmax and log-softmax where these are fast and exact, and give back
the digits that log Σ e^d loses where one class dominates. Blocks: (rows, C) or (outer, C, inner).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
import torch
from torch import Tensor

# Blocks keep the scratch of a large CPU tensor in cache: 4 MiB of float32, best of 128 KiB to 8.
BLOCK_ELEMENTS = 1 << 20
# Rows shorter, and columns longer, than torch's own softmax is good at; see `has_kernel`.
SHORT_ROW, LONG_COLUMN = 16, 256
# Below this many logits calls cost more than that.
SHORT_ELEMENTS = 2000
# Above this log p, log Σ e^d has lost digits of float32.
DOMINANT = -0.5
# Below this, p is near the smallest numbers of float32, and its logarithm not that of e^d.
FAINT = -69.0
# Above this, in float32, digits of half precision, and in float64, of float32.
DOMINANT_IN_HALF, DOMINANT_IN_FLOAT64 = -1e-2, -1e-8
# Up to this many logits on the CPU a loss is left to NumPy, or to torch in float64; above, it is
# done by the kernels here. Forward and backward, the one / the other, in µs: cross-entropy of
# (128, 100) 70 / 89, (256, 100) 94 / 94, (1000, 32) 142 / 104; focal 182 / 204, 237 / 215,
# 355 / 239; log_softmax 61 / 52, 89 / 60, 139 / 70.
HOST_ELEMENTS = 1 << 14
# The same for cross-entropy of probabilities, or smoothed: 91 / 137, 121 / 150, 174 / 220, and
# (64, 1000) 341 / 177.
DOUBLE_ELEMENTS = 1 << 15
# Results of more bytes than this are put in NumPy's memory, for which Linux is asked for pages of
# 2 MiB: log_softmax of (4096, 4096) takes 12 ms there, and 30 in the pages of 4 KiB of torch's.
FRESH_BYTES = 1 << 22


def wide_dtype(dtype):
    return torch.float64 if dtype is torch.float64 else torch.float32


def weighted(weights, log_p):
    return weights * torch.where((weights == 0) & (log_p == -torch.inf), 0.0, log_p)  # 0 log 0 = 0


def as_blocks(x, axis):
    """See the logits as (outer, C) or (outer, C, inner)."""
    if x.ndim == 2 and axis == 1:
        return x
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    return x.reshape((outer, x.shape[axis]) if inner == 1 else (outer, x.shape[axis], inner))


def slices(x: Tensor) -> Iterator[slice | None]:
    """Cut along the first axis; None stands for an only block."""
    step = max(BLOCK_ELEMENTS // x.shape[1:].numel(), 1)
    if step >= len(x):
        yield None
        return
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def part(values, block):
    """Return the block of a tensor, or a number as it is."""
    is_whole = block is None or not isinstance(values, Tensor) or not values.ndim
    return values if is_whole else values[block]


def _row_shape(x):
    return x.shape[:1] + x.shape[2:]


def has_kernel(shape, axis=1):
    """Tell whether torch's own softmax along that axis is fast and exact enough.

    Rows shorter than a vector register it takes one number at a time: (200000, 10) in 16 ms, by
    whole operations in 4.4 ms. Along another axis than the last it adds one class after the other:
    17 ULP off at 5000 classes.
    """
    last = shape[axis + 1 :].numel() == 1
    return shape[axis] >= SHORT_ROW if last else shape[axis] <= LONG_COLUMN


def empty(shape, dtype):
    """Return memory for a result on the CPU."""
    size = prod(shape) * dtype.itemsize
    if size <= FRESH_BYTES:
        return torch.empty(shape, dtype=dtype, device="cpu")
    memory = torch.from_numpy(np.empty(size, np.uint8)).untyped_storage()
    # No view, which autograd would note.
    return torch.empty(0, dtype=dtype, device="cpu").set_(memory, 0, shape)


def each(kernel, x, axis):
    """Have `kernel(block, result)` write every block of the result; half precision in float32."""
    out = empty(x.shape, x.dtype)
    x3, out3 = as_blocks(x, axis), as_blocks(out, axis)
    scratch = None
    for block in slices(x3):
        if x.dtype is wide_dtype(x.dtype):
            kernel(part(x3, block), part(out3, block))
        else:
            z = part(x3, block).to(torch.float32)
            result = scratch = torch.empty_like(z) if scratch is None else scratch[: len(z)]
            kernel(z, result)
            part(out3, block).copy_(result)
    return out


def softmax(x, axis):
    if has_kernel(x.shape, axis):
        if x.nbytes <= FRESH_BYTES:
            return torch.softmax(x, axis)
        return torch.softmax(x, axis, out=empty(x.shape, x.dtype))
    return each(softmax_into, x, axis)


def log_softmax(x, axis):
    # In blocks (4096, 4096) takes 20 ms, not 16: in new memory the two threads of a block wait for
    # the same pages.
    if not has_kernel(x.shape, axis):
        return each(log_softmax_into, x, axis)
    out = torch.log_softmax(x, axis, out=empty(x.shape, x.dtype))
    _sharpen(as_blocks(out, axis), DOMINANT)
    return out


def softmax_into(x, out, axis=1):
    if has_kernel(x.shape, axis):
        torch.softmax(x, axis, out=out)
    else:
        torch.sub(x, x.amax(axis, keepdim=True), out=out)
        out.exp_()
        out.div_(out.sum(axis, keepdim=True))


def log_softmax_into(x, out, dominant=DOMINANT):
    if has_kernel(x.shape):
        torch.log_softmax(x, 1, out=out)
        _sharpen(out, dominant)
    else:
        torch.sub(x, x.amax(1, keepdim=True), out=out)
        out.sub_(_log_sum(torch.exp(out)).unsqueeze(1))


def _log_sum(e):
    """Return log Σ e from e = e^(z - max), which is 1 at the maxima; spoils `e`."""
    whole = e.sum(1)
    others = e.frac_().sum(1)  # the maxima are gone
    return torch.log1p(others + ((whole - others).round_() - 1))


def _sharpen(log_p, dominant):
    """Give back to log p of a class that dominates its row the digits that log Σ e^d has lost."""
    sure = log_p.amax(1) > dominant
    if sure.any():
        rows = log_p.movedim(1, -1)[sure]
        index = rows.max(1).indices  # argmax takes 1.7 times as long
        outer, *inner = sure.nonzero(as_tuple=True)
        log_p[(outer, index, *inner)] = _by_the_others(rows, index)


def _sharpen_picked(picked, index, log_p):
    """Do the same to the `picked` log p of the classes at `index`."""
    sure = picked > DOMINANT
    if sure.any():
        picked[sure] = _by_the_others(log_p.movedim(1, -1)[sure], index[sure])


def _by_the_others(rows, index):
    """Return log1p(-Σ p) over the classes that are not at `index`; spoils `rows` of log p."""
    rows.scatter_(1, index.unsqueeze(1), -torch.inf)
    return torch.log1p(0.0 - rows.exp_().sum(1))


def sum_in_float32(x, axis):
    x3 = as_blocks(x, axis)
    out = x.new_empty(_row_shape(x3), dtype=torch.float32)
    for block in slices(x3):
        torch.sum(part(x3, block), 1, dtype=torch.float32, out=part(out, block))
    return out.reshape(x.shape[:axis] + x.shape[axis + 1 :])


def statistics(x, axis, labels, weights):
    wide = wide_dtype(x.dtype)
    row_shape = x.shape[:axis] + x.shape[axis + 1 :]
    blocks = as_blocks(x, axis)
    flat_rows = _row_shape(blocks)
    top, log_sum = x.new_empty(flat_rows, dtype=wide), x.new_empty(flat_rows, dtype=wide)
    dot = None
    if weights is not None:
        dot = x.new_empty(flat_rows, dtype=wide)
        w3 = as_blocks(weights.expand(x.shape), axis)
    for block in slices(blocks):
        z = part(blocks, block).to(wide)
        d = z - torch.amax(z, 1, out=part(top, block)).unsqueeze(1)
        log_sum_n = _log_sum(torch.exp(d) if dot is not None else d.exp_())
        part(log_sum, block).copy_(log_sum_n)
        if dot is not None:
            d -= log_sum_n.unsqueeze(1)
            torch.sum(weighted(part(w3, block), d), 1, out=part(dot, block))
    picked = None
    top, log_sum = top.reshape(row_shape), log_sum.reshape(row_shape)
    if labels is not None:
        picked = x.gather(axis, labels.unsqueeze(axis)).squeeze(axis).to(wide) - top - log_sum
    return picked, None if dot is None else dot.reshape(row_shape), log_sum, top


def picked_and_dot(x, axis, labels, weights):
    """Compute row statistics without log Σ e^d and max, by torch's log-softmax of each block."""
    wide = wide_dtype(x.dtype)
    x3 = as_blocks(x, axis)
    flat_rows = _row_shape(x3)
    picked = dot = None
    if labels is not None:
        picked, labels = x.new_empty(flat_rows, dtype=wide), labels.reshape(flat_rows)
    if weights is not None:
        dot = x.new_empty(flat_rows, dtype=wide)
        if isinstance(weights, Tensor):
            weights = as_blocks(weights.expand(x.shape), axis)
    scratch = None
    for block in slices(x3):
        z = part(x3, block).to(wide)
        log_p = scratch = torch.empty_like(z) if scratch is None else scratch[: len(z)]
        torch.log_softmax(z, 1, out=log_p)
        if weights is not None:
            _sharpen(log_p, DOMINANT)
        if labels is not None:
            index, picked_n = part(labels, block), part(picked, block)
            torch.gather(log_p, 1, index.unsqueeze(1), out=picked_n.unsqueeze(1))
            if weights is None:
                _sharpen_picked(picked_n, index, log_p)
        if weights is not None and not isinstance(weights, Tensor):
            torch.sum(log_p, 1, out=part(dot, block)).mul_(weights)
        elif weights is not None:
            w = part(weights, block)
            dot_n = torch.sum(log_p.mul_(w), 1, out=part(dot, block))
            if dot_n.isnan().any():  # 0 log 0, or NaN among the logits
                log_softmax_into(z, log_p)
                dot_n.copy_(weighted(w, log_p).sum(1))
    row_shape = x.shape[:axis] + x.shape[axis + 1 :]
    rows = (v if v is None else v.reshape(row_shape) for v in (picked, dot))
    return (*rows, None, None)


def picked_and_probabilities(x, axis, labels):
    """Compute log p of the labels, and p, of which it is made, of every class but perhaps those."""
    p = softmax(x, axis)
    index = labels.unsqueeze(axis)
    picked = p.gather(axis, index).log_()
    low, high = (extreme.item() for extreme in picked.aminmax())
    if not low >= FAINT:  # NaN is not, either
        d = x.gather(axis, index) - x.amax(axis, keepdim=True)
        log_p = d + p.amax(axis, keepdim=True).log_()
        picked = torch.where(picked < FAINT, log_p, picked)
    if not high <= DOMINANT:
        others = p.scatter_(axis, index, 0.0).sum(axis, keepdim=True)
        picked = torch.where(picked > DOMINANT, torch.log1p(-others), picked)
    return picked.squeeze(axis), p


def gradient(x, axis, labels, weights, skip, a, at_label, c, kept=None):
    """Return a·p + b·1_y + c·w, in the memory of `kept`, which are the probabilities, if given."""
    out = empty(x.shape, x.dtype) if kept is None else kept
    beside = tuple(  # the rows' numbers, along the logits
        v.unsqueeze(axis) if isinstance(v, Tensor) and v.ndim == x.ndim - 1 else v
        for v in (labels, skip, a, at_label, c)
    )
    if x.numel() <= BLOCK_ELEMENTS:
        _gradient_into(out, x, axis, *beside, weights, kept is not None)
        return out
    if kept is None and x.dtype is wide_dtype(x.dtype) and has_kernel(x.shape, axis):
        kept = torch.softmax(x, axis, out=out)  # at once, as in `log_softmax`
    out3, x3 = as_blocks(out, axis), as_blocks(x, axis)
    flat = (len(x3), 1, *x3.shape[2:])
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    beside = tuple(
        v.expand(shape).reshape(flat) if isinstance(v, Tensor) and v.ndim else v for v in beside
    )
    if isinstance(weights, Tensor):
        weights = as_blocks(weights.expand(x.shape), axis)
    for block in slices(x3):
        out_n, x_n, weights_n = (part(v, block) for v in (out3, x3, weights))
        rows = (part(v, block) for v in beside)
        _gradient_into(out_n, x_n, 1, *rows, weights_n, kept is not None)
    return out


def _gradient_into(out, x, axis, labels, skip, a, at_label, c, weights, is_there):
    wide = wide_dtype(x.dtype)
    z = out
    if x.dtype is not wide:
        z = torch.softmax(x, axis, dtype=wide)
    elif not is_there:
        softmax_into(x, z, axis)
    z.mul_(a)
    if at_label is not None:
        z.scatter_(axis, labels, at_label)
    if c is not None and isinstance(weights, Tensor):
        weights = weights.to(wide)
        z.addcmul_(weights, c) if isinstance(c, Tensor) else z.add_(weights, alpha=c)
    elif c is not None:
        z.add_(c * weights)
    if skip is not None:
        z.masked_fill_(skip, 0.0)
    if z is not out:
        out.copy_(z)
