"""SciPy's own tests, from its wheel, run on softmaxkit in place of SciPy's functions.

`calls` adapts softmaxkit to two conventions of SciPy: axis=None is the default, and a NumPy scalar
is returned where softmaxkit returns a 0-d array.
"""

from collections import Counter

import numpy as np
import pytest
from scipy.special.tests import test_logsumexp as theirs

import softmaxkit

TestSoftmax = theirs.TestSoftmax
TestLogSoftmax = theirs.TestLogSoftmax


class TestLogSumExp:
    """The tests that pass no factors `b`, ask for no sign, and are not about complex numbers."""

    test_logsumexp = theirs.TestLogSumExp.test_logsumexp
    test_array_like = theirs.TestLogSumExp.test_array_like
    test_xp_invalid_input = theirs.TestLogSumExp.test_xp_invalid_input
    test_dtypes_a = theirs.TestLogSumExp.test_dtypes_a
    test_gh18295 = theirs.TestLogSumExp.test_gh18295


# Class and test -> why softmaxkit differs. Each must really fail.
COMPLEX = "softmaxkit refuses complex numbers, which have no order and so no maximum"
EXPECTED_DIFFERENCES = {
    "TestLogSumExp.test_dtypes_a[complex64]": COMPLEX,
    "TestLogSumExp.test_dtypes_a[complex128]": COMPLEX,
}


@pytest.fixture
def xp():
    """Return the array library under test, as SciPy's conftest does: NumPy."""
    return np


@pytest.fixture(autouse=True)
def calls(request, monkeypatch):
    """Put softmaxkit's functions where SciPy's tests look for SciPy's, and count their calls."""
    counts = Counter()

    def counting(name):
        def counted(x, axis=None, **options):
            counts[name] += 1
            return getattr(softmaxkit, name)(x, axis, **options)[()]

        return counted

    for name in ("softmax", "log_softmax", "logsumexp"):
        monkeypatch.setattr(theirs, name, counting(name))
    key = f"{request.cls.__name__}.{request.node.name}"
    if key in EXPECTED_DIFFERENCES:
        request.applymarker(pytest.mark.xfail(reason=EXPECTED_DIFFERENCES[key], strict=True))
    yield
    name = {"TestSoftmax": "softmax", "TestLogSoftmax": "log_softmax"}.get(
        request.cls.__name__, "logsumexp"
    )
    assert counts[name], f"{request.node.name} called no {name} of softmaxkit"
