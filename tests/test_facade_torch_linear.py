"""softmaxkit.torch.linear_cross_entropy and its module against those of torch."""

import copy
import inspect
import pickle
from functools import partial
from importlib import import_module
from itertools import product

import pytest

import softmaxkit

EXACT = {"rtol": 0, "atol": 0, "equal_nan": True}
OWN = ("softcap", "chunk_size", "sample_weight", "where", "temperature", "z_loss")


@pytest.fixture
def ours(torch):
    if not hasattr(torch.nn.functional, "linear_cross_entropy"):
        pytest.skip("torch has linear_cross_entropy from 2.13 on")
    return import_module("softmaxkit.torch")


@pytest.fixture
def theirs(torch):
    return torch.nn.functional.linear_cross_entropy


@pytest.fixture
def computed(torch, ours, monkeypatch):
    """Return ours, which may not hand the work to torch."""

    def refuse(*args, **kwargs):
        raise AssertionError("left to torch")

    def call(*args, **kwargs):
        with monkeypatch.context() as patch:
            for name in ("linear_cross_entropy", "cross_entropy"):
                patch.setattr(torch.nn.functional, name, refuse)
            return ours.linear_cross_entropy(*args, **kwargs)

    return call


def call_of(torch, shape, kind, dtype=None):
    """Return input, linear_weight and target of a loss over 5 classes and these rows."""
    dtype = dtype or torch.float64
    torch.manual_seed(0)
    rows, positions = shape[:1], shape[1:]
    x = torch.randn(*rows, 3, dtype=dtype, requires_grad=True)
    weight = torch.randn(5, *positions, 3, dtype=dtype, requires_grad=True)
    if kind == "labels":
        return x, weight, torch.randint(5, shape)
    q = torch.rand(*rows, 5, *positions, dtype=dtype)
    return x, weight, (q / q.sum(min(len(shape), 1), keepdim=True)).requires_grad_()


SHAPES = [(), (7,), (7, 2), (7, 2, 3)]


