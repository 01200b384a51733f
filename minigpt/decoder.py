"""One token at a time on a CPU, in few calls and one walk through the weights.

Writing one token multiplies every matrix of the model with one row of numbers, so that reading the matrices is nearly
all of the work, and what comes between them must be little. Both are done by the loops of `minigpt.kernels`, which numba
compiles; where it is not installed, `GPT.forward` decodes. The numbers are the same within rounding.

B rows, C = n_embd, H = n_head, G = n_kv_head, D = head_dim, V = vocab_size. This module knows nothing of sampling.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache as once
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from minigpt import fused
from minigpt.model import GPT, MLP, Attention, Block, RMSNorm

if TYPE_CHECKING:
    from minigpt.generate import KVCache

ALONE = 32  # tokens that one core writes when sharing did not pay; twice as many the next time
FLOATS = (torch.float32, torch.bfloat16)
MOST_ROWS = 16  # beyond them a product is arithmetic more than reading, which PyTorch does as well
Step = Callable[[], Any]


@once
def kernels() -> ModuleType | None:
    """`minigpt.kernels`, or None where numba is missing. The first use on a machine compiles them: some seconds."""
    try:
        from minigpt import kernels
    except (ImportError, RuntimeError):  # or there is no folder that may be written, for what is compiled
        return None
    return kernels


def is_lean(model: GPT, rows: int = 1) -> bool:
    """Whether `Decoder` computes what this model computes for so many rows: it is on a CPU, in fp32 or bf16 outside of
    matrices in few bits, made of our parts, and nobody looks in by hooks or has put another `forward` in."""
    if type(model) is not GPT or rows > MOST_ROWS:
        return False
    if model.norm.weight.device.type != "cpu" or model.norm.weight.dtype not in FLOATS:
        return False
    norms = [model.norm, *(norm for block in model.blocks for norm in (block.attention_norm, block.mlp_norm))]
    if not all(type(norm) in (nn.LayerNorm, RMSNorm) for norm in norms):
        return False
    blocks = [(type(block), type(block.attention), type(block.mlp)) for block in model.blocks]
    watched = _global_forward_hooks or _global_forward_pre_hooks or any(map(_is_watched, model.modules()))
    return all(types == (Block, Attention, MLP) for types in blocks) and not watched and kernels() is not None


def _is_watched(part: nn.Module) -> bool:
    return bool(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


def weights_for_kernels(linear: nn.Module) -> tuple[Tensor, Tensor | None] | None:
    """The matrix (N, K) of a layer, and the scale of each row (N,) where it is in whole numbers; None for what the kernels
    do not know."""
    if hasattr(linear, "scaled_rows"):
        return linear.scaled_rows()
    plain = type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and linear.weight.dtype in FLOATS
    return (linear.weight, None) if plain and linear.weight.is_contiguous() else None


def product(linear: nn.Module, x: ndarray, then: int, out: ndarray, dtype: torch.dtype) -> Step:
    """A function of nothing that reads x (B, K) and leaves in `out` (B, N) what `linear` gives of it; `then` as in
    `kernels.finish`, `dtype` what a layer that the kernels do not know is given."""
    known, found, n_out = kernels(), weights_for_kernels(linear), out.shape[1]
    if found is not None:
        weight, scale = found
        bias = np.zeros(n_out, np.float32) if linear.bias is None else linear.bias.detach().float().numpy()
        if scale is None:
            weight = weight.detach().view(torch.uint16) if weight.dtype == torch.bfloat16 else weight.detach()
            return partial(known.multiply, x, weight.numpy(), bias, then, out)
        return partial(known.multiply_whole, x, weight.numpy(), scale.numpy(), bias, then, out)

    rows, result = torch.from_numpy(x), torch.from_numpy(out)
    multiply, bias = lambda x: linear(x.to(dtype)), None
    if hasattr(linear, "multiply"):
        multiply, bias = linear.multiply, linear.bias
    bend = {known.GELU: fused.gelu, known.SQUARED_RELU: fused.squared_relu, known.SILU: F.silu}.get(then)
    put = {known.ADD: result.add_, known.TIMES: result.mul_}.get(then, result.copy_)

    def multiply_by_torch() -> None:
        y = multiply(rows).float()  # (B, N)
        if bias is not None:
            y += bias
        put(y if bend is None else bend(y))

    return multiply_by_torch


def normalised(norm: nn.Module, x: ndarray, out: ndarray) -> Step:
    """A function of nothing that reads x (B, width) and leaves in `out` what `norm` gives of it."""
    centred, weight = type(norm) is nn.LayerNorm, norm.weight.detach().float()
    bias = norm.bias.detach().float() if centred and norm.bias is not None else torch.zeros_like(weight)
    return partial(kernels().normalise, x, weight.numpy(), bias.numpy(), float(norm.eps), centred, out)


class _Layer:
    """One block for one token of each row: it reads the residual stream x (B, C) and adds to it."""

    def __init__(self, block: Block, cache: KVCache, x: ndarray, rotary: tuple[ndarray, ndarray] | None):
        known, config, rows, dtype = kernels(), block.attention.config, len(x), block.mlp_norm.weight.dtype
        attention, mlp, layer = block.attention, block.mlp, block.attention.layer
        H, G, D = config.n_head, config.n_kv_head, config.head_dim
        normed = np.empty((rows, config.n_embd), np.float32)
        self.qkv, self.mixed = (np.empty((rows, heads, D), np.float32) for heads in (H + 2 * G, H))
        hidden = np.empty((rows, config.n_hidden), np.float32)
        self.turned, self.rotary = H + G, rotary
        self.keys, self.values = cache.keys[layer].numpy(), cache.values[layer].numpy()
        self.scores = np.empty((rows, H, config.context_length), np.float32)
        self.before = [
            normalised(block.attention_norm, x, normed),
            product(attention.qkv, normed, known.SET, self.qkv.reshape(rows, -1), dtype),
        ]
        for row in self.qkv if config.qk_norm else ():
            self.before += [normalised(attention.q_norm, row[:H], row[:H])]
            self.before += [normalised(attention.k_norm, row[H : H + G], row[H : H + G])]
        self.after = [
            product(attention.proj, self.mixed.reshape(rows, -1), known.ADD, x, dtype),
            normalised(block.mlp_norm, x, normed),
        ]
        if config.mlp == "swiglu":
            self.after += [product(mlp.gate, normed, known.SILU, hidden, dtype)]
            self.after += [product(mlp.up, normed, known.TIMES, hidden, dtype)]
        else:
            bend = known.SQUARED_RELU if config.mlp == "relu2" else known.GELU
            self.after += [product(mlp.up, normed, bend, hidden, dtype)]
        self.after += [product(mlp.proj, hidden, known.ADD, x, dtype)]
        self.rotate = known.rotate
        shared = weights_for_kernels(attention.proj) is not None
        self.attend = known.attend if shared else known.attend_alone

    def __call__(self, place: int, positions: ndarray, padding: ndarray) -> None:
        for step in self.before:
            step()
        if self.rotary is not None:
            self.rotate(self.qkv, self.turned, *self.rotary, positions)
        self.attend(self.qkv, self.keys, self.values, place, padding, self.scores, self.mixed)
        for step in self.after:
            step()


class Decoder:
    """The next token's logits for a model and a cache that has read the prompt. Made anew for each cache.

    The model is in evaluation mode, and `is_lean`.
    """

    def __init__(self, model: GPT, cache: KVCache):
        config = model.config
        self.model, self.cache = model, cache
        cache.widen()
        self.x = torch.empty(cache.batch, config.n_embd, dtype=torch.float32)  # (B, C)
        x, self.learned = self.x.numpy(), config.position == "learned"
        rotary = (
            None if self.learned else (model.cos.float().numpy(), model.sin.float().numpy())
        )  # (context_length, D) each
        self.layers = [_Layer(block, cache, x, rotary) for block in model.blocks]
        self.logits = np.empty((cache.batch, config.vocab_size), np.float32)
        normed = np.empty_like(x)
        self.last = [
            normalised(model.norm, x, normed),
            product(model.head, normed, kernels().SET, self.logits, model.norm.weight.dtype),
        ]
        padding = torch.zeros(cache.batch, dtype=torch.long) if cache.padding is None else cache.padding
        self.padding = padding.numpy()
        self.alone, self.next_alone, self.seconds_alone = 2, ALONE, math.inf

    @torch.inference_mode()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after `tokens` (B,), the newest of each row, which the cache has not seen. It sees them now.

        The cores share the work, unless something else keeps them busy: then they wait for each other at every product,
        and one of them is faster. So the first two tokens are written by one (the kernels are loaded with the first), and
        where sharing takes twice as long, more are.

        Raises:
            ValueError: the cache is full.
        """
        place, config = self.cache.length, self.model.config
        if place >= config.context_length:
            raise ValueError(
                f"the cache holds {place} tokens, all of context_length={config.context_length}; begin anew."
            )
        started, alone = time.perf_counter(), self.alone > 0
        with kernels().threads(1 if alone else torch.get_num_threads()):
            positions = np.maximum(place - self.padding, 0)  # (B,)
            self.x.copy_(self.model.token_embedding(tokens))
            if self.learned:
                self.x.add_(self.model.position_embedding(torch.from_numpy(positions)))
            for layer in self.layers:
                layer(place, positions, self.padding)
            for step in self.last:
                step()
        self.cache.advance(1)
        took = time.perf_counter() - started
        if alone:
            self.alone, self.seconds_alone = self.alone - 1, min(self.seconds_alone, took)
        elif took > 2 * self.seconds_alone:
            self.alone, self.next_alone = self.next_alone, 2 * self.next_alone
        logits, cap = torch.from_numpy(self.logits.copy()), config.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)
