"""A user's program, for mypy and pyright: what a call of softmaxkit returns, and what it refuses.

`python -m nox -s types` checks it. Each ``type: ignore`` is one of its cases: mypy reports one that
refuses nothing. `test_typed_program.py` runs the functions: each value is what its type says.
"""

from functools import partial
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
import torch
from matplotlib.axes import Axes

import softmaxkit
import softmaxkit.jax
import softmaxkit.tensorflow as tf_nn
import softmaxkit.torch as F  # noqa: N812
from softmaxkit import calibration
from softmaxkit.calibration import Estimate, Reliability, RiskCoverage
from softmaxkit.jax import nn as jax_nn
from softmaxkit.jax import optax
from softmaxkit.torch import functional, nn

NumpyArray = np.ndarray[tuple[Any, ...], np.dtype[Any]]
# One number for each row: of one row alone NumPy makes a scalar.
NumpyResult = NumpyArray | Any


def on_torch() -> None:
    x, y = torch.zeros(2, 3), torch.tensor([0, 2])
    w, parameter = torch.zeros(3, 3), torch.nn.Parameter(torch.zeros(2, 3))
    assert_type(softmaxkit.softmax(x), torch.Tensor)
    assert_type(softmaxkit.softmax(parameter, temperature=torch.tensor(2.0)), torch.Tensor)
    assert_type(softmaxkit.log_softmax(x, (0, 1), where=x == 0, dtype=torch.float64), torch.Tensor)
    assert_type(softmaxkit.logsumexp(x, None, keepdims=True), torch.Tensor)
    assert_type(softmaxkit.cross_entropy(x, y, label_smoothing=0.1), torch.Tensor)
    assert_type(softmaxkit.cross_entropy(x, [0, 2], reduction="none"), torch.Tensor)
    assert_type(softmaxkit.cross_entropy(x, y, normalizer="count", z_loss=1e-4), torch.Tensor)
    assert_type(softmaxkit.focal_loss(x, y, alpha=[0.2, 0.3, 0.5]), torch.Tensor)
    assert_type(softmaxkit.poly_loss_cross_entropy(x, y, epsilon=1.0), torch.Tensor)
    assert_type(softmaxkit.binary_cross_entropy(x, x, pos_weight=2.0), torch.Tensor)
    assert_type(softmaxkit.sigmoid_focal_loss(x, x, alpha=0.25), torch.Tensor)
    assert_type(softmaxkit.one_hot(y, 3), torch.Tensor)
    assert_type(softmaxkit.smooth_labels(y, 0.1, num_classes=3), torch.Tensor)
    assert_type(softmaxkit.linear_cross_entropy(x, w, y, chunk_size=(16, 2)), torch.Tensor)
    everything = softmaxkit.linear_cross_entropy(x, w, y, outputs="all")
    assert_type(everything.loss, torch.Tensor)
    assert_type(everything.argmax, torch.Tensor)

    loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    assert_type(loss_and_gradient(x, y, weight=[1, 2, 3]), tuple[torch.Tensor, torch.Tensor])
    value, gradients = softmaxkit.value_and_grad(softmaxkit.linear_cross_entropy)(x, w, y)
    assert_type(value, torch.Tensor)
    assert_type(gradients.weight_matrix, torch.Tensor)
    # Of a partial mypy does not know which loss it is, and pyright not which gradients.
    value, _ = softmaxkit.value_and_grad(partial(softmaxkit.focal_loss, gamma=1.0))(x, y)
    product = softmaxkit.vjp(softmaxkit.log_softmax)
    assert_type(product(x, x, -1, temperature=2.0), tuple[torch.Tensor, torch.Tensor])


def on_jax() -> None:
    x, y = jnp.zeros((2, 3)), jnp.array([0, 2])
    w = jnp.zeros((3, 3))
    assert_type(softmaxkit.softmax(x, dtype=jnp.float32), jax.Array)
    assert_type(softmaxkit.cross_entropy(x, y), jax.Array)
    assert_type(softmaxkit.cross_entropy(x, y, reduction="none"), jax.Array)
    assert_type(softmaxkit.linear_cross_entropy(x, w, y), jax.Array)
    assert_type(softmaxkit.linear_cross_entropy(x, w, y, outputs="all").entropy, jax.Array)
    loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.binary_cross_entropy)
    assert_type(loss_and_gradient(x, x), tuple[jax.Array, jax.Array])
    assert_type(softmaxkit.vjp(softmaxkit.softmax)(x, x), tuple[jax.Array, jax.Array])

    @jax.jit
    def step(x: jax.Array) -> jax.Array:
        return softmaxkit.log_softmax(x) * x

    step(x)
    assert_type(calibration.classify(x, threshold=0.5), jax.Array)


