"""ONNX's own node tests, from its wheel, run on softmaxkit and its façades.

A node runs on a façade if its library has a function that means the same; `EXPRESSED` lists these
nodes and functions. softmaxkit itself runs all but NegativeLogLikelihoodLoss, which gathers from
any numbers and does not take logits.
"""

import warnings
from functools import partial

import jax
import numpy as np
import pytest
import tensorflow as tf
import torch
from onnx.helper import get_attribute_value

import softmaxkit.jax
import softmaxkit.keras
import softmaxkit.tensorflow
import softmaxkit.torch

with warnings.catch_warnings(action="ignore"):  # of examples that overflow on purpose
    from onnx.backend.test.case.node import collect_testcases

    EVERY = collect_testcases(None)

OPERATORS = (
    *("Softmax", "LogSoftmax", "ReduceLogSumExp", "SoftmaxCrossEntropyLoss"),
    "NegativeLogLikelihoodLoss",
)
# ONNX's name -> operator, attributes, case. Cases that expand an operator to many nodes do not run.
NODES = {
    case.name: (node.op_type, {a.name: get_attribute_value(a) for a in node.attribute}, case)
    for case in EVERY
    for node in case.model.graph.node
    if len(case.model.graph.node) == 1 and node.op_type in OPERATORS
}


# --- what a node means, as each library expresses it ----------------------------------------------
def activation(function, axis_name, x, *, axis=-1):
    return function(x, **{axis_name: axis})


def logsumexp(function, x, axes=None, *, keepdims=1):
    axes = None if axes is None or not len(axes) else tuple(int(axis) for axis in axes)
    return function(x, axis=axes, keepdims=bool(keepdims))


def ours(x, labels, weight=None, *, reduction=b"mean", ignore_index=None):
    return softmaxkit.cross_entropy(
        *(x, labels), axis=1, weight=weight, ignore_index=ignore_index, reduction=reduction.decode()
    )


def of_torch(function, x, labels, weight=None, *, reduction=b"mean", ignore_index=-100):
    options = {"reduction": reduction.decode(), "ignore_index": ignore_index}
    return function(x, labels, weight, **options)


def of_optax(x, labels, *, reduction):
    return softmaxkit.jax.softmax_cross_entropy_with_integer_labels(x, labels, axis=1)


def of_tensorflow(x, labels, *, reduction):
    x = tf.experimental.numpy.moveaxis(x, 1, -1)
    return softmaxkit.tensorflow.sparse_softmax_cross_entropy_with_logits(labels, x)


def of_keras(x, labels, *, reduction, ignore_index=None):
    return softmaxkit.keras.sparse_categorical_crossentropy(
        *(labels, x), from_logits=True, ignore_class=ignore_index, axis=1
    )


def operations(functions, axis="axis", **others):
    return {
        "Softmax": partial(activation, functions.softmax, axis),
        "LogSoftmax": partial(activation, functions.log_softmax, axis),
    } | others


CORE = operations(
    softmaxkit,
    ReduceLogSumExp=partial(logsumexp, softmaxkit.logsumexp),
    SoftmaxCrossEntropyLoss=ours,
)
FUNCTIONS = softmaxkit.torch, softmaxkit.jax, softmaxkit.tensorflow
# Library or façade -> how arrays are made, operator -> call, the options that its loss has.
EXPRESSED = {
    "NumPy": (lambda x: x, CORE, {"weight", "ignore_index", "mean", "sum"}),
    "PyTorch": (torch.tensor, CORE, {"weight", "ignore_index", "mean", "sum"}),
    "JAX": (jax.numpy.asarray, CORE, {"weight", "ignore_index", "mean", "sum"}),
    "TensorFlow": (tf.constant, CORE, {"weight", "ignore_index", "mean", "sum"}),
    "softmaxkit.torch": (
        torch.tensor,
        operations(
            softmaxkit.torch,
            "dim",
            SoftmaxCrossEntropyLoss=partial(of_torch, softmaxkit.torch.cross_entropy),
            NegativeLogLikelihoodLoss=partial(of_torch, softmaxkit.torch.nll_loss),
        ),
        {"weight", "ignore_index", "mean", "sum"},
    ),
    "softmaxkit.jax": (
        jax.numpy.asarray,
        operations(
            softmaxkit.jax,
            ReduceLogSumExp=partial(logsumexp, softmaxkit.jax.logsumexp),
            SoftmaxCrossEntropyLoss=of_optax,
        ),
        set(),
    ),
    "softmaxkit.tensorflow": (
        tf.constant,
        operations(softmaxkit.tensorflow, SoftmaxCrossEntropyLoss=of_tensorflow),
        set(),
    ),
    "softmaxkit.keras": (
        tf.constant,
        {"SoftmaxCrossEntropyLoss": of_keras},
        {"ignore_index"},
    ),
}
# Façade and node -> why softmaxkit differs. Each must really fail.
EXPECTED_DIFFERENCES: dict[tuple[str, str], str] = {}


def asked(operator, attributes, inputs):
    """Return the options that a loss needs."""
    if not operator.endswith("Loss"):
        return set()
    wanted = {attributes.get("reduction", b"mean").decode()} - {"none"}
    has_weight = {"weight"} if len(inputs) > 2 else set()
    return wanted | has_weight | {"ignore_index"} & set(attributes)


def same(result, expected, case):
    alike = (result.dtype, result.shape) == (expected.dtype, expected.shape)
    return alike and np.allclose(result, expected, case.rtol, case.atol, equal_nan=True)


@pytest.fixture(autouse=True)
def _wide():
    """ReduceLogSumExp is tested in float64."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def test_every_node_is_found():
    assert {operator for operator, _, _ in NODES.values()} == set(OPERATORS)
    assert len(NODES) >= 75


@pytest.mark.parametrize("where", EXPRESSED)
def test_nodes(tally, where):
    array, functions, offered = EXPRESSED[where]
    failed, excused, passed, left_out = [], 0, 0, 0
    for name, (operator, attributes, case) in NODES.items():
        for inputs, outputs in case.data_sets:
            if operator not in functions or not asked(operator, attributes, inputs) <= offered:
                left_out += 1
                continue
            axes = {1} if operator == "ReduceLogSumExp" else set()  # not an array of the library
            given = [x if place in axes else array(x) for place, x in enumerate(inputs)]
            results = [functions[operator](*given, **attributes)]
            if len(outputs) > 1 and "LogSoftmax" in functions:  # the log-probabilities
                results.append(functions["LogSoftmax"](given[0], axis=1))
            if all(
                same(np.asarray(one), other, case)
                for one, other in zip(results, outputs, strict="LogSoftmax" in functions)
            ):
                passed += 1
            elif (where, name) in EXPECTED_DIFFERENCES:
                excused += 1
            else:
                failed.append(name)
    tally(f"ONNX on {where}", run=passed + excused, passed=passed, excused=excused, left=left_out)
    assert passed
    assert not failed
    assert excused == sum(one == where for one, _ in EXPECTED_DIFFERENCES)
