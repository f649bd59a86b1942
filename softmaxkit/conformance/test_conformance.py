"""The suite for pytest: case x backend x dtype x transform."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest

from softmaxkit import conformance
from softmaxkit.conformance.adapter import Answer, Request, Transform
from softmaxkit.conformance.case import LINEAR_LOSSES
from softmaxkit.conformance.cases import of_each_call


@cache
def _adapter(name: str) -> conformance.Adapter:
    try:
        return conformance.load(name)
    except (ImportError, ValueError) as error:
        problem = str(error)
    pytest.fail(problem, pytrace=False)


# The compilers, without another transform inside: they refuse what each of those refuses.
_REFUSING = {("float32", name) for name in ("jit", "torch.compile", "tf.function", "XLA")}
# Options that every loss over classes hands to the same lines.
_SHARED = {"axis", "dtype", "ignore_index", "normalizer", "sample_weight", "temperature"}


def _shares_its_code(case: conformance.Case) -> bool:
    """Whether a case of cross-entropy takes the same way, but for the term of this loss."""
    if case.raises or case.operation not in ("focal_loss", "poly_loss_cross_entropy"):
        return False
    options = ", mean", ", one-hot", ", smoothing", " and wrong"
    if case.name in [f"saturated{option}" for option in options]:
        return True
    without_a_term_of_its_own = case.operation == "poly_loss_cross_entropy" and case.not_finite
    return without_a_term_of_its_own or not _SHARED.isdisjoint(case.options)


def _cases(adapter: conformance.Adapter, dtype: str, transform: str) -> list[conformance.Case]:
    """Return all cases, or fewer where others repeat what they show.

    float16 differs from bfloat16 in range and digits, for which the rules have cases; on Dask,
    which computes a graph for each case, float64 runs the rules, too. Where a transform compiles,
    most of the time goes into making programs: it runs one case of each call, and those whose
    numbers go wrong first, which are saturated rows, NaN and infinities; so does jacfwd, whose
    Jacobians are large. Compilers run the refusals, too. A loss of a product is a loop, a program
    for each of its chunks: one case runs under transforms. `nox -s transforms` runs every case
    under each of them.
    """
    cases = list(conformance.cases())
    if transform != "eager":
        cases = [
            case
            for case in cases
            if case.operation not in LINEAR_LOSSES
            or case.name == "saturated, in chunks of the vocabulary"
        ]
    if adapter.transforms[transform].groups or transform in ("jacfwd", "vmap, torch.compile"):
        kept = of_each_call()
        return [
            case
            for case in cases
            if case.saturated
            or case.not_finite
            or str(case) in kept
            or (case.raises and (dtype, transform) in _REFUSING)
            if not _shares_its_code(case)
        ]
    repeats = (
        dtype == "float16" and "bfloat16" in adapter.dtypes,
        dtype == "float64" and adapter.name == "dask",
    )
    return [case for case in cases if case.section] if any(repeats) else cases


def _runs() -> list:
    """Return (backend, dtype, transform, cases); with SOFTMAXKIT_CONFORMANCE=dealt, fewer."""
    names = conformance.names()
    dealt = os.environ.get("SOFTMAXKIT_CONFORMANCE") == "dealt"
    runs = []
    for place, name in enumerate(names):
        adapter = _adapter(name)
        for setting in [("float32", "eager")] if dealt else conformance.settings(adapter):
            some = _cases(adapter, *setting)
            groups = list(conformance.groups(adapter, setting[1], some))
            for group in groups[place :: len(names)] if dealt else groups:
                case = str(group[0]) if len(group) == 1 else f"{group[0]} and {len(group) - 1} more"
                run = name, *setting
                runs.append(pytest.param(*run, group, id="-".join([*run, case])))
    return runs


@pytest.mark.parametrize(("backend", "dtype", "transform", "group"), _runs())
def test_conformance(
    backend: str,
    dtype: str,
    transform: str,
    group: list[conformance.Case],
    capfd: pytest.CaptureFixture,
) -> None:
    results = conformance.run_group(_adapter(backend), group, dtype, transform)
    failed = [f"{r.case}, {r.what}: {r.problem}" for r in results if not r.passed]
    assert not failed, "\n".join(failed)
    if transform == "eager":  # compilers print notes of their own, and so does TensorFlow, once
        lines = "".join(capfd.readouterr()).splitlines()
        assert not [line for line in lines if "oneDNN supports DT_HALF only" not in line]


@pytest.mark.parametrize(
    ("backend", "transform"),
    [(name, one) for name in conformance.names() for one in _adapter(name).transforms],
)
def test_cases_not_run(backend: str, transform: str) -> None:
    """Print why cases are left out under a transform: by its adapter, or by `_cases`."""
    adapter = _adapter(backend)
    run = set(map(str, _cases(adapter, "float32", transform)))
    reasons = Counter(
        adapter.leaves_out(case, transform) or "others make the same program"
        for case in conformance.cases()
        if adapter.leaves_out(case, transform) or str(case) not in run
    )
    if reasons:
        counted = "; ".join(f"{count} of them: {reason}" for reason, count in reasons.items())
        pytest.skip(f"{transform} leaves out some cases of {backend}; {counted}")


@pytest.mark.parametrize("feature", conformance.FEATURES)
@pytest.mark.parametrize("backend", conformance.names())
def test_capability(backend: str, feature: str) -> None:
    """Print why cases did not run: what a library lacks is declared once, in its adapter."""
    lacks = _adapter(backend).lacks
    if feature in lacks:
        pytest.skip(f"{backend} lacks {feature}: {lacks[feature]}")


@pytest.mark.parametrize("name", conformance.DERIVATIVES)
@pytest.mark.parametrize("backend", conformance.names())
def test_derivative(backend: str, name: str) -> None:
    """Print which gradients were not compared."""
    if not hasattr(_adapter(backend).functions, name):
        pytest.skip(f"{backend} has no {name}: not compared: {conformance.DERIVATIVES[name]}")


def test_every_case_has_a_name_of_its_own() -> None:
    names = [str(case) for case in conformance.cases()]
    assert len(set(names)) == len(names)


def _without_digits(x, axis=-1, **options):
    """Compute log-softmax as the textbook has it: wrong where one class dominates."""
    import numpy as np

    import softmaxkit

    with np.errstate(divide="ignore"):
        return np.log(softmaxkit.softmax(x, axis, **options))


def _failed(group: list[conformance.Case], **changed: object) -> set[str]:
    """Return the cases that fail on NumPy with a wrong log_softmax, or with `changed` fields."""
    wrong = {"functions": SimpleNamespace(log_softmax=_without_digits)} | changed
    adapter = replace(_adapter("numpy"), **wrong)
    return {str(r.case) for r in conformance.run_group(adapter, group) if not r.passed}


LOG_SOFTMAX = [case for case in conformance.cases() if case.operation == "log_softmax"]


def test_a_wrong_backend_is_found_out() -> None:
    """The suite can fail."""
    failed = {case for each in LOG_SOFTMAX for case in _failed([each])}
    assert "log_softmax-saturated" in failed
    assert "log_softmax-3x3" not in failed


def test_a_wrong_case_of_a_group_is_named() -> None:
    group = [case for case in LOG_SOFTMAX if case.raises is None]
    assert _failed(group) == {case for each in group for case in _failed([each])} != set()


def test_a_gradient_that_is_not_there_fails() -> None:
    def compute(requests: Sequence[Request]) -> list[Answer]:
        return [(request.function(*request.arrays), None) for request in requests]

    right = {"functions": conformance.load("numpy").functions, "lacks": {"tracing": "no compiler"}}
    transforms = {"eager": Transform(compute=compute, reads_labels=True)}
    case = next(case for case in LOG_SOFTMAX if case.name == "3x3")
    assert _failed([case], transforms=transforms, **right) == {"log_softmax-3x3"}


def test_what_is_wrong_only_in_a_group_is_not_lost() -> None:
    def compute(requests: Sequence[Request]) -> list[Answer]:
        return [
            (request.function(*request.arrays) * len(requests), request.cotangent)
            for request in requests
        ]

    right = {"functions": conformance.load("numpy").functions, "lacks": {"tracing": "no compiler"}}
    transforms = {"eager": Transform(compute=compute, reads_labels=True)}
    labels = [case for case in conformance.cases() if case.operation == "one_hot"]
    labels = [case for case in labels if case.raises is None]
    assert not {case for each in labels for case in _failed([each], transforms=transforms, **right)}
    assert _failed(labels, transforms=transforms, **right)
