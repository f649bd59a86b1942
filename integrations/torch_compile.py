"""torch.compile, inductor."""

import torch
from common import FLOAT32, report, torch_network, torch_training

import softmaxkit.torch


def train(cross_entropy):
    torch.compiler.reset()

    @torch.compile(fullgraph=True)
    def loss_fn(logits, labels):
        return cross_entropy(logits, labels, label_smoothing=0.1)

    return torch_training(torch.compile(torch_network(), fullgraph=True), loss_fn)


if __name__ == "__main__":
    theirs, ours = torch.nn.functional.cross_entropy, softmaxkit.torch.cross_entropy
    report(train, theirs, ours, tolerance=FLOAT32)
