"""TensorFlow programs with a loss in them: quiet, saved, in loops, in Keras."""

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import reference

# Of float64: some ten roundings, which XLA and a product with a cotangent multiply; entries of a
# gradient are differences of larger terms.
VALUE, GRADIENT = 1e-12, 1e-10

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (4, 3))
LABELS = np.array([0, 2, -100, 1])
SOFT = RNG.dirichlet(np.ones(3), 4)
ROWS = {"reduction": "none", "label_smoothing": 0.1}

QUIET = """
import os, sys
from softmaxkit._libraries import import_quietly
tf = import_quietly("tensorflow")
tf.function(lambda: tf.ones([2]) + 1, jit_compile=True)()  # XLA tells of its first use
log = open("log", "w+")
os.dup2(log.fileno(), 2)
import softmaxkit
x, y = tf.random.normal([4, 3]), tf.constant([0, 2, 1, 1])
def call(x):
    return (
        softmaxkit.softmax(x, where=y[:, None] > 0), softmaxkit.logsumexp(x),
        softmaxkit.log_softmax(x, (0, 1)), softmaxkit.cross_entropy(x, y, label_smoothing=0.1),
        softmaxkit.focal_loss(x, tf.nn.softmax(x)), softmaxkit.binary_cross_entropy(x, x),
        softmaxkit.sigmoid_focal_loss(x, x), softmaxkit.value_and_grad(softmaxkit.focal_loss)(x, y),
    )
class Layer(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def __call__(self, x):
        if tf.reduce_sum(x) > 1e9:  # for AutoGraph
            x = x + 1.0
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = softmaxkit.cross_entropy(x, y)
        return value, tape.jacobian(value, x), call(x)
for run in (call, Layer(), tf.function(call, jit_compile=True)):
    run(x)
tf.vectorized_map(call, tf.stack([x, x]))
imported = {"softmaxkit.backends.torch", "softmaxkit.backends.jax"} & set(sys.modules)
assert not imported, imported  # by AutoGraph, as it reads softmaxkit's functions
log.flush()
print(open("log").read())
"""


def test_no_warning_of_autograph_or_any_other(tf, run_python, monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOGRAPH_VERBOSITY", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")  # warnings and errors
    (tmp_path / "quiet.py").write_text(QUIET)  # AutoGraph reads source from files
    assert run_python("import runpy; runpy.run_path('quiet.py')").strip() == ""


@pytest.mark.parametrize("custom", [True, False], ids=["custom gradients", "without"])
def test_saved_model_reloaded(tf, tmp_path, custom):
    class Model(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None, None], tf.float64),
                tf.TensorSpec([None], tf.int64),
            ]
        )
        def __call__(self, x, y):
            return softmaxkit.cross_entropy(x, y, **ROWS)

    options = tf.saved_model.SaveOptions(experimental_custom_gradients=custom)
    tf.saved_model.save(Model(), str(tmp_path), options=options)
    reloaded, x = tf.saved_model.load(str(tmp_path)), tf.constant(LOGITS)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        rows = reloaded(x, LABELS)
        if custom:
            gradient = tape.gradient(rows, x)
    np.testing.assert_allclose(rows, reference.cross_entropy(LOGITS, LABELS, **ROWS), rtol=VALUE)
    # What TensorFlow itself does not save: custom gradients if told so, and those of gradients.
    if custom:
        truth = reference.gradient("cross_entropy", LOGITS, LABELS, **ROWS)
        np.testing.assert_allclose(gradient, truth, rtol=GRADIENT, atol=1e-14)
    with pytest.raises((LookupError, TypeError)):
        tape.gradient(gradient if custom else rows, x)


