"""The conformance suite as data and a way to run it, on any backend, also on one of your own.

``pytest --pyargs softmaxkit.conformance`` runs it on every library installed, or on those that the
environment variable SOFTMAXKIT_BACKENDS names; SOFTMAXKIT_CONFORMANCE=quick keeps to float32,
untransformed. From Python, one case at a time:

>>> from softmaxkit import conformance
>>> results = conformance.run(conformance.load("numpy"))
>>> all(result.passed for result in results)
True

For a backend of your own, make an `Adapter`: either your library's arrays go through softmaxkit
(an array-API library), or ``functions=`` has operations of the same names and arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from softmaxkit.conformance import reference
from softmaxkit.conformance.adapters import Adapter, load, names
from softmaxkit.conformance.cases import ACTIVATIONS, LOSSES, OPERATIONS, Case, cases
from softmaxkit.conformance.tolerances import distance, limit

__all__ = [
    "OPERATIONS",
    "Adapter",
    "Case",
    "Result",
    "cases",
    "load",
    "names",
    "run",
    "run_case",
]


@dataclass(frozen=True)
class Result:
    """What a backend gave for a case, against the reference."""

    case: Case
    what: str  # "value" or "gradient"
    ulp: float  # the largest error, in units in the last place
    limit: float
    problem: str  # in words; empty when it passed

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit, and shape and dtype are right."""
        return not self.problem


def run(adapter: Adapter, dtype: str = "float32", transform: str = "eager") -> Iterator[Result]:
    """Run every case on a backend."""
    for case in cases():
        yield from run_case(adapter, case, dtype, transform)


def run_case(
    adapter: Adapter, case: Case, dtype: str = "float32", transform: str = "eager"
) -> Iterator[Result]:
    """Run one case: its value, and its gradient where there is one."""
    arrays = [_to_backend(adapter, array, dtype) for array in case.arrays]
    options = {
        name: _to_backend(adapter, value, dtype) if isinstance(value, np.ndarray) else value
        for name, value in case.options.items()
    }
    # The reference sees the numbers as the backend does: rounded, then widened.
    exact = [_wide(adapter, array) for array in arrays]
    exact_options = {
        name: _wide(adapter, value) if isinstance(case.options[name], np.ndarray) else value
        for name, value in options.items()
    }
    transformed = adapter.transforms[transform]
    operation = getattr(adapter.functions, case.operation)

    def call(*arrays: Any) -> Any:
        return operation(*arrays, **options)

    got = transformed(call)(*arrays)
    expected = getattr(reference, case.operation)(*exact, **exact_options)
    # The magnitudes that cancel in max + log(sum) are the maximum's.
    scale = np.nanmax(np.abs(exact[0]), initial=0.0, where=np.isfinite(exact[0]))
    scale = scale if case.operation == "logsumexp" else 0.0
    default = np.issubdtype(case.arrays[0].dtype, np.floating)
    yield _compare(adapter, case, "value", got, expected, dtype if default else None, scale)

    if case.operation in LOSSES:
        if transform == "eager" or adapter.vjp is None:
            value, gradient = adapter.functions.value_and_grad(operation)(*arrays, **options)
            yield _compare(adapter, case, "value", value, expected, dtype, scale)
        else:
            seed = _to_backend(adapter, np.ones(expected.shape), dtype)
            gradient = _vjp(adapter, transformed(call), arrays, seed)
        expected = reference.gradient(case.operation, *exact, **exact_options)
    elif case.operation in ACTIVATIONS and adapter.vjp is not None and exact[0].size:
        if not np.isfinite(exact[0]).all():
            return  # vector-Jacobian products at infinities are not promised
        cotangent = np.random.default_rng(7).normal(size=expected.shape)
        if "where" in exact_options and cotangent.ndim == exact[0].ndim:
            cotangent = cotangent * np.broadcast_to(exact_options["where"], cotangent.shape)
        seed = _to_backend(adapter, cotangent, dtype)
        gradient = _vjp(adapter, transformed(call), arrays, seed)
        vjp = getattr(reference, f"{case.operation}_vjp")
        expected = vjp(*exact, _wide(adapter, seed), **exact_options)
    else:
        return
    scale = 0.0
    if case.gradient_scale == "array" or case.operation in ACTIVATIONS:
        scale = np.nanmax(np.abs(expected), initial=0.0)
    yield _compare(adapter, case, "gradient", gradient, expected, dtype, scale)


def _vjp(adapter: Adapter, function: Any, arrays: list[Any], cotangent: Any) -> Any:
    first, *rest = arrays
    assert adapter.vjp is not None
    return adapter.vjp(lambda x: function(x, *rest), first, cotangent)


def _to_backend(adapter: Adapter, array: np.ndarray, dtype: str) -> Any:
    floating = np.issubdtype(array.dtype, np.floating)
    return adapter.to_backend(array, dtype if floating else None)


def _wide(adapter: Adapter, array: Any) -> np.ndarray:
    array = adapter.to_numpy(array)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _compare(
    adapter: Adapter,
    case: Case,
    what: str,
    got: Any,
    expected: np.ndarray,
    dtype: str | None,
    scale: float,
) -> Result:
    allowed = limit(case.operation, what, case.saturated, dtype or "float32")
    name = adapter.dtype_name(got)
    got = adapter.to_numpy(got)
    problem = ""
    if got.shape != expected.shape:
        return Result(case, what, np.inf, allowed, f"shape {got.shape}, not {expected.shape}")
    if dtype is not None and name != dtype:
        problem = f"dtype {name}, not {dtype}"
    error = distance(got, expected, name, scale)
    worst = float(error.max(initial=0.0))
    if not worst <= allowed:
        at = np.unravel_index(int(error.argmax()), error.shape)
        problem = (
            f"{worst:.3g} ULP at {tuple(int(i) for i in at)}: {got[at]!r} for "
            f"{expected[at]!r}; {allowed:g} allowed"
        )
    return Result(case, what, worst, allowed, problem)
