"""What an adapter is: a library's arrays there and back, its dtypes, transforms, autodiff."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import softmaxkit
from softmaxkit.conformance.case import Case

Function = Callable[..., Any]

# What a library may lack, and what is then not run; `Adapter.lacks` gives the reason.
FEATURES = {
    "float16": "cases in float16",
    "bfloat16": "cases in bfloat16",
    "tracing": "every case compiled",
    "autodiff": "gradients by temperature (those by logits are everywhere)",
    "labels": "a label out of range is refused when the call is made; elsewhere its row is NaN",
}


def eager(function: Function) -> Function:
    """Leave the function as it is."""
    return function


@dataclass(frozen=True)
class Transform:
    """What a library does to a function of arrays: compile it, batch it, differentiate it.

    Parameters
    ----------
    call : callable
        Takes a function of arrays to the transformed function.
    vjp : callable, optional
        ``vjp(function, arrays, position, cotangent)``: the value of the function, and its
        vector-Jacobian product by ``arrays[position]``, both under the transform, by the library's
        own autodiff; None where the library has none.
    reads_labels : bool
        Whether labels have values there, so that one out of range is refused.
    lacks : callable
        ``lacks(case)``: why a case is not run, or nothing.
    """

    call: Callable[[Function], Function] = eager
    vjp: Callable[[Function, list[Any], int, Any], tuple[Any, Any]] | None = None
    reads_labels: bool = False
    lacks: Callable[[Case], str] = lambda case: ""


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
        is lacking; each has a `vjp` unless "autodiff" is lacking.
    functions : object, optional
        Where the operations are looked up by name; softmaxkit itself by default.
    default_float : str
        What integer logits become.
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

    def __post_init__(self) -> None:
        for feature, there in (
            ("tracing", len(self.transforms) > 1),
            ("autodiff", all(one.vjp is not None for one in self.transforms.values())),
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
