"""softmaxkit.keras on one Keras backend, which Keras takes from KERAS_BACKEND when it is imported.

Run by `test_facade_keras.py`, once for each backend in a process of its own; or by hand,
``KERAS_BACKEND=jax python -m pytest -o pythonpath=tests tests/keras_cases.py``.
"""

import doctest
import inspect
import re

import keras
import mpmath
import numpy as np
import pytest
from keras import ops
from keras_common import (
    BACKEND,
    BINARY,
    FUNCTIONS,
    IN_KERAS,
    LIMIT,
    NAMES,
    SPARSE,
    case,
    differentiates,
    equal,
    gradient,
    ours,
    quiet,
    theirs,
)

import softmaxkit.keras
import softmaxkit.keras.functional

pytestmark = quiet


# --- the same as Keras where Keras is right -------------------------------------------------------
OPTIONS = [
    {},
    {"reduction": "sum"},
    {"reduction": "mean"},
    {"reduction": "mean_with_sample_weight"},
    {"reduction": "none"},
    {"reduction": None},
    {"label_smoothing": 0.2},
    {"gamma": 0.0},
    {"gamma": 0.5},
    {"alpha": 0.6},
    {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5]},
    {"apply_class_balancing": True},
    {"apply_class_balancing": True, "alpha": 0.6, "label_smoothing": 0.3, "gamma": 3.0},
    {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5], "label_smoothing": 0.3, "gamma": 3.0},
    {"ignore_class": 3},
    {"ignore_class": 3, "reduction": "sum"},
    {"ignore_class": 3, "reduction": "none"},
    {"ignore_class": 3, "reduction": "mean_with_sample_weight"},
]


def taken(name, options):
    if isinstance(options.get("alpha"), list) and name in BINARY:
        return False
    return set(options) <= set(inspect.signature(getattr(keras.losses, name)).parameters)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name in IN_KERAS for options in OPTIONS if taken(name, options)],
    ids=str,
)
def test_values_are_those_of_keras(name, options, from_logits):
    y_true, y_pred = case(name, from_logits, shape=(3, 4, 5))
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (3, 4)).astype("float32")
    mine = ours(name, from_logits=from_logits, **options)
    keras_s = theirs(name, from_logits=from_logits, **options)
    for sample_weight in (None, weights):
        with np.errstate(invalid="ignore"):  # Keras divides ignored rows by 0
            want = keras_s(y_true, y_pred, sample_weight)
        have = mine(y_true, y_pred, sample_weight)
        assert type(have) is type(want)
        assert have.dtype == want.dtype
        assert have.shape == want.shape
        equal(have, want)


@differentiates
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", IN_KERAS)
def test_gradients_are_those_of_keras(name, from_logits):
    y_true, y_pred = case(name, from_logits)
    mine, keras_s = (make(name, from_logits=from_logits) for make in (ours, theirs))
    np.testing.assert_allclose(
        gradient(lambda p: mine(y_true, p), y_pred),
        gradient(lambda p: keras_s(y_true, p), y_pred),
        rtol=1e-5,  # of both; Keras's focal loss goes through a power of 1 - p
        atol=1e-7,
    )


@pytest.mark.parametrize("name", IN_KERAS)
def test_arguments_and_defaults_are_those_of_keras(name):
    want = inspect.signature(getattr(keras.losses, name)).parameters
    have = inspect.signature(getattr(softmaxkit.keras, name)).parameters
    own = [each for each in have if each not in want]
    assert own == (["label_smoothing"] if name == "SparseCategoricalCrossentropy" else [])
    assert all(have[each].kind is inspect.Parameter.KEYWORD_ONLY for each in own)
    positional = [(one.name, one.default) for one in have.values() if one.name not in own]
    assert positional == [(one.name, one.default) for one in want.values()]


