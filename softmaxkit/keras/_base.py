"""What Keras's losses share: options that are saved, dtypes, predictions as logits, its masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

# Keras has no public name for the mask that a loss of its own may leave on what it returns.
from keras.src.backend import set_keras_mask


class Loss(keras.losses.Loss):
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


class ClassLoss(Loss):
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


class SparseLoss(ClassLoss):
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


class BinaryLoss(Loss):
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
