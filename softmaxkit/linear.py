"""Cross-entropy of a linear layer's logits, which are never whole."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, overload

import numpy as np

from softmaxkit._arguments import Call, Shape, Wanted, as_number, choice, count, shown
from softmaxkit._dispatch import resolve
from softmaxkit._targets import class_targets
from softmaxkit._typing import (
    AnyArray,
    ArrayLike,
    ArrayOf,
    ArrayT,
    LinearOutputs,
    Normalizer,
    Number,
    NumpyLike,
    NumpyResult,
    Reduced,
    Reduction,
)
from softmaxkit.backends import ClassOptions, LinearOptions, Operands

__all__ = ["linear_cross_entropy"]

# Logits of a chunk: 64 MiB of float32, and 256 on an accelerator. There the gradient of the weight
# matrix, which is read and written for each chunk, would cost more than the products of the 128
# rows that a large vocabulary leaves of the former. Not measured on one.
_CHUNK_LOGITS, _ACCELERATOR_CHUNK_LOGITS = 1 << 24, 1 << 26
_FEWEST_ROWS = 16
_MANY_CLASSES = 1 << 16  # where their number is not known yet


# fmt: off
@overload
def linear_cross_entropy(
    hidden: NumpyLike, weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["loss"] = "loss",
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduced = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> np.floating: ...
@overload
def linear_cross_entropy(
    hidden: NumpyLike, weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["loss"] = "loss",
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Literal["none"],
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> NumpyResult: ...
@overload
def linear_cross_entropy(
    hidden: NumpyLike, weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["all"],
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> LinearOutputs[NumpyResult]: ...
@overload
def linear_cross_entropy(
    hidden: ArrayOf[ArrayT], weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["loss"] = "loss",
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> ArrayT: ...
@overload
def linear_cross_entropy(
    hidden: ArrayOf[ArrayT], weight_matrix: ArrayLike, targets: ArrayLike, *,
    bias: ArrayLike | None = None, softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None, outputs: Literal["all"],
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, z_loss: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> LinearOutputs[ArrayT]: ...
# fmt: on
def linear_cross_entropy(
    hidden: AnyArray,
    weight_matrix: ArrayLike,
    targets: ArrayLike,
    *,
    bias: ArrayLike | None = None,
    softcap: float | None = None,
    chunk_size: int | tuple[int | None, int] | None = None,
    outputs: Literal["loss", "all"] = "loss",
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0,
    z_loss: Number = 0.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Cross-entropy of logits z = h Wᵀ + b, of which only some rows exist at a time.

    It equals ``cross_entropy(hidden @ weight_matrix.T + bias, targets, ...)``, but needs the memory
    of one chunk of logits only, for its gradients too. With a large vocabulary the logits would be
    the largest array of a model. If the loss is reduced to one number, its gradient is computed
    chunk by chunk in the forward pass. With ``reduction="none"`` or ``outputs="all"`` the backward
    pass computes the chunks again. Second derivatives keep all chunks; on PyTorch `torch.func` and
    forward mode do so, too.

    Parameters
    ----------
    hidden : (..., D) floating array
        One vector for each row.
    weight_matrix : (V, D) array
        One vector for each class: the layout of a linear layer's weight, or of an embedding table.
    targets : array, or list
        Integers are class indices in [0, V), in the shape (...). Floats are probabilities (..., V).
    bias : (V,) array, optional
    softcap : positive number, optional
        The logits become softcap · tanh(z / softcap).
    chunk_size : int, or pair of ints, optional
        How many rows of logits exist at a time. By default as many as make 2^24 logits, which is
        64 MiB of float32, or on an accelerator 2^26 (not measured on one), but at least 16. A pair
        gives the number of rows, or None, and of classes: then the vocabulary is cut, too, for
        where a few rows are too large. With a gradient that takes a third more time, since each
        block is computed twice. JAX does not cut the vocabulary for ``reduction="none"``.
    outputs : {"loss", "all"}
        With "all" the result is a named tuple, `LinearOutputs`, of the loss and of what the same
        pass gives of each row.
    weight : (V,) array, optional
        Weight of each class.
    sample_weight : array that broadcasts to the rows (...), optional
        Weight of each row.
    where : (V,) bool array, optional
        True where a class takes part.
    temperature : positive number or array that broadcasts to the rows (...), default 1
        Divides the logits.
    ignore_index, label_smoothing, z_loss, reduction, normalizer, dtype
        As for `cross_entropy`; arithmetic, and sums of gradients, are float32 or wider.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``, in the dtype of `hidden` unless
        `dtype` is given. With ``outputs="all"`` it is the `loss` of a named tuple, which also has,
        in the shape of the rows and in float32 or wider, `logsumexp` of the logits over the
        temperature, `log_prob` of the target (None for probability targets) and `entropy`, all in
        nats and differentiable, and the class of the largest logit, `argmax`. Rows that are left
        out, as `ignore_index` or a `sample_weight` of 0 says, have 0 there, and -1 in `argmax`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `cross_entropy`.

    References
    ----------
    Memory of one chunk: Wijmans et al. 2024, "Cut your losses in large-vocabulary language
    models", arXiv:2411.09009. Softcap: Gemma Team 2024, arXiv:2408.00118, section 2.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> hidden = np.array([[1.0, 0.0], [0.5, 2.0]])
    >>> weight_matrix = np.array([[2.0, 0.0], [0.0, 1.0], [-1.0, 1.0]])
    >>> float(softmaxkit.linear_cross_entropy(hidden, weight_matrix, [0, 1]).round(4))
    0.4251
    """
    call = _Product.begin("linear_cross_entropy", hidden, weight_matrix, bias)
    axis, rows, classes = len(call.shape) - 1, call.shape[:-1], call.shape[-1:]
    targets, is_index, unseen, ignore_index = class_targets(call, targets, axis, ignore_index)
    normalizer = call.normalizer(normalizer, reduction, "weight" if is_index else "count")
    of_logits = ClassOptions(
        axis=axis,
        weight=call.class_vector("weight", weight, axis),
        sample_weight=call.weights("sample_weight", sample_weight, rows, "the rows"),
        where=call.mask(where, classes, "the classes"),
        ignore_index=ignore_index,
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        temperature=call.temperature(temperature, rows, "the rows"),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        unseen=unseen,
        z_loss=call.number("z_loss", z_loss, 0.0, neutral=0.0),
    )
    choice(call.name, "outputs", outputs, ("loss", "all"))
    sizes = call.chunk_size(chunk_size)
    options = LinearOptions(of_logits, call.softcap(softcap), *sizes, outputs == "all")
    return call.linear_loss(targets, options)


