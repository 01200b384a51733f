"""What moves the weights: parameter groups, AdamW, Muon, and the learning rate at each step.

This module knows nothing of what the parameters compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.config import TrainConfig

# Coefficients of the quintic (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"): steep at
# zero, so that five rounds bring every singular value near 1, between about 0.7 and 1.2.
QUINTIC = (3.4445, -4.7750, 2.0315)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Matrices decay; vectors (norms and biases) and embedding tables do not. Shared parameters are listed once.

    A table that is also the output head is an embedding here.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    parameters = [p for p in model.parameters() if p.requires_grad]
    decays = [p.dim() >= 2 and id(p) not in tables for p in parameters]
    return [
        {"params": [p for p, yes in zip(parameters, decays) if yes], "weight_decay": weight_decay},
        {"params": [p for p, yes in zip(parameters, decays) if not yes], "weight_decay": 0.0},
    ]


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Bring every singular value of each matrix near 1 and keep its directions: (N, R, C) -> same shape and dtype.

    Newton-Schulz iteration (Jordan et al. 2024), a polynomial in the matrix, so that products are all it takes. The
    products run in the dtype given; the smaller of R and C decides their size.
    """
    a, b, c = QUINTIC
    tall = matrices.size(-2) > matrices.size(-1)
    x = (matrices.mT if tall else matrices).contiguous()
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    gram = x @ x.mT  # (N, R, R)
    # Memory is taken once: asking for it anew in every round costs as much as the products.
    other, polynomial = torch.empty_like(x), torch.empty_like(gram)
    for round_ in range(rounds):
        if round_:
            torch.bmm(x, x.mT, out=gram)
        torch.baddbmm(gram, gram, gram, beta=b, alpha=c, out=polynomial)
        torch.baddbmm(x, polynomial, x, beta=a, out=other)
        x, other = other, x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised: every direction of a matrix moves equally far (Jordan et al. 2024).

    Matrices of one shape are moved together, in one batch of products. The step is 0.2 sqrt(max(R, C)) times the
    learning rate, which gives it the size of AdamW's (Liu et al. 2025, equation 4): one learning rate serves both.
    With `dtype` torch.bfloat16 the steps are those of `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")` to rounding.
    A parameter may be several matrices on top of each other, such as queries, keys and values: `heights` in its group
    tells how many rows each one has.

    Raises:
        ValueError: a parameter that is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "heights": None})
        self.dtype = dtype
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.dim() != 2]
        if shapes:
            raise ValueError(f"Muon moves matrices, and here is a parameter of shape {shapes[0]}; give it to AdamW.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            grads, momentum = [p.grad for p in params], group["momentum"]
            for fresh in (p for p in params if p not in self.state):
                self.state[fresh]["momentum_buffer"] = torch.zeros_like(fresh)
            buffers = [self.state[p]["momentum_buffer"] for p in params]
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            updates = torch._foreach_lerp(grads, buffers, momentum)  # Nesterov's look ahead
            if group["weight_decay"]:
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
            self._move(params, updates, group)
        return loss

    def _move(self, params: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        pieces: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter, update in zip(params, updates):
            heights = group["heights"] or [len(parameter)]
            for one, its_update in zip(parameter.split(heights), update.split(heights)):
                pieces.setdefault(tuple(one.shape), []).append((one, its_update))
        for shape, together in pieces.items():
            moved, stacked = zip(*together)
            directions = orthogonalise(torch.stack(stacked).to(self.dtype)).to(moved[0].dtype)  # (N, R, C)
            torch._foreach_add_(moved, directions.unbind(), alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))


def make_optimizers(
    model: nn.Module, config: TrainConfig, dtype: torch.dtype = torch.float32
) -> list[torch.optim.Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) for everything, or Muon for the blocks' matrices and AdamW for the rest.

    Each group notes in `ratio` how its learning rate relates to the schedule's. Muon computes in `dtype`. Queries, keys
    and values are orthogonalised apart where the attention says (`heights`) how its `qkv` is stacked.
    """
    decaying, free = parameter_groups(model, config.weight_decay)
    if config.optimizer == "adamw":
        groups = [group | {"ratio": 1.0} for group in (decaying, free)]
        return [torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)]
    heads = {id(m.weight) for name, m in model.named_modules() if name.rpartition(".")[2] == "head"}
    inside = [p for p in decaying["params"] if id(p) not in heads]
    head = [p for p in decaying["params"] if id(p) in heads]
    stacked = {id(m.qkv.weight): tuple(m.heights) for m in model.modules() if hasattr(m, "heights")}
    muon = [
        {"params": [p for p in inside if stacked.get(id(p)) == heights], "heights": heights}
        for heights in dict.fromkeys(stacked.get(id(p)) for p in inside)
    ]
    rate = config.matrix_lr or config.learning_rate
    ratio = rate / config.learning_rate
    return [
        Muon([group | {"ratio": ratio} for group in muon], rate, config.weight_decay, config.momentum, dtype),
        torch.optim.AdamW(
            [free | {"params": free["params"] + head, "ratio": 1.0}],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        ),
    ]


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Step size of update `step` (counted from 0): a straight climb, then down to min_lr as `schedule` says.

    cosine: half a cosine over the rest (Loshchilov & Hutter 2017, equation 5, without restarts). wsd, warm-up, stable,
    decay: level, then straight down over the last `decay_share` of the updates (Hu et al. 2024, section 4).
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "wsd":
        falling = config.decay_share * config.max_steps
        share = max(0.0, (step + 1 - config.max_steps + falling) / max(1.0, falling))
        return config.learning_rate + (config.min_lr - config.learning_rate) * share
    progress = (step - config.warmup_steps) / max(1, config.max_steps - 1 - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.min_lr + (config.learning_rate - config.min_lr) * cosine
