"""What a row of logits reduces to, and how parts of a row are merged: read this page first.

A block in a cache, a block of a vocabulary, a shard, a chunk of Dask and a tile of a GPU kernel
are all the same: some of the classes of each row. Each reduces to a `Part`; parts `merge` in any
order and number; and `finish` turns a whole row into the `Rows` that the loss family
(`softmaxkit._losses`) sees. The loss family never sees N x C.

For logits z, a temperature T, the label y and class weights w:

    d     = (z - max z) / T                     dividing first would round large logits alike
    rest  = Σ e^d - 1                           summed without one maximum, so that nothing cancels
    log p = d - log(1 + rest)
    lse   = max z / T + log(1 + rest)           = logsumexp(z / T)
    H     = log(1 + rest) - Σ p d               = -Σ p log p, the entropy
    1 - p = -(e^(log p) - 1), and rest / (1 + rest) at the maximum

and the derivatives, which `gradient` sums, each times the cotangent of its statistic:

    ∂ log p_y / ∂z = (1_y - p) / T      ∂ Σ w log p / ∂z = (w - p Σ w) / T      ∂ lse / ∂z = p / T
    ∂ H / ∂z = -p (d - Σ p d) / T

Neither difference is computed by subtraction where it would cancel: 1 - p_y is
-(e^(log p_y) - 1), and at a class k with p_k > 1/2, w_k - p_k Σ w is computed from `rest` and from
`beside`, which is Σ w without class k.

`ops` are the array functions of a backend. Rows have the shape of the logits without the class
axis. Nothing here is differentiated by a library: for those with autodiff, the backends define the
derivative of the step from the logits to `Rows`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, NamedTuple

from softmaxkit._axes import expand, no_classes

if TYPE_CHECKING:
    from softmaxkit.backends import Array, ArrayFunctions

_INF, _NAN = float("inf"), float("nan")
_NO_PLACE = -(2**31 - 1)


class Part(NamedTuple):
    """What some classes of each row reduce to.

    A part without classes, or whose logits are all -inf, has a `top` of -inf and a `rest` of -1,
    and its `dot` is 0 where its `mass` is 0, else -inf. A field that was not requested is None.
    """

    top: Array  # max z
    rest: Array  # Σ e^d - 1
    label: Array | None = None  # z_y if the part contains the label, else 0
    dot: Array | None = None  # Σ w d
    mass: Array | None = None  # Σ w
    beside: Array | None = None  # Σ w without the class of the maximum; meaningless if two tie
    moment: Array | None = None  # Σ e^d d
    place: Any = None  # index of the maximum, the first if several tie; None without classes


class Rows(NamedTuple):
    """What whole rows reduce to; `gradient` takes cotangents in the same form, without a mass."""

    log_p: Array | None  # of the label
    dot: Array | None  # Σ w log p
    mass: Array | None  # Σ w
    lse: Array | None


class Request(NamedTuple):
    """What a kernel has to compute for whole rows."""

    axis: int
    labels: Array | None = None  # in range
    weights: Any = None  # a number, or an array that broadcasts to the logits; 0 x -inf is 0
    skip: Array | None = None  # rows whose statistics and gradient are 0, whatever they contain


def part(
    ops: ArrayFunctions,
    z: Array,
    axis: int,
    labels: Array | None = None,
    weights: Array | None = None,
    temperature: Any = None,
    *,
    first_class: int | None = None,
    top: Array | None = None,
) -> Part:
    """Reduce some classes of each row.

    Parameters
    ----------
    ops : module of softmaxkit.backends
    z : floating array
        Logits of these classes; -inf for a class that does not take part.
    axis : int, from the front
    labels : integers of the rows' shape, optional
        The index of the label among these classes; if it is not among them, any number below 0 or
        not below the number of these classes.
    weights : array of the shape of `z`, optional
    temperature : number, or array of the rows' shape, optional
    first_class : int, optional
        The index of the first of these classes among all; if given, `moment` and `place` are
        computed.
    top : array of the rows' shape, optional
        The maxima, if they are known already.
    """
    if no_classes(ops, z, axis):
        none = ops.sum(z, axis)
        label = None if labels is None else none
        sums = None if weights is None else none
        moment = None if first_class is None else none
        return Part(none - _INF, none - 1.0, label, sums, sums, sums, moment)
    top, place = ops.amax(z, axis) if top is None else top, ops.argmax(z, axis)
    first = ops.at_class(place, z, axis)
    d = _over(centred(ops, z, top, axis), _along_rows(ops, temperature, axis))
    d = ops.where(expand(top == -_INF, axis), -_INF, d)
    e = ops.exp(d)
    rest = ops.sum(ops.where(first, e - 1.0, e), axis)
    label = dot = mass = beside = None
    if labels is not None:
        here = (labels >= 0) & (labels < ops.length(z, axis, labels))
        label = ops.where(here, ops.pick(z, ops.where(here, labels, 0), axis), 0.0)
    if weights is not None:
        dot = ops.sum(weights * ops.where(weights == 0, 0.0, d), axis)  # 0 log 0 = 0
        beside = ops.sum(ops.where(first, 0.0, weights), axis)
        mass = beside + ops.pick(weights, place, axis)
    moment = None
    if first_class is not None:
        moment, place = ops.sum(_times(ops, e, d), axis), place + first_class
    return Part(top, rest, label, dot, mass, beside, moment, None if first_class is None else place)


def merge(ops: ArrayFunctions, parts: Sequence[Part], temperature: Any = None) -> Part:
    """Merge parts of the same rows, whatever their classes and their order.

    For parts held by several processes, this takes two all-reduces: the maximum of the tops, then
    the sum of the terms (`softmaxkit._shard`).
    """
    top = reduce(ops.maximum, [one.top for one in parts])
    columns = zip(*(terms(ops, one, top, temperature) for one in parts), strict=True)
    whole = of_terms(top, [None if one[0] is None else reduce(add, one) for one in columns])
    placed = [one for one in parts if one.place is not None]
    if not placed:
        return whole
    before = [ops.where(one.top == top, -one.place, _NO_PLACE) for one in placed]
    return whole._replace(place=-reduce(ops.maximum, before))


def terms(
    ops: ArrayFunctions, part: Part, top: Array, temperature: Any
) -> tuple[Array | None, ...]:
    """Return what a part adds to the sums over all parts, given the maximum of all."""
    holds = part.top == top
    gap = _over(ops.where(holds, 0.0, part.top) - ops.where(holds, 0.0, top), temperature)
    scale = ops.where(part.top == -_INF, 0.0, ops.exp(gap))
    rest = ops.where(holds, part.rest, (part.rest + 1.0) * scale)
    dot = beside = None
    if part.mass is not None:
        dot = part.dot + part.mass * ops.where(part.mass == 0, 0.0, gap)
        beside = ops.where(holds, part.beside, part.mass)
    moment = part.moment
    if moment is not None:
        moment = scale * moment + (part.rest + 1.0) * _times(ops, scale, gap)
    return ops.astype(holds, top.dtype), rest, part.label, dot, part.mass, beside, moment


def of_terms(top: Array, sums: Sequence[Array | None]) -> Part:
    """Return the whole, given the maximum of all parts and the sums of their terms."""
    holders, rest, *others = sums
    assert holders is not None
    # The brackets come first because rest may be tiny; each of the other maxima adds e^d = 1.
    return Part(top, rest + (holders - 1.0), *others)


def finish(ops: ArrayFunctions, whole: Part, temperature: Any = None) -> Rows:
    """Return what the loss family sees of rows whose classes are all present."""
    top = ops.where(abs(whole.top) == _INF, _NAN, whole.top)
    beyond = log_sum(ops, whole)
    log_p = dot = None
    if whole.label is not None:
        log_p = _over(whole.label - top, temperature) - beyond
    if whole.mass is not None:
        dot = whole.dot - whole.mass * ops.where(whole.mass == 0, 0.0, beyond)
    return Rows(log_p, dot, whole.mass, _over(top, temperature) + beyond)


def log_sum(ops: ArrayFunctions, whole: Part) -> Array:
    """Return log Σ e^d; NaN where the maximum is infinite, and p is undefined."""
    return ops.log1p(rest_of(ops, whole))


def entropy(ops: ArrayFunctions, whole: Part) -> Array:
    """Return -Σ p log p of rows whose parts have a `moment`."""
    return log_sum(ops, whole) - _mean(ops, whole)


def entropy_gradient(
    ops: ArrayFunctions, z: Array, axis: int, whole: Part, cotangent: Array, temperature: Any
) -> Array:
    """Return what the entropies add to the cotangent of the logits of some classes."""
    temperature = _along_rows(ops, temperature, axis)
    d = _over(centred(ops, z, whole.top, axis), temperature)
    of_p = expand(-cotangent / (1.0 + rest_of(ops, whole)), axis)
    e = ops.exp(d)
    return _over(of_p * _times(ops, e, d - expand(_mean(ops, whole), axis)), temperature)


def _mean(ops: ArrayFunctions, whole: Part) -> Array:
    """Return Σ p d."""
    return whole.moment / (1.0 + rest_of(ops, whole))


def _times(ops: ArrayFunctions, e: Array, d: Array) -> Array:
    return e * ops.where(e == 0, 0.0, d)  # 0 log 0 = 0


class Factors(NamedTuple):
    """What a row contributes to the cotangent of each of its logits, before the division by T."""

    of_e: Array | None  # factor of e^d
    added: Array | None  # if the weights are one number
    # These two replace both at the label.
    of_e_at_label: Array | None
    at_label: Array | None
    # An array of weights adds of_w · w - less_of_e · e^d to that; at a class with p > 1/2, whose
    # logit is `dominating` (NaN if there is none), it adds of_w_there · w - less_there.
    of_w: Any = None
    less_of_e: Array | None = None
    of_w_there: Array | None = None
    less_there: Array | None = None
    dominating: Array | None = None


def factors(
    ops: ArrayFunctions, whole: Part, cotangents: Rows, log_p: Array | None, weights: Any
) -> Factors:
    """Return what rows contribute to the cotangents of their logits; arguments of `gradient`."""
    by_log_p: Any
    by_dot: Any
    of_p: Any
    by_log_p, by_dot, _, of_p = cotangents
    rest = rest_of(ops, whole)
    total = 1.0 + rest
    added = of_label = at_label = None
    varies = ops.is_array(weights) and weights.ndim
    if weights is not None and not varies:
        of_mass = by_dot * whole.mass
        of_p, added = -of_mass if of_p is None else of_p - of_mass, by_dot * weights
    if log_p is not None:
        of_label = of_p
        at_label = -by_log_p * ops.expm1(log_p)  # 1 - p without cancellation
        at_label = at_label if added is None else at_label + added
        of_p = -by_log_p if of_p is None else of_p - by_log_p
    of_e, of_e_at_label = [one if one is None else one / total for one in (of_p, of_label)]
    found = Factors(of_e, added, of_e_at_label, at_label)
    if not varies:
        return found
    return found._replace(
        of_w=by_dot,
        less_of_e=by_dot * (whole.mass / total),
        of_w_there=by_dot * (rest / total),
        less_there=by_dot * (whole.beside / total),
        dominating=ops.where(rest < 1, whole.top, _NAN),
    )


def gradient(
    ops: ArrayFunctions,
    z: Array,
    axis: int,
    whole: Part,
    cotangents: Rows,
    *,
    labels: Array | None = None,
    log_p: Array | None = None,
    weights: Any = None,
    temperature: Any = None,
) -> Array:
    """Return the cotangent of the logits of some classes, given what the whole rows reduce to.

    `z`, `labels`, `weights` and `temperature` are those of `part`, `log_p` that of `finish`.
    Weights may also be one number for all classes, with which nothing cancels.
    """
    of_rows = factors(ops, whole, cotangents, log_p, weights)
    d = _over(centred(ops, z, whole.top, axis), _along_rows(ops, temperature, axis))
    out = spread(ops, z, d, axis, of_rows, labels=labels, weights=weights)
    return _over(out, _along_rows(ops, temperature, axis))


def spread(
    ops: ArrayFunctions,
    z: Array,
    d: Array,
    axis: int,
    of_rows: Factors,
    *,
    labels: Array | None = None,
    weights: Any = None,
    again: bool = False,
) -> Array:
    """Return the cotangent of each logit, times T, given what its row contributes.

    With `again`, a library can differentiate it by `z`, `d`, the weights and what the rows have.
    """
    of_rows = Factors(*(_along_rows(ops, one, axis) for one in of_rows))
    e, out = ops.exp(d), None
    if of_rows.of_e is not None:
        out = of_rows.of_e * e
        out = out if of_rows.added is None else out + of_rows.added
        if labels is not None:
            at_label = of_rows.at_label
            if of_rows.of_e_at_label is not None:
                at_label = at_label + of_rows.of_e_at_label * e
            out = ops.where(ops.at_class(labels, z, axis), at_label, out)
    if of_rows.dominating is not None:
        there = of_rows.of_w_there * weights - of_rows.less_there
        if again:  # e is 1 there, but its derivative is not 0
            of_e = of_rows.less_there + (of_rows.of_w - of_rows.of_w_there) * weights
            there = there - (e - 1.0) * of_e
        of_weights = ops.where(
            z == of_rows.dominating,
            there,
            of_rows.of_w * weights - of_rows.less_of_e * e,
        )
        out = of_weights if out is None else out + of_weights
    return out


def centred(ops: ArrayFunctions, z: Array, top: Array, axis: int) -> Array:
    """Return z - max z; NaN where max z is infinite, like inf - inf, but without a warning."""
    return z - expand(ops.where(abs(top) == _INF, _NAN, top), axis)


def _over(value: Any, temperature: Any) -> Any:
    # None, not 1.0: dividing by 1.0 would take a pass over the logits, and 1.0 would be one more
    # number for Dynamo to trace.
    return value if temperature is None else value / temperature


def rest_of(ops: ArrayFunctions, whole: Part) -> Array:
    """Return Σ e^d - 1; NaN where the maximum is infinite."""
    return ops.where(abs(whole.top) == _INF, _NAN, whole.rest)  # log1p(-1) would warn


def _along_rows(ops: ArrayFunctions, value: Any, axis: int) -> Any:
    """Insert the class axis into values of the rows' shape; leave numbers unchanged."""
    is_number = value is None or not ops.is_array(value) or value.ndim == 0
    return value if is_number else expand(value, axis)
