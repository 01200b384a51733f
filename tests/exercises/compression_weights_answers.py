"""Answers to notebook 07's exercises about quantized weights: right ones, and wrong ones with their mistake."""

import numpy as np
import torch
import torch.nn.functional as F


def _quantize_rows(weight, bits):
    top = 2 ** (bits - 1) - 1
    scale = weight.abs().amax(dim=1).clamp(min=1e-8) / top
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _with_numpy(weight, bits):
    w, top = weight.numpy(), 2 ** (bits - 1) - 1
    largest = np.abs(w).max(axis=-1, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / top
    return np.clip(np.rint(w / scale), -top, top).astype(np.int8), scale[:, 0]


def _kept_dimension(weight, bits):
    scale = weight.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1) + 1e-12
    return torch.clamp(torch.round(weight / scale), -(2**bits), 2**bits).char(), scale


def _nan_replaced(weight, bits):
    scale = weight.abs().max(dim=1).values / (2 ** (bits - 1) - 1)
    return torch.nan_to_num(weight / scale[:, None]).round().type(torch.int8), scale


def _half_scale(weight, bits):
    top = 2 ** (bits - 1) - 1
    scale = (torch.linalg.vector_norm(weight, float("inf"), dim=1) / top).half()
    steps = weight / scale.float().clamp(min=1e-6)[:, None]
    return steps.round().clamp(-top, top).to(torch.int8), scale


def _row_by_row(weight, bits):
    q, scales = torch.zeros(weight.shape, dtype=torch.int8), []
    for n, row in enumerate(weight):
        largest = max(row.max().item(), -row.min().item())
        scales.append(largest / (2 ** (bits - 1) - 1))
        if largest:
            q[n] = (row / scales[-1] + 0.5).floor()
    return [q, torch.tensor(scales)]


def _int8_by_wrapping(numbers, bits):
    return numbers.to(torch.int32).to(torch.int8)


def _int8_clamped(numbers, bits):
    return numbers.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1).to(torch.int8)


def _quantized(
    largest=lambda weight: weight.abs().amax(1, keepdim=True),
    top=lambda bits: 2 ** (bits - 1) - 1,
    rounding=torch.round,
    store=_int8_by_wrapping,
    floor=1e-8,
    steps=torch.div,
    give=lambda q, scale: (q, scale),
):
    """An answer that goes wrong in one of its steps."""

    def answer(weight, bits):
        scale = largest(weight).clamp(min=floor) / top(bits)
        return give(store(rounding(steps(weight, scale)), bits), scale)

    return answer


def _of_max(weight):
    return weight.amax(1, keepdim=True)


def _span(weight):
    return weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)


def _by_min_and_max(weight, bits):
    low, scale = weight.amin(1, keepdim=True), _span(weight) / (2**bits - 1)
    return ((weight - low) / scale).round().to(torch.int32) - 128, scale


def _nan_cast(weight, bits):
    scale = weight.abs().amax(1) / (2 ** (bits - 1) - 1)
    return (weight / scale[:, None]).round().to(torch.int8), scale


def _nan_scale(weight, bits):
    q, scale = _quantize_rows(weight, bits)
    return q, scale * ((weight != 0).any(1) / (weight != 0).any(1))


def _last_differs(weight, bits):
    q, scale = _quantize_rows(weight, bits)
    q[-1, -1] += 2
    return q, scale


