"""The loss family, written once, over `Rows` and the array functions of a backend.

The loss of a row of logits depends on log p_y, Σ w log p and logsumexp, which a kernel computes in
one pass (`softmaxkit._statistics`). The rest is arithmetic on rows; this module has it together
with its explicit derivative: `Saved` holds the derivatives of the value by each row's statistics,
and a kernel carries them back to the logits. A library with autodiff can also differentiate this
arithmetic itself.

`ops` are the array functions of a backend, `kernels` its functions over N x C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from softmaxkit._activations import as_wide_as, masked_and_scaled
from softmaxkit._axes import along, expand, no_classes
from softmaxkit._statistics import Request, Rows
from softmaxkit.backends import BinaryOptions

if TYPE_CHECKING:
    from softmaxkit.backends import (
        Array,
        ArrayFunctions,
        ClassOptions,
        GradientKernels,
        Kernels,
    )

_INF, _NAN = float("inf"), float("nan")


class Saved(NamedTuple):
    """Saved for the gradient of a loss over classes, beside the logits and the options."""

    kept: Any  # saved by the kernel
    by_rows: Rows  # the derivatives of the value by the rows, and Σ w
    request: Request


class SavedOfEach(NamedTuple):
    """Saved for the gradient of a loss over independent labels."""

    of_each: Array  # by each logit: the derivative of the value or, if not reduced, of its own loss


class _Targets(NamedTuple):
    """What the targets say about each row."""

    labels: Array | None  # all in range
    share: Any  # factor of each -log p_c; None for 0
    weight: Any  # what these classes add to the row's weight in a mean by weight; None for 1
    ignored: Array | None
    wrong: Array | None  # rows whose label is out of range: their loss is NaN


class Classes:
    """What the targets and options need to know about all classes of a row: those of the logits.

    If the logits are only a part of their rows, `softmaxkit._shard` finds it out.
    """

    def __init__(self, ops: ArrayFunctions, axis: int) -> None:
        self._ops, self._axis = ops, axis

    def masked_and_scaled(
        self, logits: Array, where: Array | None, temperature: Any
    ) -> tuple[Array, Array | None, Array | None]:
        """Return the logits, a shift and the empty rows: see `_activations.masked_and_scaled`."""
        return masked_and_scaled(self._ops, logits, self._axis, where, temperature)

    def of_logits(self, of_x: Array, where: Array | None, temperature: Any) -> Array:
        """Return the cotangent of the logits, given that of what `masked_and_scaled` returns."""
        of_x = of_x if temperature is None else of_x / temperature
        return of_x if where is None else self._ops.where(where, of_x, 0.0)

    def number(self, x: Array, like: Array) -> Any:
        """Return the number of classes, in the dtype of `like` if it is an array."""
        return self._ops.length(x, self._axis, like)

    def taking_part(self, part: Array) -> Array:
        """Return how many classes of each row take part, given the mask in the logits' shape."""
        return self._ops.sum(part, self._axis)

    def for_each(self, value: Any) -> Any:
        """Return a number or array of the whole row, for use with each class."""
        return value

    def weight_at(self, labels: Array, weight: Array) -> Array:
        """Return the class weights of labels."""
        ops = self._ops
        return ops.take(weight, labels)

    def weight_over(self, weighted: Array) -> Array:
        """Return Σ w q over these classes, given w q."""
        return self._ops.sum(weighted, self._axis)

    def dot_with_empty(self, dot: Array, share: Array, empty: Array) -> Array:
        """Return Σ w log p with log p = -inf in rows without a class; 0 log 0 = 0."""
        ops = self._ops
        return ops.where(empty & ops.any(~ops.equal(share, 0), self._axis), -_INF, dot)

    def weight_of_rows(self, weight: Any) -> Any:
        """Return the weight of each row, given what these classes add to it."""
        return weight


def loss(
    ops: ArrayFunctions,
    kernels: Kernels,
    logits: Array,
    targets: Array,
    options: ClassOptions | BinaryOptions,
    *,
    save: bool = False,
    keep: bool = False,
) -> tuple[Array, Any]:
    """Return the loss described by the options and, with `save`, what its gradient needs.

    With `keep` as well, the kernel may save an array of the size of the logits, which the gradient
    overwrites: it can then be computed only once.
    """
    if isinstance(options, BinaryOptions):
        return over_labels(ops, logits, targets, options, save=save)
    return over_classes(ops, kernels, logits, targets, options, save=save, keep=keep)


