"""Threads of the NumPy kernels: how many, the same results by any number, forks, exits, failures.

Blocks are made so small here that every kernel has many, in every form of a block; the conformance
suite runs in such blocks, by two threads, in test_blocks.py.
"""

import os
import threading
from functools import partial

import numpy as np
import pytest

import softmaxkit
from softmaxkit.backends.numpy import blocks, pool

WAIT = 60  # seconds until a deadlock is taken for one


@pytest.fixture(autouse=True)
def number_of_threads():
    before = softmaxkit.get_num_threads()
    yield
    softmaxkit.set_num_threads(before)


@pytest.fixture
def tiny_blocks(monkeypatch):
    for name, value in (("BLOCK_ELEMENTS", 16), ("SHARED_ELEMENTS", 0), ("SMALL_ELEMENTS", 0)):
        monkeypatch.setattr(blocks, name, value)


# --- how many -------------------------------------------------------------------------------------
COUNT = "import softmaxkit; print(softmaxkit.get_num_threads())"


def test_the_environment_says_how_many(run_python, monkeypatch):
    monkeypatch.setenv("SOFTMAXKIT_NUM_THREADS", " 7 ")
    assert run_python(COUNT).strip() == "7"


def test_an_empty_environment_variable_is_none(run_python, monkeypatch):
    monkeypatch.delenv("SOFTMAXKIT_NUM_THREADS", raising=False)
    expected = run_python(COUNT)
    monkeypatch.setenv("SOFTMAXKIT_NUM_THREADS", "")
    assert run_python(COUNT) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("2,4", 2), ("1000000", None), ("", None), ("0", None), ("many", None)],
)
def test_omp_num_threads_is_a_bound(monkeypatch, text, expected):
    monkeypatch.setattr(pool, "processors", lambda: 3)
    monkeypatch.delenv("SOFTMAXKIT_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    monkeypatch.setattr(pool, "_count", None)
    assert softmaxkit.get_num_threads() == (expected or 3)
    monkeypatch.setenv("SOFTMAXKIT_NUM_THREADS", "2")  # goes before it
    monkeypatch.setattr(pool, "_count", None)
    assert softmaxkit.get_num_threads() == 2


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_bad_environment_variable_is_refused(text, monkeypatch):
    monkeypatch.setenv("SOFTMAXKIT_NUM_THREADS", text)
    monkeypatch.setattr(pool, "_count", None)
    with pytest.raises(ValueError, match="SOFTMAXKIT_NUM_THREADS") as refusal:
        softmaxkit.get_num_threads()
    assert str(refusal.value) == (
        f"softmaxkit: SOFTMAXKIT_NUM_THREADS is {text!r}; expected an integer of at least 1; "
        f"correct the environment variable, or unset it."
    )
    softmaxkit.set_num_threads(2)  # what is set goes before it
    assert softmaxkit.get_num_threads() == 2


def test_affinity_limits_it(run_python, monkeypatch):
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity of processes")
    monkeypatch.delenv("SOFTMAXKIT_NUM_THREADS", raising=False)
    one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); "
    assert run_python(one + COUNT).strip() == "1"


