import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from test_widgets import Screen, assert_is_seen_without_a_front_end, plain

from minigpt.lab import confidence_viewer, widgets
from minigpt.lab.confidence_viewer import MOST_WORDS, ConfidenceViewer, Verdict

LABELS = ["bad <b>", "good"]
WEIGHTS = {"fine": 1.0, "dull": -1.0, "very": 0.25}


class Predict:
    """A classifier that adds up the weights of words, and keeps what it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, texts):
        self.calls.append(texts)
        scores = np.array([sum(WEIGHTS.get(word, 0.0) for word in text.split()) for text in texts])
        good = 1 / (1 + np.exp(-scores))
        return np.stack([1 - good, good], axis=1)


@pytest.fixture
def predict():
    return Predict()


def good(*words):
    return 1 / (1 + np.exp(-sum(WEIGHTS[word] for word in words)))


def marks(html):
    """Each word, how it is tinted, and what it says under the pointer."""
    found = re.findall(r'<span style="background:rgb\((\d+),(\d+),(\d+)\)[^>]*title="([^"]*)">([^<]*)</span>', html)
    return {word: (tuple(map(int, rgb)), float(number)) for *rgb, number, word in found}


def test_a_word_adds_what_the_winner_loses_when_it_is_left_out_all_in_one_call(predict):
    verdict = Verdict(predict, LABELS, " fine but\n dull, very fine", True)
    assert predict.calls == [
        ["fine but\n dull, very fine", "but\n dull, very fine", "fine dull, very fine", "fine but\n very fine",
         "fine but\n dull, fine", "fine but\n dull, very"]
    ]  # fmt: skip
    whole = good("fine", "very", "fine")
    assert verdict.probabilities.tolist() == pytest.approx([1 - whole, whole]) and verdict.winner == 1
    expected = [whole - good("very", "fine"), 0, 0, whole - good("fine", "fine"), whole - good("fine", "very")]
    assert verdict.adds.tolist() == pytest.approx(expected)


def test_what_speaks_for_the_winner_is_blue_what_speaks_against_it_orange_whichever_class_it_is(predict):
    for text, blue, orange in (("fine fine dull", "fine", "dull"), ("dull dull fine", "dull", "fine")):
        viewer = ConfidenceViewer(predict, LABELS, text)
        (r, g, b), number = marks(viewer.words.value)[blue]
        assert r < g < b and number > 0
        (r, g, b), number = marks(viewer.words.value)[orange]
        assert r > g > b and number < 0
    assert "Blue: without this word, bad <b> would be less likely. Orange" in plain(viewer.legend.value)


def test_a_word_that_moves_little_stays_pale(predict):
    tints = marks(ConfidenceViewer(predict, LABELS, "fine very well").words.value)
    assert tints["well"] == ((255, 255, 255), 0.0) and tints["fine"][0] < tints["very"][0] < tints["well"][0]


def test_every_class_has_a_bar_and_typing_moves_it(predict):
    viewer = ConfidenceViewer(predict, LABELS, "fine film")
    assert plain(viewer.bars.value) == f"bad <b>{1 - good('fine'):.3f}good{good('fine'):.3f}"
    assert re.findall(r"width:([\d.]+)%", viewer.bars.value) == [
        f"{1 - good('fine'):.1%}"[:-1],
        f"{good('fine'):.1%}"[:-1],
    ]
    viewer.text.value = "dull film"
    assert plain(viewer.bars.value) == f"bad <b>{good('fine'):.3f}good{1 - good('fine'):.3f}"
    assert [*marks(viewer.words.value)] == ["dull", "film"]


def test_without_explaining_the_text_alone_is_judged(predict):
    viewer = ConfidenceViewer(predict, LABELS, "fine film", explain=False)
    assert predict.calls == [["fine film"]] and viewer.bars.value and not viewer.words.value + viewer.legend.value


def test_of_a_long_text_the_first_words_are_tried_and_that_is_said(predict):
    viewer = ConfidenceViewer(predict, LABELS, "fine " * MOST_WORDS + "dull film")
    assert len(predict.calls[0]) == MOST_WORDS + 1
    assert f"The first {MOST_WORDS} of {MOST_WORDS + 2} words are tried." in viewer.legend.value
    assert "dull" not in marks(viewer.words.value) and plain(viewer.words.value).endswith("fine dull film")


def test_one_word_is_judged_and_not_left_out(predict):
    viewer = ConfidenceViewer(predict, LABELS, "fine")
    assert predict.calls == [["fine"]] and viewer.legend.value.startswith("With one word there is nothing to leave out")
    assert f"{good('fine'):.3f}" in viewer.bars.value and plain(viewer.words.value) == "fine"


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_told_and_forgotten_when_mended(predict, text, monkeypatch):
    viewer = ConfidenceViewer(predict, LABELS, "fine")
    viewer.text.value = text
    assert plain(viewer.note.value) == "Type some text for the classifier to judge."
    assert not viewer.bars.value + viewer.words.value + viewer.legend.value
    viewer.text.value = "dull"
    assert not viewer.note.value and viewer.bars.value
    monkeypatch.setattr(widgets, "display", screen := Screen())
    confidence_viewer.confidence_viewer(predict, LABELS, text)
    assert_is_seen_without_a_front_end(screen.shown[0], "^Type some text for the classifier")


def test_a_predict_of_another_shape_and_a_text_it_refuses_are_told():
    viewer = ConfidenceViewer(lambda texts: np.ones((len(texts), 3)), LABELS, "fine film")
    assert "an array of shape (3, 3) for 3 texts and 2 labels; expected (3, 2)" in plain(viewer.note.value)

    def refuse(texts):
        raise ValueError("character 0 is 'ż'")

    assert plain(ConfidenceViewer(refuse, LABELS, "ż").note.value) == "character 0 is 'ż'"


def test_what_looks_like_markup_is_shown_as_text(predict):
    viewer = ConfidenceViewer(predict, LABELS, "<script> film")
    assert "<script" not in viewer.words.value and "<b>" not in viewer.bars.value + viewer.legend.value


def test_a_viewer_is_seen_without_a_front_end_and_its_words_name_no_number_and_no_winner(predict, monkeypatch):
    screen, drawn = Screen(), []
    monkeypatch.setattr(widgets, "display", screen)

    def draw(paint, *arguments, **options):
        paint(figure := Figure())
        drawn.extend([bar.get_width() for bar in axes.patches] for axes in figure.axes)
        drawn.extend([label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes)
        return widgets.draw(paint, *arguments, **options)

    monkeypatch.setattr(confidence_viewer, "draw", draw)
    text = "a film that is very fine " + "dull fine " * 4
    assert confidence_viewer.confidence_viewer(predict, LABELS, text) is None
    verdict = Verdict(predict, LABELS, text)
    assert drawn[0] == verdict.probabilities.tolist()
    assert drawn[1] == verdict.adds[[0, 1, *range(4, 14)]].tolist()  # two words of four that add nothing
    assert drawn[2:] == [LABELS, ["a", "film", "very", "fine", *["dull", "fine"] * 4]]
    words = r"^What the classifier says, and the words that move it\. Confidence viewer\. Bar chart .* of bad <b>, good, and"
    assert_is_seen_without_a_front_end(screen.shown[0], words)
    assert not re.search(r"\d", screen.shown[0][0]["text/plain"])
