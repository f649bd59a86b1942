"""PyTorch: the kernels of `blocks` in Triton, where `eager` chooses them, and losses in one kernel.

The rules look at devices, dtypes and shapes only; nothing waits for the device. Not measured on a
GPU: Triton's interpreter runs the kernels in the tests.
"""

from __future__ import annotations

from math import gcd

import numpy as np
import torch
from torch import Tensor

from softmaxkit import _losses, _statistics
from softmaxkit._activations import constant_along
from softmaxkit._statistics import Part, Rows
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import triton_kernels as kernels
from softmaxkit.backends.torch.blocks import Kept
from softmaxkit.backends.torch.triton_kernels import Entries

# Entries of a tile: sixteen for each of 256 threads, which then need 60 registers; with weights
# half as many, for 70 to 100 registers (docs/gpus.md). Not measured on a GPU.
TILE = 4096
# In rows that are neighbours in memory, so many classes of each are a tile.
NEIGHBOURS = 16


# --- activations ----------------------------------------------------------------------------------
def softmax(x, axis, dtype):
    return _activation(x, axis, dtype, log=False)


def log_softmax(x, axis, dtype):
    return _activation(x, axis, dtype, log=True)


def _activation(x, axis, dtype, log):
    x, out = _with_result(x, axis, dtype)
    tiles = _Tiles(x, axis, TILE)
    target = tiles.result(out)
    tiles.launch(kernels.softmax, tiles.x, target, LOG=log, EXACT=_is_exact(x, dtype))
    return out


def softmax_gradient(p, cotangent, axis):
    return _softmax_gradient(p, cotangent, axis, of_logits=False)


def softmax_gradient_of_logits(x, cotangent, axis):
    return _softmax_gradient(x, cotangent, axis, of_logits=True)


