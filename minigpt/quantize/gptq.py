"""GPTQ: rounding that makes up for its own errors (Frantar et al. 2022, arXiv 2210.17323), written out for our blocks.

Rounding to the nearest treats every weight alike. But inputs are not alike, and they move together: an error made in one
column can be undone in others that see the same inputs. For a matrix (N, K) with inputs X (tokens, K), the error that
counts is the sum of squares of X (W - Q).T, whose second derivative is H = 2 X.T X, (K, K), the same for every row.

B windows, T tokens, C = n_embd. This module knows nothing of text.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minigpt.model import GPT
from minigpt.quantize.rounding import Rounded, Share, grouped, least_error, limits

DAMPING = 0.01  # of H's mean diagonal, added to it, so that it has an inverse; as the paper has it
TOGETHER = 64  # columns whose errors reach those after them in one product


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
    if not torch.isfinite(hessian).all():
        raise ValueError(
            "the inputs' products hold numbers that are not finite: the model overflows on the text to calibrate on. Try "
            "other text, or method='mse', which reads none."
        )
    start = least_error(weight, bits, share)
    size = grouped(start.q, share).size(-1) if share != "tensor" else n_in
    scale = start.scale.squeeze(-1).repeat_interleave(size, dim=1).expand(n_out, n_in)  # (N, K), one for each weight
    order = hessian.diagonal().argsort(descending=True, stable=True)
    step = _spreading(hessian[order][:, order].double()).float()
    left, scale = (
        weight.float().T[order].contiguous(),
        scale.T[order].contiguous(),
    )  # (K, N): a column lies in one piece
    low, high = limits(bits)
    q = torch.empty_like(left)
    for first in range(0, n_in, TOGETHER):
        last = min(first + TOGETHER, n_in)
        errors = torch.empty(last - first, n_out)
        for k in range(first, last):
            q[k] = (left[k] / scale[k]).round_().clamp_(low, high)
            error = errors[k - first] = (left[k] - q[k] * scale[k]) / step[k, k]
            left[k + 1 : last].addr_(step[k, k + 1 : last], error, alpha=-1)
        left[last:].addmm_(step[first:last, last:].T, errors, alpha=-1)
    return Rounded(q[order.argsort()].T.to(torch.int8).contiguous(), start.scale)


def _spreading(hessian: Tensor) -> Tensor:
    """The upper triangle U with U.T U = the inverse of H (damped), (K, K); row k says how column k's error is spread.

    With rows and columns in reverse, H's own Cholesky factor is the inverse of U: one factor, and no inverse of H.
    """
    diagonal = hessian.diagonal()
    unseen = diagonal == 0  # an input that was never there
    diagonal.add_(DAMPING * diagonal.mean())
    diagonal[unseen] = 1
    inverse = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)  # (K, K), upper
    return torch.linalg.solve_triangular(inverse, torch.eye(len(hessian), dtype=hessian.dtype), upper=True)


@torch.no_grad()
def gptq(model: GPT, windows: Sequence[Tensor], bits: int = 4, share: Share = 32) -> dict[str, Rounded]:
    """The matrices of all blocks, each rounded for the inputs that the rounded matrices before it give it.

    The model is left as it was. The head is not among them: where it is also the table of the tokens, what is good
    for the one is bad for the other.

    Args:
        windows: batches of token ids (B, T), the text to calibrate on.

    Returns:
        Name of the layer, such as blocks.0.mlp.up, to its matrix in whole numbers.

    Raises:
        ValueError: ids that the model cannot take, or as `round_columns`.
    """
    rounded: dict[str, Rounded] = {}
    streams, rotary = _before_the_blocks(model, windows)  # each (B, T, C)
    for layer, original in enumerate(model.blocks):
        block = copy.deepcopy(original).eval()
        found: dict[str, Rounded] = {}
        given = [block.attention_norm(x) for x in streams]
        found["attention.qkv"] = _settle(block.attention.qkv, given, bits, share)
        mixed = [
            _reaching(block.attention.proj, block.attention, x, rotary=r) for x, r in zip(given, rotary, strict=True)
        ]
        found["attention.proj"] = _settle(block.attention.proj, mixed, bits, share)
        streams = [x + block.attention.proj(y) for x, y in zip(streams, mixed, strict=True)]
        given = [block.mlp_norm(x) for x in streams]
        if model.config.mlp == "swiglu":
            found["mlp.gate"] = _settle(block.mlp.gate, given, bits, share)
        found["mlp.up"] = _settle(block.mlp.up, given, bits, share)
        hidden = [_reaching(block.mlp.proj, block.mlp, x) for x in given]  # each (B, T, n_hidden)
        found["mlp.proj"] = _settle(block.mlp.proj, hidden, bits, share)
        streams = [x + block.mlp.proj(y) for x, y in zip(streams, hidden, strict=True)]
        rounded |= {f"blocks.{layer}.{part}": matrix for part, matrix in found.items()}
    return rounded


def _settle(linear: nn.Linear, inputs: Sequence[Tensor], bits: int, share: Share) -> Rounded:
    """The layer's matrix rounded for its inputs, and put back into it."""
    rounded = round_columns(linear.weight, _products(inputs), bits, share)
    linear.weight.copy_(rounded.dequantize())
    return rounded


def _before_the_blocks(
    model: GPT, windows: Sequence[Tensor]
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor] | None]]:
    """What the first block is given for each batch: the tokens (B, T, C), and the rotary tables where there are any."""
    streams, rotary = [], []
    for idx in windows:
        model.check(idx)
        length = idx.size(1)
        x = model.token_embedding(idx)  # (B, T, C)
        if model.config.position == "learned":
            x = x + model.position_embedding.weight[:length]
        streams.append(x)
        rotary.append(None if model.config.position == "learned" else (model.cos[:length], model.sin[:length]))
    return streams, rotary


def _reaching(linear: nn.Module, owner: nn.Module, x: Tensor, **options: object) -> Tensor:
    """What one of its layers is given when `owner` is given x."""
    seen: list[Tensor] = []
    hook = linear.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        owner(x, **options)
    finally:
        hook.remove()
    return seen[0]


def _products(inputs: Sequence[Tensor]) -> Tensor:
    """X.T X over all batches, (K, K)."""
    rows = [x.flatten(0, -2).float() for x in inputs]  # each (B T, K)
    return sum(x.T @ x for x in rows)
