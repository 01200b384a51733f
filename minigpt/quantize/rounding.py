"""Numbers in few bits: whole numbers and the scales that make weights of them again.

N outputs (rows), K inputs (columns), g columns in a group. A scale stands for all of a matrix, for a row, or for each g
neighbours in a row. This module knows nothing of models.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Share = int | Literal["row", "tensor"]  # what has a scale of its own: g neighbours in a row, a row, or the whole matrix


class Rounded(NamedTuple):
    """A matrix in whole numbers.

    weight = scale * (q - zero), where each scale and zero stands for one group of q (see `grouped`). `zero` is None where
    0 is 0.
    """

    q: Tensor  # (N, K), int8 or uint8
    scale: Tensor  # (N, K / g, 1), or (1, 1, 1) for the whole matrix: as `grouped` gives them, with one number for each
    zero: Tensor | None = None

    def dequantize(self) -> Tensor:
        """The weights again, (N, K), in the scale's precision."""
        numbers = grouped(self.q, self.share).to(self.scale.dtype)
        if self.zero is not None:
            numbers = numbers - self.zero
        return (numbers * self.scale).view(self.q.shape)

    @property
    def share(self) -> Share:
        """How much of the matrix has one scale."""
        if self.scale.shape[:2] == (1, 1):
            return "tensor"
        return self.q.size(1) // self.scale.size(1)


def grouped(matrix: Tensor, share: Share) -> Tensor:
    """The matrix (N, K) with what shares a scale along the last dimension: (N, K / g, g), (N, 1, K) or (1, 1, N K).

    Raises:
        ValueError: a group size that does not divide the width.
    """
    rows, width = matrix.shape
    if share == "tensor":
        return matrix.reshape(1, 1, -1)
    size = width if share == "row" else share
    if type(size) is not int or size < 1 or width % size:
        divisors = [g for g in (16, 32, 64, 128, 256) if width % g == 0] or [width]
        raise ValueError(
            f"groups of {size} do not divide a row of {width} weights; use one of {', '.join(map(str, divisors))}."
        )
    return matrix.reshape(rows, width // size, size)


def check_finite(matrix: Tensor, name: str = "the matrix") -> None:
    """ValueError where a weight is NaN or infinite: one such number would take the scale of all its neighbours with it."""
    if torch.isfinite(matrix).all():
        return
    bad = ~torch.isfinite(matrix)
    row, column = bad.nonzero()[0].tolist()
    raise ValueError(
        f"{name} holds {int(bad.sum())} numbers that are not finite (the first, {matrix[row, column].item()}, in row "
        f"{row}, column {column}), and no scale fits them; load the weights again, or train with a lower rate."
    )


def absmax(weight: Tensor, bits: int = 8, share: Share = "row", clip: float = 1.0) -> Rounded:
    """Symmetric rounding: the largest magnitude of a group becomes the largest whole number, 0 stays 0 (for each row in
    8 bits: Dettmers et al. 2022, section 2.1).

    In 8 bits the whole numbers are -127 to 127. In fewer, where one more level matters, they are -8 to 7 (4 bits), and the
    sign of the scale is such that the largest magnitude becomes -8, as in llama.cpp's Q4_0.

    Args:
        weight: (N, K).
        clip: a share of the largest magnitude, above 0 and up to 1; what lies beyond it is cut off.

    Raises:
        ValueError: bits that are not 2 to 8, a group size that does not divide the width, a weight that is not finite, a
            clip that is no such share.
    """
    _check_bits(bits)
    check_finite(weight)
    if not 0 < clip <= 1:
        raise ValueError(f"clip={clip!r} is no share of the largest magnitude; use a number above 0 and up to 1.")
    return _absmax(grouped(weight.float(), share), bits, clip, weight.shape)


def _absmax(groups: Tensor, bits: int, clip: float, shape: torch.Size) -> Rounded:
    """`absmax` of what is `grouped`, unchecked."""
    low, high = limits(bits)
    largest = groups.gather(-1, groups.abs().argmax(dim=-1, keepdim=True)) * clip  # (N, K / g, 1), with its sign
    scale = _storable(largest.abs() / high if bits == 8 else largest / low)
    q = (groups / scale).round().clamp(low, high)
    return Rounded(q.to(torch.int8).view(shape), scale)


def limits(bits: int) -> tuple[int, int]:
    """The least and the largest whole number of symmetric rounding: -127 and 127 in 8 bits, -8 and 7 in 4."""
    high = 2 ** (bits - 1) - 1
    return (-high if bits == 8 else -high - 1), high


def affine(weight: Tensor, bits: int = 8, share: Share = "row") -> Rounded:
    """Rounding with a zero point: the least number of a group becomes 0, the largest 2 ** bits - 1 (Jacob et al. 2018,
    equation 1). It suits numbers that lie to one side of 0, as what GELU lets through does. Arguments and errors as `absmax`.
    """
    _check_bits(bits)
    check_finite(weight)
    groups = grouped(weight.float(), share)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True).clamp(min=0)
    scale = _storable((high - low) / (2**bits - 1))
    zero = (
        (-low / scale).round().clamp(max=2**bits - 1)
    )  # which a scale that was rounded down may ask for one more than
    q = ((groups / scale).round() + zero).clamp(0, 2**bits - 1)
    return Rounded(q.to(torch.uint8).view(weight.shape), scale, zero)


def least_error(weight: Tensor, bits: int = 4, share: Share = 32) -> Rounded:
    """`absmax` with the clip, of a few, that makes each group's squared error least. Arguments and errors as `absmax`."""
    best = absmax(weight, bits, share)
    groups = grouped(weight.float(), share)
    least = _squared_error(best, groups)
    for clip in (0.95, 0.9, 0.85, 0.8):
        tried = _absmax(groups, bits, clip, weight.shape)
        error = _squared_error(tried, groups)
        better = error < least  # (N, K / g, 1)
        q = torch.where(better, grouped(tried.q, share), grouped(best.q, share)).view(weight.shape)
        best, least = Rounded(q, torch.where(better, tried.scale, best.scale)), torch.minimum(error, least)
    return best


def _squared_error(rounded: Rounded, groups: Tensor) -> Tensor:
    """Of each group, (N, K / g, 1)."""
    return (rounded.q.view(groups.shape) * rounded.scale - groups).square().sum(-1, keepdim=True)


def _check_bits(bits: int) -> None:
    if type(bits) is not int or not 2 <= bits <= 8:
        raise ValueError(f"bits={bits!r} is no number of bits that a weight is rounded to here; use 8 or 4.")


def _storable(scale: Tensor) -> Tensor:
    """The scale as 16 bits hold it (bf16), so that the whole numbers are chosen for the scale that will be used."""
    scale = scale.bfloat16().float()
    return torch.where(scale == 0, torch.ones_like(scale), scale)  # a group of zeros


def pack_nibbles(q: Tensor) -> Tensor:
    """Two numbers of 4 bits, -8 to 7, in each byte: (N, K) int8 -> (N, K / 2) uint8, the even column low."""
    shifted = (q + 8).to(torch.uint8)
    return shifted[:, ::2] | shifted[:, 1::2] << 4


def unpack_nibbles(packed: Tensor) -> Tensor:
    """The inverse, (N, K / 2) uint8 -> (N, K) int8."""
    both = torch.stack([packed & 15, packed >> 4], dim=-1)  # (N, K / 2, 2)
    return both.flatten(1).to(torch.int8) - 8
