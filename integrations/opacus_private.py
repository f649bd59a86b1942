"""Opacus, per-sample gradients that are clipped; no noise."""

import opacus
import torch
from common import FLOAT32, batches, report, torch_network, torch_training
from torch.utils.data import DataLoader, TensorDataset

import softmaxkit.torch


def train(cross_entropy):
    x, y = (torch.cat([torch.from_numpy(batch[i]) for batch in batches()]) for i in (0, 1))
    model = torch_network()
    model, optimizer, loader = opacus.PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
        data_loader=DataLoader(TensorDataset(x, y), batch_size=64),
        noise_multiplier=0.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )
    return torch_training(model, cross_entropy, optimizer, [*loader])


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
