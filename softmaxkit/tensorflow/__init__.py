"""The names and signatures of `tf.nn`. Change one import line and keep the program.

    from softmaxkit import tensorflow as nn  # was: from tensorflow import nn

    loss = nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)

Every name that is not defined here is that of `tf.nn`. A loss is returned for each row. The focal
losses, which tf.nn lacks, are named and called like its other losses, and `linear_cross_entropy` is
called like `tf.nn.sampled_softmax_loss`. The differences from tf.nn are softmaxkit's semantics:

- If TensorFlow executes eagerly on a CPU, a label outside [0, C) raises an error that is both an
  IndexError and an InvalidArgumentError; in a graph on a CPU, it is an InvalidArgumentError when
  the graph runs, as in tf.nn. Under XLA, and if there is a GPU, the loss and gradient of its row
  are NaN; tf.nn also raises in graphs on the CPU of such a machine.
- If probabilities do not sum to 1, the gradient is the derivative of the loss, (Σq) p - q; that of
  tf.nn is p - q.
- 0 log 0 is 0, where tf.nn gives NaN for a logit of -inf whose label is 0; and a row of logits with
  NaN or +inf is NaN as a whole.
- Shapes do not broadcast; labels of any integer dtype are class indices, and probabilities may have
  another dtype than the logits. An axis that does not exist is NumPy's AxisError.
- Only `softmax` accepts a RaggedTensor, along its last ragged axis or a later one; it needs memory
  for all rows at the longest length. tf.nn.softmax also accepts an earlier axis if lengths agree,
  and tf.nn.sigmoid_cross_entropy_with_logits also accepts a RaggedTensor.
- A tensor may have unknown rank (``tf.TensorSpec(None)``) wherever tf.nn accepts that; labels and
  logits must then have matching shapes, where tf.nn only compares the number of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import tensorflow as tf

import softmaxkit
from softmaxkit._forwarding import rest_of
from softmaxkit.tensorflow._tensors import (
    LabelError,
    along,
    as_tensor,
    over_classes,
    over_labels,
    ragged_softmax,
)

__all__ = [
    "linear_cross_entropy",
    "log_softmax",
    "sigmoid_cross_entropy_with_logits",
    "sigmoid_focal_loss_with_logits",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softmax_focal_loss_with_logits",
    "sparse_softmax_cross_entropy_with_logits",
    "sparse_softmax_focal_loss_with_logits",
]

if TYPE_CHECKING:
    from tensorflow.nn import *  # noqa: F403

    def __getattr__(name: str) -> Any: ...  # TensorFlow declares no types
else:
    __getattr__, __dir__ = rest_of("tensorflow.nn", __all__)


def softmax(logits: Any, axis: int | None = None, name: str | None = None) -> Any:
    """Probabilities along `axis`, as `tf.nn.softmax`; see `softmaxkit.softmax`.

    Parameters
    ----------
    logits : tensor or RaggedTensor
    axis : int, optional
        The last by default.
    name : str, optional
        Scope of the operations.

    Returns
    -------
    tensor or RaggedTensor
        Shape and dtype of `logits`; integers become float32.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.softmax`; ValueError if a RaggedTensor is ragged after `axis`.

    Examples
    --------
    >>> from softmaxkit.tensorflow import softmax
    >>> softmax([2.0, 1.0, 0.0]).numpy().round(3)
    array([0.665, 0.245, 0.09 ], dtype=float32)
    """
    with tf.name_scope(name or "softmax"):
        axis = -1 if axis is None else axis
        if isinstance(logits, tf.RaggedTensor):
            return ragged_softmax(logits, axis)
        return along(softmaxkit.softmax, logits, axis)


def log_softmax(logits: Any, axis: int | None = None, name: str | None = None) -> tf.Tensor:
    """Log-probabilities along `axis`, as `tf.nn.log_softmax`; see `softmaxkit.log_softmax`.

    Parameters
    ----------
    logits : tensor
    axis, name
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
        return along(softmaxkit.log_softmax, logits, -1 if axis is None else axis)


def softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, axis: int = -1, name: str | None = None
) -> tf.Tensor:
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
        loss = partial(softmaxkit.cross_entropy, reduction="none")
        return over_classes(loss, _probabilities(labels), as_tensor(logits), axis)


def sparse_softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, name: str | None = None
) -> tf.Tensor:
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
        As `softmaxkit.cross_entropy`; the IndexError is an InvalidArgumentError, too.

    Examples
    --------
    >>> from softmaxkit.tensorflow import sparse_softmax_cross_entropy_with_logits
    >>> loss = sparse_softmax_cross_entropy_with_logits(labels=[0], logits=[[2.0, 1.0, 0.0]])
    >>> loss.numpy().round(4)
    array([0.4076], dtype=float32)
    """
    call = "sparse_softmax_cross_entropy_with_logits"
    with tf.name_scope(name or call):
        return _of_indices(call, softmaxkit.cross_entropy, labels, logits)


def linear_cross_entropy(
    weights: Any,
    biases: Any,
    labels: Any,
    inputs: Any,
    softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None,
    name: str | None = None,
) -> tf.Tensor:
    """Cross-entropy of each row of a linear layer; see `softmaxkit.linear_cross_entropy`.

    The arguments begin like those of `tf.nn.sampled_softmax_loss`, which estimates this loss; here
    it is exact, over all classes, computed in chunks of rows. softmaxkit's function can return the
    mean, whose gradient costs a product less: this one computes each chunk of logits again for the
    gradient.

    Parameters
    ----------
    weights : (V, D) floating tensor
        One vector for each class.
    biases : (V,) tensor or None
    labels : tensor
        Integers: class indices in the shape of the rows, (...). Floats: probabilities (..., V).
    inputs : (..., D) floating tensor
        One vector for each row.
    softcap, chunk_size
        As for `softmaxkit.linear_cross_entropy`.
    name : str, optional
        Scope of the operations.

    Returns
    -------
    tensor
        The shape of the rows, in the dtype of `inputs`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.linear_cross_entropy`; the IndexError is an InvalidArgumentError, too.

    Examples
    --------
    >>> from softmaxkit.tensorflow import linear_cross_entropy
    >>> weights = [[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]]
    >>> loss = linear_cross_entropy(weights, None, labels=[0, 1], inputs=[[1.0, 0.0], [0.5, 2.0]])
    >>> loss.numpy().round(4)
    array([0.1698, 0.6803], dtype=float32)
    """
    with tf.name_scope(name or "linear_cross_entropy"):
        loss = partial(
            softmaxkit.linear_cross_entropy,
            as_tensor(inputs),
            as_tensor(weights),
            as_tensor(labels),
            bias=None if biases is None else as_tensor(biases),
            softcap=softcap,
            chunk_size=chunk_size,
            ignore_index=None,
            reduction="none",
        )
        return _with_label_error(loss)


def sigmoid_cross_entropy_with_logits(
    labels: Any = None, logits: Any = None, name: str | None = None
) -> tf.Tensor:
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
        loss = partial(softmaxkit.binary_cross_entropy, reduction="none")
        return over_labels(loss, as_tensor(labels), as_tensor(logits))


def softmax_focal_loss_with_logits(
    labels: Any,
    logits: Any,
    gamma: Any = 2.0,
    alpha: Any = None,
    axis: int = -1,
    name: str | None = None,
) -> tf.Tensor:
    """Focal loss of each row for probabilities; see `softmaxkit.focal_loss`.

    Parameters
    ----------
    labels, logits, axis, name
        As for `softmax_cross_entropy_with_logits`.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is cross-entropy.
    alpha : number or (C,) tensor, optional
        One factor for all classes, or one for each.

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
        loss = partial(softmaxkit.focal_loss, gamma=gamma, alpha=alpha, reduction="none")
        return over_classes(loss, _probabilities(labels), as_tensor(logits), axis)


