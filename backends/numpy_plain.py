"""NumPy: losses over the classes of few numbers, without masks, weights and their like.

Here calls cost more than the arithmetic: (32, 10) cross-entropy with its gradient takes 45 µs by
way of `_rows`, which looks at each option, and of blocks, and 31 so.
"""

from __future__ import annotations

import numpy as np

from softmaxkit import _rows
from softmaxkit.backends import numpy_blocks as blocks

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)


def is_plain(operation, logits, targets, options):
    if operation not in ("cross_entropy", "focal_loss") or logits.size > blocks.SMALL_ELEMENTS:
        return False
    given = options.get
    index = targets.dtype.kind in "iu"
    gamma, smoothing = given("gamma"), given("label_smoothing")
    return (
        logits.size
        and logits.dtype in _FLOATS
        and options["axis"] == logits.ndim - 1
        and (index or (gamma is None and targets.dtype == logits.dtype))
        and (gamma is None or (smoothing is None and type(gamma) is float))
        and (smoothing is None or (index and type(smoothing) is float and smoothing < 1))
        and options["labels_checked"]
        and (options["normalizer"] == "count" or (index and options["normalizer"] == "weight"))
        and given("weight") is given("alpha") is None
        and given("sample_weight") is given("where") is None
        and given("ignore_index") is given("temperature") is None
        and given("z_loss") is given("dtype") is None
    )


def loss(ops, logits, targets, options, gradient, keep):
    """Return what `_rows.cross_entropy` does, to the bit; it explains the names.

    `keep` the exponentials for one gradient.
    """
    by_rows = -1, logits.shape[-1], 1
    x = logits.reshape(by_rows)
    gamma, smoothing = options.get("gamma"), options["label_smoothing"]
    labels = share = None
    own = 1.0
    if targets.dtype.kind == "f":
        share = targets.reshape(by_rows)
    else:
        labels = targets.astype(np.int64, copy=False).reshape(-1, 1, 1)
        if smoothing is not None:
            own, share = 1.0 - smoothing, smoothing * (1.0 / logits.shape[-1])
    kept = np.empty(x.shape, x.dtype) if keep else None
    log_p, dot, log_sum, top, rest, total = blocks.statistics_of_block(
        x, False, labels, share, kept, blocks.fresh
    )
    each = 0.0 if labels is None else own * _rows.penalty(ops, log_p, gamma)
    each = (each if share is None else each - dot).reshape(logits.shape[:-1])[()]
    count = each.size if options["reduction"] == "mean" else 1
    value = each
    if options["reduction"] != "none":
        value = ops.sum(each, None) / logits.dtype.type(count)
    if not gradient:
        return value

    def pull(logits, of_value):
        of_row = 1.0 / count * of_value
        if getattr(of_row, "ndim", 0):
            of_row = of_row.reshape(-1, 1, 1)
        out = np.empty(logits.shape, logits.dtype)
        b = c = None
        a = 0.0
        if labels is not None:
            b = _rows.penalty_slope(ops, log_p, gamma) * own * of_row
            a = -b
        if share is not None:
            c = -of_row
            a = a - c * (share * logits.shape[-1] if total is None else total)
        z, known = (kept, rest) if keep else (logits.reshape(by_rows), None)
        per_row = known, log_sum, top, log_p, labels, None, a, b, c
        blocks.write_gradient(z, out.reshape(by_rows), share, *per_row, blocks.fresh)
        return out

    return value, pull
