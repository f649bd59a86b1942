"""The oracle: every operation as the textbook writes it, in NumPy and float64.

Activations and labels are written in `reference_activations`. The two share no code with any kernel
and import NumPy alone; clarity comes before speed (one-hot matrices are built, gradients computed
with every value). ``tests/test_golden.py`` holds them to values of mpmath, saturated rows included.

The whole loss family is one formula. With z = logits / temperature, the kept classes' softmax p,
target probabilities q (one-hot for labels) and class weights w,

    row loss      Σ_c w_c q_c (1 - p_c)^g (-log p_c)  +  λ logsumexp(z)²
    d / d z_c     p_c Σ_{j≠c} a_j - a_c (1 - p_c)     +  2 λ logsumexp(z) p_c
    with          a_c = w_c q_c ((1 - p_c)^g - g p_c (1 - p_c)^(g-1) log p_c)

where g is gamma, 0 for cross-entropy. Every sum has terms of one sign, and 1 - p = -expm1(log p),
so that it stays right where one class dominates. Lin et al. 2017, arXiv:1708.02002 (focal loss);
Szegedy et al. 2016, arXiv:1512.00567 (label smoothing).

Rules chosen here where the semantics leave room:

- ``dtype`` is accepted and has no effect: arithmetic and results are float64.
- ``bad_labels="nan"`` gives a label out of range a NaN row loss and NaN row gradient in place of an
  IndexError. In a mean's denominator that row counts with class weight 1.
- 0 · inf = 0 for class weights and probabilities, but 0 · NaN = NaN: a row of NaN shows.
- ``sample_weight`` multiplies the whole row loss, including its z-loss. It enters the mean's
  denominator only for labels; a row of weight 0 adds exactly 0, whatever it contains, and is still
  a kept row.
- A named denominator that is 0 (all weights 0) gives 0.0 and a gradient of zeros, as when nothing
  is kept; only a row of NaN still shows in its gradient. A number passed as ``normalizer`` divides
  as it is, except that 0 / 0 is 0.
- ``normalizer`` belongs to ``reduction="mean"``; with another reduction it is a ValueError.
  "count" is the number of kept rows (binary: of elements), "batch" the first dimension of the
  rows, ignored rows included (1 where there is none), "weight" the sum of sample_weight · class
  weight over the kept rows, with class weight w_y, Σ_c w_c q_c, focal's alpha in place of w, and
  for the binary losses pos_weight · t + 1 - t or a t + (1 - a)(1 - t); all before smoothing.
- Probability targets are smoothed as labels are: q (1 - ε) + ε/K.
- A target on a masked class: the loss is +inf, the masked class's gradient 0 and the others' p_c
  w_y, the limit of z_y → -inf. ``smooth_labels`` keeps (1 - ε) y there: only ε/K is masked.
- logsumexp of a row with +inf (and no NaN) is +inf; its gradient is that row's softmax, NaN.
- A number out of its range is refused; the values of an array, 0-d or larger, are not checked.
- ``ignore_index=None`` ignores nothing. Probability targets have no ignored rows.
- Binary targets of integer or boolean dtype are converted. Smoothing replaces t everywhere, in
  alpha's factor too.
"""

import numpy as np
from numpy.typing import ArrayLike

from softmaxkit.conformance.reference_activations import (
    Array,
    Mask,
    axes_of,
    classes_back,
    classes_last,
    float64,
    log_softmax,
    log_softmax_vjp,
    log_softmax_vjp_terms,
    logsumexp,
    logsumexp_vjp,
    nll_gradient,
    nll_gradient_terms,
    normalize,
    one_hot,
    smooth_labels,
    softmax,
    softmax_vjp,
    softmax_vjp_terms,
    unmasked,
)

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "focal_loss",
    "gradient",
    "gradient_terms",
    "log_softmax",
    "log_softmax_vjp",
    "log_softmax_vjp_terms",
    "logsumexp",
    "logsumexp_vjp",
    "one_hot",
    "poly_loss_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax",
    "softmax_vjp",
    "softmax_vjp_terms",
    "sum_to_shape",
    "temperature_gradient_terms",
]


def cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: ArrayLike = 1.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
    dtype: object = None,
    bad_labels: str = "raise",
) -> Array:
    """Return Σ_c w_c q_c (-log p_c) + λ logsumexp² per row, reduced."""
    return _categorical(
        logits,
        targets,
        class_weight=weight,
        gamma=0.0,
        axis=axis,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        z_loss=z_loss,
        reduction=reduction,
        normalizer=normalizer,
        weighted_mean=True,
        bad_labels=bad_labels,
    )[0]


