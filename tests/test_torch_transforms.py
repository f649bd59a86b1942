"""What PyTorch offers on a model holds on a loss in it: derivatives of every kind, compilers."""

import warnings

import numpy as np
import pytest

import softmaxkit
from softmaxkit.conformance import reference

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (4, 3))
LABELS = [0, 2, -100, 1]
SOFT = RNG.dirichlet(np.ones(3), 4)
CLASS_LOSS = {
    "indices": (LABELS, {}),
    "rows": (LABELS, {"reduction": "none"}),
    "smoothing": (LABELS, {"label_smoothing": 0.1}),
    "weights": (LABELS, {"class weights": [1.0, 2.0, 5.0], "label_smoothing": 0.1}),
    "sample weights": (LABELS, {"sample_weight": [1.0, 0.5, 2.0, 0.0]}),
    "mask": (LABELS, {"where": [[1, 1, 0], [0, 1, 1], [1, 1, 1], [1, 1, 1]]}),
    "temperature": (LABELS, {"temperature": 2.5}),
    "probabilities": (SOFT, {}),
    "weighted probabilities": (SOFT, {"class weights": [1.0, 2.0, 5.0], "label_smoothing": 0.1}),
}
CALLS = {f"cross_entropy, {name}": ("cross_entropy", *call) for name, call in CLASS_LOSS.items()}
CALLS |= {f"focal_loss, {name}": ("focal_loss", *call) for name, call in CLASS_LOSS.items()}
CALLS |= {
    "cross_entropy, z-loss": ("cross_entropy", LABELS, {"z_loss": 0.1, "temperature": 0.5}),
    "focal_loss, gamma 0.5": ("focal_loss", LABELS, {"gamma": 0.5}),
    "binary_cross_entropy": ("binary_cross_entropy", SOFT, {"label_smoothing": 0.1}),
    "binary_cross_entropy, pos_weight": ("binary_cross_entropy", SOFT, {"pos_weight": [1, 2, 3]}),
    "sigmoid_focal_loss": ("sigmoid_focal_loss", SOFT, {"alpha": 0.25}),
    "softmax": ("softmax", None, {}),
    "softmax, mask": ("softmax", None, {"where": [True, False, True], "temperature": 2.0}),
    "log_softmax": ("log_softmax", None, {"axis": 0}),
    "logsumexp": ("logsumexp", None, {"axis": None}),
    "logsumexp, rows": ("logsumexp", None, {}),
}


@pytest.fixture(params=CALLS)
def function(request, torch):
    """Return a function of the logits alone."""
    name, targets, options = CALLS[request.param]
    options = dict(options)
    if "class weights" in options:
        weights = options.pop("class weights")
        options["weight" if name == "cross_entropy" else "alpha"] = torch.tensor(weights)
    if isinstance(options.get("where"), list):
        options["where"] = torch.tensor(options["where"], dtype=torch.bool)
    arguments = () if targets is None else (torch.tensor(np.asarray(targets)),)
    return lambda x: getattr(softmaxkit, name)(x, *arguments, **options)


@pytest.fixture
def logits(torch):
    return torch.tensor(LOGITS, requires_grad=True)


def test_first_order_backward_and_forward(torch, function, logits):
    assert torch.autograd.gradcheck(
        function, logits, check_forward_ad=True, check_batched_grad=True
    )


@pytest.mark.parametrize("enabled", [True, False], ids=["grad", "no_grad"])
def test_forward_mode_of_many_logits(torch, enabled):
    """Blocks, which forward mode cannot go through, are for calls that are not differentiated."""
    x, dx = torch.randn(2, 200, 100, dtype=torch.float64)
    q = torch.softmax(torch.randn(200, 100), 1).to(torch.bfloat16)
    with torch.set_grad_enabled(enabled), torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, dx)
        loss = softmaxkit.cross_entropy(dual, q)
        tangent = torch.autograd.forward_ad.unpack_dual(loss).tangent
    q = q.double()
    expected = ((x.softmax(1) * q.sum(1, keepdim=True) - q) * dx).sum() / 200
    torch.testing.assert_close(tangent, expected)


def test_second_order(torch, function, logits):
    assert torch.autograd.gradgradcheck(function, logits)


