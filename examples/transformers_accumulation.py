"""A GPT-2 of transformers, trained through gradient accumulation with softmaxkit's loss.

A step adds the gradients of four batches, whose lines have different lengths. It follows the mean
over all their characters only if each batch divides its sum by the number of labels in the whole
step, `num_items_in_batch`: the average of the batches' means is another number. `Trainer` passes
that number to the model, as is done here, and the model passes it to its `loss_function`: that is
the line to change.
"""

import copy
from pydoc_data import topics

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import GPT2Config, GPT2LMHeadModel

from softmaxkit.torch import causal_lm_loss

BATCHES, LINES, STEPS, LENGTH, IGNORED = 4, 8, 25, 40, -100

torch.set_num_threads(1)
torch.manual_seed(0)
lines = sorted({line.strip() for text in topics.topics.values() for line in text.splitlines()})
lines = [line[:LENGTH] for line in lines if line.isascii() and len(line) > 1]
characters = sorted(set("".join(lines)))
encoded = [torch.tensor([characters.index(one) for one in line]) for line in lines]
config = GPT2Config(
    vocab_size=len(characters), n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2,
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
)  # fmt: skip
start = GPT2LMHeadModel(config)
start.loss_type = "ForCausalLM"  # which transformers uses here anyway, but not without a notice


def batch(chosen):
    """Return what the model takes; labels of the padding are ignored."""
    labels = pad_sequence([encoded[i] for i in chosen], batch_first=True, padding_value=IGNORED)
    there = labels != IGNORED
    inputs = labels.where(there, 0)
    return {"input_ids": inputs, "attention_mask": there.long(), "labels": labels}


def train(loss_function=None, parts=BATCHES, count=True):
    """Return the mean loss of a character at each step, and the weights at the end."""
    model, losses = copy.deepcopy(start), []
    if loss_function is not None:
        model.loss_function = loss_function
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    rng = torch.Generator().manual_seed(0)
    for _step in range(STEPS):
        chosen = torch.randint(len(lines), (BATCHES * LINES,), generator=rng)
        # The first character of a line has nothing before it.
        labels = sum(len(encoded[i]) - 1 for i in chosen)
        optimizer.zero_grad()
        total = 0.0
        for part in chosen.chunk(parts):
            if count:
                loss = model(**batch(part), num_items_in_batch=labels).loss
            else:
                loss = model(**batch(part)).loss / parts
            loss.backward()
            total += loss.item()
        optimizer.step()
        losses.append(total)
    return losses, flat(model)


def flat(model):
    """Return the weights."""
    return torch.cat([each.detach().flatten() for each in model.parameters()])


runs = {
    "transformers": {},
    "causal_lm_loss": {"loss_function": causal_lm_loss},
    "causal_lm_loss, one batch": {"loss_function": causal_lm_loss, "parts": 1},
    "causal_lm_loss, means averaged": {"loss_function": causal_lm_loss, "count": False},
}
results = {name: train(**options) for name, options in runs.items()}
losses, weights = results["transformers"]
moved = (weights - flat(start)).abs().max()
print(f"{len(lines)} lines, {len(characters)} characters; {STEPS} steps of {BATCHES} batches\n")
print(f"{'':31} {'first loss':>10} {'last loss':>10} {'losses differ':>14} {'weights differ':>15}")
for name, (own, own_weights) in results.items():
    apart = max(abs(a / b - 1) for a, b in zip(own, losses, strict=True))
    weights_apart = (own_weights - weights).abs().max() / moved
    print(f"{name:31} {own[0]:10.6f} {own[-1]:10.6f} {apart:14.0e} {weights_apart:15.0e}")
