import codecs

import pytest

from minigpt.corpus.cleaning.repair import (
    decode_bytes,
    fix_encoding,
    join_broken_words,
    normalise_unicode,
    shorten_elongations,
    tidy_whitespace,
)


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("Itâ€™s a cafÃ©.", "It’s a café."),
        ("ÃƒÂ©tÃƒÂ©", "été"),  # twice over
        ("He said \x93no\x94.", "He said “no”."),
        ("good\nwonâ€™t\n", "good\nwon’t\n"),
        ("Î³ÎµÎ¹Î¬ ÏƒÎ¿Ï…", "γειά σου"),
        ("ä½\xa0å¥½ ðŸ™‚", "你好 🙂"),
    ],
)
def test_text_read_in_a_wrong_encoding_is_read_in_the_right_one(dirty, clean):
    assert fix_encoding(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "naïve café — “so” he said…",
        "Ångström, Ærøskøbing, ÎLE",
        "a ≤ b; 5 € or £3",
        "漢字かな交じり文",
        "Привет, мир",
        "x",
    ],
)
def test_text_beyond_ascii_that_is_right_stays(text):
    assert fix_encoding(text) is text or fix_encoding(text) == text


def test_a_line_that_cannot_be_mended_holds_no_other_back():
    lost = "äóì漢 broken beyond repair"
    assert fix_encoding(f"{lost}\ncafÃ©") == f"{lost}\ncafé"


def test_bytes_are_decoded_or_the_wrong_one_is_named():
    assert decode_bytes("café".encode(), "document 3") == "café"
    with pytest.raises(ValueError, match=r"document 3 is not UTF-8: byte 3 is 0xe9.*repair_bytes=True"):
        decode_bytes(b"caf\xe9", "document 3")
    mixed = "é and ".encode() + b"\x93quoted\x94 \xe9 \x81"
    assert decode_bytes(mixed, "document 3", repair=True) == "é and “quoted” é \x81"
    with pytest.raises(UnicodeEncodeError):
        "é".encode("ascii", codecs.lookup_error("minigpt-windows-1252").__name__ and "minigpt-windows-1252")


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("e\u0301te\u0301", "été"),
        ("one\r\ntwo\rthree\u2028four\x0cfive", "one\ntwo\nthree\nfour\nfive"),
        ("zero\u200bwidth\ufeff and bell\x07", "zerowidth and bell"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("co\xadop, and exam\xad\nple", "coop, and exam-\nple"),
        ("half \ud83d, whole \ud83d\ude00", "half \ufffd, whole 😀"),
        ("plain\u200djoined", "plainjoined"),
    ],
)
def test_every_character_is_written_one_way_and_can_be_seen(dirty, clean):
    assert normalise_unicode(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "👩\u200d👩\u200d👧 a family",
        "می\u200cخواهم",
        "tab\tand\nline",
        "ﬁ ½ ² stay",
        "🏴\U000e0067\U000e0062\U000e007f",
    ],
)
def test_what_has_a_use_stays(text):
    assert normalise_unicode(text) == text


def test_white_space_is_tidy_and_verse_stays_indented():
    dirty = "\n\n  To be,\xa0or \t not  \n    to be \n\n\n\nThat is\tthe question\n \n"
    assert tidy_whitespace(dirty) == "  To be, or not\n    to be\n\nThat is the question"
    assert tidy_whitespace("a　b c d\u200ae") == "a b c d e"


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("he was nomi-\nnated for it", "he was nominated\nfor it"),
        ("an exam-\n   ple, and", "an example,\nand"),
        ("an exam-\nple\nand so on", "an example\nand so on"),
        ("it ends in exam-\nple", "it ends in example"),
        (
            "with-\nout it; and without all",
            "without\nit; and without all",
        ),  # both halves are words, and so is the whole
    ],
)
def test_a_word_broken_at_a_line_end_is_whole_again(dirty, clean):
    assert join_broken_words(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "a note-\nbook: the note is in the book",  # a compound, whose halves the text has
        "self-\ncontrol",
        "a narrow-\nmouthed bottle",
        "3-\n4 and x = a -\nb",
        "I will--\nnot",
        "Jean-\nPaul",
        "a Star-\nchamber matter",
        "the contro-\nhttp://example.org",
        "But soft-\n\nROMEO:\nwhat light",
        "item:\n-\nnext",
    ],
)
def test_a_hyphen_that_belongs_at_the_line_end_stays(text):
    assert join_broken_words(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("sooooo goood!!!!!!", "so good!!!"),
        ("WHAAAAT????", "WHAT???"),
        ("wait........", "wait..."),
        ("Hmmm, yesss", "Hmm, yess"),
        ("yes, yesss, tooo and SAAAD, sad", "yes, yes, too and SAD, sad"),
    ],
)
def test_drawn_out_words_are_shortened_and_nothing_is_guessed(dirty, clean):
    assert shorten_elongations(dirty) == clean


@pytest.mark.parametrize(
    "text",
    [
        "HENRY VIII and Act III, xviii",
        "www.example.org/aaa and http://t.co/Xllly",
        "AAA batteries, the CCC",
        "The AAA's members, (iii) and the IEEE, now.",
        "Item, Sawce iiii.d. and Sacke v.s.viii.d.",
        "@swerviinnn #booop i5,ooo",
        "see all too well. Well... wait....",
        "bookkeeper, committee",
    ],
)
def test_what_only_looks_drawn_out_stays(text):
    assert shorten_elongations(text) == text


@pytest.mark.parametrize("hopeless", ["look _ÙªÎ_ÙªÎ here", "it. ‰ª£", "Clear‰Ûª_ÅÊ‰ÛÓ_Ì_å¢ heard", "car ’çÅÙè“Î±"])
def test_a_repair_that_would_invent_a_letter_is_left(hopeless):
    assert fix_encoding(hopeless) == hopeless


def test_long_texts_are_searched_another_way_with_the_same_result():
    text = "It is sooo good. " + "No letter here stands three times. " * 100
    assert shorten_elongations(text) == text.replace("sooo", "so")
    assert shorten_elongations("é\nfine " * 500) == "é\nfine " * 500
