"""How sure a row is of its class, and the answer that it is not sure enough."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, overload

from softmaxkit._activations import masked_and_scaled
from softmaxkit._arguments import Call, as_number, begin, choice, shown
from softmaxkit._axes import expand
from softmaxkit._statistics import centred, entropy, log_sum, part
from softmaxkit._typing import AnyArray, ArrayLike, ArrayOf, ArrayT, Kind, NumpyLike, NumpyResult
from softmaxkit.calibration._rows import Rows, unlabelled

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

__all__ = ["classify", "confidence"]

KINDS = ("probability", "margin", "entropy", "energy")
_INF, _NAN = float("inf"), float("nan")


# fmt: off
@overload
def confidence(
    logits: NumpyLike, kind: Kind = "probability", *, axis: int = -1,
    where: ArrayLike | None = None, temperature: ArrayLike = 1.0,
) -> NumpyResult: ...
@overload
def confidence(
    logits: ArrayOf[ArrayT], kind: Kind = "probability", *, axis: int = -1,
    where: ArrayLike | None = None, temperature: ArrayLike = 1.0,
) -> ArrayT: ...
# fmt: on
def confidence(
    logits: AnyArray,
    kind: Kind = "probability",
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Any:
    """How sure each row is of its class; larger is surer, whatever the kind.

    Parameters
    ----------
    logits : floating array
        Unnormalised log-probabilities, with the classes along `axis`.
    kind : {"probability", "margin", "entropy", "energy"}
        With p = softmax(z / T), respectively: the maximum of p; the maximum minus the second
        largest p; Σ_c p_c log p_c, the negative entropy in nats, from -log C to 0; or
        T log Σ_c e^(z_c / T). Nothing cancels in rows where one class dominates.
    axis : int, default -1
        The class axis.
    where : bool array that broadcasts to `logits`, optional
        True where a class takes part.
    temperature : positive number or array that broadcasts to the rows, default 1
        Divides the logits.

    Returns
    -------
    array
        In the shape of the rows, which is `logits` without `axis`, and in float32 or wider. NaN
        for rows that contain NaN or +inf, or have no class. It carries no gradient.

    Raises
    ------
    TypeError, ValueError
        As `softmaxkit.cross_entropy`; ValueError for an unknown `kind`.

    References
    ----------
    Probability: Hendrycks and Gimpel 2017, arXiv:1610.02136. Margin: Scheffer et al. 2001, "Active
    hidden Markov models for information extraction". Energy: Liu et al. 2020, arXiv:2010.03759.

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import confidence
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]])
    >>> confidence(logits).round(4)
    array([0.6652, 0.9088])
    >>> confidence(logits, "entropy").round(4)
    array([-0.8324, -0.3487])
    """
    call = begin("confidence", "logits", logits)
    if call.backend is None:
        return call.recorded(confidence, locals())
    data = unlabelled(call, axis, where, temperature)
    choice(call.name, "kind", kind, KINDS)
    return data.in_library(confidence_of_rows, kind)


# fmt: off
@overload
def classify(
    logits: NumpyLike, *, threshold: float | None = None, reject: int = -1,
    kind: Kind = "probability", axis: int = -1, where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> NumpyResult: ...
@overload
def classify(
    logits: ArrayOf[ArrayT], *, threshold: float | None = None, reject: int = -1,
    kind: Kind = "probability", axis: int = -1, where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> ArrayT: ...
# fmt: on
def classify(
    logits: AnyArray,
    *,
    threshold: float | None = None,
    reject: int = -1,
    kind: Kind = "probability",
    axis: int = -1,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Any:
    """Class of each row, or `reject` if the row is not sure enough.

    Parameters
    ----------
    logits, kind, axis, where, temperature
        As for `confidence`.
    threshold : float, optional
        The smallest `confidence`, of that kind, with which a row gets its class; see
        `threshold_for`. Without a threshold, every row gets its class.
    reject : int, default -1
        The result for the other rows.

    Returns
    -------
    integer array
        In the shape of the rows; if several logits are the largest, the first of them.

    Raises
    ------
    TypeError, ValueError
        As `confidence`.

    References
    ----------
    Chow 1970, "On optimum recognition error and reject tradeoff".

    Examples
    --------
    >>> import numpy as np
    >>> from softmaxkit.calibration import classify
    >>> classify(np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]]), threshold=0.9)
    array([-1,  2])
    """
    call = begin("classify", "logits", logits)
    if call.backend is None:
        return call.recorded(classify, locals())
    threshold = None if threshold is None else real(call, "threshold", threshold)
    data = unlabelled(call, axis, where, temperature, threshold)
    choice(call.name, "kind", kind, KINDS)
    if isinstance(reject, bool) or not isinstance(reject, Integral):
        raise TypeError(
            f"{call.name}: reject is {shown(reject)}; expected an int; pass a label that no class "
            f"has, such as -1."
        )
    return data.in_library(_classes_of_rows, kind, int(reject))


def real(call: Call, name: str, value: Any) -> float:
    """Return a number that is not NaN."""
    value = as_number(value)
    if not isinstance(value, Real) or isinstance(value, bool) or value != value:
        kind = ValueError if isinstance(value, Real) and value != value else TypeError
        raise kind(
            f"{call.name}: {name} is {shown(value)}; expected a number; pass a Python float."
        )
    return float(value)


# --- of a block of rows ---------------------------------------------------------------------------
def logits_of(ops: ArrayFunctions, rows: Rows, axis: int) -> tuple[Array, Any]:
    """Return masked logits, without a gradient, and the temperature in the shape of the rows.

    A row without a class is NaN.
    """
    z = ops.stop_gradient(ops.compute(rows.scores))
    z, _, empty = masked_and_scaled(ops, z, axis, rows.where, None)
    if empty is not None:
        z = ops.where(expand(empty, axis), _NAN, z)
    temperature = rows.temperature
    if temperature is not None and ops.is_array(temperature):
        temperature = ops.broadcast_like(ops.compute_like(temperature, z), ops.amax(z, axis))
    return z, temperature


def probabilities(ops: ArrayFunctions, rows: Rows, axis: int) -> Array:
    """Return softmax; a block gives the same digits as all rows at once."""
    z, temperature = logits_of(ops, rows, axis)
    e = _exponentials(ops, z, ops.amax(z, axis), axis, temperature)
    return e / expand(ops.sum(e, axis), axis)


def _exponentials(ops: ArrayFunctions, z: Array, top: Array, axis: int, temperature: Any) -> Array:
    d = centred(ops, z, top, axis)
    if temperature is not None:
        d = d / (expand(temperature, axis) if ops.is_array(temperature) else temperature)
    return ops.exp(d)


def confidence_of_rows(ops: ArrayFunctions, rows: Rows, axis: int, kind: str) -> Array:
    """Return the confidence of each row."""
    return sure_class(ops, rows, axis, kind)[0]


def sure_class(ops: ArrayFunctions, rows: Rows, axis: int, kind: str) -> tuple[Array, Array]:
    """Return the confidence of each row, and its class."""
    z, temperature = logits_of(ops, rows, axis)
    if kind in ("entropy", "energy"):
        whole = part(ops, z, axis, temperature=temperature, first_class=0)
        if kind == "entropy":
            return -entropy(ops, whole), whole.place
        beyond = log_sum(ops, whole)
        return whole.top + (beyond if temperature is None else temperature * beyond), whole.place
    top, place = ops.amax(z, axis), ops.argmax(z, axis)
    p = 1.0 / ops.sum(_exponentials(ops, z, top, axis, temperature), axis)
    if kind == "margin":
        second = ops.amax(ops.where(ops.at_class(place, z, axis), -_INF, z), axis)
        d = second - ops.where(ops.equal(abs(top), _INF), _NAN, top)
        p = -p * ops.expm1(d if temperature is None else d / temperature)
    return p, place


def _classes_of_rows(ops: ArrayFunctions, rows: Rows, axis: int, kind: str, reject: int) -> Array:
    value, place = sure_class(ops, rows, axis, kind)
    return place if rows.threshold is None else ops.where(value >= rows.threshold, place, reject)
