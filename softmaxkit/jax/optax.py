"""`optax`, with what softmaxkit computes: ``from softmaxkit.jax import optax``, was ``import``.

It has the losses of `optax.losses`, and two that optax lacks: the focal loss over classes, and
`linear_cross_entropy`. Every name that softmaxkit does not define is that of `optax`, which is
imported when such a name is used; `optax.losses` is this module.
"""

import sys
from typing import TYPE_CHECKING, Any

from softmaxkit._forwarding import rest_of
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

__all__ = [
    "linear_cross_entropy",
    "losses",
    "poly_loss_cross_entropy",
    "safe_softmax_cross_entropy",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_focal_loss",
]

losses = sys.modules[__name__]

if TYPE_CHECKING:
    from optax import *  # noqa: F403

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

    def __getattr__(name: str) -> Any: ...  # optax declares no types
else:
    __getattr__, __dir__ = rest_of("optax", __all__)
