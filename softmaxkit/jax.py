"""The names and signatures of `jax.nn` and `optax.losses`: change one import line.

    from softmaxkit import jax as losses  # was: from optax import losses

    loss = losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

By name it is ``from softmaxkit.jax import softmax, log_softmax, logsumexp`` in the place of ``from
jax.nn import``. Losses come for each row, as optax gives them; `softmax_focal_loss` is what optax
has no name for. What differs from jax.nn and optax is softmaxkit's semantics:

- A label outside [0, C) is an IndexError, or where labels cannot be read (traced, not on a CPU) a
  row whose loss and gradient are NaN. optax counts -1 from the end, and gives the other rows NaN
  with a finite gradient.
- An integer label on a class that `where` leaves out costs +inf; optax sums over the others alone
  and subtracts the logit that was left out.
- 0 log 0 is 0: at logits of -inf `softmax_cross_entropy` is as safe as the one called safe.
- Classes that `where` leaves out get no share of the smoothing in `smooth_labels`.
- gamma below 0, an alpha of `sigmoid_focal_loss` or a smoothing factor outside [0, 1] and logits
  with no class are ValueErrors. Integer labels, and a smoothing factor, do not broadcast.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from numpy.lib.array_utils import normalize_axis_tuple

import softmaxkit

__all__ = [
    "log_softmax",
    "logsumexp",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_focal_loss",
]

Axes = int | tuple[int, ...] | None


# --- jax.nn ---------------------------------------------------------------------------------------
def softmax(x: Any, axis: Axes = -1, where: Any = None) -> Any:
    """Probabilities along `axis`, as `jax.nn.softmax`; see `softmaxkit.softmax`.

    Parameters
    ----------
    x : array
    axis : int, tuple of int, or None, default -1
        None for all axes.
    where : bool array that broadcasts to `x`, optional
        The others give 0.

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


def log_softmax(x: Any, axis: Axes = -1, where: Any = None) -> Any:
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


