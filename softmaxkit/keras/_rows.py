"""Losses row by row: from logits by softmaxkit's functions, from probabilities by Keras's own."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Keras has no public name for the mask that a custom loss may attach to its result.
from keras.src.backend import set_keras_mask

from softmaxkit._arguments import Call, begin
from softmaxkit._dispatch import resolve
from softmaxkit._targets import labels_in_range
from softmaxkit.labels import smooth_labels
from softmaxkit.losses import (
    binary_cross_entropy,
    cross_entropy,
    focal_loss,
    sigmoid_focal_loss,
)


def wide(dtype: str) -> str:
    """Return the dtype of the arithmetic: `dtype`, or float32 if that is narrower."""
    return "float32" if dtype in ("float16", "bfloat16") else dtype


def dtype_of(x: Any) -> str:
    """Return the name of a tensor's dtype."""
    name: str = keras.backend.standardize_dtype(x.dtype)
    return name


def of_classes(
    name: str,
    y_true: Any,
    y_pred: Any,
    *,
    from_logits: bool,
    label_smoothing: float,
    axis: int,
    **focal: Any,
) -> Any:
    """Return the loss of each row for probabilities in the shape of the predictions.

    `focal` has alpha and gamma; without them it is cross-entropy.
    """
    y_true, y_pred = _tensors(name, y_true, y_pred)
    y_true = _cast(y_true, wide(dtype_of(y_pred)))
    if from_logits:
        return _of_logits(y_pred, y_true, axis, label_smoothing, focal)
    call = begin(name, "y_pred", y_pred)
    _same_shape(call, y_true, call.shape)
    return _of_probabilities(call, smooth_labels(y_true, label_smoothing, axis=axis), axis, focal)


def of_labels(
    name: str,
    y_true: Any,
    y_pred: Any,
    *,
    from_logits: bool,
    label_smoothing: float,
    axis: int,
    ignore_class: int | None,
    **focal: Any,
) -> Any:
    """Return the loss of each row for class indices, with Keras's mask if a class is ignored."""
    y_true, y_pred = _tensors(name, y_true, y_pred)
    if len(y_true.shape) == len(y_pred.shape) and y_true.shape[axis] == 1:
        y_true = ops.squeeze(y_true, axis)
    # Wider integers are not cast: labels beyond int32 would become others, which are in range.
    labels = y_true if dtype_of(y_true) in ("int64", "uint32", "uint64") else _cast(y_true, "int32")
    kept = None if ignore_class is None else ops.not_equal(labels, ignore_class)
    if from_logits:
        losses = _of_logits(y_pred, labels, axis, label_smoothing, focal, ignore_class)
    elif kept is None:
        losses = _of_kept_labels(name, labels, y_pred, axis, label_smoothing, focal)
    else:
        labels = ops.where(kept, labels, ops.zeros_like(labels))
        y_pred = ops.where(ops.expand_dims(kept, axis), y_pred, ops.ones_like(y_pred))
        losses = _of_kept_labels(name, labels, y_pred, axis, label_smoothing, focal)
        losses = ops.where(kept, losses, ops.zeros_like(losses))
    if kept is not None:
        set_keras_mask(losses, kept)
    return losses


def of_binary(
    name: str,
    y_true: Any,
    y_pred: Any,
    *,
    from_logits: bool,
    label_smoothing: float,
    axis: int,
    apply_class_balancing: bool = False,
    **focal: Any,
) -> Any:
    """Return the losses of independent labels, averaged along an axis."""
    y_true, y_pred = _tensors(name, y_true, y_pred)
    dtype = dtype_of(y_pred)
    y_true, p = _cast(y_true, wide(dtype)), _cast(y_pred, wide(dtype))
    if from_logits:
        if not apply_class_balancing and focal:
            focal["alpha"] = None
        loss = sigmoid_focal_loss if focal else binary_cross_entropy
        losses = loss(p, y_true, label_smoothing=label_smoothing, reduction="none", **focal)
        return _cast(ops.mean(losses, axis), dtype)
    call = begin(name, "y_pred", y_pred)
    _same_shape(call, y_true, call.shape)
    call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0)
    options = {"label_smoothing": label_smoothing, "axis": axis}
    if not focal:
        return _cast(keras.losses.binary_crossentropy(y_true, p, **options), dtype)
    call.number("gamma", focal["gamma"], 0.0, neutral=None)
    call.number("alpha", focal["alpha"], 0.0, 1.0, neutral=None)
    focal["apply_class_balancing"] = apply_class_balancing
    losses = keras.losses.binary_focal_crossentropy(y_true, p, **options, **focal)
    return _cast(losses, dtype)


