"""Answers to notebook 07's exercises about fast writing: right ones, and wrong ones with their mistake."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def _cached_attention(q, k, v, cache_k, cache_v, position):
    cache_k[:, :, position] = k[:, :, 0]
    cache_v[:, :, position] = v[:, :, 0]
    keys, values = cache_k[:, :, : position + 1], cache_v[:, :, : position + 1]
    weights = (q @ keys.transpose(-2, -1) / q.size(-1) ** 0.5).softmax(dim=-1)
    return weights @ values


def _by_pytorch(q, k, v, cache_k, cache_v, position):
    seen = slice(position + 1)
    cache_k[:, :, position : position + 1], cache_v[:, :, position : position + 1] = k, v
    return F.scaled_dot_product_attention(q, cache_k[:, :, seen], cache_v[:, :, seen])


def _masked(q, k, v, cache_k, cache_v, position):
    cache_k.narrow(2, position, 1).copy_(k)
    cache_v.narrow(2, position, 1).copy_(v)
    seen = torch.arange(cache_k.size(2)) <= position
    return F.scaled_dot_product_attention(q, cache_k, cache_v, attn_mask=seen[None])


def _by_index_copy(q, k, v, cache_k, cache_v, position):
    for cache, new in ((cache_k, k), (cache_v, v)):
        cache.index_copy_(2, torch.tensor([position]), new)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, cache_k) / math.sqrt(q.shape[-1])
    scores[..., position + 1 :] = -math.inf
    return torch.einsum("bhqk,bhkd->bhqd", torch.softmax(scores, -1), cache_v)


def _concatenated_too(q, k, v, cache_k, cache_v, position):
    """Reads from a concatenation, and writes all the same."""
    keys = torch.cat([cache_k[:, :, :position], k], dim=2)
    values = torch.cat([cache_v[:, :, :position], v], dim=2)
    cache_k[:, :, : position + 1], cache_v[:, :, : position + 1] = keys, values
    return (q @ keys.mT * q.size(-1) ** -0.5).softmax(-1) @ values


def _write(cache_k, cache_v, k, v, at):
    cache_k[:, :, at] = k
    cache_v[:, :, at] = v


def _cached(
    write=lambda cache_k, cache_v, k, v, position: _write(cache_k, cache_v, k, v, [position]),
    seen=lambda position: slice(position + 1),
    attend=F.scaled_dot_product_attention,
):
    """An answer that goes wrong in one of its steps."""

    def answer(q, k, v, cache_k, cache_v, position):
        write(cache_k, cache_v, k, v, position)
        return attend(q, cache_k[:, :, seen(position)], cache_v[:, :, seen(position)])

    return answer


def _attention(scale=lambda q, keys: q.size(-1) ** -0.5, share=lambda scores: scores.softmax(-1), mix=lambda k, v: v):
    return lambda q, keys, values: share(q @ keys.mT * scale(q, keys)) @ mix(keys, values)


def _out_of_place(q, k, v, cache_k, cache_v, position):
    cache_k = torch.cat([cache_k[:, :, :position], k], dim=2)
    cache_v = torch.cat([cache_v[:, :, :position], v], dim=2)
    return F.scaled_dot_product_attention(q, cache_k, cache_v)


def _cloned(q, k, v, cache_k, cache_v, position):
    return _cached_attention(q, k, v, cache_k.clone(), cache_v.clone(), position)


def _half(cache_k, cache_v, k, v, position):
    cache_k[:, :, [position]] = k


def _added(cache_k, cache_v, k, v, position):
    cache_k[:, :, [position]] += k
    cache_v[:, :, [position]] += v


def _emptied(q, k, v, cache_k, cache_v, position):
    y = _cached_attention(q, k, v, cache_k, cache_v, position)
    cache_k[:, :, position + 1 :] = 0
    return y


def _from_the_second_on(q, k, v, cache_k, cache_v, position):
    assert position > 0
    return _cached_attention(q, k, v, cache_k, cache_v, position)


def _at(place):
    return lambda cache_k, cache_v, k, v, position: _write(cache_k, cache_v, k, v, place(position))


CACHED = [
    ("caches_returned", lambda *given: (_cached_attention(*given), *given[3:5])),
    ("not_a_tensor", lambda *given: {"y": _cached_attention(*given)}),
    ("shape", lambda *given: _cached_attention(*given)[:, :, 0]),
    ("not_finite", lambda *given: _cached_attention(*given) / 0),
    ("out_of_place", _out_of_place),
    ("out_of_place", _cloned),
    ("not_written", _cached(lambda *given: None)),
    ("half_written", _cached(_half)),
    ("half_written", _cached(lambda cache_k, cache_v, k, v, position: _half(cache_v, cache_k, v, k, position))),
    ("swapped", _cached(lambda cache_k, cache_v, k, v, position: _write(cache_k, cache_v, v, k, [position]))),
    ("keys_for_both", _cached(lambda cache_k, cache_v, k, v, position: _write(cache_k, cache_v, k, k, [position]))),
    ("added", _cached(_added)),
    ("written_before", _cached(_at(lambda position: [position - 1]))),
    ("written_before", _cached(_at(lambda position: [position - 1]), slice)),
    ("written_after", _cached(_at(lambda position: [position + 1]))),
    ("written_after", _cached(_at(lambda position: [position + 1]), lambda position: slice(position + 2))),
    ("written_at_an_end", _cached(_at(lambda position: [-1]))),
    ("written_at_an_end", _cached(_at(lambda position: [0]))),
    ("fills_the_rest", _cached(_at(lambda position: slice(position, None)))),
    ("fills_the_rest", _cached(_at(lambda position: slice(None)))),
    ("blind_to_itself", _cached(seen=slice)),
    ("one_too_many", _cached(seen=lambda position: slice(position + 2))),
    ("whole_cache", _cached(seen=lambda position: slice(None))),
    ("sees_the_first", _cached(attend=lambda *given: F.scaled_dot_product_attention(*given, is_causal=True))),
    ("sees_itself_alone", _cached(seen=lambda position: slice(position, position + 1))),
    ("start_forgotten", _cached(seen=lambda position: slice(1, position + 1))),
    ("not_scaled", _cached(attend=_attention(lambda q, keys: 1.0))),
    ("scaled_twice", _cached(attend=_attention(lambda q, keys: 1 / q.size(-1)))),
    ("scaled_by_other", _cached(attend=_attention(lambda q, keys: keys.size(2) ** -0.5))),
    ("scaled_by_other", _cached(attend=_attention(lambda q, keys: q.size(-1) ** 0.5))),
    ("softmax_over_queries", _cached(attend=_attention(share=lambda scores: scores.softmax(-2)))),
    ("softmax_over_heads", _cached(attend=_attention(share=lambda scores: scores.softmax(1)))),
    ("no_softmax", _cached(attend=_attention(share=lambda scores: scores))),
    ("values_forgotten", _cached(attend=_attention(mix=lambda keys, values: keys))),
    ("out_of_place", lambda q, k, v, ck, cv, p: _cached(seen=slice)(q, k, v, ck.clone(), cv.clone(), p)),
    ("output_differs", lambda *given: _cached_attention(*given) + 0.1),
    ("cache_differs", _emptied),
    ("elsewhere", _from_the_second_on),
    ("one_too_many", _cached(seen=lambda position: slice(max(position, 1) + 1))),
    ("raised", lambda q, k, v, cache_k, cache_v, position: cache_k.write(k)),
]


def _speculate(p, q, drafted, r):
    accepted = 0
    while accepted < len(drafted):
        x = drafted[accepted]
        if r[accepted] >= p[accepted, x] / q[accepted, x]:
            residual = (p[accepted] - q[accepted]).clamp(min=0)
            return accepted, residual / residual.sum()
        accepted += 1
    return accepted, p[accepted]


def _without_division(p, q, drafted, r):
    i = torch.arange(len(drafted))
    passed = r * q[i, drafted] < p[i, drafted]
    accepted = passed.long().cumprod(0).sum()
    padded = torch.cat([q, torch.zeros_like(p[:1])])  # a draft that says nothing leaves all of p
    left = torch.relu(p[accepted] - padded[accepted])
    return accepted, left / left.sum()


def _by_numpy(p, q, drafted, r):
    p, q, drafted, r = (part.numpy() for part in (p, q, drafted, r))
    K = len(drafted)
    ratio = np.minimum(1, p[np.arange(K), drafted] / q[np.arange(K), drafted])
    refused = np.flatnonzero(r > ratio)
    if not refused.size:
        return K, p[K]
    left = np.maximum(0, p[refused[0]] - q[refused[0]])
    return refused[0], left / left.sum()


def _by_lists(p, q, drafted, r):
    p, q, accepted = p.tolist(), q.tolist(), 0
    for x, one, other, chance in zip(drafted.tolist(), p, q, r.tolist()):
        if chance < min(1.0, one[x] / other[x]):
            accepted += 1
        else:
            left = [max(0.0, a - b) for a, b in zip(one, other)]
            return [accepted, [part / sum(left) for part in left]]
    return [accepted, p[-1]]


def _by_for_else(p, q, drafted, r):
    for i, x in enumerate(drafted):
        if not r[i] < p[i, x] / q[i, x]:
            break
    else:
        return torch.tensor(len(drafted)), p[-1]
    return torch.tensor([i]), torch.nn.functional.normalize((p[i] - q[i]).relu(), p=1, dim=0)


def _residual(p, q):
    return (p - q).relu() / (p - q).relu().sum()


def _speculated(
    passes=lambda i, x, p, q, r: r[i] < p[i, x] / q[i, x],
    goes_on=False,
    left=_residual,
    place=lambda n: n,
    last=lambda p, q: p[-1],
    give=lambda n, correction: (n, correction),
):
    """An answer that goes wrong in one of its steps."""

    def answer(p, q, drafted, r):
        n, K = 0, len(drafted)
        for i, x in enumerate(drafted):
            if passes(i, x, p, q, r):
                n += 1
            elif not goes_on:
                break
        at = place(n)
        return give(n, left(p[at], q[min(at, K - 1)]) if n < K else last(p, q))

    return answer


def _joint(p, q, drafted, r):
    n, product = 0, 1.0
    while n < len(drafted):
        product *= p[n, drafted[n]] / q[n, drafted[n]]
        if r[n] >= product:
            return n, _residual(p[n], q[n])
        n += 1
    return n, p[n]


def _counted_at_once(p, q, drafted, r):
    i = torch.arange(len(drafted))
    passed = r < p[i, drafted] / q[i, drafted]
    first = passed.int().argmin()
    return passed.sum(), p[-1] if passed.all() else _residual(p[first], q[first])


def _residual_always(p, q, drafted, r):
    n = 0
    while n < len(drafted) and r[n] < p[n, drafted[n]] / q[n, drafted[n]]:
        n += 1
    return n, _residual(p[n], q[n])


def _returns_at_a_refusal(p, q, drafted, r):
    for i, x in enumerate(drafted):
        if r[i] >= p[i, x] / q[i, x]:
            return i, _residual(p[i], q[i])


def _unbound(p, q, drafted, r):
    for i, x in enumerate(drafted):
        if r[i] >= p[i, x] / q[i, x]:
            accepted, correction = i, _residual(p[i], q[i])
            break
    return accepted, correction


def _only_four(p, q, drafted, r):
    assert len(drafted) == 4
    return _speculate(p, q, drafted, r)


def _at_most_four(p, q, drafted, r):
    return _speculate(p[:5], q[:4], drafted[:4], r[:4])


ACCEPT = [
    ("not_a_pair", lambda *given: _speculate(*given)[0]),
    ("not_a_pair", lambda *given: _speculate(*given)[1]),
    ("swapped", lambda *given: _speculate(*given)[::-1]),
    ("list_returned", lambda p, q, drafted, r: (drafted[: _speculate(p, q, drafted, r)[0]], p[-1])),
    ("list_returned", lambda p, q, drafted, r: (r < 0.5, p[-1])),
    ("token_returned", _speculated(give=lambda n, correction: (n, correction.argmax()))),
    ("token_returned", _speculated(give=lambda n, correction: (n, correction.multinomial(1)))),
    ("correction_shape", lambda p, q, drafted, r: (_speculate(p, q, drafted, r)[0], p)),
    ("correction_shape", _speculated(give=lambda n, correction: (n, correction[None]))),
    ("ratio_inverted", _speculated(lambda i, x, p, q, r: r[i] < q[i, x] / p[i, x])),
    ("target_alone", _speculated(lambda i, x, p, q, r: r[i] < p[i, x])),
    ("threshold_inverted", _speculated(lambda i, x, p, q, r: r[i] > p[i, x] / q[i, x])),
    ("greedy", _speculated(lambda i, x, p, q, r: p[i].argmax() == x)),
    ("without_chance", _speculated(lambda i, x, p, q, r: p[i, x] >= q[i, x])),
    ("accepts_all", _speculated(lambda i, x, p, q, r: True)),
    ("row_ahead", _speculated(lambda i, x, p, q, r: r[i] < p[i + 1, x] / q[i, x])),
    ("ratios_multiplied", _joint),
    ("goes_on", _speculated(goes_on=True)),
    ("always_last", lambda *given: (_speculate(*given)[0], given[0][-1])),
    ("target_for_residual", _speculated(left=lambda p, q: p)),
    ("target_for_residual", lambda p, q, *rest: (_speculate(p, q, *rest)[0], p[_speculate(p, q, *rest)[0]])),
    ("draft_for_residual", _speculated(left=lambda p, q: q)),
    ("not_normalised", _speculated(left=lambda p, q: (p - q).relu())),
    ("residual_inverted", _speculated(left=lambda p, q: _residual(q, p))),
    ("absolute", _speculated(left=lambda p, q: (p - q).abs() / (p - q).abs().sum())),
    ("negative_left", _speculated(left=lambda p, q: p - q)),
    ("softmax", _speculated(left=lambda p, q: (p - q).relu().softmax(0))),
    ("softmax", _speculated(left=lambda p, q: (p - q).softmax(0))),
    ("place_off", _speculated(place=lambda n: n + 1)),
    ("place_off", _speculated(place=lambda n: n - 1)),
    ("place_off", _speculated(place=lambda n: 0)),
    ("last_off", _speculated(last=lambda p, q: p[-2])),
    ("last_off", _speculated(last=lambda p, q: q[-1])),
    ("refused_counted", _speculated(give=lambda n, correction: (n + 1, correction))),
    ("goes_on", _speculated(goes_on=True, left=lambda p, q: p)),
    ("goes_on", _counted_at_once),
    ("nothing_refused", _residual_always),
    ("nothing_refused", _returns_at_a_refusal),
    ("nothing_refused", _unbound),
    ("accepted_differs", _speculated(give=lambda n, correction: (2, correction))),
    ("correction_differs", _speculated(give=lambda n, correction: (n, correction**2))),
    ("not_numbers", _speculated(give=lambda n, correction: ({n}.pop(), {"next": correction}))),
    ("elsewhere", _only_four),
    ("elsewhere", _at_most_four),
    ("raised", lambda p, q, drafted, r: p / q),
]

ANSWERS = {
    "compression/cached_attention": (_cached_attention, CACHED),
    "compression/accept": (_speculate, ACCEPT),
}
ALSO_RIGHT = {
    "compression/cached_attention": [_by_pytorch, _masked, _by_index_copy, _concatenated_too, _cached()],
    "compression/accept": [_without_division, _by_numpy, _by_lists, _by_for_else, _speculated()],
}
