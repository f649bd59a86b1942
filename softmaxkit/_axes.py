"""Axes of arrays: put the class axis back into rows, and lay vectors along it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

    Axes = int | tuple[int, ...]


# Along an axis other than the last, libraries add the classes one after another; a sum over more
# classes than this is made in parts. Error of log-softmax along axis 0 with half of p in one class,
# in units in the last place: 256 classes, NumPy 21 -> 8, torch 28 -> 3; 100 classes, 12 -> 7 and
# 15 -> 5.
SUM_CLASSES = 64


def expand(rows: Array, axis: Axes) -> Array:
    """Put back, with length 1, the axes that a reduction removed."""
    for one in (axis,) if isinstance(axis, int) else sorted(axis):  # Dynamo cannot sort symbols
        rows = rows[(slice(None),) * one + (None, ...)]
    return rows


def squeeze(rows: Array, axis: Axes) -> Array:
    """Remove such axes again."""
    for one in (axis,) if isinstance(axis, int) else sorted(axis, reverse=True):
        rows = rows[(slice(None),) * one + (0, ...)]
    return rows


def along(vector: Array, ndim: int, axis: int) -> Array:
    """Lay a (C,) vector along `axis` of an array with `ndim` axes."""
    return vector[(None,) * axis + (slice(None),) + (None,) * (ndim - axis - 1)]


def no_classes(ops: ArrayFunctions, x: Array, axis: Axes) -> bool:
    """Return whether one of the axes has length 0."""
    shape = ops.shape(x)
    return any(shape[one] == 0 for one in ((axis,) if isinstance(axis, int) else axis))
