"""torch's conventions: the dtypes in which it computes, also under autocast, and its mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32, torch.float64)  # in which torch computes these functions


def dtype_of(x: Tensor) -> torch.dtype:
    """Return the dtype in which torch sees `x`: under autocast, half precision becomes float32."""
    device = x.device.type
    if x.dtype in HALF and device != "meta" and torch.is_autocast_enabled(device):
        return torch.float32
    return x.dtype


def dense_together(*tensors: Tensor | None) -> bool:
    """Return whether the tensors are dense, and on one device."""
    there = [one for one in tensors if one is not None]
    return all(
        one.layout is torch.strided and not one.is_nested and one.device == there[0].device
        for one in there
    )


def same_shape(a: torch.Size, b: torch.Size) -> bool:
    """Return whether two shapes are the same; lengths that depend on data are taken to be."""
    if not torch.compiler.is_compiling():
        return a == b
    may_be = torch.fx.experimental.symbolic_shapes.guard_or_true  # loaded by the compiler
    return len(a) == len(b) and all(may_be(x == y) for x, y in zip(a, b, strict=True))


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def reduced(
    loss: Callable[..., Tensor], count: Callable[[], Any], reduction: str, dtype: torch.dtype
) -> Tensor:
    """Return the reduced loss, with torch's mean: over no rows 0/0 = NaN; softmaxkit's is 0."""
    if reduction != "mean":
        return loss(reduction=reduction, dtype=dtype)
    return (loss(reduction="sum", dtype=wide(dtype)) / count()).to(dtype)
