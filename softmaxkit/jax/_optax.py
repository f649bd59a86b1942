"""The functions of `optax.losses`, by softmaxkit, and losses that optax lacks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

import softmaxkit
from softmaxkit.jax._axes import Axes, class_mask, together_as_last


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """Cross-entropy of each row for probabilities, as `optax.softmax_cross_entropy`.

    Parameters
    ----------
    logits : floating array
    labels : array that broadcasts with `logits`
        Probabilities; gradients flow into them.
    axis : int, tuple of int, or None, default -1
        The class axes; None for all.
    where : bool array, optional
        True where a class takes part (in the shape of `logits`, or one that broadcasts to it), or
        where a row does (in the shape of the rows). A row without a class costs 0.

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


def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
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
    logits: ArrayLike, labels: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
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
    logits: ArrayLike,
    labels: ArrayLike,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Focal loss of each row, for class indices or probabilities; see `softmaxkit.focal_loss`.

    Parameters
    ----------
    logits, axis, where
        As for `softmax_cross_entropy`.
    labels : array
        Integers: class indices, in the shape of the rows. Floats: probabilities that broadcast
        with `logits`.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is cross-entropy.
    alpha : number or (C,) array, optional
        One factor for all classes, or one for each.

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
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    epsilon: ArrayLike = 2.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy + ε Σ_c y_c (1-p_c), as `optax.poly_loss_cross_entropy`.

    Parameters
    ----------
    logits, axis, where
        As for `softmax_cross_entropy`.
    labels : floating array that broadcasts with `logits`
        Probabilities.
    epsilon : number, or array that broadcasts to the rows, default 2
        Added to the first coefficient of the series in powers of 1-p.

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
    loss = partial(_rows, softmaxkit.poly_loss_cross_entropy, dtype=dtype)
    if jnp.ndim(epsilon) == 0:
        # Pass it as an array: softmaxkit has a lower bound for numbers, and optax has none.
        return loss(logits, labels, axis, where, epsilon=jnp.asarray(epsilon))
    logits, labels = jnp.broadcast_arrays(logits, labels)
    where = True if where is None else class_mask(where, logits.ndim, axis)
    where = jnp.broadcast_to(where, logits.shape)
    together, _ = together_as_last(logits.shape, axis)

    def row(logits: Any, labels: Any, where: Any, epsilon: Any) -> Any:
        return loss(logits, labels, -1, where, epsilon=epsilon)

    rows = jnp.vectorize(row, signature="(c),(c),(c),()->()")
    return rows(together(logits), together(labels), together(where), jnp.asarray(epsilon))


def linear_cross_entropy(
    hidden: ArrayLike,
    weight_matrix: ArrayLike,
    labels: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None,
    where: ArrayLike | None = None,
) -> Array:
    """Cross-entropy of each row of a linear layer; see `softmaxkit.linear_cross_entropy`.

    That function can return the mean, whose gradient costs a product less: this one computes each
    chunk of logits again for the gradient.

    Parameters
    ----------
    hidden : (..., D) floating array
    weight_matrix : (V, D) floating array
    labels : array
        Integers: class indices in the shape of the rows, (...). Floats: probabilities (..., V).
    bias : (V,) array, optional
    softcap, chunk_size, where
        As for `softmaxkit.linear_cross_entropy`.

    Returns
    -------
    array
        The shape of the rows, in the dtype of `hidden`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.linear_cross_entropy`.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from softmaxkit.jax import linear_cross_entropy
    >>> hidden = jnp.array([[1.0, 0.0], [0.5, 2.0]])
    >>> weight_matrix = jnp.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    >>> print(linear_cross_entropy(hidden, weight_matrix, jnp.array([0, 1])).round(4))
    [0.1698 0.6803]
    """
    return softmaxkit.linear_cross_entropy(
        jnp.asarray(hidden),
        jnp.asarray(weight_matrix),
        jnp.asarray(labels),
        bias=bias,
        softcap=softcap,
        chunk_size=chunk_size,
        where=where,
        ignore_index=None,
        reduction="none",
    )


def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
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


def sigmoid_focal_loss(
    logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike | None = None, gamma: ArrayLike = 2.0
) -> Array:
    """Focal loss of each independent label, as `optax.sigmoid_focal_loss`.

    Parameters
    ----------
    logits : floating array
    labels : array that broadcasts with `logits`
        Probabilities, or 0 and 1.
    alpha : number in [0, 1], or array of them that broadcasts with `logits`, optional
        Weight of the positive label against the negative; None for no weighting.
    gamma : number, at least 0, or array of them that broadcasts with `logits`, default 2
        Focusing parameter; 0 is `sigmoid_binary_cross_entropy`.

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
        # softmaxkit accepts one number for all: vectorize makes one call of a call per element.
        return jnp.vectorize(loss)(logits, labels, alpha, gamma)
    logits, labels = jnp.broadcast_arrays(logits, labels)
    return loss(logits, labels, alpha, gamma)


def smooth_labels(
    labels: ArrayLike, alpha: ArrayLike, *, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """Spread a part of the probability evenly over all classes, as `optax.smooth_labels`.

    Parameters
    ----------
    labels : floating array
        Probabilities.
    alpha : number in [0, 1]
        The part that is spread.
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
    together, apart = together_as_last(labels.shape, axis)
    where = None if where is None else together(jnp.broadcast_to(where, labels.shape))
    return apart(softmaxkit.smooth_labels(together(labels), alpha, where=where))


# --- what optax's signatures need -----------------------------------------------------------------
def _rows(
    loss: Callable[..., Any], logits: Any, labels: Any, axis: Axes, where: Any, **options: Any
) -> Any:
    """Call a loss of softmaxkit with a single class axis, and with masks as it expects them."""
    logits, labels = jnp.asarray(logits), jnp.asarray(labels)
    indices = jnp.issubdtype(labels.dtype, jnp.integer)
    if not indices:
        logits, labels = jnp.broadcast_arrays(logits, labels)
    where = class_mask(where, logits.ndim, axis)
    if not isinstance(axis, int):
        together, _ = together_as_last(logits.shape, axis)
        where = None if where is None else together(jnp.broadcast_to(where, logits.shape))
        logits, labels, axis = together(logits), labels if indices else together(labels), -1
    if where is not None and indices:  # 0 for a row without a class
        options["sample_weight"] = jnp.any(where, axis)
    elif where is not None:
        labels = jnp.where(where, labels, 0)
    return loss(
        logits, labels, axis=axis, where=where, ignore_index=None, reduction="none", **options
    )


def _of_kind(call: str, labels: Any, kind: Any, expected: str) -> Any:
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, kind):
        raise TypeError(f"{call}: labels has dtype {labels.dtype}; expected {expected}.")
    return labels
