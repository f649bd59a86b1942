"""Targets, weights, masks and numbers beside the logits: made theirs, or refused by name."""

import warnings

import numpy as np
import pytest

import softmaxkit

# Of float32, whose numbers are 1.2e-7 apart: what takes an array as an option rounds otherwise, a
# few times.
FEW_ULP = 1e-6

LOGITS = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]], "float32")
LABELS = np.array([0, 2])


# --- companions follow the logits -----------------------------------------------------------------
OWN = {
    "targets": (LABELS, "int32"),
    "weight": ([1.0, 2.0, 5.0], "float32"),
    "sample_weight": ([1.0, 3.0], "float32"),
    "where": ([[True, True, False], [True, True, True]], "bool"),
    "temperature": ([[1.0], [2.0]], "float32"),
    "normalizer": (7.0, "float32"),
}
FORMS = {
    "list": lambda value, dtype: np.asarray(value).tolist(),
    "tuple": lambda value, dtype: tuple(value) if np.ndim(value) else value,
    "NumPy": lambda value, dtype: np.asarray(value),
    "NumPy, narrow": lambda value, dtype: np.asarray(value, "int8" if "int" in dtype else dtype),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("form", FORMS)
def test_companions_follow_the_logits(name, form, library):
    logits = library.array(LOGITS)
    arguments = {"targets": library.array(*OWN["targets"])}
    arguments[name] = library.array(*OWN[name])
    expected = softmaxkit.cross_entropy(logits, **arguments)
    arguments[name] = FORMS[form](*OWN[name])
    got = softmaxkit.cross_entropy(logits, **arguments)
    assert (type(got), got.dtype) == (type(expected), expected.dtype)
    np.testing.assert_allclose(library.numpy(got), library.numpy(expected), rtol=FEW_ULP)


NUMBER_OPTIONS = [
    ("softmax", "temperature"),
    ("cross_entropy", "temperature"),
    ("cross_entropy", "label_smoothing"),
    ("cross_entropy", "z_loss"),
    ("cross_entropy", "normalizer"),
    ("focal_loss", "gamma"),
    ("focal_loss", "alpha"),
    ("focal_loss", "label_smoothing"),
    ("binary_cross_entropy", "pos_weight"),
    ("binary_cross_entropy", "label_smoothing"),
    ("sigmoid_focal_loss", "gamma"),
    ("sigmoid_focal_loss", "alpha"),
    ("smooth_labels", "smoothing"),
]
NUMBERS = {
    "numpy.float32": lambda library, dtype: np.float32(0.5),
    "numpy.float64": lambda library, dtype: np.float64(0.5),
    "0-d NumPy": lambda library, dtype: np.array(0.5),
    "0-d float32": lambda library, dtype: library.array(0.5, "float32"),
    "0-d own dtype": lambda library, dtype: library.array(0.5, dtype),
}


@pytest.mark.parametrize(("call", "option"), NUMBER_OPTIONS)
@pytest.mark.parametrize("form", NUMBERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_may_come_in_any_form(call, option, form, dtype, library):
    rest = {"cross_entropy": (LABELS,), "focal_loss": (LABELS,)}
    rest |= dict.fromkeys(("binary_cross_entropy", "sigmoid_focal_loss"), (LOGITS > 0,))
    logits = library.array(LOGITS, dtype)

    def value(number):
        return getattr(softmaxkit, call)(logits, *rest.get(call, ()), **{option: number})

    expected, got = value(0.5), value(NUMBERS[form](library, dtype))
    assert (type(got), got.dtype) == (type(expected), expected.dtype)
    np.testing.assert_allclose(library.numpy(got), library.numpy(expected), rtol=FEW_ULP)


@pytest.mark.parametrize(
    ("call", "option"),
    [("focal_loss", "gamma"), ("cross_entropy", "label_smoothing"), ("cross_entropy", "z_loss")],
)
def test_a_number_may_come_in_an_array_of_one(call, option, library):
    logits, labels = library.array(LOGITS), library.array(LABELS, "int32")
    function = getattr(softmaxkit, call)
    expected = function(logits, labels, **{option: 0.25})
    got = function(logits, labels, **{option: library.array([0.25])})
    assert got.shape == expected.shape
    np.testing.assert_allclose(library.numpy(got), library.numpy(expected), rtol=FEW_ULP)


def test_an_empty_list_is_the_labels_of_no_rows(library):
    logits = library.array(np.zeros((0, 3), "float32"))
    assert library.numpy(softmaxkit.cross_entropy(logits, [])) == 0.0
    assert library.numpy(softmaxkit.cross_entropy(logits, [], reduction="none")).shape == (0,)


class Column:
    """What pandas and polars have in common: a column that NumPy takes."""

    def __init__(self, values):
        self._values = np.asarray(values)

    def to_numpy(self):
        return self._values


def test_a_column_of_a_data_frame_is_taken_for_its_numbers(library):
    logits = library.array(LOGITS)
    weights = [1.0, 3.0]
    expected = softmaxkit.cross_entropy(logits, LABELS, sample_weight=weights)
    got = softmaxkit.cross_entropy(logits, Column(LABELS), sample_weight=Column(weights))
    np.testing.assert_array_equal(library.numpy(got), library.numpy(expected))
    with pytest.raises(IndexError, match=r"targets\[1\] is 7"):
        softmaxkit.cross_entropy(logits, Column([0, 7]))


def test_companions_follow_the_device(torch):
    logits = torch.empty(2, 3, device="meta")
    loss = softmaxkit.cross_entropy(
        logits, LABELS, weight=[1, 2, 3], sample_weight=np.ones(2), where=[True, True, False]
    )
    assert loss.device.type == "meta"


def test_companions_follow_the_device_on_jax(jax, run_python, monkeypatch):
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    script = """
import jax, numpy as np, softmaxkit
logits = jax.device_put(np.zeros((2, 3), "float32"), jax.devices()[1])
loss = softmaxkit.cross_entropy(logits, [0, 2], weight=[1, 2, 3], where=np.ones(3, bool))
print(loss.devices() == logits.devices())
"""
    assert run_python(script) == "True\n"


# --- libraries do not mix -------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "name", "value", "dtype"),
    [
        ("cross_entropy", "targets", [0, 2], "int32"),
        ("cross_entropy", "weight", [1, 2, 5], "float32"),
        ("focal_loss", "sample_weight", [1, 2], "float32"),
        ("softmax", "where", [True, True, False], "bool"),
        ("log_softmax", "temperature", 2, "float32"),
        ("cross_entropy", "normalizer", 2, "float32"),
        ("focal_loss", "gamma", 2, "float32"),
        ("cross_entropy", "label_smoothing", 0.5, "float32"),
    ],
)
def test_mixed_libraries_are_refused_by_name(call, name, value, dtype, library, other):
    arguments = {"targets": LABELS} if call in ("cross_entropy", "focal_loss") else {}
    arguments[name] = companion = other.array(value, dtype)
    logits = library.array(LOGITS)
    if repr(other) == "numpy":
        getattr(softmaxkit, call)(logits, **arguments)
        return
    with pytest.raises(TypeError) as refusal:
        getattr(softmaxkit, call)(logits, **arguments)
    package = type(companion).__module__.partition(".")[0]
    assert str(refusal.value) == (
        f"{call}: {name} is a {package}.{type(companion).__qualname__} ({other.backend.LIBRARY}); "
        f"expected an array of the logits' library ({library.backend.LIBRARY}); convert it, or "
        "pass a NumPy array or a list."
    )


@pytest.mark.parametrize(
    "name", ["cross_entropy", "focal_loss", "binary_cross_entropy", "sigmoid_focal_loss"]
)
def test_a_normalizer_of_0_beside_rows_that_cost_something_gives_infinity(name, library):
    """A number 0 is refused; the 0-d array of a step that kept nothing gives 0 there alone."""
    targets = LABELS if name in ("cross_entropy", "focal_loss") else np.eye(3)[LABELS]
    targets = library.array(targets, "int32" if targets.ndim == 1 else "float32")
    loss, options = getattr(softmaxkit, name), {"normalizer": library.array(0.0)}
    with warnings.catch_warnings():
        if library.adapter.name == "dask":  # it divides when the result is computed: NumPy warns
            warnings.simplefilter("ignore", RuntimeWarning)
        value = library.numpy(loss(library.array(LOGITS), targets, **options))
        both = softmaxkit.value_and_grad(loss)(library.array(LOGITS), targets, **options)
        assert value == library.numpy(both[0]) == np.inf
        assert not np.isfinite(library.numpy(both[1])).any()
