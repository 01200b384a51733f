import pytest

from minigpt.corpus.cleaning.boilerplate import strip_boilerplate
from minigpt.corpus.cleaning.markup import strip_html, strip_wiki


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("<p>A <b>bold</b> <a href='/x?a=1'>link</a>.</p><p>Next</p>", "A bold link.\n\nNext"),
        ("one<br/>two<BR>three<br>\nfour", "one\ntwo\nthree\nfour"),
        ("<tr><td>a</td><td>b</td></tr>", " a  b "),
        ("x<!-- a > b -->y<script type='t'>if (a<b) {}</script>z<STYLE>p {}</STYLE>", "xyz"),
        ("AT&amp;T &lt;3 &#39;so&#x27; &eacute;", "AT&T <3 'so' é"),
        ("&amp;amp;lt;", "<"),
        ("<!DOCTYPE html><html>text</html>", "text"),
    ],
)
def test_html_becomes_its_text(dirty, clean):
    assert strip_html(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "if a < b and c > d: <stdin>, List<String>, x <- y",
        "I <3 you >_< <hug>",
        "AT&T, Q&A; R&D &c. &nosuchname; &#xFFFFFF; a?b=1&copy=2",
        "an open <!-- comment and an open <a tag",
        "&#99999999999999999999;",
    ],
)
def test_what_is_no_html_stays(text):
    assert strip_html(text) == text


WIKI = """{{Infobox play | name = {{lang|en|The Mill}} | author = [[Anna Otter]] }}
'''The Mill''' is a ''play'' by [[Anna Otter|Otter]],<ref>{{cite book |last=Otter}}</ref> set in a [[town]].<ref name=a />

== Plot ==
* A [[miller (trade)|miller]] sees [http://example.org a page].
:He reads.

{| class="wikitable"
! Act !! Place
|-
| 1 || [[Mill]]
|}
[[File:Mill.jpg|thumb|The mill, seen from the [[harbour|old harbour]]]]
It ends well. __NOTOC__
[[Category:Plays]]
[[de:Die Mühle]]"""
TEXT = "The Mill is a play by Otter, set in a town.\n\nPlot\nA miller sees a page.\nHe reads.\n\nIt ends well. "


def test_a_wiki_page_becomes_what_its_reader_sees():
    assert strip_wiki(WIKI).strip("\n") == TEXT
    assert strip_wiki("#REDIRECT [[Mill]]") == ""
    assert strip_wiki("[[[a|Enter]] TOM]") == "[Enter TOM]"


@pytest.mark.parametrize(
    "text",
    [
        "[Enter TOM and [Aside] ANN]\n''Tis true,' quoth he.",
        "matrix = [[1, 2], [3, 4]]; {{1: 2}}; a == b\nif x == '':",
        "* a list\n# of things: {curly} and ((round))",
        "'''Tis odd'",
        "a {{hug}} for you, and {{header.user | number}}",
        "=== \n==",
    ],
)
def test_what_is_no_wiki_markup_stays(text):
    assert strip_wiki(text) == text


def test_marks_that_nobody_closes_stay_and_cost_no_other_link():
    assert strip_wiki("[[a]] and [[open {{too") == "a and [[open {{too"
    assert strip_wiki("[[a]] }} ]]") == "a }} ]]"
    deep = "[[x]]" + "{{" * 30 + "}}" * 30
    assert strip_wiki(deep).startswith("x")


LICENCE = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software."


@pytest.mark.parametrize(
    "line",
    [
        "We use cookies to improve your experience.",
        "Copyright (c) 2019 Anna Otter",
        "© 2001-2020 The Mill. All rights reserved.",
        "Home | About us | Contact",
        "Home > Library > Texts > 1999",
        "« Previous | Next »",
        "Skip to main content",
        "Share this: Facebook | Twitter | Email",
        "Subscribe to our newsletter!",
        "Click here to read more",
        "Posted on March 3, 2011 by admin",
        "Log in or register to post comments",
        "Please enable JavaScript to view this page.",
        "Privacy Policy | Terms of Service",
    ],
)
def test_a_line_of_the_pages_frame_goes(line):
    assert strip_boilerplate(f"A line.\n{line}\nAnother.") == "A line.\nAnother."


@pytest.mark.parametrize(
    "text",
    [
        "She baked cookies, and we used the kitchen.\nB: chocolate chip cookies",
        "The law of copyright was changed in 1909, and my rights reserved.",
        "Your oaths are pass'd; and now subscribe your names,",
        "A: I posted the photo on Friday.\nB: read more books",
        "Either | or: the bar | is a sign",
        "The car is powered by a small gas motor",
        "go home > sleep",
        "We share this house.",
        "That's in the terms of use we clicked the box for!",
    ],
)
def test_a_line_that_speaks_of_such_things_stays(text):
    assert strip_boilerplate(text) == text


def test_licences_and_what_lies_outside_the_marks_go():
    text = f"{LICENCE}\n\nThe mill is old.\n\n{LICENCE}\nIt goes on."
    assert strip_boilerplate(text) == "The mill is old."
    book = "Header\n*** START OF THIS EBOOK THE MILL ***\nThe mill is old.\n*** END OF THIS EBOOK THE MILL ***\nLicence"
    assert strip_boilerplate(book) == "The mill is old.\n"
