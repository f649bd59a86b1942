"""The functions of softmaxkit.keras, and what softmaxkit makes of Keras's own kinds of tensors.

Run as keras_cases.py is.
"""

import inspect

import keras
import numpy as np
import pytest
from keras import ops
from keras_common import BACKEND, FUNCTIONS, LIMIT, differentiates, equal, gradient, quiet
from keras_common import case as case_of_loss

import softmaxkit
import softmaxkit.keras

pytestmark = quiet
IN_KERAS = [name for name in FUNCTIONS if hasattr(keras.losses, name)]
SPARSE = [name for name in FUNCTIONS if name.startswith("sparse")]


def ours(name, /, *arguments, **options):
    return getattr(softmaxkit.keras, name)(*arguments, **options)


def theirs(name, y_true, y_pred, /, **options):
    tensors = map(ops.convert_to_tensor, (y_true, y_pred))
    return getattr(keras.losses, name)(*tensors, **options)


def case(name, from_logits, **options):
    return case_of_loss("".join(word.title() for word in name.split("_")), from_logits, **options)


# --- the same as Keras ----------------------------------------------------------------------------
def test_every_class_has_its_function():
    classes = [name for name in softmaxkit.keras.__all__ if name not in FUNCTIONS]
    titles = ["".join(word.title() for word in name.split("_")) for name in FUNCTIONS]
    assert sorted(titles) == classes
    assert softmaxkit.keras.functional.__all__ == FUNCTIONS


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_and_defaults_are_those_of_keras(name):
    have = inspect.signature(getattr(softmaxkit.keras, name)).parameters
    if name not in IN_KERAS:
        names = "y_true, y_pred, alpha, gamma, from_logits, label_smoothing, ignore_class, axis"
        assert list(have) == names.split(", ")
        return
    want = inspect.signature(getattr(keras.losses, name)).parameters
    own = [each for each in have if each not in want]
    assert own == (["label_smoothing"] if name == "sparse_categorical_crossentropy" else [])
    assert all(have[each].kind is inspect.Parameter.KEYWORD_ONLY for each in own)
    positional = [(one.name, one.default) for one in have.values() if one.name not in own]
    assert positional == [(one.name, one.default) for one in want.values()]


OPTIONS = [
    {},
    {"label_smoothing": 0.2},
    {"gamma": 0.5},
    {"alpha": 0.6},
    {"apply_class_balancing": True, "alpha": 0.6, "gamma": 3.0},
    {"ignore_class": 3},
]


def taken(name, options):
    return set(options) <= set(inspect.signature(getattr(keras.losses, name)).parameters)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in IN_KERAS for options in OPTIONS if taken(name, options)],
    ids=str,
)
def test_rows_and_masks_are_those_of_keras(name, options, from_logits):
    y_true, y_pred = case(name, from_logits, shape=(3, 4, 5))
    have = ours(name, y_true, y_pred, from_logits=from_logits, **options)
    with np.errstate(invalid="ignore"):  # Keras divides ignored rows by 0
        want = theirs(name, y_true, y_pred, from_logits=from_logits, **options)
    assert type(have) is type(want)
    # The predictions'. Keras on JAX returns float64 for labels where JAX has it.
    assert keras.backend.standardize_dtype(have.dtype) == "float32"
    assert have.shape == want.shape
    equal(have, want)
    masks = [getattr(each, "_keras_mask", None) for each in (have, want)]
    assert (masks[0] is None) == (masks[1] is None)
    if masks[0] is not None:
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, masks))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("focal", [False, True])
def test_labels_are_one_hot_targets(focal, from_logits):
    middle = "_focal" if focal else ""
    options = {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5]} if focal else {}
    options |= {"label_smoothing": 0.3, "from_logits": from_logits}
    labels, y_pred = case("sparse_categorical_crossentropy", from_logits)
    have = ours(f"sparse_categorical{middle}_crossentropy", labels, y_pred, **options)
    y_true = np.eye(5, dtype="float32")[labels]
    equal(have, theirs(f"categorical{middle}_crossentropy", y_true, y_pred, **options))


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_narrow_predictions_are_computed_in_float32(name, dtype, from_logits):
    y_true, y_pred = case(name, from_logits)
    narrow = ops.cast(y_pred, dtype)
    have = ours(name, y_true, narrow, from_logits=from_logits)
    assert keras.backend.standardize_dtype(have.dtype) == dtype
    exact = ours(name, y_true, ops.cast(narrow, "float32"), from_logits=from_logits)
    have, want = (ops.convert_to_numpy(ops.cast(each, "float32")) for each in (have, exact))
    np.testing.assert_allclose(have, want, rtol=2**-8 if dtype == "bfloat16" else 2**-11)


def test_lists_and_whole_numbers():
    rows = ours("categorical_crossentropy", [[1, 0], [0, 1]], [[1, 1], [1, 3]])
    np.testing.assert_allclose(ops.convert_to_numpy(rows), -np.log([0.5, 0.75]), **LIMIT)
    assert keras.backend.standardize_dtype(rows.dtype) == "float32"


