"""The JSON file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from pathlib import Path
from typing import Any

import pyperf

from softmaxkit.bench.results import Cell, Result, shown_shape


def save(path: Path, results: Sequence[Result], environment: dict[str, Any]) -> None:
    """Write everything: a file of pyperf, with what it has no place for under "softmaxkit"."""
    benchmarks = [
        pyperf.Benchmark([_run(result, contestant, environment)])
        for result in results
        for contestant in result.seconds
    ]
    data: dict[str, Any] = {"version": "1.0", "benchmarks": []}
    if benchmarks:
        text = StringIO()
        pyperf.BenchmarkSuite(benchmarks).dump(text)
        data = json.loads(text.getvalue())
    failed = [
        asdict(result.cell) | {"failed": result.failed, "memory_failed": result.memory_failed}
        for result in results
        if result.failed or result.memory_failed
    ]
    data["softmaxkit"] = {"environment": environment, "failed": failed}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def _run(result: Result, contestant: str, environment: dict[str, Any]) -> pyperf.Run:
    cell = result.cell
    metadata = {
        **environment["machine"],
        "name": f"{cell} {contestant}",
        "contestant": contestant,
        **asdict(cell),
        "shape": shown_shape(cell.shape),
        "loops": result.loops[contestant],
    }
    spread = result.spread(contestant)
    if spread is not None:  # for readers of the file: it comes from the values
        metadata["spread"] = spread
    if contestant in result.memory:
        metadata["extra_memory_bytes"] = result.memory[contestant]
    return pyperf.Run(result.seconds[contestant], metadata=metadata, collect_metadata=False)


def load(path: Path) -> tuple[list[Result], dict[str, Any]]:
    """Read back what `save` wrote: results and environment."""
    results: dict[Cell, Result] = {}
    data = json.loads(path.read_text(encoding="utf-8"))
    if data["benchmarks"]:
        for benchmark in pyperf.BenchmarkSuite.load(str(path)):
            metadata = benchmark.get_metadata()
            cell = _cell(metadata | {"shape": map(int, metadata["shape"].split("x"))})
            result = results.setdefault(cell, Result(cell))
            contestant = metadata["contestant"]
            result.seconds[contestant] = list(benchmark.get_values())
            result.loops[contestant] = metadata["loops"]
            if "extra_memory_bytes" in metadata:
                result.memory[contestant] = metadata["extra_memory_bytes"]
    for one in data["softmaxkit"]["failed"]:
        cell = _cell(one)
        result = results.setdefault(cell, Result(cell))
        result.failed, result.memory_failed = one["failed"], one["memory_failed"]
    return list(results.values()), data["softmaxkit"]["environment"]


def _cell(of: dict[str, Any]) -> Cell:
    return Cell(of["library"], of["dtype"], of["setting"], of["operation"], tuple(of["shape"]))
