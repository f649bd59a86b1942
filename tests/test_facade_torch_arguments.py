"""What softmaxkit.torch refuses, or leaves to torch, and in whose words: torch's."""

import warnings
from importlib import import_module

import numpy as np
import pytest

ACTIVATIONS = ("softmax", "log_softmax", "softmin")
LOSSES = ("cross_entropy", "nll_loss", "binary_cross_entropy_with_logits")


@pytest.fixture
def ours(torch):
    return import_module("softmaxkit.torch")


@pytest.fixture
def theirs(torch):
    return torch.nn.functional


# --- errors ---------------------------------------------------------------------------------------
def bad_calls(torch):
    x, q, t = torch.zeros(4, 3), torch.full((4, 3), 1 / 3), torch.zeros(4, 3)
    y, w = torch.tensor([0, 2, 1, 1]), torch.ones(3)
    leaf = torch.ones(3, requires_grad=True)
    for name in ACTIVATIONS:
        yield name, (x, 5), {}
        yield name, (x[0, 0], 1), {}
        yield name, (x, (0, 1)), {}
        yield name, (x, 1.0), {}
        yield name, (x, True), {}
        yield name, (x, 0), {"dtype": "float32"}
        yield name, (x, 0), {"dtype": torch.int32}
        yield name, (x, 0), {"dtype": torch.float8_e5m2}
        yield name, (y, 0), {}
        yield name, (y, 0), {"dtype": int}
        yield name, (y > 0, 0), {}
        yield name, (x.to(torch.complex64), 0), {}
        yield name, (x.to(torch.float8_e5m2), 0), {}
        yield name, (x.to_sparse(), 1), {}
        yield name, ([1.0, 2.0], 0), {}
        yield name, ([1.0, 2.0],), {}
        yield name, (x.numpy(), 0), {}
        yield name, (), {}
    for name in ("cross_entropy", "nll_loss"):
        yield name, (x, torch.tensor([0, 5, 1, 1])), {}
        yield name, (x, torch.tensor([0, -1, 1, 1])), {}
        yield name, (x[0], torch.tensor(3)), {}
        yield name, (x[0, 0], y[0]), {}
        yield name, (x, y[:3]), {}
        yield name, (x, y.view(2, 2)), {}
        yield name, (x, y.int()), {}
        yield name, (x.view(2, 3, 2), y.view(2, 2).to(torch.uint8)), {}
        yield name, (x, y > 0), {}
        yield name, (x, y.tolist()), {}
        yield name, (x, y.numpy()), {}
        yield name, (x, None), {}
        yield name, (x.numpy(), y), {}
        yield name, (x.long(), y), {}
        yield name, (x.to(torch.complex64), y), {}
        yield name, (x.to(torch.float8_e5m2), y), {}
        yield name, (x[:, :0], y), {}
        yield name, (x, y, torch.ones(4)), {}
        yield name, (x, y, torch.ones(1, 3)), {}
        yield name, (x, y, w.double()), {}
        yield name, (x, y, w.long()), {}
        yield name, (x, y, [1.0, 2.0, 5.0]), {}
        yield name, (x.clone().requires_grad_(), y, leaf), {}
        yield name, (x, y), {"reduction": "most"}
        yield name, (x, y), {"reduction": None}
        yield name, (x, y), {"ignore_index": None}
        yield name, (x, y), {"ignore_index": 1.0}
        yield name, (x, y), {"ignore_index": True}
        yield name, (x,), {}
    yield "cross_entropy", (x, y.to("meta")), {}
    yield "cross_entropy", (x, t.long()), {}
    yield "cross_entropy", (x, q[:2]), {}
    yield "cross_entropy", (x, q), {"ignore_index": 1}
    yield "cross_entropy", (x, q, torch.tensor(2.0)), {}
    yield "cross_entropy", (x, q, torch.ones(4)), {}
    for smoothing in (1.5, None, "0.1", np.array(0.1), torch.tensor(0.1, requires_grad=True)):
        yield "cross_entropy", (x, y), {"label_smoothing": smoothing}
    name = "binary_cross_entropy_with_logits"
    yield name, (x, t[:2]), {}
    yield name, (x, t.long()), {}
    yield name, (x, t > 0), {}
    yield name, (x, t.tolist()), {}
    yield name, (x, t.numpy()), {}
    yield name, (x.numpy(), t), {}
    yield name, (x, None), {}
    yield name, (x.long(), t), {}
    yield name, (x.to(torch.complex64), t), {}
    for factor in ("weight", "pos_weight"):
        yield name, (x, t), {factor: torch.ones(2)}
        yield name, (x, t), {factor: torch.ones(1, 4, 3)}
        yield name, (x, t), {factor: [1.0, 2.0, 5.0]}
        yield name, (x, t), {factor: 2.0}
        yield name, (x.clone().requires_grad_(), t), {factor: leaf}
    yield name, (x, t), {"pos_weight": w > 0}
    yield name, (x, t), {"reduction": "most"}


