"""MLX: its transforms go through every call, though softmaxkit gives them no rules of its own."""

import numpy as np
import pytest

import softmaxkit

RANDOM = np.random.default_rng(0)
LOGITS, COTANGENT = RANDOM.normal(size=(2, 4, 100)).astype("float32")
LABELS = np.array([0, 2, -100, 99])
PROBABILITIES = softmaxkit.softmax(COTANGENT)
WHERE = np.arange(100) % 7 != 3  # 0, 2 and 99 take part
CALLS = {
    "softmax": ("softmax", COTANGENT, {}),
    "softmax, mask": ("softmax", COTANGENT, {"where": WHERE, "temperature": 2.0}),
    "softmax, axis 0": ("softmax", COTANGENT, {"axis": 0}),
    "log_softmax, mask": ("log_softmax", COTANGENT, {"where": WHERE}),
    "logsumexp, mask": ("logsumexp", COTANGENT[:, 0], {"where": WHERE}),
    "cross_entropy": ("cross_entropy", LABELS, {}),
    "cross_entropy, options": (
        "cross_entropy", LABELS, {"where": WHERE, "label_smoothing": 0.1, "z_loss": 0.1},
    ),
    "cross_entropy, probabilities": ("cross_entropy", PROBABILITIES, {"label_smoothing": 0.1}),
    "focal_loss": ("focal_loss", LABELS, {"gamma": 0.5, "where": WHERE}),
    "poly_loss_cross_entropy": ("poly_loss_cross_entropy", PROBABILITIES, {}),
    "binary_cross_entropy": ("binary_cross_entropy", PROBABILITIES, {"pos_weight": 2.0}),
    "sigmoid_focal_loss": ("sigmoid_focal_loss", PROBABILITIES, {"alpha": 0.25}),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_transforms(mx, name):
    operation, other, options = CALLS[name]
    function, x = getattr(softmaxkit, operation), mx.array(LOGITS)
    if operation in ("softmax", "log_softmax", "logsumexp"):
        value, gradient = softmaxkit.vjp(function)(LOGITS, other, **options)
        cotangent, rest = mx.array(other), ()
    else:
        value, gradient = softmaxkit.value_and_grad(function)(LOGITS, other, **options)
        cotangent, rest = mx.array(1.0), (mx.array(other),)

    def call(x):
        return function(x, *rest, **options)

    def pulled(x):
        values, products = mx.vjp(call, [x], [cotangent])
        return values[0], products[0]

    batch = mx.vmap(pulled)(mx.stack([x, x]))
    for got in (pulled(x), mx.compile(pulled)(x), [each[1] for each in batch]):
        # MLX differentiates each step: roundings of float32 of the steps, not of the result.
        np.testing.assert_allclose(np.array(got[0]), value, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(np.array(got[1]), gradient, rtol=1e-5, atol=1e-6)


def test_labels_out_of_range(mx):
    x = mx.array(LOGITS)
    with pytest.raises(IndexError, match=r"targets\[1\] is 100; "):
        softmaxkit.cross_entropy(x, [0, 100, 2, 3])
    rows = softmaxkit.cross_entropy(x, mx.array([0, 100, 2, 3]), reduction="none")
    assert np.isnan(np.array(rows)).tolist() == [False, True, False, False]


def test_half_precision_is_named(mx):
    x = mx.array(LOGITS)
    for dtype in (mx.float16, mx.bfloat16):
        name = str(dtype).rpartition(".")[2]
        assert softmaxkit.softmax(x, dtype=name).dtype == dtype
        assert softmaxkit.softmax(x.astype(dtype), dtype=mx.float32).dtype == mx.float32
