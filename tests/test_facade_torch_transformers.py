"""causal_lm_loss and LabelSmoother: what transformers computes, by torch.nn.functional on shifted
tensors; integrations/ compares them with transformers itself.
"""

import dataclasses
import inspect
import pickle
import re
from importlib import import_module

import pytest

V = 7
EXACT = {"rtol": 0, "atol": 0, "equal_nan": True}


@pytest.fixture
def ours(torch):
    return import_module("softmaxkit.torch")


@pytest.fixture
def batch(torch):
    """Return logits (2, 5, V) and labels, of which three are ignored."""
    rng = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 5, V, generator=rng)).requires_grad_()
    labels = torch.randint(V, (2, 5), generator=rng)
    labels[0, :2] = labels[1, 4] = -100
    return logits, labels


def shifted_loss(torch, logits, labels, **options):
    """Return cross-entropy of logits without the last place and labels without the first."""
    rows, targets = logits[..., :-1, :].float(), labels[..., 1:]
    return torch.nn.functional.cross_entropy(
        rows.reshape(-1, rows.shape[-1]), targets.reshape(-1), **options
    )


# --- causal_lm_loss -------------------------------------------------------------------------------
def test_arguments_are_those_of_transformers(ours):
    parameters = inspect.signature(ours.causal_lm_loss).parameters.values()
    assert [one.name for one in parameters] == [
        *("logits", "labels", "vocab_size", "num_items_in_batch", "ignore_index", "shift_labels"),
        "kwargs",
    ]
    assert [one.default for one in parameters][3:6] == [None, -100, None]
    fields = [(one.name, one.default) for one in dataclasses.fields(ours.LabelSmoother)]
    assert fields == [("epsilon", 0.1), ("ignore_index", -100)]


def test_labels_are_those_of_the_next_place(torch, ours, batch, same):
    logits, labels = batch
    same(ours.causal_lm_loss(logits, labels, V), shifted_loss(torch, logits, labels), [logits])
    one = logits[0], labels[0]
    same(ours.causal_lm_loss(*one, V), shifted_loss(torch, *one), [logits])
    four = logits.view(1, 2, 5, V), labels.view(1, 2, 5)
    same(ours.causal_lm_loss(*four, V), shifted_loss(torch, logits, labels), [logits])


def test_the_last_place_has_no_gradient(torch, ours, batch):
    logits, labels = batch
    (gradient,) = torch.autograd.grad(ours.causal_lm_loss(logits, labels, V), logits)
    assert (gradient[:, -1] == 0).all()
    assert (gradient[1, :3] != 0).all()


@pytest.mark.parametrize("kind", ["int", "float", "tensor", "int32", "one-element"])
def test_the_sum_is_divided_by_the_number_of_items(torch, ours, batch, same, kind):
    logits, labels = batch
    number = {
        "int": 11,
        "float": 11.0,
        "tensor": torch.tensor(11),
        "int32": torch.tensor(11, dtype=torch.int32),
        "one-element": torch.tensor([11]),  # what DataParallel makes of it
    }[kind]
    expected = shifted_loss(torch, logits, labels, reduction="sum") / number
    same(ours.causal_lm_loss(logits, labels, V, number), expected, [logits])


def test_batches_of_a_step_add_up_to_the_mean_of_all(torch, ours, batch, same):
    logits, labels = batch
    count = (labels[:, 1:] != -100).sum()
    parts = [ours.causal_lm_loss(logits[i : i + 1], labels[i : i + 1], V, count) for i in (0, 1)]
    same(sum(parts), ours.causal_lm_loss(logits, labels, V), [logits])


def test_labels_that_are_shifted_already(torch, ours, batch, same):
    logits, labels = batch
    other = torch.full_like(labels, 99)  # not read
    for given in (None, other):
        for shifted in (labels, labels.flatten(), labels.int()):
            got = ours.causal_lm_loss(logits, given, V, shift_labels=shifted)
            expected = torch.nn.functional.cross_entropy(logits.view(-1, V), labels.view(-1))
            same(got, expected, [logits])


def test_flat_labels_are_shifted_as_one_sequence(torch, ours, batch, same):
    logits, labels = batch
    expected = shifted_loss(torch, logits.view(10, V), labels.view(10))
    same(ours.causal_lm_loss(logits, labels.view(10), V), expected, [logits])


