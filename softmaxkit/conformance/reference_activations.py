"""The half of the oracle for activations and labels, and the arithmetic on rows that losses share.

It uses NumPy and float64 alone, like `reference`, which re-exports these functions and states the
rules.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Axis = int | tuple[int, ...] | None


# Activations and their vector-Jacobian products.


def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    dtype: object = None,
) -> Array:
    """Return exp(x/T) / Σ exp(x/T); 0 where masked."""
    x = float64(x)
    p, _, _ = normalize(x, axis, where, temperature)
    return classes_back(p, x.shape, axis)


def log_softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    dtype: object = None,
) -> Array:
    """Return x/T - logsumexp(x/T); -inf where masked."""
    x = float64(x)
    _, log_p, _ = normalize(x, axis, where, temperature)
    return classes_back(log_p, x.shape, axis)


def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: object = None,
) -> Array:
    """Return log Σ exp(x); -inf where nothing is kept."""
    x = float64(x)
    _, _, lse = normalize(x, axis, where, 1.0)
    return np.expand_dims(lse, axes_of(x.ndim, axis)) if keepdims else lse


def softmax_vjp(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """Return d Σ(cotangent · softmax(x)) / d x = p_c (v_c - Σ_j p_j v_j) / T."""
    x = float64(x)
    p, _, _ = normalize(x, axis, where, temperature)
    v = unmasked(np.broadcast_to(float64(cotangent), x.shape), where)
    v = classes_last(v, x.shape, axis)
    if p.size == 0:
        return np.zeros(x.shape)
    # With v relative to the likeliest class, that class drops out of the sum, and nothing cancels.
    v = v - np.take_along_axis(v, p.argmax(-1)[..., None], -1)
    gradient_of_rows = p * (v - (p * v).sum(-1, keepdims=True))
    return unmasked(classes_back(gradient_of_rows, x.shape, axis), where) / float64(temperature)


def log_softmax_vjp(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """Return d Σ(cotangent · log_softmax(x)) / d x over the kept entries, = (v_c - p_c Σ v) / T."""
    x = float64(x)
    p, log_p, _ = normalize(x, axis, where, temperature)
    v = unmasked(np.broadcast_to(float64(cotangent), x.shape), where)
    v = classes_last(v, x.shape, axis)
    gradient_of_rows = -nll_gradient(p, log_p, v)
    return unmasked(classes_back(gradient_of_rows, x.shape, axis), where) / float64(temperature)


def softmax_vjp_terms(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """Return p_c Σ_j p_j |v_c - v_j| / T, the size of the terms that `softmax_vjp` is a sum of."""
    x = float64(x)
    p, _, _ = normalize(x, axis, where, temperature)
    v = unmasked(np.broadcast_to(float64(cotangent), x.shape), where)
    v = classes_last(v, x.shape, axis)
    # In the order of v: a step from one class to the next adds that step for every class before it,
    # and takes it from every class behind. Sums of the same sign; C log C, where pairs would be C².
    order = v.argsort(-1)
    steps = np.diff(np.take_along_axis(v, order, -1))
    sorted_p = np.take_along_axis(p, order, -1)
    sums = np.zeros(p.shape)
    sums[..., 1:] += (sorted_p.cumsum(-1)[..., :-1] * steps).cumsum(-1)
    behind = sorted_p[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]
    sums[..., :-1] += (behind * steps)[..., ::-1].cumsum(-1)[..., ::-1]
    terms = np.empty(p.shape)
    np.put_along_axis(terms, order, sums, -1)
    return unmasked(classes_back(p * terms, x.shape, axis), where) / float64(temperature)


def log_softmax_vjp_terms(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """Return (|v_c| (1 - p_c) + p_c Σ_{j≠c} |v_j|) / T, the same for `log_softmax_vjp`."""
    x = float64(x)
    p, log_p, _ = normalize(x, axis, where, temperature)
    v = unmasked(np.broadcast_to(float64(cotangent), x.shape), where)
    terms = nll_gradient_terms(p, log_p, classes_last(v, x.shape, axis))
    return unmasked(classes_back(terms, x.shape, axis), where) / float64(temperature)


def logsumexp_vjp(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
) -> Array:
    """Return d Σ(cotangent · logsumexp(x)) / d x = p v; 0 where logsumexp is -inf."""
    x = float64(x)
    p, _, lse = normalize(x, axis, where, 1.0)
    rows = np.expand_dims(lse, axes_of(x.ndim, axis)).shape if keepdims else lse.shape
    v = np.broadcast_to(float64(cotangent), rows).reshape(lse.shape)[..., None]
    gradient_of_rows = np.where(lse[..., None] == -np.inf, 0.0, p * v)
    return unmasked(classes_back(gradient_of_rows, x.shape, axis), where)


# Labels.


def one_hot(
    labels: ArrayLike,
    num_classes: int,
    *,
    axis: int = -1,
    dtype: object = None,
    bad_labels: str = "raise",
) -> Array:
    """Return 1 where the class is the label and 0 elsewhere, with a new class axis at `axis`."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels have dtype {labels.dtype}; expected integers")
    encoded = (labels[..., None] == np.arange(num_classes)).astype(np.float64)
    bad = (labels < 0) | (labels >= num_classes)
    if bad_labels == "raise" and bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(f"label {labels[position]} at {position} is outside [0, {num_classes})")
    encoded[bad] = np.nan
    return np.moveaxis(encoded, -1, axis)


