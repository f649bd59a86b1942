"""Check and time softmaxkit on a GPU: one command, whose sections have 8 minutes in all.

python benchmarks/gpu.py [--only accuracy times] [--out gpu-results] [--dry-run]

Not measured on a GPU yet: so far it has only been run with --dry-run, which runs on the CPU with
small arrays, and skips what only a GPU can do. It uses the installed torch, from 2.12 on. On a
GPU, each section stops when its seconds are over, and says so; that is looked at between two rows.
The exit code is 1 if something failed, 2 if torch finds no GPU. Where Triton serves, the checks run
with it and without.

kernels          their names; with Triton they are others than without
accuracy         largest error of value and gradient in ULP/limit, by the reference in float64 and
                 the limits of the conformance suite
pieces           rows of an array in several blocks, and beyond 32-bit offsets, against themselves
synchronisation  forward and backward under torch.cuda.set_sync_debug_mode("error")
memory           peak of forward and backward over the size of the logits, gradient included
graphs           forward and backward in a CUDA graph, replayed on other values, against eager
compiled         the same under torch.compile(mode="reduce-overhead")
deterministic    two runs under torch.use_deterministic_algorithms(True), equal to the last bit
jax, cupy        accuracy there
times            beside torch, torch.compile, Liger, quack and a copy, as far as they are installed
jax_times, cupy_times  beside optax and a copy
goals            what was aimed at, and what of it was measured

What is printed is also written to DIR/gpu.txt, and all numbers to DIR/gpu.json; DIR/gpu.png shows
the times. DIR is gpu-results unless --out names another.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from time import perf_counter

import gpu_checks
import gpu_elsewhere
import gpu_times
import torch
from gpu_cases import Row, attempted, cupy_on_gpu, jax_on_gpu

import softmaxkit
from softmaxkit.bench.environment import commit
from softmaxkit.bench.results import COPY, OURS

DRY = "CPU dry run: these numbers mean nothing about a GPU"
# Section: what it does, the seconds it has, whether a CPU can do it, too.
SECTIONS = {
    "kernels": (gpu_checks.kernels, 20, False),
    "accuracy": (gpu_checks.accuracy, 70, True),
    "pieces": (gpu_checks.pieces, 15, True),
    "synchronisation": (gpu_checks.synchronisation, 20, False),
    "memory": (gpu_checks.memory, 10, False),
    "graphs": (gpu_checks.graphs, 30, False),
    "compiled": (gpu_checks.compiled, 50, True),
    "deterministic": (gpu_checks.deterministic, 30, True),
    "jax": (partial(gpu_checks.elsewhere, jax_on_gpu), 30, False),
    "cupy": (partial(gpu_checks.elsewhere, cupy_on_gpu), 20, False),
    "times": (gpu_times.times, 130, True),
    "jax_times": (gpu_elsewhere.jax_times, 20, True),
    "cupy_times": (gpu_elsewhere.cupy_times, 20, False),
}


@dataclass
class Report:
    """What was found, and every line that was printed."""

    machine: dict[str, str]
    dry_run: bool
    rows: dict[str, list[Row]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def say(self, line):
        print(line, flush=True)
        self.lines.append(line)

    @property
    def failed(self):
        return sum(len(row.problems) for rows in self.rows.values() for row in rows)


def run(name, report):
    """Run a section until it ends, or its seconds do."""
    check, seconds, on_cpu = SECTIONS[name]
    report.say(f"\n{name}")
    if report.dry_run and not on_cpu:
        report.say("  skipped: needs a GPU")
        return
    start, rows = perf_counter(), report.rows.setdefault(name, [])
    generator = check("cpu" if report.dry_run else "cuda")
    try:
        for row in generator:
            show(row, rows, report)
            rows.append(row)
            if perf_counter() - start > seconds and not report.dry_run:
                report.unfinished.append(name)
                report.say(f"  stopped: its {seconds} s are over, and the rest was not run")
                break
    except Exception as error:  # run the other sections anyway
        rows.append(Row("", name, problems=[f"{type(error).__name__}: {error}"]))
        report.say(f"    FAILED {rows[-1].problems[0]}")
    finally:
        generator.close()
    report.seconds[name] = perf_counter() - start
    report.say(f"  took {report.seconds[name]:.0f} s")


def show(row, before, report):
    """Print a row, and what heads it where the last one with cells is of another table."""
    last = next((one for one in reversed(before) if one.cells), None)
    if row.cells and (last is None or heads(last) != heads(row)):
        report.say(f"  {row.under}")
        report.say(f"  {'':<42}" + "".join(f"{name:>18}" for name in row.cells))
    cells = (f"{one:.4g}" if isinstance(one, float) else one for one in row.cells.values())
    cells = "".join(f"{cell:>18}" for cell in cells)
    report.say(f"  {row.name:<42}{cells}{row.note}".rstrip())
    for problem in row.problems:
        report.say(f"    FAILED {problem}")


def heads(row):
    return row.under, [*row.cells]


# --- the goals ------------------------------------------------------------------------------------
def goals(report):
    """Yield each goal with what was measured, and whether it is met."""
    cell = gpu_times.cell_of("cross_entropy_grad", "bfloat16", gpu_times.SHAPES[0])
    under = gpu_times.title(cell)
    rows = report.rows.get("times", [])
    ms = {row.name: row.cells["ms"] for row in rows if row.under == under and row.cells}

    def ratio(name, other):
        return ms[name] / ms[other] if {name, other} <= ms.keys() else None

    traffic = gpu_times.PASSES[cell.operation] / gpu_times.PASSES[COPY]
    over_copy = ratio(OURS, COPY)
    name = gpu_checks.memory_row(torch.bfloat16, cell.shape, 0.0)
    peaks = [row.cells["softmaxkit"] for row in report.rows.get("memory", []) if row.name == name]
    waits = sum(len(row.problems) for row in report.rows.get("synchronisation", []))
    ended = "synchronisation" in report.seconds and "synchronisation" not in report.unfinished
    for what, value, bound, at_least in (
        ("÷ reading twice and writing once", over_copy and over_copy / traffic, 1.15, False),
        ("peak memory ÷ the gradient", peaks[0] if peaks else None, 1.05, False),
        ("synchronisations (all calls)", waits if waits or ended else None, 0, False),
        ("Liger ÷ ours", ratio("Liger", OURS), 1.0, True),
        ("torch ÷ ours", ratio("torch", OURS), 2.0, True),
    ):
        met = value is not None and (value >= bound if at_least else value <= bound)
        yield Row(
            under,
            what,
            {
                "goal": f"{'>=' if at_least else '<='} {bound}",
                "measured": "" if value is None else f"{value:.3g}",
                "": "not measured" if value is None else "met" if met else "missed",
            },
        )


# --- the machine and the files --------------------------------------------------------------------
def machine(dry_run):
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "gpu": DRY if dry_run else torch.cuda.get_device_name(),
        "driver": "none" if dry_run else driver(),
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "softmaxkit": f"{softmaxkit.__version__}, commit {commit()}",
        "torch": torch.__version__,
    }
    for package in ("triton", "liger-kernel", "quack-kernels"):
        about[package] = attempted(metadata.version, package)[0] or "not installed"
    return about


def driver():
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines, _ = attempted(partial(subprocess.check_output, text=True), command)
    return lines.split()[0] if lines else "unknown"


def write(folder, report):
    folder.mkdir(parents=True, exist_ok=True)
    if any(row.cells for row in report.rows.get("times", [])):
        about = f"{report.machine['gpu']}, torch {report.machine['torch']}"
        _, problem = attempted(gpu_times.draw, folder / "gpu.png", report.rows["times"], about)
        if problem:
            report.say(f"no picture: {problem}")
    found = {key: value for key, value in asdict(report).items() if key != "lines"}
    (folder / "gpu.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.txt").write_text("\n".join(report.lines) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=[*SECTIONS])
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), metavar="DIR")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with small arrays")
    options = parser.parse_args()
    if not (options.dry_run or torch.cuda.is_available()):
        print("gpu.py: torch finds no GPU; pass --dry-run to run on the CPU.", file=sys.stderr)
        sys.exit(2)

    # With it cuBLAS is deterministic; it is read when cuBLAS starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    report = Report(machine(options.dry_run), options.dry_run)
    for name, value in report.machine.items():
        report.say(f"{name}: {value}")
    for name in options.only:
        run(name, report)
    report.say("\ngoals")
    judged = list(goals(report))
    for i, row in enumerate(judged):
        show(row, judged[:i], report)
    report.rows["goals"] = judged
    unfinished = f"; not finished: {', '.join(report.unfinished)}" if report.unfinished else ""
    report.say(f"\n{report.failed} failed{unfinished}")
    write(options.out, report)
    sys.exit(bool(report.failed))


if __name__ == "__main__":
    main()
