"""Measure the constants of the backends again: the best value beside the present one.

python benchmarks/thresholds.py [--backend numpy] [--name BLOCK_ELEMENTS] [--rounds 7]

Every constant of a backend module that is a whole number in capitals is tried at 1/8 to 8 times its
present value, on the shapes for which it matters (CALLS below, otherwise DEFAULT_CALLS); the
candidates alternate. A constant is worth changing if another value is faster by more than the
noise, which is the difference between two measurements of the present value.
"""

import argparse
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from statistics import median

from softmaxkit._libraries import is_installed
from softmaxkit.bench import libraries, measuring
from softmaxkit.bench.results import OURS, geometric_mean, shown_shape
from softmaxkit.bench.worker import Inputs, calls_of

FACTORS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
AGAIN = "present again"

DEFAULT_CALLS = (
    ("softmax", (8192, 1000)),
    ("cross_entropy_grad", (8192, 1000)),
    ("cross_entropy_grad", (50000, 10)),
    ("cross_entropy_grad", (64, 32768)),
)
GRADIENTS = ("cross_entropy_grad", "focal_loss_grad")
BY_CLASSES = [(2_000_000 // classes, classes) for classes in (10, 24, 48, 96, 192, 384)]
BY_SIZE = [(rows, 1000) for rows in (100, 300, 1000, 3000, 10_000)]
BY_FEW = [(rows, 10) for rows in (30, 100, 300, 1000, 3000)]
MIDDLE = [(32, 100), (128, 100), (1000, 32), (32, 1000), (512, 128)]
COLUMNS = [(8, classes, 4000) for classes in (20, 80, 320)]
# Backend and name -> the calls for which it matters, as operations x shapes.
CALLS = {
    key: [(operation, shape) for operation in operations for shape in shapes]
    for key, (operations, shapes) in {
        ("jax", "FEW"): (("log_softmax", *GRADIENTS), [*COLUMNS, *BY_CLASSES]),
        ("jax", "WHOLE"): (("log_softmax",), [(8192, 1000), (4096, 4096), (2048, 8192)]),
        ("jax", "LONG"): (("log_softmax", "cross_entropy"), [(64, 60_000), (64, 300_000)]),
        ("numpy", "FEW"): (
            ("softmax", "cross_entropy_grad"),
            [*BY_CLASSES, *((40_000 // columns, 100, columns) for columns in (8, 32, 128, 512))],
        ),
        ("numpy", "LONE_ELEMENTS"): (("softmax", "cross_entropy_grad"), BY_SIZE[:2]),
        ("numpy", "SHARED_ELEMENTS"): (("softmax", "cross_entropy_grad"), BY_SIZE),
        ("numpy", "SMALL_ELEMENTS"): (("softmax", "log_softmax"), BY_FEW),
        ("torch", "FEW_ELEMENTS"): (
            (*GRADIENTS, "cross_entropy_smoothing_grad", "cross_entropy_probabilities_grad"),
            MIDDLE,
        ),
        ("torch", "FRESH_BYTES"): (("softmax", "log_softmax"), BY_SIZE),
        ("torch", "SHORT_ELEMENTS"): (("softmax",), BY_FEW),
        ("torch", "SHORT_ROW"): (("softmax", "cross_entropy_grad"), BY_CLASSES[:3]),
        ("tensorflow", "FUSED_ELEMENTS"): (("softmax",), MIDDLE + BY_SIZE[:2]),
        ("tensorflow", "FUSED_EAGER_ELEMENTS"): (("softmax",), MIDDLE + BY_SIZE[:2]),
        ("tensorflow", "FUSED_FROM_CLASSES"): (("softmax",), BY_CLASSES[:3]),
    }.items()
}


def constants(backend):
    """Yield (module, name, value) of the backend's whole numbers in capitals."""
    parts = ("arrays", "blocks", "classes", "cpu", "host", "memory", "rows")
    for name in (backend, *(f"{backend}.{part}" for part in parts)):
        if find_spec(f"softmaxkit.backends.{name}") is not None:
            module = import_module(f"softmaxkit.backends.{name}")
            for constant, value in vars(module).items():
                if constant.isupper() and constant[0] != "_" and type(value) is int:
                    yield module, constant, value


def forget(backend):
    """Drop programs that were compiled with another value."""
    if backend == "jax":
        import jax

        jax.clear_caches()


def our_call(library, inputs, setting, operation):
    return calls_of(library, inputs, setting, operation)[0][OURS]


def compare(backend, module, name, make_call, rounds):
    """Return the median seconds of a call with each candidate."""
    present = getattr(module, name)
    candidates = {
        str(value): value for value in (max(round(present * factor), 1) for factor in FACTORS)
    }
    candidates[AGAIN] = present
    seconds = {label: [] for label in candidates}
    try:
        for i in range(rounds):
            order = list(candidates)
            for label in order[i % len(order) :] + order[: i % len(order)]:
                setattr(module, name, candidates[label])
                forget(backend)
                call = make_call()
                call()  # compiles
                loops = measuring.calls_in_a_round(call)
                seconds[label].append(measuring.seconds(call, loops))
    finally:
        setattr(module, name, present)
        forget(backend)
    return {label: median(times) for label, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", nargs="+", choices=libraries.NAMES)
    parser.add_argument("--name", nargs="+", help="of constants; all by default")
    parser.add_argument("--setting", nargs="+", help="all by default")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()

    for backend in options.backend or filter(is_installed, libraries.NAMES):
        library = libraries.load(backend, "float32")
        for module, name, present in constants(backend):
            if options.name and name not in options.name:
                continue
            ratios = {}
            print(f"\n{backend}.{name} = {present}: time over that of the present value")
            for operation, shape in CALLS.get((backend, name), DEFAULT_CALLS):
                inputs = Inputs(library, "float32", shape)
                for setting in library.settings:
                    if options.setting and setting not in options.setting:
                        continue
                    make_call = partial(our_call, library, inputs, setting, operation)
                    times = compare(backend, module, name, make_call, options.rounds)
                    row = {label: each / times[str(present)] for label, each in times.items()}
                    for label, ratio in row.items():
                        ratios.setdefault(label, []).append(ratio)
                    cells = "  ".join(f"{label}: {ratio:.2f}" for label, ratio in row.items())
                    print(f"  {operation} {shown_shape(shape)} {setting}: {cells}", flush=True)
            means = {label: geometric_mean(each) for label, each in ratios.items()}
            noise = abs(means.pop(AGAIN) - 1)
            best = min(means, key=means.get)
            print(
                f"  best {best} at {means[best]:.3f} of the present {present}; noise {noise:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
