"""The tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from softmaxkit.bench.measuring import NO_PEAK, can_read_peaks
from softmaxkit.bench.operations import EVERY_OPERATION, is_small
from softmaxkit.bench.results import (
    COPY,
    OURS,
    Result,
    geometric_mean,
    groups,
    shown_shape,
)

_WIDTH = 136  # of the widest table


def show(console: Console, results: Sequence[Result], environment: dict[str, Any]) -> None:
    """Print a table for each library, dtype and setting, the summary, failures, environment."""
    if console.width < _WIDTH:
        console = Console(width=_WIDTH, file=console.file)
    for setting in dict.fromkeys(result.cell.place for result in results):
        console.print(_cells(setting, [r for r in results if r.cell.place == setting]))
    summary = groups(results)
    if summary:
        console.print(_summary(summary))
    limits = _limits(results)
    if limits.rows:
        console.print(limits)
    if not can_read_peaks():
        _say(console, f"memory: empty, for {NO_PEAK}.")
    for line in failures(results):
        _say(console, line, style="red")
    for line in shown_environment(environment):
        _say(console, line)


def _say(console: Console, line: str, style: str | None = None) -> None:
    console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    """Write a ratio with three digits."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def shown_seconds(seconds: float | None) -> str:
    """Write a time in the unit that fits it."""
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _cells(setting: tuple[str, str, str], results: list[Result]) -> Table:
    rivals = list(
        dict.fromkeys(
            name
            for result in results
            for name in (*result.seconds, *result.failed)
            if name not in (OURS, COPY)
        )
    )
    table = Table(
        title=f"{' '.join(setting)}: rival time ÷ ours (above 1 softmaxkit is faster)",
        caption="÷ copy: our time over that of copying the logits into fresh memory; "
        "memory: peak beyond what was there, over the size of the logits, of large arrays; "
        "the gradients that a linear loss returns do not count",
    )
    table.add_column("operation", no_wrap=True)
    for column in ("shape", "ours", "÷ copy", "memory"):
        table.add_column(column, justify="right", no_wrap=column == "shape")
    for rival in rivals:
        table.add_column(rival, justify="right", no_wrap=True)
        table.add_column("memory", justify="right")
    for result in results:
        row = [
            result.cell.operation,
            shown_shape(result.cell.shape),
            "failed" if OURS in result.failed else shown_seconds(result.time(OURS)),
            _number(result.ratio(OURS, COPY)),
            _number(result.memory_ratio(OURS)),
        ]
        for rival in rivals:
            failed = rival in result.failed
            row.append("failed" if failed else _ratio(result.ratio(rival, OURS)))
            row.append(_number(result.memory_ratio(rival)))
        table.add_row(*row)
    return table


def _ratio(value: float | None) -> str:
    return _number(value) if value is None or value >= 1 else f"[red]{_number(value)}[/]"


def _summary(found: list[Any]) -> Table:
    table = Table(title="rival time ÷ ours: geometric mean, worst of large and of small arrays")
    table.add_column("library", no_wrap=True)
    table.add_column("operations", no_wrap=True)
    table.add_column("rival", overflow="fold")
    for column in ("cells", "mean"):
        table.add_column(column, justify="right")
    table.add_column("worst large", overflow="fold")
    table.add_column("worst small", overflow="fold")
    for group in found:
        worst = []
        for small in (False, True):
            one = group.worst(small)
            worst.append(
                f"{_ratio(one[1])} {shown_shape(one[0].shape)}\n{one[0].operation}" if one else ""
            )
        table.add_row(
            f"{group.library} {group.dtype} {group.setting}",
            group.family,
            group.rival,
            str(len(group.ratios)),
            _ratio(group.mean),
            *worst,
        )
    return table


def _limits(results: Sequence[Result]) -> Table:
    table = Table(title="large arrays: our time ÷ copy, our peak extra memory ÷ logits")
    table.add_column("library", no_wrap=True)
    table.add_column("operations")
    for column in ("÷ copy: mean", "worst", "memory: mean", "worst"):
        table.add_column(column, justify="right")
    found: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for result in results:
        over_copy = result.ratio(OURS, COPY)
        if over_copy is None or is_small(result.cell.shape):
            continue
        key = " ".join(result.cell.place), EVERY_OPERATION[result.cell.operation].family
        times, memory = found.setdefault(key, ([], []))
        times.append(over_copy)
        peak = result.memory_ratio(OURS)
        if peak is not None:
            memory.append(peak)
    for key, (times, memory) in found.items():
        mean = _number(sum(memory) / len(memory)) if memory else ""
        worst = _number(max(memory)) if memory else ""
        table.add_row(*key, _number(geometric_mean(times)), _number(max(times)), mean, worst)
    return table


def failures(results: Sequence[Result]) -> list[str]:
    """Say what was not measured and why, each reason once."""
    first: dict[tuple[str, str, str], str] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for result in results:
        memory = {f"memory of {name}": why for name, why in result.memory_failed.items()}
        for contestant, reason in (result.failed | memory).items():
            key = result.cell.library, contestant, reason
            first.setdefault(key, str(result.cell))
            counts[key] += 1
    return [
        f"not measured: {contestant} in {first[key]}"
        f"{f' and {counts[key] - 1} more' if counts[key] > 1 else ''}: {reason}"
        for key in counts
        for _, contestant, reason in [key]
    ]


def shown_environment(environment: dict[str, Any]) -> list[str]:
    """Say what the numbers depend on."""
    machine = environment["machine"]
    lines = [
        f"{machine.get('cpu_model_name', 'CPU of unknown name')}, "
        f"{environment['cores_usable']} cores usable, {machine['platform']}; "
        f"Python {machine['python_version']}; medians of {environment['rounds']} rounds",
        f"softmaxkit {environment['softmaxkit']}, commit {environment['commit']}",
    ]
    for name, about in environment["libraries"].items():
        versions = ", ".join(f"{each} {version}" for each, version in about["versions"].items())
        lines.append(f"{name}: {versions}; threads: {about['threads']}")
    lines += [f"{name}: {why}" for name, why in environment["not_measured"].items()]
    return lines
