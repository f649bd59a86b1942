"""PyTorch: the Triton kernels, run by Triton's interpreter on CPU tensors (`nox -s triton`).

The conformance suite runs there, too. Here are the layouts, sizes and options that it has no case
for, and what happens where a kernel fails.
"""

import os
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import softmaxkit
import softmaxkit.conformance
from softmaxkit import cross_entropy
from softmaxkit.conformance import Case

pytestmark = pytest.mark.skipif(
    "torch" not in softmaxkit.conformance.names(), reason="torch is not among those under test"
)
RANDOM = np.random.default_rng(0)


@pytest.fixture
def torch():
    return import_module("torch")


@pytest.fixture
def eager(torch):
    return import_module("softmaxkit.backends.torch.eager")


@pytest.fixture
def launched(monkeypatch):
    """Return a list of the names of the kernels that are launched."""
    if os.environ.get("SOFTMAXKIT_TRITON") != "interpret":
        pytest.skip("SOFTMAXKIT_TRITON is not interpret, as it is in nox -s triton")
    triton = import_module("softmaxkit.backends.torch.triton")
    names, launch = [], triton._Tiles.launch

    def noted(tiles, kernel, *arguments, **options):
        names.append(kernel.fn.__name__)
        launch(tiles, kernel, *arguments, **options)

    monkeypatch.setattr(triton._Tiles, "launch", noted)
    return names


def logits(*shape):
    # More than 16 below the largest logit, d itself is rounded by more than the limits allow.
    return RANDOM.normal(0.0, 1.5, shape)


def labels(rows, classes):
    return RANDOM.integers(0, classes, rows)


X = logits(5, 300)
Y = labels(5, 300)
MASK = RANDOM.random(X.shape) < 0.6
MASK[range(5), Y] = True
SURE = X.copy()
SURE[range(5), Y] = 40.0
WEIGHT = RANDOM.random(300) + 0.5
IGNORED = np.where(np.arange(5) % 2, Y, -100)
EACH = {"reduction": "none"}
EVERY = {"weight": WEIGHT, "label_smoothing": 0.1, "z_loss": 0.01, "temperature": 0.7}
ROWS = RANDOM.random((5, 1)) + 0.5
LONG, LONG_Y, LONG_W = logits(3, 5000), labels(3, 5000), RANDOM.random(5000) + 0.5
LINEAR = [(8 * logits(n, 4)).round() / 8 for n in (5, 300)]

CASES = [
    Case("one class", "cross_entropy", (logits(7, 1), np.zeros(7, int))),
    Case("two classes", "cross_entropy", (logits(70, 2), labels(70, 2))),
    Case("a tile and one class", "cross_entropy", (logits(3, 4097), labels(3, 4097))),
    Case(
        "several tiles", "cross_entropy", (LONG, LONG_Y), {"weight": LONG_W, "label_smoothing": 0.1}
    ),
    Case("several maxima", "cross_entropy", (np.zeros((3, 300)), Y[:3])),
    Case("largest vocabulary", "cross_entropy", (logits(1, 300_000), labels(1, 300_000))),
    Case("classes first", "cross_entropy", (logits(300, 5), Y), {"axis": 0}),
    Case("pixels", "cross_entropy", (logits(2, 7, 3, 5), labels((2, 3, 5), 7)), {"axis": 1}),
    Case("mask of classes", "cross_entropy", (X, Y), {"where": MASK.any(0)} | EVERY),
    Case("mask of entries", "cross_entropy", (X, Y), {"where": MASK} | EVERY),
    Case("mask of rows", "cross_entropy", (X, Y), {"where": np.arange(5)[:, None] < 3} | EACH),
    Case("ignored rows", "cross_entropy", (X, IGNORED), EVERY | EACH),
    Case("saturated", "cross_entropy", (SURE, Y), EVERY | EACH, saturated=True),
    Case("temperature of rows", "cross_entropy", (X, Y), {"temperature": ROWS} | EACH),
    Case("probabilities", "cross_entropy", (X, RANDOM.dirichlet(np.ones(300), 5))),
    Case("ignored rows", "focal_loss", (X, IGNORED), {"gamma": 1.5, "where": MASK}),
    Case("smoothing", "focal_loss", (X, Y), {"gamma": 1.5, "label_smoothing": 0.1}),
    Case("softcap", "linear_cross_entropy", (*LINEAR, Y), {"softcap": 2.0}),
    Case(
        *("softcap, mask, in chunks", "linear_cross_entropy", (*LINEAR, IGNORED)),
        {"softcap": 0.5, "where": MASK.any(0), "temperature": 0.7, "chunk_size": 2},
    ),
    Case("all outputs", "linear_cross_entropy", (*LINEAR, Y), {"softcap": 2.0} | EACH),
]
CASES += [
    Case(name, operation, (x,), options, saturated=name == "saturated")
    for operation in ("softmax", "log_softmax", "logsumexp")
    for name, x, options in (
        ("rows", X, {}),
        ("saturated", SURE, {}),
        ("pixels", logits(2, 7, 3, 5), {"axis": 1}),
        ("mask", X, {"where": MASK}),
    )
]


