"""softmaxkit.jax is jax.nn and optax: same signatures, values and derivatives, but for its list."""

import doctest
import inspect
import warnings
from importlib import import_module

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
Y = np.array([0, 2, 1, 1])
KEEP = np.array([[True, True, False], [False, True, True], [True, True, True], [True, False, True]])
ROWS = np.array([True, False, True, False])
X4, Q4 = RNG.normal(0, 2, (2, 3, 4, 5)), RNG.random((2, 3, 4, 5))
KEEP4 = RNG.random(X4.shape) < 0.7
BINARY = RNG.random((4, 3))
# -inf beside a class that is left.
INF = np.where([[False, True, False]] * 2 + [[False] * 3] * 2, -np.inf, X)

JAX_NN = ("softmax", "log_softmax", "logsumexp")
OF_INDICES = "softmax_cross_entropy_with_integer_labels"
CASES = {
    "softmax": ("softmax", (X,), {}),
    "softmax, axis": ("softmax", (X4,), {"axis": 1}),
    "softmax, axes": ("softmax", (X4,), {"axis": (0, -1)}),
    "softmax, all axes": ("softmax", (X4,), {"axis": None}),
    "softmax, where": ("softmax", (X,), {"where": KEEP}),
    "softmax, where by row": ("softmax", (X,), {"where": ROWS[:, None]}),
    "softmax, -inf": ("softmax", (INF,), {}),
    "log_softmax": ("log_softmax", (X,), {}),
    "log_softmax, positional": ("log_softmax", (X4, 2), {}),
    "log_softmax, axes": ("log_softmax", (X4,), {"axis": (2, 1)}),
    "log_softmax, where": ("log_softmax", (X,), {"where": KEEP}),
    "logsumexp": ("logsumexp", (X,), {}),
    "logsumexp, axis": ("logsumexp", (X4,), {"axis": 1}),
    "logsumexp, axes": ("logsumexp", (X4,), {"axis": (1, 3), "keepdims": True}),
    "logsumexp, list of axes": ("logsumexp", (X4,), {"axis": [1, 3]}),
    "logsumexp, where": ("logsumexp", (X,), {"axis": -1, "where": KEEP}),
    "softmax_cross_entropy": ("softmax_cross_entropy", (X, Q), {}),
    "softmax_cross_entropy, any sum": ("softmax_cross_entropy", (X, 3 * BINARY), {}),
    "softmax_cross_entropy, one row": ("softmax_cross_entropy", (X[0], Q[0]), {}),
    "softmax_cross_entropy, labels for all": ("softmax_cross_entropy", (X, Q[0]), {}),
    "softmax_cross_entropy, logits for all": ("softmax_cross_entropy", (X[0], Q), {}),
    "softmax_cross_entropy, axis": ("softmax_cross_entropy", (X4, Q4, 1), {}),
    "softmax_cross_entropy, axes": ("softmax_cross_entropy", (X4, Q4), {"axis": (-1, 0)}),
    "softmax_cross_entropy, all axes": ("softmax_cross_entropy", (X4, Q4), {"axis": None}),
    "softmax_cross_entropy, where": ("softmax_cross_entropy", (X, Q), {"where": KEEP}),
    "softmax_cross_entropy, rows": ("softmax_cross_entropy", (X, Q), {"where": ROWS}),
    "softmax_cross_entropy, where and axes": (
        "softmax_cross_entropy", (X4, Q4), {"axis": (1, 2), "where": KEEP4},
    ),
    "softmax_cross_entropy, rows and axes": (
        "softmax_cross_entropy", (X4, Q4), {"axis": (1, 2), "where": KEEP4[:, 0, 0]},
    ),
    "safe_softmax_cross_entropy": ("safe_softmax_cross_entropy", (X, Q), {}),
    "safe_softmax_cross_entropy, labels for all": ("safe_softmax_cross_entropy", (X, Q[0]), {}),
    "integer": (OF_INDICES, (X, Y), {}),
    "integer, one row": (OF_INDICES, (X[0], Y[:1].reshape(())), {}),
    "integer, axis": (OF_INDICES, (X4, RNG.integers(3, size=(2, 4, 5)), 1), {}),
    "integer, axes": (OF_INDICES, (X4, RNG.integers(15, size=(2, 4))), {"axis": (3, 1)}),
    "integer, where": (OF_INDICES, (X, np.array([0, 2, 1, 2])), {"where": KEEP}),
    "integer, rows": (OF_INDICES, (X, Y), {"where": ROWS}),
    "integer, rows and axes": (
        OF_INDICES, (X4, RNG.integers(12, size=(2, 5)), (1, 2)), {"where": KEEP4[:, 0, 0]},
    ),
    "poly": ("poly_loss_cross_entropy", (X, Q), {}),
    "poly, epsilon": ("poly_loss_cross_entropy", (X, Q), {"epsilon": -1.0}),
    "poly, epsilon by row": ("poly_loss_cross_entropy", (X, Q), {"epsilon": X[:, 0]}),
    "poly, axis": ("poly_loss_cross_entropy", (X4, Q4), {"axis": 1}),
    "poly, axes": ("poly_loss_cross_entropy", (X4, Q4), {"axis": (3, 1)}),
    "poly, all axes": ("poly_loss_cross_entropy", (X4, Q4), {"axis": None}),
    "poly, where": ("poly_loss_cross_entropy", (X, Q), {"where": KEEP}),
    "sigmoid": ("sigmoid_binary_cross_entropy", (X, BINARY), {}),
    "sigmoid, labels for all": ("sigmoid_binary_cross_entropy", (X, BINARY[0]), {}),
    "sigmoid, logits for all": ("sigmoid_binary_cross_entropy", (X[:, :1], BINARY), {}),
    "focal": ("sigmoid_focal_loss", (X, BINARY), {}),
    "focal, labels for all": ("sigmoid_focal_loss", (X, BINARY[0]), {}),
    "focal, gamma and alpha": ("sigmoid_focal_loss", (X, BINARY), {"gamma": 0.5, "alpha": 0.25}),
    "focal, gamma 0": ("sigmoid_focal_loss", (X, BINARY), {"gamma": 0}),
    "focal, alpha by class": (
        "sigmoid_focal_loss", (X, BINARY), {"alpha": np.array([0.1, 0.5, 0.9])},
    ),
    "focal, gamma by class": (
        "sigmoid_focal_loss", (X, BINARY), {"gamma": np.array([1.0, 2.0, 0.5]), "alpha": 0.1},
    ),
    "smooth": ("smooth_labels", (Q, 0.1), {}),
    "smooth, axis": ("smooth_labels", (Q4, 0.3), {"axis": 1}),
    "smooth, axes": ("smooth_labels", (Q4, 0.3), {"axis": (3, 1)}),
    "smooth, all axes": ("smooth_labels", (Q4, 0.3), {"axis": None}),
}  # fmt: skip


