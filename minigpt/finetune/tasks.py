"""The three jobs of notebook 05 with their texts: sentiment, dialogue, code, each split so that nothing is learned from the test.

What the base model read is kept out of the test sets: held_out.toml lists what it has not read.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from datasets import Dataset

from minigpt.corpus import load_corpus

CLASSES = ("negative", "positive")
CLEAR = 0.5  # a mean rating closer to 0 than this says little
BASE = Path(__file__).resolve().parents[2] / "data" / "checkpoints" / "base"  # the model that the jobs begin from


class Parts(NamedTuple):
    """What is learned from, what settings are chosen on, and what is touched once."""

    train: Dataset
    val: Dataset
    test: Dataset


def _held_out(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("held_out.toml").read_text(encoding="utf-8"))[name]


def unread(name: str) -> list[str]:
    """The documents of a source that the base model has not read: what it has forgotten is measured on them.

    `name` is shakespeare, sotu, chitchat or python-stdlib. Raises FetchError where the text is not here.
    """
    dataset, known = load_corpus(name), _held_out(name)["held_out"]
    if name == "python-stdlib":
        return [text for text, module in zip(dataset["text"][:], dataset["module"][:]) if module in set(known)]
    return dataset.select(known)["text"][:]


def _parts(dataset: Dataset, val: int, test: int, seed: int) -> Parts:
    order = np.random.default_rng(seed).permutation(len(dataset))
    cuts = (order[val + test :], order[test : val + test], order[:test])
    return Parts(*(dataset.select(numbers) for numbers in cuts))


def sentiment(domain: str = "movie", clear: float = CLEAR, seed: int = 0) -> Parts:
    """Sentences with a `label`, 0 negative and 1 positive, whose mean rating is at least `clear` away from 0.

    A tenth is for choosing, and 15 % for the test. `domain` is movie, product, newspaper or tweet.

    Raises:
        ValueError: an unknown domain.
        FetchError: the text is not here, and cannot be fetched.
    """
    dataset = load_corpus("sentiment")
    domains, scores = np.array(dataset["domain"][:]), np.array(dataset["score"][:])
    if domain not in domains:
        raise ValueError(f"there is no domain {domain!r}; there are {', '.join(sorted(set(domains)))}.")
    rows = dataset.select(np.flatnonzero((domains == domain) & (np.abs(scores) >= clear) & (scores != 0)))
    return _parts(rows, round(0.1 * len(rows)), round(0.15 * len(rows)), seed)


def dialogue(trivia: float = 0.9, seed: int = 0) -> Parts:
    """Conversations as `messages`, with their `source`: chitchat of two strangers, and questions with a short answer.

    The chitchat that the base model has not read is shared out between choosing and test, half each; of the questions,
    a share of `trivia` is learned from and the rest is shared out likewise.
    """
    chat, questions = load_corpus("chitchat"), load_corpus("trivia")
    known = _held_out("chitchat")
    held_out, dropped = known["held_out"], set(known["dropped"])
    learned = sorted(set(range(len(chat))) - set(held_out) - dropped)
    order = np.random.default_rng(seed).permutation(len(questions))
    cut = round(trivia * len(questions))
    asked = (order[:cut], order[cut:][::2], order[cut:][1::2])
    talked: Sequence[Sequence[int]] = (learned, held_out[::2], held_out[1::2])
    return Parts(*(_messages(chat, talk, questions, ask) for talk, ask in zip(talked, asked)))


def _messages(chat: Dataset, talk: Sequence[int], questions: Dataset, ask: Sequence[int]) -> Dataset:
    parts = []
    for source, dataset, numbers in (("chitchat", chat, talk), ("trivia", questions, ask)):
        table = dataset.data.table.select(["messages"]).take(pyarrow.array(numbers))
        parts.append(table.append_column("source", pyarrow.array([source] * len(numbers))))
    return Dataset(pyarrow.concat_tables(part.cast(parts[0].schema) for part in parts))


def code(seed: int = 0) -> Parts:
    """Modules of this Python's standard library as `text`, split by module: no module is on two sides.

    The test is on modules that the base model has not read, by name, so that it is the same on every version of Python
    that has them.
    """
    dataset = load_corpus("python-stdlib")
    unread = set(_held_out("python-stdlib")["held_out"])
    modules = np.array([module not in unread for module in dataset["module"][:]])
    rest, test = dataset.select(np.flatnonzero(modules)), dataset.select(np.flatnonzero(~modules))
    parts = _parts(rest, round(0.03 * len(rest)), 0, seed)
    return Parts(parts.train, parts.val, test)
