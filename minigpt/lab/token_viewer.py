"""The same text as several tokenizers cut it, a colour for each token, side by side and live while one types.

Like the other widgets it is shown together with what it looks like at first: where no front end is attached, that is
what one sees.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import ipywidgets
from IPython.display import display

from minigpt.lab.widgets import NATURAL, WIDE, _show
from minigpt.tokenizer import BPETokenizer, Tokenizer
from minigpt.tokenizer_files import load_tokenizer

MOST_TOKENS = 600  # of one tokenizer; beyond that a page becomes slow
TINTS = ("#cfe3f2", "#f8dcc8", "#cdebdf", "#f0dae6")
FRAGMENTS = ("#d2d2d2", "#eaeaea")  # for tokens that hold only a part of a character


class Cut:
    """A text as one tokenizer cuts it: `ids` and `pieces`, or the `problem` that it has with the text."""

    def __init__(self, name: str, tokenizer: Tokenizer, text: str):
        self.name, self.ids, self.pieces, self.contents, self.problem = name, [], [], [], ""
        self.vocab_size, self.size = tokenizer.vocab_size, len(text.encode("utf-8", "surrogatepass"))
        try:
            self.ids = tokenizer.encode(text)
        except ValueError as error:  # a character that a character tokenizer has never seen
            self.problem = str(error)
            return
        shown = self.ids[:MOST_TOKENS]
        self.pieces = tokenizer.token_strings(shown)
        if isinstance(tokenizer, BPETokenizer):
            self.contents = tokenizer.token_bytes(shown)
        else:
            self.contents = [tokenizer.decode([i]).encode() for i in shown]

    @property
    def heading(self) -> str:
        """The name, how many tokens there are, and how many bytes each covers on average."""
        if not self.ids:
            return f"{self.name}, {self.vocab_size:,} tokens in its vocabulary"
        left_out = f", of which {MOST_TOKENS} are shown" if len(self.ids) > MOST_TOKENS else ""
        return f"{self.name}: {len(self.ids):,} tokens{left_out}, {self.size / len(self.ids):.2f} bytes each"

    def to_html(self) -> str:
        """The heading and a box for each token; its id and its bytes appear under the pointer."""
        if self.problem:
            body = f'<span style="color:#D55E00">{html.escape(self.problem)}</span>'
        else:
            body = "".join(map(self._box, range(len(self.pieces))))
        style = "font-family:monospace;line-height:1.6;margin-bottom:.7em"
        return f'<b>{html.escape(self.heading)}</b><div style="{style}">{body}</div>'

    def _box(self, i: int) -> str:
        tints = FRAGMENTS if _is_fragment(self.contents[i]) else TINTS
        style = f"background:{tints[i % len(tints)]};color:#111;border-radius:3px;padding:0 2px;margin:1px 1px"
        tip = f"id {self.ids[i]}, bytes {self.contents[i].hex(' ')}"
        piece = html.escape(self.pieces[i])
        box = f'<span style="{style};display:inline-block" title="{tip}">{piece}</span>'
        return f"{box}<br>" if piece.endswith("↵") else box

    def __str__(self) -> str:
        return f"{self.heading}\n{self.problem or '|'.join(self.pieces)}"


def _is_fragment(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return False


class Cuts:
    """One text under several tokenizers, as HTML and as plain text."""

    def __init__(self, tokenizers: Mapping[str, Tokenizer], text: str):
        self.cuts = [Cut(name, tokenizer, text) for name, tokenizer in tokenizers.items()]

    def _repr_html_(self) -> str:
        return "".join(cut.to_html() for cut in self.cuts)

    def __repr__(self) -> str:
        return "\n\n".join(map(str, self.cuts))

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Data and metadata by MIME type, as Jupyter wants them."""
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}, {}


class TokenViewer:
    """A text of your own under several tokenizers, and a box to add another from a file. See `token_viewer`."""

    def __init__(self, tokenizers: Mapping[str, Tokenizer], text: str):
        if not tokenizers:
            raise ValueError("there is no tokenizer to look at; pass a dict of names and tokenizers.")
        self.tokenizers = dict(tokenizers)
        self.text = ipywidgets.Textarea(value=text, description="Text", layout=WIDE, rows=5, style=NATURAL)
        self.path = ipywidgets.Text(
            description="Add a file", placeholder="path of a tokenizer.json, or of a folder with one", style=NATURAL,
            layout=ipywidgets.Layout(width="70%"),
        )  # fmt: skip
        self.add = ipywidgets.Button(description="Add", icon="plus", tooltip="Show the text under this tokenizer too")
        self.note = ipywidgets.HTML(layout=WIDE)
        self.view = ipywidgets.HTML(layout=WIDE)
        self.box = ipywidgets.VBox([self.text, ipywidgets.HBox([self.path, self.add]), self.note, self.view])
        self.text.observe(lambda _: self._draw(), names="value")
        self.add.on_click(lambda _: self._add())
        self._draw()

    def cuts(self) -> Cuts:
        """The present text under all tokenizers."""
        return Cuts(self.tokenizers, self.text.value)

    def _draw(self) -> None:
        self.view.value = self.cuts()._repr_html_()

    def _add(self) -> None:
        path = self.path.value.strip()
        try:
            if not path:
                raise ValueError("Type the path of a file first.")
            self.tokenizers[path] = load_tokenizer(path)
            self.note.value = ""
        except (ValueError, OSError) as error:  # said in the widget, not as a traceback
            self.note.value = f'<span style="color:#D55E00">{html.escape(str(error))}</span>'
        self._draw()


def token_viewer(tokenizers: Mapping[str, Tokenizer], text: str) -> None:
    """Show how each tokenizer cuts the text: type one of your own, and add a tokenizer file that you have."""
    made = TokenViewer(tokenizers, text)
    _show(made.box, made.cuts())


def show_cuts(tokenizers: Mapping[str, Tokenizer], text: str) -> None:
    """Show the same without the widget: only how each tokenizer cuts the text."""
    display(Cuts(tokenizers, text))
