"""Cross-entropy of logits that are a product, hidden @ weight_matrix.T + bias, and never whole.

The rows are processed in chunks. The loss family (`softmaxkit._losses`) computes the losses of a
chunk of logits and their gradient; this module carries it on to the operands of the product.

`ops` are the array functions of a backend, `kernels` its functions over a chunk of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from softmaxkit import _losses
from softmaxkit._activations import as_wide_as
from softmaxkit._chunk import ByBlocks, Products, Whole
from softmaxkit.backends import LinearOutputs, Operands

if TYPE_CHECKING:
    from softmaxkit.backends import (
        Array,
        ArrayFunctions,
        ClassOptions,
        GradientKernels,
        LinearOptions,
    )


# Options that may differ between rows.
BY_ROW = ("sample_weight", "temperature")


class Totals(NamedTuple):
    """Sums over the chunks so far, for each block of the vocabulary; None before the first."""

    of_weights: list[Any]
    of_bias: list[Any]


def flattened(
    ops: ArrayFunctions, operands: Operands, targets: Array, options: LinearOptions
) -> tuple[Operands, Array, LinearOptions]:
    """Return the same call with a single axis of rows, along which all values per row are laid."""
    hidden, given = operands.hidden, options.of_logits
    lead = hidden[..., 0]
    normalizer = given.normalizer
    if isinstance(normalizer, str) and normalizer == "batch":
        normalizer = ops.length(lead, 0, lead) if lead.ndim else 1.0
        normalizer = normalizer if ops.is_array(normalizer) else float(max(normalizer, 1))
    sample_weight, temperature, where = given.sample_weight, given.temperature, given.where
    if ops.is_array(sample_weight):
        sample_weight = ops.reshape(ops.broadcast_like(sample_weight, lead), (-1,))
    if ops.is_array(temperature) and temperature.ndim:
        temperature = ops.reshape(ops.broadcast_like(temperature, lead), (-1,))
    if where is not None:
        where = ops.broadcast_like(where, operands.weight_matrix[:, 0])
    if lead.ndim != 1:
        of_labels = ops.kind(targets) == "int"
        operands = operands._replace(hidden=ops.reshape(hidden, (-1, ops.shape(hidden)[-1])))
        targets = ops.reshape(targets, (-1,) if of_labels else (-1, ops.shape(targets)[-1]))
    of_logits = given._replace(
        axis=1,
        where=where,
        sample_weight=sample_weight,
        temperature=temperature,
        normalizer=normalizer,
    )
    return operands, targets, options._replace(of_logits=of_logits)


def without_ignored(
    ops: ArrayFunctions,
    operands: Operands,
    targets: Array,
    options: LinearOptions,
    take: Callable[[Array], Array],
) -> tuple[Operands, Array, LinearOptions]:
    """Return a flattened call with only the rows that are not ignored, which `take` takes."""
    given = options.of_logits
    by_row = {
        name: take(value)
        for name in BY_ROW
        if ops.is_array(value := getattr(given, name)) and value.ndim
    }
    options = options._replace(of_logits=given._replace(ignore_index=None, **by_row))
    return operands._replace(hidden=take(operands.hidden)), take(targets), options


def put_back(outputs: LinearOutputs, place: Callable[[Array, int], Array]) -> LinearOutputs:
    """Return outputs of all rows; `place(rows, fill)` puts rows back among those left out."""
    rows = {
        name: place(one, -1 if name == "argmax" else 0)
        for name, one in outputs._asdict().items()
        if one is not None and one.ndim
    }
    return outputs._replace(**rows)


def loss(
    ops: ArrayFunctions,
    kernels: GradientKernels,
    products: Products,
    call: tuple[Operands, Array, LinearOptions],
    *,
    wanted: Operands | None = None,
    of_rows: LinearOutputs | None = None,
    whole: type[Whole] = Whole,
) -> tuple[LinearOutputs, Operands | None]:
    """Return the loss of a flattened call, and the gradients by the operands that are `wanted`.

    The gradients are in float32 or wider. If the losses are not reduced, they are the gradients of
    their sum or, with `of_rows`, of all outputs of the rows, times their cotangents in `of_rows`.
    """
    operands, targets, options = call
    operands, given = prepared(ops, products, operands, options)
    rows, of_hidden, totals = [], [], None
    for take in _chunks(ops, options, operands):
        outputs, of_h, totals = of_chunk(
            *(ops, kernels, products),
            operands._replace(hidden=take(operands.hidden)),
            take(targets),
            options._replace(of_logits=of_rows_alone(ops, given, take)),
            wanted=wanted,
            of_rows=None if of_rows is None else each(take, of_rows),
            totals=totals,
            whole=whole,
        )
        rows.append(outputs)
        of_hidden.append(of_h)
    outputs = LinearOutputs(*(_together(ops, column) for column in zip(*rows, strict=True)))
    value, of_sum = reduced(ops, outputs, operands, targets, given)
    if totals is None:
        return value, None
    return value, gradients(ops, products, _together(ops, of_hidden), totals, of_sum)


def gradients(
    ops: ArrayFunctions, products: Products, of_hidden: Array | None, totals: Totals, of_sum: Any
) -> Operands:
    """Return the gradients by the operands, given the sums over all chunks."""
    found = Operands(of_hidden, *(_together(ops, one) for one in totals))
    return found if of_sum is None else each(lambda one: products.times(one, of_sum), found)


def prepared(
    ops: ArrayFunctions, products: Products, operands: Operands, options: LinearOptions
) -> tuple[Operands, ClassOptions]:
    """Return operands in the dtype of the product, and options in the dtype of the arithmetic."""
    given = options.of_logits
    operands = each(lambda one: products.operand(as_wide_as(ops, one, given.dtype)), operands)
    if given.where is not None:  # the numbers of a class that takes no part do not leak
        hidden, weight_matrix, bias = operands
        weight_matrix = ops.where(given.where[:, None], weight_matrix, 0.0)
        bias = bias if bias is None else ops.where(given.where, bias, 0.0)
        operands = Operands(hidden, weight_matrix, bias)
    if ops.is_array(given.temperature):
        given = given._replace(temperature=ops.compute_like(given.temperature, operands.hidden))
    return operands, _losses.in_dtype_of(ops, given, operands.hidden)


def of_chunk(
    ops: ArrayFunctions,
    kernels: Any,
    products: Products,
    operands: Operands,
    targets: Array,
    options: LinearOptions,
    *,
    wanted: Operands | None = None,
    of_rows: LinearOutputs | None = None,
    totals: Totals | None = None,
    whole: type[Whole] = Whole,
) -> tuple[LinearOutputs, Array | None, Totals | None]:
    """Return the outputs of a chunk, its losses weighted, and the gradients `wanted`.

    The gradients are that by the chunk's `hidden`, and the totals with what the chunk adds to them.
    `of_rows` are the cotangents of the rows' outputs, by default 1 for the losses.
    """
    h, here = operands.hidden, options.of_logits
    skip = _losses.counted(ops, targets, one_row(ops, operands), here).skip
    if skip is not None:  # the numbers of a row that does not count do not leak
        h = ops.where(skip[:, None], 0.0, h)
    operands = operands._replace(hidden=h)
    blocks = blocks_of(ops, options, operands.weight_matrix)
    chunk: Whole | ByBlocks
    if len(blocks) == 1:
        chunk = whole(ops, kernels, products, operands, options)
    else:
        chunk = ByBlocks(ops, products, operands, options, blocks)
    row = chunk.rows(targets, save=wanted is not None)
    weighted, of_row = _losses.weighted(ops, row.loss, row.counted)
    outputs = LinearOutputs(weighted)
    if options.all_outputs:
        outputs = _left_out(ops, chunk.beside(targets, skip), skip)._replace(loss=weighted)
    if wanted is None or row.saved is None:
        return outputs, None, totals
    of_entropy = None
    if of_rows is None:
        saved = _losses.times_rows(row.saved, of_row)
    else:
        saved = _losses.times_rows(row.saved, of_row * of_rows.loss)
        by_rows = saved.by_rows
        by_log_p = _sum(by_rows.log_p, of_rows.log_prob)
        by_lse = _sum(by_rows.lse, of_rows.logsumexp)
        saved = saved._replace(by_rows=by_rows._replace(log_p=by_log_p, lse=by_lse))
        of_entropy = of_rows.entropy
    of_hidden, of_weights, of_bias = None, [], []
    totals = totals or Totals([None] * len(blocks), [None] * len(blocks))
    for classes, *before in zip(blocks, *totals, strict=True):
        of_z = chunk.gradient(saved, of_entropy, classes)
        if wanted.hidden:
            part = products.product(of_z, operands.weight_matrix[classes, ...])
            of_hidden = _sum(of_hidden, part)
        add = wanted.weight_matrix
        of_weights.append(products.add_outer(before[0], of_z, h) if add else None)
        add = wanted.bias and operands.bias is not None
        of_bias.append(_sum(before[1], ops.sum(of_z, 0)) if add else None)
    return outputs, of_hidden, Totals(of_weights, of_bias)


def _left_out(ops: ArrayFunctions, outputs: LinearOutputs, skip: Array | None) -> LinearOutputs:
    """Return outputs that are 0 for rows left out, and -1 for the index of their maximum."""
    if skip is None:
        return outputs
    place = ops.where(skip, -1, outputs.argmax)
    rows = outputs._replace(argmax=None)
    return each(lambda one: ops.where(skip, 0.0, one), rows)._replace(argmax=place)


def reduced(
    ops: ArrayFunctions,
    rows: LinearOutputs,
    operands: Operands,
    targets: Array,
    given: ClassOptions,
) -> tuple[LinearOutputs, Any]:
    """Reduce weighted losses; also return the derivative of the result by their sum, None for 1."""
    if given.reduction == "none":
        return rows, None
    like = as_wide_as(ops, one_row(ops, operands), given.dtype)
    given = _losses.in_dtype_of(ops, given, like)
    counted = _losses.counted(ops, targets, like, given)
    value, of_sum = _losses.summed(ops, rows.loss, given.reduction, given.normalizer, counted)
    return rows._replace(loss=value), of_sum


def one_row(ops: ArrayFunctions, operands: Operands) -> Array:
    """Return an array with the shape and dtype of a row of logits."""
    return ops.compute(operands.weight_matrix[None, :, 0])


def shaped(
    ops: ArrayFunctions,
    operands: Operands,
    options: LinearOptions,
    outputs: LinearOutputs,
    found: Operands | None,
) -> tuple[Array | LinearOutputs, Operands | None]:
    """Return the results of a flattened call in the shapes and dtypes of the original call."""
    dtype, loss, lead = options.of_logits.dtype, outputs.loss, operands.hidden[..., 0]
    if options.of_logits.reduction == "none":
        loss = ops.reshape_like(loss, lead)
    value = loss = ops.astype(loss, operands.hidden.dtype if dtype is None else dtype)
    if options.all_outputs:
        beside = outputs._replace(loss=None)
        value = each(lambda one: ops.reshape_like(one, lead), beside)._replace(loss=loss)
    if found is None:
        return value, None
    pairs = zip(found, operands, strict=True)
    return value, Operands(
        *(
            None if one is None else ops.astype(ops.reshape_like(one, of), of.dtype)
            for one, of in pairs
        )
    )


def each(function: Callable[[Array], Array], arrays: Any) -> Any:
    """Return a named tuple with a function applied to each array that is not None."""
    return arrays._make(None if one is None else function(one) for one in arrays)


def _sum(a: Any, b: Any) -> Any:
    return b if a is None else a if b is None else a + b


def blocks_of(ops: ArrayFunctions, options: LinearOptions, weight_matrix: Array) -> list[slice]:
    """Return the blocks of the vocabulary; a single one if its size is not known yet."""
    step, classes = options.block_size, ops.shape(weight_matrix)[0]
    if step is None or not isinstance(classes, int) or classes <= step:
        return [slice(None)]
    return [slice(start, min(start + step, classes)) for start in range(0, classes, step)]


def _chunks(
    ops: ArrayFunctions, options: LinearOptions, operands: Operands
) -> Iterator[Callable[[Array], Array]]:
    """Yield, for one chunk after another, a function that takes its rows."""
    step = options.chunk_size
    count: Any = ops.shape(operands.hidden)[0]
    for start in range(0, max(count, 1), step):
        yield partial(_rows_from, start, min(start + step, count))


def _rows_from(start: int, end: int, array: Array) -> Array:
    return array[start:end, ...]


def of_rows_alone(
    ops: ArrayFunctions, given: ClassOptions, take: Callable[[Array], Array]
) -> ClassOptions:
    """Return the options of the rows that `take` takes."""
    sample_weight, temperature = given.sample_weight, given.temperature
    if sample_weight is not None:
        sample_weight = take(sample_weight)
    if ops.is_array(temperature) and temperature.ndim:
        temperature = take(temperature)[:, None]
    return given._replace(sample_weight=sample_weight, temperature=temperature)


def _together(ops: ArrayFunctions, parts: Any) -> Any:
    if not parts or parts[0] is None:
        return None
    return parts[0] if len(parts) == 1 else ops.concat(parts)
