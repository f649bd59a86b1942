"""The picture: a row of panels for each library, dtype and setting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from softmaxkit.bench.operations import EVERY_OPERATION
from softmaxkit.bench.results import COPY, OURS, Result, shown_shape

# Colour and marker: told apart in grey, too.
_MARKS = dict(
    zip(
        EVERY_OPERATION,
        (
            ("#4c72b0", "o"), ("#8172b3", "P"), ("#64b5cd", "s"), ("#8c8c8c", "D"),
            ("#c44e52", "^"), ("#dd8452", "v"), ("#937860", "<"), ("#55a868", ">"),
            ("#4c72b0", "o"), ("#dd8452", "v"), ("#55a868", ">"),
        ),
        strict=True,
    )
)  # fmt: skip
_INCHES_PER_SHAPE = 0.36


def over_fastest_rival(result: Result) -> float | None:
    """Time of the fastest rival over ours."""
    ratios = [result.ratio(rival, OURS) for rival in result.rivals]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


# Title, label, what is drawn, its scale.
_COLUMNS: tuple[tuple[str, str, Callable[[Result], float | None], str], ...] = (
    (
        "Speed beside the fastest rival",
        "rival time ÷ our time (right of 1: softmaxkit is faster)",
        over_fastest_rival,
        "log",
    ),
    (
        "Speed beside a copy",
        "our time ÷ time to copy the logits",
        lambda result: result.ratio(OURS, COPY),
        "log",
    ),
    (
        "Memory",
        "our peak extra memory ÷ size of the logits (large arrays)",
        lambda result: result.memory_ratio(OURS),
        "linear",
    ),
)


def save(path: Path, results: Sequence[Result], environment: dict[str, Any]) -> None:
    """Draw every cell, and write the picture to `path`."""
    # A Figure of its own, not pyplot's: it draws PNG with Agg wherever it runs, and is no global.
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    settings = list(dict.fromkeys(result.cell.place for result in results))
    shapes = list(dict.fromkeys(result.cell.shape for result in results))
    measured = {result.cell.operation for result in results}
    operations = [name for name in EVERY_OPERATION if name in measured]
    height = len(settings) * (len(shapes) * _INCHES_PER_SHAPE + 0.6) + 1.8
    figure: Any = Figure(figsize=(15, height), layout="constrained")
    machine = environment["machine"]
    figure.suptitle(
        f"softmaxkit {environment['softmaxkit']} beside each library's own functions\n"
        f"{machine.get('cpu_model_name', 'CPU of unknown name')}, "
        f"{environment['cores_usable']} cores, medians of {environment['rounds']} rounds"
    )
    panels = figure.subplots(len(settings), len(_COLUMNS), sharey=True, sharex="col", squeeze=False)
    for row, setting in zip(panels, settings, strict=True):
        among = [result for result in results if result.cell.place == setting]
        for axes, (_, _, value, _) in zip(row, _COLUMNS, strict=True):
            _draw(axes, among, shapes, operations, value)
        row[0].set_ylabel("\n".join(setting), rotation=0, ha="right", va="center", weight="bold")
    for top, bottom, (title, label, _, scale) in zip(panels[0], panels[-1], _COLUMNS, strict=True):
        top.set_title(title, fontweight="bold")
        bottom.set_xlabel(label)
        bottom.set_xscale(scale)
        if scale == "log":
            bottom.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            bottom.xaxis.set_major_formatter("{x:g}")
            bottom.xaxis.set_minor_locator(NullLocator())
        else:
            bottom.set_xlim(left=0)
    handles = {
        line.get_label(): line
        for axes in panels.flat
        for line in axes.get_lines()
        if line.get_label() in operations
    }
    figure.legend(
        [handles[name] for name in operations if name in handles],
        [name for name in operations if name in handles],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    figure.savefig(path, dpi=100)


def _draw(
    axes: Any,
    results: list[Result],
    shapes: list[tuple[int, ...]],
    operations: list[str],
    value: Callable[[Result], float | None],
) -> None:
    for i, operation in enumerate(operations):
        points = [
            (value(result), shapes.index(result.cell.shape))
            for result in results
            if result.cell.operation == operation
        ]
        known = [(x, y) for x, y in points if x]
        if known:
            shift = 0.7 * ((i + 0.5) / len(operations) - 0.5)  # side by side, not on one another
            colour, marker = _MARKS[operation]
            axes.plot(
                [x for x, _ in known],
                [y + shift for _, y in known],
                marker,
                color=colour,
                markersize=5,
                label=operation,
            )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(shapes)), map(shown_shape, shapes))
    axes.set_ylim(len(shapes) - 0.5, -0.5)
    for i in range(1, len(shapes)):
        axes.axhline(i - 0.5, color="0.85", linewidth=0.8)
    axes.grid(axis="x", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
