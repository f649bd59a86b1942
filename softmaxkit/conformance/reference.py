"""The oracle: every operation as the textbook writes it, in NumPy and float64.

It shares no code with any kernel and imports NumPy alone; clarity comes before speed (one-hot
matrices are built, gradients are computed with every value). ``tests/test_golden.py`` holds it
to values computed with mpmath, saturated rows included.

The whole loss family is one formula. With z = logits / temperature, the kept classes' softmax p,
target probabilities q (one-hot for labels) and class weights w,

    row loss      Σ_c w_c q_c (1 - p_c)^g (-log p_c)  +  λ logsumexp(z)²
    d / d z_c     p_c Σ_{j≠c} a_j - a_c (1 - p_c)     +  2 λ logsumexp(z) p_c
    with          a_c = w_c q_c ((1 - p_c)^g - g p_c (1 - p_c)^(g-1) log p_c)

where g is gamma, 0 for cross-entropy. Every sum is of terms of one sign and 1 - p = -expm1(log p),
so that it stays right where one class dominates. Lin et al. 2017, arXiv:1708.02002 (focal loss);
Szegedy et al. 2016, arXiv:1512.00567 (label smoothing).

Rules chosen here where the semantics leave room:

- ``dtype`` is accepted and has no effect: arithmetic and results are float64.
- ``bad_labels="nan"`` gives a label out of range a NaN row loss and NaN row gradient in place of an
  IndexError. In a mean's denominator that row counts with class weight 1.
- 0 · inf = 0 for class weights and probabilities, but 0 · NaN = NaN: a row of NaN shows.
- ``sample_weight`` multiplies the whole row loss, its z-loss too. It enters the mean's denominator
  for labels alone; a row of weight 0 adds exactly 0, whatever it holds, and is still a kept row.
- A denominator by name that comes to 0 (all weights 0) gives 0.0 and a gradient of zeros, as when
  nothing is kept; only a row of NaN still shows in its gradient. A number given as
  ``normalizer`` is divided by as it stands.
- ``normalizer`` belongs to ``reduction="mean"``; with another reduction it is a ValueError.
  "count" is the number of kept rows (binary: of elements), "batch" the first dimension of the
  rows, ignored rows included (1 where there is none), "weight" the sum of sample_weight · class
  weight over the kept rows, with class weight w_y, Σ_c w_c q_c, focal's alpha in place of w, and
  for the binary losses pos_weight · t + 1 - t or a t + (1 - a)(1 - t); all before smoothing.
- Probability targets are smoothed as labels are: q (1 - ε) + ε/K.
- A target on a masked class: the loss is +inf, the masked class's gradient 0 and the others' p_c
  w_y, the limit of z_y → -inf. ``smooth_labels`` keeps (1 - ε) y there: only ε/K is masked.
- logsumexp of a row with +inf (and no NaN) is +inf; its gradient is that row's softmax, NaN.
- A number out of its range is refused; of an array, 0-d or larger, the values are not looked at.
- ``ignore_index=None`` ignores nothing. Probability targets have no ignored rows.
- Binary targets of integer or boolean dtype are converted. Smoothing replaces t everywhere, in
  alpha's factor too.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "focal_loss",
    "gradient",
    "log_softmax",
    "log_softmax_vjp",
    "logsumexp",
    "logsumexp_vjp",
    "one_hot",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax",
    "softmax_vjp",
    "sum_to_shape",
    "temperature_gradient_terms",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Axis = int | tuple[int, ...] | None


# Activations and their vector-Jacobian products.


def softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    dtype: object = None,
) -> Array:
    """Return exp(x/T) / Σ exp(x/T); 0 where masked."""
    x = _float64(x)
    p, _, _ = _normalize(x, axis, where, temperature)
    return _classes_back(p, x.shape, axis)


def log_softmax(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
    dtype: object = None,
) -> Array:
    """Return x/T - logsumexp(x/T); -inf where masked."""
    x = _float64(x)
    _, log_p, _ = _normalize(x, axis, where, temperature)
    return _classes_back(log_p, x.shape, axis)


def logsumexp(
    x: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
    dtype: object = None,
) -> Array:
    """Return log Σ exp(x); -inf where nothing is kept."""
    x = _float64(x)
    _, _, lse = _normalize(x, axis, where, 1.0)
    return np.expand_dims(lse, _axes(x.ndim, axis)) if keepdims else lse


def softmax_vjp(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """Return d Σ(cotangent · softmax(x)) / d x = p_c (v_c - Σ_j p_j v_j) / T."""
    x = _float64(x)
    p, _, _ = _normalize(x, axis, where, temperature)
    v = _unmasked(np.broadcast_to(_float64(cotangent), x.shape), where)
    v = _classes_last(v, x.shape, axis)
    if p.size == 0:
        return np.zeros(x.shape)
    # Measured from the likeliest class, v's own term drops out of the sum and nothing cancels.
    v = v - np.take_along_axis(v, p.argmax(-1)[..., None], -1)
    gradient_of_rows = p * (v - (p * v).sum(-1, keepdims=True))
    return _unmasked(_classes_back(gradient_of_rows, x.shape, axis), where) / _float64(temperature)


def log_softmax_vjp(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """Return d Σ(cotangent · log_softmax(x)) / d x over the kept entries, = (v_c - p_c Σ v) / T."""
    x = _float64(x)
    p, log_p, _ = _normalize(x, axis, where, temperature)
    v = _unmasked(np.broadcast_to(_float64(cotangent), x.shape), where)
    v = _classes_last(v, x.shape, axis)
    gradient_of_rows = -_nll_gradient(p, log_p, v)
    return _unmasked(_classes_back(gradient_of_rows, x.shape, axis), where) / _float64(temperature)


def logsumexp_vjp(
    x: ArrayLike,
    cotangent: ArrayLike,
    axis: Axis = -1,
    *,
    where: ArrayLike | None = None,
    keepdims: bool = False,
) -> Array:
    """Return d Σ(cotangent · logsumexp(x)) / d x = p v; 0 where logsumexp is -inf."""
    x = _float64(x)
    p, _, lse = _normalize(x, axis, where, 1.0)
    rows = np.expand_dims(lse, _axes(x.ndim, axis)).shape if keepdims else lse.shape
    v = np.broadcast_to(_float64(cotangent), rows).reshape(lse.shape)[..., None]
    gradient_of_rows = np.where(lse[..., None] == -np.inf, 0.0, p * v)
    return _unmasked(_classes_back(gradient_of_rows, x.shape, axis), where)


# Labels.


def one_hot(
    labels: ArrayLike,
    num_classes: int,
    *,
    axis: int = -1,
    dtype: object = None,
    bad_labels: str = "raise",
) -> Array:
    """Return 1 where the class is the label and 0 elsewhere, with a new class axis at `axis`."""
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels have dtype {labels.dtype}; expected integers")
    encoded = (labels[..., None] == np.arange(num_classes)).astype(np.float64)
    bad = (labels < 0) | (labels >= num_classes)
    if bad_labels == "raise" and bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        raise IndexError(f"label {labels[position]} at {position} is outside [0, {num_classes})")
    encoded[bad] = np.nan
    return np.moveaxis(encoded, -1, axis)


def smooth_labels(
    targets: ArrayLike,
    smoothing: float,
    *,
    num_classes: int | None = None,
    axis: int = -1,
    where: ArrayLike | None = None,
    bad_labels: str = "raise",
) -> Array:
    """Return y (1 - ε) + ε/K with ε = `smoothing`, K the kept classes; masked ones get no ε/K."""
    if not 0 <= smoothing <= 1:
        raise ValueError(f"smoothing is {smoothing}; expected a number in [0, 1]")
    targets = np.asarray(targets)
    if targets.dtype.kind in "iu":
        if num_classes is None:
            raise ValueError("smooth_labels: integer targets need num_classes")
        targets = one_hot(targets, num_classes, axis=axis, bad_labels=bad_labels)
    elif targets.dtype.kind == "b":
        raise TypeError("smooth_labels: boolean targets; expected integers or probabilities")
    y = _float64(targets)
    keep = np.broadcast_to(_mask(where), y.shape)
    classes = keep.sum(axis, keepdims=True)
    return y * (1 - smoothing) + np.where(keep, smoothing / np.maximum(classes, 1), 0.0)


# Losses.


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
    options.pop("dtype", None)
    if name == "cross_entropy":
        weight = options.pop("weight", None)
        options |= {"class_weight": weight, "gamma": 0.0, "weighted_mean": True}
        return _categorical(logits, targets, **options)[1]
    if name == "focal_loss":
        alpha = options.pop("alpha", None)
        return _categorical(logits, targets, class_weight=alpha, **{"gamma": 2.0} | options)[1]
    if name == "binary_cross_entropy":
        return _binary(logits, targets, gamma=0.0, **options)[1]
    if name == "sigmoid_focal_loss":
        return _binary(logits, targets, **{"gamma": 2.0} | options)[1]
    raise ValueError(f"gradient: {name!r} is not the name of a loss")


def temperature_gradient_terms(logits: ArrayLike, gradient: Array, temperature: ArrayLike) -> Array:
    """Return -x · (d loss / d x) / T: their sum over what shares a T is d loss / d T."""
    with np.errstate(all="ignore"):
        # A gradient of 0, as at masked classes and at -inf, has no part in it.
        terms = np.where(gradient == 0, 0.0, -_float64(logits) * gradient)
        slope: Array = terms / _float64(temperature)
    return slope


def sum_to_shape(terms: Array, shape: tuple[int, ...]) -> Array:
    """Sum what broadcasting to `shape` had spread: the derivative of a broadcast."""
    terms = terms.sum(tuple(range(terms.ndim - len(shape))))
    spread = tuple(axis for axis, length in enumerate(shape) if length == 1)
    return terms.sum(spread, keepdims=True)


def _categorical(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    class_weight: ArrayLike | None,
    gamma: float,
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
) -> tuple[Array, Array]:
    """Return cross-entropy or focal loss and its gradient with respect to the logits."""
    z = _float64(logits)
    labels = np.asarray(targets)
    (class_axis,) = _axes(z.ndim, axis)
    num_classes = z.shape[class_axis]
    if num_classes == 0:
        raise ValueError("the class axis is empty")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected a number >= 0")
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
    # Rows that count for nothing are made harmless before the arithmetic: 0 * NaN is too late.
    z = np.where(np.expand_dims(kept & (sample_weight != 0), class_axis), z, 0.0)
    if is_index:
        labels = np.where(kept, labels, np.zeros_like(labels))
        labels = one_hot(labels, num_classes, axis=class_axis, bad_labels=bad_labels)
    q = _classes_last(_float64(labels), z.shape, axis)
    smooth = smooth_labels(labels, label_smoothing, axis=axis, where=where)
    smooth = _classes_last(smooth, z.shape, axis)
    w = np.ones(num_classes) if class_weight is None else _float64(class_weight)
    w = np.broadcast_to(w, (num_classes,))

    p, log_p, lse = _normalize(z, axis, where, temperature)
    with np.errstate(all="ignore"):
        focus = (-np.expm1(log_p)) ** gamma
        row_loss = _times(w * smooth, -focus * log_p).sum(-1) + _times(z_loss, lse**2)
        row_gradient = _nll_gradient(p, log_p, w * smooth * _focal_slope(p, log_p, gamma))
        row_gradient = row_gradient + 2 * z_loss * _times(p, lse[..., None])

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
    row_gradient = np.where(kept[..., None], row_gradient * scale[..., None], 0.0)
    logits_gradient = _unmasked(_classes_back(row_gradient, z.shape, axis), where)
    return value, logits_gradient / _float64(temperature)


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
) -> tuple[Array, Array]:
    """Return binary cross-entropy or sigmoid focal loss and its gradient."""
    x = _float64(logits)
    t = _float64(targets)
    if t.shape != x.shape:
        raise ValueError(f"targets have shape {t.shape} for logits of shape {x.shape}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; expected a number in [0, 1]")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; expected a number >= 0")
    w = np.broadcast_to(_float64(1.0 if pos_weight is None else pos_weight), x.shape)
    sample_weight = _sample_weight(sample_weight, x.shape)
    x = np.where(sample_weight != 0, x, 0.0)

    # The two classes' probabilities apart: 1 - t would lose what smoothing puts beside t = 1.
    pos = t * (1 - label_smoothing) + label_smoothing / 2
    neg = (1 - t) * (1 - label_smoothing) + label_smoothing / 2
    with np.errstate(all="ignore"):
        p, one_minus_p = _sigmoid(x), _sigmoid(-x)
        bce = _times(w * pos, _softplus(-x)) + _times(neg, _softplus(x))
        bce_slope = neg * p - w * pos * one_minus_p
        # m = 1 - p_t. Where it underflows to 0, so does m^gamma times anything.
        m = p * neg + one_minus_p * pos
        m_slope = np.where(m == 0, 0.0, p * one_minus_p * (neg - pos) / m)
        alpha_t = _alpha_t(alpha, pos, neg)
        loss = _times(alpha_t * m**gamma, bce)
        slope = alpha_t * m**gamma * (_times(gamma * m_slope, bce) + bce_slope)
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
    return value, slope * scale


# The pieces.


def _normalize(
    x: Array, axis: Axis, where: ArrayLike | None, temperature: ArrayLike
) -> tuple[Array, Array, Array]:
    """Return softmax, log-softmax and logsumexp of x/T over the kept entries, class axis last."""
    keep = _classes_last(_float64(_mask(where)), x.shape, axis) == 1
    t = _classes_last(_temperature(temperature), x.shape, axis)
    with np.errstate(all="ignore"):  # inf - inf = NaN is the rule here, not an accident.
        z, z_rest = _divide(np.where(keep, _classes_last(x, x.shape, axis), -np.inf), t)
        top = z.max(-1, keepdims=True, initial=-np.inf)
        top_rest = np.where(z == top, z_rest, -np.inf).max(-1, keepdims=True, initial=-np.inf)
        d, d_rest = _subtract(z, top)
        d_rest = _finite(d_rest + (z_rest - top_rest))
        exponentials = np.exp(d) * (1 + d_rest)
        # Keep the maximum out of the sum: 1 + 1e-17 is 1, and log p of the top class would be 0.
        ties = d == 0
        others = np.where(ties, 0.0, exponentials).sum(-1, keepdims=True)
        others = others + (ties.sum(-1, keepdims=True) - 1)
        p = exponentials / (1 + others)
        log_p = d + (d_rest - np.log1p(others))
        lse = np.where(np.isinf(top), top, top + (top_rest + np.log1p(others)))
    return np.where(keep, p, 0.0), np.where(keep, log_p, -np.inf), lse[..., 0]


def _nll_gradient(p: Array, log_p: Array, a: Array) -> Array:
    """Return d Σ_c a_c (-log p_c) / d z = p_c Σ_{j≠c} a_j - a_c (1 - p_c), for constant a."""
    if a.shape[-1] == 0:
        return np.zeros(a.shape)
    # Total minus own term loses nothing but for the largest, whose others are summed without it.
    is_top = np.arange(a.shape[-1]) == np.abs(a).argmax(-1)[..., None]
    top = np.where(is_top, a, 0.0).sum(-1, keepdims=True)
    rest = np.where(is_top, 0.0, a).sum(-1, keepdims=True)
    others = np.where(is_top, rest, top + (rest - a))
    with np.errstate(all="ignore"):
        slope: Array = p * others + a * np.expm1(log_p)
    return slope


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
    a = _float64(alpha)
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
    """Return the reduced loss and the factor from each row's gradient to its gradient."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"reduction is {reduction!r}; expected 'none', 'sum' or 'mean'")
    if reduction != "mean" and normalizer is not None:
        raise ValueError(f"normalizer with reduction={reduction!r}; expected reduction='mean'")
    loss = np.where(kept, _times(sample_weight, loss), 0.0)
    if reduction == "none":
        return loss, sample_weight
    if reduction == "sum":
        return _float64(loss.sum()), sample_weight

    by = mean if normalizer is None else normalizer
    if isinstance(by, str):
        denominators = {
            "weight": np.where(kept, class_weight * sample_weight, 0.0).sum(),
            "count": kept.sum(),
            "batch": kept.shape[0] if kept.ndim else 1,
        }
        if by not in denominators:
            raise ValueError(f"normalizer is {by!r}; expected one of {list(denominators)}")
        denominator = _float64(denominators[by])
    else:
        denominator = _float64(by)
        if denominator.ndim:
            raise ValueError(f"normalizer has shape {denominator.shape}; expected a number")
    if not kept.any() or (isinstance(by, str) and denominator == 0):
        return np.zeros(()), np.zeros(loss.shape)
    with np.errstate(all="ignore"):
        return _float64(loss.sum() / denominator), sample_weight / denominator


