"""A language model of characters on PyTorch, on lines of unequal length: padding and ignore_index.

The text is the reference manual that Python carries for `help()`, pydoc_data.topics (© Python
Software Foundation): every line of it is a sequence. A batch is padded to its longest line; targets
in the padding are -100, which `cross_entropy` leaves out of sum and mean, as torch's does. Losses
are in bits per character; guessing among all characters, or by their frequency, is the baseline.
"""

import math
from collections import Counter
from pydoc_data import topics

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import softmaxkit.torch as F  # was: import torch.nn.functional as F

PADDING = -100
END = "\n"

torch.set_num_threads(1)
torch.manual_seed(0)
lines = sorted({line.strip() for text in topics.topics.values() for line in text.splitlines()})
lines = [line + END for line in lines if line.isascii() and len(line) > 20]
characters = sorted(set("".join(lines)))
index = {character: i for i, character in enumerate(characters)}
encoded = [torch.tensor([index[one] for one in line]) for line in lines]
order = torch.randperm(len(lines)).tolist()
test, train = ([encoded[i] for i in part] for part in (order[:300], order[300:]))


class Model(nn.Module):
    """Characters -> embedding -> GRU -> logits of the next character."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(characters), 32)
        self.gru = nn.GRU(32, 96, batch_first=True)
        self.output = nn.Linear(96, len(characters))

    def forward(self, x, state=None):
        """Return logits (N, T, C) and the state to go on from."""
        hidden, state = self.gru(self.embedding(x), state)
        return self.output(hidden), state


def padded(lines, extra=0):
    """Return inputs, which start with the end of the line before, and the targets."""
    targets = pad_sequence(lines, batch_first=True, padding_value=PADDING)
    targets = nn.functional.pad(targets, (0, extra), value=PADDING)
    inputs = targets.roll(1, dims=1).clamp(min=0)  # any character will do in the padding
    inputs[:, 0] = index[END]
    return inputs, targets


def mean_loss(model, lines, cross_entropy=F.cross_entropy, **options):
    """Return the mean loss of a character in nats."""
    inputs, targets = padded(lines, **options)
    logits, _ = model(inputs)
    return cross_entropy(logits.transpose(1, 2), targets, ignore_index=PADDING)  # classes: axis 1


def write(model, length=60):
    """Return the likeliest line by sampling at a low temperature."""
    text, state, x = "", None, torch.tensor([[index[END]]])
    while len(text) < length:
        logits, state = model(x, state)
        x = F.softmax(logits[:, -1] / 0.5, dim=-1).multinomial(1)
        if characters[x.item()] == END:
            break
        text += characters[x.item()]
    return text


def bits(loss):
    """Return nats as bits."""
    return float(loss) / math.log(2)


model = Model()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _step in range(60):
    batch = [train[i] for i in torch.randint(len(train), (32,)).tolist()]
    optimizer.zero_grad()
    loss = mean_loss(model, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()

counts = Counter("".join(lines[i] for i in order[300:]))
total = counts.total()
by_frequency = -sum(n / total * math.log2(n / total) for n in counts.values())
_, targets = padded(test)
with torch.no_grad():
    print(
        f"{len(train)} lines, {len(characters)} characters; test batch {tuple(targets.shape)}, ",
        end="",
    )
    print(f"{(targets == PADDING).float().mean():.0%} padding\n")
    print(f"{'bits per character of the test lines':45} {'':>7}")
    print(f"{'all characters alike':45} {math.log2(len(characters)):7.4f}")
    print(f"{'by frequency':45} {by_frequency:7.4f}")
    print(f"{'model':45} {bits(mean_loss(model, test)):7.4f}")
    print(f"{'model, 50 more columns of padding':45} {bits(mean_loss(model, test, extra=50)):7.4f}")
    torchs = mean_loss(model, test, nn.functional.cross_entropy)
    print(f"{'model, by torch.nn.functional.cross_entropy':45} {bits(torchs):7.4f}")
    print(f"\nit writes: {write(model)}")
