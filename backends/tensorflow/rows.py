"""TensorFlow's kernels along the class axis, made of native ops, with derivatives of any order."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from softmaxkit._activations import log_softmax_derivative, softmax_derivative
from softmaxkit._axes import expand
from softmaxkit._statistics import Rows
from softmaxkit.backends.tensorflow import arrays as ops
from softmaxkit.backends.tensorflow import classes
from softmaxkit.backends.tensorflow.arrays import compute, where

# From this many logits on, TensorFlow's own softmax is used along the last axis, and each row's sum
# is checked. 4096 x 4096 in a tf.function: 6.3 ms, with exp and a sum 13.6; eager: 7, with NumPy 13
# to 23. At (64, 256) and (200000, 10), both took the same time.
FUSED_ELEMENTS = 1 << 15
# The same for eager calls, which NumPy computes below this size: (180, 1000) takes 515 µs with it
# and 423 with NumPy, (300, 1000) 703 and 634, (500, 1000) 873 and 1025. In a tf.function,
# (100, 1000) takes 360 µs with it and 510 with exp.
FUSED_EAGER_ELEMENTS = 1 << 18
FUSED_FROM_CLASSES = 16
_FUSED_TO_AXES = 5  # oneDNN raises on more
# Its own sum loses digits over many classes: with half a million logits of standard deviation 5, p
# is 37 ULP off at 4096 classes, 51 at 32768, 75 at 128256. A row whose sum of p differs from 1 by
# more than this many half ULP is divided by the sum: then 37, 35 and 37. With a deviation of 2, no
# row was divided.
_SUM_ERROR = 6


def softmax(x, axis, dtype):
    x = compute(x)
    if is_plain_graph() and has_kernel(x, axis) and has_only_cpus():
        return tf.cast(_fused_softmax(x), dtype)
    fixed = tf.stop_gradient(x)
    e = tf.exp(fixed - tf.reduce_max(fixed, axis, keepdims=True))
    return tf.cast(with_derivative(x, e / classes.total(e, axis, keepdims=True), axis), dtype)


def has_kernel(x, axis):
    """Return whether TensorFlow's own softmax is fast and exact enough; sizes may be unknown."""
    if not axis == x.shape.rank - 1 < _FUSED_TO_AXES or x.shape[axis] is None:
        return False
    size = x.shape.num_elements()
    return (size is None or size >= FUSED_ELEMENTS) and x.shape[axis] >= FUSED_FROM_CLASSES


def is_plain_graph():
    """Return whether operations are being traced that XLA will not compile."""
    # XLA's softmax is 200 ULP off at 128256 classes; with sums in two steps, it is 34 ULP off.
    return not (tf.executing_eagerly() or classes.in_xla())


def _fused_softmax(x):
    """Return softmax from TensorFlow's own kernel, its rows divided by their sums if necessary."""
    p = tf.raw_ops.Softmax(logits=tf.stop_gradient(x))
    total = classes.total(p, -1, keepdims=True)
    p = tf.cond(tf.reduce_all(is_one(total)), lambda: p, lambda: p / total)
    return with_derivative(x, p, x.shape.rank - 1)


def has_only_cpus():
    """Return whether a condition on a value never makes the host wait for a device."""
    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())


def is_one(total):
    """Return which sums over p, of TensorFlow or NumPy, are 1 up to the last digits; NaN is not."""
    half_ulp = 2.0**-53 if total.dtype == tf.float64 else 2.0**-24
    return abs(total - 1) <= _SUM_ERROR * half_ulp


# A custom gradient, because pfor cannot convert that of tf.cond.
def with_derivative(x, p, axis):
    """Return `p`, the softmax of `x`, with the derivative of softmax."""
    x, p = _in_this_graph(x, p)

    @tf.custom_gradient
    def softmax(x):
        def by_x(upstream):
            return softmax_derivative(ops, with_derivative(x, p, axis), upstream, axis)

        return tf.identity(p), by_x

    return softmax(x)


def _times_p(a, x, quotient, axis):
    """Return a e / total, that is a · p, in one pass over e and in its memory."""
    a, x, e, total = _in_this_graph(a, x, *quotient)

    @tf.custom_gradient
    def product(a, x):
        def derivative(upstream):
            p = with_derivative(x, e / total, axis)
            by_a = classes.total(upstream * p, axis, keepdims=True)
            return by_a, softmax_derivative(ops, p, upstream * a, axis)

        # stop_gradient: otherwise forward mode would differentiate this, and not use `derivative`.
        return e * (tf.stop_gradient(a) / total), derivative

    return product(a, x)


