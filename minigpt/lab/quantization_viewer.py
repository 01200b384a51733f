"""A model whose matrices are rounded live: fewer bits, fewer scales, a lower clip, and what that does to weights, loss and text.

B windows, T tokens. Everything is done to a copy (`rounded_copy`); the model that was given stays as it is.
"""

from __future__ import annotations

import html
import itertools
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from minigpt.evaluate import evaluate_loss
from minigpt.generate import generate
from minigpt.lab.picture import COLOURS, Picture, draw
from minigpt.lab.plots import WHOLE, _plain_log_ticks
from minigpt.lab.rounded_copy import Choice, RoundedCopy
from minigpt.lab.widgets import NATURAL, OWN_SIZE, ROW, WIDE, _show, _still, _text
from minigpt.model import GPT
from minigpt.quantize import grouped
from minigpt.quantize.rounding import Share
from minigpt.tokenizer import Tokenizer

CHOICES = {  # what a control may be set to
    "bits": tuple(range(2, 9)),
    "share": ("tensor", "row", 128, 64, 32),
    "clip": tuple(round(0.5 + 0.05 * i, 2) for i in range(11)),
    "everywhere": (False, True),
}
MOST_TOKENS, WRITTEN = 512, 40  # of the text, so that a change answers at once; of what the model writes
CORNER = 64  # rows and columns of the heat map: whole groups
PANELS, LINE, COLUMNS = 3.5, 0.185, 105  # inches of the panels and of a line of words, and its letters
MOST_LINES = 32  # levels drawn from bottom to top
START = {"bits": 4, "share": "row", "clip": 1.0, "everywhere": False}
HALF = ipywidgets.Layout(flex="1 1 300px", min_width="0", max_width="420px")
TINT = "#f8dcc8"  # behind what differs
BELOW = 'style="line-height:1.5;max-width:780px;overflow-wrap:anywhere"'


class Outcome(NamedTuple):
    """What a model does: its loss on the text in nats per token, and what it writes after the prompt."""

    loss: float
    written: str


