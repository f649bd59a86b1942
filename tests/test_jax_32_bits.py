"""JAX as it is by default, without 64-bit types: what does not fit in 32 bits."""

import numpy as np
import pytest

import softmaxkit

LOGITS = np.array([[2.0, 1.0, 0.0], [0.5, -1.0, 3.0]], "float32")
FAR = [2**31, 2**32, 2**32 - 100, 2**40, 2**63, -(2**31) - 1, -(2**40)]


@pytest.fixture
def jnp(jax):
    jax.config.update("jax_enable_x64", False)
    yield jax.numpy
    jax.config.update("jax_enable_x64", True)  # as the adapter of the suite has it


@pytest.mark.parametrize("ignore_index", FAR)
@pytest.mark.parametrize("jit", [False, True])
def test_no_label_is_an_ignore_index_that_does_not_fit(jax, jnp, ignore_index, jit):
    def loss(x, y):
        return softmaxkit.cross_entropy(x, y, ignore_index=ignore_index, reduction="none")

    rows = (jax.jit(loss) if jit else loss)(jnp.asarray(LOGITS), jnp.array([0, 2]))
    np.testing.assert_allclose(rows, softmaxkit.cross_entropy(LOGITS, [0, 2], reduction="none"))


# NumPy makes floats of a list of 0 and 2**63.
@pytest.mark.parametrize("ignore_index", [far for far in FAR if far != 2**63])
@pytest.mark.parametrize("of", [list, np.array])
@pytest.mark.parametrize("jit", [False, True])
def test_labels_of_the_host_do_not_wrap(jax, jnp, ignore_index, of, jit):
    def loss(x):
        labels = of([0, ignore_index])
        return softmaxkit.cross_entropy(x, labels, ignore_index=ignore_index, reduction="none")

    value = (jax.jit(loss) if jit else loss)(jnp.asarray(LOGITS))
    first = softmaxkit.cross_entropy(LOGITS[:1], [0])
    np.testing.assert_allclose(value, [first, 0.0])
    with pytest.raises(IndexError, match=rf"targets\[1\] is {ignore_index}; "):
        softmaxkit.cross_entropy(jnp.asarray(LOGITS), of([0, ignore_index]))


def test_jax_warns_that_it_has_no_float64(jax, jnp):
    x = jnp.asarray(LOGITS)
    calls = [
        lambda: softmaxkit.softmax(x, dtype="float64"),
        lambda: softmaxkit.cross_entropy(x, [0, 2], dtype=np.float64),
        lambda: jax.jit(lambda x: softmaxkit.logsumexp(x, dtype=jnp.float64))(x),
        lambda: softmaxkit.one_hot(jnp.array([0, 2]), 3, dtype="float64"),
        lambda: softmaxkit.binary_cross_entropy(x, x > 0, dtype="float64"),
    ]
    for call in calls:
        with pytest.warns(UserWarning, match="dtype float64 .* truncated to dtype float32"):
            assert call().dtype == "float32"
    softmaxkit.cross_entropy(x, [0, 2], weight=np.ones(3))  # asks for nothing
