"""PyTorch: every new tensor is on the device of its input, whatever the default device is."""

from functools import partial
from importlib import import_module

import numpy as np
import pytest

import softmaxkit
import softmaxkit.conformance
from softmaxkit import cross_entropy, focal_loss

pytestmark = pytest.mark.skipif(
    "torch" not in softmaxkit.conformance.names(), reason="torch is not among those under test"
)

# Small ones, blocks, and results in memory of their own.
SHAPES = [(6, 5), (600, 100), (1200, 1000)]
OPTIONS = {
    "labels": {},
    "smoothing": {"label_smoothing": 0.1},
    "class weights": {"weight": ...},
    "rows": {"reduction": "none"},
    "mask and temperature": {"where": ..., "temperature": 2.0, "z_loss": 0.1},
}


def calls(torch, x, labels):
    """Yield a name and a function of x for every operation of the package and of the façade."""
    facade = import_module("softmaxkit.torch")
    for name, options in OPTIONS.items():
        options = dict(options)
        if "weight" in options:
            options["weight"] = torch.linspace(1, 2, x.shape[1], device="cpu")
        if "where" in options:
            options["where"] = torch.arange(x.shape[1], device="cpu") != 1
        yield f"cross_entropy, {name}", partial(cross_entropy, targets=labels, **options)
    q = x.detach().softmax(1)
    yield "cross_entropy, probabilities", lambda x: cross_entropy(x, q)
    yield "focal_loss", lambda x: focal_loss(x, labels)
    yield "binary_cross_entropy", lambda x: softmaxkit.binary_cross_entropy(x, q)
    yield "sigmoid_focal_loss", lambda x: softmaxkit.sigmoid_focal_loss(x, q, alpha=0.25)
    for name in ("softmax", "log_softmax", "logsumexp"):
        yield name, getattr(softmaxkit, name)
    yield "smooth_labels", lambda x: softmaxkit.smooth_labels(labels, 0.1, num_classes=x.shape[1])
    yield "façade, cross_entropy", lambda x: facade.cross_entropy(x, labels)
    yield "façade, probabilities", lambda x: facade.cross_entropy(x, q, label_smoothing=0.1)
    yield "façade, log_softmax", lambda x: facade.log_softmax(x, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("how", ["a device as context", "the default device"])
def test_results_are_where_the_input_is(torch, shape, dtype, how):

    random = np.random.default_rng(0)
    x = torch.tensor(random.normal(size=shape)).to(getattr(torch, dtype)).requires_grad_()
    labels = torch.tensor(random.integers(0, shape[1], shape[0]))
    for name, call in calls(torch, x, labels):

        def run(call=call):
            with torch.no_grad():
                results = [call(x)]
            value = call(x)
            results.append(value)
            if value.requires_grad:
                results += torch.autograd.grad(value, x, torch.ones_like(value))
            return results

        expected = run()
        if how == "a device as context":
            with torch.device("meta"):
                got = run()
        else:
            torch.set_default_device("meta")
            try:
                got = run()
            finally:
                torch.set_default_device(None)
        for one, other in zip(got, expected, strict=True):
            assert one.device.type == "cpu", name
            assert torch.equal(one, other), name


def test_memory_of_large_results_may_be_torchs_own(torch, monkeypatch):
    x = torch.zeros(1200, 1000)
    assert not softmaxkit.softmax(x).untyped_storage().resizable()
    monkeypatch.setenv("SOFTMAXKIT_NUMPY_MEMORY", "0")
    assert softmaxkit.softmax(x).untyped_storage().resizable()