class _Product(Call):
    """A call about logits that are a product."""

    operands: Operands

    @classmethod
    def begin(cls, name: str, hidden: Any, weight_matrix: Any, bias: Any) -> _Product:
        wanted = hidden if isinstance(hidden, Wanted) else None
        backend, array = resolve(name, "hidden", hidden if wanted is None else wanted.array)
        call = cls(name, "hidden", backend, array, wanted)
        weight_matrix = call.companion("weight_matrix", weight_matrix)
        call.operands = Operands(array, weight_matrix, call.companion("bias", bias))
        call._check_operands()
        return call

    @property
    def shape(self) -> Shape:
        """Shape of the logits."""
        shape = self.backend.shape
        return *shape(self.array)[:-1], shape(self.operands.weight_matrix)[0]

    def _check_operands(self) -> None:
        hidden, weight_matrix, bias = self.operands
        if weight_matrix is None:
            raise TypeError(
                f"{self.name}: weight_matrix is None; expected a floating array (V, D); pass it."
            )
        for name, one in zip(Operands._fields, self.operands, strict=True):
            if one is not None and self.real_kind(name, one) != "float":
                raise TypeError(
                    f"{self.name}: {name} has dtype {one.dtype}; expected a floating dtype; "
                    f"convert it, and check that hidden and weight_matrix come before targets."
                )
        shape = self.backend.shape
        given, of_hidden = shape(weight_matrix), shape(hidden)
        if len(of_hidden) == 0 or of_hidden[-1] == 0:
            raise ValueError(
                f"{self.name}: hidden has shape {of_hidden}; expected (..., D), a vector for each "
                f"row; reshape it."
            )
        width = of_hidden[-1]
        if len(given) != 2 or not self.same_shape(given[1:], (width,)):
            raise ValueError(
                f"{self.name}: weight_matrix has shape {given}; expected (V, {width}), a vector "
                f"for each class, beside hidden {of_hidden}; transpose it if it is (D, V)."
            )
        if bias is not None and not self.same_shape(shape(bias), given[:1]):
            raise ValueError(
                f"{self.name}: bias has shape {shape(bias)}; expected ({given[0]},), one number "
                f"for each class of weight_matrix {given}; reshape it."
            )

    def chunk_size(self, value: Any) -> tuple[int, int | None]:
        """Return how many rows, and how many classes (None for all), are there at once."""
        rows, block = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        remedy = "pass how many rows, or a pair, how many rows and classes, or None"
        for one in (rows, block):
            if one is not None:
                count(self.name, "chunk_size", one, remedy)
        if rows is None:
            classes = self.shape[-1] or _MANY_CLASSES
            is_accelerated = self.backend.is_accelerated(self.array)
            logits = _ACCELERATOR_CHUNK_LOGITS if is_accelerated else _CHUNK_LOGITS
            rows = max(logits // min(classes, block or classes), _FEWEST_ROWS)
        return int(rows), None if block is None else int(block)

    def softcap(self, value: Any) -> float | None:
        """Return a positive number, or None."""
        if value is None:
            return None
        value = as_number(value)
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(
                f"{self.name}: softcap is {shown(value)}; expected a positive number; "
                f"pass a Python float, or None for no cap."
            )
        if not 0 < float(value) < float("inf"):
            raise ValueError(
                f"{self.name}: softcap is {value}; expected a positive number; "
                f"pass one, or None for no cap."
            )
        return float(value)

    def linear_loss(self, targets: Any, options: LinearOptions) -> Any:
        """Return the loss, or (loss, gradients of the operands) if they are wanted."""
        if self._wanted is None:
            return self.backend.linear_loss(self.operands, targets, options)
        return self.backend.linear_value_and_grad(self.operands, targets, options)