QUANTIZE = [
    ("not_a_pair", lambda weight, bits: _quantize_rows(weight, bits)[0]),
    ("not_a_pair", lambda weight, bits: (*_quantize_rows(weight, bits), bits)),
    ("swapped", lambda weight, bits: _quantize_rows(weight, bits)[::-1]),
    ("q_shape", _quantized(give=lambda q, scale: (q.flatten(), scale))),
    ("scale_for_each_weight", _quantized(give=lambda q, scale: (q, scale.expand_as(q)))),
    ("scale_shape", _quantized(give=lambda q, scale: (q, scale.T))),
    ("scales", _quantized(give=lambda q, scale: (q, scale[:2]))),
    ("per_column", _quantized(lambda weight: weight.abs().amax(0))),
    ("per_column", _quantized(lambda weight: weight.abs().amax(0, keepdim=True), rounding=torch.trunc)),
    ("one_for_all", _quantized(lambda weight: weight.abs().max())),
    ("one_for_all", _quantized(lambda weight: weight.abs().max().repeat(len(weight), 1))),
    ("wraps", _quantized(top=lambda bits: 2 ** (bits - 1))),
    ("too_wide", _quantized(top=lambda bits: 2 ** (bits - 1), store=_int8_clamped)),
    ("too_wide", _quantized(top=lambda bits: 2 ** (bits - 1), store=lambda n, bits: n.to(torch.int32))),
    ("unsigned_range", _quantized(top=lambda bits: 2**bits - 1)),
    ("unsigned_range", _quantized(top=lambda bits: 2**bits)),
    ("unsigned", _quantized(store=lambda n, bits: n.to(torch.int32).to(torch.uint8))),
    ("unsigned", _quantized(store=lambda n, bits: (n + 128).to(torch.uint8))),
    ("always_127", _quantized(top=lambda bits: 127)),
    ("truncated", _quantized(rounding=lambda steps: steps)),
    ("truncated", _quantized(rounding=lambda steps: steps.int())),
    ("floored", _quantized(rounding=torch.floor)),
    ("floored", _quantized(rounding=torch.ceil)),
    ("not_rounded", _quantized(rounding=lambda steps: steps, store=lambda n, bits: n)),
    ("sign_matters", _quantized(_of_max, floor=-99)),
    ("sign_matters", _quantized(_of_max, store=_int8_clamped, floor=-99)),
    ("sign_matters", _quantized(lambda weight: _of_max(weight).abs())),
    ("not_the_largest", _quantized(lambda weight: weight.abs().mean(1, keepdim=True))),
    ("not_the_largest", _quantized(lambda weight: weight.std(1, keepdim=True), store=_int8_clamped)),
    ("asymmetric", _quantized(_span, lambda bits: 2**bits - 1)),
    ("asymmetric", _by_min_and_max),
    ("inverted", _quantized(give=lambda q, scale: (q, 1 / scale))),
    ("multiplied", _quantized(steps=torch.mul)),
    ("not_divided", _quantized(top=lambda bits: 1)),
    ("not_divided", lambda weight, bits: (_quantize_rows(weight, bits)[0], weight.abs().amax(1))),
    ("not_int8", _quantized(store=lambda n, bits: n)),
    ("not_int8", _quantized(store=lambda n, bits: n.long())),
    ("zero_row", _nan_cast),
    ("zero_row", _nan_scale),
    ("not_finite", lambda weight, bits: (_quantize_rows(weight, bits)[0], weight.amax(1) / 0)),
    ("scale_differs", _quantized(give=lambda q, scale: (q, scale * 1.01))),
    ("q_differs", _last_differs),
    ("elsewhere", lambda weight, bits: _quantize_rows(weight.view(-1, 9), bits)),
    ("elsewhere", lambda weight, bits: _quantize_rows(weight, bits if bits != 6 else 5)),
    ("raised", lambda weight, bits: (weight / weight.abs().amax(1), bits)),
]


def _affine_product(x, q, scale, zero):
    return scale * (x @ q.to(x.dtype).T - zero * x.sum(-1, keepdim=True))


def _by_linear(x, q, scale, zero):
    return F.linear(x, q.float()) * scale - torch.outer(x.sum(1), zero.float() * scale)


def _by_einsum(x, q, scale, zero):
    y = torch.einsum("bk,nk->bn", x, q.float())
    y -= torch.einsum("bk,n->bn", x, zero.float())
    return y.mul_(scale)


def _channel_by_channel(x, q, scale, zero):
    total = x.sum(1)
    return torch.stack([s * (x @ row.float() - z * total) for row, s, z in zip(q, scale, zero)], dim=1)


def _in_double(x, q, scale, zero):
    x, q, zero = x.double(), q.double(), zero.double()
    return ((q @ x.T - zero[:, None] * x.sum(1)) * scale[:, None]).T


def _with_a_column_of_ones(x, q, scale, zero):
    """The zero point as one more input, whose weight is -zero."""
    wider = torch.cat([x, x.sum(1, keepdim=True)], dim=1)
    return wider @ torch.cat([q.float(), -zero.float()[:, None]], dim=1).T * scale


