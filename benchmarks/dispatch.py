"""What the frontend costs: softmaxkit.softmax(x) over the kernel it calls, and the import.

python benchmarks/dispatch.py [--repeats 400] [--imports 30]

Frontend and kernel alternate, so that both see the same machine; medians of batches of calls.
"""

import argparse
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from statistics import median

import numpy as np

import softmaxkit
from softmaxkit.conformance import adapters

CALLS = 200  # in a batch: the clock's own cost, about 0.05 µs, is shared by so many
SHAPE = (4, 8)


def microseconds(call):
    start = time.perf_counter_ns()
    for _ in range(CALLS):
        call()
    return (time.perf_counter_ns() - start) / CALLS / 1000


def overhead(name, repeats):
    """Return the medians of kernel, frontend and their difference, in µs per call."""
    x = adapters.load(name).to_backend(np.zeros(SHAPE), "float32")
    kernels = getattr(
        softmaxkit.backends, name if name in softmaxkit.backends.MODULES else "array_api"
    )
    kernel, frontend = kernels.softmax, softmaxkit.softmax
    pairs = []
    for i in range(repeats + 10):
        if i % 2:
            direct = microseconds(lambda: kernel(x, 1, None, None, None))
            routed = microseconds(lambda: frontend(x))
        else:
            routed = microseconds(lambda: frontend(x))
            direct = microseconds(lambda: kernel(x, 1, None, None, None))
        pairs.append((direct, routed))
    pairs = pairs[10:]  # warm by now
    return (
        median(direct for direct, _ in pairs),
        median(routed for _, routed in pairs),
        median(routed - direct for direct, routed in pairs),
    )


def import_milliseconds(repeats):
    """Return the median time of `import softmaxkit` where NumPy is imported already."""
    script = (
        "import numpy, time; start = time.perf_counter(); import softmaxkit\n"
        "print((time.perf_counter() - start) * 1000)"
    )
    return median(
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        )
        for _ in range(repeats)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400, help="batches of each, per library")
    parser.add_argument("--imports", type=int, default=30, help="fresh interpreters")
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"softmax of {SHAPE}, µs per call\n")
    print(f"{'library':<18}{'kernel':>10}{'frontend':>10}{'overhead':>10}")
    for name in (name for name, module in adapters.REQUIRES.items() if find_spec(module)):
        repeats = max(options.repeats // (1 if name in ("numpy", "torch", "jax") else 20), 5)
        kernel, frontend, difference = overhead(name, repeats)
        print(f"{name:<18}{kernel:>10.2f}{frontend:>10.2f}{difference:>10.2f}", flush=True)
    print(f"\nimport softmaxkit, after NumPy: {import_milliseconds(options.imports):.1f} ms")


if __name__ == "__main__":
    main()
