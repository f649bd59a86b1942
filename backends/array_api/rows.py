"""Array-API libraries: the simplest kernels along the class axis, and the model for the others.

They use only functions of the standard, no data-dependent shapes and no assignment into arrays, so
that lazy libraries stay lazy. Lazy libraries compute later, where no errstate silences a warning:
inf - inf and the like must not arise.
"""

from __future__ import annotations

from softmaxkit import _statistics
from softmaxkit._activations import softmax_derivative
from softmaxkit._axes import expand
from softmaxkit._statistics import centred, log_sum
from softmaxkit.backends.array_api import arrays as ops


def softmax(x, axis, dtype):
    x = ops.compute(x)
    e = ops.exp(centred(ops, x, ops.amax(x, axis), axis))
    return ops.astype(e / expand(ops.sum(e, axis), axis), dtype)


def log_softmax(x, axis, dtype):
    x = ops.compute(x)
    part = _statistics.part(ops, x, axis)
    d = centred(ops, x, part.top, axis)
    return ops.astype(d - expand(log_sum(ops, part), axis), dtype)


def softmax_gradient(p, cotangent, axis):
    return softmax_derivative(ops, p, cotangent, axis)


def row_statistics(x, request, lse, keep):
    axis, labels, weights, skip = request
    x, weights = _whole(x, request)
    part = _statistics.part(ops, x, axis, labels, weights)
    rows = _statistics.finish(ops, part)
    if skip is not None:
        rows = rows._make(v if v is None else ops.where(skip, 0.0, v) for v in rows)
    return rows, part


def row_gradient(x, request, kept, of_rows):
    axis, labels, _, skip = request
    x, weights = _whole(x, request)
    log_p = _statistics.finish(ops, kept).log_p
    if weights is not None:  # they may differ from those of the statistics
        first = ops.at_class(ops.argmax(x, axis), x, axis)
        beside = ops.sum(ops.where(first, 0.0, weights), axis)
        kept = kept._replace(mass=of_rows.mass, beside=beside)
    out = _statistics.gradient(
        ops, x, axis, kept, of_rows, labels=labels, log_p=log_p, weights=weights
    )
    return out if skip is None else ops.where(expand(skip, axis), 0.0, out)


def _whole(x, request):
    """Return logits in float32 or wider, 0 in rows to skip, and the weights in their shape."""
    x, weights, skip = ops.compute(x), request.weights, request.skip
    if skip is not None:
        x = ops.where(expand(skip, request.axis), 0.0, x)
    if isinstance(weights, float):
        weights = weights * ops.ones_like(x)
    return x, weights if weights is None else ops.broadcast_like(weights, x)
