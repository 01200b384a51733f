"""Things to touch: a training curve that lives and can be stopped, a sampling playground, an attention viewer.

Each is shown together with a still picture and words: where no front end is attached (nbval, HTML, a viewer on the web)
those are what one sees. Clicks that come while a cell runs are handled by the kernel's subshells (JupyterLab 4.4 and
ipykernel 7.0 to 7.3); elsewhere the interrupt button stops a training just as cleanly.
"""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from typing import Any

import ipywidgets
import torch
from IPython.display import DisplayHandle, display

from minigpt.config import SampleConfig
from minigpt.generate import next_token_probabilities, stream
from minigpt.lab import plots
from minigpt.lab.picture import Picture, draw
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

WIDE = ipywidgets.Layout(width="97%")
NATURAL = {"description_width": "initial"}
ROW = ipywidgets.Layout(flex_flow="row wrap", align_items="flex-start")  # what has no room goes below
OWN_SIZE = ipywidgets.Layout(align_self="flex-start")  # a picture stretched to the width of its box is blurred
MOST_TOKENS = 40  # labels beyond that overlap


def _show(widget: ipywidgets.Widget, still: Picture, handle: DisplayHandle | None = None) -> DisplayHandle:
    """Display a widget with its still picture; with a handle, replace what it shows."""
    data, metadata = still.bundle()
    view = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
    data["application/vnd.jupyter.widget-view+json"] = view
    if handle is None:
        return display(data, metadata=metadata, raw=True, display_id=True)
    handle.update(data, metadata=metadata, raw=True)
    return handle


def _still(make: Callable[[], Picture]) -> Picture:
    """The picture, or one that says why there is none: a still view may not stop a notebook either."""
    try:
        return make()
    except ValueError as error:
        return draw(lambda figure: None, str(error), "", size=(7, 0.3))


def _device(model: GPT) -> torch.device:
    return next(model.parameters()).device


def _text(content: str, colour: str = "inherit") -> str:
    style = f"white-space:pre-wrap;font-family:monospace;line-height:1.35;color:{colour}"
    return f'<div style="{style}">{html.escape(content)}</div>'


class LiveCurve:
    """A Trainer callback: the loss as it falls, the time that is left, a sample after each evaluation, a stop button.

    Args:
        sample: called after each evaluation; the text that it returns is shown below the curve.
        title: of the curve.
    """

    def __init__(self, sample: Callable[[], str] | None = None, title: str = "Loss while training"):
        self.sample, self.title = sample, title
        self.bar = ipywidgets.IntProgress(layout=ipywidgets.Layout(width="25%"))
        self.label = ipywidgets.Label()
        about, narrow = "End after the current update; what is learned stays learned", ipywidgets.Layout(width="90px")
        self.stop = ipywidgets.Button(description="Stop", icon="stop", tooltip=about, layout=narrow)
        self.stop.on_click(lambda _: self._stop())
        self.image = ipywidgets.Image(format="png", layout=OWN_SIZE)
        self.text = ipywidgets.HTML(layout=WIDE)
        state = ipywidgets.HBox([self.bar, self.stop, self.label], layout=ROW)
        self.box = ipywidgets.VBox([state, self.image, self.text])
        self._handle: DisplayHandle | None = None
        self._trainer: Any = None
        self._drawn = self._told = 0.0

    def _picture(self, trainer: Any, max_steps: int | None = None) -> Picture:
        png = plots.loss(trainer.history, self.title, max_steps=max_steps).png
        return Picture(png, f"{self.title}. Line chart of training and validation loss against updates, drawn live.")

    def on_start(self, trainer: Any) -> None:
        self.bar.max, self.bar.value = trainer.config.max_steps, trainer.step
        self.stop.disabled = False
        self._trainer = trainer
        self._began, self._first = time.perf_counter(), trainer.step
        still = self._picture(trainer)
        self.image.value = still.png
        self._handle = _show(self.box, still)

    def _stop(self) -> None:
        self._trainer.stop()
        self.stop.disabled = True
        self.label.value = "stopping after this update"

    def on_step(self, trainer: Any, row: dict[str, float]) -> None:
        now = time.perf_counter()
        if now - self._told > 0.25 and not self.stop.disabled:
            done, config = row["step"], trainer.config
            left = (now - self._began) / (done - self._first) * (config.max_steps - done)
            self.bar.value = done
            speed = f"{row['tokens'] / row['seconds']:,.0f} tokens/s"
            rest = f"{left:.0f} s left" if left < 100 else f"{left / 60:.0f} min left"
            self.label.value = f"update {done} of {config.max_steps}, loss {row['train_loss']:.2f}, {speed}, {rest}"
            self._told = now
        if now - self._drawn > 2:
            self.image.value = self._picture(trainer, trainer.config.max_steps).png
            self._drawn = time.perf_counter()

    def on_eval(self, trainer: Any, row: dict[str, float]) -> None:
        if self.sample is not None:
            heading = f"After {row['step']} updates, validation loss {row['val_loss']:.2f}, the model writes:"
            self.text.value = f"<b>{heading}</b>{_text(self.sample())}"

    def on_end(self, trainer: Any) -> None:
        still = self._picture(trainer)
        self.image.value, self.bar.value, self.stop.disabled = still.png, trainer.step, True
        whole = trainer.step >= trainer.config.max_steps
        self.label.value = f"{'done' if whole else 'stopped'} after {trainer.step} updates"
        if self._handle is not None:
            _show(self.box, still, self._handle)


