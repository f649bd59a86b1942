"""optax's own tests, from its wheel, run on softmaxkit.jax in place of optax's functions."""

import inspect
import re
import unittest
from collections import Counter
from functools import wraps

import numpy as np
import pytest
from optax.losses import _classification, _classification_test, _smoothing, _smoothing_test

import softmaxkit.jax

# Each function and the class that tests it.
SUITES = {
    "softmax_cross_entropy": _classification_test.SoftmaxCrossEntropyTest,
    "safe_softmax_cross_entropy": _classification_test.SafeSoftmaxCrossEntropyTest,
    "softmax_cross_entropy_with_integer_labels": (
        _classification_test.SoftmaxCrossEntropyWithIntegerLabelsTest
    ),
    "sigmoid_binary_cross_entropy": _classification_test.SigmoidCrossEntropyTest,
    "sigmoid_focal_loss": _classification_test.SigmoidFocalLossTest,
    "poly_loss_cross_entropy": _classification_test.PolyLossTest,
    "smooth_labels": _smoothing_test.SmoothLabelsTest,
}
# Under these names pytest finds them here, and runs them with the fixture below.
globals().update({suite.__name__: suite for suite in SUITES.values()})

# Class and test -> why softmaxkit differs. Each must really fail.
EXPECTED_DIFFERENCES: dict[str, str] = {}


@pytest.fixture(autouse=True)
def calls(request, monkeypatch):
    """Put softmaxkit's functions where optax's tests look for optax's, and count their calls."""
    counts = Counter()

    def counting(name):
        function = getattr(softmaxkit.jax, name)

        @wraps(function)
        def counted(*arguments, **options):
            counts[name] += 1
            return function(*arguments, **options)

        return counted

    for name in SUITES:
        module = _smoothing if name == "smooth_labels" else _classification
        monkeypatch.setattr(module, name, counting(name))
    # optax's tests draw masks, of which one in 32 keeps nothing. softmaxkit refuses logits without
    # a class, for which optax has a loss of 0.
    np.random.seed(0)  # noqa: NPY002 - their tests draw from the global generator
    if request.cls is not None:
        key = f"{request.cls.__name__}.{request.node.name}"
        if key in EXPECTED_DIFFERENCES:
            mark = pytest.mark.xfail(reason=EXPECTED_DIFFERENCES[key], strict=True)
            request.applymarker(mark)
    yield counts
    if request.cls is not None:
        (name,) = (name for name, suite in SUITES.items() if suite is request.cls)
        assert counts[name], f"{request.node.name} called no {name} of softmaxkit"


def test_every_class_that_tests_our_functions_is_here():
    """A class that a new optax adds is not overlooked."""
    for module in (_classification_test, _smoothing_test):
        for name, suite in vars(module).items():
            if inspect.isclass(suite) and issubclass(suite, unittest.TestCase):
                source = inspect.getsource(suite)
                called = set(re.findall(r"_(?:classification|smoothing)\.(\w+)", source))
                ours = bool(called & set(softmaxkit.jax.__all__))
                assert ours == (suite in SUITES.values()), name


def test_optax_itself_is_not_called(calls):
    """A test of the counting: the functions in optax's modules are softmaxkit's."""
    for name in SUITES:
        module = _smoothing if name == "smooth_labels" else _classification
        assert inspect.unwrap(getattr(module, name)) is getattr(softmaxkit.jax, name)
    assert not calls