def test_bfloat16_is_rounded_as_torch_does(torch):
    """What the interpreter is given in tests/triton_interpreter.py."""
    helper = run_path(str(Path(__file__).with_name("triton_interpreter.py")))
    x = torch.randint(-(2**31), 2**31, (100_000,), dtype=torch.int32).view(torch.float32)
    x = torch.cat([x, x.bfloat16().float() * (1 + 2**-8), torch.tensor([0.0, torch.inf])])
    got = helper["from_bfloat16"](helper["to_bfloat16"](x.numpy()))
    np.testing.assert_array_equal(got, x.bfloat16().float().numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(launched, case, dtype):
    adapter = softmaxkit.conformance.load("torch")
    results = list(softmaxkit.conformance.run_case(adapter, case, dtype))
    assert launched
    assert [f"{one.what}: {one.problem}" for one in results if not one.passed] == []
    assert results


def value_and_gradient(x, call):
    x = x.detach().requires_grad_()
    value = call(x)
    value.sum().backward()
    return value.detach(), x.grad


LAYOUTS = {
    "transposed": lambda x: x.T.contiguous().T,
    "every other class": lambda x: x.repeat_interleave(2, 1)[:, ::2],
    "a slice that starts anywhere": lambda x: x.new_zeros(5, 307).index_copy(
        1, import_module("torch").arange(3, 303), x
    )[:, 3:303],
    "the same memory for all rows": lambda x: x[:1].expand(5, 300),
    "batches swapped": lambda x: x.reshape(5, 3, 100).transpose(0, 1),
    "channels last": lambda x: x.reshape(5, 3, 100).transpose(1, 2).contiguous().transpose(1, 2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "cross_entropy"])
def test_layouts(torch, launched, name, layout):
    """The numbers do not depend on the strides, and the logits are not overwritten."""
    x = LAYOUTS[layout](torch.tensor(X, dtype=torch.float32))
    same, before = x.contiguous(), x.clone()
    call = getattr(softmaxkit, name)
    if name == "cross_entropy":
        of_rows = torch.arange(x[..., 0].numel()).reshape(x.shape[:-1]) % x.shape[-1]
        got, expected = (
            value_and_gradient(one, lambda z: cross_entropy(z, of_rows, axis=-1))
            for one in (x, same)
        )
    else:
        got, expected = (
            value_and_gradient(one, lambda z: (call(z) * z.detach().sin()).sum(-1))
            for one in (x, same)
        )
    # Other strides make other tiles, in which float32 is summed in another order.
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(x, before)
    assert launched


def test_offsets_beyond_32_bits(torch, launched):
    """Rows that lie 2^30 entries apart: memory that nobody touches takes no space."""
    memory = torch.empty(2**31 + 8, dtype=torch.bfloat16)
    x = memory.as_strided((3, 8), (2**30, 1))
    x.copy_(torch.arange(24.0).reshape(3, 8).sin())
    of_rows = torch.tensor([3, 5, 0])
    got = cross_entropy(x, of_rows, reduction="none")
    assert torch.equal(got, cross_entropy(x.contiguous(), of_rows, reduction="none"))
    assert launched


def test_rows_that_do_not_count_are_not_read(torch, launched):
    x = torch.tensor(X, dtype=torch.float32)
    x[::2] = torch.nan
    value, of_x = value_and_gradient(x, lambda z: cross_entropy(z, torch.tensor(IGNORED)))
    assert value.isfinite()
    assert (of_x[::2] == 0).all()
    assert (of_x[1::2] != 0).any(1).all()


def test_a_second_derivative_is_that_of_plain_operations(torch, launched, eager):
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    of_rows = torch.tensor(Y)

    def second():
        (of_x,) = torch.autograd.grad(cross_entropy(x, of_rows, z_loss=0.1), x, create_graph=True)
        return torch.autograd.grad(of_x.square().sum(), x)[0]

    got = second()
    assert launched
    with eager.on_device("cuda"):
        expected = second()
    # Both are float32; the largest entries are 4e-3.
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-8)


