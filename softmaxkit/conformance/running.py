"""Run a case on a backend: check its value, gradients or refusal, and that inputs do not change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from softmaxkit.conformance import reference, reference_linear
from softmaxkit.conformance.adapter import Adapter, Answer, Request
from softmaxkit.conformance.case import ACTIVATIONS, LINEAR_LOSSES, LOSSES, OPERATIONS, Case
from softmaxkit.conformance.cases import cases
from softmaxkit.conformance.tolerances import distance, limit

# Cases of an operation that one program computes if a transform compiles.
GROUP = 24


@dataclass(frozen=True)
class Result:
    """A backend's result for a case, compared with the reference."""

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
    """Return (dtype, transform): each transform in float32, and every other dtype under one."""
    others = [dtype for dtype in adapter.dtypes if dtype != "float32"]
    return [
        *(("float32", transform) for transform in adapter.transforms),
        *((dtype, adapter.dtypes_under) for dtype in others),
    ]


def groups(
    adapter: Adapter, transform: str = "eager", among: Iterable[Case] | None = None
) -> Iterator[list[Case]]:
    """Yield the cases that the adapter runs, of all or of those `among`, as they are run.

    They run in groups if the transform compiles, and otherwise one by one.
    """
    among = cases() if among is None else among
    there = [case for case in among if not adapter.leaves_out(case, transform)]
    grouped = adapter.transforms[transform].groups
    yield from ([case] for case in there if not grouped or case.raises is not None)
    for operation in OPERATIONS if grouped else ():
        own = [case for case in there if case.operation == operation and case.raises is None]
        count = -(-len(own) // GROUP)
        yield from (own[place::count] for place in range(count))


def run(adapter: Adapter, dtype: str = "float32", transform: str = "eager") -> Iterator[Result]:
    """Run every case on a backend, except those that the adapter leaves out."""
    for group in groups(adapter, transform):
        yield from run_group(adapter, group, dtype, transform)


def run_group(
    adapter: Adapter, group: list[Case], dtype: str = "float32", transform: str = "eager"
) -> Iterator[Result]:
    """Run cases as one program, and one by one if one raises an exception or has a problem."""
    if len(group) == 1:
        yield from run_case(adapter, group[0], dtype, transform)
        return
    runs = [_Run(adapter, case, dtype, transform) for case in group]
    try:
        together = list(_run_together(runs))
    except Exception as error:
        together = [_raised(group[0], error)]
    if not all(result.passed for result in together):
        alone: list[Result] = []
        for case in group:
            try:
                alone += run_case(adapter, case, dtype, transform)
            except Exception as error:
                alone.append(_raised(case, error))
        # If each passes alone, there is still a problem with them together.
        together = alone if not all(result.passed for result in alone) else together
    yield from together


def _raised(case: Case, error: Exception) -> Result:
    return Result(case, "exception", np.inf, 0.0, f"{type(error).__name__}: {error}")


def run_case(
    adapter: Adapter, case: Case, dtype: str = "float32", transform: str = "eager"
) -> Iterator[Result]:
    """Run one case: its value and its gradients, or its refusal."""
    run = _Run(adapter, case, dtype, transform)
    if run.is_refused:
        yield run.refusal()
    else:
        yield from _run_together([run])


def _run_together(runs: list[_Run]) -> Iterator[Result]:
    """Compute all requests of the runs at once under their transform, and compare the answers."""
    requests = [run.requests() for run in runs]
    answers = iter(runs[0].compute([one for each in requests for one in each]))
    for run, own in zip(runs, requests, strict=True):
        yield from run.results(own, [next(answers) for _ in own])


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
        reads_labels = "labels" not in adapter.lacks and self.transform.reads_labels
        unseen = case.raises is IndexError and not reads_labels
        if unseen:
            self.exact_options["bad_labels"] = "nan"
        self.is_refused = case.raises is not None and not unseen

    def call(self, *arrays: Any) -> Any:
        count = len(self.case.arrays)
        options = dict(zip(self.named, arrays[count:], strict=True))
        operation = getattr(self.adapter.functions, self.case.operation)
        return operation(*arrays[:count], **options, **self.plain)

    def refusal(self) -> Result:
        wanted = self.case.raises
        assert wanted is not None
        if wanted is IndexError:
            wanted = self.transform.label_error
        try:
            self.transform.call(self.call)(*self.arrays)
        except Exception as error:
            causes = list(_causes(error))  # compilers wrap exceptions raised while they trace
            problem = "" if wanted in map(type, causes) else f"{type(error).__name__}: {error}"
        else:
            problem = "nothing was raised"
        problem = problem and f"{problem}; expected {wanted.__name__}"
        return Result(self.case, "refusal", np.inf if problem else 0.0, 0.0, problem)

    def requests(self) -> list[Request]:
        """Return what has to be computed under the transform; `results` does the rest."""
        self.views = [self.adapter.to_numpy(array) for array in self.arrays]
        self.before = [np.copy(view) for view in self.views]
        self.expected = self._reference(self.case.operation)
        self.cotangent = self._cotangent()
        plain = Request(self.call, self.arrays)
        if self.cotangent is None or self.transform.compute is None:
            return [plain]
        seed = self.adapter.to_backend(self.cotangent, self.result_dtype)
        places = []
        if self._by_logits:  # for a product, by both of its factors
            places = [0, 1] if self.case.operation in LINEAR_LOSSES else [0]
        places += [len(self.case.arrays) + self.named.index(name) for name in self.case.by]
        requests = [Request(self.call, self.arrays, place, seed) for place in places]
        # An eager call without a gradient may take another path.
        return [plain, *requests] if self.name == "eager" else requests

    def compute(self, requests: list[Request]) -> Sequence[Answer]:
        if self.transform.compute is not None:
            return self.transform.compute(requests)
        return [(self.transform.call(one.function)(*one.arrays), None) for one in requests]

    def results(self, requests: list[Request], answers: list[Answer]) -> Iterator[Result]:
        """Compare the answers and, if eager, the results of softmaxkit's own derivatives."""
        expected: list[tuple[np.ndarray, np.ndarray]] = []
        if self.cotangent is not None:
            by_arrays = self.gradients()
            if self.name == "eager" and self._has_own_derivative:
                yield from self._own_derivative(by_arrays)
            expected = by_arrays[:2] if self._by_logits else []
            expected += [self._gradient_by(name, by_arrays) for name in self.case.by]
        gradients = iter(expected)
        for request, (value, product) in zip(requests, answers, strict=True):
            yield self.compared_value(value)
            if request.by is None:
                continue
            gradient, scale = next(gradients)
            if product is None:
                yield Result(self.case, "gradient", np.inf, 0.0, "there is none")
            else:
                yield self._compare("gradient", product, gradient, self.dtype, scale)
        for view, earlier in zip(self.views, self.before, strict=True):
            if not np.array_equal(view, earlier, equal_nan=earlier.dtype.kind == "f"):
                yield Result(self.case, "inputs", np.inf, 0.0, "an input was written to")

    @property
    def _by_logits(self) -> bool:
        """Whether the library's autodiff is asked for the gradient that `vjp` gives eagerly."""
        # If eager calls are compiled, the transform that compiles checks it at less cost.
        compiles = self.adapter.dtypes_under != "eager"
        return self.name != "eager" or (self.dtype == "float32" and not compiles)

    @property
    def _has_own_derivative(self) -> bool:
        name = "vjp" if self.case.operation in ACTIVATIONS else "value_and_grad"
        return hasattr(self.adapter.functions, name)

    def _cotangent(self) -> np.ndarray | None:
        """Return the cotangent of the value, or None if nothing is differentiated."""
        if not (self._has_own_derivative or self.transform.compute):
            return None
        if self.case.operation in LOSSES + LINEAR_LOSSES:
            return np.ones(self.expected.shape)
        if not (self.case.operation in ACTIVATIONS and self.floating):
            return None
        cotangent = self.case.cotangent
        if cotangent is None:
            cotangent = np.random.default_rng(7).normal(size=self.expected.shape)
        rounded: np.ndarray = self._wide(self.adapter.to_backend(cotangent, self.result_dtype))
        return rounded

    def gradient(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradient by the logits, and the size of the terms of each entry.

        The error is measured at that size: where the terms cancel, no result can be better;
        elsewhere it is the size of the entry.
        """
        operation, arguments, options = self.case.operation, self.exact, self.exact_options
        if operation in LOSSES:
            gradient = reference.gradient(operation, *arguments, **options)
            terms = reference.gradient_terms(operation, *arguments, **options)
        else:
            assert self.cotangent is not None
            arguments = [*arguments, self.cotangent]
            gradient = getattr(reference, f"{operation}_vjp")(*arguments, **options)
            of_terms = getattr(reference, f"{operation}_vjp_terms", None)
            terms = gradient if of_terms is None else of_terms(*arguments, **options)
        return gradient, _finite(terms)

    def gradients(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the gradient by the logits, or by the operands whose product they are."""
        if self.case.operation not in LINEAR_LOSSES:
            return [self.gradient()]
        found = reference_linear.linear_gradients(*self.exact, **self.exact_options)
        return [(by, _finite(terms)) for by, terms in zip(*found, strict=True)]

    def _own_derivative(self, expected: list[tuple[np.ndarray, np.ndarray]]) -> Iterator[Result]:
        count = len(self.case.arrays)
        options = dict(zip(self.named, self.arrays[count:], strict=True))
        functions = self.adapter.functions
        derivative, cotangent = functions.value_and_grad, []
        if self.case.operation in ACTIVATIONS:
            assert self.cotangent is not None
            derivative = functions.vjp
            cotangent = [self.adapter.to_backend(self.cotangent, self.result_dtype)]
        both = derivative(getattr(functions, self.case.operation))
        value, found = both(*self.arrays[:count], *cotangent, **options, **self.plain)
        yield self.compared_value(value)
        gradients = found if self.case.operation in LINEAR_LOSSES else [found]
        for gradient, (by, scale) in zip(gradients, expected, strict=True):
            if gradient is not None:  # None if there is no bias
                yield self._compare("gradient", gradient, by, self.dtype, scale)

    def _gradient_by(
        self, name: str, by_arrays: list[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        if name == "bias":
            return by_arrays[2]
        ((by_logits, terms),) = by_arrays
        assert name == "temperature"  # the one whose derivative the reference has
        temperature = self.exact_options[name]
        gradient, scale = (
            reference.sum_to_shape(each, temperature.shape)
            for each in (
                reference.temperature_gradient_terms(self.exact[0], by_logits, temperature),
                np.abs(reference.temperature_gradient_terms(self.exact[0], terms, temperature)),
            )
        )
        return gradient, _finite(scale)

    def compared_value(self, got: Any) -> Result:
        scale: np.ndarray | float = 0.0
        if self.case.operation == "logsumexp":
            # What cancels in max + log Σ is the maximum of the row.
            options = self.exact_options
            x = np.where(options.get("where", True), _finite(np.abs(self.exact[0])), 0.0)
            axis, keepdims = options.get("axis", -1), options.get("keepdims", False)
            scale = x.max(axis, keepdims=keepdims, initial=0.0)
        elif self.exact_options.get("epsilon", 0.0) < 0:  # -log p and ε (1 - p) cancel
            epsilon = -self.exact_options["epsilon"]
            scale = _finite(
                reference.poly_loss_cross_entropy(
                    *self.exact, **self.exact_options | {"epsilon": epsilon}
                )
            )
        return self._compare("value", got, self.expected, self.result_dtype, scale)

    def _reference(self, operation: str) -> np.ndarray:
        of = reference_linear if operation in LINEAR_LOSSES else reference
        value: np.ndarray = getattr(of, operation)(*self.exact, **self.exact_options)
        return value

    def _to_backend(self, array: np.ndarray) -> Any:
        return self.adapter.to_backend(array, self.dtype if array.dtype.kind == "f" else None)

    def _wide(self, array: Any) -> np.ndarray:
        array = self.adapter.to_numpy(array)
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def _compare(
        self, what: str, got: Any, expected: np.ndarray, dtype: str, scale: np.ndarray | float
    ) -> Result:
        allowed = limit(self.case.operation, what, self.case.saturated, dtype)
        name = self.adapter.dtype_name(got)
        got = self.adapter.to_numpy(got)
        problem = ""
        if got.shape != expected.shape:
            problem = f"shape {got.shape}, not {expected.shape}"
        elif name != dtype:
            problem = f"dtype {name}, not {dtype}"
        if problem:
            return Result(self.case, what, np.inf, allowed, problem)
        if any(np.shares_memory(got, view) for view in self.views):
            problem = "it shares memory with an input"
        error = distance(got, expected, name, scale)
        worst = float(error.max(initial=0.0))
        if not worst <= allowed:
            at = np.unravel_index(int(error.argmax()), error.shape)
            problem = (
                f"{worst:.3g} ULP at {tuple(int(i) for i in at)}: {got[at]!r} for "
                f"{expected[at]!r}; {allowed:g} allowed"
            )
        return Result(self.case, what, worst, allowed, problem)


def _finite(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), array, 0.0)


def gradient_terms(
    adapter: Adapter, case: Case, dtype: str = "float32", transform: str = "eager"
) -> np.ndarray:
    """Return the size of the terms of each entry of the gradient by the logits."""
    run = _Run(adapter, case, dtype, transform)
    run.requests()
    return run.gradient()[1]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
