"""PyTorch: an eager loss as one autograd node; for every transform, row statistics as a Function.

Small losses on the CPU are left to NumPy, large ones done in blocks (`torch_blocks`); `torch_state`
tells what a tensor is used for, `torch_rows` has the kernels, `torch_plain` short cuts. Not
measured on a GPU; nothing there waits for the device or copies to the host.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import (
    is_legacy_batchedtensor,  # by which autograd takes many cotangents at once
    peek_interpreter_stack,
)

from softmaxkit import _rows, _softmax
from softmaxkit.backends import numpy as host
from softmaxkit.backends import torch_blocks as blocks
from softmaxkit.backends import torch_plain as plain
from softmaxkit.backends import torch_rows as kernels
from softmaxkit.backends import torch_state as state
from softmaxkit.backends.torch_state import HALF, PLAIN, WIDE, host_array, is_eager, is_traced

LIBRARY = "PyTorch"

_this = sys.modules[__name__]


# --- operations -----------------------------------------------------------------------------------
def softmax(x, axis, where, temperature, dtype):
    if where is None and temperature is None and type(axis) is int and x.dtype.is_floating_point:
        return softmax_rows(x, axis, _result(x, dtype))
    where, temperature = _beside(x, where), _beside(x, temperature)
    return _softmax.softmax(_this, x, axis, where, temperature, _result(x, dtype))


def log_softmax(x, axis, where, temperature, dtype):
    is_plain = where is None and temperature is None and dtype is None and type(axis) is int
    if is_plain and x.dtype in WIDE and is_eager(x) and x.numel():
        return log_softmax_rows(x, axis, x.dtype)
    where, temperature = _beside(x, where), _beside(x, temperature)
    return _softmax.log_softmax(_this, x, axis, where, temperature, _result(x, dtype))


def logsumexp(x, axis, where, keepdims, dtype):
    return _softmax.logsumexp(_this, x, axis, _beside(x, where), keepdims, _result(x, dtype))


def cross_entropy(logits, targets, **options):
    return _loss("cross_entropy", logits, targets, options)


def focal_loss(logits, targets, **options):
    return _loss("focal_loss", logits, targets, options)


def binary_cross_entropy(logits, targets, **options):
    return _loss("binary_cross_entropy", logits, targets, options)


def sigmoid_focal_loss(logits, targets, **options):
    return _loss("sigmoid_focal_loss", logits, targets, options)


def smooth_labels(targets, smoothing, axis, where):
    return _rows.smooth_labels(_this, targets, smoothing, axis, where)


def one_hot(labels, num_classes, axis, dtype, labels_checked):
    dtype = torch.get_default_dtype() if dtype is None else dtype
    labels = labels.long().unsqueeze(axis)
    wrong = None if labels_checked else (labels < 0) | (labels >= num_classes)
    if wrong is not None:
        labels = labels.masked_fill(wrong, 0)
    size = list(labels.shape)
    size[axis] = num_classes
    out = torch.zeros(size, dtype=dtype, device=labels.device).scatter(axis, labels, 1)
    return out if wrong is None else out.masked_fill(wrong, float("nan"))


def value_and_grad(operation, logits, targets, options):
    if is_compiling():  # Dynamo traces torch.func, but not autograd.grad
        value, pull = torch.func.vjp(
            lambda leaf: getattr(_this, operation)(leaf, targets, **options), logits
        )
        return value, pull(torch.ones_like(value))[0]
    options["dtype"] = _result(logits, options["dtype"])
    if type(logits) in PLAIN and not is_traced():
        with torch.no_grad():
            value, pull = _value_and_pull(operation, logits, targets, options, _Keeping())
            return value, pull(logits, 1.0)
    leaf = logits.detach().requires_grad_()
    with torch.enable_grad():
        value = _differentiable(operation, leaf, targets, options)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def vjp(operation, x, cotangent, options):
    if is_compiling():
        value, pull = torch.func.vjp(lambda leaf: getattr(_this, operation)(leaf, *options), x)
        return value, pull(cotangent.to(value.dtype))[0]
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        value = getattr(_this, operation)(leaf, *options)
        (product,) = torch.autograd.grad(value, leaf, cotangent.to(value.dtype))
    return value.detach(), product


def _loss(operation, logits, targets, options):
    options["dtype"] = _result(logits, options["dtype"])
    if type(logits) not in PLAIN or is_traced():
        return _differentiable(operation, logits, targets, options)
    if operation == "cross_entropy" and plain.is_torchs(logits, targets, options):
        value = plain.in_float64(logits, targets, options)
        if value is not None:
            return value
    with_gradient = torch.is_grad_enabled()
    if with_gradient:
        for value in (targets, *options.values()):
            if isinstance(value, Tensor) and value.requires_grad:
                return _differentiable(operation, logits, targets, options)
    if with_gradient and logits.requires_grad:
        return _Loss.apply(logits, targets, operation, options)
    ops = _Keeping() if logits.numel() <= blocks.BLOCK_ELEMENTS else _this
    return _value_and_pull(operation, logits, targets, options, ops)[0]


def _differentiable(operation, logits, targets, options):
    """Compute a loss by operations of which every transform knows the derivative."""
    if type(logits) not in PLAIN:
        targets = _beside(logits, targets)
        options = {name: _beside(logits, value) for name, value in options.items()}
    return getattr(_rows, operation)(_this, logits, targets, **options)


def _value_and_pull(operation, logits, targets, options, ops):
    """Compute a loss, and a function of (logits, cotangent) that gives the logits' cotangent."""
    if logits.is_cpu and logits.numel() <= blocks.HOST_ELEMENTS:
        return _on_host(operation, logits, targets, options)
    with torch.no_grad():
        keeps = ops is not _this and operation == "cross_entropy"
        if keeps and plain.is_of_labels(logits, targets, options):
            return plain.value_and_pull(ops, logits, targets, options["reduction"])
        return getattr(_rows, operation)(ops, logits, targets, gradient=True, **options)


