"""softmaxkit.tensorflow is tf.nn: same signatures, values and gradients, but for its list."""

import doctest
import inspect
import pickle
import warnings
from functools import partial

import numpy as np
import pytest

from softmaxkit.conformance import reference

# Of float64, numbers of which are 2.2e-16 apart. Two ways to a number round some ten times each;
FEW_ULP = 1e-14
# a power, XLA's approximations or a product with a cotangent multiply that;
LONGER = 1e-12
# and entries of a gradient are differences of terms that are larger by far.
DIFFERENCE = {"rtol": 1e-11, "atol": 1e-14}

RNG = np.random.default_rng(0)
X = RNG.normal(0, 2, (4, 3))
Q = RNG.dirichlet(np.ones(3), 4)
Y = np.array([0, 2, 1, 1])
X4 = RNG.normal(0, 2, (2, 3, 4, 5))
Q4 = reference.softmax(RNG.normal(size=X4.shape), 1)
Y3 = RNG.integers(5, size=(2, 3, 4))
BINARY = RNG.random((4, 3))

DENSE = "softmax_cross_entropy_with_logits"
SPARSE = "sparse_softmax_cross_entropy_with_logits"
SIGMOID = "sigmoid_cross_entropy_with_logits"
CASES = {
    "softmax": ("softmax", {"logits": X}),
    "softmax, axis": ("softmax", {"logits": X4, "axis": 1}),
    "softmax, axis 0": ("softmax", {"logits": X, "axis": 0}),
    "softmax, axis from the end": ("softmax", {"logits": X4, "axis": -2}),
    "log_softmax": ("log_softmax", {"logits": X}),
    "log_softmax, axis": ("log_softmax", {"logits": X4, "axis": 0}),
    "dense": (DENSE, {"labels": Q, "logits": X}),
    "dense, one row": (DENSE, {"labels": Q[0], "logits": X[0]}),
    "dense, axis": (DENSE, {"labels": Q4, "logits": X4, "axis": 1}),
    "sparse": (SPARSE, {"labels": Y, "logits": X}),
    "sparse, one row": (SPARSE, {"labels": Y[0], "logits": X[0]}),
    "sparse, more axes": (SPARSE, {"labels": Y3, "logits": X4}),
    "sigmoid": (SIGMOID, {"labels": BINARY, "logits": X}),
    "sigmoid, more axes": (SIGMOID, {"labels": Q4, "logits": X4}),
}
FOCAL = {
    "dense": ("softmax_focal_loss_with_logits", Q, X, {}),
    "dense, options": ("softmax_focal_loss_with_logits", Q, X, {"gamma": 0.5, "alpha": 0.25}),
    "dense, axis": ("softmax_focal_loss_with_logits", Q4, X4, {"axis": 1, "alpha": [1.0, 2, 3]}),
    "sparse": ("sparse_softmax_focal_loss_with_logits", Y, X, {}),
    "sparse, options": (
        "sparse_softmax_focal_loss_with_logits", Y3, X4, {"gamma": 1, "alpha": np.arange(5.0)},
    ),
    "sigmoid": ("sigmoid_focal_loss_with_logits", BINARY, X, {}),
    "sigmoid, options": (
        "sigmoid_focal_loss_with_logits", BINARY, X, {"gamma": 0.5, "alpha": 0.25},
    ),
}  # fmt: skip
TRANSFORMS = ["eager", "tf.function", "unknown shapes", "XLA"]


@pytest.fixture
def facade(tf):
    import softmaxkit.tensorflow

    return softmaxkit.tensorflow


