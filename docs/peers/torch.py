"""What torch offers; see the package."""

# ruff: noqa: D103 - a function's name says which call it translates

import torch

from peers import NotOffered, is_dense, one_axis


def softmax(x, *, axis=-1, dtype=None):
    return torch.nn.functional.softmax(x, one_axis(axis), dtype=dtype and getattr(torch, dtype))


def log_softmax(x, *, axis=-1, dtype=None):
    return torch.nn.functional.log_softmax(x, one_axis(axis), dtype=dtype and getattr(torch, dtype))


def logsumexp(x, *, axis=-1, keepdims=False):
    if axis is None:
        raise NotOffered("axis=None")
    return torch.logsumexp(x, axis, keepdim=keepdims)


def cross_entropy(
    x, y, *, axis=-1, weight=None, ignore_index=-100, label_smoothing=0.0, reduction="mean"
):
    if ignore_index is None:
        raise NotOffered("ignore_index=None")
    if x.ndim > 1:
        y = y.movedim(axis, 1) if is_dense(x, y) else y
        x = x.movedim(axis, 1)
    options = {"label_smoothing": label_smoothing, "reduction": reduction}
    return torch.nn.functional.cross_entropy(x, y, weight, ignore_index=ignore_index, **options)


def linear_cross_entropy(
    h, m, y, *, bias=None, chunk_size=None, weight=None, ignore_index=-100, label_smoothing=0.0,
    reduction="mean",
):  # fmt: skip
    if isinstance(chunk_size, tuple):
        raise NotOffered("chunk_size of classes")
    ignore_index = None if y.is_floating_point() else ignore_index
    return torch.nn.functional.linear_cross_entropy(
        h, m, y, linear_bias=bias, weight=weight, reduction=reduction, ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk_size),
    )  # fmt: skip


def binary_cross_entropy(x, t, *, pos_weight=None, sample_weight=None, reduction="mean"):
    if isinstance(pos_weight, float):
        pos_weight = torch.tensor(pos_weight)
    return torch.nn.functional.binary_cross_entropy_with_logits(
        x, t, sample_weight, reduction=reduction, pos_weight=pos_weight
    )


def one_hot(labels, *, num_classes, axis=-1):
    return torch.nn.functional.one_hot(labels, num_classes).movedim(-1, axis)
