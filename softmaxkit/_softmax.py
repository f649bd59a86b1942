"""Softmax, log-softmax and logsumexp with every option, over a backend's kernels.

`ops` is a backend module: its kernels, and `where`, `sum`, `astype` and their like. Masks, the
temperature and several axes are laid around kernels that know one axis only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softmaxkit.backends import Array, DType

    Axes = int | tuple[int, ...]


def softmax(
    ops: Any, x: Array, axis: Axes, where: Array, temperature: Array, dtype: DType
) -> Array:
    """Softmax with every option, over the kernel `ops.softmax_rows`."""
    return _activation(ops, ops.softmax_rows, 0.0, x, axis, where, temperature, dtype)


def log_softmax(
    ops: Any, x: Array, axis: Axes, where: Array, temperature: Array, dtype: DType
) -> Array:
    """Log-softmax with every option, over the kernel `ops.log_softmax_rows`."""
    kernel = ops.log_softmax_rows
    return _activation(ops, kernel, float("-inf"), x, axis, where, temperature, dtype)


def _activation(
    ops: Any, kernel: Any, masked: float, x: Array, axis: Axes, where: Any, temperature: Any,
    dtype: DType,
) -> Array:  # fmt: skip
    x, result = _as_float(ops, x, dtype)
    if no_classes(ops, x, axis):
        return ops.astype(x, result)
    x, _, _ = masked_and_scaled(ops, x, axis, where, temperature)
    out = _along_axes(ops, kernel, x, axis, result)
    return out if where is None else ops.where(where, out, masked)


def logsumexp(ops: Any, x: Array, axis: Axes, where: Array, keepdims: bool, dtype: DType) -> Array:
    """Logsumexp with every option, over `ops.row_statistics`."""
    x, result = _as_float(ops, x, dtype)
    x, _, empty = masked_and_scaled(ops, ops.compute(x), axis, where, None)
    if no_classes(ops, x, axis):
        lse = ops.sum(x, axis) - float("inf")
    else:
        # A row of -inf is -inf, with a gradient of 0; one with +inf is +inf, with that of softmax.
        top = ops.stop_gradient(ops.amax(x, axis))
        infinite = abs(top) == float("inf")
        nothing = top == float("-inf")
        if not isinstance(axis, int):
            x = ops.merge_last(ops.permute(x, _order(ops, x, axis)), len(axis))
        one = axis if isinstance(axis, int) else len(ops.shape(x)) - 1
        _, _, log_sum, centre = ops.row_statistics(x, one, None, None, nothing)
        lse = ops.where(infinite, top, centre + log_sum)
        if empty is not None:
            lse = ops.where(empty, float("-inf"), lse)
    return ops.astype(expand(lse, axis) if keepdims else lse, result)


def expand(rows: Array, axis: Axes) -> Array:
    """Put back, with length 1, the axes that a reduction took away."""
    for one in sorted((axis,) if isinstance(axis, int) else axis):
        rows = rows[(slice(None),) * one + (None, ...)]
    return rows


def along(vector: Array, ndim: int, axis: int) -> Array:
    """Lay a (C,) vector along `axis` of an array with `ndim` axes."""
    return vector[(None,) * axis + (slice(None),) + (None,) * (ndim - axis - 1)]


def _along_axes(ops: Any, kernel: Any, x: Array, axis: Axes, result: DType) -> Array:
    """Apply a kernel of one axis; several are laid together as the last for it."""
    if isinstance(axis, int):
        return kernel(x, axis, result)
    order = _order(ops, x, axis)
    moved = ops.permute(x, order)
    out = kernel(ops.merge_last(moved, len(axis)), len(order) - len(axis), result)
    back = sorted(range(len(order)), key=order.__getitem__)
    return ops.permute(ops.reshape_like(out, moved), back)


def _order(ops: Any, x: Array, axes: tuple[int, ...]) -> list[int]:
    rest = [one for one in range(len(ops.shape(x))) if one not in axes]
    return [*rest, *axes]


def _as_float(ops: Any, x: Array, dtype: DType) -> tuple[Array, DType]:
    # Integers become floats before any arithmetic: uint8 would wrap in x - max. To float64 at once:
    # float32, the default of most libraries, would round away what tells 2**24 + 1 from 2**24.
    x = as_wide_as(ops, x, dtype)
    if ops.kind(x) != "float":
        x = ops.astype(x, ops.default_float(x))
    return x, x.dtype if dtype is None else dtype


def as_wide_as(ops: Any, x: Array, dtype: DType) -> Array:
    """Return `x` in float64 if the result is to be in float64: its digits shall mean something."""
    return ops.astype(x, dtype) if dtype is not None and "float64" in str(dtype) else x


def no_classes(ops: Any, x: Array, axis: Axes) -> bool:
    shape = ops.shape(x)
    return any(shape[one] == 0 for one in ((axis,) if isinstance(axis, int) else axis))


def masked_and_scaled(
    ops: Any, x: Array, axis: Axes, where: Array, temperature: Array
) -> tuple[Array, Array | None, Array | None]:
    """Return logits with masked classes at -inf, over the temperature.

    Also what that took off each row's logsumexp (None for nothing), and which rows have no class
    left (None without a mask); such rows are returned as zeros, so that no NaN arises in them.
    """
    if where is None and temperature is None:
        return x, None, None
    x = ops.compute(x)
    empty = None
    if where is not None:
        absent = ops.broadcast_like(~where, x)
        empty = ~ops.any(~absent, axis)
        fill = ops.astype(ops.where(expand(empty, axis), 0.0, float("-inf")), x.dtype)
        x = ops.where(absent, fill, x)
    if temperature is None:
        return x, None, empty
    constant = temperature
    if ops.is_array(temperature):
        temperature = ops.compute_like(temperature, x)
        constant = ops.stop_gradient(temperature)
    # (z - max) / T: z / T first would round away what distinguishes large logits. A temperature
    # that differs between classes leaves no such freedom.
    shift = None
    if _constant_along(ops, temperature, x, axis):
        top = ops.stop_gradient(ops.amax(x, axis))
        top = ops.where(abs(top) == float("inf"), 0.0, top)
        x = x - expand(top, axis)
        shift = ops.sum(expand(top, axis) / temperature, axis)
    if constant is temperature:
        return x / temperature, shift, empty
    # -inf / T would hand T a gradient of inf x 0.
    lost = x == float("-inf")
    x = ops.where(lost, x / constant, ops.where(lost, 0.0, x) / temperature)
    return x, shift, empty


def _constant_along(ops: Any, temperature: Array, x: Array, axis: Axes) -> bool:
    if not ops.is_array(temperature):
        return True
    ndim = len(ops.shape(x))
    shape = ops.shape(temperature)
    shape = (1,) * (ndim - len(shape)) + tuple(shape)
    return all(shape[one] == 1 for one in ((axis,) if isinstance(axis, int) else axis))
