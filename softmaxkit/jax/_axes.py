"""Axes as jax.nn and optax accept them, several or all, and how to merge them into one."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax.numpy as jnp
from numpy.lib.array_utils import normalize_axis_tuple

Axes = int | tuple[int, ...] | None


def class_mask(where: Any, ndim: int, axis: Axes) -> Any:
    """Return a mask of rows as a mask of classes."""
    if where is None:
        return None
    where = jnp.asarray(where)
    if where.ndim == ndim:
        return where
    return jnp.expand_dims(where, tuple(range(ndim)) if axis is None else axis)


def together_as_last(shape: tuple[int, ...], axis: Any) -> tuple[Callable[[Any], Any], ...]:
    """Return a function that merges these axes into the last, and one that undoes it."""
    axes = normalize_axis_tuple(range(len(shape)) if axis is None else axis, len(shape))
    rest = [one for one in range(len(shape)) if one not in axes]
    order = (*rest, *axes)
    back = sorted(range(len(order)), key=order.__getitem__)
    moved = [shape[one] for one in order]
    merged = (*moved[: len(rest)], prod(moved[len(rest) :]))
    return (
        lambda x: x.transpose(order).reshape(merged),
        lambda x: x.reshape(moved).transpose(back),
    )
