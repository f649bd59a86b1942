"""PyTorch's functions and modules of this family, computed by softmaxkit: change one import line.

>>> import torch
>>> import softmaxkit.torch as F  # was: import torch.nn.functional as F
>>> logits = torch.tensor([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]], requires_grad=True)
>>> loss = F.cross_entropy(logits, torch.tensor([0, 2]), label_smoothing=0.1)
>>> loss.backward()
>>> loss
tensor(0.4100, grad_fn=<DivBackward0>)

Signatures, defaults, dtypes, shapes, NaN and errors are torch's; `sigmoid_focal_loss` is that of
torchvision, and `linear_cross_entropy` has some more arguments after torch's. `causal_lm_loss` and
`LabelSmoother` compute what those of transformers compute, and their errors are one line.
`softmaxkit.torch.nn` has the modules, which are also here. The differences from torch:

- rows in which one class dominates keep their digits, and half-precision results are rounded once;
- an ignored row, or an element of weight 0, adds 0 to the gradient even if it contains NaN;
- 0 log 0 is 0 in probability targets, where torch gives NaN for a logit of -inf;
- where labels cannot be read (on a GPU, by a compiler), a label out of range makes its row NaN;
- `sigmoid_focal_loss` refuses a negative `gamma`;
- `torch.jit.script` does not accept these functions;
- `torch.fx.symbolic_trace` records these functions if they are called as ``F.softmax`` or by a
  module; for a function that was imported by its name, it records torch's.

Labels of dtype uint8, which torch accepts in some calls, are left to torch. So is every other name:
``F.relu`` is `torch.nn.functional.relu`, and ``nn.Linear`` of `softmaxkit.torch.nn` is torch's.
"""

from typing import TYPE_CHECKING

import torch.fx

from softmaxkit._forwarding import rest_of
from softmaxkit.backends.torch.eager import use_triton
from softmaxkit.torch import functional, nn
from softmaxkit.torch._shards import (
    vocab_parallel_cross_entropy,
    vocab_parallel_linear_cross_entropy,
)
from softmaxkit.torch._transformers import LabelSmoother, causal_lm_loss
from softmaxkit.torch.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    focal_loss,
    linear_cross_entropy,
    log_softmax,
    nll_loss,
    sigmoid_focal_loss,
    softmax,
    softmin,
)
from softmaxkit.torch.nn import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    FocalLoss,
    LinearCrossEntropyLoss,
    LogSoftmax,
    SigmoidFocalLoss,
    Softmax,
)

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "FocalLoss",
    "LabelSmoother",
    "LinearCrossEntropyLoss",
    "LogSoftmax",
    "SigmoidFocalLoss",
    "Softmax",
    "binary_cross_entropy_with_logits",
    "causal_lm_loss",
    "cross_entropy",
    "focal_loss",
    "functional",
    "linear_cross_entropy",
    "log_softmax",
    "nll_loss",
    "nn",
    "sigmoid_focal_loss",
    "softmax",
    "softmin",
    "use_triton",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_linear_cross_entropy",
]

for _name in set(functional.__all__) - {"nll_loss"}:  # as in `functional`
    torch.fx.wrap(_name)

if TYPE_CHECKING:
    # As in `functional`.
    from torch.nn.functional import *  # type: ignore[assignment, unused-ignore]  # noqa: F403

    from softmaxkit.torch.functional import *  # noqa: F403
else:
    __getattr__, __dir__ = rest_of("torch.nn.functional", __all__)
