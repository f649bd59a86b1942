"""Dask: lazy, in chunks of rows and of classes, in graphs that stay small; also on processes."""

import os
import signal
import tempfile
import time
from collections import Counter
from importlib import import_module

import numpy as np
import pytest

import softmaxkit
from softmaxkit import cross_entropy, value_and_grad, vjp

pytestmark = pytest.mark.usefixtures("da")

RNG = np.random.default_rng(0)
ROWS, CLASSES = 50, 37
LOGITS = 5 * RNG.standard_normal((ROWS, CLASSES))
LABELS = RNG.integers(CLASSES, size=ROWS)
LABELS[3] = -100
UNEVEN = ((20, 13, 17), (5, 7, 11, 2, 12))
PROBABILITIES = RNG.dirichlet(np.ones(CLASSES), ROWS)
WEIGHT, SAMPLE_WEIGHT = RNG.random(CLASSES), RNG.random(ROWS)
MASK = RNG.random((ROWS, CLASSES)) > 0.3
MATRIX = RNG.standard_normal((CLASSES, 4))

CLASS_LOSSES = ("cross_entropy", "focal_loss", "poly_loss_cross_entropy")
BINARY_LOSSES = ("binary_cross_entropy", "sigmoid_focal_loss")
SOFTMAXES = ("softmax", "log_softmax")


def compute(*results):
    return import_module("dask").compute(*results, scheduler="synchronous")


def graph(*results):
    """Return the tasks that Dask would run, by their keys."""
    optimized = import_module("dask").optimize(*results)
    return {key: task for one in optimized for key, task in dict(one.__dask_graph__()).items()}


def assert_same(got, expected):
    for one, want in zip(compute(*got), expected, strict=True):
        assert (one.shape, one.dtype) == (np.shape(want), want.dtype)
        # Sums in another order.
        np.testing.assert_allclose(one, want, rtol=1e-12, atol=1e-14)


# --- lazy -----------------------------------------------------------------------------------------
def lazy_calls(x, labels, probabilities):
    for name in CLASS_LOSSES:
        for targets in (labels, probabilities):
            yield from value_and_grad(getattr(softmaxkit, name))(x, targets, label_smoothing=0.1)
    for name in BINARY_LOSSES:
        yield from value_and_grad(getattr(softmaxkit, name))(x, probabilities)
    for name in SOFTMAXES:
        yield from vjp(getattr(softmaxkit, name))(x, probabilities, temperature=2.0)
    yield from vjp(softmaxkit.logsumexp)(x, probabilities[:, 0])
    yield softmaxkit.linear_cross_entropy(x, probabilities[:, :CLASSES], labels)
    yield softmaxkit.one_hot(labels, CLASSES)


def test_nothing_is_computed_before_it_is_asked_for(da):
    class TooEarlyError(Exception):
        pass

    def refuse(*args, **kwargs):
        raise TooEarlyError

    def unread(like):
        return da.from_array(like, chunks=7).map_blocks(refuse, dtype=like.dtype, meta=like[:0])

    with import_module("dask").config.set(scheduler=refuse):
        results = list(lazy_calls(unread(LOGITS), unread(LABELS), unread(PROBABILITIES)))
        assert all(isinstance(one, da.Array) for one in results)
    for one in results:
        with pytest.raises(TooEarlyError):
            one.compute(scheduler="synchronous")


# --- the graph ------------------------------------------------------------------------------------
def of_random(da, blocks, **options):
    """Return a loss and the norm of its gradient, of logits in so many chunks along both axes."""
    rows, classes = blocks
    rng = da.random.default_rng(0)
    x = rng.standard_normal((8 * rows, 8 * classes), chunks=8, dtype="float32")
    y = rng.integers(0, 8 * classes, size=8 * rows, chunks=8)
    value, gradient = value_and_grad(cross_entropy)(x, y, **options)
    return value, (gradient**2).sum()


