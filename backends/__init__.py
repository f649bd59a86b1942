"""One package per array library, all with the same function names, loaded on first use.

`Backend` below is the contract of each package; `ArrayFunctions` and `Kernels` are the contracts of
its modules `arrays` and `rows`, which `softmaxkit._losses` and `_activations` call. Nothing here
imports a framework: `softmaxkit._dispatch` asks for `backends.torch` only after it has been given a
torch tensor, so the framework is already imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from softmaxkit._statistics import Request, Rows

Array = Any
DType = Any

MODULES = ("numpy", "torch", "jax", "tensorflow", "dask", "array_api")


def __getattr__(name: str) -> ModuleType:
    # Once per module: the import system sets the attribute, and this is not called again.
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- what a frontend passes on: checked, and None for an option at its neutral value --------------
class ActivationOptions(NamedTuple):
    """The options of an activation; only logsumexp has `keepdims`."""

    axis: int | tuple[int, ...]
    where: Array | None = None
    temperature: Any = None
    dtype: DType | None = None
    keepdims: bool = False


class ClassOptions(NamedTuple):
    """The options of a loss over classes; focal loss calls `weight` alpha."""

    axis: int
    weight: Any
    sample_weight: Array | None
    where: Array | None
    ignore_index: int | None
    label_smoothing: Any
    temperature: Any
    reduction: str
    normalizer: Any
    dtype: DType | None
    unseen: str | None  # see Backend
    z_loss: Any = None
    gamma: Any = None  # focal loss
    epsilon: Any = None  # poly loss


class BinaryOptions(NamedTuple):
    """The options of a loss over independent labels."""

    sample_weight: Array | None
    label_smoothing: Any
    reduction: str
    normalizer: Any
    dtype: DType | None
    pos_weight: Any = None
    gamma: Any = None
    alpha: Any = None


class Operands(NamedTuple):
    """The operands of the logits hidden @ weight_matrix.T + bias, or their gradients."""

    hidden: Array  # (..., D)
    weight_matrix: Array  # (V, D)
    bias: Array | None = None  # (V,)


class LinearOptions(NamedTuple):
    """The options of a loss over the classes of such a product."""

    of_logits: ClassOptions  # `where` is (V,); `temperature` broadcasts to the rows
    softcap: float | None
    chunk_size: int  # rows of logits in memory at once
    block_size: int | None = None  # classes in memory at once
    all_outputs: bool = False


class LinearOutputs(NamedTuple):
    """The outputs of such a loss: one value per row, unless the loss is reduced."""

    loss: Array
    logsumexp: Any = None
    log_prob: Any = None  # of the label
    entropy: Any = None
    argmax: Any = None


class Backend(Protocol):
    """The functions of a backend module.

    The frontends pass checked arguments: arrays of this library (companions too), `axis` counted
    from the front, and None for an option at its neutral value (`temperature` 1, `label_smoothing`
    0, `z_loss` 0, `gamma` 0, `epsilon` 0). `unseen` is None if no class index is out of range; if
    the indices could not be read, it is how an error message about them begins, such as
    "cross_entropy: targets".
    """

    LIBRARY: str

    # --- what a user calls ---------------------------------------------------------------------
    def activation(self, operation: str, x: Array, options: ActivationOptions) -> Array:
        """Compute the activation called `operation`."""

    def vjp(
        self, operation: str, x: Array, cotangent: Array, options: ActivationOptions
    ) -> tuple[Array, Array]:
        """Compute an activation and its vector-Jacobian product with `cotangent`."""

    def loss(self, logits: Array, targets: Array, options: ClassOptions | BinaryOptions) -> Array:
        """Compute the loss described by `options`: cross-entropy without gamma and epsilon."""

    def value_and_grad(
        self, logits: Array, targets: Array, options: ClassOptions | BinaryOptions
    ) -> tuple[Array, Array]:
        """Compute a loss and the gradient of its sum with respect to `logits`."""

    def linear_loss(
        self, operands: Operands, targets: Array, options: LinearOptions
    ) -> Array | LinearOutputs:
        """Compute the loss, or all `LinearOutputs`, without ever holding all the logits."""

    def linear_value_and_grad(
        self, operands: Operands, targets: Array, options: LinearOptions
    ) -> tuple[Array | LinearOutputs, Operands]:
        """Do the same, and compute the gradients of the loss's sum by the operands, too."""

    def one_hot(
        self, labels: Array, num_classes: int, axis: int, dtype: DType, unseen: str | None
    ) -> Array: ...
    def smooth_labels(
        self, targets: Array, smoothing: Any, axis: int, where: Array | None
    ) -> Array: ...

    # --- calibration -------------------------------------------------------------------------
    def by_rows(self, function: Any, rows: tuple[Any, ...], options: tuple[Any, ...]) -> Any:
        """Return ``function(ops, rows, *options)``; it may be compiled for these options."""

    def each(self, work: Any, blocks: Iterable[Any]) -> None:
        """Call ``work(block)`` for every block; NumPy's backend uses several threads."""

    # --- what the argument checks ask about arrays -------------------------------------------
    def is_native(self, value: object, like: Array) -> bool:
        """Return whether `value` is an array of this library, which is that of `like`."""

    def is_array(self, value: object) -> bool:
        """Return whether `value` is an array, not None, a name or a (perhaps symbolic) number."""

    def is_compiling(self) -> bool:
        """Return whether a compiler that cannot look into NumPy arrays is tracing the call."""

    def asarray(self, value: np.ndarray, like: Array) -> Array:
        """Copy a NumPy array into this library, onto the device of `like`."""

    def unusable(self, x: Array) -> tuple[type[Exception], str] | None:
        """Return the error, with its remedy, for an array that no kernel accepts; else None."""

    def device_of(self, x: Array) -> object:
        """Return the device of `x` if the library refuses to mix devices, else None."""

    def visible(self, x: Array) -> np.ndarray | None:
        """Return the values of `x` if they can be read without waiting for a device, else None."""

    def has_values(self, x: Array) -> bool:
        """Return False if a transform traces `x`, so that its values cannot be read."""

    def is_accelerated(self, x: Array) -> bool:
        """Return whether `x` is, or may be once it has values, on a device other than the CPU."""

    def to_host(self, x: Array) -> np.ndarray:
        """Return the values of `x`, waiting for its device; bfloat16 may become float32."""

    def shape(self, x: Array) -> tuple[int | None, ...]: ...
    def same_length(self, a: int, b: int) -> bool:
        """Return whether two lengths are equal; True if a compiler cannot know that yet."""

    def kind(self, x: Array) -> str:
        """Return "bool", "int", "float", "complex" or "other"."""

    def as_dtype(self, dtype: DType, like: Array) -> DType:
        """Return the floating dtype of `like`'s library for a name or dtype, or raise TypeError."""


