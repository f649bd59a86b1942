"""PyTorch: an eager loss as one autograd node; for every transform, row statistics as a Function.

Small losses on the CPU are left to NumPy, large ones done in blocks (`torch_blocks`). Not measured
on a GPU; nothing there waits for the device or copies to the host.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor
from torch._C import _len_torch_dispatch_stack as dispatch_modes
from torch._C._functorch import (
    is_legacy_batchedtensor,  # by which autograd takes many cotangents at once
    peek_interpreter_stack,  # None outside torch.func transforms
)
from torch.autograd import forward_ad

from softmaxkit import _rows, _softmax
from softmaxkit.backends import numpy as host
from softmaxkit.backends import torch_blocks as blocks

LIBRARY = "PyTorch"

_this = sys.modules[__name__]


# --- operations -----------------------------------------------------------------------------------
def softmax(x, axis, where, temperature, dtype):
    if where is None and temperature is None and type(axis) is int and x.dtype.is_floating_point:
        return softmax_rows(x, axis, _result(x, dtype))
    where, temperature = _beside(x, where), _beside(x, temperature)
    return _softmax.softmax(_this, x, axis, where, temperature, _result(x, dtype))


def log_softmax(x, axis, where, temperature, dtype):
    plain = where is None and temperature is None and dtype is None and type(axis) is int
    if plain and x.dtype in _WIDE and _is_eager(x) and x.numel():
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
    if type(logits) in _PLAIN and not _is_traced():
        with torch.no_grad():
            value, pull = _value_and_pull(operation, logits, targets, options)
            return value, pull(logits, torch.ones_like(value))
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
    if type(logits) not in _PLAIN or _is_traced():
        return _differentiable(operation, logits, targets, options)
    with_gradient = torch.is_grad_enabled()
    if with_gradient:
        for value in (targets, *options.values()):
            if isinstance(value, Tensor) and value.requires_grad:
                return _differentiable(operation, logits, targets, options)
    if operation == "cross_entropy" and _is_plain(logits, targets, options):
        value = _torchs_cross_entropy(logits, targets, options)
        if value is not None:
            return value
    if with_gradient and logits.requires_grad:
        return _Loss.apply(logits, targets, operation, options)
    return _value_and_pull(operation, logits, targets, options)[0]


def _is_plain(logits, targets, options):
    """Tell a small cross-entropy of which torch's own, in float64, has options and digits."""
    index = targets.dtype is torch.int64
    return (
        logits.numel() <= blocks.HOST_ELEMENTS
        and logits.is_cpu
        and logits.dtype is not torch.float64
        and options["axis"] == 1
        and (index or targets.is_floating_point())
        and options["labels_checked"]
        and options["normalizer"] == ("weight" if index else "count")  # the defaults
        and all(options[name] is None for name in _BEYOND_TORCH)
        and not isinstance(options["label_smoothing"], Tensor)
    )


_BEYOND_TORCH = ("weight", "sample_weight", "where", "ignore_index", "temperature", "z_loss")


def _torchs_cross_entropy(logits, targets, options):
    """Compute cross-entropy by torch in float64, or return None where that loses digits.

    (32, 10) forward and backward: 113 µs as one node in Python, XX as torch's own in C++.
    """
    targets = targets.double() if targets.is_floating_point() else targets
    smoothing = options["label_smoothing"] or 0.0
    rows = torch.nn.functional.cross_entropy(
        logits.double(), targets, reduction="none", label_smoothing=smoothing
    )
    # Smaller ones have lost digits, and NaN is 0 log 0.
    if not (rows.numel() and rows.amin().item() > -blocks.DOMINANT_IN_FLOAT64):
        return None
    reduction = options["reduction"]
    value = rows if reduction == "none" else rows.mean() if reduction == "mean" else rows.sum()
    return value.to(options["dtype"] or logits.dtype)


def _is_eager(x):
    """Tell whether `x` can be computed in blocks on the CPU."""
    return type(x) in _PLAIN and x.is_cpu and not _is_traced()


def _is_traced():
    """Tell whether more is to become of the operations than a value and its first derivative."""
    return (
        is_compiling()
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or _is_recorded()
    )


def _is_recorded():
    """Tell whether operations are written down, to be run again on other shapes."""
    return dispatch_modes() > 0 or torch.jit.is_tracing()


