"""One package per array library, all with the same function names, loaded when first needed.

`Backend` below is the contract that each fulfils; `ArrayFunctions` and `Kernels` are those of its
modules `arrays` and `rows`, with which `softmaxkit._losses` and `_activations` work. Nothing here
imports a framework: `softmaxkit._dispatch` asks for `backends.torch` only after it was handed a
torch tensor, so the framework is imported already.
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

MODULES = ("numpy", "torch", "jax", "tensorflow", "array_api")


def __getattr__(name: str) -> ModuleType:
    # Once per module: the import system sets the attribute, and this is not called again.
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# --- what a frontend hands over: checked, and None where an option is neutral ---------------------
class ActivationOptions(NamedTuple):
    """What activations take beside the array; `keepdims` is logsumexp's alone."""

    axis: int | tuple[int, ...]
    where: Array | None = None
    temperature: Any = None
    dtype: DType | None = None
    keepdims: bool = False


class ClassOptions(NamedTuple):
    """What losses over classes take beside logits and targets; focal loss calls `weight` alpha."""

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
    """What losses over independent labels take beside logits and targets."""

    sample_weight: Array | None
    label_smoothing: Any
    reduction: str
    normalizer: Any
    dtype: DType | None
    pos_weight: Any = None
    gamma: Any = None
    alpha: Any = None


class Operands(NamedTuple):
    """What logits are the product of, hidden @ weight_matrix.T + bias; or its gradients."""

    hidden: Array  # (..., D)
    weight_matrix: Array  # (V, D)
    bias: Array | None = None  # (V,)


class LinearOptions(NamedTuple):
    """What a loss over the classes of such a product takes beside its operands and targets."""

    of_logits: ClassOptions  # `where` is (V,); `temperature` broadcasts to the rows
    softcap: float | None
    chunk_size: int  # rows of logits that are there at once
    block_size: int | None = None  # classes that are there at once
    all_outputs: bool = False


class LinearOutputs(NamedTuple):
    """What a pass over such logits gives; of the rows, but for a loss that is reduced."""

    loss: Array
    logsumexp: Any = None
    log_prob: Any = None  # of the label
    entropy: Any = None
    argmax: Any = None


class Backend(Protocol):
    """What a backend module offers.

    The frontends hand over checked arguments: arrays of this library (companions too), `axis`
    counted from the front, and None for an option at its neutral value (`temperature` 1,
    `label_smoothing` 0, `z_loss` 0, `gamma` 0, `epsilon` 0). `unseen` is None where no class index
    is out of range; where they could not be read, how a line about them begins, such as
    "cross_entropy: targets".
    """

    LIBRARY: str

    # --- what a user calls ---------------------------------------------------------------------
    def activation(self, operation: str, x: Array, options: ActivationOptions) -> Array:
        """Compute `operation`, an activation by its name."""

    def vjp(
        self, operation: str, x: Array, cotangent: Array, options: ActivationOptions
    ) -> tuple[Array, Array]:
        """Compute an activation, and its vector-Jacobian product with `cotangent`."""

    def loss(self, logits: Array, targets: Array, options: ClassOptions | BinaryOptions) -> Array:
        """Compute the loss that the options are those of: without gamma, epsilon cross-entropy."""

    def value_and_grad(
        self, logits: Array, targets: Array, options: ClassOptions | BinaryOptions
    ) -> tuple[Array, Array]:
        """Compute a loss, and the gradient of its sum with respect to `logits`."""

    def linear_loss(
        self, operands: Operands, targets: Array, options: LinearOptions
    ) -> Array | LinearOutputs:
        """Compute the loss of logits that are a product, or all `LinearOutputs`, without them."""

    def linear_value_and_grad(
        self, operands: Operands, targets: Array, options: LinearOptions
    ) -> tuple[Array | LinearOutputs, Operands]:
        """Do the same, and compute the gradients of the loss's sum by the operands."""

    def one_hot(
        self, labels: Array, num_classes: int, axis: int, dtype: DType, unseen: str | None
    ) -> Array: ...
    def smooth_labels(
        self, targets: Array, smoothing: Any, axis: int, where: Array | None
    ) -> Array: ...

    # --- calibration -------------------------------------------------------------------------
    def by_rows(self, function: Any, rows: tuple[Any, ...], options: tuple[Any, ...]) -> Any:
        """Return ``function(ops, rows, *options)``, which may be compiled for its options."""

    def each(self, work: Any, blocks: Iterable[Any]) -> None:
        """Call ``work(block)`` for every block, on NumPy in several threads."""

    # --- whose array, and of what kind: for the argument checks ------------------------------
    def is_native(self, value: object, like: Array) -> bool:
        """Tell whether `value` is an array of this library, which is that of `like`."""

    def is_array(self, value: object) -> bool:
        """Tell an array from a number, a name or None; compilers have symbols for numbers."""

    def is_compiling(self) -> bool:
        """Tell whether a compiler that cannot look into NumPy arrays is tracing the call."""

    def asarray(self, value: np.ndarray, like: Array) -> Array:
        """Copy a NumPy array into this library, onto the device of `like`."""

    def unusable(self, x: Array) -> tuple[type[Exception], str] | None:
        """Say what is wrong with an array of this library that no kernel takes, and the remedy."""

    def device_of(self, x: Array) -> object:
        """Return where `x` is, if the library refuses to mix devices, else None."""

    def visible(self, x: Array) -> np.ndarray | None:
        """Return the values of `x`, where they can be read without waiting for a device."""

    def has_values(self, x: Array) -> bool:
        """Return False for what a transform traces, whose values cannot be read."""

    def is_accelerated(self, x: Array) -> bool:
        """Tell whether `x` is on another device than the CPU, or may be when it has values."""

    def to_host(self, x: Array) -> np.ndarray:
        """Return the values of `x`, waiting for its device; bfloat16 may come as float32."""

    def shape(self, x: Array) -> tuple[int | None, ...]: ...
    def same_length(self, a: int, b: int) -> bool:
        """Tell whether two lengths are equal; also where a compiler cannot know that yet."""

    def kind(self, x: Array) -> str:
        """One of "bool", "int", "float", "complex", "other"."""

    def as_dtype(self, dtype: DType, like: Array) -> DType:
        """Find the floating dtype of `like`'s library for a name or its own, else TypeError."""


