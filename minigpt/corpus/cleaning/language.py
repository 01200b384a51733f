"""Which language a text is in, by its script and its short words, and a rule that keeps the languages wanted.

Between a third and a half of running text are words such as "the" and "of", and no two languages share many of them.
The lists are in languages.toml. A text of two dozen words is enough; one of three may stay unknown.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
import tomllib
import unicodedata
from collections import Counter
from dataclasses import dataclass

WINDOW = 1500  # characters looked at in the beginning, the middle and the end of a text
WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
SCRIPTS = (
    ("ja", "\u3040-\u30ff"),  # kana: before Han characters, which Japanese has as well
    ("zh", "\u3400-\u4dbf\u4e00-\u9fff"),
    ("ko", "\u1100-\u11ff\uac00-\ud7af"),
    ("ru", "\u0400-\u04ff"),
    ("el", "\u0370-\u03ff\u1f00-\u1fff"),
    ("he", "\u0590-\u05ff"),
    ("ar", "\u0600-\u06ff"),
    ("hi", "\u0900-\u097f"),
    ("th", "\u0e00-\u0e7f"),
)
BEYOND_LATIN = re.compile("[\u0370-\u1eff\u2c00-\uffff]")
MIN_SCORE = 1.5  # words of its own that a language must show, a shared one counting in part
MIN_WORDS = 2  # different ones
MIN_SHARE = 0.1  # of all words: running text has three times that, a list of names has less
CLEAR_SHARE = 0.12  # of words that no other language has: nothing else needs to be looked at


@functools.cache
def _all_short_words() -> dict[str, frozenset[str]]:
    content = (
        importlib.resources.files("minigpt.corpus.cleaning").joinpath("languages.toml").read_text(encoding="utf-8")
    )
    return {language: frozenset(words.split()) for language, words in tomllib.loads(content).items()}


def short_words(language: str) -> frozenset[str]:
    """The commonest short words of a language by its code; none for one that is not in languages.toml."""
    return _all_short_words().get(language, frozenset())


@functools.cache
def _weights() -> dict[str, tuple[tuple[str, float], ...]]:
    """Word -> the languages it is common in, each with its weight: one, shared among them."""
    languages: dict[str, list[str]] = {}
    for language, words in _all_short_words().items():
        for word in words:
            languages.setdefault(word, []).append(language)
    return {word: tuple((language, 1 / len(known)) for language in known) for word, known in languages.items()}


@functools.cache
def _own_words(languages: tuple[str, ...]) -> frozenset[str]:
    """Words that these languages have and no other."""
    words = _all_short_words()
    others = frozenset().union(*(words[language] for language in words if language not in languages))
    return frozenset().union(*(words.get(language, frozenset()) for language in languages)) - others


def _sample(text: str) -> str:
    if len(text) > 3 * WINDOW:
        middle = (len(text) - WINDOW) // 2
        text = " ".join((text[:WINDOW], text[middle : middle + WINDOW], text[-WINDOW:]))
    if "://" in text or "@" in text or "#" in text:  # links and names are in no language
        text = " ".join(word for word in text.split() if "://" not in word and word[0] not in "@#")
    return unicodedata.normalize("NFC", text).lower()


def find_language(text: str) -> str | None:
    """The ISO 639-1 code of the language that most of a text is in, or None where there is too little to tell by.

    A script stands for its most written language: Cyrillic letters for "ru".
    """
    sample = _sample(text)
    if BEYOND_LATIN.search(sample):
        letters = sum(map(str.isalpha, sample))
        for language, characters in SCRIPTS:
            share = 0.1 if language == "ja" else 0.5
            if len(re.findall(f"[{characters}]", sample)) > share * letters:
                return language
    words = Counter(WORD.findall(sample))
    weights, scores = _weights(), Counter()
    for word, times in words.items():
        for language, weight in weights.get(word, ()):
            scores[language] += weight * times
    best = max(scores, key=scores.get, default=None)
    if best is None or scores[best] < max(MIN_SCORE, MIN_SHARE * words.total()):
        return None
    return best if len(words.keys() & _all_short_words()[best]) >= MIN_WORDS else None


@dataclass(frozen=True)
class Language:
    """Drops a text that is in none of the languages wanted, by its short words or its script.

    A text of fewer than `min_words` words whose language cannot be told stays; a longer one without the short words of
    a wanted language goes. May damage: lists of names, tables, and verses with refrains in another language.
    """

    keep: tuple[str, ...] = ("en",)
    min_words: int = 30

    def __call__(self, text: str) -> str | None:
        """The reason why it goes, or None."""
        words = _sample(text).split()
        if sum(map(_own_words(self.keep).__contains__, words)) > CLEAR_SHARE * len(words):
            return None
        language = find_language(text)
        if language is None and len(words) >= self.min_words:
            return "unknown language"
        return None if language is None or language in self.keep else f"language {language}"
