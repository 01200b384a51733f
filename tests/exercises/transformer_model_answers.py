"""Answers to notebook 03's exercises about block and loss: right ones, and wrong ones with their mistake."""

import math

import numpy as np
import torch
import torch.nn.functional as F


def _block(x, attention, mlp, norm_1, norm_2):
    x = x + attention(norm_1(x))
    return x + mlp(norm_2(x))


def _block_in_place(x, attention, mlp, norm_1, norm_2):
    x += attention(norm_1(x))
    x += mlp(norm_2(x))
    return x


def _block_with_names(x, attention, mlp, norm_1, norm_2):
    residual = x
    hidden = attention(norm_1(x))
    hidden = torch.add(residual, hidden)
    return hidden + mlp(norm_2(hidden))


def _stream_normalised(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x)
    x = x + attention(x)
    x = norm_2(x)
    return x + mlp(x)


def _stream_normalised_once(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x)
    x = x + attention(x)
    return x + mlp(norm_2(x))


def _post_norm(x, attention, mlp, norm_1, norm_2):
    x = norm_1(x + attention(x))
    return norm_2(x + mlp(x))


def _no_norm(x, attention, mlp, norm_1, norm_2):
    x = x + attention(x)
    return x + mlp(x)


def _stale_residual(x, attention, mlp, norm_1, norm_2):
    residual = x
    x = residual + attention(norm_1(x))
    return residual + mlp(norm_2(x))


def _stages(first, second):
    def answer(x, attention, mlp, norm_1, norm_2):
        return second(first(x, attention, norm_1), mlp, norm_2)

    return answer


def _pre(x, part, norm):
    return x + part(norm(x))


BLOCK = [
    ("no_residual", lambda x, a, m, n1, n2: m(n2(a(n1(x))))),
    ("no_residual", lambda x, a, m, n1, n2: a(n1(x)) + m(n2(x))),
    ("no_residual_around_attention", lambda x, a, m, n1, n2: a(n1(x)) + m(n2(a(n1(x))))),
    ("no_residual_around_mlp", lambda x, a, m, n1, n2: m(n2(x + a(n1(x))))),
    ("no_residual_around_mlp", lambda x, a, m, n1, n2: m(n1(x + a(n2(x))))),
    ("no_norm", _no_norm),
    ("no_norm_before_attention", lambda x, a, m, n1, n2: _pre(x + a(x), m, n2)),
    ("no_norm_before_mlp", lambda x, a, m, n1, n2: (y := x + a(n1(x))) + m(y)),
    ("neither_norm_nor_residual", lambda x, a, m, n1, n2: m(a(x))),
    ("neither_norm_nor_residual", _stages(lambda x, part, norm: part(x), _pre)),
    ("post_norm", _post_norm),
    ("post_norm", lambda x, a, m, n1, n2: n2((y := n1(a(x) + x)) + m(y))),
    ("post_norm", _stages(lambda x, part, norm: norm(x + part(x)), _pre)),
    ("stream_normalised", _stream_normalised),
    ("stream_normalised", _stream_normalised_once),
    ("update_normalised", _stages(*[lambda x, part, norm: x + norm(part(x))] * 2)),
    ("update_normalised", _stages(_pre, lambda x, part, norm: x + norm(part(x)))),
    ("normalised_once_more", lambda x, a, m, n1, n2: n2(_block(x, a, m, n1, n2))),
    ("normalised_once_more", _stages(*[lambda x, part, norm: norm(x + part(norm(x)))] * 2)),
    ("normalised_once_more", _stages(*[lambda x, part, norm: x + norm(part(norm(x)))] * 2)),
    ("parallel", lambda x, a, m, n1, n2: x + a(n1(x)) + m(n2(x))),
    ("parallel", lambda x, a, m, n1, n2: x + a(n1(x)) + m(n1(x))),
    ("mlp_reads_update", lambda x, a, m, n1, n2: x + (y := a(n1(x))) + m(n2(y))),
    ("mlp_added_to_input", lambda x, a, m, n1, n2: x + m(n2(x + a(n1(x))))),
    ("mlp_added_to_input", _stale_residual),
    ("one_residual_for_both", lambda x, a, m, n1, n2: x + m(n2(a(n1(x))))),
    ("norms_swapped", lambda x, a, m, n1, n2: _block(x, a, m, n2, n1)),
    ("one_norm_twice", lambda x, a, m, n1, n2: _block(x, a, m, n1, n1)),
    ("one_norm_twice", lambda x, a, m, n1, n2: _block(x, a, m, n2, n2)),
    ("mlp_first", lambda x, a, m, n1, n2: _block(x, m, a, n2, n1)),
    ("mlp_first", lambda x, a, m, n1, n2: _block(x, m, a, n1, n2)),
    ("one_part_twice", lambda x, a, m, n1, n2: _block(x, a, a, n1, n2)),
    ("mlp_left_out", lambda x, a, m, n1, n2: x + a(n1(x))),
    ("attention_left_out", lambda x, a, m, n1, n2: x + m(n2(x))),
    ("multiplied", _stages(*[lambda x, part, norm: x * part(norm(x))] * 2)),
    ("multiplied", _stages(_pre, lambda x, part, norm: x * part(norm(x)))),
    ("subtracted", _stages(lambda x, part, norm: x - part(norm(x)), _pre)),
    ("averaged", _stages(*[lambda x, part, norm: (x + part(norm(x))) / 2] * 2)),
    ("input_twice", lambda x, a, m, n1, n2: x + _block(x, a, m, n1, n2)),
    ("input_twice", _stages(lambda x, part, norm: x + x + part(norm(x)), _pre)),
    ("shape", lambda x, a, m, n1, n2: torch.cat([x, _block(x, a, m, n1, n2)])),
    ("not_a_tensor", lambda x, a, m, n1, n2: (x, _block(x, a, m, n1, n2))),
    ("raised", lambda x, a, m, n1, n2: x + a(n1(x), n1(x), n1(x))),
    ("raised", lambda x, a, m, n1, n2: x + a(n1)),
    ("unsteady", lambda x, a, m, n1, n2: F.dropout(_block(x, a, m, n1, n2), 0.5)),
    ("values", lambda x, a, m, n1, n2: x.cumsum(1)),
]


