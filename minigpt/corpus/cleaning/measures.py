"""The numbers that quality rules look at, each counted once when it is first asked for.

Counting twice what may be counted once is most of the time that such rules take elsewhere; and most texts can be shown
to be harmless without counting their runs of words at all. Where a comment says so, a short cut is exact.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
import tomllib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from minigpt.corpus.dedup import hash_runs

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
BULLETS = ("•", "-", "*")
ELLIPSES = ("...", "…")
ENDS = (".", "?", "!", '"', "'", "”", "’", ":", ";")
LINK = re.compile(r"https?://\S++")
SENTENCE_END = re.compile(r"[.!?](?=[\s\"'”’)\]]|$)")
PAIRS_OF, FEWEST_PAIRS = 4500, 30  # characters whose letter pairs are looked at; fewer pairs say nothing
OTHER, GOOD, ODD = 0, 1, 2


class Measures:
    """A text in numbers; shares are of 1. See `minigpt.corpus.cleaning.quality` for what is too much of each."""

    def __init__(self, text: str):
        self.text = text
        self.tokens = text.split()

    @functools.cached_property
    def counts(self) -> Counter[str]:
        """How often each word occurs; a word is what stands between white space."""
        return Counter(self.tokens)

    @functools.cached_property
    def line_list(self) -> list[str]:
        """The lines that are not empty, without their line breaks."""
        return [line for line in self.text.split("\n") if line]

    @property
    def words(self) -> int:
        """How many words there are, each counted as often as it occurs."""
        return len(self.tokens)

    @property
    def lines(self) -> int:
        """How many lines are not empty."""
        return len(self.line_list)

    @functools.cached_property
    def word_length(self) -> float:
        """Characters of a word, on average."""
        return sum(map(len, self.tokens)) / max(1, self.words)

    @functools.cached_property
    def symbols(self) -> float:
        """Hash signs for each word, or ellipses where they are more."""
        dots = self.text.count("...") + self.text.count("…")
        return max(self.text.count("#"), dots) / max(1, self.words)

    @functools.cached_property
    def with_letters(self) -> float:
        """Share of words with at least one letter."""
        without = sum(n for word, n in self.counts.items() if not (word.isalpha() or _has_letter(word)))
        return 1 - without / max(1, self.words)

    @functools.cached_property
    def stop_words(self) -> int:
        """How many of eight common English words occur."""
        return len(STOP_WORDS & self.counts.keys())

    @functools.cached_property
    def bullets(self) -> float:
        """Share of lines that begin with a bullet or a dash."""
        return sum(line.lstrip().startswith(BULLETS) for line in self.line_list) / max(1, self.lines)

    @functools.cached_property
    def ellipses(self) -> float:
        """Share of lines that end in an ellipsis."""
        return sum(line.rstrip().endswith(ELLIPSES) for line in self.line_list) / max(1, self.lines)

    @functools.cached_property
    def ended(self) -> float:
        """Share of lines that end in punctuation."""
        return sum(line.rstrip().endswith(ENDS) for line in self.line_list) / max(1, self.lines)

    @functools.cached_property
    def sentences(self) -> int:
        """How many full stops, exclamation and question marks stand before white space, a closing mark or the end."""
        return len(SENTENCE_END.findall(self.text))

    @functools.cached_property
    def odd_pairs(self) -> float:
        """Share of letter pairs that English words hardly have, in the beginning of the text."""
        text = self.text[:PAIRS_OF]
        if "://" in text:
            text = LINK.sub(" ", text)
        letters = np.frombuffer(text.lower().encode("ascii", "replace"), np.uint8)
        kinds = np.bincount(_pair_kinds()[letters[:-1], letters[1:]], minlength=3)
        known = int(kinds[GOOD] + kinds[ODD])
        return float(kinds[ODD] / known) if known >= FEWEST_PAIRS else 0.0

    @functools.cached_property
    def repeated_lines(self) -> float:
        """Share of characters in lines that stood before."""
        return self._repeated(self.line_list)

    @functools.cached_property
    def repeated_paragraphs(self) -> float:
        """Share of characters in paragraphs that stood before."""
        return self._repeated(self.text.split("\n\n"))

    def _repeated(self, parts: Sequence[str]) -> float:
        distinct = set(parts)
        if len(distinct) == len(parts):
            return 0.0
        return (sum(map(len, parts)) - sum(map(len, distinct))) / len(self.text)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """(words,) characters of each, and one for the blank behind it."""
        return np.fromiter(map(len, self.tokens), np.int64, self.words) + 1

    @functools.cached_property
    def _numbers(self) -> np.ndarray:
        numbers = dict(zip(self.counts, range(1, 1 + len(self.counts))))
        return np.fromiter(map(numbers.__getitem__, self.tokens), np.uint64, self.words)

    def _runs(self, n: int) -> np.ndarray:
        """(words - n + 1,): a hash of each run of n words."""
        return hash_runs(self._numbers, n)

    @functools.cached_property
    def _heaviest(self) -> int:
        """Characters, with the blanks behind them, of the word that has the most in all its places."""
        return max((len(word) + 1) * times for word, times in self.counts.items())

    def _words_seen_before(self) -> int:
        return self.words - len(self.counts)

    def top_run(self, n: int, limit: float = 0.0) -> float:
        """Share of characters in the most frequent run of n words; or 0, found fast, where it must be below `limit`.

        Exact: each word of a run is at least as frequent as the run. So a run's share is at most n times that of the
        word that has the most characters in all its places together.
        """
        if self._words_seen_before() < n:  # exact as well: they are what a second run is made of
            return 0.0
        if n * self._heaviest < limit * len(self.text):
            return 0.0
        _, first, times = np.unique(self._runs(n), return_index=True, return_counts=True)
        ends = np.concatenate(([0], np.cumsum(self.lengths)))
        characters = (ends[first + n] - ends[first] - 1) * times * (times > 1)
        return float(min(1.0, characters.max() / len(self.text)))

    @functools.cached_property
    def repeated_runs(self) -> float:
        """Share of characters in runs of five words or more that stood before."""
        if self._words_seen_before() < 5:
            return 0.0
        runs = self._runs(5)
        _, first = np.unique(runs, return_index=True)
        if len(first) == len(runs):
            return 0.0
        again = np.ones(len(runs), bool)
        again[first] = False
        covered = np.convolve(again, np.ones(5)) > 0.5  # a run covers the five words that begin with it
        return float(self.lengths[covered].sum() / len(self.text))


def _has_letter(word: str) -> bool:
    return word.lower() != word.upper() or any(map(str.isalpha, word))


@functools.cache
def _pair_kinds() -> np.ndarray:
    """(256, 256): whether two bytes are a pair of letters, and an English one."""
    content = (
        importlib.resources.files("minigpt.corpus.cleaning").joinpath("letter_pairs.toml").read_text(encoding="utf-8")
    )
    kinds = np.full((256, 256), OTHER)
    kinds[ord("a") : ord("z") + 1, ord("a") : ord("z") + 1] = ODD
    for first, followers in tomllib.loads(content).items():
        kinds[ord(first), [ord(letter) for letter in followers]] = GOOD
    return kinds
