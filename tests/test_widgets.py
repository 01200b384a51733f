import base64
import html
import itertools
import re

import pytest
import torch
from conftest import FAMILIES, make_model

from minigpt import BPETokenizer, CharTokenizer, Trainer, generate
from minigpt.config import SampleConfig
from minigpt.generate import next_token_probabilities
from minigpt.lab import plots, widgets
from minigpt.lab.widgets import AttentionViewer, LiveCurve, Playground, attention_viewer, playground

CHARACTERS = CharTokenizer.train(["the cat sat on <b>a</b> mat.\n"])
PNG = b"\x89PNG"


class Screen:
    """Stands in for `display`: keeps what was shown, and what it was later replaced by."""

    def __init__(self):
        self.shown = []

    def __call__(self, data, metadata, raw, display_id):
        assert raw and display_id
        self.update(data, metadata, raw)
        return self

    def update(self, data, metadata, raw):
        self.shown.append((data, metadata))


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(widgets, "display", screen)
    return screen


@pytest.fixture
def model():
    return make_model(FAMILIES["llama-grouped"].replace(vocab_size=CHARACTERS.vocab_size, context_length=32))


def assert_is_seen_without_a_front_end(view, words):
    data, metadata = view
    assert base64.b64decode(data["image/png"]).startswith(PNG)
    assert re.search(words, data["text/plain"]) and metadata["image/png"]["alt"] == data["text/plain"]
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"]


def plain(text):
    return html.unescape(re.sub(r"</?(div|span|b)\b[^>]*>", "", text))


def said(note):
    return plain(note.value)


# The live curve


def pupil(tokenizer):
    return make_model(FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size))