def _loss(logits, idx):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), idx[:, 1:].flatten())


def _loss_transposed(logits, idx):
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), idx[:, 1:])


def _loss_by_loops(logits, idx):
    total = 0.0
    for b in range(idx.size(0)):
        for t in range(idx.size(1) - 1):
            powers = [math.exp(score) for score in logits[b, t].tolist()]
            total -= math.log(powers[idx[b, t + 1]] / sum(powers))
    return total / (idx.size(0) * (idx.size(1) - 1))


def _loss_by_hand(logits, idx):
    logits, idx = logits[:, :-1, :].double(), idx[:, 1:]
    logits -= logits.amax(dim=-1, keepdim=True)
    picked = logits.gather(2, idx.unsqueeze(2)).squeeze(2)
    return (logits.exp().sum(dim=-1).log() - picked).mean().reshape(1)


def _loss_by_one_hot(logits, idx):
    p = logits.softmax(dim=-1)[:, :-1]
    return -(F.one_hot(idx[:, 1:], logits.size(-1)) * torch.log(p + 1e-12)).sum(dim=-1).mean()


def _loss_by_indexing(logits, idx):
    B, T = idx.shape
    p = torch.softmax(logits, -1)[torch.arange(B)[:, None], torch.arange(T - 1), idx[:, 1:]]
    return np.float32(-np.log(p.numpy()).mean())


def _picked(table, targets):
    return table.gather(-1, targets[..., None]).squeeze(-1)


def _nll(logits, idx, table=lambda x: x.log_softmax(-1)):
    """Minus the log-probability of each next token, (B, T - 1)."""
    return -_picked(table(logits[:, :-1]), idx[:, 1:])


def _ragged(logits, idx):
    losses = _nll(logits, idx)
    return torch.stack([row[-1] for row in losses]).mean()


