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
    label_smoothing: Tensor | float = 0.0,
    temperature: Tensor | float = 1.0,
    z_loss: Tensor | float = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> Tensor:
    """Cross-entropy of logits whose classes lie in shards, one for each process of a group.

    Every process passes its classes of the same rows and gets the loss of the whole rows, as
    `softmaxkit.cross_entropy` computes it. The logits are never gathered: the forward pass makes
    three all-reduces, which send about five numbers for each row, however many classes there are.
    The backward pass makes none for the logits, and one for each argument that requires a gradient
    and is the same in all processes (`weight` of all classes, `label_smoothing`, `temperature`).

    Parameters
    ----------
    logits_shard : floating Tensor
        The logits of this process's classes, along `axis`. The shards follow each other in the
        order of the ranks; they may differ in length, and be empty. For a DTensor, call
        `softmaxkit.cross_entropy`.
    targets : Tensor, or list
        Class indices among all C classes, in the shape of the rows, the same in all processes; or
        this process's shard of probabilities, in the shape of `logits_shard`.
    group : torch.distributed.ProcessGroup, optional
        The processes that hold the shards; by default all.
    axis : int, default -1
        The class axis.
    weight : Tensor, optional
        The weights of all classes, (C,), or of the shard's classes.
    where : bool Tensor that broadcasts to `logits_shard`, optional
        True where a class takes part.
    temperature : positive number or Tensor, default 1
        Divides the logits; a Tensor broadcasts to the rows, with a class axis of length 1.
    sample_weight, ignore_index, label_smoothing, z_loss, reduction, normalizer, dtype
        As for `softmaxkit.cross_entropy`, and the same in all processes.

    Returns
    -------
    Tensor
        0-d, or the shape of the rows for ``reduction="none"``; the same in all processes.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.cross_entropy`, in each process.
    RuntimeError
        Another process has failed, or did not make the call within the timeout of the group.

    References
    ----------
    Shoeybi et al. 2019, "Megatron-LM", arXiv:1909.08053, section 3.

    Examples
    --------
    One process holds all three classes here:

    >>> import torch, torch.distributed as dist, softmaxkit.torch
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> logits_shard = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> softmaxkit.torch.vocab_parallel_cross_entropy(logits_shard, torch.tensor([0, 2]))
    tensor(0.2516)
    >>> dist.destroy_process_group()
    """
    return _vocab_parallel.cross_entropy(
        shards,
        (logits_shard, targets, group),
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
    label_smoothing: Tensor | float = 0.0,
    temperature: Tensor | float = 1.0,
    z_loss: Tensor | float = 0.0,
    reduction: str = "mean",
    normalizer: Any = None,
    dtype: Any = None,
) -> Tensor:
    """Cross-entropy of logits z = h Wᵀ + b, with the classes of W in shards of a group.

    It equals ``vocab_parallel_cross_entropy(hidden @ weight_matrix_shard.T + bias, ...)``, but the
    logits of a shard exist only for some classes at a time. They are computed once in the forward
    pass, and once more in the backward pass, which sums the gradients by `hidden` over the
    processes. Second derivatives, torch.compile, and gradients by class weights, smoothing,
    temperature or probabilities need all logits of the shard in memory.

    Parameters
    ----------
    hidden : (..., D) floating Tensor
        One vector for each row; the same in all processes.
    weight_matrix_shard : (V, D) Tensor
        One vector for each class of this process. The shards follow each other in the order of the
        ranks; they may differ in length, and be empty.
    targets : Tensor, or list
        As for `vocab_parallel_cross_entropy`.
    group : torch.distributed.ProcessGroup, optional
        The processes that hold the shards; by default all.
    bias : (V,) Tensor, optional
        The bias of the shard's classes.
    softcap : positive number, optional
        The logits become softcap · tanh(z / softcap).
    chunk_size : int, optional
        Of how many classes of the shard the logits exist at a time. By default, as many as have
        2^24 logits, but at least 64.
    weight : Tensor, optional
        The weights of all classes, (C,), or of the shard's classes.
    where : (V,) bool Tensor, optional
        True where a class of the shard takes part.
    temperature : positive number or Tensor that broadcasts to the rows (...), default 1
        Divides the logits.
    sample_weight, ignore_index, label_smoothing, z_loss, reduction, normalizer, dtype
        As for `softmaxkit.linear_cross_entropy`, and the same in all processes.

    Returns
    -------
    Tensor
        0-d, or the shape of the rows for ``reduction="none"``; the same in all processes.

    Raises
    ------
    TypeError, ValueError, IndexError, RuntimeError
        As `vocab_parallel_cross_entropy`.

    References
    ----------
    Wijmans et al. 2024, "Cut your losses in large-vocabulary language models", arXiv:2411.09009.

    Examples
    --------
    >>> import torch, torch.distributed as dist, softmaxkit.torch as F
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> hidden = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    >>> weight_matrix_shard = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    >>> targets = torch.tensor([0, 1])
    >>> F.vocab_parallel_linear_cross_entropy(hidden, weight_matrix_shard, targets)
    tensor(0.4251)
    >>> dist.destroy_process_group()
    """
    return _vocab_parallel.linear_cross_entropy(
        shards,
        (hidden, weight_matrix_shard, bias),
        (targets, group),
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