def _differentiable(operation, logits, targets, options):
    """Compute a loss by operations of which every transform knows the derivative."""
    if type(logits) not in _PLAIN:
        targets = _beside(logits, targets)
        options = {name: _beside(logits, value) for name, value in options.items()}
    return getattr(_rows, operation)(_this, logits, targets, **options)


def _value_and_pull(operation, logits, targets, options):
    """Compute a loss, and a function of (logits, cotangent) that gives the logits' cotangent."""
    if logits.is_cpu and logits.numel() <= blocks.HOST_ELEMENTS:
        return _on_host(operation, logits, targets, options)
    with torch.no_grad():
        return getattr(_rows, operation)(_this, logits, targets, gradient=True, **options)


def _on_host(operation, logits, targets, options):
    """By NumPy, whose calls cost a third of torch's, and in float64: few numbers cost no more."""
    given = options | {"dtype": None}
    for name, value in options.items():
        if isinstance(value, Tensor):
            given[name] = _host(value)
    value, pull = host.value_and_pull(operation, _host(logits), _host(targets), given)
    value = torch.as_tensor(value, dtype=options["dtype"] or logits.dtype)
    return value, lambda logits, of_value: torch.as_tensor(
        pull(_host(logits), _host(of_value)), dtype=logits.dtype
    )


def _host(x):
    """Return a tensor of the CPU as NumPy's array."""
    if x.dtype.is_floating_point and x.dtype not in _WIDE:
        x = x.double()
    x = x.numpy(force=True)  # also of what requires a gradient
    return x.astype(np.float64, copy=False) if x.dtype.kind == "f" else x


class _Loss(torch.autograd.Function):
    """A loss of which only the first derivative by the logits is written out.

    It stands in the graph as one node, which keeps the logits and a few numbers per row. In the
    older style: that with `setup_context` binds a signature on each call, 30 µs.
    """

    @staticmethod
    def forward(ctx, logits, targets, operation, options):
        ctx.save_for_backward(logits, targets)
        ctx.arguments = operation, options
        value, ctx.pull = _value_and_pull(operation, logits, targets, options)
        return value

    @staticmethod
    def backward(ctx, of_value):
        logits, targets = ctx.saved_tensors
        if not (torch.is_grad_enabled() or _is_traced() or is_legacy_batchedtensor(of_value)):
            return ctx.pull(logits, of_value), None, None, None
        operation, options = ctx.arguments
        with torch.enable_grad():
            value = _differentiable(operation, logits, targets, options)
            (of_logits,) = torch.autograd.grad(value, logits, of_value, create_graph=True)
        return of_logits, None, None, None


def _result(x, dtype):
    """Under autocast float32, as torch.nn.functional.cross_entropy returns there."""
    device = x.device.type
    if dtype is None and x.dtype in _HALF and device != "meta":  # which has no autocast
        return torch.float32 if torch.is_autocast_enabled(device) else None
    return dtype


def _beside(x, value):
    """Return `value` for use with `x`: beside a DTensor a plain tensor counts as replicated."""
    if type(x) in _PLAIN or type(value) not in _PLAIN or not hasattr(x, "device_mesh"):
        return value
    from torch.distributed.tensor import DTensor, Replicate

    mesh = x.device_mesh
    return DTensor.from_local(value, mesh, [Replicate()] * mesh.ndim, run_check=False)


# --- what is it -----------------------------------------------------------------------------------
_HALF = (torch.float16, torch.bfloat16)
_WIDE = (torch.float32, torch.float64)


def is_native(value, like):
    return isinstance(value, Tensor)


def is_array(value):
    return isinstance(value, Tensor)  # a number may be symbolic while compiling


is_compiling = torch.compiler.is_compiling


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
        or type(x) not in _PLAIN
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
amax = torch.amax
ones_like = torch.ones_like
permute = torch.permute
sigmoid = torch.sigmoid


def expm1(x):
    # torch differentiates it to expm1(x) + 1, which is rounded at 1 where e^x is small.
    e = torch.exp(x)
    return torch.expm1(x.detach()) + (e - e.detach())


def default_float(x):
    return torch.get_default_dtype()


def astype(x, dtype):
    return x.to(dtype)


def compute(x):
    return x.to(blocks.wide_dtype(x.dtype))