def _on_host(operation, logits, targets, options):
    """By NumPy, whose calls cost a third of torch's, and in float64: few numbers cost no more."""
    given = options | {"dtype": None}
    for name, value in options.items():
        if isinstance(value, Tensor):
            given[name] = host_array(value)
    value, pull = host.value_and_pull(operation, host_array(logits), host_array(targets), given)
    value = torch.as_tensor(value, dtype=options["dtype"] or logits.dtype, device=logits.device)

    def pull_back(logits, of_value):
        of_value = host_array(of_value) if isinstance(of_value, Tensor) else of_value
        out = pull(host_array(logits), of_value)
        return torch.as_tensor(out, dtype=logits.dtype, device=logits.device)

    return value, pull_back


class _Loss(torch.autograd.Function):
    """A loss of which only the first derivative by the logits is written out.

    It stands in the graph as one node, which keeps the logits, a few numbers per row, and what of
    the gradient is there already. In the older style: that with `setup_context` binds a signature
    on each call, 30 µs.
    """

    @staticmethod
    def forward(ctx, logits, targets, operation, options):
        ctx.arguments = operation, options
        ctx.ops = _Keeping()
        value, ctx.pull = _value_and_pull(operation, logits, targets, options, ctx.ops)
        # So that checkpoints and other hooks see it, and that autograd refuses a gradient made of
        # arguments that were changed in place.
        arrays = (value for value in options.values() if isinstance(value, Tensor))
        ctx.save_for_backward(logits, targets, ctx.ops.kept, *arrays)
        ctx.ops.kept, ctx.is_fresh = None, True
        return value

    @staticmethod
    def backward(ctx, of_value):
        logits, targets, kept, *_ = ctx.saved_tensors
        if not (torch.is_grad_enabled() or is_traced() or is_legacy_batchedtensor(of_value)):
            if kept is not None and ctx.is_fresh:  # a second gradient is made of the logits
                ctx.ops.kept = kept.data  # autograd does not see that it is written to
            ctx.is_fresh = False
            if of_value.is_cpu and not of_value.ndim:
                of_value = of_value.item()
            return ctx.pull(logits, of_value), None, None, None
        operation, options = ctx.arguments
        with torch.enable_grad():
            value = _differentiable(operation, logits, targets, options)
            (of_logits,) = torch.autograd.grad(value, logits, of_value, create_graph=True)
        return of_logits, None, None, None


