"""Whose array is it? No framework is imported, every disguise is seen through, the rest refused."""

import ast
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import softmaxkit
from softmaxkit import backends
from softmaxkit._dispatch import resolve
from softmaxkit.backends.array_api import arrays
from softmaxkit.backends.array_api.arrays import NEEDED

# Of float32, whose numbers are 1.2e-7 apart: what is compiled or mapped rounds otherwise.
FEW_ULP = 1e-6

LOGITS = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]], "float32")
LABELS = np.array([0, 2])

# --- nothing is imported that the user has not imported -------------------------------------------
FRAMEWORKS = (
    "torch", "jax", "jaxlib", "tensorflow", "keras", "dask", "array_api_strict", "cupy", "sparse",
    "ndonnx", "scipy", "ml_dtypes", "pandas", "sklearn", "matplotlib", "rich", "typer",
)  # fmt: skip
PROBE = f"import sys; print([name for name in {FRAMEWORKS} if name in sys.modules])"
EVERY_OPERATION = """
import numpy as np
import softmaxkit as s
x, y = np.zeros((2, 3)), [0, 2]
s.softmax(x), s.log_softmax(x), s.logsumexp(x)
s.one_hot(y, 3), s.smooth_labels(y, .1, num_classes=3)
for loss in s.cross_entropy, s.focal_loss:
    loss(x, y), loss(x, x, label_smoothing=.1, where=[True, True, False])
    s.value_and_grad(loss)(x, y)
for loss in s.binary_cross_entropy, s.sigmoid_focal_loss:
    loss(x, x), s.value_and_grad(loss)(x, x)
"""
REFUSAL = """
import softmaxkit
try:
    softmaxkit.softmax("no array")
except TypeError:
    pass
"""


@pytest.fixture
def every_framework(tmp_path):
    """A folder of modules with the frameworks' names: importable, whatever is installed."""
    folder = tmp_path / "frameworks"
    folder.mkdir()
    for name in FRAMEWORKS:
        (folder / f"{name}.py").write_text("")
    return folder


@pytest.mark.parametrize(
    "script", ["import softmaxkit", EVERY_OPERATION, REFUSAL], ids=["import", "NumPy", "refusal"]
)
def test_no_framework_is_imported(script, run_python, every_framework):
    assert run_python(f"{script}\n{PROBE}", every_framework) == "[]\n"


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_probe_sees_a_framework_that_is_imported(name, run_python, every_framework):
    assert run_python(f"import {name}, softmaxkit\n{PROBE}", every_framework) == f"['{name}']\n"


def test_import_brings_only_numpy(run_python):
    script = (
        "import sys, numpy; before = set(sys.modules); import softmaxkit\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - sys.stdlib_module_names))"
    )
    assert run_python(script) == "['softmaxkit']\n"


def test_a_library_that_is_named_and_missing_is_an_error(run_python, monkeypatch):
    monkeypatch.setenv("SOFTMAXKIT_BACKENDS", "numpy,torch")
    script = f"""
import sys, pytest
sys.modules["torch"] = None
print(repr(pytest.main(["--collect-only", "-p", "no:cacheprovider", {__file__!r}])))
"""
    assert run_python(script).strip().endswith("<ExitCode.USAGE_ERROR: 4>")


@pytest.mark.parametrize("state", ["blocked", "half imported"])
def test_frameworks_that_are_not_there_hinder_nobody(state, library, run_python):
    if library.backend.LIBRARY in ("array API", "Dask"):
        pytest.skip("array_api_compat 1.16 itself fails where sys.modules holds no whole torch")
    # In an interpreter of its own: array_api_compat remembers what it has once found out.
    script = f"""
import sys, types
import numpy as np
from softmaxkit.conformance import adapters
adapter = adapters.load({repr(library)!r})
for name in "torch", "jax", "tensorflow":
    if name not in sys.modules:
        sys.modules[name] = None if {state!r} == "blocked" else types.ModuleType(name)
import softmaxkit
p = adapter.to_numpy(softmaxkit.softmax(adapter.to_backend(np.zeros((2, 4)), "float32")))
loss = softmaxkit.cross_entropy(adapter.to_backend(np.zeros((2, 4)), "float32"), [0, 3])
assert (p == .25).all() and abs(adapter.to_numpy(loss) - np.log(4)) < 1e-6
try:
    softmaxkit.softmax(object())
except TypeError as refusal:
    print(refusal)
"""
    assert run_python(script).startswith("softmax: x is a object; expected an array of NumPy, ")


