"""NumPy: a row's value and gradient are the same bits in whatever batch, block or thread.

docs/semantics.md says from which size on, and why other libraries cannot promise it.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softmaxkit
from softmaxkit import conformance
from softmaxkit.conformance.case import BINARY_LOSSES, LOSSES

LEAST_ELEMENTS = 1 << 12  # below, few classes are not turned over
# So small that a batch has several, which several threads work on.
BLOCKS = {"BLOCK_ELEMENTS": 1 << 12, "SHARED_ELEMENTS": 1 << 13}


def results(x, labels, probabilities):
    """Return what every operation gives of each row, and its gradient."""
    v = np.broadcast_to(np.linspace(-1, 1, x.shape[1], dtype=np.float32), x.shape)
    found = []
    for name in ("softmax", "log_softmax"):
        found += softmaxkit.vjp(getattr(softmaxkit, name))(x, v)
    found.append(softmaxkit.logsumexp(x))
    for name in LOSSES:
        for targets in (probabilities,) if name in BINARY_LOSSES else (labels, probabilities):
            loss = softmaxkit.value_and_grad(getattr(softmaxkit, name))
            found += loss(x, targets, reduction="none")
    return found


@pytest.mark.skipif("numpy" not in conformance.names(), reason="not among SOFTMAXKIT_BACKENDS")
@settings(deadline=None, max_examples=20)
@given(
    classes=st.sampled_from([2, 10, 64, 65, 100, 300, 1000]),
    seed=st.integers(0, 2**32 - 1),
    larger=st.integers(1, 4),
    spread=st.sampled_from([1.0, 5.0, 60.0]),
    threads=st.sampled_from([1, 2, 3]),
)
def test_a_row_has_the_same_bits_in_every_batch(classes, seed, larger, spread, threads):
    random = np.random.default_rng(seed)
    rows = LEAST_ELEMENTS // classes + 1
    count = larger * rows + int(random.integers(1, 50))
    x = random.normal(0, spread, (count, classes)).astype(np.float32)
    labels, q = random.integers(0, classes, count), random.dirichlet(np.ones(classes), count)
    q = q.astype(np.float32)
    first = int(random.integers(0, count - rows + 1))
    part = slice(first, first + rows)
    with pytest.MonkeyPatch.context() as patch:
        for constant, value in BLOCKS.items():
            patch.setattr(f"softmaxkit.backends.numpy.blocks.{constant}", value)
        patch.setattr("softmaxkit.backends.numpy.pool._count", threads)
        whole = results(x, labels, q)
        patch.undo()
        alone = results(x[part], labels[part], q[part])
    for one, other in zip(whole, alone, strict=True):
        np.testing.assert_array_equal(one[part], other)