def on_tensorflow() -> None:
    x, y = tf.zeros((2, 3)), tf.constant([0, 2])
    assert_type(softmaxkit.softmax(x), tf.Tensor)
    assert_type(softmaxkit.softmax(tf.Variable(x)), tf.Tensor)
    assert_type(softmaxkit.cross_entropy(x, y), tf.Tensor)
    loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.focal_loss)
    assert_type(loss_and_gradient(x, y), tuple[tf.Tensor, tf.Tensor])
    assert_type(calibration.confidence(x), tf.Tensor)


def on_numpy() -> None:
    x, y = np.zeros((2, 3), np.float32), np.array([0, 2])
    w = np.zeros((3, 3), np.float32)
    assert_type(softmaxkit.softmax(x), NumpyArray)
    assert_type(softmaxkit.softmax(y, dtype="float32"), NumpyArray)
    assert_type(softmaxkit.log_softmax([1.0, 2.0]), NumpyArray)
    assert_type(softmaxkit.logsumexp(x), NumpyResult)
    assert_type(softmaxkit.cross_entropy(x, y), np.floating)
    assert_type(softmaxkit.cross_entropy([[1.0, 2.0]], [1], reduction="sum"), np.floating)
    assert_type(softmaxkit.cross_entropy(x, y, reduction="none"), NumpyResult)
    assert_type(softmaxkit.focal_loss(x, y), np.floating)
    assert_type(softmaxkit.poly_loss_cross_entropy(x, y, reduction="none"), NumpyResult)
    assert_type(softmaxkit.binary_cross_entropy(x, x), np.floating)
    assert_type(softmaxkit.sigmoid_focal_loss(x, x, reduction="none"), NumpyResult)
    assert_type(softmaxkit.one_hot([0, 2], 3, dtype=np.float16), NumpyArray)
    assert_type(softmaxkit.one_hot(1, 3), NumpyArray)
    assert_type(softmaxkit.smooth_labels(x, 0.1), NumpyArray)
    assert_type(softmaxkit.linear_cross_entropy(x, w, y), np.floating)
    assert_type(softmaxkit.linear_cross_entropy(x, w, y, reduction="none"), NumpyResult)
    assert_type(softmaxkit.linear_cross_entropy(x, w, y, outputs="all").logsumexp, NumpyResult)
    loss_and_gradient = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    assert_type(loss_and_gradient(x, y), tuple[np.floating, NumpyArray])
    assert_type(loss_and_gradient(x, y, reduction="none"), tuple[NumpyResult, NumpyArray])
    _, gradients = softmaxkit.value_and_grad(softmaxkit.linear_cross_entropy)(x, w, y)
    assert_type(gradients.hidden, NumpyArray)
    product = softmaxkit.vjp(softmaxkit.logsumexp)
    assert_type(product(x, np.ones(2, np.float32)), tuple[NumpyResult, NumpyArray])
    softmaxkit.set_num_threads(softmaxkit.get_num_threads())
    assert_type(softmaxkit.get_num_threads(), int)


def calibrated() -> None:
    scores = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 2.0]], np.float64)
    x, y = torch.tensor(scores), torch.tensor([0, 1, 0])
    assert_type(calibration.fit_temperature(x, y), float)
    assert_type(calibration.calibration_error(x, y, norm="max"), float)
    assert_type(calibration.calibration_error(x, y, interval=0.9, resamples=9), Estimate)
    assert_type(calibration.reliability(x, y, of="class", binning="mass"), Reliability)
    assert_type(calibration.brier_score(x, y), float)
    assert_type(calibration.confidence(x, "margin"), torch.Tensor)
    assert_type(calibration.confidence(scores), NumpyResult)
    assert_type(calibration.classify(x), torch.Tensor)
    assert_type(calibration.risk_coverage(x, y, kind="energy"), RiskCoverage)
    assert_type(calibration.risk_coverage(x, y).risk, np.ndarray)
    assert_type(calibration.aurc(x, y), float)
    assert_type(calibration.threshold_for(x, y, coverage=0.5), float)
    assert_type(calibration.conformal_threshold(x, y, error_rate=0.4), float)
    assert_type(calibration.prediction_sets(x, 0.3), torch.Tensor)
    assert_type(calibration.prediction_sets(scores, 0.3), NumpyArray)
    assert_type(calibration.straight_through(x), torch.Tensor)
    assert_type(softmaxkit.calibration.aurc(x, y), float)


