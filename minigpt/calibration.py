"""What some text puts through the matrices of a GPT's blocks, for methods that make up for their own errors.

Inputs of a layer are not alike, and they move together: an error made in one column of its matrix can be undone in others
that see the same inputs. For a matrix (N, K) with inputs X (tokens, K) the error that counts is the sum of squares of
X (W - Q).T, whose second derivative is H = 2 X.T X, (K, K), the same for every row (Hassibi & Stork 1993; Frantar et al.
2022, arXiv 2210.17323). What a column becomes is the caller's: rounded, or with zeros.

B windows, T tokens, C = n_embd. This module knows nothing of text.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from minigpt.model import GPT

DAMPING = 0.01  # of H's mean diagonal, added to it, so that it has an inverse; as Frantar et al. have it
TOGETHER = 64  # columns whose errors reach those after them in one product
Settle = Callable[[str, Tensor, Tensor], Tensor]


def as_batches(calibration: Tensor | Sequence[Tensor] | None, needed_by: str, instead: str) -> list[Tensor]:
    """The text to calibrate on as batches of token ids (B, T). ValueError where there is none, with what to do instead."""
    windows = [calibration] if isinstance(calibration, Tensor) else list(calibration or [])
    if not any(isinstance(idx, Tensor) and idx.numel() for idx in windows):
        raise ValueError(
            f"{needed_by} needs text to calibrate on: calibration=idx, token ids (B, T), such as 16 windows of the text "
            f"that the model was trained on; or {instead}, which needs none."
        )
    return windows


@torch.no_grad()
def settle_blocks(model: GPT, windows: Sequence[Tensor], settle: Settle) -> None:
    """Walk through the blocks; each matrix is settled for the inputs that the settled ones before it give it.

    The model is left as it was. The head is not among the matrices: where it is also the table of the tokens, what is good
    for the one is bad for the other.

    Args:
        windows: batches of token ids (B, T).
        settle: given a layer's name, such as blocks.0.mlp.up, its matrix (N, K) and its inputs' products X.T X (K, K),
            gives the matrix that takes its place from there on.

    Raises:
        ValueError: ids that the model cannot take.
    """
    streams, rotary = _before_the_blocks(model, windows)  # each (B, T, C)
    for layer, original in enumerate(model.blocks):
        block = copy.deepcopy(original).eval()
        put = partial(_put, settle, f"blocks.{layer}", block)
        given = [block.attention_norm(x) for x in streams]
        put("attention.qkv", given)
        mixed = [
            _reaching(block.attention.proj, block.attention, x, rotary=r) for x, r in zip(given, rotary, strict=True)
        ]
        put("attention.proj", mixed)
        streams = [x + block.attention.proj(y) for x, y in zip(streams, mixed, strict=True)]
        given = [block.mlp_norm(x) for x in streams]
        if model.config.mlp == "swiglu":
            put("mlp.gate", given)
        put("mlp.up", given)
        hidden = [_reaching(block.mlp.proj, block.mlp, x) for x in given]  # each (B, T, n_hidden)
        put("mlp.proj", hidden)
        streams = [x + block.mlp.proj(y) for x, y in zip(streams, hidden, strict=True)]


def settle_columns(columns: Tensor, step: Tensor, settle: Callable[[int], Tensor]) -> None:
    """Settle a matrix column by column, in place; each one's error is spread over those still to come.

    Args:
        columns: the transposed matrix (K, N), so that a column lies in one piece.
        step: the triangle of `spreading`, (K, K).
        settle: given k, what column k becomes, (N,), of what columns[k] has become by then. Where k is a multiple of
            `TOGETHER`, all columns from there on are as the errors before them left them, else the next up to such a k.
    """
    for first in range(0, len(columns), TOGETHER):
        last = min(first + TOGETHER, len(columns))
        errors = columns.new_empty(last - first, columns.size(1))
        for k in range(first, last):
            settled = settle(k)
            error = errors[k - first] = (columns[k] - settled) / step[k, k]
            columns[k] = settled
            columns[k + 1 : last].addr_(step[k, k + 1 : last], error, alpha=-1)
        columns[last:].addmm_(step[first:last, last:].T, errors, alpha=-1)


def spreading(hessian: Tensor) -> Tensor:
    """The upper triangle U with U.T U = the inverse of H (damped), (K, K); row k says how column k's error is spread.

    U[k, k]^2 is the first number of the inverse of what of H is left from k on. With rows and columns in reverse, H's own
    Cholesky factor is the inverse of U: one factor, and no inverse of H.

    Raises:
        ValueError: numbers that are not finite.
    """
    if not torch.isfinite(hessian).all():
        raise ValueError(
            "the inputs' products hold numbers that are not finite: the model overflows on the text to calibrate on; try "
            "other text, or a method that reads none."
        )
    device, hessian = hessian.device, hessian.cpu().double()  # a Mac's GPU has no numbers of 64 bits
    diagonal = hessian.diagonal()
    damped = diagonal + DAMPING * diagonal.mean()
    damped[damped == 0] = 1  # no input was ever there
    hessian = hessian - diagonal.diag() + damped.diag()
    inverse = torch.linalg.cholesky(hessian.flip(0, 1)).flip(0, 1)  # (K, K), upper
    identity = torch.eye(len(hessian), dtype=hessian.dtype)
    return torch.linalg.solve_triangular(inverse, identity, upper=True).float().to(device)


def _put(settle: Settle, place: str, block: nn.Module, part: str, inputs: Sequence[Tensor]) -> None:
    """Settle one of a block's matrices for its inputs."""
    linear = block.get_submodule(part)
    linear.weight.copy_(settle(f"{place}.{part}", linear.weight.clone(), _products(inputs)))


def _before_the_blocks(
    model: GPT, windows: Sequence[Tensor]
) -> tuple[list[Tensor], list[tuple[Tensor, Tensor] | None]]:
    """What the first block is given for each batch: the tokens (B, T, C), and the rotary tables where there are any."""
    streams, rotary = [], []
    for idx in windows:
        model.check(idx)
        length = idx.size(1)
        x = model.token_embedding(idx.to(model.token_embedding.weight.device))  # (B, T, C)
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
