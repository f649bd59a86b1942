"""Checks of targets and labels: class indices in range, probabilities in the logits' shape."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from softmaxkit._arguments import shown
from softmaxkit._dispatch import of_column, on_host

if TYPE_CHECKING:
    from softmaxkit._arguments import Call
    from softmaxkit.backends import Array

_DEFAULT_IGNORED = -100  # as a default, it says nothing about what a caller wants
_UNSIGNED: dict[int, np.dtype[Any]] = {4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}


def class_labels(
    call: Call, labels: Any, axis: int, ignore_index: int | None
) -> tuple[Array, int | None]:
    """Return class indices, and ignore_index; see `class_targets`."""
    given = call.companion("labels", of_column(labels))
    if given is None or call.backend.kind(given) != "int":
        received = "is None" if given is None else f"has dtype {given.dtype}"
        raise TypeError(
            f"{call.name}: labels {received}; expected integers, a class index for each row; pass "
            f"the index of the true class."
        )
    labels, _, _, ignored = class_targets(call, labels, axis, ignore_index, name="labels")
    return labels, ignored


def class_targets(
    call: Call, targets: Any, axis: int, ignore_index: int | None, *, name: str = "targets"
) -> tuple[Array, bool, str | None, int | None]:
    """Return the targets, whether they are class indices, `unseen`, and ignore_index.

    `unseen` is that of `Backend`. ignore_index is None if no label is ignored, which saves the
    arithmetic for it.
    """
    backend = call.backend
    targets = of_column(targets)
    readable = on_host(targets) and not backend.is_compiling()
    if isinstance(targets, list | tuple) and not targets:
        targets = np.zeros(0, np.int64)  # labels of no rows, which NumPy would make floats
    given_targets = targets
    targets = call.companion(name, targets)
    if targets is None:
        raise TypeError(
            f"{call.name}: targets is None; expected class indices or probabilities; pass them."
        )
    if type(ignore_index) is not int:
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral | None):
            raise TypeError(
                f"{call.name}: ignore_index is {shown(ignore_index)}; expected an int or None; "
                f"pass a label."
            )
        ignore_index = None if ignore_index is None else int(ignore_index)
    kind = backend.kind(targets)
    shape = call.shape
    given = backend.shape(targets)
    num_classes = call.number_of_classes(axis)
    if num_classes == 0:
        raise ValueError(
            f"{call.name}: logits has shape {shape}; expected at least one class along axis "
            f"{axis}; pass logits with classes."
        )
    if kind == "float":
        if not call.same_shape(given, shape):
            raise ValueError(
                f"{call.name}: targets has shape {given}; expected {shape} for probabilities, "
                f"which is the logits' shape; for class indices pass an integer dtype."
            )
        if ignore_index not in (None, _DEFAULT_IGNORED):
            raise ValueError(
                f"{call.name}: ignore_index is {ignore_index} beside probabilities; expected it "
                f"beside class indices only; leave rows out with a sample_weight of 0."
            )
        return targets, False, None, None
    rows = shape[:axis] + shape[axis + 1 :]
    if kind != "int":
        raise TypeError(
            f"{call.name}: targets has dtype {targets.dtype}; expected integers for class indices "
            f"or floats for probabilities; convert it to one of those."
        )
    if not call.same_shape(given, rows):
        remedy = "squeeze it"
        if name == "targets":
            remedy += ", or pass probabilities of the logits' shape"
        if call.same_shape(given, shape):
            remedy = "convert it to floats if it holds probabilities or a one-hot matrix"
            remedy = remedy if name == "targets" else "pass its argmax if it is a one-hot matrix"
        for other in (1, *range(len(shape))):  # first 1, torch's class axis
            if call.same_shape(given, shape[:other] + shape[other + 1 :]):
                remedy = f"pass axis={other} if that is the axis of the classes"
                break
        raise ValueError(
            f"{call.name}: {name} has shape {given}; expected {rows} for class indices along axis "
            f"{axis - len(shape)} of logits {shape}; {remedy}."
        )
    # Labels on the host can be read even while the logits are being traced.
    values = np.asarray(given_targets) if readable else backend.visible(targets)
    unseen, ignored = labels_in_range(call.name, name, values, num_classes, ignore_index)
    if ignored is not None and not -(2**31) <= ignored < 2**31:
        # JAX without 64-bit types cannot represent such a number, and has wrapped the labels.
        if unseen is None and values is not None:
            renamed = np.where(values == ignored, np.int64(-1), values.astype(np.int64))
            targets, ignored = call.companion(name, renamed), -1
        elif not -(2**63) <= ignored < 2**63:
            ignored = None
    return targets, True, unseen, ignored


def labels_in_range(
    call: str,
    name: str,
    values: np.ndarray | None,
    num_classes: int | None,
    ignore_index: int | None,
    ignorable: bool = True,
) -> tuple[str | None, int | None]:
    """Refuse the first label outside [0, num_classes) that is not ignore_index.

    `values` are the labels, None if they cannot be read. Return None or, if they could not be read,
    which call and argument they belong to; and ignore_index, or None if no label equals it.
    """
    if values is None or not isinstance(num_classes, int):  # None, or a symbol of jax.export
        return f"{call}: {name}", ignore_index
    if values.size == 0 or _all_in_range(values, num_classes):
        among = ignore_index is not None and 0 <= ignore_index < num_classes
        return None, ignore_index if among else None
    bad = (values < 0) | (values >= num_classes)
    if ignore_index is not None:
        bad &= values != ignore_index
    if not bad.any():
        return None, ignore_index
    first = np.unravel_index(int(bad.argmax()), bad.shape)
    where = f"{name}[{', '.join(str(int(i)) for i in first)}]" if first else name
    ignored = "" if ignore_index is None else f" or ignore_index {ignore_index}"
    remedy = ", or mark the row with ignore_index" if ignorable else ""
    raise IndexError(
        f"{call}: {where} is {values[first]}; expected a class index in [0, {num_classes})"
        f"{ignored}; correct the label{remedy}."
    )


def _all_in_range(values: np.ndarray, num_classes: int) -> bool:
    dtype = values.dtype
    if dtype.kind == "i" and dtype.isnative and dtype.itemsize >= 4 and num_classes < 1 << 31:
        # One pass checks both ends: as unsigned numbers, negative ones are at least 1 << 31. For 32
        # labels, argmax takes 0.4 µs and max 1.1; for many, both take the same.
        unsigned = values.view(_UNSIGNED[dtype.itemsize])
        return unsigned.item(unsigned.argmax()) < num_classes
    return bool(values.min() >= 0 and values.max() < num_classes)


def binary_targets(call: Call, targets: Any) -> Array:
    """Return the targets: probabilities, or 0 and 1, in the logits' shape."""
    targets = call.companion("targets", targets)
    if targets is None:
        raise TypeError(
            f"{call.name}: targets is None; expected probabilities or 0 and 1; pass them."
        )
    call.real_kind("targets", targets)
    shape, given = call.shape, call.backend.shape(targets)
    if not call.same_shape(given, shape):
        raise ValueError(
            f"{call.name}: targets has shape {given}; expected {shape}, the logits' shape: one "
            f"probability for each logit; reshape it, or one_hot the labels."
        )
    return targets
