"""PyTorch: the loss of logits that are a product, in chunks of rows.

If only a first derivative is needed, the loss is one node of the graph, and the gradients of a loss
that is one number are computed in the forward pass. Otherwise it consists of plain operations,
which keep every chunk. Not measured on a GPU.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softmaxkit import _linear
from softmaxkit._chunk import Products, Whole
from softmaxkit.backends import LinearOutputs, Operands
from softmaxkit.backends.torch import arrays as ops
from softmaxkit.backends.torch import blocks, compiled, eager
from softmaxkit.backends.torch import rows as kernels
from softmaxkit.backends.torch.arrays import (
    PLAIN,
    has_written_derivative,
    is_differentiated_again,
    is_eager,
)
from softmaxkit.backends.torch.memory import HALF
from softmaxkit.backends.torch.mesh import is_sharded


def linear_loss(operands, targets, options):
    if is_sharded(operands.weight_matrix, 0) and not options.all_outputs:
        from softmaxkit.backends.torch import mesh_linear  # it imports torch.distributed.tensor

        return mesh_linear.linear_loss(operands, targets, options)
    return outside_autocast(_loss, operands, targets, options)


def outside_autocast(loss, operands, targets, options):
    """Return the loss as under autocast: products in half precision, the loss in float32."""
    device = operands.hidden.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return loss(operands, targets, options)
    half = torch.get_autocast_dtype(device)
    floats = (torch.float32, *HALF)
    operands = operands._make(
        one.to(half) if one is not None and one.dtype in floats else one for one in operands
    )
    given = options.of_logits
    if given.dtype is None and operands.hidden.dtype is half:
        options = options._replace(of_logits=given._replace(dtype=torch.float32))
    with torch.autocast(device, enabled=False):
        return loss(operands, targets, options)


def linear_value_and_grad(operands, targets, options):
    present = [one for one in operands if one is not None]

    def loss_of(*leaves):
        value = linear_loss(operands._make((*leaves, None)[:3]), targets, options)
        return (value.loss, value[1:]) if options.all_outputs else (value, ())

    if ops.is_compiling():  # Dynamo traces torch.func, but not autograd.grad
        loss, pull, beside = torch.func.vjp(loss_of, *present, has_aux=True)
        found = pull(torch.ones_like(loss))
    else:
        leaves = [one.detach().requires_grad_() for one in present]
        with torch.enable_grad():
            loss, beside = loss_of(*leaves)
            found = torch.autograd.grad(loss, leaves, torch.ones_like(loss))
        loss, beside = loss.detach(), [one if one is None else one.detach() for one in beside]
    value = LinearOutputs(loss, *beside) if options.all_outputs else loss
    return value, operands._make((*found, None)[:3])


def _loss(operands, targets, options):
    flat, labels, of_flat = _linear.flattened(ops, operands, targets, options)
    kept = _kept(flat, labels, of_flat)
    if kept is not None:
        count = len(labels)
        flat, labels, of_flat = _linear.without_ignored(
            ops, flat, labels, of_flat, lambda rows: rows.index_select(0, kept)
        )
    given = of_flat.of_logits
    if options.all_outputs:  # the losses are reduced afterwards
        of_flat = of_flat._replace(of_logits=given._replace(reduction="none"))
    outputs = _outputs(flat, labels, of_flat)
    if options.all_outputs:
        outputs, _ = _linear.reduced(ops, outputs, flat, labels, given)
    if kept is not None:

        def place(rows, fill):
            return rows.new_full((count,), fill).index_copy(0, kept, rows)

        outputs = _linear.put_back(outputs, place)
    return _linear.shaped(ops, operands, options, outputs, None)[0]


def _kept(operands, targets, options):
    """Return the indices of rows that are not ignored; None for all, or if labels are not read."""
    hidden, ignored = operands.hidden, options.of_logits.ignore_index
    if ignored is None or targets.is_floating_point():
        return None
    if not (hidden.is_cpu and is_eager(hidden) and is_eager(targets)):
        return None
    counts = targets != ignored
    return None if bool(counts.all()) else counts.nonzero().squeeze(1)


def _outputs(operands, targets, options):
    tensors = (*operands, targets, *options.of_logits)
    trains = [
        isinstance(one, Tensor) and torch.is_grad_enabled() and one.requires_grad for one in tensors
    ]
    is_node = all(type(one) in PLAIN for one in tensors if isinstance(one, Tensor))
    is_node &= is_eager(operands.hidden) or has_written_derivative()
    if not is_node or any(trains[3:]):
        return _plainly(operands, targets, options)
    if any(trains[:3]):
        given = options.of_logits
        names = [name for name, one in given._asdict().items() if isinstance(one, Tensor)]
        beside = [getattr(given, name) for name in names]
        bare = options._replace(of_logits=given._replace(**dict.fromkeys(names)))
        return LinearOutputs(*_LinearLoss.apply(bare, names, *operands, targets, *beside))
    return _call(operands, targets, options, None)[0]


class _LinearLoss(torch.autograd.Function):
    """A linear loss as one node; saves the gradients or, if losses are not reduced, operands."""

    @staticmethod
    def forward(ctx, options, names, *tensors):
        operands, targets, beside = Operands(*tensors[:3]), tensors[3], tensors[4:]
        ctx.options, ctx.names, ctx.is_fresh = options, names, True
        ctx.wanted = Operands(*ctx.needs_input_grad[2:5])
        options = _with(options, names, beside)
        wanted = None if options.of_logits.reduction == "none" else ctx.wanted
        outputs, found = _call(operands, targets, options, wanted)
        found = found or (None, None, None)
        ctx.save_for_backward(*operands, targets, *found, *beside)
        if outputs.argmax is not None:
            ctx.mark_non_differentiable(outputs.argmax)
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *of_outputs):
        saved = ctx.saved_tensors  # read once: activation checkpointing refuses a second time
        operands, targets, found = Operands(*saved[:3]), saved[3], saved[4:7]
        options = _with(ctx.options, ctx.names, saved[7:])
        rest = (None,) * (1 + len(ctx.names))
        again = [one is not None and is_differentiated_again(one) for one in of_outputs]
        if any(again) and not ops.is_compiling():
            return None, None, *_differentiably(ctx, operands, targets, options, of_outputs), *rest
        # If a sum of no rows is divided by 0, the cotangent is infinite; 0 x inf must be 0.
        largest = torch.finfo(of_outputs[0].dtype).max
        of_value = of_outputs[0].clamp(-largest, largest)
        if options.of_logits.reduction == "none":
            of_rows = LinearOutputs(*of_outputs)._replace(argmax=None)
            _, found = _call(operands, targets, options, ctx.wanted, of_rows)
        elif ops.is_compiling():
            found = [one if one is None else one * of_value for one in found]
        elif ctx.is_fresh:
            # The first backward pass scales the saved gradients in place. autograd must not see
            # that: it would refuse a second backward pass, which computes them again.
            found = [one if one is None else one.data.mul_(of_value) for one in found]
            ctx.is_fresh = False
        else:
            _, found = _call(operands, targets, options, ctx.wanted)
            found = [one if one is None else one.mul_(of_value) for one in found]
        pairs = zip(found, operands, strict=True)
        return None, None, *(one if one is None else one.to(of.dtype) for one, of in pairs), *rest


def _with(options, names, beside):
    given = options.of_logits._replace(**dict(zip(names, beside, strict=True)))
    return options._replace(of_logits=given)


def _differentiably(ctx, operands, targets, options, of_outputs):
    """Return gradients that can be differentiated again."""
    needs = ctx.wanted
    inputs = [one for one, is_needed in zip(operands, needs, strict=True) if is_needed]
    with torch.enable_grad():
        outputs = _plainly(operands, targets, options)
        pairs = zip(outputs, of_outputs, strict=True)
        pairs = [(one, of) for one, of in pairs if of is not None and one.requires_grad]
        outputs, of_outputs = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, inputs, of_outputs, create_graph=True))
    return [next(found) if is_needed else None for is_needed in needs]


def _plainly(operands, targets, options):
    call = operands, targets, options._replace(block_size=None)
    return _linear.loss(ops, kernels, PRODUCTS, call)[0]


def _call(operands, targets, options, wanted, of_rows=None):
    def loss(kernels, whole=Whole):
        call = operands, targets, options
        return _linear.loss(
            ops, kernels, PRODUCTS, call, wanted=wanted, of_rows=of_rows, whole=whole
        )

    if ops.is_compiling():
        return loss(compiled.Written)
    whole = Whole if options.all_outputs else _Fused
    return eager.attempted(
        operands.hidden, lambda triton: loss(triton, whole), lambda: loss(blocks)
    )


class _Fused(Whole):
    """Logits of a chunk that a kernel of Triton caps, masks and scales as it reads them."""

    def __init__(self, ops, kernels, products, operands, options):
        super().__init__(ops, kernels, products, operands, options._replace(softcap=None))
        given = self._given
        self._kernels = self._classes = kernels.Fused(
            1, given.where, given.temperature, options.softcap
        )


# --- products -------------------------------------------------------------------------------------
# An accelerator multiplies half-precision operands into a float32 result; a CPU does not.
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


PRODUCTS = Products(_operand, _product, _against, _add_outer, _times)
