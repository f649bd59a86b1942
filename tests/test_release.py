"""The release: its checklist's own decisions, and what stands in several files for outsiders."""

import ast
import datetime
import re
import tomllib
from pathlib import Path
from runpy import run_path

import pytest

ROOT = Path(__file__).parents[1]
release = run_path(str(ROOT / "scripts" / "release.py"))
NotRightError = release["NotRightError"]
TODAY = datetime.date(2026, 12, 24)


# --- the checklist --------------------------------------------------------------------------------
def test_versions_are_ordered_by_their_numbers():
    versions = ["1.0.0", "0.10.0", "0.2.0", "0.2.0rc10", "0.2.0rc2", "0.1.0"]
    assert sorted(versions, key=release["order"]) == versions[::-1]


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0.dev1", "01.0.0", "1.0.0 "])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(NotRightError, match="is no version; expected such as"):
        release["order"](version)


def test_a_version_is_above_every_tag():
    tags = ["v0.9.0", "v0.10.0", "before-the-move"]
    release["check_new"]("0.10.1", tags)
    release["check_new"]("0.1.0", [])
    for version in ("0.10.0", "0.9.1", "0.10.0rc1"):
        with pytest.raises(NotRightError, match=f"is {version}, and 0.10.0 is tagged"):
            release["check_new"](version, tags)


def test_a_tag_is_that_of_the_version():
    release["check_tag"]("0.1.0", "v0.1.0")
    for tag in ("v0.1.1", "0.1.0"):
        with pytest.raises(NotRightError, match=f"the tag is {tag}, .*; expected v0.1.0"):
            release["check_tag"]("0.1.0", tag)


FIRST = "# Changelog\n\n## {}\n\n{}\n## 0.0.9 (2026-12-01)\n\n- Text.\n"


def test_a_section_of_the_changelog_has_a_date():
    changelog = FIRST.format("0.1.0 (2026-12-24)", "First version.\n")
    release["check_changelog"]("0.1.0", changelog, TODAY)


@pytest.mark.parametrize(
    "heading",
    ["0.1.0 (not released)", "0.1.0", "0.1.0 (2026-12-25)", "0.1.0 (2026-02-30)",
     "0.1.1 (2026-12-24)", "0x1.0 (2026-12-24)"],
)  # fmt: skip
def test_another_heading_is_refused(heading):
    changelog = FIRST.format(heading, "First version.\n")
    with pytest.raises(NotRightError, match=re.escape('; expected "0.1.0 (2026-12-24)"')):
        release["check_changelog"]("0.1.0", changelog, TODAY)


def test_a_section_without_text_is_refused():
    changelog = FIRST.format("0.1.0 (2026-12-24)", "")
    with pytest.raises(NotRightError, match="is empty"):
        release["check_changelog"]("0.1.0", changelog, TODAY)


def test_a_name_that_starts_no_python_is_not_found(tmp_path, monkeypatch):
    """As pyenv leaves one for every version that it has and that is not chosen."""
    shim = tmp_path / "python3.98"
    shim.write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not release["runs"]("python3.98")
    assert not release["runs"]("python3.99")


# --- what several files say -----------------------------------------------------------------------
def test_every_address_of_the_project_is_that_of_pyproject_toml():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    files = [*ROOT.glob("*.md"), ROOT / "CITATION.cff", ROOT / "pyproject.toml"]
    found = [
        address
        for path in files
        for address in re.findall(r"https://git[\w.]+/softmaxkit[\w./#-]*", path.read_text("utf-8"))
    ]
    assert len(found) > len(urls)  # CITATION.cff has one
    assert {one for one in found if not f"{one}/".startswith(f"{urls['Source']}/")} == set()


def sessions_of_nox():
    """Return the sessions of noxfile.py, and which of them are the defaults."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    defined, defaults = set(), set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any(
            "nox.session" in ast.unparse(one) for one in node.decorator_list
        ):
            defined.add(node.name.rstrip("_"))
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith(".sessions"):
            defaults = set(ast.literal_eval(node.value))
    return defined, defaults


def sessions_of_workflow(name):
    """Return what a workflow gives to nox: names, or those of its matrix."""
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    named = re.findall(r"nox -s ([\w ]+)", text)
    lists = re.findall(r"session: \[(.+)\]", text) + re.findall(r"session: (\w+)", text)
    return {one for each in named + lists for one in re.findall(r"\w+", each)}


@pytest.mark.parametrize(
    "name", [path.stem for path in (ROOT / ".github" / "workflows").glob("*.yml")]
)
def test_workflows_run_sessions_that_there_are(name):
    used = sessions_of_workflow(name)
    assert used
    assert used <= sessions_of_nox()[0]


def test_every_push_runs_the_default_sessions():
    assert sessions_of_workflow("ci") == sessions_of_nox()[1]
