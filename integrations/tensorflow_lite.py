"""LiteRT (TFLite): loss, its gradient and probabilities, converted."""

import tempfile

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from common import FLOAT32, Outcome, report

import softmaxkit

ROWS, CLASSES = 64, 10
rng = np.random.default_rng(0)
logits = 3 * rng.standard_normal((ROWS, CLASSES), "float32")
labels = rng.integers(CLASSES, size=ROWS, dtype="int32")


def convert(functions):
    """Return a function that runs the converted model: logits and labels -> arrays by name."""
    loss_fn, softmax = functions

    @tf.function(
        input_signature=[
            tf.TensorSpec(logits.shape, tf.float32, "logits"),
            tf.TensorSpec(labels.shape, tf.int32, "labels"),
        ]
    )
    def call(logits, labels):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = loss_fn(logits, labels)
        return {"loss": loss, "gradient": tape.gradient(loss, logits), "p": softmax(logits)}

    with tempfile.TemporaryDirectory() as folder:
        module = tf.Module()
        module.call = call
        tf.saved_model.save(module, folder, signatures=call)
        converted = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
    return Interpreter(model_content=converted).get_signature_runner()


def train(functions):
    run = convert(functions)
    out = run(logits=logits, labels=labels)
    return Outcome(
        [out["loss"]], [out["gradient"], out["p"]], lambda: run(logits=logits, labels=labels)
    )


def theirs(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def ours(logits, labels):
    # The sum of reduction="mean", and sums over 256 classes or more, are float64, which the
    # converter supports only for TensorFlow's own kernels.
    return tf.reduce_mean(softmaxkit.cross_entropy(logits, labels, reduction="none"))


if __name__ == "__main__":
    pairs = (theirs, tf.nn.softmax), (ours, softmaxkit.softmax)
    report(train, *pairs, tolerance=FLOAT32)
