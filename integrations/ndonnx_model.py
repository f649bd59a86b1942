"""ndonnx: an ONNX model of loss and gradient, for any number of rows, run by ONNX Runtime."""

import ndonnx as ndx
import numpy as np
import onnxruntime
from common import CLASSES, FLOAT32, Outcome, report

import softmaxkit

rng = np.random.default_rng(0)
inputs = {
    "logits": 3 * rng.standard_normal((64, CLASSES), "float32"),
    "labels": rng.integers(CLASSES, size=64),
}


def by_formula(logits, labels):
    """Return loss and gradient as one writes them in the array API, which has no loss."""
    shifted = logits - ndx.max(logits, axis=1, keepdims=True)
    log_p = shifted - ndx.log(ndx.sum(ndx.exp(shifted), axis=1, keepdims=True))
    chosen = labels[:, None] == ndx.arange(CLASSES)
    rows = ndx.sum(ndx.where(chosen, log_p, 0.0), axis=1)
    count = ndx.asarray(logits.dynamic_shape[0], dtype=ndx.float32)
    return -ndx.mean(rows), (ndx.exp(log_p) - ndx.astype(chosen, ndx.float32)) / count


def train(loss_and_gradient):
    logits = ndx.argument(shape=("rows", CLASSES), dtype=ndx.float32)
    labels = ndx.argument(shape=("rows",), dtype=ndx.int64)
    loss, gradient = loss_and_gradient(logits, labels)
    named = {"logits": logits, "labels": labels}
    model = ndx.build(named, {"loss": loss, "gradient": gradient})
    session = onnxruntime.InferenceSession(model.SerializeToString())
    loss, gradient = session.run(["loss", "gradient"], inputs)
    return Outcome([loss], [gradient], lambda: session.run(None, inputs))


if __name__ == "__main__":
    ours = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    report(train, by_formula, ours, tolerance=FLOAT32)
