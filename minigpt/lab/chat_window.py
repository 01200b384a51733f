"""Talk with several models side by side, such as one before and after its fine-tuning.

Every model has a column and a conversation of its own. Like the other widgets it is shown together with a still
picture, of the opening and each model's likeliest answer: where no front end is attached, that is what one sees.
"""

from __future__ import annotations

import html
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

from minigpt.finetune import reply
from minigpt.lab.picture import Picture, draw
from minigpt.lab.widgets import NATURAL, ROW, WIDE, _show, _still, _text
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer

Reply = Callable[..., Iterator[str]]  # reply(model, tokenizer, messages, temperature=, seed=): an answer in pieces
Message = dict[str, str]

SIDES = {"user": ("right", "#cfe3f2"), "assistant": ("left", "#ececec")}  # where a bubble stands, and its tint
COLUMN = ipywidgets.Layout(flex="1 1 260px", min_width="0", max_width="560px", margin="0 8px")
NARROW = ipywidgets.Layout(width="120px")
KNOB = {"style": NATURAL, "layout": ipywidgets.Layout(width="270px")}
INCHES, LINE = 8.0, 0.19  # the still picture's width, and the height of a line of its text


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _bubble(message: Message) -> str:
    side, tint = SIDES[message["role"]]
    style = f"display:inline-block;max-width:90%;text-align:left;background:{tint};color:#111;border-radius:8px;"
    style += "padding:4px 10px;line-height:1.35;white-space:pre-wrap;overflow-wrap:anywhere"
    said = f"<b>{message['role']}</b>\n{html.escape(message['content'])}"
    return f'<div style="text-align:{side};margin:.4em 0"><div style="{style}">{said}</div></div>'


class Conversation:
    """What one model and the user have said to each other, and the column that shows it."""

    def __init__(self, name: str, model: GPT, tokenizer: BPETokenizer, reply: Reply):
        self.name, self.model, self.tokenizer, self.reply = name, model, tokenizer, reply
        self.view = ipywidgets.HTML(layout=COLUMN)
        self.restart()

    def restart(self) -> None:
        """Forget what was said."""
        self.messages: list[Message] = []
        self._draw(self.messages)

    def say(self, words: str, **options: Any) -> None:
        """Let the model answer, and show the answer as it is written. ValueError leaves the conversation as it was."""
        asked, answer, shown = [*self.messages, _turn("user", words)], "", 0.0
        try:
            for piece in self.reply(self.model, self.tokenizer, asked, **options):
                answer += piece
                if time.perf_counter() - shown > 0.1:
                    self._draw([*asked, _turn("assistant", f"{answer} …")])
                    shown = time.perf_counter()
            self.messages = [*asked, _turn("assistant", answer)]
        finally:
            self._draw(self.messages)

    def _draw(self, messages: list[Message]) -> None:
        self.view.value = f"<b>{html.escape(self.name)}</b>{''.join(map(_bubble, messages))}"


class ChatWindow:
    """A box to write in, the knobs of sampling, and a column for each model. See `chat_window`."""

    def __init__(self, models: Mapping[str, tuple[GPT, BPETokenizer]], opening: str, reply: Reply):
        if not models:
            raise ValueError("there is no model to talk with; pass a dict of names and (model, tokenizer).")
        self.opening = opening
        self.columns = [Conversation(name, *pair, reply) for name, pair in models.items()]
        self.message = ipywidgets.Text(
            value=opening, description="Message", placeholder="say something to all of them", layout=WIDE, style=NATURAL
        )
        self.message.on_msg(lambda _, content, buffers: content.get("event") == "submit" and self._send())  # Enter
        self.temperature = ipywidgets.FloatSlider(0.8, min=0, max=2, step=0.1, description="temperature", **KNOB)
        self.seed = ipywidgets.IntSlider(1, min=0, max=99, description="seed", **KNOB)
        about = "Give the message to every model"
        self.send = ipywidgets.Button(
            description="Send", icon="paper-plane", button_style="primary", tooltip=about, layout=NARROW
        )
        about = "Let every model forget what was said"
        self.again = ipywidgets.Button(description="Start again", icon="undo", tooltip=about, layout=NARROW)
        self.send.on_click(lambda _: self._send())
        self.again.on_click(lambda _: self._restart())
        self.note = ipywidgets.HTML(layout=WIDE)
        knobs = ipywidgets.HBox([self.send, self.again, self.temperature, self.seed], layout=ROW)
        columns = ipywidgets.HBox([column.view for column in self.columns], layout=ROW)
        self.box = ipywidgets.VBox([self.message, knobs, self.note, columns])

    def _send(self) -> None:
        if self.send.disabled:  # Enter, pressed once more while an answer is being written
            return
        words = self.message.value
        if not words.strip():
            self.note.value = _text("The message is empty. Type what you want to say, and send it again.", "#D55E00")
            return
        self.message.value = self.note.value = ""
        self.send.disabled = self.again.disabled = True
        problems = []
        try:
            for column in self.columns:
                try:
                    column.say(words, temperature=self.temperature.value, seed=self.seed.value)
                except ValueError as error:  # said in the widget, not as a traceback; the other models go on
                    problems.append(f"{column.name}: {error}")
        finally:
            self.send.disabled = self.again.disabled = False
        if problems:
            self.note.value, self.message.value = _text("\n".join(problems), "#D55E00"), words

    def _restart(self) -> None:
        for column in self.columns:
            column.restart()
        self.message.value, self.note.value = self.opening, ""

    def picture(self) -> Picture:
        """The opening, and each model's likeliest answer (temperature 0) beneath it."""
        width = INCHES / len(self.columns)
        asked = [_turn("user", self.opening)]
        said = [
            [*asked, _turn("assistant", "".join(column.reply(column.model, column.tokenizer, asked, temperature=0.0)))]
            for column in self.columns
        ]
        texts = [[_wrapped(message["content"], int(10 * width)) for message in column] for column in said]
        height = max(sum(LINE * (text.count("\n") + 1) + 0.35 for text in column) for column in texts) + 0.3

        def paint(figure: Figure) -> None:
            for axes, column, bubbles in zip(figure.subplots(1, len(texts), squeeze=False)[0], self.columns, texts):
                axes.set(xlim=(0, 1), ylim=(-height, 0), title=_wrapped(column.name, int(9 * width)))
                axes.axis("off")
                y = -0.15
                for (side, tint), bubble in zip(SIDES.values(), bubbles):
                    box = {"boxstyle": "round,pad=0.5", "facecolor": tint, "edgecolor": "none"}
                    x = {"left": 0.04, "right": 0.96}[side]
                    axes.text(x, y, bubble, ha=side, va="top", multialignment="left", fontsize=10, bbox=box)
                    y -= LINE * (bubble.count("\n") + 1) + 0.35

        names = ", ".join(column.name for column in self.columns)
        title = (
            "One question, and what each model answers" if len(texts) > 1 else "A question, and what the model answers"
        )
        return draw(paint, title, f"Chat window. Columns: {names}.", size=(INCHES, height))


def _wrapped(text: str, columns: int) -> str:
    return "\n".join("\n".join(textwrap.wrap(line, columns)) for line in text.splitlines())


def chat_window(
    models: Mapping[str, tuple[GPT, BPETokenizer]], opening: str = "Hello! How are you?", reply: Reply = reply
) -> None:
    """Show a window in which every message goes to all models (name -> model and tokenizer), each with its own column.

    ValueError where there is no model. What a model cannot answer is said in the window.
    """
    made = ChatWindow(models, opening, reply)
    _show(made.box, _still(made.picture))
