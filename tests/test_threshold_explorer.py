import dataclasses
import re

import pytest
from matplotlib.figure import Figure
from test_widgets import PNG, Screen, assert_is_seen_without_a_front_end
from test_widgets import plain as without_tags

from minigpt.corpus.cleaning.quality import Quality
from minigpt.lab import threshold_explorer, widgets
from minigpt.lab.picture import Picture
from minigpt.lab.threshold_explorer import ThresholdExplorer

OFF = Quality(**{field.name: None for field in dataclasses.fields(Quality) if not field.name.endswith("_from")})
EVERY = dataclasses.replace(Quality(), max_words=60, min_sentences=2, min_ended=0.3, stop_words_from=12, runs_from=20)
SHORT = ["one two three", "go", "just four words here", "<b>five & more</b> words of it", "a # b # c ... d ..."]
LONG = [
    "the cat and the dog have to be with that of old. " * 3,
    "The same line.\nThe same line.\nThe same line.\nOne other line of this text.",
    "- milk\n- bread\n- salt\n- a bag of flour",
    "well ...\nperhaps ...\nor not ...\nwho can say.\n\nwell ...\n\nwell ...",
    "xqzj vkwq zxjq qwvx zzxq jqvk xvqz wqjx kqzv xjqw " * 2,
    "supercalifragilisticexpialidocious antidisestablishmentarianism counterrevolutionaries",
    "12 34 56 78 90 b 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16",
    "Eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn.",
]
BOTH = {"chats": SHORT, "pages": LONG}


def plain(part):
    return without_tags(part.value.replace("<code>", "").replace("</code>", ""))


@pytest.fixture
def undrawn(monkeypatch):
    """Pictures take most of the time and are looked at elsewhere."""
    monkeypatch.setattr(threshold_explorer, "draw", lambda *arguments, **options: Picture(PNG, "no picture"))


def only(rule, threshold):
    froms = {"stop_words_from": EVERY.stop_words_from, "runs_from": EVERY.runs_from}
    return dataclasses.replace(OFF, **froms, **{rule: threshold})


@pytest.mark.parametrize("rule", ThresholdExplorer(BOTH, EVERY).rules)
def test_what_goes_at_any_threshold_is_what_quality_with_that_rule_alone_drops(rule, undrawn):
    explorer = ThresholdExplorer(BOTH, EVERY)
    explorer.chosen.value = rule
    some = set()
    for _, threshold in explorer.sliders[rule].options[::3]:
        explorer.sliders[rule].value = threshold
        for corpus in explorer.corpora:
            expected = [only(rule, threshold)(text) is not None for text in corpus.texts]
            assert explorer.goes(corpus).tolist() == expected, threshold
            some.update(expected)
    assert some == {True, False}


def test_every_threshold_of_quality_has_a_slider_but_those_that_are_no_single_number_or_no_measure():
    thresholds = {field for field in Quality.describe() if field[:4] in ("min_", "max_")}
    assert thresholds - ThresholdExplorer(BOTH, EVERY).rules.keys() == {"max_top_runs", "max_curly"}


@pytest.mark.parametrize(
    "quality",
    [Quality(), Quality.gopher(), dataclasses.replace(OFF, max_symbols=1 / 3, min_words=0, min_word_length=0)],
)
def test_a_slider_starts_at_the_threshold_of_the_quality_and_a_rule_that_is_off_has_none(quality, undrawn):
    explorer = ThresholdExplorer(BOTH, quality)
    for rule, slider in explorer.sliders.items():
        assert slider.value == getattr(quality, rule) is not None
    assert ("max_words" in explorer.rules) == (quality.max_words is not None)
    assert explorer.chosen.options[0] == ("too few words (min_words)", "min_words")


def test_moving_the_slider_moves_the_picture_the_counts_and_the_documents():
    explorer = ThresholdExplorer(BOTH, Quality())
    slider, before = explorer.sliders["min_words"], explorer.image.value
    assert plain(explorer.shares) == "chats: 2 of 5 documents go.pages: 1 of 8 documents go."
    assert "one two three" in plain(explorer.edge) and "just four words" not in plain(explorer.edge)
    slider.value = 5
    assert plain(explorer.shares) == "chats: 3 of 5 documents go.pages: 1 of 8 documents go."
    assert plain(explorer.edge).startswith("Of those that go, nearest to the line:chats, 4: just four words here")
    assert explorer.image.value != before
    slider.value = 1
    assert plain(explorer.shares) == "chats: 0 of 5 documents go.pages: 0 of 8 documents go."
    assert plain(explorer.edge).startswith("No document goes. Of the others, nearest to the line:chats, 1: go")


def test_the_dropdown_shows_another_rule_with_its_source_and_a_threshold_that_keeps_its_place():
    explorer = ThresholdExplorer(BOTH, Quality())
    explorer.sliders["min_words"].value = 6
    before = explorer.image.value
    explorer.chosen.value = "max_symbols"
    assert plain(explorer.about) == Quality.describe()["max_symbols"]
    assert explorer.place.children == (explorer.sliders["max_symbols"],) and explorer.image.value != before
    assert plain(explorer.edge).startswith("No document goes.")
    explorer.chosen.value = "min_words"
    assert explorer.place.children[0].value == 6


