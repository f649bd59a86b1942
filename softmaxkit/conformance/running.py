"""Running a case on a backend: value, gradients, refusals, and that the inputs are left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from softmaxkit.conformance import reference
from softmaxkit.conformance.adapter import Adapter
from softmaxkit.conformance.case import ACTIVATIONS, LOSSES, Case
from softmaxkit.conformance.cases import cases
from softmaxkit.conformance.tolerances import distance, limit


@dataclass(frozen=True)
class Result:
    """What a backend gave for a case, against the reference."""

    case: Case
    what: str  # "value", "gradient", "gradient by temperature", or "refusal"
    ulp: float  # the largest error, in units in the last place
    limit: float
    problem: str  # in words; empty when it passed

    @property
    def passed(self) -> bool:
        """Whether the error is within the limit, and shape and dtype are right."""
        return not self.problem


def settings(adapter: Adapter) -> list[tuple[str, str]]:
    """Return (dtype, transform): each transform in float32, and every other dtype eagerly."""
    transforms = [("float32", transform) for transform in adapter.transforms]
    return transforms + [(dtype, "eager") for dtype in adapter.dtypes if dtype != "float32"]


def run(adapter: Adapter, dtype: str = "float32", transform: str = "eager") -> Iterator[Result]:
    """Run every case on a backend, but for those that the transform lacks."""
    for case in cases():
        if not adapter.transforms[transform].lacks(case):
            yield from run_case(adapter, case, dtype, transform)


def run_case(
    adapter: Adapter, case: Case, dtype: str = "float32", transform: str = "eager"
) -> Iterator[Result]:
    """Run one case: its value and its gradients, or its refusal."""
    run = _Run(adapter, case, dtype, transform)
    reads_labels = "labels" not in adapter.lacks and adapter.transforms[transform].reads_labels
    unseen = case.raises is IndexError and not reads_labels
    if case.raises is not None and not unseen:
        yield run.refusal()
        return
    if unseen:
        run.exact_options["bad_labels"] = "nan"
    before = [np.copy(adapter.to_numpy(array)) for array in run.arrays]
    if case.operation in LOSSES:
        yield from run.loss()
    elif case.operation in ACTIVATIONS and run.floating and hasattr(adapter.functions, "vjp"):
        yield from run.activation()
    else:
        yield run.compared_value(run.transformed()(*run.arrays))
    for array, earlier in zip(run.arrays, before, strict=True):
        if not np.array_equal(
            adapter.to_numpy(array), earlier, equal_nan=earlier.dtype.kind == "f"
        ):
            yield Result(case, "inputs", np.inf, 0.0, "an input was written to")


class _Run:
    """A case on a backend. The reference sees the numbers as the backend does: rounded, widened."""

    def __init__(self, adapter: Adapter, case: Case, dtype: str, transform: str) -> None:
        self.adapter, self.case, self.dtype = adapter, case, dtype
        self.name, self.transform = transform, adapter.transforms[transform]
        self.floating = case.arrays[0].dtype.kind == "f"
        self.result_dtype = case.options.get(
            "dtype", dtype if self.floating else adapter.default_float
        )
        # Array options are arguments too, so that a transform traces them.
        self.named = [name for name, value in case.options.items() if isinstance(value, np.ndarray)]
        self.plain = {name: v for name, v in case.options.items() if name not in self.named}
        given = [*case.arrays, *(case.options[name] for name in self.named)]
        self.arrays = [self._to_backend(array) for array in given]
        exact = [self._wide(array) for array in self.arrays]
        if case.operation in ACTIVATIONS and case.arrays[0].dtype.kind in "iub":
            exact[0] = self._wide(
                adapter.to_backend(np.asarray(case.arrays[0]), adapter.default_float)
            )
        count = len(case.arrays)
        self.exact = exact[:count]
        self.exact_options = {**self.plain, **dict(zip(self.named, exact[count:], strict=True))}
        self.exact_options.pop("dtype", None)

    def call(self, *arrays: Any) -> Any:
        count = len(self.case.arrays)
        options = dict(zip(self.named, arrays[count:], strict=True))
        operation = getattr(self.adapter.functions, self.case.operation)
        return operation(*arrays[:count], **options, **self.plain)

    def refusal(self) -> Result:
        wanted = self.case.raises
        assert wanted is not None
        try:
            self.transformed()(*self.arrays)
        except Exception as error:
            causes = list(_causes(error))  # compilers wrap what is raised while they trace
            problem = "" if wanted in map(type, causes) else f"{type(error).__name__}: {error}"
        else:
            problem = "nothing was raised"
        problem = problem and f"{problem}; expected {wanted.__name__}"
        return Result(self.case, "refusal", np.inf if problem else 0.0, 0.0, problem)

    def loss(self) -> Iterator[Result]:
        expected = reference.gradient(self.case.operation, *self.exact, **self.exact_options)
        shape = self._reference(self.case.operation).shape
        if self.name == "eager":
            yield self.compared_value(self.transformed()(*self.arrays))
            value, gradient = self._eagerly("value_and_grad")
        else:
            value, gradient = self._vjp(0, np.ones(shape))
        yield self.compared_value(value)
        scale = _largest(expected) if self.case.gradient_scale == "array" else 0.0
        yield self._compare("gradient", gradient, expected, self.dtype, scale)
        yield from self._gradients_by_options(np.ones(shape), expected)

    def activation(self) -> Iterator[Result]:
        value = self._reference(self.case.operation)
        cotangent = np.random.default_rng(7).normal(size=value.shape)
        rounded = self._wide(self.adapter.to_backend(cotangent, self.result_dtype))
        vjp = getattr(reference, f"{self.case.operation}_vjp")
        expected = vjp(*self.exact, rounded, **self.exact_options)
        # Measured at the largest of the terms that cancel: p v in softmax's, v in log_softmax's.
        terms = value * rounded if self.case.operation == "softmax" else rounded
        scale = _largest(terms / self.exact_options.get("temperature", 1.0))
        if self.name == "eager":
            yield self.compared_value(self.transformed()(*self.arrays))
            got, gradient = self._eagerly(
                "vjp", self.adapter.to_backend(rounded, self.result_dtype)
            )
        else:
            got, gradient = self._vjp(0, cotangent)
        yield self.compared_value(got)
        yield self._compare("gradient", gradient, expected, self.dtype, scale)
        yield from self._gradients_by_options(cotangent, expected)

    def compared_value(self, got: Any) -> Result:
        expected = self._reference(self.case.operation)
        # The magnitudes that cancel in max + log(sum) are the maximum's.
        scale = _largest(self.exact[0]) if self.case.operation == "logsumexp" else 0.0
        result = self._compare("value", got, expected, self.result_dtype, scale)
        view = self.adapter.to_numpy(got)
        if any(np.shares_memory(view, self.adapter.to_numpy(array)) for array in self.arrays):
            return replace(result, problem="the result shares memory with an input")
        return result

    def _gradients_by_options(
        self, cotangent: np.ndarray, by_logits: np.ndarray
    ) -> Iterator[Result]:
        if self.transform.vjp is None:
            return
        for name in self.case.by:
            assert name == "temperature"  # the one whose derivative the reference has
            temperature = self.exact_options[name]
            terms = reference.temperature_gradient_terms(self.exact[0], by_logits, temperature)
            expected = reference.sum_to_shape(terms, temperature.shape)
            scale = _largest(reference.sum_to_shape(np.abs(terms), temperature.shape))
            position = len(self.case.arrays) + self.named.index(name)
            _, gradient = self._vjp(position, cotangent)
            yield self._compare("gradient", gradient, expected, self.dtype, scale)

    def transformed(self) -> Callable[..., Any]:
        return self.transform.call(self.call)

    def _reference(self, operation: str) -> np.ndarray:
        return getattr(reference, operation)(*self.exact, **self.exact_options)

    def _eagerly(self, derivative: str, *cotangent: Any) -> Any:
        count = len(self.case.arrays)
        options = dict(zip(self.named, self.arrays[count:], strict=True))
        functions = self.adapter.functions
        both = getattr(functions, derivative)(getattr(functions, self.case.operation))
        return both(*self.arrays[:count], *cotangent, **options, **self.plain)

    def _vjp(self, position: int, cotangent: np.ndarray) -> Any:
        assert self.transform.vjp is not None
        seed = self.adapter.to_backend(cotangent, self.result_dtype)
        return self.transform.vjp(self.call, self.arrays, position, seed)

    def _to_backend(self, array: np.ndarray) -> Any:
        return self.adapter.to_backend(array, self.dtype if array.dtype.kind == "f" else None)

    def _wide(self, array: Any) -> np.ndarray:
        array = self.adapter.to_numpy(array)
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def _compare(
        self, what: str, got: Any, expected: np.ndarray, dtype: str, scale: float
    ) -> Result:
        allowed = limit(self.case.operation, what, self.case.saturated, dtype)
        name = self.adapter.dtype_name(got)
        got = self.adapter.to_numpy(got)
        problem = ""
        if got.shape != expected.shape:
            problem = f"shape {got.shape}, not {expected.shape}"
            return Result(self.case, what, np.inf, allowed, problem)
        if name != dtype:
            problem = f"dtype {name}, not {dtype}"
        error = distance(got, expected, name, scale)
        worst = float(error.max(initial=0.0))
        if not worst <= allowed:
            at = np.unravel_index(int(error.argmax()), error.shape)
            problem = (
                f"{worst:.3g} ULP at {tuple(int(i) for i in at)}: {got[at]!r} for "
                f"{expected[at]!r}; {allowed:g} allowed"
            )
        return Result(self.case, what, worst, allowed, problem)


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
