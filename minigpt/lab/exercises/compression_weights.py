"""What notebook 07's exercises about quantized weights ask for, and the ways in which answers go wrong.

N output channels, K inputs, B rows of activations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minigpt.lab.check import Mistake, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, Problem, diagnose, each, tensor
from minigpt.lab.exercises.compression_parts import Answer, Case, Watching, diagnose_parts

Store = Callable[[Tensor, int], Tensor]


def _top(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def _wrapped(numbers: Tensor, bits: int) -> Tensor:
    """What a cast to int8 makes of whole numbers."""
    return (numbers + 128) % 256 - 128


def _as_they_are(numbers: Tensor, bits: int) -> Tensor:
    return numbers


def _clamped(numbers: Tensor, bits: int) -> Tensor:
    return numbers.clamp(-_top(bits), _top(bits))


def _clamped_to_all(numbers: Tensor, bits: int) -> Tensor:
    return numbers.clamp(-_top(bits) - 1, _top(bits))


def _channels(weight: Tensor) -> Tensor:
    return weight.abs().amax(1, keepdim=True)  # (N, 1)


def _quantized(
    weight: Tensor,
    bits: int,
    *,
    largest: Callable[[Tensor], Tensor] = _channels,
    top: Callable[[int], int] = _top,
    apply: Callable[[Tensor, Tensor], Tensor] = torch.div,
    rounding: Callable[[Tensor], Tensor] = torch.round,
    store: Store = _wrapped,
    gives: Callable[[Tensor, int], Tensor] = lambda scale, bits: scale,
) -> Tensor:
    """q and then scale, in one row."""
    scale = largest(weight) / top(bits)
    scale = torch.where(scale == 0, 1.0, scale)
    q = store(rounding(apply(weight, scale)), bits)
    return torch.cat([q.flatten(), gives(scale, bits).flatten()])


def _stored(*forms: dict[str, Any]) -> list[dict[str, Any]]:
    """Forms that leave the range, with what may have become of the numbers outside it."""
    stores = (_wrapped, _as_they_are, _clamped, _clamped_to_all)
    return [{**form, "store": store} for form in forms for store in stores]


def _span(weight: Tensor) -> Tensor:
    return weight.amax(1, keepdim=True) - weight.amin(1, keepdim=True)  # (N, 1)


QUANTIZED: Mistakes = {
    "per_column": each("largest", lambda weight: weight.abs().amax(0, keepdim=True)),
    "one_for_all": [
        each("largest", lambda weight: weight.abs().max())[0],
        each("largest", lambda weight: weight.abs().max().expand(len(weight), 1))[0],
    ],
    "wraps": each("top", lambda bits: 2 ** (bits - 1)),
    "too_wide": [{"top": lambda bits: 2 ** (bits - 1), "store": s} for s in (_clamped_to_all, _clamped, _as_they_are)],
    "unsigned_range": _stored({"top": lambda bits: 2**bits - 1}, {"top": lambda bits: 2**bits}),
    "always_127": each("top", lambda bits: 127),
    "truncated": each("rounding", torch.trunc),
    "floored": each("rounding", torch.floor, torch.ceil),
    "sign_matters": _stored(
        {"largest": lambda weight: weight.amax(1, keepdim=True)},
        {"largest": lambda weight: weight.amax(1, keepdim=True).abs()},
        {"largest": lambda weight: weight.amin(1, keepdim=True).abs()},
    ),
    "not_the_largest": _stored(
        {"largest": lambda weight: weight.abs().mean(1, keepdim=True)},
        {"largest": lambda weight: weight.std(1, keepdim=True)},
        {"largest": lambda weight: weight.norm(dim=1, keepdim=True)},
    ),
    "asymmetric": [
        *_stored({"largest": _span, "top": lambda bits: 2**bits - 1}),
        *(
            {
                "largest": _span,
                "top": lambda bits: 2**bits - 1,
                "apply": lambda weight, scale, low=low: (weight - weight.amin(1, keepdim=True)) / scale - low,
                "store": _as_they_are,
            }
            for low in (0, 128)
        ),
    ],
    "inverted": each("gives", lambda scale, bits: 1 / scale),
    "multiplied": each("apply", torch.mul),
    "not_divided": [{"top": lambda bits: 1}, *each("gives", lambda scale, bits: scale * _top(bits))],
}


def _is_right(q: Tensor, scale: Tensor, weight: Tensor, bits: int) -> bool:
    """Whether both are as good as ours: a scale kept in 16 bits is, and any finite one for a row of zeros."""
    if scale.numel() != len(weight) or q.abs().max() > _top(bits):
        return False
    zero, right = _channels(weight)[:, 0] == 0, _channels(weight)[:, 0] / _top(bits)
    q, scale = q.double(), torch.where(zero, 1.0, scale.double().flatten())
    close = (zero | ((scale - right).abs() <= 1e-3 * right)).all()
    return bool(close and ((q * scale[:, None] - weight).abs() <= 0.51 * scale[:, None]).all())


def _quantized_row(answer: Answer, weight: Tensor, bits: int) -> Tensor | Mistake:
    """q and scale of an answer in one row: the right row where both are right."""
    with Watching(_casts_nan) as watching:
        got = call(answer, weight, bits)
    parts = [tensor(part) for part in got] if isinstance(got, tuple | list) and len(got) == 2 else []
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        return mistake("not_a_pair", kind=type(got).__name__)
    q, scale = parts
    if q.shape != weight.shape:
        return mistake("swapped") if scale.shape == weight.shape else mistake("q_shape", got=tuple(q.shape))
    if scale.shape == weight.shape:
        return mistake("scale_for_each_weight")
    if watching.seen or not (q.double().isfinite().all() and scale.double().isfinite().all()):
        return mistake("zero_row" if (weight == 0).all(1).any() else "not_finite", share="a part")
    if q.dtype == torch.uint8:
        return mistake("unsigned")
    if not torch.equal(q.double(), q.double().round()):
        return mistake("not_rounded")
    if not _is_right(q, scale, weight, bits):
        return torch.cat([q.double().flatten(), scale.double().flatten()])
    if scale.shape not in ((len(weight),), (len(weight), 1)):
        return mistake("scale_shape", got=tuple(scale.shape), N=len(weight))
    if q.dtype != torch.int8:
        return mistake("not_int8", kind=str(q.dtype).removeprefix("torch."), bytes=q.element_size())
    return _quantized(weight, bits)


def _casts_nan(given: tuple[Any, ...], result: Any) -> bool:
    """Whether NaN were made whole numbers, which gives another number on another processor."""
    whole = isinstance(result, Tensor) and result.dtype in (torch.int8, torch.int16, torch.int32, torch.int64)
    return whole and isinstance(given[0], Tensor) and given[0].shape == result.shape and bool(given[0].isnan().any())


@exercise("compression/quantize_rows")
def quantize_rows(answer: Answer) -> Mistake | None:
    """answer(weight, bits) with weight (N, K) -> q (N, K) int8 and scale (N,): symmetric, by the largest absolute value."""
    weight = torch.randn(6, 9) * torch.tensor([0.02, 1.0, 0.3, 5.0, 0.1, 2.0])[:, None]  # (N, K)
    weight[1, 4], weight[3, 2] = 3.7, -17.0  # the largest of a row may have either sign
    weight[4] = -weight[4].abs() - 0.01
    with_zeros = torch.randn(5, 4)
    with_zeros[2] = 0.0
    given = [(weight, 8), (weight, 4), (with_zeros, 8), (torch.randn(3, 12), 2), (torch.randn(1, 5), 6)]

    def case(weight: Tensor, bits: int) -> Case:
        shown = f"bits={bits} and a weight of shape {tuple(weight.shape)}"
        return Case((weight, bits), lambda **options: _quantized(weight, bits, **options), shown)

    def look(got: Tensor, expected: Tensor) -> Mistake:
        scale, right = got[weight.numel() :], expected[weight.numel() :].double()
        if len(scale) != len(weight):
            return mistake("scales", got=len(scale), N=len(weight))
        far = ((scale - right).abs() > 1e-3 * right).nonzero()
        if len(far):
            n = int(far[0])
            return mistake("scale_differs", row=n, got=f"{scale[n]:.4g}", expected=f"{right[n]:.4g}")
        at = int((got - expected).abs()[: weight.numel()].argmax())
        n, k = divmod(at, weight.size(1))
        return mistake("q_differs", row=n, column=k, got=int(got[at]), expected=int(expected[at]))

    return diagnose_parts(answer, [case(*each) for each in given], _quantized_row, QUANTIZED, look)


def _affine(
    x: Tensor,
    q: Tensor,
    scale: Tensor,
    zero: Tensor,
    *,
    product: Callable[[Tensor, Tensor], Tensor] = lambda x, q: x @ q.float().T,
    sums: Callable[[Tensor], Tensor] = lambda x: x.sum(1, keepdim=True),
    zeros: Callable[[Tensor], Tensor] = lambda zero: zero.float(),
    sign: float = -1.0,
    scales: Callable[[Tensor], Tensor] = lambda scale: scale,
    zero_scales: Callable[[Tensor], Tensor] | None = None,
    subtract: Callable[[Tensor, Tensor], Tensor] | None = None,
    end: Callable[[Tensor], Tensor] = lambda y: y,
) -> Tensor:
    """x (B, K) times the weight scale * (q - zero), which is never made but by some mistakes: (B, N)."""
    if subtract is not None:
        return end(product(x, subtract(q, zero)) * scales(scale))
    corrections = sign * zeros(zero) * sums(x)  # (B, N)
    return end(product(x, q) * scales(scale) + corrections * (zero_scales or scales)(scale))


AFFINE: Mistakes = {
    "zero_forgotten": each("sign", 0.0),
    "zero_added": each("sign", 1.0),
    "zero_negated_unsigned": [{"zeros": lambda zero: (-zero).float(), "sign": 1.0}],
    "zero_once": each("sums", lambda x: torch.ones_like(x[:, :1]), lambda x: torch.tensor(float(x.size(1)))),
    "sum_over_the_batch": each("sums", lambda x: x.sum(0), lambda x: x.sum(0)[:, None]),
    "sum_of_all": each("sums", lambda x: x.sum()),
    "sum_turned": each("sums", lambda x: x.sum(1)),
    "mean_for_sum": each("sums", lambda x: x.mean(1, keepdim=True), lambda x: x.mean(1)),
    "zero_turned": each("zeros", lambda zero: zero.float()[:, None]),
    "zero_outside_scale": each("zero_scales", torch.ones_like),
    "scale_forgotten": each("scales", torch.ones_like),
    "scale_turned": each("scales", lambda scale: scale[:, None]),
    "scale_divides": each("scales", lambda scale: 1 / scale),
    "scaled_twice": each("scales", torch.square),
    "q_not_turned": each("product", lambda x, q: x @ q.float()),
    "x_cut": each(
        "product",
        lambda x, q: (x.to(torch.uint8).long() @ q.long().T).to(torch.uint8).float(),
        lambda x, q: (x.long() @ q.long().T).float(),
        lambda x, q: (x.to(torch.int8).long() @ q.to(torch.int8).long().T).to(torch.int8).float(),
    ),
    "q_as_int8": each("product", lambda x, q: x @ q.to(torch.int8).float().T),
    "wraps": [
        *each("subtract", lambda q, zero: q - zero[:, None], lambda q, zero: q - zero),
        {"subtract": lambda q, zero: (q - zero[:, None]).to(torch.int8)},
    ],
    "turned": each("end", lambda y: y.T),
}


def _builds(q: Tensor, zero: Tensor) -> Callable[[tuple[Any, ...], Any], bool]:
    """Sees a table as large as q from which the zero point has been taken, before or after the scaling."""
    weight = q.double() - zero.double()[:, None]  # (N, K)

    def see(given: tuple[Any, ...], result: Any) -> bool:
        if not isinstance(result, Tensor) or result.dim() != 2:
            return False
        tables = [table.double() for table in (result, result.T) if table.shape == weight.shape]
        shares = [(table / weight)[:, [0]] for table in tables]  # what each row was multiplied by
        return any(
            bool((share != 0).all()) and torch.allclose(table, share * weight, 1e-4)
            for table, share in zip(tables, shares)
        )

    return see


@exercise("compression/affine_matmul")
def affine_matmul(answer: Answer) -> Mistake | None:
    """answer(x, q, scale, zero) with x (B, K), q (N, K) uint8, scale and zero (N,) -> (B, N), in two terms."""
    sizes = [(5, 5, 5), (2, 3, 7), (1, 6, 4), (4, 1, 3)]  # in a square, a wrong axis gives numbers that name it
    problems = [_affine_problem(*size) for size in sizes]
    if found := diagnose(answer, problems, AFFINE):
        return found
    with Watching(_builds(*(problems[1].arguments[i] for i in (1, 3)))) as watching:
        call(answer, *problems[1].arguments)
    return mistake("weight_built") if watching.seen else None


def _affine_problem(B: int, N: int, K: int) -> Problem:
    # In eighths, so that no order of the operations rounds.
    x, scale = (16 * torch.randn(B, K)).round() / 8, torch.randint(3, 16, (N,)) / 8
    q, zero = torch.randint(0, 256, (N, K), dtype=torch.uint8), torch.randint(90, 160, (N,), dtype=torch.uint8)
    q[:, 0] = 7  # below every zero point, so that the difference has a sign
    return Problem((x, q, scale, zero), lambda **options: _affine(x, q, scale, zero, **options))
