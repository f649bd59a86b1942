"""Losses over classes that lie in shards, one for each device along an axis of a mesh."""

from __future__ import annotations

from typing import Any

from softmaxkit import _vocab_parallel
from softmaxkit.backends.jax import shards


def vocab_parallel_cross_entropy(
    logits_shard: Any,
    labels: Any,
    *,
    axis_name: Any,
    axis: int = -1,
    weight: Any = None,
    sample_weight: Any = None,
    where: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: Any = 0.0,
    temperature: Any = 1.0,
    z_loss: Any = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> Any:
    return _vocab_parallel.cross_entropy(
        shards,
        "JAX",
        logits_shard,
        labels,
        axis_name,
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
    hidden: Any,
    weight_matrix_shard: Any,
    labels: Any,
    *,
    axis_name: Any,
    bias: Any = None,
    softcap: float | None = None,
    chunk_size: int | None = None,
    weight: Any = None,
    sample_weight: Any = None,
    where: Any = None,
    ignore_index: int | None = -100,
    label_smoothing: Any = 0.0,
    temperature: Any = 1.0,
    z_loss: Any = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> Any:
    return _vocab_parallel.linear_cross_entropy(
        shards,
        "JAX",
        (hidden, weight_matrix_shard, bias),
        labels,
        axis_name,
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
