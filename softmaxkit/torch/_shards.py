"""Losses over classes that lie in shards, one for each process of a torch.distributed group."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from softmaxkit import _vocab_parallel
from softmaxkit.backends.torch import shards


def vocab_parallel_cross_entropy(
    logits_shard: Tensor,
    targets: Tensor,
    *,
    group: Any = None,
    axis: int = -1,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    where: Tensor | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Any = 0.0,
    temperature: Any = 1.0,
    z_loss: Any = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> Tensor:
    return _vocab_parallel.cross_entropy(
        shards,
        "PyTorch",
        logits_shard,
        targets,
        group,
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
    hidden: Tensor,
    weight_matrix_shard: Tensor,
    targets: Tensor,
    *,
    group: Any = None,
    bias: Tensor | None = None,
    softcap: float | None = None,
    chunk_size: int | None = None,
    weight: Tensor | None = None,
    sample_weight: Tensor | None = None,
    where: Tensor | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Any = 0.0,
    temperature: Any = 1.0,
    z_loss: Any = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> Tensor:
    return _vocab_parallel.linear_cross_entropy(
        shards,
        "PyTorch",
        (hidden, weight_matrix_shard, bias),
        targets,
        group,
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
