"""DistributedDataParallel, 2 processes, gloo."""

import torch
from common import FLOAT32, report, torch_network, torch_training
from processes import train_in_processes
from torch.nn.parallel import DistributedDataParallel

import softmaxkit.torch


def worker(cross_entropy, data):
    return torch_training(DistributedDataParallel(torch_network()), cross_entropy, data=data)


def train(cross_entropy):
    return train_in_processes(worker, cross_entropy)


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
