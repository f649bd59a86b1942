"""The formula of the losses stands once: twice the reduction is twice every loss and gradient.

Whatever way a call takes, by library, size, transform or façade, it ends in `_losses.reduced`.
"""

from functools import partial
from importlib import import_module
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

import softmaxkit
from softmaxkit import _losses, conformance
from softmaxkit.conformance.adapter import Request

neighbour = run_path(str(Path(__file__).with_name("size_classes.py")))
SIZE_CLASSES, put_in = neighbour["SIZE_CLASSES"], neighbour["put_in"]

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6, 5))
Y = np.array([0, 4, -100, 2, 1, 3])
Q = RANDOM.dirichlet(np.ones(5), 6)
W = RANDOM.random(5) + 0.5
CALLS = [
    ("cross_entropy", Y, {}),
    ("cross_entropy", Y, {"weight": W, "label_smoothing": 0.1, "reduction": "sum"}),
    ("cross_entropy", Y, {"z_loss": 0.1, "reduction": "none"}),
    ("cross_entropy", Q, {"temperature": 2.0, "normalizer": 3.0}),
    ("focal_loss", Y, {"normalizer": "batch"}),
    ("focal_loss", Q, {"alpha": W}),
    ("poly_loss_cross_entropy", Y, {"weight": W}),
    ("poly_loss_cross_entropy", Q, {"epsilon": -1.0, "reduction": "sum"}),
    ("binary_cross_entropy", Q, {}),
    ("sigmoid_focal_loss", Q, {"alpha": 0.25, "reduction": "sum"}),
]
# Where each call is compiled: the last of each loss.
FEW = list({call[0]: call for call in CALLS}.values())
NAMES = conformance.names()


@pytest.fixture
def double(monkeypatch):
    """Double the reduction from here on."""

    def begin():
        reduced = _losses.reduced

        def twice(*arguments):
            value, of_row = reduced(*arguments)
            return 2 * value, 2 * of_row

        monkeypatch.setattr(_losses, "reduced", twice)
        forget()

    yield begin
    monkeypatch.undo()
    forget()


def forget():
    """Drop what was compiled."""
    if "jax" in NAMES:
        import_module("jax").clear_caches()
    if "torch" in NAMES:
        import_module("torch").compiler.reset()


def calls(adapter, which):
    """Yield each loss, its arrays and its options."""
    for name, targets, options in which:
        dtype = "float32" if targets.dtype.kind == "f" else None
        arrays = [adapter.to_backend(X, "float32"), adapter.to_backend(targets, dtype)]
        options = {
            key: adapter.to_backend(value, "float32") if isinstance(value, np.ndarray) else value
            for key, value in options.items()
        }
        yield getattr(softmaxkit, name), *arrays, options


def requests(adapter, which):
    """Return every call, and where the library has autodiff its gradient."""
    for call, *arrays, options in calls(adapter, which):
        rows = options.get("reduction") == "none"
        seed = adapter.to_backend(np.ones(len(X) if rows else ()), "float32")
        named = {key: value for key, value in options.items() if hasattr(value, "shape")}
        plain = {key: value for key, value in options.items() if key not in named}
        by = None if "autodiff" in adapter.lacks else 0
        # Arrays are arguments: exported for any number of classes, a weight of 5 would not fit.
        yield Request(
            partial(_with_options, call, tuple(named), plain), [*arrays, *named.values()], by, seed
        )


def _with_options(call, names, plain, logits, targets, *values):
    return call(logits, targets, **dict(zip(names, values, strict=True)), **plain)


def computed(adapter, transform, which):
    """Return what a transform makes of all of them."""
    given = list(requests(adapter, which))
    if transform.compute is not None:
        answers = transform.compute(given)
    else:
        answers = [(transform.call(one.function)(*one.arrays), None) for one in given]
    return [adapter.to_numpy(one) for answer in answers for one in answer if one is not None]


def own_gradients(adapter, which):
    """Return values and gradients by softmaxkit's own derivatives."""
    both = (
        softmaxkit.value_and_grad(call)(*arrays, **options)
        for call, *arrays, options in calls(adapter, which)
    )
    return [adapter.to_numpy(each) for pair in both for each in pair]


def assert_doubled(once, twice):
    assert once
    assert len(once) == len(twice)
    for one, two in zip(once, twice, strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_array_equal(two, 2 * one)


@pytest.mark.parametrize(
    ("name", "size_class"),
    [(name, each) for name in NAMES for each in (None, *SIZE_CLASSES.get(name, {}))],
)
def test_every_size_class(monkeypatch, double, name, size_class):
    put_in(size_class, name, 8, monkeypatch)
    adapter = conformance.load(name)
    which = CALLS if adapter.dtypes_under == "eager" else FEW

    def everything():
        eager = adapter.transforms["eager"]
        return computed(adapter, eager, which) + own_gradients(adapter, which)

    once = everything()
    double()
    assert_doubled(once, everything())


@pytest.mark.parametrize(
    ("name", "transform"),
    [
        (name, transform)
        for name in NAMES
        for transform in conformance.load(name).transforms
        if transform not in ("eager", "inductor")  # the graphs of torch.compile
    ],
)
def test_every_transform(double, name, transform):
    adapter = conformance.load(name)
    once = computed(adapter, adapter.transforms[transform], FEW)
    double()
    assert_doubled(once, computed(adapter, adapter.transforms[transform], FEW))


def test_facade_of_torch(torch, double):
    module = import_module("softmaxkit.torch")
    x, y, q = torch.tensor(X), torch.tensor(Y), torch.tensor(Q)

    def losses():
        return [
            module.cross_entropy(x, y),
            module.cross_entropy(x, q, label_smoothing=0.1),
            module.focal_loss(x, y),
            module.binary_cross_entropy_with_logits(x, q),
            module.sigmoid_focal_loss(x, q),
            module.nn.CrossEntropyLoss()(x, y),
        ]

    once = losses()
    double()
    assert_doubled([one.numpy() for one in once], [one.numpy() for one in losses()])


def test_facade_of_jax(jax, double):
    module = import_module("softmaxkit.jax")
    x, y, q = map(jax.numpy.asarray, (X, np.where(Y < 0, 0, Y), Q))

    def losses():
        return [
            module.softmax_cross_entropy_with_integer_labels(x, y),
            module.softmax_cross_entropy(x, q),
            module.sigmoid_binary_cross_entropy(x, q),
            module.sigmoid_focal_loss(x, q),
            module.softmax_focal_loss(x, y),
            module.poly_loss_cross_entropy(x, q),
            module.poly_loss_cross_entropy(x, q, epsilon=x[:, 0]),
        ]

    once = [np.asarray(one) for one in losses()]
    double()
    assert_doubled(once, [np.asarray(one) for one in losses()])


def test_facade_of_tensorflow(tf, double):
    module = import_module("softmaxkit.tensorflow")
    x, y, q = tf.constant(X), tf.constant(np.where(Y < 0, 0, Y)), tf.constant(Q)

    def losses():
        return [
            module.softmax_cross_entropy_with_logits(q, x),
            module.sparse_softmax_cross_entropy_with_logits(y, x),
            module.sigmoid_cross_entropy_with_logits(q, x),
        ]

    once = [one.numpy() for one in losses()]
    double()
    assert_doubled(once, [one.numpy() for one in losses()])
