"""A call about logits that are a product: the checks of its operands."""

from __future__ import annotations

from numbers import Real
from typing import Any, Self

from softmaxkit._arguments import Call, Shape, Wanted, as_number, count, shown
from softmaxkit._dispatch import resolve
from softmaxkit.backends import LinearOptions, Operands

# How many logits a chunk has: 64 MiB of them in float32, and 256 MiB on an accelerator. Each chunk
# reads and writes the whole gradient of the weight matrix. On an accelerator that would take longer
# than the products of the 128 rows that 64 MiB leave with a large vocabulary. Not measured on one.
CHUNK_LOGITS, ACCELERATOR_CHUNK_LOGITS = 1 << 24, 1 << 26
FEWEST_ROWS = 16
_MANY_CLASSES = 1 << 16  # assumed where their number is not known yet


class Product(Call):
    """A call about logits that are a product."""

    operands: Operands

    @classmethod
    def begin(cls, name: str, hidden: Any, weight_matrix: Any, bias: Any) -> Self:
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
        """Return of how many rows and classes (None for all) the logits exist at a time."""
        rows, block = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        remedy = "pass how many rows, or a pair, how many rows and classes, or None"
        for one in (rows, block):
            if one is not None:
                count(self.name, "chunk_size", one, remedy)
        if rows is None:
            classes = self.shape[-1] or _MANY_CLASSES
            is_accelerated = self.backend.is_accelerated(self.array)
            logits = ACCELERATOR_CHUNK_LOGITS if is_accelerated else CHUNK_LOGITS
            rows = max(logits // min(classes, block or classes), FEWEST_ROWS)
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
