"""Words replaced by what a model of our own would write there (after Kobayashi 2018), where WordNet knows no synonym.

A left-to-right model proposes words after the text before a gap, and says by the loss of all that follows how well each
goes on. It knows nothing of labels: after "a truly" it likes good as much as bad. So only nouns that name a person, a place,
a thing or a time are replaced, and by one of the same topic. B rows, T tokens of the longest, V = vocab_size.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.corpus.augment import WORD, begun, fitting
from minigpt.corpus.synonyms import Lexicon, lexicon
from minigpt.finetune.batches import pad
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

IGNORED = -100


class _Gap(NamedTuple):
    text: int
    piece: int
    before: list[int]
    after: list[int]
    topic: str
    others: list[str]


def _words_of_topics(tokenizer: Tokenizer, known: Lexicon) -> dict[str, dict[str, int]]:
    """topic -> word -> the id of the token that is a space and this whole word."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for word, ids in zip(known.topics, tokenizer.encode_batch([f" {word}" for word in known.topics])):
        if len(ids) == 1:
            found[known.topics[word]][word] = ids[0]
    if not found:
        raise ValueError(
            "no token of this tokenizer is a space and a whole noun; use a BPETokenizer of some thousand tokens, such as "
            "that of the base model: load_checkpoint(BASE)."
        )
    return found


def _logits(model: GPT, rows: Sequence[list[int]]) -> Tensor:
    """After each token of each row, (B, T, V), rows filled up on the right."""
    device = next(model.parameters()).device
    return model(pad(rows, 0, model.config.context_length).to(device))[0].float().cpu()


@torch.inference_mode()
def replace_in_context(
    model: GPT,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    rate: float = 0.1,
    seed: int = 0,
    candidates: int = 8,
    batch_size: int = 16,
    known: Lexicon | None = None,
) -> list[str]:
    """A copy of each text in which nouns are replaced by what the model finds likely there, never by themselves.

    Words for which `augment(texts, "synonyms")` has a partner are left to it: one after the other, each does what the
    other cannot. The model is left in the mode that it was in.

    Args:
        rate: the share of words that change, where there are as many nouns that may.
        candidates: how many words of the same topic, the likeliest after what stands before, are weighed by the loss of
            what follows (at most half a context of it). One of them is drawn by its probability.
        known: topics and partners of words; by default those of WordNet.

    Raises:
        ValueError: one text in place of several, a rate outside 0 to 1, candidates below 1, or a tokenizer of letters.
        FetchError: WordNet is needed, is not in the cache, and cannot be fetched.
    """
    if isinstance(texts, str):
        raise ValueError("texts is one str; put it into a list: [text].")
    if not 0 <= rate <= 1 or candidates < 1:
        raise ValueError(f"rate={rate} must lie between 0 and 1, and candidates={candidates} be 1 or more.")
    known = known or lexicon()
    words = _words_of_topics(tokenizer, known)
    pieces = [WORD.split(text) for text in texts]
    half, start = model.config.context_length // 2, [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    gaps = []
    for number, parts in enumerate(pieces):
        draw = begun(seed, "contextual", number)
        options = {i: _candidates(parts, i, words, known) for i in range(3, len(parts), 2)}
        for i in draw.some([i for i in options if options[i]], rate * (len(parts) // 2)):
            before = [*start, *tokenizer.encode("".join(parts[:i]).removesuffix(" "))][-half:]
            after = tokenizer.encode("".join(parts[i + 1 :]))[: half - 1]
            gaps.append(_Gap(number, i, before, after, known.topics[parts[i]], options[i]))
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(gaps), batch_size):
            some = gaps[first : first + batch_size]
            for gap, others in zip(some, _likeliest(model, some, words, candidates)):
                rows = [[*gap.before, words[gap.topic][other], *gap.after] for other in others]
                probability = _losses(model, rows, len(gap.before)).neg().softmax(dim=0)  # (B,)
                at = int((probability.cumsum(dim=0) < begun(seed, "contextual", gap.text, gap.piece).random()).sum())
                pieces[gap.text][gap.piece] = others[min(at, len(others) - 1)]
    finally:
        model.train(was_training)
    return ["".join(parts) for parts in pieces]


def _candidates(parts: Sequence[str], i: int, words: dict[str, dict[str, int]], known: Lexicon) -> list[str]:
    """The words of the same topic that may stand at place i by their neighbours; none where there are too few."""
    topic = known.topics.get(parts[i])
    if topic not in words or parts[i] in known.forms or parts[i - 1][-1:] != " ":
        return []
    return fitting(parts, i, "noun", [word for word in words[topic] if word != parts[i]], known)


def _likeliest(model: GPT, gaps: Sequence[_Gap], words: dict[str, dict[str, int]], n: int) -> Iterator[list[str]]:
    """For each gap its n likeliest candidates."""
    for row, gap in zip(_logits(model, [gap.before for gap in gaps]), gaps):
        scores = row[len(gap.before) - 1]  # (V,)
        yield sorted(gap.others, key=lambda other: -scores[words[gap.topic][other]].item())[:n]


def _losses(model: GPT, rows: Sequence[list[int]], first: int) -> Tensor:
    """The loss of each row from token `first` on, in nats, added up: (B,)."""
    targets = pad([row[1:] for row in rows], IGNORED, model.config.context_length)  # (B, T)
    logits = _logits(model, [row[:-1] for row in rows])  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none")
    return losses.view(targets.shape)[:, first - 1 :].sum(dim=1)  # (B,)
