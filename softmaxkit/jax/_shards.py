"""Losses over classes that lie in shards, one for each device along an axis of a mesh."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax

from softmaxkit import _vocab_parallel
from softmaxkit.backends.jax import shards


def vocab_parallel_cross_entropy(
    logits_shard: jax.Array,
    labels: jax.Array,
    *,
    axis_name: Hashable,
    axis: int = -1,
    weight: jax.Array | None = None,
    sample_weight: jax.Array | None = None,
    where: jax.Array | None = None,
    ignore_index: int | None = -100,
    label_smoothing: jax.Array | float = 0.0,
    temperature: jax.Array | float = 1.0,
    z_loss: jax.Array | float = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> jax.Array:
    """Cross-entropy of logits whose classes lie in shards, for use inside `jax.shard_map`.

    Every device passes its classes of the same rows and gets the loss of the whole rows, as
    `softmaxkit.cross_entropy` computes it. The logits are never gathered: two all-reduces, or three
    if there is a mask, send about five numbers for each row, however many classes there are. The
    gradient by the logits needs none; that by each argument that is the same on all devices needs
    one. Derivatives exist to every order, in forward and in reverse mode. Under jit without
    `shard_map`, call `softmaxkit.cross_entropy` on the sharded array: the compiler then places the
    all-reduces.

    Parameters
    ----------
    logits_shard : floating array
        The logits of this device's classes, along `axis`. All devices have equally many classes: if
        these do not divide evenly, pad them, and mask the padding with `where`.
    labels : array
        Class indices among all C classes, in the shape of the rows, the same on all devices; or
        this device's shard of probabilities, in the shape of `logits_shard`.
    axis_name : str, or tuple of str
        The axis of the mesh, or several, along which the classes lie.
    axis : int, default -1
        The class axis.
    weight : array, optional
        The weights of all classes, (C,), or of the shard's classes.
    where : bool array that broadcasts to `logits_shard`, optional
        True where a class takes part.
    temperature : positive number or array, default 1
        Divides the logits; an array broadcasts to the rows, with a class axis of length 1.
    sample_weight, ignore_index, label_smoothing, z_loss, reduction, normalizer, dtype
        As for `softmaxkit.cross_entropy`, and the same on all devices.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``; the same on all devices.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`. A label out of range makes its row NaN.

    References
    ----------
    Shoeybi et al. 2019, "Megatron-LM", arXiv:1909.08053, section 3.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, softmaxkit.jax
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh = jax.make_mesh((1,), ("classes",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> def loss(logits_shard, labels):
    ...     return softmaxkit.jax.vocab_parallel_cross_entropy(
    ...         logits_shard, labels, axis_name="classes"
    ...     )
    >>> loss = jax.shard_map(loss, mesh=mesh, in_specs=(P(None, "classes"), P()), out_specs=P())
    >>> logits = jnp.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> print(f"{jax.jit(loss)(logits, jnp.array([0, 2])):.4f}")
    0.2516
    """
    return _vocab_parallel.cross_entropy(
        shards,
        (logits_shard, labels, axis_name),
        axis=axis,
        weight=weight,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        z_loss=z_loss,
        reduction=reduction,
        normalizer=normalizer,
        dtype=dtype,
    )


def vocab_parallel_linear_cross_entropy(
    hidden: jax.Array,
    weight_matrix_shard: jax.Array,
    labels: jax.Array,
    *,
    axis_name: Hashable,
    bias: jax.Array | None = None,
    softcap: float | None = None,
    chunk_size: int | None = None,
    weight: jax.Array | None = None,
    sample_weight: jax.Array | None = None,
    where: jax.Array | None = None,
    ignore_index: int | None = -100,
    label_smoothing: jax.Array | float = 0.0,
    temperature: jax.Array | float = 1.0,
    z_loss: jax.Array | float = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> jax.Array:
    """Cross-entropy of logits z = h Wᵀ + b, with the classes of W in shards of a mesh axis.

    It equals ``vocab_parallel_cross_entropy(hidden @ weight_matrix_shard.T + bias, ...)``, but the
    logits of a shard exist only for some rows at a time. They are computed once in the forward
    pass, and once more in the backward pass, which sums the gradients by `hidden` over the devices.

    Parameters
    ----------
    hidden : (..., D) floating array
        One vector for each row; the same on all devices.
    weight_matrix_shard : (V, D) array
        One vector for each class of this device.
    labels, axis_name
        As for `vocab_parallel_cross_entropy`.
    bias : (V,) array, optional
        The bias of the shard's classes.
    softcap : positive number, optional
        The logits become softcap · tanh(z / softcap).
    chunk_size : int, optional
        Of how many rows the logits exist at a time. By default, as many as have 2^24 logits in the
        shard, but at least 16.
    weight : array, optional
        The weights of all classes, (C,), or of the shard's classes.
    where : (V,) bool array, optional
        True where a class of the shard takes part.
    temperature : positive number or array that broadcasts to the rows (...), default 1
        Divides the logits.
    sample_weight, ignore_index, label_smoothing, z_loss, reduction, normalizer, dtype
        As for `softmaxkit.linear_cross_entropy`, and the same on all devices.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``; the same on all devices.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.linear_cross_entropy`. A label out of range makes its row NaN.

    References
    ----------
    Wijmans et al. 2024, "Cut your losses in large-vocabulary language models", arXiv:2411.09009.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, softmaxkit.jax
    >>> from jax.sharding import PartitionSpec as P
    >>> mesh = jax.make_mesh((1,), ("classes",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> def loss(hidden, weight_matrix_shard, labels):
    ...     return softmaxkit.jax.vocab_parallel_linear_cross_entropy(
    ...         hidden, weight_matrix_shard, labels, axis_name="classes"
    ...     )
    >>> specs = P(), P("classes"), P()
    >>> loss = jax.jit(jax.shard_map(loss, mesh=mesh, in_specs=specs, out_specs=P()))
    >>> hidden = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    >>> weight_matrix = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    >>> print(f"{loss(hidden, weight_matrix, jnp.array([0, 1])):.4f}")
    0.4251
    """
    return _vocab_parallel.linear_cross_entropy(
        shards,
        (hidden, weight_matrix_shard, bias),
        (labels, axis_name),
        softcap=softcap,
        chunk_size=chunk_size,
        weight=weight,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        z_loss=z_loss,
        reduction=reduction,
        normalizer=normalizer,
        dtype=dtype,
    )
