"""What the programs share: data, the usual training of a network, and the report on two runs.

A program is a function that takes a loss and trains with it. It runs with the framework's own loss
and with softmaxkit's, from the same start on the same data; `report` prints how far losses and
arrays, the weights or gradients, are apart, and how long a step takes.
"""

import json
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

# A rounding in float32 is 6e-8 of a number; some tens of them add up in the steps of a program.
FLOAT32 = 5e-6
FEATURES, HIDDEN, CLASSES, ROWS, STEPS = 32, 64, 1000, 64, 10
ROUNDS, ROUND_SECONDS = 9, 0.1

# Some frameworks warn about their own code; softmaxkit must not cause a warning.
warnings.filterwarnings("error", module="softmaxkit")


class Outcome(NamedTuple):
    """The result of a training."""

    losses: Any  # a number for each step
    arrays: list[Any]  # weights at the end, or gradients
    step: Callable[[], object] | float  # does one more step; or the seconds that one takes


def recorded(loss_fn: Callable[..., Any], losses: list[float]) -> Callable[..., Any]:
    """Return a function that adds each loss to `losses`."""

    def record(*args: Any, **kwargs: Any) -> Any:
        loss = loss_fn(*args, **kwargs)
        losses.append(loss.item())
        return loss

    return record


def batches(steps: int = STEPS, rows: int = ROWS) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images and labels for each step."""
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((rows, FEATURES), "float32"), rng.integers(CLASSES, size=rows))
        for _ in range(steps)
    ]


def weights() -> dict[str, np.ndarray]:
    """Return the start of a network with one hidden layer."""
    rng = np.random.default_rng(1)
    first = rng.standard_normal((FEATURES, HIDDEN), "float32") / FEATURES**0.5
    second = rng.standard_normal((HIDDEN, CLASSES), "float32") / HIDDEN**0.5
    return {"first": first, "second": second}


# --- a network in torch, and in JAX ---------------------------------------------------------------
def torch_network() -> Any:
    """Return the network as a module."""
    import torch

    first, second = (torch.from_numpy(each.T.copy()) for each in weights().values())
    layers = torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
    for layer, weight in zip(layers, (first, second), strict=True):
        torch.nn.init.zeros_(layer.bias)
        layer.weight = torch.nn.Parameter(weight)
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])


def torch_training(
    model: Any,
    loss_fn: Callable[..., Any],
    optimizer: Any = None,
    data: Any = None,
    backward: Callable[[Any], None] = lambda loss: loss.backward(),
) -> Outcome:
    """Train `model` by ``loss_fn(model(x), y)``."""
    import torch

    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.5)
    data = data or [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in batches()]

    def step(batch: Any = data[0]) -> float:
        x, y = batch
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        backward(loss)
        optimizer.step()
        return float(loss.detach())

    losses = [step(batch) for batch in data]
    return Outcome(losses, [each.detach().clone() for each in model.parameters()], step)


def jax_network(params: Any, x: Any) -> Any:
    """Return the logits."""
    import jax

    return jax.nn.relu(x @ params["first"]) @ params["second"]


def jax_training(step: Callable[..., Any], *state: Any) -> Outcome:
    """Train by ``step(*state, x, y)``, which returns the new state and the loss."""
    import jax

    losses = []
    for x, y in batches():
        *state, loss = step(*state, x, y)
        losses.append(loss)
    params = jax.tree.leaves(state[0])
    again = batches()[0]
    return Outcome(losses, params, lambda: jax.block_until_ready(step(*state, *again)))


# --- the report on two runs -----------------------------------------------------------------------
def report(program: Callable[[Any], Outcome], theirs: Any, ours: Any, *, tolerance: float) -> None:
    """Print what `program` gives with their loss and with ours, as a line of JSON."""
    outcomes = [program(loss) for loss in (theirs, ours)]
    print(
        json.dumps({"apart": apart(*outcomes), "tolerance": tolerance, "times": times(*outcomes)})
    )


def apart(theirs: Outcome, ours: Outcome) -> float:
    """Return the largest difference of a loss, or of an array over its largest entry."""
    pairs = [*zip(theirs.losses, ours.losses, strict=True)]
    pairs += [*zip(theirs.arrays, ours.arrays, strict=True)]
    assert pairs
    differences = []
    for their, our in pairs:
        their, our = np.asarray(their, "float64"), np.asarray(our, "float64")
        assert their.shape == our.shape, (their.shape, our.shape)
        largest = float(np.abs(their).max())
        assert np.isfinite(largest)
        assert largest > 0, "nothing was computed"
        differences.append(float(np.abs(our - their).max()) / largest)
    return max(differences) if np.isfinite(differences).all() else float("inf")


def times(theirs: Outcome, ours: Outcome) -> float:
    """Return the time of a step with their loss over that with ours; the two alternate."""
    steps = theirs.step, ours.step
    if not callable(steps[0]):
        return steps[0] / steps[1]
    loops = [max(1, round(ROUND_SECONDS / seconds(each, 3))) for each in steps]
    rounds = [[seconds(*one) for one in zip(steps, loops, strict=True)] for _ in range(ROUNDS)]
    return median(their for their, _ in rounds) / median(our for _, our in rounds)


def seconds(step: Callable[[], object], loops: int) -> float:
    """Return the seconds that one of `loops` steps takes."""
    start = perf_counter()
    for _ in range(loops):
        step()
    return (perf_counter() - start) / loops
