"""NumPy's short way of small losses gives what `_rows` gives, to the bit."""

import numpy as np
import pytest

import softmaxkit
from softmaxkit.backends import numpy as backend
from softmaxkit.backends import numpy_plain

RNG = np.random.default_rng(0)
LOSSES = [
    ("cross_entropy", "labels", {}),
    ("cross_entropy", "labels", {"label_smoothing": 0.1}),
    ("cross_entropy", "probabilities", {}),
    ("focal_loss", "labels", {}),
    ("focal_loss", "labels", {"gamma": 0.5}),
]


@pytest.fixture
def by_both_ways(monkeypatch):
    """Call a function with the short way, then without; the first must have taken it."""
    is_plain = numpy_plain.is_plain
    taken = []

    def call(function):
        monkeypatch.setattr(
            numpy_plain, "is_plain", lambda *a: taken.append(is_plain(*a)) or taken[-1]
        )
        short = function()
        assert taken
        assert all(taken)
        monkeypatch.setattr(numpy_plain, "is_plain", lambda *a: False)
        return zip(short, function(), strict=True)

    return call


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "targets", "options"), LOSSES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (3, 4, 6), (65, 3), (1, 1)], ids=str)
def test_both_ways_agree(by_both_ways, shape, dtype, name, targets, options, reduction):
    x = RNG.normal(0, 9, shape).astype(dtype)
    y = RNG.integers(0, shape[-1], shape[:-1])
    if targets == "probabilities":
        y = softmaxkit.softmax(RNG.normal(size=shape).astype(dtype))
    loss = getattr(softmaxkit, name)
    options = options | {"reduction": reduction}
    # Not strict on a single number: `_rows` gives the focal loss of one row as a 0-d array.
    for short, long in by_both_ways(lambda: (loss(x, y, **options),)):
        np.testing.assert_array_equal(short, long, strict=np.ndim(short) > 0)
    graded = softmaxkit.value_and_grad(loss)
    for short, long in by_both_ways(lambda: graded(x, y, **options)):
        np.testing.assert_array_equal(short, long, strict=np.ndim(short) > 0)


@pytest.mark.parametrize("of_value", [1.0, np.float32(0.3)], ids=str)
def test_a_gradient_asked_for_twice(by_both_ways, of_value):
    x, y = RNG.normal(0, 9, (6, 5)).astype(np.float32), RNG.integers(0, 5, 6)
    unset = ("weight", "sample_weight", "where", "ignore_index", "temperature", "z_loss", "dtype")
    given = dict.fromkeys((*unset, "label_smoothing"))
    given |= {"axis": 1, "reduction": "mean", "normalizer": "weight", "labels_checked": True}

    def twice():
        value, pull = backend.value_and_pull("cross_entropy", x, y, dict(given))
        return value, pull(x, of_value), pull(x, of_value)

    for short, long in by_both_ways(twice):
        np.testing.assert_array_equal(short, long)