def test_64_first_calls_over_8_threads(library, run_python):
    if repr(library) not in ("numpy", "torch", "jax", "tensorflow"):
        pytest.skip("its backend is one that numpy's test case loads the same way")
    # TensorFlow 2.21 segfaulted inside its eager reduce_max, in 1 run of 14, where 8 threads made
    # its first calls at so short an interval; what is tested here is the loading of our backend.
    theirs = "import tensorflow as tf; tf.reduce_max(x, 1); tf.reduce_sum(tf.exp(x), 1)"
    first = theirs if repr(library) == "tensorflow" else "sys.setswitchinterval(1e-6)"
    script = f"""
import os, sys, threading
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from concurrent.futures import ThreadPoolExecutor
from softmaxkit.conformance import adapters
import numpy as np, softmaxkit
adapter = adapters.load({repr(library)!r})
x = adapter.to_backend(np.zeros((2, 4)), "float32")
assert "softmaxkit.backends.{library!r}" not in sys.modules
{first}
start = threading.Barrier(8)
def call(i):
    if i < 8:
        start.wait()
    return map(adapter.to_numpy, (softmaxkit.softmax(x), softmaxkit.cross_entropy(x, [0, 3])))
with ThreadPoolExecutor(8) as pool:
    for p, loss in pool.map(call, range(64)):
        assert (p == .25).all() and abs(loss - np.log(4)) < 1e-6
print(threading.active_count())
"""
    assert run_python(script).strip().isdigit()


# --- each array to its own library ----------------------------------------------------------------
def test_arrays_go_to_their_library(library):
    backend, x = resolve("softmax", "x", library.array(LOGITS))
    assert backend is library.backend
    assert type(softmaxkit.softmax(x)) is type(x)


@pytest.mark.parametrize(
    "x",
    [[1.0, 2.0], (1, 2), [[True, False]], list(range(3)), np.float32(1), 1, 2.5, True],
    ids=str,
)
def test_lists_and_numbers_are_numpy(x):
    assert resolve("softmax", "x", x)[0] is backends.numpy
    p = softmaxkit.softmax(x, axis=None)
    assert p.dtype == (np.float32 if isinstance(x, np.float32) else np.float64)
    assert np.sum(p) == pytest.approx(1)


def test_a_list_of_arrays_of_a_framework_is_not_numpy(library):
    if repr(library) == "numpy":
        return
    # NumPy would copy it to the host, and off the tape, without a word.
    with pytest.raises(TypeError, match=r"^softmax: x is a list.*; expected .*; .*"):
        softmaxkit.softmax([library.array(1.0), library.array(2.0)])


def test_numpy_subclasses_that_are_only_storage(tmp_path):
    mapped = np.memmap(tmp_path / "x", "float32", "w+", shape=(2, 3))
    assert type(softmaxkit.softmax(mapped)) is np.ndarray


# --- PyTorch --------------------------------------------------------------------------------------
def test_torch_parameter(torch):
    logits = torch.nn.Parameter(torch.tensor(LOGITS))
    softmaxkit.cross_entropy(logits, LABELS).backward()
    assert logits.grad.shape == (2, 3)


