"""The names and signatures of `tf.nn`. Change one import line and keep the program.

    from softmaxkit import tensorflow as nn  # was: from tensorflow import nn

    loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

Losses come for each row. The focal ones, which tf.nn has no name for, are named and called as its
others are. What differs from tf.nn is softmaxkit's semantics:

- A label outside [0, C) is an IndexError where TensorFlow executes eagerly on a CPU; in a graph,
  and on a GPU, the loss and gradient of that row are NaN. tf.nn raises its InvalidArgumentError on
  a CPU, in graphs too, and gives NaN under XLA and on a GPU.
- Where probabilities do not sum to 1 the gradient is the derivative of the loss, (Σq) p - q; that
  of tf.nn is p - q.
- 0 log 0 is 0, where tf.nn gives NaN for a logit of -inf whose label is 0; and a row of logits with
  NaN or +inf is NaN as a whole.
- Shapes do not broadcast; labels of any integer dtype are class indices, and probabilities may have
  another dtype than the logits. An axis that does not exist is NumPy's AxisError.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

import softmaxkit

__all__ = [
    "log_softmax",
    "sigmoid_cross_entropy_with_logits",
    "sigmoid_focal_loss_with_logits",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softmax_focal_loss_with_logits",
    "sparse_softmax_cross_entropy_with_logits",
    "sparse_softmax_focal_loss_with_logits",
]


def softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """Probabilities along `axis`, as `tf.nn.softmax`; see `softmaxkit.softmax`.

    Parameters
    ----------
    logits : tensor
    axis : int, optional
        The last by default.
    name : str, optional
        Scope of the operations.

    Returns
    -------
    tensor
        Shape and dtype of `logits`; integers become float32.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.softmax`.

    Examples
    --------
    >>> from softmaxkit.tensorflow import softmax
    >>> softmax([2.0, 1.0, 0.0]).numpy().round(3)
    array([0.665, 0.245, 0.09 ], dtype=float32)
    """
    with tf.name_scope(name or "softmax"):
        return softmaxkit.softmax(tf.convert_to_tensor(logits), -1 if axis is None else axis)


def log_softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """Log-probabilities along `axis`, as `tf.nn.log_softmax`; see `softmaxkit.log_softmax`.

    Parameters
    ----------
    logits, axis, name
        As for `softmax`.

    Returns
    -------
    tensor
        Shape and dtype of `logits`; integers become float32.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.log_softmax`.

    Examples
    --------
    >>> from softmaxkit.tensorflow import log_softmax
    >>> bool(log_softmax([30.0, 0.0])[0] < 0)
    True
    """
    with tf.name_scope(name or "log_softmax"):
        return softmaxkit.log_softmax(tf.convert_to_tensor(logits), -1 if axis is None else axis)


def softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, axis: int = -1, name: str | None = None
) -> Any:
    """Cross-entropy of each row for probabilities, by tf.nn's name.

    Parameters
    ----------
    labels : tensor in the shape of `logits`
        Probabilities; gradients flow into them.
    logits : floating tensor
    axis : int, default -1
        The class axis.
    name : str, optional
        Scope of the operations.

    Returns
    -------
    tensor
        The shape of the rows, in the dtype of `logits`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`.

    Examples
    --------
    >>> from softmaxkit.tensorflow import softmax_cross_entropy_with_logits
    >>> loss = softmax_cross_entropy_with_logits(labels=[[1, 0, 0]], logits=[[2.0, 1.0, 0.0]])
    >>> loss.numpy().round(4)
    array([0.4076], dtype=float32)
    """
    with tf.name_scope(name or "softmax_cross_entropy_with_logits"):
        logits, labels = tf.convert_to_tensor(logits), _probabilities(labels)
        return softmaxkit.cross_entropy(logits, labels, axis=axis, reduction="none")


def sparse_softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, name: str | None = None
) -> Any:
    """Cross-entropy of each row for class indices, by tf.nn's name.

    Parameters
    ----------
    labels : integer tensor
        The shape of `logits` without the last axis.
    logits : floating tensor
        With the classes along the last axis.
    name : str, optional
        Scope of the operations.

    Returns
    -------
    tensor
        The shape of `labels`, in the dtype of `logits`.

    Raises
    ------
    TypeError
        `labels` are not integers; else as `softmaxkit.cross_entropy`.
    ValueError, IndexError
        As `softmaxkit.cross_entropy`.

    Examples
    --------
    >>> from softmaxkit.tensorflow import sparse_softmax_cross_entropy_with_logits
    >>> loss = sparse_softmax_cross_entropy_with_logits(labels=[0], logits=[[2.0, 1.0, 0.0]])
    >>> loss.numpy().round(4)
    array([0.4076], dtype=float32)
    """
    call = "sparse_softmax_cross_entropy_with_logits"
    with tf.name_scope(name or call):
        logits, labels = tf.convert_to_tensor(logits), _indices(call, labels)
        return softmaxkit.cross_entropy(logits, labels, ignore_index=None, reduction="none")


def sigmoid_cross_entropy_with_logits(
    labels: Any = None, logits: Any = None, name: str | None = None
) -> Any:
    """Cross-entropy of each independent label, as `tf.nn.sigmoid_cross_entropy_with_logits`.

    Parameters
    ----------
    labels : tensor in the shape of `logits`
        Probabilities, or 0 and 1.
    logits : floating tensor
    name : str, optional
        Scope of the operations.

    Returns
    -------
    tensor
        Shape and dtype of `logits`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.binary_cross_entropy`.

    Examples
    --------
    >>> from softmaxkit.tensorflow import sigmoid_cross_entropy_with_logits
    >>> sigmoid_cross_entropy_with_logits(labels=[0.0, 1.0], logits=[0.0, 40.0]).numpy().round(4)
    array([0.6931, 0.    ], dtype=float32)
    """
    with tf.name_scope(name or "sigmoid_cross_entropy_with_logits"):
        logits, labels = tf.convert_to_tensor(logits), tf.convert_to_tensor(labels)
        return softmaxkit.binary_cross_entropy(logits, labels, reduction="none")


def softmax_focal_loss_with_logits(
    labels: Any,
    logits: Any,
    gamma: Any = 2.0,
    alpha: Any = None,
    axis: int = -1,
    name: str | None = None,
) -> Any:
    """Focal loss of each row for probabilities; see `softmaxkit.focal_loss`.

    Parameters
    ----------
    labels, logits, axis, name
        As for `softmax_cross_entropy_with_logits`.
    gamma : float, at least 0, default 2
        Focusing; 0 is cross-entropy.
    alpha : number or (C,) tensor, optional
        Factor for every class, or for each.

    Returns
    -------
    tensor
        The shape of the rows, in the dtype of `logits`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.focal_loss`.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.

    Examples
    --------
    >>> from softmaxkit.tensorflow import softmax_focal_loss_with_logits
    >>> softmax_focal_loss_with_logits([[0, 1, 0]], [[1.0, 1.0, 1.0]]).numpy().round(4)
    array([0.4883], dtype=float32)
    """
    with tf.name_scope(name or "softmax_focal_loss_with_logits"):
        logits, labels = tf.convert_to_tensor(logits), _probabilities(labels)
        return softmaxkit.focal_loss(
            logits, labels, gamma=gamma, alpha=alpha, axis=axis, reduction="none"
        )


def sparse_softmax_focal_loss_with_logits(
    labels: Any, logits: Any, gamma: Any = 2.0, alpha: Any = None, name: str | None = None
) -> Any:
    """Focal loss of each row for class indices; see `softmaxkit.focal_loss`.

    Parameters
    ----------
    labels, logits, name
        As for `sparse_softmax_cross_entropy_with_logits`.
    gamma, alpha
        As for `softmax_focal_loss_with_logits`.

    Returns
    -------
    tensor
        The shape of `labels`, in the dtype of `logits`.

    Raises
    ------
    TypeError
        `labels` are not integers; else as `softmaxkit.focal_loss`.
    ValueError, IndexError
        As `softmaxkit.focal_loss`.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.

    Examples
    --------
    >>> from softmaxkit.tensorflow import sparse_softmax_focal_loss_with_logits
    >>> sparse_softmax_focal_loss_with_logits([1], [[1.0, 1.0, 1.0]]).numpy().round(4)
    array([0.4883], dtype=float32)
    """
    call = "sparse_softmax_focal_loss_with_logits"
    with tf.name_scope(name or call):
        logits, labels = tf.convert_to_tensor(logits), _indices(call, labels)
        return softmaxkit.focal_loss(
            logits, labels, gamma=gamma, alpha=alpha, ignore_index=None, reduction="none"
        )


def sigmoid_focal_loss_with_logits(
    labels: Any, logits: Any, gamma: Any = 2.0, alpha: Any = None, name: str | None = None
) -> Any:
    """Focal loss of each independent label; see `softmaxkit.sigmoid_focal_loss`.

    Parameters
    ----------
    labels, logits, name
        As for `sigmoid_cross_entropy_with_logits`.
    gamma : float, at least 0, default 2
        Focusing; 0 is binary cross-entropy.
    alpha : float in [0, 1], optional
        Weight of the positive label against the negative; None for no weighting.

    Returns
    -------
    tensor
        Shape and dtype of `logits`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.sigmoid_focal_loss`.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.

    Examples
    --------
    >>> from softmaxkit.tensorflow import sigmoid_focal_loss_with_logits
    >>> sigmoid_focal_loss_with_logits(labels=[0.7], logits=[1.0]).numpy().round(5)
    array([0.10187], dtype=float32)
    """
    with tf.name_scope(name or "sigmoid_focal_loss_with_logits"):
        logits, labels = tf.convert_to_tensor(logits), tf.convert_to_tensor(labels)
        return softmaxkit.sigmoid_focal_loss(
            logits, labels, gamma=gamma, alpha=alpha, reduction="none"
        )


def _probabilities(labels: Any) -> Any:
    labels = tf.convert_to_tensor(labels)
    return labels if labels.dtype.is_floating else tf.cast(labels, tf.float32)


def _indices(call: str, labels: Any) -> Any:
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise TypeError(
            f"{call}: labels has dtype {labels.dtype.name}; expected integers; for probabilities "
            f"call {call.removeprefix('sparse_')}."
        )
    return labels
