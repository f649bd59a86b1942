"""The oracle against the numbers the documents quote, and at the edges.

Masks and special values: test_reference_special_values.py; mpmath: test_golden.py.
"""

import ast
from pathlib import Path

import numpy as np
import pytest

from softmaxkit.conformance import reference, reference_activations

X = np.array([[2, 1, 0], [0.5, -1, 3], [1, 1, 1]])
Y = np.array([0, 2, 1])
W = np.array([1.0, 2.0, 5.0])
LOSSES = ("cross_entropy", "focal_loss")
BINARY_LOSSES = ("binary_cross_entropy", "sigmoid_focal_loss")
INF = np.inf


def call(name, *arguments, **options):
    return getattr(reference, name)(*arguments, **options)


@pytest.mark.parametrize(
    ("module", "more"),
    [(reference, {reference_activations.__name__}), (reference_activations, set())],
)
def test_reference_imports_numpy_alone(module, more):
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {
        getattr(node, "module", None) or alias.name for node in imports for alias in node.names
    }
    assert modules == {"numpy", "numpy.typing"} | more
    assert all(not getattr(node, "level", 0) for node in imports)


# The numbers quoted in the semantics and in the survey of other libraries.

ONE_HOT = np.eye(3)[Y]
SMOOTH = {"label_smoothing": 0.1}


@pytest.mark.parametrize(
    ("name", "targets", "options", "quoted"),
    [
        ("cross_entropy", Y, {"reduction": "none"}, [0.4076, 0.0957, 1.0986]),
        ("cross_entropy", Y, {}, 0.5340),
        ("cross_entropy", Y, {"weight": W}, 0.3854),
        ("cross_entropy", ONE_HOT, {"weight": W}, 1.0277),
        ("cross_entropy", ONE_HOT, {"weight": W, "normalizer": "weight"}, 0.3854),
        ("cross_entropy", Y, {"weight": W, "normalizer": "count"}, 1.0277),
        ("cross_entropy", Y, SMOOTH, 0.6395),
        ("cross_entropy", Y, {"weight": W, **SMOOTH}, 0.4940),
        ("focal_loss", Y, {}, 0.1782),
        ("focal_loss", Y, {"alpha": 0.25}, 0.0446),
        ("focal_loss", Y, {"gamma": 0.0}, 0.5340),
        ("focal_loss", Y, {"gamma": 0.0, "normalizer": 9}, 0.1780),
        ("focal_loss", Y, {"normalizer": 9}, 0.0594),
    ],
)
def test_quoted_losses(name, targets, options, quoted):
    np.testing.assert_allclose(
        call(name, X, targets, **options), quoted, atol=5.1e-5, rtol=0
    )  # 4 decimals


def test_quoted_details():
    assert reference.sigmoid_focal_loss(1.0, 0.7) == pytest.approx(0.10187, abs=5e-6)
    assert reference.cross_entropy([[0.0, 1.0, -INF]], [0]) == pytest.approx(1.3133, abs=5e-5)
    assert reference.log_softmax([30.0, 0.0, 0.0])[0] == pytest.approx(-2 * np.exp(-30), rel=1e-12)
    np.testing.assert_array_equal(reference.softmax([0.0, -INF]), [1.0, 0.0])
    assert reference.softmax(np.zeros(70_000, np.float16))[0] == pytest.approx(1 / 70_000)
    assert reference.logsumexp(np.zeros(70_000, np.float16)) == pytest.approx(11.16, abs=5e-3)
    halves = np.zeros((66_000, 2), np.float16)
    assert reference.cross_entropy(halves, np.zeros(66_000, int)) == pytest.approx(np.log(2))


# Axes and shapes.


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
@pytest.mark.parametrize("name", LOSSES)
def test_the_class_axis_may_stand_anywhere(name, axis):
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=(2, 4, 5)), rng.random((2, 4, 5)) > 0.2
    labels = rng.integers(0, 5, (2, 4))
    mask[*np.indices((2, 4)), labels] = True
    temperature = rng.random((2, 1, 1)) + 0.5
    options = {"sample_weight": rng.random((2, 4)), **SMOOTH}
    last = {"where": mask, "temperature": temperature, **options}
    moved = {k: np.moveaxis(last[k], -1, axis) for k in ("where", "temperature")} | options
    moved_logits = np.moveaxis(logits, -1, axis)
    soft = reference.one_hot(labels, 5)
    for reduction in ("none", "sum", "mean"):
        last["reduction"] = moved["reduction"] = reduction
        for targets, moved_targets in ((labels, labels), (soft, np.moveaxis(soft, -1, axis))):
            np.testing.assert_array_equal(
                call(name, moved_logits, moved_targets, axis=axis, **moved),
                call(name, logits, targets, **last),
            )
            np.testing.assert_array_equal(
                reference.gradient(name, moved_logits, moved_targets, axis=axis, **moved),
                np.moveaxis(reference.gradient(name, logits, targets, **last), -1, axis),
            )
    np.testing.assert_array_equal(
        reference.one_hot(labels, 5, axis=axis), np.moveaxis(soft, -1, axis)
    )


