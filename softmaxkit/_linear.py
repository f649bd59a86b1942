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
from softmaxkit._activations import as_wide_as, masked_and_scaled, softmax_derivative
from softmaxkit._statistics import Request
from softmaxkit.backends import LinearOutputs, Operands

if TYPE_CHECKING:
    from softmaxkit.backends import (
        Array,
        ArrayFunctions,
        ClassOptions,
        GradientKernels,
        LinearOptions,
    )


_INF, _NAN = float("inf"), float("nan")


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
    of_rows: LinearOutputs | None = None,
) -> tuple[LinearOutputs, Operands | None]:
    """Return the loss of a flattened call, and the gradients of the operands that are `wanted`.

    They are in float32 or wider. Of losses that are not reduced they are those of the sum, or of
    all that the rows give, times its cotangents in `of_rows`.
    """
    operands, targets, options = call
    operands, given = prepared(ops, products, operands, options)
    hidden, weight_matrix, bias = operands
    rows, of_hidden, of_weights, of_bias = [], [], None, None
    for take in _chunks(ops, options, operands):
        outputs, of_z, h = of_chunk(
            *(ops, kernels, products),
            operands._replace(hidden=take(hidden)),
            take(targets),
            options._replace(of_logits=of_rows_alone(ops, given, take)),
            of_rows=None if of_rows is None else each(take, of_rows),
            save=wanted is not None,
        )
        rows.append(outputs)
        if wanted is None:
            continue
        if wanted.hidden:
            of_hidden.append(products.product(of_z, weight_matrix))
        if wanted.weight_matrix:
            of_weights = products.add_outer(of_weights, of_z, h)
        if wanted.bias and bias is not None:
            column = ops.sum(of_z, 0)
            of_bias = column if of_bias is None else of_bias + column
    outputs = LinearOutputs(*(_together(ops, column) for column in zip(*rows, strict=True)))
    value, of_sum = reduced(ops, outputs, operands, targets, given)
    if wanted is None:
        return value, None
    found = Operands(_together(ops, of_hidden), of_weights, of_bias)
    if of_sum is None:
        return value, found
    return value, each(lambda one: products.times(one, of_sum), found)


def prepared(
    ops: ArrayFunctions, products: Products, operands: Operands, options: LinearOptions
) -> tuple[Operands, ClassOptions]:
    """Return operands as they are multiplied, and options in the dtype of the arithmetic."""
    given = options.of_logits
    operands = each(lambda one: products.operand(as_wide_as(ops, one, given.dtype)), operands)
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
    of_rows: LinearOutputs | None = None,
    save: bool = False,
) -> tuple[LinearOutputs, Array | None, Array]:
    """Return the weighted rows of a chunk, and to `save` two factors, of `GradientKernels`.

    These are the gradient of the chunk's logits, and its vectors, of which the gradient of the
    weight matrix is the product. `of_rows` are the cotangents of the rows, by default 1 for the
    losses.
    """
    h, here = operands.hidden, options.of_logits
    skip = _losses.counted(ops, targets, one_row(ops, operands), here).skip
    if skip is not None:  # what a row holds that counts for nothing does not leak
        h = ops.where(skip[:, None], 0.0, h)
    z, slope = logits(ops, products, operands._replace(hidden=h), options.softcap)
    row = _losses.of_each_row(ops, kernels, z, targets, here, save=save, keep=save)
    weighted, of_row = _losses.weighted(ops, row.loss, row.counted)
    outputs = LinearOutputs(weighted)
    if options.all_outputs:
        beside, p, costs = _beside_loss(ops, kernels, z, targets, here, skip=skip)
        outputs = beside._replace(loss=weighted)
    if row.saved is None:
        return outputs, None, h
    if of_rows is not None:
        of_row = of_row * of_rows.loss
    saved = _losses.times_rows(row.saved, of_row)
    if of_rows is not None and options.all_outputs:
        by_rows = saved.by_rows
        by_lse = _sum(by_rows.lse, of_rows.logsumexp)
        by_log_p = None if by_rows.log_p is None else by_rows.log_p + of_rows.log_prob
        saved = saved._replace(by_rows=by_rows._replace(lse=by_lse, log_p=by_log_p))
    of_z = _losses.gradient_over_classes(ops, kernels, z, here, saved, 1.0)
    if of_rows is not None and options.all_outputs:
        added = softmax_derivative(ops, p, costs, 1) * of_rows.entropy[:, None]
        added = added if here.temperature is None else added / here.temperature
        of_z = of_z + (added if skip is None else ops.where(skip[:, None], 0.0, added))
    return outputs, of_z if slope is None else of_z * slope, h


