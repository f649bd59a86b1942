"""TensorFlow: native ops, shapes that may be unknown, row statistics with a custom gradient."""

from __future__ import annotations

import sys
from functools import partial

import tensorflow as tf

from softmaxkit import _activations, _axes, _losses
from softmaxkit.backends import ActivationOptions, BinaryOptions, ClassOptions
from softmaxkit.backends import tensorflow_classes as classes
from softmaxkit.backends import tensorflow_host as host
from softmaxkit.backends import tensorflow_rows as kernels

LIBRARY = "TensorFlow"

_this = sys.modules[__name__]

# AutoGraph would rewrite whatever Python a tf.function reaches.
_as_written = tf.autograph.experimental.do_not_convert


# --- operations -----------------------------------------------------------------------------------
@_as_written
def softmax(x, axis, where, temperature, dtype):
    if where is temperature is dtype is None:
        out = host.fused_softmax(x, axis)
        if out is not None:
            return out
    options = {"axis": axis, "where": where, "temperature": temperature, "dtype": dtype}
    return _activation("softmax", x, options)


@_as_written
def log_softmax(x, axis, where, temperature, dtype):
    options = {"axis": axis, "where": where, "temperature": temperature, "dtype": dtype}
    return _activation("log_softmax", x, options)


@_as_written
def logsumexp(x, axis, where, keepdims, dtype):
    options = {"axis": axis, "where": where, "keepdims": keepdims, "dtype": dtype}
    return _activation("logsumexp", x, options)


@_as_written
def cross_entropy(logits, targets, **options):
    return _loss("cross_entropy", logits, targets, options)


@_as_written
def focal_loss(logits, targets, **options):
    return _loss("focal_loss", logits, targets, options)


@_as_written
def binary_cross_entropy(logits, targets, **options):
    return _loss("binary_cross_entropy", logits, targets, options)


@_as_written
def sigmoid_focal_loss(logits, targets, **options):
    return _loss("sigmoid_focal_loss", logits, targets, options)


@_as_written
def smooth_labels(targets, smoothing, axis, where):
    return _losses.smooth_labels(_this, tf.convert_to_tensor(targets), smoothing, axis, where)


@_as_written
def one_hot(labels, num_classes, axis, dtype, labels_checked):
    labels = as_index(tf.convert_to_tensor(labels))
    out = tf.one_hot(labels, num_classes, axis=axis, dtype=dtype or default_float(labels))
    if labels_checked:
        return out
    wrong = tf.expand_dims((labels < 0) | (labels >= num_classes), axis)
    return where(wrong, float("nan"), out)


@_as_written
def value_and_grad(operation, logits, targets, options):
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(logits)
        value = getattr(_this, operation)(logits, targets, **options)
    return value, tape.gradient(value, logits)


@_as_written
def vjp(operation, x, cotangent, options):
    x = tf.convert_to_tensor(x)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = getattr(_this, operation)(x, *options)
    cotangent = tf.cast(cotangent, value.dtype)
    if not _known(cotangent, value):
        cotangent = _shaped(cotangent, tf.shape(value))
    return value, tape.gradient(value, x, cotangent)


def _activation(operation, x, options):
    return host.call(operation, partial(_native_activation, operation), x, options)


def _native_activation(operation, x, **options):
    """Compute an activation by operations of which every transform knows the derivative."""
    x = _holding(x, options.get("temperature"))
    options = ActivationOptions(**options)
    return getattr(_activations, operation)(_this, kernels, x, options)


def _loss(operation, logits, targets, options):
    native = partial(_native_loss, operation)
    return host.call(operation, native, logits, {"targets": targets, **options})


def _native_loss(operation, logits, targets, **options):
    """Compute a loss likewise."""
    if operation in ("cross_entropy", "focal_loss"):
        of_class = "weight" if operation == "cross_entropy" else "alpha"
        logits, targets = _fitted(logits, targets, options, of_class)
    else:
        logits, targets = _alike(logits, targets, options)
    if operation == "focal_loss":
        options["weight"] = options.pop("alpha")
    is_binary = operation in ("binary_cross_entropy", "sigmoid_focal_loss")
    options = (BinaryOptions if is_binary else ClassOptions)(**options)
    return _losses.loss(_this, kernels, logits, targets, options)[0]


# Lengths that were unknown while tracing are compared at run time, where arrays would broadcast
# instead. XLA leaves assertions out, but takes no shape with a negative length.
def _shaped(x, shape):
    tf.debugging.assert_equal(tf.shape(x), shape, "lengths that were unknown while tracing differ")
    wrong = tf.cast(tf.reduce_any(tf.shape(x) != shape), tf.int32)
    out = tf.reshape(x, shape - 2**30 * wrong)
    out.set_shape(x.shape)
    return out


def _holding(x, *options):
    """Return x, which must be large enough for options that broadcast to it."""
    for value in options:
        if not (value is None or isinstance(value, float) or _known(x, value)):
            x = _shaped(x, tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(value)))
    return x