def _sample_weight(sample_weight: ArrayLike | None, shape: tuple[int, ...]) -> Array:
    """Return the sample weights, 1 by default, in the shape of the row losses."""
    return np.broadcast_to(_float64(1.0 if sample_weight is None else sample_weight), shape)


def _times(weight: Array | float, value: Array) -> Array:
    """Return weight · value, where 0 · inf = 0."""
    with np.errstate(all="ignore"):
        return np.where(np.equal(weight, 0) & np.isinf(value), 0.0, weight * value)


def _subtract(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a - b rounded, and its rounding error (Knuth's two-sum)."""
    difference = a - b
    b_rounded = difference - a
    return difference, _finite((a - (difference - b_rounded)) - (b + b_rounded))


def _divide(a: Array, b: Array) -> tuple[Array, Array]:
    """Return a / b rounded, and its rounding error (the remainder by Dekker's product)."""
    quotient = a / b
    product = quotient * b
    q_high, b_high = _leading_half(quotient), _leading_half(b)
    q_low, b_low = quotient - q_high, b - b_high
    product_error = q_high * b_high - product + q_high * b_low + q_low * b_high + q_low * b_low
    return quotient, _finite((a - product - product_error) / b)


def _leading_half(a: Array) -> Array:
    """Return the leading 26 bits of a, whose products are exact (Veltkamp)."""
    scaled = a * (2.0**27 + 1)
    return scaled - (scaled - a)


def _finite(error: Array) -> Array:
    """Return the rounding error; an infinite or NaN result has none."""
    return np.where(np.isfinite(error), error, 0.0)


def _float64(array: ArrayLike) -> Array:
    """Return the array in float64, converted before any arithmetic."""
    array = np.asarray(array)
    if array.dtype.kind == "c":
        raise TypeError(f"dtype {array.dtype}; expected real numbers")
    return array.astype(np.float64)


def _mask(where: ArrayLike | None) -> Mask:
    """Return the mask as an array; without one everything is kept."""
    return np.asarray(True if where is None else where, bool)


def _unmasked(array: Array, where: ArrayLike | None) -> Array:
    """Return the array with 0 where masked."""
    return np.where(_mask(where), array, 0.0)


def _temperature(temperature: ArrayLike) -> Array:
    """Return the temperature in float64, refusing a number that is not positive."""
    t = _float64(temperature)
    if t.ndim == 0 and not t > 0:
        raise ValueError(f"temperature is {t}; expected a positive number")
    return t


def _axes(ndim: int, axis: Axis) -> tuple[int, ...]:
    """Return the axes as a tuple of non-negative numbers."""
    axes = axis if isinstance(axis, tuple) else tuple(range(ndim)) if axis is None else (axis,)
    for each in axes:
        if not -ndim <= each < ndim:
            raise np.exceptions.AxisError(each, ndim)
    return tuple(each % ndim for each in axes)


def _classes_last(array: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Broadcast to the shape, then move the axes to the end and merge them into one."""
    axes = _axes(len(shape), axis)
    moved = np.moveaxis(np.broadcast_to(array, shape), axes, range(-len(axes), 0))
    rows = moved.shape[: len(shape) - len(axes)]
    classes = int(np.prod([shape[each] for each in axes]))
    # Contiguous: NumPy then sums pairwise, with an error that hardly grows with the classes.
    return np.ascontiguousarray(moved).reshape((*rows, classes))


def _classes_back(array: Array, shape: tuple[int, ...], axis: Axis) -> Array:
    """Undo `_classes_last`."""
    axes = _axes(len(shape), axis)
    moved = array.reshape(array.shape[:-1] + tuple(shape[each] for each in axes))
    return np.moveaxis(moved, range(-len(axes), 0), axes)