# --- errors ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("bad", [-1, 5])
def test_a_label_out_of_range_is_named(name, bad):
    labels, p = case(name, False)
    labels[4] = bad
    with pytest.raises(IndexError, match=rf"^{name}: y_true\[4\] is {bad}; expected a class"):
        ours(name, labels, p)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no int64 unless told to")
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", SPARSE)
def test_a_label_beyond_int32_is_not_another(name, from_logits):
    labels, y_pred = case(name, from_logits)
    with pytest.raises(IndexError, match=r"\[4\] is 4294967296; expected a class index"):
        ours(name, np.where(np.arange(6) == 4, 2**32, labels), y_pred, from_logits=from_logits)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", SPARSE)
def test_a_label_that_cannot_be_read_makes_its_row_nan(name, from_logits):
    if BACKEND in ("numpy", "torch"):
        pytest.skip("labels can be read in any call of this backend on a CPU")
    labels, y_pred = case(name, from_logits)
    labels[4] = 5

    def rows(labels, y_pred):
        return ours(name, labels, y_pred, from_logits=from_logits)

    if BACKEND == "jax":
        import jax

        have = jax.jit(rows)(labels, y_pred)
        slope = jax.jit(lambda labels, y: jax.grad(lambda y: rows(labels, y)[4])(y))(labels, y_pred)
        assert np.isnan(slope[4]).all()
    elif from_logits:
        pytest.skip("TensorFlow's own error")
    else:
        import tensorflow as tf

        have = tf.function(rows)(tf.constant(labels), tf.constant(y_pred))
    assert np.isnan(ops.convert_to_numpy(have)).tolist() == [False] * 4 + [True, False]


@pytest.mark.parametrize("name", [name for name in IN_KERAS if name not in SPARSE])
def test_shapes_that_differ_are_refused(name):
    y_true, p = case(name, False)
    with pytest.raises(ValueError, match=rf"^{name}: y_true has shape \(6, 1\); expected \(6, 5\)"):
        ours(name, y_true[:, :1], p)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numbers_out_of_range_are_refused(name):
    y_true, p = case(name, False)
    with pytest.raises(ValueError, match=r"smoothing is 1\.5; expected a number in"):
        ours(name, y_true, p, label_smoothing=1.5)
    if "focal" in name:
        with pytest.raises(
            ValueError, match=rf"^{name}: gamma is -1\.0; expected a number at least"
        ):
            ours(name, y_true, p, gamma=-1.0)


# --- in a model -----------------------------------------------------------------------------------
def model(name, loss, **options):
    keras.utils.set_random_seed(0)
    last = "sigmoid" if name.startswith("binary") else "softmax"
    made = keras.Sequential([keras.Input((5,)), keras.layers.Dense(5, last)])
    made.compile(keras.optimizers.SGD(0.5), loss, **options)
    return made


def data(name):
    y_true, _ = case(name, True, shape=(64, 5))
    return np.random.default_rng(2).normal(size=(64, 5)).astype("float32"), y_true