@pytest.mark.parametrize("focal", [False, True])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("from_logits", [True, False])
def test_labels_are_one_hot_targets(focal, label_smoothing, from_logits):
    middle = "Focal" if focal else ""
    options = {"label_smoothing": label_smoothing, "from_logits": from_logits, "reduction": "none"}
    if focal:
        options |= {"alpha": [0.1, 0.2, 0.3, 0.4, 0.5], "gamma": 1.5}
    labels, y_pred = case("SparseCategoricalCrossentropy", from_logits)
    have = ours(f"SparseCategorical{middle}Crossentropy", **options)(labels, y_pred)
    want = theirs(f"Categorical{middle}Crossentropy", **options)(np.eye(5)[labels], y_pred)
    equal(have, want)


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in BINARY])
def test_any_class_axis(name, from_logits):
    """Keras smooths by, and lays alpha along, the last axis; and has labels there alone."""
    options = {"from_logits": from_logits, "label_smoothing": 0.2, "reduction": "none"}
    if "Focal" in name:
        options["alpha"] = [0.1, 0.2, 0.3, 0.4, 0.5]
    y_true, y_pred = case(name, from_logits, shape=(3, 4, 5))
    dense = np.eye(5)[y_true] if name in SPARSE else y_true
    want = theirs(name.removeprefix("Sparse").replace("S", "s"), **options)(dense, y_pred)
    first = y_true if name in SPARSE else np.moveaxis(y_true, -1, 1)
    have = ours(name, axis=1, **options)(first, np.moveaxis(y_pred, -1, 1))
    equal(have, want)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize(
    ("true_shape", "pred_shape"),
    [((6,), (6, 1)), ((6, 1), (6,)), ((2, 3), (2, 3, 1)), ((2, 3, 1), (2, 3)), ((6,), (6,))],
    ids=str,
)
def test_ranks_that_differ_by_one(name, true_shape, pred_shape):
    y_true, y_pred = case(name, False, shape=(6, 1))
    y_true, y_pred = y_true.reshape(true_shape), y_pred.reshape(pred_shape)
    have, want = (make(name, reduction="none")(y_true, y_pred) for make in (ours, theirs))
    assert have.shape == want.shape
    equal(have, want)


@pytest.mark.parametrize("name", SPARSE)
def test_labels_with_an_axis_of_length_one(name):
    labels, y_pred = case(name, False)
    loss = ours(name)
    assert float(loss(labels[:, None], y_pred)) == float(loss(labels, y_pred))


@pytest.mark.parametrize("name", BINARY)
def test_binary_losses_average_along_any_axis(name):
    y_true, y_pred = case(name, False, shape=(3, 4, 5))
    have, want = (make(name, axis=1, reduction="none")(y_true, y_pred) for make in (ours, theirs))
    assert have.shape == want.shape == (3, 5)
    equal(have, want)


# --- from_logits=False: Keras's numbers, also where it clips --------------------------------------
CLIPPED = np.array(
    [
        *([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1e-8, 1.0, 0.0]),
        *(
            [1e-30, 0.25, 0.75],
            [1.0 - 2**-24, 2**-24, 0.0],
            [0.0, 1.5, 0.5],
            [-1e-7, 1 + 2e-7, 0.0],
        ),
    ],
    "float32",
)


def clipped(name, label):
    """Return targets for rows whose probabilities are beyond Keras's clip, and the rows."""
    labels = np.full(len(CLIPPED), label)
    return labels if name in SPARSE else np.eye(3, dtype="float32")[labels], CLIPPED


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("name", IN_KERAS)
def test_probabilities_of_0_and_1_are_those_of_keras(name, label):
    y_true, p = clipped(name, label)
    have, want = (make(name, reduction="none")(y_true, p) for make in (ours, theirs))
    np.testing.assert_array_equal(*map(ops.convert_to_numpy, (have, want)))
    if BACKEND != "numpy":
        mine, keras_s = (make(name, reduction="sum") for make in (ours, theirs))
        want = gradient(lambda p: keras_s(y_true, p), p)
        np.testing.assert_array_equal(gradient(lambda p: mine(y_true, p), p), want)


