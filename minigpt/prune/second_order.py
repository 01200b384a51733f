"""SparseGPT: zeros that the weights beside them make up for (Frantar & Alistarh 2023, arXiv 2301.00774).

How much a zero costs depends on what its column is given, and on how well other columns of the same row, which are given
much the same, can stand in for it. Both are in the products of the inputs, as in GPTQ: this is the same walk, with zeros where
that one rounds. (N, K) is a matrix, which reads K inputs. This module knows nothing of data or training.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.calibration import TOGETHER, settle_blocks, settle_columns, spreading
from minigpt.model import GPT


def prune_columns(weight: Tensor, hessian: Tensor, sparsity: float = 0.5, pattern: str = "per_layer") -> Tensor:
    """The matrix with zeros, each column's error spread over those still to come (algorithm 1), (N, K).

    What becomes zero is chosen when its columns' turn comes, 64 at once or, for 2:4, four, from the weights as the errors
    before them left them: where w^2 / U[k, k]^2 is least, the error that is left when the columns after it have made up for
    it as well as they can (Hassibi & Stork 1993). What is zero already stays so, and counts.

    Args:
        weight: (N, K).
        hessian: X.T X over the inputs, (K, K), up to a factor.
        sparsity: the share of zeros, among all numbers of the matrix.
        pattern: "per_layer", or "2:4", for which K is a multiple of 4.

    Raises:
        ValueError: a hessian with numbers that are not finite.
    """
    step = spreading(hessian)
    left = weight.float().T.contiguous()  # (K, N)
    zeros = left == 0
    freedom = step.diagonal().square()[:, None]  # (K, 1)
    freedom[hessian.diagonal() == 0] *= 1e12  # what reads an input that was never there costs nothing
    wanted = round(sparsity * zeros.numel())

    def settle(k: int) -> Tensor:
        if pattern == "2:4" and k % 4 == 0:
            cost = (left[k : k + 4].square() / freedom[k : k + 4]).masked_fill_(zeros[k : k + 4], -1.0)  # (4, N)
            zeros[k : k + 4].scatter_(0, cost.topk(2, dim=0, largest=False).indices, True)
        elif pattern != "2:4" and k % TOGETHER == 0:
            part = zeros[k : k + TOGETHER]
            cost = (left[k : k + TOGETHER].square() / freedom[k : k + TOGETHER]).masked_fill_(part, torch.inf)
            missing, here, ahead = wanted - int(zeros.sum()), int((~part).sum()), int((~zeros[k:]).sum())
            if missing > 0:  # this part's share of them: the last one's is what is left
                cheapest = cost.flatten().topk(round(missing * here / ahead), largest=False).indices
                part.view(-1)[cheapest] = True
        return left[k].masked_fill(zeros[k], 0.0)

    settle_columns(left, step, settle)
    return left.T.contiguous()


def prune_blocks(
    model: GPT, windows: Sequence[Tensor], sparsity: float = 0.5, pattern: str = "per_layer"
) -> dict[str, Tensor]:
    """The matrices of all blocks with zeros, each for the inputs that the pruned ones before it give it; the model stays.

    Args:
        windows: batches of token ids (B, T), the text to calibrate on.

    Returns:
        Name of the parameter, such as blocks.0.mlp.up.weight, to its matrix in fp32.

    Raises:
        ValueError: ids that the model cannot take, or as `prune_columns`.
    """
    pruned: dict[str, Tensor] = {}

    def settle(name: str, weight: Tensor, hessian: Tensor) -> Tensor:
        pruned[f"{name}.weight"] = prune_columns(weight, hessian, sparsity, pattern)
        return pruned[f"{name}.weight"]

    settle_blocks(model, windows, settle)
    return pruned