def test_another_ignore_index(torch, ours, batch, same):
    logits, labels = batch
    labels = labels.where(labels != -100, 2)
    expected = shifted_loss(torch, logits, labels, ignore_index=2)
    same(ours.causal_lm_loss(logits, labels, V, ignore_index=2), expected, [logits])
    # uint8 cannot hold -100, which the last place is given.
    got = ours.causal_lm_loss(logits, labels.to(torch.uint8), V)
    same(got, shifted_loss(torch, logits, labels), [logits])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_loss_is_float32_and_the_gradient_that_of_the_logits(torch, ours, batch, dtype):
    logits, labels = batch
    logits = logits.detach().to(getattr(torch, dtype)).requires_grad_()
    loss, expected = ours.causal_lm_loss(logits, labels, V), shifted_loss(torch, logits, labels)
    torch.testing.assert_close(loss, expected)
    assert loss.dtype is torch.float32
    (gradient,) = torch.autograd.grad(loss, logits)
    (other,) = torch.autograd.grad(expected, logits)
    assert gradient.dtype is logits.dtype
    # Rounded once from float32, as theirs is where it is cast back.
    torch.testing.assert_close(gradient, other, rtol=torch.finfo(logits.dtype).eps, atol=1e-7)


def test_of_half_precision_logits_nothing_but_themselves_is_kept(torch, ours):
    """transformers' upcast keeps them in float32 until the backward pass."""
    logits = torch.zeros(2, 64, 500, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.ones(2, 64, dtype=torch.int64)
    large = []

    def keep(tensor):
        if tensor.numel() >= logits.numel():
            large.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = ours.causal_lm_loss(logits, labels, 500)
    assert loss.item() == pytest.approx(float(torch.tensor(500.0).log()))
    assert large == [logits.untyped_storage().data_ptr()]


def test_all_ignored_is_nan_as_there(torch, ours, batch):
    logits, labels = batch
    none = torch.full_like(labels, -100)
    assert ours.causal_lm_loss(logits, none, V).isnan()
    assert ours.causal_lm_loss(logits, none, V, torch.tensor(0)).isnan()
    assert ours.causal_lm_loss(logits, none, V, 3).item() == 0  # a batch of a step that has others


def test_what_a_model_hands_on_is_not_used(torch, ours, batch, same):
    logits, labels = batch
    options = {"output_attentions": True, "cache_position": None}
    got = ours.causal_lm_loss(logits=logits, labels=labels, vocab_size=V, **options)
    same(got, ours.causal_lm_loss(logits, labels, V), **EXACT)


def test_causal_lm_loss_compiles(torch, ours, batch, same):
    logits, labels = batch
    torch.compiler.reset()

    def loss(logits, labels, number=None):
        return ours.causal_lm_loss(logits, labels, V, number)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True, backend="aot_eager")
    same(compiled(logits, labels), loss(logits, labels), [logits])
    number = torch.tensor(11)
    same(compiled(logits, labels, number), loss(logits, labels, number), [logits])


# --- LabelSmoother --------------------------------------------------------------------------------
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5, 1])
@pytest.mark.parametrize("kind", ["dict", "tuple"])
def test_label_smoother(torch, ours, batch, same, epsilon, kind):
    logits, labels = batch
    outputs = {"logits": logits} if kind == "dict" else (logits, None)
    smoother, options = ours.LabelSmoother(epsilon), {"label_smoothing": epsilon}
    for given in (labels, labels.unsqueeze(-1)):
        rows = logits.view(-1, V), labels.view(-1)
        same(
            smoother(outputs, given), torch.nn.functional.cross_entropy(*rows, **options), [logits]
        )
        expected = shifted_loss(torch, logits, labels, **options)
        same(smoother(outputs, given, shift_labels=True), expected, [logits])
    for number in (11, torch.tensor(11)):
        expected = shifted_loss(torch, logits, labels, reduction="sum", **options) / 11
        same(smoother(outputs, labels, True, num_items_in_batch=number), expected, [logits])


def test_label_smoother_ignores_what_it_is_told(torch, ours, batch, same):
    logits, labels = batch
    labels = labels.where(labels != -100, 2)
    smoother = ours.LabelSmoother(epsilon=0.2, ignore_index=2)
    options = {"label_smoothing": 0.2, "ignore_index": 2}
    expected = shifted_loss(torch, logits, labels, **options)
    same(smoother({"logits": logits}, labels, shift_labels=True), expected, [logits])
    assert smoother({"logits": logits}, torch.full_like(labels, 2)).isnan()


