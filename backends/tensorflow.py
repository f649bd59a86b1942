"""TensorFlow: native ops, shapes that may be unknown, row statistics with a custom gradient."""

from __future__ import annotations

import sys
from functools import partial
from math import prod

import tensorflow as tf

from softmaxkit import _rows, _softmax
from softmaxkit.backends import tensorflow_host as host

LIBRARY = "TensorFlow"

_this = sys.modules[__name__]

# From this many classes on a sum over them is made in two steps; of so many each if C is unknown.
SPLIT_CLASSES = 4096
PART = 256

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
    return _rows.smooth_labels(_this, tf.convert_to_tensor(targets), smoothing, axis, where)


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
    return value, tape.gradient(value, x, tf.cast(cotangent, value.dtype))


def _activation(operation, x, options):
    return host.call(operation, partial(_native_activation, operation), x, options)


def _native_activation(operation, x, **options):
    """Compute an activation by operations of which every transform knows the derivative."""
    x = _holding(x, options.get("temperature"))
    return getattr(_softmax, operation)(_this, x, **options)


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
    return getattr(_rows, operation)(_this, logits, targets, **options)


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
amax = tf.math.reduce_max
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
    # XLA adds one after the other here: a million equal rows lost 4,600 ULP, ten million 75,000.
    # The rows are few beside the logits, so that float64 costs little.
    if axis is None:
        return tf.cast(_sum_classes(tf.reshape(tf.cast(x, tf.float64), [-1]), 0), x.dtype)
    return _sum_classes(x, axis)


