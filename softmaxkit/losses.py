"""Losses over classes (cross-entropy, focal) and over independent labels (binary, focal)."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal, overload

import numpy as np

from softmaxkit._arguments import Call, as_number, begin
from softmaxkit._targets import binary_targets, class_targets
from softmaxkit._typing import (
    AnyArray,
    ArrayLike,
    ArrayOf,
    ArrayT,
    Normalizer,
    Number,
    NumpyLike,
    NumpyResult,
    Reduced,
    Reduction,
)
from softmaxkit.backends import BinaryOptions, ClassOptions

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "focal_loss",
    "poly_loss_cross_entropy",
    "sigmoid_focal_loss",
]


# fmt: off
@overload
def cross_entropy(
    logits: NumpyLike, targets: ArrayLike, *, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, where: ArrayLike | None = None,
    ignore_index: int | None = -100, label_smoothing: Number = 0.0, temperature: ArrayLike = 1.0,
    z_loss: Number = 0.0, reduction: Reduced = "mean", normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> np.floating: ...
@overload
def cross_entropy(
    logits: NumpyLike, targets: ArrayLike, *, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, where: ArrayLike | None = None,
    ignore_index: int | None = -100, label_smoothing: Number = 0.0, temperature: ArrayLike = 1.0,
    z_loss: Number = 0.0, reduction: Literal["none"], normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> NumpyResult: ...
@overload
def cross_entropy(
    logits: ArrayOf[ArrayT], targets: ArrayLike, *, axis: int = -1, weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, where: ArrayLike | None = None,
    ignore_index: int | None = -100, label_smoothing: Number = 0.0, temperature: ArrayLike = 1.0,
    z_loss: Number = 0.0, reduction: Reduction = "mean", normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def cross_entropy(
    logits: AnyArray,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0,
    z_loss: Number = 0.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Cross-entropy -Σ_c y_c log p_c of logits, for class indices or probabilities.

    Parameters
    ----------
    logits : floating array
        Unnormalised log-probabilities, with the classes along `axis`.
    targets : array, or list
        Integers are class indices in [0, C), in the shape of `logits` without `axis`. Floats are
        probabilities, in the shape of `logits`; they need not sum to 1, and 0 log 0 = 0.
    axis : int, default -1
        The class axis.
    weight : (C,) array, optional
        Weight of each class.
    sample_weight : array that broadcasts to the rows, optional
        Weight of each row. The rows have the shape of `logits` without `axis`.
    where : bool array that broadcasts to `logits`, optional
        True where a class takes part. The other classes are as if absent, and a target on one of
        them costs +inf.
    ignore_index : int or None, default -100
        A row with this label adds exactly 0 to value and gradient, whatever its logits hold. With
        probabilities as targets only the default or None is allowed.
    label_smoothing : float in [0, 1], default 0
        ε: targets become (1-ε) y + ε/K over the K classes that take part. With class weights w a
        row costs L = -Σ_c w_c ((1-ε) y_c + ε/K) log p_c, and the mean over rows with labels y is
        Σ L / Σ w_y.
    temperature : positive number or array that broadcasts to `logits`, default 1
        Divides the logits.
    z_loss : float, at least 0, default 0
        Adds z_loss · logsumexp² to each row.
    reduction : {"mean", "sum", "none"}
        "none" returns the loss of each row. "mean" divides their sum by Σ weight[target] ·
        sample_weight for class indices, and by the number of rows that are not ignored for
        probabilities; where that is 0 the loss is 0.
    normalizer : number, 0-d array, "weight", "count" or "batch", optional
        What "mean" divides by instead: a number (for gradient accumulation, and for a batch that
        several devices share); "weight", the sum of the weights (for probabilities q each row's is
        Σ_c weight[c] q_c · sample_weight); "count", the number of rows that are not ignored;
        "batch", the length of the rows' first axis.
    dtype : floating dtype or its name, optional
        Of the result; that of `logits` by default. Arithmetic is float32 or wider.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``.

    Raises
    ------
    TypeError
        An argument is of the wrong kind, or belongs to another library than `logits`.
    ValueError
        A shape does not fit, or a number is out of range.
    IndexError
        A label is out of range. Where labels cannot be read without waiting for a device, or are
        being traced, loss and gradient of that row are NaN instead. A TensorFlow graph on the CPU
        raises TensorFlow's InvalidArgumentError when it runs.

    References
    ----------
    Smoothing: Szegedy et al. 2016, arXiv:1512.00567. z-loss: Chowdhery et al. 2022,
    arXiv:2204.02311, section 5.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])
    >>> softmaxkit.cross_entropy(logits, [0, 2, 1], reduction="none").round(4)
    array([0.4076, 0.0957, 1.0986])
    >>> float(softmaxkit.cross_entropy(logits, [0, 2, 1], label_smoothing=0.1).round(4))
    0.6395
    """
    call = begin("cross_entropy", "logits", logits)
    if call.backend is None:
        return call.recorded(cross_entropy, locals())
    call.floating()
    axis = call.class_axis(axis)
    targets, is_index, unseen, ignore_index = class_targets(call, targets, axis, ignore_index)
    # torch's rule: a weighted mean of class indices, a plain one of probabilities.
    normalizer = call.normalizer(normalizer, reduction, "weight" if is_index else "count")
    options = ClassOptions(
        axis=axis,
        weight=call.class_vector("weight", weight, axis),
        sample_weight=_row_weight(call, sample_weight, axis),
        where=call.mask(where),
        ignore_index=ignore_index,
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        temperature=call.temperature(temperature),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        unseen=unseen,
        z_loss=call.number("z_loss", z_loss, 0.0, neutral=0.0),
    )
    return call.loss(targets, options)


