"""TensorFlow: sums over the classes and entries at the labels: eager, in graphs, under XLA."""

from __future__ import annotations

from functools import cache
from math import prod

import tensorflow as tf

# No public function says whether XLA will compile what is being traced.
from tensorflow.python.ops import control_flow_util

# From twice this many classes on, sums are made in two steps, over parts of this many classes if C
# is unknown, otherwise of at most this many. Under XLA, the first step adds the entries at the same
# position of all parts, which XLA vectorises; otherwise it sums each part. Under XLA, Σ e^d without
# the maximum of 4096 x 4096 takes 10.0 ms; summing each part takes 14.1; one step takes 10.6, and
# its error is five times as large. With one step, XLA also turns the tf.cond of log Σ e^d into a
# select: cross-entropy and its gradient of 8192 x 1000 then took as long as tf.nn's, instead of
# 1.3 times less.
PART = 128
# Under XLA, parts are longer if there would be more than about this many of them, which XLA adds
# one after another: with 280 parts, probabilities of 70,000 classes were 4.6 ULP off instead of 2;
# and with 64 parts or more, smoothing of 256 x 128256 took 66 ms instead of 53.
PARTS = 16


def in_xla():
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def length(x, axis, like):
    known = x.shape[axis]
    return tf.cast(tf.shape(x)[axis], like.dtype) if known is None else known


def label_index(x, axis, labels):
    """Return the index of each row's label in the logits with three axes, see `_cube`."""
    inner = tf.reduce_prod(tf.shape(x, tf.int64)[axis + 1 :])
    row, labels = tf.range(tf.size(labels, tf.int64)), tf.reshape(labels, [-1])
    # pfor, which tf.vectorized_map and tape.jacobian use, cannot convert int64 here.
    return tf.cast(tf.stack([row // inner, labels, row % inner], 1), tf.int32)


def _cube(x, axis):
    """Merge the axes before the class axis into one, and those after it into another."""
    known = x.shape.is_fully_defined()
    shape, product = (x.shape.as_list(), prod) if known else (tf.shape(x), tf.reduce_prod)
    return tf.reshape(x, [product(shape[:axis]), shape[axis], product(shape[axis + 1 :])])


def entries_at(x, axis, index):
    return tf.gather_nd(_cube(x, axis), index)


def put(x, axis, index, values):
    values = tf.reshape(values, [-1])
    return tf.reshape(tf.tensor_scatter_nd_update(_cube(x, axis), index, values), tf.shape(x))


def total(x, axis, keepdims=False):
    """Sum along an axis; over many classes in two steps, because XLA adds one after another."""
    if not isinstance(axis, int):
        return tf.reduce_sum(x, axis, keepdims=keepdims)
    axis %= x.shape.rank
    classes, rest, by_xla = x.shape[axis], None, in_xla()
    if classes is not None and classes < 2 * PART:
        return tf.reduce_sum(x, axis, keepdims=keepdims)
    part = 1
    if classes is not None:
        part = _part(classes, max(PART, classes // PARTS) if by_xla else PART)
    if part == 1:  # unknown, or a prime
        classes, part = tf.shape(x)[axis], PART
        cut = classes // part * part
        x, rest = tf.split(x, [cut, classes - cut], axis)
        classes = cut
    shape = tf.shape(x)
    parts = tf.concat([shape[:axis], [classes // part, part], shape[axis + 1 :]], 0)
    # float64 between the steps: otherwise XLA merges them into one again.
    first = axis if by_xla else axis + 1
    sums = tf.cast(tf.reduce_sum(tf.reshape(x, parts), first), tf.float64)
    whole = tf.cast(tf.reduce_sum(sums, axis, keepdims=keepdims), x.dtype)
    return whole if rest is None else whole + tf.reduce_sum(rest, axis, keepdims=keepdims)


@cache
def _part(classes, most):
    return next(part for part in range(most, 0, -1) if classes % part == 0)
