"""Low-rank adaptation (Hu et al. 2021): the weights stand still, and each matrix gets a thin product B A added to it.

r rank, in and out the widths of a matrix W (out, in); A (r, in) draws what matters out of the input, B (out, r) begins at
zero, so that at first nothing changes. Queries, keys and values, one matrix here, are adapted apart, each with an A and B
of its own. Adapters are written and read by `minigpt.finetune.adapters`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.config import GPTConfig, nearest
from minigpt.finetune.classifier import Classifier
from minigpt.interop import check_floats
from minigpt.model import GPT


class LoRALinear(nn.Module):
    """A frozen linear layer and what is learned on top: y = W x + b + (alpha / r) B A x (Hu et al. 2021, equation 3).

    `parts` names the stacks of rows of W that are adapted, each as (first row, one past the last).
    """

    def __init__(self, linear: nn.Linear, parts: dict[str, tuple[int, int]], rank: int, scale: float, dropout: float):
        super().__init__()
        self.plain, self.parts, self.rank, self.scale, self.dropout = linear, parts, rank, scale, dropout
        device = linear.weight.device
        self.A = nn.ParameterDict({n: torch.empty(rank, linear.in_features, device=device) for n in parts})
        self.B = nn.ParameterDict(
            {n: torch.zeros(end - first, rank, device=device) for n, (first, end) in parts.items()}
        )
        for a in self.A.values():
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as nn.Linear begins, and `peft`

    @property
    def weight(self) -> Tensor:
        """W, frozen."""
        return self.plain.weight

    def forward(self, x: Tensor) -> Tensor:
        y = self.plain(x)  # (..., out)
        x = F.dropout(x, self.dropout, self.training).to(self._dtype(x))
        thin = F.linear(x, torch.cat([self.A[name] for name in self.parts])).split(self.rank, dim=-1)  # each (..., r)
        added, at = [], 0
        for (name, (first, end)), drawn in zip(self.parts.items(), thin):
            added += [y.new_zeros(*y.shape[:-1], first - at)] * (first > at) + [F.linear(drawn, self.B[name])]
            at = end
        if at < y.size(-1):
            added.append(y.new_zeros(*y.shape[:-1], y.size(-1) - at))
        return y + self.scale * torch.cat(added, dim=-1).to(y.dtype)  # (..., out)

    def _dtype(self, x: Tensor) -> torch.dtype:
        return x.dtype if torch.is_autocast_enabled(x.device.type) else next(iter(self.A.values())).dtype

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with (alpha / r) B A added to W for good: as fast as before, and no longer apart."""
        for name, (first, end) in self.parts.items():
            self.plain.weight[first:end] += (self.scale * self.B[name] @ self.A[name]).to(self.plain.weight.dtype)
        return self.plain