def test_func_transforms_agree(torch, function, logits):
    func, x = torch.func, logits.detach()

    def total(x):
        return function(x).sum()

    by_rows = func.jacrev(function)(x)
    torch.testing.assert_close(func.jacfwd(function)(x), by_rows)
    torch.testing.assert_close(func.grad(total)(x), by_rows.reshape(-1, 4, 3).sum(0))
    hessian = torch.autograd.functional.hessian(total, x)
    for outer in (func.jacrev, func.jacfwd):
        for inner in (func.jacrev, func.jacfwd):
            torch.testing.assert_close(outer(inner(total))(x), hessian)
    batch = torch.stack([x, 2 * x, -x])
    torch.testing.assert_close(func.vmap(function)(batch), torch.stack([*map(function, batch)]))
    gradients = torch.stack([func.grad(total)(each) for each in batch])
    torch.testing.assert_close(func.vmap(func.grad(total))(batch), gradients)


# One for each kernel: each compiles some ten programs.
KERNELS = ("cross_entropy, weights", "focal_loss, probabilities", "softmax", "log_softmax")


@pytest.mark.parametrize("function", [*KERNELS, "logsumexp, rows"], indirect=True)
def test_transforms_that_are_compiled(torch, function, logits):
    """torch.compile with a transform inside, and a transform around what it has compiled."""
    func, x = torch.func, logits.detach()

    def total(x):
        return function(x).sum()

    def derivatives(batch, total=total):
        first, direction = batch[0], torch.ones_like(batch[0])
        return {
            "vmap(grad)": func.vmap(func.grad(total))(batch),
            "jvp": func.jvp(total, (first,), (direction,))[1],
            "jvp(grad)": func.jvp(func.grad(total), (first,), (direction,))[1],
            "jacrev(grad)": func.jacrev(func.grad(total))(first),
        }

    batch = torch.stack([x, 2 * x, -x])
    expected = derivatives(batch)
    torch.compiler.reset()
    inside = torch.compile(derivatives, fullgraph=True, backend="aot_eager")(batch)
    around = derivatives(batch, torch.compile(total, backend="aot_eager"))
    for got in (inside, around):
        torch.testing.assert_close(got, expected)


def test_checkpoint(torch, function, logits):
    from torch.utils.checkpoint import checkpoint

    (expected,) = torch.autograd.grad(function(logits).sum(), logits)
    (got,) = torch.autograd.grad(checkpoint(function, logits, use_reentrant=False).sum(), logits)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("device", ["meta", "fake"])
def test_shapes_without_values(torch, device):
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode() if device == "fake" else torch.device("meta"):
        x, y = torch.empty(8, 10, dtype=torch.bfloat16), torch.empty(8, dtype=torch.long)
        x.requires_grad_()
        rows = softmaxkit.cross_entropy(x, y, reduction="none", label_smoothing=0.1)
        rows.sum().backward()
        assert (rows.shape, rows.dtype, rows.device) == ((8,), x.dtype, x.device)
        assert (x.grad.shape, x.grad.dtype) == (x.shape, x.dtype)
        assert softmaxkit.softmax(x, where=y[:, None] > 0).shape == x.shape


def test_autocast_gives_float32_as_torch_does(torch):
    x, y = torch.randn(8, 10, dtype=torch.bfloat16), torch.zeros(8, dtype=torch.long)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, theirs = softmaxkit.cross_entropy(x, y), torch.nn.functional.cross_entropy(x, y)
    assert got.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(got, theirs)
    assert softmaxkit.cross_entropy(x, y).dtype == torch.bfloat16


def compile_counter(torch):
    """Return a backend for torch.compile that counts the graphs, and runs them as they are."""
    from torch._dynamo.testing import CompileCounter

    torch.compiler.reset()
    return CompileCounter()


