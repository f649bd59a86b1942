"""Adapters of other people: what they lack is left out with a reason, what is wrong is one line."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import softmaxkit
from softmaxkit import conformance

BROKEN = """
from dataclasses import replace
from types import SimpleNamespace
from softmaxkit import conformance, softmax

def on_numpy(**changed):
    return replace(conformance.load("numpy"), **changed)

def operation(function):
    return on_numpy(functions=SimpleNamespace(softmax=function))

def refuse(x, axis=-1, **options):
    raise ZeroDivisionError("my kernel")

a_number = 7
nothing = lambda: None
incomplete = lambda: conformance.Adapter("mine", None, None)
no_operation = lambda: on_numpy(functions=SimpleNamespace(softmx=softmax))
no_such_feature = lambda: on_numpy(lacks=on_numpy().lacks | {"float8": "never heard of"})
no_way_back = on_numpy(to_numpy=lambda array: array.numpy())
another_dtype = on_numpy(dtype_name=lambda array: "float32")
wrong = operation(lambda x, axis=-1, **options: 1.01 * softmax(x, axis, **options))
raising = operation(refuse)
"""
REFUSED = {
    "missing": "AttributeError: module 'my_library' has no attribute 'missing'; expected an",
    "a_number": "TypeError: 'int' object is not callable; expected an Adapter",
    "nothing": "gives None; expected an Adapter, or a function that returns one.",
    "incomplete": "TypeError: Adapter.__init__() missing 1 required positional argument: 'dtype_n",
    "no_operation": "Adapter: functions has no operation; expected some of softmax, log_softmax",
    "no_such_feature": "Adapter: lacks has float8; expected some of float16, bfloat16",
    "no_way_back": "in float32 there and back as AttributeError: 'numpy.ndarray' object has no a",
    "another_dtype": "in float64 there and back as float32: [1.0, -2.5]; correct to_backend, to_n",
}


@pytest.fixture
def my_library(tmp_path, monkeypatch):
    (tmp_path / "my_library.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_library"
    sys.modules.pop("my_library", None)


def test_an_operation_that_is_not_there_is_left_out_with_a_reason():
    adapter = replace(
        conformance.load("numpy"), functions=SimpleNamespace(softmax=softmaxkit.softmax)
    )
    reasons = {case.operation: adapter.leaves_out(case) for case in conformance.cases()}
    assert reasons.pop("softmax") == ""
    assert reasons == {operation: f"it has no {operation}" for operation in reasons}
    results = list(conformance.run(adapter))
    assert {result.case.operation for result in results} == {"softmax"}
    assert {result.what for result in results} == {"value", "refusal"}
    assert all(result.passed for result in results)
    assert adapter.not_compared["gradients of activations by vjp"] == "it has no vjp"


def test_autodiff_is_compared_without_derivatives_of_its_own(torch):
    functions = SimpleNamespace(
        softmax=softmaxkit.softmax,
        cross_entropy=lambda *arrays, **options: 2 * softmaxkit.cross_entropy(*arrays, **options),
    )
    adapter = replace(conformance.load("torch"), functions=functions)
    by_case = {str(case): case for case in conformance.cases()}
    right = list(conformance.run_case(adapter, by_case["softmax-3x3"]))
    wrong = list(conformance.run_case(adapter, by_case["cross_entropy-3x3"]))
    assert [(result.what, result.passed) for result in right] == [
        ("value", True), ("value", True), ("gradient", True),
    ]  # fmt: skip
    assert [(result.what, result.passed) for result in wrong] == [
        ("value", False), ("value", False), ("gradient", False),
    ]  # fmt: skip


def test_a_result_of_another_dtype_fails():
    functions = SimpleNamespace(softmax=lambda x: np.zeros(x.shape, int))
    adapter = replace(conformance.load("numpy"), functions=functions)
    case = next(case for case in conformance.cases() if str(case) == "softmax-3x3")
    (result,) = conformance.run_case(adapter, case)
    assert result.problem == "dtype int64, not float32"


@pytest.mark.parametrize("attribute", REFUSED)
def test_what_is_no_adapter_is_refused_in_one_line(my_library, attribute):
    with pytest.raises(ValueError, match=r"^conformance: ") as refusal:
        conformance.load(f"{my_library}:{attribute}")
    assert REFUSED[attribute] in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("attribute", "line"),
    [
        ("wrong", "numpy float32 eager softmax-3x3, value: "),
        ("raising", "numpy float32 eager softmax-3x3: ZeroDivisionError: my kernel"),
    ],
)
def test_check_prints_a_line_for_each_case_that_fails(my_library, attribute, line):
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    result = CliRunner().invoke(app, ["check", "--backend", f"{my_library}:{attribute}"])
    assert result.exit_code == 1
    assert sum(each.startswith(line) for each in result.stdout.splitlines()) == 1
    assert "it has no cross_entropy" in result.stdout
    assert "Traceback" not in result.stdout


def test_check_refuses_what_cannot_be_loaded(my_library):
    pytest.importorskip("typer", reason="the command line needs typer: pip install '.[cli]'")
    from typer.testing import CliRunner

    from softmaxkit.cli import app

    result = CliRunner().invoke(app, ["check", "--backend", f"{my_library}:nothing"])
    assert result.exit_code == 2
    assert result.stderr.startswith("check: conformance: backend is 'my_library:nothing', which")
    assert len(result.stderr.splitlines()) == 1
