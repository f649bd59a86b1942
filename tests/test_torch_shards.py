"""PyTorch: classes in shards, one for each of several processes."""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What a program begins with, and how it starts `run(rank)` in several processes.
HEAD = """
import os, tempfile, warnings
from datetime import timedelta
from functools import partial
import numpy as np, torch, torch.distributed as dist
import shards, softmaxkit
from softmaxkit.torch import vocab_parallel_cross_entropy, vocab_parallel_linear_cross_entropy

# What each all-reduce sends, in elements.
SENT = []
all_reduce = dist.all_reduce

def counted(x, *args):
    SENT.append(x.numel())
    return all_reduce(x, *args)

dist.all_reduce = counted

def leaf(value, dtype=torch.float64):
    value = torch.as_tensor(value).detach().clone()
    return value.to(dtype).requires_grad_() if value.is_floating_point() else value

def cut(value, part, axis=-1):
    return value.narrow(axis, part.start, part.stop - part.start)

def say(*words):
    os.write(1, f"{' '.join(map(str, words))}\\n".encode())  # whole lines, from any process

def begin(rank, folder, world, run):
    warnings.simplefilter("ignore")  # torch's own, of single-threaded autograd and of its settings
    meeting = f"file://{folder}/{world}"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    sizes = shards.SIZES[world]
    start = sum(sizes[:rank])
    run(rank, slice(start, start + sizes[rank]))
    if dist.is_initialized():
        dist.destroy_process_group()

def start(world, run):
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(
            begin, (folder, world, run), nprocs=world, start_method="fork"
        )
"""

EQUAL = """
def given(case, dtype, part):
    targets, options = shards.beside(case, dtype)
    wide = torch.float64 if dtype == "float64" else torch.float32
    options = {
        name: torch.from_numpy(one).to(wide if one.dtype.kind == "f" else torch.bool)
        if isinstance(one, np.ndarray) else one
        for name, one in options.items()
    }
    if "where" in options:
        options["where"] = cut(options["where"], part)
    targets = torch.from_numpy(targets)
    return cut(targets.to(wide), part) if targets.is_floating_point() else targets, options

def run(rank, part):
    for dtype in ("float32", "float64", "bfloat16"):
        kind = getattr(torch, dtype)
        axis = 0 if dtype == "float64" else -1  # of the classes
        for case in shards.CASES:
            targets, options = given(case, dtype, part)
            x = leaf(cut(torch.from_numpy(shards.X), part), kind)
            options = shards.of_logits(options)
            if "where" in options:
                options["where"] = options["where"].expand(x.shape)
            for name in {"where", "temperature"} & set(options):
                options[name] = turned(options[name], axis)
            value = vocab_parallel_cross_entropy(
                turned(x, axis), turned(targets, axis), axis=axis, **options
            )
            value.sum().backward()
            check(rank, case, dtype, value, [(x.grad, 1)], shards.check)
        for case in shards.LINEAR:
            targets, options = given(case, dtype, part)
            hidden = leaf(shards.HIDDEN, kind)
            matrix, bias = (leaf(one[part], kind) for one in (shards.MATRIX, shards.BIAS))
            value = vocab_parallel_linear_cross_entropy(
                hidden, matrix, targets, bias=bias, chunk_size=5, **options
            )
            value.sum().backward()
            gradients = [(hidden.grad, None), (matrix.grad, 0), (bias.grad, 0)]
            check(rank, case, dtype, value, gradients, shards.check_linear)

def turned(value, axis):
    is_of_logits = isinstance(value, torch.Tensor) and value.ndim == 2
    return value.movedim(1, axis) if is_of_logits else value

def check(rank, case, dtype, value, gradients, compare):
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, value.tolist())
    assert all(one == every[0] for one in every), (case, dtype, every)
    gradients = [whole(one, axis) for one, axis in gradients]
    assert value.dtype is getattr(torch, dtype)
    if rank == 0:
        one = len(gradients) == 1
        compare(case, dtype, numbers(value), gradients[0] if one else gradients)

def whole(gradient, axis):
    if axis is None:
        return numbers(gradient)
    sizes = shards.SIZES[dist.get_world_size()]
    padded = torch.zeros(*gradient.shape[:axis], max(sizes), *gradient.shape[axis + 1:])
    padded = padded.double()
    padded.narrow(axis, 0, gradient.shape[axis]).copy_(gradient)
    every = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(every, padded)
    pairs = zip(every, sizes)
    return numbers(torch.cat([one.narrow(axis, 0, size) for one, size in pairs], axis))

def numbers(value):
    return value.detach().double().numpy()

if __name__ == "__main__":
    for world in shards.SIZES:
        start(world, run)
        print(world)
"""


