"""What an adapter is: a library's arrays there and back, its dtypes, transforms, autodiff."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import softmaxkit
from softmaxkit.conformance.case import OPERATIONS, Case

Function = Callable[..., Any]

# What a library may lack, and what is then not run; `Adapter.lacks` gives the reason.
FEATURES = {
    "float16": "cases in float16",
    "bfloat16": "cases in bfloat16",
    "tracing": "every case compiled",
    "autodiff": "gradients by temperature (those by logits are everywhere)",
    "labels": "a label out of range is refused when the call is made; elsewhere its row is NaN",
}
# What `Adapter.functions` may have beside the operations, and what is not compared without it.
DERIVATIVES = {
    "value_and_grad": "gradients of losses by value_and_grad",
    "vjp": "gradients of activations by vjp",
}


def eager(function: Function) -> Function:
    """Leave the function as it is."""
    return function


@dataclass(frozen=True)
class Request:
    """What is wanted of a function of arrays: its value, and perhaps a vector-Jacobian product.

    The product is that by ``arrays[by]``, with the `cotangent` of the value; where `by` is None,
    none.
    """

    function: Function
    arrays: Sequence[Any]
    by: int | None = None
    cotangent: Any = None


Answer = tuple[Any, Any]  # a value, and the product or None


@dataclass(frozen=True)
class Transform:
    """What a library does to a function of arrays: compile it, batch it, differentiate it.

    Parameters
    ----------
    call : callable
        Takes a function of arrays to the transformed function.
    compute : callable, optional
        ``compute(requests)`` answers each `Request` by its value and its product, under the
        transform and by the library's own autodiff; None where the library has none.
    groups : bool
        Whether the requests of several cases are computed by one program, since each program costs
        a compilation. They run again one by one where something is wrong.
    reads_labels : bool
        Whether labels have values there, so that one out of range is refused.
    label_error : type
        By which exception: the library's own where it refuses while the program runs.
    lacks : callable
        ``lacks(case)``: why a case is not run, or nothing.
    """

    call: Callable[[Function], Function] = eager
    compute: Callable[[Sequence[Request]], Sequence[Answer]] | None = None
    groups: bool = False
    reads_labels: bool = False
    label_error: type[Exception] = IndexError
    lacks: Callable[[Case], str] = lambda case: ""

    def vjp(self, function: Function, arrays: Sequence[Any], by: int, cotangent: Any) -> Answer:
        """Return the value of a function and its vector-Jacobian product by ``arrays[by]``."""
        assert self.compute is not None
        (answer,) = self.compute([Request(function, arrays, by, cotangent)])
        return answer


def inside(
    call: Callable[[Function], Function], pull: Callable[..., Answer]
) -> Callable[[Sequence[Request]], Sequence[Answer]]:
    """Return a `compute` that transforms the vector-Jacobian products themselves.

    ``pull(function, arrays, by, cotangent)`` answers one by the library's autodiff.
    """

    def compute(requests: Sequence[Request]) -> Sequence[Answer]:
        def program(*arrays: Any) -> Any:
            remaining = iter(arrays)
            results: list[tuple[Any, ...]] = []
            for request in requests:
                own = [next(remaining) for _ in request.arrays]
                if request.by is None:
                    results.append((request.function(*own),))
                else:
                    results.append(pull(request.function, own, request.by, next(remaining)))
            return tuple(results)

        given = [
            array
            for request in requests
            for array in (*request.arrays, *(() if request.by is None else (request.cotangent,)))
        ]
        return [(*result, None)[:2] for result in call(program)(*given)]

    return compute


def through(
    call: Callable[[Function], Function],
    backward: Callable[[Function, list[Any], Mapping[int, tuple[int, Any]]], Sequence[Answer]],
) -> Callable[[Sequence[Request]], Sequence[Answer]]:
    """Return a `compute` that backpropagates through the transformed function, as training does.

    ``backward(program, arrays, wanted)`` returns the values of a program of arrays, each with the
    product that ``wanted`` asks for: index of a value -> (index of an array, cotangent).
    """

    def compute(requests: Sequence[Request]) -> Sequence[Answer]:
        given: list[Any] = []
        parts, wanted = [], {}
        for index, request in enumerate(requests):
            if request.by is not None:
                wanted[index] = len(given) + request.by, request.cotangent
            parts.append(slice(len(given), len(given) + len(request.arrays)))
            given += request.arrays

        def program(*arrays: Any) -> Any:
            pairs = zip(requests, parts, strict=True)
            return tuple(request.function(*arrays[part]) for request, part in pairs)

        return backward(call(program), given, wanted)

    return compute


@dataclass(frozen=True)
class Adapter:
    """A library under test.

    Parameters
    ----------
    name : str
        As the tables show it.
    to_backend : callable
        ``to_backend(array, dtype)`` makes the library's array of a NumPy array, rounding to the
        dtype of that name; None keeps integers and booleans as they are.
    to_numpy : callable
        The way back; bfloat16 comes as float32.
    dtype_name : callable
        Name of a result's dtype, such as "float32".
    lacks : mapping
        Feature of `FEATURES` -> why the library has it not: the reason of a skip, and what the
        tables of capabilities say.
    transforms : mapping
        Name -> `Transform`, such as jit. "eager" is one of them, and the only one where "tracing"
        is lacking; each has a `compute` unless "autodiff" is lacking.
    functions : object, optional
        Where the operations are looked up by name, each with softmaxkit's arguments; softmaxkit
        itself by default. An operation that is not there is not run. Two more functions give
        derivatives, and are called as softmaxkit's are: ``value_and_grad(loss)(logits, targets,
        **options)`` returns the value and the gradient, ``vjp(activation)(x, cotangent,
        **options)`` the value and the cotangent carried back. Without one of them, gradients are
        compared where a transform has a `compute`.
    default_float : str
        What integer logits become.
    dtypes_under : str
        The transform under which the suite runs dtypes other than float32: a compiler where each
        eager call is compiled too, which takes cases in groups.
    """

    name: str
    to_backend: Callable[[np.ndarray, str | None], Any]
    to_numpy: Callable[[Any], np.ndarray]
    dtype_name: Callable[[Any], str]
    lacks: Mapping[str, str] = field(default_factory=dict)
    transforms: Mapping[str, Transform] = field(
        default_factory=lambda: {"eager": Transform(reads_labels=True)}
    )
    functions: Any = softmaxkit
    default_float: str = "float64"
    dtypes_under: str = "eager"

    def __post_init__(self) -> None:
        if not any(hasattr(self.functions, operation) for operation in OPERATIONS):
            raise ValueError(
                f"Adapter: functions has no operation; expected some of {', '.join(OPERATIONS)}; "
                f"give it those that you have."
            )
        if unknown := set(self.lacks) - set(FEATURES):
            raise ValueError(
                f"Adapter: lacks has {', '.join(sorted(unknown))}; expected some of "
                f"{', '.join(FEATURES)}; leave out cases by the lacks of a Transform."
            )
        for feature, there in (
            ("tracing", len(self.transforms) > 1),
            ("autodiff", all(one.compute for one in self.transforms.values())),
        ):
            if there == (feature in self.lacks):
                raise ValueError(
                    f"Adapter: lacks is {dict(self.lacks)}; expected {feature!r} to be there just "
                    f"where the adapter has none; give its reason, or take it out."
                )

    @property
    def dtypes(self) -> tuple[str, ...]:
        """Floating dtypes that the library has."""
        every = ("float32", "float64", "float16", "bfloat16")
        return tuple(dtype for dtype in every if dtype not in self.lacks)

    def leaves_out(self, case: Case, transform: str = "eager") -> str:
        """Say why a case is not run under a transform, or nothing."""
        if not hasattr(self.functions, case.operation):
            return f"it has no {case.operation}"
        return self.transforms[transform].lacks(case)

    @property
    def not_compared(self) -> dict[str, str]:
        """What is not run for want of a feature or a derivative -> why."""
        features = {FEATURES[feature]: reason for feature, reason in self.lacks.items()}
        derivatives = {
            meaning: f"it has no {name}"
            for name, meaning in DERIVATIVES.items()
            if not hasattr(self.functions, name)
        }
        return features | derivatives
