"""`jax.nn`, with what softmaxkit computes: ``from softmaxkit.jax import nn``, was ``from jax``.

Every name that softmaxkit does not define is that of `jax.nn`.
"""

from typing import TYPE_CHECKING

from softmaxkit._forwarding import rest_of
from softmaxkit.jax._nn import log_softmax, logsumexp, softmax

__all__ = ["log_softmax", "logsumexp", "softmax"]

if TYPE_CHECKING:
    from jax.nn import *  # noqa: F403
else:
    __getattr__, __dir__ = rest_of("jax.nn", __all__)