TRAINED = """
# Every argument trains, one that all processes have, too; then second derivatives.
def trained(given, soft, cut_weight, part, axis):
    options = {name: leaf(one) for name, one in given.items()}
    if cut_weight:
        options["weight"] = leaf(given["weight"][part])
    x, q = (leaf(cut(torch.from_numpy(one), part)) for one in (shards.X, shards.PROBABILITIES))
    turned = {"temperature": options["temperature"].movedim(1, axis)}
    targets = q.movedim(1, axis) if soft else torch.from_numpy(shards.LABELS)
    del SENT[:]
    value = vocab_parallel_cross_entropy(
        x.movedim(1, axis), targets, axis=axis, normalizer="weight", **(options | turned)
    )
    forward = len(SENT)
    value.backward()
    say(forward, len(SENT) - forward)
    return value, x.grad, q.grad, options

def run(rank, part):
    given = {
        "weight": shards.WEIGHT, "sample_weight": shards.SAMPLE_WEIGHT,
        "label_smoothing": np.array(0.2), "z_loss": np.array(0.3),
        "temperature": shards.TEMPERATURE[:, None],
    }
    for soft in (False, True):
        options = {name: leaf(one) for name, one in given.items()}
        x, q = leaf(shards.X), leaf(shards.PROBABILITIES)
        targets = q if soft else torch.from_numpy(shards.LABELS)
        want = softmaxkit.cross_entropy(x, targets, normalizer="weight", **options)
        want.backward()
        for cut_weight, axis in ((False, 1), (True, 0)):
            value, by_x, by_q, by_options = trained(given, soft, cut_weight, part, axis)
            near(value, want)
            near(by_x, cut(x.grad, part))
            if soft:
                near(by_q, cut(q.grad, part))
            for name, one in options.items():
                here = one.grad[part] if cut_weight and name == "weight" else one.grad
                near(by_options[name].grad, here)
    for options in ({}, {"label_smoothing": 0.1, "weight": torch.from_numpy(shards.WEIGHT)},
                    {"z_loss": 0.2, "temperature": 2.0}):
        for targets in (torch.from_numpy(shards.LABELS[3:]),
                        torch.from_numpy(shards.PROBABILITIES[3:])):
            twice(part, targets, options)
    say("agree")

def twice(part, targets, options):
    here = cut(targets, part) if targets.is_floating_point() else targets
    x, c = torch.from_numpy(shards.X[3:]), torch.arange(shards.CLASSES) * 0.1
    of, sharded = leaf(x), leaf(cut(x, part))
    # The first gradients depend on the weights, too, also through the class with p > 1/2.
    whole, trained = [
        options | {name: leaf(one) for name, one in options.items() if name == "weight"}
        for _ in range(2)
    ]
    got = vocab_parallel_cross_entropy(sharded, here, **trained)
    second(softmaxkit.cross_entropy(of, targets, **whole), [of], [c])
    second(got, [sharded], [cut(c, part)])
    near(sharded.grad, cut(of.grad, part))
    if "weight" in options:
        near(trained["weight"].grad, whole["weight"].grad)
    given = torch.from_numpy(shards.HIDDEN[3:]), torch.from_numpy(shards.MATRIX)
    of, sharded = [leaf(one) for one in given], [leaf(given[0]), leaf(given[1][part])]
    second(softmaxkit.linear_cross_entropy(*of, targets, **options), of, [1.0, 1.0])
    got = vocab_parallel_linear_cross_entropy(*sharded, here, chunk_size=2, **options)
    second(got, sharded, [1.0, 1.0])
    near(sharded[0].grad, of[0].grad)
    near(sharded[1].grad, of[1].grad[part])

def second(loss, leaves, factors):
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    pairs = zip(gradients, factors)
    sum((one * one * factor + one * factor).sum() for one, factor in pairs).backward()

def near(got, want):
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)

if __name__ == "__main__":
    start(3, run)
"""

