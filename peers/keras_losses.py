"""Keras's own tests, from its wheel, run on softmaxkit.keras in place of `keras.losses`.

Run by `test_keras.py`, once for each backend in a process of its own; or by hand,
``KERAS_BACKEND=jax python -m pytest peers/keras_losses.py``.
"""

import inspect
import re
from collections import Counter
from types import SimpleNamespace

import keras
import pytest
from keras.src import testing
from keras.src.losses import losses_test as theirs

import softmaxkit.keras

BACKEND = keras.backend.backend()
SUITES = {
    "BinaryCrossentropy": theirs.BinaryCrossentropyTest,
    "BinaryFocalCrossentropy": theirs.BinaryFocalCrossentropyTest,
    "CategoricalCrossentropy": theirs.CategoricalCrossentropyTest,
    "CategoricalFocalCrossentropy": theirs.CategoricalFocalCrossentropyTest,
    "SparseCategoricalCrossentropy": theirs.SparseCategoricalCrossentropyTest,
}
# Under these names pytest finds them here, and runs them with the fixture below.
globals().update({suite.__name__: suite for suite in SUITES.values()})

# Class and test -> backends, and why softmaxkit is right. Each must really fail.
ANY_AXIS = "Keras refuses labels along an axis that is not the last; softmaxkit computes their loss"
EXPECTED_DIFFERENCES = {
    f"SparseCategoricalCrossentropyTest.test_{kind}_segmentation_different_axis": (
        ("jax", "tensorflow"),
        ANY_AXIS,
    )
    for kind in ("binary", "multi_class")
}
# NumPy 2.4 warns about keras.ops.convert_to_numpy of a torch tensor.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't:DeprecationWarning"
)


@pytest.fixture(autouse=True)
def calls(request, monkeypatch):
    """Put softmaxkit.keras where Keras's tests look for `losses`, and count what they use of it.

    There are no other losses: a test that uses one of Keras's own fails.
    """
    counts = Counter()

    class Counting(SimpleNamespace):
        def __getattribute__(self, name):
            counts[name] += 1
            return super().__getattribute__(name)

    names = softmaxkit.keras.__all__
    offered = Counting(**{name: getattr(softmaxkit.keras, name) for name in names})
    monkeypatch.setattr(theirs, "losses", offered)
    if request.cls is not None:
        key = f"{request.cls.__name__}.{request.node.name}"
        backends, reason = EXPECTED_DIFFERENCES.get(key, ((), ""))
        if backends and BACKEND == "numpy":
            pytest.skip("it asks nothing of NumPy")
        if BACKEND in backends:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    yield
    if request.cls is not None:
        (name,) = (name for name, suite in SUITES.items() if suite is request.cls)
        function = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
        assert counts[name] + counts[function], f"{request.node.name} took no {name} of softmaxkit"


def test_every_class_that_tests_our_losses_is_here():
    """A class that a new Keras adds is not overlooked."""
    for name, suite in vars(theirs).items():
        if inspect.isclass(suite) and issubclass(suite, testing.TestCase):
            called = set(re.findall(r"\blosses\.(\w+)", inspect.getsource(suite)))
            ours = bool(called & set(softmaxkit.keras.__all__))
            assert ours == (suite in SUITES.values()), name


def test_every_difference_is_a_test_of_keras():
    tests = {f"{suite.__name__}.{name}" for suite in SUITES.values() for name in vars(suite)}
    assert set(EXPECTED_DIFFERENCES) <= tests
