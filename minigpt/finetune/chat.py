"""Conversations: what of them is learned (the answers), how they become batches, and how a model answers.

A conversation is a list of messages, {"role": ..., "content": ...}, laid out as `minigpt.chat_template` says. T tokens.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigpt.chat_template import CHAT_TOKENS, END, ROLES, START, Messages, chat_text, encode_chat
from minigpt.finetune.batches import Examples, pad
from minigpt.finetune.lora import lora_layers
from minigpt.generate import stream
from minigpt.interop import build, check_floats
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer, decode_pieces

IGNORED = -100


class _Turn(NamedTuple):
    """One message: its ids, and which of them an assistant wrote."""

    role: str
    ids: list[int]
    counts: list[bool]


def _encode_turns(tokenizer: BPETokenizer, messages: Messages) -> list[_Turn]:
    """The ids that `encode_chat` gives, message by message. White space around a message is left out."""
    opened = {
        role: encode_chat(tokenizer, [{"role": role, "content": ""}]) for role in ROLES
    }  # checks the tokenizer too
    chat_text(messages)  # checks the messages
    line_break, end = tokenizer.encode("\n"), tokenizer.special_tokens[END]
    turns = []
    for message, said in zip(messages, tokenizer.encode_batch([m["content"].strip() for m in messages])):
        opening = opened[message["role"]][: -1 - len(line_break)]
        told = message["role"] == "assistant"
        counts = [False] * len(opening) + [told] * (len(said) + 1) + [False] * len(line_break)
        turns.append(_Turn(message["role"], [*opening, *said, end, *line_break], counts))
    return turns


def _answers(turns: Sequence[_Turn]) -> tuple[list[int], list[int]]:
    ids, counts = (list(itertools.chain.from_iterable(part)) for part in zip(*((t.ids, t.counts) for t in turns)))
    return ids[:-1], [token if yes else IGNORED for token, yes in zip(ids[1:], counts[1:])]


def encode_answers(tokenizer: BPETokenizer, messages: Messages) -> tuple[list[int], list[int]]:
    """A conversation for training: its ids and, for each, the id that should follow, both T - 1 long for T ids.

    Only what the assistant says counts, its end-of-turn token included; all other targets are -100. White space around
    a message is left out, so that an answer begins as it does in `reply`. Errors as `encode_chat`, and ValueError for no
    message.
    """
    if not messages:
        raise ValueError("the conversation has no message; one of the user and one of the assistant are enough.")
    return _answers(_encode_turns(tokenizer, messages))


def _pieces(turns: Sequence[_Turn], context_length: int) -> Iterator[list[_Turn]]:
    """A long conversation as shorter ones that fit the context, cut after answers; nothing is said twice."""
    exchanges: list[list[_Turn]] = []
    for turn in turns:
        if turn.role != "assistant" and exchanges and exchanges[-1][-1].role == "assistant":
            exchanges.append([turn])
        elif exchanges:
            exchanges[-1].append(turn)
        else:
            exchanges.append([turn])
    piece: list[_Turn] = []
    for exchange in exchanges:
        if piece and sum(len(turn.ids) for turn in piece + exchange) > context_length + 1:
            yield piece
            piece = []
        piece += exchange
    if piece:
        yield piece


class ChatData(Examples):
    """Conversations as batches for the `Trainer`; the loss is on the answers alone.

    A conversation longer than the context is cut into shorter ones, between an answer and the next question. Where a
    single exchange is still too long its end is cut off, and a warning says how often.

    Raises:
        ValueError: no conversation, none with an answer, a bad message, or a tokenizer without the chat tokens.
    """

    def __init__(self, tokenizer: BPETokenizer, conversations: Sequence[Messages], context_length: int, seed: int = 0):
        self.context_length = context_length
        encoded = [
            _answers(piece)
            for messages in conversations
            for piece in _pieces(_encode_turns(tokenizer, messages), context_length)
        ]
        long = sum(len(ids) > context_length for ids, _ in encoded)
        if long:
            warnings.warn(
                f"{long} of {len(encoded)} pieces of conversation have more than {context_length} tokens without a place "
                "to cut; their ends are cut off.",
                stacklevel=2,
            )
        cut = [(ids[:context_length], targets[:context_length]) for ids, targets in encoded]
        self.rows = [row for row in cut if any(target != IGNORED for target in row[1])]
        if not self.rows:
            lost = " within the context: it is shorter than what comes before them" if long else ""
            raise ValueError(
                f"none of the {len(conversations)} conversations has an answer to learn from{lost}; a message of the role "
                f"'assistant' is one, and context_length={context_length} tokens are read of each piece."
            )
        super().__init__([len(ids) for ids, _ in self.rows], seed)

    def _take(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = [self.rows[i] for i in numbers]
        ids, targets = ([row[part] for row in rows] for part in (0, 1))
        return pad(ids, 0, self.context_length), pad(targets, IGNORED, self.context_length)


def fit_messages(tokenizer: BPETokenizer, messages: Messages, room: int) -> list[int]:
    """Ids that ask for the next answer, in at most `room` tokens: the oldest messages go first, a system message stays.

    White space around a message is left out, as in training. ValueError for a bad message, or where the last one alone is
    longer.
    """
    chat_text(messages)  # checks them
    messages = [{**message, "content": message["content"].strip()} for message in messages]
    system = [message for message in messages[:1] if message.get("role") == "system"]
    rest = list(messages[len(system) :])
    while True:
        ids = encode_chat(tokenizer, [*system, *rest], add_generation_prompt=True)
        if len(ids) <= room:
            return ids
        if len(rest) <= 1:
            raise ValueError(
                f"the last message takes {len(ids)} tokens, and {room} are left for it in the model's context; shorten it."
            )
        rest = rest[1:]


def add_chat_tokens(model: GPT, tokenizer: BPETokenizer) -> tuple[GPT, BPETokenizer]:
    """The same two with the tokens of the chat template, where they are missing (see `add_tokens`).

    The end of a turn begins as the line break, which ends one in most texts, so that a model knows at once where it may
    stand; the start begins as the mean of all rows, since no model is to write it.
    """
    for token, like in ((START, None), (END, "\n")):
        if token not in tokenizer.special_tokens:
            model, tokenizer = add_tokens(model, tokenizer, [token], like)
    return model, tokenizer


def add_tokens(
    model: GPT, tokenizer: BPETokenizer, tokens: Sequence[str], like: str | None = None
) -> tuple[GPT, BPETokenizer]:
    """A copy of both with more special tokens, and a new row for each in the table and the head.

    Args:
        like: the new rows begin as the mean of the rows of this text's tokens; None takes the mean of all rows, with which
            a new token is about as likely as an average one, and the other probabilities hardly move (Hewitt 2021).

    Raises:
        ValueError: a token that is there already, an empty `like`, a model with adapters, a quantized one, or one of
            another tokenizer.
    """
    check_floats(model, "what adds rows to the table")
    if any(lora_layers(model)):
        raise ValueError("the model has adapters; merge_lora(model) first.")
    if model.config.vocab_size < tokenizer.vocab_size:
        raise ValueError(
            f"the model has {model.config.vocab_size} tokens and the tokenizer {tokenizer.vocab_size}; they do not belong "
            "together. Open both from one checkpoint."
        )
    if like == "":
        raise ValueError("like='' has no token to begin from; name a text, or None for the mean of all rows.")
    wider = tokenizer.with_special_tokens(tokens)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name in ("token_embedding.weight", "head.weight"):
        known = weights[name][: tokenizer.vocab_size]  # a table may have more rows than there are tokens
        rows = known if like is None else known[tokenizer.encode(like)]
        new = rows.mean(dim=0, keepdim=True).expand(len(tokens), -1)
        weights[name] = torch.cat([known, new])  # (V + new, C)
    larger = build(model.config.replace(vocab_size=wider.vocab_size), weights).to(weights[name].device)
    return larger.train(model.training), wider


def reply(
    model: GPT, tokenizer: BPETokenizer, messages: Messages, *, max_new_tokens: int = 100, **options: Any
) -> Iterator[str]:
    """The model's answer to a conversation, in pieces of text as they are written, up to the end of its turn.

    When the conversation outgrows the context the oldest messages are left out; a system message stays.

    Args:
        options: fields of `SampleConfig`, such as temperature and seed.

    Raises:
        ValueError: a bad message, a last message longer than the context, or a tokenizer without the chat tokens.
    """
    context = model.config.context_length
    ids = fit_messages(tokenizer, messages, context - min(max_new_tokens, context // 2))
    ends = (
        *(tokenizer.special_tokens[token] for token in CHAT_TOKENS),
        tokenizer.eos_id,
        *options.pop("stop_tokens", ()),
    )
    stop = tuple(i for i in ends if i is not None)
    written = stream(model, ids, max_new_tokens=max_new_tokens, stop_tokens=stop, **options)
    yield from decode_pieces(tokenizer, (token for token in written if token not in stop))
