"""The project's goals for speed and memory beside what `softmaxkit bench --json` measured.

python benchmarks/goals.py results.json [more.json ...]

It prints every goal, every cell that misses it, and what was not measured.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from softmaxkit.bench import files, report
from softmaxkit.bench.libraries import TORCH_CHUNKED
from softmaxkit.bench.operations import EVERY_OPERATION, is_small
from softmaxkit.bench.results import COPY, OURS, geometric_mean


@dataclass(frozen=True)
class Goal:
    name: str
    library: str
    settings: tuple[str, ...] | None
    families: tuple[str, ...]
    mean: float | None  # at least
    worst: float | None
    worst_small: float | None  # None: the same as `worst`
    small: bool = False  # small arrays only


EVERY = ("activation", "loss", "gradient")
GOALS = (
    Goal("NumPy activations, gradients", "numpy", None, ("activation", "gradient"), 3.0, 1.2, None),
    Goal("torch losses forward and backward", "torch", ("eager",), ("gradient",), 2.0, 1.0, 0.7),
    Goal("torch softmax and log_softmax", "torch", ("eager",), ("activation",), 1.3, 0.95, None),
    Goal("torch.compile, losses", "torch", ("compile",), ("gradient",), 1.05, None, None),
    Goal("JAX jitted", "jax", ("jit",), EVERY, 1.1, 0.95, None),
    Goal("JAX eager, tiny", "jax", ("eager",), EVERY, 5.0, None, None, small=True),
    Goal("TensorFlow eager losses", "tensorflow", ("eager",), ("gradient",), 1.8, 0.9, None),
    Goal("tf.function losses", "tensorflow", ("tf.function",), ("gradient",), 1.2, None, None),
    Goal("XLA losses of TensorFlow", "tensorflow", ("XLA",), ("gradient",), 1.0, None, None),
)
COPY_MEAN, COPY_WORST = 2.5, 4.0  # softmax of large float32 arrays over a copy: at most
MEMORY = 1.1  # peak extra memory of cross_entropy_grad over the logits: at most
# Ours over the loss of all the logits at once, at most; memory at most that of torch's own chunks.
LINEAR_TIME = {"linear_cross_entropy_rows_grad": 1.4}  # losses that are not reduced
LINEAR_TIME_REDUCED, LINEAR_MEMORY = 1.1, 0.1


def cells_of(goal, results):
    """Yield (cell, rival, ratio) of every cell that the goal is about."""
    for result in results:
        cell = result.cell
        if (
            goal.library == cell.library
            and (goal.settings is None or cell.setting in goal.settings)
            and EVERY_OPERATION[cell.operation].family in goal.families
            and (is_small(cell.shape) or not goal.small)
        ):
            for rival in result.rivals:
                ratio = result.ratio(rival, OURS)
                if ratio is not None:
                    yield cell, rival, ratio


def judge(name, values, mean, bound, at_least):
    """Print one goal; `values` is (what, value, its own bound) of every cell."""
    if not values:
        print(f"        {name}: not measured")
        return
    sign = ">=" if at_least else "<="
    middle = geometric_mean([max(value, 1e-3) for _, value, _ in values])
    bad = [
        (what, value, own)
        for what, value, own in values
        if own is not None and (value < own if at_least else value > own)
    ]
    met = not bad and (mean is None or (middle >= mean if at_least else middle <= mean))
    goal = "" if mean is None else f" (goal {sign} {mean:g})"
    worst = (min if at_least else max)(values, key=lambda one: one[1])
    print(
        f"{'met' if met else 'MISSED':<8}{name}: {len(values)} cells, geometric mean {middle:.2f}"
        f"{goal}, worst {worst[1]:.2f}{'' if bound is None else f' (goal {sign} {bound:g})'}"
    )
    for what, value, own in sorted(bad, key=lambda one: one[1], reverse=not at_least):
        print(f"        {value:.2f}, goal {sign} {own:g}: {what}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    results = []
    for path in parser.parse_args().files:
        found, about = files.load(path)
        results += found
        print(*report.shown_environment(about), sep="\n", end="\n\n")

    for goal in GOALS:
        values = []
        for cell, rival, ratio in cells_of(goal, results):
            small = is_small(cell.shape) and goal.worst_small is not None
            values.append((f"{cell}, {rival}", ratio, goal.worst_small if small else goal.worst))
        judge(goal.name, values, goal.mean, goal.worst, at_least=True)
    copies, memory = [], []
    for result in results:
        cell = result.cell
        over_copy, peak = result.ratio(OURS, COPY), result.memory_ratio(OURS)
        if cell.operation == "softmax" and cell.dtype == "float32" and not is_small(cell.shape):
            copies += [(str(cell), over_copy, COPY_WORST)] if over_copy else []
        if cell.operation.startswith("cross_entropy") and cell.operation.endswith("_grad"):
            memory += [(str(cell), peak, MEMORY)] if peak is not None else []
    linear_times, linear_memory = [], []
    for result in results:
        cell = result.cell
        if not EVERY_OPERATION[cell.operation].linear:
            continue
        time_goal = LINEAR_TIME.get(cell.operation, LINEAR_TIME_REDUCED)
        for rival in result.rivals:
            what, chunked = f"{cell}, {rival}", rival == TORCH_CHUNKED
            over_rival = result.ratio(OURS, rival)
            if over_rival is not None and not chunked:
                linear_times.append((what, over_rival, time_goal))
            if {OURS, rival} <= result.memory.keys():
                share = result.memory[OURS] / max(result.memory[rival], 1)
                linear_memory.append((what, share, 1.0 if chunked else LINEAR_MEMORY))
    judge("softmax over a copy", copies, COPY_MEAN, COPY_WORST, at_least=False)
    judge("memory of cross_entropy forward and backward", memory, None, MEMORY, at_least=False)
    judge("time of linear losses", linear_times, None, None, at_least=False)
    judge("memory of linear losses", linear_memory, None, None, at_least=False)
    print(*report.failures(results), sep="\n")


if __name__ == "__main__":
    main()
