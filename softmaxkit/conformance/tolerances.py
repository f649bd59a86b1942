"""How far a result may be from the reference, in units in the last place (ULP): one table.

The reference is evaluated in float64 on the inputs as the backend gets them, already rounded.
"""

from __future__ import annotations

import numpy as np

# Per operation and ("value" or "gradient"): the limit for ordinary rows, for saturated rows in
# float32, and for those in float64. What bounds them: exp is good to 1-2 ULP, but each rounding of
# d = (z - max) / T becomes a relative error of e^d that grows with |d|: 8 ULP where |d| is 16, 32
# where it is 87 (then float32 underflows), 256 where it is 708 (then float64 does). With a
# temperature there are two roundings; XLA multiplies by 1/T and makes three.
LIMITS: dict[tuple[str, str], tuple[float, float, float]] = {
    ("softmax", "value"): (16, 100, 512),
    ("log_softmax", "value"): (8, 64, 512),
    # Measured at the larger of the result and the maximum, which may cancel.
    ("logsumexp", "value"): (4, 4, 4),
    ("cross_entropy", "value"): (8, 64, 512),
    # A power multiplies the relative error of its base by gamma, 5 at the most here.
    ("focal_loss", "value"): (16, 256, 1024),
    # Where ε < 0, the terms of the value cancel, and its error is measured at their size.
    ("poly_loss_cross_entropy", "value"): (8, 64, 512),
    ("binary_cross_entropy", "value"): (8, 8, 8),
    ("sigmoid_focal_loss", "value"): (16, 16, 16),
    ("linear_cross_entropy", "value"): (8, 64, 512),
    ("one_hot", "value"): (0, 0, 0),
    ("smooth_labels", "value"): (2, 2, 2),
    # Vector-Jacobian products and gradients are softmax times one or two factors; their error is
    # measured at each entry, or at the terms that cancel in it.
    ("softmax", "gradient"): (16, 100, 512),
    ("log_softmax", "gradient"): (16, 100, 512),
    ("logsumexp", "gradient"): (16, 100, 512),
    ("cross_entropy", "gradient"): (24, 100, 512),
    ("focal_loss", "gradient"): (32, 256, 1024),
    ("poly_loss_cross_entropy", "gradient"): (24, 100, 512),
    # Sums of products over classes or rows, measured at the sizes of their terms.
    ("linear_cross_entropy", "gradient"): (24, 100, 512),
    ("binary_cross_entropy", "gradient"): (8, 8, 8),
    ("sigmoid_focal_loss", "gradient"): (16, 16, 32),
}
# float16 and bfloat16 are computed in float32 and rounded at the end: half a ULP, and the float32
# error on top. Autodiff may add up two such gradients.
HALF_LIMIT = {"value": 1.0, "gradient": 2.0}


def limit(operation: str, what: str, saturated: bool, dtype: str) -> float:
    """Return by how many ULP the value or the gradient of an operation may be off."""
    ordinary, saturated_32, saturated_64 = LIMITS[operation, what]
    if dtype in ("float16", "bfloat16"):
        return min(ordinary, HALF_LIMIT[what])
    if not saturated:
        return ordinary
    return saturated_64 if dtype == "float64" else saturated_32


def ulp(magnitude: np.ndarray, dtype: str) -> np.ndarray:
    """Return the distance between neighbouring numbers of `dtype` at `magnitude` (float64)."""
    if dtype == "bfloat16":
        eps, smallest = 2.0**-7, 2.0**-126
    else:
        info = np.finfo(dtype)
        # Compilers flush subnormals of float32, float64 and bfloat16 to 0.
        flushed = float(info.smallest_normal)
        eps = float(info.eps)
        smallest = float(info.smallest_subnormal) if dtype == "float16" else flushed
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.where(magnitude > 0, magnitude, 1.0)))
    return np.maximum(np.where(magnitude > 0, 2.0**exponent * eps, 0.0), smallest)


def distance(
    got: np.ndarray, reference: np.ndarray, dtype: str, scale: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return the error in ULP of the reference (or of `scale`, where that is larger).

    Equal infinities and two NaNs are 0 apart; any other mismatch of them is infinite.
    """
    got = np.asarray(got, np.float64)
    reference = np.asarray(reference, np.float64)
    # A reference beyond the range of the dtype is an infinity there (bfloat16 has float32's range).
    with np.errstate(all="ignore"):
        rounded = reference.astype("float32" if dtype == "bfloat16" else dtype).astype(np.float64)
        same = (got == rounded) | (np.isnan(got) & np.isnan(reference))
        finite = np.isfinite(got) & np.isfinite(reference)
        magnitude = np.maximum(np.abs(np.where(finite, reference, 1.0)), scale)
        error = np.abs(got - reference) / ulp(magnitude, dtype)
    return np.where(same, 0.0, np.where(finite, error, np.inf))