def test_a_live_curve_follows_a_training_and_changes_nothing_in_it(small_data, quick, screen, monkeypatch):
    tokenizer, train, val = small_data
    clock = itertools.count(1)
    monkeypatch.setattr(widgets.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(plots, "loss", lambda history, title, **_: plots.Picture(PNG + repr(history).encode(), title))
    curve, labels, pictures, texts = LiveCurve(lambda: "a <b> sample"), [], [], []
    curve.label.observe(lambda change: labels.append(change.new), names="value")
    curve.image.observe(lambda change: pictures.append(change.new), names="value")
    curve.text.observe(lambda change: texts.append(change.new), names="value")
    history = Trainer(pupil(tokenizer), train, val, quick, callbacks=[curve]).fit()
    silent = Trainer(pupil(tokenizer), train, val, quick, callbacks=[]).fit()
    assert history["train_loss"] == silent["train_loss"] and history["val_loss"] == silent["val_loss"]
    assert re.fullmatch(r"update 1 of 20, loss \d\.\d\d, [\d,]+ tokens/s, \d+ s left", labels[0])
    assert len(labels) == 21 and len(set(pictures)) > 5
    assert [re.search(r"After (\d+) updates, validation loss \d", text)[1] for text in texts] == ["10", "20"]
    assert "a &lt;b&gt; sample" in texts[0]


def test_a_live_curve_ends_as_a_still_picture_of_the_whole_training(small_data, quick, screen):
    tokenizer, train, val = small_data
    curve = LiveCurve(title="The loss of a tiny model")
    history = Trainer(pupil(tokenizer), train, val, quick, callbacks=[curve]).fit()
    assert len(screen.shown) == 2
    for view in screen.shown:
        assert_is_seen_without_a_front_end(view, r"^The loss of a tiny model\. Line chart of training and validation")
    first, last = (base64.b64decode(data["image/png"]) for data, _ in screen.shown)
    assert first != last == plots.loss(history, "The loss of a tiny model").png == curve.image.value
    assert (curve.label.value, curve.bar.value, curve.bar.max) == ("done after 20 updates", 20, 20)
    assert curve.stop.disabled


def test_the_stop_button_ends_the_training_cleanly(small_data, quick, screen, tmp_path):
    tokenizer, train, val = small_data

    class Impatient(LiveCurve):
        def on_step(self, trainer, row):
            super().on_step(trainer, row)
            if row["step"] == 7:
                self.stop.click()
                assert self.stop.disabled and self.label.value == "stopping after this update"

    curve = Impatient()
    trainer = Trainer(pupil(tokenizer), train, val, quick, callbacks=[curve], folder=tmp_path)
    history = trainer.fit()
    assert len(history.rows) == 7 and history.stopped_early and (tmp_path / "resume.pt").exists()
    assert (curve.label.value, curve.bar.value, curve.stop.disabled) == ("stopped after 7 updates", 7, True)
    assert base64.b64decode(screen.shown[-1][0]["image/png"]) == plots.loss(history, curve.title).png


def test_one_curve_may_serve_two_trainings_and_stops_the_one_that_runs(small_data, quick, screen):
    tokenizer, train, val = small_data
    curve = LiveCurve()
    first = Trainer(pupil(tokenizer), train, None, quick.replace(max_steps=3), callbacks=[curve])
    second = Trainer(pupil(tokenizer), train, None, quick, callbacks=[curve])
    first.fit()
    stopped = []
    first.stop = lambda: stopped.append("first")
    curve.on_step = lambda trainer, row: row["step"] == 4 and curve.stop.click()
    assert len(second.fit().rows) == 4 and not stopped


def test_a_training_that_fails_leaves_its_curve_behind(small_data, quick, screen):
    tokenizer, train, _ = small_data
    curve = LiveCurve()

    class Broken:
        def on_step(self, trainer, row):
            raise RuntimeError("a callback of the learner's")

    with pytest.raises(RuntimeError):
        Trainer(pupil(tokenizer), train, None, quick, callbacks=[curve, Broken()]).fit()
    assert curve.label.value == "stopped after 1 updates" and len(screen.shown) == 2


# The playground


@pytest.fixture
def play(model, monkeypatch):
    """A playground, and the bars that it drew last."""
    drawn = {}

    def bars(values, title, *, x, y, labels):
        drawn.update(values=values.tolist(), labels=labels, title=title)
        return plots.Picture(PNG + repr(values).encode(), title)

    monkeypatch.setattr(widgets.plots, "bars", bars)
    return Playground(model, CHARACTERS, "the cat"), drawn


def likeliest(model, prompt, **options):
    with torch.no_grad():
        logits = model(torch.tensor([CHARACTERS.encode(prompt)]))[0][:, -1]
    return next_token_probabilities(logits, SampleConfig(**options))[0].topk(10)


@pytest.mark.parametrize(
    ("knob", "value"), [("temperature", 0.3), ("temperature", 0.0), ("top_k", 3), ("top_p", 0.35), ("prompt", "on ")]
)
def test_each_knob_redraws_what_may_come_next(play, model, knob, value):
    made, drawn = play
    before = made.image.value
    getattr(made, knob).value = value
    choices = {"prompt": "the cat", "temperature": 0.8} | {knob: value}
    expected = likeliest(model, **choices)
    assert made.image.value != before
    torch.testing.assert_close(torch.tensor(drawn["values"]), expected.values)
    assert drawn["labels"] == CHARACTERS.token_strings(expected.indices.tolist())


def test_write_streams_what_generate_gives_and_a_seed_repeats_it(play, model, monkeypatch):
    made, _ = play
    clock = itertools.count(1)
    monkeypatch.setattr(widgets.time, "perf_counter", lambda: next(clock))
    made.length.value, made.seed.value, made.prompt.value = 30, 5, "a <b>"
    told = []
    made.text.observe(lambda change: told.append(plain(change.new)), names="value")
    made.write.click()
    options = {"temperature": 0.8, "top_k": made.top_k.value, "top_p": 1.0, "seed": 5, "max_new_tokens": 30}
    expected = CHARACTERS.decode(generate(model, [CHARACTERS.encode("a <b>")], **options)[0])
    assert len(told) == 30 and told[-1] == expected and all(expected.startswith(text) for text in told)
    made.write.click()
    assert told[-1] == expected
    made.seed.value = 6
    made.write.click()
    assert told[-1] != expected


@pytest.mark.parametrize(
    ("prompt", "words"), [("", "The prompt is empty. Type at least one"), ("a ż", "character 2 is 'ż'")]
)
def test_an_impossible_prompt_is_told_in_the_widget_and_forgotten_when_mended(play, screen, model, prompt, words):
    made, _ = play
    made.prompt.value = prompt
    assert said(made.note).startswith(words)
    made.note.value = ""
    made.write.click()
    assert words in said(made.note) and not made.text.value
    made.prompt.value = "a"
    assert not made.note.value
    playground(model, CHARACTERS, prompt)
    assert_is_seen_without_a_front_end(screen.shown[0], re.escape(words))


def test_a_prompt_longer_than_the_context_is_cut_and_said(play, model):
    made, drawn = play
    made.prompt.value = "the cat sat on a mat. " * 3
    assert said(made.note) == "The model sees the last 32 of the prompt's 66 tokens."
    end = ("the cat sat on a mat. " * 3)[-32:]
    torch.testing.assert_close(torch.tensor(drawn["values"]), likeliest(model, end, temperature=0.8).values)
    made.write.click()
    assert end[-20:] in said(made.text)


def test_a_tokenizer_of_another_model_is_told_in_the_widget(model):
    made = Playground(model, CharTokenizer.train([chr(i) for i in range(32, 127)]), "~~~")
    assert "outside the vocabulary" in said(made.note)


def test_the_knobs_say_what_they_do(play):
    made, _ = play
    about = SampleConfig.describe()
    assert made.temperature.tooltip == about["temperature"] and made.length.tooltip == about["max_new_tokens"]


def test_a_playground_is_seen_without_a_front_end(screen, model):
    assert playground(model.train(), CHARACTERS, "the cat") is None and not model.training
    assert_is_seen_without_a_front_end(screen.shown[0], "^Sampling playground. Bar chart")


# The attention viewer


@pytest.fixture
def viewer(model, monkeypatch):
    """A viewer, and the maps that it drew last: of one head, and of all heads of the layer."""
    drawn = {}

    def keep(kind):
        def kept(maps, title, **options):
            drawn[kind] = (maps, title, options)
            return plots.Picture(PNG + repr((title, maps)).encode(), title)

        return kept

    monkeypatch.setattr(widgets.plots, "heatmap", keep("one"))
    monkeypatch.setattr(widgets.plots, "grid", keep("all"))
    return AttentionViewer(model, CHARACTERS, "the cat"), drawn


def test_layer_and_head_choose_the_map_and_the_text_is_the_learners(viewer, model):
    made, drawn = viewer
    for layer, head, text in ((0, 0, "the cat"), (1, 0, "the cat"), (1, 1, "the cat"), (0, 1, "a mat sat")):
        made.layer.value, made.head.value, made.text.value = layer, head, text
        maps = model.attention_maps(torch.tensor([CHARACTERS.encode(text)]))[layer][0]
        shown, title, options = drawn["one"]
        assert torch.equal(shown, maps[head]) and title.startswith(f"Layer {layer}, head {head}:")
        assert options["xticks"] == options["yticks"] == [c if c != " " else "·" for c in text]
        assert torch.equal(drawn["all"][0], maps) and drawn["all"][2]["labels"] == ["head 0", "head 1"]


def test_a_slider_redraws_both_pictures(viewer):
    made, _ = viewer
    before = made.image.value, made.overview.value
    made.layer.value = 1
    assert made.image.value != before[0] and made.overview.value != before[1]


def test_a_text_that_is_too_long_is_cut_and_said(viewer, monkeypatch):
    made, drawn = viewer
    made.text.value = "the cat sat on a mat. " * 2
    assert said(made.note) == "Showing the first 32 of 44 tokens." and drawn["one"][0].shape == (32, 32)
    monkeypatch.setattr(widgets, "MOST_TOKENS", 10)
    made.text.value = "the cat sat"
    assert said(made.note) == "Showing the first 10 of 11 tokens."
    made.text.value = "the cat"
    assert not made.note.value


@pytest.mark.parametrize(("text", "words"), [("", "Type some text to look at."), ("ż", "character 0 is 'ż'")])
def test_an_impossible_text_is_told_in_the_viewer(viewer, screen, model, text, words):
    made, _ = viewer
    before = made.image.value
    made.text.value = text
    assert said(made.note).startswith(words) and made.image.value == before
    attention_viewer(model, CHARACTERS, text)
    assert_is_seen_without_a_front_end(screen.shown[0], words)


def test_an_attention_viewer_is_seen_without_a_front_end_and_takes_bpe(screen):
    tokenizer = BPETokenizer.train(["the cat sat on the mat. " * 20], vocab_size=270)
    model = make_model(FAMILIES["gpt2"].replace(vocab_size=tokenizer.vocab_size))
    assert attention_viewer(model, tokenizer, "the cat sat", layer=1, head=1) is None
    assert_is_seen_without_a_front_end(screen.shown[0], r"^Layer 1, head 1: .* Heat map of \d rows")