class Playground:
    """Write with a model: a prompt, the knobs of sampling, and the distribution of the next token. See `playground`."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, prompt: str):
        self.model, self.tokenizer = model, tokenizer
        about = SampleConfig.describe()
        slider, whole = ipywidgets.FloatSlider, ipywidgets.IntSlider
        layout = ipywidgets.Layout(width="300px")
        common = {"continuous_update": False, "style": {"description_width": "95px"}, "layout": layout}
        self.prompt = ipywidgets.Textarea(value=prompt, description="Prompt", layout=WIDE, rows=2, style=NATURAL)
        self.temperature = slider(0.8, min=0, max=2, step=0.1, description="temperature", **common)
        self.top_k = whole(50, min=1, max=min(200, tokenizer.vocab_size), description="top-k", **common)
        self.top_p = slider(1.0, min=0.05, max=1, step=0.05, description="top-p", **common)
        self.seed = whole(1, min=0, max=99, description="seed", **common)
        self.length = whole(120, min=10, max=400, step=10, description="length", **common)
        for name in ("temperature", "top_k", "top_p", "seed"):
            getattr(self, name).tooltip = about[name]
        self.length.tooltip = about["max_new_tokens"]
        self.write = ipywidgets.Button(description="Write", icon="pencil", button_style="primary")
        self.write.on_click(lambda _: self._guard(self._write))
        beside = ipywidgets.Layout(flex="1 1 360px", min_width="0", max_width="630px")
        self.image = ipywidgets.Image(format="png", layout=beside)
        self.note, self.text = ipywidgets.HTML(layout=WIDE), ipywidgets.HTML(layout=WIDE)
        for control in (self.prompt, self.temperature, self.top_k, self.top_p):
            control.observe(lambda _: self._guard(self._draw), names="value")
        knobs = ipywidgets.VBox([self.temperature, self.top_k, self.top_p, self.seed, self.length, self.write])
        middle = ipywidgets.HBox([knobs, self.image], layout=ROW)
        self.box = ipywidgets.VBox([self.prompt, middle, self.note, self.text])
        self._guard(self._draw)

    def _guard(self, action: Callable[[], None]) -> None:
        self.note.value = ""
        try:
            action()
        except ValueError as error:  # an empty prompt, an unknown character: said in the widget, not as a traceback
            self.note.value = _text(str(error), "#D55E00")

    def _options(self) -> dict[str, Any]:
        return {"temperature": self.temperature.value, "top_k": self.top_k.value, "top_p": self.top_p.value}

    def _ids(self) -> list[int]:
        ids, most = self.tokenizer.encode(self.prompt.value), self.model.config.context_length
        if not ids:
            raise ValueError("The prompt is empty. Type at least one character for the model to go on from.")
        if len(ids) > most:
            self.note.value = _text(f"The model sees the last {most} of the prompt's {len(ids)} tokens.")
        return ids[-most:]

    def picture(self) -> Picture:
        """The ten likeliest next tokens under the present settings."""
        with torch.inference_mode():
            logits = self.model(torch.tensor([self._ids()], device=_device(self.model)))[0][:, -1]
        probability = next_token_probabilities(logits, SampleConfig.make(**self._options()))[0]
        best = probability.topk(min(10, len(probability)))
        labels = self.tokenizer.token_strings(best.indices.tolist())
        share = f"{float(best.values.sum()):.0%}"
        title = f"What may come next: the ten likeliest hold {share} of the probability"
        picture = plots.bars(best.values, title, x="next token", y="probability", labels=labels)
        return Picture(picture.png, "Sampling playground. Bar chart of the ten likeliest next tokens.")

    def _draw(self) -> None:
        self.image.value = self.picture().png

    def _write(self) -> None:
        prompt, ids = self.prompt.value, self._ids()
        options = self._options() | {"max_new_tokens": self.length.value, "seed": self.seed.value}
        written: list[int] = []
        shown = 0.0
        self.write.disabled = True  # else impatient clicks queue up
        try:
            for token in stream(self.model, ids, **options):
                written.append(token)
                if time.perf_counter() - shown > 0.1:
                    self._tell(prompt, written)
                    shown = time.perf_counter()
        finally:
            self.write.disabled = False
        self._tell(prompt, written)

    def _tell(self, prompt: str, written: list[int]) -> None:
        continuation = html.escape(self.tokenizer.decode(written))
        self.text.value = _text(prompt).replace("</div>", f'<span style="color:#0072B2">{continuation}</span></div>')


def playground(model: GPT, tokenizer: Tokenizer, prompt: str = "ROMEO:\n") -> None:
    """Show a playground for a trained model: turn the knobs, see the next token's distribution move, press Write."""
    model.eval()
    made = Playground(model, tokenizer, prompt)
    _show(made.box, _still(made.picture))


