"""The losses of Keras over classes and labels, by Keras's names: classes and functions.

Write ``from softmaxkit.keras import SparseCategoricalCrossentropy`` in place of ``from keras.losses
import ...``: arguments, defaults, shapes, masks, reductions and dtypes are Keras's, on each of its
backends (NumPy, PyTorch, JAX, TensorFlow), in `model.compile`, and for saved models. A program that
loads such a model must import this module first. Every name that is not defined here is that of
`keras.losses`.

`model.compile` calls a loss and a metric as (y_true, y_pred). Pass it the classes or functions of
this module, not `softmaxkit.cross_entropy`, which takes (logits, targets) and cannot notice that
they come the other way round.

From logits (``from_logits=True``), the losses are softmaxkit's, and exact even where the model is
sure of itself. From probabilities, the default, they are Keras's own: Keras clips p to [ε, 1-ε]
with ε = `keras.config.epsilon()`, 1e-7, beyond which the gradient is 0 (on TensorFlow it looks for
the logits behind a softmax layer). The differences from Keras:

- From logits the focal losses, and on NumPy `binary_crossentropy`, do not clip; in Keras they do.
- Arithmetic and sums are float32 or wider whatever `dtype` says, and the result is rounded to it:
  in bfloat16 Keras reads label 257 as 256.
- Labels out of range are an IndexError or, where they cannot be read, an error of TensorFlow's
  graphs or NaN (see `softmaxkit.cross_entropy`); what Keras does depends on its backend.
- `axis` may be any axis, on every backend; label smoothing and a list `alpha` follow it.
- An ignored row adds exactly 0 to value and gradient, whatever was predicted there.
- A `keras.KerasTensor` is a TypeError; Keras's functions build a graph from it.
- Beyond Keras: `SparseCategoricalFocalCrossentropy`, `sparse_categorical_focal_crossentropy`, and
  `label_smoothing` for labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from softmaxkit._forwarding import rest_of
from softmaxkit.keras._base import Loss, same_rank
from softmaxkit.keras.functional import (
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    sparse_categorical_crossentropy,
    sparse_categorical_focal_crossentropy,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "SparseCategoricalCrossentropy",
    "SparseCategoricalFocalCrossentropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "sparse_categorical_crossentropy",
    "sparse_categorical_focal_crossentropy",
]

if TYPE_CHECKING:
    from keras.losses import *  # noqa: F403

    def __getattr__(name: str) -> Any: ...  # Keras declares no types
else:
    __getattr__, __dir__ = rest_of("keras.losses", __all__)

# A saved model names these classes "softmaxkit>CategoricalCrossentropy" and so on, and their module
# softmaxkit.keras; therefore they are defined here.
_register = keras.saving.register_keras_serializable(package="softmaxkit")


@_register
class CategoricalCrossentropy(Loss):
    """Cross-entropy of one-hot labels or probabilities; `keras.losses.CategoricalCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions are logits; otherwise they are probabilities, which Keras's own function
        divides by their sum and clips to [ε, 1-ε], with ε = `keras.config.epsilon()`.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) y + ε/K.
    axis : int, default -1
        The class axis.
    reduction : {"sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"} or None
        As in `keras.losses.Loss`.
    name : str
        Name of the loss.
    dtype : str or keras.DTypePolicy, optional
        Dtype of the result; `keras.config.floatx()` by default. Arithmetic is float32 or wider.

    Raises
    ------
    TypeError, ValueError
        When called, as `softmaxkit.cross_entropy`.

    References
    ----------
    Smoothing: Szegedy et al. 2016, arXiv:1512.00567.

    Examples
    --------
    >>> loss = CategoricalCrossentropy(from_logits=True)
    >>> round(float(loss([[1.0, 0.0, 0.0]], [[2.0, 1.0, 0.0]])), 4)
    0.4076
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        return categorical_crossentropy(y_true, y_pred, **self.options())


@_register
class SparseCategoricalCrossentropy(Loss):
    """Cross-entropy of class indices; `keras.losses.SparseCategoricalCrossentropy`.

    Parameters
    ----------
    from_logits, axis, reduction, name, dtype
        As for `CategoricalCrossentropy`.
    ignore_class : int, optional
        Rows with this label add exactly 0 to value and gradient, whatever was predicted there, and
        are masked: a mean divides by the rows that are left.
    label_smoothing : float in [0, 1], default 0, keyword only
        As for `CategoricalCrossentropy`; `keras.losses` does not have it here.

    Raises
    ------
    TypeError, ValueError, IndexError
        When called, as `softmaxkit.cross_entropy`.

    References
    ----------
    Smoothing: Szegedy et al. 2016, arXiv:1512.00567.

    Examples
    --------
    >>> loss = SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    >>> round(float(loss([0, -1], [[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])), 4)
    0.4076
    """

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        axis: int = -1,
        name: str | None = "sparse_categorical_crossentropy",
        dtype: Any = None,
        *,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            ignore_class=ignore_class,
            axis=axis,
            label_smoothing=label_smoothing,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        return sparse_categorical_crossentropy(y_true, y_pred, **self.options())


@_register
class CategoricalFocalCrossentropy(Loss):
    """Focal loss of one-hot labels or probabilities; `keras.losses.CategoricalFocalCrossentropy`.

    Parameters
    ----------
    alpha : float, or list of a float for each class, default 0.25
        One factor for all classes, or one for each.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is cross-entropy, times `alpha`.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As for `CategoricalCrossentropy`.

    Raises
    ------
    TypeError, ValueError
        When called, as `softmaxkit.focal_loss`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> loss = CategoricalFocalCrossentropy(alpha=1.0, from_logits=True)
    >>> round(float(loss([[1.0, 0.0, 0.0]], [[2.0, 1.0, 0.0]])), 4)
    0.0457
    """

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            reduction,
            name,
            dtype,
            alpha=np.asarray(alpha).tolist(),  # saved as JSON
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        return categorical_focal_crossentropy(y_true, y_pred, **self.options())


@_register
class SparseCategoricalFocalCrossentropy(Loss):
    """Focal loss of class indices; `keras.losses` has none.

    Parameters
    ----------
    alpha, gamma
        As for `CategoricalFocalCrossentropy`.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As for `CategoricalCrossentropy`.
    ignore_class : int, optional
        As for `SparseCategoricalCrossentropy`.

    Raises
    ------
    TypeError, ValueError, IndexError
        When called, as `softmaxkit.focal_loss`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> loss = SparseCategoricalFocalCrossentropy(alpha=1.0, from_logits=True)
    >>> round(float(loss([0], [[2.0, 1.0, 0.0]])), 4)
    0.0457
    """

    def __init__(
        self,
        alpha: float | Sequence[float] = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        ignore_class: int | None = None,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sparse_categorical_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            reduction,
            name,
            dtype,
            alpha=np.asarray(alpha).tolist(),  # saved as JSON
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            ignore_class=ignore_class,
            axis=axis,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each row."""
        return sparse_categorical_focal_crossentropy(y_true, y_pred, **self.options())


@_register
class BinaryCrossentropy(Loss):
    """Cross-entropy of independent labels; `keras.losses.BinaryCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions are logits; otherwise they are probabilities, which Keras's own function
        clips to [ε, 1-ε], with ε = `keras.config.epsilon()`.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) t + ε/2.
    axis : int, default -1
        The axis to average along.
    reduction, name, dtype
        As for `CategoricalCrossentropy`.

    Raises
    ------
    TypeError, ValueError
        When called, as `softmaxkit.binary_cross_entropy`.

    References
    ----------
    Bishop 2006, "Pattern recognition and machine learning", equation 4.90.

    Examples
    --------
    >>> loss = BinaryCrossentropy()
    >>> round(float(loss([[0.0, 1.0]], [[0.6, 0.4]])), 4)
    0.9163
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            reduction,
            name,
            dtype,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean loss along `axis`."""
        y_true, y_pred = same_rank(y_true, y_pred)
        return binary_crossentropy(y_true, y_pred, **self.options())


@_register
class BinaryFocalCrossentropy(Loss):
    """Focal loss of independent labels; `keras.losses.BinaryFocalCrossentropy`.

    Parameters
    ----------
    apply_class_balancing : bool, default False
        Whether to weigh the labels by `alpha`.
    alpha : float in [0, 1], default 0.25
        Weight of the label 1; that of 0 is 1 - alpha.
    gamma : float, at least 0, default 2
        Focusing parameter; 0 is binary cross-entropy.
    from_logits, label_smoothing, axis, reduction, name, dtype
        As for `BinaryCrossentropy`.

    Raises
    ------
    TypeError, ValueError
        When called, as `softmaxkit.sigmoid_focal_loss`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> loss = BinaryFocalCrossentropy()
    >>> round(float(loss([[0.0, 1.0]], [[0.6, 0.4]])), 4)
    0.3299
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(
            reduction,
            name,
            dtype,
            apply_class_balancing=apply_class_balancing,
            alpha=alpha,
            gamma=gamma,
            from_logits=from_logits,
            label_smoothing=label_smoothing,
            axis=axis,
        )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the mean loss along `axis`."""
        y_true, y_pred = same_rank(y_true, y_pred)
        return binary_focal_crossentropy(y_true, y_pred, **self.options())
