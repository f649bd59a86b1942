"""Modules with the names of `torch.nn`, over `softmaxkit.torch.functional`.

The modules that torch has, too, are subclasses of torch's, with the same arguments, buffers,
state_dict and repr. Every other name is that of `torch.nn`.
"""

# Annotations are not strings here: a GraphModule of torch.fx that has such cannot be pickled.
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from softmaxkit._forwarding import rest_of
from softmaxkit.torch import functional

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "LinearCrossEntropyLoss",
    "LogSoftmax",
    "SigmoidFocalLoss",
    "Softmax",
]

if TYPE_CHECKING:
    from torch.nn import *  # noqa: F403
else:
    __getattr__, __dir__ = rest_of("torch.nn", __all__)


class Softmax(torch.nn.Softmax):
    """`torch.nn.Softmax`, computed by softmaxkit.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> torch.nn.Sequential(torch.nn.Flatten(), sk.Softmax(dim=1))(torch.zeros(1, 2, 2))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return probabilities."""
        return functional.softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(torch.nn.LogSoftmax):
    """`torch.nn.LogSoftmax`, computed by softmaxkit.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> sk.LogSoftmax(dim=0)(torch.tensor([30.0, 0.0]))
    tensor([-9.3576e-14, -3.0000e+01])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return log-probabilities."""
        return functional.log_softmax(input, self.dim, _stacklevel=5)


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    """`torch.nn.CrossEntropyLoss`, computed by softmaxkit.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> loss = sk.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
    >>> loss(torch.zeros(3, 2), torch.tensor([0, 1, -100]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `input`."""
        return functional.cross_entropy(
            input,
            target,
            self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


# torch has this module from 2.13 on; with an older torch, ours cannot be constructed.
_LinearCrossEntropyLoss: Any = getattr(torch.nn, "LinearCrossEntropyLoss", torch.nn.Module)


class LinearCrossEntropyLoss(_LinearCrossEntropyLoss):
    """`torch.nn.LinearCrossEntropyLoss`, computed by softmaxkit as `linear_cross_entropy`.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> loss = sk.LinearCrossEntropyLoss(4, 1000, bias=True)
    >>> [(name, tuple(one.shape)) for name, one in loss.state_dict().items()]
    [('linear.weight', (1000, 4)), ('linear.bias', (1000,))]
    >>> loss(torch.zeros(2, 4), torch.tensor([0, 999])).backward()
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the vectors `input`."""
        lead, bias = (self.num_classes, *self.out_features), self.linear.bias
        return functional.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*lead, self.linear.in_features),
            target,
            linear_bias=None if bias is None else bias.reshape(lead),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    """`torch.nn.BCEWithLogitsLoss`, computed by softmaxkit.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> sk.BCEWithLogitsLoss()(torch.zeros(2), torch.tensor([0.0, 1.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `input`."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class FocalLoss(torch.nn.Module):
    """`focal_loss` as a module; an `alpha` that is a tensor, with one for each class, is a buffer.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> sk.FocalLoss(gamma=0.5)
    FocalLoss(gamma=0.5, ignore_index=-100, reduction='mean', label_smoothing=0.0)
    >>> sk.FocalLoss()(torch.zeros(3, 2), torch.tensor([0, 1, -100]))
    tensor(0.1733)
    """

    def __init__(
        self,
        alpha: Tensor | float | None = None,
        gamma: float = 2.0,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if isinstance(alpha, Tensor):
            self.register_buffer("alpha", alpha)
        else:
            self.alpha = alpha
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits `input`."""
        return functional.focal_loss(
            input,
            target,
            self.alpha,
            self.gamma,
            self.ignore_index,
            self.reduction,
            self.label_smoothing,
        )

    def extra_repr(self) -> str:
        """Return the arguments; an `alpha` that is a tensor is in the state_dict instead."""
        names = ["gamma", "ignore_index", "reduction", "label_smoothing"]
        if self.alpha is not None and "alpha" not in self._buffers:
            names.insert(0, "alpha")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class SigmoidFocalLoss(torch.nn.Module):
    """`sigmoid_focal_loss` as a module.

    Examples
    --------
    >>> import torch, softmaxkit.torch as sk
    >>> sk.SigmoidFocalLoss()
    SigmoidFocalLoss(alpha=0.25, gamma=2, reduction='none')
    >>> sk.SigmoidFocalLoss(alpha=-1)(torch.tensor([1.0]), torch.tensor([0.7]))
    tensor([0.1019])
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2, reduction: str = "none") -> None:
        super().__init__()
        self.alpha = alpha
        self.gamma = gamma
        self.reduction = reduction

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits `inputs`."""
        return functional.sigmoid_focal_loss(
            inputs, targets, self.alpha, self.gamma, self.reduction
        )

    def extra_repr(self) -> str:
        """Return the arguments."""
        return f"alpha={self.alpha}, gamma={self.gamma}, reduction={self.reduction!r}"