def test_torch_subclass(torch):
    class Mine(torch.Tensor):
        pass

    logits = torch.tensor(LOGITS).as_subclass(Mine)
    assert type(softmaxkit.softmax(logits)) is Mine
    assert type(softmaxkit.cross_entropy(logits, LABELS)) is Mine
    targets = torch.tensor(LABELS).as_subclass(Mine)
    loss = softmaxkit.cross_entropy(torch.tensor(LOGITS), targets)
    assert loss.item() == pytest.approx(softmaxkit.cross_entropy(LOGITS, LABELS))


def test_labels_in_a_torch_subclass_are_read(torch):
    class Labels(torch.Tensor):
        pass

    labels = torch.tensor([0, 9]).as_subclass(Labels)
    with pytest.raises(IndexError, match=r"targets\[1\] is 9"):
        softmaxkit.cross_entropy(torch.zeros(2, 3), labels)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_torch_nested_tensors_of_layout_strided_are_refused(torch):
    nested = torch.nested.nested_tensor([torch.zeros(2, 4), torch.zeros(3, 4)])
    with pytest.raises(TypeError, match=r"^softmax: x is a nested tensor .* where= .*\.$"):
        softmaxkit.softmax(nested)


@pytest.mark.parametrize("call", ["cross_entropy", "focal_loss"])
def test_fake_tensor(torch, call):
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        logits, targets = torch.empty(2, 3), torch.empty(2, dtype=torch.long)
        probabilities = softmaxkit.softmax(logits, where=[True, True, False])
        loss = getattr(softmaxkit, call)(logits, targets, reduction="none")
    assert isinstance(probabilities, FakeTensor)
    assert isinstance(loss, FakeTensor)
    assert (probabilities.shape, loss.shape) == ((2, 3), (2,))


def test_functorch_wrappers(torch):
    func, logits, targets = torch.func, torch.tensor(LOGITS), torch.tensor(LABELS)
    rows = softmaxkit.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(func.vmap(softmaxkit.cross_entropy)(logits, targets), rows)
    expected = softmaxkit.softmax(logits) - softmaxkit.one_hot(targets, 3)
    gradient = func.vmap(func.grad(softmaxkit.cross_entropy))(logits, targets)
    torch.testing.assert_close(gradient, expected)
    gradient = func.grad(lambda z: softmaxkit.cross_entropy(z, LABELS, reduction="sum"))(logits)
    torch.testing.assert_close(gradient, expected)


COMPILED = {
    "softmax": lambda s, x, y: s.softmax(x),
    "softmax options": lambda s, x, y: s.softmax(x, 0, where=x > 0, temperature=2.0),
    "softmax list": lambda s, x, y: s.softmax(x, where=[True, False, True]),
    "softmax array": lambda s, x, y: s.softmax(x, temperature=np.array([1.0, 2.0, 3.0])),
    "softmax dtype": lambda s, x, y: s.softmax(x, dtype="bfloat16"),
    "log_softmax": lambda s, x, y: s.log_softmax(x, axis=0),
    "logsumexp": lambda s, x, y: s.logsumexp(x, axis=None, keepdims=True),
    "cross_entropy": lambda s, x, y: s.cross_entropy(x, y),
    "cross_entropy probabilities": lambda s, x, y: s.cross_entropy(x, x.detach().softmax(-1)),
    "cross_entropy options": lambda s, x, y: s.cross_entropy(
        x, y, label_smoothing=0.1, temperature=2.0, z_loss=1e-4, normalizer="batch"
    ),
    "cross_entropy lists": lambda s, x, y: s.cross_entropy(
        x, [0, 2], weight=[1.0, 2.0, 3.0], sample_weight=[1, 2], where=[True, True, True]
    ),
    "cross_entropy arrays": lambda s, x, y: s.cross_entropy(x, np.array([0, 2])),
    "focal_loss": lambda s, x, y: s.focal_loss(x, y, gamma=0.5, alpha=0.25),
    "focal_loss list": lambda s, x, y: s.focal_loss(x, y, alpha=[1.0, 2.0, 3.0]),
    "binary_cross_entropy": lambda s, x, y: s.binary_cross_entropy(x, x.detach() > 0),
    "binary_cross_entropy pos_weight": lambda s, x, y: s.binary_cross_entropy(
        x, x.detach() > 0, pos_weight=2.0
    ),
    "sigmoid_focal_loss": lambda s, x, y: s.sigmoid_focal_loss(x, x.detach() > 0, alpha=0.25),
    "one_hot": lambda s, x, y: s.one_hot(y, 3),
    "smooth_labels": lambda s, x, y: s.smooth_labels(y, 0.1, num_classes=3),
    "value_and_grad": lambda s, x, y: s.value_and_grad(s.cross_entropy)(
        x.detach(), y, label_smoothing=0.1
    ),
    "value_and_grad saturated": lambda s, x, y: s.value_and_grad(s.focal_loss)(
        30 * x.detach(), y, gamma=0.5, reduction="none"
    ),
    "vjp": lambda s, x, y: s.vjp(s.log_softmax)(x.detach(), x.detach() ** 2, temperature=2.0),
}


