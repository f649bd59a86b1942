"""CuPy, which goes through array-api-compat: every call on arrays that the host cannot read.

fake_cupy takes CuPy's place; benchmarks/gpu.py runs such calls on CuPy itself.
"""

import operator
from itertools import cycle
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import softmaxkit
from softmaxkit import calibration, conformance
from softmaxkit.backends import array_api
from softmaxkit.conformance.case import OPERATIONS

fake = run_path(str(Path(__file__).with_name("fake_cupy.py")))
HostReadError = fake["HostReadError"]
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (60, 4))
LABELS = (LOGITS + RNG.normal(0, 2, LOGITS.shape)).argmax(1)
LACKS = {
    "labels": "they are on the device, for which nothing waits",
    **dict.fromkeys(("bfloat16", "tracing", "autodiff"), "CuPy has none"),
}


@pytest.fixture
def cupy(monkeypatch):
    fake["install"](monkeypatch)
    import cupy

    monkeypatch.setattr(cupy.ndarray, "copies", 0)
    return cupy


@pytest.mark.parametrize(
    "read",
    [
        np.asarray, np.array, bool, int, float, operator.index, list, max,
        operator.methodcaller("item"), operator.methodcaller("tolist"), lambda x: x[x > 0],
    ],
)  # fmt: skip
def test_what_the_host_reads_is_noticed(cupy, read):
    with pytest.raises(HostReadError):
        read(cupy.asarray([1.0]))


# In larger arrays, errors add up, but nothing else is called.
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_host_reads_nothing(cupy, operation):
    adapter = conformance.Adapter(
        "CuPy",
        lambda array, dtype: cupy.asarray(array, dtype or array.dtype),
        lambda array: array._host,
        lambda array: str(array.dtype),
        LACKS,
    )
    small = (case for case in conformance.cases() if case.arrays[0].size <= 10_000)
    own = [case for case in small if case.operation == operation]
    for case, dtype in zip(own, cycle(["float32", "float16"]), strict=False):
        results = list(conformance.run_case(adapter, case, dtype))
        assert [one for one in results if one.problem] == []
        if case.raises in (None, IndexError):
            assert {one.what for one in results} & {"value", "gradient"}, case
    assert own
    assert cupy.ndarray.copies == 0


def test_labels_are_read_where_the_host_has_them(cupy):
    logits, wrong = cupy.asarray(LOGITS), np.where(LABELS == 1, 7, LABELS)
    assert array_api.is_accelerated(logits)
    with pytest.raises(IndexError, match=r"targets\[\d+\] is 7; expected a class index in"):
        softmaxkit.cross_entropy(logits, wrong)
    rows = softmaxkit.cross_entropy(logits, cupy.asarray(wrong), reduction="none")
    np.testing.assert_array_equal(np.isnan(rows._host), wrong == 7)
    value = softmaxkit.cross_entropy(logits, LABELS.tolist(), weight=[1, 2, 3, 4])
    assert type(value) is cupy.ndarray
    assert cupy.ndarray.copies == 0


def test_calibration_copies_what_it_reads(cupy):
    logits, labels = cupy.asarray(LOGITS), cupy.asarray(LABELS)
    for measure in (calibration.fit_temperature, calibration.calibration_error):
        # NumPy's kernels add up in another order.
        np.testing.assert_allclose(measure(logits, labels), measure(LOGITS, LABELS), rtol=1e-9)
        assert cupy.ndarray.copies > 0
        cupy.ndarray.copies = 0
