"""Dask: the loss of logits that are a product, which Dask computes chunk by chunk."""

from __future__ import annotations

from softmaxkit import _linear
from softmaxkit.backends import Operands
from softmaxkit.backends.array_api import arrays as whole_arrays
from softmaxkit.backends.array_api.linear import PRODUCTS
from softmaxkit.backends.dask import arrays as ops
from softmaxkit.backends.dask import rows as kernels
from softmaxkit.backends.dask.arrays import chunked_like


def linear_loss(operands, targets, options):
    return _call(operands, targets, options, None)[0]


def linear_value_and_grad(operands, targets, options):
    return _call(operands, targets, options, Operands(True, True, True))


def _call(operands, targets, options, wanted):
    # The rows become one axis, along which everything has to be as long as they are. The functions
    # of `ops` leave broadcasting to Dask, so that it would not be.
    call = _linear.flattened(whole_arrays, operands, targets, options)
    outputs, found = _linear.loss(ops, kernels, PRODUCTS, _in_chunks(*call), wanted=wanted)
    return _linear.shaped(ops, operands, options, outputs, found)


def _in_chunks(operands, targets, options):
    """Return the call as one of all rows, in chunks of Dask of at most the sizes in `options`."""
    hidden, weight_matrix, bias = operands
    hidden = _at_most(hidden, options.chunk_size)
    weight_matrix = _at_most(weight_matrix, options.block_size)
    chunks = hidden.chunks[0], weight_matrix.chunks[0]
    given = options.of_logits
    options = options._replace(
        of_logits=given._replace(sample_weight=chunked_like(given.sample_weight, chunks[:1])),
        chunk_size=max(hidden.shape[0], 1),
        block_size=None,
    )
    operands = Operands(hidden, weight_matrix, chunked_like(bias, chunks[1:]))
    return operands, chunked_like(targets, chunks[: targets.ndim]), options


def _at_most(matrix, size):
    """Return a matrix in chunks of whole rows, at most `size` of them."""
    most = max(matrix.chunks[0])
    return matrix.rechunk((most if size is None else min(size, most), -1))
