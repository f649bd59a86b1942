"""The session integrations, held to what it says: nothing that is apart, fails or lacks goes by."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "integrations"
SHARED = {"common", "processes", "run"}

PROGRAM = """\
\"\"\"A program.\"\"\"

from common import Outcome, report


def train(loss):
    return Outcome([loss], [[1.0, loss]], lambda: None)


report(train, 1.0, {ours}, tolerance=1e-3)
"""


@pytest.fixture
def module(monkeypatch):
    def load(name):
        spec = importlib.util.spec_from_file_location(f"integrations_{name}", FOLDER / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with three programs: one agrees, one does not, one fails."""
    text = (FOLDER / "common.py").read_text(encoding="utf-8")
    (tmp_path / "common.py").write_text(
        text.replace("ROUND_SECONDS = 9, 0.1", "ROUND_SECONDS = 1, 0")
    )
    for name, ours in (("well", "1.0001"), ("apart", "1.01"), ("fails", "1 / 0")):
        (tmp_path / f"{name}.py").write_text(PROGRAM.format(ours=ours))
    return tmp_path


def test_every_file_is_a_program(module):
    run = module("run")
    files = {path.stem for path in FOLDER.glob("*.py")} - SHARED
    assert {one.file for one in run.PROGRAMS} == files
    titles = [run.title(one, FOLDER) for one in run.PROGRAMS]
    assert len(set(titles)) == len(titles)
    for name in files:
        text = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert 'if __name__ == "__main__":' in text  # processes import it
        assert len(text.splitlines()) <= 70, name


@pytest.mark.parametrize(
    ("name", "row", "well"),
    [
        ("well", "| A program | 1e-04 ≤ 1e-03 | ", True),
        ("apart", "| A program | 1e-02 > 1e-03 | ", False),
        (
            "fails",
            "| A program | - | - | failed: ZeroDivisionError: division by zero; numpy ",
            False,
        ),
    ],
)
def test_a_program_fails_beyond_its_tolerance(module, folder, capsys, name, row, well):
    run = module("run")
    programs = (run.Program(name, ("numpy",)),)
    assert run.table(programs, {}, folder) is well
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(row)
    assert f"numpy {np.__version__} |" in last
    assert ("beyond its tolerance" in last) == (name == "apart")


def test_what_cannot_be_installed_is_listed_with_the_reason(module, folder, capsys):
    run = module("run")
    programs = (run.Program("fails", ("numpy", "no-such-library")),)
    assert run.table(programs, {"no-such-library": "it | is not for Python 3.11"}, folder)
    expected = "| A program | not run | - | no-such-library: it / is not for Python 3.11; numpy "
    assert capsys.readouterr().out.splitlines()[-1].startswith(expected)


def test_agreement_is_the_largest_difference_over_the_largest_entry(module):
    common = module("common")
    theirs = common.Outcome([2.0, 4.0], [np.array([10.0, 1.0])], 1.0)
    assert common.apart(theirs, theirs) == 0
    assert common.apart(theirs, theirs._replace(losses=[2.0, 5.0])) == 0.25
    assert common.apart(theirs, theirs._replace(arrays=[np.array([10.0, 2.0])])) == 0.1
    assert common.apart(theirs, theirs._replace(losses=[2.0, np.nan])) == np.inf
    assert common.times(theirs, theirs._replace(step=2.0)) == 0.5


@pytest.mark.parametrize(
    ("losses", "arrays"),
    [([], []), ([0.0], []), ([np.nan], []), ([1.0, 2.0], []), ([1.0], [np.zeros(2)])],
)
def test_what_shows_nothing_is_refused(module, losses, arrays):
    common = module("common")
    theirs = common.Outcome(losses, arrays, 1.0)
    with pytest.raises((AssertionError, ValueError)):
        common.apart(theirs, common.Outcome(losses[:1], arrays, 1.0))
