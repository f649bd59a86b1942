"""Tensors that tf.nn accepts: ragged, or of unknown rank; and the error for a bad label."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

import softmaxkit


class LabelError(IndexError, tf.errors.InvalidArgumentError):
    """A label out of range: both softmaxkit's exception and tf.nn's."""

    def __init__(self, message: str) -> None:
        tf.errors.InvalidArgumentError.__init__(self, None, None, message)


def as_tensor(value: Any) -> Any:
    """Return `value` as a tensor; leave a RaggedTensor, which softmaxkit's losses refuse."""
    return value if isinstance(value, tf.RaggedTensor) else tf.convert_to_tensor(value)


# --- activations ----------------------------------------------------------------------------------
def along(activation: Callable[..., Any], x: Any, axis: int) -> Any:
    """Apply an activation along `axis`; if the rank is unknown, only along the last."""
    x = as_tensor(x)
    if axis == -1 and x.shape.rank is None and not isinstance(x, tf.RaggedTensor):
        return tf.reshape(activation(_three_axes(x, axis)), tf.shape(x))
    return activation(x, axis)


def ragged_softmax(x: Any, axis: int) -> Any:
    """Return the softmax of a RaggedTensor along its last ragged axis, or one that follows."""
    rank, first = x.shape.rank, x.ragged_rank
    inner = axis - first if axis >= 0 else axis + rank - first
    if not 0 <= inner < rank - first:
        raise ValueError(
            f"softmax: axis is {axis}, logits a RaggedTensor of shape {x.shape}; expected an axis "
            f"from {first}, the last ragged one, to {rank - 1}; pass logits.to_tensor() "
            f"to softmaxkit.softmax, with where=."
        )
    if inner > 0:
        return x.with_flat_values(softmaxkit.softmax(x.flat_values, inner))
    rows = x
    for _ in range(first - 1):
        rows = rows.values
    padded = rows.to_tensor()
    there = tf.sequence_mask(rows.row_lengths(), tf.shape(padded)[1])
    mask = there[(..., *(tf.newaxis,) * (padded.shape.rank - 2))]
    p = softmaxkit.softmax(padded, 1, where=mask)
    return x.with_flat_values(tf.gather_nd(p, tf.where(there)))


# --- losses ---------------------------------------------------------------------------------------
def over_classes(loss: Callable[..., Any], labels: Any, logits: Any, axis: int = -1) -> Any:
    """Return ``loss(logits, labels, axis=axis)``; if a rank is unknown, after a reshape."""
    if isinstance(logits, tf.RaggedTensor) or isinstance(labels, tf.RaggedTensor):
        return loss(logits, labels, axis=axis)
    by_index = labels.dtype.is_integer
    if logits.shape.rank is None and labels.shape.rank is not None:
        shape = labels.shape.concatenate([None]) if by_index else labels.shape
        logits = tf.ensure_shape(logits, shape)
    if labels.shape.rank is None and logits.shape.rank is not None:
        labels = tf.ensure_shape(labels, logits.shape[:-1] if by_index else logits.shape)
    if logits.shape.rank is not None:
        return loss(logits, labels, axis=axis)
    lengths = tf.shape(logits)
    rows = lengths[:-1] if axis == -1 else tf.concat([lengths[:axis], lengths[axis + 1 :]], 0)
    labels = _of_shape(labels, rows if by_index else lengths)
    labels = tf.reshape(labels, [-1]) if by_index else _three_axes(labels, axis)
    return tf.reshape(loss(_three_axes(logits, axis), labels, axis=1), rows)


def over_labels(loss: Callable[..., Any], labels: Any, logits: Any) -> Any:
    """Return ``loss(logits, labels)`` in the same way, for independent labels."""
    if isinstance(logits, tf.RaggedTensor) or isinstance(labels, tf.RaggedTensor):
        return loss(logits, labels)
    if logits.shape.rank is None:
        logits = tf.ensure_shape(logits, labels.shape)
    if labels.shape.rank is None:
        labels = tf.ensure_shape(labels, logits.shape)
    if logits.shape.rank is not None:
        return loss(logits, labels)
    labels = _of_shape(labels, tf.shape(logits))
    out = loss(tf.reshape(logits, [-1]), tf.reshape(labels, [-1]))
    return tf.reshape(out, tf.shape(logits))


def _three_axes(x: Any, axis: int) -> Any:
    """Merge the axes before the class axis into one, and those after it, if any, into another."""
    lengths = tf.shape(x)
    after = [] if axis == -1 else [tf.reduce_prod(lengths[axis + 1 :])]
    return tf.reshape(x, [tf.reduce_prod(lengths[:axis]), lengths[axis], *after])


def _of_shape(x: Any, shape: Any) -> Any:
    message = "labels and logits, of a rank that was unknown while tracing, differ in shape"
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(x), shape, message)]):
        return tf.identity(x)
