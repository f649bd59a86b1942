"""The operations: code that goes through all of them, or a family, takes their names from here.

The conformance suite, the golden values, the calls drawn at random, the page of the semantics and
the tests of the façades do so.
"""

from __future__ import annotations

from typing import NamedTuple


class Operation(NamedTuple):
    """An operation of the package, and where else it is found."""

    name: str
    family: str  # see OPERATIONS
    by_class: str | None = None  # the argument that weighs classes
    facades: tuple[str, ...] = ()  # its names there, as "façade.name"


OPERATIONS = (
    Operation(
        "softmax",
        "activation",
        facades=(
            *("torch.softmax", "torch.softmin", "torch.Softmax"),
            *("jax.softmax", "tensorflow.softmax"),
        ),
    ),
    Operation(
        "log_softmax",
        "activation",
        facades=(
            *("torch.log_softmax", "torch.LogSoftmax"),
            *("jax.log_softmax", "tensorflow.log_softmax"),
        ),
    ),
    Operation("logsumexp", "activation", facades=("jax.logsumexp",)),
    Operation(
        "cross_entropy",
        "class loss",
        by_class="weight",
        facades=(
            *("torch.cross_entropy", "torch.nll_loss", "torch.CrossEntropyLoss"),
            *("torch.causal_lm_loss", "torch.LabelSmoother"),
            *("torch.vocab_parallel_cross_entropy", "jax.vocab_parallel_cross_entropy"),
            *("jax.softmax_cross_entropy", "jax.safe_softmax_cross_entropy"),
            "jax.softmax_cross_entropy_with_integer_labels",
            "tensorflow.softmax_cross_entropy_with_logits",
            "tensorflow.sparse_softmax_cross_entropy_with_logits",
            *("keras.CategoricalCrossentropy", "keras.categorical_crossentropy"),
            *("keras.SparseCategoricalCrossentropy", "keras.sparse_categorical_crossentropy"),
        ),
    ),
    Operation(
        "focal_loss",
        "class loss",
        by_class="alpha",
        facades=(
            *("torch.focal_loss", "torch.FocalLoss", "jax.softmax_focal_loss"),
            "tensorflow.softmax_focal_loss_with_logits",
            "tensorflow.sparse_softmax_focal_loss_with_logits",
            *("keras.CategoricalFocalCrossentropy", "keras.categorical_focal_crossentropy"),
            "keras.SparseCategoricalFocalCrossentropy",
            "keras.sparse_categorical_focal_crossentropy",
        ),
    ),
    Operation(
        "poly_loss_cross_entropy",
        "class loss",
        by_class="weight",
        facades=("jax.poly_loss_cross_entropy",),
    ),
    Operation(
        "binary_cross_entropy",
        "binary loss",
        facades=(
            *("torch.binary_cross_entropy_with_logits", "torch.BCEWithLogitsLoss"),
            "jax.sigmoid_binary_cross_entropy",
            "tensorflow.sigmoid_cross_entropy_with_logits",
            *("keras.BinaryCrossentropy", "keras.binary_crossentropy"),
        ),
    ),
    Operation(
        "sigmoid_focal_loss",
        "binary loss",
        facades=(
            *("torch.sigmoid_focal_loss", "torch.SigmoidFocalLoss", "jax.sigmoid_focal_loss"),
            "tensorflow.sigmoid_focal_loss_with_logits",
            *("keras.BinaryFocalCrossentropy", "keras.binary_focal_crossentropy"),
        ),
    ),
    Operation(
        "linear_cross_entropy",
        "linear loss",
        facades=(
            *("torch.linear_cross_entropy", "torch.LinearCrossEntropyLoss"),
            *("jax.linear_cross_entropy", "tensorflow.linear_cross_entropy"),
            "torch.vocab_parallel_linear_cross_entropy",
            "jax.vocab_parallel_linear_cross_entropy",
        ),
    ),
    Operation("one_hot", "labels"),
    Operation("smooth_labels", "labels", facades=("jax.smooth_labels",)),
)
# For each operation that has one, the argument that weighs classes.
BY_CLASS = {one.name: one.by_class for one in OPERATIONS if one.by_class is not None}


def names(family: str) -> tuple[str, ...]:
    """Return the names of the operations of a family."""
    return tuple(one.name for one in OPERATIONS if one.family == family)
