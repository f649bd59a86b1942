"""Lightning: a classifier of handwritten digits, and a temperature for its probabilities.

The training step calls the loss by torch's name, from another module, with the same numbers. The
trained network is too sure of itself or, with smoothed labels, not sure enough. A temperature
corrects that: it is fitted by its gradient, on images that were not trained on, and tested on
others.
"""

import logging

import lightning
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

import softmaxkit
import softmaxkit.torch as F  # was: import torch.nn.functional as F

images, labels = load_digits(return_X_y=True)
images = torch.tensor(images / 16, dtype=torch.float32)
labels = torch.tensor(labels)
train, rest = train_test_split(torch.arange(len(labels)), train_size=400, random_state=0)
held_out, test = rest.chunk(2)


class Classifier(lightning.LightningModule):
    """A network with one hidden layer."""

    def __init__(self, cross_entropy, label_smoothing):
        super().__init__()
        self.network = torch.nn.Sequential(
            torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)
        )
        self.cross_entropy = cross_entropy
        self.label_smoothing = label_smoothing

    def training_step(self, batch, _):
        """Return the loss of a batch."""
        x, y = batch
        return self.cross_entropy(self.network(x), y, label_smoothing=self.label_smoothing)

    def configure_optimizers(self):
        """Return the optimizer."""
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def logits_of(cross_entropy, label_smoothing):
    """Return logits of all images, after training."""
    lightning.seed_everything(0, verbose=False)
    model = Classifier(cross_entropy, label_smoothing)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=40,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = DataLoader(TensorDataset(images[train], labels[train]), batch_size=50, shuffle=True)
    trainer.fit(model, batches)
    with torch.no_grad():
        return model.network(images)


def temperature_of(logits):
    """Return the temperature at which the held-out labels are likeliest."""
    log_t = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_t], max_iter=50)

    def loss():
        optimizer.zero_grad()
        value = softmaxkit.cross_entropy(
            logits[held_out], labels[held_out], temperature=log_t.exp()
        )
        value.backward()
        return value

    optimizer.step(loss)
    return log_t.exp().detach()


logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)  # it logs devices and tips
print(f"{'':42} {'T':>6} {'accuracy':>9} {'confidence':>11} {'test loss':>10}")
for name, cross_entropy, label_smoothing in [
    ("torch", torch.nn.functional.cross_entropy, 0.0),
    ("softmaxkit", F.cross_entropy, 0.0),
    ("softmaxkit, smoothed", F.cross_entropy, 0.1),
]:
    logits = logits_of(cross_entropy, label_smoothing)
    accuracy = (logits[test].argmax(1) == labels[test]).float().mean()
    for when, t in (("", 1.0), (", with a temperature", temperature_of(logits))):
        confidence = softmaxkit.softmax(logits[test], temperature=t).amax(1).mean()
        loss = softmaxkit.cross_entropy(logits[test], labels[test], temperature=t)
        print(f"{name + when:42} {t:6.3f} {accuracy:9.1%} {confidence:11.1%} {loss:10.5f}")
