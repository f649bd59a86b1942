"""`softmaxkit check`: what it says before, after, of a wrong library, and when interrupted."""

import dataclasses
import importlib
import re
import sys

import pytest

from softmaxkit import conformance

pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")

check = importlib.import_module("softmaxkit.check")


@pytest.fixture
def invoke(monkeypatch):
    """Run the command on a few cases of each operation."""
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    cases = [
        case
        for operation in conformance.OPERATIONS
        for case in [one for one in conformance.cases() if one.operation == operation][:3]
    ]
    monkeypatch.setattr(conformance, "cases", lambda: iter(cases))
    monkeypatch.setenv("COLUMNS", "80")
    return lambda *arguments: CliRunner().invoke(app, ["check", *arguments])


def test_it_says_what_it_does_and_how_it_went(invoke):
    done = invoke("--backend", "numpy")
    assert (done.exit_code, done.stderr) == (0, "")
    first, *_, last = done.stdout.splitlines()
    count = 3 * len(conformance.OPERATIONS)
    assert first.startswith(f"check: {count} cases on numpy in float32, eager: about 10 seconds.")
    assert re.fullmatch(rf"check: all \d+ checks passed, in {count} cases\.", last)
    for operation in conformance.OPERATIONS:
        assert re.search(rf"^{operation} +\d", done.stdout, re.M)


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("every", [False, True])
def test_its_tables_fit_and_name_every_operation(invoke, monkeypatch, columns, every):
    adapter = conformance.load("numpy")
    names = ("array_api_strict", "tensorflow", "numpy", "torch", "jax", "dask")
    found = {name: renamed(adapter, name) for name in names}
    monkeypatch.setattr(conformance, "load", found.__getitem__)
    monkeypatch.setattr(conformance, "names", lambda: list(names))
    monkeypatch.setenv("COLUMNS", str(columns))
    done = invoke(*(["--every"] if every else []))
    assert done.exit_code == 0
    sentences = ("check: ", "ULP: ")  # are whole in a pipe
    lines = [line for line in done.stdout.splitlines() if not line.startswith(sentences)]
    assert max(map(len, lines)) <= columns
    assert "…" not in done.stdout
    for operation in conformance.OPERATIONS:
        assert re.search(rf"^{operation} ", done.stdout, re.M)
    # A number is never broken: what follows a slash stands on its line.
    assert not re.search(r"\d / *$", "\n".join(lines), re.M)


def renamed(adapter, name):
    return dataclasses.replace(adapter, name=name)


def test_a_wrong_library_fails(invoke, monkeypatch):
    adapter = conformance.load("numpy")
    wrong = dataclasses.replace(adapter, to_numpy=lambda array: adapter.to_numpy(array) * 1.001)
    monkeypatch.setattr(conformance, "load", lambda name: wrong)
    done = invoke("--backend", "numpy")
    assert done.exit_code == 1
    last = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"check: [1-9]\d* of \d+ checks FAILED, in \d+ cases\.", last)
    assert "ULP at" in done.stdout


def test_an_interruption_shows_what_was_found(invoke, monkeypatch):
    run_case, ran = conformance.run_case, []

    def interrupted(adapter, case, *setting):
        if len(ran) == 4:
            raise KeyboardInterrupt
        ran.append(case)
        return run_case(adapter, case, *setting)

    monkeypatch.setattr(conformance, "run_case", interrupted)
    done = invoke("--backend", "numpy")
    assert done.exit_code == 130
    last = done.stdout.splitlines()[-1]
    count = 3 * len(conformance.OPERATIONS)
    assert re.fullmatch(
        rf"check: interrupted after 4 of {count} cases: all \d+ checks passed until then\.", last
    )
    assert ran[0].operation in done.stdout
    assert "Traceback" not in done.output


def test_an_interruption_before_anything_is_one_line(invoke, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(conformance, "load", interrupted)
    done = invoke("--backend", "numpy")
    assert (done.exit_code, done.stdout, done.stderr) == (130, "", "check: interrupted.\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--backend", "nump"], r"check: --backend is 'nump'; expected one of numpy, .+:adapter\."),
        (
            ["--backend", "no_such_package:adapter"],
            r"check: conformance: backend is 'no_such_package:adapter', which gives Module.+",
        ),
        (
            ["--backend", "numpy", "--dtype", "int8"],
            r"check: --dtype is 'int8', which numpy has not; expected one of float32, .+",
        ),
        (
            ["--backend", "numpy", "--transform", "jit"],
            r"check: --transform is 'jit', which numpy has not; expected one of eager; .+",
        ),
    ],
)
def test_refused_in_one_line(invoke, arguments, line):
    done = invoke(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(line + "\n", done.stderr)


def test_a_library_that_is_not_installed_is_named_with_its_remedy(invoke, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = invoke("--backend", "torch")
    assert (done.exit_code, done.stdout) == (1, "")
    line = "check: --backend is 'torch', which is not installed; pip install torch\n"
    assert done.stderr == line


def test_how_long_it_takes_is_said_of_every_library():
    names = [name for name in check.SECONDS if name in conformance.names()]
    adapters = [renamed(conformance.load("numpy"), name) for name in names]
    seconds = sum(check.SECONDS[name] for name in names)
    said = check._duration(adapters, False, "eager")
    assert said in (f"about {seconds} seconds", f"about {round(seconds / 60)} minutes")
    assert "hours" in check._duration(adapters, True, "eager")
