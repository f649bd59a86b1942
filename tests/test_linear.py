"""linear_cross_entropy: against mpmath, in any chunks, and what it leaves as it was."""

import json
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import softmaxkit
from softmaxkit import linear_cross_entropy
from softmaxkit.conformance import reference_linear

GOLDEN = json.loads((Path(__file__).parent / "golden" / "golden.json").read_text("utf-8"))
EPS = np.finfo(np.float64).eps
RANDOM = np.random.default_rng(0)
H, M = RANDOM.normal(size=(10, 4)), RANDOM.normal(size=(6, 4))
Y = np.array([0, 5, -100, 2, 1, 3, 4, 0, -100, 1])


def is_of_a_product(case):
    """Return whether the logits may be a product, and the options are those of one."""
    options = case["options"]
    rows = case["logits"]
    return (
        case["op"] == "cross_entropy"
        and isinstance(rows[0], list)
        and not isinstance(rows[0][0], list)
        and all(isinstance(z, int | float) for row in rows for z in row)
        and not isinstance(options.get("temperature"), list)
        and np.ndim(options.get("where", [True])) == 1
        and options.get("axis", -1) in (-1, 1)
    )


@pytest.mark.parametrize("chunk_size", [None, 1])
def test_logits_times_the_identity_against_mpmath(library, chunk_size):
    some = [case for case in GOLDEN["cases"] if is_of_a_product(case)]
    assert len(some) > 20
    if library.adapter.name == "jax":  # which compiles each
        some = some[::8]
    array = partial(library.array, dtype="float64")
    for case in some:
        logits, targets = array(case["logits"]), np.asarray(case["targets"])
        of_float = targets.dtype.kind == "f"
        targets = array(targets) if of_float else library.array(targets, None)
        options = {
            name: library.array(value, None if name == "where" else "float64")
            for name, value in case["options"].items()
            if isinstance(value, list)
        }
        options = case["options"] | options | {"chunk_size": chunk_size}
        options.pop("axis", None)
        identity = array(np.eye(logits.shape[1]))
        value, found = softmaxkit.value_and_grad(linear_cross_entropy)(
            logits, identity, targets, **options
        )
        want = np.asarray([float(one) for one in np.ravel(case["value"])])
        got = library.numpy(value).ravel()
        # Limits of saturated rows in the suite are 512 units of float64; golden ones need fewer.
        np.testing.assert_allclose(got, want, rtol=64 * EPS, err_msg=case["name"])
        gradient = np.asarray(case["gradient"], np.float64)
        error = np.abs(library.numpy(found.hidden) - gradient)
        largest = max(1.0, np.abs(gradient).max())
        assert error.max() <= 64 * EPS * largest, case["name"]


