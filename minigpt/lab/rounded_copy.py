"""A copy of a model, some of whose matrices are rounded: changed and put back as one likes, each only when it must be.

N outputs (rows), K inputs (columns). The rounded weights are multiplied in fp32: this module knows nothing of kernels for
whole numbers, nor of what shows it.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import NamedTuple

from torch import Tensor, nn

from minigpt.model import GPT
from minigpt.quantize import Rounded, absmax, is_quantized
from minigpt.quantize.rounding import Share, check_finite

SCALE_BITS = 16  # of a scale, which `absmax` rounds to bf16


class Choice(NamedTuple):
    """How a matrix is rounded; arguments of `absmax`."""

    bits: int
    share: Share
    clip: float


class RoundedCopy:
    """A copy of a model, in fp32, with its `matrices`, what their `weights` were, and those that are `rounded`, by name.

    Raises:
        ValueError: a model that is quantized already or has adapters, or weights that are not finite.
    """

    def __init__(self, model: GPT):
        if is_quantized(model):
            raise ValueError(
                f"this model is in {model.quantization.bits} bits already; pass the model that it was made from, or "
                "minigpt.quantize.dequantize(model)."
            )
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.matrices: dict[str, Tensor] = {}  # of the copy; a tied table once
        for name, module in self.model.named_modules():
            known = {id(matrix) for matrix in self.matrices.values()}
            if ".plain" in name:
                raise ValueError("the model has adapters beside its matrices: merge_lora(model) first.")
            is_matrix = isinstance(module, nn.Linear) or name == "token_embedding"
            if is_matrix and id(module.weight) not in known:
                check_finite(module.weight, name)
                self.matrices[name] = module.weight
        self.weights = {name: matrix.clone() for name, matrix in self.matrices.items()}
        self.rounded: dict[str, Rounded] = {}
        self._choices: dict[str, Choice] = {}

    def round(self, names: Collection[str], choice: Choice) -> None:
        """Round the matrices of these names so, and put the others back.

        ValueError, and nothing is changed, for bits that are not 2 to 8 and for groups that do not divide a row.
        """
        stale = [name for name in names if self._choices.get(name) != choice]
        fresh = {name: absmax(self.weights[name], *choice) for name in stale}
        for name in self.rounded.keys() - set(names):
            self.matrices[name].copy_(self.weights[name])
            del self.rounded[name], self._choices[name]
        for name, rounded in fresh.items():
            self.matrices[name].copy_(rounded.dequantize())
            self.rounded[name], self._choices[name] = rounded, choice

    def error(self, name: str) -> Tensor:
        """What rounding adds to each weight of a matrix, (N, K)."""
        return self.matrices[name] - self.weights[name]

    def bits_per_weight(self) -> float:
        """Of the rounded matrices together, their scales included."""
        bits = sum(self._bits(name) for name in self.rounded)
        return bits / sum(self.weights[name].numel() for name in self.rounded)

    def _bits(self, name: str) -> int:
        return self._choices[name].bits * self.weights[name].numel() + SCALE_BITS * self.rounded[name].scale.numel()

    def megabytes(self) -> float:
        """Of the whole model, where what is not rounded takes 32 bits."""
        whole = 32 * sum(p.numel() for p in self.model.parameters())
        return (whole + sum(self._bits(name) - 32 * self.weights[name].numel() for name in self.rounded)) / 8e6
