"""torch.onnx.export of every operation, by both exporters; ONNX's own evaluator has the numbers.

`value_and_grad` and `vjp` are not among them: neither exporter follows torch.autograd.grad, nor
with torch's own functions.
"""

import io
import warnings

import numpy as np
import pytest

WHERE = [True, True, False, True, True]
WEIGHT = [1.0, 2.0, 3.0, 4.0, 5.0]
EVERY_OPTION = {
    "weight": WEIGHT, "sample_weight": [1.0, 2.0, 3.0, 0.0], "where": WHERE, "temperature": 2.0,
    "label_smoothing": 0.1, "z_loss": 0.1,
}  # fmt: skip
# Where it is, its name, what it takes beside logits, options.
CALLS = [
    ("", "softmax", None, {"where": WHERE, "temperature": 2.0}),
    ("", "log_softmax", None, {"axis": 0}),
    ("", "log_softmax", None, {"axis": None}),
    ("", "logsumexp", None, {"where": WHERE, "keepdims": True}),
    ("", "cross_entropy", "labels", EVERY_OPTION),
    ("", "cross_entropy", "probabilities", {"reduction": "sum"}),
    ("", "focal_loss", "labels", {"alpha": WEIGHT}),
    ("", "focal_loss", "probabilities", {"gamma": 0.5}),
    ("", "poly_loss_cross_entropy", "labels", {}),
    ("", "binary_cross_entropy", "probabilities", {"label_smoothing": 0.1}),
    ("", "sigmoid_focal_loss", "probabilities", {"alpha": 0.25}),
    ("", "one_hot", None, {"num_classes": 5}),
    ("", "smooth_labels", None, {"smoothing": 0.1, "num_classes": 5}),
    ("torch", "softmax", None, {"dim": -1}),
    ("torch", "log_softmax", None, {"dim": -1}),
    ("torch", "softmin", None, {"dim": 0}),
    ("torch", "cross_entropy", "labels", {"label_smoothing": 0.1}),
    ("torch", "cross_entropy", "probabilities", {"reduction": "none"}),
    ("torch", "nll_loss", "labels", {}),
    ("torch", "focal_loss", "labels", {"gamma": 0.5}),
    ("torch", "binary_cross_entropy_with_logits", "probabilities", {}),
    ("torch", "sigmoid_focal_loss", "probabilities", {"reduction": "mean"}),
]
IDS = [f"{where}.{name}-{other}-{'-'.join(options)}" for where, name, other, options in CALLS]


@pytest.fixture
def arrays(torch):
    # The first row is saturated.
    logits = torch.tensor(np.random.default_rng(0).normal(size=(4, 5)), dtype=torch.float32)
    logits[0, 0] = 30.0
    probabilities = torch.softmax(logits.flip(0), -1)
    return {
        "logits": logits,
        "labels": torch.tensor([0, 1, -100, 4]),
        "probabilities": probabilities,
        "all kept": torch.tensor([0, 1, 2, 4]),
    }


@pytest.fixture
def assert_exported(torch, arrays):
    """Export calls as one program, and compare what ONNX makes of it."""
    pytest.importorskip("onnx", reason="onnx, to which this exports, is not installed")
    from onnx import load_from_string
    from onnx.reference import ReferenceEvaluator

    import softmaxkit.torch

    def computed(call, logits, labels, probabilities, kept):
        where, name, other, options = call
        function = getattr(softmaxkit.torch if where else softmaxkit, name)
        first = kept if name in ("one_hot", "smooth_labels") else logits
        known = {"labels": labels, "probabilities": probabilities}
        return function(first, *([known[other]] if other else []), **options)

    def check(calls, **how):
        class Module(torch.nn.Module):
            def forward(self, *tensors):
                return tuple(computed(call, *tensors) for call in calls)

        file, given = io.BytesIO(), tuple(arrays.values())
        names = [f"given{place}" for place in range(len(given))]
        program = torch.onnx.export(
            Module().eval(), given, *([] if how["dynamo"] else [file]), input_names=names, **how
        )
        if how["dynamo"]:
            program.save(file)
        exported = ReferenceEvaluator(load_from_string(file.getvalue()))
        feed = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        feed = {name: feed[name] for name in exported.input_names}  # those that are used
        with np.errstate(all="ignore"):  # the evaluator is NumPy, and computes both sides of where
            results = exported.run(None, feed)
        for call, result in zip(calls, results, strict=True):
            expected = computed(call, *given).numpy()
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape), call
            # ONNX has no log1p: the logarithm of 1 + x is 1.2e-7 off. The evaluator's exp and
            # sums are NumPy's: 16 roundings of float32.
            np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-7, err_msg=str(call))

    return check


# torch warns that this exporter is old, and of every Python number that a trace fixes. A mark that
# named torch's warning would have pytest import torch, which sessions without torch lack.
@pytest.mark.parametrize("call", CALLS, ids=IDS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_legacy_exporter(torch, assert_exported, call):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        assert_exported([call], dynamo=False)


# torch's new exporter uses functions of torch and of onnxscript that are deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_exporter_by_dynamo(assert_exported):
    pytest.importorskip("onnxscript", reason="onnxscript, of torch's exporter, is missing")
    ours = [call for call in CALLS if not call[0]]  # to which the others come down; as one program
    assert_exported(ours, dynamo=True, verbose=False)
