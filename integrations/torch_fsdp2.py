"""FSDP2 (fully_shard), 2 processes, gloo."""

import torch
from common import FLOAT32, report, torch_network, torch_training
from processes import PROCESSES, train_in_processes
from torch.distributed.fsdp import fully_shard

import softmaxkit.torch


def worker(cross_entropy, data):
    mesh = torch.distributed.init_device_mesh("cpu", (PROCESSES,))
    model = torch_network()
    for layer in (*model, model):
        fully_shard(layer, mesh=mesh)
    outcome = torch_training(model, cross_entropy, data=data)
    return outcome._replace(arrays=[each.full_tensor() for each in outcome.arrays])


def train(cross_entropy):
    return train_in_processes(worker, cross_entropy)


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