class LoRAEmbedding(nn.Module):
    """A frozen table of tokens and what is learned on top: row t of W + (alpha / r) A^T B^T; A (r, V) begins at zero.

    B (C, r) begins as large as the numbers of the table, so that what a token learns is of their size.
    """

    def __init__(self, embedding: nn.Embedding, rank: int, scale: float, dropout: float):
        super().__init__()
        self.plain, self.rank, self.scale, self.dropout = embedding, rank, scale, dropout
        device = embedding.weight.device
        self.A = nn.Parameter(torch.zeros(rank, embedding.num_embeddings, device=device))
        self.B = nn.Parameter(torch.empty(embedding.embedding_dim, rank, device=device))
        nn.init.normal_(self.B, std=embedding.weight.std().item())

    def forward(self, idx: Tensor) -> Tensor:
        learned = F.linear(F.embedding(idx, self.A.T), self.B)  # (B, T, C)
        known = self.plain(idx)
        return known + self.scale * learned.to(known.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Embedding:
        """The table with the product added for good."""
        self.plain.weight += (self.scale * self.A.T @ self.B.T).to(self.plain.weight.dtype)
        return self.plain


def places(config: GPTConfig) -> dict[str, tuple[str, tuple[int, int]]]:
    """The matrices of a block that can be adapted: name -> the layer in the block, and its rows.

    In the GPT-2 family q, k and v are one matrix (`qkv`), as they are in its files; otherwise they are three.
    """
    q, kv = config.n_head * config.head_dim, config.n_kv_head * config.head_dim
    rows = {"q": (0, q), "k": (q, q + kv), "v": (q + kv, q + 2 * kv)}
    if config.position == "learned":
        rows = {"qkv": (0, q + 2 * kv)}
    found = {name: ("attention.qkv", part) for name, part in rows.items()}
    found["attention_proj"] = ("attention.proj", (0, config.n_embd))
    if config.mlp == "swiglu":
        found["mlp_gate"] = ("mlp.gate", (0, config.n_hidden))
    return found | {"mlp_up": ("mlp.up", (0, config.n_hidden)), "mlp_proj": ("mlp.proj", (0, config.n_embd))}


EMBEDDING = "embedding"  # the target that is the table of tokens


def body(model: GPT | Classifier) -> GPT:
    """The GPT itself, or the one inside a classifier."""
    return model.gpt if isinstance(model, Classifier) else model


def add_lora(
    model: GPT | Classifier,
    rank: int = 8,
    alpha: float | None = None,
    targets: Sequence[str] | None = None,
    dropout: float = 0.0,
) -> None:
    """Freeze the model and put an adapter beside its matrices, in place; a classifier's `score` is trained too.

    Args:
        rank: r, the columns of B and the rows of A.
        alpha: what is learned is multiplied by alpha / r; None is 2 r.
        targets: names from `places(model.config)`, and "embedding" for the table of tokens. None is every matrix of
            every block and, for a classifier, the table: what a word means to a small model stands there.
        dropout: share of an adapter's input that is set to zero in training.

    Raises:
        ValueError: a rank below 1, an unknown target, a model that has adapters already or is quantized, or an adapted
            table that is the head of a writing model too.
    """
    gpt, classifies = body(model), isinstance(model, Classifier)
    check_floats(gpt, "LoRA")
    known = places(gpt.config)
    targets = [*known, *([EMBEDDING] if classifies else [])] if targets is None else list(targets)
    if rank < 1 or not targets:
        raise ValueError(f"rank={rank} with {len(targets)} targets adapts nothing; use a rank of 1 or more.")
    for name in targets:
        if name not in known and name != EMBEDDING:
            raise ValueError(f"this model has no matrix {name!r}.{nearest(name, [*known, EMBEDDING])}")
    if EMBEDDING in targets and gpt.config.tie_embedding and not classifies:
        raise ValueError(
            "the table of tokens is the model's head too, and merged into one the other would change: leave "
            "'embedding' out of the targets."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout} is no share; use 0 up to, not including, 1.")
    if any(lora_layers(model)):
        raise ValueError("the model has adapters already; merge_lora(model) first, or open the checkpoint again.")
    gpt.requires_grad_(False)
    scale = (2 * rank if alpha is None else alpha) / rank
    for block in gpt.blocks:
        for path in dict.fromkeys(known[name][0] for name in targets if name in known):
            parts = {name: known[name][1] for name in known if name in targets and known[name][0] == path}
            owner, attribute = block.get_submodule(path.partition(".")[0]), path.partition(".")[2]
            setattr(owner, attribute, LoRALinear(getattr(owner, attribute), parts, rank, scale, dropout))
    if EMBEDDING in targets:
        gpt.token_embedding = LoRAEmbedding(gpt.token_embedding, rank, scale, dropout)


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear | LoRAEmbedding]]:
    """Every adapted layer with its name in the model."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear | LoRAEmbedding))


def merge_lora(model: GPT | Classifier) -> None:
    """Add every adapter to its matrix, in place, and let the weights be trained again. ValueError without adapters."""
    if not any(lora_layers(model)):
        raise ValueError("the model has no adapters to merge; add_lora(model) puts them there.")
    replace_layers(model, lambda layer: layer.merged())
    model.requires_grad_(True)


def replace_layers(model: nn.Module, with_what: Callable[[LoRALinear | LoRAEmbedding], nn.Module]) -> None:
    """Put what is made of each adapted layer into its place."""
    for name, layer in list(lora_layers(model)):
        owner, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(owner), attribute, with_what(layer))


def freeze(model: GPT | Classifier, layers: int | None = None) -> None:
    """Let the body stand still, in place: all of it, or the table and the first `layers` blocks. `score` is trained.

    ValueError for more layers than there are, or a model with adapters.
    """
    gpt = body(model)
    if any(lora_layers(model)):
        raise ValueError(
            "the model has adapters, beside which everything stands still already; merge_lora(model) first."
        )
    count = len(gpt.blocks) if layers is None else layers
    if not 0 <= count <= len(gpt.blocks):
        raise ValueError(
            f"layers={layers} of a model with {len(gpt.blocks)}; use 0 to {len(gpt.blocks)}, or None for all."
        )
    gpt.requires_grad_(layers is not None)
    for frozen in (gpt.token_embedding, *gpt.blocks[:count]):
        frozen.requires_grad_(False)
    if gpt.config.position == "learned":
        gpt.position_embedding.requires_grad_(False)


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """How many numbers training changes, and how many there are; a tied table counts once."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)
