"""The command: its arguments, a worker for each library and dtype, progress, and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from softmaxkit._commands import INTERRUPTED, CommandError, check_writable
from softmaxkit._libraries import is_installed
from softmaxkit._terminal import new_console, progress, say
from softmaxkit.bench import report, workers
from softmaxkit.bench.environment import busy_line, environment
from softmaxkit.bench.libraries import DTYPES, LINEAR_SETTINGS, NAMES, SETTINGS
from softmaxkit.bench.operations import OF_LOGITS, OF_PRODUCTS, Shape
from softmaxkit.bench.results import Cell, Result


def run(
    backends: Sequence[str] | None = None,
    *,
    operations: Sequence[str] | None = None,
    shapes: Sequence[str] | None = None,
    dtypes: Sequence[str] | None = None,
    settings: Sequence[str] | None = None,
    rounds: int | None = None,
    quick: bool = False,
    linear: bool = False,
    json_file: Path | None = None,
    chart_file: Path | None = None,
    console: Console | None = None,
) -> None:
    """Measure every cell, print the tables, write the files.

    Parameters
    ----------
    backends : sequence of "numpy", "torch", "jax", "tensorflow", optional
        NumPy and every installed framework by default.
    operations : sequence of str, optional
        Of `operations.OPERATIONS`, or `LINEAR_OPERATIONS`; all by default.
    shapes : sequence of str, optional
        Such as "4096x4096", with `linear` "4096x512x65536"; by default those of `operations`.
    dtypes : sequence of str, optional
        Of the logits; float32 by default.
    settings : sequence of str, optional
        "eager", "jit", "tf.function", "XLA"; by default all that a library has, with `linear` one.
    rounds : int, at least 7, optional
        Of which the median is taken; 9 by default, with `linear` 3, and at least 1.
    quick : bool
        Take fewer operations and smaller shapes where they are not named.
    linear : bool
        Measure the losses of logits that are a product, and no others.
    json_file, chart_file : path, optional
        Where everything that was measured, and a picture, go.
    console : rich.console.Console, optional
        Where the tables go; standard output by default.

    Raises
    ------
    CommandError
        An option is wrong, something is not installed, or nothing could be measured.
    """
    console = console or new_console()
    chosen = _names("backend", backends, NAMES) or [name for name in NAMES if is_installed(name)]
    for name in chosen:
        if not is_installed(name):
            raise CommandError(
                f"--backend is {name!r}, which is not installed; pip install {name}", exit_code=1
            )
    by_default = OF_PRODUCTS if linear else OF_LOGITS
    operations = _names("operation", operations, by_default.operations) or list(
        by_default.quick_operations if quick else by_default.operations
    )
    shape = _linear_shape if linear else _shape
    sizes = list(dict.fromkeys(map(shape, shapes or ()))) or (
        by_default.quick_shapes if quick else by_default.shapes
    )
    dtypes = _names("dtype", dtypes, DTYPES) or ["float32"]
    known = dict.fromkeys(setting for name in chosen for setting in SETTINGS[name])
    settings = _names("setting", settings, known)
    usual = LINEAR_SETTINGS if linear else SETTINGS
    rounds = by_default.rounds if rounds is None else rounds
    if rounds < by_default.least_rounds:
        raise CommandError(f"--rounds is {rounds}; expected at least {by_default.least_rounds}.")
    for option, path, ending in (("--json", json_file, ".json"), ("--chart", chart_file, ".png")):
        if path is not None:
            check_writable(option, path, ending)
    _check_installed("pyperf", *(["matplotlib"] if chart_file else []))

    about = environment()
    about["rounds"] = rounds
    busy = busy_line(about["load_at_start"], about["cores_usable"])
    if busy:
        say(new_console(stderr=True), f"bench: {busy}")
    about["not_measured"] = {
        name: "not installed" for name in NAMES if not backends and not is_installed(name)
    }
    jobs = [
        [
            Cell(library, dtype, setting, operation, shape)
            for shape in sizes
            for operation in operations
            for setting in SETTINGS[library]
            if setting in (settings or usual[library])
        ]
        for library in chosen
        for dtype in dtypes
    ]
    found: list[Result] = []
    interrupted = False
    try:
        with progress() as bars:
            bar = bars.add_task("", total=sum(map(workers.steps, jobs)))
            for cells in jobs:
                for result in workers.measured(cells, rounds, about, bars, bar):
                    found.append(result)
    except KeyboardInterrupt:
        interrupted = True  # what was measured until now is shown
        if not found:
            raise
    if json_file:
        from softmaxkit.bench import files

        files.save(json_file, found, about)
    report.show(console, found, about)
    if chart_file and any(result.rivals for result in found):
        from softmaxkit.bench import chart

        chart.save(chart_file, found, about)
    if interrupted:
        what = f"{len(found)} of {sum(map(len, jobs))} cells were measured until then"
        raise CommandError(f"interrupted; {what}.", exit_code=INTERRUPTED)
    if not any(result.seconds for result in found):
        raise CommandError("nothing could be measured.", exit_code=1)


# --- arguments ------------------------------------------------------------------------------------
def _names(option: str, given: Sequence[str] | None, known: Any) -> list[str]:
    for name in given or ():
        if name not in known:
            raise CommandError(f"--{option} is {name!r}; expected one of {', '.join(known)}.")
    return [name for name in known if name in (given or ())]


def _shape(text: str) -> Shape:
    shape = _lengths(text)
    if len(shape) < 2:
        raise CommandError(
            f"--shape is {text!r}; expected ROWSxCLASSES, such as 4096x4096, or with more axes "
            f"after the classes, such as 8x21x256x256."
        )
    return shape


def _linear_shape(text: str) -> Shape:
    shape = _lengths(text)
    if len(shape) != 3:
        raise CommandError(
            f"--shape is {text!r}; expected ROWSxWIDTHxCLASSES with --linear, such as "
            f"4096x512x65536."
        )
    return shape


def _lengths(text: str) -> Shape:
    """Return the numbers of a shape, none if it is not written as one."""
    parts = text.split("x")
    if not all(part.isdecimal() and int(part) for part in parts):
        return ()
    return tuple(map(int, parts))


def _check_installed(*modules: str) -> None:
    for module in modules:
        if not is_installed(module):
            raise CommandError(
                f"{module} is not installed; pip install 'softmaxkit[bench]'", exit_code=1
            )
