"""What JAX offers on a function holds on an operation: derivatives, batches, compilation."""

from functools import cached_property, partial

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (4, 3))
CUBE = RNG.normal(0, 2, (2, 3, 2))
TIES = [[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [0.0, 3.0, 3.0], [-1.0, -1.0, -1.0]]
HOLES = [[-np.inf, 1.0, 0.0], [0.5, -np.inf, -np.inf], [1.0, 2.0, -np.inf], [0.0, -np.inf, 1.0]]
SATURATED = [[30.0, 0.0, 0.0], [0.0, -40.0, 50.0], [90.0, 0.0, 1.0], [-5.0, 300.0, 0.0]]
TOP = [0, 2, 0, 1]  # the likeliest
LABELS = [0, 2, -100, 1]
SOFT = RNG.dirichlet(np.ones(3), 4)
WEIGHTS = [1.0, 2.0, 5.0]
MASK = np.array([[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 0]], bool)
EMPTY = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], bool)
ROWS = [[0.5], [1.0], [2.0], [4.0]]
# Enough classes for labels to be set in the gradient, row by row.
MANY = RNG.normal(0, 2, (3, 64)) + np.eye(3, 64) * [[0], [50], [1]]
FOCAL = {"gamma": 0.5}
ALPHA = {"alpha": WEIGHTS, "label_smoothing": 0.1}
SAMPLES = {"sample_weight": ROWS, "label_smoothing": 0.1}
CALLS = {
    "cross_entropy": (LOGITS, LABELS, {"weight": WEIGHTS, "sample_weight": [1.0, 0.5, 2.0, 3.0]}),
    "cross_entropy, rows": (LOGITS, LABELS, {"reduction": "none", "label_smoothing": 0.1}),
    "cross_entropy, mask": (LOGITS, LABELS, {"where": MASK, "temperature": ROWS, "z_loss": 0.1}),
    "cross_entropy, sum": (LOGITS, LABELS, {"temperature": WEIGHTS, "reduction": "sum"}),
    "cross_entropy, soft": (LOGITS, SOFT, {"weight": WEIGHTS, "normalizer": "weight"}),
    "cross_entropy, axis": (CUBE, [[0, 2], [1, 1]], {"axis": 1, "ignore_index": 1}),
    "cross_entropy, ties": (TIES, LABELS, {"label_smoothing": 0.1, "temperature": 2.5}),
    "cross_entropy, -inf": (HOLES, [2, 0, 1, 2], {"temperature": ROWS, "normalizer": 3.0}),
    "cross_entropy, soft -inf": (HOLES, np.isfinite(HOLES) / 2, {"sample_weight": 2.0}),
    "cross_entropy, saturated": (SATURATED, TOP, {}),
    "cross_entropy, many": (MANY, [-100, 1, 9], {"label_smoothing": 0.1, "reduction": "none"}),
    "focal_loss, many": (MANY, [5, 1, -100], {"sample_weight": [1.0, 2.0, 3.0]}),
    "focal_loss, rows": (LOGITS, LABELS, {"reduction": "none", **ALPHA}),
    "focal_loss, mask": (LOGITS, LABELS, {"where": MASK, "temperature": ROWS, **ALPHA}),
    "focal_loss, axis": (CUBE, [[0, 2], [1, -100]], {"axis": 1, "normalizer": "batch", **FOCAL}),
    "focal_loss, ties": (TIES, SOFT, {"normalizer": "weight", **ALPHA, **FOCAL}),
    "focal_loss, -inf": (HOLES, [2, 0, 1, 2], {"temperature": ROWS, "normalizer": 3.0}),
    "focal_loss, saturated": (SATURATED, TOP, {"alpha": 0.25, **FOCAL}),
    "binary_cross_entropy": (LOGITS, SOFT, {"pos_weight": 2.0, "reduction": "none"}),
    "binary_cross_entropy, saturated": (SATURATED, SOFT, {"pos_weight": WEIGHTS, **SAMPLES}),
    "sigmoid_focal_loss": (LOGITS, SOFT, {"alpha": 0.25, "normalizer": "weight", **FOCAL}),
    "sigmoid_focal_loss, saturated": (SATURATED, SOFT, {"reduction": "none", **SAMPLES}),
    "softmax, mask": (LOGITS, None, {"where": EMPTY, "temperature": 2.0}),
    "softmax, axes": (CUBE, None, {"axis": (0, 2)}),
    "softmax, -inf": (HOLES, None, {"temperature": ROWS}),
    "log_softmax, mask": (TIES, None, {"where": EMPTY, "temperature": ROWS}),
    "log_softmax, axes": (CUBE, None, {"axis": (2, 1), "temperature": 0.5}),
    "log_softmax, -inf": (HOLES, None, {"axis": 0}),
    "log_softmax, saturated": (SATURATED, None, {}),
    "logsumexp, mask": (TIES, None, {"where": EMPTY, "keepdims": True}),
    "logsumexp, axes": (CUBE, None, {"axis": None}),
    "logsumexp, -inf": ([*HOLES, [-np.inf] * 3], None, {}),
}
DIFFERENTIABLE = (
    "targets", "weight", "alpha", "sample_weight", "pos_weight", "temperature", "label_smoothing",
    "z_loss", "gamma", "normalizer",
)  # fmt: skip
STEP = 2.0**-17


