"""softmaxkit.torch against torch.nn.functional: values, gradients, dtypes, and where it differs."""

import doctest
import inspect
import warnings
from importlib import import_module
from itertools import product

import numpy as np
import pytest

from softmaxkit.conformance import reference

ACTIVATIONS = ("softmax", "log_softmax", "softmin")
LOSSES = ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits")
MODULES = ("Softmax", "LogSoftmax", "CrossEntropyLoss", "BCEWithLogitsLoss")
REDUCTIONS = ("none", "mean", "sum")
SHAPES = [(5,), (4, 5), (4, 5, 3), (2, 5, 3, 2)]  # the class axis is 1, or alone
EXACT = {"rtol": 0, "atol": 0, "equal_nan": True}


@pytest.fixture
def ours(torch):
    return import_module("softmaxkit.torch")


@pytest.fixture
def theirs(torch):
    return torch.nn.functional


@pytest.fixture
def computed(torch, ours, monkeypatch):
    """Return a call of ours that may not hand the work to torch."""

    def refuse(*args, **kwargs):
        raise AssertionError("left to torch")

    def call(name, *args, **kwargs):
        with monkeypatch.context() as patch:
            if name != "nll_loss":  # which is torch's own
                patch.setattr(torch.nn.functional, name, refuse, raising=False)
            return getattr(ours, name)(*args, **kwargs)

    return call


@pytest.fixture
def rng(torch):
    return torch.Generator().manual_seed(0)


# --- what is there --------------------------------------------------------------------------------
def test_names(ours):
    own = {"focal_loss", "sigmoid_focal_loss", "FocalLoss", "SigmoidFocalLoss", "functional", "nn"}
    own |= {"causal_lm_loss", "LabelSmoother", "linear_cross_entropy", "LinearCrossEntropyLoss"}
    own |= {"use_triton"}
    sharded = {"vocab_parallel_cross_entropy", "vocab_parallel_linear_cross_entropy"}
    assert set(ours.__all__) == {*ACTIVATIONS, *LOSSES, *MODULES} | own | sharded
    for part in (ours.functional, ours.nn):
        assert set(part.__all__) < set(ours.__all__)
        assert all(getattr(part, name) is getattr(ours, name) for name in part.__all__)


@pytest.mark.parametrize("name", ACTIVATIONS + LOSSES)
def test_signatures_are_torchs(ours, theirs, name):
    def bare(function):
        return [(one.name, one.default) for one in inspect.signature(function).parameters.values()]

    assert bare(getattr(ours, name)) == bare(getattr(theirs, name))


@pytest.mark.parametrize(
    "module", ["", "._activations", "._linear", "._losses", "._transformers", ".nn"]
)
def test_examples_in_docstrings_run(torch, module):
    result = doctest.testmod(import_module(f"softmaxkit.torch{module}"))
    assert result.failed == 0
    assert result.attempted >= 4


def test_importing_softmaxkit_does_not_import_the_facade(torch, run_python):
    show = "import sys; print(sorted({'torch', 'softmaxkit.torch'} & set(sys.modules)))"
    assert run_python(f"import softmaxkit; {show}").strip() == "[]"
    assert run_python(f"import softmaxkit.torch; {show}").strip() == "['softmaxkit.torch', 'torch']"