def _sum_classes(x, axis, keepdims=False):
    """Sum along an axis, over many classes in two steps: see `sum`."""
    if not isinstance(axis, int):
        return tf.reduce_sum(x, axis, keepdims=keepdims)
    axis %= x.shape.rank
    classes, rest = x.shape[axis], None
    if classes is None:
        classes, part = tf.shape(x)[axis], PART
        cut = classes // part * part
        x, rest = tf.split(x, [cut, classes - cut], axis)
        classes = cut
    else:
        part = 1 if classes < SPLIT_CLASSES else _softmax.divisor(classes)
        if part == 1:
            return tf.reduce_sum(x, axis, keepdims=keepdims)
    shape = tf.shape(x)
    parts = tf.concat([shape[:axis], [classes // part, part], shape[axis + 1 :]], 0)
    # float64 between the steps, else XLA makes one of them again.
    partial = tf.cast(tf.reduce_sum(tf.reshape(x, parts), axis + 1), tf.float64)
    total = tf.cast(tf.reduce_sum(partial, axis, keepdims=keepdims), x.dtype)
    return total if rest is None else total + tf.reduce_sum(rest, axis, keepdims=keepdims)


def any(x, axis):
    return tf.reduce_any(x, axis)


def default_float(x):
    return tf.float32


def astype(x, dtype):
    return tf.cast(x, dtype)


def _wide(dtype):
    return dtype if dtype == tf.float64 else tf.float32


def compute(x):
    return tf.cast(x, _wide(x.dtype))


def compute_like(x, logits):
    return tf.cast(tf.convert_to_tensor(x), _wide(logits.dtype))  # tf.cast may keep a Variable


def as_index(labels):
    if labels.dtype == tf.uint64:  # 2**64 - 100 as int64 would be -100, and ignored
        labels = tf.minimum(labels, tf.uint64.max // 2)
    return tf.cast(labels, tf.int64)


def take(vector, labels):
    return tf.gather(vector, labels)


def length(x, axis, like):
    known = x.shape[axis]
    return tf.cast(tf.shape(x)[axis], like.dtype) if known is None else known


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


# --- kernels --------------------------------------------------------------------------------------
def softmax_rows(x, axis, dtype):
    x = compute(x)
    e = tf.exp(x - tf.stop_gradient(amax(x, axis, keepdims=True)))
    return tf.cast(e / _sum_classes(e, axis, keepdims=True), dtype)


def log_softmax_rows(x, axis, dtype):
    x = compute(x)
    _, _, log_sum, top = row_statistics(x, axis, None, None, None)
    return tf.cast(x - _softmax.expand(top, axis) - _softmax.expand(log_sum, axis), dtype)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    x = compute(x)
    weighted = weights is not None
    weights = tf.convert_to_tensor(weights if weighted else 0.0, x.dtype)
    skip_c = None if skip is None else _softmax.expand(skip, axis)
    index = None if labels is None else _label_index(x, axis, labels)

    @tf.custom_gradient
    def statistics(x, weights):
        z = x if skip is None else where(skip_c, 0.0, x)
        # Constants to every tape: an eager one would keep all of this, and forward mode would take
        # its derivative in place of the one below.
        fixed, fixed_weights = tf.stop_gradient(z), tf.stop_gradient(weights)
        top = amax(fixed, axis, keepdims=True)
        d = fixed - top
        # Not d < 0: XLA's maximum passes over a NaN, and then it has to come in by the sum.
        others = _sum_classes(where(d == 0, 0.0, tf.exp(d)), axis, keepdims=True)
        ties = tf.reduce_sum(tf.cast(d == 0, d.dtype), axis, keepdims=True)  # exact
        log_sum = tf.math.log1p(others + (ties - 1))
        # Always two tensors in and four out: a custom gradient knows no None.
        rows = [tf.zeros([], x.dtype)] * 2 + [tf.squeeze(log_sum, axis), tf.squeeze(top, axis)]
        picked = None
        if labels is not None:
            rows[0] = picked = tf.reshape(_at(d, axis, index), tf.shape(labels)) - rows[2]
        if weighted:
            rows[1] = _sum_classes(_weighted(fixed_weights, d - log_sum), axis)
        if skip is not None:
            rows[2:] = [where(skip, 0.0, v) for v in rows[2:]]
            rows[0] = rows[0] if labels is None else where(skip, 0.0, rows[0])
            rows[1] = where(skip, 0.0, rows[1]) if weighted else rows[1]

        def gradient(by_picked, by_dot, by_log_sum, _):
            a = rest = by_log_sum
            if weighted:
                total = _sum_classes(tf.broadcast_to(weights, tf.shape(x)), axis)
                a = rest = rest - by_dot * total
            if labels is not None:
                a = rest - by_picked
            log_p = _log_p(z, top, log_sum, axis)
            out = _softmax.expand(a, axis) * tf.exp(log_p)
            if labels is not None:
                # a p + b as rest p + b (1-p): in saturated rows a is -b, and 1 - p = -expm1(log p)
                # keeps its digits, in the second derivative too.
                log_p_y = _label_log_p(z, top, log_sum, picked, index, axis)
                at_label = rest * tf.exp(log_p_y) - by_picked * tf.math.expm1(log_p_y)
                out = _put(out, axis, index, at_label)
            by_weights = None
            if weighted:
                by_dot = _softmax.expand(by_dot, axis)
                out = out + by_dot * weights
                log_p = where((weights == 0) & (log_p == float("-inf")), 0.0, log_p)
                by_weights = by_dot * log_p
                if skip is not None:
                    by_weights = where(skip_c, 0.0, by_weights)
                by_weights = _sum_to(by_weights, weights)
            if skip is not None:
                out = where(skip_c, 0.0, out)
            return out, by_weights

        return rows, gradient

    picked, dot, log_sum, top = statistics(x, weights)
    return (
        None if labels is None else picked,
        dot if weighted else None,
        log_sum,
        tf.stop_gradient(top),
    )


# Gradients of their own, so that second derivatives are right at ties of the maximum too. `top`,
# `log_sum` and `picked` come from z, and are constants beside it.
def _log_p(z, top, log_sum, axis):
    z, top, log_sum = _in_this_graph(z, top, log_sum)

    @tf.custom_gradient
    def log_p(z):
        def by_z(upstream):
            total = _sum_classes(upstream, axis, keepdims=True)
            return upstream - tf.exp(_log_p(z, top, log_sum, axis)) * total

        return tf.stop_gradient(z) - top - log_sum, by_z

    return log_p(z)


def _label_log_p(z, top, log_sum, picked, index, axis):
    z, top, log_sum, picked, index = _in_this_graph(z, top, log_sum, picked, index)

    @tf.custom_gradient
    def log_p(z):
        def by_z(upstream):
            out = -_softmax.expand(upstream, axis) * tf.exp(_log_p(z, top, log_sum, axis))
            again = _label_log_p(z, top, log_sum, picked, index, axis)
            return _put(out, axis, index, -upstream * tf.math.expm1(again))

        return picked, by_z

    return log_p(z)


def _in_this_graph(*tensors):
    # The gradient of a gradient of a tf.function is a third graph, and reaches no further back
    # than the second.
    return tensors if tf.executing_eagerly() else [tf.identity(each) for each in tensors]


def _weighted(weights, log_p):
    return weights * where((weights == 0) & (log_p == float("-inf")), 0.0, log_p)  # 0 log 0 = 0


def _label_index(x, axis, labels):
    """Return where each row's label stands in the logits with three axes, see `_cube`."""
    inner = tf.reduce_prod(tf.shape(x, tf.int64)[axis + 1 :])
    row, labels = tf.range(tf.size(labels, tf.int64)), tf.reshape(labels, [-1])
    # TensorFlow's pfor, behind tf.vectorized_map and tape.jacobian, converts no int64 here.
    return tf.cast(tf.stack([row // inner, labels, row % inner], 1), tf.int32)


def _cube(x, axis):
    """Lay the axes before the class axis together, and those after it."""
    known = x.shape.is_fully_defined()
    shape, product = (x.shape.as_list(), prod) if known else (tf.shape(x), tf.reduce_prod)
    return tf.reshape(x, [product(shape[:axis]), shape[axis], product(shape[axis + 1 :])])


def _at(x, axis, index):
    return tf.gather_nd(_cube(x, axis), index)


def _put(x, axis, index, values):
    values = tf.reshape(values, [-1])
    return tf.reshape(tf.tensor_scatter_nd_update(_cube(x, axis), index, values), tf.shape(x))


def _sum_to(value, like):
    """Sum over the axes along which `like` was broadcast."""
    ones = [i for i, n in enumerate(like.shape.as_list()) if n == 1]
    if like.shape.rank == 0:
        return tf.reduce_sum(value)
    return tf.reduce_sum(value, ones, keepdims=True) if ones else value
