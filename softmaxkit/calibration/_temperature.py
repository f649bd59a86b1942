"""The temperature that fits the probabilities of a trained model to labels."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from math import inf, isfinite, isnan, log, nan, prod, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from softmaxkit._activations import masked_and_scaled
from softmaxkit._axes import expand
from softmaxkit._statistics import centred
from softmaxkit._typing import AnyArray, ArrayLike
from softmaxkit.calibration._rows import Data, Rows, bad_weights, checked, no_rows, not_finite

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

__all__ = ["fit_temperature"]

# The bounds of T: there, softmax of any usual logits is the argmax, or uniform.
SMALLEST, LARGEST = 1e-12, 1e12
# Sizes of Newton steps relative to β. After a step as small as the first, the error is about its
# square, 1e-11. In float32, rounding makes steps of 1e-6 forever. Once a step is as small as the
# third, float64 is worth its time.
LAST_STEP, LAST_STEP_IN_FLOAT32, FIRST_STEP_IN_FLOAT64 = 3e-6, 1e-4, 3e-3
# Scores of the smallest sample. Each sample has 8 times as many rows as the one before. With so
# good a start, all rows are read only twice, once in float32, instead of 6 times (1 M rows of 100
# classes).
SAMPLE_ELEMENTS, FACTOR = 1 << 17, 8
# Below this d, e^(d/T) is 0 for any T; as a lower bound of d, it keeps e^(d/T) d² from 0 · inf.
FLOOR = -1e15
MOST_PASSES = 200  # bisection alone takes half of them


def fit_temperature(
    logits: AnyArray,
    labels: ArrayLike,
    *,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
) -> float:
    """Temperature T at which the cross-entropy of softmax(z / T) is smallest.

    The sum -Σ_i w_i log softmax(z_i / T)[y_i] is convex in 1/T, and has one minimum. There the mean
    over the rows of max z - Σ p z, the gap that the model expects, equals the mean of max z - z_y,
    the gap that is seen. Newton's method finds it in a shrinking bracket; there is nothing to tune.
    Fit it on rows that the model was not trained on, and pass it on as ``temperature=``.

    Parameters
    ----------
    logits : floating array
        Unnormalised log-probabilities, with the classes along `axis`. They are read block by block,
        finally in float64 if the library and the device have it.
    labels : integer array, or list
        Class indices in [0, C), in the shape of `logits` without `axis`.
    axis : int, default -1
        The class axis.
    sample_weight : array that broadcasts to the rows, optional
        Weight of each row, at least 0; rows are `logits` without `axis`.
    where : bool array that broadcasts to `logits`, optional
        True where a class takes part.
    ignore_index : int or None, default -100
        Rows with this label are left out, whatever their logits contain.

    Returns
    -------
    float
        From 1e-12 to 1e12. Both ends come with a UserWarning: T is the smallest if every label has
        the largest logit of its row, and the largest if the logits say no more about the labels
        than chance does, or less. With the smallest, every probability is 0 or 1, and no threshold
        rejects a row: fit on more rows, or keep T = 1. If no T changes anything, because every row
        has equal logits, T is 1, with a UserWarning, too.

    Raises
    ------
    TypeError
        An argument is of the wrong kind, or from another library than `logits`, or `logits` are
        being traced by a compiler.
    ValueError
        A shape does not fit, a row that counts holds NaN or +inf, the class of a label is masked
        or has a logit of -inf, a weight is negative, or no row counts.
    IndexError
        A label is out of range.

    References
    ----------
    Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, section 4.2.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import fit_temperature
    >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    >>> round(fit_temperature(logits, [0, 0, 1, 1]), 6)  # 3 of 4 are right: 4 / log 3
    3.640957
    """
    data = checked(
        "fit_temperature",
        logits,
        labels,
        axis,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
    )
    start = LARGEST
    for sample in _samples(data):
        near, found = _search(sample, start, is_sample=True)
        start = near if found else LARGEST
    temperature, found = _search(data, start)
    if isnan(temperature):
        raise no_rows(data)
    if not found:
        warnings.warn(_reason(temperature), UserWarning, stacklevel=2)
    return temperature


def _reason(temperature: float) -> str:
    if temperature == SMALLEST:
        says = "every label has the largest logit of its row, or all logits are nearly 0"
    elif temperature == LARGEST:
        says = "the logits predict the labels no better than chance, or are huge"
    else:
        says = "every row has equal logits, so that no temperature changes anything"
    return f"fit_temperature: {says}; the result is {temperature:g}; check logits and labels."


def _samples(data: Data) -> Iterator[Data]:
    """Yield samples of evenly spaced rows, each larger than the last; none if rows are few."""
    step = FACTOR
    while prod(data.shape) // (step * FACTOR) >= SAMPLE_ELEMENTS:
        step *= FACTOR
    while step > 1 and len(data.shape) > 1 and prod(data.shape) // step >= SAMPLE_ELEMENTS:
        yield Data(data.call, data.axis, data.part(slice(None, None, step)), data.ignored)
        step //= FACTOR


class Sums(NamedTuple):
    """The sums at a temperature over the rows by their weights, with d = z - max z <= 0."""

    expected: float  # of -Σ p d, the gap that p expects
    seen: float  # of -d_y
    variance: float  # of Σ p d² - (Σ p d)²
    weight: float
    is_float64: bool


def _sums(data: Data, temperature: float, precise: bool) -> Sums:
    def of_block(rows: Rows) -> np.ndarray:
        rows = rows._replace(temperature=temperature)
        return data.call.backend.to_host(data.of_block(_sums_of_block, rows, data.ignored, precise))

    parts = data.by_block(of_block)
    with np.errstate(all="ignore"):  # sums of inf, which is refused below
        total = np.stack(parts).sum(0, np.float64)
    expected, seen, variance, weight, negative = total.tolist()
    if negative or not isfinite(weight):
        raise bad_weights(data)
    if not isfinite(expected + seen):
        what = (
            "-inf for the class of a label, or that class is masked"
            if seen == inf
            else "NaN or inf"
        )
        raise not_finite(data, what)
    return Sums(expected, seen, variance, weight, parts[0].dtype == np.float64)


def _sums_of_block(
    ops: ArrayFunctions, rows: Rows, axis: int, ignored: int | None, precise: bool
) -> Array:
    """Return the sums of a block, and how many weights are negative, as one vector."""
    labels = ops.as_index(rows.labels)
    skip = None
    if ignored is not None:
        skip = ops.equal(labels, ignored)
        labels = ops.where(skip, 0, labels)
    z = (ops.widest if precise else ops.compute)(ops.stop_gradient(rows.scores))
    z, _, _ = masked_and_scaled(ops, z, axis, rows.where, None)
    top = ops.amax(z, axis)
    d = centred(ops, z, top, axis)
    e = ops.exp(d / rows.temperature)
    seen = -ops.pick(d, labels, axis)
    one = ops.ones_like(top)
    d = ops.maximum(d, expand(FLOOR * one, axis))
    total = ops.sum(e, axis)
    e = e * d
    mean = ops.sum(e, axis) / total
    variance = ops.sum(e * d, axis) / total - mean * mean
    weight = (
        one if rows.weight is None else ops.broadcast_like(ops.astype(rows.weight, one.dtype), top)
    )
    negative = ops.astype(weight < 0, one.dtype)
    absent = weight == 0 if skip is None else skip | (weight == 0)
    values = (-mean * weight, seen * weight, variance * weight, weight, negative)
    sums = [ops.sum(ops.where(absent, 0.0, value), None) for value in values]
    return ops.concat([ops.reshape(one, (1,)) for one in sums])


def _search(data: Data, start: float, is_sample: bool = False) -> tuple[float, bool]:
    """Return T where the expected gap equals the one seen, and False if T is an end of the range.

    It is Newton's method on log(expected / seen) over β = 1/T, from above in T: the gap that a row
    expects decreases exponentially in β, and is linear where β is small.
    """
    smallest, largest = 1 / LARGEST, 1 / SMALLEST
    beta, low, high, precise = 1 / start, 0.0, inf, False  # the bracket, from what was tried
    for _ in range(MOST_PASSES):
        one = _sums(data, 1 / beta, precise)
        end, step = None, inf if one.expected > one.seen else -inf
        if one.weight == 0:
            return nan, False
        if one.seen == 0:
            end = 1.0 if one.expected == 0 and beta == smallest else SMALLEST
        elif one.expected > one.seen:
            low, end = beta, SMALLEST if beta == largest else None
        else:
            high, end = beta, LARGEST if beta == smallest else None
        if one.expected > 0 and one.seen > 0 and 0 < one.variance < inf:
            step = log(one.expected / one.seen) * one.expected / one.variance
        last = LAST_STEP if one.is_float64 else LAST_STEP_IN_FLOAT32
        is_near = abs(step) <= beta * (last if precise else FIRST_STEP_IN_FLOAT64)
        if is_near or end:
            if precise or is_sample:
                return (end, False) if end else (1 / (beta + step), True)
            low, high, precise = 0.0, inf, True  # float32 may have been wrong about the side
            beta = beta if end else beta + step
            continue
        beta = min(max(beta + step, smallest), largest)
        if not low < beta < high:
            beta = sqrt(max(low, smallest) * min(high, largest))
    return 1 / beta, True