def test_the_five_nearest_are_shown_and_of_equally_near_ones_each_corpus_has_some(undrawn):
    texts = ["word " * n for n in range(1, 20)]
    explorer = ThresholdExplorer({"a": texts, "b": texts}, Quality(min_words=10))
    assert [(corpus, value) for corpus, value, _ in explorer.nearest()] == [
        ("a", 9), ("b", 9), ("a", 8), ("b", 8), ("a", 7),
    ]  # fmt: skip


def test_a_rule_that_looks_at_long_documents_alone_says_how_many_there_are(undrawn):
    explorer = ThresholdExplorer(BOTH, Quality())
    explorer.chosen.value = "max_bullets"
    assert "chats: 0 of 5 documents go; 0 have the 4 lines that the rule asks for." in plain(explorer.shares)
    assert "pages: 1 of 8 documents go; 3 have the 4 lines that the rule asks for." in plain(explorer.shares)
    assert plain(explorer.edge).endswith("pages, 1: - milk ↵ - bread ↵ - salt ↵ - a bag of flour")


def test_what_looks_like_markup_is_shown_as_text_and_a_long_document_by_its_beginning(undrawn):
    explorer = ThresholdExplorer({"<i>": ["<script>alert(1)</script>", "word " * 100]}, Quality(min_words=200))
    assert "<script" not in explorer.edge.value and "&lt;script&gt;" in explorer.edge.value
    assert "<i>" not in explorer.edge.value + explorer.shares.value and "&lt;i&gt;</b>: 2 of 2" in explorer.shares.value
    long = next(line for line in explorer.edge.value.split("<div") if "word word" in line)
    assert long.count("word") < 60 and "…</code>" in long


def test_of_a_large_corpus_the_same_sample_is_measured_each_time_and_that_is_said(monkeypatch):
    monkeypatch.setattr(threshold_explorer, "MOST_DOCUMENTS", 50)
    texts = ["word " * n for n in range(1, 1001)]
    first, again = (ThresholdExplorer({"many": texts}, Quality(min_words=500)) for _ in range(2))
    assert len(first.corpora[0].texts) == 50 and first.corpora[0].texts == again.corpora[0].texts
    assert 0.3 < first.goes(first.corpora[0]).mean() < 0.7
    assert plain(first.shares).endswith("of 50 documents go (drawn at random from 1,000).")
    assert first.image.value == again.image.value and first.edge.value == again.edge.value


@pytest.mark.parametrize(
    ("rule", "threshold", "line"),
    [("min_words", 4, 3.5), ("max_words", 4, 4.5), ("max_symbols", 0.4, 0.4), ("min_words", 0, 0.5)],
)
def test_the_line_lies_between_the_counts_that_go_and_those_that_stay(monkeypatch, rule, threshold, line):
    figures = []

    def keep(paint, *arguments, **options):
        paint(figures.append(Figure()) or figures[-1])
        return Picture(PNG, "no picture")

    monkeypatch.setattr(threshold_explorer, "draw", keep)
    ThresholdExplorer(BOTH, dataclasses.replace(OFF, **{rule: threshold}))
    (axes,) = figures[-1].axes
    low, high = axes.get_xlim()
    assert axes.lines[0].get_xdata() == [line, line] and low <= line < high < 100
    assert low == (0.5 if "words" in rule else 0)
    heights = [patch.get_data().values for patch in axes.patches if hasattr(patch, "get_data")]
    floor = 0.5 / len(LONG)
    assert [round(sum(one[one > floor]), 6) for one in heights] == [1, 1]


def test_a_document_is_measured_once(monkeypatch, undrawn):
    seen = []
    real = threshold_explorer.Measures
    monkeypatch.setattr(threshold_explorer, "Measures", lambda text: seen.append(text) or real(text))
    explorer = ThresholdExplorer(BOTH, Quality())
    for rule in explorer.rules:
        explorer.chosen.value = rule
    explorer.sliders[rule].value = explorer.sliders[rule].options[0][1]
    assert sorted(seen) == sorted(SHORT + LONG)


@pytest.mark.parametrize(
    ("corpora", "quality", "words"),
    [
        ({}, Quality(), "there is no corpus to look at; pass a dict"),
        ({"a": SHORT, "b": []}, Quality(), "the corpus 'b' has no document"),
        ({"a": "a text"}, Quality(), "the corpus 'a' is one text; pass a list"),
        (BOTH, OFF, "no threshold to move; set one"),
    ],
)
def test_nothing_to_look_at_is_an_error_that_says_what_to_do(corpora, quality, words):
    with pytest.raises(ValueError, match=words):
        threshold_explorer.threshold_explorer(corpora, quality)


@pytest.mark.parametrize("least", [0, 1, 10**6])
def test_documents_without_a_word_and_thresholds_far_from_all_can_be_drawn(least):
    quality = dataclasses.replace(OFF, min_words=least, min_word_length=least, min_stop_words=least, max_symbols=0.1)
    explorer = ThresholdExplorer({"empty": ["", " "], "same": ["ab cd"] * 3}, quality)
    for rule in explorer.rules:
        explorer.chosen.value = rule
        assert bytes(explorer.image.value).startswith(PNG)


def test_an_explorer_is_seen_without_a_front_end_and_its_words_name_no_measured_number(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(widgets, "display", screen)
    assert threshold_explorer.threshold_explorer(BOTH) is None
    words = r"^Left of the line a document goes: too few words\. Threshold explorer\. Histogram .* in chats, pages,"
    assert_is_seen_without_a_front_end(screen.shown[0], words)
    assert not re.search(r"\d", screen.shown[0][0]["text/plain"])
