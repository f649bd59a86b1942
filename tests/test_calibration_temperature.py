"""fit_temperature: held to mpmath, the same on every library, and what it does at the ends."""

import warnings
from itertools import pairwise

import numpy as np
import pytest

from softmaxkit import cross_entropy
from softmaxkit.calibration import _rows, _temperature, fit_temperature

# What rounding the logits' e^(z/T) to float32 leaves of T, where a library has no float64.
IN_FLOAT32 = 1e-4
# Newton stops where its last step was 1e-7, and leaves the square of it.
IN_FLOAT64 = 1e-9


def drawn(rows=400, classes=6, temperature=2.0, seed=0):
    """Return logits, and labels that follow softmax of the logits over a temperature."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (rows, classes)).astype("float32")
    labels = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(1)
    return logits, labels


def slope(logits, labels, temperature, weight=1.0):
    """Return the derivative of the sum by 1/T, and the size of its terms, in mpmath."""
    mp = pytest.importorskip("mpmath", reason="mpmath, which is the truth here, is missing").mp
    total = size = mp.mpf(0)
    with mp.workdps(40):
        for row, y, w in zip(logits, labels, np.broadcast_to(weight, len(labels)), strict=True):
            z = [mp.mpf(float(one)) for one in row]
            top = max(z)
            e = [mp.exp((one - top) / mp.mpf(temperature)) for one in z]
            expected = mp.fsum(a * (top - b) for a, b in zip(e, z, strict=True)) / mp.fsum(e)
            total += float(w) * (top - z[y] - expected)
            size += float(w) * (top - z[y] + expected)
    return float(total), float(size)


def fitted(logits, labels, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fit_temperature(logits, labels, **options)


# --- the one answer -------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [0.01, 0.7, 2.0, 30.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_derivative_is_0_there(temperature, scale):
    logits, labels = drawn(120, temperature=temperature)
    logits = logits * np.float32(scale)
    value = fitted(logits, labels)
    if value < 1e12:
        derivative, size = slope(logits, labels, value)
        assert abs(derivative) <= 1e-10 * size


def test_closed_form():
    """Of two classes with gaps of 4, three of four are right: p = 3/4, and T = 4 / log 3."""
    logits = [[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [0.0, 4.0]]
    assert fit_temperature(logits, [0, 0, 1, 1]) == pytest.approx(4 / np.log(3), rel=IN_FLOAT64)


def test_nearly_separable():
    """One label in 1001 is wrong, by next to nothing: T = margin / log 1000."""
    logits = np.tile([[1.0, 0.0]], (1001, 1))
    labels = np.arange(1001) == 0
    expected = 1 / np.log(1000)
    assert fit_temperature(logits, labels.astype(int)) == pytest.approx(expected, rel=IN_FLOAT64)


def test_next_to_chance():
    """Of 10,001 pairs one more is right than wrong: p - 1/2 is 1/20002."""
    logits = np.tile([[1.0, 0.0]], (10_001, 1))
    labels = (np.arange(10_001) < 5_000).astype(int)
    expected = 1 / np.log(5_001 / 5_000)
    # The gaps, which agree to 4 digits there, are summed to 16.
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=1e-9)


def test_the_same_on_every_library(library):
    logits, labels = drawn()
    wide = np.float64(logits)
    expected = fit_temperature(wide, labels)
    array = library.array(logits)
    precise = library.backend.to_host(library.backend.ops.widest(array)).dtype == np.float64
    tolerance = 1e-6 if precise else IN_FLOAT32
    value = fit_temperature(array, library.array(labels, "int32"))
    assert type(value) is float
    assert value == pytest.approx(expected, rel=tolerance)


def test_half_precision_is_what_it_holds(library):
    if "float16" in library.adapter.lacks:
        pytest.skip(library.adapter.lacks["float16"])
    logits, labels = drawn(100)
    expected = fit_temperature(np.float64(np.float16(logits)), labels)
    value = fit_temperature(library.array(logits, "float16"), library.array(labels, "int32"))
    assert value == pytest.approx(expected, rel=IN_FLOAT32)


def test_nothing_lowers_the_loss():
    logits, labels = drawn()
    value = fit_temperature(logits, labels)
    losses = [
        cross_entropy(logits, labels, temperature=value * factor, dtype="float64")
        for factor in (0.9, 1.0, 1.1)
    ]
    assert min(losses) == losses[1]


@pytest.mark.parametrize("seed", range(5))
def test_in_blocks_and_from_a_sample(library, monkeypatch, seed):
    logits, labels = drawn(300, seed=seed)
    expected = fit_temperature(np.float64(logits), labels)
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 500)
    monkeypatch.setattr(_temperature, "SAMPLE_ELEMENTS", 200)
    value = fit_temperature(library.array(logits), library.array(labels, "int32"))
    assert value == pytest.approx(expected, rel=IN_FLOAT32)


def test_a_sample_that_is_separable_or_worse_than_chance(monkeypatch):
    monkeypatch.setattr(_temperature, "SAMPLE_ELEMENTS", 100)
    logits, labels = drawn(300)
    expected = fit_temperature(logits, labels)
    for other in (logits.argmax(1), logits.argmin(1)):
        labels[::18], kept = other[::18], labels[::18].copy()
        value = fit_temperature(logits, labels)
        derivative, size = slope(logits, labels, value)
        assert abs(derivative) <= 1e-10 * size
        labels[::18] = kept
    assert fit_temperature(logits, labels) == pytest.approx(expected, rel=IN_FLOAT64)


# --- what it does not depend on -------------------------------------------------------------------
def test_t_scales_with_the_logits():
    logits, labels = drawn()
    value = fit_temperature(logits, labels)
    for scale in (2.0**-20, 8.0, 2.0**20):
        scaled = fit_temperature(np.float64(logits) * scale, labels)
        assert scaled == pytest.approx(scale * value, rel=IN_FLOAT64)


def test_what_is_added_to_a_row_and_the_order_of_rows_and_classes():
    logits, labels = drawn()
    rng = np.random.default_rng(1)
    wide = np.float64(logits)
    value = fit_temperature(wide, labels)
    shifted = wide + rng.integers(-1000, 1000, (len(wide), 1))
    assert fit_temperature(shifted, labels) == pytest.approx(value, rel=IN_FLOAT64)
    rows, classes = rng.permutation(len(wide)), rng.permutation(wide.shape[1])
    mixed = wide[rows][:, classes]
    assert fit_temperature(mixed, classes.argsort()[labels[rows]]) == pytest.approx(
        value, rel=IN_FLOAT64
    )


def test_weights_are_repetitions(library):
    logits, labels = drawn(100)
    times = np.random.default_rng(2).integers(0, 4, len(labels))
    expected = fit_temperature(np.float64(logits.repeat(times, 0)), labels.repeat(times))
    value = fit_temperature(
        library.array(logits),
        library.array(labels, "int32"),
        sample_weight=library.array(times, "int32"),
    )
    assert value == pytest.approx(expected, rel=IN_FLOAT32)


def test_rows_that_are_left_out_may_hold_anything(library):
    logits, labels = drawn(50)
    expected = fit_temperature(np.float64(logits), labels)
    nan, inf = np.full((1, 6), np.nan), np.full((1, 6), np.inf)
    more = np.concatenate([nan, logits, inf, np.full((1, 6), -np.inf)])
    labels, weight = np.array([-100, *labels, 0, 1]), np.array([1.0] * 51 + [0.0] * 2)
    value = fit_temperature(
        library.array(more), library.array(labels, "int32"), sample_weight=library.array(weight)
    )
    assert value == pytest.approx(expected, rel=IN_FLOAT32)


def test_masked_classes_are_as_if_absent(library):
    logits, labels = drawn(80)
    expected = fit_temperature(np.float64(logits[:, :4]), labels % 4)
    mask = np.arange(6) < 4
    logits[:, 4:] = 1e9
    given = library.array(logits), library.array(labels % 4, "int32")
    value = fit_temperature(*given, where=library.array(mask, "bool"))
    assert value == pytest.approx(expected, rel=IN_FLOAT32)
    logits[:, 4:] = -np.inf
    value = fit_temperature(library.array(logits), given[1])
    assert value == pytest.approx(expected, rel=IN_FLOAT32)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_any_axis(library, monkeypatch, axis):
    monkeypatch.setattr(_rows, "BLOCK_ELEMENTS", 40)
    logits, labels = drawn(60)
    expected = fit_temperature(np.float64(logits), labels)
    logits = np.moveaxis(logits.reshape(12, 5, 6), -1, axis)
    labels = labels.reshape(12, 5)
    weight = np.ones((12, 1))
    value = fit_temperature(
        library.array(logits),
        library.array(labels, "int32"),
        axis=axis,
        sample_weight=library.array(weight),
    )
    assert value == pytest.approx(expected, rel=IN_FLOAT32)


# --- the ends -------------------------------------------------------------------------------------
def test_separable_labels_give_the_smallest(library):
    logits, _ = drawn(50)
    given = library.array(logits), library.array(logits.argmax(1), "int32")
    with pytest.warns(UserWarning, match="every label has the largest logit"):
        value = fit_temperature(*given)
    assert value == 1e-12
    assert np.isfinite(library.numpy(cross_entropy(*given, temperature=value)))


def test_worse_than_chance_gives_the_largest(library):
    logits, _ = drawn(50)
    given = library.array(logits), library.array(logits.argmin(1), "int32")
    with pytest.warns(UserWarning, match="no better than chance"):
        value = fit_temperature(*given)
    assert value == 1e12
    loss = library.numpy(cross_entropy(*given, temperature=value))
    assert loss == pytest.approx(np.log(6), rel=1e-6)  # uniform, in float32


def test_equal_logits_give_1(library):
    given = library.array(np.ones((3, 4))), library.array([0, 1, 2], "int32")
    with pytest.warns(UserWarning, match="every row has equal logits"):
        assert fit_temperature(*given) == 1.0


def test_one_row_and_one_class():
    assert fitted([2.0, 1.0], 0) == 1e-12
    assert fitted([2.0, 1.0], 1) == 1e12
    assert fitted([[1.0], [2.0]], [0, 0]) == 1.0


def test_t_rises_with_the_share_of_wrong_labels():
    logits, labels = drawn(200, temperature=0.2)
    rng = np.random.default_rng(3)
    found = []
    for wrong in (0, 20, 60, 120, 200):
        mixed = labels.copy()
        mixed[:wrong] = rng.integers(0, 6, wrong)
        found.append(fitted(logits, mixed))
    assert all(a < b for a, b in pairwise(found))
    assert all(0 < one < np.inf for one in found)


# --- what is being traced -------------------------------------------------------------------------
def test_jit_is_refused(jax):
    logits, labels = drawn(20)
    with pytest.raises(TypeError, match=r"fit_temperature: logits is a .* has no values"):
        jax.jit(lambda x: fit_temperature(x, labels))(logits)


def test_tf_function_is_refused(tf):
    logits, labels = drawn(20)
    with pytest.raises(TypeError, match=r"fit_temperature: logits is a .* has no values"):
        tf.function(lambda x: fit_temperature(x, labels))(tf.constant(logits))


def test_torch_func_and_compile_are_refused(torch):
    logits, labels = drawn(20)

    def call(x):
        return x.sum() * fit_temperature(x, labels)

    with pytest.raises(TypeError, match=r"fit_temperature: logits is a .* has no values"):
        torch.func.grad(call)(torch.tensor(logits))


def test_a_tensor_that_trains_is_only_read(torch):
    logits, labels = drawn(20)
    x = torch.tensor(logits, requires_grad=True)
    assert fit_temperature(x, labels) == pytest.approx(fit_temperature(logits, labels))
    assert x.grad is None


def test_jax_as_it_is_by_default(jax):
    """Without 64-bit types."""
    logits, labels = drawn()
    expected = fit_temperature(np.float64(logits), labels)
    jax.config.update("jax_enable_x64", False)
    try:
        value = fit_temperature(jax.numpy.asarray(logits), jax.numpy.asarray(labels))
        derivative, size = slope(logits, labels, value)
    finally:
        jax.config.update("jax_enable_x64", True)  # as the adapter of the suite has it
    assert value == pytest.approx(expected, rel=IN_FLOAT32)
    assert abs(derivative) <= 1e-6 * size
