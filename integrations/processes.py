"""Programs of torch in two processes, which find each other through a file."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import ROUNDS, Outcome, batches, seconds

PROCESSES = 2


def train_in_processes(worker: Callable[..., Outcome], loss_fn: Any) -> Outcome:
    """Return the outcome of ``worker(loss_fn, data)`` in the first process, with a step's time.

    `data` is the process's part of every batch.
    """
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_run, (worker, loss_fn, folder), PROCESSES)
        return Outcome(*torch.load(Path(folder, "outcome")))


def _run(rank: int, worker: Callable[..., Outcome], loss_fn: Any, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{folder}/meeting"
    torch.distributed.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=PROCESSES
    )
    data = [[torch.from_numpy(each[rank::PROCESSES]) for each in batch] for batch in batches()]
    losses, arrays, step = worker(loss_fn, data)
    taken = median(seconds(step, 10) for _ in range(ROUNDS))  # the same number in both processes
    if rank == 0:
        torch.save((losses, arrays, taken), Path(folder, "outcome"))
    torch.distributed.destroy_process_group()
