"""What is to become of a tensor: a value, a derivative, a compiled graph, an array of NumPy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack as dispatch_modes
from torch._C._functorch import (  # None outside torch.func transforms
    TransformType,
    get_interpreter_stack,
    peek_interpreter_stack,
)
from torch.autograd import forward_ad

from softmaxkit.backends import torch_blocks as blocks

PLAIN = (Tensor, torch.nn.Parameter)
HALF = (torch.float16, torch.bfloat16)
WIDE = (torch.float32, torch.float64)

is_compiling = torch.compiler.is_compiling


def is_eager(x):
    """Tell whether `x` can be computed in blocks on the CPU."""
    return type(x) in PLAIN and x.is_cpu and not is_traced()


def is_traced():
    """Tell whether more is to become of the operations than a value and its first derivative."""
    return (
        is_compiling()
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or is_recorded()
    )


def in_nested_forward_mode():
    """Tell whether torch.func differentiates a forward derivative forward."""
    levels = get_interpreter_stack() or ()
    return sum(level.key() == TransformType.Jvp for level in levels) > 1


def is_recorded():
    """Tell whether operations are written down, to be run again on other shapes."""
    return dispatch_modes() > 0 or torch.jit.is_tracing()


def in_blocks(x):
    return (
        not (is_compiling() or is_recorded())
        and type(x) in PLAIN
        and x.is_cpu
        and x.numel() > blocks.HOST_ELEMENTS
        and peek_interpreter_stack() is None
    )


def host_array(x):
    """Return a tensor of the CPU as NumPy's array."""
    if x.dtype.is_floating_point and x.dtype not in WIDE:
        x = x.double()
    x = x.numpy(force=True)  # also of what requires a gradient
    return x.astype(np.float64, copy=False) if x.dtype.kind == "f" else x