def gradient(
    ops: ArrayFunctions,
    kernels: GradientKernels,
    logits: Array,
    options: ClassOptions | BinaryOptions,
    saved: Any,
    of_value: Any,
) -> Array:
    """Return the cotangent of the logits, given that of the value."""
    if isinstance(options, BinaryOptions):
        return ops.astype(saved.of_each * of_value, logits.dtype)
    return gradient_over_classes(ops, kernels, logits, options, saved, of_value)


# --- losses over classes --------------------------------------------------------------------------
def over_classes(
    ops: ArrayFunctions,
    kernels: Kernels,
    logits: Array,
    targets: Array,
    options: ClassOptions,
    *,
    save: bool = False,
    keep: bool = False,
    classes: Classes | None = None,
) -> tuple[Array, Saved | None]:
    """Return focal loss (`gamma`), poly loss (`epsilon`) or, without both, cross-entropy."""
    result_dtype = logits.dtype if options.dtype is None else options.dtype
    logits = as_wide_as(ops, logits, options.dtype)
    options = in_dtype_of(ops, options, logits)
    each = of_each_row(
        *(ops, kernels, logits, targets, options), save=save, keep=keep, classes=classes
    )
    value, of_row = reduced(ops, each.loss, options.reduction, options.normalizer, each.counted)
    value = ops.astype(value, result_dtype)
    return value, None if each.saved is None else times_rows(each.saved, of_row)


class OfEachRow(NamedTuple):
    """The losses of rows over classes before they are weighted and reduced."""

    loss: Array
    counted: Counted
    saved: Saved | None  # for the sum of `loss`


def of_each_row(
    ops: ArrayFunctions,
    kernels: Kernels,
    logits: Array,
    targets: Array,
    options: ClassOptions,
    *,
    save: bool = False,
    keep: bool = False,
    classes: Classes | None = None,
) -> OfEachRow:
    """Return the losses of all rows, given logits as wide as the result and options `in_dtype_of`.

    The loss of a row is own · penalty(log p_y) + Σ_c share_c · penalty(log p_c) + λ lse². For
    class indices, own = (1-ε) w_y and share_c = w_c ε/K; for probabilities, own = 0 and
    share_c = w_c ((1-ε) q_c + ε/K).
    """
    axis = options.axis
    classes = Classes(ops, options.axis) if classes is None else classes
    x, shift, empty = classes.masked_and_scaled(logits, options.where, options.temperature)
    rows_have = _targets(ops, targets, logits, x, options, classes)
    sample_weight = _sample_weight(ops, logits, options)
    skip = _skipped(ops, rows_have, sample_weight)
    if empty is not None and skip is not None:
        empty = empty & ~skip

    share = rows_have.share
    # A penalty that is not linear in log p needs log p of every class.
    every = share is not None and not is_linear(options)
    request = Request(axis, rows_have.labels, None if every else share, skip)
    has_lse = options.z_loss is not None
    rows, kept = kernels.row_statistics(x, request, lse=has_lse, keep=keep and not every)
    log_p, dot, mass, lse = rows
    if empty is not None:
        log_p = None if log_p is None else ops.where(empty, -_INF, log_p)
        if dot is not None:
            dot = classes.dot_with_empty(dot, share, empty)
    loss = by_log_p = by_dot = by_lse = None
    weight = _weight_of_rows(ops, rows_have, classes)
    if log_p is not None:
        loss, slope = penalty(ops, log_p, options, save)
        smoothing = options.label_smoothing
        own = weight if smoothing is None else _times(1.0 - smoothing, weight)
        loss = _product(ops, own, loss)
        by_log_p = _times(slope, own)
    if every:
        z = ops.compute(x if skip is None else ops.where(expand(skip, axis), 0.0, x))
        log_p_c = kernels.log_softmax(z, axis, z.dtype)
        if empty is not None:
            log_p_c = ops.where(expand(empty, axis), -_INF, log_p_c)
        penalties, slope = penalty(ops, log_p_c, options, save)
        dot = -ops.sum(_product(ops, share, penalties), axis)
        if save:
            slopes = share * -slope
            request = request._replace(weights=slopes)
            mass = ops.sum(slopes, axis)
    if dot is not None:
        loss = -dot if loss is None else loss - dot
        by_dot = -1.0
    if has_lse:
        lse = lse if shift is None else lse + shift
        lse = lse if empty is None else ops.where(empty, -_INF, lse)
        loss = loss + options.z_loss * lse * lse
        by_lse = 2.0 * options.z_loss * lse
    fault = None
    if rows_have.wrong is not None:
        fault = ops.where(rows_have.wrong, _NAN, ops.ones_like(loss))
        loss = loss * fault

    counted = Counted(weight, sample_weight, skip, rows_have.ignored)
    if not save:
        return OfEachRow(loss, counted, None)
    saved = Saved(kept, Rows(by_log_p, by_dot, mass, by_lse), request)
    return OfEachRow(loss, counted, saved if fault is None else times_rows(saved, fault))