V1 = "4:memory:/jobs/a\n3:cpu,cpuacct:/jobs/a\n1:name=systemd:/jobs/a\n"
CGROUPS = {
    # /proc/self/cgroup, files under /sys/fs/cgroup, processors of 8
    "none": ("", {}, 8),
    "version 2": ("0::/jobs/a\n", {"jobs/a/cpu.max": "300000 100000\n"}, 3),
    "a part of a processor": ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
    "less than one processor": ("0::/a\n", {"a/cpu.max": "20000 100000\n"}, 1),
    "no limit": ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 8),
    "more than there are": ("0::/a\n", {"a/cpu.max": "1600000 100000\n"}, 8),
    "the group around it": (
        "0::/jobs/a\n",
        {"jobs/a/cpu.max": "500000 100000\n", "jobs/cpu.max": "200000 100000\n"},
        2,
    ),
    "a container's own mount": ("0::/host/path\n", {"cpu.max": "400000 100000\n"}, 4),
    "version 1": (
        V1,
        {"cpu/jobs/a/cpu.cfs_quota_us": "200000\n", "cpu/jobs/a/cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "version 1, the mount": (
        V1,
        {"cpu/cpu.cfs_quota_us": "500000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        5,
    ),
    "version 1, no limit": (
        V1,
        {"cpu/jobs/a/cpu.cfs_quota_us": "-1\n", "cpu/jobs/a/cpu.cfs_period_us": "100000\n"},
        8,
    ),
    "version 1 beside 2": (
        V1 + "0::/\n",
        {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        3,
    ),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_quotas_of_cgroups_limit_it(name, tmp_path):
    membership, files, expected = CGROUPS[name]
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    for path, text in {"proc/self/cgroup": membership, **files}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert pool.processors(str(tmp_path), affinity=8) == expected


# --- the same results -----------------------------------------------------------------------------
SHAPES = {
    "rows": ((40, 600), 1),
    "few classes": ((300, 5), 1),
    "columns": ((3, 70, 80), 1),
    "few columns": ((30, 90, 4), 1),
    "few classes and columns": ((30, 9, 4), 1),
    "one column after another": ((7, 300), 0),
}


def results(x, axis):
    """Return what every kernel gives."""
    random = np.random.default_rng(1)
    rows = x.shape[:axis] + x.shape[axis + 1 :]
    labels = random.integers(0, x.shape[axis], rows)
    q = random.random(x.shape, dtype=np.float32)
    kept = random.integers(0, 2, rows)
    loss = softmaxkit.value_and_grad(softmaxkit.cross_entropy)
    yield softmaxkit.softmax(x, axis)
    yield softmaxkit.log_softmax(x, axis)
    yield softmaxkit.logsumexp(x, axis)
    yield from loss(x, labels, axis=axis, reduction="none")
    yield from loss(x, labels, axis=axis, label_smoothing=0.1, sample_weight=kept)
    yield from loss(x, q, axis=axis, weight=np.arange(x.shape[axis]))
    yield from softmaxkit.value_and_grad(softmaxkit.focal_loss)(x, labels, axis=axis)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("name", SHAPES)
def test_any_number_of_threads_gives_the_same_bits(name, dtype, monkeypatch):
    for constant, value in (("BLOCK_ELEMENTS", 512), ("SHARED_ELEMENTS", 0), ("SMALL_ELEMENTS", 0)):
        monkeypatch.setattr(blocks, constant, value)
    shape, axis = SHAPES[name]
    x = np.random.default_rng(0).normal(0, 3, shape).astype(dtype)
    softmaxkit.set_num_threads(1)
    expected = [np.asarray(each).tobytes() for each in results(x, axis)]
    for number in (2, 3, 8):
        softmaxkit.set_num_threads(number)
        assert [np.asarray(each).tobytes() for each in results(x, axis)] == expected


def test_large_arrays_are_shared_and_right():
    x = np.random.default_rng(0).normal(0, 3, (1100, 1000)).astype("float32")
    assert x.size >= blocks.SHARED_ELEMENTS
    softmaxkit.set_num_threads(3)
    e = np.exp(x - x.max(1, keepdims=True), dtype="float64")
    p = e / e.sum(1, keepdims=True)
    np.testing.assert_allclose(softmaxkit.softmax(x), p, rtol=1e-5)  # float32, far classes
    assert any(thread.name.startswith("softmaxkit") for thread in threading.enumerate())


@pytest.mark.usefixtures("tiny_blocks")
def test_special_values_stay_silent_in_every_thread():
    """NumPy's error state belongs to a thread; the caller's is not the others'."""
    softmaxkit.set_num_threads(4)
    x = np.random.default_rng(0).choice([np.nan, np.inf, -np.inf, 0.0, 800.0], (3000, 3))
    with np.errstate(all="raise"):
        p = softmaxkit.softmax(x)
        softmaxkit.value_and_grad(softmaxkit.cross_entropy)(x, np.zeros(3000, int))
        assert np.geterr()["over"] == "raise"
    assert np.isnan(p[np.isnan(x).any(1)]).all()


# --- the pool -------------------------------------------------------------------------------------
def within(seconds, *functions):
    """Run each function in a thread, and tell whether all have ended in time."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_every_block_is_done_once(number):
    softmaxkit.set_num_threads(number)
    done = []
    pool.share(done.extend, range(1000))
    assert sorted(done) == list(range(1000))


@pytest.mark.usefixtures("tiny_blocks")
def test_calls_from_several_threads_at_once():
    softmaxkit.set_num_threads(3)
    x = np.random.default_rng(0).normal(0, 3, (600, 7))
    expected, found = softmaxkit.softmax(x), []

    def call():
        for _ in range(20):
            found.append(np.array_equal(softmaxkit.softmax(x), expected))

    assert within(WAIT, *[call] * 6)
    assert found == [True] * 120


def test_calls_from_within_the_pool_itself():
    softmaxkit.set_num_threads(2)
    inner = []

    def outer(blocks):
        for _ in blocks:
            pool.share(inner.extend, range(10))

    assert within(WAIT, partial(pool.share, outer, range(50)))
    assert sorted(inner) == sorted([*range(10)] * 50)


@pytest.mark.usefixtures("tiny_blocks")
def test_the_number_may_change_while_others_work():
    x = np.random.default_rng(0).normal(0, 3, (600, 7))
    softmaxkit.set_num_threads(2)
    expected, found = softmaxkit.softmax(x), []

    def call():
        for _ in range(20):
            found.append(np.array_equal(softmaxkit.softmax(x), expected))

    def change():
        for number in [1, 3, 2, 1] * 20:
            softmaxkit.set_num_threads(number)

    assert within(WAIT, call, call, change)
    assert found == [True] * 40


@pytest.mark.parametrize("place", ["caller", "helper"])
def test_what_a_block_raises_is_raised(place):
    softmaxkit.set_num_threads(2)
    caller = threading.current_thread()
    both = threading.Barrier(2, timeout=WAIT)

    def fail(blocks):
        next(blocks)
        both.wait()
        if (threading.current_thread() is caller) == (place == "caller"):
            raise MemoryError(place)

    with pytest.raises(MemoryError, match=place):
        pool.share(fail, range(2))
    done = []
    pool.share(done.extend, range(9))
    assert sorted(done) == list(range(9))


# Large enough to be shared; numbers are compared in the program.
PROGRAM = """
import os, signal, sys, threading
import numpy as np, softmaxkit
if hasattr(signal, "alarm"):
    signal.alarm({wait})
x = np.random.default_rng(0).normal(0, 3, (1100, 1000)).astype("float32")
def threads():
    return sum(thread.name.startswith("softmaxkit") for thread in threading.enumerate())
"""


@pytest.fixture
def run_program(run_python, monkeypatch):
    monkeypatch.setenv("SOFTMAXKIT_NUM_THREADS", "3")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore::DeprecationWarning")  # of forks beside threads
    return lambda script: run_python(PROGRAM.format(wait=WAIT) + script).split()


def test_one_thread_makes_no_pool(run_program):
    script = """
softmaxkit.set_num_threads(1)
softmaxkit.softmax(x)
print(threads(), "concurrent.futures" in sys.modules)
softmaxkit.set_num_threads(2)
softmaxkit.softmax(x)
print(threads())
"""
    assert run_program(script) == ["0", "False", "1"]


def test_an_idle_pool_lets_the_interpreter_exit(run_program):
    assert run_program("softmaxkit.softmax(x); print(threads() > 0)") == ["True"]


def test_calls_while_the_interpreter_exits(run_program):
    script = """
import atexit
before = softmaxkit.softmax(x)
atexit.register(lambda: print(np.array_equal(softmaxkit.softmax(x), before)))
"""
    assert run_program(script) == ["True"]


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@needs_fork
def test_a_forked_worker_has_one_thread_until_it_asks_for_more(run_program):
    script = """
before = softmaxkit.softmax(x)
child = os.fork()
if child == 0:
    ok = softmaxkit.get_num_threads() == 1
    ok &= np.array_equal(softmaxkit.softmax(x), before) and threads() == 0
    softmaxkit.set_num_threads(2)
    ok &= np.array_equal(softmaxkit.softmax(x), before) and threads() == 1
    os._exit(0 if ok else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), softmaxkit.get_num_threads())
"""
    assert run_program(script) == ["0", "3"]


@needs_fork
def test_a_fork_in_the_middle_of_work(run_program):
    script = """
before, stop = softmaxkit.softmax(x), threading.Event()
def work():
    while not stop.is_set():
        softmaxkit.softmax(x)
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
codes = set()
for _ in range(8):
    child = os.fork()
    if child == 0:
        signal.alarm({wait})  # a child has none of its parent's
        softmaxkit.set_num_threads(2)
        os._exit(0 if np.array_equal(softmaxkit.softmax(x), before) else 1)
    codes.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for worker in workers:
    worker.join()
print(codes)
""".replace("{wait}", str(WAIT))
    assert run_program(script) == ["{0}"]
