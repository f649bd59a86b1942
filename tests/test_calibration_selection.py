"""Answers that are not given, sets of classes, and a choice that lets a gradient through."""

import math
from fractions import Fraction
from itertools import pairwise, permutations

import numpy as np
import pytest

from softmaxkit import softmax, vjp
from softmaxkit.calibration import (
    _rows,
    aurc,
    classify,
    confidence,
    conformal_threshold,
    prediction_sets,
    risk_coverage,
    straight_through,
    threshold_for,
)

KINDS = ("probability", "margin", "entropy", "energy")


def drawn(rows=200, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes)).astype("float32")
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


# --- risk and coverage ----------------------------------------------------------------------------
def area_by_definition(values, wrong):
    """Return the mean over all orders of equal values of the area, in exact fractions."""
    areas = []
    for order in permutations(range(len(values))):
        if any(values[a] < values[b] for a, b in pairwise(order)):
            continue
        errors, area = 0, Fraction(0)
        for k, i in enumerate(order, 1):
            errors += int(wrong[i])
            area += Fraction(errors, k)
        areas.append(area / len(values))
    return float(sum(areas) / len(areas))


@pytest.mark.parametrize("seed", range(6))
def test_area_with_ties_is_the_mean_over_their_orders(library, seed):
    """Two logits, ±gap: the margin orders rows as the gaps do."""
    rng = np.random.default_rng(seed)
    gaps, wrong = rng.integers(1, 4, 7), rng.integers(0, 2, 7)
    logits = np.stack([gaps, -gaps], 1)
    value = aurc(library.array(logits), library.array(wrong, "int32"), kind="margin")
    assert type(value) is float
    assert value == pytest.approx(area_by_definition(gaps, wrong), rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_curve_is_what_classify_does(library, kind):
    logits, labels = drawn(60)
    logits = np.concatenate([logits, logits[:20]])  # ties
    labels = np.concatenate([labels, (labels[:20] + 1) % 4])
    given = library.array(logits), library.array(labels, "int32")
    found = risk_coverage(*given, kind=kind)
    assert (np.diff(found.threshold) < 0).all()
    assert found.coverage[-1] == 1
    for coverage, risk, threshold in zip(*found, strict=True):
        answers = library.numpy(classify(given[0], threshold=float(threshold), kind=kind))
        answered = answers >= 0
        assert coverage == pytest.approx(answered.mean(), rel=1e-12)
        assert risk == pytest.approx((answers != labels)[answered].mean(), rel=1e-12)


def test_order_says_nothing_and_rows_are_left_out():
    logits, labels = drawn()
    order = np.random.default_rng(1).permutation(len(labels))
    assert aurc(logits[order], labels[order]) == pytest.approx(aurc(logits, labels), rel=1e-12)
    more, ignored = np.concatenate([logits, logits * 9]), [*labels, *[-100] * len(labels)]
    assert aurc(more, ignored) == aurc(logits, labels)


@pytest.mark.parametrize("kind", KINDS)
def test_thresholds_keep_to_what_was_asked(library, kind):
    logits, labels = drawn()
    given = library.array(logits), library.array(labels, "int32")
    found = risk_coverage(*given, kind=kind)
    for risk in (0.05, 0.2, 0.4):
        threshold = threshold_for(*given, kind=kind, max_risk=risk)
        kept = found.threshold >= threshold
        assert not kept.any() or found.risk[kept][-1] <= risk
        assert (found.risk[~kept] > risk).all()
    for coverage in (0.01, 0.3, 0.5, 1.0):
        threshold = threshold_for(*given, kind=kind, coverage=coverage)
        answers = library.numpy(classify(given[0], threshold=threshold, kind=kind)) >= 0
        assert answers.mean() >= coverage
        assert found.coverage[found.threshold > threshold].max(initial=0) < coverage


def test_no_threshold_keeps_to_a_risk_of_rows_that_are_all_wrong():
    logits, _ = drawn()
    assert threshold_for(logits, logits.argmin(1), max_risk=0.5) == math.inf


# --- conformal sets -------------------------------------------------------------------------------
def test_the_threshold_by_its_definition(library):
    logits, labels = drawn(99)
    p = np.sort(library.numpy(softmax(library.array(logits)))[np.arange(99), labels])
    given = library.array(logits), library.array(labels, "int32")
    # 100 · .29 is 28.999999999999996 in floats; the 29th smallest is meant.
    for alpha, place in ((0.1, 9), (0.29, 28), (0.5, 49), (0.01, 0)):
        value = conformal_threshold(*given, error_rate=alpha)
        # Another softmax, of a few units in the last place.
        assert value == pytest.approx(p[place], rel=1e-6)
    assert conformal_threshold(*given, error_rate=0.009) == 0.0


def test_the_sets_hold_just_the_labels_they_should(library, monkeypatch):
    """On the rows themselves the (n + 1) α - 1 labels of smallest probability are missing."""
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 100)
    logits, labels = drawn(99)
    given = library.array(logits), library.array(labels, "int32")
    threshold = conformal_threshold(*given, error_rate=0.3)
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 1 << 18)
    sets = library.numpy(prediction_sets(given[0], threshold))
    assert sets.dtype == bool
    assert sets.shape == logits.shape
    assert (~sets[np.arange(99), labels]).sum() == 29


