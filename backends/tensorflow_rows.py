"""TensorFlow's kernels along the class axis, of native ops, with derivatives of every order."""

from __future__ import annotations

from math import prod

import tensorflow as tf

from softmaxkit import _softmax

# From this many classes on a sum over them is made in two steps; of so many each if C is unknown.
SPLIT_CLASSES = 4096
PART = 256


def softmax_rows(x, axis, dtype):
    x = compute(x)
    e = tf.exp(x - tf.stop_gradient(tf.reduce_max(x, axis, keepdims=True)))
    return tf.cast(e / sum_classes(e, axis, keepdims=True), dtype)


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
        top = tf.reduce_max(fixed, axis, keepdims=True)
        d = fixed - top
        # Not d < 0: XLA's maximum passes over a NaN, and then it has to come in by the sum.
        others = sum_classes(where(d == 0, 0.0, tf.exp(d)), axis, keepdims=True)
        ties = tf.reduce_sum(tf.cast(d == 0, d.dtype), axis, keepdims=True)  # exact
        log_sum = tf.math.log1p(others + (ties - 1))
        # Always two tensors in and four out: a custom gradient knows no None.
        rows = [tf.zeros([], x.dtype)] * 2 + [tf.squeeze(log_sum, axis), tf.squeeze(top, axis)]
        picked = None
        if labels is not None:
            rows[0] = picked = tf.reshape(_at(d, axis, index), tf.shape(labels)) - rows[2]
        if weighted:
            rows[1] = sum_classes(_weighted(fixed_weights, d - log_sum), axis)
        if skip is not None:
            rows[2:] = [where(skip, 0.0, v) for v in rows[2:]]
            rows[0] = rows[0] if labels is None else where(skip, 0.0, rows[0])
            rows[1] = where(skip, 0.0, rows[1]) if weighted else rows[1]

        def gradient(by_picked, by_dot, by_log_sum, _):
            a = rest = by_log_sum
            if weighted:
                total = sum_classes(tf.broadcast_to(weights, tf.shape(x)), axis)
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
            total = sum_classes(upstream, axis, keepdims=True)
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


def sum_classes(x, axis, keepdims=False):
    """Sum along an axis, over many classes in two steps, as XLA adds one after the other."""
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
    sums = tf.cast(tf.reduce_sum(tf.reshape(x, parts), axis + 1), tf.float64)
    total = tf.cast(tf.reduce_sum(sums, axis, keepdims=keepdims), x.dtype)
    return total if rest is None else total + tf.reduce_sum(rest, axis, keepdims=keepdims)


def where(condition, a, b):
    if not isinstance(a, tf.Tensor):
        a = tf.constant(a, b.dtype if isinstance(b, tf.Tensor) else tf.float32)
    if not isinstance(b, tf.Tensor):
        b = tf.constant(b, a.dtype)
    return tf.where(condition, a, b)


def wide_dtype(dtype):
    return dtype if dtype == tf.float64 else tf.float32


def compute(x):
    return tf.cast(x, wide_dtype(x.dtype))