def smooth_labels(
    targets: ArrayLike,
    smoothing: float,
    *,
    num_classes: int | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
    bad_labels: str = "raise",
) -> Array:
    """Return y (1 - ε) + ε/K with ε = `smoothing`, K the kept classes; masked ones get no ε/K."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing is {smoothing}; expected a number in [0, 1]")
    targets = np.asarray(targets)
    if targets.dtype.kind in "iu":
        if num_classes is None:
            raise ValueError("smooth_labels: integer targets need num_classes")
        targets = one_hot(targets, num_classes, axis=axis, bad_labels=bad_labels)
    elif targets.dtype.kind == "b":
        raise TypeError("smooth_labels: boolean targets; expected integers or probabilities")
    y = float64(targets)
    keep = np.broadcast_to(_mask(where), y.shape)
    classes = keep.sum(axis, keepdims=True)
    return y * (1 - smoothing) + np.where(keep, smoothing / np.maximum(classes, 1), 0.0)


# The pieces.


def normalize(
    x: Array, axis: Axis, where: ArrayLike | None, temperature: ArrayLike
) -> tuple[Array, Array, Array]:
    """Return softmax, log-softmax and logsumexp of x/T over the kept entries, class axis last."""
    keep = classes_last(float64(_mask(where)), x.shape, axis) == 1
    t = classes_last(_temperature(temperature), x.shape, axis)
    with np.errstate(all="ignore"):  # inf - inf = NaN is the rule here, not an accident.
        z, z_rest = _divide(np.where(keep, classes_last(x, x.shape, axis), -np.inf), t)
        top = z.max(-1, keepdims=True, initial=-np.inf)
        top_rest = np.where(z == top, z_rest, -np.inf).max(-1, keepdims=True, initial=-np.inf)
        d, d_rest = _subtract(z, top)
        d_rest = _finite(d_rest + (z_rest - top_rest))
        exponentials = np.exp(d) * (1 + d_rest)
        # Keep the maximum out of the sum: 1 + 1e-17 is 1, and log p of the top class would be 0.
        ties = d == 0
        others = np.where(ties, 0.0, exponentials).sum(-1, keepdims=True)
        others = others + (ties.sum(-1, keepdims=True) - 1)
        p = exponentials / (1 + others)
        log_p = d + (d_rest - np.log1p(others))
        lse = np.where(np.isinf(top), top, top + (top_rest + np.log1p(others)))
    return np.where(keep, p, 0.0), np.where(keep, log_p, -np.inf), lse[..., 0]


def nll_gradient(p: Array, log_p: Array, a: Array) -> Array:
    """Return d Σ_c a_c (-log p_c) / d z = p_c Σ_{j≠c} a_j - a_c (1 - p_c), for constant a."""
    with np.errstate(all="ignore"):
        slope: Array = p * _sum_of_others(a) + a * np.expm1(log_p)
    return slope


def nll_gradient_terms(p: Array, log_p: Array, a: Array) -> Array:
    """Return p_c Σ_{j≠c} |a_j| + |a_c| (1 - p_c), the size of the terms of `nll_gradient`."""
    with np.errstate(all="ignore"):
        terms: Array = p * _sum_of_others(np.abs(a)) - np.abs(a) * np.expm1(log_p)
    return terms


def _sum_of_others(a: Array) -> Array:
    """Return Σ_{j≠c} a_j."""
    if a.shape[-1] == 0:
        return np.zeros(a.shape)
    # The total minus a term loses digits only for the largest, whose others are summed without it.
    is_top = np.arange(a.shape[-1]) == np.abs(a).argmax(-1)[..., None]
    top = np.where(is_top, a, 0.0).sum(-1, keepdims=True)
    rest = np.where(is_top, 0.0, a).sum(-1, keepdims=True)
    with np.errstate(all="ignore"):
        others: Array = np.where(is_top, rest, top + (rest - a))
    return others


def _subtract(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a - b rounded, and its rounding error (Knuth's two-sum)."""
    difference = a - b
    b_rounded = difference - a
    return difference, _finite((a - (difference - b_rounded)) - (b + b_rounded))


