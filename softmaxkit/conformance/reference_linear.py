"""The textbook's cross-entropy of a linear layer, in float64: all logits, then the loss of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from softmaxkit.conformance import reference

Array = np.ndarray


class Outputs(NamedTuple):
    """The result of ``outputs="all"``."""

    loss: Array
    logsumexp: Array
    log_prob: Array
    entropy: Array
    argmax: Array


class Gradients(NamedTuple):
    """The gradient by each operand, or the size of the terms that its entries are sums of."""

    hidden: Array
    weight_matrix: Array
    bias: Array


def linear_cross_entropy(  # type: ignore[no-untyped-def]
    hidden: Array,
    weight_matrix: Array,
    targets: Array,
    *,
    bias: Array | None = None,
    softcap: float | None = None,
    chunk_size: int | None = None,
    **options,
) -> Array:
    """Return cross_entropy(softcap · tanh((h W^T + b) / softcap)).

    Examples
    --------
    >>> linear_cross_entropy(np.zeros((1, 3)), np.zeros((2, 3)), np.array([0]))
    np.float64(0.6931471805599453)
    """
    z, _ = capped_logits(hidden, weight_matrix, bias, softcap)
    value: Array = reference.cross_entropy(z, targets, **_of_rows(options))
    return value


def linear_outputs(  # type: ignore[no-untyped-def]
    hidden: Array, weight_matrix: Array, targets: Array, *, bias: Array | None = None, **options
) -> Outputs:
    """Return the result of ``outputs="all"`` for class indices.

    Examples
    --------
    >>> linear_outputs(np.zeros((1, 3)), np.zeros((2, 3)), np.array([0])).entropy
    array([0.69314718])
    """
    loss = linear_cross_entropy(hidden, weight_matrix, targets, bias=bias, **options)
    z, _ = capped_logits(hidden, weight_matrix, bias, options.get("softcap"))
    z = z / _of_rows(options)["temperature"]
    z = np.where(options.get("where", True), z, -np.inf)
    log_p = reference.log_softmax(z)
    left_out = targets == options.get("ignore_index", -100)
    left_out = left_out | (np.asarray(options.get("sample_weight", 1.0)) == 0)
    of_label = np.take_along_axis(log_p, np.where(left_out, 0, targets)[..., None], -1)[..., 0]
    p = np.exp(log_p)
    rows = reference.logsumexp(z), of_label, -(p * np.where(p == 0, 0.0, log_p)).sum(-1)
    kept = (np.where(left_out, 0.0, row) for row in rows)
    return Outputs._make((loss, *kept, np.where(left_out, -1, z.argmax(-1))))


def linear_gradients(  # type: ignore[no-untyped-def]
    hidden: Array,
    weight_matrix: Array,
    targets: Array,
    *,
    bias: Array | None = None,
    softcap: float | None = None,
    chunk_size: int | None = None,
    **options,
) -> tuple[Gradients, Gradients]:
    """Return the gradients of the loss's sum, and the size of the terms of each entry.

    Examples
    --------
    >>> gradients, _ = linear_gradients(np.zeros((1, 1)), np.ones((2, 1)), np.array([0]))
    >>> gradients.bias
    array([-0.5,  0.5])
    """
    z, slope = capped_logits(hidden, weight_matrix, bias, softcap)
    options = _of_rows(options)
    found = []
    for of in (reference.gradient, reference.gradient_terms):
        of_z = np.where(slope == 0, 0.0, slope * of("cross_entropy", z, targets, **options))
        absolute = np.abs if of is reference.gradient_terms else np.asarray
        found.append(
            Gradients(
                _sum_of_products(of_z[..., None], absolute(weight_matrix), -2),
                _sum_of_products(
                    of_z.reshape(-1, z.shape[-1])[:, :, None],
                    absolute(hidden).reshape(-1, 1, hidden.shape[-1]),
                    0,
                ),
                of_z.reshape(-1, z.shape[-1]).sum(0),
            )
        )
    gradients, terms = found
    return gradients, Gradients(*(np.abs(one) for one in terms))


def capped_logits(
    hidden: Array, weight_matrix: Array, bias: Array | None, softcap: float | None
) -> tuple[Array, Array]:
    """Return the logits, and their derivatives by the product.

    Examples
    --------
    >>> capped_logits(np.ones((1, 1)), np.ones((1, 1)), None, None)
    (array([[1.]]), array([[1.]]))
    """
    with np.errstate(all="ignore"):
        z = hidden @ weight_matrix.T + (0.0 if bias is None else bias)
        if softcap is None:
            return z, np.ones_like(z)
        return softcap * np.tanh(z / softcap), 1 / np.cosh(z / softcap) ** 2


def _of_rows(options: dict) -> dict:  # type: ignore[type-arg]
    temperature = np.asarray(options.get("temperature", 1.0))
    return options | {"temperature": temperature[..., None] if temperature.ndim else temperature}


def _sum_of_products(of_z: Array, factor: Array, axis: int) -> Array:
    with np.errstate(all="ignore"):  # what is ignored, or takes no part, may contain anything
        products: Array = np.where(of_z == 0, 0.0, of_z * factor).sum(axis)
    return products
