"""TensorFlow: the loss of logits that are a product, by chunks of rows in a loop.

The gradients of a loss that is one number are made on the way forward; those of rows that are not
reduced in a second loop. Second derivatives go through all logits at once.
"""

from __future__ import annotations

import tensorflow as tf

# Nothing public says whether an eager tensor is being watched.
from tensorflow.python.eager import record

from softmaxkit import _linear
from softmaxkit.backends import Operands
from softmaxkit.backends.tensorflow import arrays as ops
from softmaxkit.backends.tensorflow import rows as kernels
from softmaxkit.backends.tensorflow.arrays import is_array

_ALL = Operands(True, True, True)


def loss(operands, targets, options):
    """Return the loss of tensors whose lengths fit."""
    flat, labels, of_flat = _linear.flattened(ops, operands, targets, options)
    present = [one for one in flat if one is not None]
    # A custom gradient sees its arguments only.
    beside = {name: one for name, one in of_flat.of_logits._asdict().items() if _is_float(one)}
    if _is_float(labels):
        beside["targets"] = labels

    def call_of(tensors):
        """Return operands, targets and options made of the tensors that are differentiated."""
        given = dict(zip(beside, tensors[len(present) :], strict=True))
        found = given.pop("targets", labels)
        of_logits = of_flat.of_logits._replace(**given)
        return Operands(*tensors[: len(present)]), found, of_flat._replace(of_logits=of_logits)

    tensors = [*present, *beside.values()]
    if tf.executing_eagerly() and record.should_record_backprop(list(beside.values())):
        value = _plainly(*call_of(tensors))
    else:
        value = _Differentiated(call_of, len(present))(tensors)
    return _linear.shaped(ops, operands, options, value, None)[0]


def _is_float(value):
    return is_array(value) and value.dtype.is_floating


