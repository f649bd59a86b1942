"""Softmax, cross-entropy, label smoothing and focal loss with one meaning on every array library.

Pass an array of NumPy, PyTorch, JAX, TensorFlow or any array-API library: the call runs in that
library, on that device, and inside its autodiff and compilers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from softmaxkit.activations import log_softmax, logsumexp, softmax
from softmaxkit.gradients import value_and_grad, vjp
from softmaxkit.labels import one_hot, smooth_labels
from softmaxkit.linear import linear_cross_entropy
from softmaxkit.losses import (
    binary_cross_entropy,
    cross_entropy,
    focal_loss,
    poly_loss_cross_entropy,
    sigmoid_focal_loss,
)
from softmaxkit.threads import get_num_threads, set_num_threads

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "focal_loss",
    "get_num_threads",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "one_hot",
    "poly_loss_cross_entropy",
    "set_num_threads",
    "sigmoid_focal_loss",
    "smooth_labels",
    "softmax",
    "value_and_grad",
    "vjp",
]

__version__ = "0.1.0"

# TensorFlow's AutoGraph leaves alone what carries this mark. It would look up every name that a
# function mentions, and so import the backends, with their frameworks, of libraries not in use.
for _name in __all__:
    globals()[_name].autograph_info__ = {}

if TYPE_CHECKING:
    from softmaxkit import calibration as calibration
else:

    def __getattr__(name):
        if name == "calibration":  # for after training: imported when it is asked for
            return import_module("softmaxkit.calibration")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
