"""A call: which backend its array belongs to, the checks of its arguments, and its result.

A frontend begins with ``call = begin("cross_entropy", "logits", logits)``, checks one argument
after another, as in ``call.mask(where)``, and ends with ``return call.loss(targets, options)``.

Each refusal is one line that names the call, the argument, what was received, what was expected,
and the remedy. It is a TypeError for kinds (array type, dtype), a ValueError for values and shapes,
an IndexError for class labels, and NumPy's AxisError for axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softmaxkit._dispatch import companion, resolve, type_name, usable
from softmaxkit._typing import Axis

if TYPE_CHECKING:
    from softmaxkit.backends import (
        ActivationOptions,
        Array,
        Backend,
        BinaryOptions,
        ClassOptions,
        DType,
    )

REDUCTIONS = ("none", "mean", "sum")
NORMALIZERS = ("weight", "count", "batch")
# NumPy is not asked about any other string: its TypeError cannot be caught while Dynamo traces.
_NUMPY_NAMES = ("f2", "f4", "f8", *(name for name in np.sctypeDict if isinstance(name, str)))
Shape = tuple[int | None, ...]


def shown(value: Any) -> str:
    """Return a received value as part of one line; an array, whose repr has many, by its type."""
    if hasattr(value, "dtype") and not isinstance(value, (type, np.generic)):
        return f"a {type_name(value)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


class Wanted(NamedTuple):
    """An array for which a call also returns the gradient: see `softmaxkit.gradients`."""

    array: Any
    cotangent: Any = None  # of an activation's result


def begin(name: str, argument: str, x: Any) -> Call:
    """Begin the call `name`; the array passed as `argument` decides which library computes it."""
    wanted = x if isinstance(x, Wanted) else None
    array = x if wanted is None else wanted.array
    backend, array = resolve(name, argument, array, recorders=True)
    return Call(name, argument, backend, array, wanted)


class Call:
    """A call on an array of some library."""

    def __init__(
        self, name: str, argument: str, backend: Backend, array: Array, wanted: Wanted | None
    ) -> None:
        self.name = name
        self.argument = argument  # the array's argument name
        self.backend = backend
        self.array = array
        self._wanted = wanted

    @property
    def shape(self) -> Shape:
        """Shape of the array; None for a length that is not known yet."""
        return self.backend.shape(self.array)

    def number_of_classes(self, axis: int) -> int | None:
        """Return the number of classes of a row; None if it is not known yet."""
        return self.shape[axis]

    def same_shape(self, a: Shape, b: Shape) -> bool:
        """Return whether two shapes are the same, or may be if lengths are not known."""
        if not self.backend.is_compiling() and a == b:
            return True
        same = self.backend.same_length
        return len(a) == len(b) and all(
            x is None or y is None or same(x, y) for x, y in zip(a, b, strict=True)
        )

    def recorded(self, function: Any, given: Mapping[str, Any]) -> Any:
        """Return what an array without a backend, a Proxy of torch.fx, records for a call.

        The function's arguments are taken from `given`.
        """
        code, kind = function.__code__, type(self.array)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        by_place = tuple(given[name] for name in names[: code.co_argcount])
        options = {
            name: given[name]
            for name in names[code.co_argcount :]
            if given[name] is not function.__kwdefaults__[name]
        }
        made = kind.__torch_function__(function, (kind,), by_place, options)
        if made is NotImplemented:
            resolve(self.name, self.argument, self.array)  # which refuses it
        return made

    # --- what is computed -----------------------------------------------------------------------
    def loss(self, targets: Array, options: ClassOptions | BinaryOptions) -> Any:
        """Return a loss, or (loss, gradient) if the gradient is wanted."""
        if self._wanted is None:
            return self.backend.loss(self.array, targets, options)
        return self.backend.value_and_grad(self.array, targets, options)

    def activation(self, options: ActivationOptions) -> Any:
        """Return an activation, or (value, vector-Jacobian product) if that is wanted."""
        if self._wanted is None:
            return self.backend.activation(self.name, self.array, options)
        outer = Call(f"vjp({self.name})", self.argument, self.backend, self.array, None)
        cotangent = outer.cotangent(self._wanted.cotangent, self._shape_of_result(options))
        return self.backend.vjp(self.name, self.array, cotangent, options)

    def _shape_of_result(self, options: ActivationOptions) -> Shape:
        shape = self.shape
        if self.name != "logsumexp":
            return shape
        over = (options.axis,) if isinstance(options.axis, int) else options.axis
        if options.keepdims:
            return tuple(1 if i in over else n for i, n in enumerate(shape))
        return tuple(n for i, n in enumerate(shape) if i not in over)

    # --- the array ------------------------------------------------------------------------------
    def real_kind(self, name: str, x: Array) -> str:
        """Return "bool", "int" or "float"; refuse dtypes without an order."""
        usable(self.name, name, self.backend, x)
        kind = self.backend.kind(x)
        if kind == "complex":
            raise TypeError(
                f"{self.name}: {name} has dtype {x.dtype}; expected real numbers; "
                f"pass the real part, or magnitudes."
            )
        if kind == "other":
            raise TypeError(
                f"{self.name}: {name} has dtype {x.dtype}; expected real numbers; "
                f"convert it to a floating dtype."
            )
        return kind

    def floating(self) -> None:
        """Refuse logits that are not floating: most often, targets were passed in their place."""
        if self.real_kind(self.argument, self.array) != "float":
            raise TypeError(
                f"{self.name}: {self.argument} has dtype {self.array.dtype}; expected a floating "
                f"dtype; convert it, and check that logits come before targets."
            )

    def class_axis(self, axis: Any) -> int:
        """Return the class axis of the array, counted from the front."""
        ndim = len(self.shape)
        if ndim == 0:
            raise np.exceptions.AxisError(
                f"{self.name}: {self.argument} is 0-d, and axis is {axis}; expected an array with "
                f"a class axis; pass one with at least one axis."
            )
        return one_axis(self.name, axis, ndim)

    def axes(self, axis: Axis) -> int | tuple[int, ...]:
        """Return `axis`, an int, a tuple of ints or None for all, counted from the front."""
        ndim = len(self.shape)
        if axis is None:
            axis = tuple(range(ndim))
        elif not isinstance(axis, tuple):
            return one_axis(self.name, axis, ndim)
        elif not axis:
            raise ValueError(
                f"{self.name}: axis is (); expected at least one axis; pass None for all."
            )
        axes = tuple(one_axis(self.name, one, ndim) for one in axis)
        if len(set(axes)) != len(axes):
            raise ValueError(
                f"{self.name}: axis is {axis}; expected different axes; name each once."
            )
        return axes[0] if len(axes) == 1 else axes

    def dtype(self, dtype: DType) -> DType:
        """Return this library's floating dtype for `dtype`, or None for None."""
        if dtype is None:
            return None
        try:
            numpys = isinstance(dtype, (type, np.dtype)) or (
                isinstance(dtype, str) and dtype in _NUMPY_NAMES
            )
            if not numpys and hasattr(dtype, "dtype"):
                raise TypeError(dtype)  # an array: libraries would take its dtype
            return self.backend.as_dtype(np.dtype(dtype).name if numpys else dtype, self.array)
        except (TypeError, ValueError):
            raise TypeError(
                f"{self.name}: dtype is {shown(dtype)}; expected a floating dtype of "
                f"{self.backend.LIBRARY}; pass one, or its name, such as 'float32'."
            ) from None

    # --- numbers --------------------------------------------------------------------------------
    def number(
        self, name: str, value: Any, low: float, high: float = np.inf, *, neutral: float | None
    ) -> Any:
        """Return a number in [low, high], or None if it is `neutral`; keep a 0-d array."""
        if type(value) is float and value == neutral:  # most often: the default
            return None
        value = as_number(value)
        if not isinstance(value, Real) and getattr(value, "shape", None) == (1,):
            value = as_number(value[0])
        if isinstance(value, Real) and not isinstance(value, bool):
            if not low <= float(value) <= high:
                wanted = f"in [{low:g}, {high:g}]" if high < np.inf else f"at least {low:g}"
                raise ValueError(
                    f"{self.name}: {name} is {value}; expected a number {wanted}; pass one."
                )
            return None if value == neutral else float(value)
        # No union: Dynamo cannot form one of NumPy's types.
        if getattr(value, "shape", None) == () and not isinstance(value, np.generic):
            value = self.companion(name, value)
            if self.backend.kind(value) not in ("int", "float"):
                raise TypeError(
                    f"{self.name}: {name} has dtype {value.dtype}; expected a number; "
                    f"pass a Python float."
                )
            return value
        shape = getattr(value, "shape", None)
        of_shape, expected = "", "a number"
        if shape is not None:
            of_shape, expected = f" of shape {tuple(shape)}", "a number or a 0-d array"
        raise TypeError(
            f"{self.name}: {name} is a {type_name(value)}{of_shape}; expected {expected}; "
            f"pass a Python float."
        )

    def temperature(self, value: Any, shape: Shape | None = None, target: str = "") -> Array:
        """Return a positive number, an array that broadcasts to the logits, or None for 1.

        If a `shape` is given, that of `target`, an array broadcasts to it instead.
        """
        if type(value) is float and value == 1.0:  # most often: the default
            return None
        value = as_number(value)
        if isinstance(value, Real) and not isinstance(value, bool):
            if not 0 < float(value) < np.inf:
                raise ValueError(
                    f"{self.name}: temperature is {value}; expected a positive number; "
                    f"pass one (for the limit 0 take the argmax)."
                )
            return None if value == 1 else float(value)
        value = self.companion("temperature", value)
        if value is None or self.real_kind("temperature", value) == "bool":
            received = "is None" if value is None else f"has dtype {value.dtype}"
            raise TypeError(
                f"{self.name}: temperature {received}; expected a positive number or an array of "
                f"them; pass 1.0 for none."
            )
        to = (self.shape, self.argument) if shape is None else (shape, target)
        self._broadcasts("temperature", value, *to)
        return value

    def normalizer(self, value: Any, reduction: str, default: str) -> Any:
        """Return a name, a positive number or a 0-d array; `default` for None."""
        choice(self.name, "reduction", reduction, REDUCTIONS)
        if value is None:
            return default
        if reduction != "mean":
            raise ValueError(
                f"{self.name}: normalizer is given with reduction={reduction!r}; expected "
                f"reduction='mean', which it divides; leave one of the two out."
            )
        if isinstance(value, str):
            return choice(self.name, "normalizer", value, NORMALIZERS)
        if isinstance(value, Real) and not isinstance(value, bool):
            if not float(value) > 0:
                raise ValueError(
                    f"{self.name}: normalizer is {value}; expected a positive number; "
                    f"pass the count to divide the sum by."
                )
            return float(value)
        value = self.companion("normalizer", value)
        if self.real_kind("normalizer", value) == "bool":
            raise TypeError(
                f"{self.name}: normalizer has dtype {value.dtype}; expected a positive number; "
                f"pass the count to divide the sum by."
            )
        if self.backend.shape(value) != ():
            raise ValueError(
                f"{self.name}: normalizer has shape {self.backend.shape(value)}; expected a number "
                f"or a 0-d array; pass one number for the whole loss."
            )
        return value

    # --- arrays beside the array ----------------------------------------------------------------
    def companion(self, name: str, value: Any) -> Array:
        """Return `value` as an array of the same library and device; None stays None."""
        return companion(self.name, name, value, self.backend, self.array)

    def _broadcasts(self, name: str, value: Array, shape: Shape, target: str) -> None:
        given, same = self.backend.shape(value), self.backend.same_length
        tail = shape[len(shape) - len(given) :]
        if len(given) > len(shape) or any(
            not (same(have, 1) or same(have, want))
            for have, want in zip(given, tail, strict=True)
            if have is not None and want is not None
        ):
            long = [n for n in shape if n != 1]
            remedy = "squeeze it" if [n for n in given if n != 1] == long else "reshape it"
            raise ValueError(
                f"{self.name}: {name} has shape {given}; expected one that broadcasts to the shape "
                f"of {target}, {shape}; {remedy}."
            )

    def mask(self, where: Any, shape: Shape | None = None, target: str = "") -> Array:
        """Return `where` as a boolean array of the library, or None; see `temperature`."""
        if where is None:
            return None
        where = self.companion("where", where)
        if self.backend.kind(where) != "bool":
            raise TypeError(
                f"{self.name}: where has dtype {where.dtype}; expected bool, True where an entry "
                f"takes part; compare it (where != 0)."
            )
        to = (self.shape, self.argument) if shape is None else (shape, target)
        self._broadcasts("where", where, *to)
        return where

    def weights(self, name: str, value: Any, shape: Shape, target: str) -> Array:
        """Return real numbers that broadcast to `shape`, the shape of `target`; or None."""
        if value is None:
            return None
        value = self.companion(name, value)
        self.real_kind(name, value)
        self._broadcasts(name, value, shape, target)
        return value

    def class_vector(self, name: str, value: Any, axis: int, *, one_for_all: bool = False) -> Array:
        """Return one number per class, (C,), or None; also a single number if `one_for_all`."""
        if value is None:
            return None
        value = self.companion(name, value)
        if self.real_kind(name, value) == "bool":
            raise TypeError(
                f"{self.name}: {name} has dtype {value.dtype}; expected numbers, one for each "
                f"class; to leave classes out pass where=."
            )
        shape, given = self.shape, self.backend.shape(value)
        if one_for_all and given == ():
            return value
        if len(given) != 1 or (given[0] is not None and shape[axis] not in (None, given[0])):
            raise ValueError(
                f"{self.name}: {name} has shape {given}; expected ({shape[axis]},), one number for "
                f"each class along axis {axis} of logits {shape}; pass one for every class."
            )
        return value

    def cotangent(self, value: Any, shape: Shape) -> Array:
        """Return the cotangent of a result, whose shape it must have."""
        if self.backend.kind(self.array) != "float":
            raise TypeError(
                f"{self.name}: {self.argument} has dtype {self.array.dtype}; expected a floating "
                f"dtype; convert it."
            )
        value = self.companion("cotangent", value)
        if value is None or self.backend.kind(value) != "float":
            received = "is None" if value is None else f"has dtype {value.dtype}"
            raise TypeError(
                f"{self.name}: cotangent {received}; expected floats; "
                f"pass an array of shape {shape}."
            )
        if not self.same_shape(self.backend.shape(value), shape):
            raise ValueError(
                f"{self.name}: cotangent has shape {self.backend.shape(value)}; expected {shape}, "
                f"that of the result; broadcast it."
            )
        return value


# --- plain values ---------------------------------------------------------------------------------
def one_axis(call: str, axis: Any, ndim: int, name: str = "axis") -> int:
    """Return `axis` counted from the front."""
    if type(axis) is not int and (isinstance(axis, bool) or not isinstance(axis, Integral)):
        raise TypeError(f"{call}: {name} is {shown(axis)}; expected an int; pass one, such as -1.")
    axis = int(axis)
    if not -ndim <= axis < ndim:
        raise np.exceptions.AxisError(f"{call}: {name} is {axis}; expected {_axis_range(ndim)}.")
    return axis % ndim


def _axis_range(ndim: int) -> str:
    if ndim == 0:
        return "None for a 0-d array; pass axis=None, or an array with a class axis"
    return f"an axis of a {ndim}-d array, from {-ndim} to {ndim - 1}; pass one of those"


def as_number(value: Any) -> Any:
    """Return a 0-d NumPy array of a real number as a Python number, anything else unchanged."""
    if type(value) is np.ndarray and value.shape == ():
        number = value.item()
        if isinstance(number, Real) and not isinstance(number, bool):
            return number
    return value


def count(call: str, name: str, value: Any, remedy: str) -> None:
    """Refuse anything but an int of at least 1."""
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
