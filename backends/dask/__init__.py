"""Dask arrays in chunks of rows and of classes, which may be larger than memory.

A call reads no data. It builds a graph, whose size is linear in the number of chunks. A chunk stays
in memory until its rows are reduced and, if the gradient is wanted, until that is made; then the
chunks of the next rows are read. More stays in memory in one case: if a mean is divided by the sum
of probability targets or binary weights (``normalizer="weight"``), no gradient can be made before
all of these have been read.
"""

from __future__ import annotations

from softmaxkit import _activations, _losses
from softmaxkit.backends import BinaryOptions, array_api
from softmaxkit.backends.dask import arrays as ops
from softmaxkit.backends.dask import rows as kernels
from softmaxkit.backends.dask.arrays import (
    as_dtype,
    asarray,
    chunked_like,
    device_of,
    has_values,
    is_accelerated,
    is_array,
    is_compiling,
    is_native,
    kind,
    rows_of,
    same_length,
    shape,
    to_host,
    unusable,
    visible,
    whole_mask,
)
from softmaxkit.backends.dask.linear import linear_loss, linear_value_and_grad

LIBRARY = "Dask"


def activation(operation, x, options):
    return getattr(_activations, operation)(ops, kernels, x, _beside(x, options))


def vjp(operation, x, cotangent, options):
    options = _beside(x, options)
    value = getattr(_activations, operation)(ops, kernels, x, options)
    if cotangent.ndim == x.ndim:
        cotangent = chunked_like(cotangent, value.chunks)
    return value, _activations.pull(ops, kernels, operation, x, cotangent, options, value=value)


def loss(logits, targets, options):
    return _losses.loss(ops, kernels, logits, *_aligned(logits, targets, options))[0]


def value_and_grad(logits, targets, options):
    targets, options = _aligned(logits, targets, options)
    value, saved = _losses.loss(ops, kernels, logits, targets, options, save=True)
    return value, _losses.gradient(ops, kernels, logits, options, saved, 1.0)


def smooth_labels(targets, smoothing, axis, where):
    where = whole_mask(where, targets, axis)
    return _losses.smooth_labels(ops, targets, smoothing, axis, where)


def by_rows(function, rows, options):
    return function(ops, rows, *options)


each = array_api.each
one_hot = array_api.one_hot


def _aligned(logits, targets, options):
    """Return targets and options in the chunks of the logits.

    Otherwise Dask would also cut the logits wherever one of these is cut.
    """
    options, rows = _beside(logits, options), logits.chunks
    if not isinstance(options, BinaryOptions):
        rows = rows_of(rows, options.axis)
        options = options._replace(where=whole_mask(options.where, logits, options.axis))
    options = options._replace(sample_weight=chunked_like(options.sample_weight, rows))
    return chunked_like(targets, logits.chunks if targets.ndim == logits.ndim else rows), options


def _beside(logits, options):
    """Return options in which arrays that broadcast to the logits have the logits' chunks."""
    names = {"where", "temperature", "pos_weight"} & set(options._fields)
    return options._replace(
        **{name: chunked_like(getattr(options, name), logits.chunks) for name in names}
    )
