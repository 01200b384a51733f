"""Augmentation in MB/s, each kind beside one walk of a plain regex over the same words: what `minigpt bench augment` prints.

To change words one must find them, so the walk is the limit. Both are measured in one run, in CPU seconds of one core.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from minigpt.bench.clean import documents
from minigpt.corpus import is_cached
from minigpt.corpus.augment import KINDS, augment

WALK = re.compile(r"\w+")
TIMES = 3  # of which the fastest counts


@dataclass(frozen=True)
class AugmentSpeed:
    """One line: megabytes of text a second, of a kind and of a regex that puts back each word that it finds."""

    kind: str
    mb_per_s: float
    regex_mb_per_s: float

    def __str__(self) -> str:
        share = self.mb_per_s / self.regex_mb_per_s
        return f"{self.kind:10} {self.mb_per_s:6.1f} MB/s   {share:.2f} times a plain regex ({self.regex_mb_per_s:.1f})"


def bench_augment(megabytes: float = 4.0, rate: float = 0.1) -> Iterator[AugmentSpeed]:
    """The speed of each kind, on documents of every source that is here. Synonyms only where WordNet is."""
    texts = documents(megabytes)["text"][:]
    size = sum(len(text.encode()) for text in texts) / 1e6
    walk = size / _fastest(lambda: [WALK.sub(lambda word: word[0], text) for text in texts])
    for kind in KINDS:
        if kind != "synonyms" or is_cached("wordnet"):
            augment(["once"], kind)  # loads what it needs
            yield AugmentSpeed(kind, size / _fastest(lambda kind=kind: augment(texts, kind, rate)), walk)


def _fastest(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(TIMES):
        started = time.process_time()
        work()
        seconds.append(time.process_time() - started)
    return max(1e-9, min(seconds))