# --- activations ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (2, 3, 4), (2, 0), (2, 3, 2, 2)])
@pytest.mark.parametrize("dtype", [None, "float32", "float64"])
def test_activations(torch, ours, theirs, rng, name, shape, dtype, same):
    x = (3 * torch.randn(shape, generator=rng)).requires_grad_()
    dtype = dtype and getattr(torch, dtype)
    for dim in range(-max(len(shape), 1), max(len(shape), 1)):
        call = x, dim
        got = getattr(ours, name)(*call, dtype=dtype)
        same(got, getattr(theirs, name)(*call, dtype=dtype), [x])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_computed_here(torch, computed, rng, name):
    x = torch.randn(4, 5, generator=rng)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert computed(name, x.to(dtype), 1).dtype is dtype
        assert computed(name, x, -1, dtype=dtype).dtype is dtype
        assert computed(name, x.int(), 0, dtype=dtype).dtype is dtype


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("ndim", range(5))
def test_implicit_dim_warns_and_chooses_as_torch(torch, ours, theirs, name, ndim, same):
    x = torch.randn((3,) * ndim)
    results, messages = [], []
    for package in (ours, theirs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append(getattr(package, name)(x))
        messages.append([(str(one.message), one.category, one.filename) for one in caught])
    same(*results)
    assert messages[0] == messages[1]
    assert messages[0][0][2] == __file__


@pytest.mark.parametrize("name", ["Softmax", "LogSoftmax"])
def test_implicit_dim_of_modules(torch, ours, name, same):
    x = torch.randn(3, 4)
    with pytest.warns(UserWarning, match="Implicit dimension choice"):
        same(getattr(ours, name)()(x), getattr(torch.nn, name)(dim=1)(x))


def test_log_softmax_keeps_the_digits_that_torch_loses(torch, ours, theirs):
    x = torch.tensor([30.0, 0.0])
    assert theirs.log_softmax(x, 0)[0] == 0
    exact = torch.tensor(reference.log_softmax([30.0, 0.0])).float()
    torch.testing.assert_close(ours.log_softmax(x, 0), exact, rtol=1e-6, atol=0)  # float32: 8 ULP


# --- cross-entropy --------------------------------------------------------------------------------
def class_targets(torch, rng, kind, shape):
    classes = shape[1] if len(shape) > 1 else shape[0]
    rows = shape[:1] * (len(shape) > 1) + shape[2:]
    if kind == "probabilities":
        q = torch.rand(shape, generator=rng, dtype=torch.float64)
        return (q / q.sum(1 if len(shape) > 1 else 0, keepdim=True)).requires_grad_()
    return torch.randint(classes, rows, generator=rng)


@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(torch, computed, theirs, rng, kind, shape, weighted, same):
    x = (3 * torch.randn(shape, generator=rng, dtype=torch.float64)).requires_grad_()
    target = class_targets(torch, rng, kind, shape)
    leaves, ignored = [x], [-100, 1]
    weight = torch.rand(5, generator=rng, dtype=torch.float64) + 0.5 if weighted else None
    if kind == "probabilities":
        leaves, ignored = [x, target], [-100, -1]
        if weighted:
            leaves.append(weight.requires_grad_())
    for reduction, smoothing, ignore_index in product(REDUCTIONS, (0.0, 0.1, 1.0), ignored):
        options = {"label_smoothing": smoothing, "ignore_index": ignore_index}
        call = x, target, weight
        got = computed("cross_entropy", *call, reduction=reduction, **options)
        expected = theirs.cross_entropy(*call, reduction=reduction, **options)
        same(got, expected, leaves, equal_nan=True)  # where the only label is ignored


@pytest.mark.parametrize("shape", [(0, 5), (0, 5, 3), (4, 5, 0), (4, 5)])
@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_row_left_is_nan_as_in_torch(
    torch, computed, theirs, rng, shape, kind, weighted, smoothing, same
):
    """Empty batches, all labels ignored, and (4, 5) with probabilities for the rest of the rule."""
    x = torch.randn(shape, generator=rng).requires_grad_()
    target = class_targets(torch, rng, kind, shape)
    ignored = torch.full_like(target, -100)
    target = ignored if kind == "int64" else target.detach().float()
    weight = torch.rand(5, generator=rng) if weighted else None
    call = x, target, weight
    for reduction in REDUCTIONS:
        options = {"label_smoothing": smoothing, "reduction": reduction}
        got = computed("cross_entropy", *call, **options)
        expected = theirs.cross_entropy(*call, **options)
        same(got, expected, [x], equal_nan=True)
        nothing = kind == "int64" or x.numel() == 0
        assert got.isnan().any() == (nothing and reduction == "mean")


def test_weights_of_zero_are_nan_as_in_torch(torch, computed, theirs, same):
    x = torch.randn(4, 3).requires_grad_()
    call = x, torch.tensor([0, 1, 2, 1]), torch.zeros(3)
    got, expected = computed("cross_entropy", *call), theirs.cross_entropy(*call)
    assert expected.isnan()
    same(got, expected, [x], equal_nan=True)


def test_half_precision_mean_of_many_rows(torch, computed):
    """torch's is 0.0: 66,000 rows overflow its count."""
    x, y = torch.zeros(66_000, 2, dtype=torch.float16), torch.zeros(66_000, dtype=torch.long)
    for weight in (None, torch.ones(2, dtype=torch.float16)):
        got = computed("cross_entropy", x, y, weight)
        torch.testing.assert_close(got, torch.tensor(np.log(2)).half(), **EXACT)


# --- independent labels ---------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3), (2, 4, 0)])
@pytest.mark.parametrize("weight", [None, (), "classes", (4, 1), "whole"])
@pytest.mark.parametrize("pos_weight", [None, (), "classes", "whole"])
def test_binary_cross_entropy_with_logits(
    torch, computed, theirs, rng, shape, weight, pos_weight, same
):
    x = (3 * torch.randn(shape, generator=rng)).requires_grad_()
    target = torch.rand(shape, generator=rng).requires_grad_()
    shapes = {"classes": shape[-1:], "whole": shape}
    weight, pos_weight = (
        None if each is None else torch.rand(shapes.get(each, each), generator=rng) + 0.5
        for each in (weight, pos_weight)
    )
    name = "binary_cross_entropy_with_logits"
    for reduction in REDUCTIONS:
        options = {"weight": weight, "pos_weight": pos_weight, "reduction": reduction}
        got = computed(name, x, target, **options)
        same(got, getattr(theirs, name)(x, target, **options), [x, target], equal_nan=True)
        assert got.isnan().any() == (x.numel() == 0 and reduction == "mean")


def test_binary_cross_entropy_of_one_logit(torch, computed, theirs, same):
    x, t = torch.tensor(0.3, requires_grad=True), torch.tensor(0.8)
    name = "binary_cross_entropy_with_logits"
    same(computed(name, x, t), getattr(theirs, name)(x, t), [x])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("alpha", [0.25, -1, 0, 1.0])
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_sigmoid_focal_loss(torch, ours, rng, reduction, alpha, gamma):
    x = (5 * torch.randn(4, 3, generator=rng, dtype=torch.float64)).requires_grad_()
    t = torch.rand(4, 3, generator=rng, dtype=torch.float64)
    got = ours.sigmoid_focal_loss(x, t, alpha, gamma, reduction)
    arguments = x.detach().numpy(), t.numpy()
    options = {"alpha": None if alpha == -1 else alpha, "gamma": gamma, "reduction": reduction}
    expected = reference.sigmoid_focal_loss(*arguments, **options)
    torch.testing.assert_close(got, torch.tensor(expected))
    (gradient,) = torch.autograd.grad(got.sum(), x)
    expected = reference.gradient("sigmoid_focal_loss", *arguments, **options)
    torch.testing.assert_close(gradient, torch.tensor(expected))


def test_sigmoid_focal_loss_has_torchvisions_defaults_and_refusals(torch, ours, same):
    x, t = torch.randn(4, 3), torch.rand(4, 3)
    parameters = inspect.signature(ours.sigmoid_focal_loss).parameters.values()
    assert [(one.name, one.default) for one in parameters] == [
        ("inputs", inspect.Parameter.empty),
        ("targets", inspect.Parameter.empty),
        ("alpha", 0.25),
        ("gamma", 2),
        ("reduction", "none"),
    ]
    same(ours.sigmoid_focal_loss(x, t), ours.sigmoid_focal_loss(x, t, 0.25, 2, "none"))
    with pytest.raises(ValueError, match=r"Invalid alpha value: 2\. alpha must be in the range"):
        ours.sigmoid_focal_loss(x, t, alpha=2)
    with pytest.raises(ValueError, match="Invalid Value for arg 'reduction': 'most "):
        ours.sigmoid_focal_loss(x, t, reduction="most")
    with pytest.raises(ValueError, match="must be the same as input size"):
        ours.sigmoid_focal_loss(x, t[:2])
    with pytest.raises(RuntimeError, match="can't be cast"):
        ours.sigmoid_focal_loss(x, t.long())
    assert ours.sigmoid_focal_loss(x[:0], t[:0], reduction="mean").isnan()


# --- focal loss -----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["int64", "probabilities"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("alpha", [None, 0.25, "classes"])
def test_focal_loss(torch, ours, rng, kind, shape, alpha):
    x = (3 * torch.randn(shape, generator=rng, dtype=torch.float64)).requires_grad_()
    target = class_targets(torch, rng, kind, shape).detach()
    if alpha == "classes":
        alpha = torch.rand(5, generator=rng, dtype=torch.float64)
    arguments = x.detach().numpy(), target.numpy()
    for reduction, smoothing, gamma in product(REDUCTIONS, (0.0, 0.1), (0.5, 2.0)):
        options = {"label_smoothing": smoothing, "reduction": reduction}
        of_labels = not target.is_floating_point()
        options["ignore_index"] = 1 if len(shape) > 1 and of_labels else -100
        got = ours.focal_loss(x, target, alpha, gamma, **options)
        options |= {"alpha": alpha, "gamma": gamma, "axis": 1 if len(shape) > 1 else 0}
        expected = reference.focal_loss(*arguments, **options)
        torch.testing.assert_close(got, torch.tensor(expected))
        (gradient,) = torch.autograd.grad(got.sum(), x)
        expected = reference.gradient("focal_loss", *arguments, **options)
        torch.testing.assert_close(gradient, torch.tensor(expected))


def test_focal_loss_of_nothing_is_nan(torch, ours):
    x = torch.randn(4, 3).requires_grad_()
    loss = ours.focal_loss(x, torch.full((4,), -100))
    assert loss.isnan()
    assert torch.autograd.grad(loss, x)[0].eq(0).all()
    assert ours.focal_loss(x[:0], torch.rand(0, 3)).isnan()


# --- dtypes ---------------------------------------------------------------------------------------
MIXED = list(product(("float16", "bfloat16", "float32", "float64"), repeat=2))


@pytest.mark.parametrize(("first", "second"), MIXED)
@pytest.mark.parametrize("autocast", [False, True])
def test_dtypes_of_results(torch, computed, theirs, first, second, autocast):
    first, second = (getattr(torch, name) for name in (first, second))
    x, q, w = torch.randn(4, 3).to(first), torch.rand(4, 3).to(second), torch.rand(3).to(second)
    y = torch.tensor([0, 2, 1, 1])
    calls = [
        ("cross_entropy", (x, y)),
        ("cross_entropy", (x, q)),
        ("cross_entropy", (x, x.softmax(1), w)),
        ("binary_cross_entropy_with_logits", (x, q)),
        ("binary_cross_entropy_with_logits", (x, x.sigmoid(), w)),
        *((name, (x, 1)) for name in ACTIVATIONS),
    ]
    half = {torch.float16, torch.bfloat16, torch.float32} >= {first, second}
    if first is second or (autocast and half):
        calls.append(("cross_entropy", (x, y, w)))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for (name, call), reduction in product(calls, REDUCTIONS):
            options = {} if name in ACTIVATIONS else {"reduction": reduction}
            got = computed(name, *call, **options)
            expected = getattr(theirs, name)(*call, **options)
            torch.testing.assert_close(got, expected, rtol=0.05, atol=0.05)  # dtype and shape


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_float64_rounded(torch, computed, theirs, dtype, rng):
    x = (3 * torch.randn(8, 5, generator=rng)).to(getattr(torch, dtype))
    y, q = torch.randint(5, (8,), generator=rng), torch.rand(8, 5, generator=rng).to(x.dtype)
    w = torch.rand(5, generator=rng).to(x.dtype)
    calls = [
        ("cross_entropy", (x, y, w)),
        ("cross_entropy", (x, q, w)),
        ("binary_cross_entropy_with_logits", (x, q, w)),
        ("log_softmax", (x, 1)),
        ("softmax", (x, 0)),
    ]
    for name, call in calls:
        wide = [each.double() if getattr(each, "dtype", None) is x.dtype else each for each in call]
        expected = getattr(theirs, name)(*wide).to(x.dtype)
        torch.testing.assert_close(computed(name, *call), expected)


# --- where ours is to differ ----------------------------------------------------------------------
def differences(torch):
    """Name -> ((a call, what its result or its gradient is here), what it is in torch)."""
    inf, nan = float("inf"), float("nan")
    x = torch.tensor([[2.0, 1.0, 0.0], [nan, 0.0, inf]])
    labels = torch.tensor([0, -100])
    yield "the gradient of an ignored row that holds NaN", (
        "cross_entropy", (x, labels), {"reduction": "sum"}, [0, 0, 0], "gradient", [nan] * 3
    )  # fmt: skip
    x = torch.tensor([[0.0, -inf]])
    yield "0 log 0 of probabilities", (
        "cross_entropy", (x, torch.tensor([[1.0, 0.0]])), {}, 0.0, "value", nan
    )  # fmt: skip
    x = torch.tensor([30.0, 0.0, 0.0])
    yield "the loss of a saturated row", (
        "cross_entropy", (x, torch.tensor(0)), {}, 1.8715246e-13, "value", 0.0
    )  # fmt: skip
    x = torch.tensor([nan, 0.0])
    yield "an element of weight 0 that holds NaN", (
        "binary_cross_entropy_with_logits",
        (x, torch.ones(2), torch.tensor([0.0, 1.0])), {"reduction": "sum"}, np.log(2), "value", nan
    )  # fmt: skip
    x = torch.tensor([1e5, 0.0])
    yield "dtype=float16 of logits that it cannot hold", (
        "softmax", (x, 0), {"dtype": torch.float16}, [1.0, 0.0], "value", [nan, nan]
    )  # fmt: skip


def test_differences(torch, computed, theirs):
    for name, (function, call, options, expected, what, in_torch) in differences(torch):
        leaf = call[0].requires_grad_()
        # B023: the lambda is called before `function` is another.
        for compute, wanted in (
            (lambda *args, **kwargs: computed(function, *args, **kwargs), expected),  # noqa: B023
            (getattr(theirs, function), in_torch),
        ):
            got = compute(*call, **options)
            if what == "gradient":
                got = torch.autograd.grad(got, leaf)[0][-1]
            wanted = torch.tensor(wanted, dtype=got.dtype)
            # Float32: 8 ULP.
            torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0, equal_nan=True, msg=name)
