"""Answers to notebook 03's exercise about rotary positions: right ones, and wrong ones with their mistake."""

import math

import torch


def _rotary(
    at=lambda x: torch.arange(x.size(2))[:, None],
    exponent=lambda d: -torch.arange(0, d, 2) / d,
    left=lambda a, b, cos, sin: a * cos - b * sin,
    right=lambda a, b, cos, sin: b * cos + a * sin,
    join=lambda a, b: torch.cat([a, b], dim=-1),
    unit=1.0,
):
    def answer(x, theta):
        angle = at(x) * theta ** exponent(x.size(-1)) * unit
        a, b = x.chunk(2, dim=-1)
        given = (a, b, angle.cos(), angle.sin())
        return join(left(*given), right(*given))

    return answer


def _rotary_of_pytorch_style(x, theta):
    D = x.shape[-1]
    frequency = 1.0 / (theta ** (torch.arange(0, D, 2).float() / D))
    angle = torch.outer(torch.arange(x.shape[-2]).float(), frequency)
    angle = torch.cat((angle, angle), dim=-1)
    x1, x2 = x[..., : D // 2], x[..., D // 2 :]
    return (x * angle.cos()) + (torch.cat((-x2, x1), dim=-1) * angle.sin())


def _rotary_by_loops(x, theta):
    out, half = x.clone(), x.size(-1) // 2
    for t in range(x.size(2)):
        for i in range(half):
            cos, sin = math.cos(t * theta ** (-i / half)), math.sin(t * theta ** (-i / half))
            out[:, :, t, i] = x[:, :, t, i] * cos - x[:, :, t, i + half] * sin
            out[:, :, t, i + half] = x[:, :, t, i + half] * cos + x[:, :, t, i] * sin
    return out


def _rotary_by_complex_numbers(x, theta):
    a, b = x.double().chunk(2, dim=-1)
    angle = torch.arange(x.size(2))[:, None] * torch.exp(-torch.arange(0, x.size(-1), 2) / x.size(-1) * math.log(theta))
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angle), angle).to(torch.complex128)
    return torch.cat([turned.real, turned.imag], dim=-1)


def _rotary_of_the_first_llama(x, theta):
    angle = torch.outer(torch.arange(x.size(2)), theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1)))
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(turned).flatten(-2)


def _rotary_neighbours(x, theta):
    angle = torch.arange(x.size(2))[:, None] * theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1))
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = [even * angle.cos() - odd * angle.sin(), odd * angle.cos() + even * angle.sin()]
    return torch.stack(turned, dim=-1).flatten(-2)


def _rotary_in_place(x, theta):
    half = x.size(-1) // 2
    angle = torch.arange(x.size(2))[:, None] * theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1))
    x[..., :half] = x[..., :half] * angle.cos() - x[..., half:] * angle.sin()
    x[..., half:] = x[..., half:] * angle.cos() + x[..., :half] * angle.sin()
    return x


def _full_width(repeat, swap):
    def answer(x, theta):
        angle = repeat(torch.arange(x.size(2))[:, None] * theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1)))
        return x * angle.cos() + swap(*x.chunk(2, dim=-1)) * angle.sin()

    return answer


def _frequency_for_each(step):
    def answer(x, theta):
        angle = torch.arange(x.size(2))[:, None] * theta ** (-step * torch.arange(x.size(-1)) / x.size(-1))
        left, right = x.chunk(2, dim=-1)
        return x * angle.cos() + torch.cat([-right, left], dim=-1) * angle.sin()

    return answer


def _sinusoids(x, theta):
    angle = torch.arange(x.size(2))[:, None] * theta ** (-torch.arange(0, x.size(-1), 2) / x.size(-1))
    table = torch.zeros(x.size(2), x.size(-1))
    table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()
    return x + table


def _cat(angle):
    return torch.cat([angle, angle], dim=-1)


def _width_of_eight(x, theta):
    angle = torch.arange(x.size(2))[:, None] * theta ** (-torch.arange(0, 8, 2) / 8)
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * angle.cos() - right * angle.sin(), right * angle.cos() + left * angle.sin()], dim=-1)


