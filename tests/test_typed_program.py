"""The typed program runs, and each value is of the type that it asserts to the checkers."""

import types
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, get_args, get_origin

import numpy as np
import pytest

from softmaxkit.conformance import adapters

PROGRAM = Path(__file__).with_name("typed_program.py")
LIBRARIES = ("numpy", "torch", "jax", "tensorflow")
pytestmark = pytest.mark.skipif(
    not set(LIBRARIES) <= set(adapters.names()),
    reason=f"{', '.join(LIBRARIES)} are not all among the libraries under test",
)


def is_a(value, kind):
    """Return whether a value is of a type; those inside a tuple or a union count."""
    if kind is Any:
        return True
    if get_origin(kind) is types.UnionType:  # NumpyResult: an array of NumPy, or a scalar
        return isinstance(value, np.ndarray | np.generic)
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return len(value) == len(kinds) and all(map(is_a, value, kinds))
    return isinstance(value, get_origin(kind) or kind)


@pytest.fixture
def program(monkeypatch):
    for name, needed_for in (("optax", "a façade"), ("matplotlib", "pictures")):
        pytest.importorskip(name, reason=f"{name}, for {needed_for}, is not installed")
    import_module("matplotlib").use("Agg")
    spec = spec_from_file_location("typed_program", PROGRAM)
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    asserted = []

    def checked(value, kind):
        asserted.append((value, kind))
        assert is_a(value, kind), f"a {type(value)}; the program says {kind}"

    monkeypatch.setattr(found, "assert_type", checked)
    found.asserted = asserted
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("on_torch", "on_jax", "on_tensorflow", "on_numpy", "calibrated", "drawn"),
        *("in_place_of_torch", "in_place_of_jax", "in_place_of_tensorflow"),
    ],
)
def test_values_are_what_their_types_say(program, name):
    getattr(program, name)()
    assert program.asserted


def test_a_value_of_another_type_is_found():
    """The test of the test."""
    assert not is_a(np.float32(1), np.ndarray[tuple[Any, ...], np.dtype[Any]])
    assert not is_a((1.0, 1.0), tuple[float, np.floating])
