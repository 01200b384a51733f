"""How good a model is, as numbers. Loss is the mean cross-entropy in nats per token."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


@torch.no_grad()
def evaluate_loss(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], autocast: AbstractContextManager | None = None
) -> float:
    """Mean loss in nats per token over batches of (idx, targets), every counted target weighing the same.

    The model is put into evaluation mode (no dropout) and given back in the mode that it was in.
    ValueError when there is no target to predict.
    """
    device, was_training = next(model.parameters()).device, model.training
    total, count = 0.0, 0
    model.eval()
    try:
        for idx, targets in batches:
            counted = int((targets != -100).sum())
            with autocast or nullcontext():
                loss = model(idx.to(device), targets.to(device))[1]
            total, count = total + loss.item() * counted, count + counted
    finally:
        model.train(was_training)
    if count == 0:
        raise ValueError("there is nothing to evaluate: no batch held a target.")
    return total / count


def perplexity(loss: float) -> float:
    """exp(loss): among how many equally likely tokens the model hesitates, on average."""
    return math.exp(loss)


def bits_per_byte(loss: float, tokens: int, n_bytes: int) -> float:
    """Loss in bits per byte of text, which no longer depends on the tokenizer. loss in nats per token."""
    return loss * tokens / (n_bytes * math.log(2))