PROGRAMS = """
def run(rank, part, world=2):
    # What a call sends for each row: (rows, classes of a shard) -> (all-reduces, numbers).
    for rows, classes in ((1000, 16), (1000, 512)):
        x = torch.randn(rows, classes, requires_grad=True)
        y = torch.randint(world * classes, (rows,), generator=torch.Generator().manual_seed(0))
        for options in ({}, {"label_smoothing": 0.1}, {"z_loss": 0.1, "temperature": 2.0}):
            del SENT[:]
            loss = vocab_parallel_cross_entropy(x, y, **options)
            forward = len(SENT), (sum(SENT) - world) / rows
            loss.backward()
            first(rank, *forward, len(SENT) - forward[0])
        hidden = torch.randn(rows, 8, requires_grad=True)
        del SENT[:]
        loss = vocab_parallel_linear_cross_entropy(hidden, x[:, :8].T.new_ones(classes, 8), y)
        forward = len(SENT), (sum(SENT) - world) / rows
        loss.backward()
        first(rank, *forward, len(SENT) - forward[0])
    # NaN in a shard of a row stays in the row.
    x = torch.zeros(3, 4)
    if rank == 1:
        x[1, 2] = torch.nan
    x.requires_grad_()
    losses = vocab_parallel_cross_entropy(x, torch.tensor([0, 1, 7]), reduction="none")
    losses.sum().backward()
    of_rows = x.grad.isnan()
    first(rank, losses.isnan().tolist(), of_rows.all(1).tolist(), of_rows.any(1).tolist())
    ignored = torch.tensor([0, -100, 7])
    (gradient,) = torch.autograd.grad(vocab_parallel_cross_entropy(x, ignored), x)
    first(rank, gradient[1].tolist(), bool(gradient.isfinite().all()))
    # No tensor is larger than the shard.
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for one in tree_leaves(out):
                if isinstance(one, torch.Tensor):
                    self.size = max(self.size, one.numel())
            return out

    x, y = torch.randn(64, 100, requires_grad=True), torch.arange(64) * 3
    with Largest() as mode:
        mode.size = 0
        vocab_parallel_cross_entropy(x, y, label_smoothing=0.1).backward()
    first(rank, "largest", mode.size == x.numel())
    # torch.compile, in one graph.
    dist.all_reduce = all_reduce
    loss = torch.compile(vocab_parallel_cross_entropy, fullgraph=True)
    (want,) = torch.autograd.grad(vocab_parallel_cross_entropy(x, y, z_loss=0.1), x)
    (got,) = torch.autograd.grad(loss(x, y, z_loss=0.1), x)
    torch.testing.assert_close(got, want)
    first(rank, "compiled")
    # Autocast: the loss of half-precision logits is float32, products are in half precision.
    with torch.autocast("cpu", torch.bfloat16):
        half = vocab_parallel_cross_entropy(x.bfloat16(), y)
        linear = vocab_parallel_linear_cross_entropy(x[:, :8], torch.ones(100, 8), y)
    first(rank, half.dtype, linear.dtype)
    # What is refused, in each process.
    for refused in (
        lambda: vocab_parallel_cross_entropy(x, y + 200),
        lambda: vocab_parallel_cross_entropy(x, y, weight=torch.ones(7)),
        lambda: vocab_parallel_cross_entropy(x, y, temperature=torch.ones(64, 100)),
        lambda: vocab_parallel_cross_entropy(x.detach().numpy(), y),
        lambda: vocab_parallel_linear_cross_entropy(x, torch.ones(100, 100), y, chunk_size=0),
    ):
        try:
            refused()
        except (IndexError, TypeError, ValueError) as error:
            first(rank, type(error).__name__, error)

def first(rank, *words):
    if rank == 0:
        say(*words)

if __name__ == "__main__":
    start(2, run)
"""