def counted(
    ops: ArrayFunctions,
    targets: Array,
    like: Array,
    options: ClassOptions,
    classes: Classes | None = None,
) -> Counted:
    """Return how rows count in a mean, without their logits; `like` stands for one row of them."""
    options = options._replace(label_smoothing=None)
    classes = Classes(ops, options.axis) if classes is None else classes
    rows_have = _targets(ops, targets, like, like, options, classes)
    sample_weight = _sample_weight(ops, like, options)
    skip = _skipped(ops, rows_have, sample_weight)
    weight = _weight_of_rows(ops, rows_have, classes)
    return Counted(weight, sample_weight, skip, rows_have.ignored)


def times_rows(saved: Saved, factor: Any) -> Saved:
    """Return `saved` for the same rows, each of whose losses is multiplied by a factor."""
    mass = saved.by_rows.mass
    by_rows = Rows(*(one if one is None else one * factor for one in saved.by_rows))
    return saved._replace(by_rows=by_rows._replace(mass=mass))


def gradient_over_classes(
    ops: ArrayFunctions,
    kernels: GradientKernels,
    logits: Array,
    options: ClassOptions,
    saved: Saved,
    of_value: Any,
    *,
    classes: Classes | None = None,
) -> Array:
    classes = Classes(ops, options.axis) if classes is None else classes
    wide = as_wide_as(ops, logits, options.dtype)
    where, temperature = options.where, options.temperature
    x, _, _ = classes.masked_and_scaled(wide, where, temperature)
    of_rows = times_rows(saved, of_value).by_rows
    out = kernels.row_gradient(x, saved.request, saved.kept, of_rows)
    out = classes.of_logits(out, where, _number(ops, temperature, wide))
    return ops.astype(out, logits.dtype)


def _targets(
    ops: ArrayFunctions,
    targets: Array,
    logits: Array,
    x: Array,
    options: ClassOptions,
    classes: Classes,
) -> _Targets:
    weight, smoothing = options.weight, options.label_smoothing
    of_class: Any = weight  # laid along the logits
    if ops.is_array(weight) and weight.ndim:
        of_class = along(weight, len(ops.shape(logits)), options.axis)
    uniform = None
    if smoothing is not None:
        smoothing = classes.for_each(smoothing)
        uniform = smoothing * _uniform(ops, x, options.axis, options.where, classes)
    if ops.kind(targets) == "int":
        labels, ignored, wrong = labels_in_range(ops, targets, x, options, classes)
        if ops.is_array(weight) and weight.ndim:
            weight = classes.weight_at(labels, weight)
        share = None if uniform is None else _times(uniform, of_class)
        return _Targets(labels, share, weight, ignored, wrong)
    # Targets that only the row kernels and `sum` read may stay in half precision, without a copy.
    alone = weight is None and uniform is None and is_linear(options)
    q = (ops.weights_like if alone else ops.compute_like)(targets, logits)
    counts = None
    if _by_weight(options.normalizer):
        counts = classes.weight_over(_times(q, of_class))
    if uniform is not None:
        q = (1.0 - smoothing) * q + uniform
    return _Targets(None, _times(q, of_class), counts, None, None)


