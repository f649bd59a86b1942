"""Where a small call spends its time (dispatch, checks, kernel), and what the import costs.

python benchmarks/dispatch.py [--backend numpy torch] [--rounds 41] [--imports 30] [--profile]

The whole call, the function of the backend that it ends in, with the arguments that it gets, and
`_dispatch.resolve` alternate; the times are medians. The rest of the whole is the frontend's
checks. --profile also prints the functions in which cProfile, which slows short ones down most,
sees the time. For the time of a rival on small arrays: softmaxkit bench --shape 32x10.
"""

import argparse
import cProfile
import os
import pstats
import subprocess
import sys
from functools import partial
from statistics import median

import numpy as np

import softmaxkit
from softmaxkit import _dispatch
from softmaxkit._libraries import is_installed
from softmaxkit.bench import measuring
from softmaxkit.bench.operations import OPERATIONS
from softmaxkit.conformance import adapters

SHAPE = (4, 8)
LABELS = np.arange(SHAPE[0])
PROFILED_CALLS = 2000


class KernelReached(Exception):  # noqa: N818  # it is not an error
    """Raised in place of calling the kernel."""


def kernel_call(backend, call):
    """Return the function of `backend` that `call` ends in, bound to its arguments."""
    # The functions that a frontend calls in the end; the others are for its checks.
    names = ("activation", "vjp", "loss", "value_and_grad", "one_hot", "smooth_labels")
    own = {name: getattr(backend, name) for name in names}
    reached = []

    def stop(function, *arguments, **options):
        reached.append(partial(function, *arguments, **options))
        raise KernelReached

    try:
        for name, function in own.items():
            setattr(backend, name, partial(stop, function))
        call()
    except KernelReached:
        pass
    finally:
        for name, function in own.items():
            setattr(backend, name, function)
    return reached[0]


def calls_of(name):
    """Yield the operations of a library that need no autodiff of its own, as calls."""
    adapter = adapters.load(name)
    x, labels = adapter.to_backend(np.zeros(SHAPE), "float32"), adapter.to_backend(LABELS, None)
    own_gradient = "autodiff" in adapter.lacks
    for operation, about in OPERATIONS.items():
        if about.beside in ("probabilities", "mask") or (about.gradient and not own_gradient):
            continue
        function = softmaxkit.value_and_grad(about.function) if about.gradient else about.function
        arrays = [x, labels] if about.beside else [x]
        yield operation, x, partial(function, *arrays, **about.options)


def sections(backend, x, call, rounds):
    """Return the median µs of the whole, of dispatch and of the kernel."""
    parts = {
        "whole": call,
        "dispatch": partial(_dispatch.resolve, "softmax", "x", x),
        "kernel": kernel_call(backend, call),
    }
    loops = {name: measuring.calls_in_a_round(part) for name, part in parts.items()}
    times = measuring.alternate(parts, loops, rounds)
    return {name: median(seconds) * 1e6 for name, seconds in times.items()}


def profile(call):
    with cProfile.Profile() as found:
        for _ in range(PROFILED_CALLS):
            call()
    pstats.Stats(found).strip_dirs().sort_stats("tottime").print_stats(12)


def import_milliseconds(repeats):
    """Return the median time of `import softmaxkit` after NumPy has been imported."""
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
    parser.add_argument("--backend", nargs="+", choices=adapters.REQUIRES)
    parser.add_argument("--rounds", type=int, default=41, help="batches of each call")
    parser.add_argument("--imports", type=int, default=30, help="fresh interpreters")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    installed = [name for name, module in adapters.REQUIRES.items() if is_installed(module)]
    print(f"{SHAPE}, µs per call\n")
    print(f"{'library':<18}{'operation':<30}", end="")
    print(*(f"{column:>11}" for column in ("whole", "dispatch", "checks", "kernel", "frontend")))
    for name in options.backend or installed:
        backend = getattr(
            softmaxkit.backends, name if name in softmaxkit.backends.MODULES else "array_api"
        )
        for operation, x, call in calls_of(name):
            call()  # compiles
            part = sections(backend, x, call, options.rounds)
            frontend = part["whole"] - part["kernel"]
            checks = frontend - part["dispatch"]
            print(f"{name:<18}{operation:<30}", end="")
            print(*(f"{each:>11.2f}" for each in (part["whole"], part["dispatch"], checks)), end="")
            print(f" {part['kernel']:>11.2f} {frontend / part['whole']:>10.0%}", flush=True)
            if options.profile:
                profile(call)
    print(f"\nimport softmaxkit, after NumPy: {import_milliseconds(options.imports):.1f} ms")


if __name__ == "__main__":
    main()
