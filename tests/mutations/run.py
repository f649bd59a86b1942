"""Show that the tests find small faults: apply each patch of this folder, and see its tests fail.

    python -m nox -s mutations                 # all of them
    python -m nox -s mutations -- smoothing    # those with that word in their name

A patch says in its first lines what is wrong with it, in which session of noxfile.py that shows,
and which tests must fail there, three selections at the most:

    The mean divides by ignored rows too.

    Session: none
    Fails: softmaxkit/conformance/test_conformance.py -k "rows that are kept"
    Fails: tests/test_properties.py

First every selection is run on the code as it is, where it must pass.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
MOST_SELECTIONS = 3
TESTS_FAILED, NO_TESTS = 1, 5  # pytest's exit codes


@dataclass(frozen=True)
class Mutation:
    """A patch, and the tests that must fail where it is applied."""

    name: str
    path: Path
    fault: str
    session: str
    selections: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Mutation:
        """Read the first lines of a patch; a ValueError says what they lack."""
        head, _, _ = path.read_text(encoding="utf-8").partition("\n--- ")
        fault, _, rest = head.partition("\n\n")
        sessions = re.findall(r"^Session: (.+)$", rest, re.MULTILINE)
        selections = tuple(re.findall(r"^Fails: (.+)$", rest, re.MULTILINE))
        if len(sessions) != 1 or not 1 <= len(selections) <= MOST_SELECTIONS:
            raise ValueError(
                f"{path.name}: it has {len(sessions)} lines 'Session:' and {len(selections)} lines "
                f"'Fails:'; expected one, and one to {MOST_SELECTIONS}; write them after the fault."
            )
        for selection in selections:
            if not (ROOT / shlex.split(selection)[0]).is_file():
                raise ValueError(f"{path.name}: there is no {shlex.split(selection)[0]}; aim anew.")
        return cls(path.stem, path, " ".join(fault.split()), sessions[0], selections)


class Copy:
    """A copy of the checkout, in which patches are applied and tests run."""

    def __init__(self, path: Path, sessions: dict[str, dict]) -> None:
        self.path, self.sessions = path, sessions
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).exists():  # not one that was deleted since the last commit
                shutil.copy2(ROOT / name, target, follow_symlinks=False)

    def patch(self, mutation: Mutation, *options: str) -> None:
        apply(mutation, self.path, *options)

    def test(self, session: str, selection: str) -> tuple[int, str, str]:
        """Run a selection until its first failure: exit code, what failed, and the output."""
        # No bytecode: a file patched twice within a second would be taken for the one before.
        env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | self.sessions[session]["env"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += [*self.sessions[session]["arguments"], *shlex.split(selection)]
        done = subprocess.run(
            command, cwd=self.path, env=env, capture_output=True, check=False, text=True
        )
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
        return done.returncode, failed[1] if failed else "", done.stdout + done.stderr


def apply(mutation: Mutation, root: Path, *options: str) -> None:
    """Apply a patch with `git apply`; a ValueError says why it does not."""
    done = subprocess.run(
        ["git", "apply", *options, str(mutation.path)],
        cwd=root, capture_output=True, check=False, text=True,
        env=os.environ | {"GIT_CEILING_DIRECTORIES": str(root.parent)},  # a copy is no repository
    )  # fmt: skip
    if done.returncode:
        raise ValueError(f"{mutation.path.name} does not apply; aim it anew: {done.stderr.strip()}")


def check(mutations: list[Mutation]) -> None:
    """Refuse a patch that does not apply to the checkout."""
    for mutation in mutations:
        apply(mutation, ROOT, "--check")
    print(f"{len(mutations)} mutations apply.")


def run(mutations: list[Mutation], sessions: dict[str, dict], workers: int) -> bool:
    """Run them; print a line for each. Return whether all were caught."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        free: SimpleQueue[Copy] = SimpleQueue()
        for number in range(workers):
            free.put(Copy(Path(folder, str(number)), sessions))

        def in_a_copy(function, *arguments):
            copy = free.get()
            try:
                return function(copy, *arguments)
            finally:
                free.put(copy)

        wanted = dict.fromkeys((m.session, one) for m in mutations for one in m.selections)
        controls = pool.map(lambda one: in_a_copy(Copy.test, *one), wanted)
        for (session, selection), (code, failed, output) in zip(wanted, controls, strict=True):
            if code:
                print(f"{session}: {selection} fails without a fault: {failed}\n{output}")
                return False
        print(f"{len(wanted)} selections pass on the code as it is.")
        lines = pool.map(lambda mutation: in_a_copy(caught, mutation), mutations)
        survivors = [line for each in lines for line in each]
    for survivor in survivors:
        print(survivor)
    print(f"{len(mutations)} mutations, {len(survivors)} selections that let one through.")
    return not survivors


def caught(copy: Copy, mutation: Mutation) -> list[str]:
    """Apply a mutation, run its selections, and return what let it through."""
    start, survivors, found = time.perf_counter(), [], []
    copy.patch(mutation)
    try:
        for selection in mutation.selections:
            code, failed, output = copy.test(mutation.session, selection)
            if code == TESTS_FAILED and failed:
                found.append(failed)
            else:
                last = "\n".join(output.splitlines()[-5:])
                survivors.append(
                    f"{mutation.name}: not caught in {mutation.session} by {selection} "
                    f"(pytest's exit code {code}): {mutation.fault}\n{last}"
                )
    finally:
        copy.patch(mutation, "--reverse")
    seconds = time.perf_counter() - start
    word = "SURVIVED" if survivors else "caught"
    print(f"{word:8} {mutation.name} ({mutation.session}, {seconds:.0f} s)", flush=True)
    for failed in found:
        print(f"         {failed}", flush=True)
    return survivors


def named(words: list[str]) -> Iterator[Mutation]:
    """Read the patches with one of these words in their names; all, if there are none."""
    for path in sorted(FOLDER.glob("*.patch")):
        if not words or any(word in path.stem for word in words):
            yield Mutation.read(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="run those with one of these in their names")
    parser.add_argument("--check", action="store_true", help="only see whether they apply")
    parser.add_argument("--sessions", help="JSON: session -> its env, and arguments of pytest")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    mutations = list(named(options.words))
    if not mutations:
        sys.exit(f"no mutation has one of {options.words} in its name")
    check(mutations)
    if not options.check and not run(mutations, json.loads(options.sessions), options.workers):
        sys.exit(1)


if __name__ == "__main__":
    main()
