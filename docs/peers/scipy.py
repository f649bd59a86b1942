"""What SciPy offers; see the package."""

# ruff: noqa: D103 - a function's name says which call it translates

from functools import partial

import scipy.special

softmax = partial(scipy.special.softmax, axis=-1)
log_softmax = partial(scipy.special.log_softmax, axis=-1)


def logsumexp(x, *, axis=-1, keepdims=False, where=None):
    return scipy.special.logsumexp(x, axis, where, keepdims)  # where: weights of 0 and 1
