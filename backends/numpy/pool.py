"""How many threads share a call on NumPy arrays, and the pool of the threads that help.

The calling thread works, too, so that a count of 1 needs no pool; and a call from one of the pool's
own threads, or from several threads at once, waits only for work that has begun.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

VARIABLE = "SOFTMAXKIT_NUM_THREADS"

_count: int | None = None  # None until it is first needed
_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def count() -> int:
    """Return the number of threads: the one set, the environment's, or that of the processors.

    OMP_NUM_THREADS is an upper bound for the last, so that workers of joblib and spawned processes
    divide the processors among them.
    """
    global _count
    if _count is None:
        _count = _from_environment(os.environ.get(VARIABLE)) or min(processors(), _of_openmp())
    return _count


def set_count(number: int) -> None:
    """Use this many threads from now on; calls under way keep the threads they have."""
    global _count, _pool
    with _lock:
        _count, former, _pool = number, _pool, None
    if former is not None:
        former.shutdown(wait=False)


def share(work: Callable[[Iterator[Any]], object], blocks: Iterable[Any]) -> None:
    """Let up to `count()` threads each call `work` with an iterator over some of the blocks.

    Each block is in one of the iterators. Which one is chance, so `work` must treat it the same.
    """
    queue = deque(blocks)
    helpers = _helpers(work, queue, min(count(), len(queue)) - 1)
    try:
        work(_drain(queue))
    finally:
        queue.clear()  # if `work` failed, no more blocks may be begun
        # Helpers that have not begun have nothing left to do: waiting for them could deadlock.
        running = [helper for helper in helpers if not helper.cancel()]
        problems = [helper.exception() for helper in running]
    for problem in filter(None, problems):
        raise problem


def _drain(queue: deque[Any]) -> Iterator[Any]:
    while queue:
        try:
            yield queue.popleft()
        except IndexError:  # another thread was faster
            return


def _helpers(work: Callable[..., object], queue: deque[Any], number: int) -> list[Future[object]]:
    global _pool
    helpers: list[Future[object]] = []
    if number < 1:
        return helpers
    try:
        with _lock:
            if _pool is None:
                from concurrent.futures import ThreadPoolExecutor  # 3 ms, which few programs need

                _pool = ThreadPoolExecutor(max(count() - 1, number), "softmaxkit")
            pool = _pool
        for _ in range(number):
            helpers.append(pool.submit(work, _drain(queue)))
    except RuntimeError:  # the interpreter is exiting, no thread can be had, or the count changed
        pass
    return helpers


def _after_fork() -> None:
    # The child has none of the parent's threads, and perhaps a lock that one of them held. There
    # are usually several forked workers: each uses one thread until it asks for more.
    global _count, _pool, _lock
    _count, _pool, _lock = 1, None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- how many there are ---------------------------------------------------------------------------
_V1 = ("quota", "period")


def _from_environment(text: str | None) -> int | None:
    if text is None or not text.strip():
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(
            f"softmaxkit: {VARIABLE} is {text!r}; expected an integer of at least 1; correct the "
            f"environment variable, or unset it."
        )
    return int(text)


def _of_openmp() -> int:
    """Return OMP_NUM_THREADS; in a list, the first number is for the outermost threads."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else sys.maxsize


def processors(root: str = "/", affinity: int | None = None) -> int:
    """Return how many processors this process may use, by its affinity and its cgroup's quota."""
    if affinity is None:
        known = hasattr(os, "sched_getaffinity")
        affinity = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(min([affinity, *(ceil(quota) for quota in _quotas(root))]), 1)


def _quotas(root: str) -> Iterator[float]:
    """Yield the limits, in processors, of this process's cgroups and their parent groups."""
    for line in _text(root, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # In a container, the path may be the host's while the mount is the group itself: a missing
        # file sets no limit.
        names = [name for name in path.split("/") if name]
        for depth in range(len(names) + 1):
            group = os.path.join(
                root, "sys/fs/cgroup", "cpu" if controllers else "", *names[:depth]
            )
            if controllers:  # version 1
                limit = [_text(group, f"cpu.cfs_{name}_us").strip() for name in _V1]
            else:
                limit = _text(group, "cpu.max").split()
            if len(limit) == 2 and limit[0].isdecimal():  # else "max", -1, or no file
                yield int(limit[0]) / int(limit[1])


def _text(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), encoding="ascii") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