# fmt: off
@overload
def focal_loss(
    logits: NumpyLike, targets: ArrayLike, *, gamma: Number = 2.0, alpha: ArrayLike | None = None,
    axis: int = -1, sample_weight: ArrayLike | None = None, where: ArrayLike | None = None,
    ignore_index: int | None = -100, label_smoothing: Number = 0.0, temperature: ArrayLike = 1.0,
    reduction: Reduced = "mean", normalizer: Normalizer | None = None, dtype: Any = None,
) -> np.floating: ...
@overload
def focal_loss(
    logits: NumpyLike, targets: ArrayLike, *, gamma: Number = 2.0, alpha: ArrayLike | None = None,
    axis: int = -1, sample_weight: ArrayLike | None = None, where: ArrayLike | None = None,
    ignore_index: int | None = -100, label_smoothing: Number = 0.0, temperature: ArrayLike = 1.0,
    reduction: Literal["none"], normalizer: Normalizer | None = None, dtype: Any = None,
) -> NumpyResult: ...
@overload
def focal_loss(
    logits: ArrayOf[ArrayT], targets: ArrayLike, *, gamma: Number = 2.0,
    alpha: ArrayLike | None = None, axis: int = -1, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def focal_loss(
    logits: AnyArray,
    targets: ArrayLike,
    *,
    gamma: Number = 2.0,
    alpha: ArrayLike | None = None,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Focal loss over classes, -Σ_c y_c α_c (1-p_c)^γ log p_c.

    Cross-entropy that gives less weight to rows that are classified well already. It is computed
    from log p, with 1 - p = -expm1(log p), so that value and gradient stay finite and exact as p
    goes to 1.

    Parameters
    ----------
    logits, targets, axis, sample_weight, where, ignore_index, label_smoothing, temperature, dtype
        As for `cross_entropy`.
    gamma : float, at least 0, default 2
        γ, the focusing; 0 is exactly cross-entropy.
    alpha : number or (C,) array, optional
        α: one factor for all classes, or one for each.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of rows that are not ignored.
    normalizer : number, 0-d array, "weight", "count" or "batch", optional
        As for `cross_entropy`.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `cross_entropy`.

    References
    ----------
    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002, equation 5.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])
    >>> float(softmaxkit.focal_loss(logits, [0, 2, 1]).round(4))
    0.1782
    """
    call = begin("focal_loss", "logits", logits)
    if call.backend is None:
        return call.recorded(focal_loss, locals())
    call.floating()
    axis = call.class_axis(axis)
    targets, _, unseen, ignore_index = class_targets(call, targets, axis, ignore_index)
    normalizer = call.normalizer(normalizer, reduction, "count")
    options = ClassOptions(
        axis=axis,
        weight=_class_factor(call, alpha, axis),
        sample_weight=_row_weight(call, sample_weight, axis),
        where=call.mask(where),
        ignore_index=ignore_index,
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        temperature=call.temperature(temperature),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        unseen=unseen,
        gamma=call.number("gamma", gamma, 0.0, neutral=0.0),
    )
    return call.loss(targets, options)


# fmt: off
@overload
def poly_loss_cross_entropy(
    logits: NumpyLike, targets: ArrayLike, *, epsilon: Number = 2.0, axis: int = -1,
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, reduction: Reduced = "mean", normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> np.floating: ...
@overload
def poly_loss_cross_entropy(
    logits: NumpyLike, targets: ArrayLike, *, epsilon: Number = 2.0, axis: int = -1,
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, reduction: Literal["none"], normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> NumpyResult: ...
@overload
def poly_loss_cross_entropy(
    logits: ArrayOf[ArrayT], targets: ArrayLike, *, epsilon: Number = 2.0, axis: int = -1,
    weight: ArrayLike | None = None, sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None, ignore_index: int | None = -100, label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def poly_loss_cross_entropy(
    logits: AnyArray,
    targets: ArrayLike,
    *,
    epsilon: Number = 2.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: Number = 0.0,
    temperature: ArrayLike = 1.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Poly-1 loss, Σ_c y_c (-log p_c + ε (1-p_c)).

    Cross-entropy is a series in powers of 1-p with coefficients 1, 1/2, 1/3, ...; this adds ε to
    the first of them.

    Parameters
    ----------
    logits, targets, axis, weight, sample_weight, where, ignore_index, label_smoothing, temperature
        As for `cross_entropy`.
    epsilon : float, at least -1, default 2
        What is added to the coefficient of 1-p; 0 is exactly cross-entropy. Below 0 the two terms
        cancel where p is near 1, and leave as many digits fewer.
    reduction, normalizer, dtype
        As for `cross_entropy`.

    Returns
    -------
    array
        0-d, or the shape of the rows for ``reduction="none"``.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `cross_entropy`.

    References
    ----------
    Leng et al. 2022, "PolyLoss: a polynomial expansion perspective of classification loss
    functions", arXiv:2204.12511, section 4.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> logits = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0], [1.0, 1.0, 1.0]])
    >>> float(softmaxkit.poly_loss_cross_entropy(logits, [0, 2, 1]).round(4))
    1.2624
    """
    call = begin("poly_loss_cross_entropy", "logits", logits)
    if call.backend is None:
        return call.recorded(poly_loss_cross_entropy, locals())
    call.floating()
    axis = call.class_axis(axis)
    targets, is_index, unseen, ignore_index = class_targets(call, targets, axis, ignore_index)
    normalizer = call.normalizer(normalizer, reduction, "weight" if is_index else "count")
    options = ClassOptions(
        axis=axis,
        weight=call.class_vector("weight", weight, axis),
        sample_weight=_row_weight(call, sample_weight, axis),
        where=call.mask(where),
        ignore_index=ignore_index,
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        temperature=call.temperature(temperature),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        unseen=unseen,
        epsilon=call.number("epsilon", epsilon, -1.0, neutral=0.0),
    )
    return call.loss(targets, options)