# --- of logits ------------------------------------------------------------------------------------
def _of_logits(
    logits: Any,
    targets: Any,
    axis: int,
    label_smoothing: float,
    focal: dict[str, Any],
    ignore_class: int | None = None,
) -> Any:
    loss = focal_loss if focal else cross_entropy
    return loss(
        logits,
        targets,
        axis=axis,
        ignore_index=ignore_class,
        label_smoothing=label_smoothing,
        reduction="none",
        **focal,
    )


# --- of probabilities -----------------------------------------------------------------------------
def _of_probabilities(call: Call, y_true: Any, axis: int, focal: dict[str, Any]) -> Any:
    """Return Keras's loss of the probabilities `call.array`, with the classes moved last.

    Only there does Keras lay a list `alpha` along them on every backend.
    """
    axis, dtype = call.class_axis(axis), dtype_of(call.array)
    p = _classes_last(_cast(call.array, wide(dtype)), axis)
    y_true = _classes_last(_cast(y_true, wide(dtype)), axis)
    if not focal:
        return _cast(keras.losses.categorical_crossentropy(y_true, p), dtype)
    call.number("gamma", focal["gamma"], 0.0, neutral=None)
    call.class_vector("alpha", focal["alpha"], axis, one_for_all=True)
    return _cast(keras.losses.categorical_focal_crossentropy(y_true, p, **focal), dtype)


def _of_kept_labels(
    name: str,
    labels: Any,
    y_pred: Any,
    axis: int,
    label_smoothing: float,
    focal: dict[str, Any],
) -> Any:
    """Return Keras's loss of labels; a label out of range is an error, or makes its row NaN."""
    call = begin(name, "y_pred", y_pred)
    classes = call.class_axis(axis)
    number = call.shape[classes]
    _same_shape(call, labels, call.shape[:classes] + call.shape[classes + 1 :])
    seen = call.backend.visible(labels)
    unseen, _ = labels_in_range(name, "y_true", seen, number, None, ignorable=False)
    factor = None
    if unseen is not None:
        bad = ops.logical_or(labels < 0, labels >= ops.shape(y_pred)[classes])
        labels = ops.where(bad, ops.zeros_like(labels), labels)
        factor = ops.where(bad, float("nan"), 1.0)
    if focal or label_smoothing:
        y_true = smooth_labels(labels, label_smoothing, num_classes=number, axis=axis)
        losses = _of_probabilities(call, y_true, axis, focal)
    else:
        # Keras's own loss for labels: on TensorFlow it clips before it divides by the sum.
        p = _classes_last(_cast(y_pred, wide(dtype_of(y_pred))), classes)
        losses = _cast(keras.losses.sparse_categorical_crossentropy(labels, p), dtype_of(y_pred))
    return losses if factor is None else losses * _cast(factor, dtype_of(losses))


def _classes_last(x: Any, axis: int) -> Any:
    # If they are last already, return the same object: Keras on TensorFlow finds the logits by it.
    return x if axis == len(x.shape) - 1 else ops.moveaxis(x, axis, -1)


# --- tensors --------------------------------------------------------------------------------------
def _tensors(name: str, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Return both as tensors, the predictions in a floating dtype."""
    for argument, value in (("y_true", y_true), ("y_pred", y_pred)):
        if isinstance(value, keras.KerasTensor):
            resolve(name, argument, value)  # which refuses it, and says what to do
    y_true, y_pred = (x if ops.is_tensor(x) else ops.convert_to_tensor(x) for x in (y_true, y_pred))
    if not keras.backend.is_float_dtype(dtype_of(y_pred)):
        y_pred = ops.cast(y_pred, keras.config.floatx())
    return y_true, y_pred


def _cast(x: Any, dtype: str) -> Any:
    """Cast `x`; return the same object if it has that dtype already."""
    return x if dtype_of(x) == dtype else ops.cast(x, dtype)


def _same_shape(call: Call, y_true: Any, expected: tuple[int | None, ...]) -> None:
    given = call.backend.shape(y_true)
    if not call.same_shape(given, expected):
        raise ValueError(  # "must have the same shape": Keras's own tests look for these words
            f"{call.name}: y_true has shape {given}; expected {expected}: it must have the same "
            f"shape as y_pred, {call.shape}, without the class axis if it holds labels; reshape "
            f"y_true."
        )
