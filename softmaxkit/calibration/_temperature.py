"""The temperature of a model that is trained, and what its probabilities are worth then."""

from __future__ import annotations

import warnings
from math import fsum, inf, isfinite, isnan, log, nan, prod, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmaxkit._activations import masked_and_scaled
from softmaxkit._axes import expand
from softmaxkit._statistics import centred
from softmaxkit.calibration._rows import Data, Rows, bad_weights, checked, no_rows, not_finite

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

__all__ = ["fit_temperature"]

# The bounds of T, at which softmax of any usual logits is the argmax, and uniform.
SMALLEST, LARGEST = 1e-12, 1e12
# A Newton step that is this small, relative to β, leaves the square of it as the error; in float32
# its rounding would make steps of 1e-6 for ever.
LAST_STEP, LAST_STEP_IN_FLOAT32 = 1e-7, 1e-4
# Scores in the rows that a start is found with, so that all rows are read three or four times:
# 1 M rows of 100 classes.
SAMPLE_ELEMENTS = 1 << 20
# Below it e^(d/T) is 0 for any T, and e^(d/T) d² is no 0 · inf.
FLOOR = -1e15
MOST_PASSES = 200  # bisection alone takes half of them


def fit_temperature(
    logits: Any,
    labels: Any,
    *,
    axis: int = -1,
    sample_weight: Any = None,
    where: Any = None,
    ignore_index: int | None = -100,
) -> float:
    r"""Temperature T at which :math:`-\sum_i w_i \log \mathrm{softmax}(z_i / T)_{y_i}` is smallest.

    The sum is convex in 1/T, and has one minimum. There the mean over the rows of max z - Σ p z,
    the gap that the model expects, equals that of max z - z_y, the gap that is seen. Newton's
    method finds it in a bracket that shrinks; there is nothing to choose. Fit it on rows that the
    model was not trained on, and pass it on as ``temperature=``.

    Parameters
    ----------
    logits : floating array
        Unnormalised log-probabilities, with the classes along `axis`. Read block by block in
        float64, where library and device have it, else in float32.
    labels : integer array, or list
        Class indices in [0, C), in the shape of `logits` without `axis`.
    axis : int, default -1
        The class axis.
    sample_weight : array that broadcasts to the rows, optional
        Weight of each row, at least 0; rows are `logits` without `axis`.
    where : bool array that broadcasts to `logits`, optional
        True where a class takes part.
    ignore_index : int or None, default -100
        Rows with this label are left out, whatever their logits hold.

    Returns
    -------
    float
        From 1e-12 to 1e12. These ends come with a UserWarning: the smallest where every label has
        the largest logit of its row (the more extreme the better), the largest where the logits
        say no more about the labels than chance does, or less. Where no T changes anything, since
        every row has equal logits, it is 1, with a UserWarning, too.

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
    sample = _sample(data)
    if sample is not None:
        near, found = _search(sample, LARGEST)
        start = near if found else LARGEST
    temperature, found = _search(data, start)
    if isnan(temperature):
        raise no_rows(data)
    if not found:
        warnings.warn(_reason(temperature), UserWarning, stacklevel=2)
    return temperature


def _reason(temperature: float) -> str:
    if temperature == SMALLEST:
        says = "every label has the largest logit of its row, so that no temperature is too small"
    elif temperature == LARGEST:
        says = "the logits say no more about the labels than chance does"
    else:
        says = "every row has equal logits, so that no temperature changes anything"
    return f"fit_temperature: {says}; the result is {temperature:g}; check logits and labels."


def _sample(data: Data) -> Data | None:
    """Return evenly spaced rows for a start, or None where there are few."""
    step = prod(data.shape) // SAMPLE_ELEMENTS
    if len(data.shape) == 1 or step < 3:
        return None
    return Data(data.call, data.axis, data.part(slice(None, None, step)), data.ignored)


class Sums(NamedTuple):
    """What a temperature comes to, summed over the rows by their weights; d = z - max z <= 0."""

    expected: float  # of -Σ p d, the gap that p expects
    seen: float  # of -d_y
    variance: float  # of Σ p d² - (Σ p d)²
    weight: float
    precise: bool  # float64


def _sums(data: Data, temperature: float) -> Sums:
    parts: list[np.ndarray] = []

    def work(rows: Rows) -> None:
        rows = rows._replace(temperature=temperature)
        sums = data.of_block(_sums_of_block, rows, data.ignored)
        parts.append(data.call.backend.to_host(sums))

    data.call.backend.each(work, data.blocks())
    # Exactly rounded: the order in which threads finish is chance.
    total = [fsum(one) for one in zip(*parts, strict=True)]
    expected, seen, variance, weight, negative = total
    if negative or not isfinite(weight):
        raise bad_weights(data)
    if not isfinite(expected + seen):
        what = "a label's logit of -inf, or its class is masked" if seen == inf else "NaN or inf"
        raise not_finite(data, what)
    return Sums(expected, seen, variance, weight, parts[0].dtype == np.float64)


def _sums_of_block(ops: ArrayFunctions, rows: Rows, axis: int, ignored: int | None) -> Array:
    """Return the sums of a block, and how many weights are negative, as one vector."""
    labels = ops.as_index(rows.labels)
    skip = None
    if ignored is not None:
        skip = ops.equal(labels, ignored)
        labels = ops.where(skip, 0, labels)
    z = ops.widest(ops.stop_gradient(rows.scores))
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
    weight = one if rows.weight is None else ops.broadcast_like(ops.widest(rows.weight), top)
    negative = ops.astype(weight < 0, one.dtype)
    absent = weight == 0 if skip is None else skip | (weight == 0)
    values = (-mean * weight, seen * weight, variance * weight, weight, negative)
    sums = [ops.sum(ops.where(absent, 0.0, value), None) for value in values]
    return ops.concat([ops.reshape(one, (1,)) for one in sums])


def _search(data: Data, start: float) -> tuple[float, bool]:
    """Return T where the expected gap is the one seen, and False at an end of the range.

    Newton on log(expected / seen) over β = 1/T, from above in T: the gap that a row expects falls
    off exponentially in β, and is linear where β is small.
    """
    beta, low, high = 1 / start, 0.0, inf  # the bracket, of what was tried
    smallest, largest = 1 / LARGEST, 1 / SMALLEST
    for _ in range(MOST_PASSES):
        one = _sums(data, 1 / beta)
        if one.weight == 0:
            return nan, False
        if one.seen == 0:
            constant = one.seen == one.expected == 0 and beta == smallest
            return (1.0, False) if constant else (SMALLEST, False)
        if one.expected > one.seen:
            low = beta
            if beta == largest:
                return SMALLEST, False
        else:
            high = beta
            if beta == smallest:
                return LARGEST, False
        step = inf if low == beta else -inf
        if one.expected > 0 and 0 < one.variance < inf:
            step = log(one.expected / one.seen) * one.expected / one.variance
        if abs(step) <= beta * (LAST_STEP if one.precise else LAST_STEP_IN_FLOAT32):
            return 1 / (beta + step), True
        beta = min(max(beta + step, smallest), largest)
        if not low < beta < high:
            beta = sqrt(max(low, smallest) * min(high, largest))
    return 1 / beta, True
