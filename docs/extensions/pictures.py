"""The pictures of the pages of operations: curves of the package's own calls.

Each is drawn twice, for a light and a dark page.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import softmaxkit
from softmaxkit import _palette, calibration

COLOURS = {
    "light": [_palette.BLUE, _palette.VERMILLION, _palette.GREEN, _palette.PURPLE],
    "dark": [_palette.SKY_BLUE, _palette.ORANGE, _palette.GREEN, _palette.PURPLE],
}
INK = {"light": "#333333", "dark": "#CFD0D0"}
DASHES = ["-", "--", "-.", ":"]


def _softmax(ax: Any) -> str:
    x = np.linspace(-6, 6, 241)
    logits = np.stack([x, np.zeros_like(x), np.full_like(x, -1.0)], 1)
    for t in (0.25, 1.0, 4.0):
        ax.plot(x, softmaxkit.softmax(logits, temperature=t)[:, 0], label=f"temperature {t:g}")
    ax.set(xlabel="logit x of the first class, beside 0 and -1", ylabel="its probability")
    return "Probability of the first of three classes with the logits (x, 0, −1), by temperature."


def _log_softmax(ax: Any) -> str:
    d = np.linspace(0, 40, 401, dtype=np.float32)
    logits = np.stack([d, np.zeros_like(d)], 1)
    naive = np.log(np.exp(logits[:, 0] - d) / np.exp(logits - d[:, None]).sum(1))
    exact = -softmaxkit.log_softmax(logits)[:, 0]
    ax.semilogy(d, exact, label="log_softmax")
    ax.semilogy(d, np.where(naive < 0, -naive, np.nan), linewidth=4, label="log(softmax)")
    ax.set(xlabel="logit d of the first class, beside 0", ylabel="-log p")
    return (
        "What −log p of the class that dominates comes to in float32, for the logits (d, 0). The "
        "logarithm of a rounded probability is 0 beyond d = 17, where its line ends."
    )


def _logsumexp(ax: Any) -> str:
    x = np.linspace(-6, 6, 241)
    y = softmaxkit.logsumexp(np.stack([x, np.zeros_like(x)], 1))
    ax.plot(x, y, label="logsumexp of (x, 0)")
    ax.plot(x, np.maximum(x, 0), label="their maximum")
    ax.set(xlabel="x")
    return "A maximum with a round corner: logsumexp of (x, 0), and the maximum of the two."


def _against_p(ax: Any, curves: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]) -> None:
    p = np.linspace(0.005, 0.995, 199)
    logits = np.stack([np.log(p), np.log1p(-p)], 1)
    labels = np.zeros(len(p), int)
    for label, loss in curves.items():
        ax.plot(p, loss(logits, labels), label=label)
    ax.set(xlabel="probability p of the label", ylabel="loss of the row")


def _cross_entropy(ax: Any) -> str:
    _against_p(ax, {
        f"label_smoothing {e:g}": lambda x, y, e=e: softmaxkit.cross_entropy(
            x, y, label_smoothing=e, reduction="none")
        for e in (0.0, 0.1, 0.4)
    })  # fmt: skip
    return (
        "Loss of a row of two classes by the probability of its label. With smoothing ε the lowest "
        "point is at p = 1 − ε/2: being surer than that costs."
    )


def _focal_loss(ax: Any) -> str:
    _against_p(ax, {
        f"gamma {g:g}" + (" (cross-entropy)" if g == 0 else ""):
        lambda x, y, g=g: softmaxkit.focal_loss(x, y, gamma=g, reduction="none")
        for g in (0.0, 0.5, 2.0, 5.0)
    })  # fmt: skip
    return "Loss of a row by the probability of its label: the larger γ, the less easy rows cost."


def _poly(ax: Any) -> str:
    _against_p(ax, {
        f"epsilon {e:g}" + (" (cross-entropy)" if e == 0 else ""):
        lambda x, y, e=e: softmaxkit.poly_loss_cross_entropy(x, y, epsilon=e, reduction="none")
        for e in (-1.0, 0.0, 2.0)
    })  # fmt: skip
    return "Loss of a row by the probability of its label, by ε."


def _binary(ax: Any) -> str:
    x = np.linspace(-6, 6, 241)
    for w in (1.0, 3.0):
        loss = softmaxkit.binary_cross_entropy(x, np.ones_like(x), pos_weight=w, reduction="none")
        ax.plot(x, loss, label=f"label 1, pos_weight {w:g}")
    loss = softmaxkit.binary_cross_entropy(x, np.zeros_like(x), reduction="none")
    ax.plot(x, loss, label="label 0")
    ax.set(xlabel="logit x", ylabel="loss of the element")
    return "Loss of an element by its logit, for both labels."


def _sigmoid_focal(ax: Any) -> str:
    x = np.linspace(-6, 6, 241)
    for gamma in (0.0, 0.5, 2.0, 5.0):
        loss = softmaxkit.sigmoid_focal_loss(x, np.ones_like(x), gamma=gamma, reduction="none")
        ax.plot(x, loss, label=f"gamma {gamma:g}")
    ax.set(xlabel="logit x of a label that is true", ylabel="loss of the element")
    return "Loss of a label that is true, by its logit."


def _smooth_labels(ax: Any) -> str:
    classes = np.arange(4)
    for i, smoothing in enumerate((0.0, 0.1, 0.4)):
        p = softmaxkit.smooth_labels(np.array([1]), smoothing, num_classes=4)[0]
        ax.bar(classes + 0.27 * (i - 1), p, 0.25, label=f"smoothing {smoothing:g}")
    ax.set(xlabel="class", ylabel="probability", xticks=classes)
    return "Label 1 of four classes as probabilities, smoothed."


def _scores() -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are twice too sure, and labels drawn from what is right."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, (20000, 5))
    return 2 * truth, (truth + rng.gumbel(size=truth.shape)).argmax(1)


def _reliability(ax: Any) -> str:
    logits, labels = _scores()
    ax.plot([0, 1], [0, 1], color=_palette.GREY, linewidth=1, label="right about its chances")
    ax.set_prop_cycle(None)
    fitted = calibration.fit_temperature(logits, labels)
    for t, label in ((1.0, "twice too sure"), (fitted, "with its temperature")):
        found = calibration.reliability(logits, labels, temperature=t)
        ax.plot(found.confidence, found.accuracy, marker="o", markersize=4, label=label)
    ax.set(xlabel="confidence", ylabel="accuracy")
    return "Accuracy in each bin of confidence, before and after `fit_temperature`."


def _fit_temperature(ax: Any) -> str:
    logits, labels = _scores()
    found = calibration.fit_temperature(logits, labels)
    ts = np.geomspace(0.5, 10, 60)
    losses = [softmaxkit.cross_entropy(logits, labels, temperature=t) for t in ts]
    ax.semilogx(ts, losses, label="cross-entropy")
    least = softmaxkit.cross_entropy(logits, labels, temperature=found)
    ax.plot([found], [least], "o", label=f"fit_temperature: {found:.2f}")
    ax.set(xlabel="temperature", ylabel="cross-entropy",
           xticks=[0.5, 1, 2, 5, 10], xticklabels=["0.5", "1", "2", "5", "10"])  # fmt: skip
    ax.minorticks_off()
    return "Cross-entropy of logits that are twice too sure, by temperature: it has one minimum."


def _risk_coverage(ax: Any) -> str:
    logits, labels = _scores()
    coverage, risk, _ = calibration.risk_coverage(logits, labels)
    ax.plot(coverage, risk, label="risk of the answers that are given")
    ax.set(xlabel="share of rows that are answered", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    return "Errors among the surest rows, by how many of them are answered."


def _prediction_sets(ax: Any) -> str:
    logits, labels = _scores()
    rates = np.linspace(0.02, 0.4, 20)
    sizes, missed = [], []
    for rate in rates:
        threshold = calibration.conformal_threshold(logits[:10000], labels[:10000], error_rate=rate)
        sets = calibration.prediction_sets(logits[10000:], threshold)
        sizes.append(sets.sum(1).mean())
        missed.append(1 - sets[np.arange(10000), labels[10000:]].mean())
    ax.plot(rates, sizes, label="classes in a set, mean")
    ax.plot(rates, missed, label="sets without the label")
    ax.plot(rates, rates, color=_palette.GREY, linewidth=1, label="error_rate")
    ax.set(xlabel="error_rate")
    return "Size of the sets, and how often they miss on new rows, by the rate that was asked for."


def _confidence(ax: Any) -> str:
    x = np.linspace(0, 6, 121)
    logits = np.stack([x, np.zeros_like(x), np.full_like(x, -1.0)], 1)
    for kind in ("probability", "margin", "entropy"):
        ax.plot(x, calibration.confidence(logits, kind), label=kind)
    ax.set(xlabel="logit x of the first class, beside 0 and -1", ylabel="confidence")
    return "Three of the kinds for a row of the logits (x, 0, −1); each grows as the row is surer."


PICTURES: dict[str, Callable[[Any], str]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "cross_entropy": _cross_entropy,
    "focal_loss": _focal_loss,
    "poly_loss_cross_entropy": _poly,
    "binary_cross_entropy": _binary,
    "sigmoid_focal_loss": _sigmoid_focal,
    "smooth_labels": _smooth_labels,
    "reliability": _reliability,
    "calibration_error": _reliability,
    "fit_temperature": _fit_temperature,
    "risk_coverage": _risk_coverage,
    "aurc": _risk_coverage,
    "confidence": _confidence,
    "conformal_threshold": _prediction_sets,
    "prediction_sets": _prediction_sets,
}
# What the calls that draw have drawn, for `reading_a_softmax.md`.
DRAWN = {
    "plot_reliability": ("reliability.png", "Reliability before and after `fit_temperature`."),
    "plot_risk_coverage": (
        "reject_others.png",
        "On the right: digits that a network knows, and all.",
    ),
}
CAPTIONS: dict[str, str] = {}


def draw(folder: Path) -> None:
    """Draw all of them into a folder."""
    folder.mkdir(exist_ok=True)
    for page, colours in COLOURS.items():
        ink = INK[page]
        cycle = plt.cycler(color=colours) + plt.cycler(linestyle=DASHES)
        style = {
            "axes.prop_cycle": cycle, "axes.edgecolor": ink, "axes.labelcolor": ink,
            "axes.spines.top": False, "axes.spines.right": False, "text.color": ink,
            "xtick.color": ink, "ytick.color": ink, "axes.facecolor": "none",
            "figure.facecolor": "none", "legend.frameon": False, "lines.linewidth": 2,
            "svg.hashsalt": "softmaxkit", "font.size": 11,
        }  # fmt: skip
        for name, picture in PICTURES.items():
            with plt.rc_context(style):
                figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
                CAPTIONS[name] = picture(ax)
                ax.legend()
                figure.savefig(folder / f"{name}-{page}.svg", metadata={"Date": None})
                plt.close(figure)


def markdown(name: str) -> str:
    """Return the picture of a page, in both colours, and its caption."""
    if name in DRAWN:
        picture, caption = DRAWN[name]
        return f"![{caption}](../pictures/{picture})\n\n{caption}"
    caption = CAPTIONS[name]
    images = [
        f"```{{image}} pictures/{name}-{page}.svg\n:alt: {caption}\n:class: only-{page}\n```"
        for page in COLOURS
    ]
    return "\n\n".join([*images, caption])
