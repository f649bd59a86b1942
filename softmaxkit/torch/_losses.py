"""The losses of `torch.nn.functional` and `torchvision.ops`, by softmaxkit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import softmaxkit
from softmaxkit.torch._conventions import (
    FLOATS,
    dense_together,
    dtype_of,
    reduced,
    same_shape,
    wide,
)

# It only gathers one of the given log-probabilities for each row: there is nothing to improve.
nll_loss = torch.nn.functional.nll_loss

REDUCTIONS = ("none", "mean", "sum")


# --- losses over classes --------------------------------------------------------------------------
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits, as `torch.nn.functional.cross_entropy`.

    Parameters
    ----------
    input : Tensor
        Logits (C,), (N, C) or (N, C, d1, ...).
    target : Tensor
        Class indices, int64 or uint8, in the shape of `input` without the class axis; or
        probabilities in the shape of `input`.
    weight : (C,) Tensor, optional
        Weight of each class.
    size_average, reduce : bool, optional
        Deprecated names of reductions.
    ignore_index : int, default -100
        Rows with this label do not count.
    reduction : {"mean", "sum", "none"}
        "mean" divides by Σ weight[target] for class indices, by the number of rows for
        probabilities; NaN where that is 0.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) y + ε/C.

    Returns
    -------
    Tensor
        0-d, or in the shape of the rows for ``reduction="none"``.

    Raises
    ------
    IndexError
        A label is out of range; the message is softmaxkit's.
    Exception
        As torch, with its text: RuntimeError for shapes and dtypes that do not fit.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> F.cross_entropy(logits, torch.tensor([0, 2]), label_smoothing=0.1)
    tensor(0.4100)
    """
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)
    if reduction in REDUCTIONS and takes_classes(
        input, target, weight, ignore_index, label_smoothing
    ):
        rows = partial(
            softmaxkit.cross_entropy,
            input,
            axis=_class_axis(input),
            label_smoothing=label_smoothing,
        )
        loss, count, dtype = of_classes(rows, input, target, weight, ignore_index)
        return reduced(loss, count, reduction, dtype)
    return torch.nn.functional.cross_entropy(
        input,
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def focal_loss(
    input: Tensor,
    target: Tensor,
    alpha: Tensor | float | None = None,
    gamma: float = 2.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Focal loss over classes, which torch lacks; arguments and class axis as in `cross_entropy`.

    Parameters
    ----------
    input, target, ignore_index, label_smoothing
        As for `cross_entropy`; `target` of any integer dtype.
    alpha : float or (C,) Tensor, optional
        One factor for all classes, or one for each.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is cross-entropy.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of rows that are not ignored; NaN where that is 0.

    Returns
    -------
    Tensor
        0-d, or in the shape of the rows for ``reduction="none"``.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.focal_loss`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> F.focal_loss(logits, torch.tensor([0, 2]), reduction="none")
    tensor([0.0457, 0.0008])
    """
    loss = partial(
        softmaxkit.focal_loss,
        input,
        target,
        gamma=gamma,
        alpha=alpha,
        axis=_class_axis(input),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
    )
    count = partial(_mass, input, target, None, ignore_index)
    return reduced(loss, count, reduction, dtype_of(input))


def of_classes(
    loss: Callable[..., Tensor],
    logits: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
) -> tuple[Callable[..., Tensor], Callable[[], Any], torch.dtype]:
    """Return a loss of these targets, the number by which torch's mean divides, and torch's dtype.

    Only the shape and dtype of `logits` matter.
    """
    dtype = dtype_of(logits)
    if target.is_floating_point():
        for other in (target, weight):
            dtype = dtype if other is None else torch.promote_types(dtype, dtype_of(other))
    loss = partial(
        loss,
        target,
        weight=weight,
        # Beside probabilities, torch accepts any number below 0, and does not use it.
        ignore_index=None if target.is_floating_point() else ignore_index,
    )
    return loss, partial(_mass, logits, target, weight, ignore_index), dtype


def takes_classes(
    input: Any, target: Any, weight: Any, ignore_index: Any, label_smoothing: Any
) -> bool:
    """Return whether both libraries accept a call; others go to torch, which refuses most."""
    if not (
        isinstance(input, Tensor)
        and isinstance(target, Tensor)
        and isinstance(weight, Tensor | None)
        and isinstance(ignore_index, int)
        and isinstance(label_smoothing, int | float)
        and not (isinstance(ignore_index, bool) or isinstance(label_smoothing, bool))
        and 0 <= label_smoothing <= 1
        and input.dtype in FLOATS
        and dense_together(input, target, weight)
        and input.ndim > 0
    ):
        return False
    axis, shape = _class_axis(input), input.shape
    if shape[axis] == 0 or not (weight is None or weight.shape == (shape[axis],)):
        return False
    if target.dtype in FLOATS:
        return ignore_index < 0 and same_shape(target.shape, shape)
    fits = weight is None or (dtype_of(weight) is dtype_of(input) and not weight.requires_grad)
    # torch accepts uint8, too, in few of its branches.
    rows = shape[:axis] + shape[axis + 1 :]
    return target.dtype is torch.int64 and fits and same_shape(target.shape, rows)


def _class_axis(input: Tensor) -> int:
    return 1 if input.ndim > 1 else 0


def _mass(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Any:
    """Return the number by which torch's mean divides."""
    if target.is_floating_point():
        return target.numel() // input.shape[_class_axis(input)]
    labels = target.long().flatten()
    kept = labels != ignore_index
    if weight is None:
        return kept.sum()
    # Labels out of range that could not be read, as on a GPU, have already made the loss NaN.
    each = weight.index_select(0, labels.where(kept, 0).clamp(0, len(weight) - 1))
    return each.where(kept, 0).sum(dtype=wide(weight.dtype))


# --- losses over independent labels ---------------------------------------------------------------
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy of logits, as `torch.nn.functional.binary_cross_entropy_with_logits`.

    Parameters
    ----------
    input : Tensor
        Logits of any shape.
    target : Tensor
        Probabilities in the shape of `input`.
    weight : Tensor that broadcasts to `input`, optional
        Weight of each element.
    size_average, reduce : bool, optional
        Deprecated names of reductions.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements; NaN where there are none.
    pos_weight : Tensor that broadcasts to `input`, optional
        Weight of the positive term.

    Returns
    -------
    Tensor
        0-d, or in the shape of `input` for ``reduction="none"``; in the dtype of `target`.

    Raises
    ------
    Exception
        As torch, with its text.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> F.binary_cross_entropy_with_logits(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]))
    tensor(0.4100)
    """
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)
    if (
        isinstance(input, Tensor)
        and isinstance(target, Tensor)
        and reduction in REDUCTIONS
        and input.dtype in FLOATS
        and target.dtype in FLOATS
        and same_shape(target.shape, input.shape)
        and all(_is_factor(factor, input) for factor in (weight, pos_weight))
        and (pos_weight is None or pos_weight.dtype is not torch.bool)
        and dense_together(input, target, weight, pos_weight)
    ):
        loss = partial(
            softmaxkit.binary_cross_entropy,
            input,
            target,
            pos_weight=pos_weight,
            sample_weight=weight,
        )
        return reduced(loss, input.numel, reduction, dtype_of(target))
    return torch.nn.functional.binary_cross_entropy_with_logits(
        input, target, weight, reduction=reduction, pos_weight=pos_weight
    )


def _is_factor(factor: Any, input: Tensor) -> bool:
    if factor is None:
        return True
    if not isinstance(factor, Tensor) or factor.requires_grad or factor.is_complex():
        return False
    tail = input.shape[input.ndim - factor.ndim :] if factor.ndim <= input.ndim else ()
    return len(tail) == factor.ndim and all(
        have in (1, want) for have, want in zip(factor.shape, tail, strict=True)
    )


def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float = 0.25,
    gamma: float = 2,
    reduction: str = "none",
) -> Tensor:
    """Focal loss of independent labels, as `torchvision.ops.sigmoid_focal_loss`.

    Parameters
    ----------
    inputs : Tensor
        Logits of any shape.
    targets : Tensor
        Probabilities in the shape of `inputs`.
    alpha : float in [0, 1], or -1, default 0.25
        Weight of the positive label against the negative; -1 for no weighting.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is binary cross-entropy.
    reduction : {"none", "mean", "sum"}
        "mean" divides by the number of elements; NaN where there are none.

    Returns
    -------
    Tensor
        0-d, or in the shape of `inputs` for ``reduction="none"``.

    Raises
    ------
    ValueError
        As torchvision, for `alpha`, `reduction` and shapes; as softmaxkit for `gamma`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> F.sigmoid_focal_loss(torch.tensor([1.0]), torch.tensor([0.7]), alpha=-1)
    tensor([0.1019])
    """
    if not 0 <= alpha <= 1 and alpha != -1:
        raise ValueError(
            f"Invalid alpha value: {alpha}. alpha must be in the range [0,1] or -1 for ignore."
        )
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(
            f"Invalid Value for arg 'reduction': '{reduction} \n "
            f"Supported reduction modes: 'none', 'mean', 'sum'"
        )
    if not (
        same_shape(inputs.shape, targets.shape)
        and targets.dtype in FLOATS
        and inputs.dtype in FLOATS
    ):
        # torch refuses this, and torchvision leaves the refusal to it.
        return torch.nn.functional.binary_cross_entropy_with_logits(inputs, targets)
    loss = partial(
        softmaxkit.sigmoid_focal_loss,
        inputs,
        targets,
        gamma=gamma,
        alpha=None if alpha == -1 else alpha,
    )
    dtype = torch.promote_types(dtype_of(inputs), dtype_of(targets))
    return reduced(loss, inputs.numel, reduction, dtype)
