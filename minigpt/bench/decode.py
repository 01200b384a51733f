"""Writing one token after the other beside `transformers`, llama.cpp and ONNX Runtime: what `minigpt bench decode` prints.

Two shapes with random weights: 10.65 M parameters without positions and biases (6 layers, 6 heads, width 384, a context of
256), and GPT-2's 124 M. All take turns in one run; a ratio is of medians, and stands beside the least and the most over
the rounds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt.config import GPTConfig
from minigpt.hardware import machine
from minigpt.lab.experiments.decoding import PROMPT, Speed, Write, ours, peers, speeds, temporary_folder, without_cache
from minigpt.model import GPT
from minigpt.quantize import DynamicLinear, quantize

SMALL = GPTConfig.gpt2(vocab_size=65, n_layer=6, n_head=6, n_embd=384, context_length=256)
LARGE = GPTConfig.preset("gpt2-124m", context_length=256)
BASIS = "transformers, fp32"  # what ratios are of, where it is installed


@dataclass(frozen=True)
class DecodingSpeed:
    """One line: who, tokens per second, and how many times the basis that is."""

    shape: str
    who: str
    speed: Speed
    times: float | None

    def __str__(self) -> str:
        value, low, high = self.speed
        ratio = "" if self.times is None else f"   {self.times:.2f} times {BASIS}"
        return f"{self.shape:6} {self.who:34} {value:7.1f} tokens/s ({low:.1f} to {high:.1f}){ratio}"


def bench_decode(tokens: int = 64, rounds: int = 5, small_only: bool = False) -> Iterator[Any]:
    """Yield a line for each writer.

    Args:
        tokens: written in each round, after a prompt of 16.
        rounds: of which the median counts.

    Raises:
        ValueError: tokens that 8 prompts cannot share evenly, or that outgrow the context of 256 with the prompt.
    """
    if tokens < 8 or tokens % 8 or tokens > SMALL.context_length - PROMPT:
        raise ValueError(
            f"tokens={tokens} cannot be measured: eight prompts share them, and the prompt of {PROMPT} and all of them fit a "
            f"context of {SMALL.context_length}; use a multiple of 8 up to {SMALL.context_length - PROMPT}, such as 64."
        )
    yield machine()
    torch.manual_seed(0)
    model = GPT(SMALL).eval()
    with temporary_folder() as folder:
        writers = {
            "ours, fp32": ours(model),
            "ours, bf16": ours(copy.deepcopy(model).bfloat16()),
            "ours, without a cache": without_cache(model),
        }
        writers["ours, fp32, 8 prompts at once"] = _each_row(model, 8)
        yield from _lines("10.65M", writers | dict(peers(model, Path(folder), onnx=(32,))), tokens, rounds)
    if small_only:
        return
    model = GPT(LARGE).eval()
    with temporary_folder() as folder:
        writers = {
            "ours, fp32": ours(model),
            "ours, bf16": ours(copy.deepcopy(model).bfloat16()),
            "ours, int8": ours(quantize(model, 8)),
            "ours, int4": ours(quantize(model, 4)),
        }
        if DynamicLinear.available():
            writers["ours, int8 activations too"] = ours(quantize(model, 8, activations="int8"))
        writers |= dict(peers(model, Path(folder), gguf=("q8_0", "q4_0")))
        yield from _lines("124M", writers, tokens, rounds)


def _each_row(model: GPT, rows: int) -> Write:
    """As many tokens in all as one row would write: each row a share of them."""
    write = ours(model, rows)
    return lambda tokens: write(max(1, tokens // rows))


def _lines(shape: str, writers: dict[str, Write], tokens: int, rounds: int) -> Iterator[DecodingSpeed]:
    found = speeds(writers, tokens, rounds)
    basis = found.get(BASIS)
    for who, speed in found.items():
        yield DecodingSpeed(shape, who, speed, speed.value / basis.value if basis else None)
