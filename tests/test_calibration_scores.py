"""Confidence, classes with an answer that is not given, calibration error, reliability, Brier."""

import math
from fractions import Fraction

import numpy as np
import pytest

from softmaxkit.calibration import (
    _rows,
    brier_score,
    calibration_error,
    classify,
    confidence,
    reliability,
)

KINDS = ("probability", "margin", "entropy", "energy")
# The library's e^d, its sum and its logarithm, in units of float32's last place.
FEW_ULP = 8 * np.finfo("float32").eps


def drawn(rows=300, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (rows, classes)).astype("float32")
    return logits, rng.integers(0, classes, rows)


# --- confidence -----------------------------------------------------------------------------------
def confidence_by_definition(row, kind, temperature=1.0):
    """Return it in mpmath, of which the classes are those that are not -inf."""
    mp = pytest.importorskip("mpmath", reason="mpmath, which is the truth here, is missing").mp
    with mp.workdps(60):
        e = [mp.exp(mp.mpf(float(z)) / temperature) for z in row if z != -math.inf]
        total = mp.fsum(e)
        p = sorted((one / total for one in e), reverse=True)
        if kind == "probability":
            return float(p[0])
        if kind == "margin":
            return float(p[0] - p[1]) if len(p) > 1 else 1.0
        if kind == "energy":
            return float(temperature * mp.log(total))
        return float(mp.fsum(one * mp.log(one) for one in p if one))


ROWS = np.array(
    [
        [0.0, 0.0, 0.0, 0.0],
        [3.0, 1.0, -2.0, 0.5],
        [40.0, 0.0, 1.0, -3.0],  # saturated: 1 - p is 1e-17
        [80.0, 0.0, 0.0, 0.0],  # e^-80 is normal: XLA flushes others to 0
        [5.0, 5.0, -80.0, 1.0],
        [-3000.0, -3001.0, -3002.0, -3500.0],
        [1.0, -np.inf, 0.5, -np.inf],
        [7.0, -np.inf, -np.inf, -np.inf],
    ],
    "float32",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_confidence_by_its_definition(library, kind, temperature):
    value = library.numpy(confidence(library.array(ROWS), kind, temperature=temperature))
    expected = [confidence_by_definition(row, kind, temperature) for row in ROWS]
    assert value.shape == (8,)
    # -80 / 3, rounded by half a unit, is 13 units of e^d; float32 ends at 1e-45.
    np.testing.assert_allclose(value, expected, rtol=2.5 * FEW_ULP, atol=1e-45)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_axes_and_blocks(library, monkeypatch, kind):
    logits, _ = drawn(60)
    expected = library.numpy(confidence(library.array(logits[:, :3]), kind)).reshape(4, 15)
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 70)
    laid = np.moveaxis(logits.reshape(4, 15, 5), -1, 1)
    mask = np.arange(5)[:, None] < 3
    given = library.array(laid)
    value = confidence(given, kind, axis=1, where=library.array(mask, "bool"))
    # XLA may sum three classes in another order than five.
    np.testing.assert_allclose(library.numpy(value), expected, rtol=FEW_ULP)


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_for_each_row(library, kind):
    logits, _ = drawn(6)
    each = np.array([0.5, 1.0, 2.0, 3.0, 4.0, 5.0], "float32")
    value = library.numpy(confidence(library.array(logits), kind, temperature=library.array(each)))
    expected = [
        confidence_by_definition(row, kind, float(t)) for row, t in zip(logits, each, strict=True)
    ]
    np.testing.assert_allclose(value, expected, rtol=FEW_ULP)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_that_say_nothing_are_nan(library, kind):
    logits = library.array([[np.nan, 1.0], [np.inf, 1.0], [1.0, 2.0]])
    mask = library.array([[True, True], [True, True], [False, False]], "bool")
    assert np.isnan(library.numpy(confidence(logits, kind, where=mask))).all()
    assert (library.numpy(classify(logits, threshold=-1e30, kind=kind, where=mask)) == -1).all()


def test_classify(library):
    logits = library.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 0.0]])
    assert library.numpy(classify(logits)).tolist() == [0, 2, 0]
    assert library.numpy(classify(logits, threshold=0.9)).tolist() == [-1, 2, -1]
    assert library.numpy(classify(logits, threshold=0.9, reject=7)).tolist() == [7, 2, 7]
    sure = float(library.numpy(confidence(logits))[0])
    assert library.numpy(classify(logits, threshold=sure)).tolist() == [0, 2, -1]
    assert library.numpy(classify(logits, threshold=0.5, kind="margin")).tolist() == [-1, 2, -1]
    assert library.numpy(classify(logits, threshold=math.inf)).tolist() == [-1, -1, -1]


