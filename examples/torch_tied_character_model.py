"""A language model of characters on PyTorch whose output weights are its embedding table.

`linear_cross_entropy` takes the vectors before the output layer and that table, to which gradients
flow from both ends of the model, and never holds all logits. With 94 characters these are small.
The memory that this saves with 32,768 classes is measured at the end, for the loss and its
gradients: each way runs in a process of its own, because Linux records the peak of a process.

The text is the reference manual that Python carries for `help()`, pydoc_data.topics (© Python
Software Foundation).
"""

import math
import subprocess
import sys
from pathlib import Path
from pydoc_data import topics

import torch
from torch import nn

import softmaxkit.torch as F  # was: import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)
lines = (line for text in topics.topics.values() for line in text.splitlines())
text = "\n".join(line for line in lines if line.isascii())
characters = sorted(set(text))
index = {character: i for i, character in enumerate(characters)}
encoded = torch.tensor([index[one] for one in text])
test, train = encoded[:20_000], encoded[20_000:]


class Model(nn.Module):
    """Characters -> embedding -> GRU -> vectors that are compared with the embedding table."""

    def __init__(self, width=96):
        super().__init__()
        self.table = nn.Embedding(len(characters), width)
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.gru = nn.GRU(width, width, batch_first=True)

    def forward(self, x):
        """Return vectors (rows, width)."""
        return self.gru(self.table(x))[0].flatten(0, 1)


def windows(text, starts, length=64):
    """Return inputs and targets, the characters that follow them."""
    places = starts[:, None] + torch.arange(length)
    return text[places], text[places + 1]


def of_all_logits(hidden, weight, targets):
    """Return the loss computed from all logits at once."""
    return nn.functional.cross_entropy(hidden @ weight.T, targets)


def bits(model, loss=F.linear_cross_entropy):
    """Return the mean loss of the test text, in bits per character."""
    x, y = windows(test, torch.arange(0, len(test) - 65, 64))
    with torch.no_grad():
        return loss(model(x), model.table.weight, y.flatten()).item() / math.log(2)


def gradient_of_table(model, loss):
    """Return the gradient of the embedding table, from both its uses."""
    x, y = windows(train, torch.arange(32))
    (found,) = torch.autograd.grad(
        loss(model(x), model.table.weight, y.flatten()), model.table.weight
    )
    return found


MEMORY = """
import sys, torch
import softmaxkit.torch as F
def most():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
def step(rows, classes):
    hidden = torch.randn(rows, 128, requires_grad=True)
    weight = torch.randn(classes, 128, requires_grad=True)
    targets = torch.randint(classes, (rows,))
    if sys.argv[1] == "chunks":
        F.linear_cross_entropy(hidden, weight, targets).backward()
    else:
        torch.nn.functional.cross_entropy(hidden @ weight.T, targets).backward()
step(2, 2)  # what is loaded once
before = most()
step(2048, 32768)
print(most() - before)
"""


def extra_memory(how):
    """Return by how many MiB a step with many classes raises the peak memory of a process."""
    command = [sys.executable, "-c", MEMORY, how]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


model = Model()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
print(f"{len(train)} characters, {len(characters)} of them different\n")
print("bits per character of the test text")
print(f"after   0 steps {bits(model):27.4f}")
for step in range(1, 61):
    x, y = windows(train, torch.randint(len(train) - 65, (32,)))
    optimizer.zero_grad()
    F.linear_cross_entropy(model(x), model.table.weight, y.flatten()).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    if step % 20 == 0:
        print(f"after {step:3} steps {bits(model):27.4f}")
print(f"the model, by its logits {bits(model, of_all_logits):18.4f}")
ours, whole = (gradient_of_table(model, loss) for loss in (F.linear_cross_entropy, of_all_logits))
print(f"gradients of the table differ by {(ours - whole).abs().max() / whole.abs().max():.0e}")

if Path("/proc/self/status").exists():
    print("\nmemory of a loss of 2048 rows and 32,768 classes, in MiB (the logits: 256)")
    print(f"all logits {extra_memory('logits'):32.0f}")
    print(f"chunks of logits {extra_memory('chunks'):26.0f}")
