"""Refusals while a library traces: the same exception and line wherever a value is not needed.

Shapes and dtypes are known to a tracer, the values of labels are not: a bad label gives NaN in the
value and the gradient of its row, and in no other. In a graph of TensorFlow on the CPU it is an
InvalidArgumentError when that runs.
"""

import re
from functools import cache
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import adapters

# pytest's importlib mode lets no test import its neighbour.
table = run_path(str(Path(__file__).with_name("bad_input.py")))
AxisError, Of, built, called, names = (
    table[name] for name in ("AxisError", "Of", "built", "called", "names")
)


def arrays_of(row):
    """Return the arguments and options that are arrays of the library, by place or name."""
    _, arguments, options, *_ = row
    given = dict(enumerate(arguments)) | options
    return {place: value for place, value in given.items() if isinstance(value, Of)}


WITH_ARRAYS = [row for row in table["ROWS"] if arrays_of(row)]
ROWS = [row for row in WITH_ARRAYS if row[3] is not IndexError]
LABELS = [row for row in WITH_ARRAYS if row[3] is IndexError]
# Where a row costs a compiler's time: one for each check, which the end of its line tells.
CHECKS = list({row[-1].partition("; expected ")[2]: row for row in ROWS}.values())


def ids(rows):
    return [row[-1][:60] for row in rows]


@cache
def library(name):
    adapter = adapters.load(name)
    return SimpleNamespace(
        adapter=adapter,
        array=lambda value, dtype: adapter.to_backend(np.asarray(value), dtype),
        backend=getattr(softmaxkit.backends, name),
    )


def function_of(row):
    """Return the call of a row as a function of its arrays."""
    call, arguments, options, *_ = row
    places = list(arrays_of(row))
    traced = called(call)

    def function(*arrays, **more):
        given = dict(zip(places, arrays, strict=True))
        return traced(
            *(given.get(i, argument) for i, argument in enumerate(arguments)),
            **{name: given.get(name, value) for name, value in options.items()},
            **more,
        )

    return function