def test_the_signature_is_torchs_and_then_our_own(ours, theirs):
    def bare(function):
        parameters = inspect.signature(function).parameters.values()
        return [(one.name, one.default, one.kind) for one in parameters]

    assert bare(ours.linear_cross_entropy)[: -len(OWN)] == bare(theirs)
    assert tuple(name for name, *_ in bare(ours.linear_cross_entropy)[-len(OWN) :]) == OWN
    core = inspect.signature(softmaxkit.linear_cross_entropy).parameters
    defaults = inspect.signature(ours.linear_cross_entropy).parameters
    assert all(defaults[name].default == core[name].default for name in OWN)
    constructors = ours.LinearCrossEntropyLoss, ours.LinearCrossEntropyLoss.__base__
    assert inspect.signature(constructors[0]) == inspect.signature(constructors[1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["labels", "probabilities"])
@pytest.mark.parametrize("biased", [False, True])
def test_values_and_gradients(torch, computed, theirs, shape, kind, biased, same):
    x, matrix, target = call_of(torch, shape, kind)
    leaves, bias, weights = [x, matrix], None, torch.rand(5, dtype=torch.float64) + 0.5
    if biased:
        bias = torch.randn(matrix.shape[:-1], dtype=torch.float64, requires_grad=True)
        leaves.append(bias)
    ignored = [None, -100, 1] if kind == "labels" else [None]
    if kind == "probabilities":
        leaves.append(target)
    for reduction, weight, smoothing, ignore_index, rows in product(
        ("none", "mean", "sum"), (None, weights), (0.0, 0.1), ignored, (None, 2)
    ):
        options = {
            "linear_bias": bias,
            "weight": weight,
            "reduction": reduction,
            "ignore_index": ignore_index,
            "label_smoothing": smoothing,
        }
        chunks = None if rows is None else torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
        got = computed(x, matrix, target, **options, options=chunks)
        same(got, theirs(x, matrix, target, **options), leaves, equal_nan=True)


def test_options_of_torch_say_how_large_a_chunk_is(torch, ours, monkeypatch):
    sizes = []

    def seen(*args, chunk_size, **options):
        sizes.append(chunk_size)
        return torch.tensor(0.0)

    monkeypatch.setattr(softmaxkit, "linear_cross_entropy", seen)
    call = partial(ours.linear_cross_entropy, *call_of(torch, (7,), "labels"))
    chunks = torch.nn.LinearCrossEntropyOptions
    call()
    call(options=chunks())
    call(options=chunks(batch_chunk_size=3))
    call(options=chunks(batch_chunk_size=3), chunk_size=4)
    assert sizes == [None, None, 3, 4]


def test_no_row_left_is_nan_as_in_torch(torch, computed, theirs, same):
    for shape in ((0,), (0, 2), (7,), (7, 2)):
        x, matrix, target = call_of(torch, shape, "labels")
        call = x, matrix, torch.full_like(target, -100)
        for reduction in ("none", "mean", "sum"):
            got = computed(*call, reduction=reduction)
            same(got, theirs(*call, reduction=reduction), [x, matrix], equal_nan=True)
            assert got.isnan().all() == (reduction == "mean" or got.numel() == 0)


def test_own_options_are_those_of_the_logits(torch, computed, same):
    x, matrix, target = call_of(torch, (7,), "labels")
    temperature = torch.rand(7, dtype=torch.float64) + 0.5
    options = {
        "z_loss": 0.1,
        "where": torch.tensor([True, True, True, True, False]),
        "label_smoothing": 0.1,
    }
    target = target.clamp(max=3)
    for beside in ({}, {"sample_weight": torch.rand(7, dtype=torch.float64)}):
        for reduction in ("none", "mean", "sum"):
            given = {**options, **beside, "reduction": reduction}
            got = computed(
                x, matrix, target, softcap=2.0, chunk_size=3, temperature=temperature, **given
            )
            given["temperature"] = temperature[:, None]
            logits = 2 * torch.tanh(x @ matrix.T / 2)
            same(got, softmaxkit.cross_entropy(logits, target, **given), [x, matrix])


def test_own_options_that_are_not_for_positions(torch, ours):
    call = call_of(torch, (7, 2), "labels")
    for name, value in (("softcap", 2.0), ("z_loss", 0.1), ("temperature", 2.0)):
        with pytest.raises(ValueError, match=r"weight_matrix has shape \(5, 2, 3\); expected"):
            ours.linear_cross_entropy(*call, **{name: value})
    ours.linear_cross_entropy(*call, chunk_size=2, temperature=1, z_loss=0)


def bad_calls(torch):
    x, matrix, y = torch.zeros(7, 3), torch.zeros(5, 3), torch.zeros(7, dtype=torch.int64)
    q = torch.full((7, 5), 0.2)
    yield (x[None], matrix, y), {}
    yield (x, matrix[0], y), {}
    yield (x[:, :2], matrix, y), {}
    yield (x[0], matrix[:, None], y), {}
    yield (x, matrix, q), {"ignore_index": -100}
    yield (x, matrix, q.long()), {}
    yield (x, matrix, q[:, :4]), {}
    yield (x, matrix, y[:6]), {}
    yield (x, matrix, y.int()), {}
    yield (x, matrix, y + 5), {}
    yield (x, matrix.double(), y), {}
    yield (x.long(), matrix, y), {}
    yield (x, matrix, y), {"linear_bias": torch.zeros(4)}
    yield (x, matrix, y), {"linear_bias": torch.zeros(5).double()}
    yield (x, matrix, y), {"weight": torch.zeros(4)}
    yield (x, matrix, y), {"weight": torch.zeros(5).double()}
    yield (x, matrix, y), {"label_smoothing": 1.5}
    yield (x, matrix, y), {"reduction": "most"}
    yield (x, matrix, y.tolist()), {}
    yield (x.numpy(), matrix, y), {}


def test_errors_are_torchs(torch, ours, theirs):
    def raised(function, call, options):
        with pytest.raises(Exception) as caught:  # noqa: PT011 (compared below)
            function(*call, **options)
        return caught.value

    for call, options in bad_calls(torch):
        expected, got = (raised(one, call, options) for one in (theirs, ours.linear_cross_entropy))
        assert type(got) is type(expected), options
        # A label out of range is softmaxkit's to refuse.
        of_label = str(got).startswith("linear_cross_entropy: targets[0] is 5; expected a class")
        assert str(got) == str(expected) or of_label, options
        assert got.__context__ is None


FLOATS = ("float16", "bfloat16", "float32", "float64")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_dtypes(torch, computed, theirs, dtype, autocast, shape):
    dtype = getattr(torch, dtype)
    for kind, reduction in product(("labels", "probabilities"), ("none", "mean", "sum")):
        call = call_of(torch, shape, kind, dtype)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            got = computed(*call, reduction=reduction)
            expected = theirs(*call, reduction=reduction)
        # For dtype and shape; torch rounds the logits to bfloat16, which moves the loss by 1 %.
        torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)


