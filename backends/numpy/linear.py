"""NumPy: the loss of logits that are a product, by chunks of rows."""

from __future__ import annotations

import numpy as np

from softmaxkit import _linear
from softmaxkit._chunk import Products
from softmaxkit.backends import Operands
from softmaxkit.backends.numpy import arrays as ops
from softmaxkit.backends.numpy import rows as kernels
from softmaxkit.backends.numpy.blocks import silent

# Rows of the weight matrix's gradient to which a product is added at once.
_ROWS = 1 << 12


def linear_loss(operands, targets, options):
    return _call(operands, targets, options, None)[0]


def linear_value_and_grad(operands, targets, options):
    return _call(operands, targets, options, Operands(True, True, True))


@silent
def _call(operands, targets, options, wanted):
    call, kept = _kept(*_linear.flattened(ops, operands, targets, options))
    outputs, found = _linear.loss(ops, kernels, PRODUCTS, call, wanted=wanted)
    if kept is not None:
        outputs, found = _put_back(kept, outputs, found)
    value, found = _linear.shaped(ops, operands, options, outputs, found)
    return value._replace(loss=value.loss[()]) if options.all_outputs else value[()], found


def _kept(operands, targets, options):
    """Return the call without its ignored rows, and the places of the others; None for all."""
    given = options.of_logits
    if given.ignore_index is None or targets.dtype.kind == "f":
        return (operands, targets, options), None
    kept = targets != given.ignore_index
    by_row = {
        name: value[kept]
        for name in ("sample_weight", "temperature")
        if np.ndim(value := getattr(given, name))
    }
    options = options._replace(of_logits=given._replace(ignore_index=None, **by_row))
    return (operands._replace(hidden=operands.hidden[kept]), targets[kept], options), kept


def _put_back(kept, outputs, found):
    def whole(part, left_out=0):
        if part is None or not part.ndim:
            return part
        out = np.full((len(kept), *part.shape[1:]), left_out, part.dtype)
        out[kept] = part
        return out

    argmax = whole(outputs.argmax, -1)
    outputs = outputs._make(whole(one) for one in outputs)._replace(argmax=argmax)
    return outputs, found if found is None else found._replace(hidden=whole(found.hidden))


# --- products -------------------------------------------------------------------------------------
def _add_outer(total, a, b):
    if total is None:
        return a.T @ b
    for start in range(0, len(total), _ROWS):
        part = slice(start, start + _ROWS)
        total[part] += a[:, part].T @ b
    return total


def _times(total, factor):
    return np.multiply(total, factor, out=total)


def _against(a, b):
    return a @ b.T


PRODUCTS = Products(ops.compute, np.matmul, _against, _add_outer, _times)
