"""The suite for pytest: case x backend x dtype x transform."""

from __future__ import annotations

import os
from functools import cache
from itertools import product

import pytest

from softmaxkit import conformance


@cache
def _adapter(name: str) -> conformance.Adapter:
    return conformance.load(name)


def _runs() -> list:
    """(backend, dtype, transform, case): all, or as SOFTMAXKIT_CONFORMANCE=dealt leaves them."""
    cases, names = list(conformance.cases()), conformance.names()
    dealt = os.environ.get("SOFTMAXKIT_CONFORMANCE") == "dealt"
    runs = []
    for place, name in enumerate(names):
        settings = [("float32", "eager")] if dealt else conformance.settings(_adapter(name))
        own = cases[place :: len(names)] if dealt else cases
        runs += [(name, *setting, case) for setting, case in product(settings, own)]
    return [pytest.param(*run, id="-".join(map(str, run))) for run in runs]


@pytest.mark.parametrize(("backend", "dtype", "transform", "case"), _runs())
def test_conformance(
    backend: str, dtype: str, transform: str, case: conformance.Case, capfd: pytest.CaptureFixture
) -> None:
    adapter = _adapter(backend)
    not_run = adapter.transforms[transform].lacks(case)
    if not_run:
        pytest.skip(not_run)
    for result in conformance.run_case(adapter, case, dtype, transform):
        assert result.passed, f"{result.what}: {result.problem}"
    if transform == "eager":  # compilers have their own news to tell, and so has TensorFlow, once
        lines = "".join(capfd.readouterr()).splitlines()
        assert not [line for line in lines if "oneDNN supports DT_HALF only" not in line]


@pytest.mark.parametrize("feature", conformance.FEATURES)
@pytest.mark.parametrize("backend", conformance.names())
def test_capability(backend: str, feature: str) -> None:
    """Print why cases did not run: what a library lacks is declared once, in its adapter."""
    lacks = _adapter(backend).lacks
    assert set(lacks) <= set(conformance.FEATURES)
    if feature in lacks:
        pytest.skip(f"{backend} lacks {feature}: {lacks[feature]}")


def test_every_case_has_a_name_of_its_own() -> None:
    names = [str(case) for case in conformance.cases()]
    assert len(set(names)) == len(names)


def test_a_wrong_backend_is_found_out() -> None:
    """The suite can fail: log(softmax), as the textbook has it, does not pass for log_softmax."""
    import dataclasses
    import types

    import numpy as np

    import softmaxkit

    def log_softmax(x, axis=-1, **options):
        with np.errstate(divide="ignore"):
            return np.log(softmaxkit.softmax(x, axis, **options))

    numpy = _adapter("numpy")
    wrong = dataclasses.replace(numpy, functions=types.SimpleNamespace(log_softmax=log_softmax))
    failed = {
        str(result.case)
        for case in conformance.cases()
        if case.operation == "log_softmax"
        for result in conformance.run_case(wrong, case)
        if not result.passed
    }
    assert "log_softmax-saturated" in failed
    assert "log_softmax-3x3" not in failed
