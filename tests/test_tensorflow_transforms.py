"""What TensorFlow offers on a model holds on a loss in it: tapes, tracing, XLA, maps."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import reference

# Of float64, whose numbers are 2.2e-16 apart: some ten roundings, which a compiler, a power or a
# temperature multiply; entries of a gradient are differences of larger terms.
VALUE, GRADIENT = 1e-12, 1e-10

RNG = np.random.default_rng(0)
INF = np.inf
LOGITS = RNG.normal(0, 2, (4, 3))
TIES = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [0.0, 3.0, 3.0], [0.0, 0.0, 0.0]])
ABSENT = np.array([[1.0, -INF, 0.0], [0.5, 2.0, -INF], [0.0, 1.0, 3.0], [-INF, 0.3, -INF]])
CUBE = RNG.normal(0, 2, (2, 3, 2))
LABELS = np.array([0, 2, -100, 1])
SOFT = RNG.dirichlet(np.ones(3), 4)
MASK = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1], [0, 1, 0]], bool)
BY_CLASS, BY_ROW = np.array([1.0, 2.0, 5.0]), np.array([1.0, 0.5, 2.0, 0.0])
T = np.array([[0.5], [2.0], [1.0], [3.0]])


@dataclass(frozen=True, eq=False)  # tf.function hashes what it traces
class Call:
    """An operation with its options, as a function of the logits; and the truth about it."""

    operation: str
    options: dict
    logits: np.ndarray

    def __call__(self, x, **arrays):
        return getattr(softmaxkit, self.operation)(x, **self.options | arrays)

    @property
    def arrays(self):
        return {k: v for k, v in self.options.items() if isinstance(v, np.ndarray)}

    def value(self, x):
        return getattr(reference, self.operation)(x, **self.options)

    @cached_property
    def cotangent(self):
        shape = self.value(self.logits).shape
        loss = "targets" in self.options
        return np.ones(shape) if loss else np.random.default_rng(1).normal(size=shape)

    @cached_property
    def direction(self):
        return np.random.default_rng(2).normal(size=self.logits.shape)

    def gradient(self, x):
        if "targets" in self.options:
            return reference.gradient(self.operation, x, **self.options)
        return getattr(reference, f"{self.operation}_vjp")(x, self.cotangent, **self.options)

    def along(self, function, direction):
        """Return the derivative of `function` in a direction, by central differences."""
        step = 1e-5 * direction
        with np.errstate(invalid="ignore"):  # -inf where masked
            return (function(self.logits + step) - function(self.logits - step)) / 2e-5

    @cached_property
    def hessian(self):
        """By the gradient's differences: [what is differentiated, by what]."""
        units = np.eye(self.logits.size).reshape(-1, *self.logits.shape)
        return np.stack([self.along(self.gradient, unit) for unit in units], -1).reshape(
            self.logits.shape * 2
        )


CLASS_LOSS = {
    "indices": {"targets": LABELS},
    "rows along axis 0": {"targets": np.array([3, 0, 1]), "axis": 0, "reduction": "none"},
    "weights": {
        "targets": LABELS, "weight": BY_CLASS, "sample_weight": BY_ROW, "label_smoothing": 0.1,
    },
    "mask": {"targets": LABELS, "where": MASK, "label_smoothing": 0.2, "temperature": T},
    "temperature by class": {"targets": LABELS, "temperature": np.array([0.5, 2.0, 1.5])},
    "probabilities": {"targets": SOFT, "sample_weight": BY_ROW, "normalizer": 3.0},
    "weighted probabilities": {
        "targets": SOFT, "weight": BY_CLASS, "label_smoothing": 0.1,
        "normalizer": "weight", "temperature": 2.5,
    },
    "ties": {"targets": LABELS, "label_smoothing": 0.1, "reduction": "sum", "logits": TIES},
    "-inf": {"targets": np.array([2, 1, 0, 1]), "reduction": "none", "logits": ABSENT},
    "probabilities at -inf": {
        "targets": np.where(ABSENT == -INF, 0.0, SOFT), "logits": ABSENT, "normalizer": "batch",
    },
}  # fmt: skip
CALLS = {
    f"cross_entropy, {case}": ("cross_entropy", options) for case, options in CLASS_LOSS.items()
}
for case in ("weights", "mask", "weighted probabilities", "ties", "-inf", "probabilities at -inf"):
    options = {"alpha" if k == "weight" else k: v for k, v in CLASS_LOSS[case].items()}
    CALLS[f"focal_loss, {case}"] = ("focal_loss", options)
