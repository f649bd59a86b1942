"""Rows whose classes lie in shards, one for each process or device of a group.

Every process makes the same call with its own shard of the logits, and gets the same losses. Three
collectives tell it what it has to know of the other shards. They send a few numbers for each row,
however many classes there are:

1. the lengths of the shards and, if there is a mask, how many classes of each row take part
   (`Place`); on JAX, where the shards are equally long, only the latter;
2. the maximum of each row;
3. the sums of the terms of `softmaxkit._statistics.merge`.

The gradient by a shard's logits is computed from the logits and these sums, without another
collective.

`ops` are the array functions of a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from softmaxkit import _statistics
from softmaxkit._activations import finite, masked, scaled, shift_of
from softmaxkit._axes import no_classes
from softmaxkit._losses import Classes
from softmaxkit._statistics import Part, Request, Rows

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

_INF = float("inf")


class Group(Protocol):
    """The shards of the same rows, and their collectives."""

    def sum(self, x: Array) -> Array:
        """Return the sum over the shards, for each of them."""

    def max(self, x: Array) -> Array: ...
    def for_each(self, value: Any) -> Any:
        """Return a value that all shards have in common and that each uses with its own classes.

        Its gradient is then summed over the shards.
        """


class Place(NamedTuple):
    """Where a shard lies among the classes of all shards."""

    first: Any  # the index of its first class: a number, or a 0-d array
    number: Any  # how many classes all shards have: a number, or a 0-d array
    taking_part: Array | None  # how many of them take part in each row; None without a mask


class Shard(Classes):
    """The classes of a shard whose logits the kernel masks and scales itself."""

    def __init__(self, ops: ArrayFunctions, group: Group, place: Place, axis: int) -> None:
        super().__init__(ops, axis)
        self._group, self._place = group, place
        # The weights of the rows: first what this shard adds to them; then the sum over the shards,
        # which the kernel computes together with its own sums, to save a collective.
        self._weight: Array | None = None
        self._mass: Any = None  # Σ w over the classes of all shards

    def masked_and_scaled(
        self, logits: Array, where: Array | None, temperature: Any
    ) -> tuple[Array, Array | None, Array | None]:
        return logits, None, self._empty()

    def _empty(self) -> Array | None:
        taking_part = self._place.taking_part
        return None if taking_part is None else self._ops.equal(taking_part, 0)

    def number(self, x: Array, like: Array) -> Any:
        number = self._place.number
        return self._ops.astype(number, like.dtype) if self._ops.is_array(number) else number

    def taking_part(self, part: Array) -> Array:
        return self._ops.astype(self._place.taking_part, part.dtype)

    def for_each(self, value: Any) -> Any:
        return self._group.for_each(value)

    def weight_at(self, labels: Array, weight: Array) -> Array:
        ops, count = self._ops, self._ops.shape(weight)[0]
        labels = self.labels_here(labels)
        if count == 0:
            self._weight = ops.astype(labels, weight.dtype) * 0.0
        else:
            here = (labels >= 0) & (labels < count)
            self._weight = ops.where(here, ops.take(weight, ops.where(here, labels, 0)), 0.0)
        return self._weight

    def weight_over(self, weighted: Array) -> Array:
        self._weight = super().weight_over(weighted)
        return self._weight

    def dot_with_empty(self, dot: Array, share: Array, empty: Array) -> Array:
        return self._ops.where(empty & ~self._ops.equal(self._mass, 0), -_INF, dot)

    def weight_of_rows(self, weight: Any) -> Any:
        return weight if self._weight is None else self._weight

    def labels_here(self, labels: Array) -> Array:
        """Return labels as indices into this shard; those of other shards are out of range."""
        return labels - self._place.first

    def whole(self, part: Part, temperature: Any) -> Part:
        """Return what whole rows reduce to, given their part in this shard."""
        top = self._group.max(part.top)
        terms = _statistics.terms(self._ops, part, top, temperature)
        *sums, self._weight = summed(self._ops, self._group, (*terms, self._weight))
        whole = _statistics.of_terms(top, sums)
        self._mass = whole.mass
        return whole


class ShardOfLogits(Shard):
    """A shard whose logits exist as an array, and the kernel that reduces their rows."""

    def __init__(
        self,
        ops: ArrayFunctions,
        statistics: Callable[..., tuple[Rows, Array | None]],
        group: Group,
        place: Place,
        axis: int,
    ) -> None:
        super().__init__(ops, group, place, axis)
        self._statistics = statistics

    def masked_and_scaled(
        self, logits: Array, where: Array | None, temperature: Any
    ) -> tuple[Array, Array | None, Array | None]:
        ops, axis, x, empty = self._ops, self._axis, logits, self._empty()
        if empty is not None:
            x = masked(ops, ops.compute(x), axis, where, empty)
        if temperature is None:
            self._top = self._maximum(x)
            return x, None, empty
        x = ops.compute(x)
        if ops.is_array(temperature):
            temperature = ops.compute_like(temperature, x)
        top = self._maximum(x)
        base = finite(ops, top)
        self._top = top - base
        x = scaled(ops, x, axis, self._group.for_each(temperature), base)
        return x, shift_of(ops, axis, temperature, base), empty

    def _maximum(self, x: Array) -> Array:
        ops, axis = self._ops, self._axis
        x = ops.stop_gradient(x)
        if no_classes(ops, x, axis):
            return self._group.max(ops.sum(ops.compute(x), axis) - _INF)
        return self._group.max(ops.compute(ops.amax(x, axis)))

    def row_statistics(self, x: Array, request: Request, lse: bool, keep: bool) -> tuple[Rows, Any]:
        """Reduce whole rows to `Rows`: see `softmaxkit.backends.Kernels`."""
        if request.labels is not None:
            request = request._replace(labels=self.labels_here(request.labels))
        rows, self._weight = self._statistics(
            *(x, request, self._top, self._weight, self._group, self._place.number)
        )
        self._mass = rows.mass
        return rows, None


def summed(
    ops: ArrayFunctions, group: Group, columns: Sequence[Array | None]
) -> list[Array | None]:
    """Sum columns of one number per row over the shards, in one collective; None stays None."""
    there = [one for one in columns if one is not None]
    sums = iter(group.sum(ops.concat([one[None, ...] for one in there])))
    return [None if one is None else next(sums) for one in columns]
