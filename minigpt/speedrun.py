"""How fast a loss is reached on Tiny Shakespeare: what `minigpt speedrun` does.

The field's split: characters, trained on the first 90 % of the text, judged on the whole last 10 % in windows of the
recipe's context. Seconds are seconds of training; those of evaluation are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from minigpt.corpus import load_corpus
from minigpt.corpus.batching import TokenData
from minigpt.hardware import machine
from minigpt.history import History, StopAtLoss
from minigpt.model import GPT
from minigpt.recipes import Recipe, find_recipe
from minigpt.tokenizer import CharTokenizer
from minigpt.trainer import Trainer

TARGETS = {"fast-1.88": 1.88, "fast-1.47": 1.4697}  # nanoGPT's published losses, on a CPU and on an A100


@dataclass(frozen=True)
class Speedrun:
    """What one run took. `val_loss` is the one that reached the target, or else the best one."""

    recipe: str
    changed: str
    seed: int
    target: float
    reached: bool
    seconds: float
    eval_seconds: float
    updates: int
    max_steps: int
    tokens: int
    parameters: int
    val_loss: float

    def __str__(self) -> str:
        got = f"reached {self.target:g}" if self.reached else f"did not reach {self.target:g}; best"
        return (
            f"{self.recipe}: {got} with {self.val_loss:.4f}, in {self.seconds:.1f} s of training and "
            f"{self.eval_seconds:.1f} s of evaluation\n{self.updates:,} updates, {self.tokens:,} tokens "
            f"({self.tokens / self.seconds:,.0f} a second), {self.parameters:,} parameters, seed {self.seed}\n{machine()}"
        )


def tiny_shakespeare(context_length: int, seed: int = 0, text: str | None = None) -> tuple[int, TokenData, TokenData]:
    """Vocabulary size, the first 90 % of the characters to train on, the last 10 % to judge by.

    `text` takes the place of Tiny Shakespeare.

    Raises:
        FetchError: the text is not here, and cannot be fetched.
        ValueError: a text too short for one window on either side.
    """
    text = load_corpus("tinyshakespeare")["text"][0] if text is None else text
    tokenizer = CharTokenizer.train([text])
    ids = torch.tensor(tokenizer.encode(text)).numpy().astype("uint16")
    cut = int(0.9 * len(ids))
    return tokenizer.vocab_size, TokenData(ids[:cut], context_length, seed), TokenData(ids[cut:], context_length, seed)


def speedrun(
    recipe: Recipe | str,
    target: float,
    seed: int = 0,
    text: str | None = None,
    callbacks: Sequence[Any] = (),
    **changes: Any,
) -> Speedrun:
    """Train by a recipe until the whole validation text has a loss of at most `target`, or the recipe's updates end.

    `changes` replace fields of the training. Raises as `tiny_shakespeare`, and `TrainingDiverged`.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    if not math.isfinite(target) or target <= 0:
        raise ValueError(f"target={target} is no loss to reach: use nats per character, such as 1.88.")
    config = recipe.train_config(seed=seed, **changes)
    vocab_size, train_data, val_data = tiny_shakespeare(recipe.model["context_length"], seed, text)
    torch.manual_seed(seed)
    model = GPT(recipe.model_config(vocab_size))
    trainer = Trainer(model, train_data, val_data, config, [StopAtLoss(target), *callbacks])
    history: History = trainer.fit()
    losses = history["val_loss"][1]
    return Speedrun(
        recipe=recipe.name,
        changed=recipe.about,
        seed=seed,
        target=target,
        reached=bool(losses) and losses[-1] <= target,
        seconds=history.last("seconds"),
        eval_seconds=sum(history["eval_seconds"][1]),
        updates=trainer.step,
        max_steps=config.max_steps,
        tokens=int(history.last("tokens")),
        parameters=model.num_parameters(),
        val_loss=min(losses),
    )
