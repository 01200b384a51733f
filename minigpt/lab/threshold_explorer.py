"""A threshold of a quality rule to move: how many documents go by it, and which lie at the edge.

What it costs is seen in the tail of a histogram, so shares have a logarithmic axis; whether it is right, by reading.
"""

from __future__ import annotations

import html
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import ipywidgets
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minigpt.corpus.cleaning.measures import Measures
from minigpt.corpus.cleaning.quality import FEWEST_LINES, Quality
from minigpt.lab.picture import COLOURS, Picture, draw
from minigpt.lab.plots import _plain_log_ticks
from minigpt.lab.widgets import NATURAL, OWN_SIZE, WIDE, _show

MOST_DOCUMENTS, SEED, NEAREST, EXCERPT = 3000, 0, 5, 240  # of a corpus; the draw; shown below; letters of each
COUNTS, LONG = {"words", "sentences", "stop_words"}, {"words", "sentences", "word_length"}  # LONG: a log axis
ROOM = ipywidgets.Layout(width="97%", max_width="620px")  # as wide as a picture and its legend, or less
BELOW = 'style="margin-top:.3em;line-height:1.35;overflow-wrap:anywhere"'
OURS = Quality()


class _Rule(NamedTuple):
    """A field of `Quality` that is one number, for one of the `Measures`; it may look at long documents alone."""

    name: str
    reason: str
    axis: str
    size: str = "words"
    fewest: int = 0  # of words or lines in a document that is looked at

    @property
    def measure(self) -> str:
        return self.name[4:]  # words of min_words

    @property
    def is_least(self) -> bool:
        return self.name.startswith("min_")

    def value(self, m: Measures) -> float:
        return float(getattr(m, self.measure)) if getattr(m, self.size) >= self.fewest else np.nan


def _rules(quality: Quality) -> dict[str, _Rule]:
    """Those that this Quality applies, by name."""
    lines, said = ("lines", FEWEST_LINES), "share of characters in"
    rules = (
        _Rule("min_words", "too few words", "words in the document"),
        _Rule("max_words", "too many words", "words in the document"),
        _Rule("min_word_length", "words too short", "characters of a word, on average"),
        _Rule("max_word_length", "words too long", "characters of a word, on average"),
        _Rule("max_symbols", "too many symbols", "hash signs or ellipses for each word"),
        _Rule("min_with_letters", "too few words with letters", "share of words with a letter"),
        _Rule("min_stop_words", "too few stop words", "stop words that occur, of 8", "words", quality.stop_words_from),
        _Rule("max_odd_pairs", "keyboard mash", "share of letter pairs that English hardly has"),
        _Rule("max_bullets", "too many bullets", "share of lines that begin with a bullet", *lines),
        _Rule("max_ellipses", "too many ellipses", "share of lines that end in an ellipsis", *lines),
        _Rule("min_ended", "lines without an end", "share of lines that end in punctuation", *lines),
        _Rule("min_sentences", "too few sentences", "sentences in the document"),
        _Rule("max_repeated_lines", "repeated lines", f"{said} lines said before", *lines),
        _Rule("max_repeated_paragraphs", "repeated paragraphs", f"{said} paragraphs said before", *lines),
        _Rule("max_repeated_runs", "repeated runs of words", f"{said} runs said before", "words", quality.runs_from),
    )
    return {rule.name: rule for rule in rules if getattr(quality, rule.name) is not None}


class MeasuredCorpus:
    """At most `MOST_DOCUMENTS` texts, and for each rule their `values`; NaN where the rule does not look at one."""

    def __init__(self, name: str, texts: Sequence[str], rules: Mapping[str, _Rule]):
        if isinstance(texts, str):
            raise ValueError(f"the corpus {name!r} is one text; pass a list of texts, a document each.")
        if not texts:
            raise ValueError(f"the corpus {name!r} has no document, so there is nothing to measure; leave it out.")
        self.name, self.size = name, len(texts)  # the size before a sample is drawn
        self.texts = random.Random(SEED).sample(list(texts), min(self.size, MOST_DOCUMENTS))
        rows = [[rule.value(measures) for rule in rules.values()] for measures in map(Measures, self.texts)]
        self.values = dict(zip(rules, np.array(rows).T))
        self.seen = {name: values[~np.isnan(values)] for name, values in self.values.items()}


