"""Kernels that work in blocks, or choose by size: the suite again, with every limit made small."""

import pytest

from softmaxkit import conformance

# Backend -> its module with the limits -> what they are made: blocks of a few rows, and every
# kernel that is for large arrays.
SMALL = {
    "numpy": ("numpy_blocks", {"BLOCK_ELEMENTS": 16, "SHARED_ELEMENTS": 0, "SMALL_ELEMENTS": 0}),
    "torch": (
        "torch_blocks",
        {"BLOCK_ELEMENTS": 16, "HOST_ELEMENTS": 0, "SHORT_ELEMENTS": 0, "FRESH_BYTES": 0},
    ),
}
CASES = [case for case in conformance.cases() if not case.raises]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", [name for name in SMALL if name in conformance.names()])
def test_in_small_blocks(monkeypatch, name, case):
    module, limits = SMALL[name]
    for constant, value in limits.items():
        monkeypatch.setattr(f"softmaxkit.backends.{module}.{constant}", value)
    results = list(conformance.run_case(conformance.load(name), case))
    assert results
    assert not [f"{result.what}: {result.problem}" for result in results if not result.passed]
