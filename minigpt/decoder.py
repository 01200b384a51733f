"""One token at a time on a CPU, in as few calls and as few walks through memory as PyTorch allows.

Writing one token multiplies every matrix of the model with one row of numbers, so that reading the matrices is nearly
all of the work. PyTorch gives a product with one row to one core; here a matrix is taken as one half for each core, in a
batch, with bias or residual stream added on the way. The numbers are those of `GPT.forward` within rounding.

B rows, C = n_embd, H = n_head, G = n_kv_head, D = head_dim, S positions in the cache, V = vocab_size. This module knows
nothing of sampling.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt import fused
from minigpt.model import GPT, MLP, Attention, Block, RMSNorm

if TYPE_CHECKING:
    from minigpt.generate import KVCache

MOST_ROWS = 16  # beyond them a product is arithmetic more than reading, and PyTorch's own use of the cores is as good
Product = Callable[[Tensor, Tensor | None], Tensor]
Norm = Callable[[Tensor], Tensor]


def is_lean(model: GPT) -> bool:
    """Whether `Decoder` computes what this model computes: it is on a CPU, made of our parts, and nobody looks in by hooks."""
    if type(model) is not GPT or next(model.parameters()).device.type != "cpu":
        return False
    parts = {Block, Attention, MLP}
    blocks = [part for block in model.blocks for part in (block, block.attention, block.mlp)]
    return all(type(part) in parts for part in blocks) and not any(
        part._forward_hooks or part._forward_pre_hooks for part in model.modules()
    )


def product(linear: nn.Module, cores: int) -> Product:
    """A function of x (B, in) and what is added, (B, out) or None, that gives what `linear` gives, plus that, (B, out)."""
    plain = type(linear) is nn.Linear and type(linear.weight) is nn.Parameter and linear.weight.dtype == torch.float32
    if not plain or cores == 1:
        return lambda x, add: linear(x) if add is None else add + linear(x)
    weight, bias = linear.weight, linear.bias
    n_out, n_in = weight.shape
    even, high = n_out // cores * cores, n_out > n_in
    parts = weight[:even].view(cores, -1, n_in)  # (cores, even / cores, in)
    rest = weight[even:]  # (fewer than cores, in)

    def multiply(x: Tensor, add: Tensor | None) -> Tensor:
        rows = x.size(0)
        if bias is not None:
            add = bias.expand(rows, -1) if add is None else add + bias
        if rows > MOST_ROWS or not even:
            return F.linear(x, weight) if add is None else F.linear(x, weight) + add
        spread = x.expand(cores, rows, n_in)
        begin = None if add is None else add[:, :even].view(rows, cores, -1).transpose(0, 1)  # (cores, B, even / cores)
        if rows == 1 and high:  # whichever way round MKL reads the matrix in the order in which it lies in memory
            out = _batched(None if begin is None else begin.mT, parts, spread.mT)  # (cores, even / cores, 1)
        else:
            out = _batched(begin, spread, parts.mT).transpose(0, 1)  # (B, cores, even / cores)
        out = out.reshape(rows, even)
        if even == n_out:
            return out
        last = (x.unsqueeze(1) * rest).sum(dim=-1)  # MKL takes milliseconds for a matrix of a row or two
        return torch.cat([out, last if add is None else last + add[:, even:]], dim=-1)

    return multiply


def _batched(begin: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    return torch.bmm(a, b) if begin is None else torch.baddbmm(begin, a, b)


def lean_norm(norm: nn.Module, rows: int) -> Norm:
    """A function of x (B, width) that gives what `norm` gives."""
    if type(norm) is nn.LayerNorm:
        shape, weight, bias, eps = norm.normalized_shape, norm.weight, norm.bias, norm.eps
        return lambda x: torch.layer_norm(x, shape, weight, bias, eps)
    if type(norm) is not RMSNorm or rows > 1 or norm.weight.dtype != torch.float32:
        return norm
    weight, width, eps, nothing = norm.weight, norm.weight.numel(), norm.eps, torch.zeros(())

    def rms_norm(x: Tensor) -> Tensor:
        scale = 1 / math.sqrt(float(torch.dot(x[0], x[0])) / width + eps)
        return torch.addcmul(nothing, x, weight, value=scale)

    return rms_norm


class _Layer:
    """One block for one token."""

    def __init__(self, block: Block, cache: KVCache, cores: int):
        config, layer = block.attention.config, block.attention.layer
        self.heads, self.grouped, self.width = config.n_head, config.n_kv_head, config.head_dim
        attention, mlp = block.attention, block.mlp
        self.attention_norm, self.mlp_norm = (
            lean_norm(norm, cache.batch) for norm in (block.attention_norm, block.mlp_norm)
        )
        self.qkv, self.proj = product(attention.qkv, cores), product(attention.proj, cores)
        self.up, self.down = product(mlp.up, cores), product(mlp.proj, cores)
        self.gate = product(mlp.gate, cores) if config.mlp == "swiglu" else None
        self.bend = fused.squared_relu if config.mlp == "relu2" else fused.gelu
        self.norms = (attention.q_norm, attention.k_norm) if config.qk_norm else None
        self.keys, self.values = cache.keys[layer], cache.values[layer]  # (B, G, context_length, D)

    def __call__(self, x: Tensor, place: int, rotary: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        rows, H, G, D = x.size(0), self.heads, self.grouped, self.width
        qkv = self.qkv(self.attention_norm(x), None).view(rows, H + 2 * G, D)
        turned, v = qkv.split([H + G, G], dim=1)
        if self.norms is not None:
            q, k = turned.split([H, G], dim=1)
            turned = torch.cat([self.norms[0](q), self.norms[1](k)], dim=1)
        if rotary is not None:
            turned = torch.addcmul(turned * rotary[0], turned.roll(D // 2, dims=-1), rotary[1])
        q, k = turned.split([H, G], dim=1)
        self.keys.select(2, place).copy_(k)
        self.values.select(2, place).copy_(v)
        keys, values = self.keys.narrow(2, 0, place + 1), self.values.narrow(2, 0, place + 1)
        q = q.reshape(rows, G, H // G, D)  # the queries that share keys stand where tokens stand
        y = F.scaled_dot_product_attention(q, keys, values, mask)  # (B, G, H / G, D)
        x = self.proj(y.reshape(rows, H * D), x)
        h = self.mlp_norm(x)
        if self.gate is not None:
            hidden = F.silu(self.gate(h, None)).mul_(self.up(h, None))  # (B, n_hidden)
        else:
            hidden = self.bend(self.up(h, None))
        return self.down(hidden, x)


class Decoder:
    """The next token's logits for a model and a cache that has read the prompt. Made anew for each cache.

    The model is in evaluation mode, and `is_lean`.
    """

    def __init__(self, model: GPT, cache: KVCache):
        config, cores = model.config, torch.get_num_threads()
        self.model, self.cache = model, cache
        self.layers = [_Layer(block, cache, cores) for block in model.blocks]
        self.norm, self.head = lean_norm(model.norm, cache.batch), product(model.head, cores)
        self.learned = config.position == "learned"
        if not self.learned:
            half = config.head_dim // 2
            dtype = cache.keys.dtype
            self.cos = model.cos.to(dtype)
            self.sin = torch.cat([-model.sin[:, :half], model.sin[:, half:]], dim=-1).to(dtype)  # (context_length, D)

    @torch.inference_mode()
    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) after `tokens` (B,), the newest of each row, which the cache has not seen. It sees them now."""
        cache, place, rotary = self.cache, self.cache.length, None
        mask = cache.mask(1)
        x = self.model.token_embedding(tokens)  # (B, C)
        if cache.padding is None:
            positions = slice(place, place + 1)
        else:
            positions = cache.positions(1)[:, 0]  # (B,)
        if self.learned:
            x = x + self.model.position_embedding.weight[positions]
        else:
            rotary = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)  # (B or 1, 1, D)
        for layer in self.layers:
            x = layer(x, place, rotary, mask)
        cache.advance(1)
        logits = self.head(self.norm(x), None)
        cap = self.model.config.logit_cap
        return logits if cap is None else cap * torch.tanh(logits / cap)
