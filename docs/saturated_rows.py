"""Draw the picture of README.md: the digits left in rows of which one class is nearly sure.

python docs/saturated_rows.py        # needs torch, jax, optax, tensorflow, scipy and matplotlib

Cross-entropy of the float32 logits [gap, 0] with the label 0, and its derivative by the first
logit, beside log(1 + e^-gap) and -1 / (1 + e^gap) in float64.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
import tensorflow as tf
import torch
from matplotlib.figure import Figure

import softmaxkit
from softmaxkit import _palette

PICTURE = Path(__file__).resolve().parent / "pictures" / "saturated_rows.png"
GAP = np.linspace(0, 30, 601, dtype="float32")[1:]
LOGITS, LABELS = np.stack([GAP, 0 * GAP], 1), np.zeros(len(GAP), "int64")
LOSS = np.log1p(np.exp(-np.float64(GAP)))
DERIVATIVE = -1 / (1 + np.exp(np.float64(GAP)))


def in_torch():
    """Return the losses and derivatives of PyTorch."""
    x = torch.tensor(LOGITS, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(LABELS), reduction="none")
    loss.sum().backward()
    return loss.detach().numpy(), x.grad.numpy()


def in_jax():
    """Return those of optax."""
    of_labels = optax.softmax_cross_entropy_with_integer_labels
    loss, carried_back = jax.vjp(lambda x: of_labels(x, jnp.array(LABELS)), jnp.array(LOGITS))
    return np.array(loss), np.array(carried_back(jnp.ones_like(loss))[0])


def in_tensorflow():
    """Return those of TensorFlow."""
    x = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, x)
    return loss.numpy(), tape.gradient(loss, x).numpy()


def in_scipy():
    """Return the losses of SciPy, which has no derivatives."""
    return -scipy.special.log_softmax(LOGITS, 1)[:, 0], None


def in_softmaxkit():
    """Return those of softmaxkit, on NumPy."""
    return softmaxkit.value_and_grad(softmaxkit.cross_entropy)(LOGITS, LABELS, reduction="none")


# Name -> function, colour, stroke and width; some curves coincide.
LINES = {
    "PyTorch": (in_torch, _palette.ORANGE, "-", 6),
    "TensorFlow": (in_tensorflow, _palette.SKY_BLUE, "-", 3),
    "SciPy": (in_scipy, _palette.VERMILLION, ":", 1.5),
    "optax": (in_jax, _palette.GREEN, "--", 1.5),
    "softmaxkit": (in_softmaxkit, _palette.BLACK, "-", 1.8),
}


def main():
    """Draw it."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for name, (give, colour, stroke, width) in LINES.items():
        losses, gradients = give()
        how = {"label": name, "color": colour, "linestyle": stroke, "linewidth": width}
        left.plot(GAP, largest_so_far(losses, LOSS), **how)
        if gradients is not None:
            right.plot(GAP, largest_so_far(gradients[:, 0], DERIVATIVE), **how)
    left.set(title="cross-entropy of [gap, 0], label 0", ylabel="largest relative error up to gap")
    right.set_title("its derivative by the first logit")
    for ax in (left, right):
        ax.set(xlabel="gap between the logits", xlim=(0, 30), yscale="log", ylim=(1e-8, 3))
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    left.annotate("no digit is left", (30, 1), (29.5, 0.25), ha="right", va="top", fontsize="small")
    left.legend(frameon=False, fontsize="small", loc="center right", bbox_to_anchor=(1, 0.4))
    figure.savefig(PICTURE, dpi=110)


def largest_so_far(values, truth):
    """Return the relative error, or that of a smaller gap where it is larger."""
    return np.maximum.accumulate(abs(values / truth - 1))


if __name__ == "__main__":
    main()
