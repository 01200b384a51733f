"""What notebook 03's exercises about the whole model ask for, and the ways in which answers go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.lab.check import Mistake, exercise
from minigpt.lab.diagnose import Mistakes, Problem, diagnose, each, tensor

Function = Callable[[Tensor], Tensor]

# How a part and its norm may meet the stream x. The pre-norm block has the first, twice.
STAGES: dict[str, Callable[[Tensor, Function, Function], Tensor]] = {
    "pre_norm": lambda x, part, norm: x + part(norm(x)),
    "no_norm": lambda x, part, norm: x + part(x),
    "no_residual": lambda x, part, norm: part(norm(x)),
    "bare": lambda x, part, norm: part(x),
    "post_norm": lambda x, part, norm: norm(x + part(x)),
    "stream_normalised": lambda x, part, norm: norm(x) + part(norm(x)),
    "update_normalised": lambda x, part, norm: x + norm(part(x)),
    "norm_before_and_after": lambda x, part, norm: norm(x + part(norm(x))),
    "norm_on_both_sides": lambda x, part, norm: x + norm(part(norm(x))),
    "multiplied": lambda x, part, norm: x * part(norm(x)),
    "subtracted": lambda x, part, norm: x - part(norm(x)),
    "averaged": lambda x, part, norm: (x + part(norm(x))) / 2,
    "input_twice": lambda x, part, norm: 2 * x + part(norm(x)),
    "left_out": lambda x, part, norm: x,
    "only_the_norm": lambda x, part, norm: x + norm(x),
}


def _block_problem(B: int, T: int, C: int) -> Problem:
    x, (wa, wm), gains = torch.randn(B, T, C), torch.randn(2, C, C), torch.rand(2, C) + 0.5
    steps = torch.arange(1, T + 1)[:, None]

    def attention(x: Tensor) -> Tensor:
        return torch.cumsum(x, dim=-2) / steps @ wa

    def mlp(x: Tensor) -> Tensor:
        return torch.tanh(x @ wm)

    def norm_1(x: Tensor) -> Tensor:
        return F.rms_norm(x, (C,), gains[0])

    def norm_2(x: Tensor) -> Tensor:
        return F.rms_norm(x, (C,), gains[1])

    def simulate(
        first: str = "pre_norm",
        second: str = "pre_norm",
        parts: str = "am",
        norms: tuple[int, int] = (1, 2),
        wiring: str = "chain",
        end: Callable[[Tensor, Tensor, Function, Function], Tensor] = lambda y, x, norm_1, norm_2: y,
    ) -> Tensor:
        part_1, part_2 = ({"a": attention, "m": mlp}[letter] for letter in parts)
        one, two = ({1: norm_1, 2: norm_2}[number] for number in norms)
        middle = STAGES[first](x, part_1, one)
        made = STAGES[second](x if wiring == "parallel" else middle, part_2, two)
        if wiring == "parallel":
            made = middle + made - x
        elif wiring == "parallel_bare":
            made = middle - x + STAGES[second](x, part_2, two) - x
        elif wiring == "update_only":  # the second part reads what the first has found, without the stream
            made = middle + STAGES[second](middle - x, part_2, two) - (middle - x)
        elif wiring == "from_the_start":  # what the second part finds is added to the x from before
            made = x + made - middle
        elif wiring == "around_both":  # as if one residual were enough
            made = x + STAGES[second](middle - x, part_2, two) - (middle - x)
        return end(made, x, norm_1, norm_2)

    return Problem((x, attention, mlp, norm_1, norm_2), simulate)


def _either(stage: str) -> list[dict[str, Any]]:
    """The forms of a mistake in both stages, or in one of them."""
    return [{"first": stage, "second": stage}, {"first": stage}, {"second": stage}]


BLOCK: Mistakes = {
    "no_residual": [{"first": "no_residual", "second": "no_residual"}, {"wiring": "parallel_bare"}],
    "no_residual_around_attention": [{"first": "no_residual"}],
    "no_residual_around_mlp": [{"second": "no_residual"}],
    "no_norm": [{"first": "no_norm", "second": "no_norm"}],
    "no_norm_before_attention": [{"first": "no_norm"}],
    "no_norm_before_mlp": [{"second": "no_norm"}],
    "neither_norm_nor_residual": _either("bare"),
    "post_norm": _either("post_norm"),
    "stream_normalised": _either("stream_normalised"),
    "update_normalised": _either("update_normalised"),
    "normalised_once_more": [
        *_either("norm_before_and_after"),
        *_either("norm_on_both_sides"),
        *each("end", lambda y, x, norm_1, norm_2: norm_1(y), lambda y, x, norm_1, norm_2: norm_2(y)),
    ],
    "parallel": [{"wiring": "parallel"}],
    "mlp_reads_update": [{"wiring": "update_only"}],
    "mlp_added_to_input": [{"wiring": "from_the_start"}],
    "one_residual_for_both": [{"wiring": "around_both"}],
    "norms_swapped": [{"norms": (2, 1)}],
    "one_norm_twice": [{"norms": (1, 1)}, {"norms": (2, 2)}],
    "mlp_first": [{"parts": "ma", "norms": (2, 1)}, {"parts": "ma"}],
    "one_part_twice": [{"parts": "aa"}, {"parts": "mm"}],
    "mlp_left_out": [{"second": "left_out"}, {"second": "only_the_norm"}],
    "attention_left_out": [{"first": "left_out"}, {"first": "only_the_norm"}],
    "multiplied": _either("multiplied"),
    "subtracted": _either("subtracted"),
    "averaged": _either("averaged"),
    "input_twice": [*_either("input_twice"), {"end": lambda y, x, norm_1, norm_2: y + x}],
}


@exercise("transformer/block")
def block(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(x, attention, mlp, norm_1, norm_2) with x (B, T, C): the pre-norm block."""
    return diagnose(answer, [_block_problem(2, 7, 4), _block_problem(1, 3, 6)], BLOCK)


