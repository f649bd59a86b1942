"""Kernels that work in blocks, or choose by size: the suite again, in each size class."""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import softmaxkit
from softmaxkit import conformance

# pytest's importlib mode lets no test import its neighbour.
neighbour = run_path(str(Path(__file__).with_name("size_classes.py")))
NUMPY, put_in = neighbour["NUMPY"], neighbour["put_in"]

# Each size class once, torch's of many classes also in half precision, which has its own kernels.
SETTINGS = [
    *(("numpy", "float32", size_class) for size_class in NUMPY),
    ("torch", "float64", "blocks"),
    ("torch", "float32", "blocks of many classes"),
    ("torch", "bfloat16", "blocks of many classes"),
    ("tensorflow", "float32", "fused"),
]
CASES = [case for case in conformance.cases() if not case.raises]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize(
    ("name", "dtype", "size_class"), [one for one in SETTINGS if one[0] in conformance.names()]
)
def test_in_small_blocks(monkeypatch, name, dtype, size_class, case):
    # In blocks of 4 even the 3 x 3 logits of a rule are several; of large ones 100 are enough.
    put_in(size_class, name, max(4, case.arrays[0].size // 100), monkeypatch)
    results = list(conformance.run_case(conformance.load(name), case, dtype))
    assert results
    assert not [f"{result.what}: {result.problem}" for result in results if not result.passed]


@pytest.mark.skipif("numpy" not in conformance.names(), reason="not among SOFTMAXKIT_BACKENDS")
@pytest.mark.parametrize(
    "shape",
    [
        # 73 columns fit in a block: the last of 200 are fewer.
        (3, 7, 200),
        # Labels have the shape of the logits of a block.
        (600, 1, 1),
    ],
)
def test_gradient_of_blocks_of_few_classes(monkeypatch, shape):
    for constant, value in (("BLOCK_ELEMENTS", 512), ("SMALL_ELEMENTS", 0)):
        monkeypatch.setattr(f"softmaxkit.backends.numpy.blocks.{constant}", value)
    outer, classes, inner = shape
    random = np.random.default_rng(0)
    x, labels = random.normal(size=shape), random.integers(0, classes, (outer, inner))
    _, gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, labels, axis=1)
    e = np.exp(x)
    one_hot = np.arange(classes)[:, None] == labels[:, None]
    # Float64 rounds at 1e-16 of p.
    assert np.abs(gradient * labels.size - (e / e.sum(1, keepdims=True) - one_hot)).max() < 1e-14


def test_long_rows_of_nearly_equal_logits(library):
    # As a softcap makes them: no term of Σ e^d stands out, and torch's softmax, which adds one
    # after the other, is 200 ULP off here.
    rows, classes = 4, 151936
    logits = np.tanh(np.random.default_rng(0).normal(size=(rows, classes)) - 4).astype("float32")
    logits[0, 7] = 1.0
    log_p = logits - np.log(np.exp(logits, dtype="float64").sum(1, keepdims=True))
    z, labels = library.array(logits), np.full(rows, 7)
    eps = np.finfo(np.float32).eps
    wanted = {"log_softmax": log_p, "softmax": np.exp(log_p)}
    for name, want in wanted.items():
        got = library.numpy(getattr(softmaxkit, name)(z))
        np.testing.assert_allclose(got, want, rtol=4 * eps, err_msg=name)
    loss = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    for smoothing in (0.0, 0.1):
        options = {"label_smoothing": smoothing, "reduction": "none"}
        value, of_z = loss(z, library.array(labels, None), **options)
        q = np.full(classes, smoothing / classes)
        q[7] += 1.0 - smoothing
        np.testing.assert_allclose(library.numpy(value), -(log_p * q).sum(1), rtol=4 * eps)
        p = np.exp(log_p)
        # The gradient p - q cancels at most classes when smoothing is there.
        np.testing.assert_allclose(library.numpy(of_z), p - q, rtol=4 * eps, atol=4 * eps * p.max())
