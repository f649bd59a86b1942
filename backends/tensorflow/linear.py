"""TensorFlow: the loss of logits that are a product, in a loop over chunks of rows.

The gradients of a loss that is one number are computed in the forward pass; those of losses that
are not reduced, in a second loop. Second derivatives are computed from all logits at once.
"""

from __future__ import annotations

import operator

import tensorflow as tf

# No public function says whether an eager tensor is being watched.
from tensorflow.python.eager import record

from softmaxkit import _linear
from softmaxkit._chunk import Products
from softmaxkit._linear import Totals
from softmaxkit.backends import LinearOutputs, Operands
from softmaxkit.backends.tensorflow import arrays as ops
from softmaxkit.backends.tensorflow import rows as kernels
from softmaxkit.backends.tensorflow.arrays import is_array

_ALL = Operands(True, True, True)


def loss(operands, targets, options):
    """Return the loss of tensors whose lengths have been checked."""
    flat, labels, of_flat = _linear.flattened(ops, operands, targets, options)
    given = of_flat.of_logits
    if options.all_outputs:  # the losses are reduced afterwards
        of_flat = of_flat._replace(of_logits=given._replace(reduction="none"))
    present = [one for one in flat if one is not None]
    # A custom gradient sees only its arguments.
    beside = {name: one for name, one in of_flat.of_logits._asdict().items() if _is_float(one)}
    if _is_float(labels):
        beside["targets"] = labels

    def call_of(tensors):
        """Return operands, targets and options with the tensors that are differentiated."""
        given = dict(zip(beside, tensors[len(present) :], strict=True))
        found = given.pop("targets", labels)
        of_logits = of_flat.of_logits._replace(**given)
        return Operands(*tensors[: len(present)]), found, of_flat._replace(of_logits=of_logits)

    tensors = [*present, *beside.values()]
    if tf.executing_eagerly() and record.should_record_backprop(list(beside.values())):
        outputs = _plainly(*call_of(tensors))
    elif tf.executing_eagerly() and not record.could_possibly_record():
        outputs, _ = _call(*call_of(tensors), None)
    else:
        outputs = _Differentiated(call_of, len(present))(tensors)
    if options.all_outputs:
        outputs, _ = _linear.reduced(ops, outputs, flat, labels, given)
    return _linear.shaped(ops, operands, options, outputs, None)[0]


def _is_float(value):
    return is_array(value) and value.dtype.is_floating