# Tasks for each chunk of logits, one of which makes it, and one or two of which sum the squares.
TASKS = {"value": (0, 3), "gradient": (1, 4.2), "both": (slice(None), 4.3)}


@pytest.mark.parametrize("wanted", TASKS)
def test_the_graph_grows_linearly(wanted, da):
    some, most = TASKS[wanted]

    def tasks(*blocks):
        results = of_random(da, blocks)[some]
        return len(graph(*results) if isinstance(results, tuple) else graph(results))

    assert tasks(8, 16) <= most * 128
    assert tasks(8, 32) <= 2.05 * tasks(8, 16)
    assert tasks(16, 16) <= 2.05 * tasks(8, 16)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1, "z_loss": 0.1}], ids=str)
def test_value_and_gradient_share_the_statistics(options, da):
    value, norm = of_random(da, (4, 16), **options)

    def parts(*results):
        keys = [key for one in results for key in dict(one.__dask_graph__())]
        return {key for key in keys if key[0].startswith("part-")}

    assert len(parts(value)) == 64
    assert parts(value) == parts(norm) == parts(value, norm)


def test_parts_merge_in_a_tree(da):
    value, _ = of_random(da, (2, 100))
    merges = [
        len(task.dependencies)
        for key, task in import_module("dask._task_spec")
        .convert_legacy_graph(dict(value.__dask_graph__()))
        .items()
        if key[0].startswith(("merged-partial", "merged-aggregate"))
    ]
    # For each chunk of rows: 100 parts to 13, these to 2, these to 1.
    assert Counter(merges) == {8: 2 * (12 + 1), 4: 2, 5: 2, 2: 2}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1},
        {"temperature": 2.0, "z_loss": 0.1},
        {"where": np.arange(72) % 3 > 0, "label_smoothing": 0.1},
        {"where": np.arange(128)[:, None] % 3 > 0},
    ],
    ids=["plain", "smooth", "temperature", "mask of classes", "mask of rows"],
)
def test_a_chunk_is_in_memory_only_while_its_rows_are_worked_on(options, da):
    class Peak(import_module("dask.callbacks").Callback):
        chunks = 0

        def _posttask(self, key, result, dsk, state, worker_id):
            arrays = [one for one in state["cache"].values() if getattr(one, "size", 0) == 64]
            self.chunks = max(self.chunks, len(arrays))

    with Peak() as peak:
        compute(*of_random(da, (16, 9), **options))
    # Of 144: those of the rows, perhaps their mask, and one that is being made.
    assert peak.chunks <= (2 if "where" in options else 1) * 9 + 1


# --- the numbers ----------------------------------------------------------------------------------
OPTIONS = {
    "plain": {},
    "none": {"reduction": "none"},
    "sum": {"reduction": "sum", "sample_weight": SAMPLE_WEIGHT},
    "smooth": {"label_smoothing": 0.1},
    "weight": {"weight": WEIGHT, "normalizer": "weight"},
    "mask": {"where": MASK, "label_smoothing": 0.2},
    "mask of classes": {"where": MASK[0]},
    "temperature": {"temperature": 0.5},
    "temperatures": {"temperature": SAMPLE_WEIGHT[:, None] + 0.5},
    "all": {
        "label_smoothing": 0.1,
        "weight": WEIGHT,
        "sample_weight": SAMPLE_WEIGHT,
        "where": MASK,
        "temperature": 2.0,
    },
}


def lazy(da, value, chunks):
    return da.from_array(value, chunks=chunks) if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("targets", [LABELS, PROBABILITIES], ids=["labels", "probabilities"])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_losses_are_those_of_numpy(name, options, targets, da):
    """Whatever the chunks, which are others for each argument."""
    loss, options = value_and_grad(getattr(softmaxkit, name)), OPTIONS[options]
    if name == "focal_loss":
        options = {"alpha" if key == "weight" else key: one for key, one in options.items()}
    others = {key: lazy(da, one, 9) for key, one in options.items()}
    x, y = lazy(da, LOGITS, UNEVEN), lazy(da, targets, 11)
    assert_same(loss(x, y, **others), loss(LOGITS, targets, **options))


