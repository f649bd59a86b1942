"""softmaxkit.calibration beside scikit-learn's temperature scaling, torchmetrics and netcal.

They publish no tests that run on other functions. Their results are compared here: on drawn rows
where they are right, and case by case where they are not, or mean something else.

The largest errors: of T, relative to the root of the derivative that SciPy's brentq finds, over
logits of five scales; of the calibration error, the absolute difference from softmaxkit's.

| compared          | softmaxkit | scikit-learn 1.9.1 | torchmetrics 1.9.0 | netcal 1.4.0 |
|-------------------|------------|--------------------|--------------------|--------------|
| T, float64        | 2e-16      | 2e-08              |                    |              |
| T, float32        | 2e-15      | 4e-04              |                    |              |
| calibration error |            |                    | 8e-08              | 3e-17        |

Where they differ:

| temperature                          | softmaxkit       | scikit-learn                     |
|--------------------------------------|------------------|----------------------------------|
| every label has the largest logit    | 1e-12, a warning | 0.022 here, without a word       |
| two classes, a logit for each        | T                | ValueError; of z1 - z0 it is 2 T |
| logits that look like probabilities  | are logits       | are probabilities                |

| calibration error       | softmaxkit       | torchmetrics             | netcal           |
|-------------------------|------------------|--------------------------|------------------|
| confidence 1            | in the last bin  | in one more (issue 3510) | in the last bin  |
| confidence 1/2, 2 bins  | in the bin below | in the bin above         | in the bin below |
| confidence 5/6, 6 bins  | in the bin below | in the bin above         | in the bin above |
| logits from 0 to 1      | are logits       | are probabilities        | takes no logits  |
| NaN                     | ValueError       | a number                 | a number         |
| a probability of 2      | ValueError       | a number                 | a number         |
| no row that counts      | ValueError       | NaN                      |                  |
"""

import warnings

import numpy as np
import pytest
from scipy.optimize import brentq

import softmaxkit
from softmaxkit.calibration import calibration_error, fit_temperature

base = pytest.importorskip("sklearn.base")
frozen = pytest.importorskip("sklearn.frozen")
sklearn_calibration = pytest.importorskip("sklearn.calibration")
torch = pytest.importorskip("torch")
torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
netcal = pytest.importorskip("netcal.metrics")

SCALES = (0.01, 1.0, 2.0, 30.0, 1000.0)


