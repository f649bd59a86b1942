"""The tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from softmaxkit._terminal import heading, new_table, print_table, say
from softmaxkit.bench.environment import busy_line
from softmaxkit.bench.measuring import NO_PEAK, can_read_peaks
from softmaxkit.bench.operations import EVERY_OPERATION, is_small
from softmaxkit.bench.results import (
    COPY,
    LARGE_SPREAD,
    OURS,
    Result,
    geometric_mean,
    groups,
    shown_shape,
)

UNSTEADY = "?"  # behind a number that is not to be relied on


def show(console: Console, results: Sequence[Result], environment: dict[str, Any]) -> None:
    """Print tables for each library, dtype and setting, the summary, failures, environment."""
    for place in dict.fromkeys(result.cell.place for result in results):
        among = [result for result in results if result.cell.place == place]
        print_table(console, _times(place, among))
        if any(result.memory for result in among):
            print_table(console, _memory(place, among))
    measured = [result for result in results if result.seconds]
    if measured:
        print_table(console, _summary(results))
        if any(result.ratio(OURS, COPY) and not is_small(result.cell.shape) for result in measured):
            print_table(console, _limits(results))
        for line in (*_explanations(measured), *_warnings(measured)):
            say(console, line)
        say(console, "")
    if not can_read_peaks():
        say(console, f"memory: not measured, for {NO_PEAK}.")
    for line in failures(results):
        say(console, line, style="red")
    for line in shown_environment(environment):
        say(console, line)


def _explanations(results: Sequence[Result]) -> list[str]:
    lines = ["ours: median time of a call. A rival: its time ÷ ours; above 1 softmaxkit is faster."]
    if any(COPY in result.seconds for result in results):
        lines.append("÷ copy: our time ÷ that of copying the logits into fresh memory.")
    lines.append(
        "spread: how far the quartiles of the rounds are apart, over their median; the largest of "
        "the row."
    )
    if any(result.memory for result in results):
        lines.append(
            "memory: peak beyond what was there ÷ size of the logits, of large arrays; the "
            "gradients that a linear loss returns do not count."
        )
    return lines


def _warnings(results: Sequence[Result]) -> list[str]:
    """Say what the mark means, where there is one."""
    unsteady = sum(result.is_unsteady(*result.seconds) for result in results)
    if not unsteady:
        return []
    return [
        f"{UNSTEADY}: a time that this number comes from has a spread of {LARGE_SPREAD:.0%} or "
        f"more ({unsteady} of {len(results)} cells); do not rely on it. Close other programs, and "
        f"run these cells again, with more --rounds."
    ]


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


def _rivals(results: Sequence[Result]) -> list[str]:
    names = (name for result in results for name in (*result.seconds, *result.failed))
    return [name for name in dict.fromkeys(names) if name not in (OURS, COPY)]


def _by_operation(
    table: Table, results: Sequence[Result], row: Callable[[Result], Sequence[str | Text]]
) -> Table:
    """Fill a table: a line with the name of each operation, below it one for each shape."""
    for operation in dict.fromkeys(result.cell.operation for result in results):
        table.add_row(operation)
        for result in results:
            if result.cell.operation == operation:
                table.add_row(f"  {shown_shape(result.cell.shape)}", *row(result))
    return table


def _times(place: tuple[str, str, str], results: Sequence[Result]) -> Table:
    rivals = _rivals(results)
    copied = any(COPY in result.seconds for result in results)
    names = ["operation, shape", "ours", *(["÷ copy"] if copied else []), *map(heading, rivals)]

    def row(result: Result) -> list[str | Text]:
        time = _marked(shown_seconds(result.time(OURS)), result.is_unsteady(OURS))
        cells: list[str | Text] = ["failed " if OURS in result.failed else time]
        if copied:
            over_copy = _number(result.ratio(OURS, COPY))
            cells.append(_marked(over_copy, result.is_unsteady(OURS, COPY)))
        for rival in rivals:
            shown = _ratio(result.ratio(rival, OURS), result.is_unsteady(OURS, rival))
            cells.append("failed " if rival in result.failed else shown)
        spreads = [result.spread(one) for one in result.seconds]
        largest = max((one for one in spreads if one is not None), default=None)
        return [*cells, "" if largest is None else f"{largest:.0%}"]

    return _by_operation(new_table(f"{' '.join(place)}: time", [*names, "spread"]), results, row)


def _memory(place: tuple[str, str, str], results: Sequence[Result]) -> Table:
    results = [result for result in results if result.memory]
    rivals = [name for name in _rivals(results) if any(name in one.memory for one in results)]
    names = ["operation, shape", "ours", *map(heading, rivals)]
    table = new_table(f"{' '.join(place)}: memory", names)
    return _by_operation(
        table, results, lambda one: [_number(one.memory_ratio(name)) for name in (OURS, *rivals)]
    )


def _marked(number: str, unsteady: bool) -> str:
    return number + (UNSTEADY if number and unsteady else " ")


def _ratio(value: float | None, unsteady: bool) -> Text:
    is_slower = value is not None and value < 1
    return Text(_marked(_number(value), unsteady), "red" if is_slower else "")


def _summary(results: Sequence[Result]) -> Table:
    table = new_table(
        "Rival time ÷ ours: geometric means and worst cells",
        ["library, operations, rival", "ratio", "where"],
        prose=["where"],
    )
    unsteady = {
        (result.cell, rival)
        for result in results
        for rival in result.rivals
        if result.is_unsteady(OURS, rival)
    }
    found = groups(results)
    for place in dict.fromkeys((one.library, one.dtype, one.setting) for one in found):
        table.add_row(" ".join(place))
        for group in found:
            if (group.library, group.dtype, group.setting) != place:
                continue
            name, cells = f"  {group.family}, {group.rival}", list(group.ratios)
            doubtful = any((cell, group.rival) in unsteady for cell in cells)
            table.add_row(name, _ratio(group.mean, doubtful), f"mean of {len(cells)} cells")
            for small, size in ((False, "large"), (True, "small")):
                worst = group.worst(small)
                if worst is not None:
                    cell, ratio = worst
                    table.add_row(
                        f"    worst of {size} arrays",
                        _ratio(ratio, (cell, group.rival) in unsteady),
                        f"{cell.operation} {shown_shape(cell.shape)}",
                    )
    return table


def _limits(results: Sequence[Result]) -> Table:
    """Return means and worst cells of our own time and memory, of large arrays."""
    found: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        if result.ratio(OURS, COPY) is not None and not is_small(result.cell.shape):
            key = " ".join(result.cell.place), EVERY_OPERATION[result.cell.operation].family
            found.setdefault(key, []).append(result)
    has_memory = any(OURS in one.memory for among in found.values() for one in among)
    table = new_table(
        f"Large arrays: our time ÷ copy{', our memory ÷ logits' if has_memory else ''}",
        [
            "library, operations",
            *("time:\nmean", "time:\nworst"),
            *(("memory:\nmean", "memory:\nworst") if has_memory else ()),
        ],
    )
    for place in dict.fromkeys(place for place, _ in found):
        table.add_row(place)
        for (where, family), among in found.items():
            if where == place:
                memory = _mean_and_worst_memory(among)  # of none, no cells
                table.add_row(f"  {family}", *_times_over_copy(among), *memory)
    return table


def _times_over_copy(results: Sequence[Result]) -> list[str]:
    ratios = [
        (ratio, one.is_unsteady(OURS, COPY))
        for one in results
        if (ratio := one.ratio(OURS, COPY)) is not None
    ]
    mean = geometric_mean([ratio for ratio, _ in ratios])
    worst, doubtful = max(ratios)
    return [
        _marked(_number(mean), any(unsteady for _, unsteady in ratios)),
        _marked(_number(worst), doubtful),
    ]


def _mean_and_worst_memory(results: Sequence[Result]) -> list[str]:
    peaks = [peak for one in results if (peak := one.memory_ratio(OURS)) is not None]
    return [_number(sum(peaks) / len(peaks)), _number(max(peaks))] if peaks else []


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
    busy = busy_line(environment.get("load_at_start"), environment["cores_usable"])
    if busy:
        lines.append(busy)
    for name, about in environment["libraries"].items():
        versions = ", ".join(f"{each} {version}" for each, version in about["versions"].items())
        lines.append(f"{name}: {versions}; threads: {about['threads']}")
    lines += [f"{name}: {why}" for name, why in environment["not_measured"].items()]
    return lines
