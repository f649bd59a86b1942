"""The number of threads that calls on NumPy arrays use."""

from __future__ import annotations

from typing import Any

from softmaxkit._arguments import count

__all__ = ["get_num_threads", "set_num_threads"]


def get_num_threads() -> int:
    """Return how many threads share a call on large NumPy arrays.

    Losses of large eager TensorFlow tensors on the CPU are computed by NumPy's kernels, and so use
    these threads, too. All other calls use the threads of their library, which it has a function
    to set.

    Returns
    -------
    int
        The number last given to `set_num_threads`; else the environment variable
        SOFTMAXKIT_NUM_THREADS; else the number of processors that this process may use, by its
        affinity and its cgroup's quota, but at most OMP_NUM_THREADS. In a forked process it is 1
        until `set_num_threads` is called there.

    Raises
    ------
    ValueError
        SOFTMAXKIT_NUM_THREADS is not an integer of at least 1.

    Examples
    --------
    >>> import softmaxkit
    >>> softmaxkit.get_num_threads() >= 1
    True
    """
    return _pool().count()


def set_num_threads(number: int) -> None:
    """Set how many threads share a call on large NumPy arrays.

    The calling thread is one of them: with 1 no other thread is started. Results do not depend on
    the number, to the last bit.

    Parameters
    ----------
    number : int, at least 1
        It holds for the whole process.

    Returns
    -------
    None

    Raises
    ------
    TypeError, ValueError
        `number` is not an integer, or is below 1.

    Examples
    --------
    >>> import softmaxkit
    >>> before = softmaxkit.get_num_threads()
    >>> softmaxkit.set_num_threads(1)
    >>> softmaxkit.get_num_threads()
    1
    >>> softmaxkit.set_num_threads(before)
    """
    count("set_num_threads", "number", number, "1 is the caller alone")
    _pool().set_count(int(number))


def _pool() -> Any:
    # With the first call: what never computes on NumPy arrays does not load its kernels.
    from softmaxkit.backends.numpy import pool

    return pool
