"""Structured pruning: whole heads and channels of the MLP go, and the matrices become smaller and faster.

H = n_head, G = n_kv_head, D = head_dim, M = n_hidden, C = n_embd. Query heads go with the keys and values that they share,
and every layer loses as many as the others, so that what is left is an ordinary GPT. This module knows nothing of training.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from minigpt.interop import build
from minigpt.model import GPT, Block
from minigpt.prune.magnitude import check_share, check_weights, matrices

MULTIPLE = 32  # of n_hidden: processors' kernels and llama.cpp's quantisation take numbers in blocks of so many


def prune_structured(
    model: GPT, heads: float = 0.3, mlp: float = 0.3, batches: Iterable[tuple[Tensor, Tensor]] | None = None
) -> GPT:
    """A smaller model without its least important heads and channels, in evaluation mode; the original stays as it is.

    Without batches, a group of heads matters as much as the L2 norm of what projects it out, a channel as the norm of the
    weights that lead into it and out of it (Li et al. 2017, section 3.1). With batches, as much as the loss would change in
    first order without it, |sum of weight x gradient|, averaged over them (Michel et al. 2019, section 4.1, for heads;
    Molchanov et al. 2019 for channels).

    Args:
        heads: the share of heads that goes, rounded to whole groups: the heads of queries that share keys and values.
        mlp: the share of channels that goes, rounded so that n_hidden is a multiple of 32, which kernels are fast with.
        batches: (idx, targets), each (B, T), such as `data.windows(8, 16)`.

    Raises:
        ValueError: what is no GPT; a share outside [0, 1), or one that leaves no head; a matrix that is zero
            throughout or not finite; a model with adapters; batches that hold nothing.
    """
    if not isinstance(model, GPT):
        raise ValueError(f"{type(model).__name__} is no GPT; prune the GPT inside it, and build the rest on that.")
    check_share("heads", heads)
    check_share("mlp", mlp)
    check_weights(matrices(model))
    config, G, M = model.config, model.config.n_kv_head, model.config.n_hidden
    groups = G - round(heads * G)
    if not groups:
        raise ValueError(
            f"heads={heads} leaves none of the {G} groups of heads in each layer; use at most {(G - 1) / G:.2g}."
        )
    channels = min(M, max(MULTIPLE, MULTIPLE * round((1 - mlp) * M / MULTIPLE))) if mlp else M
    scores = by_norm(model) if batches is None else by_loss(model, batches)
    shared = config.n_head // G
    smaller = config.replace(n_head=groups * shared, n_kv_head=groups, head_dim=config.head_dim, n_hidden=channels)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for layer, (of_groups, of_channels) in enumerate(scores):
        kept_groups = of_groups.topk(groups).indices.sort().values  # (groups,)
        kept_channels = of_channels.topk(channels).indices.sort().values  # (channels,)
        q, kv = _places(kept_groups, shared * config.head_dim), _places(kept_groups, config.head_dim)
        first_k, first_v = config.n_head * config.head_dim, (config.n_head + G) * config.head_dim
        qkv = torch.cat([q, first_k + kv, first_v + kv])  # (rows of what is kept,)
        rows = {"attention.qkv": qkv, "mlp.gate": kept_channels, "mlp.up": kept_channels}
        cuts = [(f"{name}.{leaf}", 0, kept) for name, kept in rows.items() for leaf in ("weight", "bias")]
        cuts += [("attention.proj.weight", 1, q), ("mlp.proj.weight", 1, kept_channels)]
        for name, dimension, kept in cuts:
            if (full := f"blocks.{layer}.{name}") in weights:
                weights[full] = weights[full].index_select(dimension, kept)
    return build(smaller, weights).to(model.token_embedding.weight.device)


def _places(kept: Tensor, width: int) -> Tensor:
    """The numbers of the kept parts, each `width` numbers wide: (n,) -> (n width,)."""
    return (kept[:, None] * width + torch.arange(width, device=kept.device)).flatten()  # (n width,)


def _score(block: Block, groups: Tensor, channels: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the columns of both projections: (C, H D) -> (G,), (C, M) -> (M,)."""
    return groups.unflatten(1, (block.attention.config.n_kv_head, -1)).sum(dim=(0, 2)), channels.sum(dim=0)


@torch.no_grad()
def by_norm(model: GPT) -> list[tuple[Tensor, Tensor]]:
    """For each layer the L2 norms of its groups (G,) and channels (M,)."""
    found = []
    for block in model.blocks:
        groups, channels = _score(block, block.attention.proj.weight.square(), block.mlp.proj.weight.square())
        for into in (block.mlp.up, getattr(block.mlp, "gate", None)):
            if into is not None:
                channels = channels + into.weight.square().sum(dim=1)  # (M,)
        found.append((groups.sqrt(), channels.sqrt()))
    return found


def by_loss(model: GPT, batches: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """For each layer what the loss would change in first order without each group (G,) and channel (M,).

    A projection is linear in what it reads: the sum of weight x gradient over a part's columns is the derivative by a
    factor on that part. ValueError without batches.
    """
    projections = [layer.proj.weight for block in model.blocks for layer in (block.attention, block.mlp)]
    trained, was_training = [p.requires_grad for p in projections], model.training
    totals: list[tuple[Tensor, Tensor]] = []
    model.eval()
    try:
        for projection in projections:
            projection.requires_grad_(True)
        for idx, targets in batches:
            with torch.enable_grad():  # whatever the caller set
                loss = model(idx.to(projections[0].device), targets.to(projections[0].device))[1]
                gradients = torch.autograd.grad(loss, projections)
            with torch.no_grad():
                changes = [w * g for w, g in zip(projections, gradients)]
                scores = [_score(*parts) for parts in zip(model.blocks, changes[::2], changes[1::2])]
                scores = [(groups.abs(), channels.abs()) for groups, channels in scores]
                totals = [(g + a, c + b) for (g, c), (a, b) in zip(totals, scores)] if totals else scores
    finally:
        model.train(was_training)
        for projection, yes in zip(projections, trained):
            projection.requires_grad_(yes)
    if not totals:
        raise ValueError("the batches hold nothing to judge heads by; give some (idx, targets), or None.")
    return totals
