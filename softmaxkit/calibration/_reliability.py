"""How far confidence is from accuracy: calibration error, reliability by bins, Brier score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from softmaxkit._arguments import choice, count, flag
from softmaxkit._typing import AnyArray, ArrayLike
from softmaxkit.calibration import _bins
from softmaxkit.calibration._bins import Estimate, Reliability
from softmaxkit.calibration._confidence import probabilities, real, sure_class
from softmaxkit.calibration._rows import Data, Rows, checked, refuse_nan

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

__all__ = ["Estimate", "Reliability", "brier_score", "calibration_error", "reliability"]


# fmt: off
@overload
def calibration_error(
    scores: AnyArray, labels: ArrayLike, *, from_logits: bool = True, bins: int = 15,
    binning: Literal["width", "mass"] = "width", of: Literal["top", "class"] = "top",
    norm: Literal["l1", "l2", "max"] = "l1", interval: None = None, resamples: int = 1000,
    seed: int = 0, axis: int = -1, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, temperature: ArrayLike = 1.0,
) -> float: ...
@overload
def calibration_error(
    scores: AnyArray, labels: ArrayLike, *, from_logits: bool = True, bins: int = 15,
    binning: Literal["width", "mass"] = "width", of: Literal["top", "class"] = "top",
    norm: Literal["l1", "l2", "max"] = "l1", interval: float, resamples: int = 1000,
    seed: int = 0, axis: int = -1, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, temperature: ArrayLike = 1.0,
) -> Estimate: ...
# fmt: on
def calibration_error(
    scores: AnyArray,
    labels: ArrayLike,
    *,
    from_logits: bool = True,
    bins: int = 15,
    binning: Literal["width", "mass"] = "width",
    of: Literal["top", "class"] = "top",
    norm: Literal["l1", "l2", "max"] = "l1",
    interval: float | None = None,
    resamples: int = 1000,
    seed: int = 0,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> float | Estimate:
    r"""Difference between confidence and accuracy, by bins of confidence.

    The expected calibration error (ECE) is :math:`\sum_b (n_b / n) |acc_b - conf_b|`. Even for a
    calibrated model it is not 0 on a finite sample: noise adds to it, and the more bins there are,
    the more it adds.

    Parameters
    ----------
    scores : floating array
        Logits or probabilities, with the classes along `axis`.
    labels : integer array, or list
        Class indices in [0, C), in the shape of `scores` without `axis`.
    from_logits : bool, default True
        False if `scores` are probabilities; this is never guessed.
    bins : int, at least 1, default 15
    binning : {"width", "mass"}
        Bins of equal width, each of which includes its upper edge, and the first also 0; or bins of
        equally many rows (of equal weight). Equal confidences share the bin of the first of them,
        so that the order of the rows does not matter; the masses of bins then differ.
    of : {"top", "class"}
        Compare the probability of the predicted class with whether it is right; or compare the
        probability of each class with whether it is the label's, and average over the classes.
    norm : {"l1", "l2", "max"}
        The mean of the bins' differences by their weight; the root of the mean of their squares;
        or the largest difference (MCE).
    interval : float in (0, 1), optional
        With 0.95, for example, the result is an `Estimate` with the bounds that contain the errors
        of 95 % of the bootstrap's resamples. The bounds share the upward bias of the error.
    resamples : int, default 1000
        Number of the bootstrap's resamples, each of as many rows drawn from the rows. 1000
        resamples of a million rows take up to a minute.
    seed : int, default 0
        Seed of the draws.
    axis : int, default -1
        The class axis.
    sample_weight : array that broadcasts to the rows, optional
        Weight of each row, at least 0.
    where : bool array that broadcasts to `scores`, optional
        True where a class takes part.
    ignore_index : int or None, default -100
        Rows with this label are left out.
    temperature : positive number or array that broadcasts to the rows, default 1
        Divides the logits.

    Returns
    -------
    float, or Estimate
        From 0 to 1. The confidences, one of each row (of each class for ``of="class"``), are copied
        to the host and summed in float64.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `fit_temperature`; ValueError for probabilities outside [0, 1].

    References
    ----------
    Naeini et al. 2015, "Obtaining well calibrated probabilities using Bayesian binning"; Guo et al.
    2017, arXiv:1706.04599. Classes, equal masses, norms: Nixon et al. 2019, arXiv:1904.01685;
    Kumar et al. 2019, arXiv:1909.10155.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import calibration_error
    >>> scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    >>> round(calibration_error(scores, [0, 1, 1, 1], from_logits=False, bins=2), 4)
    0.0
    >>> round(calibration_error(scores, [0, 1, 1, 1], from_logits=False, bins=10), 4)
    0.4
    """
    data = _data("calibration_error", scores, labels, from_logits, axis,
                 (sample_weight, where, ignore_index, temperature))  # fmt: skip
    of_classes = _checked_bins(data, bins, binning, of)
    choice(data.call.name, "norm", norm, _bins.NORMS)
    events = _events(data, from_logits, of_classes)
    places = _bins.places(events[0], bins, binning)
    value = _bins.error(_bins.tables(*events, places), norm)
    if interval is None:
        return value
    level = real(data.call, "interval", interval)
    if not 0 < level < 1:
        raise ValueError(
            f"{data.call.name}: interval is {level:g}; expected a number between 0 and 1; "
            f"pass one such as 0.95."
        )
    count(data.call.name, "resamples", resamples, "1000 is usual")
    return Estimate(value, *_bins.bootstrap(events, places, norm, level, resamples, seed))


def reliability(
    scores: AnyArray,
    labels: ArrayLike,
    *,
    from_logits: bool = True,
    bins: int = 15,
    binning: Literal["width", "mass"] = "width",
    of: Literal["top", "class"] = "top",
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> Reliability:
    """Confidence and accuracy in each bin of confidence: the numbers of a reliability diagram.

    Parameters
    ----------
    scores, labels, from_logits, bins, binning, of, axis, sample_weight, where, ignore_index
        As for `calibration_error`.
    temperature
        As for `calibration_error`.

    Returns
    -------
    Reliability
        A named tuple of float64 NumPy arrays, (bins,), or (C, bins) for ``of="class"``: the mean
        `confidence` and the `accuracy`, NaN in empty bins, and `count`, the weight of the rows;
        and the bins + 1 `edges`. Bin b contains edges[b] < confidence <= edges[b + 1], and the
        first also 0.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `calibration_error`.

    References
    ----------
    DeGroot and Fienberg 1983, "The comparison and evaluation of forecasters"; Guo et al. 2017,
    arXiv:1706.04599.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import reliability
    >>> scores = np.array([[1.0, 0.0], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
    >>> found = reliability(scores, [0, 1, 1, 0], from_logits=False, bins=4)
    >>> found.count
    array([0., 1., 1., 2.])
    >>> found.accuracy
    array([nan, 1. , 1. , 0.5])
    """
    data = _data("reliability", scores, labels, from_logits, axis,
                 (sample_weight, where, ignore_index, temperature))  # fmt: skip
    of_classes = _checked_bins(data, bins, binning, of)
    events = _events(data, from_logits, of_classes)
    found = _bins.reliability(_bins.tables(*events, _bins.places(events[0], bins, binning)))
    return found if of_classes else Reliability(*(one[0] for one in found))


def brier_score(
    scores: AnyArray,
    labels: ArrayLike,
    *,
    from_logits: bool = True,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> float:
    """Mean over the rows of Σ_c (p_c - y_c)², with y the one-hot label.

    It is a proper score: its expectation is smallest at the true probabilities. For two classes it
    is twice the score of a single probability that other libraries report.

    Parameters
    ----------
    scores, labels, from_logits, axis, sample_weight, where, ignore_index, temperature
        As for `calibration_error`.

    Returns
    -------
    float
        From 0 to 2.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `calibration_error`.

    References
    ----------
    Brier 1950, "Verification of forecasts expressed in terms of probability", equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import brier_score
    >>> scores = np.array([[1.0, 0.0], [0.5, 0.5]])
    >>> brier_score(scores, [0, 1], from_logits=False)
    0.25
    """
    data = _data("brier_score", scores, labels, from_logits, axis,
                 (sample_weight, where, ignore_index, temperature))  # fmt: skip
    value, least, most, _, weight = data.on_host(_squares, from_logits, data.ignored)
    _refuse_no_probabilities(data, least, from_logits)
    _refuse_no_probabilities(data, most, from_logits)
    return float(np.average(value.astype(np.float64), weights=weight))


# --- arguments ------------------------------------------------------------------------------------
def _data(
    name: str, scores: Any, labels: Any, from_logits: Any, axis: Any, others: tuple[Any, ...]
) -> Data:
    sample_weight, where, ignore_index, temperature = others
    data = checked(
        name,
        scores,
        labels,
        axis,
        argument="scores",
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        temperature=temperature,
    )
    if not flag(name, "from_logits", from_logits) and data.rows.temperature is not None:
        raise ValueError(
            f"{name}: temperature is given with from_logits=False; expected logits, which it "
            f"divides; pass logits, or leave one of the two out."
        )
    return data


def _checked_bins(data: Data, bins: Any, binning: Any, of: Any) -> bool:
    name = data.call.name
    count(name, "bins", bins, "15 is usual")
    choice(name, "binning", binning, _bins.BINNINGS)
    return choice(name, "of", of, ("top", "class")) == "class"


def _refuse_no_probabilities(data: Data, p: np.ndarray, from_logits: bool) -> None:
    name = data.call.name
    refuse_nan(data, p)
    wrong = p[(p < 0) | (p > 1)]
    if len(wrong) and not from_logits:
        raise ValueError(
            f"{name}: scores holds {wrong[0]:g}; expected probabilities in [0, 1] beside "
            f"from_logits=False; pass from_logits=True if they are logits."
        )


# --- of rows --------------------------------------------------------------------------------------
def _events(
    data: Data, from_logits: bool, of_classes: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return confidences (rows, 1) or (rows, C), whether each came true, and the rows' weights."""
    if of_classes:
        p, labels, weight = data.on_host(_every_class, from_logits)
        hit = labels[:, None] == np.arange(p.shape[1])
    else:
        p, place, labels, weight = data.on_host(_top_class, from_logits)
        p, hit = p[:, None], (place == labels)[:, None]
    _refuse_no_probabilities(data, p, from_logits)
    return p, hit, weight


def _probabilities(ops: ArrayFunctions, rows: Rows, axis: int, from_logits: bool) -> Array:
    if not from_logits:
        p = ops.compute(ops.stop_gradient(rows.scores))
        return p if rows.where is None else ops.where(ops.broadcast_like(rows.where, p), p, 0.0)
    return probabilities(ops, rows, axis)


def _top_class(
    ops: ArrayFunctions, rows: Rows, axis: int, from_logits: bool
) -> tuple[Array, Array]:
    if from_logits:
        return sure_class(ops, rows, axis, "probability")
    p = _probabilities(ops, rows, axis, from_logits)
    return ops.amax(p, axis), ops.argmax(p, axis)


def _every_class(ops: ArrayFunctions, rows: Rows, axis: int, from_logits: bool) -> tuple[Array]:
    p = _probabilities(ops, rows, axis, from_logits)
    ndim = len(ops.shape(p))
    return (ops.permute(p, [*(i for i in range(ndim) if i != axis), axis]),)


def _squares(
    ops: ArrayFunctions, rows: Rows, axis: int, from_logits: bool, ignored: int | None
) -> tuple[Array, Array, Array]:
    """Return the score of each row, and its smallest and largest probability."""
    p = _probabilities(ops, rows, axis, from_logits)
    labels = ops.as_index(rows.labels)
    if ignored is not None:
        labels = ops.where(ops.equal(labels, ignored), 0, labels)
    others = ops.where(ops.at_class(labels, p, axis), 0.0, p)
    # 1 - p_y keeps its digits in saturated rows, too.
    miss = ops.sum(others, axis) if from_logits else 1.0 - ops.pick(p, labels, axis)
    value = ops.sum(others * others, axis) + miss * miss
    return value, -ops.amax(-p, axis), ops.amax(p, axis)