def test_the_number_that_keras_tests():
    have = ours("BinaryCrossentropy")([[1.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [1.0, 0.0]])
    assert float(have) == pytest.approx(3.98559, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_clip_is_that_of_the_configuration(name):
    y_true = np.array([0]) if name in SPARSE else np.array([[1.0, 0.0]])
    options = {"alpha": 1.0} if "CategoricalFocal" in name else {}
    loss, epsilon = ours(name, **options), keras.config.epsilon()
    before = float(loss(y_true, np.array([[0.0, 1.0]], "float32")))
    keras.config.set_epsilon(1e-3)
    try:
        after = float(loss(y_true, np.array([[0.0, 1.0]], "float32")))
    finally:
        keras.config.set_epsilon(epsilon)
    # TensorFlow divides by the sum after it has clipped: 1e-3.
    want = (0.999**2 if "CategoricalFocal" in name else 1.0) * -np.log(1e-3)
    assert after == pytest.approx(want, rel=2e-3)
    assert before > 2 * after


# --- from_logits=True: exact ----------------------------------------------------------------------
mpmath.mp.dps = 60
# A few float32 roundings, of logsumexp and products; and what float32 has no normal number for.
EXACT = {"rtol": 2e-6, "atol": np.finfo("float32").tiny}
FAR = np.array([[0.0, x, 0.25] for x in (3.0, 12.0, 30.0, 80.0, 300.0)], "float32")


def exact_row(logits, label, gamma):
    """Return (1-s)^γ (-log s), where s is the softmax at the label, and its derivative by each."""
    powers = [mpmath.exp(mpmath.mpf(float(x))) for x in logits]
    p = [one / mpmath.fsum(powers) for one in powers]
    s, rest = p[label], mpmath.fsum(one for i, one in enumerate(p) if i != label)
    by_log = gamma * rest ** (gamma - 1) * s * mpmath.log(s) - rest**gamma
    others = [-one if i != label else rest for i, one in enumerate(p)]
    return float(-(rest**gamma) * mpmath.log(s)), [float(by_log * one) for one in others]


def exact_element(logit, t, gamma):
    """Return (1-s)^γ (-log s), where s is σ(x) or σ(-x), and its derivative by x."""
    value, slopes = exact_row([logit, 0.0], 0 if t else 1, gamma)
    return value, slopes[0]


def with_gamma(names):
    return [(name, gamma) for name in names for gamma in (0.0, 2.0) if not gamma or "Focal" in name]


def check_against(loss, y_true, logits, expected):
    """Compare each row's value, and its derivative by every logit."""
    values, slopes = map(np.array, zip(*expected, strict=True))
    np.testing.assert_allclose(ops.convert_to_numpy(loss(y_true, logits)), values, **EXACT)
    if BACKEND != "numpy":
        have = gradient(lambda x: ops.sum(loss(y_true, x)), logits)
        np.testing.assert_allclose(have, slopes.reshape(have.shape), **EXACT)


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "gamma"), with_gamma([name for name in NAMES if name not in BINARY])
)
def test_saturated_logits_of_classes(name, label, gamma):
    options = {"gamma": gamma, "alpha": 1.0} if "Focal" in name else {}
    labels = np.full(len(FAR), label)
    y_true = labels if name in SPARSE else np.eye(3)[labels]
    expected = [exact_row(row, label, gamma) for row in FAR]
    check_against(ours(name, from_logits=True, reduction="none", **options), y_true, FAR, expected)


@pytest.mark.parametrize("t", [0, 1])
@pytest.mark.parametrize(("name", "gamma"), with_gamma(BINARY))
def test_saturated_logits_of_labels(name, t, gamma):
    logits = np.array([[x] for x in (-300.0, -30.0, -3.0, 0.5, 12.0, 80.0)], "float32")
    options = {"gamma": gamma} if "Focal" in name else {}
    expected = [exact_element(row[0], t, gamma) for row in logits]
    loss = ours(name, from_logits=True, reduction="none", **options)
    check_against(loss, np.full_like(logits, t), logits, expected)


def softmax_or_sigmoid(name, logits):
    return ops.sigmoid(logits) if name in BINARY else ops.softmax(logits)


@differentiates
@pytest.mark.parametrize("name", IN_KERAS)
def test_the_gradient_of_logits_outlives_that_of_probabilities(name):
    """30 apart, p = 1e-13 for the label: the slope is -1, or 0 behind the clip."""
    y_true = np.array([0]) if name in SPARSE else np.array([[1.0, 0.0]], "float32")
    options = {"reduction": "sum"} | ({"alpha": 1.0} if "CategoricalFocal" in name else {})
    pull = np.array([[-30.0, 0.0]], "float32")
    share = 0.5 if name in BINARY else 1.0  # the mean along the last axis
    slope = gradient(lambda x: ours(name, from_logits=True, **options)(y_true, x), pull)[0, 0]
    np.testing.assert_allclose(slope, -share, rtol=1e-6)  # a few ULP of float32
    # Multiplied by 1: Keras on TensorFlow would find the logits behind a bare softmax.
    slope = gradient(
        lambda x: ours(name, **options)(y_true, softmax_or_sigmoid(name, x) * 1.0), pull
    )
    assert abs(slope[0, 0]) < 1e-11


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras keeps logits on TensorFlow alone")
@pytest.mark.parametrize("name", ["CategoricalCrossentropy", SPARSE[0], BINARY[0]])
def test_the_logits_behind_a_softmax_are_found_as_by_keras(name):
    y_true = np.array([0]) if name in SPARSE else np.array([[1.0, 0.0]], "float32")
    pull = np.array([[-30.0, 0.0]], "float32")
    mine, keras_s = (make(name) for make in (ours, theirs))
    have = gradient(lambda x: mine(y_true, softmax_or_sigmoid(name, x)), pull)
    want = gradient(lambda x: keras_s(y_true, softmax_or_sigmoid(name, x)), pull)
    np.testing.assert_array_equal(have, want)
    assert have[0, 0] < -0.4


