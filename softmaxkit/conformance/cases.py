"""The conformance cases as data: an operation, its inputs, its options.

This module has the cases that vary shapes, axes, options and saturation; `rules` has the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from softmaxkit._operations import BY_CLASS
from softmaxkit.conformance.case import ACTIVATIONS, BINARY_LOSSES, Case
from softmaxkit.conformance.rules import rules


def _logits(*shape: int, seed: int = 0, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, spread, shape)


def _labels(*shape: int, classes: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, shape)


def _probabilities(*shape: int, axis: int = -1, seed: int = 2) -> np.ndarray:
    q = np.random.default_rng(seed).gamma(0.5, 1.0, shape)
    return q / q.sum(axis, keepdims=True)


def _mask(*shape: int, axis: int = -1, seed: int = 3) -> np.ndarray:
    mask = np.random.default_rng(seed).random(shape) < 0.7
    np.put_along_axis(mask, np.expand_dims(mask.argmax(axis), axis), True, axis)
    return mask


# Rows whose softmax every float32 log(sum(exp)) gets wrong, or that are awkward otherwise.
SATURATED = np.array(
    [
        [30.0, 0.0, 0.0, 0.0],
        [0.0, 17.0, -2.0, 1.0],
        [80.0, 0.0, -3.0, 5.0],
        [0.0, 0.0, 60.5, 60.0],
        [-40.0, -10.0, -40.0, -39.0],
        [200.0, 0.0, 0.0, 1.0],
        [1000.0, -1000.0, 0.0, 995.0],
        [5.0, 5.0, -25.0, 5.0],
        [10020.25, 10000.0, 10001.5, 9999.0],
    ]
)
TARGETS_OF_SATURATED = np.array([0, 1, 0, 2, 1, 0, 0, 3, 0])
ORDINARY = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])


def cases() -> Iterator[Case]:
    """Yield every case."""
    yield from rules()
    yield from _activation_cases()
    yield from _class_loss_cases()
    yield from _binary_cases()
    yield from _linear_cases()


@cache
def of_each_call() -> frozenset[str]:
    """Return one case of each call: an operation with the same options, on arrays of one kind."""
    kept: dict[Any, str] = {}
    for case in cases():
        options = {
            name: value if isinstance(value, str | bool) else None
            for name, value in case.options.items()
        }
        kinds = tuple(array.dtype.kind for array in case.arrays)
        if not (case.raises or case.is_large):
            kept.setdefault((case.operation, kinds, frozenset(options.items())), str(case))
    return frozenset(kept.values())


def _activation_cases() -> Iterator[Case]:
    inputs: list[tuple[str, np.ndarray, dict[str, Any], bool]] = [
        ("3x3", ORDINARY, {}, False),
        ("one row", _logits(7), {}, False),
        ("64 classes", _logits(33, 64), {}, False),
        ("1000 classes", _logits(5, 1000), {}, False),
        ("axis 0", _logits(6, 4), {"axis": 0}, False),
        ("axis 1 of 4", _logits(2, 5, 3, 4), {"axis": 1}, False),
        ("200 classes along axis 0", _logits(200, 37), {"axis": 0}, False),
        ("axes (0, 2)", _logits(3, 4, 5), {"axis": (0, 2)}, False),
        ("all axes", _logits(3, 4), {"axis": None}, False),
        ("ties", np.array([[1.0, 1.0, 1.0], [2.0, 2.0, -1.0]]), {}, False),
        ("one class", _logits(4, 1), {}, False),
        ("mask", _logits(6, 5), {"where": _mask(6, 5)}, False),
        ("mask of classes", _logits(6, 5), {"where": np.array([True, False, True, True, False])},
         False),
        ("saturated", SATURATED, {}, True),
        ("saturated along axis 0", SATURATED.T, {"axis": 0}, True),
        ("offset 1e4", 1e4 + _logits(4, 6).round(2), {}, True),
    ]  # fmt: skip
    for name, x, options, saturated in inputs:
        for operation in ACTIVATIONS:
            yield Case(name, operation, (x,), options, saturated)
    for classes in (
        100,
        300,
    ):  # where one has half of p, log p shows what a sum of the others loses
        x = _logits(classes, 400, spread=1.0)
        x[0] += np.log(classes) + 0.5
        name = f"{classes} classes along axis 0, half of p in one"
        yield Case(name, "log_softmax", (x,), {"axis": 0})
    for temperature in (0.5, 3.0):
        for operation in ("softmax", "log_softmax"):
            options = {"temperature": temperature}
            yield Case(f"temperature {temperature}", operation, (_logits(5, 6),), options)
            name = f"saturated, temperature {temperature}"
            yield Case(name, operation, (SATURATED,), options, True)
    yield Case("keepdims", "logsumexp", (_logits(3, 4),), {"keepdims": True, "axis": 0})
    options = {"keepdims": True, "axis": (2, 0)}
    yield Case("keepdims of axes in another order", "logsumexp", (_logits(3, 4, 5),), options)


def _class_loss_cases() -> Iterator[Case]:
    x, y = _logits(12, 5), _labels(12, classes=5)
    q = _probabilities(12, 5)
    some_ignored = np.where(np.arange(12) % 3 == 0, -100, y)
    weight = np.array([1.0, 2.0, 0.5, 4.0, 1.5])
    sample_weight = np.random.default_rng(4).random(12) + 0.5
    mask = _mask(12, 5)
    mask[np.arange(12), y] = True
    indices: list[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]] = [
        ("3x3", (ORDINARY, np.array([0, 2, 1])), {}),
        ("no reduction", (x, y), {"reduction": "none"}),
        ("sum", (x, y), {"reduction": "sum"}),
        ("1000 classes", (_logits(9, 1000), _labels(9, classes=1000)), {}),
        ("axis 1 of 4", (_logits(2, 5, 3, 4), _labels(2, 3, 4, classes=5)), {"axis": 1}),
        ("axis 0", (x.T, y), {"axis": 0}),
        ("ignored rows", (x, some_ignored), {}),
        ("ignore_index 2", (x, y), {"ignore_index": 2}),
        ("sample weight", (x, y), {"sample_weight": sample_weight}),
        ("temperature", (x, y), {"temperature": 2.5}),
        ("mask", (x, y), {"where": mask}),
    ]
    smoothed: list[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]] = [
        ("smoothing", (x, y), {"label_smoothing": 0.1}),
        ("smoothing, axis 1", (_logits(2, 5, 6), _labels(2, 6, classes=5)),
         {"label_smoothing": 0.1, "axis": 1}),
        ("smoothing, mask", (x, y), {"label_smoothing": 0.2, "where": mask}),
        ("smoothing, ignored rows", (x, some_ignored), {"label_smoothing": 0.3}),
    ]  # fmt: skip
    dense: list[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]] = [
        ("probabilities", (x, q), {}),
        ("probabilities, no reduction", (x, q), {"reduction": "none"}),
        ("probabilities that sum to 1.7", (x, 1.7 * q), {}),
        ("probabilities, axis 1", (_logits(2, 5, 6), _probabilities(2, 5, 6, axis=1)), {"axis": 1}),
        ("probabilities, smoothing", (x, q), {"label_smoothing": 0.1}),
        ("one-hot", (x, np.eye(5)[y]), {}),
    ]
    for operation, weights in BY_CLASS.items():
        for name, arrays, options in indices:
            yield Case(name, operation, arrays, options)
        for name, arrays, options in smoothed + dense:
            yield Case(name, operation, arrays, options)
        by_class = {weights: weight}
        yield Case("class weights", operation, (x, y), by_class)
        yield Case("class weights, sum", operation, (x, y), {**by_class, "reduction": "sum"})
        options = {**by_class, "label_smoothing": 0.1, "sample_weight": sample_weight}
        name = "class weights, smoothing, sample weights, ignored rows"
        yield Case(name, operation, (x, some_ignored), options)
        yield Case("probabilities, class weights", operation, (x, q), by_class)
        hard = (SATURATED, TARGETS_OF_SATURATED)
        yield Case("saturated", operation, hard, {"reduction": "none"}, True)
        yield Case("saturated, mean", operation, hard, {}, True)
        yield Case("saturated, temperature 3", operation, hard,
                   {"reduction": "none", "temperature": 3.0}, True)  # fmt: skip
        wrong = (TARGETS_OF_SATURATED + 1) % 4
        yield Case("saturated and wrong", operation, (SATURATED, wrong), {"reduction": "none"},
                   True)  # fmt: skip
        rows = np.concatenate([SATURATED, _logits(1, 4)])
        q_hard = np.eye(4)[np.append(TARGETS_OF_SATURATED, 1)]
        yield Case("saturated, one-hot", operation, (rows, q_hard), {"reduction": "none"}, True)
        yield Case("saturated, smoothing", operation, hard,
                   {"reduction": "none", "label_smoothing": 0.1}, True)  # fmt: skip
    yield Case("z-loss", "cross_entropy", (x, y), {"z_loss": 0.01})
    for gamma in (0.0, 0.5, 1.0, 5.0):
        yield Case(f"gamma {gamma}", "focal_loss", (x, y), {"gamma": gamma})
    for gamma in (0.0, 0.5):
        options = {"gamma": gamma, "reduction": "none"}
        yield Case(f"saturated, gamma {gamma}", "focal_loss",
                   (SATURATED, TARGETS_OF_SATURATED), options, True)  # fmt: skip


def _binary_cases() -> Iterator[Case]:
    x = _logits(6, 5)
    t = np.random.default_rng(5).random((6, 5))
    hard = np.round(t)
    sample_weight = np.random.default_rng(6).random((6, 5)) + 0.5
    far = np.array([-200.0, -40.0, -17.0, -3.0, 0.0, 0.5, 17.0, 24.0, 40.0, 200.0])
    both = (np.concatenate([far, far]), np.repeat([0.0, 1.0], 10))
    for operation in BINARY_LOSSES:
        yield Case("soft", operation, (x, t), {})
        yield Case("hard", operation, (x, hard))
        yield Case("no reduction", operation, (x, hard), {"reduction": "none"})
        yield Case("sum", operation, (x, hard), {"reduction": "sum"})
        yield Case("0-d", operation, (x[0, 0], t[0, 0]), {})
        yield Case("sample weight", operation, (x, hard), {"sample_weight": sample_weight})
        yield Case("smoothing", operation, (x, hard), {"label_smoothing": 0.1})
        yield Case("saturated", operation, both, {"reduction": "none"}, True)
    for gamma in (0.0, 0.5, 5.0):
        yield Case(f"gamma {gamma}", "sigmoid_focal_loss", (x, hard), {"gamma": gamma})
    yield Case("saturated, gamma 0.5", "sigmoid_focal_loss", both,
               {"reduction": "none", "gamma": 0.5}, True)  # fmt: skip


def _linear_cases() -> Iterator[Case]:
    """Yield losses of products that are exact in float32, so that only the loss is rounded."""
    h, weight_matrix, bias = (_logits(*shape).round(1) for shape in ((12, 4), (7, 4), (7,)))
    h, weight_matrix, bias = ((8 * one).round() / 8 for one in (h, weight_matrix, bias))
    y, q = _labels(12, classes=7), _probabilities(12, 7)
    ignored = np.where(np.arange(12) % 3 == 0, -100, y)
    mask = np.arange(7) != 5
    seen = np.where(y == 5, 0, y)
    seen_ignored = np.where(np.arange(12) % 3 == 0, -100, seen)
    weight, by_row = 0.5 + np.arange(7.0) / 4, 0.5 + np.random.default_rng(4).random(12)
    not_here = h.copy()
    not_here[::3] = np.nan
    unused = weight_matrix.copy()
    unused[5] = np.nan
    parts: dict[str, Any] = {"chunk_size": 5}
    several = {"label_smoothing": 0.1, "weight": weight, "z_loss": 0.01, "bias": bias}
    calls: list[tuple[str, tuple[np.ndarray, ...], dict[str, Any]]] = [
        ("in one chunk", (h, weight_matrix, y), {}),
        ("in chunks", (h, weight_matrix, y), parts),
        ("in whole chunks", (h, weight_matrix, y), {"chunk_size": 4}),
        ("in chunks of the vocabulary, too", (h, weight_matrix, y), {"chunk_size": (5, 3)}),
        ("in chunks of the vocabulary alone", (h, weight_matrix, y),
         {"chunk_size": (None, 2), "softcap": 2.0, "reduction": "none"}),
        ("in chunks of the vocabulary, ignored, smoothed, masked", (not_here, unused, seen_ignored),
         several | {"chunk_size": (5, 3), "where": mask, "temperature": by_row}),
        ("in chunks of the vocabulary, probabilities", (h, weight_matrix, q),
         {"chunk_size": (5, 3), "weight": weight}),
        ("no reduction", (h, weight_matrix, y), parts | {"reduction": "none"}),
        ("sum", (h, weight_matrix, y), parts | {"reduction": "sum"}),
        ("bias", (h, weight_matrix, y), parts | {"bias": bias}),
        ("softcap", (h, weight_matrix, y), parts | {"softcap": 2.0}),
        ("ignored rows", (h, weight_matrix, ignored), parts),
        ("ignored rows of NaN", (not_here, weight_matrix, ignored), parts | several),
        ("ignored rows, no reduction", (not_here, weight_matrix, ignored),
         parts | {"reduction": "none"}),
        ("smoothing, weights, z-loss, bias", (h, weight_matrix, y), parts | several),
        ("mask of classes, one of NaN", (h, unused, seen),
         parts | {"where": mask, "label_smoothing": 0.1}),
        ("sample weights", (h, weight_matrix, y), parts | {"sample_weight": by_row}),
        ("temperatures", (h, weight_matrix, y), parts | {"temperature": by_row}),
        ("normalizer", (h, weight_matrix, y), parts | {"normalizer": 4.0}),
        ("by batch", (h.reshape(3, 4, 4), weight_matrix, ignored.reshape(3, 4)),
         parts | {"normalizer": "batch"}),
        ("probabilities", (h, weight_matrix, q), parts | {"weight": weight}),
        ("one row", (h[0], weight_matrix, y[0]), {}),
        ("no rows", (h[:0], weight_matrix, y[:0]), {}),
    ]  # fmt: skip
    for name, arrays, options in calls:
        by = ("bias",) if "bias" in options else ()
        yield Case(name, "linear_cross_entropy", arrays, options, by=by)
    of_classes = {"label_smoothing": 0.1, "weight": np.array([1.0, 2.0, 0.5, 4.0])}
    saturated: list[tuple[str, dict[str, Any]]] = [
        ("saturated", {}),
        ("saturated, in chunks, smoothed", {"chunk_size": 5} | of_classes),
        ("saturated, in chunks, no reduction", {"chunk_size": 5, "reduction": "none"}),
        ("saturated, in chunks of the vocabulary", {"chunk_size": (5, 2)} | of_classes),
    ]
    targets = TARGETS_OF_SATURATED.copy()
    targets[1] = -100
    for name, options in saturated:
        arrays = SATURATED, np.eye(4), targets
        yield Case(name, "linear_cross_entropy", arrays, options, True)
