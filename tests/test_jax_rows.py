"""The row statistics of JAX are the same in each of the forms that shapes choose between."""

from functools import partial

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import reference

RNG = np.random.default_rng(0)


# Rows of few classes: an even number of them is summed class by class, a larger odd one is not.
@pytest.mark.parametrize("rows", [300, 301])
def test_an_odd_number_of_rows_and_a_symbolic_one(jax, rows):
    logits = RNG.normal(0, 2, (rows, 10))
    logits[0, 7] = 60.0  # dominates
    logits[1, [3, -1]] = 20.0
    targets = RNG.integers(0, 10, rows)
    targets[:2] = 7, 3
    x, y = jax.numpy.asarray(logits), jax.numpy.asarray(targets)
    loss = jax.jit(partial(softmaxkit.cross_entropy, reduction="none"))
    truth = reference.cross_entropy(logits, targets, reduction="none")
    # A logit of 60 is rounded at 7e-15, and so is e^(z - 60), which makes the first row's loss.
    np.testing.assert_allclose(loss(x, y), truth, rtol=1e-14, atol=0)
    shape = jax.export.symbolic_shape("rows, 10")
    specs = (jax.ShapeDtypeStruct(s, v.dtype) for s, v in ((shape, x), (shape[:1], y)))
    exported = jax.export.export(loss)(*specs)
    np.testing.assert_allclose(exported.call(x, y), truth, rtol=1e-14, atol=0)
