"""What a text classifier says while one types: a bar for each class, and what each word adds to the likeliest one.

What a word adds is the fall of that class's probability when the word is left out (Li et al. 2016, "Understanding neural
networks through representation erasure"). This module knows nothing of models: `predict` is given, texts (N) in,
probabilities (N, K) out, for K classes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
import numpy as np
from matplotlib.figure import Figure

from minigpt.lab.picture import COLOURS, Picture, draw
from minigpt.lab.widgets import NATURAL, WIDE, _show, _still, _text

Predict = Callable[[list[str]], Any]

MOST_WORDS = 60  # left out in turn; beyond that typing becomes slow
STRONGEST = 12  # words in the still picture
FOR, AGAINST = (0, 114, 178), (230, 159, 0)  # blue and orange of Okabe & Ito (2008)
FAINTEST = 0.1  # a change of the probability that is shown in full colour, unless a word changes more


class Verdict:
    """What a classifier says of one text: `probabilities` (K,), the `winner`, and what each of the first words `adds`.

    Raises:
        ValueError: no text, or no row of K probabilities for each text.
    """

    def __init__(self, predict: Predict, labels: Sequence[str], text: str, explain: bool = True):
        self.labels, self.words = labels, re.findall(r"\S+\s*", text)
        if not self.words:
            raise ValueError("Type some text for the classifier to judge.")
        tried = min(len(self.words), MOST_WORDS) if explain and len(self.words) > 1 else 0
        texts = ["".join(self.words), *("".join(self.words[:i] + self.words[i + 1 :]) for i in range(tried))]
        given = np.asarray(predict([each.strip() for each in texts]), dtype=float)  # (1 + tried, K)
        if given.shape != (len(texts), len(labels)):
            raise ValueError(
                f"predict gave an array of shape {given.shape} for {len(texts)} texts and {len(labels)} labels; "
                f"expected {(len(texts), len(labels))}: a row of class probabilities for each text."
            )
        self.probabilities = given[0]
        self.winner = int(given[0].argmax())
        self.adds = given[0, self.winner] - given[1:, self.winner]

    def bars(self) -> str:
        """The probability of each class as a bar, in HTML."""
        rows = []
        for i, (label, share) in enumerate(zip(self.labels, self.probabilities)):
            weight, colour = ("bold", COLOURS[0]) if i == self.winner else ("normal", "#8a8a8a")
            bar = f'<div style="width:{share:.1%};height:1em;background:{colour}"></div>'
            rows.append(
                f'<div style="display:flex;align-items:center;gap:.6em;font-weight:{weight}">'
                f'<div style="flex:0 0 9em;text-align:right">{html.escape(label)}</div>'
                f'<div style="flex:0 1 320px;background:#e6e6e6">{bar}</div><div>{share:.3f}</div></div>'
            )
        return "".join(rows)

    def coloured(self) -> str:
        """The text with a tint behind each word that was left out in turn, in HTML; the number is under the pointer."""
        full, marked = max(FAINTEST, np.abs(self.adds).max(initial=0)), []
        for i, piece in enumerate(self.words):
            word = piece.rstrip()
            shown = html.escape(word)
            if i < len(self.adds):
                style = f"background:{_tint(self.adds[i] / full)};border-radius:3px;padding:0 2px"
                shown = f'<span style="{style}" title="{self.adds[i]:+.3f}">{shown}</span>'
            marked.append(shown + piece[len(word) :])
        style = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;background:#fff;color:#111;padding:2px 4px"
        return f'<div style="{style}">{"".join(marked)}</div>'

    def legend(self) -> str:
        """What the colours mean, in words."""
        if not len(self.adds):
            return "With one word there is nothing to leave out; type a few more to see what each adds."
        label = html.escape(self.labels[self.winner])
        tried = f" The first {MOST_WORDS} of {len(self.words)} words are tried." * (len(self.words) > len(self.adds))
        return (
            f"{_swatch(FOR, 'Blue')}: without this word, {label} would be less likely. {_swatch(AGAINST, 'Orange')}: "
            f"without it, {label} would be more likely. Point at a word for the number.{tried}"
        )


def _tint(strength: float) -> str:
    """White at 0, blue towards 1, orange towards -1; always light enough for black letters."""
    mixed = (round(255 - 0.65 * abs(strength) * (255 - channel)) for channel in (FOR if strength > 0 else AGAINST))
    return f"rgb({','.join(map(str, mixed))})"


def _swatch(colour: tuple[int, int, int], name: str) -> str:
    tint = _tint(1 if colour is FOR else -1)
    return f'<span style="background:{tint};color:#111;border-radius:3px;padding:0 4px">{name}</span>'


class ConfidenceViewer:
    """A text of your own, and what a classifier says of it. See `confidence_viewer`."""

    def __init__(self, predict: Predict, labels: Sequence[str], text: str, explain: bool = True):
        self.predict, self.labels, self.explain = predict, list(labels), explain
        self.text = ipywidgets.Textarea(value=text, description="Text", layout=WIDE, rows=3, style=NATURAL)
        self.note, self.bars, self.words, self.legend = (ipywidgets.HTML(layout=WIDE) for _ in range(4))
        self.box = ipywidgets.VBox([self.text, self.note, self.bars, self.words, self.legend])
        self.text.observe(lambda _: self._draw(), names="value")  # a front end sends the newest text when we are free
        self._draw()

    def verdict(self) -> Verdict:
        """On the present text."""
        return Verdict(self.predict, self.labels, self.text.value, self.explain)

    def _draw(self) -> None:
        for part in (self.note, self.bars, self.words, self.legend):
            part.value = ""
        try:
            verdict = self.verdict()
        except ValueError as error:  # said in the widget, not as a traceback
            self.note.value = _text(str(error), "#D55E00")
            return
        self.bars.value = verdict.bars()
        if self.explain:
            self.words.value, self.legend.value = verdict.coloured(), verdict.legend()

    def picture(self) -> Picture:
        """The probabilities, and beside them the words that add or take the most."""
        verdict = self.verdict()
        strongest = sorted(np.argsort(-np.abs(verdict.adds), kind="stable")[:STRONGEST])  # in the order of the text

        rows = max(3, len(self.labels), len(strongest))

        def paint(figure: Figure) -> None:
            left, *right = figure.subplots(1, 1 + bool(strongest), squeeze=False)[0]
            colours = [COLOURS[0] if i == verdict.winner else "#8a8a8a" for i in range(len(self.labels))]
            _row_bars(left, self.labels, verdict.probabilities, colours, rows)
            left.set(xlim=(0, 1), xlabel="probability")
            for axes in right:
                colours = [np.array(FOR if verdict.adds[i] > 0 else AGAINST) / 255 for i in strongest]
                words = [verdict.words[i].strip()[:18] for i in strongest]
                _row_bars(axes, words, verdict.adds[strongest], colours, rows)
                axes.axvline(0, color="black", linewidth=0.8)
                axes.set_xlabel(f"what the word adds to {self.labels[verdict.winner]}")

        title = "What the classifier says, and the words that move it" if strongest else "What the classifier says"
        words = f"Confidence viewer. Bar chart of the probability of {', '.join(self.labels)}"
        words += ", and of what each word adds to the likeliest." if strongest else "."
        return draw(paint, title, words, size=(8, 0.7 + 0.28 * rows))


def _row_bars(axes: Any, names: Sequence[str], values: np.ndarray, colours: list[Any], rows: int) -> None:
    axes.barh(range(len(names)), values, color=colours)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(rows - 0.5, -0.5)  # the first on top, and bars as thick as those beside them
    axes.grid(axis="y", visible=False)


def confidence_viewer(predict: Predict, labels: Sequence[str], text: str, explain: bool = True) -> None:
    """Show what a classifier says of a text while one types, and with `explain` what each word adds to the likeliest class.

    Args:
        predict: texts (N) -> probabilities (N, K) as an array; with `explain` N is up to `MOST_WORDS` + 1.
        labels: the names of the K classes.
    """
    made = ConfidenceViewer(predict, labels, text, explain)
    _show(made.box, _still(made.picture))
