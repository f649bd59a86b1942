"""Gradients on every library, NumPy included."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial, wraps
from typing import Any

from softmaxkit import _arguments as check
from softmaxkit import activations, losses
from softmaxkit._dispatch import Asking

__all__ = ["value_and_grad", "vjp"]


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
    base = _known("value_and_grad", "loss", loss, losses)

    @wraps(base)
    def loss_and_gradient(logits: Any, targets: Any, **options: Any) -> tuple[Any, Any]:
        return loss(_Gradient(logits, base.__name__), targets, **options)

    return loss_and_gradient


def vjp(activation: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """Turn an activation of this package into one that also carries a gradient back through it.

    Parameters
    ----------
    activation : function
        `softmax`, `log_softmax` or `logsumexp`, also with options bound by `functools.partial`.

    Returns
    -------
    function
        ``(x, cotangent, axis=-1, **options)``, where `cotangent` is the derivative of a scalar by
        the activation's result and has its shape, returns (value, derivative of that scalar by x),
        the vector-Jacobian product, in the shape and dtype of `x`: p (v - Σ p v) / T for softmax,
        (v - p Σ v) / T for log_softmax, p v for logsumexp. Written out for NumPy and array-API
        libraries, by the library's own autodiff for the others.

    Raises
    ------
    TypeError, ValueError
        `activation` is not one of the three; `cotangent` is not of floats or has another shape.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> value, gradient = softmaxkit.vjp(softmaxkit.softmax)(np.zeros(2), np.array([1.0, 0.0]))
    >>> value, gradient
    (array([0.5, 0.5]), array([ 0.25, -0.25]))
    """
    base = _known("vjp", "activation", activation, activations)

    @wraps(base)
    def value_and_product(x: Any, cotangent: Any, *axis: Any, **options: Any) -> tuple[Any, Any]:
        return activation(_Product(x, base.__name__, cotangent), *axis, **options)

    return value_and_product


def _known(call: str, name: str, function: Any, module: Any) -> Any:
    base = function.func if isinstance(function, partial) else function
    if not any(base is getattr(module, known) for known in module.__all__):
        names = ", ".join(module.__all__)
        raise TypeError(
            f"{call}: {name} is {check.shown(function)}; expected one of {names} of softmaxkit; "
            f"for a function of your own use the autodiff of your library."
        )
    return base


class _Instead:
    """Stands in the place of a backend, with another function under one name."""

    def __init__(self, backend: Any, name: str, call: Callable[..., Any]) -> None:
        self._backend = backend
        if not backend.is_compiling():  # Dynamo knows `__getattr__`, which cost a loss 8 µs of 60
            vars(self).update(vars(backend))
        setattr(self, name, call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


class _Gradient(Asking):
    """Logits from which a loss returns (value, gradient)."""

    def __init__(self, array: Any, name: str) -> None:
        super().__init__(array)
        self._name = name

    def backend(self, backend: Any) -> Any:
        """Return a backend whose loss of this name does."""
        # Dynamo warns of a cache. Without one it is made in each call, 3 µs of 40 on NumPy.
        make = _graded.__wrapped__ if backend.is_compiling() else _graded
        return make(backend, self._name)


@cache
def _graded(backend: Any, name: str) -> Any:
    def loss(logits: Any, targets: Any, **options: Any) -> Any:
        return backend.value_and_grad(name, logits, targets, options)

    return _Instead(backend, name, loss)


class _Product(Asking):
    """An array from which an activation returns (value, vector-Jacobian product)."""

    def __init__(self, array: Any, name: str, cotangent: Any) -> None:
        super().__init__(array)
        self._name, self._cotangent = name, cotangent

    def backend(self, backend: Any) -> Any:
        """Return a backend whose activation of this name does."""
        call = partial(self._activation, backend, self._name)
        return _Instead(backend, self._name, call)

    def _activation(self, backend: Any, name: str, x: Any, axis: Any, *options: Any) -> Any:
        shape = backend.shape(x)
        if backend.kind(x) != "float":
            raise TypeError(
                f"vjp({name}): x has dtype {x.dtype}; expected a floating dtype; convert it."
            )
        if name == "logsumexp":
            _, keepdims, _ = options
            over = (axis,) if isinstance(axis, int) else axis
            shape = tuple(
                1 if i in over else n for i, n in enumerate(shape) if keepdims or i not in over
            )
        cotangent = check.cotangent(f"vjp({name})", backend, self._cotangent, x, shape)
        return backend.vjp(name, x, cotangent, (axis, *options))