def _uniform(
    ops: ArrayFunctions, x: Array, axis: int, where: Array | None, classes: Classes
) -> Array | float:
    """Return 1/K at the K classes of a row that take part, 0 at the others."""
    if where is None:
        return 1.0 / classes.number(x, x)
    shape = ops.shape(x)
    part = where[(None,) * (len(shape) - len(ops.shape(where))) + (...,)]
    if ops.shape(part)[axis] in (1, None):  # None: not known yet
        part = ops.broadcast_like(part, x)
    count = expand(classes.taking_part(ops.compute_like(part, x)), axis)
    return ops.where(part, 1.0 / ops.where(ops.equal(count, 0), 1.0, count), 0.0)


def _weight_of_rows(ops: ArrayFunctions, rows_have: _Targets, classes: Classes) -> Any:
    weight, wrong = classes.weight_of_rows(rows_have.weight), rows_have.wrong
    if wrong is None or not ops.is_array(weight) or not weight.ndim:
        return weight
    return ops.where(wrong, 1.0, weight)


def labels_in_range(
    ops: ArrayFunctions,
    targets: Array,
    x: Array,
    options: ClassOptions,
    classes: Classes | None = None,
) -> tuple[Array, Array | None, Array | None]:
    """Return labels that are all in range, which rows are ignored, and which labels are wrong."""
    labels = ops.as_index(targets)
    ignored = None if options.ignore_index is None else ops.equal(labels, options.ignore_index)
    wrong = None
    if options.unseen is not None:
        classes = Classes(ops, options.axis) if classes is None else classes
        wrong = (labels < 0) | (labels >= classes.number(x, labels))
        wrong = wrong if ignored is None else wrong & ~ignored
    for replaced in (ignored, wrong):
        if replaced is not None:
            labels = ops.where(replaced, 0, labels)
    return labels, ignored, wrong


def _sample_weight(ops: ArrayFunctions, logits: Array, options: ClassOptions) -> Array | None:
    """Return one number for each row, or None."""
    if options.sample_weight is None:
        return None
    sample_weight = ops.compute_like(options.sample_weight, logits)
    missing = len(ops.shape(logits)) - 1 - sample_weight.ndim
    return sample_weight[(None,) * missing + (...,)]


def _skipped(ops: ArrayFunctions, rows_have: _Targets, sample_weight: Array | None) -> Array | None:
    """Return which rows are left out, whatever they contain.

    A row of weight 0 is left out like an ignored row: NaN in it does not leak. Its wrong label
    still makes it NaN, just as such a label raises an error where labels can be read.
    """
    ignored, wrong = rows_have.ignored, rows_have.wrong
    if sample_weight is None:
        return ignored
    nothing = ops.equal(sample_weight, 0)
    nothing = nothing if wrong is None else nothing & ~wrong
    return nothing if ignored is None else ignored | nothing


def is_linear(options: ClassOptions) -> bool:
    """Return True for cross-entropy, whose penalty is linear in log p."""
    return options.gamma is options.epsilon is None


def penalty(
    ops: ArrayFunctions, log_p: Array, options: ClassOptions, with_slope: bool
) -> tuple[Array, Any]:
    """Return the penalty of log p and, with `with_slope`, its derivative by log p.

    Cross-entropy: -log p, and -1. Poly loss (Leng et al. 2022, arXiv:2204.12511): -log p + ε (1-p),
    and -1 - ε p. Focal loss (Lin et al. 2017, arXiv:1708.02002): (1-p)^γ (-log p), and
    (1-p)^γ (γ p log p / (1-p) - 1). All are finite at p = 1, and so is the derivative of the
    penalty that a library's autodiff computes.
    """
    gamma, epsilon = options.gamma, options.epsilon
    if epsilon is not None:
        slope = -1.0 - epsilon * ops.exp(log_p) if with_slope else None
        return -log_p - epsilon * ops.expm1(log_p), slope
    if gamma is None:
        return -log_p, -1.0
    certain = ops.equal(log_p, 0)  # p = 1: the power's own derivative would be inf x 0
    far = log_p < -100  # 1 - p = 1 to the last bit; p log p would be 0 x -inf
    safe = ops.where(certain | far, -1.0, log_p)
    miss = -ops.expm1(safe)
    modulator = miss**gamma
    value = ops.where(certain, 0.0, ops.where(far, -log_p, -safe * modulator))
    if not with_slope:
        return value, None
    slope = modulator * (gamma * safe * ops.exp(safe) / miss - 1.0)
    return value, ops.where(certain, 0.0, ops.where(far, -1.0, slope))


