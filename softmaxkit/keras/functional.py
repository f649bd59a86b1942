"""The functions of `keras.losses` over classes and labels, which return the loss of each row.

They take (y_true, y_pred), as `model.compile` calls a loss and a metric; `softmaxkit.cross_entropy`
and its siblings take (logits, targets), and must not be passed to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from softmaxkit.keras._rows import of_binary, of_classes, of_labels

__all__ = [
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "sparse_categorical_crossentropy",
    "sparse_categorical_focal_crossentropy",
]

# A saved model names the functions "softmaxkit>categorical_crossentropy" and so on.
_register = keras.saving.register_keras_serializable(package="softmaxkit")


@_register
def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Cross-entropy of one-hot labels or probabilities; `keras.losses.categorical_crossentropy`.

    Parameters
    ----------
    y_true : array of the shape of `y_pred`
        One-hot labels or probabilities, of any real dtype.
    y_pred : array
        Logits or probabilities, in any shape with a class axis.
    from_logits : bool, default False
        Whether predictions are logits; otherwise they are probabilities, which Keras's own function
        divides by their sum and clips to [ε, 1-ε], with ε = `keras.config.epsilon()`.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) y + ε/K.
    axis : int, default -1
        The class axis.

    Returns
    -------
    tensor
        The shape of `y_pred` without its class axis, and its dtype; the default float of Keras for
        integers. Arithmetic is float32 or wider.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`; TypeError for a `keras.KerasTensor`.

    References
    ----------
    Smoothing: Szegedy et al. 2016, arXiv:1512.00567.

    Examples
    --------
    >>> rows = categorical_crossentropy([[1, 0, 0]], [[2.0, 1.0, 0.0]], from_logits=True)
    >>> [round(float(loss), 4) for loss in rows]
    [0.4076]
    """
    return of_classes(
        "categorical_crossentropy",
        y_true,
        y_pred,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        axis=axis,
    )


@_register
def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
    *,
    label_smoothing: float = 0.0,
) -> Any:
    """Cross-entropy of class indices; `keras.losses.sparse_categorical_crossentropy`.

    Parameters
    ----------
    y_true : array
        Class indices, in the shape of `y_pred` without its class axis, or with length 1 there;
        floats are cast to int32.
    y_pred, from_logits, axis
        As for `categorical_crossentropy`.
    ignore_class : int, optional
        Rows with this label have a loss and a gradient of 0, whatever was predicted there, and the
        result has the mask that Keras's reductions read.
    label_smoothing : float in [0, 1], default 0, keyword only
        As for `categorical_crossentropy`; `keras.losses` does not have it here.

    Returns
    -------
    tensor
        As for `categorical_crossentropy`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.cross_entropy`; TypeError for a `keras.KerasTensor`.

    References
    ----------
    Smoothing: Szegedy et al. 2016, arXiv:1512.00567.

    Examples
    --------
    >>> logits = [[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]]
    >>> rows = sparse_categorical_crossentropy([0, -1], logits, from_logits=True, ignore_class=-1)
    >>> [round(float(loss), 4) for loss in rows]
    [0.4076, 0.0]
    """
    return of_labels(
        "sparse_categorical_crossentropy",
        y_true,
        y_pred,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        axis=axis,
        ignore_class=ignore_class,
    )


@_register
def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float | Sequence[float] = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Focal loss of one-hot labels; `keras.losses.categorical_focal_crossentropy`.

    Parameters
    ----------
    y_true, y_pred, from_logits, label_smoothing, axis
        As for `categorical_crossentropy`.
    alpha : float, or list of a float for each class, default 0.25
        One factor for all classes, or one for each.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is cross-entropy, times `alpha`.

    Returns
    -------
    tensor
        As for `categorical_crossentropy`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.focal_loss`; TypeError for a `keras.KerasTensor`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> rows = categorical_focal_crossentropy([[1, 0]], [[2.0, 1.0]], alpha=1.0, from_logits=True)
    >>> [round(float(loss), 4) for loss in rows]
    [0.0227]
    """
    return of_classes(
        "categorical_focal_crossentropy",
        y_true,
        y_pred,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        axis=axis,
        alpha=alpha,
        gamma=gamma,
    )


@_register
def sparse_categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float | Sequence[float] = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """Focal loss of class indices; `keras.losses` has none.

    Parameters
    ----------
    y_true, ignore_class
        As for `sparse_categorical_crossentropy`.
    y_pred, from_logits, label_smoothing, axis
        As for `categorical_crossentropy`.
    alpha, gamma
        As for `categorical_focal_crossentropy`.

    Returns
    -------
    tensor
        As for `categorical_crossentropy`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `softmaxkit.focal_loss`; TypeError for a `keras.KerasTensor`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> rows = sparse_categorical_focal_crossentropy([0], [[2.0, 1.0]], 1.0, from_logits=True)
    >>> [round(float(loss), 4) for loss in rows]
    [0.0227]
    """
    return of_labels(
        "sparse_categorical_focal_crossentropy",
        y_true,
        y_pred,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        axis=axis,
        ignore_class=ignore_class,
        alpha=alpha,
        gamma=gamma,
    )


@_register
def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Cross-entropy of independent labels; `keras.losses.binary_crossentropy`.

    Parameters
    ----------
    y_true : array of the shape of `y_pred`
        Probabilities, or 0 and 1, of any real dtype.
    y_pred : array
        Logits or probabilities, in any shape.
    from_logits : bool, default False
        Whether predictions are logits; otherwise they are probabilities, which Keras's own function
        clips to [ε, 1-ε], with ε = `keras.config.epsilon()`.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) t + ε/2.
    axis : int, default -1
        The axis to average along.

    Returns
    -------
    tensor
        The shape of `y_pred` without `axis`, and its dtype; the default float of Keras for
        integers. Arithmetic is float32 or wider.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.binary_cross_entropy`; TypeError for a `keras.KerasTensor`.

    References
    ----------
    Bishop 2006, "Pattern recognition and machine learning", equation 4.90.

    Examples
    --------
    >>> rows = binary_crossentropy([[0, 1]], [[0.6, 0.4]])
    >>> [round(float(loss), 4) for loss in rows]
    [0.9163]
    """
    return of_binary(
        "binary_crossentropy",
        y_true,
        y_pred,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        axis=axis,
    )


@_register
def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """Focal loss of independent labels; `keras.losses.binary_focal_crossentropy`.

    Parameters
    ----------
    y_true, y_pred, from_logits, label_smoothing, axis
        As for `binary_crossentropy`.
    apply_class_balancing : bool, default False
        Whether to weigh the labels by `alpha`.
    alpha : float in [0, 1], default 0.25
        Weight of the label 1; that of 0 is 1 - alpha.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is binary cross-entropy.

    Returns
    -------
    tensor
        As of `binary_crossentropy`.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.sigmoid_focal_loss`; TypeError for a `keras.KerasTensor`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> rows = binary_focal_crossentropy([[0, 1]], [[0.6, 0.4]])
    >>> [round(float(loss), 4) for loss in rows]
    [0.3299]
    """
    return of_binary(
        "binary_focal_crossentropy",
        y_true,
        y_pred,
        from_logits=from_logits,
        label_smoothing=label_smoothing,
        axis=axis,
        apply_class_balancing=apply_class_balancing,
        alpha=alpha,
        gamma=gamma,
    )