# fmt: off
@overload
def binary_cross_entropy(
    logits: NumpyLike, targets: ArrayLike, *, pos_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, label_smoothing: Number = 0.0,
    reduction: Reduced = "mean", normalizer: Normalizer | None = None, dtype: Any = None,
) -> np.floating: ...
@overload
def binary_cross_entropy(
    logits: NumpyLike, targets: ArrayLike, *, pos_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, label_smoothing: Number = 0.0,
    reduction: Literal["none"], normalizer: Normalizer | None = None, dtype: Any = None,
) -> NumpyResult: ...
@overload
def binary_cross_entropy(
    logits: ArrayOf[ArrayT], targets: ArrayLike, *, pos_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None, label_smoothing: Number = 0.0,
    reduction: Reduction = "mean", normalizer: Normalizer | None = None, dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def binary_cross_entropy(
    logits: AnyArray,
    targets: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    label_smoothing: Number = 0.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Cross-entropy of independent labels, -w t log σ(x) - (1-t) log(1-σ(x)).

    Parameters
    ----------
    logits : floating array
        One for each label, in any shape. Several labels may be true.
    targets : array, or list, in the shape of `logits`
        t: probabilities, or 0 and 1, also as integers or booleans.
    pos_weight : number or array that broadcasts to `logits`, optional
        w, the weight of the positive term.
    sample_weight : array that broadcasts to `logits`, optional
        Weight of each element. An element of weight 0 may hold anything.
    label_smoothing : float in [0, 1], default 0
        ε: targets become (1-ε) t + ε/2.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements.
    normalizer : number, 0-d array, "weight", "count" or "batch", optional
        What "mean" divides by instead; "weight" is Σ sample_weight · (pos_weight t + 1 - t).
    dtype : floating dtype or its name, optional
        Of the result; that of `logits` by default. Arithmetic is float32 or wider.

    Returns
    -------
    array
        0-d, or the shape of `logits` for ``reduction="none"``.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    References
    ----------
    Bishop 2006, "Pattern recognition and machine learning", equation 4.90.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> float(softmaxkit.binary_cross_entropy(np.array([0.0, 40.0]), [0, 1], reduction="sum"))
    0.6931471805599453
    """
    call = begin("binary_cross_entropy", "logits", logits)
    if call.backend is None:
        return call.recorded(binary_cross_entropy, locals())
    call.floating()
    targets = binary_targets(call, targets)
    normalizer = call.normalizer(normalizer, reduction, "count")
    options = BinaryOptions(
        sample_weight=call.weights("sample_weight", sample_weight, call.shape, "logits"),
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        pos_weight=call.weights("pos_weight", pos_weight, call.shape, "logits"),
    )
    return call.loss(targets, options)


# fmt: off
@overload
def sigmoid_focal_loss(
    logits: NumpyLike, targets: ArrayLike, *, gamma: Number = 2.0, alpha: Number | None = None,
    sample_weight: ArrayLike | None = None, label_smoothing: Number = 0.0,
    reduction: Reduced = "mean", normalizer: Normalizer | None = None, dtype: Any = None,
) -> np.floating: ...
@overload
def sigmoid_focal_loss(
    logits: NumpyLike, targets: ArrayLike, *, gamma: Number = 2.0, alpha: Number | None = None,
    sample_weight: ArrayLike | None = None, label_smoothing: Number = 0.0,
    reduction: Literal["none"], normalizer: Normalizer | None = None, dtype: Any = None,
) -> NumpyResult: ...
@overload
def sigmoid_focal_loss(
    logits: ArrayOf[ArrayT], targets: ArrayLike, *, gamma: Number = 2.0,
    alpha: Number | None = None, sample_weight: ArrayLike | None = None,
    label_smoothing: Number = 0.0, reduction: Reduction = "mean",
    normalizer: Normalizer | None = None, dtype: Any = None,
) -> ArrayT: ...
# fmt: on
def sigmoid_focal_loss(
    logits: AnyArray,
    targets: ArrayLike,
    *,
    gamma: Number = 2.0,
    alpha: Number | None = None,
    sample_weight: ArrayLike | None = None,
    label_smoothing: Number = 0.0,
    reduction: Reduction = "mean",
    normalizer: Normalizer | None = None,
    dtype: Any = None,
) -> Any:
    """Focal loss of independent labels, -α_t (1-p_t)^γ log p_t.

    With p = σ(x): p_t = p t + (1-p)(1-t) and α_t = α t + (1-α)(1-t).

    Parameters
    ----------
    logits, targets, sample_weight, label_smoothing, reduction, normalizer, dtype
        As for `binary_cross_entropy`.
    gamma : float, at least 0, default 2
        γ, the focusing; 0 is exactly binary cross-entropy.
    alpha : float in [0, 1], optional
        α, the weight of a positive label; that of a negative one is 1-α. None for no weights.

    Returns
    -------
    array
        0-d, or the shape of `logits` for ``reduction="none"``.

    Raises
    ------
    TypeError, ValueError
        As `cross_entropy`.

    References
    ----------
    Lin et al. 2017, arXiv:1708.02002.

    Examples
    --------
    >>> import numpy as np, softmaxkit
    >>> float(softmaxkit.sigmoid_focal_loss(np.array([1.0]), [0.7]).round(5))
    0.10187
    """
    call = begin("sigmoid_focal_loss", "logits", logits)
    if call.backend is None:
        return call.recorded(sigmoid_focal_loss, locals())
    call.floating()
    targets = binary_targets(call, targets)
    normalizer = call.normalizer(normalizer, reduction, "count")
    options = BinaryOptions(
        sample_weight=call.weights("sample_weight", sample_weight, call.shape, "logits"),
        label_smoothing=call.number("label_smoothing", label_smoothing, 0.0, 1.0, neutral=0.0),
        reduction=reduction,
        normalizer=normalizer,
        dtype=call.dtype(dtype),
        gamma=call.number("gamma", gamma, 0.0, neutral=0.0),
        alpha=None if alpha is None else call.number("alpha", alpha, 0.0, 1.0, neutral=None),
    )
    return call.loss(targets, options)


def _row_weight(call: Call, value: Any, axis: int) -> Any:
    if value is None:
        return None
    shape = call.shape
    rows = shape[:axis] + shape[axis + 1 :]
    return call.weights("sample_weight", value, rows, "the unreduced loss")


def _class_factor(call: Call, alpha: Any, axis: int) -> Any:
    alpha = as_number(alpha)
    if isinstance(alpha, Real) and not isinstance(alpha, bool):
        return call.number("alpha", alpha, 0.0, neutral=1.0)
    return call.class_vector("alpha", alpha, axis, one_for_all=True)
