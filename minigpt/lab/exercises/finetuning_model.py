"""What notebook 05's exercises about pooling and about LoRA ask for, and the ways in which answers go wrong.

Pooling: hidden (B, T, C), lengths (B,). LoRA: x (N, in), weight (out, in), A (r, in), B (out, r).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.lab.check import Mistake, exercise
from minigpt.lab.diagnose import Mistakes, Problem, diagnose, each

Update = Callable[[Tensor, Tensor, Tensor], Tensor]  # of x, A and B
Scale = Callable[[float, Tensor], float]  # of alpha and A
Join = Callable[[Tensor, Tensor, float], Tensor]  # of the frozen part, the update and the scale


def _real(lengths: Tensor, T: int) -> Tensor:
    return torch.arange(T) < lengths[:, None]  # (B, T)


def _every(lengths: Tensor, T: int) -> Tensor:
    return torch.ones(len(lengths), T, dtype=torch.bool)


def _pool(
    hidden: Tensor,
    lengths: Tensor,
    *,
    mask: Callable[[Tensor, int], Tensor] = _real,
    divide: Callable[[Tensor, int], Any] = lambda lengths, T: lengths[:, None],
    pool: Callable[[Tensor, Tensor, Tensor, Any], Tensor] = lambda hidden, mask, lengths, by: (
        (hidden * mask).sum(1) / by
    ),
    end: Callable[[Tensor], Tensor] = lambda pooled: pooled,
) -> Tensor:
    """The mean of hidden (B, T, C) over the first `lengths` (B,) positions of each text, (B, C)."""
    T = hidden.size(1)
    return end(pool(hidden, mask(lengths, T)[:, :, None], lengths, divide(lengths, T)))


def _at(place: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, Tensor, Tensor, Any], Tensor]:
    """One position of each text in place of a mean."""
    return lambda hidden, mask, lengths, by: hidden[torch.arange(len(hidden)), place(lengths, hidden.size(1))]


POOLING: Mistakes = {
    "padding_in_the_mean": [{"mask": _every, "divide": lambda lengths, T: T}],
    "divided_by_T": each("divide", lambda lengths, T: T),
    "not_masked": each("mask", _every),
    "not_divided": each("divide", lambda lengths, T: 1),
    "last_position": each("pool", _at(lambda lengths, T: lengths - 1)),
    "last_column": each("pool", _at(lambda lengths, T: torch.full_like(lengths, T - 1))),
    "first_position": each("pool", _at(lambda lengths, T: torch.zeros_like(lengths))),
    "one_position_short": [
        {"mask": lambda lengths, T: _real(lengths - 1, T), "divide": divide}
        for divide in (
            lambda lengths, T: lengths[:, None],
            lambda lengths, T: (lengths - 1)[:, None],
            lambda lengths, T: (lengths - 1).clamp(min=1)[:, None],
        )
    ],
    "one_position_long": [
        {"mask": lambda lengths, T: _real(lengths + 1, T), "divide": divide}
        for divide in (
            lambda lengths, T: lengths[:, None],
            lambda lengths, T: (lengths + 1)[:, None],
            lambda lengths, T: (lengths + 1).clamp(max=T)[:, None],
        )
    ],
    "first_position_skipped": [
        {"mask": lambda lengths, T: _real(lengths, T) & (torch.arange(T) > 0), **divide}
        for divide in ({}, {"divide": lambda lengths, T: (lengths - 1)[:, None]})
    ],
    "divided_by_other_count": each(
        "divide",
        lambda lengths, T: (lengths + 1)[:, None],
        lambda lengths, T: (lengths - 1)[:, None],
        lambda lengths, T: lengths.sum(),
        lambda lengths, T: len(lengths),
        lambda lengths, T: lengths[:, None] ** 0.5,
        lambda lengths, T: lengths.float().mean(),
    ),
    "maximum": each(
        "pool",
        lambda hidden, mask, lengths, by: hidden.masked_fill(~mask, -torch.inf).amax(1),
        lambda hidden, mask, lengths, by: (hidden * mask).amax(1),
        lambda hidden, mask, lengths, by: hidden.amax(1),
    ),
    "over_the_batch": each("pool", lambda hidden, mask, lengths, by: hidden.mean(0)),
    "over_the_numbers": each(
        "pool",
        lambda hidden, mask, lengths, by: hidden.mean(2),
        lambda hidden, mask, lengths, by: (hidden * mask).mean(2),
    ),
    "padding_on_the_left": each("mask", lambda lengths, T: _real(lengths, T).flip(1)),
    "mask_inverted": [
        {"mask": lambda lengths, T: ~_real(lengths, T), **divide}
        for divide in ({}, {"divide": lambda lengths, T: (T - lengths)[:, None]})
    ],
    "one_length_for_all": [
        {"mask": lambda lengths, T, one=one: _real(one(lengths), T), **divide}
        for one in (
            lambda lengths: lengths[:1].expand_as(lengths),
            lambda lengths: lengths.max().expand_as(lengths),
            lambda lengths: lengths.min().expand_as(lengths),
        )
        for divide in ({"divide": lambda lengths, T, one=one: one(lengths)[:, None]}, {})
    ],
    "not_summed": each(
        "pool",
        lambda hidden, mask, lengths, by: hidden * mask,
        lambda hidden, mask, lengths, by: hidden * mask / lengths[:, None, None],
    ),
    "dimension_kept": each("end", lambda pooled: pooled.unsqueeze(1)),
    "normalised": each("end", lambda pooled: F.normalize(pooled, dim=-1)),
    "all_texts_in_one": each("end", lambda pooled: pooled.mean(0), lambda pooled: pooled.mean(0, keepdim=True)),
}


def _texts(T: int, C: int, *lengths: int) -> Problem:
    """Random hidden states, of the padding too."""
    hidden, real = torch.randn(len(lengths), T, C), torch.tensor(lengths)
    return Problem((hidden, real), lambda **options: _pool(hidden, real, **options))


@exercise("finetuning/mean_pool")
def mean_pool(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(hidden, lengths) with hidden (B, T, C), padding on the right: the mean over the real positions, (B, C)."""
    others = (_texts(1, 3, 1), _texts(5, 4, 5, 5), _texts(3, 7, 1, 2, 3, 1), _texts(4, 4, 2, 1, 4, 3))
    return diagnose(answer, [_texts(7, 4, 4, 6, 2), *others], POOLING)


