"""Kernels that work in blocks, or choose by size: the suite again, with every limit made small."""

import numpy as np
import pytest

import softmaxkit
from softmaxkit import conformance

BLOCKS = {"BLOCK_ELEMENTS": 16, "SHARED_ELEMENTS": 0, "SMALL_ELEMENTS": 0}
TORCH = {"BLOCK_ELEMENTS": 16, "SHORT_ELEMENTS": 0, "FRESH_BYTES": 0}
TORCH |= {"HOST_ELEMENTS": 0, "DOUBLE_ELEMENTS": 0}
FUSED = {"FUSED_ELEMENTS": 0, "FUSED_EAGER_ELEMENTS": 0, "FUSED_FROM_CLASSES": 1}
# Backend, dtype, its module with the limits, and what they are made: blocks of a few rows, and
# every kernel that is for large arrays.
SETTINGS = [
    ("numpy", "float32", "numpy_blocks", BLOCKS),
    # By one thread.
    ("numpy", "float32", "numpy_blocks", {"LONE_ELEMENTS": 16, "SMALL_ELEMENTS": 0}),
    # Sums in parts.
    ("numpy", "float32", "numpy_sums", {"DOT_CLASSES": 1, "PART_CLASSES": 2}),
    ("torch", "float32", "torch_blocks", TORCH),
    # Few classes too by torch's own softmax.
    ("torch", "float32", "torch_blocks", TORCH | {"SHORT_ROW": 1}),
    ("torch", "float64", "torch_blocks", TORCH | {"SHORT_ROW": 1}),
    # Half precision has kernels of its own where torch works in blocks.
    ("torch", "bfloat16", "torch_blocks", TORCH),
    ("tensorflow", "float32", "tensorflow_rows", FUSED),
]
CASES = [case for case in conformance.cases() if not case.raises]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    ("name", "dtype", "module", "limits"),
    [each for each in SETTINGS if each[0] in conformance.names()],
)
def test_in_small_blocks(monkeypatch, name, dtype, module, limits, case):
    for constant, value in limits.items():
        monkeypatch.setattr(f"softmaxkit.backends.{module}.{constant}", value)
    results = list(conformance.run_case(conformance.load(name), case, dtype))
    assert results
    assert not [f"{result.what}: {result.problem}" for result in results if not result.passed]


@pytest.mark.skipif("numpy" not in conformance.names(), reason="not among SOFTMAXKIT_BACKENDS")
@pytest.mark.parametrize(
    "shape",
    [
        # 73 columns fit in a block: the last of 200 are too few to be worked on where they stand.
        (3, 7, 200),
        # Labels have the shape of the logits of a block.
        (600, 1, 1),
    ],
)
def test_gradient_of_blocks_of_few_classes(monkeypatch, shape):
    for constant, value in (("BLOCK_ELEMENTS", 512), ("SMALL_ELEMENTS", 0)):
        monkeypatch.setattr(f"softmaxkit.backends.numpy_blocks.{constant}", value)
    outer, classes, inner = shape
    random = np.random.default_rng(0)
    x, labels = random.normal(size=shape), random.integers(0, classes, (outer, inner))
    _, gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, labels, axis=1)
    e = np.exp(x)
    one_hot = np.arange(classes)[:, None] == labels[:, None]
    # Float64 rounds at 1e-16 of p.
    assert np.abs(gradient * labels.size - (e / e.sum(1, keepdims=True) - one_hot)).max() < 1e-14