def compute_like(x, logits):
    return x.to(blocks.wide_dtype(logits.dtype))


def as_index(labels):
    index = labels.long()
    if labels.dtype is torch.uint64:  # 2**64 - 100 has become -100, which would be ignored
        index = index.masked_fill(index < 0, 2**62)
    return index


def stop_gradient(x):
    return x.detach()


def sum(x, axis):
    return x.sum() if axis is None else x.sum(axis)


def any(x, axis):
    return x.any(axis) if isinstance(axis, int) else x.sum(axis) > 0


def take(vector, labels):
    # vector[labels] of a 0-d label is to Dynamo a number that it does not know.
    return vector.index_select(0, labels.reshape(-1)).reshape(labels.shape)


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
_PLAIN = (Tensor, torch.nn.Parameter)


def softmax_rows(x, axis, dtype):
    dtype = x.dtype if dtype is None else dtype
    # Except along the last axis, torch's CPU kernel rounds e^d to half before it divides: 1.4 ULP.
    rounded = x.dtype in _HALF and axis != x.ndim - 1 and x.is_cpu
    if dtype is x.dtype and not rounded:
        if _is_eager(x) and _gains_by_blocks(x, axis):
            return _by_output(x, axis, _eager_softmax, _softmax_derivative)
        try:
            return torch.softmax(x, axis)
        except NotImplementedError:  # torch has none of 8 bits
            pass
    wide = torch.float64 if dtype is torch.float64 else blocks.wide_dtype(x.dtype)
    return torch.softmax(x, axis, dtype=wide).to(dtype)


def _gains_by_blocks(x, axis):
    is_large = x.nbytes > blocks.FRESH_BYTES
    if x.dtype not in _WIDE:
        return is_large and x.dtype in _HALF and blocks.has_kernel(x.shape, axis)
    has_short_rows = x.shape[axis] < blocks.SHORT_ROW and x.stride(axis) == 1
    return is_large or (has_short_rows and x.numel() > blocks.SHORT_ELEMENTS)


def log_softmax_rows(x, axis, dtype):
    x = compute(x)  # once: of half-precision x the two parts of the gradient would be rounded each
    if _is_eager(x) and x.numel():
        if x.numel() <= blocks.HOST_ELEMENTS and x.dtype is not torch.float64:
            log_p = torch.log_softmax(x, axis, dtype=torch.float64)
            if not log_p.amax().item() > blocks.DOMINANT_IN_FLOAT64:
                return log_p.to(dtype)
        return _by_output(x, axis, _eager_log_softmax, _log_softmax_derivative).to(dtype)
    _, _, log_sum, top = row_statistics(x, axis, None, None, None)
    return (x - top.unsqueeze(axis) - log_sum.unsqueeze(axis)).to(dtype)


def _eager_softmax(x, axis):
    if blocks.has_kernel(x.shape, axis):
        return torch.softmax(x, axis, out=blocks.empty(x.shape, x.dtype))
    return blocks.each(blocks.softmax_into, x, axis)


def _eager_log_softmax(x, axis):
    if x.numel() <= blocks.HOST_ELEMENTS:
        out = host.log_softmax(_host(x), axis, None, None, None)
        return torch.as_tensor(out, dtype=x.dtype)
    return blocks.each(blocks.log_softmax_into, x, axis)


def _by_output(x, axis, compute, derivative):
    if torch.is_grad_enabled() and x.requires_grad:
        return _ByOutput.apply(x, axis, compute, derivative)
    return compute(x, axis)


class _ByOutput(torch.autograd.Function):
    """An eager activation whose derivative torch has as a function of its output."""

    @staticmethod
    def forward(ctx, x, axis, compute, derivative):
        ctx.axis, ctx.derivative = axis, derivative
        out = compute(x, axis)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, of_out):
        (out,) = ctx.saved_tensors
        of_x = None
        if not (torch.is_grad_enabled() or _is_traced() or is_legacy_batchedtensor(of_out)):
            of_x = blocks.empty(out.shape, out.dtype)
        return ctx.derivative(of_out, out, ctx.axis, of_x), None, None, None


def _softmax_derivative(of_out, out, axis, of_x):
    return torch._softmax_backward_data(of_out, out, axis, out.dtype, grad_input=of_x)