def _lora(
    x: Tensor,
    weight: Tensor,
    A: Tensor,
    B: Tensor,
    alpha: float,
    *,
    frozen: Callable[[Tensor, Tensor], Tensor] = lambda x, weight: x @ weight.T,
    reads: Callable[[Tensor, Tensor], Tensor] = lambda x, weight: x,
    update: Update = lambda x, A, B: x @ A.T @ B.T,
    scale: Scale = lambda alpha, A: alpha / len(A),
    join: Join = lambda frozen, update, scale: frozen + scale * update,
    end: Callable[[Tensor], Tensor] = lambda out: out,
) -> Tensor:
    """x through the frozen weight and, scaled by alpha / r, through A and B, (N, out)."""
    return end(join(frozen(x, weight), update(reads(x, weight), A, B), scale(alpha, A)))


LORA: Mistakes = {
    "not_scaled": each("scale", lambda alpha, A: 1.0),
    "not_divided_by_r": each("scale", lambda alpha, A: alpha),
    "alpha_forgotten": each("scale", lambda alpha, A: 1 / len(A)),
    "times_r": each("scale", lambda alpha, A: alpha * len(A)),
    "turned_over": each("scale", lambda alpha, A: len(A) / alpha),
    "divided_by_width": each("scale", lambda alpha, A: alpha / A.size(1)),
    "root_of_r": each("scale", lambda alpha, A: alpha / len(A) ** 0.5),
    "scaled_twice": each(
        "scale",
        lambda alpha, A: (alpha / len(A)) ** 2,
        lambda alpha, A: alpha**2 / len(A),
        lambda alpha, A: alpha / len(A) ** 2,
    ),
    "whole_division": each("scale", lambda alpha, A: alpha // len(A)),
    "whole_scaled": each("join", lambda frozen, update, scale: scale * (frozen + update)),
    "frozen_scaled": each("join", lambda frozen, update, scale: scale * frozen + update),
    "no_frozen_part": each("join", lambda frozen, update, scale: scale * update),
    "no_update": each("join", lambda frozen, update, scale: frozen),
    "subtracted": each("join", lambda frozen, update, scale: frozen - scale * update),
    "added_twice": each(
        "join",
        lambda frozen, update, scale: frozen + 2 * scale * update,
        lambda frozen, update, scale: 2 * frozen + scale * update,
    ),
    "multiplied": each("join", lambda frozen, update, scale: frozen * scale * update),
    "A_and_B_swapped": each("update", lambda x, A, B: x @ B @ A),
    "weight_not_transposed": each("frozen", lambda x, weight: x @ weight),
    "nonlinear": each("update", lambda x, A, B: (x @ A.T).relu() @ B.T, lambda x, A, B: (x @ A.T @ B.T).relu()),
    "reads_the_output": each("reads", lambda x, weight: x @ weight.T),
    "weight_returned": [{"frozen": lambda x, weight: weight, "update": lambda x, A, B: B @ A}],
    "turned": each("end", lambda out: out.T),
}


def _layer(N: int, n_in: int, n_out: int, r: int, alpha: float) -> Problem:
    given = torch.randn(N, n_in), torch.randn(n_out, n_in), torch.randn(r, n_in), torch.randn(n_out, r)
    return Problem((*given, alpha), lambda **options: _lora(*given, alpha, **options))


@exercise("finetuning/lora")
def lora(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(x, weight, A, B, alpha) -> (N, out): the frozen layer and the adapter's update, alpha / r times."""
    others = (_layer(4, 5, 3, 2, 16.0), _layer(1, 3, 7, 1, 0.5), _layer(7, 2, 2, 4, 1.0))
    return diagnose(answer, [_layer(5, 6, 6, 3, 8), *others], LORA)
