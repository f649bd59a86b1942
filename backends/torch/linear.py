"""PyTorch: the loss of logits that are a product, by chunks of rows.

Where a first derivative is all that is asked for, one node of the graph: the gradients of a loss
that is one number are made on the way forward. Else plain operations, which keep every chunk.
Not measured on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softmaxkit import _linear
from softmaxkit.backends import Operands
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import blocks, compiled
from softmaxkit.backends.torch import rows as kernels
from softmaxkit.backends.torch.arrays import PLAIN, has_written_derivative, is_eager
from softmaxkit.backends.torch.memory import HALF
from softmaxkit.backends.torch.rows import is_differentiated_again


def linear_loss(operands, targets, options):
    device = operands.hidden.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return _loss(operands, targets, options)
    # Autocast multiplies in half precision, and has losses in float32.
    half = torch.get_autocast_dtype(device)
    floats = (torch.float32, *HALF)
    operands = operands._make(
        one.to(half) if one is not None and one.dtype in floats else one for one in operands
    )
    given = options.of_logits
    if given.dtype is None and operands.hidden.dtype is half:
        options = options._replace(of_logits=given._replace(dtype=torch.float32))
    with torch.autocast(device, enabled=False):
        return _loss(operands, targets, options)


def linear_value_and_grad(operands, targets, options):
    present = [one for one in operands if one is not None]

    def value_of(*leaves):
        return linear_loss(operands._make((*leaves, None)[:3]), targets, options)

    if ops.is_compiling():  # Dynamo traces torch.func, but not autograd.grad
        value, pull = torch.func.vjp(value_of, *present)
        found = pull(torch.ones_like(value))
    else:
        leaves = [one.detach().requires_grad_() for one in present]
        with torch.enable_grad():
            value = value_of(*leaves)
            found = torch.autograd.grad(value, leaves, torch.ones_like(value))
        value = value.detach()
    return value, operands._make((*found, None)[:3])


def _loss(operands, targets, options):
    tensors = (*operands, targets, *options.of_logits)
    trains = [
        isinstance(one, Tensor) and torch.is_grad_enabled() and one.requires_grad for one in tensors
    ]
    is_node = all(type(one) in PLAIN for one in tensors if isinstance(one, Tensor))
    is_node &= is_eager(operands.hidden) or has_written_derivative()
    if is_node and any(trains[:3]) and not any(trains[3:]):
        given = options.of_logits
        names = [name for name, one in given._asdict().items() if isinstance(one, Tensor)]
        beside = [getattr(given, name) for name in names]
        bare = options._replace(of_logits=given._replace(**dict.fromkeys(names)))
        return _LinearLoss.apply(bare, names, *operands, targets, *beside)
    return _value(kernels, operands, targets, options)


class _LinearLoss(torch.autograd.Function):
    """A linear loss as one node, which keeps the gradients, or of rows not reduced the operands."""

    @staticmethod
    def forward(ctx, options, names, *tensors):
        operands, targets, beside = Operands(*tensors[:3]), tensors[3], tensors[4:]
        ctx.options, ctx.names, ctx.is_fresh = options, names, True
        ctx.wanted = Operands(*ctx.needs_input_grad[2:5])
        options = _with(options, names, beside)
        wanted = None if options.of_logits.reduction == "none" else ctx.wanted
        value, found = _call(operands, targets, options, wanted)
        found = found or (None, None, None)
        ctx.save_for_backward(*operands, targets, *found, *beside)
        return _linear.shaped(ops, operands, options, value, None)[0]

    @staticmethod
    def backward(ctx, of_value):
        saved = ctx.saved_tensors  # once: activation checkpointing refuses a second look
        operands, targets, found = Operands(*saved[:3]), saved[3], saved[4:7]
        options = _with(ctx.options, ctx.names, saved[7:])
        rest = (None,) * (1 + len(ctx.names))
        if is_differentiated_again(of_value) and not ops.is_compiling():
            return None, None, *_differentiably(ctx, operands, targets, options, of_value), *rest
        if options.of_logits.reduction == "none":
            _, found = _call(operands, targets, options, ctx.wanted, of_value.reshape(-1))
        elif ops.is_compiling():
            found = [one if one is None else one * of_value for one in found]
        elif ctx.is_fresh:
            # The first gradients take the memory of those that were kept. autograd is not to see
            # that: it would refuse a second backward, for which they are made again.
            found = [one if one is None else one.data.mul_(of_value) for one in found]
            ctx.is_fresh = False
        else:
            _, found = _call(operands, targets, options, ctx.wanted)
            found = [one if one is None else one.mul_(of_value) for one in found]
        _, found = _linear.shaped(ops, operands, options, of_value, Operands(*found))
        return None, None, *found, *rest


def _with(options, names, beside):
    given = options.of_logits._replace(**dict(zip(names, beside, strict=True)))
    return options._replace(of_logits=given)


def _differentiably(ctx, operands, targets, options, of_value):
    """Return the gradients, which can be differentiated again."""
    needs = ctx.wanted
    inputs = [one for one, is_needed in zip(operands, needs, strict=True) if is_needed]
    with torch.enable_grad():
        value = _value(kernels, operands, targets, options)
        found = iter(torch.autograd.grad(value, inputs, of_value, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needs]


def _value(kernels, operands, targets, options):
    call = _linear.flattened(ops, operands, targets, options)
    value, _ = _linear.loss(ops, kernels, PRODUCTS, call)
    return _linear.shaped(ops, operands, options, value, None)[0]


def _call(operands, targets, options, wanted, of_rows=None):
    written = compiled.Written if ops.is_compiling() else blocks
    call = _linear.flattened(ops, operands, targets, options)
    return _linear.loss(ops, written, PRODUCTS, call, wanted=wanted, of_rows=of_rows)


# --- products -------------------------------------------------------------------------------------
# An accelerator multiplies half precision into float32; a CPU does not.
def _operand(x):
    return ops.compute(x) if x.device.type in ("cpu", "meta") else x


def _product(a, b):
    if b.dtype in HALF:
        return torch.mm(a.to(b.dtype), b, out_dtype=torch.float32)
    return a @ b


def _against(a, b):
    return _product(a, b.T.to(torch.promote_types(a.dtype, b.dtype)))


def _add_outer(total, a, b):
    if total is None:
        return _product(a.T, b)
    if b.dtype in HALF or ops.is_compiling():
        return total + _product(a.T, b)
    return total.addmm_(a.T, b)


def _times(total, factor):
    return total * factor if ops.is_compiling() else total.mul_(factor)


PRODUCTS = _linear.Products(_operand, _product, _against, _add_outer, _times)