def test_two_backward_passes_and_a_changed_argument(torch, launched):
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    value = cross_entropy(x, torch.tensor(Y), where=torch.tensor(MASK), temperature=0.7)
    first, second = (torch.autograd.grad(value, x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    with torch.no_grad():
        x.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(value, x)


def test_torch_compile_transforms_and_wide_logits_do_without(torch, launched):
    x = torch.tensor(X)
    of_rows = torch.tensor(Y)
    cross_entropy(x, of_rows)
    torch.func.grad(cross_entropy)(x.float(), of_rows)
    torch.func.jvp(lambda z: cross_entropy(z, of_rows), (x.float(),), (x.float(),))
    torch.compile(cross_entropy, backend="eager")(x.float(), of_rows)
    assert launched == []


def test_use_triton(torch, launched):
    from softmaxkit.torch import use_triton

    x = torch.tensor(X, dtype=torch.float32)
    try:
        use_triton(False)
        softmaxkit.softmax(x)
        assert launched == []
    finally:
        use_triton()
    softmaxkit.softmax(x)
    assert launched == ["softmax"]


# --- where a kernel fails: Triton itself is not needed --------------------------------------------
@pytest.fixture
def failing(torch, eager, monkeypatch):
    """Serve CPU tensors with kernels that fail; return the list of those that were called."""
    called = []

    class Triton:
        def __getattr__(self, name):
            called.append(name)
            raise RuntimeError("no C compiler\nwas found")

    monkeypatch.setattr(eager, "import_module", lambda name: Triton())
    monkeypatch.setattr(eager, "_is_installed", lambda: True)
    monkeypatch.setattr(eager._Setting, "failed", False)
    monkeypatch.setattr(eager._Setting, "wanted", True)
    with eager.on_device("cpu"):
        yield called


def test_a_kernel_that_fails_warns_once_and_torch_serves(torch, failing):
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    of_rows = torch.tensor(Y)
    message = "a Triton kernel failed on cpu .RuntimeError: no C compiler was found."
    with pytest.warns(RuntimeWarning, match=message) as caught:
        value = cross_entropy(x, of_rows)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (of_x,) = torch.autograd.grad(value, x)
        softmaxkit.softmax(x)
    assert len(failing) == 1
    expected = torch.nn.functional.cross_entropy(x.double(), of_rows)
    # What is expected is float64: the limits are float32's rounding of a loss and of a gradient.
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(of_x, torch.autograd.grad(expected, x)[0], rtol=1e-5, atol=1e-8)


def test_use_triton_tries_again(torch, failing):
    from softmaxkit.torch import use_triton

    x = torch.tensor(X, dtype=torch.float32)
    with pytest.warns(RuntimeWarning, match="a Triton kernel failed"):
        softmaxkit.log_softmax(x)
    use_triton()
    with pytest.warns(RuntimeWarning, match="a Triton kernel failed"):
        softmaxkit.log_softmax(x)
    use_triton(False)
    softmaxkit.log_softmax(x)
    assert len(failing) == 2


def test_memory_that_runs_out_is_the_users_to_know(torch, eager, monkeypatch):
    class Triton:
        def softmax(self, *arguments):
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(eager, "import_module", lambda name: Triton())
    monkeypatch.setattr(eager, "_is_installed", lambda: True)
    with eager.on_device("cpu"), pytest.raises(torch.OutOfMemoryError):
        softmaxkit.softmax(torch.ones(2, 3))
    assert not eager._Setting.failed


def test_triton_is_not_imported_for_cpu_tensors():
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    env = {name: one for name, one in os.environ.items() if name != "SOFTMAXKIT_TRITON"}
    code = (
        "import sys, torch, softmaxkit;"
        "softmaxkit.softmax(torch.ones(300, 300));"
        "sys.exit('softmaxkit.backends.torch.triton' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
