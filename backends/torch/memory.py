"""PyTorch: the memory of results, and arrays cut into blocks of rows.

A block is (outer, C) or (outer, C, inner).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from math import prod

import numpy as np
import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
WIDE = (torch.float32, torch.float64)
# Elements of a block. On the CPU its scratch stays in the cache: 4 MiB of float32, best of 128 KiB
# to 8. On an accelerator it is to fill the device; 16 MiB of float32, not measured on one.
BLOCK_ELEMENTS = 1 << 20
ACCELERATOR_ELEMENTS = 1 << 22
# Results on the CPU of more bytes are put in NumPy's memory, for which Linux is asked for pages of
# 2 MiB: log_softmax of (4096, 4096) 30 -> 12 ms.
FRESH_BYTES = 1 << 22


def wide_dtype(dtype):
    return torch.float64 if dtype is torch.float64 else torch.float32


def is_large(x):
    """Tell whether a result like `x` is worth memory of its own."""
    return x.nbytes > FRESH_BYTES


def empty(shape, dtype, device):
    """Return memory for a result; SOFTMAXKIT_NUMPY_MEMORY=0 has all of it allocated by torch."""
    size = prod(shape) * dtype.itemsize
    by_torch = device.type != "cpu" or size <= FRESH_BYTES
    if by_torch or os.environ.get("SOFTMAXKIT_NUMPY_MEMORY") == "0":
        return torch.empty(shape, dtype=dtype, device=device)
    memory = torch.from_numpy(np.empty(size, np.uint8)).untyped_storage()
    # No view, which autograd would note.
    return torch.empty(0, dtype=dtype, device=device).set_(memory, 0, shape)


def as_blocks(x, axis):
    """See the logits as (outer, C) or (outer, C, inner)."""
    if x.ndim == 2 and axis == 1:
        return x
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    return x.reshape((outer, x.shape[axis]) if inner == 1 else (outer, x.shape[axis], inner))


def rows_as_blocks(x, axis, values):
    """Lay what broadcasts to the rows of `x` along its blocks; leave Python numbers as they are."""
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    form = (outer, 1) if inner == 1 else (outer, 1, inner)
    return [
        value if not isinstance(value, Tensor) else value.expand(rows).reshape(form)
        for value in values
    ]


def slices(x: Tensor) -> Iterator[slice | None]:
    """Cut along the first axis; None stands for an only block."""
    elements = BLOCK_ELEMENTS if x.is_cpu else ACCELERATOR_ELEMENTS
    if x.numel() <= elements:
        yield None
        return
    step = max(elements // x.shape[1:].numel(), 1)
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def part(values, block):
    """Return the block of a tensor, or a number as it is."""
    return values if block is None or not isinstance(values, Tensor) else values[block]


class Scratch:
    """Memory of the size of a block, by name, the same for each block."""

    def __init__(self):
        self.memory = {}

    def like(self, z, name, dtype=None):
        memory, size = self.memory.get(name), z.numel()
        if memory is None or memory.numel() < size:
            memory = torch.empty(size, dtype=dtype or z.dtype, device=z.device)
            self.memory[name] = memory
        return memory[:size].view(z.shape)

    def cast(self, z, name, dtype):
        """Return `z` in this dtype."""
        return z if z.dtype is dtype else self.like(z, name, dtype).copy_(z)
