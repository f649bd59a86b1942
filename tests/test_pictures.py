"""Pictures of calibration; the session `all` has matplotlib."""

import sys

import numpy as np
import pytest

from softmaxkit.calibration import (
    calibration_error,
    plot_reliability,
    plot_risk_coverage,
    risk_coverage,
)


def drawn():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (200, 4)).astype("float32")
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def test_pictures_are_drawn_on_axes():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install '.[plot]'")
    from matplotlib.figure import Figure

    logits, labels = drawn()
    left, right = Figure().subplots(1, 2)
    assert plot_reliability(logits, labels, ax=left, temperature=2.0) is left
    assert plot_risk_coverage(logits, labels, ax=right) is right
    assert plot_risk_coverage(logits, labels, ax=right, label="twice", kind="energy") is right
    error = calibration_error(logits, labels, temperature=2.0, interval=0.95)
    above = left.get_legend().get_title().get_text()
    assert above == f"ECE {error.value:.3f} [{error.low:.3f}, {error.high:.3f}]"
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["probability", "twice"]
    assert [line.get_linestyle() for line in right.lines] == ["-", "--"]
    curve = right.lines[0].get_data()
    np.testing.assert_array_equal(curve, risk_coverage(logits, labels)[:2])
    # Without any colour: no two elements have the same stroke and marker.
    (stairs,) = (patch for patch in left.patches if patch.get_label() == "share of rows")
    for elements in ([*left.lines, stairs], right.lines):
        looks = [(one.get_linestyle(), getattr(one, "get_marker", str)()) for one in elements]
        assert len(set(looks)) == len(looks)
    assert len({line.get_color() for line in right.lines}) == 2


def test_curves_on_one_picture_are_all_seen():
    pytest.importorskip("matplotlib", reason="pictures need matplotlib: pip install '.[plot]'")
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    logits = np.array([[3.0, 0.0], [2.0, 0.0], [1.0, 0.0]])
    plot_risk_coverage(logits, [0, 0, 0], ax=ax)
    plot_risk_coverage(logits, [1, 1, 1], ax=ax)
    bottom, top = ax.get_ylim()
    assert bottom == 0
    assert top >= 1


def test_pictures_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    logits, labels = drawn()
    with pytest.raises(
        ImportError, match=r"plot_reliability: .+; pip install 'softmaxkit\[plot\]'"
    ):
        plot_reliability(logits, labels)
