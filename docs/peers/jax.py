"""What JAX and optax offer; see the package."""

# ruff: noqa: D103 - a function's name says which call it translates

from functools import partial

import jax
import optax

from peers import is_dense, reduced

in_jax = partial(reduced, total=jax.numpy.sum, mean=jax.numpy.mean)


softmax = jax.nn.softmax
log_softmax = jax.nn.log_softmax
one_hot = jax.nn.one_hot
logsumexp = partial(jax.nn.logsumexp, axis=-1)


def cross_entropy(x, y, *, axis=-1, where=None, label_smoothing=0.0, reduction="mean"):
    if label_smoothing and not is_dense(x, y):
        y = jax.nn.one_hot(y, x.shape[axis], dtype=x.dtype, axis=axis)
    if label_smoothing:
        y = optax.smooth_labels(y, label_smoothing, axis=axis, where=where)
    if not is_dense(x, y):
        rows = optax.softmax_cross_entropy_with_integer_labels(x, y, axis, where)
    elif where is None and axis in (-1, x.ndim - 1):
        rows = optax.safe_softmax_cross_entropy(x, y)
    else:
        rows = optax.softmax_cross_entropy(x, y, axis, where)
    return in_jax(rows, reduction)


def binary_cross_entropy(x, t, *, reduction="mean"):
    return in_jax(optax.sigmoid_binary_cross_entropy(x, t), reduction)


def poly_loss_cross_entropy(x, t, *, epsilon=2.0, axis=-1, where=None, reduction="mean"):
    if not is_dense(x, t):
        t = jax.nn.one_hot(t, x.shape[axis], axis=axis, dtype=x.dtype)
    rows = optax.losses.poly_loss_cross_entropy(x, t, epsilon=epsilon, axis=axis, where=where)
    return in_jax(rows, reduction)


def sigmoid_focal_loss(x, t, *, gamma=2.0, alpha=None, reduction="mean"):
    rows = optax.sigmoid_focal_loss(x, t, gamma=gamma, alpha=alpha)
    return in_jax(rows, reduction)


def smooth_labels(y, *, smoothing, num_classes=None, axis=-1, where=None):
    if num_classes is not None:
        y = jax.nn.one_hot(y, num_classes, axis=axis)
    return optax.smooth_labels(y, smoothing, axis=axis, where=where)