# What NVIDIA's Megatron-LM checks its own function with (tests/unit_tests/tensor_parallel and
# megatron/mpu/tests, test_cross_entropy), and the check that its issues 737 and 7464 ask for.
MEGATRON = """
def run(rank, part):
    # All labels are in the first of four shards.
    x, labels = torch.arange(8.0).repeat(16, 4), torch.arange(0, 32, 2)
    losses = vocab_parallel_cross_entropy(x, labels, reduction="none")
    if rank == 0:
        say(" ".join(f"{one:.4f}" for one in losses[:5].tolist()))
    # A label in each shard, logits times 1000.
    generator = torch.Generator().manual_seed(1234)
    whole = 1000 * torch.randn(13, 11, 4 * 17, generator=generator)
    labels = torch.randint(4 * 17, (13, 11), generator=generator)
    assert set((labels // 17).unique().tolist()) == {0, 1, 2, 3}
    compare(rank, whole, labels, {})
    # Two processes, six positions, eight classes, smoothing, scales 1 and 1000.
    pair = dist.new_group([0, 1])
    if rank < 2:
        for scale in (1.0, 1000.0):
            whole = scale * torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
            labels = torch.tensor([0, 1, 3, 4, 6, 7])
            compare(rank, whole, labels, {"label_smoothing": 0.1}, pair)
    say("agree")

def compare(rank, whole, labels, options, group=None):
    from softmaxkit.conformance import reference
    from softmaxkit.conformance.tolerances import distance, limit

    classes = whole.shape[-1] // dist.get_world_size(group)
    part = slice(rank * classes, (rank + 1) * classes)
    x = leaf(cut(whole, part), torch.float32)
    loss = vocab_parallel_cross_entropy(x, labels, group=group, **options)
    loss.backward()
    exact = whole.double().numpy(), labels.numpy()
    want = reference.cross_entropy(*exact, **options)
    saturated = True, "float32"
    assert distance(loss.item(), want, "float32") <= limit("cross_entropy", "value", *saturated)
    want = reference.gradient("cross_entropy", *exact, **options)[..., part]
    terms = np.abs(reference.gradient_terms("cross_entropy", *exact, **options)[..., part])
    worst = distance(x.grad.numpy(), want, "float32", terms).max()
    assert worst <= limit("cross_entropy", "gradient", *saturated), worst

if __name__ == "__main__":
    start(4, run)
"""

FAILED = """
def run(rank, part):
    if rank == 1:
        os._exit(3)  # before its part of the loss
    try:
        vocab_parallel_cross_entropy(torch.zeros(2, 4), torch.tensor([0, 1]))
    except RuntimeError as error:
        say("RuntimeError" if str(error) else "nothing was said")
    os._exit(4)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        call = begin, (folder, 2, run)
        started = torch.multiprocessing.start_processes(
            *call, nprocs=2, join=False, start_method="fork"
        )
        for one in started.processes:
            one.join(90)
        say([one.exitcode for one in started.processes])
"""