class _Differentiated:
    """A loss of tensors, of which the first `count` are the operands, with its derivatives."""

    def __init__(self, call_of, count):
        self.call_of, self.count = call_of, count

    def __call__(self, tensors):
        @tf.custom_gradient
        def value(*tensors):
            # Constants to the tapes around this, which would keep all of it.
            call = self.call_of([tf.stop_gradient(one) for one in tensors])
            is_number = call[2].of_logits.reduction != "none"
            out, found = _call(*call, _ALL if is_number else None)
            return out, lambda of_value: self.gradients(of_value, tensors, found)

        return value(*tensors)

    def gradients(self, of_value, tensors, found):
        @tf.custom_gradient
        def gradients(of_value, *tensors):
            each = found
            if each is None:
                call = self.call_of([tf.stop_gradient(one) for one in tensors])
                _, each = _call(*call, _ALL, of_rows=of_value)
            else:
                each = [one if one is None else tf.stop_gradient(one) * of_value for one in each]
            pairs = zip([one for one in each if one is not None], tensors, strict=False)
            each = [tf.cast(one, of.dtype) for one, of in pairs]
            others = tensors[self.count :]
            if others and not tf.executing_eagerly():  # where a graph leaves out what is not used
                each += self.plainly(of_value, tensors)[self.count :]
            elif others:  # nobody looks
                each += [tf.zeros_like(one) for one in others]

            def again(*of_each):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch([of_value, *tensors])
                    first = self.plainly(of_value, tensors)
                known = tf.UnconnectedGradients.ZERO
                return tape.gradient(first, [of_value, *tensors], of_each, known)

            return each, again

        return gradients(of_value, *tensors)

    def plainly(self, of_value, tensors):
        """Return the gradients by way of all logits at once, which can be differentiated."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            value = _plainly(*self.call_of(tensors))
        found = tape.gradient(value, tensors, of_value, tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(one) for one in found]  # what was picked by labels is sparse


def _plainly(operands, targets, options):
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    options = options._replace(of_logits=_linear.of_rows_alone(ops, given, lambda one: one))
    rows, _, _ = _linear.of_chunk(ops, kernels, PRODUCTS, operands, targets, options)
    return _linear.reduced(ops, rows, operands, targets, given)[0]


def _call(operands, targets, options, wanted, of_rows=None):
    """Return the value, and with `wanted` the gradients."""
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    hidden, weight_matrix, bias = operands
    step, saves = options.chunk_size, wanted is not None

    def chunk(take, sums):
        here = options._replace(of_logits=_linear.of_rows_alone(ops, given, take))
        rows, of_z, h = _linear.of_chunk(
            *(ops, _Written, PRODUCTS, operands._replace(hidden=take(hidden)), take(targets), here),
            of_rows=None if of_rows is None else take(of_rows),
            save=saves,
        )
        if not saves:
            return [rows], sums
        outer, column = tf.linalg.matmul(of_z, h, transpose_a=True), tf.reduce_sum(of_z, 0)
        sums = [sums[0] + outer, sums[1] + column]
        return [rows, tf.linalg.matmul(of_z, weight_matrix)], sums

    sums = []
    if saves:
        sums = [tf.zeros(tf.shape(weight_matrix), hidden.dtype)]
        sums.append(tf.zeros(tf.shape(weight_matrix)[:1], hidden.dtype))
    count, length = hidden.shape[0], tf.shape(hidden)[0]
    ways = [
        lambda: chunk(lambda value: value, sums),
        lambda: _loop(chunk, step, length, sums, hidden),
    ]
    if count is None:
        # XLA, which knows the length, compiles one of them. A loop over more rows than there are,
        # which would not run, it cannot compile.
        found, sums = tf.switch_case(tf.cast(length > step, tf.int32), ways)
    else:
        found, sums = ways[count > step]()
    value, of_sum = _linear.reduced(ops, found[0], operands, targets, given)
    if not saves:
        return value, None
    gradients = [found[1], *sums]
    if of_sum is not None:
        gradients = [one * of_sum for one in gradients]
    return value, Operands(*gradients[: 3 if bias is not None else 2])


def _loop(chunk, step, count, sums, hidden):
    """Go through whole chunks in a loop, and then the rest; return what all rows gave."""
    times = count // step
    saves = len(sums) > 0
    shapes = [(step,), (step, hidden.shape[1])][: 2 if saves else 1]
    arrays = [tf.TensorArray(hidden.dtype, times, element_shape=shape) for shape in shapes]

    def body(i, arrays, sums):
        def take(value):  # of a length that XLA knows
            others = value.shape.rank - 1
            return tf.slice(value, [i * step, *others * [0]], [step, *others * [-1]])

        found, sums = chunk(take, sums)
        return i + 1, [into.write(i, one) for into, one in zip(arrays, found, strict=True)], sums

    _, arrays, sums = tf.while_loop(
        lambda i, *_: i < times, body, (0, arrays, sums), parallel_iterations=1
    )
    last, sums = chunk(lambda value: value[times * step :], sums)
    return [_joined(*pair) for pair in zip(arrays, last, strict=True)], sums


def _joined(array, rest):
    """Return the rows in an array of whole chunks, of which there may be none, and the rest."""
    shape = tf.shape(rest)[1:]

    def whole():
        return tf.reshape(array.stack(), tf.concat([[-1], shape], 0))

    if array.element_shape.is_fully_defined():
        return tf.concat([whole(), rest], 0)
    # TensorFlow does not stack nothing of an unknown shape.
    nothing = tf.zeros(tf.concat([[0], shape], 0), rest.dtype)
    return tf.concat([tf.cond(array.size() > 0, whole, lambda: nothing), rest], 0)


class _Written:
    """Row statistics that keep a tape, which carries cotangents back."""

    @staticmethod
    def row_statistics(x, request, lse, keep):
        if not keep:
            return kernels.row_statistics(x, request, lse, keep)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            rows, _ = kernels.row_statistics(x, request, lse, keep)
        return rows, (tape, x, rows)

    @staticmethod
    def row_gradient(x, request, kept, of_rows):
        tape, x, rows = kept
        pairs = zip(rows, of_rows._replace(mass=None), strict=True)
        pairs = [(row, by * tf.ones_like(row)) for row, by in pairs if by is not None]
        rows, cotangents = zip(*pairs, strict=True)
        return tape.gradient(rows, x, cotangents)


# --- products -------------------------------------------------------------------------------------
def _against(a, b):
    return tf.linalg.matmul(a, b, transpose_b=True)


PRODUCTS = _linear.Products(ops.compute, tf.linalg.matmul, _against, None, None)