class Call:
    """An operation as a function of the logits, and of those options that are numbers."""

    def __init__(self, name):
        logits, targets, self.options = CALLS[name]
        self.operation = name.partition(",")[0]
        self.logits = np.asarray(logits, np.float64)
        self.is_loss = targets is not None
        if self.is_loss:
            self.options = self.options | {"targets": np.asarray(targets)}
        arrays = {name: np.asarray(self.options.get(name)) for name in DIFFERENTIABLE}
        self.numbers = {name: array for name, array in arrays.items() if array.dtype == np.float64}
        if np.isinf(self.logits).any():  # no derivative by q where p = 0: q log p jumps to inf
            self.numbers.pop("targets", None)
        self.shape = np.shape(self.truth(self.logits))
        # The reference's gradient of a loss is that of the sum of its rows.
        self.cotangent = np.ones(self.shape)
        if not self.is_loss:
            self.cotangent += direction(self.cotangent) / 2

    def apply(self, function, *arrays, numbers=()):
        options = self.options | dict(numbers)
        targets = [options.pop("targets")] if self.is_loss else []
        return function(*arrays, *targets, **options)

    def __call__(self, x, numbers=()):
        return self.apply(getattr(softmaxkit, self.operation), x, numbers=numbers)

    def total(self, x, numbers=()):
        return (self.cotangent * self(x, numbers)).sum()

    def own_gradient(self, x):
        """Return the value and the gradient by softmaxkit.value_and_grad or softmaxkit.vjp."""
        operation = getattr(softmaxkit, self.operation)
        if self.is_loss:
            return self.apply(softmaxkit.value_and_grad(operation), x)
        return self.apply(softmaxkit.vjp(operation), x, self.cotangent)

    def truth(self, x, numbers=()):
        return self.apply(getattr(reference, self.operation), x, numbers=numbers)

    def true_total(self, x, numbers):
        rows = self.truth(x, numbers)
        return np.where(np.isfinite(rows), self.cotangent * rows, 0.0).sum()

    def true_gradient(self, x, numbers=()):
        if self.is_loss:
            return self.apply(partial(reference.gradient, self.operation), x, numbers=numbers)
        vjp = getattr(reference, f"{self.operation}_vjp")
        return self.apply(vjp, x, self.cotangent, numbers=numbers)

    @cached_property
    def derivatives(self):
        """Every derivative, jitted as one function: one compilation in the place of ten."""
        import jax

        @jax.jit
        def derivatives(x, direction):
            value, linear = jax.linearize(self, x)
            _, pull = jax.vjp(self, x)
            return {
                "value": self(x),
                "grad": jax.grad(self.total)(x),
                "own": self.own_gradient(x),
                "hessian": jax.hessian(self.total)(x),
                "jacrev": jax.jacrev(self)(x),
                "jacfwd": jax.jacfwd(self)(x),
                "jvp": jax.jvp(self, (x,), (direction,)),
                "linearize": (value, linear(direction)),
                "vjp": pull(jax.numpy.asarray(self.cotangent))[0],
            }

        arguments = jax.device_put((self.logits, direction(self.logits)))
        with jax.transfer_guard("disallow"):
            return derivatives(*arguments)


