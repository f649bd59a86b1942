"""The oracle against mpmath: golden/golden.json, and that it is what its script writes."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest

from softmaxkit.conformance import OPERATIONS, reference
from softmaxkit.conformance.case import LABELS, LINEAR_LOSSES

GOLDEN_DIR = Path(__file__).parent / "golden"
GOLDEN = json.loads((GOLDEN_DIR / "golden.json").read_text(encoding="utf-8"))["cases"]

# Units in the last place of float64. 3 is the most that was seen; exp, log1p, expm1 and pow are not
# correctly rounded, and differ by about 1 between builds of NumPy. A power gamma multiplies the
# relative error of its base by gamma, so the focal losses have (1 + gamma) times as many.
MAX_ULP = 4


def decoded(value):
    if isinstance(value, list):
        return [decoded(each) for each in value]
    return float(value) if value in ("inf", "-inf") else value


def ulp_error(got, want, scale=0.0):
    """Return |got - want| in units of the spacing of floats at want, or at scale if larger."""
    got, want = np.asarray(got), np.asarray(want, np.float64)
    assert got.dtype == np.float64
    assert got.shape == want.shape
    size = np.maximum(np.maximum(np.abs(want), scale), np.finfo(np.float64).tiny)
    with np.errstate(invalid="ignore"):
        error = np.abs(got - want) / np.spacing(np.where(np.isfinite(size), size, 1.0))
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    return np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf)).max(initial=0.0)


def golden_results(case):
    """Return (got, want, scale) for the value and for the gradient of a golden case."""
    logits, options = decoded(case["logits"]), dict(case["options"])
    if "cotangent" in case:
        value = getattr(reference, case["op"])(logits, **options)
        gradient = getattr(reference, case["op"] + "_vjp")(logits, case["cotangent"], **options)
    else:
        value = getattr(reference, case["op"])(logits, case["targets"], **options)
        gradient = reference.gradient(case["op"], logits, case["targets"], **options)
    yield value, decoded(case["value"]), 0.0
    yield gradient, case["gradient"], case.get("scale", 0.0)


def max_ulp(case):
    gamma = case["options"].get("gamma", 2.0) if "focal" in case["op"] else 0.0
    return MAX_ULP * (1 + gamma)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: f"{case['op']}-{case['name']}")
def test_golden(case):
    for got, want, scale in golden_results(case):
        assert ulp_error(got, want, scale) <= max_ulp(case)


@pytest.mark.parametrize("op", sorted({case["op"] for case in GOLDEN}))
def test_the_comparison_can_fail(op):
    case = next(case for case in GOLDEN if case["op"] == op and case["name"] != "single class")
    for got, want, scale in golden_results(case):
        wrong = np.array(got)
        wrong.flat[0] += 64 * np.spacing(np.maximum(np.abs(wrong), scale).flat[0])
        assert ulp_error(wrong, want, scale) > max_ulp(case)
        wrong.flat[0] = np.nan
        assert ulp_error(wrong, want, scale) == np.inf


def test_golden_json_is_what_its_script_writes(monkeypatch):
    monkeypatch.syspath_prepend(GOLDEN_DIR)  # as where it is run: it imports its neighbour
    script = runpy.run_path(str(GOLDEN_DIR / "make_golden.py"))
    assert script["render"]() == (GOLDEN_DIR / "golden.json").read_text(encoding="utf-8")


def test_golden_covers_every_operation():
    ops = {case["op"] for case in GOLDEN}
    # A product whose factor is the identity has those of cross_entropy: test_linear.py.
    assert ops == set(OPERATIONS) - set(LABELS) - set(LINEAR_LOSSES)
