"""Honest probabilities: temperature, calibration error, confidence, abstention, prediction sets.

Functions that return Python numbers or NumPy arrays compute them at once, and refuse arrays that a
compiler traces; functions that return arrays of the library compute in the library. Only
`straight_through` carries a gradient.
"""

from softmaxkit.calibration._confidence import classify, confidence
from softmaxkit.calibration._conformal import conformal_threshold, prediction_sets
from softmaxkit.calibration._pictures import plot_reliability, plot_risk_coverage
from softmaxkit.calibration._reliability import (
    Estimate,
    Reliability,
    brier_score,
    calibration_error,
    reliability,
)
from softmaxkit.calibration._selection import RiskCoverage, aurc, risk_coverage, threshold_for
from softmaxkit.calibration._straight import straight_through
from softmaxkit.calibration._temperature import fit_temperature

__all__ = [
    "Estimate",
    "Reliability",
    "RiskCoverage",
    "aurc",
    "brier_score",
    "calibration_error",
    "classify",
    "confidence",
    "conformal_threshold",
    "fit_temperature",
    "plot_reliability",
    "plot_risk_coverage",
    "prediction_sets",
    "reliability",
    "risk_coverage",
    "straight_through",
    "threshold_for",
]

# As in softmaxkit: TensorFlow's AutoGraph must leave these alone.
for _name in __all__:
    globals()[_name].autograph_info__ = {}
