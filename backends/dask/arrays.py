"""Dask: what an array is, and the array functions; most are those of any array-API library."""

from __future__ import annotations

import dask.array as da
from dask.array.utils import meta_from_array

from softmaxkit.backends.array_api.arrays import (
    amax,
    any,
    argmax,
    as_dtype,
    as_index,
    asarray,
    astype,
    at_class,
    compute,
    compute_like,
    concat,
    default_float,
    device_of,
    equal,
    exp,
    expm1,
    has_values,
    is_array,
    is_compiling,
    kind,
    length,
    log1p,
    maximum,
    mean,
    merge_last,
    ones_like,
    permute,
    pick,
    reshape,
    reshape_like,
    same_length,
    shape,
    sigmoid,
    size,
    softplus,
    stop_gradient,
    sum,
    to_host,
    weights_like,
    widest,
)


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, da.Array)


def unusable(x):
    if all(n == n for n in x.shape):  # NaN is a length that is not known yet
        return None
    return (
        ValueError,
        "has unknown chunk sizes; expected known ones; call its compute_chunk_sizes()",
    )


def visible(x):
    return None


def is_accelerated(x):
    return False


# --- array functions for the loss family ----------------------------------------------------------
def where(condition, a, b):
    # Numbers stay numbers: as an array, each would add a layer and a task to the graph.
    return da.where(condition, a, b)


def broadcast_like(x, like):
    # Dask broadcasts `x` where it is used. If that were done here, its chunks would be as large as
    # those of `like`, and would stay in memory because they do not depend on the logits. Only the
    # class axis must have its full length here, and it has: see `whole_mask`.
    return x[(None,) * (like.ndim - x.ndim) + (...,)]


def take(vector, labels):
    # A chunk of labels may need any entry of the vector. Compared with the logits this is short, so
    # it becomes one chunk.
    index = tuple(range(labels.ndim))
    one = (labels.ndim,)
    return da.blockwise(
        *(_take, index, vector.rechunk(-1), one, labels, index),
        concatenate=True,
        meta=meta_of(vector, labels.ndim),
    )


def _take(vector, labels):
    return vector[labels]


# --- chunks ---------------------------------------------------------------------------------------
def meta_of(x, ndim, dtype=None):
    """Return what tells Dask the type, the number of axes and the dtype of chunks like `x`'s."""
    return meta_from_array(x._meta, ndim=ndim, dtype=x.dtype if dtype is None else dtype)


def chunked_like(value, chunks):
    """Return a value, which broadcasts to these chunks, cut like them if it is a Dask array."""
    if not isinstance(value, da.Array):
        return value
    wanted = chunks[len(chunks) - value.ndim :]
    return value.rechunk(
        tuple((1,) if n == 1 else one for n, one in zip(value.shape, wanted, strict=True))
    )


def rows_of(values, axis):
    """Return the values, one for each axis of the logits, without that of the class axis."""
    return (*values[:axis], *values[axis + 1 :])


def whole_mask(where, x, axis):
    """Return a mask with all axes of `x` and all classes, in the chunks of `x`; None for None."""
    if where is None:
        return None
    where = broadcast_like(where, x)
    every = (*where.shape[:axis], x.shape[axis], *where.shape[axis + 1 :])
    return chunked_like(da.broadcast_to(where, every), x.chunks)
