"""The loss family, written once, over a few numbers per row and the array functions of a backend.

A loss of one row of logits z needs only log p_y, logsumexp(z) and a dot product over the classes,
which a backend computes in one pass (`row_statistics`). What is left is arithmetic on rows and
stands here. `ops` is a backend module: its kernels, and `where`, `sum`, `astype` and their like.
Where the library differentiates, this arithmetic can be differentiated by it; `gradient=True`
writes the same derivative out, for torch's eager calls.

torch, JAX and TensorFlow use this module; NumPy and array-API libraries have `softmaxkit._losses`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from softmaxkit._softmax import along, as_wide_as, expand, masked_and_scaled, no_classes

if TYPE_CHECKING:
    from softmaxkit.backends import Array, DType


_PLAIN = (float, str)  # numbers and names, where an array may stand as well


# --- losses over classes --------------------------------------------------------------------------
def focal_loss(ops: Any, logits: Array, targets: Array, *, alpha: Any, **options: Any) -> Any:
    """Focal loss over classes (Lin et al. 2017, arXiv:1708.02002)."""
    return cross_entropy(ops, logits, targets, weight=alpha, **options)


def penalty(ops: Any, log_p: Array, gamma: float | None) -> Array:
    """Return -log p, or (1-p)^γ (-log p), with derivatives that are finite at p = 0 and p = 1."""
    if gamma is None:
        return -log_p
    certain, far, safe, modulator = _modulator(ops, log_p, gamma)
    return ops.where(certain, 0.0, ops.where(far, -log_p, -safe * modulator))


def penalty_slope(ops: Any, log_p: Array, gamma: float | None) -> Array | float:
    """Return the derivative of `penalty` by log p: -1, or (1-p)^γ (γ p log p / (1-p) - 1)."""
    if gamma is None:
        return -1.0
    certain, far, safe, modulator = _modulator(ops, log_p, gamma)
    slope = modulator * (gamma * safe * ops.exp(safe) / -ops.expm1(safe) - 1.0)
    return ops.where(certain, 0.0, ops.where(far, -1.0, slope))


def _modulator(ops: Any, log_p: Array, gamma: float) -> tuple[Array, Array, Array, Array]:
    certain = log_p == 0  # p = 1: the power's own derivative would be inf x 0
    far = log_p < -100  # 1 - p = 1 to the last bit; p log p would be 0 x -inf
    safe = ops.where(certain | far, -1.0, log_p)
    return certain, far, safe, (-ops.expm1(safe)) ** gamma


def cross_entropy(
    ops: Any,
    logits: Array,
    targets: Array,
    *,
    axis: int,
    weight: Any,
    sample_weight: Array | None,
    where: Array | None,
    ignore_index: int | None,
    label_smoothing: Any,
    temperature: Any,
    reduction: str,
    normalizer: Any,
    dtype: DType,
    labels_checked: bool,
    z_loss: Any = None,
    gamma: float | None = None,
    gradient: bool = False,
) -> Any:
    """Return cross-entropy, or with a `gamma` focal loss.

    With `gradient` also a function of (logits, cotangent of the loss). That returns the cotangent
    of the logits; it is given them again, since whoever keeps it for later keeps them in its own
    way.

    The loss of a row is own · penalty(log p_y) + Σ_c share_c · penalty(log p_c) + λ lse². For
    class indices own = (1-ε) w_y and share_c = w_c ε/K; for probabilities own = 0 and
    share_c = w_c ((1-ε) q_c + ε/K).
    """
    given_dtype = logits.dtype
    result_dtype = given_dtype if dtype is None else dtype
    logits = as_wide_as(ops, logits, dtype)
    # Here and below no function is called for an option that is not there: on NumPy these calls
    # were a fifth of the time of a tiny array's loss.
    gamma, label_smoothing, z_loss, normalizer = [
        value if value is None or type(value) in _PLAIN else _number(ops, value, logits)
        for value in (gamma, label_smoothing, z_loss, normalizer)
    ]
    x, shift, empty = masked_and_scaled(ops, logits, axis, where, temperature)
    weight_c: Any = weight  # what multiplies a class, laid along the logits
    if weight is not None and ops.is_array(weight):
        weight_c = weight = ops.compute_like(weight, logits)
        if weight_c.ndim:
            weight_c = along(weight_c, len(ops.shape(logits)), axis)
    uniform = None
    if label_smoothing is not None:
        uniform = label_smoothing * _uniform(ops, x, axis, where)

    labels = own = share = ignored = wrong = None
    if ops.kind(targets) == "int":
        labels, ignored, wrong = _labels(ops, targets, x, axis, ignore_index, labels_checked)
        mass = weight
        if weight is not None and ops.is_array(weight) and weight.ndim:
            mass = ops.take(weight, labels)
            mass = mass if wrong is None else ops.where(wrong, 1.0, mass)
        own = mass if uniform is None else _times(1.0 - label_smoothing, mass)
        share = uniform if uniform is None else _times(uniform, weight_c)
    else:
        # What only the row kernels and `sum` see may stay in half precision: no array of its own.
        alone = weight is None and uniform is None and gamma is None
        q = (ops.weights_like if alone else ops.compute_like)(targets, logits)
        mass = ops.sum(_times(q, weight_c), axis) if _by_weight(normalizer) else None
        if uniform is not None:
            q = (1.0 - label_smoothing) * q + uniform
        share = _times(q, weight_c)

    skip = ignored
    if sample_weight is not None:
        sample_weight = ops.compute_like(sample_weight, logits)
        ndim = len(ops.shape(logits))
        sample_weight = sample_weight[(None,) * (ndim - 1 - sample_weight.ndim) + (...,)]
        # A row of weight 0 is left out like an ignored one: NaN in it does not leak. A wrong label
        # shows there too, as it raises where it can be seen.
        nothing = sample_weight == 0
        nothing = nothing if wrong is None else nothing & ~wrong
        skip = nothing if skip is None else skip | nothing
    if empty is not None and skip is not None:
        empty = empty & ~skip

    # Σ_c share_c log p_c comes with the row; focal's penalty is not linear and needs every log p_c.
    every = gamma is not None and share is not None
    dotted = None if every else share
    rows = ops.row_statistics(x, axis, labels, dotted, skip, lse=z_loss is not None)
    log_p, dot, log_sum, top = rows
    if empty is not None:
        log_p = log_p if log_p is None else ops.where(empty, float("-inf"), log_p)
        if dot is not None:
            dot = ops.where(empty & ops.any(share != 0, axis), float("-inf"), dot)
    if every:
        kept = ops.compute(x if skip is None else ops.where(expand(skip, axis), 0.0, x))
        log_p_c = ops.log_softmax_rows(kept, axis, kept.dtype)
        if empty is not None:
            log_p_c = ops.where(expand(empty, axis), float("-inf"), log_p_c)
        dot = -ops.sum(_product(ops, share, penalty(ops, log_p_c, gamma)), axis)
    loss = None
    if log_p is not None:
        loss = penalty(ops, log_p, gamma)
        loss = loss if own is None else _product(ops, own, loss)
    if dot is not None:
        loss = -dot if loss is None else loss - dot
    lse = None
    if z_loss is not None:
        lse = top + log_sum if shift is None else top + log_sum + shift
        lse = lse if empty is None else ops.where(empty, float("-inf"), lse)
        loss = loss + z_loss * lse * lse
    if wrong is not None:
        fault = ops.where(wrong, float("nan"), ops.ones_like(loss))
        loss = loss * fault

    value, cotangent = _reduced(
        ops, loss, reduction, normalizer, mass, sample_weight, skip, ignored
    )
    value = ops.astype(value, result_dtype)
    if not gradient:
        return value

    def pull(logits: Array, of_value: Any) -> Array:
        # By z: a·p + b·1_y + c·v, times the cotangent of the row.
        x, _, _ = masked_and_scaled(ops, as_wide_as(ops, logits, dtype), axis, where, temperature)
        of_row = cotangent * of_value
        if wrong is not None:
            of_row = of_row * fault
        a: Any = 0.0
        b = c = v = None
        if log_p is not None:
            b = _times(penalty_slope(ops, log_p, gamma), own) * of_row
            a = a - b
        if share is not None:
            v = share
            if every:
                v = share * penalty_slope(ops, log_p_c, gamma)
            c = of_row if every else -of_row
            total = None if every else getattr(rows, "total", None)
            a = a - c * (_total(ops, v, x, axis) if total is None else total)
        if lse is not None:
            a = a + 2.0 * z_loss * lse * of_row
        derivative = ops.row_gradient(x, axis, rows, labels, v, skip, a, b, c)
        if temperature is not None:
            derivative = derivative / temperature
        if where is not None:
            derivative = ops.where(where, derivative, 0.0)
        return ops.astype(derivative, given_dtype)

    return value, pull


def _uniform(ops: Any, x: Array, axis: int, where: Array | None) -> Array | float:
    """Return 1/K at the classes that take part (K of them in their row), 0 at the others."""
    if where is None:
        return 1.0 / ops.length(x, axis, x)
    part = ops.broadcast_like(where, x)
    count = expand(ops.sum(ops.astype(part, x.dtype), axis), axis)
    return ops.where(part, 1.0 / ops.where(count == 0, 1.0, count), 0.0)


def _labels(
    ops: Any, targets: Array, x: Array, axis: int, ignore_index: int | None, checked: bool
) -> tuple[Array, Array | None, Array | None]:
    """Return labels that are all in range, which rows are ignored, and which labels are wrong."""
    labels = ops.as_index(targets)
    ignored = None if ignore_index is None else labels == ignore_index
    wrong = None
    if not checked:
        wrong = (labels < 0) | (labels >= ops.length(x, axis, labels))
        wrong = wrong if ignored is None else wrong & ~ignored
    for replaced in (ignored, wrong):
        if replaced is not None:
            labels = ops.where(replaced, 0, labels)
    return labels, ignored, wrong


def _total(ops: Any, share: Any, x: Array, axis: int) -> Any:
    """Sum over the classes of a number or of an array that broadcasts to the logits."""
    if not ops.is_array(share) or share.ndim == 0:
        return share * ops.length(x, axis, x)
    total = ops.sum(share, axis)
    return total if share.shape[axis] == x.shape[axis] else total * ops.length(x, axis, x)


# --- losses over independent labels ---------------------------------------------------------------
def binary_cross_entropy(
    ops: Any, logits: Array, targets: Array, *, pos_weight: Array | float | None, **options: Any
) -> Any:
    """Binary cross-entropy: w t softplus(-x) + (1-t) softplus(x)."""
    return _binary_loss(
        ops, logits, targets, pos_weight=pos_weight, gamma=None, alpha=None, **options
    )


def sigmoid_focal_loss(ops: Any, logits: Array, targets: Array, **options: Any) -> Any:
    """Focal loss on sigmoids (Lin et al. 2017, arXiv:1708.02002)."""
    return _binary_loss(ops, logits, targets, pos_weight=None, **options)


def _binary_loss(
    ops: Any,
    logits: Array,
    targets: Array,
    *,
    pos_weight: Any,
    gamma: Any,
    alpha: Any,
    sample_weight: Array | None,
    label_smoothing: Any,
    reduction: str,
    normalizer: Any,
    dtype: DType,
    gradient: bool = False,
) -> Any:
    """Return α_t (1-p_t)^γ BCE, or with `gradient` also a function as of `cross_entropy`."""
    given_dtype = logits.dtype
    result_dtype = given_dtype if dtype is None else dtype
    logits = as_wide_as(ops, logits, dtype)
    gamma, alpha, label_smoothing, normalizer = (
        _number(ops, value, logits) for value in (gamma, alpha, label_smoothing, normalizer)
    )
    x = ops.compute(logits)
    t = given = ops.compute_like(targets, logits)
    rest = 1.0 - t
    if label_smoothing is not None:
        # Each on its own: 1 - t would lose what smoothing puts beside t = 1.
        t, rest = ((1.0 - label_smoothing) * q + 0.5 * label_smoothing for q in (t, rest))
    if ops.is_array(pos_weight):
        pos_weight = ops.compute_like(pos_weight, logits)
    skip = None
    if sample_weight is not None:
        sample_weight = ops.compute_like(sample_weight, logits)
        skip = sample_weight == 0
        x = ops.where(skip, 0.0, x)
    positive = _times(t, pos_weight)
    loss = _product(ops, positive, ops.softplus(-x)) + _product(ops, rest, ops.softplus(x))
    factor = None
    if gamma is not None:
        # 1 - p_t as a sum of two positive terms: nothing cancels in saturated entries.
        # Constant at infinities, lest its derivative 0 meet an infinite loss.
        finite = ops.where(abs(x) == float("inf"), ops.stop_gradient(x), x)
        miss = ops.sigmoid(finite) * rest + ops.sigmoid(-finite) * t
        certain = miss == 0  # as in `_modulator`
        miss = ops.where(certain, 1.0, miss)
        factor = ops.where(certain, 0.0, miss**gamma)
    if alpha is not None:
        factor = _times(alpha * t + (1.0 - alpha) * rest, factor)
    weighted = loss
    if factor is not None:
        # The factor is constant beside an infinite loss: in forward mode too, 0 x inf is NaN.
        infinite = loss == float("inf")
        weighted = ops.where(
            infinite,
            _product(ops, ops.stop_gradient(factor), loss),
            factor * ops.where(infinite, 0.0, loss),
        )
    mass = None
    if _by_weight(normalizer):
        mass = (
            _times(given, pos_weight) + (1.0 - given)
            if alpha is None
            else alpha * given + (1.0 - alpha) * (1.0 - given)
        )
    value, cotangent = _reduced(
        ops,
        weighted,
        reduction,
        normalizer,
        mass,
        sample_weight,
        skip,
        None,
    )
    value = ops.astype(value, result_dtype)
    if not gradient:
        return value

    # Without a gamma `loss` may be the value itself, and is not kept: on torch what `pull` holds is
    # held by the value's autograd node, and the value would wait in a cycle for the collector.
    penalized = None if gamma is None else loss

    def pull(logits: Array, of_value: Any) -> Array:
        x = ops.compute(as_wide_as(ops, logits, dtype))
        if skip is not None:
            x = ops.where(skip, 0.0, x)
        derivative = _times(rest * ops.sigmoid(x) - positive * ops.sigmoid(-x), factor)
        if gamma is not None:
            by_x = gamma * ops.sigmoid(x) * ops.sigmoid(-x) * (rest - t) / miss
            derivative = derivative + _product(ops, factor * by_x, penalized)
        derivative = derivative * (cotangent * of_value)
        if skip is not None:
            derivative = ops.where(skip, 0.0, derivative)
        return ops.astype(derivative, given_dtype)

    return value, pull


# --- labels ---------------------------------------------------------------------------------------
def smooth_labels(
    ops: Any, targets: Array, smoothing: Any, axis: int, where: Array | None
) -> Array:
    """y(1-α) + α/K over the classes that take part (Szegedy et al. 2016, arXiv:1512.00567)."""
    if no_classes(ops, targets, axis):
        return targets
    y = ops.compute(targets)
    smoothing = 0.0 if smoothing is None else _number(ops, smoothing, targets)
    y = (1.0 - smoothing) * y + smoothing * _uniform(ops, y, axis, where)
    return ops.astype(y, targets.dtype)


# --- rows to the result ---------------------------------------------------------------------------
def _reduced(
    ops: Any,
    loss: Array,
    reduction: str,
    normalizer: Any,
    mass: Array | float | None,
    sample_weight: Array | None,
    skip: Array | None,
    ignored: Array | None,
) -> tuple[Array, Array | float]:
    """Weight and reduce the rows; also the derivative of the result by each row's loss."""
    cotangent: Any = 1.0
    if skip is not None:
        loss = ops.where(skip, 0.0, loss)
    if sample_weight is not None:
        cotangent = sample_weight if skip is None else ops.where(skip, 0.0, sample_weight)
        loss = loss * cotangent
    if reduction == "none":
        return loss, cotangent
    total = ops.sum(loss, None)
    if reduction == "sum":
        return total, cotangent
    if not isinstance(normalizer, str):
        if ops.is_array(normalizer):  # the count of a step that kept nothing may be 0
            normalizer = ops.where((normalizer == 0) & (total == 0), 1.0, normalizer)
        return total / normalizer, cotangent / normalizer
    if normalizer == "batch":
        count = ops.length(loss, 0, loss) if loss.ndim else 1.0
    elif ignored is None and (normalizer == "count" or (mass is None and sample_weight is None)):
        count = ops.size(loss)
    else:
        each = ops.ones_like(loss)
        if normalizer == "weight":
            each = _times(_times(each, mass), sample_weight)
        count = ops.sum(each if ignored is None else ops.where(ignored, 0.0, each), None)
    # Nothing kept, or nothing that weighs: 0, and zeros in the derivative.
    if not ops.is_array(count):
        count = max(count, 1.0)
        return total / count, cotangent / count
    nothing = count == 0
    count = ops.where(nothing, 1.0, count)
    return ops.where(nothing, 0.0, total) / count, cotangent * ops.where(nothing, 0.0, 1.0 / count)


def _number(ops: Any, value: Any, logits: Array) -> Any:
    """Return a number, a name or None as it is, and a 0-d array in the dtype of the arithmetic."""
    return ops.compute_like(value, logits) if ops.is_array(value) else value


def _by_weight(normalizer: Any) -> bool:
    return isinstance(normalizer, str) and normalizer == "weight"  # an array compares as an array


def _times(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else a * b


def _product(ops: Any, weight: Array | float | None, value: Array) -> Array:
    """Return weight · value where 0 x inf is 0, as in 0 log 0."""
    if weight is None or (not ops.is_array(weight) and weight != 0):
        return _times(value, weight)
    if not ops.is_array(weight):
        return weight * ops.where(abs(value) == float("inf"), 0.0, value)
    return weight * ops.where((weight == 0) & (abs(value) == float("inf")), 0.0, value)
