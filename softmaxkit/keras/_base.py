"""What Keras's losses share: options that are saved, dtypes, ranks that differ by one."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from softmaxkit.keras._rows import dtype_of, wide


class Loss(keras.losses.Loss):
    """The base of all losses: options are attributes and saved; arithmetic is float32 or wider."""

    def __init__(self, reduction: str | None, name: str | None, dtype: Any, **options: Any) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._options = tuple(options)
        for option, value in options.items():
            setattr(self, option, value)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """Return the reduced loss, in the dtype of the loss."""
        loss = _Reduced(self)(y_true, y_pred, sample_weight)
        return loss if dtype_of(loss) == self.dtype else ops.cast(loss, self.dtype)

    def options(self) -> dict[str, Any]:
        """Return the loss's own arguments, as the function of the same name takes them."""
        return {option: getattr(self, option) for option in self._options}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments from which this loss can be constructed again."""
        return {**super().get_config(), **self.options(), "dtype": self.dtype}


class _Reduced(keras.losses.Loss):
    """The rows of a loss as Keras converts, masks and reduces them, in float32 or wider."""

    def __init__(self, loss: Loss) -> None:
        super().__init__(loss.name, loss.reduction, wide(loss.dtype))
        self._rows = loss.call

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        y_true, y_pred = (
            ops.convert_to_tensor(each, dtype=self.dtype) if isinstance(each, list) else each
            for each in (y_true, y_pred)  # Keras would make a list of tensors of it
        )
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._rows(y_true, y_pred)


def same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Allow one of the two to lack a last axis of length 1, as Keras does: (N,) with (N, 1)."""
    if len(y_true.shape) > len(y_pred.shape):
        y_pred, y_true = same_rank(y_pred, y_true)
    elif len(y_true.shape) + 1 == len(y_pred.shape) and y_pred.shape[-1] == 1:
        if len(y_true.shape) == 1:  # N rows of one label; else the labels along the last axis
            y_true = ops.expand_dims(y_true, -1)
        else:
            y_pred = ops.squeeze(y_pred, -1)
    return y_true, y_pred
