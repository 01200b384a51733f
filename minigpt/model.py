"""The GPT, whole: norms, positions, attention, MLP, block, model. Read it from top to bottom.

B batch, T tokens, S tokens seen so far (T without a cache), C = n_embd, H = n_head, G = n_kv_head, D = head_dim,
V = vocab_size. This module knows nothing of training, sampling, text or files.
"""

from __future__ import annotations

import math
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from minigpt import fused
from minigpt.config import GPTConfig

if TYPE_CHECKING:
    from minigpt.generate import KVCache
    from minigpt.tokenizer import Tokenizer


class RMSNorm(nn.RMSNorm):
    """RMSNorm in the precision of what it is given, (..., width) -> same."""

    def forward(self, x: Tensor) -> Tensor:
        return fused.rms_norm(x, self.weight, self.eps)


def make_norm(config: GPTConfig, width: int) -> nn.Module:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang & Sennrich 2019) over the last dimension, (..., width) -> same."""
    if config.norm == "rmsnorm":
        return RMSNorm(width, eps=config.norm_eps)
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.bias)


def rotary_table(config: GPTConfig) -> tuple[Tensor, Tensor]:
    """Cosines and sines of position x frequency, two tensors (context_length, D). Su et al. 2021, equation 15."""
    frequency = config.rope_theta ** (-torch.arange(0, config.head_dim, 2) / config.head_dim)  # (D/2,)
    angle = torch.arange(config.context_length)[:, None] * frequency  # (context_length, D/2)
    angle = torch.cat([angle, angle], dim=-1)  # (context_length, D)
    return angle.cos(), angle.sin()


class Attention(nn.Module):
    """Causal self-attention (Vaswani et al. 2017), with grouped queries (Ainslie et al. 2023) where n_kv_head < n_head.

    x (B, T, C) -> (B, T, C). `mask` (B or 1, 1, T, S) is true where a query may look; None means every token may look
    at itself and at all before it. With `maps`, the weights (B, H, T, S) are appended to it; otherwise PyTorch's
    fused kernel is used, which never stores them.
    """

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.config, self.layer = config, layer
        self.heights = [heads * config.head_dim for heads in (config.n_head, config.n_kv_head, config.n_kv_head)]
        self.qkv = nn.Linear(config.n_embd, sum(self.heights), bias=config.bias)
        self.proj = nn.Linear(config.n_head * config.head_dim, config.n_embd, bias=config.bias)
        if config.qk_norm:
            self.q_norm, self.k_norm = make_norm(config, config.head_dim), make_norm(config, config.head_dim)

    def forward(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        config, (B, T, _) = self.config, x.shape
        H, G, D = config.n_head, config.n_kv_head, config.head_dim
        q, k, v = self.qkv(x).view(B, T, H + 2 * G, D).transpose(1, 2).split([H, G, G], dim=1)  # (B, H or G, T, D)
        if config.qk_norm:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)  # a GPU's autocast norms in fp32
        if rotary is not None:
            q, k = fused.rotate(q, *rotary), fused.rotate(k, *rotary)
        if cache is not None:
            k, v = cache.append(self.layer, k, v)  # (B, G, S, D)
        if maps is None:
            y = fused.attention(q, k, v, mask, is_causal=mask is None and T > 1)  # (B, H, T, D)
        else:
            k, v = (t.repeat_interleave(H // G, dim=1) for t in (k, v))  # (B, H, S, D)
            scores = q @ k.transpose(-2, -1) / math.sqrt(D)  # (B, H, T, S)
            allowed = torch.ones(T, k.size(2), dtype=torch.bool, device=x.device).tril() if mask is None else mask
            weights = scores.masked_fill(~allowed, -math.inf).softmax(dim=-1)
            maps.append(weights.detach())
            y = weights @ v  # (B, H, T, D)
        y = y.transpose(1, 2).reshape(B, T, H * D)  # (B, T, H D)
        return fused.dropout(self.proj(y), config.dropout, self.training)


class MLP(nn.Module):
    """Two matrices around a non-linearity, applied to each token alone. (B, T, C) -> (B, T, C).

    GELU in its tanh form, as GPT-2 has it (Hendrycks & Gimpel 2016), SwiGLU (Shazeer 2020, equation 6) or the squared
    ReLU (So et al. 2021, section 4.1).
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        if config.mlp == "swiglu":
            self.gate = nn.Linear(config.n_embd, config.n_hidden, bias=config.bias)
        self.up = nn.Linear(config.n_embd, config.n_hidden, bias=config.bias)
        self.proj = nn.Linear(config.n_hidden, config.n_embd, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.config.mlp == "swiglu":
            hidden = F.silu(self.gate(x)) * self.up(x)  # (B, T, n_hidden)
        elif self.config.mlp == "relu2":
            hidden = fused.squared_relu(self.up(x))  # (B, T, n_hidden)
        else:
            hidden = fused.gelu(self.up(x))  # (B, T, n_hidden)
        return fused.dropout(self.proj(hidden), self.config.dropout, self.training)


class Block(nn.Module):
    """One layer: attention then MLP, each on a normalised copy, each adding to the residual stream (B, T, C)."""

    def __init__(self, config: GPTConfig, layer: int):
        super().__init__()
        self.attention_norm = make_norm(config, config.n_embd)
        self.attention = Attention(config, layer)
        self.mlp_norm = make_norm(config, config.n_embd)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, **attention: Any) -> Tensor:
        x = x + self.attention(self.attention_norm(x), **attention)
        return x + self.mlp(self.mlp_norm(x))