def test_coverage_of_new_rows():
    """From 1 - α to 1 - α + 1/(n + 1), over rows and calibration sets: Beta(16, 5) for n = 20."""
    rng = np.random.default_rng(0)
    trials, new, covered = 1000, 40, 0
    for _ in range(trials):
        logits = rng.normal(0, 2, (20 + new, 3))
        labels = rng.integers(0, 3, 20 + new)  # the model is worth nothing
        threshold = conformal_threshold(logits[:20], labels[:20], error_rate=0.25)
        sets = prediction_sets(logits[20:], threshold)
        covered += sets[np.arange(new), labels[20:]].sum()
    # The mean is 16/21 = .762; of 1000 trials it has a standard deviation of .0036.
    assert 16 / 21 - 0.0144 <= covered / (trials * new) <= 16 / 21 + 0.0144


def test_masks_axes_and_temperatures_of_sets(library, monkeypatch):
    logits, _labels = drawn(60)
    expected = prediction_sets(logits[:, :3], 0.4, temperature=2.0)
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 50)
    laid = library.array(np.moveaxis(logits.reshape(4, 15, 4), -1, 1))
    mask = library.array(np.arange(4)[:, None] < 3, "bool")
    sets = library.numpy(prediction_sets(laid, 0.4, axis=1, where=mask, temperature=2.0))
    sets = np.moveaxis(sets, 1, -1).reshape(60, 4)
    assert not sets[:, 3].any()
    np.testing.assert_array_equal(sets[:, :3], expected)
    everything = library.numpy(prediction_sets(laid, 0.0, axis=1, where=mask))
    assert (everything.sum(1) == 3).all()


# --- straight through -----------------------------------------------------------------------------
def test_straight_through_is_one_hot_to_the_last_bit(library):
    x = np.float32([[0.1, 0.7, 0.2], [5.0, 5.0, -1.0], [100.0, 0.0, 0.0], [0.0, -np.inf, 1.0]])
    value = library.numpy(straight_through(library.array(x)))
    assert value.dtype == "float32"
    np.testing.assert_array_equal(value, np.eye(3)[[1, 0, 0, 2]])
    turned = library.numpy(straight_through(library.array(x.T), 0))
    np.testing.assert_array_equal(turned, value.T)


def test_straight_through_has_the_derivative_of_softmax(library):
    if library.adapter.transforms["eager"].compute is None:
        pytest.skip("the library has no autodiff")
    x = np.float32([[0.1, 0.7, 0.2], [5.0, 4.0, -1.0], [20.0, 0.0, 0.0]])
    v = np.float32([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0], [1.0, 0.5, -1.0]])
    arrays = [library.array(x)]
    value, product = library.adapter.transforms["eager"].vjp(
        straight_through, arrays, 0, library.array(v)
    )
    _, expected = vjp(softmax)(x, v)
    np.testing.assert_array_equal(library.numpy(value), np.eye(3)[[1, 0, 0]])
    # Of float32: a difference of products of p, each rounded.
    np.testing.assert_allclose(library.numpy(product), expected, rtol=1e-5)


def test_straight_through_compiled(jax):
    x = np.float32([[0.1, 0.7, 0.2], [5.0, 4.0, -1.0]])
    gradient = jax.jit(jax.grad(lambda x: straight_through(x)[:, 1].sum()))(x)
    _, expected = vjp(softmax)(x, np.float32([[0, 1, 0]] * 2))
    # As above.
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_a_kind_of_confidence_is_that_of_thresholds(library):
    logits, labels = drawn(30)
    given = library.array(logits)
    for kind in KINDS:
        found = risk_coverage(given, library.array(labels, "int32"), kind=kind)
        values = np.unique(library.numpy(confidence(given, kind)).astype(float))[::-1]
        np.testing.assert_array_equal(found.threshold, values)
