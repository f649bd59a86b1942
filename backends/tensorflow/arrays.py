"""TensorFlow: what a tensor is, and the array functions of the loss family."""

from __future__ import annotations

import operator

import numpy as np
import tensorflow as tf

from softmaxkit import _axes
from softmaxkit.backends.tensorflow import classes

EagerTensor = tf.__internal__.EagerTensor


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
    if x.shape.rank is None:
        text = "has unknown rank; expected a known number of axes; give it one with "
        return ValueError, f"{text}tf.ensure_shape or a TensorSpec"
    return None


def device_of(x):
    return None


def visible(x):
    if isinstance(x, tf.Variable) and tf.executing_eagerly():
        x = x.value()
    return as_array(x) if on_host(x) else None


def has_values(x):
    if not tf.executing_eagerly():
        return False
    return isinstance(x, EagerTensor | tf.Variable)


def is_accelerated(x):
    return {one.device_type for one in tf.config.list_physical_devices()} != {"CPU"}


def to_host(x):
    return np.asarray(x.numpy())


def on_host(x):
    return isinstance(x, EagerTensor) and tf.executing_eagerly() and "CPU" in x.device


def as_array(x):
    """Return a tensor as a NumPy array over its memory, anything else unchanged."""
    if not isinstance(x, tf.Tensor):
        return x
    # NumPy cannot read the memory of a single bfloat16.
    return np.asarray(x if x.ndim else x.numpy())


def shape(x):
    return tuple(x.shape.as_list())


same_length = operator.eq


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
equal = tf.equal
exp = tf.math.exp
expm1 = tf.math.expm1
log1p = tf.math.log1p
amax = tf.math.reduce_max
argmax = tf.argmax
maximum = tf.maximum
ones_like = tf.ones_like
permute = tf.transpose
softplus = tf.math.softplus
sigmoid = tf.math.sigmoid
stop_gradient = tf.stop_gradient


def where(condition, a, b):
    if not isinstance(a, tf.Tensor):
        a = tf.constant(a, b.dtype if isinstance(b, tf.Tensor) else tf.float32)
    if not isinstance(b, tf.Tensor):
        b = tf.constant(b, a.dtype)
    return tf.where(condition, a, b)


def sum(x, axis):
    # XLA adds one number after another here: a million equal rows lost 4,600 ULP, ten million
    # 75,000. There are few rows compared with logits, so that float64 costs little.
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


def wide_dtype(dtype):
    return dtype if dtype == tf.float64 else tf.float32


def compute(x):
    return tf.cast(x, wide_dtype(x.dtype))


def widest(x):
    return tf.cast(x, tf.float64)


def compute_like(x, logits):
    return tf.cast(tf.convert_to_tensor(x), wide_dtype(logits.dtype))  # tf.cast may keep a Variable


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
    return tf.equal(_axes.along(index, like.shape.rank, axis), tf.expand_dims(labels, axis))


length = classes.length


def size(x):
    known = x.shape.num_elements()
    return tf.cast(tf.size(x, tf.int64), x.dtype) if known is None else known


def broadcast_like(x, like):
    return tf.broadcast_to(x, tf.shape(like))


def merge_last(x, count):
    shape, keep = tf.shape(x), x.shape.rank - count
    return tf.reshape(x, tf.concat([shape[:keep], [tf.reduce_prod(shape[keep:])]], 0))


def reshape(x, shape):
    return tf.reshape(x, [-1 if n is None else n for n in shape])


def concat(parts):
    return tf.concat(parts, 0)


def reshape_like(x, like):
    return tf.reshape(x, tf.shape(like))
