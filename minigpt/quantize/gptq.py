"""GPTQ: rounding that makes up for its own errors (Frantar et al. 2022, arXiv 2210.17323), written out for our blocks.

Rounding to the nearest treats every weight alike. Here the error made in one column of a matrix (N, K) is undone, as far as
it can be, in those that follow: `minigpt.calibration` measures how the layer's inputs move together, and spreads it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.calibration import settle_blocks, settle_columns, spreading
from minigpt.model import GPT
from minigpt.quantize.rounding import Rounded, Share, grouped, least_error, limits


def round_columns(weight: Tensor, hessian: Tensor, bits: int = 4, share: Share = 32) -> Rounded:
    """The matrix rounded column by column, each column's error spread over those still to come (algorithm 1).

    Columns with the largest inputs come first, where most is left to make up for them. Scales are those of
    `least_error` on the weights as they came.

    Args:
        weight: (N, K).
        hessian: X.T X over the inputs, (K, K), up to a factor.

    Raises:
        ValueError: a hessian of another shape or with numbers that are not finite, or as `absmax`.
    """
    n_out, n_in = weight.shape
    if hessian.shape != (n_in, n_in):
        raise ValueError(
            f"the hessian has shape {tuple(hessian.shape)}; expected ({n_in}, {n_in}), the inputs' products."
        )
    order = hessian.diagonal().argsort(descending=True, stable=True)
    step = spreading(hessian[order][:, order])
    start = least_error(weight, bits, share)
    size = grouped(start.q, share).size(-1) if share != "tensor" else n_in
    scale = start.scale.squeeze(-1).repeat_interleave(size, dim=1).expand(n_out, n_in)  # (N, K), one for each weight
    left, scale = weight.float().T[order].contiguous(), scale.T[order].contiguous()  # (K, N)
    low, high = limits(bits)
    q = torch.empty_like(left)

    def settle(k: int) -> Tensor:
        q[k] = (left[k] / scale[k]).round_().clamp_(low, high)
        return q[k] * scale[k]

    settle_columns(left, step, settle)
    return Rounded(q[order.argsort()].T.to(torch.int8).contiguous(), start.scale)


def gptq(model: GPT, windows: Sequence[Tensor], bits: int = 4, share: Share = 32) -> dict[str, Rounded]:
    """The matrices of all blocks, each rounded for the inputs that the rounded matrices before it give it.

    The model is left as it was; its head is not rounded.

    Args:
        windows: batches of token ids (B, T), the text to calibrate on.

    Returns:
        Name of the layer, such as blocks.0.mlp.up, to its matrix in whole numbers.

    Raises:
        ValueError: ids that the model cannot take, or as `round_columns`.
    """
    rounded: dict[str, Rounded] = {}

    def settle(name: str, weight: Tensor, hessian: Tensor) -> Tensor:
        rounded[name] = round_columns(weight, hessian, bits, share)
        return rounded[name].dequantize()

    settle_blocks(model, windows, settle)
    return rounded
