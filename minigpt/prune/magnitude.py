"""Single weights of the matrices in the blocks become zero, and keep their places: the smallest, or those that cost least.

N numbers of all matrices together, out and in the widths of one matrix (out, in). Embeddings, head, norms and biases are
left whole. A matrix with zeros takes as long as before, unless a kernel knows of them, as GPUs have for 2:4. This module
knows nothing of data or training.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minigpt.calibration import as_batches
from minigpt.config import nearest
from minigpt.interop import check_floats
from minigpt.model import GPT
from minigpt.prune.second_order import prune_blocks

PATTERNS = ("global", "per_layer", "2:4")
IN_A_BLOCK = re.compile(r"(.+\.)?blocks\.\d+\.(attention|mlp)\.\w+\.weight")


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """The matrices in the blocks of a GPT, or of one inside another module, by name. ValueError where there are none."""
    if isinstance(model, GPT):
        check_floats(model, "pruning")
    found = {name: p for name, p in model.named_parameters() if p.dim() == 2 and IN_A_BLOCK.fullmatch(name)}
    if not found or any(".plain." in name for name, _ in model.named_parameters()):
        raise ValueError(
            f"{type(model).__name__} has no plain matrices in its blocks; prune a GPT, and merge_lora(model) first where it "
            "has adapters."
        )
    return found


def check_weights(weights: dict[str, nn.Parameter]) -> None:
    """ValueError for a matrix of zeros alone, or with numbers that are not finite: their sizes say nothing."""
    for name, weight in weights.items():
        if not weight.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite; go back to a checkpoint from before they came.")
        if not weight.any():
            raise ValueError(f"{name} is zero throughout, as before any training; prune a model that has learned.")


def check_share(name: str, share: float) -> None:
    """ValueError for a share outside [0, 1)."""
    if not 0 <= share < 1:
        raise ValueError(
            f"{name}={share} is no share that can be taken away; use 0 up to, not including, 1, such as 0.5."
        )


def check_pattern(pattern: str, *known: str) -> None:
    """ValueError for a pattern that is not among the known ones."""
    if pattern not in known:
        raise ValueError(f"there is no pattern {pattern!r} here.{nearest(pattern, [*known])}")


def _smallest(numbers: Tensor, share: float) -> Tensor:
    """True for the share of the numbers with the smallest magnitude, their count rounded: (n,) -> (n,)."""
    chosen = torch.zeros_like(numbers, dtype=torch.bool)
    chosen[numbers.abs().topk(round(share * numbers.numel()), largest=False).indices] = True
    return chosen


def _check_fours(weights: dict[str, nn.Parameter]) -> None:
    for name, weight in weights.items():
        width = weight.size(1)
        if width % 4:
            raise ValueError(
                f"{name} reads {width} numbers, which do not come in fours; 2:4 needs a multiple of 4, such as "
                f"{max(4, 4 * round(width / 4))}, or use pattern='per_layer'."
            )


def _two_of_four(weight: Tensor) -> Tensor:
    fours = weight.abs().unflatten(1, (-1, 4))  # (out, in / 4, 4)
    chosen = torch.zeros_like(fours, dtype=torch.bool)
    return chosen.scatter(-1, fours.topk(2, largest=False).indices, True).flatten(1)  # (out, in)


@torch.no_grad()
def choose_zeros(weights: dict[str, nn.Parameter], sparsity: float, pattern: str) -> dict[str, Tensor]:
    """For each matrix a bool tensor of its shape, true where the weight is to be zero. What is zero is chosen first."""
    if pattern == "2:4":
        return {name: _two_of_four(weight) for name, weight in weights.items()}
    if pattern == "per_layer":
        return {name: _smallest(w.flatten(), sparsity).view_as(w) for name, w in weights.items()}
    everything = _smallest(torch.cat([weight.flatten() for weight in weights.values()]), sparsity)  # (N,)
    parts = everything.split([weight.numel() for weight in weights.values()])
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts)}


@torch.no_grad()
def set_to_zero(weights: dict[str, nn.Parameter], zeros: dict[str, Tensor]) -> None:
    """Set the chosen weights to zero, in place."""
    for name, chosen in zeros.items():
        weights[name].masked_fill_(chosen, 0.0)


def check_choice(sparsity: float, pattern: str, calibrated: bool) -> None:
    """ValueError for a sparsity and a pattern that `prune` does not have, or not with text to calibrate on."""
    check_share("sparsity", sparsity)
    check_pattern(pattern, *PATTERNS)
    if pattern == "2:4" and sparsity != 0.5:
        raise ValueError(f"2:4 sets half of the weights to zero, and sparsity={sparsity} came; leave it at 0.5.")
    if pattern == "global" and calibrated:
        raise ValueError(
            "pattern='global' compares matrices that read different inputs, and text to calibrate on tells what a zero costs "
            "within one: use pattern='per_layer' or '2:4' with it, or leave the text out."
        )


@torch.no_grad()
def prune(
    model: GPT,
    sparsity: float = 0.5,
    pattern: str = "global",
    calibration: Tensor | Sequence[Tensor] | None = None,
) -> GPT:
    """A copy of the model with zeros among its weights; the original stays as it is, and zeros stay zeros.

    Without calibration the smallest weights become zero, and the others stay as they are. With it, those whose loss the
    others can best make up for, and the others do (Frantar & Alistarh 2023, algorithm 1).

    Args:
        sparsity: the share of the numbers in the blocks' matrices that becomes zero.
        pattern: "global" compares all matrices with each other (Han et al. 2015), "per_layer" takes the same share of each
            matrix, and "2:4" two of each four neighbours in a row, which reads them (Mishra et al. 2021, section 3).
        calibration: token ids (B, T) that the layers' inputs are measured on, or a list of such batches, for "per_layer" and
            "2:4"; 16 windows of the context of the text that the model was trained on do, more do a little better.

    Raises:
        ValueError: a sparsity outside [0, 1), or other than 0.5 for 2:4; an unknown pattern; a matrix whose width does not
            come in fours for 2:4, is zero throughout, or not finite; a model with adapters; calibration for "global",
            without any ids, or with ids that the model cannot take.
    """
    check_choice(sparsity, pattern, calibration is not None)
    check_weights(matrices(model))
    if pattern == "2:4":
        _check_fours(matrices(model))
    pruned = copy.deepcopy(model)
    weights = matrices(pruned)
    if calibration is None:
        set_to_zero(weights, choose_zeros(weights, sparsity, pattern))
        return pruned
    windows = as_batches(calibration, "pruning by what a zero costs", "leave calibration out for the smallest weights")
    for name, matrix in prune_blocks(model, windows, sparsity, pattern).items():
        weights[name].copy_(matrix)
    return pruned


def sparsity_of(model: nn.Module) -> dict[str, float]:
    """The share of zeros in each matrix of the blocks by its name, and under "total" in all of them. Raises as `prune`."""
    weights = matrices(model)
    counts = {name: (int((weight == 0).sum()), weight.numel()) for name, weight in weights.items()}
    zeros, numbers = map(sum, zip(*counts.values()))
    return {name: zero / size for name, (zero, size) in counts.items()} | {"total": zeros / numbers}