@pytest.mark.parametrize("name", BINARY_LOSSES)
def test_losses_of_independent_labels_are_those_of_numpy(name, da):
    loss = value_and_grad(getattr(softmaxkit, name))
    options = {"sample_weight": MASK * 0.5, "normalizer": "weight", "label_smoothing": 0.1}
    others = {key: lazy(da, one, 9) for key, one in options.items()}
    x, t = lazy(da, LOGITS, UNEVEN), lazy(da, PROBABILITIES, 11)
    assert_same(loss(x, t, **others), loss(LOGITS, PROBABILITIES, **options))


@pytest.mark.parametrize("where", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("axis", [0, 1, (0, 1)], ids=str)
@pytest.mark.parametrize("name", [*SOFTMAXES, "logsumexp"])
def test_activations_are_those_of_numpy(name, axis, where, da):
    function = vjp(getattr(softmaxkit, name))
    value = getattr(softmaxkit, name)(LOGITS, axis)
    cotangent = np.cos(np.arange(value.size)).reshape(value.shape)
    got = function(
        lazy(da, LOGITS, UNEVEN), lazy(da, cotangent, 11), axis, where=lazy(da, where, 9)
    )
    assert_same(got, function(LOGITS, cotangent, axis, where=where))


@pytest.mark.parametrize("axis", range(4))
def test_several_axes_of_rows(axis, da):
    x = RNG.standard_normal((4, 5, 6, 7))
    y = RNG.integers(x.shape[axis], size=x.shape[:axis] + x.shape[axis + 1 :])
    options = {"axis": axis, "label_smoothing": 0.1, "weight": RNG.random(x.shape[axis])}
    got = value_and_grad(cross_entropy)(lazy(da, x, (3, 2, 2, 3)), lazy(da, y, 4), **options)
    assert_same(got, value_and_grad(cross_entropy)(x, y, **options))


@pytest.mark.parametrize("chunk_size", [None, 7, (7, 10)], ids=str)
def test_a_loss_of_a_product_is_that_of_numpy(chunk_size, da):
    hidden = RNG.standard_normal((ROWS, 4))
    loss = value_and_grad(softmaxkit.linear_cross_entropy)
    options = {"softcap": 2.0, "label_smoothing": 0.1, "sample_weight": SAMPLE_WEIGHT}
    value, gradients = loss(
        *(lazy(da, hidden, (20, 3)), lazy(da, MATRIX, (11, 3)), lazy(da, LABELS, 9)),
        chunk_size=chunk_size,
        **options,
    )
    expected, wanted = loss(hidden, MATRIX, LABELS, **options)
    assert_same([value, *gradients[:2]], [expected, *wanted[:2]])


@pytest.mark.parametrize("block", [1, 16, 100, 150])  # of 1, 5 and 7 rows, of 25
def test_chunks_are_processed_in_blocks_of_any_size(block, da, monkeypatch):
    def results():
        x, y = lazy(da, LOGITS, (25, 20)), lazy(da, LABELS, 25)
        yield from value_and_grad(cross_entropy)(x, y, label_smoothing=0.1, weight=WEIGHT)
        yield from value_and_grad(cross_entropy)(x.T, y, axis=0, sample_weight=SAMPLE_WEIGHT)
        for name in SOFTMAXES:
            yield getattr(softmaxkit, name)(x)

    whole = compute(*results())
    monkeypatch.setattr("softmaxkit.backends.numpy.blocks.BLOCK_ELEMENTS", block)
    assert_same(results(), whole)


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_nan_stays_in_its_row(bad, da):
    x = LOGITS.copy()
    x[30, 20] = x[3, 1] = bad  # row 3 is ignored
    value, gradient = compute(
        *value_and_grad(cross_entropy)(
            lazy(da, x, UNEVEN), LABELS, reduction="none", label_smoothing=0.1
        )
    )
    p = compute(softmaxkit.softmax(lazy(da, x, UNEVEN)))[0]
    assert np.flatnonzero(np.isnan(value)).tolist() == [30]
    assert np.isnan(gradient[30]).all()
    assert np.flatnonzero(np.isnan(gradient).any(1)).tolist() == [30]
    assert (value[3], gradient[3].any()) == (0, False)
    assert np.flatnonzero(np.isnan(p).any(1)).tolist() == [3, 30]


def test_numbers_far_apart_give_no_warning(da):
    """Their difference overflows, within a chunk or between two; here a warning is an error."""
    x = np.array([[3e38, -3e38, 1.0, -3e38]] * 2, np.float32)
    lazy_x = lazy(da, x, (1, 2))
    got = [*value_and_grad(cross_entropy)(lazy_x, [0, 3], reduction="none"), *softmaxes(lazy_x)]
    want = [*value_and_grad(cross_entropy)(x, [0, 3], reduction="none"), *softmaxes(x)]
    assert_same(got, want)


def softmaxes(x):
    return [getattr(softmaxkit, name)(x) for name in SOFTMAXES]


def test_results_have_the_chunks_of_the_logits(da):
    """Whatever those of the other arguments, where Dask would cut the logits as well."""
    x, options = lazy(da, LOGITS, UNEVEN), OPTIONS["all"]
    others = {key: lazy(da, one, 9) for key, one in options.items()}
    for targets in (LABELS, PROBABILITIES):
        value, gradient = value_and_grad(cross_entropy)(
            x, lazy(da, targets, 11), reduction="none", **others
        )
        assert (value.chunks, gradient.chunks) == (UNEVEN[:1], UNEVEN)
    value, gradient = value_and_grad(softmaxkit.binary_cross_entropy)(
        x, lazy(da, PROBABILITIES, 11), reduction="none", sample_weight=lazy(da, MASK * 0.5, 9)
    )
    assert value.chunks == gradient.chunks == UNEVEN
    value, product = vjp(softmaxkit.softmax)(x, lazy(da, PROBABILITIES, 11), where=others["where"])
    assert value.chunks == product.chunks == UNEVEN


# --- on processes ---------------------------------------------------------------------------------
@pytest.fixture
def client():
    """Two processes of one thread each, on this machine alone."""
    distributed = pytest.importorskip(
        "distributed", reason="distributed, on whose processes Dask computes, is not installed"
    )
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as connected,
    ):
        yield connected


