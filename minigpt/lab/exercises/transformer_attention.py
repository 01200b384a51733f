"""What notebook 03's exercises about attention ask for, and the ways in which answers go wrong.

Each exercise is a function that computes the result with an option for each way to go wrong (see `lab.diagnose`).
B texts, H query heads, G key/value heads, T tokens, D numbers per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minigpt.lab.check import Mistake, call, exercise, mistake, same
from minigpt.lab.diagnose import Mistakes, Problem, diagnose, each, tensor


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    allowed: Tensor,
    *,
    scale: Callable[[Tensor, Tensor], float] = lambda q, k: q.size(-1) ** -0.5,
    allow: Callable[[Tensor], Tensor] = lambda allowed: allowed,
    fill: float = -math.inf,
    masked: str = "scores",
    shrink: Callable[[Tensor], float] = lambda q: 1.0,
    share: str = "softmax",
    dim: int = -1,
    pool: tuple[int, ...] = (),
    asks: str = "qk",
    mixes: str = "v",
    returns: str = "mixed",
) -> Tensor:
    """Attention of q, k, v (B, H, T, D) where `allowed` (T, T) is true."""
    given, forbidden = {"q": q, "k": k, "v": v}, ~allow(allowed)
    scores = given[asks[0]] @ given[asks[1]].transpose(-2, -1) * scale(q, k)  # (B, H, T, T)
    if pool:
        scores = scores.sum(pool, keepdim=True).expand_as(scores)
    if masked == "scores":
        scores = scores.masked_fill(forbidden, fill)
    elif masked == "added":
        scores = scores + fill * forbidden
    if returns == "scores":
        return scores
    weights = {"softmax": lambda: scores.softmax(dim), "exp": scores.exp, "sigmoid": scores.sigmoid}.get(
        share, lambda: scores
    )()
    if masked == "weights":
        weights = weights.masked_fill(forbidden, 0)
    mixed = weights @ given[mixes] * shrink(q)
    return weights if returns == "weights" else mixed


ATTENTION: Mistakes = {
    "weights_returned": each("returns", "weights"),
    "scores_returned": each("returns", "scores"),
    "masked_after_softmax": each("masked", "weights"),
    "masked_with_zero": each("fill", 0.0),
    "masked_too_weakly": [
        {"fill": fill, "masked": how} for fill in (-1.0, -2.0, -5.0, -10.0) for how in ("scores", "added")
    ],
    "masked_with_plus": each("fill", 1e9),
    "mask_inverted": [{"allow": torch.logical_not}, {"allow": torch.logical_not, "fill": -1e9}],
    "softmax_over_queries": [
        *each("dim", -2),
        {"dim": -2, "masked": "weights"},
        {"dim": -2, "fill": 0.0},
    ],
    "softmax_over_heads": [
        {"dim": dim, **how} for dim in (0, 1) for how in ({"fill": -1e9}, {"fill": 0.0}, {"masked": "weights"})
    ],
    "scores_summed": each("pool", (0, 1), (1,), (0,)),
    "no_softmax": [{"share": "nothing", "masked": "weights"}, {"share": "nothing", "masked": "nowhere"}],
    "not_shared_out": each("share", "exp"),
    "sigmoid": each("share", "sigmoid"),
    "not_scaled": each("scale", lambda q, k: 1.0),
    "scaled_after_softmax": [{"scale": lambda q, k: 1.0, "shrink": lambda q: q.size(-1) ** -0.5}],
    "scaled_twice": each("scale", lambda q, k: 1 / q.size(-1)),
    "scaled_up": each("scale", lambda q, k: q.size(-1) ** 0.5, lambda q, k: q.size(-1)),
    "scaled_by_other": each(
        "scale", lambda q, k: q.size(2) ** -0.5, lambda q, k: q.size(1) ** -0.5, lambda q, k: q.size(0) ** -0.5
    ),
    "values_forgotten": each("mixes", "k", "q"),
    "asked_the_wrong_way": each("asks", "kq"),
    "asked_itself": each("asks", "qq", "kk", "qv", "vk"),
}


def _nan(got: Tensor) -> Mistake | None:
    share = got.isnan().float().mean().item()
    return mistake("nan", share=f"{share:.0%}") if share else None


@exercise("transformer/window_attention")
def window_attention(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(q, k, v, window) with q, k, v (B, H, T, D): position t sees the `window` positions that end at t."""
    main = _window_problem(2, 5, 7, 4, window=3)
    q, k, v, window = main.arguments
    last = q.size(2) - 1

    def look(got: Tensor) -> Mistake | None:
        if got.shape != q.shape or got.isnan().all():
            return _nan(got)

        def seen(position: int, changed: int) -> bool:
            """Does the result at `position` move when the token at `changed` does? Both k and v of it are changed."""
            k2, v2 = k.clone(), v.clone()
            k2[..., changed, :] += 1.0
            v2[..., changed, :] -= 2.0
            after = tensor(call(answer, q, k2, v2, window))
            return not torch.allclose(got[..., position, :], after[..., position, :], atol=1e-6, equal_nan=True)

        if not seen(last, last):
            return mistake("blind_to_itself", position=last)
        for later in range(last, 0, -1):
            for position in range(later):
                if seen(position, later):
                    return mistake("sees_the_future", position=position, later=later)
        reach = max((last - back for back in range(last + 1) if seen(last, back)), default=0) + 1
        if reach == last + 1:
            return mistake("window_ignored", window=window)
        if reach != window:
            return mistake("window_off", window=window, reach=reach)
        whole = (..., slice(window - 1, None), slice(None))  # the positions with a whole window behind them
        if same(got[whole], main.simulate()[whole]):
            return mistake("early_positions", window=window)
        return _nan(got)

    rows, columns = torch.arange(last + 1)[:, None], torch.arange(last + 1)
    forms = {
        "scaled_by_other": [
            *ATTENTION["scaled_by_other"],
            *each("scale", lambda q, k: window**-0.5, lambda q, k: 1 / window),
        ],
        "one_window_for_all": each(
            "allow",
            lambda band: (columns > last - window).expand(last + 1, -1),
            lambda band: (columns > last - window) & (columns <= rows),
            lambda band: (columns < window).expand(last + 1, -1),
            lambda band: (columns < window) & (columns <= rows),
        ),
        "blocks": each("allow", lambda band: (columns // window == rows // window) & (columns <= rows)),
        "only_the_edge": each(
            "allow", lambda band: columns == rows - window + 1, lambda band: columns == rows - window
        ),
    }
    others = [_window_problem(1, 2, 9, 8, window=4), _window_problem(1, 1, 5, 4, 1), _window_problem(1, 2, 4, 4, 10)]
    return diagnose(answer, [main, *others], {**ATTENTION, **forms}, look)


def _window_problem(B: int, H: int, T: int, D: int, window: int) -> Problem:
    q, k, v = torch.randn(3, B, H, T, D)
    rows, columns = torch.arange(T)[:, None], torch.arange(T)
    allowed = (columns <= rows) & (columns > rows - window)
    return Problem((q, k, v, window), lambda **options: _attend(q, k, v, allowed, **options))


def _heads(x: Tensor, n: int) -> Tensor:
    return x.view(x.size(0), x.size(1), n, -1).transpose(1, 2)


def _heads_unmoved(x: Tensor, n: int) -> Tensor:
    return x.view(x.size(0), n, x.size(1), -1)


def _heads_strided(x: Tensor, n: int) -> Tensor:
    return x.view(x.size(0), x.size(1), -1, n).permute(0, 3, 1, 2)


def _grouped_problem(B: int, T: int, D: int, H: int, G: int) -> Problem:
    q, k, v = torch.randn(B, T, H * D), torch.randn(B, T, G * D), torch.randn(B, T, G * D)

    def simulate(
        split: Callable[[Tensor, int], Tensor] = _heads,
        split_keys: Callable[[Tensor, int], Tensor] | None = None,
        spread: Callable[[Tensor, int], Tensor] = lambda x, times: x.repeat_interleave(times, dim=1),
        spread_one: tuple[int, Callable[[Tensor, int], Tensor]] | None = None,
        double: bool = False,
        merge: Callable[[Tensor], Tensor] = lambda y: y.transpose(1, 2).flatten(2),
        keys: str = "kv",
        **options: Any,
    ) -> Tensor:
        parts = [{"k": k, "v": v}[name] for name in keys]
        if double:
            parts = [_heads(part.repeat_interleave(H // G, dim=-1), H) for part in parts]
        else:
            how = {0: spread, 1: spread} | ({spread_one[0]: spread_one[1]} if spread_one else {})
            parts = [how[i]((split_keys or split)(part, G), H // G) for i, part in enumerate(parts)]
        past = torch.ones(T, T, dtype=torch.bool).tril()
        mixed = _attend(split(q, H), *parts, past, **options)  # (B, H, T, D)
        return merge(mixed) if options.get("returns", "mixed") == "mixed" else mixed

    return Problem((q, k, v, H, G), simulate)


GROUPED: Mistakes = {
    "no_mask": each("allow", torch.ones_like),
    "blind_to_itself": [{"allow": lambda past: past.tril(-1), "fill": fill} for fill in (-math.inf, -1e9)],
    "only_the_future": each("allow", lambda past: past.T),
    "not_merged": each("merge", lambda y: y, lambda y: y.transpose(1, 2)),
    "neither_transposed": [{"split": _heads_unmoved, "merge": lambda y: y.reshape(y.size(0), y.size(2), -1)}],
    "merged_without_transpose": each("merge", lambda y: y.reshape(y.size(0), y.size(2), -1)),
    "merged_inside_out": each("merge", lambda y: y.permute(0, 2, 3, 1).flatten(2)),
    "split_without_transpose": [*each("split", _heads_unmoved), *each("split_keys", _heads_unmoved)],
    "split_inside_out": [*each("split", _heads_strided), *each("split_keys", _heads_strided)],
    "heads_interleaved": [
        {"spread": lambda x, times: x.repeat(1, times, 1, 1)},
        *each("spread_one", *((part, lambda x, times: x.repeat(1, times, 1, 1)) for part in (0, 1))),
    ],
    "group_of_wrong_size": each("spread", lambda x, n: x[:, torch.arange(n * x.size(1)) // x.size(1)]),
    "numbers_doubled": each("double", True),
    "one_group_for_all": each("spread", *(lambda x, n, i=i: x[:, [i]].repeat(1, n * x.size(1), 1, 1) for i in (0, -1))),
    "groups_averaged": each("spread", lambda x, n: x.mean(1, keepdim=True).repeat(1, n * x.size(1), 1, 1)),
    "groups_reversed": each("spread", lambda x, n: x.flip(1).repeat_interleave(n, 1)),
    "keys_and_values_swapped": each("keys", "vk"),
    "keys_for_both": each("keys", "kk"),
    "values_for_both": each("keys", "vv"),
    "scaled_by_whole_width": each("scale", lambda q, k: (q.size(1) * q.size(-1)) ** -0.5),
    **{code: forms for code, forms in ATTENTION.items() if code not in ("asked_the_wrong_way", "values_forgotten")},
}


@exercise("transformer/grouped_attention")
def grouped_attention(answer: Callable[..., Tensor]) -> Mistake | None:
    """answer(q, k, v, n_head, n_kv_head) with q (B, T, H * D), k and v (B, T, G * D) -> (B, T, H * D), causal."""
    sizes = [(2, 7, 4, 6, 3), (1, 5, 8, 4, 1), (3, 4, 2, 3, 3), (2, 6, 4, 8, 2)]
    return diagnose(answer, [_grouped_problem(*size) for size in sizes], GROUPED, _nan)
