"""Time against rows and against classes over 4 decades: the exponent, and shapes off the trend.

python benchmarks/growth.py [--backend numpy] [--setting eager] [--operation softmax ...]

The trend is fixed cost + c·nᵏ: the fixed cost is the time of the fastest shape; c and k are fitted
to the logarithms of the rest, where the rest exceeds the fixed cost. A cliff is a shape that takes
more than twice, or less than half, the time of the trend.
"""

import argparse
import sys
from statistics import median

import numpy as np

from softmaxkit.bench import libraries, measuring
from softmaxkit.bench.operations import OPERATIONS
from softmaxkit.bench.report import shown_seconds
from softmaxkit.bench.results import OURS, shown_shape
from softmaxkit.bench.worker import Inputs, calls_of

STEPS_IN_A_DECADE = 4
CLIFF = 2.0
OTHER_AXIS = 32  # rows while classes grow, classes while rows grow


def sweep(smallest, decades=4):
    """Return sizes that grow evenly, and are not all powers of two or ten."""
    exponents = np.arange(decades * STEPS_IN_A_DECADE + 1) / STEPS_IN_A_DECADE
    return [round(smallest * 10**exponent) for exponent in exponents]


def trend(sizes, seconds):
    """Fit fixed + c·n^k; return k and the fitted seconds."""
    sizes, seconds = np.asarray(sizes, float), np.asarray(seconds)
    fixed = seconds.min()
    growing = seconds > 2 * fixed
    if growing.sum() < 3:
        raise ValueError("fewer than 3 shapes take twice the fixed cost; take larger ones")
    exponent, logarithm = np.polyfit(np.log(sizes[growing]), np.log(seconds[growing] - fixed), 1)
    return exponent, fixed + np.exp(logarithm) * sizes**exponent


def seconds_of(library, dtype, setting, operation, shape, rounds):
    calls, _ = calls_of(library, Inputs(library, dtype, shape), setting, operation)
    ours = {OURS: calls[OURS]}
    calls[OURS]()  # compiles
    loops = {OURS: measuring.calls_in_a_round(calls[OURS])}
    return median(measuring.alternate(ours, loops, rounds)[OURS])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=libraries.NAMES, default="numpy")
    parser.add_argument("--setting", default="eager")
    parser.add_argument("--operation", nargs="+", choices=OPERATIONS, default=[*OPERATIONS])
    parser.add_argument("--dtype", choices=libraries.DTYPES, default="float32")
    parser.add_argument("--smallest", type=int, default=100, help="rows or classes")
    parser.add_argument("--decades", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if options.setting not in libraries.SETTINGS[options.backend]:
        parser.error(f"--setting: {options.backend} has {libraries.SETTINGS[options.backend]}")

    library = libraries.load(options.backend, options.dtype)
    sizes = sweep(options.smallest, options.decades)
    cliffs = 0
    for operation in options.operation:
        for growing in ("rows", "classes"):
            shapes = [(n, OTHER_AXIS) if growing == "rows" else (OTHER_AXIS, n) for n in sizes]
            seconds = [
                seconds_of(
                    library, options.dtype, options.setting, operation, shape, options.rounds
                )
                for shape in shapes
            ]
            exponent, fitted = trend(sizes, seconds)
            print(
                f"{options.backend} {options.dtype} {options.setting} {operation}, "
                f"{shown_shape(shapes[0])} to {shown_shape(shapes[-1])}: "
                f"{shown_seconds(seconds[0])} to {shown_seconds(seconds[-1])}, "
                f"exponent {exponent:.2f} of {growing}",
                flush=True,
            )
            for shape, real, expected in zip(shapes, seconds, fitted, strict=True):
                if not 1 / CLIFF <= real / expected <= CLIFF:
                    cliffs += 1
                    print(
                        f"    cliff at {shown_shape(shape)}: {shown_seconds(real)}, "
                        f"{real / expected:.2f} of the trend's {shown_seconds(expected)}"
                    )
    print(f"{cliffs} cliffs")
    sys.exit(bool(cliffs))


if __name__ == "__main__":
    main()
