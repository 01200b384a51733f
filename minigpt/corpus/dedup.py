"""Text that is there twice: exact duplicates, near duplicates, and training text that the evaluation holds too.

A text is seen as the set of its shingles, the runs of n words in a row, and two texts are as alike as their sets: the
Jaccard similarity |A & B| / |A | B|. MinHash (Broder 1997) shortens a set to a signature whose places agree with just that
probability. Locality-sensitive hashing (Indyk & Motwani 1998) cuts signatures of b x r places into b bands and compares
only what shares a band. Both are the library `rensa`'s here, and every candidate is then compared in full.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash, RMinHashLSH

IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff"  # kana and Han characters are written without spaces: each is a word
WORD = re.compile(rf"[{IDEOGRAPHS}]|[^\W{IDEOGRAPHS}]+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads a product over its upper bits (Knuth, 6.4)
RECALL = 0.99  # of the pairs that are just alike enough, how many the bands must find
BATCH = 1000  # signatures made at once
SHOWN = 40  # characters of the document that stays, in the reason why another goes


def hash_runs(numbers: np.ndarray, n: int) -> np.ndarray:
    """A hash of every run of n of the numbers, (N,) uint64, that stand for words: (N - n + 1,) uint64."""
    runs = np.zeros(len(numbers) - n + 1, np.uint64)
    for k in range(n):
        runs = (runs + numbers[k : k + len(runs)]) * MULTIPLIER  # wraps at 2^64, as it should
        runs ^= runs >> np.uint64(32)
    return runs


def runs_of_words(text: str, n: int) -> np.ndarray:
    """A hash of every run of n words, in order: (words - n + 1,) uint64, and one of the whole where there are fewer.

    Case and punctuation do not count; a text without any word is one run. Equal on every machine and in every process.
    """
    words = WORD.findall(text.lower()) or [text]
    hashes = np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64)
    return hash_runs(hashes, min(n, len(words)))


def shingles(text: str, n: int = 5) -> np.ndarray:
    """The set of a text's runs of n words, as sorted, distinct 32-bit hashes."""
    found = np.sort((runs_of_words(text, n) >> np.uint64(32)).astype(np.uint32))
    return found[np.append(True, found[1:] != found[:-1])]  # np.unique makes a hash table: thirty times as slow


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """|A & B| / |A | B| of two sets of shingles, from 0 to 1."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def chance_to_meet(similarity: float | np.ndarray, bands: int, rows: int) -> float | np.ndarray:
    """The chance that two texts share a band: 1 - (1 - s^r)^b (Leskovec, Rajaraman & Ullman 2020, section 3.4.2)."""
    return 1 - (1 - similarity**rows) ** bands


def bands_for(threshold: float, num_hashes: int = 128) -> tuple[int, int]:
    """(bands, rows): the longest bands, and so the fewest chance meetings, that find 99 % of pairs at the threshold."""
    for rows in range(num_hashes, 0, -1):
        bands = num_hashes // rows
        if chance_to_meet(threshold, bands, rows) >= RECALL:
            return bands, rows
    raise ValueError(
        f"{num_hashes} hashes cannot find pairs of similarity {threshold} reliably; use more, or a higher threshold."
    )


class ExactDuplicates:
    """Drops a document that an earlier one equals, but for case, white space and how its characters are encoded.

    What it may damage: texts that differ in capitals or layout alone, such as two versions of a program, are one.
    """

    def sketch(self, texts: Sequence[str]) -> list[bytes]:
        """A digest of 16 bytes of each text, in small letters and with single spaces."""
        return [self._digest(text) for text in texts]

    def _digest(self, text: str) -> bytes:
        normal = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        return hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def judge(self) -> Callable[[Sequence[bytes]], list[str | None]]:
        """A judge of digests, in order: "duplicate" for one that it has seen, None for a new one, which it remembers."""
        seen: set[bytes] = set()

        def verdict(digest: bytes) -> str | None:
            if digest in seen:
                return "duplicate"
            seen.add(digest)
            return None

        return lambda sketches: list(map(verdict, sketches))


@dataclass(frozen=True)
class NearDuplicates:
    """Drops a document whose Jaccard similarity to an earlier one that stays reaches `threshold`.

    Each is compared with those that stay, never with those that went: no chain of small changes leads from one text
    to a quite different one. Keeps about 2 kB and 4 bytes a word of every document that stays.

    What it may damage: forms and formulas, such as weather reports, that differ in the few words that matter. What it
    cannot see: one changed word takes `n` shingles along, so a pair of texts below some 40 words may fall short. To keep
    the longest of each group and not the first, sort the corpus by length before.
    """

    threshold: float = 0.7
    n: int = 5
    num_hashes: int = 128

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold={self.threshold} is no similarity; use a number above 0, at most 1, as 0.7.")
        if self.n < 1:
            raise ValueError(f"n={self.n} words make no shingle; use 1 or more, as 5.")
        bands_for(self.threshold, self.num_hashes)

    def sketch(self, texts: Sequence[str]) -> list[tuple[np.ndarray, str]]:
        """Of each text its shingles, (shingles,) uint32, and how it begins, for the reason why another goes."""
        return [(shingles(text, self.n), " ".join(text[: 2 * SHOWN].split())[:SHOWN]) for text in texts]

    def judge(self) -> Callable[[Sequence[tuple[np.ndarray, str]]], list[str | None]]:
        """A judge of sketches, in order: what earlier document each is too much like, or None; those it remembers."""
        bands, rows = bands_for(self.threshold, self.num_hashes)
        index = RMinHashLSH(self.threshold, bands * rows, bands)
        kept: list[tuple[np.ndarray, str]] = []

        def verdict(sketch: tuple[np.ndarray, str], signature: RMinHash) -> str | None:
            for number in sorted(index.query(signature)):
                similarity = jaccard(sketch[0], kept[number][0])
                if similarity >= self.threshold:
                    return f"near duplicate: {similarity:.2f} like the one that begins {kept[number][1]!r}"
            index.insert(len(kept), signature)
            kept.append(sketch)
            return None

        def judge(sketches: Sequence[tuple[np.ndarray, str]]) -> list[str | None]:
            reasons: list[str | None] = []
            for first in range(0, len(sketches), BATCH):
                batch = sketches[first : first + BATCH]
                tokens = [found.view("V4").tolist() for found, _ in batch]  # a shingle's four bytes
                reasons += map(verdict, batch, RMinHash.from_token_sets(tokens, bands * rows, 0))
            return reasons

        return judge


class Decontaminate:
    """Drops a document that shares more than `allowed` of its words with the evaluation texts, in runs of n words.

    The rule of Brown et al. (2020, appendix C): n is the length of a short evaluation text (the 5th percentile), at least 8
    and at most 13 words, so that a meeting by chance is rare. Evaluation texts of fewer than n words are not seen.

    What it may damage: texts that quote what the evaluation quotes too (laws, verses, licences).
    """

    def __init__(self, against: Iterable[str], n: int | None = None, allowed: float = 0.0):
        if isinstance(against, str):
            raise ValueError("against is one text; give a list of evaluation texts, such as val_dataset['text'].")
        texts = list(against)
        if not texts:
            raise ValueError("against holds no text; there is nothing to keep the training text apart from.")
        if not 0 <= allowed < 1:
            raise ValueError(f"allowed={allowed} must be a share of words from 0 up to, not including, 1.")
        lengths = [len(WORD.findall(text)) for text in texts]
        self.n = int(np.clip(np.percentile(lengths, 5), 8, 13)) if n is None else n
        self.allowed = allowed
        runs = [runs_of_words(text, self.n) for text, length in zip(texts, lengths) if length >= self.n]
        if not runs:
            raise ValueError(f"no text in against has {self.n} words; give longer texts, or n={max(lengths)} and less.")
        self.runs = np.unique(np.concatenate(runs))

    def share(self, text: str) -> float:
        """The share of a text's words, from 0 to 1, that stand in a run of n words which the evaluation texts hold."""
        runs = runs_of_words(text, self.n)
        places = np.searchsorted(self.runs, runs).clip(max=len(self.runs) - 1)
        found = self.runs[places] == runs
        if not found.any():
            return 0.0
        covered = np.convolve(found, np.ones(self.n)) > 0.5  # a run covers the n words that begin with it
        return float(covered.mean())

    def __call__(self, text: str) -> str | None:
        share = self.share(text)
        return f"in the evaluation: {share:.1%} of its words" if share > self.allowed else None
