"""Lightning, Trainer.fit."""

import logging
from statistics import median
from time import perf_counter

import lightning
import torch
from common import FLOAT32, Outcome, batches, report, torch_network
from torch.utils.data import DataLoader

import softmaxkit.torch

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(lightning.LightningModule):
    def __init__(self, cross_entropy):
        super().__init__()
        self.network, self.cross_entropy = torch_network(), cross_entropy
        self.losses, self.times = [], []

    def training_step(self, batch, _):
        x, y = batch
        loss = self.cross_entropy(self.network(x), y, label_smoothing=0.1)
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def on_train_batch_start(self, *_):
        self.times.append(perf_counter())

    def on_train_batch_end(self, *_):
        self.times[-1] = perf_counter() - self.times[-1]


def train(cross_entropy):
    module = Module(cross_entropy)
    data = [tuple(map(torch.from_numpy, batch)) for batch in batches(steps=100)]
    quiet = dict.fromkeys(
        ["enable_progress_bar", "enable_checkpointing", "enable_model_summary"], False
    )
    trainer = lightning.Trainer(accelerator="cpu", max_epochs=1, logger=False, **quiet)
    trainer.fit(module, DataLoader(data, batch_size=None))
    arrays = [each.detach() for each in module.parameters()]
    return Outcome(module.losses, arrays, median(module.times))


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