def _softmax_gradient(source, cotangent, axis, of_logits):
    source, out = _with_result(source, axis, source.dtype)
    tiles = _Tiles(source, axis, TILE // 2)
    v, target = tiles.entries(cotangent), tiles.result(out)
    exact = _is_exact(source, source.dtype)
    tiles.launch(kernels.softmax_gradient, tiles.x, v, target, OF_LOGITS=of_logits, EXACT=exact)
    return out


# --- row statistics -------------------------------------------------------------------------------
def row_statistics(x, request, lse, keep):
    return _Call(x, request).statistics(lse)


def row_gradient(x, request, kept, of_rows):
    """Carry the cotangents of the rows back to `x`, in its dtype; `of_rows` needs no mass."""
    return _Call(x, request).gradient(kept, of_rows)


class Fused(_losses.Classes):
    """Kernels that mask, cap and scale the logits as they read them, for `_losses`."""

    def __init__(self, axis, where, temperature, softcap=None):
        super().__init__(ops, axis)
        self._options = where, temperature, softcap

    def masked_and_scaled(self, logits, where, temperature):
        """Return the logits as they are, and which rows have no class."""
        if where is None:
            return logits, None, None
        missing = logits.ndim - where.ndim
        return logits, None, ~ops.any(where[(None,) * missing + (...,)], self._axis)

    def of_logits(self, of_x, where, temperature):
        return of_x

    def row_statistics(self, x, request, lse, keep):
        return _Call(x, request, *self._options).statistics(lse)

    def row_gradient(self, x, request, kept, of_rows):
        return _Call(x, request, *self._options).gradient(kept, of_rows)


def fused(logits, targets, options):
    """Return kernels for a loss over classes with all its options, or None.

    None where every class has a penalty of its own, or a temperature of its own.
    """
    temperature = options.temperature
    by_class = options.label_smoothing is not None or targets.is_floating_point()
    if by_class and not _losses.is_linear(options):
        return None
    if not constant_along(ops, temperature, logits, options.axis):
        return None
    return Fused(options.axis, options.where, temperature)


class _Call:
    """The arguments of the kernels of row statistics and their gradient."""

    def __init__(self, x, request, where=None, temperature=None, softcap=None):
        axis, labels, weights, skip = request
        self.axis, self.softcap, self.number = axis, softcap, None
        if weights is not None and not (isinstance(weights, Tensor) and weights.ndim):
            self.number, weights = weights, None
        self.x = _viewable(x, axis)
        self.shape = x.shape[:axis] + x.shape[axis + 1 :]
        self.weights = weights
        self.tiles = tiles = _Tiles(self.x, axis, TILE if weights is None else TILE // 2)
        self.of_classes = None if weights is None else tiles.entries(weights)
        self.where = None if where is None else tiles.entries(where.view(torch.int8))
        if isinstance(temperature, Tensor):
            temperature = ops.compute_like(temperature, x)
            temperature = temperature.squeeze(axis) if temperature.ndim == x.ndim else temperature
        self.temperature, self.labels = self._of_rows(temperature), self._of_rows(labels)
        self.skip = None if skip is None else self._of_rows(skip).view(torch.int8)

    def statistics(self, lse):
        whole, log_p, dot, log_total = self._reduce(self.labels is not None, lse)
        if self.number is not None:
            dot = self.number * dot
        kept = Kept(log_p, None, whole.top, whole.rest, whole.mass, whole.beside)
        return Rows(log_p, dot, None, log_total), kept

    def _reduce(self, log_p, lse):
        weighted = self.weights is not None
        has_dot = weighted or self.number is not None
        wanted = (log_p, has_dot, lse, True, True, weighted, weighted)
        found = kernels.Rows(*(self._empty() if one else None for one in wanted))
        weight = 1.0 if has_dot and not weighted else None
        self.tiles.launch(
            *(kernels.statistics, self.tiles.x, self.where, self.softcap, self.temperature),
            *(self.of_classes, weight, self.labels, self.skip, found),
            EXACT=_is_exact(self.x, self.x.dtype),
        )
        whole = Part(found.top, found.rest, mass=found.mass, beside=found.beside)
        return whole, found.log_p, found.dot, found.lse

    def gradient(self, kept, of_rows):
        whole = Part(kept.top, kept.rest, mass=kept.mass, beside=kept.beside)
        if kept.top is None or (self.weights is not None and kept.beside is None):
            whole, _, _, _ = self._reduce(False, False)
        weights = self.weights
        if self.number is not None:
            weights, whole = self.number, whole._replace(mass=self.number * self.x.shape[self.axis])
        log_p = None if self.labels is None else kept.log_p
        factors = _statistics.factors(ops, whole, of_rows, log_p, weights)
        factors = factors._make(self._of_rows(one) for one in factors)
        out, tiles = _like(self.x, self.axis, self.x.dtype), self.tiles
        tiles.launch(
            *(kernels.gradient, tiles.x, self.where, self.softcap, self.temperature),
            *(self.of_classes, self.labels, self.skip, whole.top, factors, tiles.result(out)),
            by_class=True,
            EXACT=_is_exact(self.x, self.x.dtype),
        )
        return out

    def _empty(self):
        return torch.empty(self.shape, dtype=torch.float32, device=self.x.device)

    def _of_rows(self, value):
        """Return a number for each row, in the order of rows."""
        if value is None:
            return None
        if isinstance(value, Tensor):
            return value.expand(self.shape).contiguous()
        return self._empty().fill_(value)


# --- tiles ----------------------------------------------------------------------------------------
class _Tiles:
    """How the rows and classes of logits are cut into tiles, each for one program."""

    def __init__(self, x, axis, elements):
        self._like, self._axis = x, axis
        outer, inner = x.shape[:axis].numel(), x.shape[axis + 1 :].numel()
        self._shape = outer, x.shape[axis], inner
        self.x = self.entries(x)
        if inner == 1:  # as in `entries`
            outer, inner = 1, outer
        classes = x.shape[axis]
        block = min(_power_of_two(classes), elements)
        if self.x.inner == 1 and inner > 1:  # rows are neighbours
            block = min(block, NEIGHBOURS)
        rows = max(min(_power_of_two(inner), elements // 2 // block), 1)
        self._shape_of_tile = {"ROWS": rows, "BLOCK": block}
        warps = rows * block // (8 * 32)
        self._warps = max(min(warps, 8), 1)
        tiles = -(-inner // rows)
        self._programs = tiles * outer
        self._sizes = classes, inner, tiles
        self._aligned = self._alignment(self.x)

    def entries(self, x):
        """Return a tensor that broadcasts to the logits; the outer rows are inner if alone."""
        x = x.expand(self._like.shape).reshape(self._shape)
        outer, of_class, inner = x.stride()
        if x.shape[2] == 1:
            return Entries(x, 0, of_class, outer)
        return Entries(x, outer, of_class, inner)

    def result(self, out):
        """Return the entries of a result that the kernel will write."""
        entries = self.entries(out)
        self._aligned = gcd(self._aligned, self._alignment(entries))
        return entries

    def _alignment(self, entries):
        """Return what the place of the first class in every row is a multiple of.

        Triton itself sees only what is divisible by 16: rows of 1000 would be read one by one.
        """
        classes, _, _ = self._sizes
        return gcd(entries.outer, entries.inner, classes, 16) if entries.of_class == 1 else 1

    def launch(self, kernel, *arguments, by_class=False, **constants):
        """Run a program for each tile of rows or, `by_class`, for each tile of their classes."""
        classes, inner, tiles = self._sizes
        sizes, programs = [classes // self._aligned, inner, tiles], self._programs
        if by_class:
            across = -(-classes // self._shape_of_tile["BLOCK"])
            sizes, programs = [*sizes, across], programs * across
        constants |= self._shape_of_tile | {"ALIGNED": self._aligned}
        on_gpu = self._like.is_cuda
        with torch.cuda.device_of(self._like) if on_gpu else np.errstate(all="ignore"):
            kernel[(programs,)](
                *arguments, *sizes, **constants, num_warps=self._warps, enable_fp_fusion=True
            )


def _power_of_two(number):
    return 1 << max(number - 1, 0).bit_length()


def _is_exact(x, dtype):
    """Return whether the digits that `exp_of_gap` may lose would be seen in the result."""
    return torch.float32 in (x.dtype, dtype)


def _viewable(x, axis):
    """Return `x` in memory in which its rows are (outer, classes, inner) without a copy."""
    shape = x.shape[:axis].numel(), x.shape[axis], x.shape[axis + 1 :].numel()
    try:
        x.view(shape)
    except RuntimeError:
        return x.contiguous()
    return x


def _like(x, axis, dtype):
    """Return memory for a result, with the strides of `x`."""
    out = torch.empty_like(x, dtype=dtype)
    return out if _viewable(out, axis) is out else out.new_empty(out.shape)


def _with_result(x, axis, dtype):
    x = _viewable(x, axis)
    return x, _like(x, axis, dtype)