def expected_of(options):
    return value_and_grad(cross_entropy)(LOGITS, LABELS, **options)


def test_processes_compute_the_same(client, da):
    for options in (OPTIONS["plain"], OPTIONS["all"]):
        x, y = lazy(da, LOGITS, UNEVEN), lazy(da, LABELS, 9)
        results = client.compute(list(value_and_grad(cross_entropy)(x, y, **options)))
        for got, want in zip(client.gather(results), expected_of(options), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)


def test_a_killed_worker_changes_nothing(client, da, tmp_path):
    folder = str(tmp_path)

    def slowly(z):
        time.sleep(0.1)
        tempfile.mkstemp(dir=folder)
        return z

    x = lazy(da, LOGITS, (5, 8)).map_blocks(slowly, dtype=LOGITS.dtype, meta=LOGITS[:0])
    results = client.compute(list(value_and_grad(cross_entropy)(x, lazy(da, LABELS, 9))))
    pids = list(client.run(os.getpid).values())
    until = time.monotonic() + 60
    while len(os.listdir(folder)) < 15 and time.monotonic() < until:  # of 50 chunks
        time.sleep(0.01)
    assert not any(one.done() for one in results)
    os.kill(pids[0], signal.SIGKILL)
    for got, want in zip(client.gather(results), expected_of({}), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-14)
    assert len(os.listdir(folder)) > 50  # what was lost was made again
