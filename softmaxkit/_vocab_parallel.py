"""Cross-entropy over classes that lie in shards: the checks of the façades' functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from softmaxkit._arguments import Call, count
from softmaxkit._dispatch import resolve, type_name
from softmaxkit._product import CHUNK_LOGITS, FEWEST_ROWS, Product
from softmaxkit._targets import class_targets
from softmaxkit.backends import ClassOptions, LinearOptions, Operands

if TYPE_CHECKING:
    from softmaxkit._arguments import Shape
    from softmaxkit._shard import Place
    from softmaxkit.backends import Array


_FEWEST_CLASSES = 64  # of a block whose logits are computed at a time


class Shards(Protocol):
    """What a backend's module `shards` offers.

    A `group` is what its library calls the holders of the shards: a process group, a mesh axis.
    """

    LIBRARY: str

    def place(self, group: Any, like: Array, length: int, where: Array | None, axis: int) -> Place:
        """Return where a shard of this length lies, and how many classes a mask leaves."""

    def weights_here(self, weight: Array, group: Any, place: Place, length: int) -> Array:
        """Return the weights of the `length` classes of a shard, given those of all classes."""

    def loss(
        self, logits: Array, targets: Array, options: ClassOptions, group: Any, place: Place
    ) -> Array:
        """Return the loss, the same for every shard; `options.weight` is that of its classes."""

    def linear_loss(
        self, operands: Operands, targets: Array, options: LinearOptions, group: Any, place: Place
    ) -> Array:
        """Do the same for logits that are a product.

        Only `chunk_size` rows or, as the backend prefers, `block_size` classes of the logits exist
        at a time.
        """


class _Shard(Call):
    """A call whose logits are a shard: some of the classes of each row."""

    shards: Shards
    group: Any
    place: Place

    def number_of_classes(self, axis: int) -> int | None:
        number = self.place.number
        return number if isinstance(number, int) else None

    def options(
        self, targets: Any, axis: int, shape_of_temperature: Shape, given: dict[str, Any]
    ) -> tuple[Array, ClassOptions]:
        """Return the checked targets and options, after asking the other shards for `place`."""
        shape = self.shape
        rows, length = shape[:axis] + shape[axis + 1 :], shape[axis]
        assert length is not None
        smoothing, z_loss, reduction = (
            given[name] for name in ("label_smoothing", "z_loss", "reduction")
        )
        where = given["where"]
        options = ClassOptions(
            axis=axis,
            weight=None,
            sample_weight=self.weights(
                "sample_weight", given["sample_weight"], rows, "the unreduced loss"
            ),
            where=where,
            ignore_index=None,
            label_smoothing=self.number("label_smoothing", smoothing, 0.0, 1.0, neutral=0.0),
            temperature=self.temperature(given["temperature"], shape_of_temperature, "the rows"),
            reduction=reduction,
            normalizer=self.normalizer(given["normalizer"], reduction, "weight"),
            dtype=self.dtype(given["dtype"]),
            unseen=None,
            z_loss=self.number("z_loss", z_loss, 0.0, neutral=0.0),
        )
        if where is not None:
            where = where[(None,) * (len(shape) - len(self.backend.shape(where))) + (...,)]
        self.place = self.shards.place(self.group, self.array, length, where, axis)
        targets, is_index, unseen, ignore_index = class_targets(
            self, targets, axis, given["ignore_index"]
        )
        if given["normalizer"] is None and not is_index:
            options = options._replace(normalizer="count")
        return targets, options._replace(
            weight=self._weight(given["weight"], axis),
            ignore_index=ignore_index,
            unseen=unseen,
        )

    def _weight(self, value: Any, axis: int) -> Any:
        """Return the weights of the shard's classes, given these or the weights of all classes."""
        weight = self.companion("weight", value)
        if weight is None:
            return None
        if self.real_kind("weight", weight) == "bool":
            raise TypeError(
                f"{self.name}: weight has dtype {weight.dtype}; expected numbers, one for each "
                f"class; to leave classes out pass where=."
            )
        here, number = self.shape[axis], self.number_of_classes(axis)
        assert here is not None
        shape = self.backend.shape(weight)
        if len(shape) != 1 or (number is not None and shape[0] not in (here, number)):
            every = "C" if number is None else number
            raise ValueError(
                f"{self.name}: weight has shape {shape}; expected ({every},) for all classes or "
                f"({here},) for those of the shard; pass one number for every class."
            )
        if shape[0] == here != number:
            return weight
        return self.shards.weights_here(weight, self.group, self.place, here)

    def belongs_to(self, shards: Shards, group: Any, x: Any) -> None:
        """Keep the group and the library that has it; refuse an array of another library."""
        self.shards, self.group, library = shards, group, shards.LIBRARY
        if library != self.backend.LIBRARY:
            raise TypeError(
                f"{self.name}: {self.argument} is a {type_name(x)} ({self.backend.LIBRARY}); "
                f"expected an array of {library}; convert it."
            )
        if hasattr(type(x), "device_mesh"):
            raise TypeError(
                f"{self.name}: {self.argument} is a {type_name(x)}; expected the plain tensor of "
                f"this process's classes; pass its to_local(), or call softmaxkit."
                f"{self.name.removeprefix('vocab_parallel_')} with the DTensor."
            )


class _ShardOfProduct(_Shard, Product):
    """A call whose shard of the logits is a product."""


def cross_entropy(shards: Shards, given: tuple[Any, Any, Any], **options: Any) -> Any:
    """Return the loss; `given` is logits, targets and a group, the options are the façades'."""
    name, (logits, targets, group) = "vocab_parallel_cross_entropy", given
    backend, array = resolve(name, "logits_shard", logits)
    call = _Shard(name, "logits_shard", backend, array, None)
    call.belongs_to(shards, group, logits)
    call.floating()
    axis = call.class_axis(options.pop("axis"))
    shape = call.shape
    options["where"] = call.mask(options["where"])
    one_for_all = (*shape[:axis], 1, *shape[axis + 1 :])
    targets, of_logits = call.options(targets, axis, one_for_all, options)
    return shards.loss(array, targets, of_logits, group, call.place)


def linear_cross_entropy(
    shards: Shards, operands: tuple[Any, Any, Any], given: tuple[Any, Any], **options: Any
) -> Any:
    """Return the loss of a product; `given` is targets and a group."""
    targets, group = given
    call = _ShardOfProduct.begin("vocab_parallel_linear_cross_entropy", *operands)
    call.belongs_to(shards, group, operands[0])
    shape, size = call.shape, options.pop("chunk_size")
    axis, rows, length = len(shape) - 1, shape[:-1], shape[-1]
    options["where"] = call.mask(options["where"], (length,), "the classes of the shard")
    softcap = call.softcap(options.pop("softcap"))
    every = 1
    for one in rows:
        every *= one or 1
    chunk = max(CHUNK_LOGITS // max(length or 1, 1), FEWEST_ROWS)
    block = max(CHUNK_LOGITS // max(every, 1), _FEWEST_CLASSES)
    if size is not None:
        remedy = "pass how many rows or classes exist at a time, or None"
        count(call.name, "chunk_size", size, remedy)
        chunk = block = int(size)
    targets, of_logits = call.options(targets, axis, rows, options)
    linear = LinearOptions(of_logits, softcap, chunk, block)
    return shards.linear_loss(call.operands, targets, linear, group, call.place)
