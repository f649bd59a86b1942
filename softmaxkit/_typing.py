"""The types that public signatures are written in. No framework is imported for them.

Results on NumPy differ in type from the logits, which may be a list, and from each other: a loss
that is reduced is a scalar. So an operation has overloads for NumPy, and one for every library.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import numpy as np

ArrayT = TypeVar("ArrayT")
P = ParamSpec("P")
_ArrayT_co = TypeVar("_ArrayT_co", covariant=True)


class ArrayOf(Protocol[_ArrayT_co]):
    """An array of the library whose results are of type `ArrayT`.

    That is the type of ``-x``: torch.Tensor for a torch.nn.Parameter, tf.Tensor for a tf.Variable.
    """

    def __neg__(self) -> _ArrayT_co: ...


class HasShape(Protocol):
    """An array of any library, or a column of pandas or polars."""

    @property
    def shape(self) -> Any: ...


NumpyArray: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[Any]]
# What is computed on NumPy.
NumpyLike: TypeAlias = NumpyArray | list[Any] | tuple[Any, ...]
AnyArray: TypeAlias = NumpyLike | ArrayOf[Any]
# A result in the shape of the rows. Of one row alone NumPy makes a scalar, which is no array.
NumpyResult: TypeAlias = NumpyArray | Any
# What may stand beside the logits.
ArrayLike: TypeAlias = HasShape | list[Any] | tuple[Any, ...] | float
# A Python number, or a 0-d array.
Number: TypeAlias = HasShape | float
Axis: TypeAlias = int | tuple[int, ...] | None
Reduced: TypeAlias = Literal["mean", "sum"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]
Kind: TypeAlias = Literal["probability", "margin", "entropy", "energy"]  # of confidence
Normalizer: TypeAlias = Number | Literal["weight", "count", "batch"]

if TYPE_CHECKING:
    # The named tuples of softmaxkit.backends with the types of their fields. Generic at run time,
    # they would not be named tuples to torch.utils._pytree.
    class LinearOutputs(NamedTuple, Generic[ArrayT]):
        """The loss, and of each row what the same pass gives."""

        loss: ArrayT
        logsumexp: ArrayT
        log_prob: ArrayT | Any  # None beside probabilities
        entropy: ArrayT
        argmax: ArrayT

    class Gradients(NamedTuple, Generic[ArrayT]):
        """Gradients of the operands."""

        hidden: ArrayT
        weight_matrix: ArrayT
        bias: ArrayT | Any  # None without one
else:
    from softmaxkit.backends import LinearOutputs as LinearOutputs
    from softmaxkit.backends import Operands as Gradients


# --- what softmaxkit.gradients takes and returns --------------------------------------------------
class LossOptions(TypedDict, total=False):
    """The options of any loss, but for those that decide on the type of what it returns."""

    axis: int
    alpha: ArrayLike | None
    bias: ArrayLike | None
    chunk_size: int | tuple[int | None, int] | None
    dtype: Any
    epsilon: Number
    gamma: Number
    ignore_index: int | None
    label_smoothing: Number
    normalizer: Normalizer | None
    pos_weight: ArrayLike | None
    sample_weight: ArrayLike | None
    softcap: float | None
    temperature: ArrayLike
    weight: ArrayLike | None
    where: ArrayLike | None
    z_loss: Number


# fmt: off
class Loss(Protocol):
    """A loss of logits and targets."""

    def __call__(self, logits: Any, targets: Any, /) -> Any: ...


class LinearLoss(Protocol):
    """A loss of logits that are a product."""

    def __call__(self, hidden: Any, weight_matrix: Any, targets: Any, /) -> Any: ...


class LossAndGradient(Protocol):
    """A loss that returns its gradient, too."""

    @overload
    def __call__(
        self, logits: NumpyLike, targets: ArrayLike, *, reduction: Reduced = "mean",
        **options: Unpack[LossOptions],
    ) -> tuple[np.floating, NumpyArray]: ...
    @overload
    def __call__(
        self, logits: NumpyLike, targets: ArrayLike, *, reduction: Literal["none"],
        **options: Unpack[LossOptions],
    ) -> tuple[NumpyResult, NumpyArray]: ...
    @overload
    def __call__(
        self, logits: ArrayOf[ArrayT], targets: ArrayLike, *, reduction: Reduction = "mean",
        **options: Unpack[LossOptions],
    ) -> tuple[ArrayT, ArrayT]: ...


class LinearLossAndGradients(Protocol):
    """A loss of logits that are a product, with the gradients of its operands."""

    @overload
    def __call__(
        self, hidden: NumpyLike, /, weight_matrix: ArrayLike, targets: ArrayLike, *,
        outputs: Literal["loss"] = "loss", reduction: Reduction = "mean",
        **options: Unpack[LossOptions],
    ) -> tuple[NumpyResult, Gradients[NumpyArray]]: ...
    @overload
    def __call__(
        self, hidden: NumpyLike, /, weight_matrix: ArrayLike, targets: ArrayLike, *,
        outputs: Literal["all"], reduction: Reduction = "mean", **options: Unpack[LossOptions],
    ) -> tuple[LinearOutputs[NumpyResult], Gradients[NumpyArray]]: ...
    @overload
    def __call__(
        self, hidden: ArrayOf[ArrayT], /, weight_matrix: ArrayLike, targets: ArrayLike, *,
        outputs: Literal["loss"] = "loss", reduction: Reduction = "mean",
        **options: Unpack[LossOptions],
    ) -> tuple[ArrayT, Gradients[ArrayT]]: ...
    @overload
    def __call__(
        self, hidden: ArrayOf[ArrayT], /, weight_matrix: ArrayLike, targets: ArrayLike, *,
        outputs: Literal["all"], reduction: Reduction = "mean", **options: Unpack[LossOptions],
    ) -> tuple[LinearOutputs[ArrayT], Gradients[ArrayT]]: ...


class ValueAndProduct(Protocol[P]):
    """An activation that returns a vector-Jacobian product, too."""

    @overload
    def __call__(
        self, x: NumpyLike, cotangent: ArrayLike, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[NumpyResult, NumpyArray]: ...
    @overload
    def __call__(
        self, x: ArrayOf[ArrayT], cotangent: ArrayLike, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[ArrayT, ArrayT]: ...
# fmt: on
