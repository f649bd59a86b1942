"""torch.fx.symbolic_trace records a call of softmaxkit as one node, as it does torch's."""

import pickle

import pytest

import softmaxkit

# Operation, what it takes beside the logits, options.
CALLS = {
    "softmax": ("softmax", (), {"where": [True, True, False], "temperature": 2.0}),
    "log_softmax": ("log_softmax", (0,), {}),
    "logsumexp": ("logsumexp", (None,), {"keepdims": True}),
    "cross_entropy": ("cross_entropy", ("labels",), {"label_smoothing": 0.1}),
    "focal_loss": ("focal_loss", ("labels",), {"gamma": 0.5, "reduction": "sum"}),
    "poly_loss_cross_entropy": ("poly_loss_cross_entropy", ("probabilities",), {}),
    "binary_cross_entropy": ("binary_cross_entropy", ("probabilities",), {}),
    "sigmoid_focal_loss": ("sigmoid_focal_loss", ("probabilities",), {"alpha": 0.25}),
    "smooth_labels": ("smooth_labels", (0.1,), {}),
}
FACADE = {
    "softmax": (-1,),
    "log_softmax": (-1,),
    "softmin": (-1,),
    "cross_entropy": ("labels",),
    "focal_loss": ("labels",),
    "nll_loss": ("labels",),
    "binary_cross_entropy_with_logits": ("probabilities",),
    "sigmoid_focal_loss": ("probabilities",),
}
MODULES = {
    "Softmax": (),
    "LogSoftmax": (),
    "CrossEntropyLoss": ("labels",),
    "FocalLoss": ("labels",),
    "BCEWithLogitsLoss": ("probabilities",),
    "SigmoidFocalLoss": ("probabilities",),
}


@pytest.fixture
def assert_recorded(torch):
    """Trace a function of logits, labels and probabilities: one node, the same numbers."""
    given = {
        "labels": torch.tensor([0, 2]),
        "probabilities": torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]),
    }

    def check(call, rest, target):
        tensors = [given[one] for one in rest if isinstance(one, str)]

        def of_two(logits, targets):
            return call(logits, targets)

        def of_one(logits):
            return call(logits, *rest)

        def outcome(function):
            logits = torch.tensor([[30.0, 1.0, 0.0], [0.5, -1.0, 3.0]], requires_grad=True)
            value = function(logits, *tensors)
            return value, *torch.autograd.grad(value.sum(), logits)

        function = of_two if tensors else of_one
        module = torch.fx.symbolic_trace(call if isinstance(call, torch.nn.Module) else function)
        calls = [node for node in module.graph.nodes if node.op not in ("placeholder", "output")]
        assert [(node.op, node.target) for node in calls] == [("call_function", target)]
        expected = outcome(function)
        for traced in (module, pickle.loads(pickle.dumps(module))):
            torch.testing.assert_close(outcome(traced), expected, rtol=0, atol=0)

    return check


@pytest.mark.parametrize("name", CALLS)
def test_operations(assert_recorded, name):
    operation, rest, options = CALLS[name]
    function = getattr(softmaxkit, operation)
    assert_recorded(lambda *arguments: function(*arguments, **options), rest, function)


def test_every_operation_is_here():
    families = softmaxkit.activations, softmaxkit.losses, softmaxkit.labels
    assert {*CALLS, "one_hot"} == {name for module in families for name in module.__all__}


def test_one_hot(torch):
    module = torch.fx.symbolic_trace(lambda labels: softmaxkit.one_hot(labels, 3, axis=0))
    labels = torch.tensor([0, 2])
    torch.testing.assert_close(module(labels), softmaxkit.one_hot(labels, 3, axis=0))
    assert softmaxkit.one_hot in [node.target for node in module.graph.nodes]


def test_value_and_grad_and_vjp(torch):
    def function(logits, labels):
        loss, gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)(logits, labels)
        p, product = softmaxkit.vjp(softmaxkit.softmax)(logits, gradient)
        return loss, gradient, p, product

    module = torch.fx.symbolic_trace(function)
    arguments = torch.tensor([[30.0, 1.0, 0.0], [0.5, -1.0, 3.0]]), torch.tensor([0, 2])
    torch.testing.assert_close(module(*arguments), function(*arguments), rtol=0, atol=0)


@pytest.mark.parametrize("name", FACADE)
@pytest.mark.parametrize("module", ["torch", "torch.functional"])
def test_functions_of_the_facade(assert_recorded, torch, name, module):
    import softmaxkit.torch

    where = softmaxkit.torch if module == "torch" else softmaxkit.torch.functional
    function = getattr(where, name)
    assert_recorded(lambda *arguments: getattr(where, name)(*arguments), FACADE[name], function)


@pytest.mark.parametrize("name", MODULES)
def test_modules_of_the_facade(assert_recorded, torch, name):
    import softmaxkit.torch

    functions = {
        "Softmax": "softmax",
        "LogSoftmax": "log_softmax",
        "CrossEntropyLoss": "cross_entropy",
        "FocalLoss": "focal_loss",
        "BCEWithLogitsLoss": "binary_cross_entropy_with_logits",
        "SigmoidFocalLoss": "sigmoid_focal_loss",
    }
    options = {"dim": -1} if name.endswith("oftmax") else {}
    module = getattr(softmaxkit.torch, name)(**options)
    assert_recorded(module, MODULES[name], getattr(softmaxkit.torch, functions[name]))


def test_what_does_not_record_is_refused():
    class Odd:
        @classmethod
        def __torch_function__(cls, *arguments):
            return NotImplemented

    with pytest.raises(TypeError, match=r"^softmax: x is a .*Odd; expected .*; .*\.$"):
        softmaxkit.softmax(Odd())
