"""Generated calls on every library: against the float64 reference, and the laws of the semantics.

SOFTMAXKIT_EXAMPLES is how many each test draws, new ones each time: 2000 in the nox session
`nightly`. Without it the same 100 are drawn each time, 25 on JAX, which compiles each, and 10 on
Dask, which takes 10 times as long as array-api-strict.
"""

import os
from contextlib import nullcontext
from importlib import import_module
from itertools import product
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import softmaxkit
from softmaxkit._operations import BY_CLASS
from softmaxkit.conformance import reference
from softmaxkit.conformance.tolerances import distance, limit

# pytest's importlib mode lets no test import its neighbour.
neighbour = run_path(str(Path(__file__).with_name("drawn_calls.py")))
CLASS_LOSSES, BINARY_LOSSES, LABELS, arrays, calls, size_classes, in_size_class = (
    neighbour[name]
    for name in (
        "CLASS_LOSSES", "BINARY_LOSSES", "LABELS", "arrays", "calls", "size_classes",
        "in_size_class",
    )
)  # fmt: skip

EXAMPLES = os.environ.get("SOFTMAXKIT_EXAMPLES")
DEFAULT = settings(
    deadline=None,
    derandomize=EXAMPLES is None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def draws(**strategies):
    """Give a test of (library, **drawn) its draws."""

    def of_library(test):
        def drawn(library):
            number = int(EXAMPLES or {"dask": 10, "jax": 25}.get(library.adapter.name, 100))
            settings(DEFAULT, max_examples=number)(given(**strategies)(test))(library)

        return drawn

    return of_library


# Calling a library, and comparing.


def convert(library, value, dtype, strided=False):
    """Return the library's array of a NumPy array, its floats rounded to the dtype."""
    if not isinstance(value, np.ndarray | np.generic):  # made by the test
        return value
    dtype = dtype if value.dtype.kind == "f" else None
    if not (strided and value.ndim):
        return library.adapter.to_backend(value, dtype)
    step = -2 if library.adapter.name == "numpy" else 2  # torch has no negative strides
    twice = np.repeat(value[..., :: step // 2], 2, -1)
    return library.adapter.to_backend(twice, dtype)[..., ::step]


def run(library, name, arrays, options, gradient=False):
    """Call it; the inputs are as before, and the results are memory of their own."""
    function = getattr(softmaxkit, name)
    function = softmaxkit.value_and_grad(function) if gradient else function
    inputs = [x for x in [*arrays, *options.values()] if hasattr(x, "dtype")]
    if library.adapter.name not in ("numpy", "torch", "array_api_strict"):  # these are immutable
        inputs = []
    host = [x if isinstance(x, np.ndarray) else library.numpy(x) for x in inputs]
    before = [x.tobytes() for x in host]
    with np.errstate(all="raise") if library.adapter.name == "numpy" else nullcontext():
        results = function(*arrays, **options)
    results = results if gradient else (results,)
    if library.adapter.name == "dask":  # what they share is computed once
        with np.errstate(over="ignore"):  # a result beyond float32 is inf; NumPy says so, later
            results = import_module("dask").persist(*results, scheduler="synchronous")
    after = [x if isinstance(x, np.ndarray) else library.numpy(x) for x in inputs]
    assert before == [x.tobytes() for x in after]
    for x, result in product(host, results):
        assert not np.shares_memory(x, library.numpy(result))
    return results


def wide(library, array):
    array = library.numpy(array)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def largest(x):
    return np.abs(np.asarray(x, np.float64))[np.isfinite(x)].max(initial=0.0)


def agree(library, name, what, got, expected, dtype, scale=0.0):
    assert library.adapter.dtype_name(got) == dtype
    got = library.numpy(got)
    assert got.shape == expected.shape
    error = distance(got, expected, dtype, scale).max(initial=0.0)
    allowed = limit(name, what, True, dtype)
    assert error <= allowed, f"{what}: {error:.4g} ULP, {allowed:g} allowed: {got}, not {expected}"


def largest_terms(name, x, targets, options, gradient):
    """Return the scale of what cancels in the value (z-loss), and in an entry of the gradient."""
    summed = options | {"reduction": "sum", "normalizer": None}
    total = largest(reference.gradient(name, x, targets, **summed))
    per_row = largest(options.get("sample_weight", 1.0))
    per_row *= largest(gradient) / total if total and largest(gradient) else 1.0
    weight = options.get("weight", options.get("alpha", options.get("pos_weight")))
    weight = 1.0 if weight is None else max(largest(weight), 1.0)
    temperature = np.min(options.get("temperature", 1.0), initial=np.inf)
    lse = 2 * options.get("z_loss", 0.0) * largest(x) / temperature
    if targets.dtype.kind != "f" and not options.get("label_smoothing") and not lse:
        return 0.0, 0.0
    rows = 1 if options["reduction"] == "none" else x.size
    gamma = options.get("gamma", 2.0) if "focal" in name else 0.0
    epsilon = options.get("epsilon", 2.0) if "poly" in name else 0.0
    terms = (1 + gamma + epsilon) * weight * max(largest(targets.astype(float)), 1.0) + lse
    return lse * largest(x) / temperature * per_row * rows, terms * per_row / temperature


def check(library, name, dtype, given_arrays, options, strided, native):
    """Hold a call to the reference, its options as arrays of the library or as NumPy's."""
    strided = strided and library.adapter.name in ("numpy", "torch", "array_api_strict")
    arrays = [convert(library, x, dtype, strided) for x in given_arrays]
    exact = [wide(library, x) for x in arrays]
    given_options = {
        key: convert(library, x, dtype, strided) if native and isinstance(x, np.ndarray) else x
        for key, x in options.items()
    }
    if "labels" in library.adapter.lacks and name in CLASS_LOSSES + LABELS:
        options = {**options, "bad_labels": "nan"}
    gradient = None
    try:
        with np.errstate(all="ignore"):
            expected = getattr(reference, name)(*exact, **options)
            if name in CLASS_LOSSES + BINARY_LOSSES:
                gradient = reference.gradient(name, *exact, **options)
    except (ValueError, IndexError) as error:
        with pytest.raises(type(error)):
            run(library, name, arrays, given_options)
        return
    # The derivative of a division by 0, where something is kept, is of no use to anyone.
    divided_by_0 = isinstance(options.get("normalizer"), np.ndarray) and np.isinf(expected)
    floating = given_arrays[0].dtype.kind == "f"
    result = options.get("dtype", dtype if floating else library.adapter.default_float)
    (got,) = run(library, name, arrays, given_options)
    if gradient is None:
        scale = 0.0
        if name == "logsumexp":  # the magnitudes that cancel in max + log(sum) are the maximum's
            scale = largest(exact[0][np.broadcast_to(options.get("where", True), exact[0].shape)])
        agree(library, name, "value", got, expected, result, scale)
        return
    with np.errstate(all="ignore"):
        of_value, of_gradient = largest_terms(name, *exact, options, gradient)
    of_gradient = max(of_gradient, largest(gradient)) if of_gradient else 0.0
    agree(library, name, "value", got, expected, result, of_value)
    value, slope = run(library, name, arrays, given_options, gradient=True)
    agree(library, name, "value", value, expected, result, of_value)
    if not divided_by_0:
        agree(library, name, "gradient", slope, gradient, dtype, of_gradient)


@pytest.mark.parametrize("family", ["activations", "class losses", "binary losses", "labels"])
def test_a_random_call_agrees_with_the_reference(library, family):
    """In every size class of the library, each option beside every other."""

    @draws(data=st.data())
    def agrees(library, data):
        call = data.draw(calls(library.adapter.dtypes, family))
        size_class = data.draw(st.sampled_from(size_classes(library.adapter.name)))
        with in_size_class(size_class, library.adapter.name):
            check(library, *call, strided=data.draw(st.booleans()), native=data.draw(st.booleans()))

    agrees(library)


# The laws, on float32 logits of three classes: a grid on which shifts, and division by a power of
# two, are exact.
GRID = st.integers(-32, 32).map(lambda k: k / 4)
LOGITS_43 = arrays((4, 3), GRID)
LABELS_4 = arrays((4,), st.integers(0, 2), np.int64)
WEIGHTS_3 = arrays((3,), st.sampled_from([0.5, 1.0, 2.0, 3.0]))
SOFTMAXES = st.sampled_from(["softmax", "log_softmax"])
CLASS_LOSS = st.sampled_from(CLASS_LOSSES)


def activation(library, name, x, **options):
    options = {k: convert(library, v, None) if k == "where" else v for k, v in options.items()}
    (result,) = run(library, name, [convert(library, x, "float32")], options)
    return library.numpy(result)


def loss(library, name, x, targets, **options):
    """Return the loss of each row, unless told otherwise, and the gradient, as NumPy's."""
    arrays = [convert(library, v, "float32") for v in (x, targets)]
    options = {
        k: convert(library, v, "float32") if isinstance(v, np.ndarray) else v
        for k, v in ({"reduction": "none"} | options).items()
    }
    return [library.numpy(v) for v in run(library, name, arrays, options, gradient=True)]


def close(name, got, expected, term=0.0):
    """Hold a value, or a value and its gradient, to another; each may be off by the limit.

    `term` is the largest of the terms that the gradient is a difference of, if it is one.
    """
    for what, a, b in zip(("value", "gradient"), got, expected, strict=False):
        assert a.shape == b.shape
        scale = np.maximum(largest(b), term if what == "gradient" else 0.0)
        error = distance(a, b, "float32", scale)
        assert error.max() <= 2 * limit(name, what, True, "float32"), what


def equal(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@draws(x=LOGITS_43, y=LABELS_4, shift=st.integers(-1000, 1000), name=SOFTMAXES)
def test_a_shift_changes_nothing(library, x, y, shift, name):
    equal(activation(library, name, x + shift), activation(library, name, x))
    equal(loss(library, "cross_entropy", x + shift, y), loss(library, "cross_entropy", x, y))


@draws(x=LOGITS_43, y=LABELS_4, weight=WEIGHTS_3, order=st.permutations(range(3)), name=SOFTMAXES)
def test_classes_may_be_permuted(library, x, y, weight, order, name):
    got = activation(library, name, x[:, order])
    close(name, [got], [activation(library, name, x)[:, order]])
    name, options = "cross_entropy", {"label_smoothing": 0.25}
    value, gradient = loss(library, name, x, y, weight=weight, **options)
    got = loss(library, name, x[:, order], np.argsort(order)[y], weight=weight[order], **options)
    close(name, got, [value, gradient[:, order]])


@draws(
    x=LOGITS_43,
    y=LABELS_4,
    kept=st.sets(st.integers(0, 2), min_size=1).map(sorted),
    hidden=st.sampled_from([0.0, 1e30, np.nan, np.inf]),
    name=CLASS_LOSS,
)
def test_a_masked_class_is_as_if_removed(library, x, y, kept, hidden, name):
    where, y = np.isin(range(3), kept), y % len(kept)
    hidden = np.where(where, x, hidden)
    for softmax, absent in (("softmax", 0.0), ("log_softmax", -np.inf)):
        got = activation(library, softmax, hidden, where=where)
        close(softmax, [got[:, kept]], [activation(library, softmax, x[:, kept])])
        assert (got[:, ~where] == absent).all()
    options = {"label_smoothing": 0.25}
    value, gradient = loss(library, name, hidden, np.array(kept)[y], where=where, **options)
    close(name, [value, gradient[:, kept]], loss(library, name, x[:, kept], y, **options))
    assert not gradient[:, ~where].any()


@draws(x=LOGITS_43, y=LABELS_4, smoothing=st.floats(0, 1), name=CLASS_LOSS)
def test_smoothing_is_a_mixture(library, x, y, smoothing, name):
    own = loss(library, name, x, y)
    uniform = loss(library, name, x, np.full((4, 3), 1 / 3))
    expected = [(1 - smoothing) * a + smoothing * b for a, b in zip(own, uniform, strict=True)]
    close(name, loss(library, name, x, y, label_smoothing=smoothing), expected)


@draws(
    x=LOGITS_43,
    y=LABELS_4,
    weight=WEIGHTS_3,
    smoothing=st.sampled_from([0.0, 0.25]),
    reduction=st.sampled_from(["none", "sum"]),
)
def test_focal_loss_with_gamma_0_is_cross_entropy(library, x, y, weight, smoothing, reduction):
    options = {"label_smoothing": smoothing, "reduction": reduction}
    focal = loss(library, "focal_loss", x, y, gamma=0, alpha=weight, **options)
    equal(focal, loss(library, "cross_entropy", x, y, weight=weight, **options))


@draws(
    x=LOGITS_43,
    y=LABELS_4,
    weight=WEIGHTS_3,
    smoothing=st.sampled_from([0.0, 0.25]),
    name=CLASS_LOSS,
)
def test_a_label_is_its_one_hot_row(library, x, y, weight, smoothing, name):
    options = {"reduction": "mean", "normalizer": "weight", "label_smoothing": smoothing}
    options[BY_CLASS[name]] = weight
    encoded = library.numpy(softmaxkit.one_hot(convert(library, y, None), 3))
    expected = loss(library, name, x, y, **options)
    # By probabilities the gradient is p Σ w q - w q, over the weights that went in.
    mass = weight[y]
    term = mass.max() / mass.sum() if mass.any() else 0.0
    close(name, loss(library, name, x, encoded, **options), expected, term)


@draws(
    x=LOGITS_43,
    y=LABELS_4,
    normalizer=st.floats(0.5, 100, width=32),
    array=st.booleans(),
    name=st.sampled_from(CLASS_LOSSES + BINARY_LOSSES),
)
def test_a_number_divides_the_sum(library, x, y, normalizer, array, name):
    y = y if name in CLASS_LOSSES else (x > 1).astype(int)
    expected = [v / normalizer for v in loss(library, name, x, y, reduction="sum")]
    by = np.array(normalizer) if array else normalizer
    close(name, loss(library, name, x, y, reduction="mean", normalizer=by), expected)


@draws(
    x=arrays((6, 3, 5), GRID),
    y=arrays((6, 5), st.integers(0, 2), np.int64),
    soft=st.booleans(),
    block=st.sampled_from([1, 4, 16, 50]),
)
def test_rows_may_come_in_blocks_of_any_size(library, x, y, soft, block):
    """By a backend's own blocks, by Dask's chunks, else by handing it the rows in three parts."""
    targets = softmaxkit.one_hot(y, 3, axis=1) * 0.75 if soft else y

    def results(x, targets):
        options = {"axis": 1, "label_smoothing": 0.25, "z_loss": 0.125}
        value, gradient = loss(library, "cross_entropy", x, targets, **options)
        return value, gradient, activation(library, "log_softmax", x, axis=1)

    classes = [one for one in size_classes(library.adapter.name) if one]
    if classes:
        whole = results(x, targets)
        for one in classes:
            with in_size_class(one, library.adapter.name, block):
                blocks = results(x, targets)
            close("cross_entropy", blocks[:2], whole[:2])
            close("log_softmax", blocks[2:], whole[2:])
    elif library.adapter.name == "dask":
        da, x = import_module("dask.array"), x.astype(np.float32)
        whole = results(da.asarray(x), da.asarray(targets))
        blocks = results(da.from_array(x, chunks=(block, 2, -1)), da.asarray(targets))
    else:
        whole = results(x, targets)
        parts = [results(*part) for part in zip(np.split(x, 3), np.split(targets, 3), strict=True)]
        blocks = [np.concatenate(each) for each in zip(*parts, strict=True)]
    close("cross_entropy", blocks[:2], whole[:2])
    close("log_softmax", blocks[2:], whole[2:])


@draws(x=LOGITS_43, t=arrays((4, 3), st.sampled_from([0.0, 0.125, 0.5, 1.0])))
def test_binary_cross_entropy_is_that_of_two_classes(library, x, t):
    two, q = np.stack([np.zeros_like(x), x], -1), np.stack([1 - t, t], -1)
    value, gradient = loss(library, "cross_entropy", two, q)
    name = "binary_cross_entropy"
    close(name, loss(library, name, x, t), [value, gradient[..., 1]])


@draws(
    x=LOGITS_43,
    y=LABELS_4,
    temperature=st.sampled_from([0.25, 0.5, 2.0, 8.0]),
    softmax=SOFTMAXES,
    name=CLASS_LOSS,
)
def test_temperature_divides_the_logits(library, x, y, temperature, softmax, name):
    hot = activation(library, softmax, x, temperature=temperature)
    equal(hot, activation(library, softmax, x / temperature))
    value, gradient = loss(library, name, x / temperature, y)
    by_temperature = loss(library, name, x, y, temperature=temperature)
    equal(by_temperature[0], value)
    # Below 1e-38 numbers are 1.4e-45 apart, and half of that is lost before the division.
    np.testing.assert_allclose(by_temperature[1], gradient / temperature, rtol=0, atol=3e-45)
