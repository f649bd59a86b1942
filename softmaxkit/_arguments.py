"""Argument checks that the frontends share: each refusal is one line that says the remedy.

The line names the call, the argument, what came, what was expected, and what to do. TypeError for
kinds (array type, dtype), ValueError for values and shapes, IndexError for class labels, NumPy's
AxisError for axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

from softmaxkit._dispatch import companion, type_name, usable

if TYPE_CHECKING:
    from softmaxkit.backends import Array, Backend, DType

REDUCTIONS = ("none", "mean", "sum")
NORMALIZERS = ("weight", "count", "batch")
# What else is a string, NumPy is not asked: its TypeError cannot be caught while Dynamo traces.
_NUMPY_NAMES = ("f2", "f4", "f8", *(name for name in np.sctypeDict if isinstance(name, str)))
Axis = int | tuple[int, ...] | None
Shape = tuple[int | None, ...]


def shown(value: Any) -> str:
    """Return what came as part of one line: arrays, which have many, by their type."""
    if hasattr(value, "dtype") and not isinstance(value, (type, np.generic)):
        return f"a {type_name(value)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- axes and dtypes ------------------------------------------------------------------------------
def one_axis(call: str, axis: Any, ndim: int, name: str = "axis") -> int:
    """Return `axis` counted from the front."""
    if type(axis) is not int and (isinstance(axis, bool) or not isinstance(axis, Integral)):
        raise TypeError(f"{call}: {name} is {shown(axis)}; expected an int; pass one, such as -1.")
    axis = int(axis)
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(f"{call}: {name} is {axis}; expected {_axis_range(ndim)}.")
    return axis % ndim


def class_axis(call: str, axis: Any, ndim: int, name: str) -> int:
    """Return the class axis of `name`, counted from the front."""
    if ndim == 0:
        raise np.exceptions.AxisError(
            f"{call}: axis is {axis}; expected an axis of an array with a class axis, and {name} "
            f"is 0-d; pass an array with a class axis."
        )
    return one_axis(call, axis, ndim)


def any_axes(call: str, axis: Axis, ndim: int) -> int | tuple[int, ...]:
    """Return `axis`, an int, a tuple of ints or None for all, counted from the front."""
    if axis is None:
        axis = tuple(range(ndim))
    elif not isinstance(axis, tuple):
        return one_axis(call, axis, ndim)
    elif not axis:
        raise ValueError(f"{call}: axis is (); expected at least one axis; pass None for all.")
    axes = tuple(one_axis(call, one, ndim) for one in axis)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{call}: axis is {axis}; expected different axes; name each once.")
    return axes[0] if len(axes) == 1 else axes


def _axis_range(ndim: int) -> str:
    if ndim == 0:
        return "None for a 0-d array; pass axis=None, or an array with a class axis"
    return f"an axis of a {ndim}-d array, from {-ndim} to {ndim - 1}; pass one of those"


def real_kind(call: str, name: str, backend: Backend, x: Array) -> str:
    """Return "bool", "int" or "float", and refuse what has no order."""
    usable(call, name, backend, x)
    kind = backend.kind(x)
    if kind == "complex":
        raise TypeError(
            f"{call}: {name} has dtype {x.dtype}; expected real numbers; "
            f"pass the real part, or magnitudes."
        )
    if kind == "other":
        raise TypeError(
            f"{call}: {name} has dtype {x.dtype}; expected real numbers; "
            f"convert it to a floating dtype."
        )
    return kind


def float_logits(call: str, backend: Backend, logits: Array) -> None:
    """Refuse logits that are not floating: a loss on integers is most often a swapped argument."""
    if real_kind(call, "logits", backend, logits) != "float":
        raise TypeError(
            f"{call}: logits has dtype {logits.dtype}; expected a floating dtype; "
            f"convert it, and check that logits come before targets."
        )


def float_dtype(call: str, backend: Backend, dtype: DType, like: Array) -> DType:
    """Return this library's floating dtype for `dtype`, or None for None."""
    if dtype is None:
        return None
    try:
        numpys = isinstance(dtype, (type, np.dtype)) or (
            isinstance(dtype, str) and dtype in _NUMPY_NAMES
        )
        if not numpys and hasattr(dtype, "dtype"):
            raise TypeError(dtype)  # an array, which libraries take for its dtype
        return backend.as_dtype(np.dtype(dtype).name if numpys else dtype, like)
    except (TypeError, ValueError):
        raise TypeError(
            f"{call}: dtype is {shown(dtype)}; expected a floating dtype of {backend.LIBRARY}; "
            f"pass one, or its name, such as 'float32'."
        ) from None


