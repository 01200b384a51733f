"""Answers to notebook 03's exercise about windows, in many styles: right ones, and wrong ones with their mistake."""

import math

import torch
import torch.nn.functional as F


def _band(t, w):
    rows, columns = torch.arange(t)[:, None], torch.arange(t)
    return (columns <= rows) & (columns > rows - w)


def _past(t, w):
    return torch.ones(t, t, dtype=torch.bool).tril()


def _window(mask=_band, scale=lambda d: d**-0.5, dim=-1, fill=-math.inf, after=False, mix=lambda q, k, v: v):
    def answer(q, k, v, window):
        scores = q @ k.transpose(-2, -1) * scale(q.size(-1))
        forbidden = ~mask(q.size(-2), window)
        if after:
            return scores.softmax(dim).masked_fill(forbidden, 0) @ mix(q, k, v)
        return scores.masked_fill(forbidden, fill).softmax(dim) @ mix(q, k, v)

    return answer


def _window_by_loops(q, k, v, window):
    out = torch.zeros_like(v)
    for t in range(q.shape[-2]):
        first = max(0, t - window + 1)
        score = (q[..., t : t + 1, :] * k[..., first : t + 1, :]).sum(-1) / math.sqrt(q.shape[-1])
        share = score.exp() / score.exp().sum(-1, keepdim=True)
        out[..., t, :] = (share[..., None] * v[..., first : t + 1, :]).sum(-2)
    return out


def _window_by_einsum(q, k, v, window):
    T = q.shape[2]
    scores = torch.einsum("bhid,bhjd->bhij", q.double(), k.double()) / q.shape[-1] ** 0.5
    ones = torch.ones(T, T)
    scores -= 1e9 * (1 - torch.tril(ones) * torch.triu(ones, 1 - window))
    return torch.einsum("bhij,bhjd->bhid", torch.softmax(scores, -1), v.double())


def _window_by_pytorch(q, k, v, window):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_band(q.size(-2), window))


def _window_renormalised(q, k, v, window):
    weights = (q @ k.mT / q.size(-1) ** 0.5).softmax(-1)
    weights *= _band(q.size(-2), window)
    return weights / weights.sum(-1, keepdim=True) @ v


def _window_upside_down(q, k, v, window):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=~_band(q.size(-2), window))


def _window_of_the_last(q, k, v, window):
    scores = q @ k[..., -window:, :].mT / q.size(-1) ** 0.5
    return scores.softmax(-1) @ v[..., -window:, :]


def _window_nan(q, k, v, window):
    return (q @ k.mT / q.size(-1) ** 0.5 + (~_band(q.size(-2), window)).float() * -math.inf).softmax(-1) @ v


def _window_linear(q, k, v, window):
    return (q @ k.mT / q.size(-1) ** 0.5 * _band(q.size(-2), window)) @ v


def _window_exponentials(q, k, v, window):
    return (q @ k.mT / q.size(-1) ** 0.5).masked_fill(~_band(q.size(-2), window), -math.inf).exp() @ v


def _window_scores(finish, mixed=False):
    def answer(q, k, v, window):
        weights = finish((q @ k.mT / q.size(-1) ** 0.5).masked_fill(~_band(q.size(-2), window), -math.inf))
        return weights @ v if mixed else weights

    return answer


