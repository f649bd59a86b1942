"""PyTorch: what a tensor is, how it is used, and the array functions of the loss family."""

from __future__ import annotations

import operator

import numpy as np
import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack as dispatch_modes
from torch._C._functorch import (
    TransformType,
    get_interpreter_stack,
    is_legacy_batchedtensor,  # autograd's batch of cotangents
    peek_interpreter_stack,  # None outside torch.func transforms
)
from torch.autograd import forward_ad

from softmaxkit import _axes
from softmaxkit.backends.torch import blocks
from softmaxkit.backends.torch.memory import HALF, wide_dtype

PLAIN = (Tensor, torch.nn.Parameter)

is_compiling = torch.compiler.is_compiling
_GRAD = TransformType.Grad


# --- how it is used -------------------------------------------------------------------------------
def is_eager(x):
    """Return whether the caller needs at most a value and its first derivative.

    False wherever `is_traced` is True, and for subclasses of Tensor other than Parameter.
    """
    return type(x) in PLAIN and not is_traced()


def is_traced():
    """Return True under torch.compile, torch.func, forward-mode AD, dispatch modes, jit.trace."""
    return (
        is_compiling()
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or dispatch_modes() > 0
        or torch.jit.is_tracing()
    )


def has_written_derivative():
    """Return True under torch.compile, unless it traces other transforms than a single grad."""
    return is_compiling() and not _is_transformed()


def _is_transformed():
    keys = [one.key() for one in get_interpreter_stack() or ()]
    return forward_ad._current_level >= 0 or keys not in ([], [_GRAD])


# Dynamo then calls this function instead of tracing it. torch.compiler.assume_constant_result sets
# the same mark, but would import the compiler.
_is_transformed._dynamo_marked_constant = True


def is_differentiated_again(cotangent):
    return torch.is_grad_enabled() or is_traced() or is_legacy_batchedtensor(cotangent)


def result_dtype(x, dtype):
    """Return the result's dtype: float32 under autocast, as torch's own cross_entropy returns."""
    device = x.device.type
    if dtype is None and device != "meta":  # the meta device has no autocast
        return torch.float32 if torch.is_autocast_enabled(device) else None
    return dtype


def beside(x, value):
    """Return `value` for use with `x`: if `x` is a DTensor, a plain tensor counts as replicated."""
    if type(x) in PLAIN or type(value) not in PLAIN or not hasattr(x, "device_mesh"):
        return value
    from torch.distributed.tensor import DTensor, Replicate

    mesh = x.device_mesh
    return DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)


# --- what is it -----------------------------------------------------------------------------------
def is_native(value, like):
    return isinstance(value, Tensor)


def is_array(value):
    return isinstance(value, Tensor)  # a number may be symbolic while compiling


def asarray(value, like):
    if is_compiling():
        if isinstance(value, float):  # symbolic; as_tensor would compile a program for each number
            return torch.full((), value, dtype=wide_dtype(like.dtype), device=like.device)
        return torch.as_tensor(value, device=like.device)
    if value.dtype.kind == "V":  # bfloat16 of ml_dtypes, which torch cannot read
        value = value.astype(np.float32)
    return torch.tensor(value, device=like.device)


_SPARSE = (
    torch.sparse_coo,
    torch.sparse_csr,
    torch.sparse_csc,
    torch.sparse_bsr,
    torch.sparse_bsc,
)


def unusable(x):
    if x.is_nested and x.layout is torch.strided:
        padded = "pass its to_padded_tensor(0.0), and where= for the entries that are not padding"
        return TypeError, f"is a nested tensor of layout strided; expected a dense one; {padded}"
    if x.layout not in _SPARSE:
        return None
    return TypeError, f"has layout {x.layout}; expected a dense tensor; pass its to_dense()"


def device_of(x):
    return x.device


def visible(x):
    if is_compiling() or not x.is_cpu or peek_interpreter_stack() is not None:
        return None
    # A subclass that does not override dispatch stores its numbers where Tensor stores them.
    return x.numpy() if type(x).__torch_dispatch__ is Tensor.__torch_dispatch__ else None


def has_values(x):
    if is_compiling() or torch.jit.is_tracing() or peek_interpreter_stack() is not None:
        return False
    return not x.is_meta


def is_accelerated(x):
    return x.device.type not in ("cpu", "meta")


def to_host(x):
    x = x.detach()
    return (x.float() if x.dtype is torch.bfloat16 else x).cpu().numpy()


