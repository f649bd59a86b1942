"""Sets of classes that contain the true class as often as requested."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from softmaxkit._arguments import begin
from softmaxkit._typing import AnyArray, ArrayLike, ArrayOf, ArrayT, NumpyArray, NumpyLike
from softmaxkit.calibration._confidence import probabilities, real
from softmaxkit.calibration._rows import Rows, checked, refuse_nan, unlabelled

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

__all__ = ["conformal_threshold", "prediction_sets"]


def conformal_threshold(
    logits: AnyArray,
    labels: ArrayLike,
    *,
    error_rate: float,
    axis: int = -1,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    temperature: ArrayLike = 1.0,
) -> float:
    """Smallest probability of a class in `prediction_sets`, by split conformal prediction.

    It is the k-th largest of the n probabilities of the labels, with k = ⌈(n + 1)(1 - α)⌉. If these
    rows and a new row are exchangeable, the set of the new row contains its label with a
    probability of at least 1-α, however good or bad the model is, and of less than 1-α + 1/(n+1) if
    no two probabilities are equal.

    Parameters
    ----------
    logits : floating array
        Logits of rows that the model was not trained on, with the classes along `axis`.
    labels : integer array, or list
        Class indices in [0, C), in the shape of `logits` without `axis`.
    error_rate : float in (0, 1)
        α, how often the label may be missing.
    axis, where, temperature
        As for `confidence`; pass the same to `prediction_sets`.
    ignore_index : int or None, default -100
        Rows with this label are left out.

    Returns
    -------
    float
        From 0 to 1. For fewer than 1/α - 1 rows it is 0, with which every set has all classes.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `fit_temperature`; ValueError for `error_rate` outside (0, 1).

    References
    ----------
    Sadinle, Lei and Wasserman 2019, "Least ambiguous set-valued classifiers with bounded error
    levels", arXiv:1609.00451; Vovk, Gammerman and Shafer 2005, "Algorithmic learning in a random
    world".

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import conformal_threshold, prediction_sets
    >>> logits = np.array([[4.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 1.5], [3.0, 0.0, 0.0]])
    >>> threshold = conformal_threshold(logits, [0, 1, 1, 0], error_rate=0.2)
    >>> round(threshold, 4)
    0.3315
    >>> prediction_sets(np.array([[0.0, 0.1, 2.0], [1.0, 1.0, -2.0]]), threshold)
    array([[False, False,  True],
           [ True,  True, False]])
    """
    data = checked(
        "conformal_threshold",
        logits,
        labels,
        axis,
        where=where,
        ignore_index=ignore_index,
        temperature=temperature,
    )
    alpha = real(data.call, "error_rate", error_rate)
    if not 0 < alpha < 1:
        raise ValueError(
            f"{data.call.name}: error_rate is {alpha:g}; expected a number between 0 and 1; pass "
            f"how often the label may be missing."
        )
    p, _, _ = data.on_host(_of_label, data.ignored)
    refuse_nan(data, p)
    # Use the decimal fraction as written: in floats, (n + 1) · .29 is below 29 for 99 rows.
    misses = int(Fraction(repr(alpha)) * (len(p) + 1))
    return float(np.sort(p)[misses - 1]) if misses else 0.0


# fmt: off
@overload
def prediction_sets(
    logits: NumpyLike, threshold: float, *, axis: int = -1,
    where: ArrayLike | None = None, temperature: ArrayLike = 1.0,
) -> NumpyArray: ...
@overload
def prediction_sets(
    logits: ArrayOf[ArrayT], threshold: float, *, axis: int = -1,
    where: ArrayLike | None = None, temperature: ArrayLike = 1.0,
) -> ArrayT: ...
# fmt: on
def prediction_sets(
    logits: AnyArray,
    threshold: float,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Any:
    """Classes of each row whose probability is at least a threshold.

    Parameters
    ----------
    logits, axis, where, temperature
        As for `confidence`.
    threshold : float
        From `conformal_threshold`, with the same `where` and `temperature`.

    Returns
    -------
    bool array
        In the shape of `logits`. A row may have several classes or none; a row with NaN has none.

    Raises
    ------
    TypeError, ValueError
        As `confidence`.

    References
    ----------
    Sadinle, Lei and Wasserman 2019, arXiv:1609.00451.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import prediction_sets
    >>> prediction_sets(np.array([[0.0, 0.1, 2.0], [1.0, 1.0, -2.0]]), 0.3)
    array([[False, False,  True],
           [ True,  True, False]])
    """
    call = begin("prediction_sets", "logits", logits)
    if call.backend is None:
        return call.recorded(prediction_sets, locals())
    threshold = real(call, "threshold", threshold)
    data = unlabelled(call, axis, where, temperature, threshold)
    return data.in_library(_set_of_row, keeps=True)


def _of_label(ops: ArrayFunctions, rows: Rows, axis: int, ignored: int | None) -> tuple[Array]:
    labels = ops.as_index(rows.labels)
    if ignored is not None:
        labels = ops.where(ops.equal(labels, ignored), 0, labels)
    return (ops.pick(probabilities(ops, rows, axis), labels, axis),)


def _set_of_row(ops: ArrayFunctions, rows: Rows, axis: int) -> Array:
    p = probabilities(ops, rows, axis)
    inside = p >= rows.threshold
    return inside if rows.where is None else inside & rows.where
