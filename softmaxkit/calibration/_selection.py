"""Risk and coverage when only sure rows are answered, and the threshold that makes a row sure."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import numpy as np

from softmaxkit._arguments import choice
from softmaxkit._typing import AnyArray, ArrayLike, Kind
from softmaxkit.calibration._confidence import KINDS, real, sure_class
from softmaxkit.calibration._rows import Data, checked, refuse_nan

__all__ = ["RiskCoverage", "aurc", "risk_coverage", "threshold_for"]


class RiskCoverage(NamedTuple):
    """The result of `softmaxkit.calibration.risk_coverage`."""

    coverage: np.ndarray
    risk: np.ndarray
    threshold: np.ndarray


def risk_coverage(
    logits: AnyArray,
    labels: ArrayLike,
    *,
    kind: Kind = "probability",
    axis: int = -1,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> RiskCoverage:
    """Share of wrong answers among those that are given, for every threshold of confidence.

    Parameters
    ----------
    logits, kind, axis, where, temperature
        As for `confidence`.
    labels : integer array, or list
        Class indices in [0, C), in the shape of `logits` without `axis`.
    ignore_index : int or None, default -100
        Rows with this label are left out.

    Returns
    -------
    RiskCoverage
        A named tuple of float64 NumPy arrays with an entry for each confidence that occurs, in
        descending order: `coverage`, the share of rows with at least that confidence; `risk`, the
        share of those rows that are wrong; and `threshold`, the confidence, for `classify`. Equal
        confidences share one entry, so that the order of the rows does not matter.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `fit_temperature`; ValueError for an unknown `kind`.

    References
    ----------
    El-Yaniv and Wiener 2010, "On the foundations of noise-free selective classification"; Geifman
    and El-Yaniv 2017, arXiv:1705.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import risk_coverage
    >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> found = risk_coverage(logits, [0, 0, 1, 1], kind="margin")
    >>> found.coverage
    array([0.25, 0.5 , 0.75, 1.  ])
    >>> found.risk.round(4)
    array([0.    , 0.    , 0.3333, 0.25  ])
    """
    data = _data("risk_coverage", logits, labels, axis, where, (ignore_index, temperature))
    given, wrong, threshold = _by_confidence(data, kind)
    return RiskCoverage(given / given[-1], wrong / given, threshold)


def aurc(
    logits: AnyArray,
    labels: ArrayLike,
    *,
    kind: Kind = "probability",
    axis: int = -1,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> float:
    """Area under the curve of risk over coverage: Σ_k r_k / n.

    r_k is the share of wrong answers among the k surest of n rows. Smaller is better.

    Parameters
    ----------
    logits, labels, kind, axis, where, ignore_index, temperature
        As for `risk_coverage`.

    Returns
    -------
    float
        From 0 to 1. Among rows of equal confidence it is the mean over all their orders.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `risk_coverage`.

    References
    ----------
    Geifman, Uziel and El-Yaniv 2019, "Bias-reduced uncertainty estimation for deep neural
    classifiers", arXiv:1805.08206.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import aurc
    >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> round(aurc(logits, [0, 0, 1, 1]), 6)  # (0 + 0 + 1/3 + 1/4) / 4
    0.145833
    """
    data = _data("aurc", logits, labels, axis, where, (ignore_index, temperature))
    given, wrong, _ = _by_confidence(data, kind)
    sizes, errors = np.diff(given, prepend=0), np.diff(wrong, prepend=0)
    # For each row, about all rows of its confidence: how many rows and errors come before them, and
    # the share of errors among them.
    of_places = given - sizes, wrong - errors, errors / sizes
    before, errors_before, rate = np.repeat(of_places, sizes.astype(np.int64), 1)
    k = np.arange(1, len(rate) + 1)
    return float(((errors_before + (k - before) * rate) / k).mean())


def threshold_for(
    logits: AnyArray,
    labels: ArrayLike,
    *,
    max_risk: float | None = None,
    coverage: float | None = None,
    kind: Kind = "probability",
    axis: int = -1,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> float:
    """Threshold of confidence that keeps a risk, or reaches a coverage, on these rows.

    On other rows it does so up to sampling noise; for a bound that does not depend on such noise,
    see `conformal_threshold`.

    Parameters
    ----------
    logits, labels, kind, axis, where, ignore_index, temperature
        As for `risk_coverage`.
    max_risk : float in [0, 1], optional
        The largest share of wrong answers among those given; as many answers as possible are given.
    coverage : float in (0, 1], optional
        The smallest share of rows that get an answer. Pass exactly one of the two.

    Returns
    -------
    float
        The `threshold` for `classify`, of this `kind`; inf, which rejects every row, if no
        threshold keeps the risk.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `risk_coverage`; ValueError unless exactly one of the two is given.

    References
    ----------
    Geifman and El-Yaniv 2017, "Selective classification for deep neural networks",
    arXiv:1705.08500.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import classify, threshold_for
    >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> threshold = threshold_for(logits, [0, 0, 1, 1], max_risk=0.1)
    >>> classify(logits, threshold=threshold)
    array([ 0,  0, -1, -1])
    """
    data = _data("threshold_for", logits, labels, axis, where, (ignore_index, temperature))
    name = data.call.name
    if (max_risk is None) == (coverage is None):
        raise ValueError(
            f"{name}: coverage is {coverage} and max_risk is {max_risk}; expected one of the two; "
            f"leave the other out."
        )
    argument, value = ("coverage", coverage) if max_risk is None else ("max_risk", max_risk)
    bound = real(data.call, argument, value)
    if not (0 <= bound <= 1 and (bound > 0 or coverage is None)):
        interval = "(0, 1]" if max_risk is None else "[0, 1]"
        raise ValueError(
            f"{name}: {argument} is {bound:g}; expected a number in {interval}; pass a share."
        )
    given, wrong, threshold = _by_confidence(data, kind)
    if max_risk is None:
        return float(threshold[(given / given[-1] >= bound).argmax()])
    kept = np.flatnonzero(wrong / given <= bound)
    return float(threshold[kept[-1]]) if len(kept) else inf


def _data(
    name: str, logits: Any, labels: Any, axis: Any, where: Any, others: tuple[Any, Any]
) -> Data:
    ignore_index, temperature = others
    return checked(
        name,
        logits,
        labels,
        axis,
        where=where,
        ignore_index=ignore_index,
        temperature=temperature,
    )


def _by_confidence(data: Data, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how many rows have at least a confidence, how many of these are wrong, and which."""
    choice(data.call.name, "kind", kind, KINDS)
    value, place, labels, _ = data.on_host(sure_class, kind)
    refuse_nan(data, value)
    threshold, which = np.unique(-value, return_inverse=True)
    each = np.bincount(which), np.bincount(which, place != labels)
    given, wrong = (np.cumsum(one, dtype=np.float64) for one in each)
    return given, wrong, -threshold.astype(np.float64)