def raised(function, call, options):
    try:
        function(*call, **options)
    except Exception as problem:
        return problem
    return None


def test_errors_are_torchs(torch, ours, theirs):
    count = 0
    for name, call, options in bad_calls(torch):
        expected = raised(getattr(theirs, name), call, options)
        got = raised(getattr(ours, name), call, options)
        shown = f"{name}{tuple(type(each).__name__ for each in call)} {options}"
        assert expected is not None, shown
        assert type(got) is type(expected), shown
        # A label out of range is softmaxkit's to refuse.
        of_label = isinstance(got, IndexError) and str(got).startswith("cross_entropy: targets")
        assert str(got) == str(expected) or of_label, shown
        assert got.__context__ is None, shown
        count += 1
    assert count == 144


def test_what_softmaxkit_refuses_and_torch_takes_goes_to_torch(torch, ours, theirs):
    x, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    takes = [
        ("softmax", (x, torch.tensor(1)), {}),
        ("softmax", (x, 0), {"dtype": float}),
        ("softmax", (x[0, 0], 0), {}),
        ("cross_entropy", (x, y), {"label_smoothing": True}),
        ("cross_entropy", (x, y), {"label_smoothing": -0.1}),
        ("cross_entropy", (x, y), {"label_smoothing": torch.tensor(0.1)}),
        ("cross_entropy", (x, y), {"ignore_index": torch.tensor(1)}),
        ("cross_entropy", (x[:, :0], x[:, :0]), {}),
        ("cross_entropy", (x[0], y[:1]), {}),
        ("cross_entropy", (x, y.to(torch.uint8)), {}),
    ]
    for name, call, options in takes:
        got, expected = (getattr(each, name)(*call, **options) for each in (ours, theirs))
        torch.testing.assert_close(got, expected, equal_nan=True)


@pytest.mark.parametrize("kind", [TypeError, ValueError, IndexError])
def test_an_error_of_softmaxkits_own_comes_through(torch, ours, monkeypatch, kind):
    """Not torch's number in its place, which no one would know of."""

    def fails(*arguments, **options):
        raise kind("a kernel is wrong")

    monkeypatch.setattr("softmaxkit._losses.reduced", fails)
    monkeypatch.setattr("softmaxkit._activations.as_wide_as", fails)
    x, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    for name, *call in (
        ("softmax", x, 1),
        ("log_softmax", x, 1),
        ("softmin", x, 1),
        ("cross_entropy", x, y),
        ("focal_loss", x, y),
        ("binary_cross_entropy_with_logits", x, torch.rand(4, 3)),
        ("sigmoid_focal_loss", x, torch.rand(4, 3)),
    ):
        with pytest.raises(kind, match="a kernel is wrong"):
            getattr(ours, name)(*call)


# --- deprecated arguments -------------------------------------------------------------------------
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size_average", [None, False, True])
@pytest.mark.parametrize("reduce", [None, False, True])
def test_size_average_and_reduce(torch, ours, theirs, name, size_average, reduce, same):
    x = torch.randn(4, 3)
    target = torch.rand(4, 3) if name.startswith("binary") else torch.tensor([0, 2, 1, 1])
    options = {"size_average": size_average, "reduce": reduce, "reduction": "none"}
    results, messages = [], []
    for package in (ours, theirs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append(getattr(package, name)(x, target, **options))
        messages.append([(str(one.message), one.category) for one in caught])
    same(*results)
    assert messages[0] == messages[1]


def test_elementwise_mean(torch, ours, same):
    x, y = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    with pytest.warns(UserWarning, match="elementwise_mean"):
        got = ours.cross_entropy(x, y, reduction="elementwise_mean")
    same(got, ours.cross_entropy(x, y))