# --- the module -----------------------------------------------------------------------------------
MODULES = [
    {},
    {"bias": True, "label_smoothing": 0.1, "reduction": "sum"},
    {"out_features": (2,), "bias": True, "ignore_index": 1},
    {"reduction": "none", "weight": "of classes"},
]


@pytest.fixture(params=MODULES, ids=str)
def modules(request, torch, ours):
    """Return torch's module, and ours with its weights."""
    torch.manual_seed(0)
    options = dict(request.param)
    if "weight" in options:
        options["weight"] = torch.rand(5) + 0.5
    theirs = torch.nn.LinearCrossEntropyLoss(3, 5, **options)
    mine = ours.LinearCrossEntropyLoss(3, 5, **options)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, mine, (torch.randn(7, 3), torch.randint(5, (7, *theirs.out_features)))


def test_a_module_has_the_weights_of_torchs(torch, modules, same):
    theirs, mine, call = modules
    assert isinstance(mine, torch.nn.LinearCrossEntropyLoss)
    assert repr(mine) == repr(theirs)
    for one in (mine, copy.deepcopy(mine), pickle.loads(pickle.dumps(mine))):
        same(one(*call), theirs(*call))
        for loss in (one(*call), theirs(*call)):
            loss.sum().backward()
        for got, expected in zip(one.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(got.grad, expected.grad)
            got.grad = expected.grad = None


def test_a_compiled_module(torch, modules):
    _, mine, (x, target) = modules
    torch.compiler.reset()
    compiled = torch.compile(mine, fullgraph=True, backend="aot_eager")
    found = []
    for one in (compiled, mine):
        leaf = x.clone().requires_grad_()
        loss = one(leaf, target)
        found.append((loss, torch.autograd.grad(loss.sum(), [leaf, *mine.parameters()])))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("kind", "reduction", "lengths"),
    [("labels", "none", (10, 3, 1, 0)), ("probabilities", "mean", (10, 7))],
)
def test_compiled_for_any_number_of_rows(torch, ours, kind, reduction, lengths):
    torch.compiler.reset()
    loss = partial(ours.linear_cross_entropy, chunk_size=4, reduction=reduction)
    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    x, matrix, target = call_of(torch, (10,), kind)
    for rows in lengths:
        found, some = [], x[:rows].detach().requires_grad_()
        for one in (compiled, loss):
            value = one(some, matrix, target[:rows].detach())
            found.append((value, *torch.autograd.grad(value.sum(), (some, matrix))))
        torch.testing.assert_close(*found, equal_nan=True)


def test_symbolic_trace_records_one_call(torch, ours, modules):
    _, mine, call = modules
    traced = torch.fx.symbolic_trace(mine)
    torch.testing.assert_close(traced(*call), mine(*call), **EXACT)
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert targets == [ours.linear_cross_entropy]


def test_a_graph_may_be_kept_whatever_torchs_options_say(torch, ours):
    chunks = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2)
    module = ours.LinearCrossEntropyLoss(3, 5, options=chunks)
    loss = module(torch.randn(7, 3), torch.randint(5, (7,)))
    first, second = (
        torch.autograd.grad(loss, module.linear.weight, retain_graph=True)[0] for _ in range(2)
    )
    torch.testing.assert_close(first, second, **EXACT)
