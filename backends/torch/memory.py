"""PyTorch: the memory of results, and tensors cut into blocks of rows.

A block has the shape (outer, C) or (outer, C, inner).
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
# Elements of a block. On the CPU, its scratch memory has to stay in the cache: 4 MiB of float32 is
# the best of 128 KiB to 8 MiB. On an accelerator, a block should fill the device: 16 MiB, which is
# not measured.
BLOCK_ELEMENTS = 1 << 20
ACCELERATOR_ELEMENTS = 1 << 22
# Results of more bytes on the CPU use memory allocated by NumPy, which asks Linux for pages of
# 2 MiB: log_softmax of (4096, 4096) 30 -> 12 ms.
FRESH_BYTES = 1 << 22


def wide_dtype(dtype):
    return torch.float64 if dtype is torch.float64 else torch.float32


def is_large(x):
    """Return whether a result of the size of `x` should use memory from NumPy; see `empty`."""
    return x.nbytes > FRESH_BYTES


def empty(shape, dtype, device):
    """Return memory for a result; with SOFTMAXKIT_NUMPY_MEMORY=0, torch allocates all of it."""
    size = prod(shape) * dtype.itemsize
    by_torch = device.type != "cpu" or size <= FRESH_BYTES
    if by_torch or os.environ.get("SOFTMAXKIT_NUMPY_MEMORY") == "0":
        return torch.empty(shape, dtype=dtype, device=device)
    memory = torch.from_numpy(np.empty(size, np.uint8)).untyped_storage()
    # Not a view, which autograd would track.
    return torch.empty(0, dtype=dtype, device=device).set_(memory, 0, shape)


def as_blocks(x, axis):
    """View the logits as (outer, C) or (outer, C, inner)."""
    if x.ndim == 2 and axis == 1:
        return x
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    return x.reshape((outer, x.shape[axis]) if inner == 1 else (outer, x.shape[axis], inner))


def rows_as_blocks(x, axis, values):
    """Reshape values that broadcast to the rows of `x` like its blocks; leave Python numbers."""
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
    form = (outer, 1) if inner == 1 else (outer, 1, inner)
    return [
        value if not isinstance(value, Tensor) else value.expand(rows).reshape(form)
        for value in values
    ]


def slices(x: Tensor) -> Iterator[slice | None]:
    """Yield a slice along the first axis for each block; None if there is only one."""
    elements = BLOCK_ELEMENTS if x.is_cpu else ACCELERATOR_ELEMENTS
    if x.numel() <= elements:
        yield None
        return
    step = max(elements // x.shape[1:].numel(), 1)
    for start in range(0, len(x), step):
        yield slice(start, start + step)


def part(values, block):
    """Return the block of a tensor; return a number unchanged."""
    return values if block is None or not isinstance(values, Tensor) else values[block]


class Scratch:
    """Named buffers of the size of a block, which all blocks share."""

    def __init__(self):
        self.memory = {}

    def like(self, z, name, dtype=None):
        memory, size = self.memory.get(name), z.numel()
        if memory is None or memory.numel() < size:
            memory = torch.empty(size, dtype=dtype or z.dtype, device=z.device)
            self.memory[name] = memory
        return memory[:size].view(z.shape)

    def cast(self, z, name, dtype):
        """Return `z` in this dtype, in the buffer `name` if it has to be converted."""
        return z if z.dtype is dtype else self.like(z, name, dtype).copy_(z)