def _known(*values):
    return all(value.shape.is_fully_defined() for value in values)


def _alike(logits, targets, options):
    logits, targets = tf.convert_to_tensor(logits), tf.convert_to_tensor(targets)
    if not _known(logits, targets):
        targets = _shaped(targets, tf.shape(logits))
    return _holding(logits, options["sample_weight"], options.get("pos_weight")), targets


def _fitted(logits, targets, options, of_class):
    logits, targets = tf.convert_to_tensor(logits), tf.convert_to_tensor(targets)
    axis, shape = options["axis"], tf.shape(logits)
    rows = tf.concat([shape[:axis], shape[axis + 1 :]], 0)
    if not _known(logits, targets):
        targets = _shaped(targets, rows if targets.dtype.is_integer else shape)
    by_row, by_class = options["sample_weight"], options[of_class]
    if not (by_row is None or _known(logits, by_row)):
        rows = tf.broadcast_dynamic_shape(rows, tf.shape(by_row))
        logits = _shaped(logits, tf.concat([rows[:axis], shape[axis : axis + 1], rows[axis:]], 0))
    if hasattr(by_class, "shape") and by_class.shape.rank and not _known(logits, by_class):
        options[of_class] = _shaped(tf.convert_to_tensor(by_class), shape[axis : axis + 1])
    return _holding(logits, options["temperature"]), targets


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, tf.Tensor | tf.Variable)


def is_array(value):
    return isinstance(value, tf.Tensor | tf.Variable)


def is_compiling():
    return False


def asarray(value, like):
    if tf.executing_eagerly():
        with tf.device(like.device):
            return tf.constant(value)
    return tf.constant(value)


def unusable(x):
    return None


def device_of(x):
    return None


def visible(x):
    if isinstance(x, tf.Variable) and tf.executing_eagerly():
        x = x.value()
    return host.as_array(x) if host.on_host(x) else None


def shape(x):
    return tuple(x.shape.as_list())


def kind(x):
    dtype = x.dtype
    if dtype.is_floating:
        return "float"
    if dtype.is_integer:
        return "int"
    if dtype.is_bool:
        return "bool"
    return "complex" if dtype.is_complex else "other"


def as_dtype(dtype, like):
    dtype = tf.as_dtype(dtype)
    if not dtype.is_floating or dtype != dtype.base_dtype:  # "float32_ref"
        raise TypeError(dtype)
    return dtype


# --- array functions for the loss family ----------------------------------------------------------
exp = tf.math.exp
expm1 = tf.math.expm1
log1p = tf.math.log1p
amax = tf.math.reduce_max
argmax = tf.argmax
maximum = tf.maximum
where = kernels.where
ones_like = tf.ones_like
permute = tf.transpose
softplus = tf.math.softplus
sigmoid = tf.math.sigmoid
stop_gradient = tf.stop_gradient


def sum(x, axis):
    # XLA adds one after the other here: a million equal rows lost 4,600 ULP, ten million 75,000.
    # The rows are few beside the logits, so that float64 costs little.
    if axis is None:
        return tf.cast(classes.total(tf.reshape(tf.cast(x, tf.float64), [-1]), 0), x.dtype)
    return classes.total(x, axis)


def mean(x):
    return sum(x, None) / max(size(x), 1.0)


def any(x, axis):
    return tf.reduce_any(x, axis)


def default_float(x):
    return tf.float32


def astype(x, dtype):
    return tf.cast(x, dtype)


compute = kernels.compute


def compute_like(x, logits):
    return tf.cast(
        tf.convert_to_tensor(x), kernels.wide_dtype(logits.dtype)
    )  # tf.cast may keep a Variable


weights_like = compute_like


def as_index(labels):
    if labels.dtype == tf.uint64:  # 2**64 - 100 as int64 would be -100, and ignored
        labels = tf.minimum(labels, tf.uint64.max // 2)
    return tf.cast(labels, tf.int64)


def take(vector, labels):
    return tf.gather(vector, labels)


def pick(x, labels, axis):
    return tf.reduce_sum(where(at_class(labels, x, axis), x, 0.0), axis)


def at_class(labels, like, axis):
    index = tf.range(tf.cast(tf.shape(like)[axis], labels.dtype))
    return _axes.along(index, like.shape.rank, axis) == tf.expand_dims(labels, axis)


length = classes.length


def size(x):
    known = x.shape.num_elements()
    return tf.cast(tf.size(x, tf.int64), x.dtype) if known is None else known


def broadcast_like(x, like):
    return tf.broadcast_to(x, tf.shape(like))


def merge_last(x, count):
    shape, keep = tf.shape(x), x.shape.rank - count
    return tf.reshape(x, tf.concat([shape[:keep], [tf.reduce_prod(shape[keep:])]], 0))


def reshape_like(x, like):
    return tf.reshape(x, tf.shape(like))