ROTARY = [
    ("not_turned", lambda x, theta: x),
    ("not_turned", lambda x, theta: x.clone()),
    ("neighbours_paired", _rotary_neighbours),
    ("neighbours_paired", _rotary_of_the_first_llama),
    ("pairs_and_angles_differ", _full_width(lambda a: a.repeat_interleave(2, -1), lambda a, b: torch.cat([-b, a], -1))),
    (
        "pairs_and_angles_differ",
        _full_width(_cat, lambda a, b: torch.stack([-_odd(a, b), _even(a, b)], -1).flatten(-2)),
    ),
    ("turned_backwards", _full_width(_cat, lambda a, b: torch.cat([b, -a], -1))),
    ("turned_backwards", _rotary(unit=-1.0)),
    ("turned_backwards", _rotary(at=lambda x: -torch.arange(1, x.size(2) + 1)[:, None])),
    ("sign_missing", _full_width(_cat, lambda a, b: torch.cat([b, a], -1))),
    ("sign_missing", _rotary(left=lambda a, b, cos, sin: a * cos + b * sin)),
    ("sign_missing", _full_width(_cat, lambda a, b: torch.cat([a, b], -1).roll(a.size(-1), -1))),
    ("sign_on_both", _rotary(right=lambda a, b, cos, sin: b * cos - a * sin)),
    ("updated_too_early", _rotary_in_place),
    ("updated_too_early", _rotary(right=lambda a, b, cos, sin: b * cos + (a * cos - b * sin) * sin)),
    ("updated_too_early", _rotary(left=lambda a, b, cos, sin: a * cos - (b * cos + a * sin) * sin)),
    ("position_left_out", _rotary(at=lambda x: 1)),
    ("position_from_one", _rotary(at=lambda x: torch.arange(1, x.size(2) + 1)[:, None])),
    ("positions_backwards", _rotary(at=lambda x: torch.arange(x.size(2) - 1, -1, -1)[:, None])),
    ("position_is_share", _rotary(at=lambda x: torch.arange(x.size(2))[:, None] / x.size(2))),
    ("position_is_head", _rotary(at=lambda x: torch.arange(x.size(1))[:, None, None])),
    ("position_is_text", _rotary(at=lambda x: torch.arange(x.size(0))[:, None, None, None])),
    ("one_frequency", _rotary(exponent=lambda d: torch.zeros(d // 2))),
    ("exponent_halved", _rotary(exponent=lambda d: -torch.arange(d // 2) / d)),
    ("turned_backwards", _rotary(exponent=lambda d: -torch.arange(d // 2) / d, unit=-1.0)),
    ("exponent_doubled", _rotary(exponent=lambda d: -2 * torch.arange(0, d, 2) / d)),
    ("exponent_positive", _rotary(exponent=lambda d: torch.arange(0, d, 2) / d)),
    ("exponent_undivided", _rotary(exponent=lambda d: -torch.arange(0, d, 2).float())),
    ("pair_from_one", _rotary(exponent=lambda d: -2 * torch.arange(1, d // 2 + 1) / d)),
    ("frequencies_differ", _frequency_for_each(1)),
    ("frequencies_differ", _frequency_for_each(2)),
    ("exponent_rounded", _rotary(exponent=lambda d: -torch.arange(0, d, 2) // d)),
    ("frequencies_reversed", _rotary(exponent=lambda d: -torch.arange(d - 2, -1, -2) / d)),
    ("theta_left_out", lambda x, theta: _rotary()(x, math.e)),
    ("theta_fixed", lambda x, theta: _rotary()(x, 10000.0)),
    ("degrees", _rotary(unit=math.pi / 180)),
    ("turned_twice", lambda x, theta: _rotary()(_rotary()(x, theta), theta)),
    ("whole_turns", _rotary(unit=2 * math.pi)),
    (
        "cosine_and_sine_swapped",
        _rotary(left=lambda a, b, c, s: a * s - b * c, right=lambda a, b, c, s: b * s + a * c),
    ),
    ("half_the_formula", _rotary(left=lambda a, b, cos, sin: a * cos, right=lambda a, b, cos, sin: b * cos)),
    ("half_the_formula", _rotary(left=lambda a, b, cos, sin: -b * sin, right=lambda a, b, cos, sin: a * sin)),
    ("added", _rotary(left=lambda a, b, cos, sin: a + sin, right=lambda a, b, cos, sin: b + cos)),
    ("added", _sinusoids),
    ("added", lambda x, theta: x + _rotary()(x, theta)),
    ("half_missing", _rotary(join=lambda a, b: a)),
    ("half_left_alone", _rotary(right=lambda a, b, cos, sin: b)),
    ("half_left_alone", _rotary(left=lambda a, b, cos, sin: a)),
    ("halves_exchanged", _rotary(join=lambda a, b: torch.cat([b, a], dim=-1))),
    ("result_interleaved", _rotary(join=lambda a, b: torch.stack([a, b], dim=-1).flatten(-2))),
    ("only_one_size", _width_of_eight),
    ("shape", _rotary(join=lambda a, b: torch.cat([a, b], dim=-2))),
    ("shape", _rotary(join=lambda a, b: torch.stack([a, b], dim=-1))),
    ("not_a_tensor", _rotary(join=lambda a, b: (a, b))),
    ("raised", _rotary(at=lambda x: torch.arange(x.size(1))[:, None])),
    ("values", lambda x, theta: x * theta),
]


def _even(a, b):
    return torch.cat([a, b], -1)[..., 0::2]


def _odd(a, b):
    return torch.cat([a, b], -1)[..., 1::2]


ANSWERS = {"transformer/rotary": (_rotary(), ROTARY)}
ALSO_RIGHT = {
    "transformer/rotary": [
        _rotary_of_pytorch_style,
        _rotary_by_loops,
        _rotary_by_complex_numbers,
        _full_width(_cat, lambda a, b: torch.cat([-b, a], -1)),
    ]
}