MESH = """
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

R = Replicate()
# A mesh, and how the logits (4, 16, 3), whose classes are axis 1, lie on it.
LAYOUTS = [((4,), [Shard(1)]), ((2, 2), [Shard(0), Shard(1)]), ((2, 2), [Shard(1), Shard(1)]),
           ((2, 2), [R, Shard(1)]), ((2, 2), [Shard(1), Shard(2)])]
# The hidden states, and the matrix.
PRODUCTS = [((4,), [R], [Shard(0)]), ((2, 2), [Shard(0), R], [R, Shard(0)]),
            ((2, 2), [R, R], [Shard(0), Shard(0)]), ((4,), [Shard(0)], [Shard(0)])]

def run(rank, part):
    numbers = torch.Generator().manual_seed(0)
    random = partial(torch.randn, generator=numbers, dtype=torch.float64)
    x = random(4, 11, 3) * 3
    labels = torch.randint(11, (4, 3), generator=numbers)
    labels[0, 1] = -100
    q = torch.softmax(random(4, 11, 3), 1)
    weight, smoothing = random(11).exp(), torch.tensor(0.1, dtype=torch.float64)
    rows = random(4, 3).exp()
    calls = [
        ("softmax", None, {}), ("log_softmax", None, {"temperature": 2.0}),
        ("logsumexp", None, {}), ("softmax", None, {"where": torch.arange(3) != 1}),
        ("cross_entropy", labels, {}),
        ("cross_entropy", labels, {"label_smoothing": leaf(smoothing), "weight": leaf(weight)}),
        ("cross_entropy", q, {"weight": leaf(weight), "normalizer": "weight"}),
        ("cross_entropy", labels, {"temperature": leaf(rows[:, None]), "z_loss": 0.1,
                                   "sample_weight": leaf(rows)}),
        ("focal_loss", labels, {"label_smoothing": 0.1, "reduction": "none"}),
        ("focal_loss", q, {"alpha": leaf(weight)}),
        ("poly_loss_cross_entropy", labels, {"normalizer": "batch"}),
    ]
    for shape, placements in LAYOUTS:
        mesh = init_device_mesh("cpu", shape)
        for name, targets, options in calls:
            given = [x] if targets is None else [x, targets]
            placed = [placements if one.ndim == 3 else [R] * mesh.ndim for one in given]
            call = partial(getattr(softmaxkit, name), axis=1)
            compare(rank, mesh, call, given, placed, options, (name, shape, placements))
        for name in ("softmax", "log_softmax", "logsumexp"):
            twice(mesh, partial(getattr(softmaxkit, name), axis=1), x / 3, placements, name)
    hidden, matrix, bias = random(4, 3, 6), random(11, 6), random(11)
    q = q.movedim(1, 2)
    calls = [
        (labels, {}), (labels, {"softcap": 3.0, "label_smoothing": leaf(smoothing)}),
        (labels, {"weight": leaf(weight), "z_loss": 0.1, "bias": leaf(bias)}),
        (labels, {"sample_weight": leaf(rows), "reduction": "none"}),
        (labels, {"temperature": leaf(rows), "chunk_size": (None, 2), "normalizer": "batch"}),
        (labels, {"where": torch.arange(11) != 30 % 11, "label_smoothing": 0.1}),
        (q, {"label_smoothing": 0.1, "weight": weight, "normalizer": "weight"}),
    ]
    for shape, of_hidden, of_matrix in PRODUCTS:
        mesh = init_device_mesh("cpu", shape)
        for targets, options in calls:
            given, placed = [hidden, matrix, targets], [of_hidden, of_matrix, [R] * mesh.ndim]
            call = softmaxkit.linear_cross_entropy
            compare(rank, mesh, call, given, placed, options, ("linear", shape, of_hidden))

def compare(rank, mesh, call, given, placed, options, what):
    whole, options_of_whole = [leaf(one) for one in given], again(options)
    want = call(*whole, **options_of_whole)
    cotangent = torch.linspace(1, 2, want.numel(), dtype=want.dtype).reshape(want.shape)
    want.backward(cotangent)
    parts = [distribute_tensor(one, mesh, of) for one, of in zip(given, placed)]
    parts = [one.requires_grad_() if one.is_floating_point() else one for one in parts]
    options_of_parts = {
        name: distribute_tensor(one.detach(), mesh, [R] * mesh.ndim).requires_grad_()
        if isinstance(one, torch.Tensor) and one.requires_grad else one
        for name, one in options.items()
    }
    with CommDebugMode() as sent:
        got = call(*parts, **options_of_parts)
    counts = {str(name).rpartition(".")[2]: count for name, count in sent.get_comm_counts().items()}
    if rank == 0 and mesh.ndim == 1 and what[0] in ("cross_entropy", "softmax"):
        say(what[0], *options, counts)
    got.backward(distribute_tensor(cotangent, mesh, [R] * mesh.ndim))
    near(got.full_tensor(), want, what, "value")
    for one, other in zip(parts, whole):
        if one.requires_grad:
            near(one.grad.full_tensor(), other.grad, what, "gradient")
            assert one.grad.placements == one.placements, what
    for name, one in options_of_parts.items():
        if isinstance(one, DTensor):
            near(one.grad.full_tensor(), options_of_whole[name].grad, what, name)

def twice(mesh, call, x, placements, what):
    found = []
    for one in (leaf(x), distribute_tensor(x, mesh, placements).requires_grad_()):
        (gradient,) = torch.autograd.grad((call(one) ** 2).sum(), one, create_graph=True)
        (gradient**2).sum().backward()
        found.append(one.grad)
    near(found[1].full_tensor(), found[0], what, "second gradient")

def again(options):
    return {
        name: leaf(one) if isinstance(one, torch.Tensor) and one.requires_grad else one
        for name, one in options.items()
    }

def near(got, want, *what):
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11, msg=lambda text: f"{what} {text}")

if __name__ == "__main__":
    start(4, run)
"""


