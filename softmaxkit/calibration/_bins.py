"""Bins of confidence, on the host in float64: sums by bin, what they come to, the bootstrap."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BINNINGS = ("width", "mass")
NORMS = ("l1", "l2", "max")


class Reliability(NamedTuple):
    """What `softmaxkit.calibration.reliability` gives."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # a tuple's method, which nobody will miss
    edges: np.ndarray


class Estimate(NamedTuple):
    """A value, and the bounds of an interval of confidence."""

    value: float
    low: float
    high: float


class Tables(NamedTuple):
    """Sums over the rows of each bin, (classes, bins)."""

    mass: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray
    edges: np.ndarray  # one more


def tables(
    confidence: np.ndarray, hit: np.ndarray, weight: np.ndarray, bins: int, binning: str
) -> Tables:
    """Return the sums by bins of (rows, classes) confidences, class by class."""
    place = _by_width if binning == "width" else _by_mass
    found = []
    for p, right in zip(confidence.T, hit.T, strict=True):
        p = p.astype(np.float64)
        index, edges = place(p, weight, bins)
        sums = [np.bincount(index, one, bins) for one in (weight, weight * p, weight * right)]
        found.append((*sums, edges))
    return Tables(*map(np.stack, zip(*found, strict=True)))


def _by_width(p: np.ndarray, weight: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    # A quotient is the float nearest to b / bins, as a literal is; those of linspace are not.
    edges = np.arange(bins + 1) / bins
    return np.searchsorted(edges[1:-1], p, side="left"), edges


def _by_mass(p: np.ndarray, weight: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    values, which = np.unique(p, return_inverse=True)
    mass = np.cumsum(np.bincount(which, weight))
    before = np.concatenate([[0.0], mass[:-1]])  # of smaller confidences
    index = np.minimum(before * bins // mass[-1], bins - 1).astype(np.int64)
    # A bin ends with its largest confidence; an empty one where the bin before it does.
    ends = values[np.maximum(np.searchsorted(index, np.arange(1, bins)) - 1, 0)]
    return index[which], np.concatenate([[0.0], ends, [1.0]])


def reliability(sums: Tables) -> Reliability:
    """Return means by bin."""
    divisor = np.where(sums.mass > 0, sums.mass, np.nan)
    return Reliability(sums.confidence / divisor, sums.hits / divisor, sums.mass, sums.edges)


def error(sums: Tables, norm: str) -> float:
    """Return the calibration error; of several classes the mean (of squares), or the largest."""
    excess = abs(sums.confidence - sums.hits)
    divisor = np.where(sums.mass > 0, sums.mass, 1.0)
    if norm == "max":
        return float((excess / divisor).max())
    total = sums.mass.sum(1)
    if norm == "l1":
        return float((excess.sum(1) / total).mean())
    return float(np.sqrt(((excess**2 / divisor).sum(1) / total).mean()))


def bootstrap(
    events: tuple[np.ndarray, np.ndarray, np.ndarray],
    how: tuple[int, str, str],
    level: float,
    resamples: int,
    seed: Any,
) -> tuple[float, float]:
    """Return the bounds of the middle of the errors of samples drawn from the rows."""
    confidence, hit, weight = events
    bins, binning, norm = how
    generator = np.random.default_rng(seed)
    rows, errors = len(weight), []
    for _ in range(resamples):
        times = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        errors.append(error(tables(confidence, hit, weight * times, bins, binning), norm))
    low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