def _result(x, dtype):
    """Under autocast float32, as torch.nn.functional.cross_entropy returns there."""
    device = x.device.type
    if dtype is None and x.dtype in HALF and device != "meta":  # which has no autocast
        return torch.float32 if torch.is_autocast_enabled(device) else None
    return dtype


def _beside(x, value):
    """Return `value` for use with `x`: beside a DTensor a plain tensor counts as replicated."""
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


is_compiling = state.is_compiling


def asarray(value, like):
    if is_compiling():
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
    if x.layout not in _SPARSE:
        return None
    return TypeError, f"has layout {x.layout}; expected a dense tensor; pass its to_dense()"


def device_of(x):
    return x.device


def visible(x):
    if (
        not x.is_cpu
        or type(x) not in PLAIN
        or is_compiling()
        or peek_interpreter_stack() is not None
    ):
        return None
    return x.numpy()


def shape(x):
    return tuple(x.shape)


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
exp = torch.exp
log1p = torch.log1p
amax = torch.amax
argmax = torch.argmax
maximum = torch.maximum
ones_like = torch.ones_like
permute = torch.permute
sigmoid = torch.sigmoid
expm1 = kernels.expm1


def default_float(x):
    return torch.get_default_dtype()


def astype(x, dtype):
    return x.to(dtype)


def compute(x):
    return x.to(blocks.wide_dtype(x.dtype))


def compute_like(x, logits):
    return x.to(blocks.wide_dtype(logits.dtype))


def weights_like(x, logits):
    stays = x.dtype in HALF and not (torch.is_grad_enabled() or is_traced())
    return x if stays and state.in_blocks(logits) else compute_like(x, logits)


def as_index(labels):
    index = labels.long()
    if labels.dtype is torch.uint64:  # 2**64 - 100 has become -100, which would be ignored
        index = index.masked_fill(index < 0, 2**62)
    return index


def stop_gradient(x):
    return x.detach()


def sum(x, axis):
    if x.dtype in HALF and axis is not None:  # only of `weights_like`
        return blocks.sum_in_float32(x, axis)
    return x.sum() if axis is None else x.sum(axis)


def any(x, axis):
    return x.any(axis) if isinstance(axis, int) else x.sum(axis) > 0


def take(vector, labels):
    # vector[labels] of a 0-d label is to Dynamo a number that it does not know.
    return vector.index_select(0, labels.reshape(-1)).reshape(labels.shape)


def pick(x, labels, axis):
    return x.gather(axis, labels.unsqueeze(axis)).squeeze(axis)


def at_class(labels, like, axis):
    index = torch.arange(like.shape[axis], device=labels.device)
    return _softmax.along(index, like.ndim, axis) == labels.unsqueeze(axis)


def length(x, axis, like):
    return x.shape[axis]


def size(x):
    return x.numel()


def broadcast_like(x, like):
    return x.expand(like.shape)


def merge_last(x, count):
    return x.flatten(x.ndim - count) if count else x.unsqueeze(-1)


def reshape_like(x, like):
    return x.reshape(like.shape)


def softplus(x):
    # torch's own softplus is linear above a threshold: 2e-9 off in float64.
    return -torch.nn.functional.logsigmoid(-x)


# --- kernels --------------------------------------------------------------------------------------
softmax_rows = kernels.softmax_rows
log_softmax_rows = kernels.log_softmax_rows
row_statistics = kernels.row_statistics
row_gradient = kernels.row_gradient


class _Keeping:
    """The functions above for one loss and one gradient, which is made of what is `kept`."""

    kept = None

    def row_statistics(self, x, axis, labels, weights, skip, lse=True):
        if labels is None or weights is not None or lse or not kernels.are_worth_keeping(x):
            return kernels.row_statistics(x, axis, labels, weights, skip, lse)
        rows, self.kept = kernels.picked_and_probabilities(x, axis, labels, skip)
        return rows

    def row_gradient(self, x, *rest):
        kept, self.kept = self.kept, None
        return kernels.row_gradient(x, *rest, kept)


for _name, _value in list(globals().items()):
    if _name[0] != "_" and not hasattr(_Keeping, _name):
        setattr(_Keeping, _name, staticmethod(_value) if callable(_value) else _value)
