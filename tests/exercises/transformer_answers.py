"""Answers to the exercises of notebook 03: the right one, and wrong ones with the mistake that each must be told."""

import math

import torch
import torch.nn.functional as F


def _window(mask=lambda t, w: _band(t, w), scale=lambda d: d**-0.5, dim=-1, fill=-math.inf, after=False):
    def answer(q, k, v, window):
        scores = q @ k.transpose(-2, -1) * scale(q.size(-1))
        forbidden = ~mask(q.size(-2), window)
        if after:
            return scores.softmax(dim).masked_fill(forbidden, 0) @ v
        return scores.masked_fill(forbidden, fill).softmax(dim) @ v

    return answer


def _band(t, w):
    rows, columns = torch.arange(t)[:, None], torch.arange(t)
    return (columns <= rows) & (columns > rows - w)


def _past(t, w):
    return torch.ones(t, t, dtype=torch.bool).tril()


def _grouped(
    split=lambda x, n, d: x.view(x.size(0), x.size(1), n, d).transpose(1, 2),
    spread=lambda x, times: x.repeat_interleave(times, dim=1),
    merge=lambda y: y.transpose(1, 2).flatten(2),
    scale=lambda d, n: d**-0.5,
    causal=True,
    swap=False,
):
    def answer(q, k, v, n_head, n_kv_head):
        if swap:
            k, v = v, k
        d = q.size(-1) // n_head
        q, k, v = split(q, n_head, d), split(k, n_kv_head, d), split(v, n_kv_head, d)
        k, v = spread(k, n_head // n_kv_head), spread(v, n_head // n_kv_head)
        return merge(F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale(d, n_head)))

    return answer


def _flat(y):
    return y.reshape(y.size(0), y.size(2), -1)


def _badly_split(x, n, d):
    return x.view(x.size(0), n, x.size(1), d)


def _rotary(sign=1, start=0, exponent=lambda d: -torch.arange(0, d, 2) / d, minus=True):
    def answer(x, theta):
        angle = (torch.arange(x.size(2))[:, None] + start) * theta ** exponent(x.size(-1))
        cos, sin = angle.cos(), sign * angle.sin()
        left, right = x.chunk(2, dim=-1)
        return torch.cat([left * cos + (-right if minus else right) * sin, right * cos + left * sin], dim=-1)

    return answer


def _rotary_neighbours(x, theta):
    angle = torch.arange(x.size(2))[:, None] * theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1))
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack(
        [even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()], dim=-1
    ).flatten(-2)


def _rotary_by_head(x, theta):
    angle = torch.arange(x.size(1))[:, None, None] * theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1))
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], dim=-1)


def _right_block(x, attention, mlp, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + mlp(norm_2(x))


def _stream_normalised(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x)
    x = x + attention(x)
    x = norm_2(x)
    return x + mlp(x)


def _post_norm(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x + attention(x))
    return norm_2(x + mlp(x))


def _no_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(x)
    return x + mlp(x)


def _swapped(x, attention, mlp, norm_1, norm_2):
    return _right_block(x, attention, mlp, norm_2, norm_1)


def _right_loss(logits, idx):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), idx[:, 1:].flatten())


def _picked(table, targets):
    return table.gather(-1, targets[..., None]).squeeze(-1)


