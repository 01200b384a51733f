"""Answers to notebook 05's exercises about pooling and LoRA: right ones, and wrong ones with their mistake."""

import numpy as np
import torch
import torch.nn.functional as F


def _mask(hidden, lengths, extra=0):
    return (torch.arange(hidden.size(1)) < (lengths + extra)[:, None])[:, :, None]


def _mean_pool(hidden, lengths):
    return (hidden * _mask(hidden, lengths)).sum(dim=1) / lengths[:, None]


def _by_loop(hidden, lengths):
    return torch.stack([text[:length].mean(dim=0) for text, length in zip(hidden, lengths)])


def _by_nan(hidden, lengths):
    return hidden.masked_fill(~_mask(hidden, lengths), torch.nan).nanmean(1)


def _by_product(hidden, lengths):
    weights = _mask(hidden, lengths).float() / lengths[:, None, None]
    return torch.einsum("btc,bto->bc", hidden, weights)


def _by_running_sum(hidden, lengths):
    return hidden.cumsum(1)[torch.arange(len(hidden)), lengths - 1] / lengths.unsqueeze(-1)


def _by_numpy(hidden, lengths):
    return np.stack([hidden[b, :length].numpy().mean(0) for b, length in enumerate(lengths.tolist())])


def _pick(place):
    return lambda hidden, lengths: hidden[torch.arange(len(hidden)), place(hidden, lengths)]


def _only_several(hidden, lengths):
    return _mean_pool(hidden, lengths).squeeze()


def _in_place(hidden, lengths):
    for b, length in enumerate(lengths):
        hidden[b, length:] = 0
    return hidden.mean(dim=1)


POOL = [
    ("not_a_tensor", lambda hidden, lengths: [text[:length].mean(0) for text, length in zip(hidden, lengths)]),
    ("padding_in_the_mean", lambda hidden, lengths: hidden.mean(dim=1)),
    ("divided_by_T", lambda hidden, lengths: (hidden * _mask(hidden, lengths)).mean(1)),
    ("divided_by_T", _in_place),
    ("not_masked", lambda hidden, lengths: hidden.sum(1) / lengths[:, None]),
    ("not_divided", lambda hidden, lengths: (hidden * _mask(hidden, lengths)).sum(1)),
    ("last_position", _pick(lambda hidden, lengths: lengths - 1)),
    ("last_column", lambda hidden, lengths: hidden[:, -1]),
    ("first_position", lambda hidden, lengths: hidden[:, 0]),
    ("one_position_short", lambda hidden, lengths: (hidden * _mask(hidden, lengths, -1)).sum(1) / lengths[:, None]),
    ("one_position_short", lambda hidden, lengths: _mean_pool(hidden, lengths - 1)),
    ("one_position_long", lambda hidden, lengths: (hidden * _mask(hidden, lengths, 1)).sum(1) / lengths[:, None]),
    ("one_position_long", lambda hidden, lengths: _mean_pool(hidden, lengths + 1)),
    ("first_position_skipped", lambda hidden, lengths: torch.stack([h[1:n].mean(0) for h, n in zip(hidden, lengths)])),
    ("first_position_skipped", lambda hidden, lengths: _mean_pool(hidden, lengths) - hidden[:, 0] / lengths[:, None]),
    ("divided_by_other_count", lambda hidden, lengths: (hidden * _mask(hidden, lengths)).sum(1) / lengths.sum()),
    ("divided_by_other_count", lambda hidden, lengths: (hidden * _mask(hidden, lengths)).sum(1) / len(hidden)),
    ("divided_by_other_count", lambda hidden, lengths: _mean_pool(hidden, lengths) * (n := lengths[:, None]) / (n + 1)),
    ("maximum", lambda hidden, lengths: hidden.masked_fill(~_mask(hidden, lengths), -1e9).amax(1)),
    ("maximum", lambda hidden, lengths: hidden.max(dim=1).values),
    ("over_the_batch", lambda hidden, lengths: hidden.mean(0)),
    ("over_the_numbers", lambda hidden, lengths: hidden.mean(-1)),
    ("padding_on_the_left", lambda hidden, lengths: torch.stack([h[-n:].mean(0) for h, n in zip(hidden, lengths)])),
    ("mask_inverted", lambda hidden, lengths: torch.stack([h[n:].mean(0) for h, n in zip(hidden, lengths)])),
    ("mask_inverted", lambda hidden, lengths: (hidden * ~_mask(hidden, lengths)).sum(1) / lengths[:, None]),
    ("one_length_for_all", lambda hidden, lengths: hidden[:, : lengths[0]].mean(1)),
    ("one_length_for_all", lambda hidden, lengths: hidden[:, : lengths.max()].mean(1)),
    ("one_length_for_all", lambda hidden, lengths: hidden[:, : lengths.max()].sum(1) / lengths[:, None]),
    ("not_summed", lambda hidden, lengths: hidden * _mask(hidden, lengths)),
    ("dimension_kept", lambda hidden, lengths: _mean_pool(hidden, lengths).unsqueeze(1)),
    ("padding_in_the_mean", lambda hidden, lengths: hidden.mean(1, keepdim=True)),
    ("normalised", lambda hidden, lengths: F.normalize(_mean_pool(hidden, lengths), dim=1)),
    ("all_texts_in_one", lambda hidden, lengths: _mean_pool(hidden, lengths).mean(0)),
    ("only_one_size", _only_several),
    ("only_one_size", lambda hidden, lengths: hidden[0:3].cumsum(1)[[0, 1, 2], lengths - 1] / lengths[:, None]),
    ("padding_in_the_mean", lambda hidden, lengths: F.normalize(hidden.mean(1), dim=-1)),
    ("unsteady", lambda hidden, lengths: F.dropout(_mean_pool(hidden, lengths))),
    ("shape", lambda hidden, lengths: _mean_pool(hidden, lengths).T),
    ("raised", lambda hidden, lengths: hidden * (torch.arange(hidden.size(1)) < lengths)),
    ("raised", lambda hidden, lengths: hidden[:, :lengths].mean(1)),
]


