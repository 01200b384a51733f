"""A generated text with the parts that stand word for word in the training text marked, by colour and by a line."""

from __future__ import annotations

import html
from collections.abc import Sequence
from itertools import pairwise

from minigpt.lab.plots import _shown

STYLE = "background:#f8dcc8;color:#111;text-decoration:underline;text-decoration-color:#D55E00;border-radius:3px"
PAPER = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.7;background:#fff;color:#111;padding:2px 4px"
MARKED, NONE = "stands word for word in the training text", "Nothing here stands word for word in the training text."


class Memorised:
    """A passage with its copied parts: underlined on a tint in HTML, in double brackets as text."""

    def __init__(self, passage: str, spans: list[tuple[int, int]], title: str):
        self.passage, self.spans, self.title = passage, spans, title
        share = sum(end - start for start, end in spans) / max(1, len(passage))
        self.share = f"{share:.0%} of the characters"

    def _parts(self) -> list[tuple[str, bool]]:
        """The passage cut up, each part with whether it is copied."""
        borders = [0, *(border for span in self.spans for border in span), len(self.passage)]
        return [(self.passage[start:end], bool(i % 2)) for i, (start, end) in enumerate(pairwise(borders))]

    def _repr_html_(self) -> str:
        def show(part: str, copied: bool) -> str:
            tip = f"{len(part)} characters, all of them in copied parts"
            return f'<u style="{STYLE}" title="{tip}">{html.escape(part)}</u>' if copied else html.escape(part)

        body = "".join(show(*part) for part in self._parts())
        legend = f'<u style="{STYLE}">Underlined</u>: {MARKED}, {self.share}.' if self.spans else NONE
        heading = f"<b>{html.escape(self.title)}</b>"
        return f'{heading}<div style="{PAPER}">{body}</div><div style="margin-top:.4em">{legend}</div>'

    def __repr__(self) -> str:
        body = "".join(f"[[{part}]]" if copied else part for part, copied in self._parts())
        legend = f"In [[double brackets]]: {MARKED}, {self.share}." if self.spans else NONE
        return f"{self.title}\n{body}\n{legend}".strip()


def memorised(passage: str, spans: Sequence[tuple[int, int]], title: str = "") -> Memorised:
    """A text with the characters of each span (start, end) marked as copied; spans that meet or overlap become one.

    Raises:
        ValueError: a span that does not lie in the passage, or is empty.
    """
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if not 0 <= start < end <= len(passage):
            raise ValueError(
                f"the span ({start}, {end}) does not lie in a passage of {len(passage)} characters; "
                "give the first character and the one after the last."
            )
        if joined and start <= joined[-1][1]:
            start, before = joined.pop()
            end = max(end, before)
        joined.append((start, end))
    return Memorised(passage, joined, title)


show_memorised = _shown(memorised)
