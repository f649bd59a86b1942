"""The picture: a row of panels for each library, dtype and setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from pathlib import Path
from typing import Any

from softmaxkit import _palette
from softmaxkit._commands import save_picture
from softmaxkit.bench.operations import EVERY_OPERATION
from softmaxkit.bench.results import COPY, LARGE_SPREAD, OURS, Result, shown_shape

# Colour and marker: told apart in grey, too.
_MARKS = dict(
    zip(
        EVERY_OPERATION,
        (
            (_palette.BLUE, "o"), (_palette.PURPLE, "P"), (_palette.SKY_BLUE, "s"),
            (_palette.GREY, "D"), (_palette.VERMILLION, "^"), (_palette.ORANGE, "v"),
            (_palette.BLACK, "<"), (_palette.GREEN, ">"),
            (_palette.BLUE, "o"), (_palette.ORANGE, "v"), (_palette.GREEN, ">"),
        ),
        strict=True,
    )
)  # fmt: skip
_INCHES_PER_SHAPE, _INCHES_PER_MARKER = 0.36, 0.07


def over_fastest_rival(result: Result) -> float | None:
    """Time of the fastest rival over ours."""
    ratios = [result.ratio(rival, OURS) for rival in result.rivals]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


# Title, label, what is drawn, the contestants whose spread matters, the scale.
_Column = tuple[str, str, Callable[[Result], float | None], Callable[[Result], list[str]], str]
_COLUMNS: tuple[_Column, ...] = (
    (
        "Speed beside the fastest rival",
        "rival time ÷ our time (right of 1: softmaxkit is faster)",
        over_fastest_rival,
        lambda result: [OURS, *result.rivals],
        "log",
    ),
    (
        "Speed beside a copy",
        "our time ÷ time to copy the logits",
        lambda result: result.ratio(OURS, COPY),
        lambda result: [OURS, COPY],
        "log",
    ),
    (
        "Memory",
        "our peak extra memory ÷ size of the logits (large arrays)",
        lambda result: result.memory_ratio(OURS),
        lambda result: [],
        "linear",
    ),
)


def save(path: Path, results: Sequence[Result], environment: dict[str, Any]) -> None:
    """Draw every cell, and write the picture to `path`."""
    # A Figure of its own, not pyplot's: it draws PNG with Agg wherever it runs, and is no global.
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    places = list(dict.fromkeys(result.cell.place for result in results))
    shapes = list(dict.fromkeys(result.cell.shape for result in results))
    operations = list(dict.fromkeys(result.cell.operation for result in results))
    columns = [one for one in _COLUMNS if any(one[2](result) for result in results)]
    inches = max(_INCHES_PER_SHAPE, _INCHES_PER_MARKER * len(operations))
    height = len(places) * (len(shapes) * inches + 0.6) + 1.8
    figure: Any = Figure(figsize=(2 + 4.5 * len(columns), height), layout="constrained")
    machine = environment["machine"]
    figure.suptitle(
        f"softmaxkit {environment['softmaxkit']} beside each library's own functions\n"
        f"{machine.get('cpu_model_name', 'CPU of unknown name')}, "
        f"{environment['cores_usable']} cores, medians of {environment['rounds']} rounds"
    )
    panels = figure.subplots(len(places), len(columns), sharey=True, sharex="col", squeeze=False)
    for row, place in zip(panels, places, strict=True):
        among = [result for result in results if result.cell.place == place]
        for axes, (_, _, value, contestants, _) in zip(row, columns, strict=True):
            _draw(axes, among, shapes, operations, value, contestants)
        row[0].set_ylabel("\n".join(place), rotation=0, ha="right", va="center", weight="bold")
    for i, (title, label, value, _, scale) in enumerate(columns):
        panels[0, i].set_title(title, fontweight="bold")
        panels[-1, i].set_xlabel(label)
        if scale == "log":
            _set_log_scale(panels[-1, i], [x for x in map(value, results) if x])
        else:
            panels[-1, i].set_xlim(left=0)
    handles = [
        Line2D([], [], color=_MARKS[name][0], marker=_MARKS[name][1], linestyle="", label=name)
        for name in operations
    ]
    if any(result.is_unsteady(*result.seconds) for result in results):
        label = f"hollow: spread of {LARGE_SPREAD:.0%} or more, not to be relied on"
        hollow: dict[str, Any] = {"color": _palette.BLACK, "marker": "o", "fillstyle": "none"}
        handles.append(Line2D([], [], linestyle="", label=label, **hollow))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(columns), frameon=False)
    save_picture("--chart", path, figure, dpi=100)


def _set_log_scale(axes: Any, values: Sequence[float]) -> None:
    """Label as many steps of a decade as have room beside each other."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set_xscale("log")
    low, high = min(*values, 0.5) / 1.2, max(*values, 2) * 1.2
    axes.set_xlim(low, high)
    decades = log10(high / low)
    steps = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=7))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _draw(
    axes: Any,
    results: list[Result],
    shapes: list[tuple[int, ...]],
    operations: list[str],
    value: Callable[[Result], float | None],
    contestants: Callable[[Result], list[str]],
) -> None:
    for result in results:
        x = value(result)
        if x:
            i = operations.index(result.cell.operation)
            shift = 0.7 * ((i + 0.5) / len(operations) - 0.5)  # side by side, not on one another
            colour, marker = _MARKS[result.cell.operation]
            filled = "none" if result.is_unsteady(*contestants(result)) else "full"
            axes.plot(
                [x],
                [shapes.index(result.cell.shape) + shift],
                marker,
                color=colour,
                markersize=6,
                fillstyle=filled,
            )
    axes.axvline(1, color=_palette.BLACK, linewidth=1)
    axes.set_yticks(range(len(shapes)), map(shown_shape, shapes))
    axes.set_ylim(len(shapes) - 0.5, -0.5)
    for i in range(1, len(shapes)):
        axes.axhline(i - 0.5, color="0.85", linewidth=0.8)
    axes.grid(axis="x", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
