"""PyTorch in data parallel: DDP and FSDP in two processes, which share each batch."""

from pathlib import Path

import pytest

PROGRAM = """
import tempfile
from functools import partial
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
import replicas, softmaxkit

WORLD = 2

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.bias = (
            torch.nn.Parameter(torch.tensor(each)) for each in replicas.START
        )

    def forward(self, x, operation, y, given):
        hidden = torch.tanh(x @ self.first)
        if operation == "linear_cross_entropy":
            loss = softmaxkit.linear_cross_entropy
            return loss(hidden, self.second, y, bias=self.bias, **given)
        return getattr(softmaxkit, operation)(hidden @ self.second.T + self.bias, y, **given)

def train(rank, parallel, case, mean):
    operation, options, weighted = replicas.CASES[case]
    network = parallel(Network())
    optimizer = torch.optim.SGD(network.parameters(), replicas.RATE)
    part = slice(0, 7) if rank == 0 else slice(7, None)
    arrays = replicas.X, replicas.Y, replicas.SAMPLE_WEIGHT, replicas.denominators(case)
    steps = []
    for batch in zip(*arrays, strict=True):
        x, y, sample_weight, denominators = (torch.from_numpy(each[part]) for each in batch)
        given = options | ({"sample_weight": sample_weight} if weighted else {})
        if mean == "global":
            total = denominators.sum()
            dist.all_reduce(total)
            given["normalizer"] = total / WORLD  # DDP averages gradients
        loss = network(x, operation, y, given)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss = loss.detach()
        dist.all_reduce(loss, dist.ReduceOp.SUM)
        steps.append((loss / WORLD, [whole(each.grad.clone()) for each in network.parameters()]))
    return steps, [whole(each.detach()) for each in network.parameters()]

def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

def run(rank, folder):
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD)
    for case in replicas.CASES:
        replicas.check(case, partial(train, rank, DistributedDataParallel))
        if rank == 0:
            print(case)
    mesh = init_device_mesh("cpu", (WORLD,))
    replicas.check("all weights", partial(train, rank, partial(fully_shard, mesh=mesh)))
    if rank == 0:
        print("FSDP")
    dist.destroy_process_group()

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(run, (folder,), nprocs=WORLD, start_method="fork")
"""


def test_a_mean_over_the_batch_of_all_processes(torch, run_python):
    if not torch.distributed.is_available():
        pytest.skip("this build of torch has no torch.distributed")
    cases = ["ignored rows", "all weights", "focal loss", "linear"]
    assert run_python(PROGRAM, Path(__file__).parent).splitlines() == [*cases, "FSDP"]
