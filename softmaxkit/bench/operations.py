"""What is measured: the operations and the shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import softmaxkit

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """A function of softmaxkit, called as ``function(logits[, beside], axis=1, **options)``.

    A linear loss is called as ``function(hidden, weight_matrix, labels, **options)``.

    Parameters
    ----------
    family : {"activation", "loss", "gradient", "linear"}
        What it counts as in the summary; "gradient" is a loss run forward and backward, and so is
        "linear", of logits that are a product.
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
        return self.family in ("gradient", "linear")

    @property
    def linear(self) -> bool:
        """Whether it takes hidden and weight_matrix, and not their product."""
        return self.family == "linear"


SMOOTHING = 0.1
GAMMA = 2.0

_entropy, _focal = softmaxkit.cross_entropy, softmaxkit.focal_loss
_linear = softmaxkit.linear_cross_entropy


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

LINEAR_OPERATIONS = {
    "linear_cross_entropy_grad": Operation("linear", _linear, "labels"),
    "linear_cross_entropy_smoothing_grad": Operation(
        "linear", _linear, "labels", {"label_smoothing": SMOOTHING}
    ),
    "linear_cross_entropy_rows_grad": Operation("linear", _linear, "labels", {"reduction": "none"}),
}

EVERY_OPERATION = OPERATIONS | LINEAR_OPERATIONS

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

# (rows, width, classes): logits of 1 and of 2 GiB in float32.
LINEAR_SHAPES: tuple[Shape, ...] = ((4096, 512, 65536), (2048, 256, 262144))
LINEAR_QUICK_SHAPES: tuple[Shape, ...] = ((2048, 16, 16384),)  # two chunks


class Selection(NamedTuple):
    """What is measured unless options name something else."""

    operations: Mapping[str, Operation]
    shapes: Sequence[Shape]
    quick_operations: Sequence[str]
    quick_shapes: Sequence[Shape]
    rounds: int
    least_rounds: int


OF_LOGITS = Selection(OPERATIONS, SHAPES, QUICK_OPERATIONS, QUICK_SHAPES, 9, 7)
# A call takes seconds.
OF_PRODUCTS = Selection(
    LINEAR_OPERATIONS, LINEAR_SHAPES, [*LINEAR_OPERATIONS][:1], LINEAR_QUICK_SHAPES, 3, 1
)

# Below this many elements the fixed cost of a call decides.
SMALL_ELEMENTS = 10_000


def is_small(shape: Shape) -> bool:
    """Return whether the fixed cost of a call decides at this shape."""
    return prod(shape) < SMALL_ELEMENTS
