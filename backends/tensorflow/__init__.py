"""TensorFlow: the operations; shapes may be unknown."""

from __future__ import annotations

from functools import partial

import tensorflow as tf

from softmaxkit import _activations, _losses
from softmaxkit.backends import BinaryOptions
from softmaxkit.backends.tensorflow import arrays as ops
from softmaxkit.backends.tensorflow import host, linear
from softmaxkit.backends.tensorflow import rows as kernels
from softmaxkit.backends.tensorflow.arrays import (
    as_dtype,
    as_index,
    asarray,
    default_float,
    device_of,
    has_values,
    is_accelerated,
    is_array,
    is_compiling,
    is_native,
    kind,
    same_length,
    shape,
    to_host,
    unusable,
    visible,
    where,
)

LIBRARY = "TensorFlow"

_REMEDY = "correct the label, or mark the row with ignore_index"
# Otherwise AutoGraph would rewrite all Python code that a tf.function reaches.
_as_written = tf.autograph.experimental.do_not_convert


# --- operations -----------------------------------------------------------------------------------
@_as_written
def activation(operation, x, options):
    return host.activation(operation, partial(_native_activation, operation), x, options)


@_as_written
def vjp(operation, x, cotangent, options):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = activation(operation, x, options)
    cotangent = tf.cast(cotangent, value.dtype)
    if not _known(cotangent, value):
        cotangent = _shaped(cotangent, tf.shape(value))
    return value, tape.gradient(value, x, cotangent)


@_as_written
def loss(logits, targets, options):
    return host.loss(_native_loss, logits, targets, options)


@_as_written
def value_and_grad(logits, targets, options):
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(logits)
        value = loss(logits, targets, options)
    return value, tape.gradient(value, logits)


@_as_written
def linear_loss(operands, targets, options):
    operands = operands._make(one if one is None else tf.convert_to_tensor(one) for one in operands)
    hidden, weight_matrix, _ = operands
    targets, given = tf.convert_to_tensor(targets), options.of_logits
    rows, classes = tf.shape(hidden)[:-1], tf.shape(weight_matrix)[:1]
    of_labels = targets.dtype.is_integer
    if not _known(hidden, weight_matrix, targets):
        targets = _shaped(targets, rows if of_labels else tf.concat([rows, classes], 0))
    if of_labels:
        known = weight_matrix.shape[0]
        end = classes[0] if known is None else known
        targets = _asserted(targets, end, given.ignore_index, given.unseen, _REMEDY)
    return linear.loss(operands, targets, options)


@_as_written
def linear_value_and_grad(operands, targets, options):
    present = [tf.convert_to_tensor(one) for one in operands if one is not None]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(present)
        value = linear_loss(operands._make((*present, None)[:3]), targets, options)
        loss = value.loss if options.all_outputs else value
    return value, operands._make((*tape.gradient(loss, present), None)[:3])


@_as_written
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(ops, tf.convert_to_tensor(targets), smoothing, axis, where)


@_as_written
def by_rows(function, rows, options):
    return host.by_rows(function, lambda rows: function(ops, rows, *options), rows, options)


def each(work, blocks):
    host.each(work, blocks)


@_as_written
def one_hot(labels, num_classes, axis, dtype, unseen):
    labels = as_index(tf.convert_to_tensor(labels))
    labels = _asserted(labels, num_classes, None, unseen, "correct the label")
    out = tf.one_hot(labels, num_classes, axis=axis, dtype=dtype or default_float(labels))
    if unseen is None:
        return out
    wrong = tf.expand_dims((labels < 0) | (labels >= num_classes), axis)
    return where(wrong, float("nan"), out)


# --- made of operations whose derivatives every transform knows -----------------------------------
def _native_activation(operation, x, options):
    x = _holding(x, options.temperature)
    return getattr(_activations, operation)(ops, kernels, x, options)


