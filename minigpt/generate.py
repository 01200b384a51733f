"""Writing with a model: the key/value cache, the filters that shape the next token's distribution, and the loop.

B prompts, T new positions, S positions in the cache, V = vocab_size, L layers, G = n_kv_head, D = head_dim.
Token ids in, token ids out: this module knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.config import GPTConfig, SampleConfig
from minigpt.decoder import Decoder, is_lean
from minigpt.model import GPT


class KVCache:
    """Keys and values of the positions already read, so that a new token costs one position instead of all.

    `padding` (B,) tells how many columns on the left of each row are filling, for prompts of different lengths.
    """

    def __init__(
        self, config: GPTConfig, batch: int, padding: Tensor | None = None, device: str | torch.device = "cpu"
    ):
        self.config, self.batch, self.device = config, batch, torch.device(device)
        self.padding = padding if padding is not None and bool(padding.any()) else None
        self.length = 0  # S: columns filled so far
        self.keys: Tensor | None = None  # (L, B, G, context_length, D), once the first are known
        self.values: Tensor | None = None

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new positions' k, v (B, G, T, D) of one layer; give back all of them (B, G, S + T, D)."""
        if self.keys is None:
            shape = (self.config.n_layer, self.batch, k.size(1), self.config.context_length, k.size(3))
            self.keys, self.values = k.new_empty(shape), v.new_empty(shape)
        end = self.length + k.size(2)
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end].to(k.dtype), self.values[layer, :, :, :end].to(v.dtype)

    def widen(self) -> None:
        """Hold everything in fp32 from now on. What is not filled yet is not touched, and so takes no memory yet."""
        for name in ("keys", "values"):
            held = getattr(self, name)
            if held.dtype != torch.float32:
                setattr(self, name, torch.empty_like(held, dtype=torch.float32))
                getattr(self, name)[:, :, :, : self.length] = held[:, :, :, : self.length]

    def positions(self, new: int) -> Tensor:
        """Position numbers of the next `new` columns: (T,), or (B, T) when rows begin at different columns."""
        columns = torch.arange(self.length, self.length + new, device=self.device)
        return columns if self.padding is None else (columns - self.padding[:, None]).clamp(min=0)

    def mask(self, new: int) -> Tensor | None:
        """Which columns each new one may look at, (B or 1, 1, T, S + T); None where the causal default is right."""
        if self.padding is None and (self.length == 0 or new == 1):
            return None
        query = torch.arange(self.length, self.length + new, device=self.device)[:, None]  # (T, 1)
        key = torch.arange(self.length + new, device=self.device)[None]  # (1, S + T)
        allowed = (key <= query)[None, None]  # (1, 1, T, S + T)
        if self.padding is not None:
            real = key >= self.padding[:, None]  # (B, S + T)
            allowed = allowed & (real[:, None, None] | (key == query))  # a filling column sees itself: no empty softmax
        return allowed

    def advance(self, new: int) -> None:
        """Count `new` columns as read, once every layer has stored its own."""
        self.length += new