@differentiates
@pytest.mark.parametrize("name", IN_KERAS)
def test_loss_and_metric_of_compile_are_those_of_keras(name):
    x, y = data(name)
    histories = []
    for library in (softmaxkit.keras, keras.losses):
        function = getattr(library, name)
        compiled = model(name, function, metrics=[function])
        histories.append(compiled.fit(x, y, 16, 3, verbose=0).history)
    assert sorted(histories[0]) == sorted(histories[1]) == sorted([name, "loss"])
    for key, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][key], rtol=1e-5)  # 12 steps in float32
        assert values[-1] < values[0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_saved_and_loaded_with_the_model(name, tmp_path):
    x, y = data(name)
    function = getattr(softmaxkit.keras, name)
    first = model(name, function, metrics=[function])
    values = first.evaluate(x, y, verbose=0)
    rows = function(y, ops.convert_to_tensor(first.predict(x, verbose=0)))
    np.testing.assert_allclose(values, float(ops.mean(rows)), rtol=1e-5)  # means of batches
    first.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.loss is function
    np.testing.assert_allclose(again.evaluate(x, y, verbose=0), values, **LIMIT)
    assert keras.saving.get_registered_object(f"softmaxkit>{name}") is function


# --- keras.KerasTensor ----------------------------------------------------------------------------
CLASSES, LABELS = np.array([[2.0, 1.0, 0.0]], "float32"), np.array([0])
SYMBOLIC = {
    "softmax": lambda x: softmaxkit.softmax(x),
    "log_softmax": lambda x: softmaxkit.log_softmax(x, where=x),
    "logsumexp": lambda x: softmaxkit.logsumexp(x),
    "cross_entropy": lambda x: softmaxkit.cross_entropy(x, LABELS),
    "cross_entropy targets": lambda x: softmaxkit.cross_entropy(CLASSES, x),
    "cross_entropy sample_weight": lambda x: softmaxkit.cross_entropy(
        CLASSES, LABELS, sample_weight=x
    ),
    "focal_loss": lambda x: softmaxkit.value_and_grad(softmaxkit.focal_loss)(x, LABELS),
    "binary_cross_entropy": lambda x: softmaxkit.binary_cross_entropy(x, x),
    "sigmoid_focal_loss": lambda x: softmaxkit.sigmoid_focal_loss(x, x),
    "one_hot": lambda x: softmaxkit.one_hot(x, 3),
    "smooth_labels": lambda x: softmaxkit.smooth_labels(x, 0.1),
    **{f"{name} y_pred": lambda x, name=name: ours(name, LABELS, x) for name in FUNCTIONS},
    **{f"{name} y_true": lambda x, name=name: ours(name, x, CLASSES) for name in FUNCTIONS},
}


@pytest.mark.parametrize("call", SYMBOLIC)
def test_a_keras_tensor_is_refused_with_what_to_do(call):
    name, _, argument = call.partition(" ")
    line = rf"^[\w()]*{name}\)?: {argument or '(x|logits|labels|targets)'} is a keras.KerasTensor, "
    line += r"which holds no values; expected an array of .*; make the call inside a keras.Layer "
    with pytest.raises(TypeError, match=line) as refusal:
        SYMBOLIC[call](keras.Input((3,)))
    assert "\n" not in str(refusal.value)


class Softmax(keras.layers.Layer):
    """What the line advises."""

    def call(self, x):
        return softmaxkit.softmax(x)


@pytest.mark.parametrize("layer", [Softmax, lambda: keras.layers.Lambda(softmaxkit.softmax)])
def test_what_the_line_advises_works(layer):
    symbolic = keras.Input((3,))
    made = keras.Model(symbolic, layer()(symbolic))
    np.testing.assert_allclose(
        made.predict(CLASSES, verbose=0), softmaxkit.softmax(CLASSES), rtol=1e-6
    )  # a few float32 roundings


# --- keras.Variable -------------------------------------------------------------------------------
def variable(value, dtype=None):
    trainable = np.asarray(value).dtype.kind == "f"
    return keras.Variable(value, dtype=dtype or np.asarray(value).dtype.name, trainable=trainable)


def of_variables(given):
    """Call with logits and companions, each made by `given`."""
    return {
        "softmax": softmaxkit.softmax(given(CLASSES), temperature=given(np.float32(2.0))),
        "cross_entropy": softmaxkit.cross_entropy(
            given(CLASSES),
            given(np.array([0], "int32")),
            weight=given(np.array([1.0, 2.0, 3.0], "float32")),
            where=given(np.array([True, True, False])),
        ),
        "probabilities": softmaxkit.focal_loss(given(CLASSES), given(CLASSES / 3)),
        "one_hot": softmaxkit.one_hot(given(np.array([0], "int32")), 3),
        "vjp": softmaxkit.vjp(softmaxkit.softmax)(given(CLASSES), given(CLASSES))[1],
    }


def test_a_keras_variable_is_the_tensor_that_it_holds():
    have = of_variables(variable)
    want = of_variables(lambda value: variable(value).value)
    for call in want:
        assert type(have[call]) is type(want[call]), call
        np.testing.assert_array_equal(*(ops.convert_to_numpy(each[call]) for each in (have, want)))


def test_a_keras_variable_beside_another_library_is_refused():
    if BACKEND == "numpy":
        pytest.skip("NumPy's arrays stand beside any library's")
    with pytest.raises(
        TypeError, match=r"^cross_entropy: targets is a .*; expected an array of the"
    ):
        softmaxkit.cross_entropy(CLASSES, variable(np.array([0], "int32")))


@pytest.mark.parametrize("call", [softmaxkit.softmax, softmaxkit.logsumexp])
def test_autocast_of_a_keras_variable(call):
    held = variable(CLASSES)
    with keras.src.backend.AutocastScope("bfloat16"):
        assert keras.backend.standardize_dtype(call(held).dtype) == "bfloat16"


@differentiates
def test_gradient_by_a_keras_variable():
    held = variable(CLASSES)
    want = np.array(softmaxkit.softmax(CLASSES)) - np.eye(3)[:1]
    if BACKEND == "torch":
        softmaxkit.cross_entropy(held, LABELS).backward()
        have = held.value.grad.numpy()
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = softmaxkit.cross_entropy(held, LABELS)
        have = tape.gradient(loss, held.value).numpy()
    else:

        def loss(x):
            with keras.StatelessScope(state_mapping=[(held, x)]):
                return softmaxkit.cross_entropy(held, LABELS)

        have = gradient(loss, CLASSES)
    np.testing.assert_allclose(have, want, rtol=1e-6, atol=1e-7)  # p - 1 at the label cancels