class ThresholdExplorer:
    """The thresholds of a `Quality`, each with a slider, over several corpora. See `threshold_explorer`."""

    def __init__(self, corpora: Mapping[str, Sequence[str]], quality: Quality):
        self.rules = _rules(quality)
        if not corpora:
            raise ValueError("there is no corpus to look at; pass a dict of names and lists of texts.")
        if not self.rules:
            raise ValueError("this Quality has no threshold to move; set one, such as Quality(min_words=4).")
        self.corpora = [MeasuredCorpus(name, texts, self.rules) for name, texts in corpora.items()]
        named = [(f"{rule.reason} ({name})", name) for name, rule in self.rules.items()]
        self.chosen = ipywidgets.Dropdown(options=named, description="Rule", style=NATURAL)
        self.sliders = {name: self._slider(rule, getattr(quality, name)) for name, rule in self.rules.items()}
        self.place, self.image = ipywidgets.VBox(), ipywidgets.Image(format="png", layout=OWN_SIZE)
        self.about, self.shares, self.edge = (ipywidgets.HTML(layout=WIDE) for _ in range(3))
        self.box = ipywidgets.VBox([self.chosen, self.about, self.place, self.image, self.shares, self.edge])
        for control in (self.chosen, *self.sliders.values()):
            control.observe(lambda _: self._draw(), names="value")
        self._draw()

    def _slider(self, rule: _Rule, start: float) -> ipywidgets.SelectionSlider:
        values = np.concatenate([[start], *(corpus.seen[rule.name] for corpus in self.corpora)])
        options = [(f"{stop:,.7g}", stop) for stop in _stops(rule, values, start)]
        look = {"description": "Threshold", "style": NATURAL, "layout": ROOM}
        return ipywidgets.SelectionSlider(options=options, value=start, continuous_update=False, **look)

    def goes(self, corpus: MeasuredCorpus) -> np.ndarray:
        """Which documents would go by the chosen rule alone, at the threshold that its slider has."""
        values, threshold = corpus.values[self.chosen.value], self.sliders[self.chosen.value].value
        return values < threshold if self.rules[self.chosen.value].is_least else values > threshold

    def picture(self) -> Picture:
        """What the chosen rule measures in each corpus, and its threshold."""
        rule, slider = self.rules[self.chosen.value], self.sliders[self.chosen.value]
        which = f"documents\nof {rule.fewest} {rule.size} or more" if rule.fewest else "documents"
        whole, low = rule.measure in COUNTS, 0.5 if rule.measure in LONG else -0.5  # no zero on a logarithmic axis
        edges = (np.array([stop for _, stop in slider.options]) - 0.5 * whole).clip(low)  # between two counts,
        line = np.clip(slider.value + whole * (-0.5 if rule.is_least else 0.5), edges[0], edges[-1])  # as the line is

        def paint(figure: Figure) -> None:
            axes = figure.subplots()
            floor = 0.5 / max(len(corpus.texts) for corpus in self.corpora)
            for corpus, colour in zip(self.corpora, COLOURS * len(self.corpora)):
                seen, label = corpus.seen[rule.name], f"{corpus.name}: {self.goes(corpus).mean():.2%} go"
                heights = np.histogram(seen.clip(*edges[[0, -1]]), edges)[0] / max(1, len(seen))
                look = {"facecolor": (colour, 0.25), "edgecolor": colour, "linewidth": 1.4}
                axes.stairs(heights.clip(floor), edges, baseline=floor, fill=True, label=label, **look)
            axes.axvspan(line, edges[0 if rule.is_least else -1], color="#00000014", linewidth=0)
            axes.axvline(line, color="black", linestyle="--", linewidth=1.4, label=f"threshold: {slider.value:,.7g}")
            axes.set(yscale="log", ylim=(floor, 1.5), xlim=edges[[0, -1]], xlabel=rule.axis, ylabel=f"share of {which}")
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
            if rule.measure in LONG:
                axes.set_xscale("log")
                _plain_log_ticks(axes.xaxis)
            figure.legend(loc="outside right center")

        title = f"{'Left' if rule.is_least else 'Right'} of the line a document goes: {rule.reason}"
        words = f"Threshold explorer. Histogram of {rule.axis} in {', '.join(c.name for c in self.corpora)}, and the threshold."
        return draw(paint, title, words, size=(8, 3.2))

    def nearest(self, going: bool = True) -> list[tuple[str, float, str]]:
        """(corpus, value, text) of the documents nearest to the line, of those that go or stay; corpora take turns."""
        found = []
        for corpus in self.corpora:
            values = corpus.values[self.chosen.value]
            far = np.abs(values - self.sliders[self.chosen.value].value)
            far[np.isnan(values) | (self.goes(corpus) != going)] = np.inf
            order = np.argsort(far, kind="stable")[:NEAREST]
            found += [(far[i], turn, corpus.name, values[i], corpus.texts[i]) for turn, i in enumerate(order)]
        return [one[2:] for one in sorted(found, key=lambda one: one[:2])[:NEAREST] if one[0] < np.inf]

    def _draw(self) -> None:
        self.place.children = [self.sliders[self.chosen.value]]
        self.about.value = html.escape(Quality.describe()[self.chosen.value])
        self.image.value = self.picture().png
        self.shares.value = "".join(map(self._in_words, self.corpora))
        going = self.nearest()
        shown = f"<b>{'Of those that go' if going else 'No document goes. Of the others'}, nearest to the line:</b>"
        for corpus, value, text in going or self.nearest(going=False):
            text = " ".join(text[:EXCERPT].replace("\n", " ↵ ").split()) + "…" * (len(text) > EXCERPT)
            shown += f"<div {BELOW}><b>{html.escape(corpus)}, {value:,.4g}</b>: <code>{html.escape(text)}</code></div>"
        self.edge.value = shown

    def _in_words(self, corpus: MeasuredCorpus) -> str:
        rule, count, seen = self.rules[self.chosen.value], len(corpus.texts), len(corpus.seen[self.chosen.value])
        drawn = f" (drawn at random from {corpus.size:,})" * (count < corpus.size)
        asked = f"; {seen:,} have the {rule.fewest} {rule.size} that the rule asks for" * bool(rule.fewest)
        words = f"{self.goes(corpus).sum():,} of {count:,} documents go{drawn}{asked}."
        return f"<div {BELOW}><b>{html.escape(corpus.name)}</b>: {words}</div>"


def _stops(rule: _Rule, values: np.ndarray, start: float) -> list[float]:
    """Some fifty thresholds, `start` among them, a little beyond the values: the slider's, and the borders of bars."""
    low, high, whole = values.min(), values.max(), rule.measure in COUNTS
    if rule.measure in LONG:
        stops = np.geomspace(max(1, low), 1.2 * high + 1, 50).round(0 if whole else 1)
    else:
        margin = 1 if whole else max(0.1 * (high - low), 0.05)
        top = high + margin if whole or high > 1 else min(1, high + margin)
        stops = MaxNLocator(50, steps=[1, 2, 5, 10], integer=whole).tick_values(max(0, low - margin), top)
    stops = np.delete(stops, np.abs(stops - start).argmin())
    return sorted({int(stop) if whole else round(float(stop), 6) for stop in stops if stop >= 0} | {start})


def threshold_explorer(corpora: Mapping[str, Sequence[str]], quality: Quality = OURS) -> None:
    """Show the thresholds of a `Quality` over several corpora (name -> texts), one at a time and each to move.

    ValueError where a corpus has no document. Of one with more than `MOST_DOCUMENTS` a sample is measured.
    """
    made = ThresholdExplorer(corpora, quality)
    _show(made.box, made.picture())