def filter_logits(logits: Tensor, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Minus infinity for tokens that may not be drawn. (B, V) -> (B, V).

    top_k keeps the k largest (Fan et al. 2018). top_p keeps the smallest set of likeliest tokens whose probabilities
    reach p (nucleus sampling, Holtzman et al. 2020); the likeliest token always stays.
    """
    if top_k is not None and top_k < logits.size(-1):
        smallest = logits.topk(top_k, dim=-1).values[:, -1:]  # (B, 1)
        logits = logits.masked_fill(logits < smallest, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True)
        probability = ordered.softmax(dim=-1)
        before = probability.cumsum(dim=-1) - probability  # mass of the tokens likelier than this one
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
        logits = torch.empty_like(logits).scatter(-1, order, ordered)
    return logits


def next_token_probabilities(logits: Tensor, config: SampleConfig, used: Tensor | None = None) -> Tensor:
    """The distribution that the next token is drawn from. logits (B, V), used (B, V) bool -> probabilities (B, V).

    The order is that of `transformers`: repetition penalty (Keskar et al. 2019, equation 2), temperature, top-k, top-p.
    """
    logits = logits.float()
    if config.repetition_penalty != 1 and used is not None:
        penalised = torch.where(logits > 0, logits / config.repetition_penalty, logits * config.repetition_penalty)
        logits = torch.where(used, penalised, logits)
    if config.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(dim=-1, keepdim=True), 1.0)
    return filter_logits(logits / config.temperature, config.top_k, config.top_p).softmax(dim=-1)


def seeded(config: SampleConfig) -> torch.Generator:
    """What tokens are drawn with: begun with `seed`, or with chance where that is None."""
    generator = torch.Generator()
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    return generator


def draw(logits: Tensor, config: SampleConfig, generator: torch.Generator, used: Tensor | None = None) -> Tensor:
    """The next token of each row, drawn from `next_token_probabilities`. logits (B, V) -> ids (B, 1)."""
    if config.temperature == 0 and used is None:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial(next_token_probabilities(logits, config, used), 1, generator=generator)


@torch.inference_mode()
def _read(model: GPT, tokens: Tensor, cache: KVCache) -> Tensor:
    """Logits (B, V) after the last of `tokens` (B, T)."""
    return model(tokens, cache=cache)[0][:, -1]


def _keep_last(tokens: Tensor, padding: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    dropped = max(0, tokens.size(1) - columns)
    return tokens[:, dropped:], (padding - dropped).clamp(min=0)


def check_prompt(ids: Sequence[int], config: GPTConfig) -> None:
    """ValueError for a prompt that no writing can start from: empty, longer than the context, ids outside the vocabulary."""
    if not ids:
        raise ValueError("the prompt is empty; begin with at least one token, such as the end-of-text token.")
    if len(ids) > config.context_length:
        raise ValueError(
            f"the prompt has {len(ids)} tokens and the model's context_length is {config.context_length}; "
            f"keep the end of it, ids[-{config.context_length}:], or train with a longer context."
        )
    outside = [token for token in ids if not 0 <= token < config.vocab_size]
    if outside:
        raise ValueError(
            f"token id {outside[0]} in the prompt lies outside the vocabulary 0 to {config.vocab_size - 1}; "
            "encode with the tokenizer that the model was trained with."
        )


def _decode(model: GPT, rows: list[list[int]], config: SampleConfig) -> Iterator[list[int]]:
    """One new token per row and step, for ever. When the context is full, its last half is read again and goes on."""
    context, device = model.config.context_length, next(model.parameters()).device
    longest = max(map(len, rows))
    padding = torch.tensor([longest - len(row) for row in rows])
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])  # (B, longest)
    generator = seeded(config)
    used = None
    if config.repetition_penalty != 1:
        used = torch.zeros(len(rows), model.config.vocab_size, dtype=torch.bool)
        for row, ids in zip(used, rows, strict=True):
            row[ids] = True
    cache, unread, written = KVCache(model.config, len(rows), padding.to(device), device), tokens, []
    was_training, decoder, lean = model.training, None, None
    model.eval()
    try:
        while True:
            if cache.length + unread.size(1) > context:
                tokens, padding = _keep_last(torch.cat([tokens, *written], dim=1), padding, max(1, context // 2))
                unread, written, decoder = tokens, [], None
                cache = KVCache(model.config, len(rows), padding.to(device), device)
            if cache.length and decoder is None and lean is not False:
                lean = is_lean(model, len(rows))
                decoder = Decoder(model, cache) if lean else None
            if decoder is not None:
                logits = decoder(unread[:, 0])
            else:
                logits = _read(model, unread.to(device), cache).cpu()
            unread = draw(logits, config, generator, used)
            if used is not None:
                used.scatter_(1, unread, True)
            written.append(unread)
            yield unread[:, 0].tolist()
    finally:
        model.train(was_training)


def stream(model: GPT, ids: Sequence[int], **options: Any) -> Iterator[int]:
    """New token ids after the prompt `ids`, one at a time as they are drawn. Options and errors as `generate`."""
    config = SampleConfig.make(**options)
    check_prompt(list(ids), model.config)
    steps = _decode(model, [list(ids)], config)
    for _, (token,) in zip(range(config.max_new_tokens), steps, strict=False):
        yield token
        if token in config.stop_tokens:
            return


def generate(model: GPT, idx: Tensor | Sequence[Sequence[int]], **options: Any) -> Tensor | list[list[int]]:
    """Continue each prompt by up to `max_new_tokens` tokens. Options are the fields of `SampleConfig`.

    Args:
        model: the model; used in evaluation mode, and left in the mode that it was in.
        idx: prompts of one length as a tensor (B, T), or a list of id lists of any lengths, read in one batch.

    Returns:
        For a tensor: ids (B, T + new); a row that met a stop token early is filled up with that token.
        For lists: a list of lists, prompt and continuation, each ending after its stop token.

    Raises:
        ValueError: an empty prompt, one longer than context_length, an id outside the vocabulary, an impossible option.
    """
    config = SampleConfig.make(**options)
    if isinstance(idx, Tensor) and idx.dim() != 2:
        raise ValueError(f"idx has shape {tuple(idx.shape)}; expected (B, T): put one prompt in as idx[None].")
    if not isinstance(idx, Tensor) and any(isinstance(row, int) for row in idx):
        raise ValueError("idx is one list of ids; expected a list of prompts: put one prompt in as [ids].")
    rows = idx.tolist() if isinstance(idx, Tensor) else [list(row) for row in idx]
    for row in rows:
        check_prompt(row, model.config)
    if not rows:
        return idx if isinstance(idx, Tensor) else []
    written = [list(row) for row in rows]
    done = [False] * len(rows)
    steps = _decode(model, rows, config)
    for _, step in zip(range(config.max_new_tokens), steps, strict=False):
        for i, token in enumerate(step):
            if not done[i]:
                written[i].append(token)
                done[i] = token in config.stop_tokens
        if all(done):
            break
    steps.close()
    if not isinstance(idx, Tensor):
        return written
    width = max(map(len, written))
    return torch.tensor([row + row[-1:] * (width - len(row)) for row in written], device=idx.device)
