"""A choice of a class that lets a gradient through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from softmaxkit._arguments import begin
from softmaxkit._typing import AnyArray, ArrayOf, ArrayT, NumpyArray, NumpyLike
from softmaxkit.backends import ActivationOptions

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

__all__ = ["straight_through"]


@overload
def straight_through(x: NumpyLike, axis: int = -1) -> NumpyArray: ...
@overload
def straight_through(x: ArrayOf[ArrayT], axis: int = -1) -> ArrayT: ...
def straight_through(x: AnyArray, axis: int = -1) -> Any:
    """One-hot of the maximum, with the derivative of softmax.

    Parameters
    ----------
    x : floating array
        Logits, with the classes along `axis`.
    axis : int, default -1
        The class axis.

    Returns
    -------
    array
        In the shape and dtype of `x`: exactly 1 at the first maximum and 0 elsewhere; NaN in rows
        with NaN or +inf. In PyTorch, JAX and TensorFlow, its derivative is that of
        `softmaxkit.softmax`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`.

    References
    ----------
    Bengio, Léonard and Courville 2013, "Estimating or propagating gradients through stochastic
    neurons for conditional computation", arXiv:1308.3432; with softmax Jang et al. 2017,
    arXiv:1611.01144.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import straight_through
    >>> straight_through(np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]]))
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    call = begin("straight_through", "x", x)
    if call.backend is None:
        return call.recorded(straight_through, locals())
    call.floating()
    axis = call.class_axis(axis)
    p = call.backend.activation("softmax", call.array, ActivationOptions(axis))
    return call.backend.by_rows(_chosen, (call.array, p), (axis,))


def _chosen(ops: ArrayFunctions, pair: tuple[Array, Array], axis: int) -> Array:
    x, p = pair
    chosen = ops.astype(ops.at_class(ops.argmax(x, axis), p, axis), p.dtype)
    return chosen + (p - ops.stop_gradient(p))  # in this order: the bracket is 0