class ArrayFunctions(Protocol):
    """The array functions with which the loss family and the activations are written.

    Functions of the array API standard mean the same here. A companion may be a Python number where
    the docstring says so; `like` gives the device and, unless another is asked for, the dtype.
    """

    # --- elementwise -------------------------------------------------------------------------
    def where(self, condition: Array, a: Any, b: Any) -> Array:
        """Return `a` where the condition holds, else `b`; one of them, or both, may be a float."""

    def equal(self, a: Array, b: Any) -> Array:
        """Return a == b, even where TensorFlow 1 compares identities; `b` may be a number."""

    def exp(self, x: Array) -> Array: ...
    def expm1(self, x: Array) -> Array: ...
    def log1p(self, x: Array) -> Array: ...
    def maximum(self, a: Array, b: Array) -> Array: ...
    def sigmoid(self, x: Array) -> Array: ...
    def softplus(self, x: Array) -> Array: ...
    def stop_gradient(self, x: Array) -> Array:
        """Return `x` as a constant for autodiff."""

    # --- over axes ---------------------------------------------------------------------------
    def sum(self, x: Array, axis: Any) -> Array:
        """Sum over one axis, several, or (None) all; a sum over classes loses no digits."""

    def mean(self, x: Array) -> Array:
        """Return the mean of all elements, 0 if there are none."""

    def any(self, x: Array, axis: Any) -> Array: ...
    def amax(self, x: Array, axis: Any) -> Array: ...
    def argmax(self, x: Array, axis: int) -> Array: ...
    def pick(self, x: Array, labels: Array, axis: int) -> Array:
        """Return the entry of `x` at the label of each row."""

    def at_class(self, labels: Array, like: Array, axis: int) -> Array:
        """Return a mask in the shape of `like`, True at the label of each row."""

    def take(self, vector: Array, labels: Array) -> Array:
        """Return the entries of a vector at labels of any shape."""

    # --- shapes ------------------------------------------------------------------------------
    def shape(self, x: Array) -> tuple[int | None, ...]: ...
    def length(self, x: Array, axis: int, like: Array) -> Any:
        """Return the length of an axis; if it is unknown, as an array in the dtype of `like`."""

    def size(self, x: Array) -> Any:
        """Return the number of elements; if it is unknown, as an array."""

    def permute(self, x: Array, order: Any) -> Array: ...
    def merge_last(self, x: Array, count: int) -> Array:
        """Merge the last `count` axes into one."""

    def reshape(self, x: Array, shape: Any) -> Array: ...
    def reshape_like(self, x: Array, like: Array) -> Array: ...
    def concat(self, parts: Any) -> Array:
        """Join arrays along their first axis."""

    def broadcast_like(self, x: Array, like: Array) -> Array: ...
    def ones_like(self, x: Array) -> Array: ...

    # --- dtypes ------------------------------------------------------------------------------
    def is_array(self, value: object) -> bool: ...
    def kind(self, x: Array) -> str: ...
    def astype(self, x: Array, dtype: DType) -> Array: ...
    def default_float(self, x: Array) -> DType: ...
    def compute(self, x: Array) -> Array:
        """Return floats in the dtype of the arithmetic: float64 stays, others become float32."""

    def widest(self, x: Array) -> Array:
        """Return floats in float64 if the library and the device have it, else in float32."""

    def compute_like(self, x: Array, logits: Array) -> Array:
        """Return `x` in the dtype in which the arithmetic on `logits` is done."""

    def weights_like(self, x: Array, logits: Array) -> Array:
        """Do the same, but do not convert what the kernels convert block by block."""

    def as_index(self, labels: Array) -> Array:
        """Return labels in a signed dtype; those out of range stay out of range."""


class Kernels(Protocol):
    """The functions over N x C, each along one axis, in float32 or wider."""

    def softmax(self, x: Array, axis: int, dtype: DType) -> Array: ...
    def log_softmax(self, x: Array, axis: int, dtype: DType) -> Array: ...
    def row_statistics(self, x: Array, request: Request, lse: bool, keep: bool) -> tuple[Rows, Any]:
        """Reduce each row to `Rows`; also return what `row_gradient` needs beside `x`.

        Statistics that were not requested may be None; `lse` requests the logsumexp. With `keep`,
        the gradient may overwrite memory that is kept for it, and can then be computed only once.
        """


class GradientKernels(Kernels, Protocol):
    """Kernels with explicit derivatives."""

    def softmax_gradient(self, p: Array, cotangent: Array, axis: int) -> Array:
        """Return p (v - Σ p v): see `softmaxkit._activations.softmax_derivative`."""

    def row_gradient(self, x: Array, request: Request, kept: Any, of_rows: Rows) -> Array:
        """Carry the cotangents of the rows back to `x`: see `softmaxkit._statistics`.

        `of_rows` holds Σ w as its mass. The weights may differ from those of `row_statistics`.
        """