@pytest.mark.parametrize("chunk_size", [None, 2, (2, 3)])
@pytest.mark.parametrize("case", GOLDEN["linear"], ids=lambda case: case["name"])
def test_products_against_mpmath(library, case, chunk_size):
    array, options = partial(library.array, dtype="float64"), dict(case["options"])
    hidden, weight_matrix = array(case["hidden"]), array(case["weight_matrix"])
    targets = np.asarray(case["targets"])
    targets = array(targets) if targets.ndim > 1 else library.array(targets, None)
    for name in ("bias", "weight", "sample_weight"):
        if name in options:
            options[name] = array(options[name])
    if "where" in options:
        options["where"] = library.array(np.asarray(options["where"][0]), None)
    loss = softmaxkit.value_and_grad(linear_cross_entropy)
    value, found = loss(hidden, weight_matrix, targets, **options, chunk_size=chunk_size)
    for name, got in zip(
        ("value", "of_hidden", "of_weights", "of_bias"), (value, *found), strict=True
    ):
        if got is not None:
            want = np.asarray(case[name])
            error = np.abs(library.numpy(got) - want).max()
            # Sums of up to 15 products, each rounded; NumPy needs 3 units.
            assert error <= 16 * EPS * max(1.0, np.abs(want).max()), name


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("classes", [2047, 50257, 128256, 151936])
def test_a_vocabulary_in_chunks_of_any_size(library, classes, reduction):
    hidden = RANDOM.normal(size=(9, 8)).astype("float32") * 2
    weight_matrix = RANDOM.normal(size=(classes, 8)).astype("float32") - 3
    targets = RANDOM.integers(0, classes, 9)
    options = {"softcap": 1.0, "bias": np.full(classes, -30, "float32"), "reduction": reduction}
    arrays = library.array(hidden), library.array(weight_matrix), library.array(targets, None)
    # Nearly all logits are -1, and the sum over them is what a library's own kernel makes of it.
    z, _ = reference_linear.capped_logits(hidden, weight_matrix, options["bias"], 1.0)
    want = library.numpy(softmaxkit.cross_entropy(library.array(z), arrays[2], reduction=reduction))
    options["bias"] = library.array(options["bias"])
    for chunk_size in (1, 4, None, (4, classes // 3)):
        got = library.numpy(linear_cross_entropy(*arrays, **options, chunk_size=chunk_size))
        np.testing.assert_allclose(got, want, rtol=4 * np.finfo(np.float32).eps)


def test_the_error_does_not_grow_with_the_chunks(library):
    if "bfloat16" in library.adapter.lacks:
        pytest.skip(library.adapter.lacks["bfloat16"])
    rows, width, classes = 512, 16, 40
    arrays = [RANDOM.normal(size=shape) for shape in ((rows, width), (classes, width))]
    hidden, weight_matrix = (library.array(one, "bfloat16") for one in arrays)
    exact = [library.numpy(one).astype("float64") for one in (hidden, weight_matrix)]
    targets = RANDOM.integers(0, classes, rows)
    (_, want, _), _ = reference_linear.linear_gradients(*exact, targets)
    errors = []
    for chunk_size in (rows, 64, 8):
        _, found = softmaxkit.value_and_grad(linear_cross_entropy)(
            hidden, weight_matrix, library.array(targets, None), chunk_size=chunk_size
        )
        got = library.numpy(found.weight_matrix).astype("float64")
        errors.append(np.abs(got - want).max())
    assert max(errors) <= 1.1 * errors[0]


EVERY_ROW = {
    "softcap": 3.0, "label_smoothing": 0.1, "z_loss": 0.01, "sample_weight": [0.0] + [1.5] * 9,
    "where": [True] * 5 + [False], "bias": RANDOM.normal(size=6).tolist(),
}  # fmt: skip


@pytest.mark.parametrize(
    ("reduction", "chunk_size"), [("mean", 6), ("none", None), ("sum", (4, 4))]
)
def test_all_outputs(library, reduction, chunk_size):
    targets = np.where(Y == 5, 4, Y)
    exact = {name: np.asarray(one) for name, one in EVERY_ROW.items()}
    options = exact | {"temperature": 1.7, "reduction": reduction}
    want = reference_linear.linear_outputs(H, M, targets, **options)
    by_row = [RANDOM.normal(size=10) for _ in range(4)]

    def total(outputs):
        """Return a number that sees every output but argmax."""
        return sum((one * by).sum() for one, by in zip(outputs[:4], by_row, strict=True))

    along = RANDOM.normal(size=H.shape)

    def varied(step):
        return total(reference_linear.linear_outputs(H + step * along, M, targets, **options))

    slope = (varied(1e-5) - varied(-1e-5)) / 2e-5
    array = partial(library.array, dtype="float64")
    dtypes = {"where": None}
    options |= {
        name: library.array(one, dtypes.get(name, "float64")) if one.ndim else float(one)
        for name, one in exact.items()
    }
    options |= {"outputs": "all", "chunk_size": chunk_size}
    labels = library.array(targets, None)
    got = linear_cross_entropy(array(H), array(M), labels, **options)
    for name, one in want._asdict().items():
        found = library.numpy(getattr(got, name))
        # Of float64, whose numbers are 2.2e-16 apart: products, an exp, its sum and a logarithm.
        np.testing.assert_allclose(found, one, rtol=1e-13, atol=1e-15, err_msg=name)
    both, found = softmaxkit.value_and_grad(linear_cross_entropy)(
        array(H), array(M), labels, **options
    )
    np.testing.assert_array_equal(*(library.numpy(one.argmax) for one in (both, got)))
    (of_hidden, _, _), _ = reference_linear.linear_gradients(
        H, M, targets, **exact, temperature=1.7, reduction=reduction
    )
    # Sums of those, in which terms near 1 cancel.
    np.testing.assert_allclose(library.numpy(found.hidden), of_hidden, rtol=1e-12, atol=1e-14)
    if "autodiff" in library.adapter.lacks:
        return
    by_row = [array(one) for one in by_row]

    def sums(outputs):
        if library.adapter.name != "tensorflow":
            return total(outputs)
        import tensorflow as tf

        return sum(tf.reduce_sum(one * by) for one, by in zip(outputs[:4], by_row, strict=True))

    def function(hidden, weight_matrix, labels):
        return sums(linear_cross_entropy(hidden, weight_matrix, labels, **options))

    given = array(H), array(M), labels
    for name, transform in library.adapter.transforms.items():
        # Of unknown sizes, which the mask and the bias have not; and what compiles for a minute.
        if name in ("export", "inductor"):
            continue
        if name != "eager" and reduction != "mean":  # one compilation is enough
            continue
        _, product = transform.vjp(function, given, 0, array(1.0))
        change = (library.numpy(product) * along).sum()
        # What a difference over 2e-5 has right of totals of up to 100.
        np.testing.assert_allclose(change, slope, rtol=1e-8, atol=1e-8, err_msg=name)


def test_hidden_is_not_rounded_to_the_dtype_of_the_weight_matrix(library):
    if "bfloat16" in library.adapter.lacks:
        pytest.skip(library.adapter.lacks["bfloat16"])
    hidden, weight_matrix = library.array(H), library.array(M, "bfloat16")
    exact = [library.numpy(one).astype("float64") for one in (hidden, weight_matrix)]
    got = library.numpy(linear_cross_entropy(hidden, weight_matrix, library.array(Y, None)))
    # Rounded to bfloat16, hidden would move it by 1e-3.
    want = reference_linear.linear_cross_entropy(*exact, Y)
    np.testing.assert_allclose(got, want, rtol=2e-6)


def test_torch_gives_two_gradients_and_keeps_its_inputs(torch):
    torch.manual_seed(0)
    hidden = torch.randn(10, 4, requires_grad=True)
    weight_matrix = torch.randn(6, 4, requires_grad=True)
    before = hidden.detach().clone(), weight_matrix.detach().clone()
    targets = torch.from_numpy(Y)
    loss = linear_cross_entropy(hidden, weight_matrix, targets, chunk_size=4)
    first = torch.autograd.grad(loss, (hidden, weight_matrix), torch.tensor(3.0), retain_graph=True)
    kept = [one.clone() for one in first]
    second = torch.autograd.grad(loss, (hidden, weight_matrix), torch.tensor(6.0))
    for one, as_it_was, twice in zip(first, kept, second, strict=True):
        torch.testing.assert_close(one, as_it_was, rtol=0, atol=0)
        torch.testing.assert_close(2 * one, twice)
    torch.testing.assert_close((hidden.detach(), weight_matrix.detach()), before, rtol=0, atol=0)


def test_tied_weights_of_torch_get_the_sum_of_both_uses(torch):
    table = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    tokens, targets = torch.tensor([0, 5, 2]), torch.tensor([5, 2, 1])
    loss = linear_cross_entropy(table[tokens], table, targets, chunk_size=2)
    plain = softmaxkit.cross_entropy(table[tokens] @ table.T, targets)
    (got,), (want,) = (torch.autograd.grad(one, table) for one in (loss, plain))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_ignored_rows_are_not_multiplied(library, monkeypatch, reduction):
    if library.adapter.name not in ("numpy", "torch"):
        pytest.skip("JAX and TensorFlow compile for a number of rows; a lazy library has no values")
    module = import_module(f"softmaxkit.backends.{library.adapter.name}.linear")
    products, rows = module.PRODUCTS, []

    def against(hidden, weight_matrix):
        rows.append(len(hidden))
        return products.against(hidden, weight_matrix)

    monkeypatch.setattr(module, "PRODUCTS", products._replace(against=against))
    softmaxkit.value_and_grad(linear_cross_entropy)(
        library.array(H), library.array(M), library.array(Y, None), reduction=reduction
    )
    assert set(rows) == {np.count_nonzero(Y != -100)}


def test_a_sum_of_no_row_over_nothing(library):
    """What an average over the labels of a batch without labels is."""
    if library.adapter.name not in ("torch", "tensorflow"):
        pytest.skip("NumPy and Dask have no autodiff; JAX keeps gradients, and 0 x inf is NaN")
    given = [library.array(H), library.array(M), library.array(np.full(10, -100), None)]

    def average(hidden, weight_matrix, labels):
        return linear_cross_entropy(hidden, weight_matrix, labels, reduction="sum") / 0.0

    for by in (0, 1):
        value, found = library.adapter.transforms["eager"].vjp(
            average, given, by, library.array(np.array(1.0))
        )
        assert np.isnan(library.numpy(value))
        assert (library.numpy(found) == 0).all()


def test_only_what_trains_on_torch_gets_a_gradient(torch):
    hidden = torch.randn(10, 4, requires_grad=True)
    weight_matrix = torch.randn(6, 4)
    linear_cross_entropy(hidden, weight_matrix, torch.from_numpy(Y)).backward()
    assert hidden.grad is not None
    assert weight_matrix.grad is None


def test_autocast_of_torch_multiplies_in_half_precision(torch):
    hidden, weight_matrix = torch.randn(10, 4), torch.randn(6, 4)
    targets = torch.from_numpy(Y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = linear_cross_entropy(hidden, weight_matrix, targets)
    want = linear_cross_entropy(
        hidden.bfloat16(), weight_matrix.bfloat16(), targets, dtype=torch.float32
    )
    assert got.dtype is torch.float32
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_the_logits_are_never_whole(torch):
    """No tensor on the way is as large as the logits, forwards or backwards."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            for one in out if isinstance(out, tuple | list) else [out]:
                if isinstance(one, torch.Tensor):
                    self.size = max(self.size, one.numel())
            return out

    hidden = torch.randn(64, 4, requires_grad=True)
    weight_matrix = torch.randn(500, 4, requires_grad=True)
    targets = torch.randint(0, 500, (64,))
    # The mode does not see what is done behind a node but by the node's own kernels.
    for reduction in ("mean", "none"):
        with Largest() as largest, torch.no_grad():
            linear_cross_entropy(
                hidden, weight_matrix, targets, chunk_size=8, label_smoothing=0.1,
                reduction=reduction,
            )  # fmt: skip
        assert largest.size == 8 * 500


def test_unknown_lengths_of_tensorflow(tf):
    specs = [tf.TensorSpec((None, 4)), tf.TensorSpec((None, 4)), tf.TensorSpec((None,), tf.int32)]

    @tf.function(input_signature=specs)
    def both(hidden, weight_matrix, targets):
        with tf.GradientTape() as tape:
            tape.watch((hidden, weight_matrix))
            loss = linear_cross_entropy(hidden, weight_matrix, targets, chunk_size=3)
        return loss, tape.gradient(loss, (hidden, weight_matrix))

    value, found = both(*(tf.constant(one, tf.float32) for one in (H, M)), tf.constant(Y, tf.int32))
    # Products in float32, of which the gradients are sums: entries are near 1.
    np.testing.assert_allclose(value, reference_linear.linear_cross_entropy(H, M, Y), rtol=1e-6)
    (of_hidden, of_weights, _), _ = reference_linear.linear_gradients(H, M, Y)
    np.testing.assert_allclose(found[0], of_hidden, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[1], of_weights, rtol=1e-5, atol=1e-7)
    with pytest.raises(tf.errors.InvalidArgumentError, match="linear_cross_entropy: targets holds"):
        both(*(tf.constant(one, tf.float32) for one in (H, M)), tf.fill([10], 6))


def test_second_derivatives(library):
    """A Hessian-vector product is the difference of gradients."""
    if "autodiff" in library.adapter.lacks:
        pytest.skip(f"{library} has no autodiff")
    name = library.adapter.name
    step = 1e-5
    direction = RANDOM.normal(size=H.shape)
    (up, _, _), _ = reference_linear.linear_gradients(H + step * direction, M, Y, softcap=2.0)
    (down, _, _), _ = reference_linear.linear_gradients(H - step * direction, M, Y, softcap=2.0)
    want = (up - down) / (2 * step)
    hidden, weight_matrix, along = (library.array(one, "float64") for one in (H, M, direction))
    targets = library.array(Y, None)

    def loss(hidden):
        return linear_cross_entropy(hidden, weight_matrix, targets, softcap=2.0, chunk_size=4)

    if name == "torch":
        import torch

        hidden.requires_grad_()
        (first,) = torch.autograd.grad(loss(hidden), hidden, create_graph=True)
        got = torch.autograd.grad(first, hidden, along)[0]
    elif name == "jax":
        import jax

        got = jax.jvp(jax.grad(loss), (hidden,), (along,))[1]
    else:
        import tensorflow as tf

        with tf.GradientTape() as outer:
            outer.watch(hidden)
            with tf.GradientTape() as inner:
                inner.watch(hidden)
                value = loss(hidden)
            first = inner.gradient(value, hidden)
        got = outer.gradient(first, hidden, along)
    # What a difference of gradients over 1e-5 has right.
    np.testing.assert_allclose(library.numpy(got), want, rtol=1e-6, atol=1e-8)


QUARTERS = st.integers(-12, 12).map(lambda n: n / 4)
POSITIVE = st.sampled_from([0.0, 0.25, 1.0, 3.0])
# JAX and TensorFlow trace each call anew, Dask computes a graph for each result.
EXAMPLES = {"jax": 25, "tensorflow": 60, "dask": 20}


@st.composite
def calls(draw):
    """Draw hidden vectors, a weight matrix, targets and options, all in NumPy."""
    lead = draw(st.sampled_from([(), (1,), (5,), (2, 3), (0,)]))
    width, classes = draw(st.integers(1, 3)), draw(st.integers(1, 6))

    def array(*shape, elements=QUARTERS):
        count = int(np.prod(shape))
        numbers = draw(st.lists(elements, min_size=count, max_size=count))
        return np.array(numbers, bool if elements is KEPT else None).reshape(shape)

    every = {
        "bias": lambda: array(classes),
        "softcap": lambda: draw(st.sampled_from([0.5, 2.0, 30.0])),
        "chunk_size": lambda: draw(st.sampled_from([1, 2, (2, 2), (None, 1), (1, 4)])),
        "weight": lambda: array(classes, elements=POSITIVE),
        "sample_weight": lambda: array(*lead, elements=POSITIVE),
        "where": lambda: array(classes, elements=KEPT),
        "label_smoothing": lambda: draw(st.sampled_from([0.1, 1.0])),
        "temperature": lambda: draw(st.sampled_from([0.5, 3.0])),
        "z_loss": lambda: 0.01,
        "normalizer": lambda: draw(st.sampled_from(["count", "batch", 3.0])),
    }
    chosen = draw(st.lists(st.sampled_from(sorted(every)), unique=True, max_size=5))
    options = {name: every[name]() for name in chosen}
    if "normalizer" not in options:
        options["reduction"] = draw(st.sampled_from(["mean", "sum", "none"]))
    if draw(st.booleans()):
        targets = array(*lead, classes, elements=POSITIVE)
        if options.get("normalizer") == "batch":
            del options["normalizer"]
    else:
        labels = st.integers(0, classes - 1) | st.just(-100)
        targets = array(*lead, elements=labels).astype(np.int64)
    return array(*lead, width), array(classes, width), targets, options


KEPT = st.booleans()


def test_drawn_calls_against_the_whole_logits(library):
    @settings(max_examples=EXAMPLES.get(repr(library), 100), deadline=None, derandomize=True)
    @given(drawn=calls())
    def agree(drawn):
        *exact, options = drawn
        want = reference_linear.linear_cross_entropy(*exact, **options)
        gradients, terms = reference_linear.linear_gradients(*exact, **options)

        def native(array):
            if not isinstance(array, np.ndarray):
                return array
            return library.array(array, "float64" if array.dtype.kind == "f" else None)

        arrays = [native(one) for one in exact]
        given_options = {name: native(one) for name, one in options.items()}
        value, found = softmaxkit.value_and_grad(linear_cross_entropy)(*arrays, **given_options)
        got = library.numpy(value)
        assert got.shape == np.shape(want)
        # The limit of golden values above; gradients at the terms that they are sums of.
        np.testing.assert_allclose(got, want, rtol=64 * EPS, atol=64 * EPS)
        for name, one, true, scale in zip(found._fields, found, gradients, terms, strict=True):
            if one is not None:
                one = library.numpy(one)
                same = (one == true) | (np.isnan(one) & np.isnan(true))
                near = np.abs(one - true) <= 64 * EPS * np.maximum(scale, 1.0)
                assert (same | near).all(), (name, one, true)

    with np.errstate(all="ignore"):
        agree()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_half_precision_on_an_accelerator(torch, monkeypatch, reduction):
    """Products of half precision with results in float32, which a CPU lacks, stand in for mm."""
    from softmaxkit.backends.torch import linear

    calls = []

    def product(a, b, out_dtype):
        assert (a.dtype, b.dtype, out_dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)
        calls.append(a.shape)
        return a.float() @ b.float()

    monkeypatch.setattr(torch, "mm", product)
    monkeypatch.setattr(linear, "PRODUCTS", linear.PRODUCTS._replace(operand=lambda x: x))
    hidden, weight_matrix = (
        torch.tensor(one).bfloat16().requires_grad_() for one in (np.tile(H, (20, 1)), M)
    )
    targets = torch.tensor(np.tile(Y, 20))
    exact = [one.detach().double().numpy() for one in (hidden, weight_matrix)]
    want = reference_linear.linear_cross_entropy(*exact, targets.numpy(), reduction=reduction)
    true, terms = reference_linear.linear_gradients(*exact, targets.numpy(), reduction=reduction)
    errors = []
    for chunk_size in (200, 5):
        loss = linear_cross_entropy(
            hidden, weight_matrix, targets, chunk_size=chunk_size, reduction=reduction
        )
        found = torch.autograd.grad(loss, (hidden, weight_matrix), torch.ones_like(loss))
        assert [one.dtype for one in found] == [torch.bfloat16] * 2
        assert loss.dtype is torch.bfloat16
        # The loss is rounded to bfloat16 once; so are the gradients, and of each logit.
        np.testing.assert_allclose(loss.detach().float(), want, rtol=2**-8)
        for one, by, scale in zip(found, true, terms, strict=False):
            assert (np.abs(one.double().numpy() - by) <= 2**-8 * (np.abs(by) + scale)).all()
        errors.append(np.abs(found[1].double().numpy() - true[1]).max())
    assert errors[1] <= 1.1 * errors[0]
    assert calls