@pytest.mark.parametrize("operation", ["cross_entropy", "focal_loss"])
def test_one_trace_for_every_batch_size(tf, operation):
    function = getattr(softmaxkit, operation)
    signature = [tf.TensorSpec([None, None], tf.float64), tf.TensorSpec([None], tf.int64)]
    dynamic, by_shape = tf.function(function, input_signature=signature), tf.function(function)
    for rows in (4, 7, 4, 7):
        x, y = np.resize(LOGITS, (rows, 3)), np.resize(LABELS, rows)
        for graph in (dynamic, by_shape):
            got = graph(tf.constant(x), tf.constant(y))
            np.testing.assert_allclose(got, getattr(reference, operation)(x, y), rtol=VALUE)
    assert dynamic.experimental_get_tracing_count() == 1
    assert by_shape.experimental_get_tracing_count() == 2


def by_while_loop(tf, function, xs, ys):
    def body(i, *arrays):
        results = function((xs[i], ys[i]))
        return i + 1, *(
            array.write(i, result) for array, result in zip(arrays, results, strict=True)
        )

    empty = [tf.TensorArray(xs.dtype, 3) for _ in range(2)]
    return [array.stack() for array in tf.while_loop(lambda i, *_: i < 3, body, [0, *empty])[1:]]


MAPS = {
    "vectorized_map": lambda tf, f, *xs: tf.vectorized_map(f, xs, fallback_to_while_loop=False),
    "map_fn": lambda tf, f, *xs: tf.map_fn(f, xs, fn_output_signature=(xs[0].dtype,) * 2),
    "while_loop": by_while_loop,
    "scan": lambda tf, f, *xs: tf.scan(lambda _, x: f(x), xs, (xs[0][0, :, 0], xs[0][0])),
    "Dataset.map": lambda tf, f, *xs: next(
        iter(tf.data.Dataset.from_tensor_slices(xs).map(lambda *x: f(x)).batch(3))
    ),
}


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "tf.function"])
@pytest.mark.parametrize("how", MAPS)
def test_over_logits_and_labels_by(tf, how, graph):
    xs, ys = np.stack([LOGITS, 2 * LOGITS, -LOGITS]), np.stack([LABELS, LABELS, [1, 1, 0, 2]])

    def derivatives(given):
        return softmaxkit.value_and_grad(softmaxkit.focal_loss)(*given, **ROWS)

    def mapped(xs, ys):
        return MAPS[how](tf, derivatives, xs, ys)

    got = (tf.function(mapped) if graph else mapped)(tf.constant(xs), tf.constant(ys))
    for x, y, value, gradient in zip(xs, ys, *got, strict=True):
        np.testing.assert_allclose(value, reference.focal_loss(x, y, **ROWS), rtol=VALUE)
        truth = reference.gradient("focal_loss", x, y, **ROWS)
        np.testing.assert_allclose(gradient, truth, rtol=GRADIENT, atol=1e-14)


# --- Keras ----------------------------------------------------------------------------------------
@pytest.fixture
def keras(tf):
    keras = pytest.importorskip("keras", reason="keras is not installed")
    if keras.backend.backend() != "tensorflow":
        pytest.skip(f"keras runs on {keras.backend.backend()} here, not on tensorflow")
    keras.utils.set_random_seed(0)
    return keras


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_keras_mixed_policy(tf, keras, half):
    layer = keras.layers.Dense(3, dtype=f"mixed_{half}")
    x, y = RNG.normal(size=(4, 5)).astype("float32"), LABELS
    with tf.GradientTape() as tape:
        logits = layer(x)
        rows = softmaxkit.cross_entropy(logits, y, reduction="none")
        loss = softmaxkit.cross_entropy(logits, y, dtype="float32")
    assert (logits.dtype, rows.dtype, loss.dtype) == (half, half, tf.float32)
    rounded = tf.cast(logits, tf.float64).numpy()
    np.testing.assert_allclose(
        loss, reference.cross_entropy(rounded, y), rtol=1e-6
    )  # of float32: 8 ULP
    step = 2.0 ** {"float16": -11, "bfloat16": -8}[half]
    truth = reference.cross_entropy(rounded, y, reduction="none")
    np.testing.assert_allclose(tf.cast(rows, tf.float64), truth, rtol=step)  # rounded once
    by_kernel, by_bias = tape.gradient(loss, layer.trainable_variables)
    assert by_kernel.dtype == by_bias.dtype == tf.float32
    truth = reference.gradient("cross_entropy", rounded, y)
    # In half precision: the gradient by logits, its product with x, and the sum over four rows.
    np.testing.assert_allclose(by_kernel, x.T @ truth, rtol=0, atol=8 * step)
    np.testing.assert_allclose(by_bias, truth.sum(0), rtol=0, atol=4 * step)


