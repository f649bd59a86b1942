"""The losses of Keras over classes and labels, by Keras's names, computed by softmaxkit.

``from softmaxkit.keras import SparseCategoricalCrossentropy`` in the place of ``from keras.losses
import ...``: arguments, defaults, shapes, masks and reductions are Keras's, on each of its backends
(NumPy, PyTorch, JAX, TensorFlow), in `model.compile`, saved and loaded with the model. A program
that loads such a model imports this module first. What differs:

- ``from_logits=False`` takes the true logarithm, where Keras clips p to [1e-7, 1 - 1e-7], beyond
  which its gradient is 0. Only below 1e-31 (float32; 1e-292 in float64) is p raised towards that.
  The derivative 1/p overflows a float16 softmax below p = 1.5e-5, in Keras too: give that layer
  ``dtype="float32"``, or hand over its logits.
- Arithmetic, sums and the result are float32 or wider whatever `dtype` says: in bfloat16 Keras
  reads label 257 as 256.
- Labels out of range are an IndexError, or NaN where they cannot be read (see
  `softmaxkit.cross_entropy`); what Keras does depends on its backend.
- `axis` may be any axis, on every backend; label smoothing and a list `alpha` follow it.
- Beyond Keras: `SparseCategoricalFocalCrossentropy`, and `label_smoothing` for labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from softmaxkit.keras._base import BinaryLoss, ClassLoss, SparseLoss
from softmaxkit.losses import (
    binary_cross_entropy,
    cross_entropy,
    focal_loss,
    sigmoid_focal_loss,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "SparseCategoricalCrossentropy",
    "SparseCategoricalFocalCrossentropy",
]

# A saved model names them "softmaxkit>CategoricalCrossentropy" and so on, and softmaxkit.keras as
# their module: so they are defined here.
_register = keras.saving.register_keras_serializable(package="softmaxkit")


@_register
class CategoricalCrossentropy(ClassLoss):
    """Cross-entropy of one-hot labels or probabilities; `keras.losses.CategoricalCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions are logits; else they are probabilities, which are divided by their sum.
    label_smoothing : float in [0, 1], default 0
        Targets become (1-ε) y + ε/K.
    axis : int, default -1
        The class axis.
    reduction : {"sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"} or None
        As in `keras.losses.Loss`.
    name : str
        Name of the loss.
    dtype : str or keras.DTypePolicy, optional
        Of the result; `keras.config.floatx()` by default, and float32 where it is narrower.

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
        return self._rows(cross_entropy, y_true, y_pred)


@_register
class SparseCategoricalCrossentropy(SparseLoss):
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
        return self._rows(cross_entropy, y_true, y_pred)


@_register
class CategoricalFocalCrossentropy(ClassLoss):
    """Focal loss of one-hot labels or probabilities; `keras.losses.CategoricalFocalCrossentropy`.

    Parameters
    ----------
    alpha : float, or list of a float for each class, default 0.25
        Factor of every class, or of each.
    gamma : float, at least 0, default 2
        Focusing; 0 is cross-entropy, times `alpha`.
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
        return self._rows(focal_loss, y_true, y_pred, gamma=self.gamma, alpha=self.alpha)


@_register
class SparseCategoricalFocalCrossentropy(SparseLoss):
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
        return self._rows(focal_loss, y_true, y_pred, gamma=self.gamma, alpha=self.alpha)


@_register
class BinaryCrossentropy(BinaryLoss):
    """Cross-entropy of independent labels; `keras.losses.BinaryCrossentropy`.

    Parameters
    ----------
    from_logits : bool, default False
        Whether predictions are logits; else they are probabilities.
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
        return self._rows(binary_cross_entropy, y_true, y_pred)


@_register
class BinaryFocalCrossentropy(BinaryLoss):
    """Focal loss of independent labels; `keras.losses.BinaryFocalCrossentropy`.

    Parameters
    ----------
    apply_class_balancing : bool, default False
        Whether to weigh the labels by `alpha`.
    alpha : float in [0, 1], default 0.25
        Weight of the label 1; that of 0 is 1 - alpha.
    gamma : float, at least 0, default 2
        Focusing; 0 is binary cross-entropy.
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
        alpha = self.alpha if self.apply_class_balancing else None
        return self._rows(sigmoid_focal_loss, y_true, y_pred, gamma=self.gamma, alpha=alpha)