def focal_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: ArrayLike | None = None,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: ArrayLike = 1.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
    dtype: object = None,
    bad_labels: str = "raise",
) -> Array:
    """Return Σ_c alpha_c q_c (1 - p_c)^g (-log p_c) per row, reduced."""
    return _categorical(
        logits,
        targets,
        class_weight=alpha,
        gamma=gamma,
        axis=axis,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        bad_labels=bad_labels,
    )[0]


def poly_loss_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: float = 2.0,
    axis: int = -1,
    weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: ArrayLike = 1.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
    dtype: object = None,
    bad_labels: str = "raise",
) -> Array:
    """Return Σ_c w_c q_c (-log p_c + e (1 - p_c)) per row, reduced."""
    return _categorical(
        logits,
        targets,
        class_weight=weight,
        gamma=0.0,
        epsilon=epsilon,
        axis=axis,
        sample_weight=sample_weight,
        where=where,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        temperature=temperature,
        reduction=reduction,
        normalizer=normalizer,
        weighted_mean=True,
        bad_labels=bad_labels,
    )[0]


def binary_cross_entropy(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    pos_weight: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
    dtype: object = None,
) -> Array:
    """Return -w t log p - (1 - t) log(1 - p), with p = sigmoid(x), w = `pos_weight`, reduced."""
    return _binary(
        logits,
        targets,
        pos_weight=pos_weight,
        gamma=0.0,
        sample_weight=sample_weight,
        label_smoothing=label_smoothing,
        reduction=reduction,
        normalizer=normalizer,
    )[0]


def sigmoid_focal_loss(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    gamma: float = 2.0,
    alpha: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
    dtype: object = None,
) -> Array:
    """Return alpha_t (1 - p_t)^gamma BCE(x, t) per element, reduced."""
    return _binary(
        logits,
        targets,
        alpha=alpha,
        gamma=gamma,
        sample_weight=sample_weight,
        label_smoothing=label_smoothing,
        reduction=reduction,
        normalizer=normalizer,
    )[0]


def gradient(  # type: ignore[no-untyped-def]  # typing.Any would be an import besides NumPy
    name: str, logits: ArrayLike, targets: ArrayLike, **options
) -> Array:
    """Return d loss / d logits for the loss called `name`, with that loss's options.

    For ``reduction="none"`` it is the gradient of the sum of the rows.

    Examples
    --------
    >>> gradient("cross_entropy", [[0.0, 0.0]], [1])
    array([[ 0.5, -0.5]])
    """
    return _loss(name, logits, targets, **options)[1]


def gradient_terms(  # type: ignore[no-untyped-def]
    name: str, logits: ArrayLike, targets: ArrayLike, **options
) -> Array:
    """Return the size of the terms whose sum is an entry of `gradient`, for each entry.

    Where they cancel, rounding causes an error of that size; elsewhere it is the entry's size.

    Examples
    --------
    >>> gradient_terms("cross_entropy", [[0.0, 0.0]], [[0.5, 0.5]])
    array([[0.5, 0.5]])
    """
    return _loss(name, logits, targets, **options)[2]


def _loss(  # type: ignore[no-untyped-def]
    name: str, logits: ArrayLike, targets: ArrayLike, **options
) -> tuple[Array, Array, Array]:
    """Return value, gradient and gradient terms of the loss called `name`."""
    options.pop("dtype", None)
    if name in ("cross_entropy", "poly_loss_cross_entropy"):
        weight = options.pop("weight", None)
        options |= {"class_weight": weight, "gamma": 0.0, "weighted_mean": True}
        if name == "poly_loss_cross_entropy":
            options = {"epsilon": 2.0} | options
        return _categorical(logits, targets, **options)
    if name == "focal_loss":
        alpha = options.pop("alpha", None)
        return _categorical(logits, targets, class_weight=alpha, **{"gamma": 2.0} | options)
    if name == "binary_cross_entropy":
        return _binary(logits, targets, gamma=0.0, **options)
    if name == "sigmoid_focal_loss":
        return _binary(logits, targets, **{"gamma": 2.0} | options)
    raise ValueError(f"gradient: {name!r} is not the name of a loss")


def temperature_gradient_terms(logits: ArrayLike, gradient: Array, temperature: ArrayLike) -> Array:
    """Return -x · (d loss / d x) / T; the sum of those that share a T is d loss / d T."""
    with np.errstate(all="ignore"):
        # A gradient of 0, as at masked classes and at -inf, adds nothing.
        terms = np.where(gradient == 0, 0.0, -float64(logits) * gradient)
        slope: Array = terms / float64(temperature)
    return slope