CALLS |= {
    "cross_entropy, z-loss": ("cross_entropy", {"targets": LABELS, "z_loss": 0.1, "where": MASK}),
    "focal_loss, gamma 0.5": ("focal_loss", {"targets": LABELS, "gamma": 0.5, "alpha": 0.25}),
    "focal_loss, gamma 0.5, all classes": ("focal_loss", {"targets": SOFT, "gamma": 0.5}),
    "binary_cross_entropy": (
        "binary_cross_entropy", {"targets": SOFT, "label_smoothing": 0.1, "pos_weight": BY_CLASS},
    ),
    "binary_cross_entropy, rows": (
        "binary_cross_entropy",
        {"targets": SOFT.round(), "reduction": "none", "sample_weight": BY_ROW[:, None]},
    ),
    "sigmoid_focal_loss": ("sigmoid_focal_loss", {"targets": SOFT, "alpha": 0.25}),
    "sigmoid_focal_loss, gamma 0.5": (
        "sigmoid_focal_loss",
        {"targets": SOFT, "gamma": 0.5, "reduction": "sum", "label_smoothing": 0.1},
    ),
    "softmax": ("softmax", {}),
    "softmax, mask": ("softmax", {"where": MASK, "temperature": BY_CLASS}),
    "softmax, two axes": ("softmax", {"axis": (0, 2), "logits": CUBE}),
    "softmax, ties": ("softmax", {"logits": TIES, "temperature": 2.0}),
    "log_softmax": ("log_softmax", {"axis": 0}),
    "log_softmax, mask": ("log_softmax", {"where": MASK, "temperature": BY_CLASS}),
    "log_softmax, two axes": ("log_softmax", {"axis": (1, 2), "logits": CUBE}),
    "log_softmax, ties": ("log_softmax", {"logits": TIES}),
    "logsumexp": ("logsumexp", {"axis": None}),
    "logsumexp, mask": (
        "logsumexp", {"axis": (0, -1), "where": CUBE > -1, "logits": CUBE, "keepdims": True},
    ),
    "logsumexp, -inf": ("logsumexp", {"logits": np.where(TIES == 0, -INF, TIES)}),
}  # fmt: skip


# Where a compiler's seconds are dear: each way through the kernels once.
FEW = ["cross_entropy, weights", "focal_loss, mask", "log_softmax, mask"]
few = pytest.mark.parametrize("call", FEW, indirect=True)
# Where they are less dear: each operation with the options that change most.
SOME = [
    *FEW, "cross_entropy, mask", "cross_entropy, temperature by class",
    "cross_entropy, weighted probabilities", "cross_entropy, -inf",
    "focal_loss, gamma 0.5, all classes", "binary_cross_entropy", "sigmoid_focal_loss, gamma 0.5",
    "softmax, mask", "softmax, two axes", "log_softmax, two axes", "logsumexp, mask",
    "logsumexp, -inf",
]  # fmt: skip
some = pytest.mark.parametrize("call", SOME, indirect=True)
both = pytest.mark.parametrize("xla", [False, True], ids=["tf.function", "XLA"])


@pytest.fixture(params=CALLS)
def call(request, tf):
    operation, options = CALLS[request.param]
    options = dict(options)
    return Call(operation, options, options.pop("logits", LOGITS))