@pytest.mark.parametrize("name", NAMES)
def test_nan_is_not_hidden(name):
    y_true, p = case(name, False)
    p[2, 3] = np.nan
    if BACKEND == "torch" and name in BINARY:  # torch's own function, in Keras's, refuses it
        with pytest.raises(RuntimeError, match="between 0 and 1"):
            ours(name)(y_true, p)
        return
    have = ops.convert_to_numpy(ours(name, reduction="none")(y_true, p))
    assert np.isnan(have).tolist() == [False, False, True, False, False, False]


# --- masks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("ignore_class", [-1, 2, 255])
def test_ignored_rows_may_hold_anything(name, ignore_class, from_logits):
    labels, y_pred = case(name, from_logits)
    kept = np.array([True, False, True, True, False, False])
    labels = np.where(kept, np.where(labels == 2, 1, labels), ignore_class)
    want = float(ours(name, from_logits=from_logits)(labels[kept], y_pred[kept]))
    y_pred[1], y_pred[4], y_pred[5] = np.nan, np.inf, 0.0
    loss = ours(name, from_logits=from_logits, ignore_class=ignore_class)
    np.testing.assert_allclose(float(loss(labels, y_pred)), want, **LIMIT)
    rows = ours(name, from_logits=from_logits, ignore_class=ignore_class, reduction="none")
    assert not ops.convert_to_numpy(rows(labels, y_pred))[~kept].any()
    if BACKEND != "numpy":
        slope = gradient(lambda p: loss(labels, p), y_pred)
        assert not slope[~kept].any()
        assert slope[kept].all()


@pytest.mark.parametrize("name", SPARSE)
def test_nothing_but_ignored_rows(name):
    labels, y_pred = case(name, True)
    loss = ours(name, from_logits=True, ignore_class=-1)
    with np.errstate(divide="ignore"):  # in Keras's division by what is left
        assert float(loss(np.full_like(labels, -1), y_pred)) == 0.0


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("name", IN_KERAS)
def test_masks_of_the_predictions_are_those_of_keras(name, reduction):
    """A mask that an Embedding or Masking layer made, beside sample weights and ignore_class."""
    y_true, y_pred = case(name, True, shape=(3, 4, 5))
    y_pred[1, 2:] = 0.0
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (3, 4)).astype("float32")
    options = {"ignore_class": 3} if name in SPARSE else {}

    def result(make):
        loss = make(name, from_logits=True, reduction=reduction, **options)
        return loss(y_true, keras.layers.Masking()(y_pred), weights)

    equal(result(ours), result(theirs))
    bare = ours(name, from_logits=True, reduction=reduction, **options)(y_true, y_pred, weights)
    assert float(bare) != float(result(ours))


# --- labels and dtypes ----------------------------------------------------------------------------
@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("bad", [-1, 5])
def test_a_label_out_of_range_is_named(name, bad):
    labels, y_pred = case(name, True)
    labels[4] = bad
    with pytest.raises(IndexError, match=rf"targets\[4\] is {bad}; expected a class index"):
        ours(name, from_logits=True)(labels, y_pred)


NARROW = ["bfloat16", "float16", "mixed_bfloat16"]


