"""Rounds in which the contestants alternate, and peak memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from math import ceil
from pathlib import Path
from time import perf_counter
from typing import Any

Call = Callable[[], Any]

# A round of a contestant takes at least this long, in as many calls as that needs.
BATCH_SECONDS = 0.005

# In bytes. Linux adds up the pages of a process in batches of each core: some 128 KiB a core are
# uncertain (seen: 2.3 % of 8 MiB on two cores, 0.1 % of 128 MiB).
SMALLEST_FOR_MEMORY = 8_000_000

# With these a process has no memory in reserve, whose use would not show in the peak: the C library
# gives every larger block back, and TensorFlow takes its own from there.
WITHOUT_RESERVES = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 18),
    "TF_ONEDNN_USE_SYSTEM_ALLOCATOR": "1",
}

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")

NO_PEAK = "peak memory is read from /proc, which only Linux has"


def seconds(call: Call, loops: int) -> float:
    """Return the seconds that one of `loops` calls takes."""
    start = perf_counter()
    for _ in range(loops):
        call()
    return (perf_counter() - start) / loops


def calls_in_a_round(call: Call) -> int:
    """Return how many calls take `BATCH_SECONDS`."""
    loops = 1
    while (each := seconds(call, loops)) * loops < BATCH_SECONDS:
        loops = max(2 * loops, ceil(BATCH_SECONDS / each))
    return loops


def alternate(
    calls: Mapping[str, Call], loops: Mapping[str, int], rounds: int
) -> dict[str, list[float]]:
    """Return the seconds of a call in each round; who goes first changes from round to round."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            first = i % len(names)
            for name in (*names[first:], *names[:first]):
                times[name].append(seconds(calls[name], loops[name]))
    finally:
        gc.enable()
    return times


def can_read_peaks() -> bool:
    """Return whether this system says how much memory a process had at most."""
    return sys.platform == "linux" and _CLEAR_REFS.exists()


def extra_peak(call: Call) -> int:
    """Return by how many bytes a call raises the memory of this process at most, on Linux."""
    gc.collect()
    _CLEAR_REFS.write_text("5")  # the peak starts again from what there is
    before = _peak()
    call()
    return _peak() - before


def _peak() -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no line VmHWM")
