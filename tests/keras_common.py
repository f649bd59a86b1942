"""What the cases of softmaxkit.keras share: the two libraries' losses, calls of them, gradients."""

import os

import keras
import numpy as np
import pytest
from keras import ops

import softmaxkit.keras

BACKEND = keras.backend.backend()
assert os.environ.get("KERAS_BACKEND") == BACKEND
NAMES = [name for name in softmaxkit.keras.__all__ if name[0].isupper()]
FUNCTIONS = [name for name in softmaxkit.keras.__all__ if name[0].islower()]
SPARSE = [name for name in NAMES if name.startswith("Sparse")]
BINARY = [name for name in NAMES if name.startswith("Binary")]
IN_KERAS = [name for name in NAMES if hasattr(keras.losses, name)]
# A few float32 roundings: where logits come, Keras divides, clips and takes logarithms, not we.
LIMIT = {"rtol": 4e-6, "atol": 1e-7}

# keras.ops.convert_to_numpy of a torch tensor meets NumPy 2.4.
quiet = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't:DeprecationWarning")
differentiates = pytest.mark.skipif(BACKEND == "numpy", reason="Keras on NumPy has no gradients")


def ours(name, /, *arguments, **options):
    return getattr(softmaxkit.keras, name)(*arguments, **options)


def theirs(name, /, *arguments, **options):
    return getattr(keras.losses, name)(*arguments, **options)


def equal(have, want):
    np.testing.assert_allclose(ops.convert_to_numpy(have), ops.convert_to_numpy(want), **LIMIT)


def gradient(function, x):
    """Differentiate a scalar function of one array by the backend's own means."""
    x = np.asarray(x, "float32")
    if BACKEND == "torch":
        leaf = ops.convert_to_tensor(x).requires_grad_()
        function(leaf).backward()
        return leaf.grad.numpy()
    if BACKEND == "jax":
        import jax

        return np.asarray(jax.grad(function)(x))
    import tensorflow as tf

    leaf = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = function(tf.convert_to_tensor(leaf))
    return tape.gradient(value, leaf).numpy()


def case(name, from_logits, shape=(6, 5)):
    """Return targets and predictions for a loss, far from where Keras clips."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=shape).astype("float32")
    if name in BINARY:
        y_true = rng.integers(0, 2, shape).astype("float32")
        return y_true, logits if from_logits else (1 / (1 + np.exp(-logits))).astype("float32")
    labels = rng.integers(0, shape[-1], shape[:-1])
    y_true = labels if name in SPARSE else np.eye(shape[-1], dtype="float32")[labels]
    if from_logits:
        return y_true, logits
    p = np.exp(logits)
    return y_true, (p / p.sum(-1, keepdims=True) * 1.5).astype("float32")  # Keras normalises
