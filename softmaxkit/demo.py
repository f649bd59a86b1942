"""``softmaxkit demo``: one classifier of handwritten digits on every library, with one result."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import TextColumn

import softmaxkit
from softmaxkit import _palette
from softmaxkit._commands import CommandError, check_writable, save_picture
from softmaxkit._libraries import import_quietly, is_installed
from softmaxkit._terminal import new_console, new_table, print_table, progress, say
from softmaxkit.calibrate import fitted, measured, one_legend, show
from softmaxkit.calibration import plot_reliability
from softmaxkit.demo_training import TRAINERS, Epoch, Task

__all__ = ["LOSSES", "TOLERANCE", "Trajectory", "run"]

LOSSES: dict[str, Callable[..., Any]] = {
    "cross-entropy": softmaxkit.cross_entropy,
    "focal": softmaxkit.focal_loss,
}

# Each step rounds every weight once, by at most 6e-8 of it: 5.9e-5 after the 990 steps of a
# default run, were all the roundings to fall the same way. Measured: about 1e-6.
TOLERANCE = 1e-4

DIGITS_SHOWN = 6


@dataclass(frozen=True)
class Trajectory:
    """What one library did: every epoch, and the seconds they took."""

    backend: str
    epochs: list[Epoch]
    seconds: float


def run(
    backends: Sequence[str] | None = None,
    *,
    loss: str = "cross-entropy",
    label_smoothing: float = 0.0,
    epochs: int = 30,
    seed: int = 0,
    learning_rate: float = 0.5,
    batch_size: int = 32,
    output: Path = Path("softmaxkit-demo.png"),
    console: Console | None = None,
) -> list[Trajectory]:
    """Train on each backend from the same start, compare them, print tables, save a picture.

    The temperature is fitted to digits that no weight was trained on, and its worth measured on the
    test digits, which it was not fitted to.

    Parameters
    ----------
    backends : sequence of "numpy", "torch", "jax", "tensorflow", optional
        NumPy and every installed framework by default.
    loss : {"cross-entropy", "focal"}
        What is minimised.
    label_smoothing : float in [0, 1], default 0
        Of the loss.
    epochs, batch_size, learning_rate
        Of gradient descent.
    seed : int, at least 0
        Of the split into training, validation and test digits, the first weights and the batches.
    output : path
        Where the PNG goes.
    console : rich.console.Console, optional
        Where the rest goes; standard output by default.

    Returns
    -------
    list of Trajectory
        In the order numpy, torch, jax, tensorflow.

    Raises
    ------
    CommandError
        An option is wrong, something is not installed, or the libraries disagree.
    """
    console = console or new_console()
    backends = _checked_backends(backends)
    _check_options(loss, label_smoothing, epochs, seed, learning_rate)
    check_writable("--output", output, ".png")
    # Its notes about font caches and temporary folders are of no use here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    task = _make_task(loss, label_smoothing, epochs, seed, learning_rate, batch_size)
    for backend in backends:
        _import(backend, console)

    trajectories = _train(task, backends, console)
    last = trajectories[0].epochs[-1]
    # The first alone: that another one leaves it is for `agreement_line` to say.
    if not math.isfinite(last.train_loss):
        raise CommandError(
            f"the loss did not stay finite with --learning-rate {learning_rate:g}; "
            f"choose a smaller one.",
            exit_code=1,
        )
    _show_losses(console, task, trajectories, loss)
    say(console, confidence_line(last.test_logits, task.test_labels))
    temperature, warned = fitted(
        task.validation_images @ last.weight + last.bias, task.validation_labels
    )
    for line in warned:
        say(console, line)
    worth = {
        name: measured(last.test_logits, task.test_labels, t)
        for name, t in (("before", 1.0), ("after", temperature))
    }
    title = (
        f"T, fitted to {len(task.validation_labels)} validation digits, all on the "
        f"{len(task.test_labels)} test digits"
    )
    show(console, worth, title)
    _save_picture(task, trajectories, loss, worth, output)
    agreement, agreed = agreement_line(trajectories)
    if not agreed:
        raise CommandError(agreement, exit_code=1)
    say(console, agreement)
    say(console, f"picture: {output}")
    return trajectories


# --- checks, before any work ----------------------------------------------------------------------
def _checked_backends(backends: Sequence[str] | None) -> list[str]:
    if not backends:
        return [name for name in TRAINERS if is_installed(name)]
    for name in backends:
        if name not in TRAINERS:
            raise CommandError(f"--backend is {name!r}; expected one of {', '.join(TRAINERS)}.")
        if not is_installed(name):
            raise CommandError(
                f"--backend is {name!r}, which is not installed; pip install {name}", exit_code=1
            )
    return [name for name in TRAINERS if name in backends]


def _check_options(
    loss: str, label_smoothing: float, epochs: int, seed: int, learning_rate: float
) -> None:
    if loss not in LOSSES:
        raise CommandError(f"--loss is {loss!r}; expected {' or '.join(LOSSES)}.")
    if not 0 <= label_smoothing <= 1:
        raise CommandError(f"--label-smoothing is {label_smoothing:g}; expected 0 to 1.")
    if epochs < 1:
        raise CommandError(f"--epochs is {epochs}; expected at least 1.")
    if not 0 <= seed < 2**32:
        raise CommandError(f"--seed is {seed}; expected 0 to {2**32 - 1}.")
    if not 0 < learning_rate < math.inf:
        raise CommandError(f"--learning-rate is {learning_rate:g}; expected a positive number.")


def _make_task(
    loss: str,
    label_smoothing: float,
    epochs: int,
    seed: int,
    learning_rate: float,
    batch_size: int,
) -> Task:
    for module, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib")):
        if not is_installed(module):
            raise CommandError(
                f"{package} is not installed; pip install 'softmaxkit[demo]'", exit_code=1
            )
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    def split(images: np.ndarray, labels: np.ndarray, share: float) -> Any:
        return train_test_split(images, labels, test_size=share, stratify=labels, random_state=seed)

    images, labels = load_digits(return_X_y=True)
    images, labels = (images / 16).astype(np.float32), labels.astype(np.int64)
    images, test_images, labels, test_labels = split(images, labels, 0.25)
    train_images, validation_images, train_labels, validation_labels = split(images, labels, 0.2)
    if not 1 <= batch_size <= len(train_labels):
        raise CommandError(f"--batch-size is {batch_size}; expected 1 to {len(train_labels)}.")
    shape = images.shape[1], 10
    return Task(
        train_images,
        train_labels,
        validation_images,
        validation_labels,
        test_images,
        test_labels,
        weight=np.random.default_rng(seed).normal(0, 0.01, shape).astype(np.float32),
        bias=np.zeros(10, np.float32),
        loss=LOSSES[loss],
        options={"label_smoothing": label_smoothing},
        learning_rate=learning_rate,
        batch_size=batch_size,
        epochs=epochs,
        seed=seed,
    )


def _import(backend: str, console: Console) -> None:
    try:
        with console.status(f"importing {backend}"):
            import_quietly(backend)
    except Exception as broken:  # whatever a damaged installation raises
        reason = str(broken).partition("\n")[0]
        raise CommandError(
            f"importing {backend} failed ({type(broken).__name__}: {reason}); reinstall it, "
            f"or choose others with --backend",
            exit_code=1,
        ) from None


# --- work -----------------------------------------------------------------------------------------
def _train(task: Task, backends: Sequence[str], console: Console) -> list[Trajectory]:
    trajectories = []
    with progress(TextColumn("epochs, loss {task.fields[loss]:.4f}")) as shown:
        bars = {
            name: shown.add_task(name, total=task.epochs, start=False, loss=math.nan)
            for name in backends
        }
        for backend, bar in bars.items():
            shown.start_task(bar)
            epochs = []
            begin = time.perf_counter()
            # A descent that overflows ends in a loss that is not finite, which `run` reports.
            with np.errstate(over="ignore", invalid="ignore"):
                for epoch in TRAINERS[backend](task):
                    epochs.append(epoch)
                    shown.update(bar, advance=1, loss=epoch.train_loss)
            trajectories.append(Trajectory(backend, epochs, time.perf_counter() - begin))
    return trajectories


def differences(first: Trajectory, other: Trajectory) -> Mapping[str, float]:
    """Largest difference over all epochs, of the loss and of the weights, each relative.

    The loss to its value in that epoch, the weights to the largest weight of that epoch.
    """

    def largest(a: np.ndarray, b: np.ndarray) -> float:
        scale = np.maximum(abs(a).max(axis=1), np.finfo(np.float32).tiny)
        return float((abs(a - b).max(axis=1) / scale).max())

    def losses(epochs: list[Epoch]) -> np.ndarray:
        return np.array([[epoch.train_loss] for epoch in epochs])

    def weights(epochs: list[Epoch]) -> np.ndarray:
        return np.array([np.append(epoch.weight, epoch.bias) for epoch in epochs])

    return {
        "loss": largest(losses(first.epochs), losses(other.epochs)),
        "weights": largest(weights(first.epochs), weights(other.epochs)),
    }


def agreement_line(trajectories: Sequence[Trajectory]) -> tuple[str, bool]:
    """Say how far the others are from the first at most, and whether that is near enough."""
    first, *others = trajectories
    if not others:
        return f"agreement: nothing to compare {first.backend} with.", True
    found = {other.backend: differences(first, other) for other in others}
    parts = []
    for quantity in ("loss", "weights"):
        worst = list(found)[np.argmax([pair[quantity] for pair in found.values()])]
        parts.append(f"{quantity} {found[worst][quantity]:.1e} ({worst})")
    agreed = all(d <= TOLERANCE for pair in found.values() for d in pair.values())
    return (
        f"agreement: over all {len(first.epochs)} epochs the largest relative difference from "
        f"{first.backend} is {', '.join(parts)}; {'within' if agreed else 'NOT within'} "
        f"the tolerance of {TOLERANCE:.0e}."
    ), agreed


def confidence_line(logits: np.ndarray, labels: np.ndarray) -> str:
    """Compare the mean probability of the predicted class with how often it is right."""
    confidence = float(softmaxkit.softmax(logits).max(axis=1).mean())
    accuracy = float((logits.argmax(axis=1) == labels).mean())
    error = math.sqrt(accuracy * (1 - accuracy) / len(labels))
    excess = confidence - accuracy
    if abs(excess) <= 2 * error:
        verdict = "neither over- nor underconfident beyond two standard errors"
    else:
        verdict = f"{'over' if excess > 0 else 'under'}confident by {abs(excess):.3f}"
    return (
        f"probabilities: at T = 1 mean confidence {confidence:.3f}, accuracy {accuracy:.3f} "
        f"± {error:.3f} on {len(labels)} test digits: {verdict}."
    )


def _show_losses(
    console: Console, task: Task, trajectories: Sequence[Trajectory], loss: str
) -> None:
    table = new_table(
        f"{len(task.train_labels)} training and {len(task.test_labels)} test digits, {loss}",
        ["backend", "train loss", "test loss", "test accuracy", "seconds"],
    )
    for trajectory in trajectories:
        last = trajectory.epochs[-1]
        accuracy = (last.test_logits.argmax(axis=1) == task.test_labels).mean()
        table.add_row(
            trajectory.backend,
            f"{last.train_loss:.6f}",
            f"{last.test_loss:.6f}",
            f"{accuracy:.4f}",
            f"{trajectory.seconds:.2f}",
        )
    print_table(console, table, "Loss in nats; seconds of training, compilation included.")


# --- picture --------------------------------------------------------------------------------------
_COLOURS = {
    "numpy": _palette.SKY_BLUE,
    "torch": _palette.VERMILLION,
    "jax": _palette.GREEN,
    "tensorflow": _palette.BLACK,
}
_BEFORE_AND_AFTER = (_palette.BLUE, _palette.ORANGE)
Worth = dict[str, dict[str, float]]  # before and after: what `measured` returns


def _save_picture(
    task: Task, trajectories: Sequence[Trajectory], loss: str, worth: Worth, output: Path
) -> None:
    # A Figure of its own, not pyplot's: it draws PNG with Agg wherever it runs, and is no global.
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(14, 8.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1.6), wspace=0.04)
    above, below = left.subfigures(2, 1, hspace=0.04)
    logits = trajectories[0].epochs[-1].test_logits
    _draw_losses(above, trajectories, loss)
    _draw_worth(below, task, logits, worth)
    _draw_digits(right, task, logits, [one["temperature"] for one in worth.values()])
    save_picture("--output", output, figure, dpi=120)


def _draw_losses(figure: Any, trajectories: Sequence[Trajectory], loss: str) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    figure.suptitle(f"Training loss{' on each library' if len(trajectories) > 1 else ''}")
    axes = figure.subplots()
    for i, trajectory in enumerate(trajectories):
        losses = [epoch.train_loss for epoch in trajectory.epochs]
        # From thick to thin, so that curves which coincide are all seen.
        axes.plot(
            range(1, len(losses) + 1),
            losses,
            label=trajectory.backend,
            color=_COLOURS[trajectory.backend],
            linewidth=3.2 * (len(trajectories) - i) - 1.7,
            marker="o" if len(losses) == 1 else None,
            solid_capstyle="butt",
        )
    axes.set(xlabel="epoch", ylabel=f"training {loss}, nats", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def _draw_worth(figure: Any, task: Task, logits: np.ndarray, worth: Worth) -> None:
    figure.suptitle("Accuracy over confidence, before and after the temperature")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, one in zip(panels, worth.values(), strict=True):
        temperature = one["temperature"]
        plot_reliability(logits, task.test_labels, ax=ax, interval=None, temperature=temperature)
        error = f"ECE {one['ece']:.3f} [{one['ece_low']:.3f}, {one['ece_high']:.3f}]"
        ax.set_title(f"T = {temperature:.3g}: NLL {one['nll']:.3f}\n{error}", fontsize=10)
    one_legend(figure, panels)


def _draw_digits(figure: Any, task: Task, logits: np.ndarray, temperatures: list[float]) -> None:
    entropy = -(softmaxkit.softmax(logits) * softmaxkit.log_softmax(logits)).sum(axis=1)
    figure.suptitle("The test digits it is least sure of, and its probabilities of 0 to 9")
    panels = figure.subplots(3, 4, width_ratios=(1, 2.2, 1, 2.2)).reshape(-1, 2)
    classes = np.arange(10)
    for (picture, bars), i in zip(panels, entropy.argsort()[::-1][:DIGITS_SHOWN], strict=True):
        label, predicted = task.test_labels[i], logits[i].argmax()
        wrong = label != predicted
        picture.imshow(task.test_images[i].reshape(8, 8), cmap="gray_r")
        picture.set_title(
            f"a {label}, taken for {predicted}" if wrong else f"a {label}, recognised",
            fontsize=9,
            color=_palette.VERMILLION if wrong else _palette.BLACK,
        )
        picture.set_axis_off()
        for temperature, colour, shift in zip(
            temperatures, _BEFORE_AND_AFTER, (-0.21, 0.21), strict=True
        ):
            probabilities = softmaxkit.softmax(logits[i], temperature=temperature)
            name = f"T = {temperature:.3g}"
            bars.bar(classes + shift, probabilities, 0.42, color=colour, label=name)
        bars.set(xticks=classes, ylim=(0, 1), yticks=(0, 0.5, 1))
        bars.set_xlabel("digit", fontsize=9)
        bars.set_ylabel("probability", fontsize=9)
        bars.tick_params(labelsize=8, length=2)
        bars.get_xticklabels()[label].set_fontweight("bold")
        bars.spines[["top", "right"]].set_visible(False)
    names = panels[0][1].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=2, frameon=False, fontsize="small")