class ArrayFunctions(Protocol):
    """The functions of arrays that the loss family and the activations are written in.

    They have the array API's meaning where it has them. A companion may be a Python number where
    the comment says so; `like` gives the device and, unless another is asked for, the dtype.
    """

    # --- elementwise -------------------------------------------------------------------------
    def where(self, condition: Array, a: Any, b: Any) -> Array:
        """Return `a` or `b`, one of which may be a float, or both beside a condition alone."""

    def equal(self, a: Array, b: Any) -> Array:
        """Return a == b, where TensorFlow 1 would compare objects; `b` may be a number."""

    def exp(self, x: Array) -> Array: ...
    def expm1(self, x: Array) -> Array: ...
    def log1p(self, x: Array) -> Array: ...
    def maximum(self, a: Array, b: Array) -> Array: ...
    def sigmoid(self, x: Array) -> Array: ...
    def softplus(self, x: Array) -> Array: ...
    def stop_gradient(self, x: Array) -> Array:
        """Return `x`, a constant to autodiff."""

    # --- over axes ---------------------------------------------------------------------------
    def sum(self, x: Array, axis: Any) -> Array:
        """Sum over an axis, several, or with None all; over classes without losing digits."""

    def mean(self, x: Array) -> Array:
        """Return the mean of all; 0 of none."""

    def any(self, x: Array, axis: Any) -> Array: ...
    def amax(self, x: Array, axis: Any) -> Array: ...
    def argmax(self, x: Array, axis: int) -> Array: ...
    def pick(self, x: Array, labels: Array, axis: int) -> Array:
        """Take x at the label of each row."""

    def at_class(self, labels: Array, like: Array, axis: int) -> Array:
        """Return True at the label of each row, in the shape of `like`."""

    def take(self, vector: Array, labels: Array) -> Array:
        """Take a vector at labels of any shape."""

    # --- shapes ------------------------------------------------------------------------------
    def shape(self, x: Array) -> tuple[int | None, ...]: ...
    def length(self, x: Array, axis: int, like: Array) -> Any:
        """Return the length of an axis; where it is unknown, as an array in the dtype of `like`."""

    def size(self, x: Array) -> Any:
        """Return how many numbers there are, likewise."""

    def permute(self, x: Array, order: Any) -> Array: ...
    def merge_last(self, x: Array, count: int) -> Array:
        """Make the last `count` axes one."""

    def reshape(self, x: Array, shape: Any) -> Array: ...
    def reshape_like(self, x: Array, like: Array) -> Array: ...
    def concat(self, parts: Any) -> Array:
        """Put arrays together along their first axis."""

    def broadcast_like(self, x: Array, like: Array) -> Array: ...
    def ones_like(self, x: Array) -> Array: ...

    # --- dtypes ------------------------------------------------------------------------------
    def is_array(self, value: object) -> bool: ...
    def kind(self, x: Array) -> str: ...
    def astype(self, x: Array, dtype: DType) -> Array: ...
    def default_float(self, x: Array) -> DType: ...
    def compute(self, x: Array) -> Array:
        """Return floats in the dtype of the arithmetic: float32, or float64 where they are."""

    def widest(self, x: Array) -> Array:
        """Return floats in float64, where the library and the device have it, else float32."""

    def compute_like(self, x: Array, logits: Array) -> Array:
        """Return `x` in the dtype in which `logits` are computed."""

    def weights_like(self, x: Array, logits: Array) -> Array:
        """Do the same, but leave to kernels what they convert block by block."""

    def as_index(self, labels: Array) -> Array:
        """Return labels in a signed dtype, in which one that is out of range stays so."""


class Kernels(Protocol):
    """What sees N x C: each along one axis, in float32 or wider."""

    def softmax(self, x: Array, axis: int, dtype: DType) -> Array: ...
    def log_softmax(self, x: Array, axis: int, dtype: DType) -> Array: ...
    def row_statistics(self, x: Array, request: Request, lse: bool, keep: bool) -> tuple[Rows, Any]:
        """Reduce each row to `Rows`, and return what `row_gradient` needs again beside `x`.

        What was not asked for may be None; `lse` asks for that. With `keep` the gradient may be
        made once, in memory that is kept for it.
        """


class GradientKernels(Kernels, Protocol):
    """Kernels with their derivatives written out."""

    def softmax_gradient(self, p: Array, cotangent: Array, axis: int) -> Array:
        """Return p (v - Σ p v): see `softmaxkit._activations.softmax_derivative`."""

    def row_gradient(self, x: Array, request: Request, kept: Any, of_rows: Rows) -> Array:
        """Carry the cotangents of the rows back to `x`: see `softmaxkit._statistics`.

        `of_rows` holds Σ w as mass. The request may have other weights than that of the rows.
        """