def direction(x):
    return np.cos(np.arange(x.size)).reshape(x.shape)


def differences(function, at):
    """Return the derivative by central differences: the shape of the value, then that of `at`."""
    columns = []
    for index in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[index] = STEP
        columns.append((function(at + step) - function(at - step)) / (2 * STEP))
    return np.stack(columns, -1).reshape(np.shape(columns[0]) + at.shape)


# Differences cancel to eps times cotangent / T, here 1.5 x 8 at the most.
exact = partial(np.testing.assert_allclose, rtol=1e-12, atol=4e-15)
# The error of a central difference: STEP² and eps / STEP.
near = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9)


@pytest.fixture(scope="module", params=CALLS)
def call(request):
    """Return each call; pytest lays the tests of one together."""
    return Call(request.param)


@pytest.fixture
def x(jax, call):
    return jax.numpy.asarray(call.logits)


# --- derivatives ----------------------------------------------------------------------------------
def test_jit(jax, call, x):
    exact(call.derivatives["value"], call.truth(call.logits))
    exact(call(x), call.truth(call.logits))


def test_grad_and_vjp(jax, call):
    truth = call.true_gradient(call.logits)
    exact(call.derivatives["grad"], truth)
    exact(call.derivatives["vjp"], truth)


def test_value_and_grad_of_softmaxkit(jax, call):
    value, gradient = call.derivatives["own"]
    exact(value, call.truth(call.logits))
    exact(gradient, call.true_gradient(call.logits))


def test_hessian(jax, call):
    near(call.derivatives["hessian"], differences(call.true_gradient, call.logits))


def test_jacrev_and_jacfwd(jax, call):
    with np.errstate(invalid="ignore"):  # -inf - -inf, where the value is that
        truth = differences(call.truth, call.logits)
    finite = np.isfinite(call.truth(call.logits))
    near(np.asarray(call.derivatives["jacrev"])[finite], truth[finite])
    exact(call.derivatives["jacfwd"], call.derivatives["jacrev"])


def test_jvp_and_linearize(jax, call):
    along = np.tensordot(call.derivatives["jacfwd"], direction(call.logits), call.logits.ndim)
    for name in ("jvp", "linearize"):
        value, tangent = call.derivatives[name]
        exact(value, call.truth(call.logits))
        exact(tangent, along)


@pytest.mark.parametrize(
    "call", [name for name in CALLS if Call(name).numbers], indirect=True, scope="module"
)
def test_grad_and_jacfwd_by_the_options(jax, call, x):
    @jax.jit
    def derivatives(x, numbers):
        mixed = jax.jacfwd(jax.grad(call.total), 1)(x, numbers)
        return jax.grad(call.total, 1)(x, numbers), mixed

    first, mixed = derivatives(x, call.numbers)
    for name, number in call.numbers.items():
        truths = [
            differences(lambda n, of=of, name=name: of(call.logits, {name: n}), number)
            for of in (call.true_total, call.true_gradient)
        ]
        near(first[name], truths[0])
        near(mixed[name], truths[1])