def value_and_gradients(tf, function, tensors, transform):
    """Return the value, and the gradients by every tensor of floats."""

    def both(tensors):
        by = [each for each in tensors.values() if each.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(by)
            value = function(**tensors)
        cotangent = tf.cos(
            tf.cast(tf.reshape(tf.range(tf.size(value)), tf.shape(value)), value.dtype)
        )
        return value, *tape.gradient(value, by, cotangent)

    if transform == "unknown shapes":
        unknown = {
            name: tf.TensorSpec([None] * each.shape.rank, each.dtype)
            for name, each in tensors.items()
        }
        both = tf.function(both, input_signature=[unknown])
    elif transform != "eager":
        both = tf.function(both, jit_compile=transform == "XLA")
    return both(tensors)


def is_array(value):
    return isinstance(value, np.ndarray | np.generic)


# --- as tf.nn -------------------------------------------------------------------------------------
def test_the_names_of_the_facade(facade):
    names = {name for name, _ in CASES.values()} | {name for name, *_ in FOCAL.values()}
    assert set(facade.__all__) == names | {"linear_cross_entropy"}


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES.values()}))
def test_signature(tf, facade, name):
    def bare(function):
        parameters = inspect.signature(function).parameters.values()
        return [(each.name, each.kind, each.default) for each in parameters]

    assert bare(getattr(facade, name)) == bare(getattr(tf.nn, name))


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients(tf, facade, case, transform):
    """Gradients by the labels too, where they are probabilities."""
    name, arguments = CASES[case]
    tensors = {key: tf.constant(each) for key, each in arguments.items() if is_array(each)}
    options = {key: each for key, each in arguments.items() if key not in tensors}

    def run(module, transform):
        function = getattr(module, name)
        return value_and_gradients(
            tf, lambda **tensors: function(**tensors, **options), tensors, transform
        )

    got, want = run(facade, transform), run(tf.nn, "eager")
    assert len(got) == len(want) > 1
    for one, other in zip(got, want, strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=LONGER, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("case", CASES)
def test_dtypes(tf, facade, case, dtype):
    """The dtype of tf.nn, and within roundings of its result in float64."""
    name, arguments = CASES[case]
    low = {
        key: tf.cast(each, dtype) if is_array(each) and each.dtype == float else each
        for key, each in arguments.items()
    }
    high = {key: tf.cast(each, "float64") if tf.is_tensor(each) else each
            for key, each in low.items()}  # fmt: skip
    got = getattr(facade, name)(**low)
    assert got.dtype == getattr(tf.nn, name)(**low).dtype == tf.as_dtype(dtype)
    eps = float(np.finfo(tf.as_dtype(dtype).as_numpy_dtype).eps) if dtype != "bfloat16" else 2**-7
    # Rounded once to half precision; in float32 tf.nn's order of operations is another.
    rtol = 16 * eps if dtype == "float32" else eps
    exact = getattr(tf.nn, name)(**high)
    np.testing.assert_allclose(tf.cast(got, "float64"), exact, rtol=rtol, atol=eps * 2**-6)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_labels_that_are_a_matrix_of_integers(tf, facade, dtype):
    labels = tf.constant(np.eye(3)[Y], dtype)
    got = facade.softmax_cross_entropy_with_logits(labels, X)
    want = tf.nn.softmax_cross_entropy_with_logits(labels, X)
    np.testing.assert_allclose(got, want, rtol=FEW_ULP)


@pytest.mark.parametrize("make", ["lists", "arrays", "variables"])
def test_what_becomes_a_tensor(tf, facade, make):
    def given(value):
        if make == "variables":
            return tf.Variable(value)
        return value.tolist() if make == "lists" else value

    logits = np.float32(X)
    got = (
        facade.softmax(given(logits)),
        *(
            getattr(facade, name)(labels=given(labels), logits=given(logits))
            for name, labels in ((DENSE, np.float32(Q)), (SPARSE, Y), (SIGMOID, np.float32(BINARY)))
        ),
    )
    want = (
        tf.nn.softmax(logits),
        *(
            getattr(tf.nn, name)(labels=labels, logits=logits)
            for name, labels in ((DENSE, np.float32(Q)), (SPARSE, Y), (SIGMOID, np.float32(BINARY)))
        ),
    )
    for one, other in zip(got, want, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        np.testing.assert_allclose(one, other, rtol=2e-6)  # of float32: tf.nn's own roundings


def test_variables_get_their_gradient(tf, facade):
    logits = tf.Variable(X)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(facade.sparse_softmax_cross_entropy_with_logits(Y, logits))
    want = reference.softmax(X) - np.eye(3)[Y]
    np.testing.assert_allclose(tape.gradient(loss, logits), want, rtol=LONGER)


@pytest.mark.parametrize("name", [None, "mine"])
@pytest.mark.parametrize("function", [
    "softmax", "log_softmax", DENSE, SPARSE, SIGMOID, "softmax_focal_loss_with_logits",
    "sparse_softmax_focal_loss_with_logits", "sigmoid_focal_loss_with_logits",
])  # fmt: skip
def test_the_name_is_that_of_the_operations(tf, facade, function, name):
    given = () if function.endswith("softmax") else (Y if function.startswith("sparse") else Q,)

    @tf.function(input_signature=[tf.TensorSpec([4, 3], tf.float64)])
    def call(x):
        return getattr(facade, function)(*given, x, name=name)

    operations = call.get_concrete_function().graph.get_operations()
    scopes = {each.name.partition("/")[0] for each in operations if "/" in each.name}
    assert scopes == {name or function}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("case", FOCAL)
def test_focal_losses(tf, facade, case, transform):
    name, labels, logits, options = FOCAL[case]
    tensors = {"labels": tf.constant(labels), "logits": tf.constant(logits)}
    function = getattr(facade, name)
    value, *_, gradient = value_and_gradients(
        tf, lambda **tensors: function(**tensors, **options), tensors, transform
    )
    loss = "sigmoid_focal_loss" if name.startswith("sigmoid") else "focal_loss"
    want = getattr(reference, loss)(logits, labels, reduction="none", **options)
    np.testing.assert_allclose(value, want, rtol=LONGER)
    weights = np.cos(np.arange(want.size)).reshape(want.shape)
    want = reference.gradient(
        loss, logits, labels, reduction="sum", sample_weight=weights, **options
    )
    np.testing.assert_allclose(gradient, want, **DIFFERENCE)


def test_gradient_of_softmax_focal_loss_by_probabilities(tf, facade):
    """The loss is linear in them: it is the loss of each class."""
    tensors = {"labels": tf.constant(Q), "logits": tf.constant(X)}
    _, by_labels, _ = value_and_gradients(
        tf, facade.softmax_focal_loss_with_logits, tensors, "tf.function"
    )
    each = [reference.focal_loss(X, np.full(4, c), reduction="none") for c in range(3)]
    cotangent = np.cos(np.arange(4))[:, None]
    np.testing.assert_allclose(by_labels, cotangent * np.stack(each, -1), rtol=LONGER)


BAD = {
    "an axis that does not exist": ("softmax", (X, 2)),
    "no axis": ("log_softmax", (1.0,)),
    "no labels": (SIGMOID, (None, X)),
    "no logits": (SIGMOID, (X,)),
    "no labels, indices": (SPARSE, (None, X)),
    "no logits, probabilities": (DENSE, (Q, None)),
    "shapes that differ": (DENSE, (Q[:, :2], X)),
    "too many labels": (SPARSE, (np.append(Y, 0), X)),
    "labels in a column": (SPARSE, (Y[:, None], X)),
    "logits without a class axis": (SPARSE, (0, 1.0)),
    "floats for indices": (SPARSE, (Y.astype(float), X)),
    "shapes that differ, independent labels": (SIGMOID, (BINARY[:2], X)),
    "integer logits": (SPARSE, (Y, np.ones((4, 3), int))),
}


@pytest.mark.parametrize("case", BAD)
def test_what_it_refuses_is_refused(tf, facade, case):
    name, arguments = BAD[case]
    errors = tf.errors.InvalidArgumentError, tf.errors.AbortedError
    with pytest.raises((TypeError, ValueError, *errors)):
        getattr(tf.nn, name)(*arguments)
    with pytest.raises((TypeError, ValueError)):
        getattr(facade, name)(*arguments)


@pytest.mark.parametrize("name", [SPARSE, "sparse_softmax_focal_loss_with_logits"])
def test_message_of_the_facade_itself(facade, name):
    remedy = name.removeprefix("sparse_")
    with pytest.raises(TypeError, match=rf"^{name}: labels has dtype float64; expected integers; "
                                        rf"for probabilities call {remedy}\.$"):  # fmt: skip
        getattr(facade, name)(Q, X)


# --- the differences that the module lists --------------------------------------------------------
@pytest.mark.parametrize("bad", [3, -1, -100])
def test_labels_out_of_range(tf, facade, bad):
    tensors = {"labels": tf.constant([0, 2, bad, 1]), "logits": tf.constant(X)}
    theirs, invalid = tf.nn.sparse_softmax_cross_entropy_with_logits, tf.errors.InvalidArgumentError
    for name in (SPARSE, "sparse_softmax_focal_loss_with_logits"):
        ours = getattr(facade, name)
        for exception in (IndexError, invalid):
            with pytest.raises(exception, match=f"is {bad}; expected a class index in") as raised:
                ours(**tensors)
        assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
        assert raised.value.error_code == tf.errors.INVALID_ARGUMENT
        for transform in ("tf.function", "unknown shapes"):
            with pytest.raises(invalid, match=rf"holds\] \[{bad}\] \[expected a class index in"):
                value_and_gradients(tf, ours, tensors, transform)
        value, gradient = value_and_gradients(tf, ours, tensors, "XLA")
        rows = [False, False, True, False]
        np.testing.assert_array_equal(np.isnan(value), rows)
        np.testing.assert_array_equal(np.isnan(gradient).all(1), rows)
        np.testing.assert_array_equal(np.isnan(gradient).any(1), rows)
    for transform in ("eager", "tf.function"):
        with pytest.raises(invalid):
            value_and_gradients(tf, theirs, tensors, transform)
    value, _ = value_and_gradients(tf, theirs, tensors, "XLA")
    np.testing.assert_array_equal(np.isnan(value), rows)


def test_probabilities_that_do_not_sum_to_1(tf, facade):
    tensors = {"labels": tf.constant(3 * BINARY), "logits": tf.constant(X)}
    p, q = reference.softmax(X), 3 * BINARY
    cotangent = np.cos(np.arange(4))[:, None]
    want = {facade: q.sum(-1, keepdims=True) * p - q, tf.nn: p - q}
    for module, each in want.items():
        _, by_labels, gradient = value_and_gradients(tf, getattr(module, DENSE), tensors, "eager")
        np.testing.assert_allclose(gradient, cotangent * each, **DIFFERENCE)
        np.testing.assert_allclose(by_labels, -cotangent * reference.log_softmax(X), rtol=LONGER)


def test_0_log_0(tf, facade):
    logits, labels = [[2.0, 1.0, -np.inf]], [[0.5, 0.5, 0.0]]
    want = reference.cross_entropy(logits, labels, reduction="none")
    np.testing.assert_allclose(facade.softmax_cross_entropy_with_logits(labels, logits), want, 1e-6)
    assert np.isnan(tf.nn.softmax_cross_entropy_with_logits(labels, logits))


def test_a_row_with_infinity_is_nan_as_a_whole(tf, facade):
    row = tf.constant([np.inf, 0.0, 0.0])
    assert np.isnan(facade.softmax(row)).all()
    assert np.isnan(tf.nn.softmax(row))[0]  # the others are 0 or NaN, by the processor


def test_axes_are_counted_from_the_end_too(tf, facade):
    """In tf.nn all but that of softmax_cross_entropy_with_logits."""
    from_the_end = {"labels": Q4, "logits": X4, "axis": -3}
    want = tf.nn.softmax_cross_entropy_with_logits(**from_the_end | {"axis": 1})
    got = facade.softmax_cross_entropy_with_logits(**from_the_end)
    np.testing.assert_allclose(got, want, rtol=FEW_ULP)
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.nn.softmax_cross_entropy_with_logits(**from_the_end)


def test_shapes_do_not_broadcast(tf, facade):
    tf.nn.softmax_cross_entropy_with_logits(Q[:1], X)
    with pytest.raises(ValueError, match=r"targets has shape \(1, 3\); expected \(4, 3\)"):
        facade.softmax_cross_entropy_with_logits(Q[:1], X)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64"])
def test_labels_of_any_integer_dtype(tf, facade, dtype):
    labels = tf.constant(Y, dtype)
    got = facade.sparse_softmax_cross_entropy_with_logits(labels, X)
    np.testing.assert_allclose(got, reference.cross_entropy(X, Y, reduction="none"), rtol=FEW_ULP)
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, X)


def test_probabilities_of_another_dtype(tf, facade):
    logits, labels = np.float32(X), BINARY
    want = reference.binary_cross_entropy(logits, labels, reduction="none")
    got = facade.sigmoid_cross_entropy_with_logits(labels, logits)
    np.testing.assert_allclose(got, want, rtol=1e-6)  # of float32: a few ULP
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)