def sparse_softmax_focal_loss_with_logits(
    labels: Any, logits: Any, gamma: Any = 2.0, alpha: Any = None, name: str | None = None
) -> tf.Tensor:
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
        As `softmaxkit.focal_loss`; the IndexError is an InvalidArgumentError, too.

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
        loss = partial(softmaxkit.focal_loss, gamma=gamma, alpha=alpha)
        return _of_indices(call, loss, labels, logits)


def sigmoid_focal_loss_with_logits(
    labels: Any, logits: Any, gamma: Any = 2.0, alpha: Any = None, name: str | None = None
) -> tf.Tensor:
    """Focal loss of each independent label; see `softmaxkit.sigmoid_focal_loss`.

    Parameters
    ----------
    labels, logits, name
        As for `sigmoid_cross_entropy_with_logits`.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is binary cross-entropy.
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
        loss = partial(softmaxkit.sigmoid_focal_loss, gamma=gamma, alpha=alpha, reduction="none")
        return over_labels(loss, as_tensor(labels), as_tensor(logits))


def _probabilities(labels: Any) -> Any:
    labels = as_tensor(labels)
    return labels if labels.dtype.is_floating else tf.cast(labels, tf.float32)


def _of_indices(call: str, loss: Callable[..., Any], labels: Any, logits: Any) -> Any:
    labels = as_tensor(labels)
    if not labels.dtype.is_integer:
        raise TypeError(
            f"{call}: labels has dtype {labels.dtype.name}; expected integers; for probabilities "
            f"call {call.removeprefix('sparse_')}."
        )
    loss = partial(loss, ignore_index=None, reduction="none")
    return _with_label_error(partial(over_classes, loss, labels, as_tensor(logits)))


def _with_label_error(loss: Callable[[], Any]) -> Any:
    try:
        return loss()
    except IndexError as error:
        if isinstance(error, ValueError):  # NumPy's AxisError is both
            raise
        raise LabelError(str(error)) from None