def _native_loss(logits, targets, options):
    fitted = _of_labels if isinstance(options, BinaryOptions) else _of_classes
    return _losses.loss(ops, kernels, *fitted(logits, targets, options))[0]


# Lengths that were unknown while tracing are compared at run time: otherwise, arrays of different
# lengths would broadcast. XLA drops assertions, but rejects a shape with a negative length.
def _shaped(x, wanted):
    given = tf.shape(x)
    differ = "shapes whose lengths were unknown while tracing differ; expected equal shapes"
    with tf.control_dependencies([tf.debugging.assert_equal(given, wanted, differ)]):
        wrong = tf.cast(tf.reduce_any(tf.not_equal(given, wanted)), tf.int32)
    out = tf.reshape(x, wanted - 2**30 * wrong)
    out.set_shape(x.shape)
    return out


def _holding(x, *options):
    """Return x after checking that it is large enough for options that broadcast to it."""
    for value in options:
        if not (value is None or isinstance(value, float) or _known(x, value)):
            x = _shaped(x, tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(value)))
    return x


def _known(*values):
    return all(value.shape.is_fully_defined() for value in values)


def _of_labels(logits, targets, options):
    logits, targets = tf.convert_to_tensor(logits), tf.convert_to_tensor(targets)
    if not _known(logits, targets):
        targets = _shaped(targets, tf.shape(logits))
    return _holding(logits, options.sample_weight, options.pos_weight), targets, options


def _of_classes(logits, targets, options):
    logits, targets = tf.convert_to_tensor(logits), tf.convert_to_tensor(targets)
    axis, lengths = options.axis, tf.shape(logits)
    rows = tf.concat([lengths[:axis], lengths[axis + 1 :]], 0)
    if not _known(logits, targets):
        targets = _shaped(targets, rows if targets.dtype.is_integer else lengths)
    by_row, by_class = options.sample_weight, options.weight
    if not (by_row is None or _known(logits, by_row)):
        rows = tf.broadcast_dynamic_shape(rows, tf.shape(by_row))
        logits = _shaped(logits, tf.concat([rows[:axis], lengths[axis : axis + 1], rows[axis:]], 0))
    if hasattr(by_class, "shape") and by_class.shape.rank and not _known(logits, by_class):
        by_class = _shaped(tf.convert_to_tensor(by_class), lengths[axis : axis + 1])
        options = options._replace(weight=by_class)
    if targets.dtype.is_integer:
        known = logits.shape[axis]
        classes = lengths[axis] if known is None else known
        targets = _asserted(targets, classes, options.ignore_index, options.unseen, _REMEDY)
    return _holding(logits, options.temperature), targets, options


# The rows of bad labels become NaN in spite of the assertion: XLA, which drops assertions, may yet
# compile the graph that contains it.
def _asserted(labels, num_classes, ignore_index, unseen, remedy):
    """Return labels; in a graph on the CPU, labels out of range raise when they are computed."""
    if unseen is None or not (kernels.is_plain_graph() and kernels.has_only_cpus()):
        return labels
    index, ignored, end = as_index(labels), "", []
    if ignore_index is not None:
        index = where(tf.equal(index, ignore_index), 0, index)
        ignored = f" or ignore_index {ignore_index}"
    # As unsigned numbers, negative ones are above all others, and the maximum of none is 0.
    worst = tf.reduce_max(tf.cast(index, tf.uint64))
    upper = num_classes
    if not isinstance(num_classes, int):
        upper, end = "C", ["where C is", num_classes]
    expected = f"expected a class index in [0, {upper}){ignored}; {remedy}."
    data = [f"{unseen} holds", tf.cast(worst, tf.int64), expected, *end]
    in_range = worst < tf.cast(tf.maximum(num_classes, 1), tf.uint64)
    # summarize=-1 prints all that a map over examples has stacked.
    refusal = tf.raw_ops.Assert(condition=in_range, data=data, summarize=-1)
    with tf.control_dependencies([refusal]):
        return tf.identity(labels)