def drawn(classes=5, rows=3000):
    """Return logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 2, (rows, classes))
    return truth, (truth + rng.gumbel(size=truth.shape)).argmax(1)


# --- temperature ----------------------------------------------------------------------------------
class Given(base.ClassifierMixin, base.BaseEstimator):
    """A classifier whose logits are its input."""

    def fit(self, logits, labels):
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, logits):
        return logits

    def predict(self, logits):
        return logits.argmax(-1)


def by_sklearn(logits, labels):
    given = frozen.FrozenEstimator(Given().fit(logits, labels))
    scaling = sklearn_calibration.CalibratedClassifierCV(
        given, method="temperature", ensemble=False
    )
    (fitted,) = scaling.fit(logits, labels).calibrated_classifiers_
    return 1 / float(fitted.calibrators[0].beta_)


def by_brentq(logits, labels):
    """Return T where the mean logit that softmax expects is that of the labels."""
    z = logits.astype(np.float64)
    seen = z[np.arange(len(z)), labels].mean()

    def excess(beta):
        return (softmaxkit.softmax(beta * z) * z).sum(1).mean() - seen

    return 1 / brentq(excess, 1e-6, 1e6, xtol=1e-300, rtol=1e-15)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dtype", "theirs"), [("float64", 1e-7), ("float32", 2e-3)])
def test_the_temperature_is_the_minimum(scale, dtype, theirs, tally):
    truth, labels = drawn()
    logits = (scale * truth).astype(dtype)
    expected = by_brentq(logits, labels)
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-12)
    assert by_sklearn(logits, labels) == pytest.approx(expected, rel=theirs)
    tally("fit_temperature, scikit-learn", compared=1)


def test_labels_that_are_all_the_largest_have_no_temperature(tally):
    _, labels = drawn()
    logits = 3 * np.eye(5)[labels]
    with pytest.warns(UserWarning, match="every label has the largest logit"):
        assert fit_temperature(logits, labels) == 1e-12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert 1e-4 < by_sklearn(logits, labels) < 0.1  # somewhere where its loss is 0
    tally("fit_temperature, scikit-learn", differs=1)


def test_two_classes_are_one_logit_in_sklearn(tally):
    truth, labels = drawn(classes=2)
    temperature = fit_temperature(truth, labels)
    assert temperature == pytest.approx(by_brentq(truth, labels), rel=1e-12)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        by_sklearn(truth, labels)
    # It turns x into (-x, x), whose difference is 2 x.
    assert by_sklearn(truth[:, 1] - truth[:, 0], labels) == pytest.approx(2 * temperature, rel=1e-7)
    tally("fit_temperature, scikit-learn", differs=1)


def test_logits_may_look_like_probabilities(tally):
    truth, labels = drawn()
    logits = softmaxkit.softmax(truth)  # of a model that ends in softmax, by mistake or not
    expected = by_brentq(logits, labels)
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-12)
    theirs = by_sklearn(logits, labels)
    assert theirs == pytest.approx(by_brentq(np.log(logits), labels), rel=1e-6)
    assert abs(theirs / expected - 1) > 0.5
    tally("fit_temperature, scikit-learn", differs=1)


# --- calibration error ----------------------------------------------------------------------------
def by_torchmetrics(scores, labels, bins=15, norm="l1", **options):
    return float(
        torchmetrics.multiclass_calibration_error(
            torch.as_tensor(scores),
            torch.as_tensor(labels),
            num_classes=scores.shape[1],
            n_bins=bins,
            norm=norm,
            **options,
        )
    )


def by_netcal(p, labels, bins=15, norm="l1", binning="width"):
    metric = {"l1": netcal.ECE, "max": netcal.MCE}[norm]
    return float(metric(bins, equal_intervals=binning == "width").measure(p, np.asarray(labels)))


def ours(p, labels, bins=15, **options):
    return calibration_error(p, labels, from_logits=False, bins=bins, **options)


def of_two(*p):
    return np.stack([p, 1 - np.array(p)], 1)


@pytest.mark.parametrize("bins", [10, 15, 20])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_errors_are_the_same(bins, norm, tally):
    truth, labels = drawn()
    p = softmaxkit.softmax(2 * truth)
    expected = ours(p, labels, bins, norm=norm)
    # torchmetrics sums in float32, whatever the dtype.
    assert by_torchmetrics(p, labels, bins, norm) == pytest.approx(expected, abs=1e-6)
    tally("calibration_error, torchmetrics", compared=1)
    if norm != "l2":
        assert by_netcal(p, labels, bins, norm) == pytest.approx(expected, abs=1e-12)
        tally("calibration_error, netcal", compared=1)


def test_errors_of_bins_of_equal_mass_are_the_same(tally):
    truth, labels = drawn()
    p = softmaxkit.softmax(truth + 1)
    expected = ours(p, labels, binning="mass")
    assert by_netcal(p, labels, binning="mass") == pytest.approx(expected, abs=1e-12)
    tally("calibration_error, netcal", compared=1)


def test_confidence_1_is_in_the_last_bin(tally):
    # https://github.com/Lightning-AI/torchmetrics/issues/3510: both are in the last of 15 bins, of
    # which mean confidence and accuracy are 0.475 apart; in bins of their own 0.05 and 1.
    p, labels = of_two(0.95, 1.0), [0, 1]
    assert ours(p, labels) == pytest.approx(0.475)
    assert by_netcal(p, labels) == pytest.approx(0.475)
    assert by_torchmetrics(p, labels) == pytest.approx(0.525)
    assert softmaxkit.softmax(np.float32([17, 0])).max() == 1  # so it is not rare
    tally("calibration_error, torchmetrics", differs=1)


def test_a_confidence_on_an_edge_is_in_the_bin_below(tally):
    p, labels = of_two(0.5, 0.5, 0.8, 0.8), [0, 0, 0, 1]
    assert ours(p, labels, 2) == pytest.approx(0.5 * 0.5 + 0.5 * 0.3)
    assert by_netcal(p, labels, 2) == pytest.approx(0.5 * 0.5 + 0.5 * 0.3)
    assert by_torchmetrics(p, labels, 2) == pytest.approx(0.1)  # all in one
    tally("calibration_error, torchmetrics", differs=1)


def test_an_edge_is_the_float_that_is_written_for_it(tally):
    p, labels = of_two(5 / 6, 5 / 6, 0.95, 0.95), [0, 0, 0, 1]
    expected = 0.5 * (1 / 6) + 0.5 * 0.45
    assert ours(p, labels, 6) == pytest.approx(expected)
    assert np.linspace(0, 1, 7)[5] < 5 / 6
    in_one = abs(0.75 - (5 / 6 + 0.95) / 2)
    assert by_netcal(p, labels, 6) == pytest.approx(in_one)
    assert by_torchmetrics(p, labels, 6) == pytest.approx(in_one, abs=1e-6)
    tally("calibration_error, netcal", differs=1)
    tally("calibration_error, torchmetrics", differs=1)


def test_logits_in_0_to_1_are_logits(tally):
    logits, labels = np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1]
    expected = ours(softmaxkit.softmax(logits), labels)
    assert calibration_error(logits, labels) == pytest.approx(expected)
    assert by_torchmetrics(logits, labels) == pytest.approx(ours(logits, labels))
    assert abs(expected - ours(logits, labels)) > 0.02
    tally("calibration_error, torchmetrics", differs=1)


def test_nan_and_what_is_no_probability_are_refused(tally):
    nan = np.array([[np.nan, 1.0], [0.2, 0.8]])
    two = np.array([[2.0, -1.0], [0.2, 0.8]])
    for scores, message in ((nan, "NaN"), (two, "holds 2; expected probabilities")):
        with pytest.raises(ValueError, match=message):
            ours(scores, [0, 1])
        assert np.isfinite(by_torchmetrics(scores, [0, 1]))
        assert np.isfinite(by_netcal(scores, [0, 1]))
        tally("calibration_error, torchmetrics", differs=1)
        tally("calibration_error, netcal", differs=1)


def test_no_row_that_counts_is_refused(tally):
    p = of_two(0.8, 0.9)
    with pytest.raises(ValueError, match="none of its rows counts"):
        ours(p, [-100, -100])
    assert np.isnan(by_torchmetrics(p, [-100, -100], ignore_index=-100))
    tally("calibration_error, torchmetrics", differs=1)
