"""Cross-entropy of logits that are a product, hidden @ weight_matrix.T + bias, and never whole.

The rows are taken some at a time. What a chunk of logits costs, and its gradient, is what the loss
family (`softmaxkit._losses`) makes of it; here that is carried on to the operands of the product.

`ops` are the array functions of a backend, `kernels` those that see a chunk of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from softmaxkit import _losses
from softmaxkit._activations import as_wide_as
from softmaxkit.backends import Operands

if TYPE_CHECKING:
    from softmaxkit.backends import (
        Array,
        ArrayFunctions,
        ClassOptions,
        GradientKernels,
        LinearOptions,
    )


class Products(NamedTuple):
    """How a library multiplies, with results in float32 or wider whatever the operands' dtype."""

    operand: Callable[[Array], Array]  # in the dtype in which it is multiplied
    product: Callable[[Array, Array], Array]  # a @ b
    against: Callable[[Array, Array], Array]  # a @ b.T
    add_outer: Callable[[Array | None, Array, Array], Array]  # (sum, a, b) -> sum + a.T @ b
    times: Callable[[Array, Any], Array]  # a sum, which is lost, times a number


def flattened(
    ops: ArrayFunctions, operands: Operands, targets: Array, options: LinearOptions
) -> tuple[Operands, Array, LinearOptions]:
    """Return the same call with one axis of rows, and what belongs to each row laid along it."""
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


def loss(
    ops: ArrayFunctions,
    kernels: GradientKernels,
    products: Products,
    call: tuple[Operands, Array, LinearOptions],
    *,
    wanted: Operands | None = None,
    of_rows: Array | None = None,
) -> tuple[Array, Operands | None]:
    """Return the loss of a flattened call, and the gradients of the operands that are `wanted`.

    They are in float32 or wider. Of rows that are not reduced it is the gradient of their sum, each
    times its cotangent in `of_rows` where that is given.
    """
    operands, targets, options = call
    operands, given = prepared(ops, products, operands, options)
    hidden, weight_matrix, bias = operands
    rows, of_hidden, of_weights, of_bias = [], [], None, None
    for take in _chunks(ops, options, operands):
        each, of_z, h = of_chunk(
            *(ops, kernels, products),
            operands._replace(hidden=take(hidden)),
            take(targets),
            options._replace(of_logits=of_rows_alone(ops, given, take)),
            of_rows=None if of_rows is None else take(of_rows),
            save=wanted is not None,
        )
        rows.append(each)
        if wanted is None:
            continue
        if wanted.hidden:
            of_hidden.append(products.product(of_z, weight_matrix))
        if wanted.weight_matrix:
            of_weights = products.add_outer(of_weights, of_z, h)
        if wanted.bias and bias is not None:
            column = ops.sum(of_z, 0)
            of_bias = column if of_bias is None else of_bias + column
    value, of_sum = reduced(ops, _together(ops, rows), operands, targets, given)
    if wanted is None:
        return value, None
    found = Operands(_together(ops, of_hidden), of_weights, of_bias)
    if of_sum is None:
        return value, found
    return value, _each(lambda one: products.times(one, of_sum), found)


def prepared(
    ops: ArrayFunctions, products: Products, operands: Operands, options: LinearOptions
) -> tuple[Operands, ClassOptions]:
    """Return operands as they are multiplied, and options in the dtype of the arithmetic."""
    given = options.of_logits
    operands = _each(lambda one: products.operand(as_wide_as(ops, one, given.dtype)), operands)
    if given.where is not None:  # what a class that takes no part holds does not leak
        hidden, weight_matrix, bias = operands
        weight_matrix = ops.where(given.where[:, None], weight_matrix, 0.0)
        bias = bias if bias is None else ops.where(given.where, bias, 0.0)
        operands = Operands(hidden, weight_matrix, bias)
    return operands, _losses.in_dtype_of(ops, given, operands.hidden)


