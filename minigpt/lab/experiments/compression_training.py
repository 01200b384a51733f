"""What the laboratory of notebook 07 trains: pruned models that recover, with the whole one as their teacher, and students.

Trained models are kept in runs/compression.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.config import TrainConfig
from minigpt.corpus.batching import TokenData, token_data
from minigpt.distill import Distillation
from minigpt.finetune.tasks import BASE, unread
from minigpt.interop import build
from minigpt.lab.experiments.finetuning_start import finished
from minigpt.model import GPT
from minigpt.prune import KeepZeros, prune, prune_structured
from minigpt.recipes import find_recipe, mixture
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import Trainer

TRAINED = Path(__file__).resolve().parents[3] / "runs" / "compression"
SOURCES = ("shakespeare", "sotu", "chitchat", "python-stdlib")
WINDOWS = 12  # of each source, of the whole context
CALIBRATION = 16  # windows of the training text, for rounding
FOR_ZEROS = 64  # of them, for pruning: a second more, and a little better
Row = dict[str, Any]

# What is trained: how the weights are cut, and how they are trained then. The most wanted first.
STUDENT = {"n_layer": 2, "n_embd": 128, "n_head": 2, "n_kv_head": 1, "n_hidden": 352}
AS_BEFORE = {"alpha": 1.0, "features": 2.0}  # a pruned model is to be the whole one again, inside as well
RUNS: dict[str, Row] = {
    "per layer, 50 %": {"pattern": "per_layer", "sparsity": 0.5, **AS_BEFORE, "updates": 3000},
    "student, distilled": {"student": True, "alpha": 0.9, "updates": 500},
    "structured, 30 %": {"heads": 0.3, "mlp": 0.3, "updates": 150},
    "student, alone": {"student": True, "alpha": 0.0, "updates": 500},
    "2:4": {"pattern": "2:4", "sparsity": 0.5, **AS_BEFORE, "updates": 60},
}


@cache
def base() -> tuple[GPT, BPETokenizer]:
    """The course's base model, in fp32."""
    return load_checkpoint(BASE)


@cache
def windows() -> torch.Tensor:
    """What losses are measured on: ids (48, context_length + 1), spread over texts that the base model has not read."""
    model, tokenizer = base()
    wide, found = model.config.context_length + 1, []
    for name in SOURCES:
        tokens = token_data(tokenizer, unread(name), wide - 1, seed=0).tokens
        starts = np.linspace(0, len(tokens) - wide, WINDOWS).astype(int)
        found += [tokens[start : start + wide] for start in starts]
    return torch.from_numpy(np.stack(found).astype(np.int64))


@torch.no_grad()
def window_losses(logits_of: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
    """The mean loss of each window in nats per token, for what gives logits (B, T, V) of ids (B, T)."""
    losses = []
    for idx in windows().split(4):
        logits = logits_of(idx[:, :-1]).float()  # (B, T, V)
        each = torch.nn.functional.cross_entropy(logits.mT, idx[:, 1:], reduction="none").mean(dim=1)  # (B,)
        losses += [round(float(loss), 4) for loss in each]
    return losses


@cache
def training_text() -> TokenData:
    """The text that the base model learned from, mixed and cleaned as its recipe says: it takes a minute."""
    mixed, _ = mixture(find_recipe("base"))
    return token_data(base()[1], mixed["text"][:], 256, seed=0)


def calibration(windows: int = CALIBRATION) -> torch.Tensor:
    """Windows of the training text, (windows, context_length), for methods that look at what goes through the layers."""
    tokens, length = training_text().tokens, base()[0].config.context_length
    starts = np.linspace(0, len(tokens) - length, windows).astype(int)
    return torch.from_numpy(np.stack([tokens[start : start + length] for start in starts]).astype(np.int64))


def cut(how: Row) -> GPT:
    """The model that a run begins with: pruned, or a student drawn anew."""
    model = base()[0]
    if "student" in how:
        torch.manual_seed(0)
        return GPT(model.config.replace(**STUDENT, head_dim=64, dropout=0.0))
    if "heads" in how:
        data = training_text()
        return prune_structured(model, how["heads"], how["mlp"], [data.batch(step, 8) for step in range(4)])
    pruned = prune(model, how["sparsity"], how["pattern"], calibration(FOR_ZEROS).split(16))
    return build(model.config.replace(dropout=0.0), dict(pruned.state_dict()))  # it is short of room already


def settings(name: str) -> TrainConfig:
    """How one of `RUNS` is trained: what is grown already in smaller steps than a student, zeros in many small batches."""
    updates, grown = RUNS[name]["updates"], "student" not in RUNS[name]
    config = TrainConfig(
        max_steps=updates,
        batch_size=8,
        optimizer="muon",
        learning_rate=5e-4 if grown else 8e-3,
        matrix_lr=2e-3 if grown else 1e-2,
        schedule="wsd",
        decay_share=0.7,
        min_lr=0.0,
        warmup_steps=10,
        weight_decay=0.0,
        eval_every=updates,
        max_rise=None,
        precision="fp32",
        device="cpu",
    )
    if "pattern" not in RUNS[name]:
        return config
    return config.replace(
        batch_size=4, optimizer="adamw", learning_rate=1e-3, matrix_lr=None, decay_share=0.9, precision="auto"
    )


def trained(name: str) -> Row:
    """Train one of `RUNS`, keep it in `TRAINED`, and give its losses before and after."""
    how, (teacher, tokenizer) = RUNS[name], base()
    model = cut(how)
    row: Row = {
        "experiment": "trained",
        "name": name,
        "updates": how["updates"],
        "before": window_losses(lambda x: model(x)[0]),
    }
    callbacks: list[Any] = []
    if "pattern" in how:
        callbacks.append(KeepZeros())
    alpha, features = how.get("alpha", 0.9), how.get("features", 0.0)
    learner = model
    if alpha:
        learner = Distillation(model.requires_grad_(True), teacher, alpha=alpha, temperature=1.0, features=features)
    finished(Trainer(learner, training_text(), None, settings(name), callbacks))
    save_checkpoint(TRAINED / folder(name), model.eval(), tokenizer)
    return row | {"after": window_losses(lambda x: model(x)[0])}


def folder(name: str) -> str:
    """A run's name as that of a folder."""
    return name.replace(", ", "-").replace(" %", "").replace(" ", "-").replace(":", "-")