def _log_softmax_derivative(of_out, out, axis, of_x):
    return torch._log_softmax_backward_data(of_out, out, axis, out.dtype, out=of_x)


def row_statistics(x, axis, labels, weights, skip, lse=True):
    if not (lse or torch.is_grad_enabled()) and _in_blocks(x) and blocks.has_kernel(x.shape, axis):
        rows = blocks.picked_and_dot(x, axis, labels, weights)
        if skip is not None:
            rows = tuple(v if v is None else v.masked_fill(skip, 0.0) for v in rows)
        return rows
    if not (weights is None or is_array(weights)):
        weights = x.new_full((1,) * x.ndim, weights, dtype=blocks.wide_dtype(x.dtype))
    if is_compiling():
        return _RowStatistics.apply(x, axis, labels, weights, skip)
    if type(x) not in _PLAIN:
        # A DTensor and its like: blocks would break it up.
        if skip is not None:
            x = torch.where(skip.unsqueeze(axis), 0.0, x)
        rows = _statistics(x, axis, labels, weights)
        if skip is not None:
            rows = [v if v is None else torch.where(skip, 0.0, v) for v in rows]
        return rows
    if not torch.is_grad_enabled() and not _is_traced():
        return _RowStatistics.forward(x, axis, labels, weights, skip)
    return _TransformableRowStatistics.apply(x, axis, labels, weights, skip)


def _in_blocks(x):
    return (
        not (is_compiling() or _is_recorded())
        and type(x) in _PLAIN
        and x.is_cpu
        and x.numel() > blocks.BLOCK_ELEMENTS
        and peek_interpreter_stack() is None
    )


def _statistics(x, axis, labels, weights):
    """Compute the row statistics by ops whose own derivative is right, ties of the max included."""
    x = x.to(blocks.wide_dtype(x.dtype))
    top = x.amax(axis, keepdim=True)
    d = x - top
    others = torch.where(d == 0, 0.0, torch.exp(d)).sum(axis, keepdim=True)
    log_sum = torch.log1p(others + ((d == 0).sum(axis, keepdim=True) - 1))
    picked = dot = None
    if labels is not None:
        index = labels.unsqueeze(axis)
        picked = (d.gather(axis, index) - log_sum).squeeze(axis)
    if weights is not None:
        dot = blocks.weighted(weights, d - log_sum).sum(axis)
    return picked, dot, log_sum.squeeze(axis), top.squeeze(axis)


class _RowStatistics(torch.autograd.Function):
    """Row statistics that keep the logits and a few numbers per row for the backward pass.

    These are saved as outputs, so that second derivatives flow through them; the max is a
    constant, since any shift cancels.
    """

    @staticmethod
    def forward(x, axis, labels, weights, skip):
        if _in_blocks(x):
            rows = blocks.statistics(x, axis, labels, weights)
        else:
            rows = _statistics(x, axis, labels, weights)
        if skip is not None:
            rows = tuple(v if v is None else v.masked_fill(skip, 0.0) for v in rows)
        return rows

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.axis, labels, weights, skip = inputs
        log_p, _, log_sum, top = output
        ctx.mark_non_differentiable(top)
        ctx.save_for_backward(x, labels, weights, skip, log_p, log_sum, top)
        ctx.save_for_forward(x, labels, weights, skip, log_p, log_sum, top)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, of_picked, of_dot, of_log_sum, _):
        x, labels, weights, skip, log_p_y, log_sum, top = ctx.saved_tensors
        axis = ctx.axis
        by_x = by_weights = None
        if of_dot is not None and ctx.needs_input_grad[3]:
            log_p = x.to(top.dtype) - top.unsqueeze(axis) - log_sum.unsqueeze(axis)
            log_p = torch.where((weights == 0) & (log_p == -torch.inf), 0.0, log_p)
            by_weights = of_dot.unsqueeze(axis) * log_p
            if skip is not None:
                by_weights = torch.where(skip.unsqueeze(axis), 0.0, by_weights)
            by_weights = by_weights.sum_to_size(weights.shape)
        if ctx.needs_input_grad[0]:
            a = of_log_sum
            if of_picked is not None:
                a = -of_picked if a is None else a - of_picked
            if of_dot is not None:
                total = weights.expand(x.shape).sum(axis) * of_dot
                a = -total if a is None else a - total
            if a is not None:
                at_label = None
                if of_picked is not None:
                    at_label = _at_label(log_p_y, a, of_picked)
                if _in_blocks(x) and not torch.is_grad_enabled():
                    by_x = blocks.gradient(x, axis, labels, weights, skip, a, at_label, of_dot)
                else:
                    by_x = _gradient(
                        x, axis, labels, weights, skip, log_sum, top, a, at_label, of_dot
                    )
        return by_x, None, None, by_weights, None