def log_softmax(x, axis, dtype):
    x = compute(x)
    fixed = tf.stop_gradient(x)
    top = tf.reduce_max(fixed, axis, keepdims=True)
    shifted = fixed - top
    e = tf.exp(shifted) if is_plain_graph() else None
    log_sum, total = _log_sum(fixed, axis, top, None, e)
    return tf.cast(_log_p(x, shifted - log_sum, axis, e, total), dtype)


class _Row(NamedTuple):
    """Saved for the derivatives of a row's numbers."""

    axis: int
    top: tf.Tensor
    log_sum: tf.Tensor
    picked: tf.Tensor | None
    index: tf.Tensor | None
    skip: tf.Tensor | None
    weighted: bool
    lse: bool

    def in_this_graph(self):
        fields = (self.top, self.log_sum, self.picked, self.index, self.skip)
        return _Row(self.axis, *_in_this_graph(*fields), self.weighted, self.lse)


def row_statistics(x, request, lse, keep):
    axis, labels, weights, skip = request
    x = compute(x)
    weighted = weights is not None
    weights = tf.convert_to_tensor(weights if weighted else 0.0, x.dtype)
    uniform = weighted and weights.shape.rank == 0
    index = None if labels is None else classes.label_index(x, axis, labels)

    @tf.custom_gradient
    def statistics(x, weights):
        # Constants for every tape: an eager one would keep all of this, and forward mode would
        # differentiate it instead of using `gradient`.
        fixed, fixed_weights = tf.stop_gradient(x), tf.stop_gradient(weights)
        top = tf.reduce_max(fixed, axis, keepdims=True)
        at_label = e = None
        if labels is not None:
            at_label = tf.reshape(classes.entries_at(fixed, axis, index), tf.shape(top)) - top
        shifted = fixed - top
        if uniform:
            dot = classes.total(shifted, axis, keepdims=True)
            shifted = _after(dot, shifted)
        if is_plain_graph():
            e = tf.exp(shifted)
        log_sum, total = _log_sum(fixed, axis, top, None if weighted else at_label, e)
        # Always two tensors in and four out: a custom gradient does not accept None.
        picked = tf.zeros_like(top) if labels is None else at_label - log_sum
        if uniform:
            dot = _weighted(fixed_weights, dot - classes.length(x, axis, x) * log_sum)
        elif weighted:
            dot = classes.total(_weighted(fixed_weights, shifted - log_sum), axis, keepdims=True)
            dot = tf.where(tf.math.is_nan(log_sum), log_sum, dot)
        else:
            dot = tf.zeros_like(top)
        rows = [picked, dot, log_sum, top]
        if skip is not None:
            skip_c = expand(skip, axis)
            rows = [where(skip_c, 0.0, v) for v in rows]
        picked, _, log_sum, top = rows
        row = _Row(
            axis, top, log_sum, None if labels is None else picked, index, skip, weighted, lse
        )

        def gradient(by_picked, by_dot, by_log_sum, _):
            by = [by_picked, by_dot, by_log_sum]
            if skip is not None:
                by = [where(skip, 0.0, v) for v in by]
            by_weights = _by_weights(x, weights, by_dot, row) if weighted else None
            return _by_logits(x, weights, by, row, e, total), by_weights

        return [tf.squeeze(v, axis) for v in rows], gradient

    picked, dot, log_sum, top = statistics(x, weights)
    rows = Rows(
        None if labels is None else picked,
        dot if weighted else None,
        None,
        tf.stop_gradient(top) + log_sum if lse else None,
    )
    return rows, None


def _log_sum(x, axis, top, at_label, e=None):
    """Return log Σ e^(x-top), with the digits of the sum without one maximum; and the sum.

    With `at_label`, it has only the digits that log p at the label needs. `e` is e^(x-top) if that
    is kept.
    """
    if not has_only_cpus():
        others, maxima = _others_and_maxima(tf.exp(x - top) if e is None else e, axis)
        return tf.math.log1p(others + (maxima - 1)), others + maxima
    # One sum suffices for rows that no class dominates. Cross-entropy and its gradient of
    # 4096 x 4096 take 31 ms in a tf.function and 14 under XLA; with two sums for all rows, 40 and
    # 29.
    total = classes.total(tf.exp(x - top) if e is None else e, axis, keepdims=True)
    # A second maximum makes the total 2 or more.
    dominated = total < 2
    if at_label is not None:
        dominated &= tf.equal(at_label, 0)

    def with_others():
        others, _ = _others_and_maxima(tf.exp(x - top) if e is None else e, axis)
        return tf.where(dominated, tf.math.log1p(others), tf.math.log(total))

    return tf.cond(tf.reduce_any(dominated), with_others, lambda: tf.math.log(total)), total


def _others_and_maxima(e, axis):
    """Return Σ e^(x-top) without the maxima, and the number of maxima."""
    ones = tf.floor(e)  # 1 at a maximum, else 0
    return (classes.total(v, axis, keepdims=True) for v in (e - ones, ones))