@pytest.mark.parametrize("name", COMPILED)
def test_torch_compile_finds_no_graph_break_and_warns_of_nothing(torch, name):
    def call(x, y):
        return COMPILED[name](softmaxkit, x, y)

    torch.compiler.reset()
    logits, labels = torch.tensor(LOGITS, requires_grad=True), torch.tensor(LABELS)
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(logits, labels), call(logits, labels))


def test_torch_compile_does_not_compile_again_when_another_type_comes_by(torch):
    from torch._dynamo.testing import CompileCounter

    counter = CompileCounter()
    torch.compiler.reset()
    compiled = torch.compile(softmaxkit.cross_entropy, fullgraph=True, backend=counter)
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    compiled(logits, labels)
    for other in (LOGITS, LOGITS.tolist(), torch.nn.Parameter(logits)):
        softmaxkit.cross_entropy(other, LABELS)
        compiled(logits, labels)
    assert counter.frame_count == 1


# --- JAX ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("targets", ["traced", "concrete", "list"])
@pytest.mark.parametrize("call", ["cross_entropy", "focal_loss"])
def test_jax_tracers(jax, call, targets):
    loss = getattr(softmaxkit, call)
    logits, labels = jax.numpy.asarray(LOGITS), jax.numpy.asarray(LABELS)
    expected = np.asarray(loss(logits, labels, reduction="none"))
    if targets == "traced":
        jitted = jax.jit(lambda x, y: loss(x, y, reduction="none"))(logits, labels)
        gradient = jax.grad(loss)(logits, labels)
        rows = jax.vmap(loss)(logits, labels)
    else:
        fixed = labels if targets == "concrete" else LABELS.tolist()
        jitted = jax.jit(lambda x: loss(x, fixed, reduction="none"))(logits)
        gradient = jax.grad(lambda x: loss(x, fixed))(logits)
        rows = jax.vmap(lambda x: loss(x, fixed))(jax.numpy.stack([logits, logits]))
        rows = rows * jax.numpy.asarray(expected) / expected.mean()
    np.testing.assert_allclose(jitted, expected, rtol=FEW_ULP)
    np.testing.assert_allclose(rows, expected, rtol=FEW_ULP)
    _, own = softmaxkit.value_and_grad(loss)(LOGITS, LABELS)
    np.testing.assert_allclose(gradient, own, rtol=1e-5, atol=1e-7)  # p - 1 at the label cancels