# --- unknown ranks --------------------------------------------------------------------------------
def of_ranks(tf, tensors, known):
    """Return the signature of tensors: `known` may have their ranks, others have none."""
    return {
        name: tf.TensorSpec([None] * each.shape.rank if name in known else None, each.dtype)
        for name, each in tensors.items()
    }


@pytest.mark.parametrize(
    ("case", "known"),
    [
        (case, known)
        for case, (_, arguments) in CASES.items()
        for known in ("", *(("labels", "logits") if "labels" in arguments else ()))
    ],
)
def test_unknown_rank(tf, facade, case, known):
    """Where tf.nn takes a tensor of unknown rank, that is the same; else one line says so."""
    name, arguments = CASES[case]
    tensors = {key: tf.constant(each) for key, each in arguments.items() if is_array(each)}
    options = {key: each for key, each in arguments.items() if key not in tensors}

    def run(module):
        function = getattr(module, name)

        def both(tensors):
            return value_and_gradients(
                tf, lambda **each: function(**each, **options), tensors, "eager"
            )

        signature = [of_ranks(tf, tensors, [known])]
        return tf.function(both, input_signature=signature, autograph=False)(tensors)

    if name.endswith("softmax") and "axis" in options:
        with pytest.raises(TypeError):
            run(tf.nn)
        with pytest.raises(ValueError, match=f"^{name}: x has unknown rank; expected a known"):
            run(facade)
        return
    for one, other in zip(run(facade), run(tf.nn), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=LONGER, atol=1e-14)


