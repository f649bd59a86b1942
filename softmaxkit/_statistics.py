"""What a row of logits comes down to, and how parts of it are put together: read this page first.

A block in a cache, a block of a vocabulary, a shard, a chunk of Dask and a tile of a GPU kernel
are all the same: some of the classes of each row. What they give is a `Part`; parts `merge`, in
any order and number; and `finish` makes of a whole row the `Rows` that the loss family
(`softmaxkit._losses`) sees. It never sees N x C.

Of logits z, a temperature T, the label y and weights w of the classes:

    d     = (z - max z) / T                     dividing first would round large logits alike
    rest  = Σ e^d - 1                           formed without one maximum, so that nothing cancels
    log p = d - log(1 + rest)
    lse   = max z / T + log(1 + rest)           = logsumexp(z / T)
    1 - p = rest / (1 + rest) at the maximum, -(e^(log p) - 1) anywhere

and the derivatives, of which `gradient` is the sum, each times the cotangent of what it derives:

    ∂ log p_y / ∂z = (1_y - p) / T      ∂ Σ w log p / ∂z = (w - p Σ w) / T      ∂ lse / ∂z = p / T

At a class k with p_k > 1/2, both 1 - p_k and w_k - p_k Σ w would cancel. There they are formed from
`rest`, and from `beside`, which is Σ w without class k.

`ops` are the array functions of a backend. Rows have the shape of the logits without the class
axis. Nothing here is differentiated: where a library has autodiff, a rule of its own carries it
from the logits to `Rows`.
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


class Part(NamedTuple):
    """What some classes of each row give.

    A part without classes, or with none but of -inf, has a `top` of -inf and a `rest` of -1, and
    its `dot` is 0 where its `mass` is, else -inf. What was not asked for is None.
    """

    top: Array  # max z
    rest: Array  # Σ e^d - 1
    label: Array | None = None  # z_y where the part holds the label, else 0
    dot: Array | None = None  # Σ w d
    mass: Array | None = None  # Σ w
    beside: Array | None = None  # Σ w without the class of the maximum; of no use where two tie


class Rows(NamedTuple):
    """What whole rows give; `gradient` takes the cotangents in the same form, without a mass."""

    log_p: Array | None  # of the label
    dot: Array | None  # Σ w log p
    mass: Array | None  # Σ w
    lse: Array | None


class Request(NamedTuple):
    """What is asked of a kernel over whole rows."""

    axis: int
    labels: Array | None = None  # in range
    weights: Any = None  # a number, or an array that broadcasts to the logits; 0 x -inf is 0
    skip: Array | None = None  # rows that give 0, and a gradient of 0, whatever they hold


def part(
    ops: ArrayFunctions,
    z: Array,
    axis: int,
    labels: Array | None = None,
    weights: Array | None = None,
    temperature: Any = None,
) -> Part:
    """Reduce some classes of each row.

    Parameters
    ----------
    ops : module of softmaxkit.backends
    z : floating array
        Logits of these classes; -inf where one does not take part.
    axis : int, from the front
    labels : integers of the rows' shape, optional
        The place of the label among these classes; anything below 0, or from their number on,
        where it is not among them.
    weights : array of the shape of `z`, optional
    temperature : number, or array of the rows' shape, optional
    """
    if no_classes(ops, z, axis):
        none = ops.sum(z, axis)
        label = None if labels is None else none
        return Part(none - _INF, none - 1.0, label, *(3 * [None if weights is None else none]))
    top, place = ops.amax(z, axis), ops.argmax(z, axis)
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
    return Part(top, rest, label, dot, mass, beside)


def merge(ops: ArrayFunctions, parts: Sequence[Part], temperature: Any = None) -> Part:
    """Put parts of the same rows together, of whatever classes and in whatever order.

    For parts held by several processes that takes two all-reduces: the maximum of the tops, then
    the sum of the terms.
    """
    top = reduce(ops.maximum, [one.top for one in parts])
    columns = zip(*(_terms(ops, one, top, temperature) for one in parts), strict=True)
    return _total(top, [None if column[0] is None else reduce(add, column) for column in columns])


def _terms(
    ops: ArrayFunctions, part: Part, top: Array, temperature: Any
) -> tuple[Array | None, ...]:
    """Return what a part adds to the sums over all parts, once the maximum of all is known."""
    holds = part.top == top
    gap = _over(ops.where(holds, 0.0, part.top) - ops.where(holds, 0.0, top), temperature)
    scale = ops.where(part.top == -_INF, 0.0, ops.exp(gap))
    rest = ops.where(holds, part.rest, (part.rest + 1.0) * scale)
    dot = beside = None
    if part.mass is not None:
        dot = part.dot + part.mass * ops.where(part.mass == 0, 0.0, gap)
        beside = ops.where(holds, part.beside, part.mass)
    return ops.astype(holds, top.dtype), rest, part.label, dot, part.mass, beside


def _total(top: Array, sums: Sequence[Array | None]) -> Part:
    holders, rest, *others = sums
    assert holders is not None
    # The bracket first: rest may be next to nothing, and e^d of the other maxima is 1 each.
    return Part(top, rest + (holders - 1.0), *others)


def finish(ops: ArrayFunctions, whole: Part, temperature: Any = None) -> Rows:
    """Return what the loss family sees of rows of which all classes are there."""
    top = ops.where(abs(whole.top) == _INF, _NAN, whole.top)
    beyond = log_sum(ops, whole)
    log_p = dot = None
    if whole.label is not None:
        log_p = _over(whole.label - top, temperature) - beyond
    if whole.mass is not None:
        dot = whole.dot - whole.mass * ops.where(whole.mass == 0, 0.0, beyond)
    return Rows(log_p, dot, whole.mass, _over(top, temperature) + beyond)


def log_sum(ops: ArrayFunctions, whole: Part) -> Array:
    """Return log Σ e^d; NaN where the maximum is infinite, of which there is no p."""
    return ops.log1p(_rest(ops, whole))


def gradient(
    ops: ArrayFunctions,
    z: Array,
    axis: int,
    whole: Part,
    cotangents: Rows,
    *,
    labels: Array | None = None,
    weights: Array | None = None,
    temperature: Any = None,
) -> Array:
    """Return the cotangent of the logits of some classes, given what the whole rows came to.

    `z`, `labels`, `weights` and `temperature` are those of `part`.
    """
    rest, mass, beside, temperature, by_log_p, by_dot, by_lse = [
        _along_rows(ops, value, axis)
        for value in (
            *(_rest(ops, whole), whole.mass, whole.beside, temperature),
            *(cotangents.log_p, cotangents.dot, cotangents.lse),
        )
    ]
    p = ops.exp(_over(centred(ops, z, whole.top, axis), temperature)) / (1.0 + rest)
    dominates = (z == expand(whole.top, axis)) & (rest < 1)
    out = 0.0 if by_lse is None else by_lse * p
    if labels is not None:
        misses = ops.where(dominates, rest / (1.0 + rest), 1.0 - p)
        out = out + by_log_p * ops.where(ops.at_class(labels, z, axis), misses, -p)
    if weights is not None:
        others = ops.where(dominates, (rest * weights - beside) / (1.0 + rest), weights - p * mass)
        out = out + by_dot * others
    return _over(out, temperature)


def centred(ops: ArrayFunctions, z: Array, top: Array, axis: int) -> Array:
    """Return z - max z, NaN where that is infinite: as inf - inf is, but without a warning."""
    return z - expand(ops.where(abs(top) == _INF, _NAN, top), axis)


def _over(value: Any, temperature: Any) -> Any:
    # None and not 1.0, which would be a pass over the logits, and to Dynamo a number of its own.
    return value if temperature is None else value / temperature


def _rest(ops: ArrayFunctions, whole: Part) -> Array:
    return ops.where(abs(whole.top) == _INF, _NAN, whole.rest)  # log1p(-1) would warn


def _along_rows(ops: ArrayFunctions, value: Any, axis: int) -> Any:
    """Put the class axis into values of the rows' shape; leave numbers as they are."""
    is_number = value is None or not ops.is_array(value) or value.ndim == 0
    return value if is_number else expand(value, axis)