@pytest.mark.parametrize("call", ["cross_entropy", "focal_loss"])
def test_one_graph_for_every_batch_size(torch, call):
    counter = compile_counter(torch)
    loss = getattr(softmaxkit, call)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend=counter)
    for rows in (4, 7, 12):
        x, y = torch.randn(rows, 5), torch.randint(5, (rows,))
        torch.testing.assert_close(compiled(x, y), loss(x, y))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    "function", [name for name in CALLS if not name.startswith("focal_loss, ")], indirect=True
)
def test_compiled_backward_of_any_batch_size(torch, function, logits):
    """Of one size, compiled, the conformance suite runs each call."""
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=True, backend="aot_eager")
    got, expected = compiled(logits), function(logits)
    torch.testing.assert_close(got, expected)
    for each in (got, expected):
        each.sum().backward()
    torch.testing.assert_close(
        logits.grad / 2, torch.autograd.grad(function(logits).sum(), logits)[0]
    )


def test_two_calls_in_one_graph_of_any_batch_size(torch):
    """Dynamo made a number of its own of a default argument, and could not share it."""
    y = torch.arange(6) % 5

    def both(x):
        return softmaxkit.cross_entropy(x, y) + softmaxkit.log_softmax(x).sum()

    compiled = torch.compile(both, fullgraph=True, dynamic=True, backend="aot_eager")
    x, other = (torch.linspace(-1, 1, 30).reshape(6, 5).requires_grad_() for _ in range(2))
    compiled(x).backward()
    both(other).backward()
    torch.testing.assert_close(x.grad, other.grad)


def test_export(torch):
    class Model(torch.nn.Module):
        def forward(self, x, y):
            return softmaxkit.cross_entropy(x, y, label_smoothing=0.1), softmaxkit.softmax(x, 0)

    x, y = torch.randn(4, 5), torch.randint(5, (4,))
    rows = torch.export.Dim("rows", min=2)
    exported = torch.export.export(Model(), (x, y), dynamic_shapes=({0: rows}, {0: rows}))
    x, y = torch.randn(9, 5), torch.randint(5, (9,))
    torch.testing.assert_close(exported.module()(x, y), Model()(x, y))


@pytest.mark.parametrize("rows", [4, 400])
def test_recorded_operations_serve_other_shapes(torch, monkeypatch, rows):
    """Neither values nor the number of blocks are written down as constants."""
    monkeypatch.setattr("softmaxkit.backends.torch.memory.BLOCK_ELEMENTS", 100)
    monkeypatch.setattr("softmaxkit.backends.torch.rows.FEW_ELEMENTS", 100)

    def both(x):
        return softmaxkit.log_softmax(x), softmaxkit.cross_entropy(x, x.softmax(-1))

    x, other = torch.randn(rows, 5), torch.randn(1000, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own: shapes are checked while tracing
        traced = torch.jit.trace(both, x, check_trace=False)
    recorded = torch.fx.experimental.proxy_tensor.make_fx(both)(x)
    for again in (traced, recorded):
        for values in (x, other) if again is traced else (x + 1,):
            torch.testing.assert_close(again(values), both(values))


def test_backward_keeps_no_more_than_a_gradient_needs(torch):
    """The logits, numbers of rows, and probabilities in the memory that the gradient will have."""
    x, y = torch.randn(64, 1000, requires_grad=True), torch.randint(1000, (64,))
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = softmaxkit.cross_entropy(x, y)
    assert kept.pop(x.untyped_storage().data_ptr()) == x.numel()
    value.backward()
    assert kept.pop(x.grad.untyped_storage().data_ptr()) == x.numel()
    assert max(kept.values()) <= 64


def test_gradients_after_the_first_are_the_same(torch):
    """The first is made in the memory of the probabilities, which others compute again."""
    rows, classes = torch.randn(64, 1000, requires_grad=True), torch.randint(1000, (64,))
    images = torch.randn(64, 3, 1, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(3, (64, 1))
    for loss, x, y in (
        (softmaxkit.cross_entropy, rows, classes),
        (softmaxkit.focal_loss, rows, classes),
        (softmaxkit.cross_entropy, images, labels),
    ):
        value = loss(x, y, axis=1)
        first, second = (
            torch.autograd.grad(value, x, factor, retain_graph=True)[0]
            for factor in (torch.tensor(1.0), torch.tensor(-2.0))
        )
        torch.testing.assert_close(second, -2 * first, rtol=0, atol=0)
        (recorded,) = torch.autograd.grad(value, x, create_graph=True)
        torch.testing.assert_close(recorded, first)


def test_threads_as_data_parallel_has_them(torch):
    from concurrent.futures import ThreadPoolExecutor

    x, y = torch.tensor(LOGITS).repeat(8, 1), torch.tensor([0, 2, 1, 1] * 8)

    def gradient(rows):
        leaf = x[rows].clone().requires_grad_()
        softmaxkit.cross_entropy(leaf, y[rows], reduction="sum").backward()
        return leaf.grad

    parts = [slice(i, i + 4) for i in range(0, 32, 4)]
    with ThreadPoolExecutor(4) as pool:
        got = torch.cat(list(pool.map(gradient, parts)))
    torch.testing.assert_close(got, gradient(slice(None)))


def test_any_number_of_threads_of_torch(torch):
    """The sessions of two workers leave torch one thread each: see noxfile.py."""
    x, y = torch.randn(1100, 1000), torch.arange(1100) % 1000
    before, results = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(
                (
                    softmaxkit.log_softmax(x),
                    *softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, y),
                    *softmaxkit.value_and_grad(softmaxkit.focal_loss)(x, y, label_smoothing=0.1),
                )
            )
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*results)


