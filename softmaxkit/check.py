"""``softmaxkit check``: the conformance suite on the libraries that are installed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console

from softmaxkit import conformance
from softmaxkit._commands import INTERRUPTED, CommandError
from softmaxkit._libraries import is_installed
from softmaxkit._terminal import heading, new_console, new_table, print_table, progress, say
from softmaxkit.conformance.adapters import REQUIRES

__all__ = ["run"]

# Processor time of the suite in one dtype, eagerly, rounded up: what `time softmaxkit check
# --backend` printed for each library on an AMD EPYC.
SECONDS = {"numpy": 10, "torch": 30, "jax": 120, "tensorflow": 30, "array_api_strict": 20}
SECONDS_OF_ANOTHER = 120  # Dask's, too


@dataclass
class Found:
    """What has come out so far."""

    # By library and operation.
    results: dict[tuple[str, str], list[conformance.Result]] = field(
        default_factory=lambda: defaultdict(list)
    )
    # By library and setting: how many checks of an operation passed, and with " ran" how many ran.
    counts: dict[tuple[str, str], Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )
    errors: list[str] = field(default_factory=list)
    not_run: Counter[tuple[str, str]] = field(default_factory=Counter)
    cases: int = 0  # that are done

    def add(
        self, adapter: conformance.Adapter, case: conformance.Case, dtype: str, transform: str
    ) -> None:
        """Run a case, unless the transform lacks it."""
        setting = f"{adapter.name} {dtype} {transform}"
        counts = self.counts[adapter.name, f"{dtype} {transform}"]
        lacks = adapter.leaves_out(case, transform)
        if lacks:
            self.not_run[f"{adapter.name} {transform}", lacks] += 1
            return
        try:
            ran = list(conformance.run_case(adapter, case, dtype, transform))
        except Exception as error:  # a case that raises must not hide the others
            reason = str(error).partition("\n")[0]
            self.errors.append(f"{setting} {case}: {type(error).__name__}: {reason}")
            counts[f"{case.operation} ran"] += 1
            return
        self.results[adapter.name, case.operation] += ran
        counts[f"{case.operation} ran"] += len(ran)
        counts[case.operation] += sum(one.passed for one in ran)
        self.errors += [
            f"{setting} {case}, {one.what}: {one.problem}" for one in ran if not one.passed
        ]

    def verdict(self) -> str:
        """Say how it went."""
        checks = sum(n for c in self.counts.values() for name, n in c.items() if " ran" in name)
        if self.errors:
            return f"{len(self.errors)} of {checks} checks FAILED"
        return f"all {checks} checks passed"


def run(
    backends: Sequence[str] | None = None,
    *,
    dtype: str = "float32",
    transform: str = "eager",
    every: bool = False,
    console: Console | None = None,
) -> int:
    """Run the suite; print the largest errors, what was not run and why, failures, a verdict.

    Parameters
    ----------
    backends : sequence of str, optional
        Names of adapters, or "package.module:adapter"; all that are installed by default.
    dtype, transform : str
        What they are tested in.
    every : bool
        Test every dtype and transform of each instead.
    console : rich.console.Console, optional
        Where it is printed; standard output by default.

    Returns
    -------
    int
        The exit code: 0, or 1 where a check failed or none ran, or 130 where Ctrl-C ended it.

    Raises
    ------
    CommandError
        An option is wrong.
    """
    console = console or new_console()
    adapters = [_adapter(name, dtype, transform) for name in backends or conformance.names()]
    settings = [
        (adapter, *setting)
        for adapter in adapters
        for setting in (conformance.settings(adapter) if every else [(dtype, transform)])
    ]
    cases = list(conformance.cases())
    where = "every dtype and transform" if every else f"{dtype}, {transform}"
    total = len(cases) * len(settings)
    say(
        console,
        f"check: {len(cases)} cases on {_listed(adapters)} in {where}: "
        f"{_duration(adapters, every, transform)}. Ctrl-C shows what was found until then.",
    )
    found = Found()
    interrupted = False
    try:
        with progress() as bars:
            bar = bars.add_task("", total=total)
            for adapter, dtype, transform in settings:
                bars.update(bar, description=f"{adapter.name} {dtype} {transform}")
                for case in cases:
                    found.add(adapter, case, dtype, transform)
                    found.cases += 1
                    bars.advance(bar)
    except KeyboardInterrupt:
        if not found.cases:
            raise
        interrupted = True
    _show(console, found, adapters, where, every)
    if interrupted:
        done = f"{found.cases} of {total} cases"
        say(console, f"check: interrupted after {done}: {found.verdict()} until then.")
        return INTERRUPTED
    say(console, f"check: {found.verdict()}, in {found.cases} cases.")
    return 1 if found.errors or not found.results else 0


def _listed(adapters: Sequence[conformance.Adapter]) -> str:
    names = ", ".join(adapter.name for adapter in adapters)
    return f"each of {len(adapters)} libraries ({names})" if len(adapters) > 1 else names


def _duration(adapters: Sequence[conformance.Adapter], every: bool, transform: str) -> str:
    if every:
        return "hours, most of them in compilers"
    if transform != "eager":
        return "minutes to an hour for each library, most of it in its compiler"
    seconds = sum(SECONDS.get(adapter.name, SECONDS_OF_ANOTHER) for adapter in adapters)
    return f"about {round(seconds / 60)} minutes" if seconds >= 90 else f"about {seconds} seconds"


def _adapter(name: str, dtype: str, transform: str) -> conformance.Adapter:
    try:
        adapter = conformance.load(name)
    except (ImportError, ValueError) as error:
        if ":" not in name and name not in REQUIRES:
            raise CommandError(
                f"--backend is {name!r}; expected one of {', '.join(REQUIRES)}, or "
                f"package.module:adapter."
            ) from None
        if name in REQUIRES and not is_installed(REQUIRES[name]):
            raise CommandError(
                f"--backend is {name!r}, which is not installed; pip install {name}", exit_code=1
            ) from None
        raise CommandError(str(error)) from None
    for option, value, known in (
        ("--dtype", dtype, adapter.dtypes),
        ("--transform", transform, adapter.transforms),
    ):
        if value not in known:
            raise CommandError(
                f"{option} is {value!r}, which {name} has not; expected one of "
                f"{', '.join(known)}; choose another, or other backends with --backend."
            )
    return adapter


# --- tables ---------------------------------------------------------------------------------------
def _show(
    console: Console,
    found: Found,
    adapters: Sequence[conformance.Adapter],
    where: str,
    every: bool,
) -> None:
    for what in ("value", "gradient"):
        table = new_table(
            f"Largest error of the {what} in ULP, {where}: ordinary / saturated rows",
            ["operation", *(heading(adapter.name) for adapter in adapters)],
        )
        for operation in conformance.OPERATIONS:
            row = [_worst(found.results[one.name, operation], what) for one in adapters]
            if any(row):
                table.add_row(operation, *row)
        if table.rows:
            print_table(console, table)
    if found.results:
        say(console, "ULP: units in the last place. In a saturated row one class dominates.\n")
    if every:
        _show_counts(console, found)
    lacking = new_table(
        "What a library lacks", ["library", "not run", "reason"], prose=["not run", "reason"]
    )
    for adapter in adapters:
        for meaning, reason in adapter.not_compared.items():
            lacking.add_row(adapter.name, meaning, reason)
    for (setting, reason), number in found.not_run.items():
        lacking.add_row(setting, f"{number} cases", reason)
    if lacking.rows:
        print_table(console, lacking)
    for line in found.errors:
        say(console, line, style="red")


def _worst(results: Sequence[conformance.Result], what: str) -> str:
    def largest(saturated: bool) -> str | None:
        errors = [r.ulp for r in results if r.what == what and r.case.saturated is saturated]
        return f"{max(errors):.2g}" if errors else None

    return " / ".join(filter(None, (largest(False), largest(True))))


def _show_counts(console: Console, found: Found) -> None:
    """Print how many checks of each operation passed in each setting; "of" how many, if fewer."""
    for library in dict.fromkeys(library for library, _ in found.counts):
        counts = {s: numbers for (name, s), numbers in found.counts.items() if name == library}
        names = ["operation", *(setting.replace(" ", "\n", 1) for setting in counts)]
        table = new_table(f"{library}: checks that passed", names)
        for operation in conformance.OPERATIONS:
            row = []
            for numbers in counts.values():
                passed, ran = numbers[operation], numbers[f"{operation} ran"]
                row.append(
                    "-" if not ran else f"{passed}" if passed == ran else f"{passed} of {ran}"
                )
            table.add_row(operation, *row)
        print_table(console, table)
