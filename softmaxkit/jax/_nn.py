"""The functions of `jax.nn`, by softmaxkit."""

from __future__ import annotations

from typing import Any, Literal, overload

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

import softmaxkit
from softmaxkit.jax._axes import Axes


def softmax(x: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None) -> Array:
    """Probabilities along `axis`, as `jax.nn.softmax`; see `softmaxkit.softmax`.

    Parameters
    ----------
    x : array
    axis : int, tuple of int, or None, default -1
        None for all axes.
    where : bool array that broadcasts to `x`, optional
        True where an entry takes part; the others give 0.

    Returns
    -------
    array
        Shape and dtype of `x`; integers become the default float.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.softmax`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import softmax
    >>> print(softmax(jnp.array([1.0, 1.0, 5.0]), where=jnp.array([True, True, False])))
    [0.5 0.5 0. ]
    """
    return softmaxkit.softmax(jnp.asarray(x), axis, where=where)


def log_softmax(x: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None) -> Array:
    """Log-probabilities along `axis`, as `jax.nn.log_softmax`; see `softmaxkit.log_softmax`.

    Parameters
    ----------
    x, axis, where
        As for `softmax`; the others give -inf.

    Returns
    -------
    array
        Shape and dtype of `x`; integers become the default float.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.log_softmax`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import log_softmax
    >>> bool(log_softmax(jnp.array([30.0, 0.0], dtype="float32"))[0] < 0)
    True
    """
    return softmaxkit.log_softmax(jnp.asarray(x), axis, where=where)


# fmt: off
@overload
def logsumexp(
    a: ArrayLike, axis: Axes = None, b: ArrayLike | None = None, keepdims: bool = False,
    return_sign: Literal[False] = False, where: ArrayLike | None = None,
) -> Array: ...
@overload
def logsumexp(
    a: ArrayLike, axis: Axes = None, b: ArrayLike | None = None, keepdims: bool = False, *,
    return_sign: Literal[True], where: ArrayLike | None = None,
) -> tuple[Array, Array]: ...
# fmt: on
def logsumexp(
    a: ArrayLike,
    axis: Axes = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: ArrayLike | None = None,
) -> Any:
    """Logarithm of a sum of exponentials, as `jax.nn.logsumexp`; see `softmaxkit.logsumexp`.

    Parameters
    ----------
    a : array
    axis : int, sequence of int, or None, default None
        None for all axes.
    b : array that broadcasts with `a`, optional
        Factors of the exponentials, which may be negative.
    keepdims : bool, default False
        Keep the reduced axes, with length 1.
    return_sign : bool, default False
        Return the logarithm of the absolute value, and the sign of the sum.
    where : bool array that broadcasts to `a`, optional
        True where an entry takes part.

    Returns
    -------
    array, or two
        Shape of `a` without `axis`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.logsumexp`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import logsumexp
    >>> print(f"{logsumexp(jnp.array([1000.0, 1000.0])):.3f}")
    1000.693
    """
    a = jnp.asarray(a)
    if b is not None or return_sign or jnp.iscomplexobj(a):
        # softmaxkit's sums are positive: it has no factors, no sign and no complex numbers.
        return jax.nn.logsumexp(a, axis, b, keepdims, return_sign, where)
    axis = tuple(axis) if isinstance(axis, list) else axis
    return softmaxkit.logsumexp(a, axis, where=where, keepdims=keepdims)
