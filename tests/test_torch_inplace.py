"""PyTorch: an argument changed in place between forward and backward is refused, or harmless."""

from functools import partial

import numpy as np
import pytest

import softmaxkit
import softmaxkit.conformance

pytestmark = pytest.mark.skipif(
    "torch" not in softmaxkit.conformance.names(), reason="torch is not among those under test"
)

SHAPES = [(6, 5), (300, 40), (600, 100)]  # small, rows, blocks
OVER_CLASSES = ["sample_weight", "where", "temperature", "label_smoothing", "normalizer"]
ARGUMENTS = {
    "cross_entropy": ["logits", "labels", "probabilities", "weight", "z_loss", *OVER_CLASSES],
    "focal_loss": ["logits", "labels", "probabilities", "alpha", "gamma", *OVER_CLASSES],
    "binary_cross_entropy": [
        *("logits", "probabilities", "pos_weight"),
        *("sample_weight", "label_smoothing", "normalizer"),
    ],
    "sigmoid_focal_loss": [
        *("logits", "probabilities", "alpha", "gamma"),
        *("sample_weight", "label_smoothing", "normalizer"),
    ],
    **{name: ["logits", "where", "temperature"] for name in ("softmax", "log_softmax")},
    "logsumexp": ["logits", "where"],
}
CASES = [(name, argument) for name, arguments in ARGUMENTS.items() for argument in arguments]
# Of probabilities, whose focal loss is not a sum of rows.
CASES += [("focal_loss of probabilities", argument) for argument in ("alpha", *OVER_CLASSES)]


def call_of(torch, name, argument, shape):
    """Return an operation of x, and the tensor of that argument."""
    random, (rows, classes) = np.random.default_rng(0), shape
    name, _, takes_probabilities = name.partition(" of ")
    is_binary = name in ("binary_cross_entropy", "sigmoid_focal_loss")
    number = torch.tensor(0.25)
    tensors = {
        "labels": torch.tensor(random.integers(0, classes, rows)),
        "probabilities": torch.tensor(random.dirichlet(np.ones(classes), rows)).float(),
        "weight": torch.linspace(1, 2, classes),
        "alpha": number if is_binary else torch.linspace(1, 2, classes),
        "pos_weight": torch.linspace(1, 2, classes),
        "sample_weight": torch.linspace(1, 2, classes if is_binary else rows),
        "where": torch.arange(classes) != 1,
        "temperature": torch.linspace(1, 2, rows)[:, None],
    }
    tensor = tensors.get(argument, number)
    function = getattr(softmaxkit, name)
    if name in ("softmax", "log_softmax", "logsumexp"):
        options = {} if argument == "logits" else {argument: tensor}
        return partial(function, **options), tensor
    takes_target = argument in ("labels", "probabilities")
    takes_probabilities = is_binary or takes_probabilities
    targets = tensors[
        argument if takes_target else "probabilities" if takes_probabilities else "labels"
    ]
    if argument == "where" and not takes_probabilities:  # no label is masked
        targets = torch.zeros_like(targets)
    options = {} if takes_target or argument == "logits" else {argument: tensor}
    return partial(function, targets=targets, **options), tensor


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_changed_argument_gives_no_wrong_gradient(torch, name, argument, shape):
    call, tensor = call_of(torch, name, argument, shape)
    leaf = torch.tensor(np.random.default_rng(1).normal(size=shape)).float().requires_grad_()
    x = leaf * 1.0
    value = call(x)
    cotangent = torch.linspace(-1, 2, max(value.numel(), 1)).view(value.shape)
    (expected,) = torch.autograd.grad(value, x, cotangent)
    x = leaf * 1.0
    value = call(x)
    with torch.no_grad():
        changed = x if argument == "logits" else tensor
        if changed.dtype is torch.bool:
            changed.logical_not_()
        else:
            changed.copy_(changed.flip(0) if changed.ndim else changed * 2)
    refusal, got = "", expected
    try:
        (got,) = torch.autograd.grad(value, x, cotangent)
    except RuntimeError as error:
        refusal = str(error)
    assert not refusal or "modified by an inplace operation" in refusal
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)  # the same path: 8 ULP
