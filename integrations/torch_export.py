"""torch.export, of a model that returns its loss for any number of rows."""

import torch
from common import FEATURES, FLOAT32, batches, report, torch_network, torch_training

import softmaxkit.torch


class WithLoss(torch.nn.Module):
    def __init__(self, cross_entropy):
        super().__init__()
        self.network = torch_network()
        self.cross_entropy = cross_entropy

    def forward(self, batch):
        x, y = batch
        return self.cross_entropy(self.network(x), y, label_smoothing=0.1)


def train(cross_entropy):
    example = torch.zeros(5, FEATURES), torch.zeros(5, dtype=torch.int64)
    rows = {0: torch.export.Dim("rows", min=2)}
    exported = torch.export.export(
        WithLoss(cross_entropy), (example,), dynamic_shapes={"batch": (rows, rows)}
    )
    # The exported model contains the loss, so that no label is left to pass.
    data = [((torch.from_numpy(x), torch.from_numpy(y)), None) for x, y in batches()]
    return torch_training(exported.module(), lambda loss, _: loss, data=data)


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