class GPT(nn.Module):
    """A decoder-only Transformer that predicts the next token (Radford et al. 2019; Touvron et al. 2023)."""

    quantization: Any = None  # how the matrices were rounded, in a model that `minigpt.quantize` made

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.config = config
        self.activation_checkpointing = False  # whether training computes each block twice, to keep less in memory
        self.token_embedding = nn.Embedding(config.vocab_size, config.n_embd)
        if config.position == "learned":
            self.position_embedding = nn.Embedding(config.context_length, config.n_embd)
        else:
            cos, sin = rotary_table(config)
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.norm = make_norm(config, config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_embedding:
            self.head.weight = self.token_embedding.weight
        self._initialise()

    def _initialise(self) -> None:
        """Normal(0, 0.02); projections into the residual stream by 1 / sqrt(2 n_layer) less (GPT-2, section 2.3).

        With `zero_init` those projections are zero, and matrices inside the blocks keep the size of what goes through
        them, Normal(0, 1 / sqrt(n_embd)), as Muon likes them (Yang et al. 2022, table 3).
        """
        config = self.config
        inside = 1 / math.sqrt(config.n_embd) if config.zero_init else 0.02
        residual = 0.0 if config.zero_init else 0.02 / math.sqrt(2 * config.n_layer)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = config.embed_std if name.startswith("token_embedding") else 0.02
                if name.startswith("blocks"):
                    std = residual if name.endswith("proj.weight") else inside
                nn.init.normal_(parameter, std=std)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        idx: Tensor,
        targets: Tensor | None = None,
        *,
        cache: KVCache | None = None,
        maps: list[Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Logits for the token after each position and, with targets, their mean cross-entropy.

        Args:
            idx: token ids (B, T), int64, T at most context_length.
            targets: the id that should follow each position (B, T); -100 is left out of the mean.
            cache: a `minigpt.generate.KVCache`; idx then holds only the tokens that it has not seen.
            maps: a list that receives each layer's attention weights (B, H, T, S).

        Returns:
            logits (B, T, V), and the loss in nats per token (None without targets).

        Raises:
            ValueError: an id outside the vocabulary, more tokens than the context holds, or shapes that do not match.
        """
        self.check(idx, targets, cache)
        logits = self.head(self.hidden(idx, cache=cache, maps=maps))  # (B, T, V)
        if self.config.logit_cap is not None:
            logits = self.config.logit_cap * torch.tanh(logits / self.config.logit_cap)
        if targets is None:
            return logits, None
        smoothing = self.config.label_smoothing if self.training else 0.0  # Szegedy et al. 2016, section 7
        return logits, F.cross_entropy(
            logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-100, label_smoothing=smoothing
        )

    def hidden(self, idx: Tensor, *, cache: KVCache | None = None, maps: list[Tensor] | None = None) -> Tensor:
        """What the head reads: the residual stream after the last norm, (B, T, C). Arguments as in `forward`."""
        positions = torch.arange(idx.size(1), device=idx.device) if cache is None else cache.positions(idx.size(1))
        x = self.token_embedding(idx)  # (B, T, C)
        rotary = None
        if self.config.position == "learned":
            x = x + self.position_embedding(positions)  # (T, C) or (B, T, C)
        else:
            rotary = self.cos[positions], self.sin[positions]  # (T, D) or (B, T, D)
            if positions.dim() == 2:
                rotary = rotary[0].unsqueeze(1), rotary[1].unsqueeze(1)  # (B, 1, T, D)
        x = fused.dropout(x, self.config.dropout, self.training)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        mask = None if cache is None else cache.mask(idx.size(1))
        recompute = self.activation_checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            if recompute:  # Chen et al. 2016
                x = checkpoint(block, x, rotary=rotary, use_reentrant=False)
                continue
            x = block(x, rotary=rotary, mask=mask, cache=cache, maps=maps)
        if cache is not None:
            cache.advance(idx.size(1))
        return self.norm(x)

    def check(self, idx: Tensor, targets: Tensor | None = None, cache: KVCache | None = None) -> None:
        """ValueError for ids that `forward` cannot take: shapes, the context, the vocabulary."""
        if idx.dim() != 2:
            raise ValueError(f"idx has shape {tuple(idx.shape)}; expected (B, T): put one sequence in as idx[None].")
        if targets is not None and targets.shape != idx.shape:
            raise ValueError(f"targets have shape {tuple(targets.shape)}, idx {tuple(idx.shape)}; they must be equal.")
        length = idx.size(1) + (cache.length if cache is not None else 0)
        if length > self.config.context_length:
            raise ValueError(
                f"{length} tokens do not fit context_length={self.config.context_length}; "
                f"keep the last ones, idx[:, -{self.config.context_length}:], or train with a longer context."
            )
        if (
            idx.device.type == "cpu" and not torch.compiler.is_compiling()
        ):  # on an accelerator the look would cost a synchronisation
            self._check_ids("token id", idx)
            if targets is not None:
                self._check_ids("target", targets[targets != -100])

    def _check_ids(self, name: str, ids: Tensor) -> None:
        if ids.is_floating_point():
            raise ValueError(f"a {name} is a whole number, and these are {ids.dtype}; use .long().")
        low, high = torch.aminmax(ids) if ids.numel() else (0, 0)
        if low < 0 or high >= self.config.vocab_size:
            raise ValueError(
                f"{name} {int(low if low < 0 else high)} lies outside the vocabulary 0 to {self.config.vocab_size - 1}; "
                "encode with the tokenizer that the model was trained with."
            )

    @torch.no_grad()
    def attention_maps(self, idx: Tensor) -> list[Tensor]:
        """Who looks at whom: for idx (B, T), one tensor (B, H, T, T) per layer; each row sums to 1."""
        training, maps = self.training, []
        self.eval()(idx, maps=maps)
        self.train(training)
        return maps

    def num_parameters(self) -> int:
        """How many numbers training may change (or might, before they were rounded to few bits); a tied table counts once."""
        rounded = sum(getattr(module, "n_numbers", 0) for module in self.modules())
        return rounded + sum(p.numel() for p in self.parameters())

    def save_pretrained(self, folder: str | PathLike) -> None:
        """Write config.json and model.safetensors in the Hugging Face layout (see `minigpt.checkpoint`)."""
        from minigpt.checkpoint import save_model

        save_model(self, folder)

    def save_gguf(self, path: str | PathLike, tokenizer: Tokenizer, dtype: str = "f16") -> None:
        """Write the model and its tokenizer as one file for llama.cpp (see `minigpt.interop.gguf_writer`)."""
        from minigpt.interop.gguf_writer import save_gguf

        save_gguf(self, tokenizer, path, dtype)

    @classmethod
    def from_pretrained(cls, where: str | PathLike, dtype: torch.dtype = torch.float32) -> GPT:
        """Open a folder of ours or of Hugging Face's, a model of its hub, or a .gguf file (see `minigpt.checkpoint`)."""
        from minigpt.checkpoint import load_model

        return load_model(where, dtype)
