"""Speculative decoding: a small model drafts some tokens, the large one reads them all at once and keeps what fits.

What is written has exactly the distribution of the large model alone (Leviathan et al. 2023, "Fast inference from
transformers via speculative decoding", algorithm 1). K drafted tokens, V = vocab_size. Token ids in, token ids out: this
module knows nothing of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.config import SampleConfig
from minigpt.decoder import Decoder, is_lean
from minigpt.generate import KVCache, check_prompt, next_token_probabilities, seeded
from minigpt.model import GPT


@dataclass(frozen=True)
class Speculation:
    """What was written, and how: `ids` with the prompt, tokens drafted and accepted, passes of the large model.

    Tokens that were accepted beyond a stop token count as well, though they are not in `ids`.
    """

    ids: list[int]
    drafted: int
    accepted: int
    passes: int

    @property
    def acceptance(self) -> float:
        """Share of the drafted tokens that the large model kept."""
        return self.accepted / max(1, self.drafted)


class _Reader:
    """A model with its cache, which can be taken back to an earlier token."""

    def __init__(self, model: GPT):
        self.model, self.cache, self.decoder = model, KVCache(model.config, 1), None

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Tensor:
        """Logits (V,) after each of `ids`, (len(ids), V); the cache has seen them then."""
        if self.decoder is not None and len(ids) == 1:
            return self.decoder(torch.tensor(ids))
        logits = self.model(torch.tensor([ids]), cache=self.cache)[0][0]  # (T, V)
        if self.decoder is None and is_lean(self.model):
            self.decoder = Decoder(self.model, self.cache)
        return logits

    def unread(self, ids: list[int]) -> list[int]:
        """What of the whole text the cache has not seen; at least the last token, which is then read again."""
        self.cache.length = min(self.cache.length, len(ids) - 1)
        return ids[self.cache.length :]


def accept(p: Tensor, q: Tensor, drafted: Sequence[int], random: Tensor) -> tuple[int, Tensor]:
    """How many drafted tokens are kept, and the distribution of the token after them.

    A token x is kept with probability min(1, p(x) / q(x)); at the first refusal the next token comes from what p has
    above q, normalised (theorem 1: the result is distributed as p).

    Args:
        p: the large model's probabilities at each place and after all, (K + 1, V).
        q: the small model's, which the tokens were drawn from, (K, V).
        drafted: the K tokens.
        random: uniform numbers, (K,).

    Returns:
        how many are kept, and the probabilities (V,) of the token after them.
    """
    for i, token in enumerate(drafted):
        if random[i] * q[i, token] >= p[i, token]:
            above = (p[i] - q[i]).clamp_(min=0)
            return i, above / above.sum()
    return len(drafted), p[len(drafted)]


def speculative_generate(model: GPT, draft: GPT, ids: Sequence[int], *, ahead: int = 4, **options: Any) -> Speculation:
    """Continue one prompt as `generate` does, in fewer passes of `model`: `draft` proposes up to `ahead` tokens for each.

    Both models are used in evaluation mode, on a CPU, and left in the mode that they were in. Options are the fields of
    `SampleConfig`; with temperature 0 the text is that of `generate`.

    Args:
        draft: a model with the same vocabulary, much faster than `model`.
        ahead: how many tokens are drafted for each pass of the large model.

    Raises:
        ValueError: vocabularies that differ, a model that is not on a CPU, ahead below 1, a repetition penalty, a
            text that outgrows the smaller context of the two, or as `generate`.
    """
    config = SampleConfig.make(**options)
    written = list(ids)
    context = min(model.config.context_length, draft.config.context_length)
    if model.config.vocab_size != draft.config.vocab_size:
        raise ValueError(
            f"the models have {model.config.vocab_size} and {draft.config.vocab_size} tokens; a draft is a text in the same "
            "tokens: use a model that was trained with the same tokenizer."
        )
    if not isinstance(ahead, int) or ahead < 1:
        raise ValueError(f"ahead={ahead!r} drafts nothing; use a whole number from 1, such as 4.")
    if config.repetition_penalty != 1:
        raise ValueError(
            "repetition_penalty changes with every token, and drafts are judged several at once; leave it at 1."
        )
    if any(next(each.parameters()).device.type != "cpu" for each in (model, draft)):
        raise ValueError("drafting is for models on a CPU; move both there, model.cpu(), or use generate.")
    check_prompt(written, model.config)
    if len(written) + config.max_new_tokens > context:
        raise ValueError(
            f"{len(written)} tokens and {config.max_new_tokens} new ones outgrow the context of {context}; ask for "
            f"max_new_tokens={max(0, context - len(written))} or fewer, or use generate, which reads the last half again."
        )
    modes = model.training, draft.training
    model.eval(), draft.eval()
    try:
        return _write(_Reader(model), _Reader(draft), written, ahead, config)
    finally:
        for each, mode in zip((model, draft), modes):
            each.train(mode)


def _write(model: _Reader, draft: _Reader, ids: list[int], ahead: int, config: SampleConfig) -> Speculation:
    generator = seeded(config)
    end, drafted, accepted, passes = len(ids) + config.max_new_tokens, 0, 0, 0
    while len(ids) < end:
        proposed: list[int] = []
        q = []
        for _ in range(min(ahead, end - len(ids) - 1)):  # the pass itself gives one more
            logits = draft.read(draft.unread(ids + proposed))[-1:]  # (1, V)
            q.append(next_token_probabilities(logits, config))
            proposed.append(int(torch.multinomial(q[-1], 1, generator=generator)))
        unread = model.unread(ids)
        logits = model.read(unread + proposed)[len(unread) - 1 :]  # (K + 1, V)
        p = next_token_probabilities(logits, config)
        random = torch.rand(len(proposed), generator=generator)
        kept, after = accept(p, torch.cat(q) if q else p[:0], proposed, random)
        new = [*proposed[:kept], int(torch.multinomial(after, 1, generator=generator))]
        drafted, accepted, passes = drafted + len(proposed), accepted + kept, passes + 1
        stop = next((i for i, token in enumerate(new) if token in config.stop_tokens), None)
        ids = ids + (new if stop is None else new[: stop + 1])
        if stop is not None:
            break
    return Speculation(ids, drafted, accepted, passes)