# --- losses over independent labels ---------------------------------------------------------------
def over_labels(
    ops: ArrayFunctions, logits: Array, targets: Array, options: BinaryOptions, *, save: bool
) -> tuple[Array, SavedOfEach | None]:
    """Return α_t (1-p_t)^γ BCE; see `loss`.

    BCE is w t softplus(-x) + (1-t) softplus(x); sigmoid focal loss: Lin et al. 2017.
    """
    result_dtype = logits.dtype if options.dtype is None else options.dtype
    logits = as_wide_as(ops, logits, options.dtype)
    options = in_dtype_of(ops, options, logits)
    smoothing, alpha, gamma = options.label_smoothing, options.alpha, options.gamma
    x = ops.compute(logits)
    t = given = ops.compute_like(targets, logits)
    rest = 1.0 - t
    if smoothing is not None:
        # Smooth t and 1 - t separately: 1 - t would lose what smoothing adds beside t = 1.
        t, rest = ((1.0 - smoothing) * q + 0.5 * smoothing for q in (t, rest))
    sample_weight, skip = options.sample_weight, None
    if sample_weight is not None:
        sample_weight = ops.compute_like(sample_weight, logits)
        skip = ops.equal(sample_weight, 0)
        x = ops.where(skip, 0.0, x)
    positive = _times(t, options.pos_weight)
    loss = _product(ops, positive, ops.softplus(-x)) + _product(ops, rest, ops.softplus(x))
    factor = None
    if gamma is not None:
        # 1 - p_t as a sum of two positive terms: nothing cancels in saturated entries. It is a
        # constant at infinities, so that its derivative 0 is not multiplied by an infinite loss.
        finite = ops.where(ops.equal(abs(x), _INF), ops.stop_gradient(x), x)
        miss = ops.sigmoid(finite) * rest + ops.sigmoid(-finite) * t
        certain = ops.equal(miss, 0)  # as in `penalty`
        miss = ops.where(certain, 1.0, miss)
        factor = ops.where(certain, 0.0, miss**gamma)
    if alpha is not None:
        factor = _times(alpha * t + (1.0 - alpha) * rest, factor)
    weighted = loss
    if factor is not None:
        # The factor of an infinite loss is a constant: 0 x inf would be NaN, in forward mode too.
        infinite = ops.equal(loss, _INF)
        weighted = ops.where(
            infinite,
            _product(ops, ops.stop_gradient(factor), loss),
            factor * ops.where(infinite, 0.0, loss),
        )
    weight = None
    if _by_weight(options.normalizer):
        weight = (
            _times(given, options.pos_weight) + (1.0 - given)
            if alpha is None
            else alpha * given + (1.0 - alpha) * (1.0 - given)
        )
    counted = Counted(weight, sample_weight, skip, None)
    value, of_each = reduced(ops, weighted, options.reduction, options.normalizer, counted)
    value = ops.astype(value, result_dtype)
    if not save:
        return value, None
    derivative = _times(rest * ops.sigmoid(x) - positive * ops.sigmoid(-x), factor)
    if gamma is not None:
        by_x = gamma * ops.sigmoid(x) * ops.sigmoid(-x) * (rest - t) / miss
        derivative = derivative + _product(ops, factor * by_x, loss)
    derivative = derivative * of_each
    if skip is not None:
        derivative = ops.where(skip, 0.0, derivative)
    return value, SavedOfEach(derivative)


# --- labels ---------------------------------------------------------------------------------------
def smooth_labels(
    ops: ArrayFunctions, targets: Array, smoothing: Any, axis: int, where: Array | None
) -> Array:
    """y(1-α) + α/K over the classes that take part (Szegedy et al. 2016, arXiv:1512.00567)."""
    if no_classes(ops, targets, axis):
        return targets
    y = ops.compute(targets)
    smoothing = 0.0 if smoothing is None else _number(ops, smoothing, targets)
    classes = Classes(ops, axis)
    y = (1.0 - smoothing) * y + smoothing * _uniform(ops, y, axis, where, classes)
    return ops.astype(y, targets.dtype)


