import re

import pytest

from minigpt.lab.memorised import memorised, show_memorised

PASSAGE = "To be, <or> not\nto be & so on"


def marked(display):
    return re.findall(r'title="([^"]*)">([^<]*)</u>', display._repr_html_())


def test_what_is_copied_is_underlined_in_html_with_its_length_and_stands_in_brackets_as_text():
    display = memorised(PASSAGE, [(0, 5), (7, 15)], "Copied & pasted")
    assert marked(display) == [
        ("5 characters, all of them in copied parts", "To be"),
        ("8 characters, all of them in copied parts", "&lt;or&gt; not"),
    ]
    page = display._repr_html_()
    assert "Copied &amp; pasted" in page and "<or>" not in page and "\nto be &amp; so on</div>" in page
    assert page.endswith("Underlined</u>: stands word for word in the training text, 45% of the characters.</div>")
    assert repr(display) == (
        "Copied & pasted\n[[To be]], [[<or> not]]\nto be & so on\n"
        "In [[double brackets]]: stands word for word in the training text, 45% of the characters."
    )


def test_spans_come_in_any_order_and_those_that_meet_or_overlap_are_one():
    display = memorised("abcdefghij", [(6, 8), (0, 3), (2, 5), (5, 6), (9, 10), (3, 4)])
    assert [text for _, text in marked(display)] == ["abcdefgh", "j"]
    assert repr(display).startswith("[[abcdefgh]]i[[j]]\n")


def test_what_is_left_after_the_marks_are_taken_off_is_the_passage():
    for spans in ([], [(0, len(PASSAGE))], [(3, 4)], [(0, 1), (2, 29)]):
        display = memorised(PASSAGE, spans)
        assert repr(display).rpartition("\n")[0].replace("[[", "").replace("]]", "") == PASSAGE


@pytest.mark.parametrize("passage", [PASSAGE, ""])
def test_where_nothing_is_copied_that_is_said(passage):
    display = memorised(passage, [], "New")
    assert "<u" not in display._repr_html_() and "Nothing here stands word for word" in display._repr_html_()
    assert repr(display) == f"New\n{passage}\nNothing here stands word for word in the training text."


@pytest.mark.parametrize("span", [(-1, 3), (3, 3), (5, 2), (0, 30)])
def test_a_span_outside_the_passage_is_an_error_that_says_what_a_span_is(span):
    with pytest.raises(
        ValueError, match=rf"the span \({span[0]}, {span[1]}\) does not lie in a passage of 29 characters"
    ):
        show_memorised(PASSAGE, [span], "")


def test_it_is_shown_as_a_page_and_as_text(capsys):
    assert show_memorised(PASSAGE, [(0, 5)], "Copied") is None
    assert "Copied\n[[To be]], <or>" in capsys.readouterr().out