def sum_to_shape(terms: Array, shape: tuple[int, ...]) -> Array:
    """Sum over the axes along which `shape` was broadcast: the derivative of a broadcast."""
    terms = terms.sum(tuple(range(terms.ndim - len(shape))))
    spread = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return terms.sum(spread, keepdims=True)


def _categorical(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    class_weight: ArrayLike | None,
    gamma: float,
    epsilon: float = 0.0,
    axis: int = -1,
    sample_weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    temperature: ArrayLike = 1.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
    weighted_mean: bool = False,
    bad_labels: str = "raise",
) -> tuple[Array, Array, Array]:
    """Return a loss over classes, its gradient by the logits, and the gradient's terms."""
    z = float64(logits)
    labels = np.asarray(targets)
    (class_axis,) = axes_of(z.ndim, axis)
    num_classes = z.shape[class_axis]
    if num_classes == 0:
        raise ValueError("the class axis is empty")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected a number >= 0")
    if not epsilon >= -1:
        raise ValueError(f"epsilon is {epsilon}; expected a number >= -1")
    is_index = labels.dtype.kind in "iu"
    rows = z.shape[:class_axis] + z.shape[class_axis + 1 :]
    if labels.dtype.kind == "b":
        raise TypeError("boolean targets; expected integers or probabilities")
    if labels.shape != (rows if is_index else z.shape):
        raise ValueError(f"targets have shape {labels.shape} for logits of shape {z.shape}")

    kept = np.ones(rows, bool)
    sample_weight = _sample_weight(sample_weight, rows)
    if is_index and ignore_index is not None:
        kept = labels != ignore_index
    # Replace the logits of rows that do not count before the arithmetic: 0 * NaN would be NaN.
    z = np.where(np.expand_dims(kept & (sample_weight != 0), class_axis), z, 0.0)
    if is_index:
        labels = np.where(kept, labels, np.zeros_like(labels))
        labels = one_hot(labels, num_classes, axis=class_axis, bad_labels=bad_labels)
    q = classes_last(float64(labels), z.shape, axis)
    smooth = smooth_labels(labels, label_smoothing, axis=axis, where=where)
    smooth = classes_last(smooth, z.shape, axis)
    w = np.ones(num_classes) if class_weight is None else float64(class_weight)
    w = np.broadcast_to(w, (num_classes,))

    p, log_p, lse = normalize(z, axis, where, temperature)
    with np.errstate(all="ignore"):
        focus = (-np.expm1(log_p)) ** gamma
        penalty = -focus * log_p - epsilon * np.expm1(log_p)
        row_loss = _times(w * smooth, penalty).sum(-1) + _times(z_loss, lse**2)
        # The derivative of the penalty by -log p; its two terms cancel where e is negative.
        a = w * smooth * (_focal_slope(p, log_p, gamma) + epsilon * p)
        a_terms = w * smooth * (_focal_slope(p, log_p, gamma) + np.abs(epsilon) * p)
        by_lse = 2 * z_loss * _times(p, lse[..., None])
        rows_of = (
            nll_gradient(p, log_p, a) + by_lse,
            nll_gradient_terms(p, log_p, a_terms) + np.abs(by_lse),
        )

    bad = np.isnan(q).any(-1) & is_index
    row_weight = np.where(bad, 1.0, (w * q).sum(-1))
    value, scale = _reduce(
        row_loss,
        kept,
        row_weight,
        sample_weight,
        "weight" if weighted_mean and is_index else "count",
        reduction,
        normalizer,
    )

    def by_logits(rows: Array) -> Array:
        rows = np.where(kept[..., None], rows * scale[..., None], 0.0)
        by_logits: Array = unmasked(classes_back(rows, z.shape, axis), where)
        return by_logits / float64(temperature)

    gradient, terms = map(by_logits, rows_of)
    return value, gradient, terms