# In a tf.function, an array costs the time to write it. So e^(x-top) is kept from the forward
# pass, and the gradient is written into its memory once nothing else reads it: 4096 x 4096, forward
# and backward, 30 -> 19 ms; with label smoothing 55 -> 30, of probabilities 57 -> 37.
def _by_logits(x, weights, by, row, e, total):
    """Return the cotangent of the logits, given those of `row_statistics`."""
    x, weights, e, total = _in_this_graph(x, weights, e, total)
    axis, top, log_sum, picked, index, skip, weighted, _ = row.in_this_graph()
    by_picked, by_dot, rest = by
    if e is None:  # from e^d: d - log Σ e^d would be rounded more coarsely
        e, total = tf.exp(tf.stop_gradient(x) - top), tf.exp(log_sum)
    else:
        e = _after(log_sum, e)
    if skip is not None:
        skip_c = expand(skip, axis)
        e, total = where(skip_c, 0.0, e), where(skip_c, 1.0, total)
    is_number = weighted and weights.shape.rank == 0
    if is_number:
        rest = rest - by_dot * weights * classes.length(x, axis, x)
    out = _times_p(expand(rest if picked is None else rest - by_picked, axis), x, (e, total), axis)
    if is_number:  # before the labels are written, so that XLA makes one pass
        of_each = by_dot * weights
        out = out + expand(of_each, axis)
    if picked is not None:
        # Compute a p + b as rest p + b (1-p): in saturated rows, a is -b, and 1 - p = -expm1(log p)
        # keeps its digits, in the second derivative, too.
        log_p = _label_log_p(x, (e, total), tf.squeeze(picked, axis), index, axis)
        at_label = rest * tf.exp(log_p) - by_picked * tf.math.expm1(log_p)
        out = classes.put(out, axis, index, at_label + of_each if is_number else at_label)
    if weighted and not is_number:
        p = with_derivative(x, e / total, axis)
        of_each = log_softmax_derivative(ops, p, tf.broadcast_to(weights, tf.shape(p)), axis)
        of_each = expand(by_dot, axis) * of_each
        out = of_each if picked is None and not row.lse else out + of_each
    if weighted and skip is not None:
        out = where(skip_c, 0.0, out)  # weights may be infinite
    return out


def _by_weights(x, weights, by_dot, row):
    """Return the cotangent of the weights in the same way."""
    by_dot = expand(by_dot, row.axis)
    z = x
    if row.skip is not None:
        skip_c = expand(row.skip, row.axis)
        z, by_dot = where(skip_c, 0.0, x), where(skip_c, 0.0, by_dot)
    log_p = _log_p(z, _shifted(z, row.top, row.log_sum), row.axis)
    log_p = where(tf.equal(weights, 0) & tf.equal(log_p, float("-inf")), 0.0, log_p)
    return _sum_to(by_dot * log_p, weights)


def _after(done, x):
    with tf.control_dependencies([done]):
        return tf.identity(x)


# Custom gradients, so that second derivatives are right even if several classes share the maximum.
# `top`, `log_sum` and `picked` are computed from z, but are constants here.
def _shifted(z, top, log_sum):
    return tf.stop_gradient(z) - top - log_sum


def _log_p(z, value, axis, e=None, total=None):
    z, value, e, total = _in_this_graph(z, value, e, total)

    @tf.custom_gradient
    def log_p(z):
        def by_z(upstream):
            p = tf.exp(_log_p(z, value, axis)) if e is None else with_derivative(z, e / total, axis)
            return log_softmax_derivative(ops, p, upstream, axis)

        return tf.identity(value), by_z

    return log_p(z)


def _label_log_p(x, quotient, picked, index, axis):
    x, e, total, picked, index = _in_this_graph(x, *quotient, picked, index)

    @tf.custom_gradient
    def log_p(x):
        def by_x(upstream):
            out = _times_p(-expand(upstream, axis), x, (e, total), axis)
            again = _label_log_p(x, (e, total), picked, index, axis)
            return classes.put(out, axis, index, -upstream * tf.math.expm1(again))

        return picked, by_x

    return log_p(x)


def _in_this_graph(*tensors):
    # The gradient of a gradient of a tf.function is a third graph, which can reach no further back
    # than the second.
    if tf.executing_eagerly():
        return tensors
    return [None if each is None else tf.identity(each) for each in tensors]


def _weighted(weights, log_p):
    return tf.math.multiply_no_nan(log_p, weights)  # 0 log 0 = 0


def _sum_to(value, like):
    """Sum over the axes along which `like` was broadcast."""
    ones = [i for i, n in enumerate(like.shape.as_list()) if n == 1]
    if like.shape.rank == 0:
        return tf.reduce_sum(value)
    return tf.reduce_sum(value, ones, keepdims=True) if ones else value
