"""The oracle on masks and special values.

Warnings are errors, so these also show that legal input is silent.
"""

import numpy as np
import pytest

from softmaxkit.conformance import reference

X = np.array([[2, 1, 0], [0.5, -1, 3], [1, 1, 1]])
Y = np.array([0, 2, 1])
LOSSES = ("cross_entropy", "focal_loss")
SMOOTH = {"label_smoothing": 0.1}
NAN, INF = np.nan, np.inf


def call(name, *arguments, **options):
    return getattr(reference, name)(*arguments, **options)


def test_masked_is_as_if_absent():
    rng = np.random.default_rng(2)
    z, mask = rng.normal(size=6), np.array([True, False, True, True, False, True])
    short = z[mask]
    z[~mask] = NAN, INF
    for name in ("softmax", "log_softmax"):
        full = call(name, z, where=mask)
        np.testing.assert_array_equal(full[mask], call(name, short))
        np.testing.assert_array_equal(full[~mask], 0.0 if name == "softmax" else -INF)
        full = call(name + "_vjp", z, np.arange(6.0), where=mask)
        np.testing.assert_array_equal(full[mask], call(name + "_vjp", short, np.arange(6.0)[mask]))
        np.testing.assert_array_equal(full[~mask], 0.0)
    assert reference.logsumexp(z, where=mask) == reference.logsumexp(short)
    for name in LOSSES:
        assert call(name, [z], [3], where=mask, **SMOOTH) == call(name, [short], [2], **SMOOTH)
        full = reference.gradient(name, [z], [3], where=mask, **SMOOTH)[0]
        np.testing.assert_array_equal(
            full[mask], reference.gradient(name, [short], [2], **SMOOTH)[0]
        )
        np.testing.assert_array_equal(full[~mask], 0.0)


def test_nothing_kept_in_a_row():
    z, mask = [[NAN, 1.0], [0.0, 0.0]], [[False], [True]]
    np.testing.assert_array_equal(reference.softmax(z, where=mask), [[0, 0], [0.5, 0.5]])
    assert (reference.log_softmax(z, where=mask)[0] == -INF).all()
    assert reference.logsumexp(z, where=mask)[0] == -INF
    for name in ("softmax", "log_softmax"):
        np.testing.assert_array_equal(call(name + "_vjp", z, X[:2, :2], where=mask)[0], 0)
    np.testing.assert_array_equal(reference.logsumexp_vjp(z, [1, 1], where=mask)[0], 0)
    for name in LOSSES:
        loss = call(name, z, [0, 0], where=mask, reduction="none", **SMOOTH)
        assert loss[0] == INF
        assert np.isfinite(loss[1])
        gradient = reference.gradient(name, z, [0, 0], where=mask, reduction="none", **SMOOTH)
        np.testing.assert_array_equal(gradient[0], 0)


def test_target_on_a_masked_class():
    z, mask = [[1.0, 2.0, 3.0]], [[False, True, True]]
    p = reference.softmax(z, where=mask)
    for name in LOSSES:
        assert call(name, z, [0], where=mask) == INF
        np.testing.assert_array_equal(reference.gradient(name, z, [0], where=mask), p)
        assert call(name, z, [[0.0, 0.0, 1.0]], where=mask) < INF


def test_without_a_mask_ieee_arithmetic_shows_in_that_row_alone():
    rows = [[-INF, -INF], [INF, 0.0], [NAN, 0.0], [1.0, 1.0]]
    bad = [True, True, True, False]
    for name in ("softmax", "log_softmax"):
        result = call(name, rows)
        np.testing.assert_array_equal(np.isnan(result).all(1), bad)
        np.testing.assert_array_equal(np.isnan(result).any(1), bad)
        np.testing.assert_array_equal(np.isnan(call(name + "_vjp", rows, [1.0, 2.0])).any(1), bad)
    np.testing.assert_array_equal(reference.logsumexp(rows[:3]), [-INF, INF, NAN])
    np.testing.assert_array_equal(reference.logsumexp_vjp(rows[:1], [1.0]), [[0, 0]])
    for name in LOSSES:
        loss = call(name, rows, [0, 0, 0, 0], reduction="none")
        np.testing.assert_array_equal(np.isnan(loss), bad)
        gradient = reference.gradient(name, rows, [0, 0, 0, 0])
        np.testing.assert_array_equal(np.isnan(gradient).all(1), bad)
        assert np.isfinite(gradient[3]).all()


