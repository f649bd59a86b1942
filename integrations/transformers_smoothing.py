"""transformers Trainer: label smoothing, with accumulation."""

import tempfile

from common import FLOAT32, Outcome, recorded, report
from transformers.trainer_pt_utils import LabelSmoother
from transformers_trainer import make_trainer, one_step

import softmaxkit.torch


def train(kind):
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder, label_smoothing_factor=0.1)
        assert type(trainer.label_smoother) is LabelSmoother
        trainer.label_smoother = recorded(kind(0.1), losses)
        trainer.train()
    arrays = [each.detach().clone() for each in trainer.model.parameters()]
    return Outcome(losses[:], arrays, one_step(trainer))


if __name__ == "__main__":
    report(train, LabelSmoother, softmaxkit.torch.LabelSmoother, tolerance=FLOAT32)
