"""The machine, and the state of this package."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import softmaxkit

# What pyperf collects that says nothing about the numbers, or more about the user than they need.
_LEFT_OUT = (
    "boot_time", "hostname", "mem_max_rss", "python_cflags", "python_config_args",
    "python_executable", "runnable_threads", "uptime",
)  # fmt: skip


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Return how many processes wanted to run in the last minute, where the system says so."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def busy_line(load: float | None, cores: int) -> str:
    """Say that other programs leave no core to the measurement, or nothing where they do."""
    if load is None or load <= cores:
        return ""
    return (
        f"busy machine: {load:.1f} processes wanted its {cores} cores in the minute before the "
        f"start. Close other programs, or wait: ratios can be off by any factor."
    )


def environment() -> dict[str, Any]:
    """Return what the numbers depend on; the versions of the libraries come from their workers."""
    import pyperf

    machine = pyperf.Run([1.0]).get_metadata()
    return {
        "machine": {name: value for name, value in machine.items() if name not in _LEFT_OUT},
        "cores_usable": usable_cores(),
        "load_at_start": load_average(),
        "softmaxkit": softmaxkit.__version__,
        "commit": commit(),
        "libraries": {},
    }


def commit() -> str:
    """Return the commit of the checkout that is measured; a wheel does not know its own."""
    root = Path(softmaxkit.__file__).parents[1]
    if not (root / ".git").exists():
        return "unknown"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
