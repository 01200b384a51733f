import re

import pytest

from minigpt import BPETokenizer, CharTokenizer
from minigpt.lab.token_viewer import MOST_TOKENS, TokenViewer, show_cuts, token_viewer

TEXT = "the cat sat on the mat. " * 20
BPE, CHAR = BPETokenizer.train([TEXT], vocab_size=300), CharTokenizer.train([TEXT])
BOTH = {"characters": CHAR, "ours": BPE}


def boxes(cut):
    return re.findall(r'title="([^"]*)">([^<]*)</span>', cut.to_html())


def test_every_token_is_a_box_with_its_id_and_its_bytes():
    characters, ours = TokenViewer(BOTH, "the mat").cuts().cuts
    assert [piece for _, piece in boxes(ours)] == ["the", "·mat"]
    assert boxes(ours)[0][0] == f"id {BPE.encode('the')[0]}, bytes 74 68 65"
    assert [piece for _, piece in boxes(characters)] == list("the·mat")
    assert ours.heading == "ours: 2 tokens, 3.50 bytes each"
    assert str(ours) == "ours: 2 tokens, 3.50 bytes each\nthe|·mat"


def test_a_text_under_a_tokenizer_that_cannot_write_it_says_why_and_the_others_go_on():
    characters, ours = TokenViewer(BOTH, "好").cuts().cuts
    assert "which is not among the" in characters.to_html()
    assert [piece for _, piece in boxes(ours)] == ["E5", "A5", "BD"]


def test_typing_redraws_and_what_looks_like_markup_is_shown_as_text():
    viewer = TokenViewer({"ours": BPE}, "cat")
    viewer.text.value = "<script>"
    assert "<script" not in viewer.view.value and "&lt;" in viewer.view.value


def test_a_tokenizer_file_can_be_added_and_a_bad_one_is_named_in_place(tmp_path):
    viewer = TokenViewer({"ours": BPE}, "the cat")
    viewer.path.value = str(tmp_path)
    viewer.add.click()
    assert "there is no tokenizer at" in viewer.note.value and len(viewer.tokenizers) == 1
    BPE.save(tmp_path)
    viewer.add.click()
    assert viewer.note.value == "" and str(tmp_path) in viewer.view.value
    viewer.path.value = " "
    viewer.add.click()
    assert "Type the path" in viewer.note.value


def test_a_long_text_shows_its_first_tokens_and_says_so():
    (cut,) = TokenViewer({"ours": BPE}, TEXT * 20).cuts().cuts
    assert len(boxes(cut)) == MOST_TOKENS < len(cut.ids)
    assert f"of which {MOST_TOKENS} are shown" in cut.heading


def test_an_empty_text_and_half_a_surrogate_pair_break_nothing():
    (cut,) = TokenViewer({"ours": BPE}, "").cuts().cuts
    assert cut.heading == f"ours, {BPE.vocab_size} tokens in its vocabulary"
    assert "half of a surrogate pair" in TokenViewer({"ours": BPE}, "a\ud800").view.value


def test_without_a_front_end_the_cuts_are_shown_as_a_page_and_as_text(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr("minigpt.lab.widgets.display", lambda data, **options: shown.append(data))
    token_viewer(BOTH, "the mat")
    assert "ours: 2 tokens, 3.50 bytes each\nthe|·mat" in shown[0]["text/plain"]
    assert "·mat</span>" in shown[0]["text/html"] and "application/vnd.jupyter.widget-view+json" in shown[0]
    show_cuts(BOTH, "the mat")
    assert "ours: 2 tokens, 3.50 bytes each\nthe|·mat" in capsys.readouterr().out
    with pytest.raises(ValueError, match="there is no tokenizer"):
        token_viewer({}, "the mat")
