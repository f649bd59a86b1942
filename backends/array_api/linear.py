"""Array-API libraries: the loss of logits that are a product, in chunks of rows."""

from __future__ import annotations

import operator

from softmaxkit import _linear
from softmaxkit._chunk import Products
from softmaxkit.backends import Operands
from softmaxkit.backends.array_api import arrays as ops
from softmaxkit.backends.array_api import rows as kernels


def linear_loss(operands, targets, options):
    return _call(operands, targets, options, None)[0]


def linear_value_and_grad(operands, targets, options):
    return _call(operands, targets, options, Operands(True, True, True))


def _call(operands, targets, options, wanted):
    call = _linear.flattened(ops, operands, targets, options)
    outputs, found = _linear.loss(ops, kernels, PRODUCTS, call, wanted=wanted)
    return _linear.shaped(ops, operands, options, outputs, found)


def _add_outer(total, a, b):
    outer = a.T @ b
    return outer if total is None else total + outer


def _against(a, b):
    return a @ b.T


PRODUCTS = Products(ops.compute, operator.matmul, _against, _add_outer, operator.mul)