def _binary(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    gamma: float,
    pos_weight: ArrayLike | None = None,
    alpha: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    normalizer: ArrayLike | str | None = None,
) -> tuple[Array, Array, Array]:
    """Return binary cross-entropy or sigmoid focal loss, its gradient, and the gradient's terms."""
    x = float64(logits)
    t = float64(targets)
    if t.shape != x.shape:
        raise ValueError(f"targets have shape {t.shape} for logits of shape {x.shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number in [0, 1]")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected a number >= 0")
    w = np.broadcast_to(float64(1.0 if pos_weight is None else pos_weight), x.shape)
    sample_weight = _sample_weight(sample_weight, x.shape)
    x = np.where(sample_weight != 0, x, 0.0)

    # Smooth the two probabilities separately: 1 - t would lose what smoothing adds beside t = 1.
    pos = t * (1 - label_smoothing) + label_smoothing / 2
    neg = (1 - t) * (1 - label_smoothing) + label_smoothing / 2
    with np.errstate(all="ignore"):
        p, one_minus_p = _sigmoid(x), _sigmoid(-x)
        bce = _times(w * pos, _softplus(-x)) + _times(neg, _softplus(x))
        bce_slopes = neg * p, w * pos * one_minus_p
        # m = 1 - p_t. Where it underflows to 0, so does m^gamma times anything.
        m = p * neg + one_minus_p * pos
        m_slopes = (
            np.where(m == 0, 0.0, p * one_minus_p * each / m) for each in (neg - pos, neg + pos)
        )
        m_slope, m_slope_terms = (_times(gamma * each, bce) for each in m_slopes)
        factor = _alpha_t(alpha, pos, neg) * m**gamma
        loss = _times(factor, bce)
        slope = factor * (m_slope + (bce_slopes[0] - bce_slopes[1]))
        terms = np.abs(factor) * (m_slope_terms + bce_slopes[0] + np.abs(bce_slopes[1]))
        element_weight = (w * t + (1 - t)) * _alpha_t(alpha, t, 1 - t)
    value, scale = _reduce(
        loss,
        np.ones(x.shape, bool),
        element_weight,
        sample_weight,
        "count",
        reduction,
        normalizer,
    )
    return value, slope * scale, terms * np.abs(scale)


# The pieces.


def _focal_slope(p: Array, log_p: Array, gamma: float) -> Array:
    """Return d ((1 - p)^g (-log p)) / d (-log p) = (1 - p)^g (1 + g p (-log p) / (1 - p))."""
    with np.errstate(all="ignore"):
        one_minus_p = -np.expm1(log_p)
        ratio = np.where(one_minus_p == 0, 1.0, -log_p / one_minus_p)  # 1 is the limit at p = 1
        slope: Array = one_minus_p**gamma * (1 + gamma * _times(p, ratio))
    return slope


def _alpha_t(alpha: ArrayLike | None, pos: Array, neg: Array) -> Array:
    """Return alpha's factor for the probabilities of the two classes; exactly 1 without alpha."""
    if alpha is None:
        return np.ones(pos.shape)
    a = float64(alpha)
    factor: Array = a * pos + (1 - a) * neg
    return factor


def _sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    small = np.exp(-np.abs(x))
    p: Array = np.where(x >= 0, 1.0, small) / (1 + small)
    return p


def _softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) = -log(1 - sigmoid(x))."""
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _reduce(
    loss: Array,
    kept: Mask,
    class_weight: Array,
    sample_weight: Array,
    mean: str,
    reduction: str,
    normalizer: ArrayLike | str | None,
) -> tuple[Array, Array]:
    """Return the reduced loss, and the factor of each row's gradient in its gradient."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}; expected 'none', 'sum' or 'mean'")
    if reduction != "mean" and normalizer is not None:
        raise ValueError(f"normalizer with reduction={reduction!r}; expected reduction='mean'")
    loss = np.where(kept, _times(sample_weight, loss), 0.0)
    if reduction == "none":
        return loss, sample_weight
    if reduction == "sum":
        return float64(loss.sum()), sample_weight

    by = mean if normalizer is None else normalizer
    if isinstance(by, str):
        denominators = {
            "weight": np.where(kept, class_weight * sample_weight, 0.0).sum(),
            "count": kept.sum(),
            "batch": kept.shape[0] if kept.ndim else 1,
        }
        if by not in denominators:
            raise ValueError(f"normalizer is {by!r}; expected one of {list(denominators)}")
        denominator = float64(denominators[by])
    else:
        denominator = float64(by)
        if denominator.ndim:
            raise ValueError(f"normalizer has shape {denominator.shape}; expected a number")
    # A count of 0 belongs to a step that kept nothing, or to rows that all cost nothing.
    if not kept.any() or (denominator == 0 and (isinstance(by, str) or loss.sum() == 0)):
        return np.zeros(()), np.zeros(loss.shape)
    with np.errstate(all="ignore"):
        return float64(loss.sum() / denominator), sample_weight / denominator


def _sample_weight(sample_weight: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    """Return the sample weights, 1 by default, in the shape of the row losses."""
    return np.broadcast_to(float64(1.0 if sample_weight is None else sample_weight), shape)


def _times(weight: Array | float, value: Array) -> Array:
    """Return weight · value, where 0 · inf = 0."""
    with np.errstate(all="ignore"):
        return np.where(np.equal(weight, 0) & np.isinf(value), 0.0, weight * value)