@pytest.mark.parametrize("name", LOSSES)
def test_minus_infinity_beside_and_under_the_target(name):
    z = [[0.0, 1.0, -INF]]
    for targets in ([0], [[1.0, 0.0, 0.0]]):
        assert call(name, z, targets) == call(name, [[0.0, 1.0]], [0])
        assert reference.gradient(name, z, targets)[0, 2] == 0
        assert call(name, z, targets, **SMOOTH) == INF
        assert np.isfinite(reference.gradient(name, z, targets, **SMOOTH)).all()
    # log p = -inf under the target: the gradient is that of cross-entropy, p - 1_y, to 4 ULP.
    p = reference.softmax(z)
    assert call(name, z, [2]) == INF
    np.testing.assert_allclose(
        reference.gradient(name, z, [2]), p - [[0, 0, 1]], rtol=1e-15
    )  # 5 ULP
    weight = {"weight" if name == "cross_entropy" else "alpha": [1.0, 1.0, 0.0]}
    assert call(name, z, [2], reduction="sum", **weight) == 0
    np.testing.assert_array_equal(
        reference.gradient(name, z, [2], reduction="sum", **weight), np.zeros((1, 3))
    )


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("gap", [0.0, 20.0, 40.0, 700.0, 2000.0, INF])
def test_focal_gradient_is_finite_everywhere(gamma, gap):
    for z in ([[gap, 0.0]], [[0.0, -gap]]):
        if gap == INF and z[0][0] == INF:
            continue
        for label in (0, 1):
            assert np.isfinite(reference.gradient("focal_loss", z, [label], gamma=gamma)).all()
    for target in (0.0, 0.3, 1.0):
        for x in (gap, -gap):
            gradient = reference.gradient("sigmoid_focal_loss", [x], [target], gamma=gamma)
            assert np.isfinite(gradient).all()


def test_focal_at_certainty():
    for gamma in (0.1, 0.5, 2.0):
        assert reference.focal_loss([[2000.0, 0.0]], [0], gamma=gamma) == 0
        np.testing.assert_array_equal(
            reference.gradient("focal_loss", [[2000.0, 0.0]], [0], gamma=gamma), [[0, 0]]
        )
        assert reference.sigmoid_focal_loss(INF, 1.0, gamma=gamma) == 0
        assert reference.sigmoid_focal_loss(INF, 0.0, gamma=gamma) == INF


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_rows_contribute_exactly_nothing(name):
    z = [[NAN, INF, 0.0], [0.5, -1.0, 3.0]]
    options = {"sample_weight": [NAN, 0.5]}
    for reduction in ("none", "sum", "mean"):
        value = call(name, z, [-100, 2], reduction=reduction, **options)
        alone = call(name, z[1:], [2], sample_weight=[0.5], reduction=reduction)
        np.testing.assert_array_equal(value, [0, alone[0]] if reduction == "none" else alone)
        gradient = reference.gradient(name, z, [-100, 2], reduction=reduction, **options)
        np.testing.assert_array_equal(gradient[0], 0)
        assert np.isfinite(gradient[1]).all()
    for normalizer in (None, "weight", "count", "batch", 0.0):
        assert call(name, z, [-100, -100], normalizer=normalizer) == 0
        gradient = reference.gradient(name, z, [-100, -100], normalizer=normalizer)
        np.testing.assert_array_equal(gradient, np.zeros((2, 3)))
    assert call(name, X, Y, sample_weight=[0, 0, 0], normalizer="weight") == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("label", "ignore_index"), [(3, -100), (-1, -100), (-100, None)])
def test_bad_labels(name, label, ignore_index):
    labels = [0, label, 1]
    with pytest.raises(IndexError, match=rf"label {label} at \(1,\)"):
        call(name, X, labels, ignore_index=ignore_index)
    options = {"ignore_index": ignore_index, "bad_labels": "nan"}
    loss = call(name, X, labels, reduction="none", **options)
    np.testing.assert_array_equal(np.isnan(loss), [False, True, False])
    for reduction in ("none", "sum", "mean"):
        gradient = reference.gradient(name, X, labels, reduction=reduction, **options)
        np.testing.assert_array_equal(np.isnan(gradient).all(1), [False, True, False])
        np.testing.assert_array_equal(np.isnan(gradient).any(1), [False, True, False])
    assert np.isnan(call(name, X, labels, **options))
