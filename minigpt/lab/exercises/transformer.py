"""What the exercises of notebook 03 ask for, and how each wrong answer is told from the others.

A diagnosis first looks at properties (does a later token move an earlier result?), then compares with the results of
known mistakes, and only then says that a value differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.lab.check import Mistake, call, compare, exercise, mistake, same

B, H, T, D = 2, 2, 7, 4


def _known(got: Any, expected: Tensor, wrong: dict[str, Callable[[], Tensor]]) -> Mistake | None:
    """None when right, else the known mistake that gives the same numbers, else the first value that differs."""
    found = compare(got, expected)
    if found is None or found.code in ("not_a_tensor", "shape"):
        return found
    for code, variant in wrong.items():
        if same(got, variant()):
            return mistake(code)
    return found


def _weights(q: Tensor, k: Tensor, allowed: Tensor, scale: float, dim: int = -1) -> Tensor:
    return (q @ k.transpose(-2, -1) * scale).masked_fill(~allowed, -math.inf).softmax(dim=dim)


def _moved(before: Tensor, after: Tensor, position: int) -> bool:
    """Whether the results (..., T, D) at `position` differ between two runs."""
    return not torch.allclose(before[..., position, :], after[..., position, :], atol=1e-6, equal_nan=True)


@exercise("transformer/window_attention")
def window_attention(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(q, k, v, window) with q, k, v (B, H, T, D): position t sees the `window` positions that end at t."""
    q, k, v = torch.randn(3, B, H, T, D)
    window, scale = 3, D**-0.5
    rows, columns = torch.arange(T)[:, None], torch.arange(T)
    past = columns <= rows
    allowed = past & (columns > rows - window)
    got = call(answer, q, k, v, window)
    expected = _weights(q, k, allowed, scale) @ v
    found = compare(got, expected)
    if found is None or found.code in ("not_a_tensor", "shape"):
        return found

    def seen(position: int, changed: int) -> bool:
        """Does the result at `position` move when the token at `changed` does? Both k and v of it are changed."""
        k2, v2 = k.clone(), v.clone()
        k2[..., changed, :] += 1.0
        v2[..., changed, :] -= 2.0
        return _moved(got, call(answer, q, k2, v2, window), position)

    scores = q @ k.transpose(-2, -1) * scale
    raw = scores.softmax(-1) * allowed
    if same(got, raw @ v):
        return mistake("masked_after_softmax")
    if same(got, (scores * allowed).softmax(-1) @ v):
        return mistake("masked_with_zero")
    if same(got, scores.masked_fill(~allowed, -math.inf).softmax(-2).nan_to_num() @ v) or same(
        got, scores.softmax(-2).masked_fill(~allowed, 0) @ v
    ):
        return mistake("softmax_over_queries")
    if not seen(T - 1, T - 1):
        return mistake("blind_to_itself", position=T - 1)
    if seen(3, 5):
        return mistake("sees_the_future", position=3, later=5)
    reach = max((T - 1 - back for back in range(T) if seen(T - 1, back)), default=0) + 1
    if reach == T:
        return mistake("window_ignored", window=window)
    if reach != window:
        return mistake("window_off", window=window, reach=reach)
    if same(got, _weights(q, k, allowed, 1.0) @ v):
        return mistake("not_scaled", d=D)
    if same(got, _weights(q, k, allowed, 1 / D) @ v):
        return mistake("scaled_twice", d=D)
    return found


