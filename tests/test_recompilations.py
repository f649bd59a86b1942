"""What changes from step to step does not compile again: batch sizes, and each number."""

import numpy as np
import pytest

import softmaxkit
from softmaxkit._operations import BY_CLASS

LABELS = np.arange(64) % 5
# Operation, option, and what it is at each step; 1, or another value that changes nothing, is a
# program of its own, without that option. Losses over classes share their options' lines: each is
# here with one option of all and with its own.
NUMBERS = [
    ("softmax", "temperature", (0.5, 0.75, 1.25, 3.0)),
    ("log_softmax", "temperature", (0.5, 0.75, 1.25, 3.0)),
    *((name, "temperature", (0.5, 0.75, 1.25, 3.0)) for name in BY_CLASS),
    ("cross_entropy", "label_smoothing", (0.1, 0.2, 0.05, 0.3)),
    ("cross_entropy", "z_loss", (1e-4, 2e-4, 5e-4, 1e-3)),
    ("cross_entropy", "normalizer", (7.0, 12.0, 9.0, 8.5)),
    ("focal_loss", "gamma", (2.0, 1.5, 3.0, 0.5)),
    ("focal_loss", "alpha", (0.25, 0.5, 0.75, 0.9)),
    ("poly_loss_cross_entropy", "epsilon", (2.0, 1.0, -0.5, 0.5)),
    ("cross_entropy", "sample_weight", (0.3, 2.3, 3.7, 1.1)),
    ("binary_cross_entropy", "label_smoothing", (0.1, 0.2, 0.05, 0.3)),
    ("binary_cross_entropy", "pos_weight", (1.1, 2.3, 3.7, 0.3)),
    ("sigmoid_focal_loss", "gamma", (2.0, 1.5, 3.0, 0.5)),
    ("sigmoid_focal_loss", "alpha", (0.25, 0.5, 0.75, 0.9)),
]


def arrays(operation, rows=6):
    """Return logits, and targets if the operation takes any."""
    logits = np.random.default_rng(0).normal(size=(rows, 5))
    if operation in ("softmax", "log_softmax"):
        return [logits]
    return [logits, LABELS[:rows] if operation in BY_CLASS else (logits > 0).astype(float)]


@pytest.fixture
def graphs(torch):
    """Return torch.compile for whole graphs, and the list of those that it made."""
    torch.compiler.reset()
    made = []

    def keep(graph, _inputs):
        made.append(graph)
        return graph

    yield lambda function: torch.compile(function, fullgraph=True, backend=keep), made
    torch.compiler.reset()


@pytest.mark.parametrize(("operation", "option", "values"), NUMBERS)
def test_torch_compiles_once_more_for_a_number_that_changes(
    torch, graphs, operation, option, values
):
    """Dynamo takes a number for a constant until it sees another, and from then on for a symbol."""
    compile, made = graphs
    call = compile(
        lambda *given, number: getattr(softmaxkit, operation)(*given, **{option: number})
    )
    given = [torch.tensor(array) for array in arrays(operation)]
    for value in values:
        wanted = getattr(softmaxkit, operation)(*given, **{option: value})
        # In float64: a number that was rounded to float32 on its way would show.
        torch.testing.assert_close(call(*given, number=value), wanted, rtol=1e-12, atol=0.0)
    assert len(made) <= 2


@pytest.mark.parametrize(("operation", "option", "values"), NUMBERS)
def test_torch_compiles_once_for_a_number_in_a_tensor(torch, graphs, operation, option, values):
    compile, made = graphs
    call = compile(
        lambda *given, number: getattr(softmaxkit, operation)(*given, **{option: number})
    )
    given = [torch.tensor(array) for array in arrays(operation)]
    for value in values:
        call(*given, number=torch.tensor(value))
    assert len(made) == 1


@pytest.mark.parametrize("operation", dict.fromkeys(name for name, _, _ in NUMBERS))
def test_torch_compiles_once_for_every_batch_size(torch, graphs, operation):
    compile, made = graphs
    call = compile(lambda *given: getattr(softmaxkit, operation)(*given))
    for rows in (6, 9, 33, 64):
        given = [torch.tensor(array) for array in arrays(operation, rows)]
        for tensor in given:
            torch._dynamo.mark_dynamic(tensor, 0)
        call(*given)
    assert len(made) == 1


@pytest.mark.parametrize("operation", ["softmax", "logsumexp", *BY_CLASS])
def test_torch_compiles_lengths_that_depend_on_data(torch, graphs, operation):
    """Rows are picked by their labels, logits and labels each by a mask of its own."""
    compile, _ = graphs
    function = getattr(softmaxkit, operation)

    def call(x, labels):
        kept = [x[labels != 2], *([labels[labels != 2]] if operation in BY_CLASS else [])]
        return function(*kept).sum()

    x = torch.tensor(np.random.default_rng(0).normal(size=(9, 5)), requires_grad=True)
    labels = torch.tensor(LABELS[:9])
    expected = call(x, labels)
    (gradient,) = torch.autograd.grad(expected, x)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        got = compile(call)(x, labels)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(torch.autograd.grad(got, x)[0], gradient)


@pytest.mark.parametrize(("operation", "option", "values"), NUMBERS)
def test_jax_compiles_once_for_a_number_that_changes(jax, operation, option, values):
    traced = []

    @jax.jit
    def call(number, *given):
        traced.append(number)
        return getattr(softmaxkit, operation)(*given, **{option: number})

    given = [jax.numpy.asarray(array) for array in arrays(operation)]
    for value in values:
        call(value, *given)
    assert len(traced) == 1
