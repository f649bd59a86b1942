"""`jax.nn`, with what softmaxkit computes: ``from softmaxkit.jax import nn``, was ``from jax``.

Every name that softmaxkit does not define is that of `jax.nn`.
"""

from typing import TYPE_CHECKING

from softmaxkit._forwarding import rest_of
from softmaxkit.jax._nn import log_softmax, logsumexp, softmax

__all__ = ["log_softmax", "logsumexp", "softmax"]

if TYPE_CHECKING:
    # Of two imports of a name mypy keeps the first, pyright the last.
    from jax.nn import *  # type: ignore[assignment, no-redef, unused-ignore]  # noqa: F403

    from softmaxkit.jax._nn import log_softmax, logsumexp, softmax
else:
    __getattr__, __dir__ = rest_of("jax.nn", __all__)
