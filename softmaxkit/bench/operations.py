"""What is measured: the operations and the shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import softmaxkit

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """A function of softmaxkit, called as ``function(logits[, beside], axis=1, **options)``.

    Parameters
    ----------
    family : {"activation", "loss", "gradient"}
        What it counts as in the summary; "gradient" is a loss run forward and backward.
    function : callable
        Of softmaxkit.
    beside : {"", "labels", "probabilities", "mask"}
        What it takes beside the logits.
    options : mapping
        What it is called with.
    """

    family: str
    function: Callable[..., Any]
    beside: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gradient(self) -> bool:
        """Whether it is run backward, too."""
        return self.family == "gradient"


SMOOTHING = 0.1
GAMMA = 2.0

_entropy, _focal = softmaxkit.cross_entropy, softmaxkit.focal_loss


def _softmax_masked(logits: Any, mask: Any, axis: int) -> Any:
    return softmaxkit.softmax(logits, axis=axis, where=mask)


OPERATIONS = {
    "softmax": Operation("activation", softmaxkit.softmax),
    "softmax_masked": Operation("activation", _softmax_masked, "mask"),
    "log_softmax": Operation("activation", softmaxkit.log_softmax),
    "cross_entropy": Operation("loss", _entropy, "labels"),
    "cross_entropy_grad": Operation("gradient", _entropy, "labels"),
    "cross_entropy_smoothing_grad": Operation(
        "gradient", _entropy, "labels", {"label_smoothing": SMOOTHING}
    ),
    "cross_entropy_probabilities_grad": Operation("gradient", _entropy, "probabilities"),
    "focal_loss_grad": Operation("gradient", _focal, "labels", {"gamma": GAMMA}),
}

# (rows, classes); where there are more axes, the classes are the second. The scores of an attention
# of (16, 12, 512, 512) are its 98304 rows.
SHAPES: tuple[Shape, ...] = (
    (32, 10),
    (8192, 1000),
    (200000, 10),
    (4096, 4096),
    (98304, 512),
    (512, 32768),
    (256, 128256),
    (32, 81, 8732),
    (8, 21, 256, 256),
)

QUICK_OPERATIONS = ("softmax", "cross_entropy_grad")
QUICK_SHAPES: tuple[Shape, ...] = ((32, 10), (20000, 10), (1024, 1024))

# Below this many elements the fixed cost of a call decides.
SMALL_ELEMENTS = 10_000


def is_small(shape: Shape) -> bool:
    """Tell whether the fixed cost of a call decides at this shape."""
    return prod(shape) < SMALL_ELEMENTS