@pytest.mark.parametrize("options", [{"run_eagerly": True}, {}, {"jit_compile": True}], ids=str)
def test_keras_fit(tf, keras, options):
    """Trains as Keras' own loss does."""

    def ours(targets, logits):
        return softmaxkit.cross_entropy(logits, targets, **ROWS)

    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    x, y = RNG.normal(size=(8, 5)).astype("float32"), np.tile(SOFT, (2, 1)).astype("float32")
    losses = []
    for loss in (ours, theirs):
        dense = keras.layers.Dense(3, kernel_initializer="ones")
        model = keras.Sequential([keras.Input((5,)), dense])
        model.compile(keras.optimizers.SGD(0.5), loss=loss, **{"jit_compile": False} | options)
        losses.append(model.fit(x, y, 4, 3, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)  # six steps, each adds its rounding
    assert losses[0][-1] < losses[0][0]


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "XLA"])
def test_a_bad_label_in_keras_fit(tf, keras, xla):
    """An exception in graphs; NaN under XLA, which leaves assertions out."""

    def loss(labels, logits):
        labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
        return softmaxkit.cross_entropy(logits, labels, reduction="none")

    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", loss=loss, jit_compile=xla)
    given = {"x": np.ones((4, 5), "float32"), "y": np.array([0, 1, 3, 2]), "verbose": 0}
    if xla:
        assert np.isnan(model.fit(**given).history["loss"]).all()
        return
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"holds\] \[3\] \[expected a class"):
        model.fit(**given)


def test_a_bad_label_in_a_saved_model_and_where_xla_compiles_it(tf, tmp_path):
    """XLA leaves out an assertion that was traced without it: the row is NaN then."""
    given = tf.constant(LOGITS), tf.constant([0, 2, 3, 1])
    signature = [tf.TensorSpec([None, 3], tf.float64), tf.TensorSpec([None], tf.int32)]
    model = tf.Module()
    model.call = tf.function(lambda x, y: softmaxkit.cross_entropy(x, y, **ROWS), signature)
    model.call.get_concrete_function()
    tf.saved_model.save(model, str(tmp_path))
    for call in (model.call, tf.saved_model.load(str(tmp_path)).call):
        with pytest.raises(tf.errors.InvalidArgumentError, match="cross_entropy: targets holds"):
            call(*given)
        got = tf.function(lambda *given, call=call: call(*given), jit_compile=True)(*given)
        assert np.isnan(got).tolist() == [False, False, True, False]


def test_nothing_on_a_gpu_waits_for_what_it_computes(tf, monkeypatch):
    logits = RNG.normal(0, 2, (40, 1000))
    labels = RNG.integers(0, 1000, 40)

    def step(x, y):
        value, gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, y)
        return value, gradient, softmaxkit.softmax(x)

    def conditions():
        given = tf.constant(logits), tf.constant(labels)
        traced = tf.function(step).get_concrete_function(*given)
        value, gradient, p = traced(*given)
        np.testing.assert_allclose(value, reference.cross_entropy(logits, labels), rtol=VALUE)
        truth = reference.gradient("cross_entropy", logits, labels)
        np.testing.assert_allclose(gradient, truth, rtol=GRADIENT)
        np.testing.assert_allclose(p, reference.softmax(logits), rtol=GRADIENT)
        return {op.type for op in traced.graph.get_operations()} & {"If", "StatelessIf", "Assert"}

    assert conditions() > {"Assert"}
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *_: [gpu])
    assert not conditions()