class _Differentiated:
    """A loss of tensors, of which the first `count` are the operands, with its derivatives."""

    def __init__(self, call_of, count):
        self.call_of, self.count = call_of, count

    def __call__(self, tensors):
        places = []  # of the outputs that are not None

        @tf.custom_gradient
        def value(*tensors):
            # Constants for the tapes around this call, which would otherwise keep all of it.
            call = self.call_of([tf.stop_gradient(one) for one in tensors])
            is_number = call[2].of_logits.reduction != "none"
            outputs, found = _call(*call, _ALL if is_number else None)
            places[:] = [i for i, one in enumerate(outputs) if one is not None]

            def pull(*of_outputs):
                of_outputs = [one for one in of_outputs if _is_float(one)]  # not argmax's
                return self.gradients(of_outputs, tensors, found)

            return [outputs[i] for i in places], pull

        outputs = dict(zip(places, value(*tensors), strict=True))
        return LinearOutputs(*[outputs.get(i) for i in range(len(LinearOutputs._fields))])

    def gradients(self, of_outputs, tensors, found):
        count = len(of_outputs)

        @tf.custom_gradient
        def gradients(*arguments):
            of_outputs, tensors = arguments[:count], arguments[count:]
            each = found
            if each is None:
                call = self.call_of([tf.stop_gradient(one) for one in tensors])
                _, each = _call(*call, _ALL, of_rows=LinearOutputs(*of_outputs))
            else:
                # If a sum of no rows is divided by 0, it is infinite; 0 x inf must be 0.
                of_value = tf.clip_by_value(
                    of_outputs[0], of_outputs[0].dtype.min, of_outputs[0].dtype.max
                )
                each = [one if one is None else tf.stop_gradient(one) * of_value for one in each]
            pairs = zip([one for one in each if one is not None], tensors, strict=False)
            each = [tf.cast(one, of.dtype) for one, of in pairs]
            others = tensors[self.count :]
            if others and not tf.executing_eagerly():  # a graph leaves out what is not used
                each += self.plainly(of_outputs, tensors)[self.count :]
            elif others:  # nobody reads their gradients
                each += [tf.zeros_like(one) for one in others]

            def again(*of_each):
                with tf.GradientTape(watch_accessed_variables=False) as tape:
                    tape.watch(arguments)
                    first = self.plainly(of_outputs, tensors)
                return tape.gradient(first, arguments, of_each, tf.UnconnectedGradients.ZERO)

            return each, again

        return gradients(*of_outputs, *tensors)

    def plainly(self, of_outputs, tensors):
        """Return gradients computed from all logits at once, which can be differentiated again."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            outputs = _plainly(*self.call_of(tensors))
            outputs = [one for one in outputs if one is not None and _is_float(one)]
        found = tape.gradient(outputs, tensors, of_outputs, tf.UnconnectedGradients.ZERO)
        return [tf.convert_to_tensor(one) for one in found]  # of entries at labels, they are sparse


def _plainly(operands, targets, options):
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    of_logits = _linear.of_rows_alone(ops, given, lambda one: one)
    options = options._replace(of_logits=of_logits, block_size=None)
    rows, _, _ = _linear.of_chunk(ops, kernels, PRODUCTS, operands, targets, options)
    return _linear.reduced(ops, rows, operands, targets, given)[0]


def _call(operands, targets, options, wanted, of_rows=None):
    """Return the outputs and, with `wanted`, the gradients."""
    operands, given = _linear.prepared(ops, PRODUCTS, operands, options)
    hidden, weight_matrix, _ = operands
    step, saves = options.chunk_size, wanted is not None
    names = LinearOutputs._fields if options.all_outputs else ("loss",)
    if not targets.dtype.is_integer:
        names = [name for name in names if name != "log_prob"]

    blocks = _linear.blocks_of(ops, options, weight_matrix)

    def chunk(take, sums):
        here = options._replace(of_logits=_linear.of_rows_alone(ops, given, take))
        of_bias = sums[len(blocks) :] or [None] * len(blocks)
        outputs, of_hidden, totals = _linear.of_chunk(
            *(ops, _Written, PRODUCTS, operands._replace(hidden=take(hidden)), take(targets), here),
            wanted=wanted,
            of_rows=None if of_rows is None else _linear.each(take, of_rows),
            totals=Totals(sums[: len(blocks)], of_bias) if saves else None,
        )
        rows = [getattr(outputs, name) for name in names]
        if not saves:
            return rows, sums
        sums = [one for column in totals for one in column if one is not None]
        return [*rows, of_hidden], sums

    sums = []
    if saves:
        arrays = [one for one in operands[1:] if one is not None]
        sums = [tf.zeros(tf.shape(one[block]), hidden.dtype) for one in arrays for block in blocks]
    of_chunk = [(tf.int64 if name == "argmax" else hidden.dtype, (step,)) for name in names]
    if saves:
        of_chunk.append((hidden.dtype, (step, hidden.shape[1])))
    count, length = hidden.shape[0], tf.shape(hidden)[0]
    ways = [
        lambda: chunk(lambda value: value, sums),
        lambda: _loop(chunk, step, length, sums, of_chunk),
    ]
    if count is None:
        # XLA, which knows the length, compiles only one of them. It could not compile a loop over
        # more rows than there are, even one that never runs.
        found, sums = tf.switch_case(tf.cast(length > step, tf.int32), ways)
    else:
        found, sums = ways[count > step]()
    outputs = LinearOutputs(**dict(zip(names, found, strict=False)))
    outputs, of_sum = _linear.reduced(ops, outputs, operands, targets, given)
    if not saves:
        return outputs, None
    totals = Totals(sums[: len(blocks)], sums[len(blocks) :])
    return outputs, _linear.gradients(ops, PRODUCTS, found[-1], totals, of_sum)


def _loop(chunk, step, count, sums, arrays):
    """Call `chunk` for whole chunks in a loop, then for the rest; return the outputs of all rows.

    `arrays` are the dtypes and shapes of the outputs of a whole chunk.
    """
    times = count // step
    arrays = [tf.TensorArray(dtype, times, element_shape=shape) for dtype, shape in arrays]

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
    """Return the rows of an array of whole chunks, which may be empty, followed by the rest."""
    shape = tf.shape(rest)[1:]

    def whole():
        return tf.reshape(array.stack(), tf.concat([[-1], shape], 0))

    if array.element_shape.is_fully_defined():
        return tf.concat([whole(), rest], 0)
    # TensorFlow cannot stack an empty TensorArray of an unknown shape.
    nothing = tf.zeros(tf.concat([[0], shape], 0), rest.dtype)
    return tf.concat([tf.cond(array.size() > 0, whole, lambda: nothing), rest], 0)


class _Written:
    """Row statistics that keep a tape, which carries their cotangents back."""

    log_softmax = staticmethod(kernels.log_softmax)

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


def _add_outer(total, a, b):
    outer = tf.linalg.matmul(a, b, transpose_a=True)
    return outer if total is None else total + outer


PRODUCTS = Products(ops.compute, tf.linalg.matmul, _against, _add_outer, operator.mul)
