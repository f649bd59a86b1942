"""Arrays as they lie in memory: strided, reversed, broadcast, read-only, of another byte order."""

import pickle
from functools import partial

import numpy as np
import pytest

import softmaxkit

# Of float32, whose numbers are 1.2e-7 apart: another order in memory is another order of sums.
FEW_ULP = 1e-6

X = np.random.default_rng(0).normal(0, 3, (6, 5)).astype("float32")
X[4] = X[0]
LABELS = np.array([0, 4, 2, 1, 3, 0])

VIEWS = {
    "Fortran order": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, 0)[::2],
    "every other column": lambda x: np.repeat(x, 2, 1)[:, ::2],
    "inside a larger array": lambda x: np.pad(x, 3)[3:-3, 3:-3],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "rows reversed": lambda x: np.ascontiguousarray(x[::-1])[::-1],
    "columns reversed": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "misaligned": lambda x: np.frombuffer(b"." + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
}
NOT_IN_TORCH = ("rows reversed", "columns reversed", "read-only", "misaligned", "other byte order")
CALLS = {
    "softmax": softmaxkit.softmax,
    "softmax along rows": partial(softmaxkit.softmax, axis=0),
    "log_softmax": softmaxkit.log_softmax,
    "log_softmax along rows": partial(softmaxkit.log_softmax, axis=0),
    "logsumexp": softmaxkit.logsumexp,
    "all axes": partial(softmaxkit.softmax, axis=None),
    "cross_entropy": lambda x: softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, LABELS)[1],
    "smoothed": partial(softmaxkit.cross_entropy, targets=LABELS, label_smoothing=0.1),
    "focal_loss": partial(softmaxkit.focal_loss, targets=LABELS, reduction="none"),
    "binary": partial(softmaxkit.binary_cross_entropy, targets=np.ones(X.shape), reduction="none"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("view", VIEWS)
def test_numpy_views(view, call):
    x = VIEWS[view](X)
    before = x.copy()
    expected = CALLS[call](np.array(x, "float32"))
    got = CALLS[call](x)
    np.testing.assert_allclose(got, expected, rtol=FEW_ULP)
    assert got.dtype.newbyteorder("=") == np.float32  # scalars have no byte order of their own
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(got, x)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("view", [name for name in VIEWS if name not in NOT_IN_TORCH])
def test_torch_views(torch, view, call):
    x = VIEWS[view](X)
    expected = CALLS[call](torch.tensor(x.tolist()))
    base = torch.tensor(X[:1]) if view == "broadcast" else torch.from_numpy(x)
    tensor = base.expand(X.shape) if view == "broadcast" else base
    assert tensor.stride() == tuple(n // 4 for n in x.strides)  # it is the view, not a copy
    torch.testing.assert_close(CALLS[call](tensor), expected, rtol=FEW_ULP, atol=0)


def test_torch_inference_mode(torch):
    with torch.inference_mode():
        x = torch.tensor(X)
        assert softmaxkit.cross_entropy(x, torch.tensor(LABELS)).is_inference()


def test_labels_and_weights_may_be_views():
    every_other = {"weight": np.arange(10.0)[::2], "sample_weight": np.ones(12)[::-2]}
    plain = {name: value.copy() for name, value in every_other.items()}
    got = softmaxkit.cross_entropy(X, np.repeat(LABELS, 2)[::2], **every_other)
    assert got == softmaxkit.cross_entropy(X, LABELS, **plain)


@pytest.mark.parametrize("call", ["softmax", "log_softmax", "logsumexp"])
def test_integers_become_float64_at_once(torch, call):
    """By way of torch's default, float32, 2**24 + 1 would be 2**24."""
    x = torch.tensor([2**24 + 1, 2**24])
    compute = getattr(softmaxkit, call)
    expected = compute(x.double())
    torch.testing.assert_close(compute(x, dtype=torch.float64), expected, rtol=0, atol=0)


def test_numpy_gives_scalars_where_numpy_does():
    row, scalar = np.ones(3, "float32"), np.float32(1)
    assert type(softmaxkit.logsumexp(row)) is type(np.sum(row))
    for activation in (softmaxkit.softmax, softmaxkit.log_softmax, softmaxkit.logsumexp):
        assert type(activation(scalar, axis=None)) is np.float32
    assert type(softmaxkit.binary_cross_entropy(scalar, scalar, reduction="none")) is np.float32


def test_what_gives_gradients_can_be_pickled():
    """A pool of processes sends functions to its workers so."""
    smoothed = partial(softmaxkit.cross_entropy, label_smoothing=0.1)
    call, again = softmaxkit.value_and_grad(smoothed), softmaxkit.vjp(softmaxkit.softmax)
    assert repr(call) == "softmaxkit.value_and_grad(cross_entropy)"
    assert again.__name__ == "vjp(softmax)"
    x = np.arange(6.0).reshape(2, 3)
    for function, beside in ((call, [0, 2]), (again, x)):
        for got, expected in zip(
            pickle.loads(pickle.dumps(function))(x, beside), function(x, beside), strict=True
        ):
            np.testing.assert_array_equal(got, expected)