@pytest.mark.parametrize("gamma", [None, 0.5])
def test_saturated_rows_keep_their_digits_in_every_transform(jax, gamma):
    name, options = ("cross_entropy", {}) if gamma is None else ("focal_loss", {"gamma": gamma})
    truth = reference.gradient(name, SATURATED, TOP, **options)
    x, y = jax.numpy.asarray(SATURATED), jax.numpy.asarray(TOP)

    def loss(x, y):
        return getattr(softmaxkit, name)(x, y, **options)

    def row(x, y):
        return loss(x, y) / len(TOP)

    _, pull = jax.vjp(loss, x, y)
    for got in (
        pull(1.0)[0],
        jax.jit(jax.jacfwd(loss))(x, y),
        jax.jit(jax.vmap(jax.grad(row)))(x, y),
        jax.jit(jax.grad(jax.checkpoint(loss)))(x, y),
    ):
        np.testing.assert_allclose(got, truth, rtol=1e-12, atol=0)  # of each entry: its digits
    assert "custom_jvp_call" in primitives(jax.make_jaxpr(jax.vmap(row))(x, y).jaxpr)


@pytest.mark.parametrize("name", ["cross_entropy", "focal_loss"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("logits", [LOGITS, np.tile(LOGITS, 22)], ids=["3", "66"])
def test_nan_in_an_ignored_row_does_not_come_through(jax, name, smoothing, logits):
    x = np.where(np.equal(LABELS, -100)[:, None], np.nan, logits)
    targets = jax.numpy.asarray(LABELS)
    loss = partial(getattr(softmaxkit, name), targets=targets, label_smoothing=smoothing)
    along = np.where(np.isnan(x), np.nan, direction(x))
    _, tangent = jax.jit(lambda x, d: jax.jvp(loss, (x,), (d,)))(x, along)
    truth = reference.gradient(name, x, LABELS, label_smoothing=smoothing)
    exact(tangent, np.sum(truth * np.nan_to_num(along)))
    first, *others = (
        jax.jit(of(jax.grad(loss)))(jax.numpy.asarray(rows))
        for rows in (x, np.nan_to_num(x))
        for of in (jax.jacrev, jax.jacfwd)
    )
    for other in others:
        exact(first, other)


@pytest.mark.parametrize("policy", ["nothing_saveable", "dots_saveable", "everything_saveable"])
@pytest.mark.parametrize("name", ["cross_entropy, mask", "focal_loss, ties", "softmax, axes"])
def test_checkpoint(jax, name, policy):
    call = Call(name)
    policy = getattr(jax.checkpoint_policies, policy)
    function = jax.grad(jax.checkpoint(call.total, policy=policy))
    truth = call.true_gradient(call.logits)
    exact(jax.jit(function)(call.logits), truth)
    assert primitives(jax.make_jaxpr(function)(call.logits).jaxpr) & {"checkpoint", "remat2"}


# --- batches --------------------------------------------------------------------------------------
def test_vmap(jax, call):
    batch = np.stack([call.logits, call.logits / 2, call.logits + 1])
    numbers = {name: np.stack([n, n / 2, n / 4]) for name, n in call.numbers.items()}
    if call.is_loss and "targets" not in numbers:
        labels = call.options["targets"]
        numbers["targets"] = np.stack([labels, labels[::-1], labels])
    rows = [{name: n[i] for name, n in numbers.items()} for i in range(3)]

    @jax.jit
    def mapped(batch, numbers):
        return {
            "last": jax.vmap(call, -1, -1)(jax.numpy.moveaxis(batch, 0, -1)),
            "vmap(vmap(grad))": jax.vmap(jax.vmap(jax.grad(call.total)))(batch[None])[0],
            "grad(vmap)": jax.grad(lambda batch: jax.vmap(call.total)(batch).sum())(batch),
            "options": jax.vmap(call, (None, 0))(batch[0], numbers) if numbers else None,
            "both": jax.vmap(jax.grad(call.total))(batch, numbers),
        }

    got = mapped(batch, numbers)
    exact(np.moveaxis(got["last"], -1, 0), [call.truth(each) for each in batch])
    gradients = [call.true_gradient(each) for each in batch]
    exact(got["vmap(vmap(grad))"], gradients)
    exact(got["grad(vmap)"], gradients)
    if numbers:
        exact(got["options"], [call.truth(call.logits, row) for row in rows])
    exact(got["both"], [call.true_gradient(*each) for each in zip(batch, rows, strict=True)])


# --- shapes, dtypes, compilation ------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_eval_shape_and_weak_types(jax, call, x, dtype):
    """A number among the options promotes nothing."""
    given = jax.ShapeDtypeStruct(call.logits.shape, dtype)
    value, gradient = jax.eval_shape(call.own_gradient, given)
    assert (value.shape, value.dtype, value.weak_type) == (call.shape, dtype, False)
    assert (gradient.shape, gradient.dtype, gradient.weak_type) == (given.shape, dtype, False)
    if dtype == "float64":
        eager, shaped = call(x), jax.eval_shape(call, given)
        for each in (eager, shaped):
            assert (each.shape, each.dtype, each.weak_type) == (call.shape, dtype, False)


def test_eval_shape_of_labels(jax):
    labels = jax.ShapeDtypeStruct((4,), "int32")
    for function in (
        lambda y: softmaxkit.one_hot(y, 3, dtype="bfloat16"),
        lambda y: softmaxkit.smooth_labels(softmaxkit.one_hot(y, 3, dtype="bfloat16"), 0.1),
    ):
        shaped, eager = jax.eval_shape(function, labels), function(jax.numpy.asarray(TOP))
        assert (shaped.shape, shaped.dtype) == (eager.shape, eager.dtype) == ((4, 3), "bfloat16")


def compiles(jax, caplog, function, *arguments, **options):
    """Return whether JAX traced or compiled anything."""
    caplog.clear()
    with jax.log_compiles():
        function(*arguments, **options)
    return bool(caplog.messages)


def test_no_retrace_on_equal_shapes(jax, caplog, call, x):
    traces = []

    def function(x, numbers):
        traces.append(x)
        return call(x, numbers)

    jitted = jax.jit(function)
    other, changed = x / 2, {name: 0.75 * n for name, n in call.numbers.items()}
    plain = {name: 0.75 * n for name, n in call.options.items() if type(n) is float}
    plain.pop("gamma", None)  # static
    call(x)
    assert not compiles(jax, caplog, call, other, plain)
    jitted(x, call.numbers)
    assert not compiles(jax, caplog, jitted, other, changed)
    assert len(traces) == 1


def test_what_compiles_anew(jax, caplog):
    """A Python gamma, static as x**2 is cheaper than a power; the first label that is ignored."""
    x, y = jax.numpy.zeros((7, 5)), np.zeros(7, int)
    anew = partial(compiles, jax, caplog, softmaxkit.focal_loss)
    assert anew(x, y, gamma=1.25)
    assert not anew(x, y, gamma=1.25)
    assert anew(x, y, gamma=1.5)
    assert anew(x, y, gamma=jax.numpy.asarray(1.5))
    assert not anew(x, y, gamma=jax.numpy.asarray(1.25))
    assert anew(x, y - 100, gamma=1.5)
    assert not anew(x, y + 1, gamma=1.5)
    assert not anew(x, y - [100, 0, 0, 0, 0, 0, 100], gamma=1.5)


def primitives(jaxpr):
    """Return the names of all primitives, those of inner functions too."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found |= primitives(inner)
    return found


def test_no_host_sync_in_traced_code(jax, call, x):
    """Traced without values, into no callback; `Call.derivatives` runs without a transfer."""
    arrays = {name: n for name, n in call.options.items() if isinstance(n, np.ndarray)}
    given = x, arrays | call.numbers
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), given)
    traced = jax.make_jaxpr(jax.value_and_grad(call.total))(*shapes)
    names = primitives(traced.jaxpr)
    assert "exp" in names
    assert not traced.effects
    assert not [name for name in names if "callback" in name or "feed" in name or "pmap" in name]