@pytest.mark.parametrize(
    ("call", "option"),
    [
        ("softmax", "temperature"),
        ("cross_entropy", "temperature"),
        ("cross_entropy", "label_smoothing"),
        ("cross_entropy", "z_loss"),
        ("cross_entropy", "normalizer"),
        ("focal_loss", "gamma"),
        ("focal_loss", "alpha"),
        ("binary_cross_entropy", "pos_weight"),
        ("sigmoid_focal_loss", "gamma"),
        ("sigmoid_focal_loss", "alpha"),
    ],
)
def test_jax_traced_numbers(jax, call, option):
    rest = {"softmax": (), "cross_entropy": (LABELS,), "focal_loss": (LABELS,)}
    rest = rest.get(call, (LOGITS,))

    def function(number):
        return getattr(softmaxkit, call)(jax.numpy.asarray(LOGITS), *rest, **{option: number})

    np.testing.assert_allclose(jax.jit(function)(0.5), function(0.5), rtol=FEW_ULP)


def test_jax_typed_literals_are_jax(jax):
    literals = pytest.importorskip("jax._src.literals", reason="this JAX has no typed literals")
    logits = literals.TypedNdArray(LOGITS)
    labels = literals.TypedNdArray(LABELS)
    assert isinstance(logits, np.ndarray)
    for x in (logits, labels):
        assert resolve("softmax", "x", x)[0] is backends.jax
    assert isinstance(softmaxkit.softmax(logits), jax.Array)
    assert isinstance(softmaxkit.cross_entropy(logits, labels), jax.Array)
    assert isinstance(softmaxkit.cross_entropy(jax.numpy.asarray(LOGITS), labels), jax.Array)
    assert isinstance(softmaxkit.one_hot(labels, 3), jax.Array)


# --- TensorFlow -----------------------------------------------------------------------------------
def test_tf_variable(tf):
    logits = tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        loss = softmaxkit.cross_entropy(logits, tf.Variable(LABELS))
    assert isinstance(loss, tf.Tensor)
    assert tape.gradient(loss, logits).shape == (2, 3)

    @tf.function
    def traced():
        return softmaxkit.cross_entropy(logits, LABELS)

    np.testing.assert_allclose(traced(), loss, rtol=FEW_ULP)


@pytest.mark.parametrize("shape", [(2, 3), (None, 3), (2, None), (None, None)], ids=str)
def test_tf_symbolic_tensors_of_unknown_shape(tf, shape):
    @tf.function(
        input_signature=[tf.TensorSpec(shape), tf.TensorSpec(shape[:1], tf.int64)],
    )
    def traced(x, y):
        assert not tf.executing_eagerly()
        losses = softmaxkit.cross_entropy(x, y, label_smoothing=0.1), softmaxkit.focal_loss(x, y)
        return softmaxkit.softmax(x), softmaxkit.logsumexp(x, axis=None), *losses

    p, lse, ce, focal = traced(LOGITS, LABELS)
    np.testing.assert_allclose(p, softmaxkit.softmax(LOGITS), rtol=FEW_ULP)
    np.testing.assert_allclose(lse, softmaxkit.logsumexp(LOGITS, axis=None), rtol=FEW_ULP)
    expected = softmaxkit.cross_entropy(LOGITS, LABELS, label_smoothing=0.1)
    np.testing.assert_allclose(ce, expected, rtol=FEW_ULP)
    np.testing.assert_allclose(focal, softmaxkit.focal_loss(LOGITS, LABELS), rtol=FEW_ULP)


def test_tf_unknown_rank_is_refused_with_one_line(tf):
    @tf.function(input_signature=[tf.TensorSpec(None)])
    def traced(x):
        return softmaxkit.softmax(x)

    with pytest.raises(ValueError, match=r"softmax: x has unknown rank; expected .+; .+\.(\n|$)"):
        traced(LOGITS)