class _TransformableRowStatistics(_RowStatistics):
    """With rules for forward mode and vmap, which Dynamo refuses ("Unsupported custom jvp")."""

    @staticmethod
    def jvp(ctx, dx, _axis, _labels, dweights, _skip):
        x, labels, weights, skip, log_p_y, log_sum, top = ctx.saved_tensors
        axis = ctx.axis
        log_p = x.to(top.dtype) - top.unsqueeze(axis) - log_sum.unsqueeze(axis)
        dx = torch.zeros_like(log_p) if dx is None else dx.to(log_p.dtype)
        if skip is not None:
            dx = torch.where(skip.unsqueeze(axis), 0.0, dx)
            log_p = torch.where(skip.unsqueeze(axis), 0.0, log_p)
        p = torch.exp(log_p)
        d_log_sum = (p * dx).sum(axis)
        d_picked = d_dot = None
        if labels is not None:
            # dx_y - Σ p dx, with 1 - p = -expm1(log p) at the label: saturated rows keep digits.
            at_label = torch.expm1(log_p_y).unsqueeze(axis)
            d_picked = -(p.scatter(axis, labels.unsqueeze(axis), at_label) * dx).sum(axis)
        if weights is not None:
            d_dot = (weights * (dx - d_log_sum.unsqueeze(axis))).sum(axis)
            if dweights is not None:
                d_dot = d_dot + blocks.weighted(dweights, log_p).sum(axis)
        return d_picked, d_dot, d_log_sum, None

    @staticmethod
    def vmap(info, in_dims, x, axis, labels, weights, skip):
        # A batch only adds rows: it becomes the first axis.
        def batched(value, dim):
            if value is None:
                return None
            if dim is None:
                return value.unsqueeze(0).expand(info.batch_size, *value.shape)
            return value.movedim(dim, 0)

        x, labels, weights, skip = (
            batched(value, in_dims[i])
            for i, value in ((0, x), (2, labels), (3, weights), (4, skip))
        )
        if weights is not None:  # it broadcasts from the right, and the batch stands left
            ones = (1,) * (x.ndim - weights.ndim)
            weights = weights.reshape(info.batch_size, *ones, *weights.shape[1:])
        rows = _TransformableRowStatistics.apply(x, axis + 1, labels, weights, skip)
        return rows, tuple(None if v is None else 0 for v in rows)


def row_gradient(x, axis, rows, labels, weights, skip, a, b, c):
    log_p, _, log_sum, top = rows
    at_label = None if labels is None else _at_label(log_p, a, b)
    if _in_blocks(x):
        return blocks.gradient(x, axis, labels, weights, skip, a, at_label, c)
    a, c = (v if v is None else torch.broadcast_to(torch.as_tensor(v), top.shape) for v in (a, c))
    return _gradient(x, axis, labels, weights, skip, log_sum, top, a, at_label, c)


def _at_label(log_p, a, b):
    # a p + b as (a+b) p + b (1-p): in saturated rows a is -b, and 1 - p = -expm1(log p) keeps its
    # digits.
    return (a + b) * torch.exp(log_p) - b * torch.expm1(log_p)


def _gradient(x, axis, labels, weights, skip, log_sum, top, a, at_label, c):
    """a·p + c·w, and `at_label` for a·p at the labels; differentiable."""
    p = torch.exp(x.to(top.dtype) - top.unsqueeze(axis) - log_sum.unsqueeze(axis))
    out = a.unsqueeze(axis) * p
    if at_label is not None:
        out = out.scatter(axis, labels.unsqueeze(axis), at_label.unsqueeze(axis))
    if c is not None:
        out = out + c.unsqueeze(axis) * weights
    if skip is not None:
        out = torch.where(skip.unsqueeze(axis), 0.0, out)
    return out.to(x.dtype)
