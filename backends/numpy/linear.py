"""NumPy: the loss of logits that are a product, in chunks of rows."""

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
    call = _linear.flattened(ops, operands, targets, options)
    kept, ignored = None, call[2].of_logits.ignore_index
    if ignored is not None and call[1].dtype.kind != "f":
        kept = call[1] != ignored
        call = _linear.without_ignored(ops, *call, lambda rows: rows[kept])
    outputs, found = _linear.loss(ops, kernels, PRODUCTS, call, wanted=wanted)
    if kept is not None:

        def place(rows, fill):
            out = np.full((len(kept), *rows.shape[1:]), fill, rows.dtype)
            out[kept] = rows
            return out

        outputs = _linear.put_back(outputs, place)
        found = found and found._replace(hidden=place(found.hidden, 0))
    value, found = _linear.shaped(ops, operands, options, outputs, found)
    return value._replace(loss=value.loss[()]) if options.all_outputs else value[()], found


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