def _lora(x, weight, A, B, alpha):
    r = A.shape[0]
    return x @ weight.T + alpha / r * (x @ A.T @ B.T)


def _merged(x, weight, A, B, alpha):
    return F.linear(x, weight + alpha / B.size(1) * B @ A)


def _by_layers(x, weight, A, B, alpha):
    return F.linear(x, weight) + F.linear(F.linear(x, A), B) * (alpha / len(A))


def _by_einsum(x, weight, A, B, alpha):
    return torch.einsum("ni,oi->no", x, weight) + torch.einsum("ni,ri,or->no", x, A, B) * alpha / A.size(0)


def _by_columns(x, weight, A, B, alpha):
    return (weight @ x.T + alpha / A.size(0) * (B @ (A @ x.T))).T


def _numpy(x, weight, A, B, alpha):
    x, weight, A, B = (given.numpy() for given in (x, weight, A, B))
    return x @ weight.T + alpha / len(A) * x @ A.T @ B.T


def _made(scale=lambda alpha, A: alpha / len(A), join=lambda frozen, update, scale: frozen + scale * update):
    return lambda x, weight, A, B, alpha: join(x @ weight.T, x @ A.T @ B.T, scale(alpha, A))


LORA = [
    ("not_scaled", _made(lambda alpha, A: 1)),
    ("not_divided_by_r", _made(lambda alpha, A: alpha)),
    ("alpha_forgotten", _made(lambda alpha, A: 1 / len(A))),
    ("times_r", _made(lambda alpha, A: alpha * len(A))),
    ("turned_over", _made(lambda alpha, A: len(A) / alpha)),
    ("divided_by_width", _made(lambda alpha, A: alpha / A.shape[1])),
    ("divided_by_width", lambda x, weight, A, B, alpha: x @ weight.T + alpha / B.shape[0] * x @ A.T @ B.T),
    ("divided_by_width", lambda x, weight, A, B, alpha: x @ weight.T + alpha / weight.shape[0] * x @ A.T @ B.T),
    ("root_of_r", _made(lambda alpha, A: alpha / len(A) ** 0.5)),
    ("scaled_twice", _made(lambda alpha, A: (alpha / len(A)) ** 2)),
    ("scaled_twice", _made(lambda alpha, A: alpha * alpha / len(A))),
    ("whole_division", _made(lambda alpha, A: alpha // len(A))),
    ("whole_scaled", _made(join=lambda frozen, update, scale: scale * (frozen + update))),
    ("whole_scaled", lambda x, weight, A, B, alpha: x @ (weight + B @ A).T * alpha / len(A)),
    ("frozen_scaled", _made(join=lambda frozen, update, scale: scale * frozen + update)),
    ("no_frozen_part", _made(join=lambda frozen, update, scale: scale * update)),
    ("no_update", lambda x, weight, A, B, alpha: x @ weight.T),
    ("no_update", lambda x, weight, A, B, alpha: x @ weight.T + alpha / len(A) * x @ A.T @ torch.zeros_like(B).T),
    ("subtracted", _made(join=lambda frozen, update, scale: frozen - scale * update)),
    ("added_twice", _made(join=lambda frozen, update, scale: frozen + scale * update + scale * update)),
    ("added_twice", lambda x, weight, A, B, alpha: x @ weight.T + _lora(x, weight, A, B, alpha)),
    ("multiplied", _made(join=lambda frozen, update, scale: frozen * scale * update)),
    ("A_and_B_swapped", lambda x, weight, A, B, alpha: x @ weight.T + alpha / len(A) * x @ B @ A),
    ("weight_not_transposed", lambda x, weight, A, B, alpha: x @ weight + alpha / len(A) * x @ A.T @ B.T),
    ("weight_not_transposed", lambda x, weight, A, B, alpha: x @ (weight + alpha / len(A) * A.T @ B.T)),
    ("A_and_B_swapped", lambda x, weight, A, B, alpha: x @ (weight + alpha / len(A) * B @ A)),
    ("nonlinear", lambda x, weight, A, B, alpha: x @ weight.T + alpha / len(A) * F.relu(x @ A.T) @ B.T),
    ("reads_the_output", lambda x, weight, A, B, alpha: (h := x @ weight.T) + alpha / len(A) * h @ A.T @ B.T),
    ("weight_returned", lambda x, weight, A, B, alpha: weight + alpha / len(A) * B @ A),
    ("turned", lambda x, weight, A, B, alpha: _lora(x, weight, A, B, alpha).T),
    ("not_scaled", lambda x, weight, A, B, alpha: x @ A.T @ B.T),
    ("only_one_size", lambda x, weight, A, B, alpha: x @ weight.T + 8 / 3 * x @ A.T @ B.T),
    ("only_one_size", lambda x, weight, A, B, alpha: x @ weight.T + alpha / 3 * x @ A.T @ B.T),
    ("only_one_size", lambda x, weight, A, B, alpha: _lora(x, weight, A, B, int(alpha))),
    ("unsteady", lambda x, weight, A, B, alpha: x @ weight.T + alpha / len(A) * F.dropout(x) @ A.T @ B.T),
    ("raised", lambda x, weight, A, B, alpha: x @ weight.T + alpha / len(A) * x @ A @ B),
    ("raised", lambda x, weight, A, B, alpha: x @ weight.T + alpha / len(A) * B @ A),
]

ANSWERS = {"finetuning/mean_pool": (_mean_pool, POOL), "finetuning/lora": (_lora, LORA)}
ALSO_RIGHT = {
    "finetuning/mean_pool": [_by_loop, _by_nan, _by_product, _by_running_sum, _by_numpy],
    "finetuning/lora": [_merged, _by_layers, _by_einsum, _by_columns, _numpy],
}
