"""How much of what a model writes stands word for word in the text that it was trained on.

Lengths are characters. Some overlap is no memory: language repeats itself. So what the model wrote is set beside text of the
same kind that it has not read, as Carlini et al. set prompts beside fresh ones (Quantifying Memorization Across Neural
Language Models, 2023).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Memorisation(NamedTuple):
    """What was found: the longest copied passage, and how that compares with text which was not learned from.

    Attributes:
        passage: the longest part of the written text that the training text holds.
        length: its characters.
        usual: the longest such part of the held-out text.
        share: of the written characters that lie in a copied part longer than `usual`.
        spans: where those parts are, (start, end) each, in order and apart.
    """

    passage: str
    length: int
    usual: int
    share: float
    spans: list[tuple[int, int]]

    def __repr__(self) -> str:
        return (
            f"longest copy {self.length} characters, in text never read {self.usual}; {self.share:.0%} of what was written "
            "is copied at greater length than that"
        )


def copied_lengths(text: str, source: str) -> np.ndarray:
    """For each character of `text`, how far on from it the text stands word for word in `source`: (N,) characters.

    The matching statistics of Chang & Lawler (1994), by search: what begins one character later is at most one shorter.
    Each character costs a walk or two through the source: a second for a few thousand characters and 1 MB.
    """
    lengths, reach = np.zeros(len(text), dtype=np.int64), 0
    for start in range(len(text)):
        while start + reach < len(text) and text[start : start + reach + 1] in source:
            reach += 1
        lengths[start] = reach
        reach = max(0, reach - 1)
    return lengths


def memorisation(written: str, training: str, held_out: str) -> Memorisation:
    """Set what a model wrote beside its training text, and beside held-out text cut to the same length.

    Raises:
        ValueError: an empty text, or held-out text shorter than what was written, which would have fewer chances.
    """
    for name, text in (("written", written), ("training", training)):
        if not text:
            raise ValueError(f"the {name} text is empty: there is nothing to compare.")
    if len(held_out) < len(written):
        raise ValueError(
            f"{len(written):,} characters were written, and {len(held_out):,} are held out; give at least as many, so that "
            "both have the same chances to repeat something."
        )
    lengths = copied_lengths(written, training)
    usual = int(copied_lengths(held_out[: len(written)], training).max())
    start = int(lengths.argmax())
    spans: list[tuple[int, int]] = []
    for begin in np.flatnonzero(lengths > usual):
        end = int(begin + lengths[begin])
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((int(begin), end))
    share = sum(end - begin for begin, end in spans) / len(written)
    return Memorisation(written[start : start + lengths[start]], int(lengths[start]), usual, share, spans)
