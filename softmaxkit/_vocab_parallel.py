"""Cross-entropy of logits whose classes lie in shards: the checks of the façades' functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from softmaxkit._arguments import Call
from softmaxkit._dispatch import resolve, type_name
from softmaxkit._targets import class_targets
from softmaxkit.backends import ClassOptions

if TYPE_CHECKING:
    from softmaxkit._shard import Place
    from softmaxkit.backends import Array


class Shards(Protocol):
    """What a backend's module `shards` offers; `group` is what its library calls one."""

    def place(self, group: Any, logits: Array, axis: int, where: Array | None) -> Place:
        """Return where the shard is among the classes, and the counts of the mask."""

    def weights_here(self, weight: Array, group: Any, place: Place, length: int) -> Array:
        """Return the weights of the shard's classes, as many as `length`, among those of all."""

    def loss(
        self, logits: Array, targets: Array, options: ClassOptions, group: Any, place: Place
    ) -> Array:
        """Return the loss, the same in every shard; class weights are those of the shard."""


class _Shard(Call):
    """A call on a shard, whose classes are some of those of the rows."""

    place: Place

    def number_of_classes(self, axis: int) -> int | None:
        number = self.place.number
        return number if isinstance(number, int) else None

    def class_weights(self, shards: Shards, group: Any, value: Any, axis: int) -> Any:
        """Return the weights of the shard's classes, given those, or those of all classes."""
        weight = self.companion("weight", value)
        if weight is None:
            return None
        if self.real_kind("weight", weight) == "bool":
            raise TypeError(
                f"{self.name}: weight has dtype {weight.dtype}; expected numbers, one for each "
                f"class; to leave classes out pass where=."
            )
        here, number = self.shape[axis], self.number_of_classes(axis)
        given = self.backend.shape(weight)
        if len(given) != 1 or (number is not None and given[0] not in (here, number)):
            every = "C" if number is None else number
            raise ValueError(
                f"{self.name}: weight has shape {given}; expected ({every},) for all classes or "
                f"({here},) for those of the shard; pass one number for every class."
            )
        assert here is not None
        if given[0] == here and here != number:
            return weight
        return shards.weights_here(weight, group, self.place, here)


def cross_entropy(
    shards: Shards, library: str, logits_shard: Any, targets: Any, group: Any, **given: Any
) -> Any:
    """Return the loss; `given` are the options of `softmaxkit.cross_entropy`."""
    call = begin(_Shard, "vocab_parallel_cross_entropy", "logits_shard", logits_shard, library)
    call.floating()
    axis = call.class_axis(given["axis"])
    rows = call.shape[:axis] + call.shape[axis + 1 :]
    where = call.mask(given["where"])
    one_for_all = call.shape[:axis] + (1,) + call.shape[axis + 1 :]
    temperature = call.temperature(given["temperature"], one_for_all, "the rows")
    call.place = shards.place(group, call.array, axis, where)
    targets, is_index, unseen, ignore_index = class_targets(
        call, targets, axis, given["ignore_index"]
    )
    reduction = given["reduction"]
    normalizer = call.normalizer(given["normalizer"], reduction, "weight" if is_index else "count")
    smoothing, z_loss = given["label_smoothing"], given["z_loss"]
    options = ClassOptions(
        axis=axis,
        weight=call.class_weights(shards, group, given["weight"], axis),
        sample_weight=call.weights(
            "sample_weight", given["sample_weight"], rows, "the unreduced loss"
        ),
        where=where,
        ignore_index=ignore_index,
        label_smoothing=call.number("label_smoothing", smoothing, 0.0, 1.0, neutral=0.0),
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(given["dtype"]),
        unseen=unseen,
        z_loss=call.number("z_loss", z_loss, 0.0, neutral=0.0),
    )
    return shards.loss(call.array, targets, options, group, call.place)


def begin(kind: Any, name: str, argument: str, x: Any, library: str) -> Any:
    """Begin a call on an array of that library."""
    backend, array = resolve(name, argument, x)
    if backend.LIBRARY != library:
        raise TypeError(
            f"{name}: {argument} is a {type_name(x)} ({backend.LIBRARY}); expected an array of "
            f"{library}; convert it."
        )
    return kind(name, argument, backend, array, None)
