"""Functions with the signatures of `torch.nn.functional` and `torchvision.ops`.

softmaxkit computes the calls that torch accepts. A call that torch refuses, or that softmaxkit does
not accept, goes to torch's own function, which refuses it with torch's exception and text, or
computes it. A label out of range is an IndexError, as in torch, with softmaxkit's message. Every
other name is that of `torch.nn.functional`.
"""

from typing import TYPE_CHECKING

import torch.fx

from softmaxkit._forwarding import rest_of
from softmaxkit.torch._activations import log_softmax, softmax, softmin
from softmaxkit.torch._linear import linear_cross_entropy
from softmaxkit.torch._losses import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    nll_loss,
    sigmoid_focal_loss,
)

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "focal_loss",
    "linear_cross_entropy",
    "log_softmax",
    "nll_loss",
    "sigmoid_focal_loss",
    "softmax",
    "softmin",
]

# torch.fx.symbolic_trace then records the call, not its body. It always does so with nll_loss,
# which is torch's own.
for _name in set(__all__) - {"nll_loss"}:
    torch.fx.wrap(_name)

if TYPE_CHECKING:
    # Of two imports of a name mypy keeps the first, pyright the last.
    from torch.nn.functional import *  # type: ignore[assignment, unused-ignore]  # noqa: F403

    from softmaxkit.torch._activations import log_softmax, softmax, softmin
    from softmaxkit.torch._linear import linear_cross_entropy
    from softmaxkit.torch._losses import (
        binary_cross_entropy_with_logits,
        cross_entropy,
        focal_loss,
        nll_loss,
        sigmoid_focal_loss,
    )
else:
    __getattr__, __dir__ = rest_of("torch.nn.functional", __all__)
