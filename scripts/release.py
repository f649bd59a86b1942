"""Make a release: follow the checklist, and stop at the first thing that is not right.

    python scripts/release.py                  # all steps but the last, which a person takes
    python scripts/release.py --dependencies   # with the default sessions, oldest and newest
    python scripts/release.py --dry-run        # go on after what is not right, and list it
    python scripts/release.py --tag v0.1.0     # only: does this tag name what would be released?

It needs nox, and tests on each of Python 3.11 to 3.14 that stands in PATH. It changes nothing but
dist/: the tag, and what comes after it, is left to a person, who is told what to do.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:rc([1-9]\d*))?")
LEFT_TO_A_PERSON = """\
Left to you:
  1. The workflow "ci" is green for this commit, and "nightly" was green last night.
  2. The addresses in pyproject.toml are those of the project. On PyPI the project trusts the
     workflow publish.yml in the environment "pypi", which asks a second person for a review.
  3. git tag -a v{version} -m "softmaxkit {version}" && git push origin v{version}
  4. On GitHub, make a release of that tag with its section of CHANGELOG.md: it starts publish.yml.
  5. In a new environment: pip install "softmaxkit[cli]=={version}" && softmaxkit info
  6. In CHANGELOG.md, start the next section: "## <next version> (not released)"."""


class NotRightError(Exception):
    """What is not right, and what to do about it, in one line."""


# --- what is to be released -----------------------------------------------------------------------
def version_in_package() -> str:
    """Return the one place where the version stands."""
    text = (ROOT / "softmaxkit" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.+)"$', text, re.MULTILINE)[0]


def order(version: str) -> tuple[float, ...]:
    """Return what versions are sorted by: 0.9.0 < 0.10.0rc1 < 0.10.0."""
    match = VERSION.fullmatch(version)
    if match is None:
        raise NotRightError(f"{version!r} is no version; expected such as 0.2.0 or 0.2.0rc1.")
    *numbers, candidate = match.groups()
    return *map(int, numbers), int(candidate) if candidate else float("inf")


def check_new(version: str, tags: list[str]) -> None:
    """Refuse a version that is not above every tag."""
    released = [tag.removeprefix("v") for tag in tags if VERSION.fullmatch(tag.removeprefix("v"))]
    newest = max(released, key=order, default=None)
    if newest is not None and order(version) <= order(newest):
        raise NotRightError(
            f"__version__ is {version}, and {newest} is tagged; raise it in softmaxkit/__init__.py."
        )


def check_tag(version: str, tag: str) -> None:
    """Refuse a tag that is not that of the version."""
    if tag != f"v{version}":
        raise NotRightError(f"the tag is {tag}, and __version__ {version}; expected v{version}.")


def check_changelog(version: str, changelog: str, today: datetime.date) -> None:
    """Refuse a changelog whose first section is not this version's, with a date and some text."""
    heading, _, text = changelog.partition("\n## ")[2].partition("\n")
    found = re.fullmatch(rf"{re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)", heading)
    expected = f'the first section of CHANGELOG.md is "{heading}"; expected "{version} ({today})".'
    if found is None:
        raise NotRightError(expected)
    try:
        date = datetime.date.fromisoformat(found[1])
    except ValueError:
        raise NotRightError(expected) from None
    if date > today:
        raise NotRightError(expected)
    if not text.partition("\n## ")[0].strip():
        raise NotRightError(f"the section {heading} of CHANGELOG.md is empty; say what changed.")


def runs(command: str) -> bool:
    """Return whether a Python of that name starts; pyenv leaves names in PATH that do not."""
    path = shutil.which(command)
    if path is None:
        return False
    return subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0


# --- the steps ------------------------------------------------------------------------------------
def git(*arguments: str) -> str:
    """Return what a git command prints."""
    done = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, check=True, encoding="utf-8"
    )
    return done.stdout.strip()


def nox(*arguments: str) -> None:
    """Run sessions of noxfile.py."""
    command = [sys.executable, "-m", "nox", "--stop-on-first-error", *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        raise NotRightError(f"failed: nox {' '.join(arguments)}")


def check_checkout() -> None:
    """Refuse another branch than main, and files that are not committed."""
    branch = git("branch", "--show-current")
    if branch != "main":
        raise NotRightError(f"the branch is {branch or 'none'}; run: git switch main")
    if changed := git("status", "--porcelain").splitlines():
        raise NotRightError(f"{len(changed)} files are not committed, the first: {changed[0]}")


def test_on_every_python() -> None:
    """Test what stands in dist/ on each Python that is found."""
    found = [version for version in PYTHONS if runs(f"python{version}")]
    missing = sorted(set(PYTHONS) - set(found))
    print(f"Python found: {', '.join(found) or 'none'}; not found: {', '.join(missing) or 'none'}")
    if not found:
        raise NotRightError(f"none of Python {', '.join(PYTHONS)} stands in PATH; install one.")
    failed = []
    for version in found:
        try:
            nox("-s", "built", "--force-python", version)
        except NotRightError:
            failed.append(version)
    if failed:
        raise NotRightError(f"the session built failed on Python {', '.join(failed)}.")


def steps(version: str, dependencies: bool) -> dict[str, Callable[[], None]]:
    """Return the checklist: what a step is about -> what raises NotRightError."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    today = datetime.datetime.now(datetime.UTC).date()
    listed = {
        "all is committed, on main": check_checkout,
        f"{version} is not tagged yet": lambda: check_new(version, git("tag").splitlines()),
        "the changelog has a section with a date": lambda: check_changelog(
            version, changelog, today
        ),
        "lint and types": lambda: nox("-s", "lint", "types"),
        "sdist and wheel are built, and twine has nothing against them": lambda: nox("-s", "build"),
        "they are tested on every Python": test_on_every_python,
    }
    if dependencies:
        listed["default sessions"] = nox
        listed["oldest and newest dependencies"] = lambda: nox("-s", "oldest", "newest")
    return listed


def main() -> None:
    """Go through the checklist; the exit code is 1 when something is not right."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dependencies", action="store_true", help="also slow sessions of nox")
    parser.add_argument("--dry-run", action="store_true", help="do not stop at what is not right")
    parser.add_argument("--tag", help="check that this tag is the version's, and end")
    options = parser.parse_args()
    version = version_in_package()
    todo = steps(version, options.dependencies)
    if options.tag is not None:
        named = "the changelog has a section with a date"
        todo = {"the tag": lambda: check_tag(version, options.tag), named: todo[named]}
    wrong = []
    for number, (step, run) in enumerate(todo.items(), 1):
        print(f"--- {number} of {len(todo)}: {step}", flush=True)
        try:
            run()
        except NotRightError as problem:
            wrong.append(f"{number}: {problem}")
            print(f"not right: {problem}", flush=True)
            if not options.dry_run:
                break
    if wrong:
        sys.exit(f"softmaxkit {version} cannot be released. " + "\n".join(wrong))
    if options.tag is None:
        print(
            f"\nsoftmaxkit {version} can be released. " + LEFT_TO_A_PERSON.format(version=version)
        )


if __name__ == "__main__":
    main()