def _window_added(q, k, v, window):
    """A mask of numbers is added to the scores; only one of true and false is obeyed."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_band(q.size(-2), window).float())


def _window_scaled_late(q, k, v, window):
    return (q @ k.mT).masked_fill(~_band(q.size(-2), window), -math.inf).softmax(-1) / q.size(-1) ** 0.5 @ v


def _window_heads_together(q, k, v, window):
    scores = torch.einsum("bhid,bhjd->ij", q, k) / q.size(-1) ** 0.5
    return scores.masked_fill(~_band(q.size(-2), window), -math.inf).softmax(-1) @ v


def _window_padded(q, k, v, window):
    """Zeros in front of the text, which every early position then looks at."""
    k, v = (F.pad(x, (0, 0, window - 1, 0)).unfold(-2, window, 1) for x in (k, v))  # (B, H, T, D, window)
    shares = torch.einsum("bhtd,bhtdw->bhtw", q / q.size(-1) ** 0.5, k).softmax(-1)
    return torch.einsum("bhtw,bhtdw->bhtd", shares, v)


def _window_from_the_first_whole_one(q, k, v, window):
    out = torch.zeros_like(v)
    for t in range(window - 1, q.size(2)):
        near = slice(t - window + 1, t + 1)
        out[:, :, t : t + 1] = F.scaled_dot_product_attention(q[:, :, t : t + 1], k[:, :, near], v[:, :, near])
    return out


def _window_written_down(q, k, v, window):
    return _window()(q, k, v, 3)


def _window_of_size_seven(q, k, v, window):
    return (q @ k.mT / 2).masked_fill(~_band(7, window), -math.inf).softmax(-1) @ v


def _window_two_mistakes(q, k, v, window):
    return (q @ k.mT).softmax(-1).masked_fill(~_band(q.size(-2), window), 0) @ v


def _with_dropout(q, k, v, window):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=_band(q.size(-2), window), dropout_p=0.5)


def _pick(scale=lambda q: q.size(-1) ** 0.5, asks=lambda q, k, v: (q, k)):
    def answer(q, k, v, window):
        a, b = asks(q, k, v)
        return (a @ b.mT / scale(q)).masked_fill(~_band(q.size(-2), window), -math.inf).softmax(-1) @ v

    return answer


WINDOW = [
    ("masked_after_softmax", _window(after=True)),
    ("masked_after_softmax", _window_two_mistakes),
    ("masked_with_zero", _window(fill=0.0)),
    ("masked_with_zero", _window(fill=1e-9)),
    ("masked_with_zero", _window(fill=0.0, scale=lambda d: 1.0)),
    ("masked_too_weakly", _window(fill=-10.0)),
    ("masked_with_plus", _window(fill=1e9)),
    ("nan", _window(fill=math.inf)),
    ("nan", _window_nan),
    ("nan", _window(dim=1)),
    ("mask_inverted", _window(lambda t, w: ~_band(t, w))),
    ("mask_inverted", _window_upside_down),
    ("softmax_over_queries", _window(dim=-2)),
    ("softmax_over_queries", _window(dim=-2, after=True)),
    ("softmax_over_heads", _window(dim=1, fill=-1e9)),
    ("softmax_over_heads", _window(dim=0, after=True)),
    ("masked_too_weakly", _window_added),
    ("scores_summed", _window_heads_together),
    ("no_softmax", _window_linear),
    ("sigmoid", _window_scores(lambda scores: scores.sigmoid(), mixed=True)),
    ("not_shared_out", _window_exponentials),
    ("weights_returned", _window_scores(lambda scores: scores.softmax(-1))),
    ("scores_returned", _window_scores(lambda scores: scores)),
    ("blind_to_itself", _window(lambda t, w: _band(t, w + 1) & ~torch.eye(t, dtype=torch.bool))),
    ("blind_to_itself", _window(lambda t, w: torch.ones(t, t).tril(-1).triu(-w).bool())),
    ("sees_the_future", _window(lambda t, w: (torch.arange(t)[:, None] - torch.arange(t)).abs() < w)),
    ("sees_the_future", _window(lambda t, w: _band(t, w).T)),
    ("sees_the_future", _window(lambda t, w: torch.ones(t, t).tril(w).bool())),
    ("sees_the_future", _window(lambda t, w: torch.ones(t, t).triu(-w + 1).bool(), scale=lambda d: 1.0)),
    ("sees_the_future", _window(lambda t, w: (torch.arange(t)[:, None] - torch.arange(t)) % t < w)),
    ("early_positions", _window_padded),
    ("early_positions", _window_from_the_first_whole_one),
    ("window_ignored", _window(_past)),
    ("window_ignored", lambda q, k, v, window: F.scaled_dot_product_attention(q, k, v, is_causal=True)),
    ("window_off", _window(lambda t, w: _band(t, w + 1))),
    ("window_off", _window(lambda t, w: _band(t, w - 1))),
    ("window_off", _window(lambda t, w: _band(t, w + 1), scale=lambda d: 1.0)),
    ("not_scaled", _window(scale=lambda d: 1.0)),
    ("not_scaled", lambda q, k, v, window: F.scaled_dot_product_attention(q, k, v, _band(q.size(-2), window), scale=1)),
    ("scaled_after_softmax", _window_scaled_late),
    ("scaled_twice", _window(scale=lambda d: 1 / d)),
    ("scaled_up", _window(scale=lambda d: d**0.5)),
    ("scaled_by_other", _pick(scale=lambda q: q.size(-2) ** 0.5)),
    ("scaled_by_other", _pick(scale=lambda q: len(q) ** 0.5)),
    ("scaled_by_other", lambda q, k, v, window: _pick(scale=lambda q: window**0.5)(q, k, v, window)),
    ("values_forgotten", _window(mix=lambda q, k, v: k)),
    ("values_forgotten", _window(mix=lambda q, k, v: q)),
    ("asked_the_wrong_way", _pick(asks=lambda q, k, v: (k, q))),
    ("asked_itself", _pick(asks=lambda q, k, v: (q, q))),
    ("asked_itself", _pick(asks=lambda q, k, v: (q, v))),
    ("one_window_for_all", _window_of_the_last),
    ("one_window_for_all", _window(lambda t, w: torch.arange(t).expand(t, t) >= t - w)),
    ("blocks", _window(lambda t, w: _past(t, w) & (torch.arange(t)[:, None] // w == torch.arange(t) // w))),
    ("only_the_edge", _window(lambda t, w: torch.arange(t)[:, None] - torch.arange(t) == w - 1)),
    ("times", lambda q, k, v, window: 2 * _window_by_pytorch(q, k, v, window)),
    ("only_first_text", lambda q, k, v, window: _window_by_pytorch(q, k, v, window)[:1].expand_as(q)),
    ("nearly", lambda q, k, v, window: _window_by_pytorch(q, k, v, window) + 1e-3),
    ("only_one_size", _window_written_down),
    ("only_one_size", _window_of_size_seven),
    ("unsteady", _with_dropout),
    ("not_a_tensor", lambda q, k, v, window: (_window_by_pytorch(q, k, v, window), None)),
    ("not_a_tensor", lambda q, k, v, window: [q, k, v]),
    ("not_a_tensor", lambda q, k, v, window: q.to(torch.complex64)),
    ("shape", lambda q, k, v, window: _window_by_pytorch(q, k, v, window)[0]),
    ("raised", lambda q, k, v, window: q @ k),
    ("values", lambda q, k, v, window: _band(q.size(-2), window).float() @ v / window),
]

ANSWERS = {"transformer/window_attention": (_window(), WINDOW)}
ALSO_RIGHT = {
    "transformer/window_attention": [
        _window_by_loops,
        _window_by_einsum,
        _window_by_pytorch,
        _window_renormalised,
        lambda q, k, v, window: _window_by_pytorch(q.half(), k.half(), v.half(), window),
        lambda q, k, v, window: _window_by_pytorch(q, k, v, window).numpy(),
        _window(fill=-1e9),
        _window(fill=torch.finfo(torch.float32).min),
    ]
}