@pytest.mark.parametrize("kind", ["RaggedTensor", "SparseTensor", "IndexedSlices"])
def test_tf_other_tensors_are_refused_by_name(tf, kind):
    x = {
        "RaggedTensor": lambda: tf.ragged.constant([[1.0], [1.0, 2.0]]),
        "SparseTensor": lambda: tf.sparse.from_dense(LOGITS),
        "IndexedSlices": lambda: tf.IndexedSlices(tf.constant(LOGITS), tf.constant([0, 1])),
    }[kind]()
    remedy = "convert it to one of those"
    if kind == "RaggedTensor":
        mask = "tf.sequence_mask of its row_lengths()"
        remedy = f"pass its .to_tensor(), and {mask} as where= of the logits"
    with pytest.raises(TypeError) as refusal:
        softmaxkit.softmax(x)
    assert str(refusal.value) == (
        f"softmax: x is a tensorflow.{kind}; expected an array of NumPy, PyTorch, JAX, TensorFlow "
        f"or an array-API library; {remedy}."
    )


# --- libraries that only look like array-API ones -------------------------------------------------
class Sparse:
    """Has a namespace, as arrays of `sparse` do, and that lacks what kernels need."""

    dtype, shape, ndim, device = np.dtype("float32"), (2, 3), 2, "cpu"

    def __array_namespace__(self, api_version=None):
        return SPARSE


SPARSE = ModuleType("sparse_library")
vars(SPARSE).update({name: getattr(np, name, None) for name in NEEDED if name[:2] != "ar"})


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("x", lambda odd: softmaxkit.softmax(odd)),
        ("labels", lambda odd: softmaxkit.one_hot(odd, 3)),
        ("logits", lambda odd: softmaxkit.value_and_grad(softmaxkit.focal_loss)(odd, LABELS)),
        ("targets", lambda odd: softmaxkit.cross_entropy(LOGITS, odd)),
        ("where", lambda odd: softmaxkit.softmax(LOGITS, where=odd)),
    ],
)
def test_a_library_without_what_kernels_need_is_refused(argument, call):
    with pytest.raises(TypeError) as refusal:
        call(Sparse())
    assert str(refusal.value).partition(": ")[2] == (
        f"{argument} is a {__name__.partition('.')[0]}.Sparse; expected an array whose library has "
        "arange, argmax of the array-API standard; convert it to a NumPy array."
    )


def test_every_function_that_is_called_of_a_library_is_asked_for():
    called = set()
    for path in (arrays.__file__, backends.array_api.__file__):
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                if owner == "xp" or owner.startswith("array_namespace("):
                    called.add(node.attr)
    asked_when_needed = {"take_along_axis", "concat", "stop_gradient"}  # of chunks, of MLX
    assert (called | {"int64"}) - asked_when_needed == set(NEEDED)


def test_sparse_arrays_are_refused():
    sparse = pytest.importorskip("sparse", reason="sparse, whose arrays are refused, is missing")
    with pytest.raises(TypeError, match=r"^softmax: x is a sparse\..*; expected .*; .*\.$"):
        softmaxkit.softmax(sparse.COO(LOGITS))


# --- refused on every installation (more: test_bad_input.py) --------------------------------------
class Frame:
    """Like a DataFrame, which NumPy would read through `__array__`."""

    def __array__(self, dtype=None, copy=None):
        return LOGITS


class Mock:
    """Answers to any name, as mocks and remote proxies do; its type does not."""

    def __getattr__(self, name):
        return lambda *arguments, **options: self


@pytest.mark.parametrize("kind", [Frame, Mock])
@pytest.mark.parametrize("argument", ["logits", "targets", "where"])
def test_lookalikes_are_refused_by_name(kind, argument, library):
    arguments = {"logits": library.array(LOGITS), "targets": LABELS, "where": None}
    arguments[argument] = kind()
    with pytest.raises(TypeError) as refusal:
        softmaxkit.cross_entropy(**arguments)
    assert str(refusal.value) == (
        f"cross_entropy: {argument} is a {__name__.partition('.')[0]}.{kind.__name__}; expected an "
        "array of NumPy, PyTorch, JAX, TensorFlow or an array-API library; convert it to one of "
        "those."
    )