# --- numbers --------------------------------------------------------------------------------------
def number(
    call: str,
    name: str,
    backend: Backend,
    value: Any,
    logits: Array,
    low: float,
    high: float,
    neutral: float | None,
) -> Any:
    """Return `value` within [low, high], or None where it is `neutral`; a 0-d array as an array."""
    if type(value) is float and value == neutral:  # most often: the default
        return None
    value = as_number(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        if not low <= float(value) <= high:
            wanted = f"in [{low:g}, {high:g}]" if high < np.inf else f"at least {low:g}"
            raise ValueError(f"{call}: {name} is {value}; expected a number {wanted}; pass one.")
        return None if value == neutral else float(value)
    # No union: Dynamo cannot form one of NumPy's types.
    if getattr(value, "shape", None) == () and not isinstance(value, np.generic):
        value = companion(call, name, value, backend, logits)
        if backend.kind(value) not in ("int", "float"):
            raise TypeError(
                f"{call}: {name} has dtype {value.dtype}; expected a number; pass a Python float."
            )
        return value
    raise TypeError(
        f"{call}: {name} is a {type_name(value)}; expected a number; pass a Python float."
    )


def as_number(value: Any) -> Any:
    """Return a 0-d NumPy array of real numbers as a Python number."""
    if type(value) is np.ndarray and value.shape == ():
        number = value.item()
        if isinstance(number, Real) and not isinstance(number, bool):
            return number
    return value


def temperature(
    call: str, backend: Backend, value: Any, logits: Array, target: str = "logits"
) -> Array:
    """Return a positive number, an array that broadcasts to the logits, or None for 1."""
    if type(value) is float and value == 1.0:  # most often: the default
        return None
    value = as_number(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        if not 0 < float(value) < np.inf:
            raise ValueError(
                f"{call}: temperature is {value}; expected a positive number; "
                f"pass one (for the limit 0 take the argmax)."
            )
        return None if value == 1 else float(value)
    value = companion(call, "temperature", value, backend, logits)
    if value is None or real_kind(call, "temperature", backend, value) == "bool":
        received = "is None" if value is None else f"has dtype {value.dtype}"
        raise TypeError(
            f"{call}: temperature {received}; expected a positive number or an array of them; "
            f"pass 1.0 for none."
        )
    broadcastable(call, "temperature", backend, value, backend.shape(logits), target)
    return value


def count(call: str, name: str, value: Any, remedy: str) -> None:
    """Refuse what is not an int of at least 1."""
    is_int = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_int or value < 1:
        kind = ValueError if is_int else TypeError
        raise kind(f"{call}: {name} is {shown(value)}; expected an int of at least 1; {remedy}.")


def flag(call: str, name: str, value: Any) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"{call}: {name} is {shown(value)}; expected True or False; pass one of them."
        )
    return bool(value)


def choice(call: str, name: str, value: Any, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        names = ", ".join(repr(one) for one in allowed)
        raise ValueError(
            f"{call}: {name} is {shown(value)}; expected one of {names}; pass one of them."
        )
    return value


def normalizer(call: str, backend: Backend, value: Any, reduction: str, logits: Array) -> Any:
    """Return None, a name, a positive number, or a 0-d array."""
    choice(call, "reduction", reduction, REDUCTIONS)
    if value is None:
        return None
    if reduction != "mean":
        raise ValueError(
            f"{call}: normalizer is given with reduction={reduction!r}; expected reduction='mean', "
            f"which it divides; leave one of the two out."
        )
    if isinstance(value, str):
        return choice(call, "normalizer", value, NORMALIZERS)
    if isinstance(value, Real) and not isinstance(value, bool):
        if not float(value) > 0:
            raise ValueError(
                f"{call}: normalizer is {value}; expected a positive number; "
                f"pass the count to divide the sum by."
            )
        return float(value)
    value = companion(call, "normalizer", value, backend, logits)
    if real_kind(call, "normalizer", backend, value) == "bool":
        raise TypeError(
            f"{call}: normalizer has dtype {value.dtype}; expected a positive number; "
            f"pass the count to divide the sum by."
        )
    if backend.shape(value) != ():
        raise ValueError(
            f"{call}: normalizer has shape {backend.shape(value)}; expected a number or a 0-d "
            f"array; pass one number for the whole loss."
        )
    return value


# --- arrays beside the logits ---------------------------------------------------------------------
def broadcastable(
    call: str, name: str, backend: Backend, value: Array, shape: Shape, target: str
) -> None:
    """Refuse a `value` that does not broadcast to `shape`."""
    given = backend.shape(value)
    tail = shape[len(shape) - len(given) :]
    if len(given) > len(shape) or any(
        have != 1 and have != want  # `in` does not know compilers' symbols
        for have, want in zip(given, tail, strict=True)
        if have is not None and want is not None
    ):
        raise ValueError(
            f"{call}: {name} has shape {given}; expected one that broadcasts to the shape of "
            f"{target}, {shape}; reshape it."
        )


def mask(call: str, backend: Backend, where: Any, x: Array, target: str) -> Array:
    """Return `where` as a boolean array of the library, or None."""
    where = companion(call, "where", where, backend, x)
    if where is None:
        return None
    if backend.kind(where) != "bool":
        raise TypeError(
            f"{call}: where has dtype {where.dtype}; expected bool, True where an entry takes "
            f"part; compare it (where != 0)."
        )
    broadcastable(call, "where", backend, where, backend.shape(x), target)
    return where


def class_vector(
    call: str,
    name: str,
    backend: Backend,
    value: Any,
    logits: Array,
    axis: int,
    one_for_all: bool = False,
) -> Array:
    """Return one number per class, (C,), or None; also a single number if `one_for_all`."""
    value = companion(call, name, value, backend, logits)
    if value is None:
        return None
    if real_kind(call, name, backend, value) == "bool":
        raise TypeError(
            f"{call}: {name} has dtype {value.dtype}; expected numbers, one for each class; "
            f"to leave classes out pass where=."
        )
    shape = backend.shape(logits)
    given = backend.shape(value)
    if one_for_all and given == ():
        return value
    if len(given) != 1 or (given[0] is not None and shape[axis] not in (None, given[0])):
        raise ValueError(
            f"{call}: {name} has shape {given}; expected ({shape[axis]},), one number for each "
            f"class along axis {axis} of logits {shape}; pass one for every class."
        )
    return value


def cotangent(call: str, backend: Backend, value: Any, x: Array, shape: Shape) -> Array:
    """Return the derivative by a result of this shape, which has it too."""
    value = companion(call, "cotangent", value, backend, x)
    if value is None or backend.kind(value) != "float":
        received = "is None" if value is None else f"has dtype {value.dtype}"
        raise TypeError(
            f"{call}: cotangent {received}; expected floats; pass an array of shape {shape}."
        )
    if not same_shape(backend.shape(value), shape):
        raise ValueError(
            f"{call}: cotangent has shape {backend.shape(value)}; expected {shape}, that of the "
            f"result; broadcast it."
        )
    return value


def row_weight(
    call: str, backend: Backend, value: Any, logits: Array, shape: Shape, target: str
) -> Array:
    """Return `sample_weight`, which broadcasts to `shape`, or None."""
    value = companion(call, "sample_weight", value, backend, logits)
    if value is None:
        return None
    real_kind(call, "sample_weight", backend, value)
    broadcastable(call, "sample_weight", backend, value, shape, target)
    return value


def same_shape(a: Shape, b: Shape) -> bool:
    return a == b or (
        len(a) == len(b)
        and all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))
    )