@pytest.mark.parametrize("name", [DENSE, SPARSE, SIGMOID])
def test_shapes_that_differ_where_no_rank_was_known(tf, facade, name):
    labels = {DENSE: Q4, SPARSE: Y3, SIGMOID: Q4}[name]
    tensors = {"labels": tf.constant(np.swapaxes(labels, 0, 1)), "logits": tf.constant(X4)}
    signature = [of_ranks(tf, tensors, [])]
    function = tf.function(lambda given: getattr(facade, name)(**given), input_signature=signature)
    with pytest.raises(tf.errors.InvalidArgumentError, match="labels and logits, of a rank that"):
        function(tensors)


# --- ragged tensors -------------------------------------------------------------------------------
RAGGED = {
    "rows": ([[1.0, 2.0], [], [0.5], [3.0, -1.0, 40.0]], 1, (None, -1, 1)),
    "of rows": ([[[1.0, 2.0], [3.0]], [], [[0.0, 2.0, 1.0], []]], 2, (None, -1, 2)),
    "of vectors": ([[[1.0, 2.0], [3.0, 0.0]], [], [[0.5, 1.0]]], 1, (None, 2, 1, -2)),
}


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "tf.function"])
@pytest.mark.parametrize("case", RAGGED)
def test_ragged_softmax(tf, facade, case, graph):
    rows, ragged_rank, axes = RAGGED[case]
    x = tf.ragged.constant(rows, tf.float64, ragged_rank)
    for axis in axes:

        def both(x, function, axis=axis):
            with tf.GradientTape() as tape:
                tape.watch(x.flat_values)
                p = function(x, axis)
                value = tf.reduce_sum(p.flat_values * tf.cos(x.flat_values))
            return p, tape.gradient(value, x.flat_values)

        ours = tf.function(both) if graph else both
        (p, gradient), (want, slope) = ours(x, facade.softmax), both(x, tf.nn.softmax)
        for one, other in zip(p.nested_row_splits, want.nested_row_splits, strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_allclose(p.flat_values, want.flat_values, rtol=LONGER)
        np.testing.assert_allclose(gradient, slope, **DIFFERENCE)


@pytest.mark.parametrize("axis", [0, 2, -3])
def test_axes_that_ragged_softmax_does_not_take(tf, facade, axis):
    x = tf.ragged.constant(RAGGED["rows"][0])
    with pytest.raises(
        ValueError, match=rf"^softmax: axis is {axis}, .* axis from 1, .* to 1; pass"
    ):
        facade.softmax(x, axis)


def test_ragged_tensors_are_refused_elsewhere_in_one_line(tf, facade):
    import softmaxkit

    x = tf.ragged.constant(RAGGED["rows"][0])
    y, dense = tf.ragged.constant([[1], [0, 1]]), tf.zeros([2, 3])
    calls = {
        "softmax: x": lambda: softmaxkit.softmax(x),
        "softmax: where": lambda: softmaxkit.softmax(dense, where=x > 1),
        "logsumexp: x": lambda: softmaxkit.logsumexp(x),
        "log_softmax: x": lambda: facade.log_softmax(x),
        "cross_entropy: logits": lambda: facade.softmax_cross_entropy_with_logits(x, x),
        "cross_entropy: targets": lambda: facade.sparse_softmax_cross_entropy_with_logits(y, dense),
        "binary_cross_entropy: targets": lambda: facade.sigmoid_cross_entropy_with_logits(x, dense),
        "focal_loss: logits": lambda: facade.sparse_softmax_focal_loss_with_logits([0], x),
    }
    for begin, call in calls.items():
        said = rf"^{begin} is a tensorflow\.RaggedTensor; expected "
        with pytest.raises(
            TypeError, match=rf"{said}.*; pass its \.to_tensor\(\), .* where= .*\.$"
        ):
            call()


# --- a program ------------------------------------------------------------------------------------
def test_one_import_line_changes(tf, facade):
    """A training step, with either module under the name `nn`."""

    def train(nn):
        w = tf.Variable(np.eye(3))

        @tf.function
        def step():
            with tf.GradientTape() as tape:
                loss = nn.sparse_softmax_cross_entropy_with_logits(labels=Y, logits=X @ w)
                loss = tf.reduce_mean(loss)
            w.assign_sub(tape.gradient(loss, w))
            return loss

        return [step().numpy() for _ in range(5)], w.numpy()

    for got, want in zip(train(facade), train(tf.nn), strict=True):
        np.testing.assert_allclose(got, want, rtol=LONGER)


# --- a linear layer -------------------------------------------------------------------------------
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("labels", [Y, Q], ids=["labels", "probabilities"])
def test_linear_cross_entropy(tf, facade, transform, labels):
    """It is the loss of those logits, for each row; called as tf.nn.sampled_softmax_loss."""
    theirs = inspect.signature(tf.nn.sampled_softmax_loss).parameters
    assert [*inspect.signature(facade.linear_cross_entropy).parameters][:4] == [*theirs][:4]

    def plain(weights, biases, labels, inputs):
        logits = inputs @ tf.transpose(weights) + biases
        return getattr(facade, DENSE if labels.dtype.is_floating else SPARSE)(labels, logits)

    tensors = {
        "weights": tf.cos(tf.reshape(tf.range(9.0, dtype=tf.float64), (3, 3))),
        "biases": tf.constant([0.5, 0.0, -0.5], tf.float64),
        "labels": tf.constant(labels),
        "inputs": tf.constant(X),
    }
    fused = partial(facade.linear_cross_entropy, chunk_size=3)
    got = value_and_gradients(tf, fused, tensors, transform)
    want = value_and_gradients(tf, plain, tensors, "eager")
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, **DIFFERENCE)


def test_linear_cross_entropy_refuses_labels_as_the_others_do(tf, facade):
    for error in (IndexError, tf.errors.InvalidArgumentError):
        with pytest.raises(error, match=r"linear_cross_entropy: targets\[1\] is -100; expected"):
            facade.linear_cross_entropy(np.eye(3), None, [0, -100, 1, 1], X)


def test_no_warnings_for_legal_input(facade):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        facade.softmax_cross_entropy_with_logits(np.eye(3)[Y], np.float32(X))
    assert caught == []


def test_examples_in_docstrings_run(facade):
    result = doctest.testmod(facade)
    assert result.failed == 0
    assert result.attempted >= 2 * len(facade.__all__)
