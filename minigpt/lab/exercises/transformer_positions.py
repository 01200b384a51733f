"""What notebook 03's exercise about rotary positions asks for, and the ways in which answers go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from minigpt.lab.check import Mistake, exercise
from minigpt.lab.diagnose import Mistakes, Problem, diagnose, each


def _half(x: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat([-right, left], dim=-1)


def _neighbours(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)


def _doubled(angle: Tensor) -> Tensor:
    return torch.cat([angle, angle], dim=-1)


def _each_twice(angle: Tensor) -> Tensor:
    return angle.repeat_interleave(2, dim=-1)


def _turn(x: Tensor, partner: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + partner * sin


def _turn_too_early(x: Tensor, partner: Tensor, cos: Tensor, sin: Tensor, first: int = 0) -> Tensor:
    """The second half is made of the first one's new values, or the first of the second's."""
    new = list(_turn(x, partner, cos, sin).chunk(2, dim=-1))
    old, c, s = x.chunk(2, dim=-1), cos.chunk(2, dim=-1)[0], sin.chunk(2, dim=-1)[0]
    new[1 - first] = old[1 - first] * c + new[first] * s * (1 if first == 0 else -1)
    return torch.cat(new, dim=-1)


def _rotary_problem(B: int, H: int, T: int, D: int, theta: float) -> Problem:
    x = torch.randn(B, H, T, D)

    def simulate(
        exponent: Callable[[Tensor, int], Tensor] = lambda i, D: -2 * i / D,
        base: float = theta,
        at: Callable[[Tensor], Tensor] = lambda x: torch.arange(x.size(2))[:, None],
        unit: float = 1.0,
        spread: Callable[[Tensor], Tensor] = _doubled,
        partner: Callable[[Tensor], Tensor] = _half,
        turn: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _turn,
    ) -> Tensor:
        angle = spread(at(x) * base ** exponent(torch.arange(D // 2), D) * unit)  # (T, D)
        return turn(x, partner(x), angle.cos(), angle.sin())

    return Problem((x, theta), simulate)


def _joined(join: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    return lambda *parts: join(*_turn(*parts).chunk(2, dim=-1))


ROTARY: Mistakes = {
    "not_turned": each("at", lambda x: torch.zeros(1)),
    "position_left_out": each("at", lambda x: torch.ones(1)),
    "neighbours_paired": [{"spread": _each_twice, "partner": _neighbours}],
    "pairs_and_angles_differ": [*each("spread", _each_twice), *each("partner", _neighbours)],
    "turned_backwards": each("partner", lambda x: -_half(x)),
    "sign_missing": each("partner", lambda x: x.roll(x.size(-1) // 2, -1)),
    "sign_on_both": each("partner", lambda x: -x.roll(x.size(-1) // 2, -1)),
    "updated_too_early": each("turn", _turn_too_early, lambda *parts: _turn_too_early(*parts, first=1)),
    "position_from_one": each("at", lambda x: torch.arange(1, x.size(2) + 1)[:, None]),
    "positions_backwards": each("at", lambda x: torch.arange(x.size(2)).flip(0)[:, None]),
    "position_is_share": each("at", lambda x: (torch.arange(x.size(2)) / x.size(2))[:, None]),
    "position_is_head": each("at", lambda x: torch.arange(x.size(1))[:, None, None]),
    "position_is_text": each("at", lambda x: torch.arange(x.size(0))[:, None, None, None]),
    "one_frequency": each("exponent", lambda i, D: 0 * i),
    "exponent_halved": each("exponent", lambda i, D: -i / D),
    "exponent_doubled": each("exponent", lambda i, D: -4 * i / D),
    "exponent_positive": each("exponent", lambda i, D: 2 * i / D),
    "exponent_undivided": each("exponent", lambda i, D: -2 * i, lambda i, D: -i),
    "pair_from_one": each("exponent", lambda i, D: -2 * (i + 1) / D),
    "frequencies_differ": [
        {"exponent": lambda i, D, step=step: -step * torch.arange(D) / D, "spread": lambda angle: angle}
        for step in (1, 2)
    ],
    "exponent_rounded": each("exponent", lambda i, D: (-2 * i) // D),
    "frequencies_reversed": each("exponent", lambda i, D: -2 * i.flip(0) / D),
    "theta_left_out": each("base", math.e),
    "theta_fixed": each("base", 10000.0),
    "degrees": each("unit", math.pi / 180, 180 / math.pi),
    "whole_turns": each("unit", 2 * math.pi),
    "turned_twice": each("unit", 2.0),
    "cosine_and_sine_swapped": each("turn", lambda x, partner, cos, sin: x * sin + partner * cos),
    "half_the_formula": each("turn", lambda x, p, cos, sin: x * cos, lambda x, p, cos, sin: p * sin),
    "added": each(
        "turn",
        lambda x, *parts: x + _turn(x, *parts),
        *(lambda x, p, cos, sin, f=f: x + f(cos, sin) for f in (lambda c, s: c, lambda c, s: s, lambda c, s: c + s)),
        lambda x, p, cos, sin: x + torch.cat([sin.chunk(2, -1)[0], cos.chunk(2, -1)[0]], -1),
        lambda x, p, cos, sin: x + torch.stack([sin.chunk(2, -1)[0], cos.chunk(2, -1)[0]], -1).flatten(-2),
    ),
    "half_missing": each("turn", *(_joined(join) for join in (lambda a, b: a, lambda a, b: b))),
    "half_left_alone": each(
        "turn",
        lambda x, *parts: torch.cat([_turn(x, *parts).chunk(2, -1)[0], x.chunk(2, -1)[1]], -1),
        lambda x, *parts: torch.cat([x.chunk(2, -1)[0], _turn(x, *parts).chunk(2, -1)[1]], -1),
    ),
    "halves_exchanged": each("turn", _joined(lambda a, b: torch.cat([b, a], -1))),
    "result_interleaved": each("turn", _joined(lambda a, b: torch.stack([a, b], -1).flatten(-2))),
}


@exercise("transformer/rotary")
def rotary(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(x, theta) with x (B, H, T, D): turn pair i, (x[i], x[i + D/2]), at position t by t * theta ** (-2i / D)."""
    sizes = [(2, 3, 7, 8, 60.0), (1, 2, 5, 12, 10000.0), (3, 1, 9, 2, 50.0)]
    return diagnose(answer, [_rotary_problem(*size) for size in sizes], ROTARY)