def test_compiled(jax):
    logits, _ = drawn(20)
    compiled = jax.jit(lambda x: (confidence(x), classify(x, threshold=0.5)))
    for mine, eager in zip(
        compiled(logits), (confidence(logits), classify(logits, threshold=0.5)), strict=True
    ):
        np.testing.assert_allclose(mine, eager, rtol=FEW_ULP)


def test_in_a_graph_of_unknown_sizes(tf):
    logits, _ = drawn(20)
    signature = [tf.TensorSpec([None, None])]
    call = tf.function(lambda x: (confidence(x), classify(x, threshold=0.5)), signature)
    value, label = call(logits)
    np.testing.assert_allclose(value.numpy(), confidence(logits), rtol=FEW_ULP)
    np.testing.assert_array_equal(label.numpy(), classify(logits, threshold=0.5))


# --- bins -----------------------------------------------------------------------------------------
def binned_exactly(confidences, hits, bins, weights):
    """Return the l1 error, the l2 error's square and the largest, in exact fractions."""
    sums = {}
    for p, hit, w in zip(confidences, hits, weights, strict=True):
        p = Fraction(p)
        # The bin whose lower edge is below p, and whose upper is not.
        index = max(math.ceil(p * bins) - 1, 0)
        mass, surplus = sums.get(index, (0, 0))
        sums[index] = mass + w, surplus + w * (p - int(hit))
    total = sum(mass for mass, _ in sums.values())
    gaps = [(mass, abs(surplus) / mass) for mass, surplus in sums.values()]
    l1 = sum(mass * gap for mass, gap in gaps) / total
    l2 = sum(mass * gap**2 for mass, gap in gaps) / total
    return float(l1), math.sqrt(l2), float(max(gap for _, gap in gaps))


@pytest.mark.parametrize("bins", [1, 4, 8, 16])
def test_width_in_exact_fractions(library, bins):
    """Confidences are multiples of 1/32: some are edges of bins."""
    rng = np.random.default_rng(bins)
    top = rng.integers(16, 33, 200) / 32
    scores = np.stack([top, 1 - top], 1)
    labels = rng.integers(0, 2, 200)
    weights = rng.integers(1, 4, 200)
    hits = (labels == 0) | ((top == 0.5) & (labels == 0))
    expected = binned_exactly(top, hits, bins, weights.tolist())
    for norm, wanted in zip(("l1", "l2", "max"), expected, strict=True):
        value = calibration_error(
            library.array(scores),
            library.array(labels, "int32"),
            from_logits=False,
            bins=bins,
            norm=norm,
            sample_weight=library.array(weights, "int32"),
        )
        assert type(value) is float
        assert value == pytest.approx(wanted, rel=1e-12)  # sums of 200 terms in float64


def test_edges_belong_to_the_bin_below():
    """0 is in the first bin and 1 in the last; torchmetrics had a hidden bin for 1 (#3510)."""
    scores = np.array([[1.0, 0.0], [0.3, 0.7], [0.6, 0.4], [0.8, 0.2]])
    found = reliability(scores, [0, 0, 0, 0], from_logits=False, bins=10)
    assert np.flatnonzero(found.count).tolist() == [5, 6, 7, 9]
    assert found.edges.tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    every = reliability(scores[:1], [0], from_logits=False, bins=10, of="class")
    assert [np.flatnonzero(one).tolist() for one in every.count] == [[9], [0]]


def test_certain_logits_are_in_the_last_bin(library):
    logits = library.array([[200.0, 0.0], [0.0, 200.0]])
    found = reliability(logits, library.array([0, 0], "int32"), bins=10)
    assert found.count.tolist() == [0] * 9 + [2]
    assert (found.confidence[9], found.accuracy[9]) == (1.0, 0.5)
    assert calibration_error(logits, library.array([0, 0], "int32")) == 0.5


def test_equal_masses():
    top = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9])
    scores = np.stack([top, 1 - top], 1)
    found = reliability(scores, np.zeros(8, int), from_logits=False, bins=4, binning="mass")
    assert found.count.tolist() == [2, 2, 2, 2]
    assert found.edges.tolist() == [0, 0.55, 0.65, 0.75, 1]
    # Means of two decimal fractions, in float64.
    np.testing.assert_allclose(found.confidence, [0.525, 0.625, 0.725, 0.85], rtol=1e-15)


def test_ties_are_in_the_bin_of_the_first_of_them():
    top = np.array([0.6, 0.7, 0.7, 0.7, 0.7, 0.9])
    scores, labels = np.stack([top, 1 - top], 1), np.array([0, 0, 1, 1, 1, 0])
    how = {"from_logits": False, "bins": 3, "binning": "mass"}
    found = reliability(scores, labels, **how)
    assert found.count.tolist() == [5, 0, 1]
    assert found.edges.tolist() == [0, 0.7, 0.7, 1]
    rng = np.random.default_rng(0)
    for _ in range(20):
        order = rng.permutation(6)
        assert reliability(scores[order], labels[order], **how).count.tolist() == [5, 0, 1]


