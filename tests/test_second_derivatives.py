"""Second derivatives where the label's probability is next to nothing: mpmath's, in every library.

The derivative of expm1 is e^x. Made as expm1(x) + 1, as torch and JAX make it, it is rounded at 1,
and nothing is left of p = 2e-18: a Hessian of cross-entropy is 0 there, not p (1 - p).
"""

import mpmath
import numpy as np
import pytest

import softmaxkit

Z = -40.0
OTHERS = [0.0, 0.5]
LOSSES = {"cross_entropy": 0.0, "focal_loss, 1": 1.0, "focal_loss, 2": 2.0, "focal_loss, 5": 5.0}
EXACT = {"rel": 1e-12, "abs": 0}  # some ten roundings of float64


@pytest.fixture(params=LOSSES)
def loss(request):
    """Return a loss of logits and labels, and its second derivative by the label's logit."""
    gamma = LOSSES[request.param]

    def truth(z):
        p = mpmath.exp(z) / (mpmath.exp(z) + sum(map(mpmath.exp, OTHERS)))
        return -((1 - p) ** gamma) * mpmath.log(p)

    def call(x, y):
        if request.param == "cross_entropy":
            return softmaxkit.cross_entropy(x, y)
        return softmaxkit.focal_loss(x, y, gamma=gamma)

    with mpmath.workdps(60):
        return call, float(mpmath.diff(truth, Z, 2))


def test_torch(torch, loss):
    call, expected = loss
    x, y = torch.tensor([[Z, *OTHERS]], dtype=torch.float64), torch.tensor([0])
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(call(leaf, y), leaf, create_graph=True)
    (second,) = torch.autograd.grad(first[0, 0], leaf)
    assert second[0, 0].item() == pytest.approx(expected, **EXACT)
    func = torch.func
    for outer, inner in ((func.jacrev, func.jacrev), (func.jacfwd, func.jacrev),
                         (func.jacfwd, func.jacfwd)):  # fmt: skip
        hessian = outer(inner(lambda x: call(x, y)))(x)
        assert hessian[0, 0, 0, 0].item() == pytest.approx(expected, **EXACT)


def test_jax(jax, loss):
    call, expected = loss
    x, y = np.array([[Z, *OTHERS]]), np.array([0])
    for outer, inner in ((jax.jacrev, jax.jacrev), (jax.jacfwd, jax.jacrev),
                         (jax.jacfwd, jax.jacfwd)):  # fmt: skip
        hessian = outer(inner(lambda x: call(x, y)))(x)
        assert float(hessian[0, 0, 0, 0]) == pytest.approx(expected, **EXACT)


def test_tensorflow(tf, loss):
    call, expected = loss
    x, y = tf.constant([[Z, *OTHERS]], tf.float64), tf.constant([0])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            value = call(x, y)
        first = inner.gradient(value, x)[0, 0]
    second = outer.gradient(first, x)
    assert float(second[0, 0]) == pytest.approx(expected, **EXACT)