@exercise("transformer/grouped_attention")
def grouped_attention(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(q, k, v) with q (B, T, H * D), k and v (B, T, G * D), n_head, n_kv_head -> (B, T, H * D), causal."""
    heads, groups = 4, 2
    q, k, v = torch.randn(B, T, heads * D), torch.randn(B, T, groups * D), torch.randn(B, T, groups * D)
    past = torch.ones(T, T, dtype=torch.bool).tril()

    def attend(
        split: Callable[[Tensor, int], Tensor] = lambda x, n: x.view(B, T, n, D).transpose(1, 2),
        spread: Callable[[Tensor], Tensor] = lambda x: x.repeat_interleave(heads // groups, dim=1),
        allowed: Tensor = past,
        scale: float = D**-0.5,
        merge: Callable[[Tensor], Tensor] = lambda y: y.transpose(1, 2).reshape(B, T, heads * D),
        keys: Tensor = k,
        values: Tensor = v,
    ) -> Tensor:
        weights = _weights(split(q, heads), spread(split(keys, groups)), allowed, scale)
        return merge(weights @ spread(split(values, groups)))

    everything = torch.ones(T, T, dtype=torch.bool)
    return _known(
        call(answer, q, k, v, heads, groups),
        attend(),
        {
            "no_mask": lambda: attend(allowed=everything),
            "merged_without_transpose": lambda: attend(merge=lambda y: y.reshape(B, T, heads * D)),
            "split_without_transpose": lambda: attend(split=lambda x, n: x.view(B, n, T, D)),
            "neither_transposed": lambda: attend(
                split=lambda x, n: x.view(B, n, T, D), merge=lambda y: y.reshape(B, T, heads * D)
            ),
            "heads_interleaved": lambda: attend(spread=lambda x: x.repeat(1, heads // groups, 1, 1)),
            "scaled_by_whole_width": lambda: attend(scale=(heads * D) ** -0.5),
            "not_scaled": lambda: attend(scale=1.0),
            "keys_and_values_swapped": lambda: attend(keys=v, values=k),
            "one_group_for_all": lambda: attend(spread=lambda x: x[:, :1].expand(B, heads, T, D)),
        },
    )


def _turn(x: Tensor, angle: Tensor, swap: Callable[[Tensor], Tensor]) -> Tensor:
    return x * angle.cos() + swap(x) * angle.sin()


def _half(x: Tensor) -> Tensor:
    left, right = x.chunk(2, dim=-1)
    return torch.cat([-right, left], dim=-1)


def _neighbours(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)


@exercise("transformer/rotary")
def rotary(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(x, theta) with x (B, H, T, D): turn pair i, (x[i], x[i + D/2]), at position t by t * theta ** (-2i / D)."""
    width, theta = 8, 100.0
    x = torch.randn(B, H, T, width)
    steps = torch.arange(0, width, 2) / width
    position = torch.arange(T)[:, None]

    def angles(exponent: Tensor = -steps, at: Tensor = position, twice: bool = False) -> Tensor:
        angle = at * theta**exponent
        return angle.repeat_interleave(2, -1) if twice else torch.cat([angle, angle], -1)

    right = angles()
    fewer = angles(exponent=-steps / 2)
    return _known(
        call(answer, x, theta),
        _turn(x, right, _half),
        {
            "turned_backwards": lambda: _turn(x, -right, _half),
            "neighbours_paired": lambda: _turn(x, angles(twice=True), _neighbours),
            "not_turned": lambda: x,
            "position_from_one": lambda: _turn(x, angles(at=position + 1), _half),
            "exponent_halved": lambda: _turn(x, fewer, _half),
            "exponent_positive": lambda: _turn(x, angles(exponent=steps), _half),
            "one_frequency": lambda: _turn(x, angles(exponent=torch.zeros(width // 2)), _half),
            "sign_missing": lambda: x * right.cos() + torch.cat(x.chunk(2, -1)[::-1], -1) * right.sin(),
            "position_is_head": lambda: _turn(
                x, torch.cat([torch.arange(H)[:, None, None] * theta**-steps] * 2, -1), _half
            ),
        },
    )


@exercise("transformer/block")
def block(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(x, attention, mlp, norm_1, norm_2) with x (B, T, C): the pre-norm block."""
    x = torch.randn(B, T, D)
    wa, wm = torch.randn(2, D, D)

    def attention(x: Tensor) -> Tensor:
        return torch.cumsum(x, dim=1) @ wa / T

    def mlp(x: Tensor) -> Tensor:
        return torch.tanh(x @ wm)

    def norm_1(x: Tensor) -> Tensor:
        return F.layer_norm(x, (D,)) * 1.5

    def norm_2(x: Tensor) -> Tensor:
        return F.layer_norm(x, (D,)) * 0.5

    middle = x + attention(norm_1(x))
    added = attention(norm_1(x))
    return _known(
        call(answer, x, attention, mlp, norm_1, norm_2),
        middle + mlp(norm_2(middle)),
        {
            "no_residual": lambda: mlp(norm_2(added)),
            "no_residual_around_attention": lambda: added + mlp(norm_2(added)),
            "no_residual_around_mlp": lambda: mlp(norm_2(middle)),
            "no_norm": lambda: (x + attention(x)) + mlp(x + attention(x)),
            "post_norm": lambda: norm_2((n := norm_1(x + attention(x))) + mlp(n)),
            "stream_normalised": lambda: (m := (n := norm_1(x)) + attention(n), o := norm_2(m), o + mlp(o))[-1],
            "parallel": lambda: x + attention(norm_1(x)) + mlp(norm_2(x)),
            "norms_swapped": lambda: (m := x + attention(norm_2(x))) + mlp(norm_1(m)),
            "one_norm_twice": lambda: middle + mlp(norm_1(middle)),
            "mlp_added_to_input": lambda: x + mlp(norm_2(middle)),
            "mlp_first": lambda: (m := x + mlp(norm_2(x))) + attention(norm_1(m)),
        },
    )


@exercise("transformer/next_token_loss")
def next_token_loss(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(logits, idx) with logits (B, T, V), idx (B, T): mean cross-entropy of each next token, in nats."""
    vocabulary = 11
    logits, idx = torch.randn(B, T, vocabulary) * 2, torch.randint(vocabulary, (B, T))
    logp = logits.log_softmax(-1)

    def pick(table: Tensor, targets: Tensor) -> Tensor:
        return table.gather(-1, targets[..., None]).squeeze(-1)

    right = -pick(logp[:, :-1], idx[:, 1:]).mean()
    got = call(answer, logits, idx)
    got = torch.tensor(float(got)) if isinstance(got, int | float) else got
    return _known(
        got,
        right,
        {
            "not_shifted": lambda: -pick(logp, idx).mean(),
            "shifted_backwards": lambda: -pick(logp[:, 1:], idx[:, :-1]).mean(),
            "wrapped_around": lambda: -pick(logp, idx.roll(-1, 1)).mean(),
            "sign": lambda: -right,
            "summed": lambda: right * B * (T - 1),
            "divided_by_all": lambda: right * (T - 1) / T,
            "summed_over_time": lambda: right * (T - 1),
            "softmax_over_time": lambda: -pick(logits[:, :-1].log_softmax(1), idx[:, 1:]).mean(),
            "softmax_over_all_time": lambda: -pick(logits.log_softmax(1)[:, :-1], idx[:, 1:]).mean(),
            "no_log": lambda: -pick(logp[:, :-1].exp(), idx[:, 1:]).mean(),
            "log_of_mean": lambda: -pick(logp[:, :-1].exp(), idx[:, 1:]).mean().log(),
            "no_softmax": lambda: -pick(logits[:, :-1], idx[:, 1:]).mean(),
            "bits": lambda: right / math.log(2),
        },
    )
