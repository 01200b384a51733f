"""Rules of thumb for text that is not worth reading: too short, too few words in it, too much of it said twice.

The rules are those of Gopher (Rae et al. 2021, appendix A.1) and C4 (Raffel et al. 2020, section 2.2), with thresholds for
what this course reads: plays, speeches, conversations and tweets. `Quality.gopher()` has the paper's, made for web pages.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

from minigpt.corpus.cleaning.measures import Measures

FEWEST_LINES = 4  # a share of fewer lines says nothing


def _field(default: Any, doc: str, source: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc, "source": source})


@dataclass(frozen=True)
class Quality:
    """Drops a text that crosses a threshold, and says which. None switches a rule off.

    Each field says in `describe()` what it is about, and its source; where the value here differs from the paper's, it
    lies beyond all but about one in a thousand documents of the clean corpora of this course. May damage: lists, tables,
    poems with a refrain, code, text in other languages.
    """

    min_words: int | None = _field(4, "Words, at least.", "Gopher: 50, for web pages")
    max_words: int | None = _field(None, "Words, at most.", "Gopher: 100,000; here a book may be one document")
    min_word_length: float | None = _field(2.0, "Mean characters of a word, at least.", "Gopher: 3; chats have 2.5")
    max_word_length: float | None = _field(15.0, "Mean characters of a word, at most.", "Gopher: 10; tweets hold links")
    max_symbols: float | None = _field(
        0.7, "Hash signs or ellipses for each word.", "Gopher: 0.1; tweets have hashtags"
    )
    min_with_letters: float | None = _field(0.5, "Share of words with a letter.", "Gopher: 0.8; tweets have less")
    min_stop_words: int | None = _field(2, "Of the, be, to, of, and, that, have, with: how many occur.", "Gopher: 2")
    stop_words_from: int = _field(
        100, "Words from which on stop words are counted.", "Gopher: 50; a chat may lack them"
    )
    max_bullets: float | None = _field(0.9, "Share of lines that begin with a bullet or a dash.", "Gopher: 0.9")
    max_ellipses: float | None = _field(0.5, "Share of lines that end in an ellipsis.", "Gopher: 0.3; chats have more")
    max_repeated_lines: float | None = _field(0.2, "Share of characters in lines said before.", "Gopher, table A1: 0.2")
    max_repeated_paragraphs: float | None = _field(0.2, "The same of paragraphs.", "Gopher, table A1: 0.2")
    max_top_runs: tuple[float, ...] | None = _field(
        (0.2, 0.18, 0.16), "Share of characters in the most frequent run of 2, 3, 4 words.", "Gopher, table A1"
    )
    max_repeated_runs: float | None = _field(
        0.15, "Share of characters in runs of five words said before.", "Gopher, table A1: 0.15; 6 to 10 words left out"
    )
    runs_from: int = _field(50, "Words from which on runs of words are counted.", "Gopher sees no shorter text")
    max_odd_pairs: float | None = _field(
        0.25, "Share of letter pairs that English hardly has: keyboard mash.", "ours; one tweet in a thousand has 0.23"
    )
    placeholder: str | None = _field("lorem ipsum", "A phrase that marks text to be replaced.", "C4")
    min_sentences: int | None = _field(None, "Sentences, at least.", "C4: 5; here a speech of one line is a text")
    max_curly: int | None = _field(
        None, "Curly brackets, at most: a sign of code.", "C4: 0; a chat may have a smile {:"
    )
    min_ended: float | None = _field(
        None, "Share of lines that end in punctuation.", "C4 keeps no other; verse has 0.1"
    )

    @classmethod
    def gopher(cls) -> Self:
        """The thresholds of Rae et al. (2021), for web pages."""
        return cls(
            min_words=50,
            max_words=100_000,
            min_word_length=3.0,
            max_word_length=10.0,
            max_symbols=0.1,
            min_with_letters=0.8,
            max_ellipses=0.3,
            max_odd_pairs=None,
            placeholder=None,
        )

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Field -> what it is about, and where its value comes from."""
        return {f.name: f"{f.metadata['doc']} ({f.metadata['source']})" for f in dataclasses.fields(cls)}

    def __call__(self, text: str) -> str | None:
        """The rule that the text breaks first, with its value and the threshold; or None."""
        return self.judge(Measures(text))

    def judge(self, m: Measures) -> str | None:
        """The same for a text that is measured already. What is counted fast is looked at first."""
        return (
            _below("too few words", m.words, self.min_words)
            or _above("too many words", m.words, self.max_words)
            or _below("words too short", m.word_length, self.min_word_length)
            or _above("words too long", m.word_length, self.max_word_length)
            or _above("too many symbols", m.symbols, self.max_symbols)
            or self._by_phrases(m)
            or _above("keyboard mash", m.odd_pairs, self.max_odd_pairs)
            or (m.lines >= FEWEST_LINES and self._by_lines(m))
            or _below("too few words with letters", m.with_letters, self.min_with_letters)
            or (m.words >= self.stop_words_from and _below("too few stop words", m.stop_words, self.min_stop_words))
            or (m.words >= self.runs_from and self._by_runs(m))
            or None
        )

    def _by_phrases(self, m: Measures) -> str | None:
        if self.placeholder and self.placeholder in m.text.lower():
            return f"placeholder: {self.placeholder}"
        if self.max_curly is not None and m.text.count("{") > self.max_curly:
            return f"curly brackets: {m.text.count('{')} > {self.max_curly}"
        return None if self.min_sentences is None else _below("too few sentences", m.sentences, self.min_sentences)

    def _by_lines(self, m: Measures) -> str | None:
        return (
            _above("repeated lines", m.repeated_lines, self.max_repeated_lines)
            or _above("repeated paragraphs", m.repeated_paragraphs, self.max_repeated_paragraphs)
            or _above("bullets", m.bullets, self.max_bullets)
            or _above("lines end in ellipses", m.ellipses, self.max_ellipses)
            or (self.min_ended is not None and _below("lines without an end", m.ended, self.min_ended))
            or None
        )

    def _by_runs(self, m: Measures) -> str | None:
        for n, limit in enumerate(self.max_top_runs or (), start=2):
            reason = _above(f"one run of {n} words", m.top_run(n, limit), limit)
            if reason:
                return reason
        return (
            None if self.max_repeated_runs is None else _above("repeated runs", m.repeated_runs, self.max_repeated_runs)
        )


def _below(rule: str, value: float, least: float | None) -> str | None:
    return f"{rule}: {value:.3g} < {least}" if least is not None and value < least else None


def _above(rule: str, value: float, most: float | None) -> str | None:
    return f"{rule}: {value:.3g} > {most}" if most is not None and value > most else None
