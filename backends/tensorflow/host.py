"""TensorFlow's eager calls on the CPU, computed by NumPy in the memory of their tensors.

An eager operation costs 5 to 20 µs, and a loss with its gradient takes some hundred of them: 5.7 ms
at (32, 10), where tf.nn takes 0.5 ms. Large arrays gain, too, because NumPy's kernels work in
blocks.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import tensorflow as tf

# No public function says whether an eager tensor is being watched, or records, without the 150 µs
# of tf.custom_gradient, an operation that TensorFlow did not do.
from tensorflow.python.eager import forwardprop_util, record

from softmaxkit.backends import numpy as host
from softmaxkit.backends.numpy.arrays import compute_like
from softmaxkit.backends.numpy.arrays import sum as sum_of
from softmaxkit.backends.numpy.blocks import LARGE_BYTES
from softmaxkit.backends.tensorflow import rows as kernels
from softmaxkit.backends.tensorflow.arrays import EagerTensor, as_array, on_host

_ALIGNMENT = 64  # that of TensorFlow's own tensors; it aborts on others


def activation(operation, native, x, options):
    """Compute an activation with NumPy, or with TensorFlow as ``native(x, options)``.

    TensorFlow does it if a transform must see the operations, or if `x` is not on the host.
    """
    x = _read(x)
    plain = options.where is options.temperature is options.dtype is None

    def value_of(array, options):
        fused = _fused_softmax(x, options.axis) if operation == "softmax" and plain else None
        return host.activation(operation, array, options) if fused is None else fused

    def value_and_pull(array, options):
        value = value_of(array, options)
        return value, partial(host.pull, operation, as_array(value), options=options)

    return _call(native, value_of, value_and_pull, [x], options)


def loss(native, logits, targets, options):
    """Compute a loss in the same way."""
    return _call(native, host.loss, host.value_and_pull, [logits, targets], options)


def by_rows(function, native, rows, options):
    """Return ``function(ops, rows, *options)`` with NumPy, or ``native(rows)`` with TensorFlow."""
    rows = tf.nest.map_structure(_read, rows)
    tensors = [one for one in tf.nest.flatten(rows) if isinstance(one, tf.Tensor)]
    if not all(map(on_host, tensors)) or _has_tangent(tensors) or _is_taped(tensors):
        return native(rows)
    value = host.by_rows(function, tf.nest.map_structure(as_array, rows), options)
    return tf.nest.map_structure(partial(_tensor, like=tensors[0]), value)


each = host.each


def _call(native, function, value_and_pull, arrays, options):
    x, *others = map(_read, arrays)
    options = options._make(map(_read, options))
    beside = [value for value in (*others, *options) if isinstance(value, tf.Tensor)]
    tensors = [x, *beside]
    if (
        not (all(map(on_host, tensors)) and x.dtype.is_floating)
        or _has_tangent(tensors)
        or _is_taped([value for value in beside if value.dtype.is_floating])
    ):
        return native(x, *others, options)
    array, given = as_array(x), options._make(map(as_array, options))
    if given.dtype is not None:
        given = given._replace(dtype=np.dtype(given.dtype.as_numpy_dtype))
    beside = map(as_array, others)
    if not _is_taped([x]):
        return _tensor(function(array, *beside, given), x)
    value, pull = value_and_pull(array, *beside, given)
    value = _tensor(value, x)

    def by_x(of_value):
        known = [of_value, x]
        if on_host(of_value) and not (_is_taped(known) or _has_tangent(known)):
            return [_tensor(pull(array, compute_like(as_array(of_value), array)), x)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            again = native(x, *others, options)
        return [tape.gradient(again, x, of_value)]

    record.record_operation("softmaxkit", [value], [x], by_x)
    return value


def _fused_softmax(x, axis):
    """Return softmax from TensorFlow's own kernel if that is fast and exact, else None."""
    if x.dtype != tf.float32 or not kernels.has_kernel(x, axis):
        return None
    if x.shape.num_elements() < kernels.FUSED_EAGER_ELEMENTS:
        return None
    p = tf.raw_ops.Softmax(logits=tf.stop_gradient(x))
    total = sum_of(as_array(p), axis)[..., None]
    return p if kernels.is_one(total).all() else p / total


def _tensor(x, like):
    """Return a new array as a tensor, over its memory if it is large and aligned as tensors are."""
    if isinstance(x, tf.Tensor):
        return x
    if x.nbytes >= LARGE_BYTES and x.ctypes.data % _ALIGNMENT == 0 and x.dtype.kind == "f":
        return tf.experimental.dlpack.from_dlpack(x.__dlpack__())
    return EagerTensor(x, like.device, None)  # tf.constant takes 6 µs, this 1.6


def _read(value):
    """Return a Variable as a tensor, anything else unchanged."""
    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value


def _is_taped(tensors):
    return bool(tensors) and record.should_record_backprop(tensors)


def _has_tangent(tensors):
    """Return whether a tf.autodiff.ForwardAccumulator watches one of them."""
    return record.could_possibly_record() and bool(forwardprop_util.pack_tangents(tensors).tangents)
