"""The loss of a linear layer of `torch.nn.functional`, by softmaxkit."""

from __future__ import annotations

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
from softmaxkit.torch._losses import REDUCTIONS, of_classes, takes_classes


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None,
    sample_weight: Tensor | None = None,
    where: Tensor | None = None,
    temperature: Tensor | float = 1.0,
    z_loss: float = 0.0,
) -> Tensor:
    """Cross-entropy of a linear layer, as `torch.nn.functional.linear_cross_entropy`.

    `softmaxkit.linear_cross_entropy` computes it in chunks of rows: always, and with every
    derivative, label smoothing and probabilities, which torch's chunks do not have. A loss over
    positions, whose `linear_weight` has more than two axes, computes all logits at once, as torch.

    Parameters
    ----------
    input : Tensor
        (D,) or (N, D).
    linear_weight : Tensor
        (C, D); or (C, d1, ..., D) for a loss over positions, beside `input` (N, D).
    target : Tensor
        Class indices, int64: (), (N,) or (N, d1, ...). Or probabilities: (C,), (N, C) or
        (N, C, d1, ...).
    linear_bias : Tensor, optional
        The shape of `linear_weight` without the last axis.
    weight : (C,) Tensor, optional
        Weight of each class.
    reduction : {"mean", "sum", "none"}
        As for `cross_entropy`.
    ignore_index : int, optional
        Rows with this label do not count; -100 by default. Not allowed beside probabilities.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) y + ε/C.
    options : torch.nn.LinearCrossEntropyOptions, optional
        Its `batch_chunk_size` is the default of `chunk_size`. Its other options are not needed: a
        graph may always be retained, and sums are in float32 or wider.
    softcap, chunk_size, sample_weight, where, temperature, z_loss
        Not in torch; as for `softmaxkit.linear_cross_entropy`. With `sample_weight`, the mean is
        softmaxkit's, too. All but `chunk_size` require `linear_weight` to be (C, D).

    Returns
    -------
    Tensor
        0-d, or in the shape of the class indices for ``reduction="none"``.

    Raises
    ------
    IndexError
        A label is out of range; the message is softmaxkit's.
    Exception
        As torch, with its text: RuntimeError for shapes and dtypes that do not fit. As
        `softmaxkit.linear_cross_entropy`, if an option is given that torch does not have.

    References
    ----------
    Wijmans et al. 2024, "Cut your losses in large-vocabulary language models", arXiv:2411.09009.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> hidden = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    >>> linear_weight = torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    >>> F.linear_cross_entropy(hidden, linear_weight, torch.tensor([0, 1]))
    tensor(0.4251)
    """
    if chunk_size is None and options is not None:
        chunk_size = options.batch_chunk_size
    product = partial(
        softmaxkit.linear_cross_entropy,
        input,
        linear_weight,
        bias=linear_bias,
        softcap=softcap,
        chunk_size=chunk_size,
        sample_weight=sample_weight,
        where=where,
        label_smoothing=label_smoothing,
        temperature=temperature,
        z_loss=z_loss,
    )
    is_torchs = (
        all(one is None for one in (softcap, sample_weight, where))
        and all(isinstance(one, int | float) for one in (temperature, z_loss))
        and (temperature, z_loss) == (1, 0)
    )
    ignored = -100 if ignore_index is None else ignore_index
    logits = _stand_in(input, linear_weight, linear_bias)
    takes = (
        reduction in REDUCTIONS
        and takes_classes(logits, target, weight, ignored, label_smoothing)
        and (ignore_index is None or not target.is_floating_point())
    )
    if takes and linear_weight.ndim == 2 and sample_weight is None:
        loss, count, dtype = of_classes(product, logits, target, weight, ignored)
        value = loss(reduction=reduction, dtype=dtype)
        if reduction != "mean":
            return value
        # Over no rows, torch's mean is NaN and its gradient 0; that of a sum divided by 0 is NaN.
        # Adding to a tensor makes a tensor of a length that is not known while torch compiles.
        return torch.where(value.new_zeros(()) + count() == 0, float("nan"), value)
    if not is_torchs:
        return product(target, weight=weight, ignore_index=ignored, reduction=reduction)
    if takes:
        z = _over_positions(input, linear_weight, linear_bias).view(logits.shape)
        positions = partial(softmaxkit.cross_entropy, z, axis=1, label_smoothing=label_smoothing)
        loss, count, dtype = of_classes(positions, logits, target, weight, ignored)
        return reduced(loss, count, reduction, dtype)
    return torch.nn.functional.linear_cross_entropy(
        input,
        linear_weight,
        target,
        linear_bias=linear_bias,
        weight=weight,
        reduction=reduction,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        options=options,
    )


def _stand_in(input: Any, linear_weight: Any, linear_bias: Any) -> Any:
    """Return a tensor with the shape and dtype of the logits, which stores only one number.

    Return None if torch has no such logits, or softmaxkit does not accept the operands.
    """
    operands = (
        [input, linear_weight] if linear_bias is None else [input, linear_weight, linear_bias]
    )
    if not (
        all(isinstance(one, Tensor) and one.dtype in FLOATS for one in operands)
        and dense_together(*operands)
        and len({dtype_of(one) for one in operands}) == 1
        and input.ndim in (1, 2)
        and linear_weight.ndim >= 2
        and (input.ndim == 2 or linear_weight.ndim == 2)
        and input.shape[-1] != 0
        and same_shape(input.shape[-1:], linear_weight.shape[-1:])
        and (linear_bias is None or same_shape(linear_bias.shape, linear_weight.shape[:-1]))
    ):
        return None
    return input.new_empty(()).expand(*input.shape[:-1], *linear_weight.shape[:-1])


def _over_positions(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> Tensor:
    """Return the logits of all positions, (N, C d1 ...), not rounded to half precision."""
    w, b = linear_weight.flatten(0, -2), None if linear_bias is None else linear_bias.flatten()
    operands = (None if one is None else one.to(wide(one.dtype)) for one in (input, w, b))
    return torch.nn.functional.linear(*operands)