@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("dtype", [*NARROW, "float32"])
@pytest.mark.parametrize("name", NAMES)
def test_dtype_is_that_of_the_result_and_rounds_it_once(name, dtype, from_logits):
    y_true, y_pred = case(name, from_logits)
    for reduction in ("sum", "none"):
        options = {"from_logits": from_logits, "reduction": reduction}
        loss = ours(name, dtype=dtype, **options)
        have = loss(y_true, y_pred, np.float32(1.1))
        assert loss.dtype == keras.DTypePolicy(dtype).compute_dtype
        assert keras.backend.standardize_dtype(have.dtype) == loss.dtype
        in_full = ours(name, **options)(y_true, y_pred, np.float32(1.1))
        want = ops.cast(in_full, loss.dtype)
        np.testing.assert_array_equal(
            *(ops.convert_to_numpy(ops.cast(each, "float32")) for each in (have, want))
        )


@pytest.mark.parametrize("name", IN_KERAS)
def test_the_default_dtype_is_that_of_keras(name):
    y_true, y_pred = case(name, False)
    before = keras.config.floatx()
    keras.config.set_floatx("bfloat16")
    try:
        mine, keras_s = ours(name), theirs(name)
        assert mine.dtype == keras_s.dtype == "bfloat16"
        assert keras.backend.standardize_dtype(mine(y_true, y_pred).dtype) == "bfloat16"
    finally:
        keras.config.set_floatx(before)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", SPARSE)
def test_labels_survive_a_narrow_dtype(name, dtype, from_logits):
    y_pred = np.zeros((1, 3000), "float32") if from_logits else np.full((1, 3000), 1e-3, "float32")
    y_pred[0, 2049] = 5.0  # bfloat16 has 256 and 258, float16 2048 and 2050
    loss = ours(name, from_logits=from_logits, dtype=dtype)
    have, other = (float(loss(np.array([label]), y_pred)) for label in (2049, 2048))
    want = float(ours(name, from_logits=from_logits)(np.array([2049]), y_pred))
    np.testing.assert_allclose(have, want, rtol=2**-8)  # of bfloat16
    assert have < other


def test_many_rows_do_not_overflow_a_narrow_dtype():
    loss = ours("SparseCategoricalCrossentropy", from_logits=True, dtype="float16")
    have = loss(np.zeros(70000, "int32"), np.zeros((70000, 2), "float16"))
    np.testing.assert_allclose(float(have), np.log(2), rtol=2**-11)  # of float16


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless told to")
@pytest.mark.parametrize("from_logits", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_float64(name, from_logits):
    """Sums and rows; where Keras divides, in any mean, it rounds to float32 on the way."""
    if BACKEND == "numpy" and not from_logits:
        pytest.skip("Keras rounds float64 to float32 on NumPy")
    y_true = np.array([0]) if name in SPARSE else np.array([[1.0, 0.0]])
    options = {"gamma": 0.0} if "Focal" in name else {}
    options |= {"alpha": 1.0} if "CategoricalFocal" in name else {}
    loss = ours(name, from_logits=from_logits, dtype="float64", reduction="sum", **options)
    y_pred = np.array([[0.3, 0.7]])
    have = loss(
        y_true, np.log(y_pred / (1 - y_pred if name in BINARY else 1)) if from_logits else y_pred
    )
    assert keras.backend.standardize_dtype(have.dtype) == loss.dtype == "float64"
    # Where an average is taken Keras rounds to float32; else a few ULP of float64.
    np.testing.assert_allclose(float(have), -np.log(0.3), rtol=1e-7 if name in BINARY else 1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_lists(name):
    y_true, y_pred = case(name, False)
    have = ours(name)(y_true.tolist(), y_pred.tolist())
    assert float(have) == float(ours(name)(y_true, y_pred))


# --- documentation --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "names"), [(softmaxkit.keras, NAMES), (softmaxkit.keras.functional, FUNCTIONS)]
)
def test_examples_in_docstrings_run(module, names):
    result = doctest.testmod(module)
    assert result.failed == 0
    assert result.attempted >= 2 * len(names)


@pytest.mark.parametrize("name", [*NAMES, *FUNCTIONS])
def test_docstring_explains_every_parameter(name):
    made = getattr(softmaxkit.keras, name)
    text = re.split(r"^(?:Returns|Raises)\n-+\n", inspect.getdoc(made), flags=re.MULTILINE)[0]
    heads = re.findall(r"^(\w[\w, ]*?)(?: :.*)?$", text.split("----------\n")[1], re.MULTILINE)
    documented = {each for head in heads for each in head.split(", ")}
    assert documented == set(inspect.signature(made).parameters)