def refusal(row, name, trace):
    """Trace the call of a row; return what was raised, and the line it should say."""
    function, seen = function_of(row), []

    def looking(*arrays):
        seen.extend(type(array) for array in arrays)
        return function(*arrays)

    arrays = [built(array, library(name)) for array in arrays_of(row).values()]
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the callers compare type and text
        trace(looking, arrays)
    kind = seen[-1]  # of the argument in question
    texts = names(library(name)) | {"array": f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"}
    return raised.value, row[-1].format(**texts)


# --- shapes, dtypes, numbers ----------------------------------------------------------------------
def batched(arrays, convert):
    return [convert(np.asarray(array)[None]) for array in arrays]


JAX = {
    "jit": lambda jax, function, arrays: jax.jit(function)(*arrays),
    "vmap": lambda jax, function, arrays: jax.vmap(function)(*batched(arrays, jax.numpy.asarray)),
    "grad": lambda jax, function, arrays: jax.grad(function, allow_int=True)(*arrays),
}


@pytest.mark.parametrize("mode", JAX)
@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
def test_refused_while_jax_traces(row, mode, jax):
    error, line = refusal(row, "jax", lambda *call: JAX[mode](jax, *call))
    assert (type(error), str(error)) == (row[3], line)


def fake(torch, function, arrays):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        return function(*map(mode.from_tensor, arrays))


TORCH = {
    "fake": fake,
    "meta": lambda torch, function, arrays: function(*(array.to("meta") for array in arrays)),
    "vmap": lambda torch, function, arrays: torch.func.vmap(function)(*(a[None] for a in arrays)),
}


@pytest.mark.parametrize("mode", TORCH)
@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
def test_refused_while_torch_traces(row, mode, torch):
    error, line = refusal(row, "torch", lambda *call: TORCH[mode](torch, *call))
    assert (type(error), str(error)) == (row[3], line)


# Dynamo does not trace NumPy's constructor of AxisError, and says that instead; nor does it look
# into what is on the host, where torch says itself what it cannot convert, nor into vjp(...), which
# calls autograd and breaks the graph.
UNSEEN = r"vjp\(|convert it to one of those|stack them|numpy\.m|different lengths|holds dtype"
COMPILED = [row for row in CHECKS if row[3] is not AxisError and not re.search(UNSEEN, row[-1])]


@pytest.mark.parametrize("row", COMPILED, ids=ids(COMPILED))
def test_refused_in_the_words_of_torch_compile(row, torch):
    torch.compiler.reset()
    arrays = [built(array, library("torch")) for array in arrays_of(row).values()]
    with pytest.raises(torch._dynamo.exc.Unsupported) as raised:
        torch.compile(function_of(row), fullgraph=True, backend="eager")(*arrays)
    said = re.search(r"raised exception (\w+)\((.*)\)\n", str(raised.value))
    line = row[-1].format(**names(library("torch")))
    assert said.groups() in ((row[3].__name__, repr(line)), (row[3].__name__, f'"{line}"'))


@pytest.mark.parametrize("exception", [ValueError, TypeError, AxisError])
def test_refused_as_eagerly_where_torch_compile_may_break_the_graph(exception, torch):
    torch.compiler.reset()
    row = next(row for row in [*COMPILED, *ROWS] if row[3] is exception)
    compiled = torch.compile(function_of(row), backend="eager")
    with pytest.raises(
        exception, match=f"^{re.escape(row[-1].format(**names(library('torch'))))}$"
    ):
        compiled(*(built(array, library("torch")) for array in arrays_of(row).values()))


def concrete(tf, function, specs, **options):
    return tf.function(function, **options).get_concrete_function(*specs)


def unknown(tf, arrays):
    return [tf.TensorSpec([None] * array.shape.rank, array.dtype) for array in arrays]


@pytest.mark.parametrize("row", ROWS, ids=ids(ROWS))
def test_refused_while_tensorflow_traces(row, tf):
    error, line = refusal(row, "tensorflow", lambda *call: concrete(tf, *call, autograph=False))
    assert (type(error), str(error)) == (row[3], line)


@pytest.mark.parametrize("row", CHECKS, ids=ids(CHECKS))
def test_refused_in_the_words_of_autograph(row, tf):
    error, line = refusal(row, "tensorflow", lambda *call: concrete(tf, *call))
    # It puts "in user code:" and the traceback first, and can make only built-in exceptions anew.
    assert str(error).strip().endswith(f"{row[3].__name__}: {line}")
    assert type(error).__name__ == ("StagingError" if row[3] is AxisError else row[3].__name__)


def needs_a_length(row):
    """Return whether the refusal is for a length, which is not known where a dimension is None."""
    return re.match(
        r"[\w()]+: (logits has shape \(8, 0\)|targets has shape \((7,|2, 10|2, 4, 4)\)|"
        r"(where|temperature|sample_weight|weight|alpha) has shape \(\d+,\)|"
        r"where has shape \((2, 3|3, 2)\)|cotangent has shape \(1, 3\)|"
        r"hidden has shape \(8, 0\)|weight_matrix has shape|bias has shape|"
        r"pos_weight has shape \((4,|1, 0)\))",
        row[-1],
    )


# num_classes is nothing but a check where targets are probabilities.
DECIDED = [row for row in ROWS if not needs_a_length(row) and "num_classes is 4" not in row[-1]]


def came(line):
    """Return the part of a line that says what came, whatever the lengths."""
    return re.sub(r"\((\d+|None)(, (\d+|None))*,?\)", "(lengths)", line.partition("; expected")[0])


@pytest.mark.parametrize("row", DECIDED, ids=ids(DECIDED))
def test_refused_while_every_length_is_unknown(row, tf):
    def trace(function, arrays):
        return concrete(tf, function, unknown(tf, arrays), autograph=False)

    error, line = refusal(row, "tensorflow", trace)
    assert (type(error), came(str(error))) == (row[3], came(line))


# Shapes known only at run time: not to be broadcast, nor to be gathered from as far as they go.
# (No classes give NaN.)
Float, Int, Bool = table["Float"], table["Int"], table["Bool"]
RUN = [row for row in ROWS if needs_a_length(row) and "(8, 0)" not in row[-1]] + [
    ("cross_entropy", (Float((4, 3)), Int((1,))), {}, ValueError, "targets (1,) of 4 rows"),
    ("focal_loss", (Float((4, 3)), Int((1,))), {}, ValueError, "targets (1,) of 4 rows"),
    ("cross_entropy", (Float((4, 3)), Float((1, 3))), {}, ValueError, "targets (1, 3) of 4 rows"),
    ("focal_loss", (Float((4, 3)), Float((4, 1))), {}, ValueError, "targets (4, 1) of 3 classes"),
    ("binary_cross_entropy", (Float((4, 3)), Float((1, 3))), {}, ValueError, "targets (1, 3)"),
    ("sigmoid_focal_loss", (Float((1, 3)), Float((4, 3))), {}, ValueError, "more targets"),
    ("softmax", (Float((1, 3)),), {"temperature": Float((4, 3))}, ValueError, "T larger than x"),
    ("softmax", (Float((1, 3)),), {"where": Bool((4, 3))}, ValueError, "where larger than x"),
]


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("row", RUN, ids=[f"{row[0]}-{row[-1][:60]}" for row in RUN])
def test_refused_at_run_time_by_tensorflow_where_lengths_were_unknown(row, xla, tf):
    arrays = [built(array, library("tensorflow")) for array in arrays_of(row).values()]
    function = concrete(tf, function_of(row), unknown(tf, arrays), autograph=False, jit_compile=xla)
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(*arrays)


# --- labels: NaN in value and gradient of the row, and in no other --------------------------------
def faults_of(row):
    """Return which labels of a row of the table are bad, and the class axis."""
    call, arguments, options, *_ = row
    if call in ("one_hot", "smooth_labels"):
        labels, classes, ignored, axis = arguments[0].value, options.get("num_classes"), None, -1
        classes = classes or arguments[1]
    else:
        labels, axis = arguments[-1], options.get("axis", -1)
        labels = labels.value if isinstance(labels, Of) else labels
        classes, ignored = arguments[0].value[axis], options.get("ignore_index", -100)
        if call == "linear_cross_entropy":
            classes = arguments[1].value[0]
    labels = np.asarray(labels)
    return ((labels < 0) | (labels >= classes)) & (labels != ignored), axis


def assert_only_faults_are_nan(array, faults, axis=None):
    if axis is not None:
        faults = np.broadcast_to(np.expand_dims(faults, axis), array.shape)
    assert np.isnan(array).tolist() == faults.tolist()
    assert np.isfinite(array[~faults]).all()


TRACERS = [("jax", "jit"), ("torch", "torch.compile"), ("tensorflow", "tf.function"),
           ("tensorflow", "XLA")]  # fmt: skip
HIDES_LABELS = [tracer for tracer in TRACERS if tracer[1] != "tf.function"]
FIXTURES = {"jax": "jax", "torch": "torch", "tensorflow": "tf", "dask": "da"}
# A list is read although the logits are traced: then the row is refused.
ARRAYS_OF_LABELS = [row for row in LABELS if not isinstance(row[1][-1], list)]
BY_CALL = list({row[0]: row for row in ARRAYS_OF_LABELS}.values())
TRACED_LABELS = [
    (name, transform, row)
    for name, transform in HIDES_LABELS
    for row in (BY_CALL if name == "torch" else ARRAYS_OF_LABELS)
]


@pytest.mark.parametrize(
    ("name", "transform", "row"),
    TRACED_LABELS,
    ids=[f"{transform}-{row[-1][:60]}" for _, transform, row in TRACED_LABELS],
)
def test_bad_labels_of_the_table_are_nan(name, transform, row, request):
    request.getfixturevalue(FIXTURES[name])
    adapter, (faults, axis) = library(name).adapter, faults_of(row)
    arrays = [built(array, library(name)) for array in arrays_of(row).values()]
    if row[0] in ("one_hot", "smooth_labels"):
        value = adapter.transforms[transform].call(function_of(row))(*arrays)
        assert_only_faults_are_nan(adapter.to_numpy(value), faults, axis)
        return
    function = function_of(row)
    value, gradient = adapter.transforms[transform].vjp(
        lambda *arrays: function(*arrays, reduction="none"),
        arrays,
        0,
        adapter.to_backend(np.ones(faults.shape), "float32"),
    )
    assert_only_faults_are_nan(adapter.to_numpy(value), faults)
    assert_only_faults_are_nan(adapter.to_numpy(gradient), faults, axis)


# --- labels: an InvalidArgumentError of TensorFlow ------------------------------------------------
def by_function(tf, function, arrays):
    return tf.function(function)(*arrays)


def by_unknown_lengths(tf, function, arrays):
    return tf.function(function, input_signature=unknown(tf, arrays))(*arrays)


def by_gradient(tf, function, arrays):
    def gradient(*arrays):
        x = tf.ones(3)
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(arrays[0] * x[0], *arrays[1:])
        return tape.gradient(value, x)  # the value itself is not a result

    floats = arrays[0].dtype.is_floating
    return tf.function(gradient if floats else function)(*arrays)


def by_session(tf, function, arrays):
    v1 = tf.compat.v1
    arrays = [array.numpy() for array in arrays]
    with tf.Graph().as_default(), v1.Session() as session:
        given = [v1.placeholder(array.dtype, array.shape) for array in arrays]
        session.run(function(*given), dict(zip(given, arrays, strict=True)))


def by_vectorized_map(tf, function, arrays):
    pairs = [tf.stack([array, array]) for array in arrays]
    tf.vectorized_map(lambda each: function(*each), pairs, fallback_to_while_loop=False)


def by_map_fn(tf, function, arrays):
    pairs = [tf.stack([array, array]) for array in arrays]
    tf.map_fn(lambda each: function(*each), pairs, fn_output_signature=tf.float32)


def by_dataset(tf, function, arrays):
    list(tf.data.Dataset.from_tensors(tuple(arrays)).map(function))


GRAPHS = {
    "tf.function": by_function,
    "unknown lengths": by_unknown_lengths,
    "gradient": by_gradient,
    "session": by_session,
    "vectorized_map": by_vectorized_map,
    "map_fn in tf.function": lambda tf, *call: tf.function(lambda: by_map_fn(tf, *call))(),
    "Dataset.map": by_dataset,
}


ROWS_OF_GRAPHS = [
    (graph, row)
    for graph in GRAPHS
    for row in (ARRAYS_OF_LABELS if graph == "unknown lengths" else BY_CALL)
]


@pytest.mark.parametrize(
    ("graph", "row"),
    ROWS_OF_GRAPHS,
    ids=[f"{graph}-{row[-1][:60]}" for graph, row in ROWS_OF_GRAPHS],
)
def test_bad_labels_of_tensorflow_graphs_on_the_cpu(row, graph, tf):
    """The line is that of an eager call, but for a bad label's place, and a length not known."""
    begin, expected = re.fullmatch(r"(.*?: \w+).* is \S+; (expected .*)", row[-1]).groups()
    arrays = [built(array, library("tensorflow")) for array in arrays_of(row).values()]
    with pytest.raises(tf.errors.InvalidArgumentError) as raised:
        GRAPHS[graph](tf, function_of(row), arrays)
    if graph == "unknown lengths" and len(arrays) > 1:
        expected = re.sub(r"\[0, (\d+)\)(.*)", r"[0, C)\2] [where C is] [\1", expected)
    said = re.search(
        rf"\[{begin} holds\] \[(.*?)\] {re.escape(f'[{expected}]')}", str(raised.value)
    )
    faults, _ = faults_of(row)
    shown = {int(label) for label in said.group(1).split()}
    assert shown <= set(arrays[-1].numpy()[faults].ravel().tolist())


BAD = np.array([0, 3, 2, -1, -100])  # of 3 classes; the last is ignored
FAULTS = np.array([False, True, False, True, False])
BATCH = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


@pytest.fixture(params=["cross_entropy", "focal_loss"])
def loss(request):
    return getattr(softmaxkit, request.param)


def assert_as_without_faults(loss, losses, gradient):
    """Compare with what NumPy says where the bad labels are ignored instead."""
    ignored = np.where(FAULTS, -100, BAD)
    expected = softmaxkit.value_and_grad(loss)(BATCH, ignored, reduction="none")
    for array, want in zip((losses, gradient), expected, strict=True):
        np.testing.assert_allclose(np.asarray(array)[~FAULTS], want[~FAULTS], 1e-5, 1e-7)
    assert_only_faults_are_nan(np.asarray(losses), FAULTS)
    assert_only_faults_are_nan(np.asarray(gradient), FAULTS, -1)


def test_bad_labels_under_jax_vmap(jax, loss):
    gradient = jax.vmap(jax.grad(loss))(BATCH, BAD)
    assert_as_without_faults(loss, jax.vmap(loss)(BATCH, BAD), gradient)
    assert np.isnan(jax.jit(loss)(BATCH, BAD))


def test_bad_labels_under_torch_func(torch, loss):
    logits, labels = torch.tensor(BATCH), torch.tensor(BAD)
    gradient = torch.func.grad(lambda x: loss(x, labels, reduction="sum"))(logits)
    assert_as_without_faults(loss, torch.func.vmap(loss)(logits, labels), gradient)


def test_bad_labels_in_dask(da, loss):
    lazy = softmaxkit.value_and_grad(loss)(da.array(BATCH), da.array(BAD), reduction="none")
    assert_as_without_faults(loss, *lazy)


@pytest.mark.parametrize("row", ARRAYS_OF_LABELS, ids=ids(ARRAYS_OF_LABELS))
def test_bad_labels_of_the_table_are_nan_in_dask(row, da):
    reduction = {} if row[0] in ("one_hot", "smooth_labels") else {"reduction": "none"}
    arrays = [built(array, library("dask")) for array in arrays_of(row).values()]
    faults, axis = faults_of(row)
    value = np.asarray(function_of(row)(*arrays, **reduction))
    assert_only_faults_are_nan(value, faults, None if reduction else axis)


# --- numbers as 0-d arrays ------------------------------------------------------------------------
NUMBERS = {
    "softmax": ("temperature",),
    "cross_entropy": ("temperature", "label_smoothing", "z_loss", "normalizer"),
    "focal_loss": ("gamma", "alpha", "temperature", "label_smoothing", "normalizer"),
    "binary_cross_entropy": ("pos_weight", "label_smoothing", "normalizer"),
    "sigmoid_focal_loss": ("gamma", "alpha", "label_smoothing", "normalizer"),
}
VMAPS = {
    "jax vmap": ("jax", lambda jax, f: jax.vmap(f, (None, 0))),
    "torch vmap": ("torch", lambda torch, f: torch.func.vmap(f, (None, 0))),
}
NUMBER_TRACERS = [name for _, name in TRACERS] + list(VMAPS)


def numbers_call(call, targets, options):
    rest = () if call == "softmax" else (targets,)
    return lambda x, v: getattr(softmaxkit, call)(x, *rest, **dict.fromkeys(options, v))


@pytest.mark.parametrize("tracer", NUMBER_TRACERS)
@pytest.mark.parametrize("call", NUMBERS)
def test_numbers_may_be_traced(call, tracer, request):
    name = VMAPS[tracer][0] if tracer in VMAPS else dict(map(reversed, TRACERS))[tracer]
    module = request.getfixturevalue(FIXTURES[name])
    adapter = library(name).adapter
    targets = np.array([0, 2, 1, 0, 1]) if call in ("cross_entropy", "focal_loss") else BATCH > 0
    function = numbers_call(call, targets.tolist(), NUMBERS[call])
    x, half = adapter.to_backend(BATCH, None), np.float32(0.5)
    if tracer in VMAPS:
        got = VMAPS[tracer][1](module, function)(
            x, adapter.to_backend(np.array([half, half]), None)
        )[0]
    else:
        got = adapter.transforms[tracer].call(function)(x, adapter.to_backend(half, None))
    expected = numbers_call(call, targets, NUMBERS[call])(BATCH, 0.5)
    np.testing.assert_allclose(
        adapter.to_numpy(got), expected, rtol=1e-5
    )  # float32 under a compiler


HOST = {
    "np.float64 gamma": lambda x: softmaxkit.focal_loss(x, [0, 2, 1, 0, 1], gamma=np.float64(2.0)),
    "0-d gamma": lambda x: softmaxkit.focal_loss(x, [0, 2, 1, 0, 1], gamma=np.array(2.0)),
    "0-d alpha": lambda x: softmaxkit.focal_loss(x, [0, 2, 1, 0, 1], alpha=np.array(2.0)),
    "0-d normalizer": lambda x: softmaxkit.cross_entropy(x, x, normalizer=np.array(2.0)),
    "0-d temperature": lambda x: softmaxkit.softmax(x, temperature=np.array(2.0)),
    "type": lambda x: softmaxkit.softmax(x, dtype=np.float32),
    "dtype": lambda x: softmaxkit.softmax(x, dtype=np.dtype("float64")),
}


@pytest.mark.parametrize("form", HOST)
def test_numbers_and_dtypes_of_numpy_under_torch_compile(form, torch):
    torch.compiler.reset()
    compiled = torch.compile(HOST[form], fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(torch.tensor(BATCH)), HOST[form](torch.tensor(BATCH)))


@pytest.mark.parametrize(
    ("call", "option", "number", "value"),
    [
        ("softmax", "temperature", 0.0, np.nan),
        ("cross_entropy", "temperature", np.nan, np.nan),
        ("cross_entropy", "normalizer", 0.0, np.inf),
        ("focal_loss", "gamma", np.nan, np.nan),
        ("binary_cross_entropy", "normalizer", 0.0, np.inf),
        ("sigmoid_focal_loss", "normalizer", np.nan, np.nan),
    ],
)
@pytest.mark.parametrize("tracer", ["jit", "tf.function"])
def test_a_traced_number_out_of_range_shows_in_the_value(
    call, option, number, value, tracer, request
):
    name = dict(map(reversed, TRACERS))[tracer]
    request.getfixturevalue(FIXTURES[name])
    adapter = library(name).adapter
    targets = [0, 2, 1, 0, 1] if call in ("cross_entropy", "focal_loss") else (BATCH > 0).tolist()
    traced = adapter.transforms[tracer].call(numbers_call(call, targets, [option]))
    got = traced(adapter.to_backend(BATCH, None), adapter.to_backend(np.float32(number), None))
    np.testing.assert_array_equal(adapter.to_numpy(got), np.full(got.shape, value))