@pytest.fixture
def facade(jax):
    import softmaxkit.jax

    return softmaxkit.jax


@pytest.fixture
def theirs(request, jax):
    """Return what a façade's function stands for."""

    def find(name):
        return getattr(jax.nn if name in JAX_NN else request.getfixturevalue("optax"), name)

    return find


def assert_close(jax, got, want, rtol, atol=0.0):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=rtol, atol=atol)


# --- as jax.nn and optax --------------------------------------------------------------------------
def test_the_names_of_the_facade(facade):
    peers = {name for name, _, _ in CASES.values()}
    own = {"softmax_focal_loss", "linear_cross_entropy"}
    sharded = {"vocab_parallel_cross_entropy", "vocab_parallel_linear_cross_entropy"}
    assert set(facade.__all__) == peers | own | sharded


@pytest.mark.parametrize("name", sorted({name for name, _, _ in CASES.values()}))
def test_signature(facade, theirs, name):
    def bare(function):
        parameters = inspect.signature(function).parameters.values()
        return [(each.name, each.kind, each.default) for each in parameters]

    assert bare(getattr(facade, name)) == bare(theirs(name))


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives(jax, facade, theirs, case):
    """Backward and forward, jitted, alone and under vmap."""
    name, arguments, options = CASES[case]
    jnp = jax.numpy
    arrays = [each for each in arguments if isinstance(each, np.ndarray)]
    # optax has NaN as the derivative by the labels of classes that are left out.
    count = sum(each.dtype == np.float64 for each in arrays[: 1 if "where" in options else 2])
    rest = [jnp.asarray(each) for each in arrays[count:]] + list(arguments[len(arrays) :])
    floats = tuple(jnp.asarray(each) for each in arrays[:count])

    def run(function):
        def of_floats(*floats):
            return function(*floats, *rest, **options)

        def derivatives(*floats):
            value, pull = jax.vjp(of_floats, *floats)
            cotangent = jnp.cos(jnp.arange(value.size, dtype=value.dtype)).reshape(value.shape)
            tangents = tuple(jnp.sin(1 + each) for each in floats)
            return value, pull(cotangent), jax.jvp(of_floats, floats, tangents)[1]

        def both(*floats):
            batch = (jnp.stack([each, each / 2]) for each in floats)
            return derivatives(*floats), jax.vmap(derivatives)(*batch)

        return jax.jit(both)(*floats)

    # sigmoid_focal_loss: optax's own logsumexp of two is 2e-13 off.
    assert_close(jax, run(getattr(facade, name)), run(theirs(name)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_dtypes(jax, facade, theirs, case, dtype):
    """The dtype of the peer, and within roundings of its result in float64; not jitted."""
    name, arguments, options = CASES[case]
    jnp = jax.numpy

    def cast(value, old, new):
        is_float = isinstance(value, np.ndarray | jax.Array) and value.dtype == old
        return jnp.asarray(value, new) if is_float else value

    low = [cast(each, "float64", dtype) for each in arguments]
    high = [cast(each, dtype, "float64") for each in low]
    options = {key: cast(each, "float64", dtype) for key, each in options.items()}
    got = getattr(facade, name)(*low, **options)
    assert got.dtype == jax.eval_shape(lambda: theirs(name)(*low, **options)).dtype == dtype
    eps = float(jnp.finfo(dtype).eps)
    # Rounded once to bfloat16; in float32 optax's order of operations is another.
    rtol = eps if dtype == "bfloat16" else 16 * eps
    exact = theirs(name)(*high, **options)
    # Results near 0 are differences of numbers near 1.
    np.testing.assert_allclose(got.astype(float), exact, rtol=rtol, atol=eps / 8)


@pytest.mark.parametrize("labels", ["float32", "float64", "int32", "bool"])
def test_cross_entropy_has_the_dtype_to_which_both_promote(jax, facade, optax, labels):
    jnp = jax.numpy
    logits, one_hot = jnp.asarray(X, "bfloat16"), jnp.asarray(np.eye(3)[Y], labels)
    got = facade.softmax_cross_entropy(logits, one_hot)
    want = optax.softmax_cross_entropy(logits, one_hot)
    assert got.dtype == want.dtype
    exact = reference.cross_entropy(np.asarray(logits, float), Y, reduction="none")
    limit = 8 * float(jnp.finfo(got.dtype).eps)  # as the conformance suite's
    np.testing.assert_allclose(got.astype(float), exact, rtol=limit)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint64"])
def test_dtypes_of_labels(jax, facade, optax, dtype):
    labels = jax.numpy.asarray(Y, dtype)
    got = facade.softmax_cross_entropy_with_integer_labels(X, labels)
    want = optax.softmax_cross_entropy_with_integer_labels(X, labels)
    assert_close(jax, got, want, rtol=FEW_ULP)


@pytest.mark.parametrize("dtype", ["int32", "bool", "float32"])
@pytest.mark.parametrize("name", ["sigmoid_binary_cross_entropy", "sigmoid_focal_loss"])
def test_dtypes_of_independent_labels(jax, facade, theirs, name, dtype):
    labels = (BINARY > 0.5).astype(dtype)
    assert_close(jax, getattr(facade, name)(X, labels), theirs(name)(X, labels), 1e-12, 1e-13)


@pytest.mark.parametrize("dtype", ["int64", "float64", "uint8"])
@pytest.mark.parametrize("name", JAX_NN)
def test_activations_of_numpy_arrays_and_integers(jax, facade, theirs, name, dtype):
    x = np.array([[1, 5, 2], [0, 0, 3]], dtype)
    # As floats: jax.nn subtracts integers, and uint8 wraps.
    assert_close(jax, getattr(facade, name)(x), theirs(name)(x.astype(float)), rtol=FEW_ULP)


@pytest.mark.parametrize(
    "options",
    [
        {"b": np.array([1.0, -0.5, 0.25])},
        {"b": np.array([-1.0, -0.5, 0.25]), "return_sign": True, "keepdims": True},
        {"return_sign": True, "axis": 0},
        {"return_sign": True, "where": KEEP, "axis": 1},
        {"b": 2.0, "where": KEEP, "axis": (0, 1)},
    ],
    ids=lambda options: ", ".join(options),
)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_logsumexp_with_factors_and_signs(jax, facade, options, dtype):
    x = X + (1j * Q if dtype == "complex128" else 0)
    got, want = facade.logsumexp(x, **options), jax.nn.logsumexp(x, **options)
    assert_close(jax, got, want, rtol=0)


def test_logsumexp_of_complex_numbers(jax, facade):
    assert_close(jax, facade.logsumexp(X + 1j * Q), jax.nn.logsumexp(X + 1j * Q), rtol=0)


@pytest.mark.parametrize(
    ("labels", "options"),
    [
        (Y, {}),
        (Y, {"gamma": 0.5, "alpha": 0.25}),
        (Y, {"alpha": np.array([1.0, 2.0, 5.0])}),
        (Q, {"gamma": 3}),
        (Q, {"where": KEEP & (Q > 0)}),
        (np.array([0, 2, 1, 2]), {"where": KEEP}),
        (np.eye(3)[Y].T, {"axis": 0}),
    ],
    ids=str,
)
def test_softmax_focal_loss(jax, facade, labels, options):
    logits = X.T if "axis" in options else X
    got = jax.jit(lambda x, y: facade.softmax_focal_loss(x, y, **options))(logits, labels)
    if "where" in options and labels is Q:
        labels = np.where(options["where"], Q, 0)
    want = reference.focal_loss(logits, labels, reduction="none", **options)
    np.testing.assert_allclose(got, want, rtol=LONGER)


def test_gradient_of_softmax_focal_loss_by_probabilities(jax, facade):
    """The loss is linear in them: it is the loss of each class."""
    got = jax.grad(lambda q: facade.softmax_focal_loss(X, q, gamma=1.5).sum())(Q)
    each = [reference.focal_loss(X, np.full(4, c), gamma=1.5, reduction="none") for c in range(3)]
    np.testing.assert_allclose(got, np.stack(each, -1), rtol=DIFFERENCE)


def test_softmax_focal_loss_of_gamma_0_is_cross_entropy(jax, facade):
    by_axes = {"axis": (3, 1), "where": KEEP4}
    for labels in (Q4, RNG.integers(15, size=(2, 4))):
        name = "softmax_cross_entropy" if labels is Q4 else OF_INDICES
        want = getattr(facade, name)(X4, labels, **by_axes)
        got = facade.softmax_focal_loss(X4, labels, gamma=0.0, **by_axes)
        assert_close(jax, got, want, rtol=FEW_ULP)


BAD = {
    "softmax of an axis that does not exist": ("softmax", (X, 2), {}),
    "softmax of no axis": ("softmax", (1.0,), {}),
    "a mask of numbers": ("log_softmax", (X,), {"where": KEEP.astype(int)}),
    "integer logits": ("softmax_cross_entropy", (Y, Y), {}),
    "shapes that do not fit": ("softmax_cross_entropy", (X, Q[:, :2]), {}),
    "probabilities for indices": (OF_INDICES, (X, Q), {}),
    "floats for indices": (OF_INDICES, (X, Y.astype(float)), {}),
    "too many labels": (OF_INDICES, (X, np.append(Y, 0)), {}),
    "integer logits beside indices": (OF_INDICES, (np.ones((4, 3), int), Y), {}),
    "an axis that does not exist": (OF_INDICES, (X, Y, 2), {}),
    "axes that do not exist": (OF_INDICES, (X, Y), {"axis": (0, 2)}),
    "a string for an axis": (OF_INDICES, (X, Y), {"axis": "last"}),
    "indices for probabilities": ("poly_loss_cross_entropy", (X, np.eye(3, dtype=int)[Y]), {}),
    "integer logits, independent labels": ("sigmoid_binary_cross_entropy", (Y, Y), {}),
    "shapes that do not broadcast": ("sigmoid_focal_loss", (X, Q[:2]), {}),
    "smoothing of integers": ("smooth_labels", (np.eye(3, dtype=int), 0.1), {}),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_they_refuse_is_refused(facade, theirs, case):
    name, arguments, options = BAD[case]
    for function in (theirs(name), getattr(facade, name)):
        with pytest.raises((TypeError, ValueError)):
            function(*arguments, **options)


def test_messages_of_the_facade_itself(facade):
    with pytest.raises(TypeError, match=r"^softmax_cross_entropy_with_integer_labels: labels has "
                       r"dtype float64; expected integers; for probabilities call softmax_cross_"
                       r"entropy\.$"):  # fmt: skip
        facade.softmax_cross_entropy_with_integer_labels(X, Q)
    with pytest.raises(TypeError, match=r"^smooth_labels: labels has dtype int64; expected "
                       r"floats; one_hot them\.$"):  # fmt: skip
        facade.smooth_labels(Y, 0.1)


# --- a linear layer -------------------------------------------------------------------------------
@pytest.mark.parametrize("labels", [Y, Q], ids=["labels", "probabilities"])
def test_linear_cross_entropy(jax, facade, labels):
    """It is the loss of those logits, for each row."""
    weight_matrix, bias = np.cos(np.arange(9.0)).reshape(3, 3), np.array([0.5, 0.0, -0.5])
    where = np.array([True, True, True])

    def fused(x, w, b):
        return facade.linear_cross_entropy(x, w, labels, bias=b, chunk_size=3, where=where)

    def plain(x, w, b):
        name = "" if labels is Q else "_with_integer_labels"
        return getattr(facade, f"softmax_cross_entropy{name}")(x @ w.T + b, labels)

    leaves = X, weight_matrix, bias
    (got, pull), (want, pull_plain) = jax.vjp(fused, *leaves), jax.vjp(plain, *leaves)
    assert_close(jax, got, want, rtol=FEW_ULP)
    cotangent = np.arange(4.0)
    assert_close(jax, pull(cotangent), pull_plain(cotangent), rtol=DIFFERENCE, atol=FEW_ULP)


def test_linear_cross_entropy_takes_no_label_for_ignored(facade):
    with pytest.raises(IndexError, match=r"linear_cross_entropy: targets\[1\] is -100; expected"):
        facade.linear_cross_entropy(X, np.eye(3), np.array([0, -100, 1, 1]))


# --- a program ------------------------------------------------------------------------------------
def test_one_import_line_changes(jax, facade, optax):
    """A training step, with either module under the name `optax`."""

    def train(optax):
        def loss(w):
            logits = X @ w
            smooth = optax.smooth_labels(jax.nn.one_hot(Y, 3), 0.1)
            return optax.softmax_cross_entropy(logits, smooth, where=ROWS).mean()

        w = np.eye(3)
        for _ in range(5):
            w = w - jax.jit(jax.grad(loss))(w)
        return w

    assert_close(jax, train(facade), train(optax), rtol=DIFFERENCE)


def test_no_warnings_for_legal_input(jax, facade):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        facade.softmax_cross_entropy(np.float32(X), jax.nn.one_hot(Y, 3), where=ROWS)
    assert caught == []


def test_examples_in_docstrings_run(facade):
    modules = {getattr(facade, name).__module__ for name in facade.__all__}
    results = [doctest.testmod(import_module(name)) for name in modules]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= 2 * len(facade.__all__)
