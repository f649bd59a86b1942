"""Tests that other libraries publish, run on softmaxkit's façades: counts by file and by name."""

from collections import Counter, defaultdict
from collections.abc import Callable

import pytest


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Return a function that adds to a name's counts, such as ``run=7, passed=6, excused=1``."""

    def add(name: str, **counts: int) -> None:
        record_property("tally", [name, counts])

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in ("passed", "xfailed", "skipped", "failed"):
        for report in terminalreporter.getreports(outcome):
            totals[report.nodeid.partition("::")[0]][outcome] += 1
    for report in (*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")):
        for key, value in getattr(report, "user_properties", ()):
            if key == "tally":
                totals[value[0]].update(value[1])
    if totals:
        terminalreporter.section("the peers' tests")
    for name, counts in sorted(totals.items()):
        line = ", ".join(f"{count} {what}" for what, count in counts.items())
        terminalreporter.write_line(f"{name}: {line}")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks of SciPy's tests, which are for array libraries other than NumPy."""
    for name in ("skip_xp_backends", "xfail_xp_backends"):
        config.addinivalue_line("markers", f"{name}(*backends): SciPy's own")
