"""Gradients on every library, NumPy included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

from softmaxkit import losses
from softmaxkit._arguments import shown
from softmaxkit._dispatch import WithGradient

__all__ = ["value_and_grad"]


def value_and_grad(loss: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Turn a loss of this package into one that also returns its gradient.

    Parameters
    ----------
    loss : function
        `cross_entropy`, `focal_loss`, `binary_cross_entropy` or `sigmoid_focal_loss`, also with
        options bound by `functools.partial`.

    Returns
    -------
    function
        Takes what `loss` takes and returns (value, gradient with respect to logits): the gradient
        in the shape and dtype of the logits, written out for NumPy and array-API libraries, by
        the library's own autodiff for the others. For ``reduction="none"`` it is the gradient of
        the sum of the rows, and each row depends on its own logits only.

    Raises
    ------
    TypeError
        `loss` is not one of the four.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    >>> value, gradient = loss_and_gradient(np.array([[0.0, 0.0]]), [1])
    >>> float(value), gradient
    (0.6931471805599453, array([[ 0.5, -0.5]]))
    """
    base = loss.func if isinstance(loss, partial) else loss
    if not any(base is getattr(losses, name) for name in losses.__all__):
        names = ", ".join(losses.__all__)
        raise TypeError(
            f"value_and_grad: loss is {shown(loss)}; expected one of {names} of softmaxkit; "
            f"for a function of your own use the autodiff of your library."
        )

    @wraps(base)
    def loss_and_gradient(logits: Any, targets: Any, **options: Any) -> tuple[Any, Any]:
        return loss(WithGradient(logits), targets, **options)

    return loss_and_gradient