ANSWERS = {
    "transformer/window_attention": (
        _window(),
        [
            ("masked_after_softmax", _window(after=True)),
            ("masked_with_zero", _window(fill=0.0)),
            ("softmax_over_queries", _window(dim=-2)),
            ("blind_to_itself", _window(lambda t, w: _band(t, w + 1) & ~torch.eye(t, dtype=torch.bool))),
            ("sees_the_future", _window(lambda t, w: (torch.arange(t)[:, None] - torch.arange(t)).abs() < w)),
            ("sees_the_future", _window(lambda t, w: _band(t, w).T)),
            ("window_ignored", _window(_past)),
            ("window_off", _window(lambda t, w: _band(t, w + 1))),
            ("window_off", _window(lambda t, w: _band(t, w - 1))),
            ("not_scaled", _window(scale=lambda d: 1.0)),
            ("scaled_twice", _window(scale=lambda d: 1 / d)),
            ("not_a_tensor", lambda q, k, v, window: [q, k, v]),
            ("shape", lambda q, k, v, window: q @ k.transpose(-2, -1)),
            ("raised", lambda q, k, v, window: q @ k),
        ],
    ),
    "transformer/grouped_attention": (
        _grouped(),
        [
            ("no_mask", _grouped(causal=False)),
            ("merged_without_transpose", _grouped(merge=_flat)),
            ("split_without_transpose", _grouped(split=_badly_split)),
            ("neither_transposed", _grouped(split=_badly_split, merge=_flat)),
            ("heads_interleaved", _grouped(spread=lambda x, times: x.repeat(1, times, 1, 1))),
            ("scaled_by_whole_width", _grouped(scale=lambda d, n: (n * d) ** -0.5)),
            ("not_scaled", _grouped(scale=lambda d, n: 1.0)),
            ("keys_and_values_swapped", _grouped(swap=True)),
            ("one_group_for_all", _grouped(spread=lambda x, times: x[:, :1].repeat(1, times * x.size(1), 1, 1))),
            ("shape", _grouped(merge=lambda y: y)),
        ],
    ),
    "transformer/rotary": (
        _rotary(),
        [
            ("turned_backwards", _rotary(sign=-1)),
            ("neighbours_paired", _rotary_neighbours),
            ("not_turned", lambda x, theta: x),
            ("position_from_one", _rotary(start=1)),
            ("exponent_halved", _rotary(exponent=lambda d: -torch.arange(d // 2) / d)),
            ("exponent_positive", _rotary(exponent=lambda d: torch.arange(0, d, 2) / d)),
            ("one_frequency", _rotary(exponent=lambda d: torch.zeros(d // 2))),
            ("sign_missing", _rotary(minus=False)),
            ("position_is_head", _rotary_by_head),
        ],
    ),
    "transformer/block": (
        _right_block,
        [
            ("no_residual", lambda x, a, m, n1, n2: m(n2(a(n1(x))))),
            ("no_residual_around_attention", lambda x, a, m, n1, n2: a(n1(x)) + m(n2(a(n1(x))))),
            ("no_residual_around_mlp", lambda x, a, m, n1, n2: m(n2(x + a(n1(x))))),
            ("no_norm", _no_norm),
            ("post_norm", _post_norm),
            ("stream_normalised", _stream_normalised),
            ("parallel", lambda x, a, m, n1, n2: x + a(n1(x)) + m(n2(x))),
            ("norms_swapped", _swapped),
            ("one_norm_twice", lambda x, a, m, n1, n2: _right_block(x, a, m, n1, n1)),
            ("mlp_added_to_input", lambda x, a, m, n1, n2: x + m(n2(x + a(n1(x))))),
            ("mlp_first", lambda x, a, m, n1, n2: _right_block(x, m, a, n2, n1)),
        ],
    ),
    "transformer/next_token_loss": (
        _right_loss,
        [
            ("not_shifted", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1), idx.flatten())),
            (
                "shifted_backwards",
                lambda logits, idx: F.cross_entropy(logits[:, 1:].flatten(0, 1), idx[:, :-1].flatten()),
            ),
            ("wrapped_around", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1), idx.roll(-1, 1).flatten())),
            ("sign", lambda logits, idx: -_right_loss(logits, idx)),
            ("summed", lambda logits, idx: _right_loss(logits, idx) * idx[:, 1:].numel()),
            ("divided_by_all", lambda logits, idx: _right_loss(logits, idx) * idx[:, 1:].numel() / idx.numel()),
            ("summed_over_time", lambda logits, idx: _right_loss(logits, idx) * (idx.size(1) - 1)),
            ("softmax_over_time", lambda logits, idx: -_picked(logits[:, :-1].log_softmax(1), idx[:, 1:]).mean()),
            ("softmax_over_all_time", lambda logits, idx: -_picked(logits.log_softmax(1)[:, :-1], idx[:, 1:]).mean()),
            ("no_log", lambda logits, idx: -_picked(logits.softmax(-1)[:, :-1], idx[:, 1:]).mean()),
            ("log_of_mean", lambda logits, idx: -_picked(logits.softmax(-1)[:, :-1], idx[:, 1:]).mean().log()),
            ("no_softmax", lambda logits, idx: -_picked(logits[:, :-1], idx[:, 1:]).mean()),
            ("bits", lambda logits, idx: _right_loss(logits, idx).item() / math.log(2)),
        ],
    ),
}