# --- rows to the result ---------------------------------------------------------------------------
class Counted(NamedTuple):
    """How each row, or element, counts in a mean, and which do not count."""

    weight: Any  # None for 1
    sample_weight: Array | None
    skip: Array | None
    ignored: Array | None


def reduced(
    ops: ArrayFunctions, loss: Array, reduction: str, normalizer: Any, counted: Counted
) -> tuple[Array, Array | float]:
    """Weight and reduce the rows; also return the derivative of the result by each row's loss."""
    loss, of_row = weighted(ops, loss, counted)
    if reduction == "none":
        return loss, of_row
    value, of_sum = summed(ops, loss, reduction, normalizer, counted)
    return value, _times(of_row, of_sum)


def weighted(ops: ArrayFunctions, loss: Array, counted: Counted) -> tuple[Array, Array | float]:
    """Weight the rows; also return the derivative of each weighted loss by the loss."""
    sample_weight, skip = counted.sample_weight, counted.skip
    of_row: Any = 1.0
    if skip is not None:
        loss = ops.where(skip, 0.0, loss)
    if sample_weight is not None:
        of_row = sample_weight if skip is None else ops.where(skip, 0.0, sample_weight)
        loss = loss * of_row
    return loss, of_row


def summed(
    ops: ArrayFunctions, loss: Array, reduction: str, normalizer: Any, counted: Counted
) -> tuple[Array, Any]:
    """Return the sum or mean of weighted rows; also its derivative by the sum, None for 1."""
    weight, sample_weight, _, ignored = counted
    if reduction == "sum":
        return ops.sum(loss, None), None
    if not isinstance(normalizer, str):
        total = ops.sum(loss, None)
        if ops.is_array(normalizer):  # the count may be 0 in a step that kept no rows
            normalizer = ops.where(ops.equal(normalizer, 0) & ops.equal(total, 0), 1.0, normalizer)
        return total / normalizer, 1.0 / normalizer
    if normalizer == "batch":
        count = ops.length(loss, 0, loss) if loss.ndim else 1.0
    elif ignored is None and (normalizer == "count" or (weight is None and sample_weight is None)):
        count = ops.size(loss)
        if not ops.is_array(count):
            return ops.mean(loss), 1.0 / max(count, 1.0)
    else:
        each = ops.ones_like(loss)
        if normalizer == "weight":
            each = _times(_times(each, weight), sample_weight)
        count = ops.sum(each if ignored is None else ops.where(ignored, 0.0, each), None)
    total = ops.sum(loss, None)
    # If no row is kept, or all weights are 0, the mean is 0, and so is its derivative.
    if not ops.is_array(count):
        count = max(count, 1.0)
        return total / count, 1.0 / count
    nothing = ops.equal(count, 0)
    count = ops.where(nothing, 1.0, count)
    return ops.where(nothing, 0.0, total) / count, ops.where(nothing, 0.0, 1.0 / count)


def in_dtype_of(ops: ArrayFunctions, options: Any, logits: Array) -> Any:
    """Return options whose numbers and weights, if they are arrays, have the arithmetic's dtype."""
    arrays = {
        name: ops.compute_like(getattr(options, name), logits)
        for name in _NUMBERS
        if ops.is_array(getattr(options, name, None))
    }
    return options._replace(**arrays) if arrays else options


_NUMBERS = (
    *("weight", "pos_weight", "gamma", "epsilon", "alpha", "label_smoothing", "z_loss"),
    "normalizer",
)


def _number(ops: ArrayFunctions, value: Any, logits: Array) -> Any:
    return ops.compute_like(value, logits) if ops.is_array(value) else value


def _by_weight(normalizer: Any) -> bool:
    return isinstance(normalizer, str) and normalizer == "weight"  # an array's == gives an array


def _times(a: Any, b: Any) -> Any:
    return a if b is None else b if a is None else a * b


def _product(ops: ArrayFunctions, weight: Array | float | None, value: Array) -> Array:
    """Return weight · value where 0 x inf is 0, as in 0 log 0."""
    if weight is None or (not ops.is_array(weight) and weight != 0):
        return _times(value, weight)
    if not ops.is_array(weight):
        return weight * ops.where(ops.equal(abs(value), _INF), 0.0, value)
    return weight * ops.where(ops.equal(weight, 0) & ops.equal(abs(value), _INF), 0.0, value)
