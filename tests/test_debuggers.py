"""The tools that look for NaN in a program say nothing of calls whose results have none."""

import warnings

import numpy as np
import pytest

from softmaxkit import conformance
from softmaxkit.conformance import reference
from softmaxkit.conformance.case import ACTIVATIONS, LOSSES
from softmaxkit.conformance.cases import of_each_call


def finite(case):
    """Return whether a case, under whatever inputs, has a value and a gradient without NaN."""
    if case.raises or case.operation not in (*ACTIVATIONS, *LOSSES):
        return False
    options = {name: value for name, value in case.options.items() if name != "dtype"}
    with np.errstate(all="ignore"):
        value = getattr(reference, case.operation)(*case.arrays, **options)
        if case.operation in LOSSES:
            gradient = reference.gradient(case.operation, *case.arrays, **options)
        else:
            vjp = getattr(reference, f"{case.operation}_vjp")
            gradient = vjp(*case.arrays, np.ones(value.shape), **options)
    return bool(np.isfinite(value).all() and np.isfinite(gradient).all())


def cases(operation):
    each = of_each_call()
    found = [
        case
        for case in conformance.cases()
        if case.operation == operation
        and (case.not_finite or case.saturated or str(case) in each)
        and finite(case)
    ]
    # Ignored rows that hold NaN, masks, rows of weight 0 and -inf are among them.
    assert len(found) > 5
    return found


def passes(adapter, some, transform):
    for group in (some[i : i + 24] for i in range(0, len(some), 24)):
        for result in conformance.run_group(adapter, group, "float32", transform):
            assert result.passed, (str(result.case), result.problem)


@pytest.mark.parametrize("operation", [*ACTIVATIONS, *LOSSES])
def test_anomaly_detection_of_torch(torch, operation):
    adapter = conformance.load("torch")
    # It warns of itself when it is turned on.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Anomaly Detection has been enabled")
        anomalies = torch.autograd.detect_anomaly()
    with anomalies:
        for case in cases(operation):
            passes(adapter, [case], "eager")


@pytest.mark.parametrize("operation", [*ACTIVATIONS, *LOSSES])
def test_debug_nans_of_jax(jax, operation):
    adapter = conformance.load("jax")
    # It minds an array that holds NaN when it is made.
    some = [case for case in cases(operation) if not np.isnan(case.arrays[0]).any()]
    with jax.debug_nans(True):
        passes(adapter, some, "jit")