def first(tf, function, call, x):
    """Return the value, and its gradient by a tape."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return value, tape.gradient(value, x, output_gradients=tf.constant(call.cotangent))


def second(tf, function, call, x):
    """Return value, gradient, and by a tape around that one the Hessian times a direction."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        value, gradient = first(tf, function, call, x)
    return value, gradient, tape.gradient(gradient, x, output_gradients=call.direction)


def assert_right(call, value, gradient, product=None):
    np.testing.assert_allclose(value, call.value(call.logits), rtol=VALUE, atol=1e-14)
    np.testing.assert_allclose(gradient, call.gradient(call.logits), rtol=GRADIENT, atol=1e-14)
    if product is not None:
        assert_slope(product, call.along(call.gradient, call.direction))


def assert_slope(got, difference):
    """The error of a central difference of step 1e-5 is about 1e-10."""
    np.testing.assert_allclose(got, difference, rtol=1e-8, atol=1e-9)


# --- tapes ----------------------------------------------------------------------------------------
def test_nested_tapes(tf, call):
    assert_right(call, *second(tf, call, call, tf.constant(call.logits)))


def assert_hessian(tf, call, pfor):
    x = tf.constant(call.logits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        _, gradient = first(tf, call, call, x)
    assert_slope(tape.jacobian(gradient, x, experimental_use_pfor=pfor), call.hessian)


@some
def test_jacobian_by_pfor(tf, call):
    assert_hessian(tf, call, pfor=True)


@few
def test_jacobian_without_pfor(tf, call):
    assert_hessian(tf, call, pfor=False)


@pytest.mark.parametrize("pfor", [True, False])
@pytest.mark.parametrize("call", ["cross_entropy, -inf", "log_softmax, ties"], indirect=True)
def test_batch_jacobian(tf, call, pfor):
    x = tf.constant(call.logits)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        value = call(x)
        value = value if value.shape.rank == 2 else value[:, None]  # it takes no vector
    got = tape.batch_jacobian(value, x, experimental_use_pfor=pfor)
    for column in range(3):
        # Row i of the logits moves row i of the value alone.
        slope = call.along(call.value, np.eye(3)[column] * np.ones((4, 1)))
        assert_slope(got[:, :, column], np.reshape(slope, value.shape))


def divides_infinity(call):
    """In forward mode TensorFlow's own division of -inf gives NaN: see the test of it."""
    return "where" in call.options and "temperature" in call.options


def test_forward_accumulator(tf, call):
    x, direction = tf.constant(call.logits), tf.constant(call.direction)
    with tf.autodiff.ForwardAccumulator(x, direction) as accumulator:
        value, gradient = first(tf, call, call, x)
    finite = np.isfinite(call.value(call.logits))
    got, slope = accumulator.jvp(value).numpy(), call.along(call.value, call.direction)
    if divides_infinity(call):
        assert np.isnan(got).any()
        finite &= np.isfinite(got)
    else:
        assert_slope(accumulator.jvp(gradient), call.along(call.gradient, call.direction))
    assert_slope(got[finite], slope[finite])


def test_forward_accumulator_makes_nan_of_a_divided_infinity_in_tensorflow_itself(tf):
    x = tf.constant([-INF])
    with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
        y = x / 2.0
    assert np.isnan(accumulator.jvp(y))


def test_recompute_grad(tf, call):
    assert_right(call, *second(tf, tf.recompute_grad(call), call, tf.constant(call.logits)))


def test_variables_and_a_persistent_tape(tf):
    given = {"weight": BY_CLASS, "sample_weight": BY_ROW, "temperature": T}
    variables = {name: tf.Variable(value) for name, value in given.items()}
    x, y, where = tf.Variable(LOGITS), tf.Variable(LABELS), tf.Variable(MASK)

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            loss = softmaxkit.cross_entropy(x, y, where=where, label_smoothing=0.1, **variables)
            p = softmaxkit.softmax(x)
        return tape.gradient(loss, x), tape.gradient(p, x), tape.gradient(loss, variables)

    truth = reference.gradient(
        "cross_entropy", LOGITS, LABELS, where=MASK, label_smoothing=0.1, **given
    )
    for by_x, of_p, by_variables in (gradients(), tf.function(gradients)()):
        np.testing.assert_allclose(by_x, truth, rtol=1e-11, atol=1e-14)  # differences, too
        np.testing.assert_allclose(of_p, np.zeros((4, 3)), atol=1e-15)  # a row's sum is 1
        assert all(by_variables[name].shape == given[name].shape for name in given)


COMPANIONS = {
    "temperature": ("cross_entropy", {"targets": LABELS, "where": MASK, "temperature": T}),
    "temperature by class": (
        "focal_loss", {"targets": SOFT, "temperature": BY_CLASS, "gamma": 0.5},
    ),
    "temperature and z-loss": (
        "cross_entropy", {"targets": LABELS, "temperature": np.array(2.0), "z_loss": 0.1},
    ),
    "temperature at -inf": (
        "cross_entropy", {"targets": np.array([2, 1, 0, 1]), "temperature": T, "logits": ABSENT},
    ),
    "temperature of softmax": ("softmax", {"temperature": T}),
    "temperature of log_softmax": ("log_softmax", {"temperature": T, "where": MASK}),
    "weight": ("cross_entropy", {"targets": LABELS, "weight": BY_CLASS, "label_smoothing": 0.1}),
    "alpha": ("focal_loss", {"targets": SOFT, "alpha": BY_CLASS, "normalizer": "weight"}),
    "sample_weight": ("cross_entropy", {"targets": LABELS, "sample_weight": BY_ROW + 1}),
    "targets": ("cross_entropy", {"targets": SOFT, "weight": BY_CLASS}),
    "label_smoothing": ("cross_entropy", {"targets": LABELS, "label_smoothing": np.array(0.1)}),
    "z_loss": ("cross_entropy", {"targets": LABELS, "z_loss": np.array(0.1)}),
    "gamma": ("focal_loss", {"targets": LABELS, "gamma": np.array(1.5)}),
    "normalizer": ("focal_loss", {"targets": LABELS, "normalizer": np.array(3.0)}),
    "pos_weight": ("binary_cross_entropy", {"targets": SOFT, "pos_weight": BY_CLASS}),
    "targets of labels": ("sigmoid_focal_loss", {"targets": SOFT, "alpha": 0.25}),
    "alpha of labels": ("sigmoid_focal_loss", {"targets": SOFT, "alpha": np.array(0.25)}),
}  # fmt: skip


@pytest.mark.parametrize("case", COMPANIONS)
def test_derivatives_by_what_stands_beside_the_logits(tf, case):
    """The first, and the mixed second with the logits."""
    operation, options = COMPANIONS[case]
    name, logits = case.partition(" ")[0], options.get("logits", LOGITS)
    options = {k: v for k, v in options.items() if k != "logits"}
    call, at = Call(operation, options, logits), options[name]
    x, companion = tf.constant(logits), tf.constant(at)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(companion)
        value, gradient = first(tf, partial(call, **{name: companion}), call, x)

    def slope(function, cotangent):
        terms = []
        for step in 1e-5 * np.eye(at.size).reshape(-1, *at.shape):
            up, down = (
                function(Call(operation, options | {name: moved}, logits))
                for moved in (at + step, at - step)
            )
            with np.errstate(invalid="ignore"):  # -inf where masked
                terms.append(np.nansum(cotangent * (up - down)) / 2e-5)
        return np.reshape(terms, at.shape)

    by_value = tape.gradient(value, companion, output_gradients=call.cotangent)
    assert_slope(by_value, slope(lambda call: call.value(logits), call.cotangent))
    by_gradient = tape.gradient(gradient, companion, output_gradients=call.direction)
    assert_slope(by_gradient, slope(lambda call: call.gradient(logits), call.direction))


SATURATED = np.array([[30.0, 0, 1], [0, 40, 2], [35, 35, 0], [-50, 60, 0]])
SHARP = {"targets": np.array([0, 1, 1, 1]), "reduction": "none"}


@pytest.mark.parametrize("xla", [False, True], ids=["eager", "XLA"])
@pytest.mark.parametrize("more", [{}, {"label_smoothing": 1e-9}, {"gamma": 0.5}])
def test_saturated_rows_keep_their_digits_to_the_second_order(tf, more, xla):
    operation = "focal_loss" if "gamma" in more else "cross_entropy"
    call = Call(operation, SHARP | more, SATURATED)
    function = tf.function(call, jit_compile=True) if xla else call
    value, gradient, product = second(tf, function, call, tf.constant(SATURATED))
    np.testing.assert_allclose(value, call.value(SATURATED), rtol=VALUE)
    np.testing.assert_allclose(gradient, call.gradient(SATURATED), rtol=VALUE)
    # Cross-entropy's Hessian is the same for all targets; differences need the unsmoothed digits.
    sharp = Call(operation, SHARP | more | {"label_smoothing": 0.0}, SATURATED)
    expected = sharp.along(sharp.gradient, sharp.direction)
    scale = abs(expected).max(-1, keepdims=True)
    # The error of a central difference that was itself divided by a small step.
    np.testing.assert_allclose(product / scale, expected / scale, rtol=0, atol=1e-7)


# --- tf.function and XLA --------------------------------------------------------------------------
def traced(tf, call, derivatives, xla):
    """Return the derivatives by a tf.function that knows the number of axes alone."""
    arrays = {name: tf.constant(value) for name, value in call.arrays.items()}
    given = [tf.constant(call.logits), *arrays.values()]

    def function(x, *values):
        return derivatives(tf, partial(call, **dict(zip(arrays, values, strict=True))), call, x)

    unknown = [tf.TensorSpec([None] * each.shape.rank, each.dtype) for each in given]
    return tf.function(function, input_signature=unknown, jit_compile=xla)(*given)


@some
def test_unknown_lengths_in_tf_function(tf, call):
    assert_right(call, *traced(tf, call, second, xla=False))


@some
def test_unknown_lengths_in_xla(tf, call):
    assert_right(call, *traced(tf, call, first, xla=True))


@few
def test_unknown_lengths_in_xla_to_the_second_order(tf, call):
    assert_right(call, *traced(tf, call, second, xla=True))


@both
@few
def test_tapes_around_a_traced_call(tf, call, xla):
    function = tf.function(call, jit_compile=xla)
    assert_right(call, *second(tf, function, call, tf.constant(call.logits)))


def test_value_and_grad_and_vjp_in_tf_function(tf, call):
    operation, loss = getattr(softmaxkit, call.operation), "targets" in call.options
    given = call.options if loss else call.options | {"cotangent": call.cotangent}
    function = (softmaxkit.value_and_grad if loss else softmaxkit.vjp)(operation)
    unknown = tf.TensorSpec([None] * call.logits.ndim, tf.float64)
    in_graph = tf.function(lambda x: function(x, **given), input_signature=[unknown])
    assert_right(call, *in_graph(call.logits))


# --- graphs of TensorFlow 1 -----------------------------------------------------------------------
@some
def test_session_of_tensorflow_1(tf, call):
    """There == compares objects, and nothing runs that no result depends on."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float64, [None] * call.logits.ndim)
        arrays = {name: tf.constant(value) for name, value in call.arrays.items()}
        value = call(x, **arrays)
        (gradient,) = v1.gradients(value, x, call.cotangent)
        (product,) = v1.gradients(gradient, x, call.direction)
        assert_right(call, *session.run([value, gradient, product], {x: call.logits}))


# --- kernels for large arrays ---------------------------------------------------------------------
# z - max, up to 24 here, is rounded by 1e-6, which is the error of p; the sums add a few ULP.
IN_FLOAT32 = {"rtol": 3e-6}


@pytest.fixture
def large(monkeypatch):
    """Have a tf.function take the kernels that are for large arrays."""
    kernels = "softmaxkit.backends.tensorflow.rows"
    for name, limit in (("FUSED_ELEMENTS", 0), ("FUSED_FROM_CLASSES", 1)):
        monkeypatch.setattr(f"{kernels}.{name}", limit)


@some
def test_large_arrays_in_xla(tf, large, call):
    """A tf.function takes the same kernels where lengths are unknown: see the test of those."""
    function = tf.function(partial(second, tf, call, call), jit_compile=True)
    assert_right(call, *function(tf.constant(call.logits)))


@few
def test_large_arrays_in_tf_function(tf, large, call):
    function = tf.function(partial(second, tf, call, call))
    assert_right(call, *function(tf.constant(call.logits)))


def test_vectorized_map_of_large_arrays(tf, large, call):
    test_vectorized_map(tf, call)


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "tf.function"])
@pytest.mark.parametrize("axes", [1, 5, 6, 8])
def test_softmax_of_many_axes(tf, axes, eager):
    x = RNG.normal(0, 3, (*[2] * (axes - 1), 1 << (16 - axes))).astype(np.float32)
    softmax = softmaxkit.softmax if eager else tf.function(softmaxkit.softmax)
    got = softmax(tf.constant(x))
    np.testing.assert_allclose(got, reference.softmax(x.astype(np.float64)), **IN_FLOAT32)


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "tf.function"])
def test_softmax_of_many_classes_adds_up_to_one(tf, eager):
    x = np.random.default_rng(0).normal(0, 5, (16, 128256)).astype(np.float32)
    softmax = softmaxkit.softmax if eager else tf.function(softmaxkit.softmax)
    total = softmax(tf.constant(x)).numpy().sum(-1, dtype=np.float64)
    # Ten times 6e-8, half an ULP of 1: p is rounded, its sum and the sum of e^x too.
    # TensorFlow's own softmax is 33e-7 off.
    np.testing.assert_allclose(total, 1, rtol=0, atol=6e-7)


@pytest.mark.parametrize("classes", [5, 16, 33, 1000])
@pytest.mark.parametrize("xla", [False, True], ids=["tf.function", "XLA"])
@pytest.mark.parametrize("operation", ["softmax", "log_softmax"])
def test_nan_and_infinities_in_large_arrays(tf, large, operation, xla, classes):
    x = RNG.normal(0, 3, (classes, classes)).astype(np.float32)
    wrong = np.arange(0, classes, 2)
    x[wrong, wrong] = np.resize([np.nan, INF], wrong.size)
    x[1] = -INF
    x[3, 1:] = -INF
    function = tf.function(getattr(softmaxkit, operation), jit_compile=xla)
    got = function(tf.constant(x)).numpy()
    with np.errstate(invalid="ignore"):
        want = getattr(reference, operation)(x.astype(np.float64))
    assert np.isnan(want).all(1).sum() == wrong.size + 1
    np.testing.assert_allclose(got, want, **IN_FLOAT32)


# --- maps -----------------------------------------------------------------------------------------
def test_vectorized_map(tf, call):
    xs = np.stack([call.logits, call.logits / 2])
    derivatives = partial(first, tf, call, call)
    got = tf.vectorized_map(derivatives, tf.constant(xs), fallback_to_while_loop=False)
    for i, x in enumerate(xs):
        np.testing.assert_allclose(got[0][i], call.value(x), rtol=VALUE, atol=1e-14)
        np.testing.assert_allclose(got[1][i], call.gradient(x), rtol=GRADIENT, atol=1e-14)
