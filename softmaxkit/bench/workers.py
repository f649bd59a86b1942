"""Workers, from outside: what they are to do, what they answer, how they end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, Any

from rich.progress import Progress, TaskID

from softmaxkit.bench.measuring import SMALLEST_FOR_MEMORY, WITHOUT_RESERVES, can_read_peaks
from softmaxkit.bench.results import OURS, Cell, Result


def steps(cells: list[Cell]) -> int:
    """Return how often the progress of `measured` advances."""
    return len(cells) + len(_with_memory(cells))


def _with_memory(cells: list[Cell]) -> list[Cell]:
    return [cell for cell in cells if can_read_peaks() and cell.nbytes >= SMALLEST_FOR_MEMORY]


def measured(
    cells: list[Cell], rounds: int, about: dict[str, Any], progress: Progress, bar: TaskID
) -> Iterator[Result]:
    """Yield the result of each cell of a library and dtype."""
    memory = dict(_worked(_with_memory(cells), True, rounds, about, progress, bar))
    for cell, fields in _worked(cells, False, rounds, about, progress, bar):
        yield Result(cell, **fields, **memory.get(cell, {}))


def _worked(
    cells: list[Cell],
    memory: bool,
    rounds: int,
    about: dict[str, Any],
    progress: Progress,
    bar: TaskID,
) -> Iterator[tuple[Cell, dict[str, Any]]]:
    """Yield what a worker finds; after a cell that ends its process a new one goes on."""
    failed = "memory_failed" if memory else "failed"
    while cells:
        progress.update(bar, description=f"{cells[0].library} starts")
        done = 0
        broken = ""
        with (
            TemporaryFile("w+", errors="replace") as errors,  # of whatever encoding
            _worker(cells, memory, rounds, errors) as worker,
        ):
            try:
                assert worker.stdout is not None
                for event in map(json.loads, worker.stdout):
                    if "start" in event:
                        progress.update(bar, description=str(cells[event["start"]]))
                    elif "result" in event:
                        yield cells[done], event["result"]
                        done += 1
                        progress.advance(bar)
                    elif "broken" in event:
                        broken = event["broken"]
                    else:
                        about["libraries"][cells[0].library] = event
                worker.wait()
            finally:
                worker.kill()
            errors.seek(0)
            end = _how_it_ended(worker.returncode, errors.read())
        if broken:  # the library cannot be had
            yield from ((cell, {failed: {OURS: broken}}) for cell in cells)
            return
        if done < len(cells):
            yield cells[done], {failed: {OURS: end}}
            progress.advance(bar)
        cells = cells[done + 1 :]


def _worker(cells: list[Cell], memory: bool, rounds: int, errors: IO[str]) -> subprocess.Popen[str]:
    job = {
        "library": cells[0].library,
        "dtype": cells[0].dtype,
        "memory": memory,
        "rounds": rounds,
        "without": [cell.nbytes_not_counted for cell in cells],
        "cells": [(cell.setting, cell.operation, cell.shape) for cell in cells],
    }
    worker = subprocess.Popen(
        [sys.executable, "-m", "softmaxkit.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=os.environ | (WITHOUT_RESERVES if memory else {}),
    )
    assert worker.stdin is not None
    with suppress(BrokenPipeError), worker.stdin:  # how it ended will say why
        json.dump(job, worker.stdin)
    return worker


def _how_it_ended(code: int, errors: str) -> str:
    if code < 0:  # not on Windows, where there is no SIGKILL
        name = signal.Signals(-code).name
        killed = "the process was killed, most likely as memory ran out"
        return killed if name == "SIGKILL" else f"the process was ended by {name}"
    last = errors.strip().rpartition("\n")[2]
    return f"the process ended with exit code {code}: {last}"
