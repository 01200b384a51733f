"""What the rows of `finetuning` share: the weights to begin from, the training, and what a model still knows of its old texts."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

import torch

from minigpt.checkpoint import load_checkpoint
from minigpt.config import TrainConfig
from minigpt.corpus.batching import TokenData, token_data
from minigpt.evaluate import evaluate_loss
from minigpt.finetune.tasks import BASE, unread
from minigpt.history import History
from minigpt.interop import build, packaged_smollm2
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import Trainer

OLD_TEXTS = ("shakespeare", "sotu", "chitchat", "python-stdlib")
OLD_BATCHES = 4  # of 8 windows of each old text
Row = dict[str, Any]


@cache
def start(model: str) -> tuple[GPT, BPETokenizer]:
    """The weights that a job begins from: base, or smollm2 in bf16."""
    if model == "base":
        return load_checkpoint(BASE)
    return load_checkpoint(packaged_smollm2(), dtype=torch.bfloat16)


def fresh(model: str, seed: int, dropout: float = 0.1, scratch: bool = False) -> tuple[GPT, BPETokenizer]:
    """A copy of its own for a job, or the same shape with weights drawn anew."""
    given, tokenizer = start(model)
    torch.manual_seed(seed)
    config = given.config.replace(dropout=dropout)
    if scratch:
        return GPT(config), tokenizer
    return build(config, {name: tensor.clone() for name, tensor in given.state_dict().items()}), tokenizer


def finished(trainer: Trainer) -> History:
    """Run a training to its end. KeyboardInterrupt where it was cut off: half a run is no result."""
    history = trainer.fit()
    if history.stopped_early and not (trainer.rescue and trainer.rescue.over):
        raise KeyboardInterrupt(f"cut off at update {trainer.step} of {trainer.config.max_steps}")
    return history


def train(model: Any, data: Any, updates: int, batch_size: int, learning_rate: float, seed: int) -> tuple[float, Any]:
    """Fine-tune as all rows are: AdamW, a tenth of the updates to warm up, a cosine. Seconds, and the trainer."""
    settings = TrainConfig(
        max_steps=updates,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=updates // 10,
        eval_every=updates,
        seed=seed,
        max_rise=None,
    )
    trainer = Trainer(model, data, None, settings, callbacks=[])
    started = time.perf_counter()
    finished(trainer)
    return time.perf_counter() - started, trainer


@cache
def _old(name: str) -> TokenData:
    return token_data(start("base")[1], unread(name), 256, seed=0)


def old_losses(model: GPT) -> Row:
    """Loss in nats per token on texts of the kind that the base model was trained on, and has not read."""
    return {name: round(evaluate_loss(model, _old(name).windows(8, OLD_BATCHES)), 4) for name in OLD_TEXTS}