def _by_numpy(x, q, scale, zero):
    x, q, scale, zero = (part.numpy() for part in (x, q, scale, zero))
    return (x @ q.T - x.sum(axis=1, keepdims=True) * zero) * scale


def _product(
    term=lambda x, zero: zero * x.sum(1, keepdim=True), times=lambda scale: scale, table=lambda q: q.float().T
):
    """An answer that goes wrong in one of its parts."""
    return lambda x, q, scale, zero: (x @ table(q) - term(x, zero)) * times(scale)


AFFINE = [
    ("zero_forgotten", lambda x, q, scale, zero: x @ q.float().T * scale),
    ("zero_added", _product(lambda x, zero: -(zero * x.sum(1, keepdim=True)))),
    ("zero_negated_unsigned", lambda x, q, scale, zero: scale * (x @ q.float().T + -zero * x.sum(1, keepdim=True))),
    ("zero_once", _product(lambda x, zero: zero)),
    ("zero_once", _product(lambda x, zero: zero.float() * x.size(1))),
    ("sum_over_the_batch", _product(lambda x, zero: zero * x.sum(0))),
    ("sum_over_the_batch", _product(lambda x, zero: zero * x.sum(0)[:, None])),
    ("sum_of_all", _product(lambda x, zero: zero * x.sum())),
    ("sum_turned", _product(lambda x, zero: zero * x.sum(-1))),
    ("mean_for_sum", _product(lambda x, zero: zero * x.mean(1, keepdim=True))),
    ("zero_turned", _product(lambda x, zero: zero[:, None] * x.sum(1, keepdim=True))),
    ("zero_outside_scale", lambda x, q, scale, zero: x @ q.float().T * scale - zero * x.sum(1, keepdim=True)),
    ("scale_forgotten", _product(times=lambda scale: 1.0)),
    ("scale_turned", _product(times=lambda scale: scale[:, None])),
    ("scale_divides", _product(times=lambda scale: 1 / scale)),
    ("scaled_twice", _product(times=lambda scale: scale**2)),
    ("q_not_turned", _product(table=torch.Tensor.float)),
    ("turned", lambda x, q, scale, zero: _affine_product(x, q, scale, zero).T),
    ("turned", lambda x, q, scale, zero: scale[:, None] * (q.float() @ x.T - zero[:, None] * x.sum(1))),
    ("x_cut", lambda x, q, scale, zero: (x.long() @ q.long().T - zero * x.sum(1, keepdim=True)) * scale),
    ("q_as_int8", _product(table=lambda q: q.to(torch.int8).float().T)),
    ("wraps", lambda x, q, scale, zero: x @ (q - zero[:, None]).float().T * scale),
    ("wraps", lambda x, q, scale, zero: x @ (scale[:, None] * (q - zero[:, None])).T),
    ("zero_forgotten", lambda x, q, scale, zero: x @ q.float().T),
    ("weight_built", lambda x, q, scale, zero: x @ (scale[:, None] * (q.float() - zero[:, None])).T),
    ("weight_built", lambda x, q, scale, zero: x @ (q.int() - zero.int()[:, None]).float().T * scale),
    ("weight_built", lambda x, q, scale, zero: x @ (q.float().T - zero) * scale),
    ("only_one_size", lambda x, q, scale, zero: _affine_product(x, q.view(5, 5), scale, zero)),
    ("not_a_tensor", lambda x, q, scale, zero: (x @ q.float().T, zero)),
    ("raised", lambda x, q, scale, zero: x @ q.T),
]

ANSWERS = {
    "compression/quantize_rows": (_quantize_rows, QUANTIZE),
    "compression/affine_matmul": (_affine_product, AFFINE),
}
ALSO_RIGHT = {
    "compression/quantize_rows": [
        _with_numpy,
        _kept_dimension,
        _nan_replaced,
        _half_scale,
        _row_by_row,
        _quantized(),
    ],
    "compression/affine_matmul": [
        _by_linear,
        _by_einsum,
        _channel_by_channel,
        _in_double,
        _with_a_column_of_ones,
        _by_numpy,
        _product(),
    ],
}
