"""The loss of causal language models and the label smoother of `transformers`, by softmaxkit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

import softmaxkit
from softmaxkit._arguments import shown
from softmaxkit.torch._conventions import reduced, same_shape, wide


def causal_lm_loss(
    logits: Tensor,
    labels: Tensor | None,
    vocab_size: int,
    num_items_in_batch: Tensor | float | None = None,
    ignore_index: int = -100,
    shift_labels: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Cross-entropy of every next token, as `ForCausalLMLoss` of transformers.

    ``model.loss_function = causal_lm_loss`` makes a causal language model of transformers compute
    its loss here, also in `Trainer`. Logits in half precision are not copied to float32.

    Parameters
    ----------
    logits : (..., T, V) Tensor
        Logits of a floating dtype; those at position t are for token t + 1.
    labels : (..., T) Tensor or None
        The tokens themselves, of an integer dtype. They are shifted by one position to the left,
        and the last position is ignored. Not read if `shift_labels` is given.
    vocab_size : int
        V, the number of classes.
    num_items_in_batch : positive number or Tensor of one, optional
        The divisor of the sum. With accumulated gradients, pass the number of labels in all batches
        of a step. By default it is the number of labels that are not ignored.
    ignore_index : int, default -100
        Positions with this label do not count.
    shift_labels : (..., T) Tensor, optional
        Labels that are already shifted, as those of a sequence that is spread over devices. They,
        and `labels`, may be on another device than the logits, and may be flat.
    **kwargs
        Not used: a model passes on the arguments of its call.

    Returns
    -------
    Tensor
        0-d, float32. NaN if it is divided by 0.

    Raises
    ------
    TypeError
        An argument is of the wrong kind.
    ValueError
        A shape or a number does not fit.
    IndexError
        A label is out of range. The message is that of `softmaxkit.cross_entropy`, and counts
        positions after the shift.

    References
    ----------
    `ForCausalLMLoss` in ``transformers/loss/loss_utils.py``.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> logits = torch.tensor([[[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]]])
    >>> tokens = torch.tensor([[1, 0, 2]])
    >>> F.causal_lm_loss(logits, tokens, vocab_size=3)  # of 0, then of 2
    tensor(0.2516)
    >>> F.causal_lm_loss(logits, tokens, vocab_size=3, num_items_in_batch=4)
    tensor(0.1258)
    """
    call = "causal_lm_loss"
    _check_logits(call, logits)
    if type(vocab_size) is bool or vocab_size != logits.shape[-1]:
        raise ValueError(
            f"{call}: vocab_size is {shown(vocab_size)}; expected {logits.shape[-1]}, the length "
            f"of the last axis of logits {tuple(logits.shape)}; pass that."
        )
    if shift_labels is None:
        targets = _targets(call, "labels", labels, logits, ignore_index, shift=True)
    else:
        targets = _targets(call, "shift_labels", shift_labels, logits, ignore_index, shift=False)
    loss = partial(softmaxkit.cross_entropy, logits, targets, ignore_index=ignore_index)
    count = _count(call, num_items_in_batch, targets, ignore_index)
    return reduced(loss, count, "mean", torch.float32)