def _beside_loss(
    ops: ArrayFunctions,
    kernels: Any,
    z: Array,
    targets: Array,
    given: ClassOptions,
    *,
    skip: Array | None,
) -> tuple[LinearOutputs, Array, Array]:
    """Return what rows give beside a loss, and p and -log p, of which the derivative is made.

    Entropy is -Σ p log p, and its derivative by the logits p (-log p - entropy): that of softmax,
    with -log p as its cotangent.
    """
    x, shift, empty = masked_and_scaled(ops, z, 1, given.where, given.temperature)
    labels = wrong = None
    if ops.kind(targets) == "int":
        labels, _, wrong = _losses.labels_in_range(ops, targets, x, given)
    rows, _ = kernels.row_statistics(x, Request(1, labels, skip=skip), lse=True, keep=False)
    log_p_c = kernels.log_softmax(x, 1, x.dtype)
    p = ops.exp(log_p_c)
    costs = -ops.where(ops.equal(p, 0), 0.0, log_p_c)  # 0 log 0 = 0
    entropy, place = ops.sum(p * costs, 1), ops.argmax(x, 1)
    lse, log_p = rows.lse if shift is None else rows.lse + shift, rows.log_p
    if wrong is not None:
        log_p = ops.where(wrong, _NAN, log_p)
    if empty is not None:
        lse, entropy = ops.where(empty, -_INF, lse), ops.where(empty, 0.0, entropy)
        log_p = None if log_p is None else ops.where(empty, -_INF, log_p)
        place = ops.where(empty, -1, place)
    if skip is not None:
        lse, entropy = ops.where(skip, 0.0, lse), ops.where(skip, 0.0, entropy)
        log_p = None if log_p is None else ops.where(skip, 0.0, log_p)
        place = ops.where(skip, -1, place)
    return LinearOutputs(None, lse, log_p, entropy, place), p, costs


def reduced(
    ops: ArrayFunctions,
    rows: LinearOutputs,
    operands: Operands,
    targets: Array,
    given: ClassOptions,
) -> tuple[LinearOutputs, Any]:
    """Reduce weighted losses; also return the derivative of that by their sum, None for 1."""
    if given.reduction == "none":
        return rows, None
    like = as_wide_as(ops, one_row(ops, operands), given.dtype)
    given = _losses.in_dtype_of(ops, given, like)
    counted = _losses.counted(ops, targets, like, given)
    value, of_sum = _losses.summed(ops, rows.loss, given.reduction, given.normalizer, counted)
    return rows._replace(loss=value), of_sum


def one_row(ops: ArrayFunctions, operands: Operands) -> Array:
    """Return what has the shape and dtype of a row of logits."""
    return ops.compute(operands.weight_matrix[None, :, 0])


def shaped(
    ops: ArrayFunctions,
    operands: Operands,
    options: LinearOptions,
    outputs: LinearOutputs,
    found: Operands | None,
) -> tuple[Array | LinearOutputs, Operands | None]:
    """Return the results of a flattened call in the shapes and dtypes of the call as it was."""
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


def each(function: Callable[[Array], Array], arrays: Any) -> Any:
    """Return a named tuple with what a function makes of each array that is there."""
    return arrays._make(None if one is None else function(one) for one in arrays)


def _sum(a: Any, b: Array) -> Array:
    return b if a is None else a + b


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
    if not parts or parts[0] is None:
        return None
    return parts[0] if len(parts) == 1 else ops.concat(parts)
