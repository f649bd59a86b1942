"""Run the programs of other libraries with their loss and with softmaxkit's, and print one table.

    python integrations/run.py [WORD ...] [--missing JSON]

Each program runs in an interpreter of its own. The table says how far its losses and its weights or
gradients are apart, the time of a step with their loss over that with ours, and the versions. The
exit status is 1 if a program fails, or if the two are further apart than the tolerance that it
states. Words select programs by their file. `--missing` has the reason for each missing library.
"""

import argparse
import ast
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent
SECONDS = 300  # after this time, a program that hangs is ended


class Program(NamedTuple):
    """A file, the distributions that it needs, and its environment variables."""

    file: str
    needs: tuple[str, ...]
    env: dict[str, str] = {}  # noqa: RUF012 - of a NamedTuple, which is read only


PROGRAMS = (
    Program("transformers_trainer", ("transformers", "accelerate", "torch")),
    Program("transformers_smoothing", ("transformers", "accelerate", "torch")),
    Program("lightning_fit", ("lightning", "torch")),
    Program("accelerate_accumulation", ("accelerate", "torch")),
    Program("torch_ddp", ("torch",)),
    Program("torch_fsdp2", ("torch",)),
    Program("opacus_private", ("opacus", "torch")),
    Program("torch_compile", ("torch",)),
    Program("torch_export", ("torch",)),
    Program("flax_nnx", ("flax", "optax", "jax")),
    Program("equinox_step", ("equinox", "optax", "jax")),
    Program("optax_loop", ("optax", "jax")),
    Program("jax_pmap", ("jax", "optax")),
    Program("jax_shard_map", ("jax", "optax")),
    *(
        Program("keras_fit", ("keras", library), {"KERAS_BACKEND": backend})
        for backend, library in (
            ("jax", "jax"), ("torch", "torch"), ("tensorflow", "tensorflow-cpu"),
        )
    ),
    Program("tensorflow_lite", ("ai-edge-litert", "tensorflow-cpu")),
    Program("tensorflow_mirrored", ("tensorflow-cpu",)),
    Program("sklearn_regression", ("scikit-learn", "scipy")),
    Program("dask_arrays", ("dask",)),
    Program("ndonnx_model", ("ndonnx", "onnxruntime")),
)  # fmt: skip


def title(program: Program, folder: Path) -> str:
    """Return the first line of a file's docstring, and the values of its environment variables."""
    text = ast.get_docstring(ast.parse((folder / f"{program.file}.py").read_text("utf-8")))
    return ", ".join([text.splitlines()[0].rstrip("."), *program.env.values()])


def versions(program: Program) -> tuple[str, list[str]]:
    """Return the versions of the distributions that a program needs, and those that are missing."""
    found, lacking = [], []
    for name in program.needs:
        try:
            found.append(f"{name} {version(name).partition('+')[0]}")
        except PackageNotFoundError:
            lacking.append(name)
    return ", ".join(found), lacking


def run(program: Program, folder: Path) -> tuple[str, str, str, bool]:
    """Return agreement, step time, a problem if there is one, and whether all is well."""
    command = [sys.executable, str(folder / f"{program.file}.py")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"} | program.env
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "-", "-", f"took more than {SECONDS} s", False
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        problem = (done.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        return "-", "-", f"failed: {problem}", False
    said = json.loads(lines[-1])
    well = said["apart"] <= said["tolerance"]
    agreement = f"{said['apart']:.0e} {'≤' if well else '>'} {said['tolerance']:.0e}"
    return agreement, f"{said['times']:.2f}", "" if well else "beyond its tolerance", well


def table(programs: tuple[Program, ...], missing: dict[str, str], folder: Path) -> bool:
    """Print a row for each program; return whether every one that could run is well."""
    print("| program | agreement | step time, theirs ÷ ours | versions |\n|---|---|---|---|")
    all_well = True
    for program in programs:
        found, lacking = versions(program)
        if lacking:
            reasons = (f"{name}: {missing.get(name, 'not installed')}" for name in lacking)
            agreement, times, problem, well = "not run", "-", "; ".join(reasons), True
        else:
            agreement, times, problem, well = run(program, folder)
        said = "; ".join(each.replace("|", "/") for each in (problem, found) if each)
        print(f"| {title(program, folder)} | {agreement} | {times} | {said} |", flush=True)
        all_well &= well
    return all_well


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--missing", type=json.loads, default={})
    arguments = parser.parse_args()
    words = arguments.words or [""]
    chosen = tuple(one for one in PROGRAMS if any(word in one.file for word in words))
    if not chosen:
        parser.error(f"no program has one of {words} in its name")
    return 0 if table(chosen, arguments.missing, FOLDER) else 1


if __name__ == "__main__":
    sys.exit(main())
