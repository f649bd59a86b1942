"""Pictures, with matplotlib; in shapes and strokes that are told apart without colour, too."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from softmaxkit import _palette
from softmaxkit._typing import AnyArray, ArrayLike, Kind
from softmaxkit.calibration._reliability import Estimate, calibration_error, reliability
from softmaxkit.calibration._selection import risk_coverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
else:
    Axes = Any

__all__ = ["plot_reliability", "plot_risk_coverage"]

# Of curves on one picture, in turn.
STROKES = ("-", "--", ":", "-.")
COLOURS = (_palette.BLUE, _palette.VERMILLION, _palette.BLACK, _palette.GREEN)
# Behind the words of a legend, which may have to stand on bars.
LEGEND = {"fontsize": "small", "framealpha": 0.85, "edgecolor": "none", "fancybox": False}


def plot_reliability(
    scores: AnyArray,
    labels: ArrayLike,
    *,
    ax: Axes | None = None,
    from_logits: bool = True,
    bins: int = 15,
    binning: Literal["width", "mass"] = "width",
    interval: float | None = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> Axes:
    """Draw a reliability diagram: accuracy over confidence, and the share of rows in each bin.

    The calibration error stands above the legend.

    Parameters
    ----------
    scores, labels, from_logits, bins, binning, axis, sample_weight, where, ignore_index
        As for `calibration_error`.
    temperature, resamples, seed
        As for `calibration_error`.
    interval : float in (0, 1) or None, default 0.95
        As for `calibration_error`; with None the error stands alone.
    ax : matplotlib.axes.Axes, optional
        Where it is drawn; a new figure of pyplot's by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        matplotlib is not installed.
    TypeError, ValueError, IndexError
        As `calibration_error`.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, figure 1.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import plot_reliability
    >>> logits, labels = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([0, 1])
    >>> plot_reliability(logits, labels).get_xlabel()  # doctest: +SKIP
    'confidence'
    """
    how: dict[str, Any] = {
        "from_logits": from_logits,
        "bins": bins,
        "binning": binning,
        "axis": axis,
        "sample_weight": sample_weight,
        "where": where,
        "ignore_index": ignore_index,
        "temperature": temperature,
    }
    found = reliability(scores, labels, **how)
    error = calibration_error(
        scores, labels, interval=interval, resamples=resamples, seed=seed, **how
    )
    ax = axes("plot_reliability", ax)
    there = found.count > 0
    left, width = found.edges[:-1], np.diff(found.edges)
    bars: dict[str, Any] = {"align": "edge", "color": _palette.SKY_BLUE, "alpha": 0.6}
    ax.bar(
        *(left[there], found.accuracy[there], width[there]),
        label="accuracy",
        edgecolor="white",
        **bars,
    )
    stroke: dict[str, Any] = {"color": _palette.BLACK, "linestyle": "--", "linewidth": 1}
    ax.plot([0, 1], [0, 1], label="calibrated", **stroke)
    dots: dict[str, Any] = {
        "color": _palette.BLACK,
        "marker": "o",
        "linestyle": "",
        "markersize": 4,
    }
    ax.plot(
        found.confidence[there],
        found.accuracy[there],
        label="mean confidence",
        clip_on=False,
        **dots,
    )
    share = found.count / found.count.sum()
    stroke = {"color": _palette.VERMILLION, "linestyle": ":", "linewidth": 1.8}
    ax.stairs(share, found.edges, label="share of rows", **stroke)
    ax.set(xlabel="confidence", ylabel="accuracy, share of rows", xlim=(0, 1), ylim=(0, 1))
    if isinstance(error, Estimate):
        title = f"ECE {error.value:.3f} [{error.low:.3f}, {error.high:.3f}]"
    else:
        title = f"ECE {error:.3f}"
    ax.legend(title=title, title_fontsize="small", **LEGEND)
    return ax


def plot_risk_coverage(
    logits: AnyArray,
    labels: ArrayLike,
    *,
    ax: Axes | None = None,
    label: str | None = None,
    kind: Kind = "probability",
    axis: int = -1,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> Axes:
    """Draw the share of wrong answers over the share of rows that are given one.

    Parameters
    ----------
    logits, labels, kind, axis, where, ignore_index, temperature
        As for `risk_coverage`.
    ax : matplotlib.axes.Axes, optional
        Where it is drawn; a new figure of pyplot's by default. Curves that are drawn on the same
        one differ in their strokes.
    label : str, optional
        Of this curve in the legend; `kind` by default.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ImportError
        matplotlib is not installed.
    TypeError, ValueError, IndexError
        As `risk_coverage`.

    References
    ----------
    Geifman and El-Yaniv 2017, arXiv:1705.08500, figure 1.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import plot_risk_coverage
    >>> logits, labels = np.array([[2.0, 1.0], [0.5, 3.0]]), np.array([0, 1])
    >>> plot_risk_coverage(logits, labels).get_xlabel()  # doctest: +SKIP
    'coverage: share of rows answered'
    """
    found = risk_coverage(
        logits,
        labels,
        kind=kind,
        axis=axis,
        where=where,
        ignore_index=ignore_index,
        temperature=temperature,
    )
    ax = axes("plot_risk_coverage", ax)
    place = len(ax.lines) % len(STROKES)
    stroke = {"color": COLOURS[place], "linestyle": STROKES[place], "linewidth": 1.8}
    ax.plot(found.coverage, found.risk, label=label or kind, **stroke)
    ax.set(xlabel="coverage: share of rows answered", ylabel="risk: share of wrong answers")
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0, auto=None)  # whose top the next curve may raise
    ax.legend(**LEGEND)
    return ax


def axes(call: str, ax: Any) -> Any:
    """Return the given Axes, or those of a new figure."""
    if ax is not None:
        return ax
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ModuleNotFoundError as missing:
        raise ImportError(
            f"{call}: {missing.name} is not installed; pip install 'softmaxkit[plot]'"
        ) from None
    return pyplot.subplots(layout="constrained")[1]