def logsumexp(
    a: Any,
    axis: Axes = None,
    b: Any = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: Any = None,
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


# --- optax ----------------------------------------------------------------------------------------
def softmax_cross_entropy(logits: Any, labels: Any, axis: Axes = -1, where: Any = None) -> Any:
    """Cross-entropy of each row for probabilities, as `optax.softmax_cross_entropy`.

    Parameters
    ----------
    logits : floating array
    labels : array that broadcasts with `logits`
        Probabilities; gradients flow into them.
    axis : int, tuple of int, or None, default -1
        The class axes; None for all.
    where : bool array, optional
        True where a class takes part (the shape of `logits`, or one that broadcasts to it), or a
        row does (the shape of the rows). A row with none costs 0.

    Returns
    -------
    array
        The shape of the rows, in the dtype to which `logits` and `labels` promote.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import softmax_cross_entropy
    >>> logits = jnp.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> print(softmax_cross_entropy(logits, jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).round(4))
    [0.4076 0.0957]
    """
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    dtype = jnp.result_type(logits, labels)
    return _rows(softmaxkit.cross_entropy, logits, labels.astype(dtype), axis, where, dtype=dtype)


def safe_softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """Cross-entropy with 0 log 0 = 0, as `optax.safe_softmax_cross_entropy`.

    Parameters
    ----------
    logits, labels
        As for `softmax_cross_entropy`, with the classes along the last axis.

    Returns
    -------
    array
        As `softmax_cross_entropy`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import safe_softmax_cross_entropy
    >>> logits = jnp.array([-jnp.inf, 0.0, 0.0])
    >>> print(f"{safe_softmax_cross_entropy(logits, jnp.array([0.0, 0.5, 0.5])):.4f}")
    0.6931
    """
    return softmax_cross_entropy(logits, labels)


def softmax_cross_entropy_with_integer_labels(
    logits: Any, labels: Any, axis: Axes = -1, where: Any = None
) -> Any:
    """Cross-entropy of each row for class indices, by optax's name.

    Parameters
    ----------
    logits, axis, where
        As for `softmax_cross_entropy`. With several axes a label counts through their classes in
        the order in which `axis` names them.
    labels : integer array
        The shape of the rows.

    Returns
    -------
    array
        The shape of the rows, in the dtype of `logits`.

    Raises
    ------
    TypeError
        `labels` are not integers; else as `softmaxkit.cross_entropy`.
    ValueError, IndexError
        As `softmaxkit.cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import softmax_cross_entropy_with_integer_labels
    >>> logits = jnp.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> print(softmax_cross_entropy_with_integer_labels(logits, jnp.array([0, 2])).round(4))
    [0.4076 0.0957]
    """
    call = "softmax_cross_entropy_with_integer_labels"
    labels = _of_kind(call, labels, jnp.integer, "integers; for probabilities call "
                      "softmax_cross_entropy")  # fmt: skip
    return _rows(softmaxkit.cross_entropy, logits, labels, axis, where)


def softmax_focal_loss(
    logits: Any,
    labels: Any,
    gamma: Any = 2.0,
    alpha: Any = None,
    axis: Axes = -1,
    where: Any = None,
) -> Any:
    """Focal loss of each row, for class indices or probabilities; see `softmaxkit.focal_loss`.

    Parameters
    ----------
    logits, axis, where
        As for `softmax_cross_entropy`.
    labels : array
        Integers: class indices, in the shape of the rows. Floats: probabilities that broadcast
        with `logits`.
    gamma : float, at least 0, default 2
        Focusing; 0 is cross-entropy.
    alpha : number or (C,) array, optional
        Factor for every class, or for each.

    Returns
    -------
    array
        The shape of the rows, in the dtype of `logits`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.focal_loss`.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import softmax_focal_loss
    >>> logits = jnp.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])
    >>> print(f"{softmax_focal_loss(logits, jnp.array([0, 2, 1])).mean():.4f}")
    0.1782
    """
    return _rows(softmaxkit.focal_loss, logits, labels, axis, where, gamma=gamma, alpha=alpha)


def poly_loss_cross_entropy(
    logits: Any, labels: Any, *, epsilon: Any = 2.0, axis: Axes = -1, where: Any = None
) -> Any:
    r"""Cross-entropy :math:`+\;\epsilon\sum_c y_c (1-p_c)`, as `optax.poly_loss_cross_entropy`.

    Parameters
    ----------
    logits, axis, where
        As for `softmax_cross_entropy`.
    labels : floating array that broadcasts with `logits`
        Probabilities.
    epsilon : number, or array that broadcasts to the rows, default 2
        What is added to the first coefficient of the series in powers of 1-p.

    Returns
    -------
    array
        The shape of the rows.

    Raises
    ------
    TypeError
        `labels` are not floats; else as `softmaxkit.cross_entropy`.
    ValueError
        As `softmaxkit.cross_entropy`.

    References
    ----------
    Leng et al. 2022, "PolyLoss", arXiv:2204.12511, section 4.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import poly_loss_cross_entropy
    >>> logits, labels = jnp.array([4.0, 2.0, 1.0]), jnp.array([1.0, 0.0, 0.0])
    >>> print(f"{poly_loss_cross_entropy(logits, labels):.4f}")
    0.4823
    """
    logits = jnp.asarray(logits)
    labels = _of_kind("poly_loss_cross_entropy", labels, jnp.floating, "floats; one_hot them")
    dtype = jnp.result_type(logits, labels, epsilon)
    wide = jnp.promote_types(dtype, jnp.float32)
    where = _mask(where, logits.ndim, axis)
    cross_entropy = _rows(softmaxkit.cross_entropy, logits, labels, axis, where, dtype=wide)
    miss = -jnp.expm1(softmaxkit.log_softmax(logits, axis, where=where, dtype=wide))
    return (cross_entropy + epsilon * (labels * miss).sum(axis, where=where)).astype(dtype)


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """Cross-entropy of each independent label, as `optax.sigmoid_binary_cross_entropy`.

    Parameters
    ----------
    logits : floating array
    labels : array that broadcasts with `logits`
        Probabilities, or 0 and 1.

    Returns
    -------
    array
        The shape of both, in the dtype of `logits`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.binary_cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import sigmoid_binary_cross_entropy
    >>> print(f"{sigmoid_binary_cross_entropy(jnp.array(0.0), 1):.4f}")
    0.6931
    """
    logits, labels = jnp.broadcast_arrays(logits, labels)
    return softmaxkit.binary_cross_entropy(logits, labels, reduction="none")


def sigmoid_focal_loss(logits: Any, labels: Any, *, alpha: Any = None, gamma: Any = 2.0) -> Any:
    """Focal loss of each independent label, as `optax.sigmoid_focal_loss`.

    Parameters
    ----------
    logits : floating array
    labels : array that broadcasts with `logits`
        Probabilities, or 0 and 1.
    alpha : number in [0, 1], or array of them that broadcasts with `logits`, optional
        Weight of the positive label against the negative; None for no weighting.
    gamma : number, at least 0, or array of them that broadcasts with `logits`, default 2
        Focusing; 0 is `sigmoid_binary_cross_entropy`.

    Returns
    -------
    array
        The shape of all, in the dtype of `logits`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.sigmoid_focal_loss`.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import sigmoid_focal_loss
    >>> print(f"{sigmoid_focal_loss(jnp.array(1.0), 0.7):.4f}")
    0.1019
    """

    def loss(logits: Any, labels: Any, alpha: Any, gamma: Any) -> Any:
        return softmaxkit.sigmoid_focal_loss(
            logits, labels, alpha=alpha, gamma=gamma, reduction="none"
        )

    if (alpha is not None and jnp.ndim(alpha)) or jnp.ndim(gamma):
        # softmaxkit takes one for all: one call for each element, which vectorize makes one.
        return jnp.vectorize(loss)(logits, labels, alpha, gamma)
    logits, labels = jnp.broadcast_arrays(logits, labels)
    return loss(logits, labels, alpha, gamma)


def smooth_labels(labels: Any, alpha: Any, *, axis: Axes = -1, where: Any = None) -> Any:
    """Move a part of the probability to all classes alike, as `optax.smooth_labels`.

    Parameters
    ----------
    labels : floating array
        Probabilities.
    alpha : number in [0, 1]
        The part.
    axis : int, tuple of int, or None, default -1
        The class axes; None for all.
    where : bool array that broadcasts to `labels`, optional
        True where a class takes part; the others get no share.

    Returns
    -------
    array
        Shape and dtype of `labels`.

    Raises
    ------
    TypeError
        `labels` are not floats.
    ValueError
        As `softmaxkit.smooth_labels`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import smooth_labels
    >>> print(smooth_labels(jnp.array([0.0, 1.0]), 0.1))
    [0.05 0.95]
    """
    labels = _of_kind("smooth_labels", labels, jnp.floating, "floats; one_hot them")
    if isinstance(axis, int):
        return softmaxkit.smooth_labels(labels, alpha, axis=axis, where=where)
    together, apart = _together(labels.shape, axis)
    where = None if where is None else together(jnp.broadcast_to(where, labels.shape))
    return apart(softmaxkit.smooth_labels(together(labels), alpha, where=where))


# --- what optax's signatures ask for --------------------------------------------------------------
def _rows(
    loss: Callable[..., Any], logits: Any, labels: Any, axis: Axes, where: Any, **options: Any
) -> Any:
    """Call a loss of softmaxkit with one class axis, and masks as it understands them."""
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    if not indices:
        logits, labels = jnp.broadcast_arrays(logits, labels)
    where = _mask(where, logits.ndim, axis)
    if not isinstance(axis, int):
        together, _ = _together(logits.shape, axis)
        where = None if where is None else together(jnp.broadcast_to(where, logits.shape))
        logits, labels, axis = together(logits), labels if indices else together(labels), -1
    if where is not None and indices:  # a row with no class left
        options["sample_weight"] = jnp.any(where, axis)
    elif where is not None:
        labels = jnp.where(where, labels, 0)
    return loss(
        logits, labels, axis=axis, where=where, ignore_index=None, reduction="none", **options
    )


def _mask(where: Any, ndim: int, axis: Axes) -> Any:
    """Return a mask of rows as one of classes."""
    if where is None:
        return None
    where = jnp.asarray(where)
    if where.ndim == ndim:
        return where
    return jnp.expand_dims(where, tuple(range(ndim)) if axis is None else axis)


def _together(shape: tuple[int, ...], axis: Any) -> tuple[Callable[[Any], Any], ...]:
    """Return how to lay these axes together as the last, and how to undo it."""
    axes = normalize_axis_tuple(range(len(shape)) if axis is None else axis, len(shape))
    rest = [one for one in range(len(shape)) if one not in axes]
    order = (*rest, *axes)
    back = sorted(range(len(order)), key=order.__getitem__)
    moved = [shape[one] for one in order]
    merged = (*moved[: len(rest)], prod(moved[len(rest) :]))
    return (
        lambda x: x.transpose(order).reshape(merged),
        lambda x: x.reshape(moved).transpose(back),
    )


def _of_kind(call: str, labels: Any, kind: Any, expected: str) -> Any:
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, kind):
        raise TypeError(f"{call}: labels has dtype {labels.dtype}; expected {expected}.")
    return labels