def shape(x):
    return tuple(x.shape)


def same_length(a, b):
    # Lengths that depend on data are compared at run time.
    if not is_compiling():
        return a == b
    return torch.fx.experimental.symbolic_shapes.guard_or_true(a == b)  # loaded by the compiler


def kind(x):
    dtype = x.dtype
    if dtype.is_floating_point:
        return "float"
    if dtype.is_complex:
        return "complex"
    if dtype is torch.bool:
        return "bool"
    return "other" if x.is_quantized else "int"


def as_dtype(dtype, like):
    dtype = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(dtype)
    return dtype


# --- array functions for the loss family ----------------------------------------------------------
where = torch.where
equal = operator.eq
exp = torch.exp
log1p = torch.log1p
amax = torch.amax
argmax = torch.argmax
maximum = torch.maximum
ones_like = torch.ones_like
permute = torch.permute
sigmoid = torch.sigmoid


def expm1(x):
    """Return e^x - 1 for x <= 0, with the derivative e^x.

    torch computes the derivative as expm1(x) + 1, which loses the digits of a small e^x.
    """
    if not (torch.is_grad_enabled() or is_traced()):
        return torch.expm1(x)
    e = torch.exp(x)
    written_out = is_compiling() or torch.jit.is_tracing()  # the legacy ONNX exporter has no expm1
    value = _expm1_of(x.detach(), e.detach()) if written_out else torch.expm1(x.detach())
    return value + (e - e.detach())


def _expm1_of(x, e):
    # On a CPU, inductor compiles torch.expm1 to exp(x) - 1. Here the rounding error of e is in its
    # logarithm, too, and cancels in the quotient (Kahan; Higham, Accuracy and Stability of
    # Numerical Algorithms, 1.14.1).
    near = torch.where(e == 1.0, x, (e - 1.0) * (x / torch.log(e)))
    return torch.where(x < -1.0, e - 1.0, near)


def softplus(x):
    # torch's own softplus is linear above a threshold: 2e-9 off in float64.
    return -torch.nn.functional.logsigmoid(-x)


def stop_gradient(x):
    return x.detach()


def sum(x, axis):
    if x.dtype in HALF and axis is not None:  # only from `weights_like`
        return blocks.sum_in_float32(x, axis)
    return x.sum() if axis is None else x.sum(axis)


def mean(x):
    # The number of elements may depend on data; torch gathers the rows of a DTensor for its mean.
    if is_compiling() or type(x) not in PLAIN:
        return x.sum() / torch.sym_max(x.numel(), 1)
    return x.mean() if x.numel() else x.sum()


def any(x, axis):
    return x.any(axis) if isinstance(axis, int) else x.sum(axis) > 0


def take(vector, labels):
    # In vector[labels], Dynamo would take a 0-d label for a number whose value it does not know.
    return vector.index_select(0, labels.reshape(-1)).reshape(labels.shape)


def pick(x, labels, axis):
    return x.gather(axis, labels.unsqueeze(axis)).squeeze(axis)


def at_class(labels, like, axis):
    # In 32 bits, inductor compares twice as many labels at once as in 64.
    index = torch.arange(like.shape[axis], device=labels.device, dtype=torch.int32)
    return _axes.along(index, like.ndim, axis) == labels.int().unsqueeze(axis)


def length(x, axis, like):
    return x.shape[axis]


def size(x):
    return x.numel()


def broadcast_like(x, like):
    return x.expand(like.shape)


def merge_last(x, count):
    return x.flatten(x.ndim - count) if count else x.unsqueeze(-1)


def reshape(x, shape):
    return x.reshape(shape)


concat = torch.cat


def reshape_like(x, like):
    return x.reshape(like.shape)


def default_float(x):
    return torch.get_default_dtype()


def astype(x, dtype):
    return x.to(dtype)


def compute(x):
    return x.to(wide_dtype(x.dtype))


def widest(x):
    return x.to(torch.float32 if x.is_mps else torch.float64)  # MPS has no float64


def compute_like(x, logits):
    return x.to(wide_dtype(logits.dtype))


def weights_like(x, logits):
    trains = torch.is_grad_enabled() and x.requires_grad
    stays = x.dtype in HALF and is_eager(logits) and not trains
    return x if stays else compute_like(x, logits)


def as_index(labels):
    index = labels.long()
    if labels.dtype is torch.uint64:  # 2**64 - 100 has become -100, which would be ignored
        index = index.masked_fill(index < 0, 2**62)
    return index