def _loss_problem(B: int, T: int, V: int) -> Problem:
    logits, idx = torch.randn(B, T, V) * 2, torch.randint(V, (B, T))

    def simulate(
        pair: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = lambda logits, idx: (logits[:, :-1], idx[:, 1:]),
        logp: Callable[[Tensor], Tensor] = lambda logits: logits.log_softmax(-1),
        pick: Callable[[Tensor, Tensor], Tensor] = lambda logp, targets: _pick(logp, targets),
        reduce: Callable[[Tensor], Tensor] = torch.mean,
        sign: float = -1.0,
        unit: float = 1.0,
        end: Callable[[Tensor], Tensor] = lambda loss: loss,
        before: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> Tensor:
        some_logits, targets = pair(before(logits), idx)  # (B, T - 1, V), (B, T - 1)
        return end(sign * reduce(pick(logp(some_logits), targets)) / unit)

    return Problem((logits, idx), simulate)


def _pick(logp: Tensor, targets: Tensor) -> Tensor:
    return logp.gather(-1, targets[..., None])[..., 0]


def _pick_all_but_0(logp: Tensor, targets: Tensor) -> Tensor:
    return _pick(logp, targets).masked_fill(targets == 0, math.nan)


LOSS: Mistakes = {
    "not_shifted": each(
        "pair", lambda x, i: (x, i), lambda x, i: (x[:, :-1], i[:, :-1]), lambda x, i: (x[:, 1:], i[:, 1:])
    ),
    "shifted_backwards": each("pair", lambda x, i: (x[:, 1:], i[:, :-1])),
    "shifted_twice": each("pair", lambda x, i: (x[:, :-2], i[:, 2:])),
    "texts_shifted": each("pair", lambda x, i: (x[:-1], i[1:]), lambda x, i: (x[1:], i[:-1])),
    "wrapped_around": each("pair", lambda x, i: (x, i.roll(-1, 1)), lambda x, i: (x, i.flatten().roll(-1).view_as(i))),
    "rows_joined": each("pair", lambda x, i: (x.flatten(0, 1)[:-1], i.flatten()[1:])),
    "position_left_out": each("pair", lambda x, i: (x[:, 1:-1], i[:, 2:]), lambda x, i: (x[:, :-2], i[:, 1:-1])),
    "first_text_only": each("pair", lambda x, i: (x[:1, :-1], i[:1, 1:]), lambda x, i: (x[-1:, :-1], i[-1:, 1:])),
    "token_left_out": [{"pick": _pick_all_but_0, "reduce": torch.nanmean}],
    "last_position_only": [
        *each("pair", lambda x, i: (x[:, -2:-1], i[:, -1:]), lambda x, i: (x[:, -1:], i[:, -1:])),
        *each("reduce", lambda p: p[:, 0].mean()),
    ],
    "softmax_over_time": each(
        "logp",
        lambda x: x.log_softmax(-2),
        lambda x: x - x.logsumexp((-2, -1), keepdim=True),
        lambda x: x - x.logsumexp((0, 1, 2)),
    ),
    "softmax_over_all_time": each("before", lambda x: x.log_softmax(1)),
    "softmax_over_texts": each("logp", lambda x: x.log_softmax(0)),
    "softmax_twice": each("logp", lambda x: x.softmax(-1).log_softmax(-1)),
    "no_softmax": each("logp", lambda x: x),
    "no_log": [{"logp": lambda x: x.softmax(-1), "end": end} for end in (lambda loss: loss, lambda loss: 1 + loss)],
    "sigmoid": [
        {"logp": F.logsigmoid},
        {"logp": lambda x: x, "pick": lambda x, t: x * F.one_hot(t, x.size(-1)) - F.softplus(x)},
    ],
    "no_sum": each("logp", lambda x: x - x.amax(-1, keepdim=True), lambda x: x - x.mean(-1, keepdim=True)),
    "summed": each("reduce", torch.sum),
    "summed_over_time": each("reduce", lambda p: p.sum(-1).mean()),
    "summed_over_texts": each("reduce", lambda p: p.sum(0).mean()),
    "divided_by_all": each("reduce", lambda p: p.mean() * p.size(-1) / (p.size(-1) + 1)),
    "divided_by_fewer": each("reduce", lambda p: p.mean() * p.size(-1) / (p.size(-1) - 1)),
    "not_the_mean": each("reduce", torch.max, torch.min, torch.median, lambda p: -(-p).median()),
    "scaled": each("before", lambda x: x / x.size(-1) ** 0.5),
    "divided_by_texts": each("reduce", lambda p: p.mean() / p.size(0)),
    "not_averaged": each("reduce", lambda p: p, lambda p: p.mean(0), lambda p: p.mean(1), lambda p: p.flatten()),
    "log_of_mean": [{"logp": lambda x: x.softmax(-1), "reduce": lambda p: p.mean().log()}],
    "not_picked": each(
        "pick",
        lambda logp, t: logp,
        lambda logp, t: logp.sum(-1),
        lambda logp, t: logp * F.one_hot(t, logp.size(-1)),
    ),
    "likeliest_picked": each("pick", lambda logp, t: logp.amax(-1)),
    "entropy": each("pick", lambda logp, t: (logp.exp() * logp).sum(-1)),
    "accuracy": [
        {"pick": lambda logp, t: (logp.argmax(-1) == t).double(), "sign": 1.0, "end": end}
        for end in (lambda share: share, lambda share: 1 - share)
    ],
    "squared": [
        {"logp": f, "pick": lambda p, t: (p - F.one_hot(t, p.size(-1))) ** 2, "sign": 1.0, "reduce": r}
        for f in (lambda x: x.softmax(-1), lambda x: x)
        for r in (torch.mean, lambda p: p.sum(-1).mean())
    ],
    "reshaped": [
        {"before": lambda x: x.transpose(1, 2).reshape(x.shape)},
        {"pair": lambda x, i: (x[:, :-1].transpose(1, 2).reshape(x.size(0), x.size(1) - 1, -1), i[:, 1:])},
    ],
    "bits": each("unit", math.log(2)),
    "digits": each("unit", math.log(10)),
    "perplexity": [{"end": torch.exp}, {"reduce": lambda p: (-p).exp().mean(), "sign": 1.0}],
    "sign": each("sign", 1.0),
}


@exercise("transformer/next_token_loss")
def next_token_loss(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(logits, idx) with logits (B, T, V), idx (B, T): mean cross-entropy of each next token, in nats."""

    def single(*given: Tensor) -> Any:
        """The number in a tensor of one number."""
        got = tensor(answer(*given))
        return got.reshape(()) if isinstance(got, Tensor) and got.numel() == 1 else got

    return diagnose(single, [_loss_problem(2, 7, 11), _loss_problem(3, 4, 5), _loss_problem(1, 2, 30)], LOSS)