def _binary(logits, idx):
    came = F.one_hot(idx[:, 1:], logits.size(-1)).float()
    return F.binary_cross_entropy_with_logits(logits[:, :-1], came)


def _only_two_texts(logits, idx):
    return (_loss(logits[:1], idx[:1]) + _loss(logits[1:2], idx[1:2])) / 2


LOSS = [
    ("not_shifted", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1), idx.flatten())),
    ("not_shifted", lambda logits, idx: F.cross_entropy(logits[:, :-1].flatten(0, 1), idx[:, :-1].flatten())),
    ("not_shifted", lambda logits, idx: F.cross_entropy(logits[:, 1:].flatten(0, 1), idx[:, 1:].flatten())),
    ("not_shifted", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1), idx.flatten(), reduction="sum")),
    ("shifted_backwards", lambda logits, idx: F.cross_entropy(logits[:, 1:].flatten(0, 1), idx[:, :-1].flatten())),
    ("shifted_twice", lambda logits, idx: F.cross_entropy(logits[:, :-2].flatten(0, 1), idx[:, 2:].flatten())),
    ("texts_shifted", lambda logits, idx: F.cross_entropy(logits[:-1].flatten(0, 1), idx[1:].flatten())),
    ("wrapped_around", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1), idx.roll(-1, 1).flatten())),
    ("wrapped_around", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1), idx.flatten().roll(-1))),
    ("rows_joined", lambda logits, idx: F.cross_entropy(logits.flatten(0, 1)[:-1], idx.flatten()[1:])),
    ("last_position_only", lambda logits, idx: F.cross_entropy(logits[:, -2], idx[:, -1])),
    ("last_position_only", lambda logits, idx: F.cross_entropy(logits[:, -1], idx[:, -1])),
    ("last_position_only", _ragged),
    ("position_left_out", lambda logits, idx: F.cross_entropy(logits[:, 1:-1].mT, idx[:, 2:])),
    ("first_text_only", lambda logits, idx: F.cross_entropy(logits[0, :-1], idx[0, 1:])),
    ("token_left_out", lambda logits, idx: F.cross_entropy(logits[:, :-1].mT, idx[:, 1:], ignore_index=0)),
    ("softmax_over_time", lambda logits, idx: _nll(logits, idx, lambda x: x.log_softmax(1)).mean()),
    ("softmax_over_time", lambda logits, idx: _nll(logits, idx, lambda x: x - x.exp().sum().log()).mean()),
    ("softmax_over_all_time", lambda logits, idx: -_picked(logits.log_softmax(1)[:, :-1], idx[:, 1:]).mean()),
    ("softmax_over_texts", lambda logits, idx: _nll(logits, idx, lambda x: x.softmax(0).log()).mean()),
    ("softmax_twice", lambda logits, idx: _loss(logits.softmax(-1), idx)),
    ("no_softmax", lambda logits, idx: _nll(logits, idx, lambda x: x).mean()),
    ("no_softmax", lambda logits, idx: F.nll_loss(logits[:, :-1].flatten(0, 1), idx[:, 1:].flatten())),
    ("no_log", lambda logits, idx: -_nll(logits, idx, lambda x: x.softmax(-1)).mean()),
    ("no_log", lambda logits, idx: F.nll_loss(logits.softmax(-1)[:, :-1].flatten(0, 1), idx[:, 1:].flatten())),
    ("no_log", lambda logits, idx: 1 + _nll(logits, idx, lambda x: x.softmax(-1)).mean()),
    ("sigmoid", lambda logits, idx: _nll(logits, idx, F.logsigmoid).mean()),
    ("sigmoid", _binary),
    ("no_sum", lambda logits, idx: _nll(logits, idx, lambda x: x - x.amax(-1, keepdim=True)).mean()),
    ("summed", lambda logits, idx: _nll(logits, idx).sum()),
    ("summed", lambda logits, idx: F.cross_entropy(logits[:, :-1].mT, idx[:, 1:], reduction="sum")),
    ("summed", lambda logits, idx: -_nll(logits, idx).sum()),
    ("summed_over_time", lambda logits, idx: _nll(logits, idx).sum(1).mean()),
    ("summed_over_texts", lambda logits, idx: _nll(logits, idx).sum(0).mean()),
    ("divided_by_all", lambda logits, idx: _nll(logits, idx).sum() / idx.numel()),
    ("divided_by_fewer", lambda logits, idx: _nll(logits, idx).sum() / idx[:, 2:].numel()),
    ("not_shifted", lambda logits, idx: F.cross_entropy(logits.mT, idx, reduction="sum") / idx[:, 1:].numel()),
    ("not_the_mean", lambda logits, idx: _nll(logits, idx).max()),
    ("not_the_mean", lambda logits, idx: _nll(logits, idx).median()),
    ("scaled", lambda logits, idx: _loss(logits / logits.size(-1) ** 0.5, idx)),
    ("divided_by_texts", lambda logits, idx: _loss(logits, idx) / len(idx)),
    ("not_averaged", lambda logits, idx: _nll(logits, idx)),
    ("not_averaged", lambda logits, idx: _nll(logits, idx).mean(dim=1)),
    ("not_averaged", lambda logits, idx: F.cross_entropy(logits[:, :-1].mT, idx[:, 1:], reduction="none").flatten()),
    ("log_of_mean", lambda logits, idx: -_picked(logits.softmax(-1)[:, :-1], idx[:, 1:]).mean().log()),
    ("not_picked", lambda logits, idx: -logits[:, :-1].log_softmax(-1).mean()),
    ("not_picked", lambda logits, idx: (F.one_hot(idx[:, 1:], 11) * -logits[:, :-1].log_softmax(-1)).mean()),
    ("likeliest_picked", lambda logits, idx: -logits[:, :-1].log_softmax(-1).max(-1).values.mean()),
    ("entropy", lambda logits, idx: torch.distributions.Categorical(logits=logits[:, :-1]).entropy().mean()),
    ("accuracy", lambda logits, idx: (logits[:, :-1].argmax(-1) == idx[:, 1:]).float().mean()),
    ("accuracy", lambda logits, idx: (logits[:, :-1].argmax(-1) != idx[:, 1:]).float().mean().item()),
    (
        "squared",
        lambda logits, idx: F.mse_loss(logits.softmax(-1)[:, :-1], F.one_hot(idx[:, 1:], logits.size(-1)) * 1.0),
    ),
    ("reshaped", lambda logits, idx: _loss(logits.transpose(1, 2).reshape(logits.shape), idx)),
    ("bits", lambda logits, idx: _loss(logits, idx).item() / math.log(2)),
    ("bits", lambda logits, idx: -_nll(logits, idx, lambda x: x.softmax(-1).log2()).mean()),
    ("digits", lambda logits, idx: _nll(logits, idx, lambda x: x.softmax(-1).log10()).mean()),
    ("perplexity", lambda logits, idx: _loss(logits, idx).exp()),
    ("perplexity", lambda logits, idx: _nll(logits, idx).exp().mean()),
    ("sign", lambda logits, idx: -_loss(logits, idx)),
    ("only_one_size", _only_two_texts),
    ("shape", lambda logits, idx: logits.log_softmax(-1)),
    ("not_a_tensor", lambda logits, idx: str(_loss(logits, idx))),
    ("raised", lambda logits, idx: F.cross_entropy(logits, idx)),
    ("raised", lambda logits, idx: F.cross_entropy(logits[:, :-1], idx[:, 1:])),
    ("unsteady", lambda logits, idx: _loss(F.dropout(logits), idx)),
    ("value", lambda logits, idx: logits.std()),
]

ANSWERS = {"transformer/block": (_block, BLOCK), "transformer/next_token_loss": (_loss, LOSS)}
ALSO_RIGHT = {
    "transformer/block": [_block_in_place, _block_with_names],
    "transformer/next_token_loss": [
        _loss_transposed,
        _loss_by_loops,
        _loss_by_hand,
        _loss_by_one_hot,
        _loss_by_indexing,
    ],
}
