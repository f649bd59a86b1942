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


# The first is cut into rows of 20000 for its sums, the second, a prime, cannot be.
@pytest.mark.parametrize("classes", [40000, 40009])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"targets": "soft"}], ids=str)
def test_long_rows(jax, classes, options):
    logits = RNG.normal(0, 2, (5, classes))
    logits[0, 7] = 60.0  # dominates
    logits[1, [3, -1]] = 20.0  # two maxima, far apart
    logits[2, -5] = -np.inf
    targets = np.array([7, -1 % classes, 0, -100, 5])
    if options:
        options = {"weight": RNG.uniform(0.5, 2, classes), **options}
        logits[2, -5] = -20.0
    if options.pop("targets", None):
        targets = RNG.dirichlet(np.ones(classes), 5)
    else:
        logits[3] = np.nan
    x, y = jax.numpy.asarray(logits), jax.numpy.asarray(targets)
    rows = partial(softmaxkit.cross_entropy, reduction="none", **options)
    # 4500 ULP of float64: what sums of 40000 terms may lose; rows mixed up would not meet it.
    truth = reference.cross_entropy(logits, targets, reduction="none", **options)
    np.testing.assert_allclose(jax.jit(rows)(x, y), truth, rtol=1e-12, atol=0)
    gradient = jax.jit(jax.grad(lambda x: rows(x, y).sum()))(x)
    truth = reference.gradient("cross_entropy", logits, targets, reduction="sum", **options)
    # p - q is off by the rounding of p.
    np.testing.assert_allclose(gradient, truth, rtol=1e-12, atol=1e-15)
    log_p = jax.jit(softmaxkit.log_softmax)(x)
    np.testing.assert_allclose(log_p, reference.log_softmax(logits), rtol=1e-12, atol=0)


# 70 rows of one number each are summed at once, 5000 behind a condition: that the first is not NaN.
@pytest.mark.parametrize("rows", [70, 5000])
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy"])
def test_a_first_row_of_nan_among_few_and_many(jax, name, rows):
    logits = RNG.normal(0, 2, (rows, 3))
    targets = RNG.dirichlet(np.ones(3), rows)
    loss = partial(getattr(softmaxkit, name), targets=jax.numpy.asarray(targets))
    truth = getattr(reference, name)(logits, targets)
    gradient = reference.gradient(name, logits, targets)
    step = jax.jit(jax.value_and_grad(loss))
    for first in (logits[0], np.nan):
        logits[0] = first
        got, slope = step(jax.numpy.asarray(logits))
        expected = truth if first is not np.nan else np.nan
        # 1e-13: some 500 roundings, of a sum over 5000 rows and of e^d.
        np.testing.assert_allclose(got, expected, rtol=1e-13, atol=0)
        # p - q is off by the rounding of p.
        np.testing.assert_allclose(slope[1:], gradient[1:], rtol=1e-13, atol=1e-15 / rows)
        assert np.isnan(slope[0]).all() == (first is np.nan)
    one = jax.numpy.asarray(logits), jax.numpy.ones(logits.shape)
    value, tangent = jax.jit(lambda x, d: jax.jvp(loss, (x,), (d,)))(*one)
    assert np.isnan(value)
    assert np.isnan(tangent)
    each = jax.jit(jax.vmap(loss))(jax.numpy.stack([one[0], one[0].at[0].set(0.0)]))
    assert np.isnan(each).tolist() == [True, False]


# A class of -inf makes of one sum two: 0 (-inf) is 0, and a share of it is lost.
@pytest.mark.parametrize("share", [None, 0.0, 1e-300, 0.5])
def test_probabilities_of_many_classes_and_a_logit_of_minus_infinity(jax, share):
    logits, targets = RNG.normal(0, 2, (4, 200)), RNG.dirichlet(np.ones(200), 4)
    if share is not None:
        logits[1, 7], targets[1, 7] = -np.inf, share
    x, y = jax.numpy.asarray(logits), jax.numpy.asarray(targets)
    rows = partial(softmaxkit.cross_entropy, reduction="none")
    truth = reference.cross_entropy(logits, targets, reduction="none")
    assert np.isinf(truth[1]) == bool(share)
    # 1e-14: some 50 roundings, of sums over 200 classes and of e^d.
    np.testing.assert_allclose(jax.jit(rows)(x, y), truth, rtol=1e-14, atol=0)
    gradient = jax.jit(jax.grad(lambda x: rows(x, y).sum()))(x)
    truth = reference.gradient("cross_entropy", logits, targets, reduction="sum")
    # p - q is off by the rounding of p.
    np.testing.assert_allclose(gradient, truth, rtol=1e-13, atol=1e-15)