class QuantizationViewer:
    """The controls, and what they do to a copy of the model. See `quantization_viewer`."""

    def __init__(
        self, model: GPT, tokenizer: Tokenizer, prompt: str, text: str, start: Mapping[str, Any] | None = None
    ):
        self.copy, self.tokenizer, self.prompt, self.text = RoundedCopy(model), tokenizer, prompt, text
        self.before = self.now = None  # `Outcome`s: of the model as it was given, and as it is rounded
        names = sorted(self.copy.weights, key=lambda name: not name.startswith("blocks."))  # the table last
        begin = {"matrix": names[0], **START, **(start or {})}
        for name, value in begin.items():
            allowed = {"matrix": tuple(names), **CHOICES}.get(name)
            if allowed is None:
                raise ValueError(f"start has {name!r}; it may have matrix, {', '.join(CHOICES)}.")
            if value not in allowed:
                raise ValueError(f"start has {name}={value!r}; choose one of {', '.join(map(str, allowed))}.")
        look = {"style": NATURAL, "layout": HALF}
        titles = [(self._title(name), name) for name in names]
        self.matrix = ipywidgets.Dropdown(options=titles, value=begin["matrix"], description="Matrix", **look)
        self.everywhere = ipywidgets.Checkbox(begin["everywhere"], description="all matrices so", indent=False, **look)
        self.bits = self._slider("Bits", CHOICES["bits"], begin["bits"])
        self.clip = self._slider("Clip, as a share of the largest", CHOICES["clip"], begin["clip"])
        self.share = ipywidgets.Dropdown(description="One scale for", **look)
        self.note, self.numbers, self.texts = (ipywidgets.HTML(layout=WIDE) for _ in range(3))
        self.image = ipywidgets.Image(format="png", layout=OWN_SIZE)
        rows = ((self.matrix, self.everywhere), (self.bits, self.share), (self.clip,))
        controls = [ipywidgets.HBox(row, layout=ROW) for row in rows]
        self.box = ipywidgets.VBox([*controls, self.note, self.image, self.numbers, self.texts])
        self._offer_shares(begin["share"])
        for control in (self.matrix, self.everywhere, self.bits, self.clip, self.share):
            control.observe(self._moved, names="value")
        self._draw()

    def _title(self, name: str) -> str:
        tied = name == "token_embedding" and self.copy.model.config.tie_embedding
        return f"{name}{' (and head)' * tied}, {' × '.join(map(str, self.copy.weights[name].shape))}"

    def _slider(self, title: str, values: Sequence[float], value: float) -> ipywidgets.SelectionSlider:
        options = [(f"{one:g}", one) for one in values]
        look = {"description": title, "style": NATURAL, "layout": HALF, "continuous_update": False}
        return ipywidgets.SelectionSlider(options=options, value=value, **look)

    def _names(self) -> list[str]:
        """The matrices that are to be rounded."""
        return list(self.copy.weights) if self.everywhere.value else [self.matrix.value]

    def _offer_shares(self, wanted: Share) -> None:
        """What may have a scale of its own: groups that divide the rows. `wanted` is chosen, or the next smaller one."""
        widths = {self.copy.weights[name].size(1) for name in self._names()}
        groups = [g for g in CHOICES["share"][2:] if all(width % g == 0 and width > g for width in widths)]
        self.share.options = [
            ("the whole matrix", "tensor"),
            ("each row", "row"),
            *((f"each {g} weights of a row", g) for g in groups),
        ]
        fitting = [g for g in groups if isinstance(wanted, int) and g <= wanted] or ["row"]
        self.share.value = "tensor" if wanted == "tensor" else fitting[0]

    def _moved(self, change: Mapping[str, Any]) -> None:
        if change["owner"] in (self.matrix, self.everywhere):
            self.share.unobserve(self._moved, names="value")  # one move, one answer
            self._offer_shares(self.share.value)
            self.share.observe(self._moved, names="value")
        self._draw()

    def _read(self) -> None:
        ids, self.ids = torch.tensor(self.tokenizer.encode(self.text)), self.tokenizer.encode(self.prompt)
        if len(ids) < 2:
            raise ValueError("the text has fewer than two tokens, so there is nothing to predict; pass a longer one.")
        T = min(self.copy.model.config.context_length, MOST_TOKENS, len(ids) - 1)
        most = min(MOST_TOKENS, len(ids) - 1) // T * T
        self.windows = ids[:most].view(-1, T), ids[1 : most + 1].view(-1, T)  # idx and targets, (B, T)

    def _outcome(self) -> Outcome:
        written = generate(self.copy.model, [self.ids], max_new_tokens=WRITTEN, temperature=0)[0]
        loss = evaluate_loss(self.copy.model, [self.windows])
        return Outcome(loss, self.tokenizer.decode(written[len(self.ids) :]))

    def update(self) -> Outcome:
        """Round as the controls say, and see what the copy does then.

        ValueError for a prompt or a text that the model cannot read.
        """
        if self.before is None:
            self._read()
            self.before = self._outcome()
        self.copy.round(self._names(), Choice(self.bits.value, self.share.value, self.clip.value))
        self.now = self._outcome()
        return self.now

    def _draw(self) -> None:
        for part in (self.note, self.numbers, self.texts):
            part.value = ""
        try:
            self.update()
        except ValueError as error:  # said in the widget, not as a traceback
            self.note.value, self.image.value = _text(str(error), "#D55E00"), b""
            return
        self.image.value = self.picture().png
        told = [re.sub(r"\*(.*?)\*", r"<b>\1</b>", html.escape(sentence)) for sentence in self._sentences()]
        self.numbers.value = "".join(f"<div {BELOW}>{sentence}</div>" for sentence in told)
        self.texts.value = self._compared()

    def _sentences(self) -> list[str]:
        """Error, size and loss in words, with a star on both sides of what moves."""
        name, many = self.matrix.value, "all matrices" if self.everywhere.value else "this matrix"
        error = float(self.copy.error(name).norm() / self.copy.weights[name].norm().clamp(min=1e-30))
        zero = float((self.copy.rounded[name].q == 0).float().mean())
        more = self.now.loss - self.before.loss
        whole = 4 * self.copy.model.num_parameters() / 1e6
        return [
            f"The error of {name} is *{error:.1%}* of its weights (root mean squares); *{zero:.1%}* become 0.",
            f"A weight of {many} takes *{self.copy.bits_per_weight():.2f} bits* with its part of the scales, the "
            f"model *{self.copy.megabytes():.2f} MB*, not {whole:.2f}.",
            f"On {self.windows[0].numel():,} tokens of the text the loss is *{self.now.loss:.3f}* nats per token, not "
            f"{self.before.loss:.3f}, *{abs(more):.3f} {'less' if more < 0 else 'more'}*.",
        ]

    def _parts(self) -> tuple[str, str, str]:
        """What both texts begin with, and how each goes on."""
        pairs = zip(self.before.written, self.now.written)
        both = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        return both, self.before.written[len(both) :], self.now.written[len(both) :]

    def _compared(self) -> str:
        both, *ends = self._parts()
        same = "" if any(ends) else " The model writes the same."
        shown = []
        for title, end in zip(("As it was, the model writes:", f"Rounded, it writes:{same}"), ends):
            marked = f'<mark style="background:{TINT};color:#111">{html.escape(end)}</mark>' * bool(end)
            whole = _text(self.prompt + both).replace("</div>", f"{marked}</div>")
            shown.append(f'<div style="flex:1 1 300px;min-width:0"><b>{title}</b>{whole}</div>')
        return f'<div style="display:flex;flex-wrap:wrap;gap:1.2em;max-width:780px">{"".join(shown)}</div>'

    def shown(self) -> tuple[np.ndarray, np.ndarray]:
        """The weights that share a scale with the largest of the matrix, and the levels that they may take."""
        rounded, weights = self.copy.rounded[self.matrix.value], self.copy.weights[self.matrix.value]
        groups = grouped(weights, rounded.share).flatten(0, 1)  # (groups, weights in each)
        at = int(groups.abs().argmax()) // groups.size(1)
        most = 2 ** (self.bits.value - 1) - 1
        whole = np.arange(-most if self.bits.value == 8 else -most - 1, most + 1)
        return groups[at].cpu().numpy(), np.sort(whole * float(rounded.scale.flatten()[at]))

    def picture(self, still: bool = False) -> Picture:
        """The weights with their levels, and the error of a corner; in a still picture also what is said of them.

        ValueError where there is nothing to show; see `update`.
        """
        if self.now is None:
            self.update()
        told, name = self._told() if still else [], self.matrix.value
        height = PANELS + LINE * len(told)  # inches

        def paint(figure: Figure) -> None:
            figure.set_layout_engine("none")  # axes that keep their place: comparable, and drawn in half the time
            low, high = (height - PANELS + 0.55) / height, (PANELS - 1.15) / height
            self._paint_levels(figure.add_axes((0.085, low, 0.46, high)))
            self._paint_error(figure.add_axes((0.63, low, 0.24, high)), figure.add_axes((0.885, low, 0.015, high)))
            figure.text(0.02, (height - PANELS) / height, "\n".join(told), va="top", fontsize=9.5, linespacing=1.3)

        what = {"tensor": "", "row": "a row of "}.get(self.share.value, f"{self.share.value} neighbours in ")
        title = f"The {2**self.bits.value - (self.bits.value == 8)} levels for the weights of {what}{name}"
        words = f"Quantization viewer. Histogram of weights of {name} with the levels that they are rounded to, and a heat map"
        return draw(paint, title, f"{words} of the error.", size=(8, height))

    def _told(self) -> list[str]:
        both, *ends = (part.replace("\n", " ↵ ") for part in self._parts())
        start = self.prompt.replace("\n", " ↵ ") + both
        lines = [sentence.replace("*", "") for sentence in self._sentences()]
        for title, end in zip(("As it was, the model writes (▸: the first difference):", "Rounded:"), ends):
            lines.append(f"{title} {start}{'▸' * bool(end)}{end}")
        return [part for line in lines for part in textwrap.wrap(line, COLUMNS)]

    def _paint_levels(self, axes: Axes) -> None:
        weights, levels = self.shown()
        most, half_step = float(np.abs(weights).max()) or 1.0, (levels[1] - levels[0]) / 2
        counts, edges = np.histogram(weights, np.linspace(-most, most, 61))
        axes.stairs(counts, edges, color=COLOURS[0], alpha=0.75, fill=True, label="weights")
        look = {"color": COLOURS[1], "linewidth": 1.3 if len(levels) <= MOST_LINES else 0.5, "label": "levels"}
        top = 1 if len(levels) <= MOST_LINES else 0.06  # of the height; many lines would hide the weights
        axes.vlines(levels, 0, top, transform=axes.get_xaxis_transform(), **look)
        axes.set(yscale="log", ylim=(0.7, None), xlim=(-1.08 * most, 1.08 * most), xlabel="weight", ylabel="count")
        _plain_log_ticks(axes.yaxis)
        if counts.max() < 10:
            axes.yaxis.set_major_locator(MaxNLocator(5, **WHOLE))
        for edge, beyond in ((levels[0] - half_step, -2 * most), (levels[-1] + half_step, 2 * most)):
            axes.axvspan(edge, beyond, color="#00000014", linewidth=0)  # what is cut off
        axes.legend(loc="lower left", bbox_to_anchor=(-0.03, 0.97), ncols=2)

    def _paint_error(self, axes: Axes, bar: Axes) -> None:
        weights, error = self.copy.weights[self.matrix.value], self.copy.error(self.matrix.value).abs()
        row, column = (i // CORNER * CORNER for i in divmod(int(weights.abs().argmax()), weights.size(1)))
        typical = weights.square().mean().sqrt().clamp(min=1e-30)
        shown = (error[row : row + CORNER, column : column + CORNER] / typical).cpu().numpy()
        place = (column - 0.5, column + shown.shape[1] - 0.5, row + shown.shape[0] - 0.5, row - 0.5)
        image = axes.imshow(shown, cmap="cividis", norm=PowerNorm(0.5, 0, 1), extent=place, aspect="auto")
        axes.set(xlabel="column", ylabel="row")
        axes.set_title("error beside a typical weight", fontsize=11)
        axes.grid(visible=False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, **WHOLE))
        axes.figure.colorbar(image, cax=bar, ticks=(0, 0.01, 0.1, 0.3, 1), format="{x:.0%}")


def quantization_viewer(
    model: GPT, tokenizer: Tokenizer, prompt: str, text: str, start: Mapping[str, Any] | None = None
) -> None:
    """Show what fewer bits do to a matrix, or to all: its levels and errors, the size, the loss, and what the model writes.

    Args:
        model: in floating point; it stays as it is.
        prompt: what the model goes on from, greedily, for `WRITTEN` tokens.
        text: of which the loss is taken, on the first `MOST_TOKENS` tokens.
        start: where the controls stand at first, by matrix (such as "blocks.0.mlp.up"), bits, share, clip and everywhere.

    Raises:
        ValueError: a model that is quantized already or has adapters, weights that are not finite, or a start that no control
            has. A prompt or a text that the model cannot read is told in the widget.
    """
    made = QuantizationViewer(model, tokenizer, prompt, text, start)
    _show(made.box, _still(lambda: made.picture(still=True)))