@dataclass
class LabelSmoother:
    """Cross-entropy with smoothed labels, as `LabelSmoother` of transformers.

    ``trainer.label_smoother = LabelSmoother(0.1)`` makes transformers' `Trainer` use it.

    Parameters
    ----------
    epsilon : float in [0, 1], default 0.1
        Targets become (1-ε) y + ε/V.
    ignore_index : int, default -100
        Positions with this label do not count.

    Raises
    ------
    TypeError, ValueError
        `epsilon` is not a number in [0, 1].

    References
    ----------
    `LabelSmoother` in ``transformers/trainer_pt_utils.py``; Szegedy et al. 2016, arXiv:1512.00567.

    Examples
    --------
    >>> import torch, softmaxkit.torch as F
    >>> outputs = {"logits": torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])}
    >>> F.LabelSmoother(0.1)(outputs, torch.tensor([0, 2]))
    tensor(0.4100)
    """

    epsilon: float = 0.1
    ignore_index: int = -100

    def __post_init__(self) -> None:
        given = f"LabelSmoother: epsilon is {shown(self.epsilon)}"
        if not isinstance(self.epsilon, Real) or isinstance(self.epsilon, bool):
            raise TypeError(f"{given}; expected a number; pass one in [0, 1], such as 0.1.")
        if not 0 <= self.epsilon <= 1:
            raise ValueError(f"{given}; expected a number in [0, 1]; pass one, such as 0.1.")

    def __call__(
        self,
        model_output: Any,
        labels: Tensor,
        shift_labels: bool = False,
        num_items_in_batch: Tensor | float | None = None,
    ) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        model_output : dict with "logits", or tuple that begins with them
            Logits (..., V) of a floating dtype.
        labels : (...) or (..., 1) Tensor
            Class indices, of an integer dtype.
        shift_labels : bool, default False
            True if the logits at a position are for the next label, as in a causal language model.
            The last position is then ignored.
        num_items_in_batch
            As for `causal_lm_loss`.

        Returns
        -------
        Tensor
            0-d; float64 if the logits are, else float32. NaN if it is divided by 0.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `causal_lm_loss`. transformers treats a negative label as class 0; here it is an
            IndexError.
        """
        call = "LabelSmoother"
        logits = model_output["logits"] if isinstance(model_output, dict) else model_output[0]
        _check_logits(call, logits)
        if isinstance(labels, Tensor) and labels.ndim == logits.ndim and labels.shape[-1] == 1:
            labels = labels.squeeze(-1)
        targets = _targets(call, "labels", labels, logits, self.ignore_index, shift=shift_labels)
        loss = partial(
            softmaxkit.cross_entropy,
            logits,
            targets,
            ignore_index=self.ignore_index,
            label_smoothing=self.epsilon,
        )
        count = _count(call, num_items_in_batch, targets, self.ignore_index)
        return reduced(loss, count, "mean", wide(logits.dtype))


def _check_logits(call: str, logits: Any) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        received = f"dtype {logits.dtype}" if isinstance(logits, Tensor) else shown(logits)
        raise TypeError(
            f"{call}: logits is {received}; expected a floating torch.Tensor; convert it."
        )
    if logits.ndim < 2:
        raise ValueError(
            f"{call}: logits has shape {tuple(logits.shape)}; expected rows of classes, (..., V); "
            f"add an axis."
        )


def _targets(
    call: str, name: str, labels: Any, logits: Tensor, ignore_index: Any, *, shift: bool
) -> Tensor:
    """Return a label in int64 for each row of the logits, on their device."""
    if not isinstance(ignore_index, Integral) or isinstance(ignore_index, bool):
        raise TypeError(
            f"{call}: ignore_index is {shown(ignore_index)}; expected an int; pass a label."
        )
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype is torch.bool
    ):
        received = f"dtype {labels.dtype}" if isinstance(labels, Tensor) else shown(labels)
        raise TypeError(
            f"{call}: {name} is {received}; expected a torch.Tensor of integers; convert it."
        )
    rows = logits.shape[:-1]
    flat = labels.ndim == 1 and same_shape(labels.shape, torch.Size([rows.numel()]))
    if not flat and not same_shape(labels.shape, rows):
        raise ValueError(
            f"{call}: {name} has shape {tuple(labels.shape)}; expected {tuple(rows)}, that of "
            f"logits {tuple(logits.shape)} without the last axis; reshape it."
        )
    labels = labels.to(logits.device, torch.int64)
    if shift:  # the labels, not the logits: a part of the logits would be copied
        labels = torch.nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return labels.reshape(rows)


def _count(call: str, number: Any, targets: Tensor, ignore_index: int) -> Callable[[], Any]:
    """Return a function that returns the divisor of the sum: `number`, or how many labels count."""
    if number is None:
        return (targets != ignore_index).sum
    given = f"{call}: num_items_in_batch"
    remedy = "pass the number of labels in all batches of the step"
    if isinstance(number, Tensor):
        if number.numel() != 1:
            raise ValueError(
                f"{given} has shape {tuple(number.shape)}; expected one number; {remedy}."
            )
        return partial(number.to, targets.device)
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{given} is {shown(number)}; expected a number or a tensor; {remedy}.")
    if not float(number) > 0:
        raise ValueError(f"{given} is {number}; expected a positive number; {remedy}.")
    return lambda: number
