"""Softmax, log-softmax and logsumexp with every option, and their derivatives, over kernels.

Masks, the temperature and several axes are handled here, around kernels that know only one axis.
`ops` are the array functions of a backend, `kernels` its functions over N x C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from softmaxkit._axes import expand, no_classes, squeeze
from softmaxkit._statistics import Request, Rows

if TYPE_CHECKING:
    from softmaxkit._axes import Axes
    from softmaxkit.backends import (
        ActivationOptions,
        Array,
        ArrayFunctions,
        DType,
        GradientKernels,
        Kernels,
    )

_INF = float("inf")


# --- values ---------------------------------------------------------------------------------------
def softmax(ops: ArrayFunctions, kernels: Kernels, x: Array, options: ActivationOptions) -> Array:
    """Softmax with every option, over the kernel `softmax`."""
    return _activation(ops, kernels.softmax, 0.0, x, options)


def log_softmax(
    ops: ArrayFunctions, kernels: Kernels, x: Array, options: ActivationOptions
) -> Array:
    """Log-softmax with every option, over the kernel `log_softmax`."""
    return _activation(ops, kernels.log_softmax, -_INF, x, options)


def _activation(
    ops: ArrayFunctions, kernel: Any, masked: float, x: Array, options: ActivationOptions
) -> Array:
    x, result = _as_float(ops, x, options.dtype)
    axis, where = options.axis, options.where
    if no_classes(ops, x, axis):
        return ops.astype(x, result)
    x, _, _ = masked_and_scaled(ops, x, axis, where, options.temperature)
    out = _along_axes(ops, lambda z, one: kernel(z, one, result), axis, x)
    return out if where is None else ops.where(where, out, masked)


def logsumexp(ops: ArrayFunctions, kernels: Kernels, x: Array, options: ActivationOptions) -> Array:
    """Logsumexp with every option, over the kernel `row_statistics`."""
    x, result = _as_float(ops, x, options.dtype)
    axis = options.axis
    x, _, empty = masked_and_scaled(ops, ops.compute(x), axis, options.where, None)
    if no_classes(ops, x, axis):
        lse = ops.sum(x, axis) - _INF
    else:
        # A row of -inf gives -inf, with a gradient of 0; a row with +inf gives +inf, with the
        # gradient of softmax.
        top = ops.stop_gradient(ops.amax(x, axis))
        infinite = ops.equal(abs(top), _INF)
        if isinstance(axis, int):
            one = axis
        else:
            x = ops.merge_last(ops.permute(x, _order(ops, x, axis)), len(axis))
            one = len(ops.shape(x)) - 1
        skip = ops.equal(top, -_INF)
        rows, _ = kernels.row_statistics(x, Request(one, skip=skip), lse=True, keep=False)
        lse = ops.where(infinite, top, rows.lse)
        if empty is not None:
            lse = ops.where(empty, -_INF, lse)
    return ops.astype(expand(lse, axis) if options.keepdims else lse, result)


# --- derivatives ----------------------------------------------------------------------------------
def pull(
    ops: ArrayFunctions,
    kernels: GradientKernels,
    operation: str,
    x: Array,
    cotangent: Array,
    options: ActivationOptions,
    *,
    value: Array,
) -> Array:
    """Return the vector-Jacobian product of an activation, whose value is given, with `cotangent`.

    It is p (v - Σ p v) / T for softmax; for the others it is the gradient of a row statistic,
    Σ v log p or logsumexp.
    """
    axis, where, temperature = options.axis, options.where, options.temperature
    if no_classes(ops, x, axis):
        return ops.astype(x, x.dtype)
    z = ops.compute(as_wide_as(ops, x, options.dtype))
    z, _, _ = masked_and_scaled(ops, z, axis, where, temperature)
    v = ops.compute_like(cotangent, z)
    if operation == "logsumexp":
        by_row = squeeze(v, axis) if options.keepdims else v
        out = _along_axes(ops, partial(_of_logsumexp, ops, kernels, by_row), axis, z)
    else:
        v = v if where is None else ops.where(where, v, 0.0)
        if operation == "log_softmax":
            out = _along_axes(ops, partial(_of_log_softmax, ops, kernels), axis, z, v)
        else:
            p = value
            if p.dtype != z.dtype:  # the value is rounded
                p = _along_axes(ops, lambda z, one: kernels.softmax(z, one, z.dtype), axis, z)
            out = _along_axes(ops, kernels.softmax_gradient, axis, p, v)
    out = out if temperature is None else out / temperature
    return ops.astype(out if where is None else ops.where(where, out, 0.0), x.dtype)


def _of_log_softmax(
    ops: ArrayFunctions, kernels: GradientKernels, z: Array, v: Array, axis: int
) -> Array:
    """Return the derivative of Σ v log p."""
    _, kept = kernels.row_statistics(z, Request(axis), lse=False, keep=True)
    of_rows = Rows(None, 1.0, ops.sum(v, axis), None)
    return kernels.row_gradient(z, Request(axis, weights=v), kept, of_rows)


def _of_logsumexp(
    ops: ArrayFunctions, kernels: GradientKernels, by_row: Array, z: Array, axis: int
) -> Array:
    request = Request(axis, skip=ops.equal(ops.amax(z, axis), -_INF))  # whose gradient is 0
    _, kept = kernels.row_statistics(z, request, lse=False, keep=True)
    return kernels.row_gradient(z, request, kept, Rows(None, None, None, by_row))


def softmax_derivative(
    ops: ArrayFunctions, p: Array, v: Array, axis: int, total: Callable[..., Any] | None = None
) -> Array:
    """Return p (v - Σ p v), the product of softmax's derivative, which is symmetric, and `v`.

    Where p_k > 1/2, v - Σ p v would round away all that v_k and the sum do not have in common;
    there v_k is subtracted first. In rows without such a class, subtracting Σ p v twice has the
    same effect. `total` sums arrays over all classes of the rows if they are not all here.
    """
    dominates = p > 0.5
    of_k = ops.where(dominates, v, 0.0)
    if total is None:
        v_k, all_v, exists = ops.sum(of_k, axis), ops.sum(p * v, axis), ops.any(dominates, axis)
        total = partial(_sums, ops, axis)
    else:
        v_k, all_v, exists = total(of_k, p * v, ops.astype(dominates, p.dtype))
        exists = exists > 0
    u = v - expand(ops.where(exists, v_k, all_v), axis)
    (left,) = total(p * u)
    return p * (u - expand(left, axis))


def _sums(ops: ArrayFunctions, axis: int, *arrays: Array) -> list[Array]:
    return [ops.sum(one, axis) for one in arrays]


def log_softmax_derivative(ops: ArrayFunctions, p: Array, v: Array, axis: int) -> Array:
    """Return v - p Σ v, the vector-Jacobian product of log-softmax.

    Where p_k > 1/2, the entry at k would cancel; it is the number that makes the entries sum to 0.
    """
    dominates = p > 0.5
    out = ops.where(dominates, 0.0, v - p * expand(ops.sum(v, axis), axis))
    return ops.where(dominates, -expand(ops.sum(out, axis), axis), out)


# --- axes, dtypes, masks and temperatures ---------------------------------------------------------
def _along_axes(
    ops: ArrayFunctions, kernel: Callable[..., Array], axis: Axes, *arrays: Array
) -> Array:
    """Apply a kernel along one axis, its last argument; several axes are first merged into one."""
    if isinstance(axis, int):
        return kernel(*arrays, axis)
    order = _order(ops, arrays[0], axis)
    moved = [ops.permute(each, order) for each in arrays]
    merged = (ops.merge_last(each, len(axis)) for each in moved)
    out = kernel(*merged, len(order) - len(axis))
    back = sorted(range(len(order)), key=order.__getitem__)
    return ops.permute(ops.reshape_like(out, moved[0]), back)


def _order(ops: ArrayFunctions, x: Array, axes: tuple[int, ...]) -> list[int]:
    rest = [one for one in range(len(ops.shape(x))) if one not in axes]
    return [*rest, *axes]


def _as_float(ops: ArrayFunctions, x: Array, dtype: DType) -> tuple[Array, DType]:
    # Integers become floats before any arithmetic: uint8 would wrap in x - max. For a float64
    # result they become float64 directly: float32, the default of most libraries, would round away
    # what distinguishes 2**24 + 1 from 2**24.
    x = as_wide_as(ops, x, dtype)
    if ops.kind(x) != "float":
        x = ops.astype(x, ops.default_float(x))
    return x, x.dtype if dtype is None else dtype


def as_wide_as(ops: ArrayFunctions, x: Array, dtype: DType) -> Array:
    """Return `x` in float64 if the result is to be float64, so that all its digits are right."""
    return ops.astype(x, dtype) if dtype is not None and "float64" in str(dtype) else x


def masked_and_scaled(
    ops: ArrayFunctions, x: Array, axis: Axes, where: Array, temperature: Array
) -> tuple[Array, Array | None, Array | None]:
    """Return the logits divided by the temperature, with masked classes at -inf.

    Also return what this subtracted from each row's logsumexp (None for nothing), and which rows
    have no class left (None without a mask); such rows are returned as zeros, so that no NaN arises
    in them.
    """
    if where is None and temperature is None:
        return x, None, None
    x = ops.compute(x)
    empty = None
    if where is not None:
        missing = len(ops.shape(x)) - len(ops.shape(where))
        empty = ~ops.any(where[(None,) * missing + (...,)], axis)  # one per row of the mask
        x = masked(ops, x, axis, where, empty)
    if temperature is None:
        return x, None, empty
    if ops.is_array(temperature):
        temperature = ops.compute_like(temperature, x)
    top = shift = None
    if constant_along(ops, temperature, x, axis):
        top = finite(ops, ops.stop_gradient(ops.amax(x, axis)))
        shift = shift_of(ops, axis, temperature, top)
    return scaled(ops, x, axis, temperature, top), shift, empty


def masked(ops: ArrayFunctions, x: Array, axis: Axes, where: Array, empty: Array) -> Array:
    """Return the logits with masked classes at -inf, and zeros in the rows without a class."""
    empty = expand(empty, axis)
    fill = ops.where(empty, 0.0, ops.astype(empty, x.dtype) - _INF)  # never in float64
    return ops.where(ops.broadcast_like(~where, x), fill, x)


def scaled(
    ops: ArrayFunctions, x: Array, axis: Axes, temperature: Array, top: Array | None
) -> Array:
    """Return (z - max) / T, given the maxima as `finite` returns them.

    z / T first would round away what distinguishes large logits. `top` is None if the temperature
    differs between the classes, so that the maximum cannot be subtracted first.
    """
    x = x if top is None else x - expand(top, axis)
    if not ops.is_array(temperature):
        return x / temperature
    # -inf / T would give T a gradient of inf x 0.
    lost = ops.equal(x, -_INF)
    constant = ops.stop_gradient(temperature)
    return ops.where(lost, x / constant, ops.where(lost, 0.0, x) / temperature)


def shift_of(ops: ArrayFunctions, axis: Axes, temperature: Array, top: Array) -> Array:
    """Return what this subtracted from logsumexp."""
    return ops.sum(expand(top, axis) / temperature, axis)


def finite(ops: ArrayFunctions, top: Array) -> Array:
    """Return the maxima, 0 for those that are infinite."""
    return ops.where(ops.equal(abs(top), _INF), 0.0, top)


def constant_along(ops: ArrayFunctions, temperature: Array, x: Array, axis: Axes) -> bool:
    """Return whether the temperature is the same for all classes of a row."""
    if not ops.is_array(temperature):
        return True
    ndim = len(ops.shape(x))
    shape = ops.shape(temperature)
    shape = (1,) * (ndim - len(shape)) + tuple(shape)
    return all(shape[one] == 1 for one in ((axis,) if isinstance(axis, int) else axis))
