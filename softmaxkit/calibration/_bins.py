"""Bins of confidence, on the host in float64: sums by bin, the errors from them, the bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

# A function that takes the weights of the rows and returns the bin of each row, and the edges.
Place = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

BINNINGS = ("width", "mass")
NORMS = ("l1", "l2", "max")


class Reliability(NamedTuple):
    """The result of `softmaxkit.calibration.reliability`."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray  # type: ignore[assignment]  # a tuple's method, which nobody will miss
    edges: np.ndarray


class Estimate(NamedTuple):
    """A value, and the bounds of a confidence interval."""

    value: float
    low: float
    high: float


class Tables(NamedTuple):
    """Sums over the rows of each bin, (classes, bins)."""

    mass: np.ndarray
    confidence: np.ndarray
    hits: np.ndarray
    edges: np.ndarray  # one more than bins


def tables(
    confidence: np.ndarray, hit: np.ndarray, weight: np.ndarray, places: Sequence[Place]
) -> Tables:
    """Return the sums by bins of (rows, classes) confidences, class by class."""
    found = []
    for p, right, place in zip(confidence.T, hit.T, places, strict=True):
        index, edges = place(weight)
        bins = len(edges) - 1
        sums = [np.bincount(index, one, bins) for one in (weight, weight * p, weight * right)]
        found.append((*sums, edges))
    return Tables(*map(np.stack, zip(*found, strict=True)))


def places(confidence: np.ndarray, bins: int, binning: str) -> list[Place]:
    """Return, for each class, the function that finds the bins of its rows and the edges."""
    place = _by_width if binning == "width" else _by_mass
    return [place(p, bins) for p in confidence.T]


def _by_width(p: np.ndarray, bins: int) -> Place:
    # A quotient is the float nearest to b / bins, as a literal is; linspace returns other floats.
    edges = np.arange(bins + 1) / bins
    index = np.searchsorted(edges[1:-1], p, side="left")
    return lambda _: (index, edges)


def _by_mass(p: np.ndarray, bins: int) -> Place:
    values, which = np.unique(p, return_inverse=True)

    def place(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mass = np.cumsum(np.bincount(which, weight))
        before = np.concatenate([[0.0], mass[:-1]])  # of smaller confidences
        index = np.minimum(before * bins // mass[-1], bins - 1).astype(np.int64)
        # A bin ends with its largest confidence; an empty bin ends where the bin before it ends.
        ends = values[np.maximum(np.searchsorted(index, np.arange(1, bins)) - 1, 0)]
        return index[which], np.concatenate([[0.0], ends, [1.0]])

    return place


def reliability(sums: Tables) -> Reliability:
    """Return means by bin."""
    divisor = np.where(sums.mass > 0, sums.mass, np.nan)
    return Reliability(sums.confidence / divisor, sums.hits / divisor, sums.mass, sums.edges)


def error(sums: Tables, norm: str) -> float:
    """Return the calibration error; over several classes, the mean (of squares) or the largest."""
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
    places: Sequence[Place],
    norm: str,
    level: float,
    resamples: int,
    seed: Any,
) -> tuple[float, float]:
    """Return the bounds of the middle `level` of the errors of samples drawn from the rows."""
    confidence, hit, weight = events
    generator = np.random.default_rng(seed)
    rows, errors = len(weight), []
    for _ in range(resamples):
        times = np.bincount(generator.integers(rows, size=rows), minlength=rows)
        errors.append(error(tables(confidence, hit, weight * times, places), norm))
    low, high = np.quantile(errors, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
