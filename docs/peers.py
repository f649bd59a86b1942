"""The calls of docs/semantics.md in other libraries' words.

A function ``library_operation`` takes softmaxkit's arguments, but only those that the library has
an argument (or an official function) for; `make_semantics.py` reads from its signature what the
library does not offer. Arrays are handed on as they come. Where the library fixes the class axis,
the axis is moved there; where it returns rows, they are reduced by its own sum or mean.
"""

# ruff: noqa: D103 - a function's name says which call it translates

import os
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

os.environ["KERAS_BACKEND"] = "tensorflow"  # read by the imports below
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"  # the default on Linux only; it changes what NaN gives

import jax
import keras
import optax
import scipy.special
import tensorflow as tf
import torch

from softmaxkit.conformance import OPERATIONS, load

# Prefix of the functions below -> name on the page, adapter (arrays, gradients), what is called.
PEERS = {
    "torch": ("torch", "torch", "`torch.nn.functional`, `torch.logsumexp`"),
    "jax": (
        "JAX",
        "jax",
        "`jax.nn`, with 64-bit types enabled, and `optax`: for one-hot and probabilities "
        "`safe_softmax_cross_entropy` where its arguments suffice",
    ),
    "keras": (
        "Keras",
        "tensorflow",
        "`keras.ops`, `keras.losses`, `keras.layers.Softmax` for `where`; on TensorFlow",
    ),
    "tf": ("TensorFlow", "tensorflow", "`tf.nn`, `tf.reduce_logsumexp`, `tf.one_hot`"),
    "scipy": ("SciPy", "numpy", "`scipy.special`, with `b` for `where`; it has no gradients"),
}


class NotOffered(Exception):  # noqa: N818 - a fact about the library, not an error
    """The library has no argument for what the call asks: the names of what it lacks."""


def peers():
    """Return an adapter for each library, with the operations that it has."""
    return [
        replace(load(adapter), name=name, functions=functions(library))
        for library, (name, adapter, _) in PEERS.items()
    ]


def functions(library):
    """Return the operations of a library under softmaxkit's names."""
    found = {name: globals().get(f"{library}_{name}") for name in OPERATIONS}
    return SimpleNamespace(**{name: function for name, function in found.items() if function})


def is_dense(x, y):
    """Tell whether targets are given in the shape of the logits."""
    return len(x.shape) > 0 and tuple(x.shape) == tuple(y.shape)


def classes_last(x, axis):
    return x if axis == -1 else keras.ops.moveaxis(x, axis, -1)


def one_axis(axis):
    if not isinstance(axis, int):
        raise NotOffered(f"axis={axis}")
    return axis


def reduced(rows, reduction, total, mean):
    """Reduce rows where the library leaves that to its user."""
    ways = {"none": lambda rows: rows, "sum": total, "mean": mean}
    if reduction not in ways:
        raise NotOffered(f"reduction={reduction!r}")
    return ways[reduction](rows)


in_jax = partial(reduced, total=jax.numpy.sum, mean=jax.numpy.mean)
in_tf = partial(reduced, total=tf.reduce_sum, mean=tf.reduce_mean)


# torch


def torch_softmax(x, *, axis=-1, dtype=None):
    return torch.nn.functional.softmax(x, one_axis(axis), dtype=dtype and getattr(torch, dtype))


def torch_log_softmax(x, *, axis=-1, dtype=None):
    return torch.nn.functional.log_softmax(x, one_axis(axis), dtype=dtype and getattr(torch, dtype))


def torch_logsumexp(x, *, axis=-1, keepdims=False):
    if axis is None:
        raise NotOffered("axis=None")
    return torch.logsumexp(x, axis, keepdim=keepdims)


def torch_cross_entropy(
    x, y, *, axis=-1, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"
):
    if ignore_index is None:
        raise NotOffered("ignore_index=None")
    if x.ndim > 1:
        y = y.movedim(axis, 1) if is_dense(x, y) else y
        x = x.movedim(axis, 1)
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    return torch.nn.functional.cross_entropy(x, y, weight, ignore_index=ignore_index, **options)


def torch_linear_cross_entropy(
    h, m, y, *, bias=None, chunk_size=None, weight=None, ignore_index=-100, label_smoothing=0.0,
    reduction="mean",
):  # fmt: skip
    if isinstance(chunk_size, tuple):
        raise NotOffered("chunk_size of classes")
    ignore_index = None if y.is_floating_point() else ignore_index
    return torch.nn.functional.linear_cross_entropy(
        h, m, y, linear_bias=bias, weight=weight, reduction=reduction, ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk_size),
    )  # fmt: skip


def torch_binary_cross_entropy(x, t, *, pos_weight=None, sample_weight=None, reduction="mean"):
    if isinstance(pos_weight, float):
        pos_weight = torch.tensor(pos_weight)
    return torch.nn.functional.binary_cross_entropy_with_logits(
        x, t, sample_weight, reduction=reduction, pos_weight=pos_weight
    )


def torch_one_hot(labels, *, num_classes, axis=-1):
    return torch.nn.functional.one_hot(labels, num_classes).movedim(-1, axis)


