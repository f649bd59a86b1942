"""What Keras offers on TensorFlow; see the package."""

# ruff: noqa: D103 - a function's name says which call it translates

from functools import partial

import keras

from peers import NotOffered, is_dense, one_axis

log_softmax = keras.ops.log_softmax
logsumexp = partial(keras.ops.logsumexp, axis=-1)
one_hot = keras.ops.one_hot


def classes_last(x, axis):
    return x if axis == -1 else keras.ops.moveaxis(x, axis, -1)


def softmax(x, *, axis=-1, where=None):
    if where is None:
        return keras.ops.softmax(x, axis)
    return keras.layers.Softmax(one_axis(axis))(x, mask=where)


def cross_entropy(
    x, y, *, axis=-1, sample_weight=None, ignore_index=None, label_smoothing=0.0, reduction="mean",
    dtype=None,
):  # fmt: skip
    sparse = not is_dense(x, y)
    if sparse and not label_smoothing:
        x = classes_last(x, axis)
        loss = partial(keras.losses.SparseCategoricalCrossentropy, ignore_class=ignore_index)
    elif ignore_index is None:
        y = keras.ops.one_hot(y, x.shape[axis], axis=axis) if sparse else y
        options = {"label_smoothing": label_smoothing, "axis": axis}
        loss = partial(keras.losses.CategoricalCrossentropy, **options)
    else:
        raise NotOffered("ignore_index", "label_smoothing")
    return keras_loss(loss, x, y, sample_weight, reduction, dtype, by_weights=sparse)


def focal_loss(
    x, y, *, gamma=2.0, alpha=1.0, axis=-1, sample_weight=None, label_smoothing=0.0,
    reduction="mean", dtype=None,
):  # fmt: skip
    y = y if is_dense(x, y) else keras.ops.one_hot(y, x.shape[axis], axis=axis)
    options = {"label_smoothing": label_smoothing, "axis": axis}
    loss = partial(keras.losses.CategoricalFocalCrossentropy, alpha, gamma, **options)
    return keras_loss(loss, x, y, sample_weight, reduction, dtype)


def binary_cross_entropy(
    x, t, *, sample_weight=None, label_smoothing=0.0, reduction="mean", dtype=None
):
    loss = partial(keras.losses.BinaryCrossentropy, label_smoothing=label_smoothing)
    # Keras takes the mean over the last axis: of one element each.
    return keras_loss(loss, x[..., None], t[..., None], sample_weight, reduction, dtype)


def sigmoid_focal_loss(
    x, t, *, gamma=2.0, alpha=None, sample_weight=None, label_smoothing=0.0, reduction="mean",
    dtype=None,
):  # fmt: skip
    options = {"gamma": gamma, "label_smoothing": label_smoothing}
    if alpha is not None:
        options |= {"alpha": alpha, "apply_class_balancing": True}
    loss = partial(keras.losses.BinaryFocalCrossentropy, **options)
    return keras_loss(loss, x[..., None], t[..., None], sample_weight, reduction, dtype)


def keras_loss(loss, x, y, sample_weight, reduction, dtype, by_weights=False):
    """Apply a loss; of its two means the one that softmaxkit takes for such targets."""
    if reduction == "mean":
        by_weights = by_weights and sample_weight is not None
        reduction = "mean_with_sample_weight" if by_weights else "sum_over_batch_size"
    return loss(from_logits=True, reduction=reduction, dtype=dtype)(y, x, sample_weight)
