"""Array-API libraries: everything is made on the device of the logits, and only what it has.

array-api-strict has devices of its own, which refuse arrays of each other; NumPy cannot read them.
On "no_float64" it has no float64 either, as on Apple's GPUs.
"""

from dataclasses import replace

import numpy as np
import pytest

import softmaxkit
from softmaxkit import conformance
from softmaxkit.conformance.case import OPERATIONS


def on_device(strict):
    adapter = conformance.load("array_api_strict")
    device = strict.Device("no_float64")
    return replace(
        adapter,
        to_backend=lambda array, dtype: adapter.to_backend(array, dtype).to_device(device),
        to_numpy=lambda array: adapter.to_numpy(array.to_device(strict.Device("CPU_DEVICE"))),
        lacks=adapter.lacks | {"labels": "they are on the device, for which nothing waits"},
        default_float="float32",
    )


def kind_of(case):
    """Return what decides how a call is computed, but for shapes and numbers."""
    options = {
        name: value if isinstance(value, str | bool) else type(value)
        for name, value in case.options.items()
    }
    kinds = tuple(array.dtype.kind for array in case.arrays)
    return kinds, frozenset(options.items()), case.raises


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_call_of_each_kind(strict, operation):
    adapter = on_device(strict)
    small = (case for case in conformance.cases() if case.arrays[0].size <= 10_000)
    own = [case for case in small if case.operation == operation]
    for case in {kind_of(case): case for case in reversed(own)}.values():
        if case.options.get("dtype") == "float64":  # which is refused there
            continue
        results = list(conformance.run_case(adapter, case))
        assert [one for one in results if one.problem] == []
        assert results


def test_the_device_has_no_float64_and_the_host_no_labels(strict):
    adapter = on_device(strict)
    logits = adapter.to_backend(np.eye(3), "float32")
    with pytest.raises(RuntimeError, match="Can't convert array on the"):
        np.asarray(logits)
    with pytest.raises(ValueError, match="does not support dtype"):
        adapter.to_backend(np.eye(3), "float64")
    with pytest.raises(TypeError, match="dtype is 'float64'; expected a floating dtype"):
        softmaxkit.cross_entropy(logits, [0, 1, 2], dtype="float64")
    labels = adapter.to_backend(np.array([0, 3, 2]), None)
    rows = adapter.to_numpy(softmaxkit.cross_entropy(logits, labels, reduction="none"))
    assert np.isnan(rows).tolist() == [False, True, False]
    with pytest.raises(IndexError, match=r"targets\[1\] is 3; "):
        softmaxkit.cross_entropy(logits, [0, 3, 2], reduction="none")
