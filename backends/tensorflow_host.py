"""TensorFlow's eager calls on the CPU, done by NumPy in the memory of their tensors.

An eager operation costs 5 to 20 µs, and a loss with its gradient is some hundred of them: 5.7 ms at
(32, 10), where tf.nn takes 0.5 ms. Large arrays gain too, for NumPy's kernels work in blocks.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import tensorflow as tf

# Nothing public says whether an eager tensor is being watched, or records what was not done by
# TensorFlow without the 150 µs of tf.custom_gradient.
from tensorflow.python.eager import forwardprop_util, record

from softmaxkit.backends import numpy as host
from softmaxkit.backends import tensorflow_rows as kernels
from softmaxkit.backends.numpy import arrays

# Where TensorFlow's own tensors begin; it aborts on others. Below so many bytes a copy costs less.
_ALIGNMENT = 64
COPIED_BYTES = 1 << 16

_EagerTensor = tf.__internal__.EagerTensor


def call(operation, native, x, options):
    """Compute an operation by NumPy; what a transform must see or is not on the CPU by `native`.

    `options` are what the operation takes beside `x`, by name.
    """
    x = _read(x)
    options = {name: _read(value) for name, value in options.items()}
    beside = [value for value in options.values() if isinstance(value, tf.Tensor)]
    tensors = [x, *beside]
    if (
        not (all(map(on_host, tensors)) and x.dtype.is_floating)
        or _has_tangent(tensors)
        or _is_taped([value for value in beside if value.dtype.is_floating])
    ):
        return native(x, **options)
    array, given = as_array(x), {name: as_array(value) for name, value in options.items()}
    if given["dtype"] is not None:
        given["dtype"] = np.dtype(given["dtype"].as_numpy_dtype)
    if not _is_taped([x]):
        return _tensor(getattr(host, operation)(array, **given), x)
    value, pull = _value_and_pull(operation, array, given)
    value = _tensor(value, x)

    def by_x(of_value):
        known = [of_value, x]
        if on_host(of_value) and not (_is_taped(known) or _has_tangent(known)):
            return [_tensor(pull(array, arrays.compute_like(as_array(of_value), array)), x)]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            again = native(x, **options)
        return [tape.gradient(again, x, of_value)]

    record.record_operation(operation, [value], [x], by_x)
    return value


def fused_softmax(x, axis):
    """Return softmax by TensorFlow's own kernel where that is fast and right, else None."""
    if not (on_host(x) and x.dtype == tf.float32 and kernels.has_kernel(x, axis)):
        return None
    if x.shape.num_elements() < kernels.FUSED_EAGER_ELEMENTS:
        return None
    p = tf.raw_ops.Softmax(logits=x)
    total = arrays.sum(as_array(p), axis)[..., None]
    return p if kernels.is_one(total).all() else p / total


def _value_and_pull(operation, x, options):
    """Return the value, and a function of (x, its cotangent) that gives the cotangent of `x`."""
    if "targets" in options:
        return host.value_and_pull(operation, x, options.pop("targets"), options)
    value = getattr(host, operation)(x, **options)
    return value, partial(host.pull, operation, value, options=tuple(options.values()))


def on_host(x):
    return isinstance(x, _EagerTensor) and tf.executing_eagerly() and "CPU" in x.device


def as_array(x):
    """Return a tensor as an array over its memory, anything else as it is."""
    if not isinstance(x, tf.Tensor):
        return x
    # NumPy finds no array in a single bfloat16.
    return np.asarray(x if x.ndim else x.numpy())


def _tensor(x, like):
    """Return a new array as a tensor, over its memory if it is large and stands as TensorFlow's."""
    if x.nbytes > COPIED_BYTES and x.ctypes.data % _ALIGNMENT == 0 and x.dtype.kind == "f":
        return tf.experimental.dlpack.from_dlpack(x.__dlpack__())
    return _EagerTensor(x, like.device, None)  # tf.constant takes 6 µs, this 1.6


def _read(value):
    """Return a Variable as a tensor, anything else as it is."""
    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value


def _is_taped(tensors):
    return bool(tensors) and record.should_record_backprop(tensors)


def _has_tangent(tensors):
    """Tell whether a tf.autodiff.ForwardAccumulator follows one of them."""
    return record.could_possibly_record() and bool(forwardprop_util.pack_tangents(tensors).tangents)
