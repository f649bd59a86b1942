"""TensorFlow's own tests, from its wheel, run on softmaxkit.tensorflow in place of nn_ops.

nn_ops has the signatures of TensorFlow 1, too: there the axis is called `dim`, and no gradient
flows into the labels.
"""

from collections import Counter
from types import SimpleNamespace

import pytest
import tensorflow as tf
from tensorflow.python.kernel_tests.nn_ops import xent_op_test_base
from tensorflow.python.kernel_tests.sparse_ops import sparse_xent_op_test_base

import softmaxkit.tensorflow as nn

tf.test.TestCase.test_session.__test__ = False  # a context manager


# TensorFlow's tests have methods "structured to be easily overridden by a child class", for the
# numbers and messages of another implementation.
class TestXent(xent_op_test_base.XentOpTestBase):
    def testSingleClass(self):  # noqa: N802
        # Labels of -1 and 0 for the only class: (Σq) p - q is 0, TensorFlow's p - q is 2 and 1.
        self._testSingleClass(expected_gradient=[[0.0], [0.0], [0.0], [0.0]])


class TestSparseXent(sparse_xent_op_test_base.SparseXentOpTestBase):
    def testInvalidLabelCPU(self):  # noqa: N802
        self._testInvalidLabelCPU(r"expected a class index in \[0, 4\)")

    def testLabelsPlaceholderScalar(self):  # noqa: N802
        self._testLabelsPlaceholderScalar(r"\[\] is not compatible with expected shape \[1\]")

    def testScalarHandling(self):  # noqa: N802
        self._testScalarHandling(r"\[\] is not compatible with expected shape \[\?\]")


WORDS = "a ValueError, as TensorFlow's, that says it in softmaxkit's words"
# Class and test -> why softmaxkit differs. Each must really fail.
EXPECTED_DIFFERENCES = {
    "TestXent.testLabelsBroadcast": "shapes do not broadcast: one row of labels for many is a slip",
    "TestSparseXent.testScalar": WORDS,
    "TestSparseXent.testShapeMismatch": WORDS,
}


@pytest.fixture(autouse=True)
def calls(request, monkeypatch):
    """Put softmaxkit's functions where TensorFlow's tests look for nn_ops', and count them."""
    counts = Counter()

    def dense(labels=None, logits=None, name=None, dim=-1):
        counts[TestXent] += 1
        labels = tf.stop_gradient(tf.convert_to_tensor(labels))
        return nn.softmax_cross_entropy_with_logits(labels, logits, dim, name)

    def dense_v2(labels, logits, name=None):
        counts[TestXent] += 1
        return nn.softmax_cross_entropy_with_logits(labels, logits, name=name)

    def sparse(labels, logits, name=None):
        counts[TestSparseXent] += 1
        return nn.sparse_softmax_cross_entropy_with_logits(labels, logits, name)

    functions = SimpleNamespace(
        softmax_cross_entropy_with_logits=dense,
        softmax_cross_entropy_with_logits_v2=dense_v2,
        sparse_softmax_cross_entropy_with_logits_v2=sparse,
    )
    # Otherwise they look in graphs for the matrix product of TensorFlow's own second derivative.
    config = SimpleNamespace(is_op_determinism_enabled=lambda: True)
    for module in (xent_op_test_base, sparse_xent_op_test_base):
        monkeypatch.setattr(module, "nn_ops", functions)
        monkeypatch.setattr(module, "config", config)
    key = f"{request.cls.__name__}.{request.node.name}"
    if key in EXPECTED_DIFFERENCES:
        mark = pytest.mark.xfail(reason=EXPECTED_DIFFERENCES[key], strict=True)
        request.applymarker(mark)
    yield
    if request.node.name not in ("testNpXent", "testInvalidLabelGPU"):  # their reference; a GPU
        assert counts[request.cls], f"{request.node.name} called no function of softmaxkit"
