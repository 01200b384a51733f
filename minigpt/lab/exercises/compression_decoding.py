"""What notebook 07's exercises about fast writing ask for, and the ways in which answers go wrong.

B texts, H heads, D numbers per head, L rows of a cache; K drafted tokens, V ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, is_row, plain
from minigpt.lab.check import Mistake, Untouched, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each, tensor
from minigpt.lab.exercises.compression_parts import Answer, Case, diagnose_parts

Rows = Callable[[int, int], slice]  # rows of the cache, from the position and from how many there are


def _attend_to_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_k: Tensor,
    cache_v: Tensor,
    position: int,
    *,
    at: Rows = lambda position, L: slice(position, position + 1),
    seen: Rows = lambda position, L: slice(0, position + 1),
    write: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = lambda k, v, old_k, old_v: (k, v),
    in_place: bool = True,
    scale: Callable[[Tensor, int], float] = lambda q, seen: q.size(-1) ** -0.5,
    dim: int = -1,
    softmax: bool = True,
    mixes: str = "v",
) -> Tensor:
    """The result and then both caches, in one row."""
    caches, L = {"k": cache_k.clone(), "v": cache_v.clone()}, cache_k.size(2)
    rows = at(position, L)
    caches["k"][:, :, rows], caches["v"][:, :, rows] = write(k, v, cache_k[:, :, rows], cache_v[:, :, rows])
    looked = seen(position, L)
    scores = q @ caches["k"][:, :, looked].mT  # (B, H, 1, rows seen)
    scores = scores * scale(q, scores.size(-1))
    y = (scores.softmax(dim) if softmax else scores) @ caches[mixes][:, :, looked]
    after = (caches["k"], caches["v"]) if in_place else (cache_k, cache_v)
    return torch.cat([part.flatten() for part in (y, *after)])


def _beside(by: int) -> Rows:
    return lambda position, L: slice(position + by, position + by + 1)


def _until(by: int) -> Rows:
    return lambda position, L: slice(0, position + by)


CACHED: Mistakes = {
    "out_of_place": each("in_place", False),
    "not_written": each("write", lambda k, v, old_k, old_v: (old_k, old_v)),
    "half_written": each("write", lambda k, v, old_k, old_v: (k, old_v), lambda k, v, old_k, old_v: (old_k, v)),
    "swapped": each("write", lambda k, v, old_k, old_v: (v, k)),
    "keys_for_both": each("write", lambda k, v, old_k, old_v: (k, k), lambda k, v, old_k, old_v: (v, v)),
    "added": each("write", lambda k, v, old_k, old_v: (old_k + k, old_v + v)),
    "written_before": [{"at": _beside(-1)}, {"at": _beside(-1), "seen": _until(0)}],
    "written_after": [{"at": _beside(1)}, {"at": _beside(1), "seen": _until(2)}],
    "written_at_an_end": each("at", lambda position, L: slice(0, 1), lambda position, L: slice(L - 1, L)),
    "fills_the_rest": each(
        "at", lambda position, L: slice(position, None), lambda p, L: slice(None), lambda p, L: slice(p + 1)
    ),
    "blind_to_itself": each("seen", _until(0)),
    "one_too_many": each("seen", _until(2)),
    "whole_cache": each("seen", lambda position, L: slice(None)),
    "sees_the_first": each("seen", lambda position, L: slice(0, 1)),
    "sees_itself_alone": each("seen", _beside(0)),
    "start_forgotten": each("seen", lambda position, L: slice(1, position + 1)),
    "not_scaled": each("scale", lambda q, seen: 1.0),
    "scaled_twice": each("scale", lambda q, seen: 1 / q.size(-1)),
    "scaled_by_other": each(
        "scale", lambda q, seen: seen**-0.5, lambda q, seen: q.size(1) ** -0.5, lambda q, seen: q.size(-1) ** 0.5
    ),
    "softmax_over_queries": each("dim", -2),
    "softmax_over_heads": each("dim", 1, 0),
    "no_softmax": each("softmax", False),
    "values_forgotten": each("mixes", "k"),
}


def _cached_row(answer: Answer, *given: Any) -> Tensor | Mistake:
    """What an answer gave and what the caches hold after it, in one row."""
    copies = [part.clone() if isinstance(part, Tensor) else part for part in given]
    y = tensor(call(lambda: answer(*copies)))
    if isinstance(y, tuple | list):
        return mistake("caches_returned", count=len(y))
    if not isinstance(y, Tensor):
        return mistake("not_a_tensor", kind=type(y).__name__)
    if y.shape != given[0].shape:
        return mistake("shape", got=tuple(y.shape), expected=tuple(given[0].shape))
    if not y.isfinite().all():
        return mistake("not_finite", share=f"{1 - y.isfinite().float().mean():.0%}")
    return torch.cat([part.detach().flatten() for part in (y, *copies[3:5])])


@exercise("compression/cached_attention")
def cached_attention(answer: Answer) -> Mistake | None:
    """answer(q, k, v, cache_k, cache_v, position): q, k, v (B, H, 1, D), caches (B, H, L, D) -> (B, H, 1, D)."""

    def case(B: int, H: int, L: int, D: int, position: int) -> Case:
        q, k, v = torch.randn(3, B, H, 1, D)
        caches = torch.randn(2, B, H, L, D)
        caches[..., position:, :] = 2 * torch.randn(2, B, H, L - position, D) + 1  # another text lay there before
        given = (q, k, v, *caches, position)
        shown = f"position={position} in a cache of {L} rows"
        return Case(given, lambda **options: _attend_to_cache(*given, **options), shown)

    def look(got: Tensor, expected: Tensor) -> Mistake:
        sizes = [part.numel() for part in cases[0].arguments[:5]][2:]
        far = (got - expected).abs() > 1e-4
        y, *caches = (bool(part.any()) for part in far.split(sizes))
        return mistake("output_differs" if y and not any(caches) else "cache_differs")

    cases = [case(2, 3, 8, 6, 4), case(1, 2, 6, 4, 0), case(1, 2, 6, 4, 5), case(3, 1, 9, 2, 1)]
    return diagnose_parts(answer, cases, _cached_row, CACHED, look)


class Draft(NamedTuple):
    """What a small model drafted and a large one thinks of it."""

    p: Tensor  # (K + 1, V), of the large model
    q: Tensor  # (K, V), of the small one
    drafted: Tensor  # (K,)
    r: Tensor  # (K,), uniform


Test = Callable[[Draft, int, float], bool]  # whether drafted token i is accepted; the number is the ratio
Residual = Callable[[Tensor, Tensor], Tensor]  # (V,) of the large model and of the small one, to (V,)


def _residual(p: Tensor, q: Tensor) -> Tensor:
    left = (p - q).clamp(min=0)
    return left / left.sum()


def _speculated(
    drafts: Sequence[Draft],
    *,
    ratio: Callable[[Draft, int, int], Tensor] = lambda d, i, x: d.p[i, x] / d.q[i, x],
    test: Test = lambda d, i, ratio: bool(d.r[i] < ratio),
    joint: bool = False,
    stop: bool = True,
    place: Callable[[int, int], int] = lambda accepted, first: accepted,
    residual: Residual = _residual,
    last: Callable[[Draft], Tensor] = lambda d: d.p[-1],
    always_last: bool = False,
    count: int = 0,
) -> Tensor:
    """For each draft the number of accepted tokens, and the distribution of the next one, all in one row."""
    parts = []
    for d in drafts:
        K, passed, product = len(d.drafted), [], 1.0
        for i, x in enumerate(d.drafted.tolist()):
            product = float(ratio(d, i, x)) * (product if joint else 1.0)
            passed.append(test(d, i, product))
            if stop and not passed[-1]:
                break
        accepted, first = sum(passed), [*passed, False].index(False)
        at = place(accepted, first)
        refused = accepted < K and not always_last
        correction = residual(d.p[at], d.q[min(at, K - 1)]) if refused else last(d)
        parts += [torch.tensor([float(accepted + count)]), correction]
    return torch.cat(parts)


SPECULATED: Mistakes = {
    "ratio_inverted": each("ratio", lambda d, i, x: d.q[i, x] / d.p[i, x]),
    "target_alone": each("ratio", lambda d, i, x: d.p[i, x]),
    "threshold_inverted": each("test", lambda d, i, ratio: bool(d.r[i] > min(1.0, ratio))),
    "greedy": each(
        "test",
        lambda d, i, ratio: int(d.p[i].argmax()) == int(d.drafted[i]),
        lambda d, i, ratio: bool(d.p[i].argmax() == d.q[i].argmax()),
    ),
    "without_chance": each("test", lambda d, i, ratio: ratio >= 1, lambda d, i, ratio: ratio > 0.5),
    "accepts_all": each("test", lambda d, i, ratio: True),
    "row_ahead": each("ratio", lambda d, i, x: d.p[i + 1, x] / d.q[i, x]),
    "ratios_multiplied": each("joint", True),
    "goes_on": [{"stop": False}, {"stop": False, "place": lambda accepted, first: first}],
    "always_last": each("always_last", True),
    "target_for_residual": each("residual", lambda p, q: p),
    "draft_for_residual": each("residual", lambda p, q: q),
    "not_normalised": each("residual", lambda p, q: (p - q).clamp(min=0)),
    "residual_inverted": each("residual", lambda p, q: _residual(q, p), lambda p, q: (q - p).clamp(min=0)),
    "absolute": each("residual", lambda p, q: (p - q).abs() / (p - q).abs().sum(), lambda p, q: (p - q).abs()),
    "negative_left": each("residual", lambda p, q: p - q, lambda p, q: (p - q) / (p - q).sum()),
    "softmax": each("residual", *(lambda p, q, f=f: f(p - q).softmax(0) for f in (torch.relu, torch.clone))),
    "place_off": each(
        "place",
        lambda accepted, first: accepted + 1,
        lambda accepted, first: max(accepted - 1, 0),
        lambda accepted, first: accepted - 1,
        lambda accepted, first: 0,
    ),
    "last_off": each("last", lambda d: d.p[-2], lambda d: _residual(d.p[-2], d.q[-1]), lambda d: d.q[-1]),
    "refused_counted": each("count", 1),
}


def _speculated_row(answer: Answer, drafts: Sequence[Draft]) -> Tensor | Mistake:
    """What an answer gives for each draft, in one row."""
    rows = []
    for d in drafts:
        V = d.p.size(1)
        try:
            got = call(answer, *d)
        except (Untouched, LookupError, NameError) as error:
            if rows and _speculated([d])[0] == len(d.drafted):
                return mistake("nothing_refused", what=type(error).__name__.replace("Untouched", "return missing"))
            raise
        if not isinstance(got, tuple | list) or len(got) != 2:
            return mistake("not_a_pair", kind=type(got).__name__)
        accepted, correction = map(plain, got)
        if isinstance(correction, list) and is_row(correction) and len(correction) == 1 and V > 1:
            correction = correction[0]
        if not isinstance(correction, list):
            return mistake("swapped" if is_row(accepted) and len(accepted) == V else "token_returned", V=V)
        if isinstance(accepted, list) and is_row(accepted) and len(accepted) == 1:
            accepted = accepted[0]
        if isinstance(accepted, list):
            return mistake("list_returned")
        if not is_row(correction) or len(correction) != V:
            return mistake("correction_shape", V=V)
        rows.append(torch.tensor([float(accepted), *correction]))
    return torch.cat(rows)


def _draft(K: int, V: int, refused: int) -> Draft:
    """A draft whose token `refused` alone is refused, or none where that is K."""
    while True:
        p, q = (1.5 * torch.randn(K + 1, V)).softmax(1), (1.5 * torch.randn(K, V)).softmax(1)
        drafted, r = q.multinomial(1)[:, 0], torch.rand(K)
        ratios = p[:K].gather(1, drafted[:, None])[:, 0] / q.gather(1, drafted[:, None])[:, 0]
        passes = (r < ratios).tolist()
        if passes == [i != refused for i in range(K)] and ((r - ratios).abs() > 0.02).all():
            return Draft(p, q, drafted, r)


@exercise("compression/accept")
def accept(answer: Answer) -> Mistake | None:
    """answer(p, q, drafted, r) -> how many drafted tokens are accepted, and (V,) from which the next one is drawn."""
    main = [_draft(4, 6, refused) for refused in (2, 4, 0, 3, 1, 4, 2, 3, 4)]
    others = [[_draft(1, 3, 0), _draft(1, 3, 1)], [_draft(3, 11, 3), _draft(6, 8, 5)]]

    def case(drafts: list[Draft]) -> Case:
        K, V = drafts[0].q.shape
        return Case((drafts,), lambda **options: _speculated(drafts, **options), f"{K} drafted tokens and {V} ids")

    def look(got: Tensor, expected: Tensor) -> Mistake:
        for one, right, d in zip(got.split(7), expected.split(7), main):
            if one[0] != right[0]:
                given = {"drafted": d.drafted.tolist(), "r": [round(x, 2) for x in d.r.tolist()]}
                return mistake("accepted_differs", got=f"{one[0]:g}", expected=int(right[0]), **given)
        return mistake("correction_differs")

    try:
        return diagnose_parts(answer, [case(drafts) for drafts in (main, *others)], _speculated_row, SPECULATED, look)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
