"""Gradients that are written out (NumPy, array-API libraries), against mpmath in float64."""

import json
from pathlib import Path

import numpy as np
import pytest

import softmaxkit

GOLDEN = json.loads((Path(__file__).parent / "golden" / "golden.json").read_text("utf-8"))["cases"]
EPS = np.finfo(np.float64).eps


def decoded(value):
    if isinstance(value, list):
        return [decoded(each) for each in value]
    return float(value) if value in ("inf", "-inf") else value


def largest_term(case):
    """Return the largest of the terms that add up to an entry of the gradient."""
    terms = [np.abs(case["gradient"]).max(initial=0.0), np.max(case.get("scale", 0.0))]
    if case["op"] == "softmax":  # p (v - Σ p v) / T
        terms.append(
            np.abs(np.multiply(decoded(case["value"]), case["cotangent"])).max(initial=0.0)
        )
        terms[-1] /= np.min(case["options"].get("temperature", 1.0))
    if case["op"] == "cross_entropy":  # (Σ q) p - q
        targets = np.asarray(case["targets"])
        terms.append(np.abs(targets).max(initial=0.0) if targets.dtype.kind == "f" else 1.0)
    return max(terms)


IDS = [f"{case['op']}-{case['name']}" for case in GOLDEN]


@pytest.mark.parametrize(("place", "case"), list(enumerate(GOLDEN)), ids=IDS)
def test_within_16_units_of_the_largest_term(library, place, case):
    if "autodiff" not in library.adapter.lacks:
        pytest.skip(f"{library} differentiates by its own autodiff")
    if library.adapter.name == "dask" and place % 4:
        pytest.skip("Dask computes a graph for each: one of four")
    arrays = {
        key: library.array(decoded(value), "float64" if key != "where" else None)
        for key, value in case["options"].items()
        if isinstance(value, list)
    }
    options = {**case["options"], **arrays}
    function = getattr(softmaxkit, case["op"])
    logits = library.array(decoded(case["logits"]), "float64")
    if "cotangent" in case:
        cotangent = library.array(case["cotangent"], "float64")
        _, gradient = softmaxkit.vjp(function)(logits, cotangent, **options)
    else:
        targets = np.asarray(case["targets"])
        targets = library.array(targets, "float64" if targets.dtype.kind == "f" else None)
        _, gradient = softmaxkit.value_and_grad(function)(logits, targets, **options)
    error = np.abs(library.numpy(gradient) - np.asarray(case["gradient"], np.float64))
    assert error.max(initial=0.0) <= 16 * EPS * largest_term(case)
