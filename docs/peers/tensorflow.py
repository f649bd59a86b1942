"""What TensorFlow offers; see the package."""

# ruff: noqa: D103 - a function's name says which call it translates

from functools import partial

import tensorflow as tf

from peers import is_dense, one_axis, reduced

in_tf = partial(reduced, total=tf.reduce_sum, mean=tf.reduce_mean)


logsumexp = partial(tf.reduce_logsumexp, axis=-1)


def softmax(x, *, axis=-1):
    return tf.nn.softmax(x, one_axis(axis))


def log_softmax(x, *, axis=-1):
    return tf.nn.log_softmax(x, one_axis(axis))


def cross_entropy(x, y, *, axis=-1, reduction="mean"):
    if is_dense(x, y):
        rows = tf.nn.softmax_cross_entropy_with_logits(y, x, axis)
    else:
        x = tf.experimental.numpy.moveaxis(x, axis, -1)
        rows = tf.nn.sparse_softmax_cross_entropy_with_logits(y, x)
    return in_tf(rows, reduction)


def binary_cross_entropy(x, t, *, pos_weight=None, reduction="mean"):
    if pos_weight is None:
        rows = tf.nn.sigmoid_cross_entropy_with_logits(t, x)
    else:
        rows = tf.nn.weighted_cross_entropy_with_logits(t, x, pos_weight)
    return in_tf(rows, reduction)


def one_hot(labels, *, num_classes, axis=-1, dtype=None):
    return tf.one_hot(labels, num_classes, axis=axis, dtype=dtype)
