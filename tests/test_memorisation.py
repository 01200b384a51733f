import numpy as np
import pytest

from minigpt.memorisation import copied_lengths, memorisation

ALPHABET = "ab "


def by_brute_force(text, source):
    return [
        max(n for n in range(len(text) - start + 1) if text[start : start + n] in source) for start in range(len(text))
    ]


@pytest.mark.parametrize("seed", range(20))
def test_the_lengths_are_those_of_trying_every_substring(seed):
    random = np.random.default_rng(seed)
    text, source = ("".join(random.choice(list(ALPHABET), size=n)) for n in (30, 60))
    assert copied_lengths(text, source).tolist() == by_brute_force(text, source)


def test_characters_that_the_source_lacks_have_length_zero():
    assert copied_lengths("aéb", "ab").tolist() == [1, 0, 1]
    assert copied_lengths("", "ab").tolist() == []


TRAINING = "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer"
HELD_OUT = "My lord, I have remembrances of yours that I have longed long to re-deliver; I pray you"


def test_a_recited_passage_is_found_and_told_from_what_language_shares_anyway():
    written = "I say, that is the question: whether it is to rain."
    found = memorisation(written, TRAINING, HELD_OUT)
    assert found.passage == ", that is the question: whether " and found.length == len(found.passage)
    assert [written[a:b] for a, b in found.spans] == [found.passage]
    assert found.usual == copied_lengths(HELD_OUT[: len(written)], TRAINING).max() < 8
    assert found.share == pytest.approx(found.length / len(written))
    assert "longest copy 32 characters" in repr(found)


def test_parts_that_touch_are_one_and_parts_apart_are_several():
    written = "that is the question?? nobler in the mind"
    spans = memorisation(written, TRAINING, HELD_OUT).spans
    assert [written[a:b] for a, b in spans] == ["that is the question", " nobler in the mind"]


def test_the_held_out_text_itself_is_no_memory():
    found = memorisation(HELD_OUT, TRAINING, HELD_OUT)
    assert found.length == found.usual and found.spans == [] and found.share == 0


@pytest.mark.parametrize(
    "texts, words",
    [
        (("", "a", "a"), "written text is empty"),
        (("a", "", "a"), "training text is empty"),
        (("ab", "a", "a"), "held out"),
    ],
)
def test_texts_that_cannot_be_compared_are_refused(texts, words):
    with pytest.raises(ValueError, match=words):
        memorisation(*texts)
