"""An output layer whose vocabulary lies in two processes, trained as one process trains it.

    python examples/torch_vocabulary_shards.py

The processes have the same characters and the same network; each has half of the output layer's
rows, one for each entry of the vocabulary. Logits are never gathered.
"""

import tempfile

import torch
import torch.distributed as dist

from softmaxkit import linear_cross_entropy
from softmaxkit.torch import vocab_parallel_linear_cross_entropy

TEXT = "how much wood would a woodchuck chuck if a woodchuck could chuck wood "
VOCABULARY = sorted(set(TEXT))
WIDTH, STEPS, RATE, WORLD = 24, 60, 0.5, 2


def train(loss_of, rows):
    """Return the losses of a network with those rows of the output layer."""
    torch.manual_seed(0)
    embedding = torch.nn.Embedding(len(VOCABULARY), WIDTH)
    output = torch.nn.Linear(WIDTH, len(VOCABULARY), bias=False).weight.detach()[rows].clone()
    parameters = [embedding.weight, output.requires_grad_()]
    optimizer = torch.optim.SGD(parameters, RATE)
    tokens = torch.tensor([VOCABULARY.index(one) for one in TEXT])
    losses = []
    for _ in range(STEPS):
        hidden = torch.tanh(embedding(tokens[:-1]))
        loss = loss_of(hidden, output, tokens[1:], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()  # the gradient by hidden is that of all rows, in every process
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses)


def run(rank, folder):
    """Train in one of the processes; the first also trains alone, and compares."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=WORLD)
    half = len(VOCABULARY) // WORLD
    rows = slice(0, half) if rank == 0 else slice(half, None)
    losses = train(vocab_parallel_linear_cross_entropy, rows)
    if rank == 0:
        alone = train(linear_cross_entropy, slice(None))
        print("step  loss of 2 processes  of 1")
        for step in range(0, STEPS, 15):
            print(f"{step:4}  {losses[step]:19.6f}  {alone[step]:.6f}")
        print(f"largest difference: {(losses - alone).abs().max():.0e}")
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(run, (folder,), nprocs=WORLD)
