"""Rows of scores with their labels and weights: checked, cut into blocks, copied to the host."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmaxkit._arguments import Call
from softmaxkit._dispatch import resolve
from softmaxkit._targets import class_labels, labels_in_range

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

# Elements of a block, of which a few copies exist at once. fit_temperature of (100000, 100) on
# NumPy takes 0.41 s with 1 << 20, 0.27 with 1 << 18, 0.31 with 1 << 15 (benchmarks/calibration.py).
BLOCK_ELEMENTS = 1 << 18


class Rows(NamedTuple):
    """Arrays of a library, or a block of their rows; rows are the scores without the class axis."""

    scores: Array
    labels: Array | None = None
    weight: Array | None = None  # broadcasts to the rows
    where: Array | None = None  # broadcasts to the scores
    temperature: Any = None  # a number, or broadcasts to the rows
    threshold: float | None = None


class Data:
    """A call on rows, and the rows."""

    def __init__(self, call: Call, axis: int, rows: Rows, ignored: int | None) -> None:
        self.call, self.axis, self.rows, self.ignored = call, axis, rows, ignored
        self.shape: tuple[Any, ...] = call.backend.shape(rows.scores)

    @property
    def cut(self) -> int:
        """The axis along which blocks are cut: the longest axis of the rows."""
        others = [i for i in range(len(self.shape)) if i != self.axis]
        return max(others, key=self.shape.__getitem__)

    def blocks(self) -> list[slice | None]:
        """Return what `part` takes for each block; None, a single block, if a transform traces."""
        if len(self.shape) == 1 or not self.call.backend.has_values(self.rows.scores):
            return [None]
        length = self.shape[self.cut]
        step = max(BLOCK_ELEMENTS * length // max(prod(self.shape), 1), 1)
        starts = range(0, max(length, 1), step)
        return [slice(start, min(start + step, length)) for start in starts]

    def part(self, piece: slice | None) -> Rows:
        """Return some of the rows: a slice of the axis that is cut."""
        if piece is None:
            return self.rows
        scores, labels, weight, where, temperature, threshold = self.rows
        ndim, cut = len(self.shape), self.cut
        of_rows = cut - (cut > self.axis)
        return Rows(
            self._sliced(scores, ndim, cut, piece),
            self._sliced(labels, ndim - 1, of_rows, piece),
            self._sliced(weight, ndim - 1, of_rows, piece),
            self._sliced(where, ndim, cut, piece),
            self._sliced(temperature, ndim - 1, of_rows, piece),
            threshold,
        )

    def _sliced(self, value: Any, ndim: int, axis: int, piece: slice) -> Any:
        if value is None or isinstance(value, float):
            return value
        shape = self.call.backend.shape(value)
        axis -= ndim - len(shape)
        if axis < 0 or shape[axis] == 1:  # it broadcasts there
            return value
        return value[(slice(None),) * axis + (piece, ...)]

    # --- what is computed from them -------------------------------------------------------------
    def of_block(self, function: Callable[..., Any], rows: Rows, *options: Any) -> Any:
        """Return ``function(ops, rows, axis, *options)``."""
        return self.call.backend.by_rows(function, rows, (self.axis, *options))

    def by_block(self, function: Callable[[Rows], Any]) -> list[Any]:
        """Return the results of a function for each block, in order."""
        blocks = self.blocks()
        found: list[Any] = [None] * len(blocks)

        def work(index: int) -> None:
            found[index] = function(self.part(blocks[index]))

        self.call.backend.each(work, range(len(blocks)))
        return found

    def in_library(self, function: Callable[..., Any], *options: Any, keeps: bool = False) -> Array:
        """Return a function's result for all rows; it has the scores' shape if it `keeps` that."""
        parts = self.by_block(lambda rows: self.of_block(function, rows, *options))
        if len(parts) == 1:
            return parts[0]
        cut = self.cut - (not keeps and self.cut > self.axis)
        return self.call.backend.by_rows(_joined, tuple(parts), (cut,))

    def on_host(self, function: Callable[..., Any], *options: Any) -> list[np.ndarray]:
        """Return a function's arrays over the rows, then labels and weights, as NumPy arrays.

        Rows that are left out are not in them, and rows are flat; an array may be (rows, classes).
        """
        host = self.call.backend.to_host

        def of_block(rows: Rows) -> list[np.ndarray]:
            values = self.of_block(function, rows, *options)
            labels = host(rows.labels)
            weight = np.ones(()) if rows.weight is None else host(rows.weight)
            weight = np.broadcast_to(weight.astype(np.float64), labels.shape).reshape(-1)
            labels = labels.reshape(-1).astype(np.int64)
            keep = weight != 0
            if self.ignored is not None:
                keep &= labels != self.ignored
            flat = [host(one) for one in values]
            flat = [one.reshape(len(labels), *one.shape[len(self.shape) - 1 :]) for one in flat]
            return [one[keep] for one in (*flat, labels, weight)]

        columns = zip(*self.by_block(of_block), strict=True)
        *found, labels, weight = [np.concatenate(one) for one in columns]
        if not ((weight > 0) & (weight < np.inf)).all():
            raise bad_weights(self)
        if not len(labels):
            raise no_rows(self)
        return [*found, labels, weight]


def refuse_nan(data: Data, values: np.ndarray) -> None:
    """Refuse NaN, which is the result of rows with NaN or inf."""
    if np.isnan(values).any():
        raise not_finite(data, "NaN or inf")


def not_finite(data: Data, what: str) -> ValueError:
    """Return the error for rows that have no result."""
    name, argument = data.call.name, data.call.argument
    return ValueError(
        f"{name}: {argument} holds {what}; expected finite {argument} in the rows that count; "
        f"leave the others out with ignore_index."
    )


def bad_weights(data: Data) -> ValueError:
    """Return the error for weights that are negative or not finite."""
    return ValueError(
        f"{data.call.name}: sample_weight holds a number below 0, NaN or inf; expected finite "
        f"numbers of at least 0; leave rows out with 0."
    )


def no_rows(data: Data) -> ValueError:
    """Return the error for data in which every row is left out."""
    return ValueError(
        f"{data.call.name}: {data.call.argument} has shape {data.shape}, and none of its rows "
        f"counts; expected at least one that does; check ignore_index and sample_weight."
    )


def _joined(ops: ArrayFunctions, parts: tuple[Array, ...], axis: int) -> Array:
    """Join arrays along an axis."""
    ndim = len(ops.shape(parts[0]))
    to_front = [axis, *(i for i in range(ndim) if i != axis)]
    back = sorted(range(ndim), key=to_front.__getitem__)
    return ops.permute(ops.concat([ops.permute(one, to_front) for one in parts]), back)


def checked(
    name: str,
    scores: Any,
    labels: Any,
    axis: Any,
    *,
    argument: str = "logits",
    sample_weight: Any = None,
    where: Any = None,
    ignore_index: int | None = None,
    temperature: Any = 1.0,
) -> Data:
    """Check rows with labels; their values are needed at once, so that tracing is refused."""
    call = Call(name, argument, *resolve(name, argument, scores), None)
    data = unlabelled(call, axis, where, temperature)
    if not call.backend.has_values(call.array):
        raise TypeError(
            f"{name}: {argument} is a {type(call.array).__name__}, which has no values, as inside "
            f"jit; expected an array with values, since the result is a Python number; call {name} "
            f"outside jit."
        )
    axis, shape = data.axis, call.shape
    labels, ignored = class_labels(call, labels, axis, ignore_index)
    if call.backend.visible(labels) is None:  # on another device, or lazy
        values = call.backend.to_host(labels)
        labels_in_range(name, "labels", values, shape[axis], ignore_index)
    rows = shape[:axis] + shape[axis + 1 :]
    weight = call.weights("sample_weight", sample_weight, rows, "the rows")
    return Data(call, axis, data.rows._replace(labels=labels, weight=weight), ignored)


def unlabelled(
    call: Call, axis: Any, where: Any, temperature: Any, threshold: float | None = None
) -> Data:
    """Check rows without labels."""
    call.floating()
    axis = call.class_axis(axis)
    shape = call.shape
    if shape[axis] == 0:
        raise ValueError(
            f"{call.name}: {call.argument} has shape {shape}; expected at least one class along "
            f"axis {axis}; pass {call.argument} with classes."
        )
    rows = shape[:axis] + shape[axis + 1 :]
    temperature = call.temperature(temperature, rows, "the rows")
    where = call.mask(where)
    return Data(call, axis, Rows(call.array, None, None, where, temperature, threshold), None)
