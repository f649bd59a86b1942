"""PyTorch: cross-entropy without masks, weights and their like, where calls cost the most."""

from __future__ import annotations

import torch
from torch import Tensor

from softmaxkit.backends import torch_blocks as blocks
from softmaxkit.backends import torch_rows as kernels

_theirs = torch.nn.functional.cross_entropy  # which programs may replace by ours
_BEYOND_TORCH = ("weight", "sample_weight", "where", "ignore_index", "temperature", "z_loss")


def is_torchs(logits, targets, options):
    """Tell a cross-entropy of which torch's own, in float64, has options and digits."""
    index = targets.dtype is torch.int64
    return (
        logits.is_cpu
        and torch.float64 not in (logits.dtype, options["dtype"])  # it would lose digits of those
        and options["axis"] == 1
        and (index or (targets.is_floating_point() and not targets.requires_grad))
        and options["labels_checked"]
        and options["normalizer"] == ("weight" if index else "count")  # the defaults
        and all(options[name] is None for name in _BEYOND_TORCH)
        and not isinstance(options["label_smoothing"], Tensor)
    )


def in_float64(logits, targets, options):
    """Compute such a one by torch in float64, or return None where that loses digits or time.

    (32, 10) forward and backward: 98 µs as one node in Python, 45 as torch's own in C++.
    """
    reduction, smoothing = options["reduction"], options["label_smoothing"]
    of_labels = smoothing is None and not targets.is_floating_point()
    if not 0 < logits.numel() <= (blocks.HOST_ELEMENTS if of_labels else blocks.DOUBLE_ELEMENTS):
        return None
    if of_labels:
        log_p = torch.log_softmax(logits, 1, torch.float64)
        if not log_p.amax().item() < blocks.DOMINANT_IN_FLOAT64:
            return None
        value = torch.nn.functional.nll_loss(log_p, targets, reduction=reduction)
    else:
        targets = targets.double() if targets.is_floating_point() else targets
        smoothing = smoothing or 0.0
        rows = _theirs(logits.double(), targets, reduction="none", label_smoothing=smoothing)
        # Smaller ones have lost digits, and NaN is 0 log 0.
        if not rows.amin().item() > -blocks.DOMINANT_IN_FLOAT64:
            return None
        value = rows if reduction == "none" else rows.mean() if reduction == "mean" else rows.sum()
    return value.to(options["dtype"] or logits.dtype)


def is_of_labels(logits, targets, options):
    return (
        targets.dtype is torch.int64
        and options["label_smoothing"] is None
        and options["dtype"] in (None, logits.dtype)
        and kernels.are_worth_keeping(logits)
        and is_torchs(logits, targets, options)
    )


def value_and_pull(ops, logits, labels, reduction):
    """Compute what `_rows.cross_entropy` would, which looks at each option: 20 of 99 µs."""
    rows = ops.row_statistics(logits, 1, labels, None, None, lse=False)
    loss = -rows[0]
    value = loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()
    # `pull` must not hold `loss`: the value's node would hold the value, in a cycle.
    count = loss.numel() if reduction == "mean" else None

    def pull(logits, of_value):
        of_row = of_value if count is None else of_value / count
        return ops.row_gradient(logits, 1, rows, labels, None, None, of_row, -of_row, None)

    return value, pull
