"""Axes of arrays: the class axis put back into rows, and laid along the logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

    Axes = int | tuple[int, ...]


# Classes that libraries may add up one after the other, as they do across rows: a sum over more of
# them is made in parts. log-softmax along axis 0 of 256 classes, one with half of p: NumPy 21 -> 8
# units in the last place, torch 28 -> 3; of 100 classes 12 -> 7 and 15 -> 5.
SUM_CLASSES = 64


def expand(rows: Array, axis: Axes) -> Array:
    """Put back, with length 1, the axes that a reduction took away."""
    for one in (axis,) if isinstance(axis, int) else sorted(axis):  # Dynamo sorts no symbols
        rows = rows[(slice(None),) * one + (None, ...)]
    return rows


def squeeze(rows: Array, axis: Axes) -> Array:
    """Take such axes away again."""
    for one in (axis,) if isinstance(axis, int) else sorted(axis, reverse=True):
        rows = rows[(slice(None),) * one + (0, ...)]
    return rows


def along(vector: Array, ndim: int, axis: int) -> Array:
    """Lay a (C,) vector along `axis` of an array with `ndim` axes."""
    return vector[(None,) * axis + (slice(None),) + (None,) * (ndim - axis - 1)]


def no_classes(ops: ArrayFunctions, x: Array, axis: Axes) -> bool:
    """Tell whether one of the axes has length 0."""
    shape = ops.shape(x)
    return any(shape[one] == 0 for one in ((axis,) if isinstance(axis, int) else axis))