# Tensors without values: what is read, or waited for, is an error.
META = """
from torch.testing._internal.distributed.fake_pg import FakeStore

dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=4)
x = torch.empty(8, 100, device="meta", dtype=torch.bfloat16, requires_grad=True)
labels = torch.empty(8, dtype=torch.int64, device="meta")
for options in (
    {}, {"label_smoothing": 0.1, "weight": torch.empty(400, device="meta")},
    {"where": torch.empty(8, 100, dtype=torch.bool, device="meta"), "label_smoothing": 0.1},
    {"temperature": 2.0, "z_loss": 0.1, "weight": torch.empty(100, device="meta")},
):
    loss = vocab_parallel_cross_entropy(x, labels, **options)
    (gradient,) = torch.autograd.grad(loss, x)
    print(tuple(loss.shape), loss.device, gradient.dtype)
matrix = torch.empty(100, 16, device="meta", dtype=torch.bfloat16, requires_grad=True)
hidden = torch.empty(8, 16, device="meta", dtype=torch.bfloat16, requires_grad=True)
loss = vocab_parallel_linear_cross_entropy(hidden, matrix, labels, label_smoothing=0.1)
print([tuple(one.shape) for one in torch.autograd.grad(loss, (hidden, matrix))])
"""


def program(run_python, text):
    return run_python(HEAD + text, TESTS).splitlines()


@pytest.fixture(autouse=True)
def _distributed(torch):
    if not torch.distributed.is_available():
        pytest.skip("this build of torch has no torch.distributed")


def test_shards_give_what_whole_rows_give(run_python):
    """One to five, of different lengths and empty ones; every option; three dtypes."""
    assert program(run_python, EQUAL) == ["1", "2", "3", "4", "5"]


def test_every_argument_trains_and_trains_again(run_python):
    """The number of all-reduces forward and, one for each argument that all have, backward."""
    lines = program(run_python, TRAINED)
    assert sorted(set(lines)) == ["3 2", "3 3", "agree"]
    assert [lines.count(one) for one in ("3 3", "3 2", "agree")] == [6, 6, 3]


def test_what_is_sent_made_compiled_and_refused(run_python):
    sent = ["3 4.0 0", "3 5.0 0", "3 4.0 0", "3 4.0 1"]
    name = "vocab_parallel_cross_entropy"
    assert program(run_python, PROGRAMS) == [
        *(sent * 2),
        "[False, True, False] [False, True, False] [False, True, False]",
        "[0.0, 0.0, 0.0, 0.0] True",
        "largest True",
        "compiled",
        "torch.float32 torch.float32",
        f"IndexError {name}: targets[0] is 200; expected a class index in [0, 200) or ignore_index "
        "-100; correct the label, or mark the row with ignore_index.",
        f"ValueError {name}: weight has shape (7,); expected (200,) for all classes or (100,) for "
        "those of the shard; pass one number for every class.",
        f"ValueError {name}: temperature has shape (64, 100); expected one that broadcasts to the "
        "shape of the rows, (64, 1); reshape it.",
        f"TypeError {name}: logits_shard is a numpy.ndarray (NumPy); expected an array of PyTorch; "
        "convert it.",
        "ValueError vocab_parallel_linear_cross_entropy: chunk_size is 0; expected an int of at "
        "least 1; pass how many rows or classes exist at a time, or None.",
    ]


def test_megatrons_own_cases(run_python):
    first = "10.2309 8.2309 6.2309 4.2309 10.2309"
    assert sorted(program(run_python, MEGATRON)) == [first, *["agree"] * 4]


def test_a_failed_process_is_an_error_in_the_others(run_python):
    assert program(run_python, FAILED) == ["RuntimeError", "[4, 3]"]


def test_dtensors_on_a_mesh(run_python):
    """Two all-reduces of ours for a loss over sharded classes, whatever its options."""
    assert program(run_python, MESH) == [
        "softmax {'allreduce_': 2}",
        "softmax where {'allreduce_': 2}",
        "cross_entropy {'allreduce_': 2}",
        "cross_entropy label_smoothing weight {'allreduce_': 2}",
        # The others are torch's: of the weights that the mean divides by, and of the maxima.
        "cross_entropy weight normalizer {'allreduce_': 2, 'all_reduce': 2}",
        "cross_entropy temperature z_loss sample_weight {'all_reduce': 2, 'allreduce_': 2}",
    ]


def test_nothing_waits_for_a_device(run_python):
    assert program(run_python, META) == [
        *["() meta torch.bfloat16"] * 4,
        "[(8, 16), (100, 16)]",
    ]
