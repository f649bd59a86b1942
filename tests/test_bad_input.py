"""Every refusal, on every library: the same exception and the same line of text.

A line names the call, the argument, what came, what was expected, and what to do. The table of them
is in bad_input.py.
"""

import ast
import inspect
import re
from importlib import import_module
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import softmaxkit

# pytest's importlib mode lets no test import its neighbour.
table = run_path(str(Path(__file__).with_name("bad_input.py")))
built, called, names = (table[name] for name in ("built", "called", "names"))
ROWS = table["ROWS"] + table["CALIBRATION"]
IDS = [row[-1][:60] for row in ROWS]
LOGITS = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]], "float32")
LABELS = np.array([0, 2])


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_refused_with_one_line(row, library):
    call, arguments, options, exception, message = row
    on_host = isinstance(arguments[-1], list)
    is_seen = on_host or row in table["CALIBRATION"]
    if exception is IndexError and "labels" in library.adapter.lacks and not is_seen:
        pytest.skip(f"{library.adapter.lacks['labels']}: NaN, as under tracing")
    arguments = [built(one, library) for one in arguments]
    options = {name: built(one, library) for name, one in options.items()}
    with pytest.raises(Exception) as refusal:  # noqa: PT011 - which one, and its text, is below
        called(call)(*arguments, **options)
    assert (type(refusal.value), str(refusal.value)) == (
        exception,
        message.format(**names(library)),
    )


# call: argument came as this; expected that; do this.
LINE = r"{}: {}(\[[\d, ]+\])? (is|has|holds) .+; expected .+; .+\."


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_a_message_is_one_line_with_call_argument_and_remedy(row):
    call, _, _, _, message = row
    assert re.fullmatch(LINE.format(re.escape(call), r"\w+"), message)


# --- what only one library has --------------------------------------------------------------------
def assert_refused(exception, call, name, *arguments, **options):
    with pytest.raises(exception) as refusal:
        getattr(softmaxkit, call)(*arguments, **options)
    assert re.fullmatch(LINE.format(call, name), str(refusal.value))


def test_torch_sparse_tensors(torch):
    x, y = torch.tensor(LOGITS), torch.tensor(LABELS)
    assert_refused(TypeError, "softmax", "x", x.to_sparse())
    assert_refused(TypeError, "logsumexp", "x", x.to_sparse_coo())
    assert_refused(TypeError, "cross_entropy", "targets", x, y.to_sparse())
    assert_refused(TypeError, "softmax", "where", x, where=(x > 0).to_sparse())


def test_torch_tensors_of_another_device(torch):
    x, y, there = torch.tensor(LOGITS), torch.tensor(LABELS), torch.device("meta")
    assert_refused(ValueError, "cross_entropy", "targets", x, y.to(there))
    assert_refused(ValueError, "cross_entropy", "weight", x, y, weight=torch.ones(3, device=there))
    assert_refused(ValueError, "softmax", "where", x, where=torch.ones(3, device=there) > 0)
    assert_refused(ValueError, "binary_cross_entropy", "targets", x, x.to(there))


def test_jax_keys(jax):
    x, key = jax.numpy.asarray(LOGITS), jax.random.key(0)
    assert_refused(TypeError, "softmax", "x", key)
    assert_refused(TypeError, "cross_entropy", "targets", x, jax.random.split(key, 2))
    assert_refused(TypeError, "cross_entropy", "weight", x, LABELS, weight=jax.random.split(key, 3))
    assert_refused(TypeError, "focal_loss", "gamma", x, LABELS, gamma=key)


