"""The process that measures time, or memory, of a library in a dtype.

Its job comes by stdin, as JSON. What it finds goes to stdout, one JSON object a line: first
{"versions", "threads"} of the library, or why it cannot be had, then for each cell {"start"} and
{"result"}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np

import softmaxkit
from softmaxkit._libraries import import_quietly, is_installed
from softmaxkit.bench import libraries, measuring
from softmaxkit.bench.measuring import Call
from softmaxkit.bench.operations import EVERY_OPERATION, Shape
from softmaxkit.bench.results import COPY


class Inputs:
    """Arrays of a shape in a library."""

    def __init__(self, library: libraries.Library, dtype: str, shape: Shape) -> None:
        self._array, self._dtype, self.shape = library.array, dtype, shape
        self._random = np.random.default_rng(0)
        self.logits = library.array(self._normal(), dtype)

    @property
    def variables(self) -> tuple[Any, ...]:
        """What an operation may be differentiated by."""
        return (self.logits,)

    def _normal(self) -> np.ndarray:
        return 2 * self._random.standard_normal(self.shape, np.float32)

    @cached_property
    def labels(self) -> Any:
        """Class indices."""
        rows, classes, *more = self.shape
        return self._array(self._random.integers(classes, size=(rows, *more)), None)

    @cached_property
    def probabilities(self) -> Any:
        """Targets that add up to 1 along the classes."""
        return self._array(softmaxkit.softmax(self._normal(), axis=1), self._dtype)

    @cached_property
    def mask(self) -> Any:
        """Which classes take part: a causal mask, as often as the rows have need of it."""
        rows, classes, *more = self.shape
        mask = np.arange(classes) <= np.arange(rows)[:, None] % classes
        mask = mask.reshape(rows, classes, *(1 for _ in more))
        return self._array(np.broadcast_to(mask, self.shape), None)


class LinearInputs:
    """Arrays whose product are logits, of a shape (rows, width, classes), in a library."""

    def __init__(self, library: libraries.Library, dtype: str, shape: Shape) -> None:
        self.shape = shape
        rows, width, classes = shape
        random = np.random.default_rng(0)
        hidden = random.standard_normal((rows, width), np.float32)
        weight_matrix = random.standard_normal((classes, width), np.float32)
        weight_matrix *= 2 / width**0.5  # logits as large as those of `Inputs`
        self.variables = library.array(hidden, dtype), library.array(weight_matrix, dtype)
        self.labels = library.array(random.integers(classes, size=rows), None)


def measure_time(calls: Mapping[str, Call], rounds: int) -> dict[str, Any]:
    """Return the seconds of each call in each round; the fields of `results.Result`."""
    loops: dict[str, int] = {}
    failed: dict[str, str] = {}
    for contestant, call in calls.items():
        try:
            call()  # compiles
            loops[contestant] = measuring.calls_in_a_round(call)
        except Exception as error:
            failed[contestant] = why(error)
    seconds = measuring.alternate({name: calls[name] for name in loops}, loops, rounds)
    return {"seconds": seconds, "loops": loops, "failed": failed}


def measure_memory(calls: Mapping[str, Call], without: int = 0) -> dict[str, Any]:
    """Return the memory of each call less some bytes; the fields of `results.Result`."""
    memory: dict[str, int] = {}
    failed: dict[str, str] = {}
    for contestant, call in calls.items():
        try:
            call()  # compiles
            memory[contestant] = measuring.extra_peak(call) - without
        except Exception as error:
            failed[contestant] = why(error)
    return {"memory": memory, "memory_failed": failed}


def calls_of(
    library: libraries.Library, inputs: Inputs | LinearInputs, setting: str, name: str
) -> tuple[dict[str, Call], dict[str, str]]:
    """Return what each contestant of a cell is to do, and why another one cannot."""
    operation = EVERY_OPERATION[name]
    arrays = [library.variable(x) if operation.gradient else x for x in inputs.variables]
    arrays += [getattr(inputs, operation.beside)] if operation.beside else []
    calls: dict[str, Call] = {}
    missing: dict[str, str] = {}
    for contestant, function in libraries.contestants(library, name, setting).items():
        if isinstance(function, str):
            missing[contestant] = function
        else:
            calls[contestant] = _waiting(library, function, arrays)
    if not operation.linear:
        calls[COPY] = _waiting(library, library.copy, [*inputs.variables])
    return calls, missing


def _waiting(library: libraries.Library, function: Callable[..., Any], arrays: list[Any]) -> Call:
    wait = library.wait
    if wait is None:
        return lambda: function(*arrays)

    def call() -> Any:
        result = function(*arrays)
        wait(result)
        return result

    return call


def why(error: BaseException) -> str:
    """Return the first line of what an exception says, with its type."""
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def main() -> None:
    """Do the job."""
    job = json.load(sys.stdin)
    # What a library prints must not come between.
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def say(**event: Any) -> None:
            print(json.dumps(event), file=answers, flush=True)

        dtype = job["dtype"]
        try:
            module = import_quietly(job["library"])
            library = libraries.load(job["library"], dtype)
        except Exception as error:
            say(broken=why(error))
            return
        needed = {rival.requires for rival in library.rivals.values() if rival.requires}
        versions = {job["library"]: module.__version__} | {
            name: import_module(name).__version__ for name in sorted(needed) if is_installed(name)
        }
        say(versions=versions, threads=library.threads)
        inputs = None
        for i, (setting, operation, shape) in enumerate(job["cells"]):
            say(start=i)
            if inputs is None or inputs.shape != tuple(shape):
                inputs = None  # frees the arrays before the next are made
                of = LinearInputs if EVERY_OPERATION[operation].linear else Inputs
                inputs = of(library, dtype, tuple(shape))
            calls, missing = calls_of(library, inputs, setting, operation)
            if job["memory"]:
                say(result=measure_memory(calls, job["without"][i]))
            else:
                result = measure_time(calls, job["rounds"])
                result["failed"] |= missing
                say(result=result)


if __name__ == "__main__":
    main()
