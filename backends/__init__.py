"""One module per array library, all with the same function names, loaded when first needed.

`Backend` below is the contract that each module of this package fulfils. Nothing here imports a
framework: `softmaxkit._dispatch` asks for `backends.torch` only after it was handed a torch tensor,
so the framework is imported already.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np

Array = Any
DType = Any
Rows = tuple[Array | None, Array | None, Array, Array]

MODULES = ("numpy", "torch", "jax", "tensorflow", "array_api")


def __getattr__(name: str) -> ModuleType:
    # Once per module: the import system sets the attribute, and this is not called again.
    if name in MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Backend(Protocol):
    """What a backend module offers.

    The frontends hand over checked arguments: arrays of this library (companions too), `axis`
    counted from the front, and None for an option at its neutral value (`temperature` 1,
    `label_smoothing` 0, `z_loss` 0). `labels_checked` says that no class index is out of range.
    """

    LIBRARY: str

    # --- what a user calls; docstrings and argument names are the frontends' ------------------
    def softmax(
        self, x: Array, axis: int | tuple[int, ...], where: Array, temperature: Array, dtype: DType
    ) -> Array: ...
    def log_softmax(
        self, x: Array, axis: int | tuple[int, ...], where: Array, temperature: Array, dtype: DType
    ) -> Array: ...
    def logsumexp(
        self, x: Array, axis: int | tuple[int, ...], where: Array, keepdims: bool, dtype: DType
    ) -> Array: ...
    def cross_entropy(self, logits: Array, targets: Array, **options: Any) -> Array: ...
    def focal_loss(self, logits: Array, targets: Array, **options: Any) -> Array: ...
    def binary_cross_entropy(self, logits: Array, targets: Array, **options: Any) -> Array: ...
    def sigmoid_focal_loss(self, logits: Array, targets: Array, **options: Any) -> Array: ...
    def one_hot(
        self, labels: Array, num_classes: int, axis: int, dtype: DType, labels_checked: bool
    ) -> Array: ...
    def smooth_labels(
        self, targets: Array, smoothing: float | None, axis: int, where: Array | None
    ) -> Array: ...
    def value_and_grad(
        self, operation: str, logits: Array, targets: Array, options: dict[str, Any]
    ) -> tuple[Array, Array]:
        """Value of the loss `operation`, and the gradient of its sum with respect to logits."""

    def vjp(
        self, operation: str, x: Array, cotangent: Array, options: tuple[Any, ...]
    ) -> tuple[Array, Array]:
        """Value of the activation `operation`, and its vector-Jacobian product with `cotangent`."""

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

    def shape(self, x: Array) -> tuple[int | None, ...]: ...
    def kind(self, x: Array) -> str:
        """One of "bool", "int", "float", "complex", "other"."""

    def as_dtype(self, dtype: DType, like: Array) -> DType:
        """Find the floating dtype of `like`'s library for a name or its own, else TypeError."""

    # --- the kernels under the loss family (`softmaxkit._rows`) -------------------------------
    def row_statistics(
        self, x: Array, axis: int, labels: Array | None, weights: Array | None, skip: Array | None,
        lse: bool = True,
    ) -> Rows:  # fmt: skip
        """Reduce each row z along `axis` to (log p_y, Σ_c w_c log p_c, log(Σ_c e^(z_c-max)), max).

        In float32 or wider, and one pass over N x C where possible. `labels` are in range;
        `weights` are (C,) or of the logits' shape, and 0 x -inf is 0. The max is a constant to
        autodiff (a shift cancels), the derivative is of the form a·p + b·1_y + c·w. Rows where
        `skip` is True, whatever they hold, give 0 in all four and a gradient of exactly 0. The
        last two may be None if `lse` is False: then only the backend's own `row_gradient` sees
        them. The result may have an attribute `total`, Σ_c w_c, where that came with the pass.
        """

    def row_gradient(
        self,
        x: Array,
        axis: int,
        rows: Rows,
        labels: Array | None,
        weights: Array | None,
        skip: Array | None,
        a: Array,
        b: Array | None,
        c: Array | None,
    ) -> Array:
        """Write a·p + b·1_y + c·w in the dtype of `x`. Only where the library has no autodiff."""