@pytest.mark.parametrize(
    ("dtype", "result"),
    [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")],
)
def test_dtype_of_the_label_smoother(torch, ours, batch, dtype, result):
    logits, labels = batch
    logits = logits.detach().to(getattr(torch, dtype))
    loss = ours.LabelSmoother()({"logits": logits}, labels)
    expected = torch.nn.functional.cross_entropy(
        logits.double().view(-1, V), labels.view(-1), label_smoothing=0.1
    )
    torch.testing.assert_close(loss, expected.to(getattr(torch, result)))


def test_label_smoother_is_data(ours):
    smoother = ours.LabelSmoother(0.2)
    assert smoother == ours.LabelSmoother(epsilon=0.2) != ours.LabelSmoother()
    assert repr(smoother) == "LabelSmoother(epsilon=0.2, ignore_index=-100)"
    assert pickle.loads(pickle.dumps(smoother)) == smoother


# --- errors ---------------------------------------------------------------------------------------
def refusals(torch):
    """Yield arguments of causal_lm_loss, the exception, and the beginning of its line."""
    x, y = torch.zeros(2, 3, V), torch.zeros(2, 3, dtype=torch.int64)
    kind, value = TypeError, ValueError
    yield (x.tolist(), y, V), kind, "logits is [[["
    yield (x.numpy(), y, V), kind, "logits is a numpy.ndarray; expected a floating torch.Tensor"
    yield (x.long(), y, V), kind, "logits is dtype torch.int64; expected a floating torch.Tensor"
    yield (x[0, 0], y[0, 0], V), value, "logits has shape (7,); expected rows of classes, (..., V)"
    yield (x, y, 9), value, "vocab_size is 9; expected 7, the length of the last axis of logits"
    yield (x, y, None), value, "vocab_size is None; expected 7"
    yield (x[..., :1], y, True), value, "vocab_size is True; expected 1"
    yield (x, None, V), kind, "labels is None; expected a torch.Tensor of integers"
    yield (x, y.tolist(), V), kind, "labels is [[0, 0, 0], [0, 0, 0]]; expected a torch.Tensor"
    yield (x, x, V), kind, "labels is dtype torch.float32; expected a torch.Tensor of integers"
    yield (x, y == 0, V), kind, "labels is dtype torch.bool; expected a torch.Tensor of integers"
    yield (x, y.T, V), value, "labels has shape (3, 2); expected (2, 3), that of logits (2, 3, 7)"
    yield (x, y[:, 1:], V), value, "labels has shape (2, 2); expected (2, 3)"
    yield (x, y.flatten()[1:], V), value, "labels has shape (5,); expected (2, 3)"
    yield (x, y, V, None, -100, y[0]), value, "shift_labels has shape (3,); expected (2, 3)"
    yield (x, y, V, None, -100, x), kind, "shift_labels is dtype torch.float32; expected"
    yield (x, y, V, None, None), kind, "ignore_index is None; expected an int; pass a label."
    yield (x, y, V, None, True), kind, "ignore_index is True; expected an int; pass a label."
    yield (x, y, V, "6"), kind, "num_items_in_batch is '6'; expected a number or a tensor"
    yield (x, y, V, True), kind, "num_items_in_batch is True; expected a number or a tensor"
    yield (x, y, V, 0), value, "num_items_in_batch is 0; expected a positive number"
    yield (x, y, V, y[0]), value, "num_items_in_batch has shape (3,); expected one number"


def test_refusals_of_causal_lm_loss(torch, ours):
    for arguments, kind, line in refusals(torch):
        with pytest.raises(kind, match=f"^causal_lm_loss: {re.escape(line)}") as caught:
            ours.causal_lm_loss(*arguments)
        assert re.fullmatch(r"[^\n;]+; expected [^\n]+; [^\n;]+\.", str(caught.value))


def test_refusals_of_the_label_smoother(torch, ours):
    for epsilon, kind in ((1.5, ValueError), (-0.1, ValueError), ("0.1", TypeError)):
        with pytest.raises(kind, match=r"^LabelSmoother: epsilon is .*; expected a number.*; pass"):
            ours.LabelSmoother(epsilon)
    x, y = torch.zeros(2, 3, V), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(TypeError, match=r"^LabelSmoother: logits is dtype torch.int64; expected"):
        ours.LabelSmoother()({"logits": y}, y)
    with pytest.raises(ValueError, match=r"^LabelSmoother: labels has shape \(2, 2\); expected"):
        ours.LabelSmoother()((x,), y[:, 1:])


def test_a_label_out_of_range_is_refused_at_its_place_after_the_shift(torch, ours):
    x, y = torch.zeros(1, 3, V), torch.tensor([[0, 1, V]])
    line = r"^cross_entropy: targets\[0, 1\] is 7; expected a class index in \[0, 7\)"
    with pytest.raises(IndexError, match=line):
        ours.causal_lm_loss(x, y, V)
    with pytest.raises(IndexError, match=line):
        ours.LabelSmoother()((x,), y, shift_labels=True)
    with pytest.raises(IndexError, match=r"targets\[0, 2\] is -1"):  # class 0 in transformers
        ours.LabelSmoother()((x,), y.where(y < V, -1))