def of_chunk(
    ops: ArrayFunctions,
    kernels: Any,
    products: Products,
    operands: Operands,
    targets: Array,
    options: LinearOptions,
    *,
    of_rows: Array | None = None,
    save: bool = False,
) -> tuple[Array, Array | None, Array]:
    """Return the weighted rows of a chunk, and to `save` two factors, of `GradientKernels`.

    These are the gradient of the chunk's logits, and its vectors, of which the gradient of the
    weight matrix is the product.
    """
    h, here = operands.hidden, options.of_logits
    skip = _losses.counted(ops, targets, one_row(ops, operands), here).skip
    if skip is not None:  # what a row holds that counts for nothing does not leak
        h = ops.where(skip[:, None], 0.0, h)
    z, slope = logits(ops, products, operands._replace(hidden=h), options.softcap)
    row = _losses.of_each_row(ops, kernels, z, targets, here, save=save, keep=save)
    weighted, of_row = _losses.weighted(ops, row.loss, row.counted)
    if row.saved is None:
        return weighted, None, h
    of_row = of_row if of_rows is None else of_row * of_rows
    of_z = _losses.gradient_over_classes(ops, kernels, z, here, row.saved, of_row)
    return weighted, of_z if slope is None else of_z * slope, h


def reduced(
    ops: ArrayFunctions, rows: Array, operands: Operands, targets: Array, given: ClassOptions
) -> tuple[Array, Any]:
    """Return weighted rows, or their sum or mean; also its derivative by the sum, None for 1."""
    if given.reduction == "none":
        return rows, None
    counted = _losses.counted(ops, targets, one_row(ops, operands), given)
    return _losses.summed(ops, rows, given.reduction, given.normalizer, counted)


def one_row(ops: ArrayFunctions, operands: Operands) -> Array:
    """Return what has the shape and dtype of a row of logits."""
    return ops.compute(operands.weight_matrix[None, :, 0])


def shaped(
    ops: ArrayFunctions,
    operands: Operands,
    options: LinearOptions,
    value: Array,
    found: Operands | None,
) -> tuple[Array, Operands | None]:
    """Return the results of a flattened call in the shapes and dtypes of the call as it was."""
    dtype = options.of_logits.dtype
    if options.of_logits.reduction == "none":
        value = ops.reshape_like(value, operands.hidden[..., 0])
    value = ops.astype(value, operands.hidden.dtype if dtype is None else dtype)
    if found is None:
        return value, None
    pairs = zip(found, operands, strict=True)
    return value, Operands(
        *(
            None if one is None else ops.astype(ops.reshape_like(one, of), of.dtype)
            for one, of in pairs
        )
    )


def logits(
    ops: ArrayFunctions, products: Products, operands: Operands, softcap: float | None
) -> tuple[Array, Array | None]:
    """Return a chunk of logits, and their derivative by the product if a softcap is between."""
    hidden, weight_matrix, bias = operands
    z = products.against(hidden, weight_matrix)
    z = z if bias is None else z + bias
    if softcap is None:
        return z, None
    # tanh v and 1 / cosh² v, of e^(-2|v|): nothing cancels where v is large.
    v = z / softcap
    twice = -2.0 * ops.where(v < 0, -v, v)  # abs has no derivative at 0
    e = ops.exp(twice)
    bound = -softcap * ops.expm1(twice) / (1.0 + e)
    return ops.where(v < 0, -bound, bound), 4.0 * e / ((1.0 + e) * (1.0 + e))


def _each(function: Callable[[Array], Array], operands: Operands) -> Operands:
    return Operands(*(None if one is None else function(one) for one in operands))


def _chunks(
    ops: ArrayFunctions, options: LinearOptions, operands: Operands
) -> Iterator[Callable[[Array], Array]]:
    """Yield what takes the rows of one chunk after the other."""
    step = options.chunk_size
    count: Any = ops.shape(operands.hidden)[0]
    for start in range(0, max(count, 1), step):
        yield partial(_rows_from, start, min(start + step, count))


def _rows_from(start: int, end: int, array: Array) -> Array:
    return array[start:end, ...]


def of_rows_alone(
    ops: ArrayFunctions, given: ClassOptions, take: Callable[[Array], Array]
) -> ClassOptions:
    """Return the options of some rows, which `take` takes of those that differ between rows."""
    sample_weight, temperature = given.sample_weight, given.temperature
    if sample_weight is not None:
        sample_weight = take(sample_weight)
    if ops.is_array(temperature) and temperature.ndim:
        temperature = take(temperature)[:, None]
    return given._replace(sample_weight=sample_weight, temperature=temperature)


def _together(ops: ArrayFunctions, parts: Any) -> Any:
    return None if not parts else parts[0] if len(parts) == 1 else ops.concat(parts)