def test_tensorflow_strings(tf):
    x, text = tf.constant(LOGITS), tf.constant(["a", "b"])
    assert_refused(TypeError, "softmax", "x", text)
    assert_refused(TypeError, "cross_entropy", "targets", x, text)
    assert_refused(TypeError, "focal_loss", "gamma", x, LABELS, gamma=text[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("namespace", ["strict", "da"])
def test_dtypes_that_the_array_api_has_not(dtype, namespace, request):
    x = request.getfixturevalue(namespace).asarray(LOGITS)
    assert_refused(TypeError, "softmax", "dtype", x, dtype=dtype)


# The test hands it a dtype of torch, and array_api_strict warns of comparing its own with that.
@pytest.mark.filterwarnings("ignore:You are comparing a array_api_strict dtype")
def test_dtypes_of_another_library(library, torch):
    if repr(library) != "torch":
        assert_refused(TypeError, "softmax", "dtype", library.array(LOGITS), dtype=torch.float32)


def test_dask_arrays_of_unknown_length(da):
    # Their shape holds NaN: a mean over it was NaN, too.
    x, y = da.asarray(LOGITS), da.asarray(LABELS)
    x, y = x[y >= 0], y[y >= 0]
    assert_refused(ValueError, "binary_cross_entropy", "logits", x, x)
    assert_refused(ValueError, "cross_entropy", "logits", x, x)
    assert_refused(ValueError, "cross_entropy", "logits", x, y)
    assert_refused(ValueError, "one_hot", "labels", y, 3)
    assert_refused(ValueError, "cross_entropy", "targets", da.asarray(LOGITS), y)


# --- what is near a refusal and is none -----------------------------------------------------------
@pytest.mark.parametrize("dtype", ["f4", "single", np.float32, np.dtype("f4"), "float32"], ids=str)
def test_numpy_names_of_dtypes(dtype, library):
    x = library.array(LOGITS)
    assert softmaxkit.softmax(library.array(LOGITS, "float64"), dtype=dtype).dtype == x.dtype


def test_numpy_integers_as_options(library):
    x, y, one = library.array(LOGITS), library.array([0, 1], "int32"), np.int64(1)
    loss = softmaxkit.cross_entropy(x, y, axis=one, ignore_index=one)
    assert float(library.numpy(loss)) == pytest.approx(0.4076, abs=1e-4)
    assert softmaxkit.one_hot(y, np.int64(3), axis=one).shape == (2, 3)


def test_four_bit_integers_are_integers():
    ml_dtypes = pytest.importorskip(
        "ml_dtypes", reason="ml_dtypes, which brings bfloat16, is missing"
    )
    x = np.array([1, 2, 3])
    np.testing.assert_array_equal(
        softmaxkit.softmax(x.astype(ml_dtypes.int4)), softmaxkit.softmax(x)
    )
    loss = softmaxkit.cross_entropy(LOGITS, LABELS.astype(ml_dtypes.uint4))
    assert loss == softmaxkit.cross_entropy(LOGITS, LABELS)
    assert_refused(TypeError, "softmax", "dtype", LOGITS, dtype=ml_dtypes.int4)


# --- the table is complete ------------------------------------------------------------------------
def skeleton(node):
    """Return a pattern of the texts that an f-string can make."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(
        re.escape(part.value) if isinstance(part, ast.Constant) else ".*" for part in parts
    )


# Refusals that need two libraries (test_companions.py), or TensorFlow (test_dispatch.py), or Keras
# (keras_function_cases.py), or one library only (above).
ELSEWHERE = (
    "an array of the logits' library",
    "has unknown rank",
    "is a keras.KerasTensor",
    "convert it to a floating dtype",
    "the logits' device",
    "environment variable",  # test_threads.py
    "has no values",  # test_calibration_temperature.py
    "without the symbolic link",  # test_structure.py
)


CALIBRATION = (
    *("_rows", "_temperature", "_confidence", "_reliability", "_selection", "_conformal"),
)


def test_every_refusal_has_a_row():
    frontends = (
        *("_arguments", "_targets", "_dispatch", "activations", "losses", "labels", "gradients"),
        "linear",
        *("threads", "backends.numpy.pool"),
        *(
            f"calibration.{one}"
            for one in (
                "_rows",
                "_temperature",
                "_confidence",
                "_reliability",
                "_selection",
                "_conformal",
            )
        ),
    )
    for name in frontends:
        source = inspect.getsource(import_module(f"softmaxkit.{name}"))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                pattern = skeleton(node.exc.args[0])
                hit = any(re.fullmatch(pattern, row[-1]) for row in ROWS)
                elsewhere = any(re.escape(text) in pattern for text in ELSEWHERE)
                assert hit or elsewhere, (
                    f"{name}.py:{node.lineno}: no row of the table is refused with {pattern}"
                )
