"""Accelerate, gradients accumulated over 2 batches."""

import accelerate
import torch
from common import FLOAT32, Outcome, batches, report, torch_network
from torch.utils.data import DataLoader

import softmaxkit.torch


def train(cross_entropy):
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = torch_network()
    data = [tuple(map(torch.from_numpy, batch)) for batch in batches()]
    model, optimizer, loader = accelerator.prepare(
        model, torch.optim.SGD(model.parameters(), lr=0.5), DataLoader(data, batch_size=None)
    )

    def step(x, y):
        with accelerator.accumulate(model):
            loss = cross_entropy(model(x), y, label_smoothing=0.1)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return loss.item()

    losses = [step(x, y) for x, y in loader]
    arrays = [each.detach().clone() for each in model.parameters()]
    return Outcome(losses, arrays, lambda: step(*data[0]))


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