SHARDED = """
import tempfile, warnings
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import loss_parallel
import softmaxkit

CALLS = [("cross_entropy", {}), ("cross_entropy", {"label_smoothing": 0.1}),
         ("cross_entropy", {"weight": torch.arange(1.0, 9.0), "reduction": "none"}),
         ("focal_loss", {"where": torch.arange(8) != 6})]

def agree(rank, store):
    warnings.simplefilter("ignore")  # torch.distributed's own, of its settings
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 3, -100, 7, 2, 5])
    for name, options in CALLS:
        leaf = x.clone().requires_grad_()
        expected = getattr(softmaxkit, name)(leaf, y, **options)
        expected.sum().backward()
        for placement in (Shard(1), Shard(0)):
            for labels in (y, distribute_tensor(y, mesh, [Replicate()])):
                parts = distribute_tensor(x, mesh, [placement]).requires_grad_()
                with loss_parallel():
                    got = getattr(softmaxkit, name)(parts, labels, **options)
                    got.sum().backward()
                torch.testing.assert_close(got.full_tensor(), expected)
                torch.testing.assert_close(parts.grad.full_tensor(), leaf.grad)
                assert parts.grad.placements == (placement,)
    dist.destroy_process_group()

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            agree, (f"{folder}/store",), nprocs=2, start_method="fork"
        )
    print("agree")
"""


def test_dtensor_under_loss_parallel(torch, run_python):
    """Logits in two processes, by classes and by rows; labels beside them plain or replicated."""
    if not torch.distributed.is_available():
        pytest.skip("this build of torch has no torch.distributed")
    assert run_python(SHARDED).strip() == "agree"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gradient_of_log_softmax_is_rounded_once(torch, dtype):
    """Its two parts cancel: rounded each, they left 0.0156 of 0.0230 in bfloat16."""
    x = torch.linspace(-8, 8, 250).sin().mul(8).view(5, 10, 5).to(getattr(torch, dtype))
    cotangent = (torch.arange(250) % 7 - 3).view(x.shape)
    half, wide = x.requires_grad_(), x.detach().double().requires_grad_()
    for axis in range(3):
        got, expected = (
            torch.autograd.grad(softmaxkit.log_softmax(leaf, axis), leaf, cotangent.to(leaf.dtype))
            for leaf in (half, wide)
        )
        ulp = torch.finfo(x.dtype).eps
        torch.testing.assert_close(
            got[0].double(), expected[0], rtol=ulp, atol=1e-7
        )  # rounded once


@pytest.mark.parametrize("compiled", [False, True])
def test_gradient_by_probabilities_keeps_the_digits_of_a_saturated_row(torch, compiled):
    """It is -log p, of which max + log(sum), taken off as one, would leave 0 here."""
    x, q = torch.tensor([30.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    loss = softmaxkit.cross_entropy
    if compiled:
        torch.compiler.reset()
        loss = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(loss(x, q), q)
    expected = -torch.tensor(reference.log_softmax(x.numpy()))
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)  # float32: 8 ULP