def _divide(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a / b rounded, and its rounding error (the remainder by Dekker's product)."""
    quotient = a / b
    product = quotient * b
    q_high, b_high = _leading_half(quotient), _leading_half(b)
    q_low, b_low = quotient - q_high, b - b_high
    product_error = q_high * b_high - product + q_high * b_low + q_low * b_high + q_low * b_low
    return quotient, _finite((a - product - product_error) / b)


def _leading_half(a: Array) -> Array:
    """Return the leading 26 bits of a, whose products are exact (Veltkamp)."""
    scaled = a * (2.0**27 + 1)
    return scaled - (scaled - a)


def _finite(error: Array) -> Array:
    """Return the rounding error; an infinite or NaN result has none."""
    return np.where(np.isfinite(error), error, 0.0)


def float64(array: ArrayLike) -> Array:
    """Return the array in float64, converted before any arithmetic."""
    array = np.asarray(array)
    if array.dtype.kind == "c":
        raise TypeError(f"dtype {array.dtype}; expected real numbers")
    return array.astype(np.float64)


def _mask(where: ArrayLike | None) -> Mask:
    """Return the mask as an array; without one everything is kept."""
    return np.asarray(True if where is None else where, bool)


def unmasked(array: Array, where: ArrayLike | None) -> Array:
    """Return the array with 0 where masked."""
    return np.where(_mask(where), array, 0.0)


def _temperature(temperature: ArrayLike) -> Array:
    """Return the temperature in float64, refusing a number that is not positive."""
    t = float64(temperature)
    if t.ndim == 0 and not t > 0:
        raise ValueError(f"temperature is {t}; expected a positive number")
    return t


def axes_of(ndim: int, axis: Axis) -> tuple[int, ...]:
    """Return the axes as a tuple of non-negative numbers."""
    axes = axis if isinstance(axis, tuple) else tuple(range(ndim)) if axis is None else (axis,)
    for each in axes:
        if not -ndim <= each < ndim:
            raise np.exceptions.AxisError(each, ndim)
    return tuple(each % ndim for each in axes)


def classes_last(array: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Broadcast to the shape, then move the axes to the end and merge them into one."""
    axes = axes_of(len(shape), axis)
    moved = np.moveaxis(np.broadcast_to(array, shape), axes, range(-len(axes), 0))
    rows = moved.shape[: len(shape) - len(axes)]
    classes = int(np.prod([shape[each] for each in axes]))
    # Contiguous: NumPy then sums pairwise, with an error that hardly grows with the classes.
    return np.ascontiguousarray(moved).reshape((*rows, classes))


def classes_back(array: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Undo `classes_last`."""
    axes = axes_of(len(shape), axis)
    moved = array.reshape(array.shape[:-1] + tuple(shape[each] for each in axes))
    return np.moveaxis(moved, range(-len(axes), 0), axes)
