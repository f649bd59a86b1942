"""Gradients on every library, NumPy included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Concatenate, overload

from softmaxkit import activations, linear, losses
from softmaxkit._arguments import Wanted, shown
from softmaxkit._typing import (
    ArrayOf,
    LinearLoss,
    LinearLossAndGradients,
    Loss,
    LossAndGradient,
    P,
    ValueAndProduct,
)

__all__ = ["value_and_grad", "vjp"]


@overload
def value_and_grad(loss: partial[Any]) -> Callable[..., tuple[Any, Any]]: ...
@overload
def value_and_grad(loss: Loss) -> LossAndGradient: ...
@overload
def value_and_grad(loss: LinearLoss) -> LinearLossAndGradients: ...
def value_and_grad(loss: Loss | LinearLoss | partial[Any]) -> Callable[..., tuple[Any, Any]]:
    """Turn a loss of this package into one that also returns its gradient.

    Parameters
    ----------
    loss : function
        A loss such as `cross_entropy`. Options may be bound to it by `functools.partial`.

    Returns
    -------
    function
        Takes what `loss` takes, and returns (value, gradient with respect to the logits). The
        gradient has the shape and dtype of the logits. It is written out for NumPy and array-API
        libraries; the others use their own autodiff. For ``reduction="none"`` it is the gradient
        of the sum over the rows, each of which depends on its own logits alone. For
        `linear_cross_entropy` it is a named tuple of the gradients of `hidden`, `weight_matrix`
        and `bias`.

    Raises
    ------
    TypeError
        `loss` is not a loss of this package.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    >>> value, gradient = loss_and_gradient(np.array([[0.0, 0.0]]), [1])
    >>> float(value), gradient
    (0.6931471805599453, array([[ 0.5, -0.5]]))
    """
    base = _known("value_and_grad", "loss", loss, losses, linear)
    return _LossAndGradient(loss, "value_and_grad", base)


def vjp(activation: Callable[Concatenate[ArrayOf[Any], P], Any]) -> ValueAndProduct[P]:
    """Turn an activation of this package into one that also carries a gradient back through it.

    Parameters
    ----------
    activation : function
        `softmax`, `log_softmax` or `logsumexp`. Options may be bound to it by `functools.partial`.

    Returns
    -------
    function
        Takes ``(x, cotangent, axis=-1, **options)``, and returns (value, vector-Jacobian product).
        The cotangent v is the derivative of some scalar with respect to the activation's result,
        in the shape of that; the product is the derivative of the same scalar with respect to x,
        in the shape and dtype of `x`: p (v - Σ p v) / T for softmax, (v - p Σ v) / T for
        log_softmax, p v for logsumexp. It is written out for NumPy and array-API libraries; the
        others use their own autodiff.

    Raises
    ------
    TypeError, ValueError
        `activation` is not one of the three; `cotangent` is not floating, or has another shape.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> value, gradient = softmaxkit.vjp(softmaxkit.softmax)(np.zeros(2), np.array([1.0, 0.0]))
    >>> value, gradient
    (array([0.5, 0.5]), array([ 0.25, -0.25]))
    """
    base = _known("vjp", "activation", activation, activations)
    return _ValueAndProduct(activation, "vjp", base)


class _Derived:
    """A function of this package with its derivative: an object, so that it can be pickled."""

    def __init__(self, function: Callable[..., Any], by: str, base: Any) -> None:
        self._function = function
        self.__name__ = self.__qualname__ = f"{by}({base.__name__})"
        self.__doc__ = base.__doc__
        self.__wrapped__ = base  # whose signature it has

    def __repr__(self) -> str:
        return f"softmaxkit.{self.__name__}"


class _LossAndGradient(_Derived):
    def __call__(self, logits: Any, *arrays: Any, **options: Any) -> tuple[Any, Any]:
        value: tuple[Any, Any] = self._function(Wanted(logits), *arrays, **options)
        return value


class _ValueAndProduct(_Derived):
    def __call__(self, x: Any, cotangent: Any, *axis: Any, **options: Any) -> tuple[Any, Any]:
        value: tuple[Any, Any] = self._function(Wanted(x, cotangent), *axis, **options)
        return value


def _known(call: str, name: str, function: Any, *modules: Any) -> Any:
    base = function.func if isinstance(function, partial) else function
    known = {one: getattr(module, one) for module in modules for one in module.__all__}
    if not any(base is one for one in known.values()):
        names = ", ".join(known)
        raise TypeError(
            f"{call}: {name} is {shown(function)}; expected one of {names} of softmaxkit; "
            f"for a function of your own use the autodiff of your library."
        )
    return base