@pytest.mark.parametrize("axis", [None, (0, 1, 2), (0, 2), (2, 0), (-1, -3), (1,), ()])
def test_several_axes_are_one(axis):
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    axes = tuple(range(3)) if axis is None else axis
    p = np.exp(x) / np.exp(x).sum(axes, keepdims=True)
    lse = np.log(np.exp(x).sum(axes, keepdims=True))
    # Float64: exp(x) / Σ exp(x) rounds once for each of up to 24 terms.
    np.testing.assert_allclose(reference.softmax(x, axis), p, rtol=1e-14)
    np.testing.assert_allclose(reference.log_softmax(x, axis), x - lse, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(reference.logsumexp(x, axis, keepdims=True), lse, rtol=1e-14)
    assert reference.logsumexp(x, axis).shape == np.squeeze(lse, axes).shape
    close = {"rtol": 0, "atol": 1e-14}  # sums of numbers up to 5
    np.testing.assert_allclose(
        reference.softmax_vjp(x, x, axis), p * (x - (p * x).sum(axes, keepdims=True)), **close
    )
    np.testing.assert_allclose(
        reference.log_softmax_vjp(x, x, axis), x - p * x.sum(axes, keepdims=True), **close
    )
    np.testing.assert_allclose(
        reference.logsumexp_vjp(x, lse, axis, keepdims=True), p * lse, **close
    )


def test_zero_dimensional_input():
    assert reference.softmax(3.0, None) == 1
    assert reference.log_softmax(3.0, None) == 0
    assert reference.logsumexp(3.0, None) == 3
    for axis in (0, -1):
        with pytest.raises(np.exceptions.AxisError):
            reference.softmax(3.0, axis)
    with pytest.raises(np.exceptions.AxisError):
        reference.cross_entropy(3.0, 0)
    assert reference.cross_entropy([2.0, 1.0, 0.0], 0) == pytest.approx(0.4076, abs=5e-5)


def test_empty_arrays():
    for name in ("softmax", "log_softmax"):
        assert call(name, np.zeros((3, 0))).shape == (3, 0)
        assert call(name, np.zeros((0, 3))).shape == (0, 3)
        assert call(name + "_vjp", np.zeros((3, 0)), np.zeros((3, 0))).shape == (3, 0)
    np.testing.assert_array_equal(reference.logsumexp(np.zeros((3, 0))), [-INF] * 3)
    no_labels = np.zeros(0, int)
    for name in LOSSES:
        with pytest.raises(ValueError, match="class axis is empty"):
            call(name, np.zeros((3, 0)), np.zeros(3, int))
        for targets in (no_labels, np.zeros((0, 3))):
            for options in ({}, {"reduction": "sum"}, {"normalizer": "batch"}):
                assert call(name, np.zeros((0, 3)), targets, **options) == 0
            assert call(name, np.zeros((0, 3)), targets, reduction="none").shape == (0,)
            assert reference.gradient(name, np.zeros((0, 3)), targets).shape == (0, 3)
    for name in BINARY_LOSSES:
        assert call(name, np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_inputs_are_not_written_to():
    z, q, w = X.copy(), ONE_HOT.copy(), W.copy()
    for array in (z, q, w):
        array.flags.writeable = False
    where = np.broadcast_to(True, z.shape)
    for targets in (q, Y):
        for view in (z, z[:, ::-1][:, ::-1], np.asfortranarray(z)):
            reference.gradient("cross_entropy", view, targets, weight=w, where=where)
    reference.gradient("sigmoid_focal_loss", z, q)


# Options.


def test_normalizers():
    w, s = {"weight": W}, np.array([0.5, 3.0, 0.25])
    rows = reference.cross_entropy(X, Y, reduction="none", sample_weight=s, **w)
    by = {None: W[Y] @ s, "weight": W[Y] @ s, "count": 3, "batch": 3, 7: 7, 2.5: 2.5}
    for normalizer, denominator in by.items():
        options = {"normalizer": normalizer, "sample_weight": s, **w}
        value = reference.cross_entropy(X, Y, **options)
        assert value == pytest.approx(rows.sum() / denominator, rel=1e-15)
        gradient = reference.gradient("cross_entropy", X, Y, **options)
        summed = reference.gradient("cross_entropy", X, Y, reduction="sum", sample_weight=s, **w)
        np.testing.assert_allclose(gradient, summed / denominator, rtol=1e-15)  # 5 ULP
    assert reference.cross_entropy(X, Y, normalizer=np.array(2)) == pytest.approx(1.6019 / 2, 1e-4)
    image = np.zeros((2, 3, 5, 5))
    assert reference.cross_entropy(
        image, np.zeros((2, 5, 5), int), axis=1, normalizer="batch"
    ) == pytest.approx(25 * np.log(3))
    for options in ({"normalizer": "rows"}, {"normalizer": [1, 2]}, {"reduction": "avg"}):
        with pytest.raises(ValueError, match=r"normalizer|reduction"):
            reference.cross_entropy(X, Y, **options)
    with pytest.raises(ValueError, match="normalizer"):
        reference.cross_entropy(X, Y, reduction="sum", normalizer=3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cross_entropy", {"label_smoothing": 1.5}),
        ("cross_entropy", {"label_smoothing": -0.1}),
        ("focal_loss", {"gamma": -1.0}),
        ("cross_entropy", {"temperature": 0.0}),
        ("focal_loss", {"temperature": -1.0}),
        ("cross_entropy", {"weight": [1.0, 2.0]}),
    ],
)
def test_bad_options(name, options):
    with pytest.raises(ValueError, match=r"."):
        call(name, X, Y, **options)


def test_bad_targets():
    for targets in (Y[:, None], ONE_HOT.astype(int), ONE_HOT[:2]):
        with pytest.raises(ValueError, match="targets have shape"):
            reference.cross_entropy(X, targets)
    for targets in (ONE_HOT.astype(bool), Y == 0):
        with pytest.raises(TypeError):
            reference.cross_entropy(X, targets)
    with pytest.raises(TypeError):
        reference.softmax(X + 1j)
    with pytest.raises(ValueError, match="not the name of a loss"):
        reference.gradient("hinge", X, Y)


def test_smooth_labels():
    np.testing.assert_allclose(
        reference.smooth_labels(Y, 0.3, num_classes=3),
        0.7 * ONE_HOT + 0.1,
        rtol=1e-15,  # 5 ULP
    )
    mask = [True, False, True]
    np.testing.assert_allclose(
        reference.smooth_labels([0, 2], 0.2, num_classes=3, where=mask),
        [[0.9, 0, 0.1], [0.1, 0, 0.9]],
        rtol=1e-15,  # 5 ULP
    )
    for axis in (0, 1, -1):
        soft = reference.smooth_labels(Y, 0.3, num_classes=3, axis=axis)
        assert reference.cross_entropy(np.moveaxis(X, -1, axis), soft, axis=axis) == pytest.approx(
            reference.cross_entropy(X, Y, label_smoothing=0.3), rel=1e-15
        )
    with pytest.raises(ValueError, match="num_classes"):
        reference.smooth_labels(Y, 0.1)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int64", "bool", "float16", "bfloat16"])
def test_conversion_comes_before_arithmetic(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip(
            "ml_dtypes", reason="ml_dtypes, which brings bfloat16, is missing"
        ).bfloat16
    values = {"int8": [-128, 127, 0], "bool": [False, True, False]}.get(dtype, [0, 1, 2])
    x = np.array(values, dtype)
    expected = reference.softmax([float(value) for value in values])
    np.testing.assert_array_equal(reference.softmax(x), expected)
    assert reference.softmax(x).dtype == np.float64
    # Index targets of any width, and probabilities of any floating type.
    for labels in ("uint8", "int16", "uint64"):
        assert reference.cross_entropy(X, Y.astype(labels)) == reference.cross_entropy(X, Y)
    if np.dtype(dtype).itemsize == 2:
        assert reference.cross_entropy(X, ONE_HOT.astype(dtype)) == reference.cross_entropy(X, Y)


# Laws.


@pytest.mark.parametrize("shift", [1.0, -1024.0, 2.0**20])
def test_shift_invariance(shift):
    z = np.round(np.random.default_rng(3).normal(size=(4, 5)) * 2**10) / 2**10
    for name in ("softmax", "log_softmax"):
        np.testing.assert_array_equal(call(name, z + shift), call(name, z))
    for name in LOSSES:
        for temperature in (1.0, 0.3):
            options = {"temperature": temperature, **SMOOTH}
            np.testing.assert_allclose(
                call(name, z + shift, [0, 1, 2, 3], **options),
                call(name, z, [0, 1, 2, 3], **options),
                rtol=1e-14,  # z / 0.3 is rounded; else equal
            )


@pytest.mark.parametrize("name", [*LOSSES, *BINARY_LOSSES])
def test_gradient_is_the_slope_of_the_value_with_every_option_at_once(name):
    rng = np.random.default_rng(4)
    z = rng.normal(size=(2, 4, 3))
    if name in BINARY_LOSSES:
        targets = rng.random(z.shape)
        weight = "pos_weight" if name == "binary_cross_entropy" else "alpha"
        options = {weight: rng.random(3), "sample_weight": rng.random((4, 1)), **SMOOTH}
    else:
        targets = rng.integers(0, 4, (2, 3))
        targets[0, 1] = 5
        where = rng.random(z.shape) > 0.2
        weight = "weight" if name == "cross_entropy" else "alpha"
        options = {
            weight: rng.random(4),
            "sample_weight": rng.random((2, 3)),
            "where": where | (np.arange(4)[:, None] == targets[:, None]),
            "ignore_index": 5,
            "temperature": rng.random((4, 3)) + 0.5,
            "axis": 1,
            **SMOOTH,
        }
        if name == "cross_entropy":
            options["z_loss"] = 0.01
    for reduction in ("none", "sum", "mean"):
        options["reduction"] = reduction
        gradient = reference.gradient(name, z, targets, **options)
        numeric = np.zeros_like(z)
        for i in np.ndindex(z.shape):
            step = np.zeros_like(z)
            step[i] = 1e-5
            ahead, behind = (call(name, z + s * step, targets, **options).sum() for s in (1, -1))
            numeric[i] = (ahead - behind) / 2e-5
        # The error of a central difference of step 1e-5 is about 1e-10.
        np.testing.assert_allclose(gradient, numeric, rtol=0, atol=2e-9)


def test_terms_of_derivatives():
    """What an error is measured at: the sum of the sizes of what an entry is a sum of.

    Here and below in float64, by sums of 6 terms in another order: a few ULP, 1e-15 each.
    """
    random = np.random.default_rng(3)
    x, v = random.normal(0, 3, (4, 6)), random.normal(size=(4, 6))
    p = reference.softmax(x)
    each = p[:, :, None] * p[:, None, :] * np.abs(v[:, :, None] - v[:, None, :])
    np.testing.assert_allclose(reference.softmax_vjp_terms(x, v), each.sum(-1), rtol=1e-13)
    apart = np.abs(np.eye(6) - p[:, :, None])
    of_log = (apart * np.abs(v[:, None, :])).sum(-1)
    np.testing.assert_allclose(reference.log_softmax_vjp_terms(x, v), of_log, rtol=1e-13)
    # Probabilities, class weights and a temperature: each target has its own term.
    q, w = random.dirichlet(np.ones(6), 4), random.random(6)
    options = {"weight": w, "temperature": 2.0, "reduction": "sum"}
    half = np.abs(np.eye(6) - reference.softmax(x / 2.0)[:, :, None])
    np.testing.assert_allclose(
        reference.gradient_terms("cross_entropy", x, q, **options),
        (half * (w * q)[:, None, :]).sum(-1) / 2.0,
        rtol=1e-13,
    )


@pytest.mark.parametrize("name", ["cross_entropy", "focal_loss"])
def test_an_entry_of_one_term_is_its_size(name):
    x, y = np.random.default_rng(4).normal(0, 5, (5, 4)), [0, 3, -100, 1, 2]
    gradient = reference.gradient(name, x, y)
    np.testing.assert_allclose(reference.gradient_terms(name, x, y), np.abs(gradient), rtol=1e-13)


@pytest.mark.parametrize("name", ["binary_cross_entropy", "sigmoid_focal_loss"])
def test_terms_of_independent_labels(name):
    x = np.array([-30.0, -1.0, 0.0, 2.0, 30.0])
    for t in (0.0, 1.0):
        gradient = reference.gradient(name, x, np.full(5, t))
        terms = reference.gradient_terms(name, x, np.full(5, t))
        np.testing.assert_allclose(terms, np.abs(gradient), rtol=1e-13)
    soft = np.full(5, 0.3)
    assert (
        reference.gradient_terms(name, x, soft) > np.abs(reference.gradient(name, x, soft))
    ).all()