class AttentionViewer:
    """Who looks at whom, by layer and head, over any text. See `attention_viewer`."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, text: str, layer: int = 0, head: int = 0):
        self.model, self.tokenizer = model, tokenizer
        common = {"continuous_update": False, "style": NATURAL, "min": 0}
        self.text = ipywidgets.Text(value=text, description="Text", layout=WIDE, style=NATURAL, continuous_update=False)
        self.layer = ipywidgets.IntSlider(layer, max=model.config.n_layer - 1, description="layer", **common)
        self.head = ipywidgets.IntSlider(head, max=model.config.n_head - 1, description="head", **common)
        self.note = ipywidgets.HTML(layout=WIDE)
        self.image = ipywidgets.Image(format="png", layout=OWN_SIZE)
        self.overview = ipywidgets.Image(format="png", layout=OWN_SIZE)
        sliders = ipywidgets.HBox([self.layer, self.head], layout=ROW)
        self.box = ipywidgets.VBox([self.text, sliders, self.note, self.overview, self.image])
        for control in (self.text, self.layer, self.head):
            control.observe(lambda _: self._draw(), names="value")
        self._draw()

    def _ids(self) -> list[int]:
        ids = self.tokenizer.encode(self.text.value)
        most = min(MOST_TOKENS, self.model.config.context_length)
        cut = len(ids) > most
        self.note.value = _text(f"Showing the first {most} of {len(ids)} tokens.") if cut else ""
        if not ids:
            raise ValueError("Type some text to look at.")
        return ids[:most]

    def pictures(self) -> tuple[Picture, Picture]:
        """The chosen head as a large heat map, and all heads of its layer as small ones."""
        ids = self._ids()
        idx = torch.tensor([ids], device=_device(self.model))
        maps = self.model.attention_maps(idx)[self.layer.value][0]  # (H, T, T)
        labels = self.tokenizer.token_strings(ids)
        title = f"Layer {self.layer.value}, head {self.head.value}: where each token (row) looks"
        one = plots.heatmap(
            maps[self.head.value],
            title,
            x="token looked at",
            y="token that looks",
            xticks=labels,
            yticks=labels,
            values=False,
        )
        heads = [f"head {h}" for h in range(len(maps))]
        overview = plots.grid(
            maps, f"All heads of layer {self.layer.value}", labels=heads, x="token looked at", y="token that looks"
        )
        return one, overview

    def _draw(self) -> None:
        try:
            self.image.value, self.overview.value = (picture.png for picture in self.pictures())
        except ValueError as error:
            self.note.value = _text(str(error), "#D55E00")


def attention_viewer(model: GPT, tokenizer: Tokenizer, text: str, layer: int = 0, head: int = 0) -> None:
    """Show the attention of one head as a heat map, with sliders for layer and head and a box for a text of your own."""
    made = AttentionViewer(model, tokenizer, text, layer, head)
    _show(made.box, _still(lambda: made.pictures()[0]))
