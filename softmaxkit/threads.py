"""The number of threads that calls on NumPy arrays use."""

from __future__ import annotations

from typing import Any

from softmaxkit._arguments import count

__all__ = ["get_num_threads", "set_num_threads"]


def get_num_threads() -> int:
    """Return the number of threads that a call on large NumPy arrays is shared by.

    Losses of large eager TensorFlow tensors on the CPU are NumPy's too. Everything else has its
    library's threads, and that library's call to set them.

    Returns
    -------
    int
        What `set_num_threads` was given last; else the environment variable
        SOFTMAXKIT_NUM_THREADS; else the processors that this process may use, by its affinity and
        its cgroup's quota, but at most OMP_NUM_THREADS. 1 in a forked process until
        `set_num_threads` is called there.

    Raises
    ------
    ValueError
        SOFTMAXKIT_NUM_THREADS is no integer of at least 1.

    Examples
    --------
    >>> import softmaxkit
    >>> softmaxkit.get_num_threads() >= 1
    True
    """
    return _pool().count()


def set_num_threads(number: int) -> None:
    """Set the number of threads that a call on large NumPy arrays is shared by.

    The caller is one of them: with 1 no other is ever started. Results are the same to the last
    bit whatever the number.

    Parameters
    ----------
    number : int, at least 1
        Of this process, for all its threads.

    Returns
    -------
    None

    Raises
    ------
    TypeError, ValueError
        `number` is no integer, or below 1.

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
