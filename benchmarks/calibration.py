"""Time and memory of `fit_temperature` and `calibration_error`, beside one softmax of the array.

python benchmarks/calibration.py --backend torch --shape 1000000x100

Each backend runs in a process of its own. `cpu` is the processor's time over all threads, which a
busy machine disturbs least; memory is VmHWM, reset before the call, over the size of the logits.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import softmaxkit
from softmaxkit.calibration import calibration_error, fit_temperature, prediction_sets
from softmaxkit.conformance import load

BACKENDS = ("numpy", "torch", "jax", "tensorflow")
DRAWN = 10_000  # rows at once, so that drawing leaves no peak of memory behind


def drawn(rows, classes):
    """Return logits, and labels that follow softmax of half of them: T = 2."""
    rng = np.random.default_rng(0)
    logits, labels = np.empty((rows, classes), "float32"), np.empty(rows, "int64")
    for start in range(0, rows, DRAWN):
        block = logits[start : start + DRAWN]
        block[...] = rng.normal(0, 3, block.shape)
        labels[start : start + DRAWN] = (block / 2 + rng.gumbel(size=block.shape)).argmax(1)
    return logits, labels


def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split()[0]: int(line.split()[1]) for line in lines if "kB" in line}


def measured(call, rounds=3):
    """Return the smallest wall and processor time in seconds, and the largest memory in kB."""
    wall, cpu, memory = [], [], []
    for _ in range(rounds):
        Path("/proc/self/clear_refs").write_text("5")
        before, clocks = peak()["VmRSS:"], (time.perf_counter(), time.process_time())
        call()
        wall.append(time.perf_counter() - clocks[0])
        cpu.append(time.process_time() - clocks[1])
        memory.append(peak()["VmHWM:"] - before)
    return min(wall), min(cpu), max(memory)


def run(backend, rows, classes, x64):
    adapter = load(backend)
    if backend == "jax":
        import jax

        jax.config.update("jax_enable_x64", x64)
    logits, labels = drawn(rows, classes)
    size = logits.nbytes / 1024
    logits, labels = adapter.to_backend(logits, "float32"), adapter.to_backend(labels, None)
    calls = {
        "softmax": lambda: adapter.to_numpy(softmaxkit.softmax(logits))[:1],
        "fit_temperature": lambda: fit_temperature(logits, labels),
        "calibration_error": lambda: calibration_error(logits, labels),
        "prediction_sets": lambda: adapter.to_numpy(prediction_sets(logits, 0.1))[:1],
    }
    print(f"{backend}{' x64' if x64 else ''} {rows}x{classes}: T {fit_temperature(logits, labels)}")
    for call in calls.values():
        call()
    unit = None
    for name, call in calls.items():
        wall, cpu, memory = measured(call)
        unit = unit or (wall, cpu)
        print(
            f"  {name:18} {wall:7.3f} s = {wall / unit[0]:4.1f} softmaxes; "
            f"cpu {cpu:7.3f} s = {cpu / unit[1]:4.1f}; memory {memory / size:.2f} of the logits"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", action="append", choices=BACKENDS)
    parser.add_argument("--shape", default="1000000x100")
    parser.add_argument("--x64", action="store_true", help="JAX with 64-bit types")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows, classes = map(int, options.shape.split("x"))
    for backend in options.backend or BACKENDS:
        if options.here:
            run(backend, rows, classes, options.x64)
        else:
            again = [sys.executable, __file__, "--here", "--backend", backend]
            again += ["--shape", options.shape, *(["--x64"] if options.x64 else [])]
            env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            subprocess.run(again, check=True, env=env)


if __name__ == "__main__":
    main()
