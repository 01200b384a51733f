"""What moves the weights: parameter groups, AdamW, and the learning rate at each step.

This module knows nothing of what the parameters compute.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from minigpt.config import TrainConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; vectors (norms and biases) do not. Shared parameters are listed once."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) in PyTorch's fused form: one call for all parameters."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Step size of update `step` (counted from 0): a straight climb, then half a cosine down to min_lr.

    Loshchilov & Hutter 2017, equation 5, without restarts.
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / max(1, config.max_steps - 1 - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.min_lr + (config.learning_rate - config.min_lr) * cosine
