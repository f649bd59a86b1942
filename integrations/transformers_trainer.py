"""transformers Trainer: accumulation, recomputed activations, resumed from a checkpoint."""

import tempfile

import torch
from common import FLOAT32, Outcome, recorded, report
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments
from transformers.loss.loss_utils import ForCausalLMLoss

import softmaxkit.torch

LENGTH, VOCABULARY, IGNORED = 32, 500, -100


def sequences():
    """Yield sequences of which more and more is ignored."""
    rng = torch.Generator().manual_seed(0)
    for i in range(32):
        tokens = torch.randint(VOCABULARY, (LENGTH,), generator=rng)
        yield {"input_ids": tokens, "labels": tokens.where(torch.arange(LENGTH) > i // 2, IGNORED)}


def make_trainer(folder, **options):
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    arguments = TrainingArguments(
        folder, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=6,
        save_steps=3, logging_strategy="no", learning_rate=0.1, optim="sgd", max_grad_norm=1e9,
        use_cpu=True, report_to="none", disable_tqdm=True, **options,
    )  # fmt: skip
    return Trainer(GPT2LMHeadModel(config), arguments, train_dataset=[*sequences()])


def one_step(trainer):
    """Return a function that computes a loss and its gradients once more."""
    batch = trainer.data_collator([*sequences()][:4])
    count = (batch["labels"][:, 1:] != IGNORED).sum()
    return lambda: trainer.training_step(trainer.model, dict(batch), count)


def train(loss_fn):
    losses = []
    with tempfile.TemporaryDirectory() as folder:
        for resume in (None, f"{folder}/checkpoint-3"):
            trainer = make_trainer(folder, gradient_checkpointing=True)
            trainer.model.loss_function = recorded(loss_fn, losses)
            trainer.train(resume_from_checkpoint=resume)
    arrays = [each.detach().clone() for each in trainer.model.parameters()]
    return Outcome(losses[:], arrays, one_step(trainer))


if __name__ == "__main__":
    report(train, ForCausalLMLoss, softmaxkit.torch.causal_lm_loss, tolerance=FLOAT32)
