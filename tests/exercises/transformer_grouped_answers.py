"""Answers to notebook 03's exercise about grouped heads, in many styles: right ones, and wrong ones with their mistake."""

import math

import torch
import torch.nn.functional as F


def _split(x, n):
    return x.view(x.size(0), x.size(1), n, -1).transpose(1, 2)


def _badly_split(x, n):
    return x.view(x.size(0), n, x.size(1), -1)


def _dealt_out(x, n):
    return x.view(x.size(0), x.size(1), -1, n).permute(0, 3, 1, 2)


def _merge(y):
    return y.transpose(1, 2).flatten(2)


def _flat(y):
    return y.reshape(y.size(0), y.size(2), -1)


def _grouped(split=_split, spread=lambda x, n: x.repeat_interleave(n, dim=1), merge=_merge, split_kv=None, **options):
    """`causal`, `scale`, `swap` and `attend` besides the steps; each is a place to go wrong in."""

    def answer(q, k, v, n_head, n_kv_head):
        k, v = options.get("swap", lambda k, v: (k, v))(k, v)
        q = split(q, n_head)
        k, v = (spread((split_kv or split)(x, n_kv_head), n_head // n_kv_head) for x in (k, v))
        scale = options.get("scale", lambda q: q.size(-1) ** -0.5)(q)
        attend = options.get("attend", F.scaled_dot_product_attention)
        return merge(attend(q, k, v, is_causal=options.get("causal", True), scale=scale))

    return answer


def _by_hand(mask=lambda past: past, fill=-math.inf, dim=-1, after=False):
    def attend(q, k, v, is_causal, scale):
        seen = mask(torch.ones(q.size(2), q.size(2), dtype=torch.bool).tril())
        scores = q @ k.mT * scale
        if after:
            return scores.softmax(dim).masked_fill(~seen, 0) @ v
        return scores.masked_fill(~seen, fill).softmax(dim) @ v

    return attend


def _grouped_by_loops(q, k, v, n_head, n_kv_head):
    D, out = q.size(-1) // n_head, []
    for h in range(n_head):
        g = h // (n_head // n_kv_head)
        one_q, one_k, one_v = q[..., h * D : h * D + D], k[..., g * D : g * D + D], v[..., g * D : g * D + D]
        scores = one_q @ one_k.mT / D**0.5
        scores[:, torch.ones(q.size(1), q.size(1)).triu(1).bool()] = -math.inf
        out.append(scores.softmax(-1) @ one_v)
    return torch.cat(out, dim=-1)


def _grouped_by_einsum(q, k, v, n_head, n_kv_head):
    B, T, C = q.shape
    q, k, v = (x.double().reshape(B, T, n_kv_head, -1, C // n_head) for x in (q, k, v))
    scores = torch.einsum("bignd,bjgmd->bgnij", q, k) / (C // n_head) ** 0.5
    scores = scores + torch.full((T, T), float("-inf")).triu(1)
    return torch.einsum("bgnij,bjgmd->bignd", scores.softmax(-1), v).reshape(B, T, C)


def _grouped_by_pytorch(q, k, v, n_head, n_kv_head):
    q, k, v = _split(q, n_head), _split(k, n_kv_head), _split(v, n_kv_head)
    return _merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))


def _grouped_in_the_other_order(q, k, v, n_head, n_kv_head):
    """The queries of a group lie apart: einops would call it (n g) instead of (g n)."""
    B, T, C = q.shape
    q = q.view(B, T, n_head // n_kv_head, n_kv_head, -1).permute(0, 2, 3, 1, 4)
    k, v = (x.view(B, T, 1, n_kv_head, -1).permute(0, 2, 3, 1, 4) for x in (k, v))
    k, v = k.expand_as(q), v.expand_as(q)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(0, 3, 1, 2, 4).reshape(B, T, C)


def _numbers_doubled(q, k, v, n_head, n_kv_head):
    k, v = (x.repeat_interleave(n_head // n_kv_head, dim=-1) for x in (k, v))
    return _grouped_by_pytorch(q, k, v, n_head, n_head)


def _width_repeated(q, k, v, n_head, n_kv_head):
    k, v = (x.repeat(1, 1, n_head // n_kv_head) for x in (k, v))
    return _grouped_by_pytorch(q, k, v, n_head, n_head)


def _keys_one_way_and_values_the_other(q, k, v, n_head, n_kv_head):
    q, k, v, n = _split(q, n_head), _split(k, n_kv_head), _split(v, n_kv_head), n_head // n_kv_head
    y = F.scaled_dot_product_attention(q, k.repeat_interleave(n, 1), v.repeat(1, n, 1, 1), is_causal=True)
    return _merge(y)


def _groups_of_wrong_size(q, k, v, n_head, n_kv_head):
    q, k, v = _split(q, n_head), _split(k, n_kv_head), _split(v, n_kv_head)
    heads = []
    for h in range(n_head):
        g = h // n_kv_head
        heads.append(F.scaled_dot_product_attention(q[:, h], k[:, g], v[:, g], is_causal=True))
    return torch.cat(heads, dim=-1)


def _always_twice(q, k, v, n_head, n_kv_head):
    q, k, v = _split(q, n_head), _split(k, n_kv_head), _split(v, n_kv_head)
    k, v = torch.stack([k, k], dim=2).flatten(1, 2), torch.stack([v, v], dim=2).flatten(1, 2)
    return _merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))


def _with_a_new_layer(q, k, v, n_head, n_kv_head):
    return torch.nn.Linear(q.size(-1), q.size(-1))(_grouped_by_pytorch(q, k, v, n_head, n_kv_head))


def _one_head(q, k, v, n_head, n_kv_head):
    return F.scaled_dot_product_attention(q, q, q, is_causal=True)


GROUPED = [
    ("no_mask", _grouped(causal=False)),
    ("no_mask", _grouped(causal=False, scale=lambda q: 1.0)),
    ("blind_to_itself", _grouped(attend=_by_hand(lambda past: past.tril(-1)))),
    ("only_the_future", _grouped(attend=_by_hand(lambda past: past.T))),
    ("mask_inverted", _grouped(attend=_by_hand(lambda past: ~past, fill=-1e30))),
    ("nan", _grouped(attend=_by_hand(fill=math.inf, dim=1))),
    ("masked_with_zero", _grouped(attend=_by_hand(fill=0.0))),
    ("masked_after_softmax", _grouped(attend=_by_hand(after=True))),
    ("softmax_over_queries", _grouped(attend=_by_hand(dim=-2))),
    ("merged_without_transpose", _grouped(merge=_flat)),
    ("merged_without_transpose", _grouped(merge=_flat, spread=lambda x, n: x.repeat(1, n, 1, 1))),
    ("merged_inside_out", _grouped(merge=lambda y: y.permute(0, 2, 3, 1).reshape(y.size(0), y.size(2), -1))),
    ("split_without_transpose", _grouped(split=_badly_split)),
    ("split_without_transpose", _grouped(split_kv=_badly_split)),
    ("split_inside_out", _grouped(split=_dealt_out)),
    ("neither_transposed", _grouped(split=_badly_split, merge=_flat)),
    ("not_merged", _grouped(merge=lambda y: y)),
    ("not_merged", _grouped(merge=lambda y: y.transpose(1, 2))),
    ("heads_interleaved", _grouped(spread=lambda x, n: x.repeat(1, n, 1, 1))),
    ("heads_interleaved", _grouped(spread=lambda x, n: torch.cat([x] * n, dim=1))),
    ("heads_interleaved", _grouped_in_the_other_order),
    ("heads_interleaved", _width_repeated),
    ("heads_interleaved", _keys_one_way_and_values_the_other),
    ("group_of_wrong_size", _groups_of_wrong_size),
    ("numbers_doubled", _numbers_doubled),
    ("one_group_for_all", _grouped(spread=lambda x, n: x[:, :1].repeat(1, n * x.size(1), 1, 1))),
    ("groups_averaged", _grouped(spread=lambda x, n: x.mean(1, keepdim=True).expand(-1, n * x.size(1), -1, -1))),
    ("groups_reversed", _grouped(spread=lambda x, n: x.flip(1).repeat_interleave(n, 1))),
    ("scaled_by_whole_width", _grouped(scale=lambda q: (q.size(1) * q.size(-1)) ** -0.5)),
    ("not_scaled", _grouped(scale=lambda q: 1.0)),
    ("scaled_twice", _grouped(scale=lambda q: 1 / q.size(-1))),
    ("scaled_by_other", _grouped(scale=lambda q: q.size(1) ** -0.5)),
    ("keys_and_values_swapped", _grouped(swap=lambda k, v: (v, k))),
    ("keys_for_both", _grouped(swap=lambda k, v: (k, k))),
    ("values_for_both", _grouped(swap=lambda k, v: (v, v))),
    ("unsteady", _with_a_new_layer),
    ("only_one_size", _always_twice),
    ("not_a_tensor", lambda q, k, v, n_head, n_kv_head: _grouped_by_pytorch(q, k, v, n_head, n_kv_head).tolist()),
    ("shape", lambda q, k, v, n_head, n_kv_head: _grouped_by_pytorch(q, k, v, n_head, n_kv_head)[:, -1]),
    ("raised", lambda q, k, v, n_head, n_kv_head: _merge(F.scaled_dot_product_attention(q, k, v, is_causal=True))),
    ("values", _one_head),
]

ANSWERS = {"transformer/grouped_attention": (_grouped(), GROUPED)}
ALSO_RIGHT = {
    "transformer/grouped_attention": [
        _grouped_by_loops,
        _grouped_by_einsum,
        _grouped_by_pytorch,
        _grouped(spread=lambda x, n: x[:, :, None].expand(-1, -1, n, -1, -1).flatten(1, 2)),
        _grouped(attend=_by_hand()),
    ]
}