def drawn() -> None:
    x, y = np.array([[2.0, 1.0], [0.0, 3.0], [1.0, 2.0]]), np.array([0, 1, 0])
    ax = calibration.plot_reliability(x, y, interval=None)
    assert_type(ax, Axes)
    assert_type(calibration.plot_risk_coverage(x, y, ax=ax, kind="margin"), Axes)


def in_place_of_torch() -> None:
    x, y, w = torch.zeros(2, 3), torch.tensor([0, 2]), torch.zeros(3, 3)
    assert_type(F.cross_entropy(x, y), torch.Tensor)
    assert_type(F.linear_cross_entropy(x, w, y, softcap=30.0), torch.Tensor)
    assert_type(F.focal_loss(x, y, alpha=0.25), torch.Tensor)
    assert_type(F.causal_lm_loss(x, y, vocab_size=3), torch.Tensor)
    assert_type(F.relu(x), torch.Tensor)
    assert_type(functional.softmax(x, dim=-1), torch.Tensor)
    assert_type(functional.linear_cross_entropy(x, w, y, z_loss=1e-4), torch.Tensor)
    assert_type(functional.pad(x, (0, 1)), torch.Tensor)
    loss: torch.nn.CrossEntropyLoss = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert_type(nn.FocalLoss(gamma=1.0)(x, y), Any)  # as torch's modules are called
    assert_type(nn.Sequential(nn.Linear(3, 3), nn.Softmax(dim=1))(x), Any)
    loss(x, y)


def in_place_of_jax() -> None:
    x, y = jnp.zeros((2, 3)), jnp.array([0, 2])
    assert_type(jax_nn.softmax(x), jax.Array)
    assert_type(jax_nn.relu(x), jax.Array)
    assert_type(jax_nn.logsumexp(x, axis=-1), jax.Array)
    assert_type(optax.softmax_cross_entropy_with_integer_labels(x, y), jax.Array)
    assert_type(optax.softmax_focal_loss(x, y, gamma=1.0), jax.Array)
    assert_type(softmaxkit.jax.sigmoid_focal_loss(x, x), jax.Array)
    optax.adam(1e-3)


def in_place_of_tensorflow() -> None:
    x, y = tf.zeros((2, 3)), tf.constant([0, 2])
    loss = tf_nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=x)
    assert_type(loss, tf.Tensor)
    assert_type(tf_nn.log_softmax(x), tf.Tensor)
    tf_nn.relu(x)


def refused(x: torch.Tensor, y: torch.Tensor, a: np.ndarray) -> None:
    softmaxkit.softmax("logits")  # type: ignore[call-overload]
    softmaxkit.softmax(x, axis="rows")  # type: ignore[call-overload]
    softmaxkit.softmax(x, temprature=2.0)  # type: ignore[call-overload]
    softmaxkit.cross_entropy(x, y, lable_smoothing=0.1)  # type: ignore[call-overload]
    softmaxkit.cross_entropy(x, y, reduction="avrage")  # type: ignore[call-overload]
    softmaxkit.cross_entropy(a, y, reduction="avrage")  # type: ignore[call-overload]
    softmaxkit.cross_entropy(x, y, normalizer="batches")  # type: ignore[call-overload]
    softmaxkit.cross_entropy(x, "cat")  # type: ignore[call-overload]
    softmaxkit.cross_entropy(x, y, 1)  # type: ignore[call-overload]
    softmaxkit.focal_loss(x, y, weight=[1.0, 2.0, 3.0])  # type: ignore[call-overload]
    softmaxkit.linear_cross_entropy(x, x, y, outputs="both")  # type: ignore[call-overload]
    softmaxkit.one_hot(y, "3")  # type: ignore[call-overload]
    softmaxkit.set_num_threads("2")  # type: ignore[arg-type]
    softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, y, gama=2.0)  # type: ignore[call-overload]
    softmaxkit.vjp(softmaxkit.softmax)(x, x, kepdims=True)  # type: ignore[call-overload]
    calibration.confidence(x, "surprise")  # type: ignore[call-overload]
    calibration.aurc(x, y, kind="surprise")  # type: ignore[arg-type]
    calibration.calibration_error(x, y, norm="l3")  # type: ignore[call-overload]
    F.cross_entropy(x, y, lable_smoothing=0.1)  # type: ignore[call-arg]
    F.reul(x)  # type: ignore[attr-defined]
    softmaxkit.sofmax(x)  # type: ignore[attr-defined]
    loss: float = softmaxkit.cross_entropy(x, y)  # type: ignore[assignment]
    del loss
