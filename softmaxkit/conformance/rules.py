"""The rules of the semantics: each the smallest call that shows it, a case whose name is the rule.

They run like every other case, on each backend, in each dtype and under each transform; and
``docs/semantics.md`` is made of them, with what other libraries give for the same call.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from softmaxkit._operations import BY_CLASS
from softmaxkit.conformance.case import ACTIVATIONS, CLASS_LOSSES, Case

INF, NAN = np.inf, np.nan
AxisError = np.exceptions.AxisError
X = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])
Y = np.array([0, 2, 1])
W = np.array([1.0, 2.0, 5.0])
Q = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
KEEP = np.array([[True, True, False], [True, False, True], [False, True, False]])


def rules() -> Iterator[Case]:
    """Yield one case for each rule (two or three where an operation could differ)."""
    yield from _targets()
    yield from _labels_out_of_range()
    yield from _reductions()
    yield from _nothing_kept()
    yield from _smoothing()
    yield from _masks()
    yield from _special_values()
    yield from _saturated_rows()
    yield from _shapes()
    yield from _dtypes()
    yield from _low_precision()
    yield from _temperature()
    yield from _focal()
    yield from _poly()
    yield from _binary()
    yield from _labels()
    yield from _linear()


def _rule(
    section: str, name: str, operation: str, *arrays: Any, variant: str = "",
    how: dict[str, Any] | None = None, **options: Any,
) -> Case:  # fmt: skip
    """Make a case of a call; `how` has fields of Case."""
    settings: dict[str, Any] = {"section": section, "variant": variant} | (how or {})
    return Case(name, operation, tuple(map(np.asarray, arrays)), options, **settings)


def _targets() -> Iterator[Case]:
    rule = partial(_rule, "Targets")
    images, pixels = X.T.reshape(1, 3, 3, 1), Y.reshape(1, 3, 1)
    many = np.zeros((2, 300)) + np.linspace(0, 1, 300)
    yield rule("integer targets are class indices", "cross_entropy", X, Y, reduction="none")
    yield rule("floating targets are probabilities, in the logits' shape", "cross_entropy", X, Q,
               reduction="none")  # fmt: skip
    yield rule("the class axis may be anywhere", "cross_entropy", images, pixels, axis=1)
    yield rule("the class axis may be anywhere", "focal_loss", images, pixels, axis=1)
    for labels in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"):
        yield rule("labels may have any integer dtype", "cross_entropy", X, Y.astype(labels),
                   variant=labels)  # fmt: skip
    yield rule("labels never pass through a float: 257 stays 257", "cross_entropy",
               many, np.array([257, 256], "int16"), reduction="none",
               how={"text": "linspace(0, 1, 300) in two rows, int16([257, 256])"})  # fmt: skip
    yield rule("a uint8 label may be above 127", "cross_entropy",
               many, np.array([200, 255], "uint8"), reduction="none",
               how={"text": "linspace(0, 1, 300) in two rows, uint8([200, 255])"})  # fmt: skip
    yield rule("probabilities need not sum to 1: the derivative is (Σq)·p − q", "cross_entropy",
               X, 2 * Q, reduction="none")  # fmt: skip
    yield rule("−inf at a class of probability 0 costs nothing: 0 log 0 = 0", "cross_entropy",
               [[0.0, -INF, 1.0]], [[1.0, 0.0, 0.0]])  # fmt: skip
    yield rule("−inf at a class of probability 0 costs nothing: 0 log 0 = 0", "focal_loss",
               [[0.0, -INF, 1.0]], [[1.0, 0.0, 0.0]])  # fmt: skip
    yield rule("boolean targets are refused", "cross_entropy", X, Q > 0.6,
               how={"raises": TypeError})  # fmt: skip
    yield rule("integers in the logits' shape are refused, not taken for one-hot", "cross_entropy",
               X, np.eye(3, dtype=int), how={"raises": ValueError})  # fmt: skip
    yield rule("labels with an axis of length 1 too many are refused, not squeezed",
               "cross_entropy", X, Y[:, None], how={"raises": ValueError})  # fmt: skip


def _labels_out_of_range() -> Iterator[Case]:
    rule = partial(_rule, "Labels out of range", how={"raises": IndexError})
    for operation in CLASS_LOSSES:
        yield rule("a label of C or more is refused; in a traced call its row is NaN", operation,
                   X, np.array([0, 3, 1]), reduction="none")  # fmt: skip
        yield rule("a negative label never wraps around to a class", operation, X,
                   np.array([0, -1, 1]), reduction="none")  # fmt: skip
    yield rule("−100 is refused where it is not ignore_index", "cross_entropy", X,
               np.array([0, -100, 1]), ignore_index=None, reduction="none")  # fmt: skip
    for bits in (32, 64):
        yield rule("an unsigned label that would wrap to −100 is refused", "cross_entropy", X,
                   np.array([0, 2**bits - 100, 1], f"uint{bits}"), reduction="none",
                   variant=f"{bits} bits")  # fmt: skip
    yield rule("in a traced call a bad label makes the mean NaN, never a wrong number",
               "cross_entropy", X, np.array([0, 7, 1]))  # fmt: skip
    hidden = partial(rule, "a bad label does not hide behind smoothing or weights", "cross_entropy")
    yield hidden(X, np.array([0, 3, 1]), label_smoothing=0.1, reduction="none",
                 variant="smoothing")  # fmt: skip
    yield hidden(X, np.array([0, -1, 1]), weight=W, reduction="none", variant="class weights")
    yield hidden(X, np.array([3, 3, 3]), weight=np.array([0.0, 2.0, 5.0]),
                 variant="a class weight of 0")  # fmt: skip
    yield hidden(X, np.array([0, 3, 1]), sample_weight=np.array([1.0, 0.0, 2.0]), reduction="none",
                 variant="a row's weight of 0")  # fmt: skip


def _reductions() -> Iterator[Case]:
    rule = partial(_rule, "Reductions")
    labels = np.array([0, -100, 1])
    yield rule("reduction=“none” gives the loss of each row, 0 if it is ignored", "cross_entropy",
               X, labels, reduction="none")  # fmt: skip
    yield rule("reduction=“sum” adds the rows", "cross_entropy", X, Y, reduction="sum")
    yield rule("reduction=“mean” divides by the number of rows that are kept", "cross_entropy", X,
               labels)  # fmt: skip
    for operation in CLASS_LOSSES:
        yield rule("ignore_index may be a class, such as 0 where that is padding", operation, X, Y,
                   ignore_index=0)  # fmt: skip
    yield rule("with class weights, the mean over indices divides by the sum of their weights",
               "cross_entropy", X, Y, weight=W)  # fmt: skip
    yield rule("with class weights, the mean over probabilities divides by the number of rows",
               "cross_entropy", X, np.eye(3)[Y], weight=W)  # fmt: skip
    yield rule("normalizer=“weight” gives one-hot targets the mean that indices have",
               "cross_entropy", X, np.eye(3)[Y], weight=W, normalizer="weight")  # fmt: skip
    for operation, by_class in BY_CLASS.items():
        weights: dict[str, Any] = {by_class: W}
        yield rule("normalizer=“weight” divides by the sum of the probabilities", operation, X,
                   2 * Q, normalizer="weight")  # fmt: skip
        yield rule("smoothing does not change what normalizer=“weight” divides by", operation, X,
                   2 * Q, normalizer="weight", label_smoothing=0.1, **weights)  # fmt: skip
    yield rule("normalizer=“count” divides by the number of rows that are kept", "cross_entropy", X,
               labels, weight=W, normalizer="count")  # fmt: skip
    yield rule("normalizer=“batch” counts ignored rows too", "cross_entropy", X, labels,
               normalizer="batch")  # fmt: skip
    yield rule("normalizer=“batch” divides by the length of the first axis of the rows",
               "cross_entropy", np.arange(30.0).reshape(2, 3, 5) % 7,
               np.arange(10).reshape(2, 5) % 3, axis=1, normalizer="batch")  # fmt: skip
    for variant, normalizer in (("a number", 7), ("an array", np.array(7.0))):
        yield rule("normalizer may be a number or a 0-d array", "cross_entropy", X, Y,
                   normalizer=normalizer, variant=variant)  # fmt: skip
    yield rule("a normalizer is refused where the reduction is not a mean", "cross_entropy", X, Y,
               reduction="sum", normalizer=7, how={"raises": ValueError})  # fmt: skip
    yield rule("the mean over indices divides by the sum of their sample_weight", "cross_entropy",
               X, Y, sample_weight=np.array([1.0, 0.0, 3.0]))  # fmt: skip
    yield rule("over probabilities, sample_weight scales the rows and not the divisor of the mean",
               "cross_entropy", X, Q, sample_weight=np.array([1.0, 0.0, 3.0]))  # fmt: skip
    yield rule("sample_weight broadcasts to the rows", "cross_entropy", X.reshape(1, 3, 3),
               Y.reshape(1, 3), sample_weight=np.array([[0.5]]), reduction="sum")  # fmt: skip
    yield rule("a single row may have class weights", "cross_entropy", X[0], Y[0], weight=W,
               reduction="none")  # fmt: skip
    yield rule("class weights may be 0", "cross_entropy", X, Y, weight=np.array([0.0, 2.0, 5.0]))
    yield rule("weights, smoothing and ignored rows may be combined", "cross_entropy", X, labels,
               weight=W, label_smoothing=0.1)  # fmt: skip
    yield rule("an unknown reduction is refused", "cross_entropy", X, Y, reduction="batchmean",
               how={"raises": ValueError})  # fmt: skip


def _nothing_kept() -> Iterator[Case]:
    rule = partial(_rule, "Nothing kept")
    hostile = np.array([[NAN, 1.0, 0.0], [INF, 0.0, 0.0], [1.0, 1.0, 1.0]])
    none_kept = np.full(3, -100)
    for operation in CLASS_LOSSES:
        yield rule("if every row is ignored, loss and gradient are 0", operation, X, none_kept)
        yield rule("the loss of an empty batch is 0", operation, X[:0], Y[:0])
        yield rule("an ignored row adds exactly 0, whatever it holds", operation, hostile,
                   np.array([-100, -100, 1]))  # fmt: skip
        yield rule("a row of sample_weight 0 adds exactly 0, whatever it holds", operation,
                   hostile, Y, sample_weight=np.array([0.0, 0.0, 1.0]))  # fmt: skip
    yield rule("if every row is ignored, smoothing and weights add nothing", "cross_entropy", X,
               none_kept, weight=W, label_smoothing=0.1)  # fmt: skip
    yield rule("if every row is ignored, a normalizer of 0 gives 0", "cross_entropy", X, none_kept,
               sample_weight=np.ones(3), normalizer=np.zeros(()))  # fmt: skip
    yield rule("if every row is ignored, the sum is 0", "cross_entropy", X, none_kept,
               reduction="sum")  # fmt: skip
    yield rule("an empty batch that is not reduced gives an empty array", "cross_entropy", X[:0],
               Y[:0], reduction="none")  # fmt: skip
    yield rule("if every class weight is 0, the loss is 0", "cross_entropy", X, Y,
               weight=np.zeros(3))  # fmt: skip
    yield rule("a row of sample_weight 0 adds exactly 0, whatever it holds",
               "binary_cross_entropy", [NAN, 1.0], [1.0, 0.0],
               sample_weight=np.array([0.0, 1.0]))  # fmt: skip
    yield rule("the loss of an empty batch is 0", "binary_cross_entropy", X[:0], Q[:0])
    yield rule("an ignored row adds exactly 0 with smoothing and weights, too", "cross_entropy",
               hostile, np.array([-100, -100, 1]), label_smoothing=0.1, weight=W)  # fmt: skip


def _smoothing() -> Iterator[Case]:
    rule = partial(_rule, "Label smoothing")
    yield rule("smoothed targets are (1−ε) y + ε/K", "cross_entropy", X, Y, label_smoothing=0.1)
    yield rule("class weights multiply each smoothed term, and the divisor of the mean stays",
               "cross_entropy", X, Y, label_smoothing=0.1, weight=W)  # fmt: skip
    yield rule("ε is spread over the classes of the class axis", "cross_entropy",
               X[:2].T[None], Y[None, :2], axis=1, label_smoothing=0.1)  # fmt: skip
    yield rule("K counts the classes that take part, not the masked ones", "cross_entropy", X, Y,
               label_smoothing=0.3,
               where=np.array([[True, True, False], [False, True, True], [True] * 3]))  # fmt: skip
    yield rule("probabilities are smoothed as labels are", "cross_entropy", X, Q,
               label_smoothing=0.1)  # fmt: skip
    yield rule("with ε = 1 targets are uniform", "cross_entropy", X, Y, label_smoothing=1.0)
    yield rule("a logit of −inf gets its share of ε, and costs +inf", "cross_entropy",
               [[1.0, -INF, 0.0]], np.array([0]), label_smoothing=0.1)  # fmt: skip
    yield rule("focal loss smooths targets as cross-entropy does", "focal_loss", X, Y,
               label_smoothing=0.1)  # fmt: skip
    yield rule("an ε outside [0, 1] is refused", "cross_entropy", X, Y, label_smoothing=1.5,
               how={"raises": ValueError})  # fmt: skip


def _masks() -> Iterator[Case]:
    rule = partial(_rule, "Masks")
    dirty = np.where(KEEP, X, np.array([[NAN], [INF], [-INF]]))
    for operation in ACTIVATIONS:
        yield rule("masked entries count as absent", operation, X, where=KEEP)
        yield rule("NaN and infinities under a mask do not leak", operation, dirty, where=KEEP)
        yield rule("a row with no entry left has softmax 0, its logarithm and logsumexp −inf",
                   operation, X, where=KEEP & [[True], [False], [True]])  # fmt: skip
        yield rule("a mask broadcasts to the logits", operation, X,
                   where=np.array([True, False, True]))  # fmt: skip
    for operation in CLASS_LOSSES:
        yield rule("masked classes count as absent", operation, X, np.array([0, 2, 1]), where=KEEP)
        yield rule("NaN and infinities under a mask do not leak", operation, dirty,
                   np.array([1, 0, 1]), where=KEEP)  # fmt: skip
        yield rule("a target on a masked class costs +inf", operation, X, np.array([2, 0, 1]),
                   where=KEEP, reduction="none")  # fmt: skip
    for targets in (Y, Q):
        variant = "a label" if targets is Y else "probabilities"
        for operation in CLASS_LOSSES:
            yield rule("a row with no class left costs +inf", operation, X, targets,
                       where=KEEP & [[True], [False], [True]], reduction="none",
                       variant=variant)  # fmt: skip
    yield rule("an ignored row may have no class left", "cross_entropy", X, np.array([0, -100, 1]),
               where=KEEP & [[True], [False], [True]])  # fmt: skip
    yield rule("a mask that is not boolean is refused", "softmax", X, where=KEEP.astype(int),
               how={"raises": TypeError})  # fmt: skip


def _special_values() -> Iterator[Case]:
    rule = partial(_rule, "Infinities and NaN")
    alone: dict[str, Any] = {"reduction": "none"}
    for operation in ("softmax", "log_softmax"):
        yield rule("a logit of −inf has probability 0 exactly", operation,
                   [[0.0, -INF], [1.0, 0.0]])  # fmt: skip
        yield rule("a row of −inf gives NaN, that row alone", operation, [[-INF, -INF], [1.0, 0.0]])
        yield rule("a row with +inf gives NaN, that row alone", operation, [[INF, 0.0], [1.0, 0.0]])
        yield rule("a row with NaN gives NaN, that row alone", operation, [[NAN, 0.0], [1.0, 0.0]])
    yield rule("logsumexp of a row of −inf is −inf, its gradient 0", "logsumexp",
               [[-INF, -INF], [1.0, 0.0]])  # fmt: skip
    yield rule("logsumexp of a row with +inf is +inf", "logsumexp", [[INF, 0.0], [1.0, 0.0]])
    beside_nan = [[NAN, 0.0, 0.0], [30.0, 0.0, 0.0]]
    yield rule("a row with NaN loses the digits of that row alone", "log_softmax", beside_nan,
               how={"saturated": True})  # fmt: skip
    yield rule("a row with NaN loses the digits of that row alone", "cross_entropy", beside_nan,
               np.array([0, 0]), reduction="none", how={"saturated": True})  # fmt: skip
    yield rule("a row with NaN gives NaN, that row alone", "logsumexp", [[NAN, 0.0], [1.0, 0.0]])
    for operation in CLASS_LOSSES:
        yield rule("−inf at another class than the target's counts as absent", operation,
                   [[1.0, -INF, 0.0], [1.0, 1.0, 1.0]], np.array([0, 1]), **alone)  # fmt: skip
        yield rule("−inf at the target's class costs +inf", operation,
                   [[1.0, -INF, 0.0], [1.0, 1.0, 1.0]], np.array([1, 1]), **alone)  # fmt: skip
        yield rule("a row with NaN gives NaN, that row alone", operation,
                   [[1.0, NAN, 0.0], [1.0, 1.0, 1.0]], np.array([0, 1]), **alone)  # fmt: skip
        yield rule("a row with +inf gives NaN, that row alone", operation,
                   [[INF, 1.0, 0.0], [1.0, 1.0, 1.0]], np.array([1, 1]), **alone)  # fmt: skip
        yield rule("a row of −inf gives NaN, that row alone", operation,
                   [[-INF, -INF, -INF], [1.0, 1.0, 1.0]], np.array([1, 1]), **alone)  # fmt: skip
    yield rule("a probability at −inf costs +inf; in a row with +inf NaN, that row alone",
               "cross_entropy", [[INF, -INF, 0.0], [0.0, -INF, 1.0]],
               [[0.0, 0.5, 0.0], [0.5, 0.5, 0.0]], **alone)  # fmt: skip
    yield rule("−inf at a class of weight 0 costs nothing", "cross_entropy",
               [[-INF, 1.0, 0.0], [1.0, 1.0, 1.0]], np.array([0, 1]),
               weight=np.array([0.0, 1.0, 1.0]), **alone)  # fmt: skip
    yield rule("equal logits have equal probabilities exactly, however large they are", "softmax",
               np.full((1, 4), 3e38))  # fmt: skip


def _saturated_rows() -> Iterator[Case]:
    rule = partial(_rule, "Saturated rows")
    sure = np.array([17.5, 0.0, 0.0])
    for operation in ("softmax", "log_softmax"):
        yield rule("a derivative keeps its digits where one class dominates", operation, sure,
                   how={"saturated": True, "cotangent": np.array([1.0, 0.0, 0.0])})  # fmt: skip
    for operation in CLASS_LOSSES:
        yield rule("a gradient of probabilities keeps its digits where one class dominates",
                   operation, sure, [1.0, 0.0, 0.0], how={"saturated": True})  # fmt: skip
    yield rule("with smoothing a loss keeps its digits where one class dominates", "cross_entropy",
               sure, 0, label_smoothing=1e-6, how={"saturated": True})  # fmt: skip


def _shapes() -> Iterator[Case]:
    rule = partial(_rule, "Shapes")
    none = np.zeros((2, 0))
    for operation in ACTIVATIONS:
        yield rule("a 0-d array is taken with axis=None", operation, 3.0, axis=None)
        yield rule("a 0-d array with an axis is refused", operation, 3.0, how={"raises": AxisError})
        yield rule("an axis without classes gives an empty array, and logsumexp −inf", operation,
                   none)  # fmt: skip
        yield rule("an array without rows gives an empty array", operation, none.T)
        yield rule("axes may be named in any order", operation,
                   np.arange(24.0).reshape(2, 3, 4) % 5, axis=(2, 0))  # fmt: skip
        yield rule("several axes count as one", operation, X.reshape(3, 1, 3), axis=(0, -1))
        yield rule("several axes are taken where there are no rows, too", operation,
                   np.zeros((2, 0, 3)), axis=(0, 2))  # fmt: skip
        yield rule("axis=None means all axes", operation, X, axis=None)
        yield rule("an axis that does not exist is refused", operation, X, axis=2,
                   how={"raises": AxisError})  # fmt: skip
    for operation in CLASS_LOSSES:
        yield rule("a loss without classes is refused", operation, none, np.array([0, 0]),
                   how={"raises": ValueError})  # fmt: skip
        yield rule("a single row needs no batch axis", operation, X[0], Y[0])
        yield rule("logits of one class cost nothing", operation, [[3.0], [-2.0]], np.zeros(2, int))
    yield rule("a loss of a 0-d array is refused", "cross_entropy", 1.0, 0,
               how={"raises": AxisError})  # fmt: skip


def _dtypes() -> Iterator[Case]:
    rule = partial(_rule, "Dtypes")
    first = "integers and booleans become floats before any arithmetic"
    for operation in ACTIVATIONS:
        for logits in (
            np.array([0, 1, 2], "uint8"), np.array([-128, 127], "int8"), np.array([True, False]),
        ):  # fmt: skip
            yield rule(first, operation, logits, variant=logits.dtype.name)
        yield rule("dtype= is the dtype of the result", operation, X, dtype="float32")
        yield rule("with dtype=float64 the arithmetic is in float64", operation, X, dtype="float64")
    yield rule(first, "softmax", np.array([2**40, 2**40 + 1]), variant="int64")
    yield rule("dtype= is the dtype of the result", "cross_entropy", X, Y, dtype="float32")
    yield rule("with dtype=float64 the arithmetic is in float64", "cross_entropy", X, Y,
               dtype="float64")  # fmt: skip
    yield rule("with dtype=float64 a loss has the digits of float64 where one class dominates",
               "cross_entropy", [[15.0, 0.0, 0.0], [16.5, 1.0, 0.0]], np.array([0, 0]),
               dtype="float64", reduction="none", how={"saturated": True})  # fmt: skip
    yield rule("with dtype=float64 the arithmetic is in float64", "focal_loss", X, Y,
               dtype="float64")  # fmt: skip
    yield rule("with dtype=float64 the arithmetic is in float64", "binary_cross_entropy", X, Q,
               dtype="float64")  # fmt: skip
    yield rule("complex logits are refused", "softmax", X.astype("complex64"),
               how={"raises": TypeError})  # fmt: skip
    yield rule("integer logits of a loss are refused", "cross_entropy", X.astype(int), Y,
               how={"raises": TypeError})  # fmt: skip
    convert = partial(rule, "weights of another dtype are converted", "cross_entropy", X, Y)
    yield convert(weight=W.astype(int), variant="by class")
    yield convert(sample_weight=np.array([1, 2, 3]), variant="by row")


def _low_precision() -> Iterator[Case]:
    rule = partial(_rule, "Half precision")

    def shown(text: str, dtype: str, **more: Any) -> dict[str, Any]:
        return {"text": text, "page_dtype": dtype, **more}

    equal, text = np.zeros(70_000), "zeros(70000, float16)"
    many = "a sum over 70,000 classes does not overflow"
    for operation in ACTIVATIONS:
        yield rule(many, operation, equal, how=shown(text, "float16"))
    in_half = shown(f"{text}, 7", "float16")
    yield rule(many, "cross_entropy", equal, 7, how=in_half)
    yield rule(many, "cross_entropy", equal, 7, label_smoothing=0.1, variant="smoothing",
               how=in_half)  # fmt: skip
    in_half = shown(f"{text}, 1/35000 for every other class", "float16")
    yield rule(many, "cross_entropy", equal, np.arange(70_000) % 2 / 35_000,
               variant="probabilities", how=in_half)  # fmt: skip
    rows = shown("zeros((66000, 2), float16), zeros(66000, int)", "float16")
    yield rule("a mean of 66,000 rows is counted in float32", "cross_entropy",
               np.zeros((66_000, 2)), np.zeros(66_000, int), how=rows)  # fmt: skip
    yield rule("a mean of 66,000 rows is counted in float32", "focal_loss",
               np.zeros((66_000, 2)), np.zeros(66_000, int), how=rows)  # fmt: skip
    yield rule("a mean of 66,000 rows is counted in float32", "binary_cross_entropy",
               np.zeros(66_000), np.zeros(66_000),
               how=shown("zeros(66000, float16), zeros(66000)", "float16"))  # fmt: skip
    yield rule("a mean of 20,000 rows is summed in float32", "cross_entropy",
               np.zeros((20_000, 100)), np.zeros(20_000, int),
               how=shown("zeros((20000, 100), bfloat16), zeros(20000, int)",
                         "bfloat16"))  # fmt: skip
    yield rule("dtype=float32 holds a sum that float16 cannot", "cross_entropy",
               np.zeros((20_000, 100)), np.zeros(20_000, int), reduction="sum", dtype="float32",
               how=shown("zeros((20000, 100), float16), zeros(20000, int)",
                         "float16"))  # fmt: skip
    drawn = np.random.default_rng(1).normal(0.0, 4.0, (400, 5000))[358:359]
    yield rule("the loss over 5,000 classes is right to the last bit", "cross_entropy", drawn,
               np.array([3896]),
               how=shown("row 358 of default_rng(1).normal(0, 4, (400, 5000)) in bfloat16, [3896]",
                         "bfloat16"))  # fmt: skip


def _temperature() -> Iterator[Case]:
    rule = partial(_rule, "Temperature and z-loss")
    by_row, by_class = np.array([[0.5], [1.0], [4.0]]), np.array([0.5, 1.0, 4.0])
    by_t = {"by": ("temperature",)}
    differ = "T may differ by row or by class"
    for operation in ("softmax", "log_softmax"):
        yield rule("T divides the logits", operation, X, temperature=2.0)
        yield rule(differ, operation, X, temperature=by_row, variant="by row", how=by_t)
        yield rule(differ, operation, X, temperature=by_class, variant="by class", how=by_t)
        yield rule(differ, operation, X, axis=None, temperature=by_row,
                   variant="along one of several axes", how=by_t)  # fmt: skip
    for operation in CLASS_LOSSES:
        yield rule("T divides the logits", operation, X, Y, temperature=2.0)
        yield rule("T has a gradient of its own", operation, X, Y, temperature=np.array(2.0),
                   how=by_t)  # fmt: skip
        yield rule(differ, operation, X, Y, temperature=by_row, variant="by row", how=by_t)
        yield rule(differ, operation, X, Y, temperature=by_class, variant="by class", how=by_t)
    yield rule("a logit of −inf leaves the gradient by T finite", "cross_entropy",
               [[1.0, -INF, 0.0]], np.array([0]), temperature=np.array(2.0), how=by_t)  # fmt: skip
    yield rule("−inf at the target's class leaves the gradient by the logits finite",
               "cross_entropy", [[1.0, -INF, 0.0]], np.array([1]),
               temperature=np.array(2.0))  # fmt: skip
    yield rule("a T that is not positive is refused", "softmax", X, temperature=0.0,
               how={"raises": ValueError})  # fmt: skip
    yield rule("a T that is not positive is refused", "cross_entropy", X, Y, temperature=-1.0,
               how={"raises": ValueError})  # fmt: skip
    yield rule("z_loss adds λ·logsumexp² to each row", "cross_entropy", X, Y, z_loss=0.1,
               reduction="none")  # fmt: skip
    yield rule("z_loss is not weighted by class", "cross_entropy", X, Y, z_loss=0.1, weight=W)
    yield rule("z_loss adds nothing for an ignored row", "cross_entropy", X, np.array([0, -100, 1]),
               z_loss=0.1)  # fmt: skip
    yield rule("z_loss adds nothing for a row of weight 0 in which no class takes part",
               "cross_entropy", X, Y, where=np.array([[True], [True], [False]]), z_loss=0.1,
               sample_weight=np.array([1.0, 2.0, 0.0]))  # fmt: skip
    yield rule("z_loss takes the logits divided by T", "cross_entropy", X, Y, z_loss=0.1,
               temperature=np.array(2.0), how=by_t)  # fmt: skip
    yield rule("z_loss leaves masked classes out", "cross_entropy", X, Y, z_loss=0.1,
               where=KEEP)  # fmt: skip
    yield rule("a negative z_loss is refused", "cross_entropy", X, Y, z_loss=-0.1,
               how={"raises": ValueError})  # fmt: skip


def _focal() -> Iterator[Case]:
    rule = partial(_rule, "Focal loss")
    far = np.array([[40.0, 0.0, 0.0], [200.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    at_first = np.zeros(3, int)
    rows: dict[str, Any] = {"reduction": "none"}
    yield rule("with γ = 0 it is exactly cross-entropy", "focal_loss", X, Y, gamma=0.0)
    yield rule("the mean divides by the number of rows that are kept", "focal_loss", X,
               np.array([0, 2, -100]))  # fmt: skip
    yield rule("gradients are finite at p → 1 for 0 < γ < 1, too", "focal_loss", far, at_first,
               gamma=0.5, how={"saturated": True}, **rows)  # fmt: skip
    yield rule("an alpha that is a number multiplies every class", "focal_loss", X, Y, alpha=0.25)
    yield rule("an alpha that is a vector has one number for each class", "focal_loss", X, Y,
               alpha=W)  # fmt: skip
    yield rule("the loss of probabilities is Σ q α (1−p)^γ (−log p)", "focal_loss", X, Q, alpha=W)
    yield rule("an alpha of 0 silences an infinite loss", "focal_loss", [[1.0, -INF, 0.0]],
               np.array([1]), alpha=0.0)  # fmt: skip
    yield rule("a negative γ is refused", "focal_loss", X, Y, gamma=-1.0,
               how={"raises": ValueError})  # fmt: skip


def _poly() -> Iterator[Case]:
    rule = partial(_rule, "Poly loss")
    operation = "poly_loss_cross_entropy"
    yield rule("with ε = 0 it is exactly cross-entropy", operation, X, Y, epsilon=0.0, weight=W)
    yield rule("ε (1−p) is added to −log p", operation, X, Y, epsilon=2.0, reduction="none")
    yield rule("the mean divides by the class weights, as that of cross-entropy does", operation, X,
               Y, weight=W)  # fmt: skip
    yield rule("the loss of probabilities is Σ q (−log p + ε (1−p))", operation, X, 2 * Q, weight=W)
    yield rule("ε = −1 takes off 1−p, the first term of the series of −log p", operation, X, Y,
               epsilon=-1.0, reduction="none")  # fmt: skip
    yield rule("an ε below −1 is refused", operation, X, Y, epsilon=-1.5,
               how={"raises": ValueError})  # fmt: skip


def _binary() -> Iterator[Case]:
    rule = partial(_rule, "Independent labels")
    x, t = np.array([1.0, -2.0, 0.5]), np.array([0.7, 0.0, 1.0])
    infinite = np.array([INF, -INF, INF, -INF])
    rows: dict[str, Any] = {"reduction": "none"}
    yield rule("binary cross-entropy is t softplus(−x) + (1−t) softplus(x)", "binary_cross_entropy",
               x, t, **rows)  # fmt: skip
    for dtype in ("bool", "int64"):
        yield rule("targets may be booleans or integers", "binary_cross_entropy", x,
                   (t > 0.5).astype(dtype), variant=dtype)  # fmt: skip
    yield rule("infinite logits that are right cost nothing", "binary_cross_entropy",
               infinite[:2], [1.0, 0.0], **rows)  # fmt: skip
    yield rule("infinite logits that are wrong cost +inf", "binary_cross_entropy",
               infinite, [0.0, 1.0, 1.0, 0.0], **rows)  # fmt: skip
    yield rule("pos_weight multiplies the positive term", "binary_cross_entropy", x, t,
               pos_weight=W)  # fmt: skip
    yield rule("pos_weight may be a number", "binary_cross_entropy", x, t, pos_weight=3.0)
    yield rule("smoothing moves targets toward 1/2", "binary_cross_entropy", x, t,
               label_smoothing=0.1)  # fmt: skip
    yield rule("normalizer=“weight” divides by the sum of the weights", "binary_cross_entropy",
               x, t, pos_weight=W, normalizer="weight")  # fmt: skip
    yield rule("smoothing does not change what normalizer=“weight” divides by",
               "binary_cross_entropy", x, t, pos_weight=W, normalizer="weight",
               label_smoothing=0.1)  # fmt: skip
    yield rule("smoothing does not change what normalizer=“weight” divides by",
               "sigmoid_focal_loss", x, t, alpha=0.25, normalizer="weight",
               label_smoothing=0.1)  # fmt: skip
    yield rule("a target t between 0 and 1 has p_t = p t + (1−p)(1−t)", "sigmoid_focal_loss", [1.0],
               [0.7])  # fmt: skip
    yield rule("alpha weighs positive targets, 1 − alpha negative ones", "sigmoid_focal_loss", x, t,
               alpha=0.25, **rows)  # fmt: skip
    yield rule("with γ = 0 it is exactly binary cross-entropy", "sigmoid_focal_loss", x, t,
               gamma=0.0)  # fmt: skip
    yield rule("gradients are finite at p → 1 for 0 < γ < 1, too", "sigmoid_focal_loss",
               [19.0, 200.0, 0.0], [1.0, 1.0, 1.0], gamma=0.5,
               how={"saturated": True}, **rows)  # fmt: skip
    yield rule("infinite logits that are right cost nothing", "sigmoid_focal_loss",
               infinite[:2], [1.0, 0.0], **rows)  # fmt: skip
    yield rule("infinite logits that are wrong cost +inf", "sigmoid_focal_loss",
               infinite, [0.0, 1.0, 0.125, 0.5], **rows)  # fmt: skip
    yield rule("with smoothing a loss keeps its digits where p → 1", "binary_cross_entropy",
               [100.0, -100.0], [1.0, 0.0], label_smoothing=1e-6, **rows)  # fmt: skip
    yield rule("a logit of NaN gives NaN, that element alone", "binary_cross_entropy", [NAN, 1.0],
               [1.0, 1.0], **rows)  # fmt: skip
    yield rule("a logit of NaN gives NaN, that element alone", "sigmoid_focal_loss", [NAN, 1.0],
               [1.0, 1.0], **rows)  # fmt: skip
    yield rule("an alpha outside [0, 1] is refused", "sigmoid_focal_loss", x, t, alpha=-1.0,
               how={"raises": ValueError})  # fmt: skip


def _labels() -> Iterator[Case]:
    rule = partial(_rule, "Labels as probabilities")
    yield rule("one_hot puts the classes last", "one_hot", Y, num_classes=3)
    yield rule("one_hot puts the classes anywhere", "one_hot", Y[:2], num_classes=4, axis=0)
    yield rule("one_hot refuses a label out of range; in a traced call its row is NaN", "one_hot",
               np.array([0, 3]), num_classes=3, how={"raises": IndexError})  # fmt: skip
    yield rule("one_hot takes a single label", "one_hot", Y[1], num_classes=3)
    yield rule("one_hot takes a dtype", "one_hot", Y, num_classes=3, dtype="float32")
    yield rule("one_hot takes uint8 labels beside more than 256 classes", "one_hot",
               np.array([0, 200], "uint8"), num_classes=300,
               how={"text": "uint8([0, 200])"})  # fmt: skip
    yield rule("smooth_labels gives y(1−α) + α/K", "smooth_labels", Q, smoothing=0.3)
    yield rule("smooth_labels takes class indices", "smooth_labels", Y, smoothing=0.3,
               num_classes=3)  # fmt: skip
    yield rule("smooth_labels puts the classes of indices anywhere", "smooth_labels", Y[:2],
               smoothing=0.3, num_classes=4, axis=0)  # fmt: skip
    yield rule("smooth_labels spreads α over the classes that take part", "smooth_labels", Q,
               smoothing=0.3, where=KEEP)  # fmt: skip
    yield rule("smooth_labels takes probabilities with the classes anywhere", "smooth_labels", Q.T,
               smoothing=0.3, axis=0)  # fmt: skip
    yield rule("smooth_labels with α = 0 changes nothing", "smooth_labels", Q, smoothing=0.0)


def _linear() -> Iterator[Case]:
    rule = partial(_rule, "Logits that are a product")
    h = np.array([[1.0, -0.5], [0.25, 2.0], [-1.0, 1.5]])
    m = np.array([[2.0, 0.5], [-1.0, 1.0], [0.0, -1.5]])
    bias, labels = np.array([0.5, 0.0, -1.0]), np.array([0, -100, 1])
    not_here, unused = h.copy(), m.copy()
    not_here[1], unused[2] = NAN, NAN

    def call(name: str, *arrays: Any, how: dict[str, Any] | None = None, **options: Any) -> Case:
        options = {"chunk_size": 2} | options
        return rule(name, "linear_cross_entropy", *arrays, how=how, **options)

    yield call("logits computed some rows at a time give what all of them give", h, m, Y, bias=bias)
    yield call("logits computed some classes at a time give what all of them give", h, m, Y,
               bias=bias, chunk_size=(2, 2))  # fmt: skip
    yield call("smoothing, class weights and ignore_index mean what they mean in cross_entropy",
               h, m, labels, label_smoothing=0.1, weight=W)  # fmt: skip
    yield call("an ignored hidden vector may hold anything, and gets no gradient", not_here, m,
               labels)  # fmt: skip
    yield call("a class that takes no part may hold anything, and gets no gradient", h, unused,
               np.array([0, 1, 0]), where=np.array([True, True, False]))  # fmt: skip
    yield call("a softcap bounds the logits; where they reach it, their gradient vanishes", 100 * h,
               m, Y, softcap=5.0)  # fmt: skip
    yield call("floating targets are probabilities of the classes", h, m, Q)
    yield call("hidden vectors may have any number of axes before the last", h[None], m, Y[None],
               reduction="none")  # fmt: skip
    yield call("a label of V or more is refused", h, m, np.array([0, 3, 1]), reduction="none",
               how={"raises": IndexError})  # fmt: skip
    yield call("a weight matrix that is not (V, D) is refused", h, m[:, :1], Y,
               how={"raises": ValueError})  # fmt: skip
