"""Where softmaxkit.jax differs from jax.nn and optax: the list in its docstring."""

import numpy as np
import pytest

from softmaxkit.conformance import reference

# Of float64, numbers of which are 2.2e-16 apart. Two ways to a number round some ten times each;
FEW_ULP = 1e-14
# a power or a second logarithm multiplies that;
LONGER = 1e-13
# and entries of a gradient are differences of terms that are larger by far.
DIFFERENCE = 1e-12

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (4, 3))
Q = RNG.dirichlet(np.ones(3), 4)
# -inf beside a class that is left.
INF = np.where([[False, True, False]] * 2 + [[False] * 3] * 2, -np.inf, X)


@pytest.fixture
def facade(jax):
    import softmaxkit.jax

    return softmaxkit.jax


@pytest.mark.parametrize("bad", [3, -1, -100])
def test_labels_out_of_range(jax, facade, optax, bad):
    labels = np.array([0, 2, bad, 1])
    with pytest.raises(IndexError, match=f"is {bad}; expected a class index in"):
        facade.softmax_cross_entropy_with_integer_labels(X, labels)
    with pytest.raises(IndexError):
        facade.softmax_focal_loss(X, labels)

    def both(function):
        return jax.jit(lambda x, y: jax.vjp(lambda x: function(x, y), x)[0]), jax.jit(
            lambda x, y: jax.vjp(lambda x: function(x, y), x)[1](np.ones(4))[0]
        )

    value, gradient = both(facade.softmax_cross_entropy_with_integer_labels)
    rows = np.array([False, False, True, False])
    np.testing.assert_array_equal(np.isnan(value(X, labels)), rows)
    np.testing.assert_array_equal(np.isnan(gradient(X, labels)).all(1), rows)
    np.testing.assert_array_equal(np.isnan(gradient(X, labels)).any(1), rows)

    value, gradient = both(optax.softmax_cross_entropy_with_integer_labels)
    assert np.isfinite(gradient(X, labels)).all()
    if bad == -1:
        np.testing.assert_allclose(value(X, labels), value(X, np.array([0, 2, 2, 1])), rtol=FEW_ULP)
    else:
        assert np.isnan(value(X, labels)[2])


def test_a_label_on_a_class_that_is_left_out(facade, optax):
    options = {"where": np.array([[True, True, False]])}
    got = facade.softmax_cross_entropy_with_integer_labels(X[:1], np.array([2]), **options)
    assert got[0] == np.inf
    theirs = optax.softmax_cross_entropy_with_integer_labels(X[:1], np.array([2]), **options)
    np.testing.assert_allclose(theirs[0], np.log(np.exp(X[0, :2]).sum()) - X[0, 2], rtol=FEW_ULP)


def test_0_log_0(jax, facade, optax):
    labels = np.where(np.isneginf(INF), 0.0, Q)
    want = reference.cross_entropy(INF, labels, reduction="none")
    for function in (facade.softmax_cross_entropy, facade.safe_softmax_cross_entropy):
        np.testing.assert_allclose(function(INF, labels), want, rtol=FEW_ULP)
        gradient = jax.grad(lambda x, function=function: function(x, labels).sum())(INF)
        want_gradient = jax.grad(lambda x: optax.safe_softmax_cross_entropy(x, labels).sum())(INF)
        np.testing.assert_allclose(gradient, want_gradient, rtol=DIFFERENCE, atol=1e-15)
    assert np.isnan(optax.softmax_cross_entropy(INF, labels)).tolist() == [True] * 2 + [False] * 2
    poly = facade.poly_loss_cross_entropy(INF, labels, epsilon=2.0)
    p = reference.softmax(INF)
    np.testing.assert_allclose(poly, want + 2 * (labels * (1 - p)).sum(-1), rtol=LONGER)
    gradient = jax.grad(lambda x: facade.poly_loss_cross_entropy(x, labels).sum())(INF)
    assert np.isfinite(gradient).all()


def test_smoothing_gives_classes_that_are_left_out_no_share(facade, optax):
    where = np.array([True, True, False])
    one_hot = np.eye(3)[[0, 1]]
    want = [[0.95, 0.05, 0.0], [0.05, 0.95, 0.0]]
    np.testing.assert_allclose(facade.smooth_labels(one_hot, 0.1, where=where), want, rtol=FEW_ULP)
    theirs = optax.smooth_labels(one_hot, 0.1, where=where)
    np.testing.assert_allclose(theirs, np.add(want, [0, 0, 0.05]), rtol=FEW_ULP)
    by_axes = facade.smooth_labels(one_hot, 0.1, axis=(1, 0), where=where)
    np.testing.assert_allclose(by_axes, [[0.925, 0.025, 0], [0.025, 0.925, 0]], rtol=FEW_ULP)


@pytest.mark.parametrize(
    ("name", "options"),
    [("sigmoid_focal_loss", {"alpha": -1.0}), ("sigmoid_focal_loss", {"gamma": -1.0}),
     ("smooth_labels", {"alpha": 1.5})],
)  # fmt: skip
def test_numbers_out_of_range(facade, optax, name, options):
    arguments = (Q,) if name == "smooth_labels" else (X, Q)
    getattr(optax, name)(*arguments, **options)
    with pytest.raises(ValueError, match="expected a number"):
        getattr(facade, name)(*arguments, **options)


def test_logits_with_no_class(facade, optax):
    empty = np.empty((2, 0))
    assert optax.softmax_cross_entropy(empty, empty).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="expected at least one class"):
        facade.softmax_cross_entropy(empty, empty)


def test_integer_labels_do_not_broadcast(facade, optax):
    optax.softmax_cross_entropy_with_integer_labels(X, np.array([1]))
    with pytest.raises(ValueError, match=r"targets has shape \(1,\); expected \(4,\)"):
        facade.softmax_cross_entropy_with_integer_labels(X, np.array([1]))