@pytest.mark.parametrize("binning", ["width", "mass"])
@pytest.mark.parametrize("of", ["top", "class"])
def test_weights_are_repetitions_and_order_is_nothing(library, binning, of):
    logits, labels = drawn()
    rng = np.random.default_rng(1)
    times, order = rng.integers(0, 4, len(labels)), rng.permutation(len(labels))
    how = {"binning": binning, "of": of, "bins": 7}
    expected = calibration_error(logits.repeat(times, 0), labels.repeat(times), **how)
    value = calibration_error(
        library.array(logits[order]),
        library.array(labels[order], "int32"),
        sample_weight=library.array(times[order], "int32"),
        **how,
    )
    # A confidence that a library rounds otherwise may change its bin.
    rounding = 1e-6 if binning == "width" else 0.01
    assert value == pytest.approx(expected, abs=rounding)


def test_errors_of_classes_are_a_mean_over_classes():
    logits, labels = drawn()
    p = np.exp(np.float64(logits))
    p /= p.sum(1, keepdims=True)
    each = []
    for c in range(5):
        index = np.clip(np.ceil(p[:, c] * 15) - 1, 0, 14).astype(int)
        gaps = [abs((p[index == b, c] - (labels == c)[index == b]).sum()) for b in range(15)]
        each.append(sum(gaps) / len(labels))
    value = calibration_error(np.float64(logits), labels, of="class")
    assert value == pytest.approx(np.mean(each), rel=1e-12)


def test_temperature_divides_the_logits(library):
    logits, labels = drawn()
    given = library.array(labels, "int32")
    expected = calibration_error(library.array(logits / 2), given)
    value = calibration_error(library.array(logits), given, temperature=2.0)
    assert value == pytest.approx(expected, abs=1e-6)


def test_an_interval_is_drawn_by_its_seed():
    logits, labels = drawn()
    first, again, other = (
        calibration_error(logits, labels, interval=0.9, resamples=200, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[1:] != other[1:]
    assert first.value == calibration_error(logits, labels)
    assert 0 <= first.low < first.high <= 1
    narrow = calibration_error(logits, labels, interval=0.5, resamples=200, seed=1)
    assert first.low < narrow.low < narrow.high < first.high


def test_an_interval_covers():
    """Of one confidence and accuracy the resampled error is that of a binomial share."""
    rng = np.random.default_rng(0)
    scores, covered = np.tile([[0.9, 0.1]], (400, 1)), 0
    for seed in range(100):
        labels = (rng.random(400) > 0.7).astype(int)
        found = calibration_error(
            scores, labels, from_logits=False, interval=0.9, resamples=200, seed=seed
        )
        covered += found.low <= 0.2 <= found.high
    assert 80 <= covered <= 98  # 90 with a standard deviation of 3


# --- Brier ----------------------------------------------------------------------------------------
def test_brier_score(library):
    logits, labels = drawn()
    p = np.exp(np.float64(logits))
    p /= p.sum(1, keepdims=True)
    expected = ((p - np.eye(5)[labels]) ** 2).sum(1).mean()
    given = library.array(labels, "int32")
    assert brier_score(library.array(logits), given) == pytest.approx(expected, rel=1e-6)
    value = brier_score(library.array(p), given, from_logits=False)
    assert value == pytest.approx(expected, rel=1e-6)


def test_brier_score_of_saturated_rows():
    """1 - p is e^-20, and twice its square the score: 1 - p formed from p would be 1e-17 off."""
    score = brier_score([[20.0, 0.0]], [0])
    assert score == pytest.approx(2 * (math.exp(-20) / (1 + math.exp(-20))) ** 2, rel=1e-14)
    assert brier_score([[20.0, 0.0]], [1]) == pytest.approx(2 / (1 + math.exp(-20)) ** 2, rel=1e-14)


def test_rows_that_are_left_out_may_hold_anything(library):
    logits, labels = drawn(20)
    more = library.array(np.concatenate([logits, np.full((2, 5), np.nan)]))
    given = library.array([*labels, -100, 0], "int32")
    weight = library.array([1.0] * 21 + [0.0])
    for score in (brier_score, calibration_error):
        expected = score(logits, labels)
        assert score(more, given, sample_weight=weight) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("score", [brier_score, calibration_error, reliability])
def test_a_tensor_that_trains_is_only_read(torch, score):
    logits, labels = drawn(20)
    found = score(torch.tensor(logits, requires_grad=True), labels)
    # Of float32, whose numbers are 1.2e-7 apart: two libraries' exp and sums.
    np.testing.assert_allclose(found[0] if score is reliability else found,
                               (score(logits, labels))[0] if score is reliability
                               else score(logits, labels), rtol=1e-6)  # fmt: skip