# JAX and optax

jax_softmax = jax.nn.softmax
jax_log_softmax = jax.nn.log_softmax
jax_one_hot = jax.nn.one_hot
jax_logsumexp = partial(jax.nn.logsumexp, axis=-1)


def jax_cross_entropy(x, y, *, axis=-1, where=None, label_smoothing=0.0, reduction="mean"):
    if label_smoothing and not is_dense(x, y):
        y = jax.nn.one_hot(y, x.shape[axis], dtype=x.dtype, axis=axis)
    if label_smoothing:
        y = optax.smooth_labels(y, label_smoothing, axis=axis, where=where)
    if not is_dense(x, y):
        rows = optax.softmax_cross_entropy_with_integer_labels(x, y, axis, where)
    elif where is None and axis in (-1, x.ndim - 1):
        rows = optax.safe_softmax_cross_entropy(x, y)
    else:
        rows = optax.softmax_cross_entropy(x, y, axis, where)
    return in_jax(rows, reduction)


def jax_binary_cross_entropy(x, t, *, reduction="mean"):
    return in_jax(optax.sigmoid_binary_cross_entropy(x, t), reduction)


def jax_poly_loss_cross_entropy(x, t, *, epsilon=2.0, axis=-1, where=None, reduction="mean"):
    if not is_dense(x, t):
        t = jax.nn.one_hot(t, x.shape[axis], axis=axis, dtype=x.dtype)
    rows = optax.losses.poly_loss_cross_entropy(x, t, epsilon=epsilon, axis=axis, where=where)
    return in_jax(rows, reduction)


def jax_sigmoid_focal_loss(x, t, *, gamma=2.0, alpha=None, reduction="mean"):
    rows = optax.sigmoid_focal_loss(x, t, gamma=gamma, alpha=alpha)
    return in_jax(rows, reduction)


def jax_smooth_labels(y, *, smoothing, num_classes=None, axis=-1, where=None):
    if num_classes is not None:
        y = jax.nn.one_hot(y, num_classes, axis=axis)
    return optax.smooth_labels(y, smoothing, axis=axis, where=where)


# Keras

keras_log_softmax = keras.ops.log_softmax
keras_logsumexp = partial(keras.ops.logsumexp, axis=-1)
keras_one_hot = keras.ops.one_hot


def keras_softmax(x, *, axis=-1, where=None):
    if where is None:
        return keras.ops.softmax(x, axis)
    return keras.layers.Softmax(one_axis(axis))(x, mask=where)


def keras_cross_entropy(
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


def keras_focal_loss(
    x, y, *, gamma=2.0, alpha=1.0, axis=-1, sample_weight=None, label_smoothing=0.0,
    reduction="mean", dtype=None,
):  # fmt: skip
    y = y if is_dense(x, y) else keras.ops.one_hot(y, x.shape[axis], axis=axis)
    options = {"label_smoothing": label_smoothing, "axis": axis}
    loss = partial(keras.losses.CategoricalFocalCrossentropy, alpha, gamma, **options)
    return keras_loss(loss, x, y, sample_weight, reduction, dtype)


def keras_binary_cross_entropy(
    x, t, *, sample_weight=None, label_smoothing=0.0, reduction="mean", dtype=None
):
    loss = partial(keras.losses.BinaryCrossentropy, label_smoothing=label_smoothing)
    # Keras takes the mean over the last axis: of one element each.
    return keras_loss(loss, x[..., None], t[..., None], sample_weight, reduction, dtype)


def keras_sigmoid_focal_loss(
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


# TensorFlow

tf_logsumexp = partial(tf.reduce_logsumexp, axis=-1)


def tf_softmax(x, *, axis=-1):
    return tf.nn.softmax(x, one_axis(axis))


def tf_log_softmax(x, *, axis=-1):
    return tf.nn.log_softmax(x, one_axis(axis))


def tf_cross_entropy(x, y, *, axis=-1, reduction="mean"):
    if is_dense(x, y):
        rows = tf.nn.softmax_cross_entropy_with_logits(y, x, axis)
    else:
        x = classes_last(x, axis)
        rows = tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)
    return in_tf(rows, reduction)


def tf_binary_cross_entropy(x, t, *, pos_weight=None, reduction="mean"):
    if pos_weight is None:
        rows = tf.nn.sigmoid_cross_entropy_with_logits(t, x)
    else:
        rows = tf.nn.weighted_cross_entropy_with_logits(t, x, pos_weight)
    return in_tf(rows, reduction)


def tf_one_hot(labels, *, num_classes, axis=-1, dtype=None):
    return tf.one_hot(labels, num_classes, axis=axis, dtype=dtype)


# SciPy

scipy_softmax = partial(scipy.special.softmax, axis=-1)
scipy_log_softmax = partial(scipy.special.log_softmax, axis=-1)


def scipy_logsumexp(x, *, axis=-1, keepdims=False, where=None):
    return scipy.special.logsumexp(x, axis, where, keepdims)  # where: weights of 0 and 1
