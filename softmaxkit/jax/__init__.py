"""The names and signatures of `jax.nn` and `optax`: change one import line.

    from softmaxkit.jax import nn, optax  # was: from jax import nn; import optax

    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

These modules have every name of the two libraries; the functions that softmaxkit computes are also
here. A loss is returned for each row, as in optax, which has no `softmax_focal_loss` and no
`linear_cross_entropy`. The differences from jax.nn and optax are softmaxkit's semantics:

- A label outside [0, C) is an IndexError or, where labels cannot be read (traced, not on a CPU),
  makes the loss and gradient of its row NaN. optax counts -1 from the end, and gives other such
  rows NaN with a finite gradient.
- An integer label on a class that `where` leaves out costs +inf; optax sums over the other classes
  alone and subtracts the logit that was left out.
- 0 log 0 is 0: at logits of -inf, `softmax_cross_entropy` is as safe as
  `safe_softmax_cross_entropy`.
- Classes that `where` leaves out get no share of the smoothing in `smooth_labels`.
- A gamma below 0, an alpha of `sigmoid_focal_loss` or a smoothing factor outside [0, 1], and logits
  without a class are ValueErrors. Integer labels, and a smoothing factor, do not broadcast.
"""

from softmaxkit.jax import nn as nn
from softmaxkit.jax import optax as optax
from softmaxkit.jax._nn import log_softmax, logsumexp, softmax
from softmaxkit.jax._optax import (
    linear_cross_entropy,
    poly_loss_cross_entropy,
    safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy,
    sigmoid_focal_loss,
    smooth_labels,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    softmax_focal_loss,
)
from softmaxkit.jax._shards import (
    vocab_parallel_cross_entropy,
    vocab_parallel_linear_cross_entropy,
)

__all__ = [
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_focal_loss",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_linear_cross_entropy",
]
