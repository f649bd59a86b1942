"""What cross-entropy of vocabulary shards sends, holds and takes, on PyTorch in processes of a CPU.

    python benchmarks/shards.py --rows 1024 --classes 131072

For 1, 2, 3 and 4 processes: how many all-reduces a loss and its gradient make, and how many bytes
of each row; the peak of memory that the call adds in each process, over its shard of the logits;
how long a step takes; and how long the same all-reduces take alone, beside what the model of
docs/scaling.md says: a latency for each, and the bytes at the rate of a large one. Processes that
share cores wait for each other, which the step shows and the all-reduces alone do not.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist

from softmaxkit.torch import vocab_parallel_cross_entropy

ROUNDS = 9
LARGE = 1 << 22  # numbers


def peak():
    """Return the peak memory of this process since the last call, in bytes."""
    line = next(
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
    return int(line.split()[1]) * 1024


def median(call):
    times = []
    for _ in range(ROUNDS):
        dist.barrier()
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(rank, folder, world, rows, classes):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/{world}", rank=rank, world_size=world
    )
    shard = classes // world
    generator = torch.Generator().manual_seed(rank)
    logits = torch.randn(rows, shard, generator=generator).requires_grad_()
    targets = torch.arange(rows) * 7919 % (shard * world)
    sent, all_reduce = [], dist.all_reduce

    def counted(x, *args):
        sent.append(torch.zeros_like(x))
        all_reduce(x, *args)

    def call():
        logits.grad = None
        vocab_parallel_cross_entropy(logits, targets).backward()

    call()
    dist.all_reduce = counted
    logits.grad = None
    peak()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    call()
    memory = torch.tensor((peak() - before) / logits.nbytes)
    dist.all_reduce = all_reduce
    dist.all_reduce(memory, dist.ReduceOp.MAX)
    seconds = median(call)
    alone = median(lambda: [dist.all_reduce(one) for one in sent])
    small, large = torch.zeros(1), torch.zeros(LARGE)
    latency = median(lambda: dist.all_reduce(small))
    rate = large.nbytes / median(lambda: dist.all_reduce(large))
    count, size = len(sent), sum(one.nbytes for one in sent)
    model = count * latency + size / rate
    if rank == 0:
        print(
            f"{world:9} {logits.nbytes / 2**20:9.1f} {memory:8.2f} {count:11} "
            f"{(size - 8 * world) / rows:8.1f} {seconds * 1e3:7.0f} {alone * 1e6:6.0f} "
            f"{model * 1e6:6.0f} {latency * 1e6:7.0f} {rate / 2**20:7.0f}",
            flush=True,
        )
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--classes", type=int, default=131072)
    given = parser.parse_args()
    print("                      memory               bytes    step         all-reduces, µs")
    print("processes shard MiB  / shard all-reduces  per row      ms  alone  model     one   MiB/s")
    for world in (1, 2, 3, 4):
        with tempfile.TemporaryDirectory() as folder:
            torch.multiprocessing.start_processes(
                measure, (folder, world, given.rows, given.classes), nprocs=world
            )


if __name__ == "__main__":
    main()
