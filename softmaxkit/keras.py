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

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# Keras has no public name for the mask that a loss of its own may leave on what it returns.
from keras.src.backend import set_keras_mask

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

# A saved model names them "softmaxkit>CategoricalCrossentropy" and so on.
_register = keras.saving.register_keras_serializable(package="softmaxkit")


class _Loss(keras.losses.Loss):
    """What all of them share: options are attributes and saved; float32 or wider."""

    from_logits: bool
    label_smoothing: float
    axis: int

    def __init__(self, reduction: str | None, name: str | None, dtype: Any, **options: Any) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._options = tuple(options)
        for option, value in options.items():
            setattr(self, option, value)

    @property
    def dtype(self) -> str:
        """The dtype of predictions, labels and result: at least float32."""
        given: str = super().dtype
        return "float32" if given in ("float16", "bfloat16") else given

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the reduced loss."""
        y_true, y_pred = (
            ops.convert_to_tensor(each, dtype=self.dtype) if isinstance(each, list) else each
            for each in (y_true, y_pred)  # Keras makes lists of tensors of lists
        )
        return super().__call__(y_true, y_pred, sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make this loss again."""
        options = {option: getattr(self, option) for option in self._options}
        return {**super().get_config(), **options, "dtype": self.dtype}


class _ClassLoss(_Loss):
    """A loss over classes, of probabilities in the shape of the predictions."""

    def _rows(self, loss: Callable[..., Any], y_true: Any, y_pred: Any, **options: Any) -> Any:
        return loss(
            y_pred if self.from_logits else _log(y_pred),
            y_true,
            axis=self.axis,
            label_smoothing=self.label_smoothing,
            reduction="none",
            **options,
        )


class _SparseLoss(_ClassLoss):
    """A loss over classes, of class indices in the shape of the rows."""

    ignore_class: int | None

    def _rows(self, loss: Callable[..., Any], y_true: Any, y_pred: Any, **options: Any) -> Any:
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[self.axis] == 1:
            y_true = ops.squeeze(y_true, self.axis)
        labels = ops.cast(y_true, "int32")
        if self.ignore_class is None:
            return super()._rows(loss, labels, y_pred, ignore_index=None, **options)
        kept = ops.not_equal(labels, self.ignore_class)
        if not self.from_logits:
            # softmaxkit leaves ignored logits out, whatever they hold; here log comes before it.
            y_pred = ops.where(ops.expand_dims(kept, self.axis), y_pred, 1.0)
        losses = super()._rows(loss, labels, y_pred, ignore_index=self.ignore_class, **options)
        set_keras_mask(losses, kept)
        return losses


class _BinaryLoss(_Loss):
    """A loss of independent labels, averaged along an axis."""

    def _rows(self, loss: Callable[..., Any], y_true: Any, y_pred: Any, **options: Any) -> Any:
        y_true, y_pred = _same_rank(y_true, y_pred)
        losses = loss(
            y_pred if self.from_logits else _log(y_pred) - _log(1.0 - y_pred),
            y_true,
            label_smoothing=self.label_smoothing,
            reduction="none",
            **options,
        )
        return ops.mean(losses, axis=self.axis)


def _log(p: Any) -> Any:
    """Return log p, finite and with a finite derivative, which is not 0, also at p = 0.

    p is raised below 1e-31 (float32), not below the smallest normal number: the derivative 1/p is
    yet to be multiplied by weights, and must not come out as inf; and compilers flush what is
    subnormal to 0, as p divided by a sum might be.
    """
    info = np.finfo(keras.backend.standardize_dtype(p.dtype))
    floor = float(info.tiny) / float(info.eps)
    p = ops.where(p < 0.0, 0.0, p)  # a rounding error, as in 1 - p where p is a mean of ones
    return ops.log(ops.where(p < floor, 0.5 * (p + floor), p))


def _same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Let one of the two lack a last axis of length 1, as Keras does: (N,) meets (N, 1)."""
    if len(y_true.shape) > len(y_pred.shape):
        y_pred, y_true = _same_rank(y_pred, y_true)
    elif len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
        if len(y_true.shape) == 1:  # N rows of one label; else the labels along the last axis
            y_true = ops.expand_dims(y_true, -1)
        else:
            y_pred = ops.squeeze(y_pred, -1)
    return y_true, y_pred


@_register
class CategoricalCrossentropy(_ClassLoss):
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
class SparseCategoricalCrossentropy(_SparseLoss):
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
class CategoricalFocalCrossentropy(_ClassLoss):
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
class SparseCategoricalFocalCrossentropy(_SparseLoss):
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
class BinaryCrossentropy(_BinaryLoss):
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
class BinaryFocalCrossentropy(_BinaryLoss):
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
