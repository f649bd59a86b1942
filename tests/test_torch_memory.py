"""PyTorch: nothing that a call returns keeps its inputs alive in a reference cycle.

A cycle of a loss, its autograd node and what that node keeps would hold the logits of every step
until Python's collector runs. On a GPU that is soon out of memory.
"""

import gc
import weakref
from functools import partial
from itertools import product

import pytest

import softmaxkit

# Logits that are left to NumPy or to torch in float64, that make one block, and several.
SIZES = {"small": (6, 5), "one block": (170, 100), "many classes": (2, 9000), "blocks": (400, 100)}
# True stands for an array of ones.
COMMON = {
    "plain": {},
    "smoothing": {"label_smoothing": 0.1},
    "sample weights": {"sample_weight": True},
    "dtype": {"dtype": "float64"},
}
CLASSES = COMMON | {"mask": {"where": True}, "temperature": {"temperature": 2.0}}
CROSS_ENTROPY = CLASSES | {"class weights": {"weight": True}, "z-loss": {"z_loss": 0.1}}
FOCAL_LOSS = CLASSES | {"class weights": {"alpha": True}, "gamma 0": {"gamma": 0.0}}
IGNORED = {"ignored rows": {"ignore_index": 0}}
CALLS = {
    ("cross_entropy", "labels"): CROSS_ENTROPY | IGNORED,
    ("cross_entropy", "probabilities"): CROSS_ENTROPY,
    ("focal_loss", "labels"): FOCAL_LOSS | IGNORED,
    ("focal_loss", "probabilities"): FOCAL_LOSS,
    ("binary_cross_entropy", "probabilities"): COMMON | {"pos_weight": {"pos_weight": 2.0}},
    ("sigmoid_focal_loss", "probabilities"): (
        COMMON | {"alpha": {"alpha": 0.25}, "gamma 0": {"gamma": 0.0}}
    ),
}


@pytest.fixture(autouse=True)
def no_collector(torch, monkeypatch):
    """Have nothing freed but by the end of the last reference to it."""
    monkeypatch.setattr("softmaxkit.backends.torch.memory.BLOCK_ELEMENTS", 1 << 14)
    gc.disable()
    yield
    gc.enable()


def is_kept(torch, shape, call, trained):
    """Return whether the input of `call` is alive when what it returned is gone."""
    x = torch.randn(shape, requires_grad=True) * 1.0
    alive = weakref.ref(x)
    value = call(x)
    if trained:
        value.sum().backward()
    del value, x
    return alive() is not None


def ones(torch, operation, name, shape):
    if name == "where":
        return torch.ones(shape[1:], dtype=torch.bool)
    by_element = operation in ("binary_cross_entropy", "sigmoid_focal_loss")
    by_row = shape if by_element else shape[:1]
    return torch.ones(by_row if name == "sample_weight" else shape[1:])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("operation", "targets", "name"), [(*call, name) for call in CALLS for name in CALLS[call]]
)
def test_logits_of_a_loss_are_freed_with_its_value(torch, operation, targets, name, size):
    shape = SIZES[size]
    options = {
        option: ones(torch, operation, option, shape) if value is True else value
        for option, value in CALLS[operation, targets][name].items()
    }
    labels = targets == "labels"
    y = torch.arange(shape[0]) % shape[1] if labels else torch.rand(shape) / shape[1]
    loss = getattr(softmaxkit, operation)
    kept = [
        (reduction, trained)
        for reduction, trained in product(("none", "sum", "mean"), (False, True))
        if is_kept(torch, shape, partial(loss, targets=y, reduction=reduction, **options), trained)
    ]
    assert not kept


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
def test_input_of_an_activation_is_freed_with_its_value(torch, name, size):
    where = torch.ones(SIZES[size][1], dtype=torch.bool)
    for options, trained in product(({}, {"where": where}), (False, True)):
        activation = partial(getattr(softmaxkit, name), **options)
        assert not is_kept(torch, SIZES[size], activation, trained), (options, trained)


@pytest.mark.parametrize("size", SIZES)
def test_a_gradient_keeps_nothing(torch, size):
    rows, classes = SIZES[size]
    y, cotangent = torch.arange(rows) % classes, torch.ones(rows, classes)
    for call in (
        lambda x: softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, y),
        lambda x: softmaxkit.vjp(softmaxkit.log_softmax)(x, cotangent),
    ):
        assert not is_kept(torch, SIZES[size], call, trained=False)


@pytest.mark.parametrize("size", SIZES)
def test_rows_may_be_changed_in_place(torch, size):
    shape = SIZES[size]
    x, y = torch.randn(shape, requires_grad=True), torch.arange(shape[0]) % shape[1]
    rows = softmaxkit.cross_entropy(x, y, reduction="none")
    rows *= 2.0
    rows.sum().backward()
    total = softmaxkit.cross_entropy(x, y, reduction="sum")
    (expected,) = torch.autograd.grad(2.0 * total, x)
    torch.testing.assert_close(x.grad, expected)
