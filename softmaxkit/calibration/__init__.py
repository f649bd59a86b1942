"""Honest probabilities: temperature, calibration error, confidence, abstention, prediction sets."""

from softmaxkit.calibration._confidence import classify, confidence
from softmaxkit.calibration._pictures import plot_reliability
from softmaxkit.calibration._reliability import (
    Estimate,
    Reliability,
    brier_score,
    calibration_error,
    reliability,
)
from softmaxkit.calibration._temperature import fit_temperature

__all__ = [
    "Estimate",
    "Reliability",
    "brier_score",
    "calibration_error",
    "classify",
    "confidence",
    "fit_temperature",
    "plot_reliability",
    "reliability",
]
