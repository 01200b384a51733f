"""What must hold of every step on any text at all: idempotent, harmless to clean text, linear on hostile text."""

import difflib
import random
import re
import time
import tracemalloc

import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minigpt import clean, corpus, load_corpus
from minigpt.corpus.cleaning import CODE_STEPS, STEPS
from minigpt.corpus.cleaning.run import passes, run_chunk
from minigpt.corpus.stories import stories

EDITS = [step for step in STEPS if step.kind == "edit"]
DROPS = [step for step in STEPS if step.kind == "drop"]
FRAGMENTS = (
    "a é ' ’ â€™ Ã© Â \xa0 \x92 \x9c \ufeff \u200b \u200d \u0301 \ud83d \ude00 \r \r\n \n \n\n \t \x1b[31m \xad \xad\n "
    "<b> </b> < > <p> <br/> <!-- --> <script> </script> <td & amp; &amp; &lt; &#38; &#3 8; &#xfffd; &#0; lt;b gt; "
    "[[ ]] [[a|b]] {{ }} {{a| {| |} ''' '' == = File: Category: | http://x.org [http:// <ref> </ref> <ref/> * # #redirect "
    "exam- -\n ple exam-\nple sooo o o oo III AAA aaa !!! ! ? ..... . "
    "***  START OF THE END cookies We use accept all Copyright © 2001 reserved Home | About > newsletter read more "
    "jane@ @ example.org 4111 1111 1111 1111 - ( ) + 555 0187 212 123-45-6789 1.2.3.4 GB82 WEST 1234 5698 7654 32 "
    "fu ck fuck shit the The and word words 漢字 ф"
)
pieces = st.lists(st.sampled_from([*FRAGMENTS.split(" "), " "]), max_size=25).map("".join)
texts = st.one_of(st.text(max_size=60), pieces, st.tuples(pieces, st.text(max_size=8), pieces).map("".join))


def edited(text, steps=EDITS):
    """The text after the edits, settled; None where they dropped it."""
    for changes in run_chunk(passes(steps), [text], [False]):
        for after in changes.texts:
            text = after
    return text


@pytest.mark.parametrize("step", EDITS, ids=lambda step: step.name)
@given(text=texts)
@settings(max_examples=60, deadline=None)
def test_an_edit_done_twice_changes_nothing_more(step, text):
    once = step.function(text)
    assert step.function(once) == once


@given(text=texts)
@settings(max_examples=150, deadline=None)
def test_all_edits_together_are_idempotent_and_each_has_nothing_left_to_do(text):
    once = edited(text)
    if once is not None:
        assert [step.function(once) for step in EDITS] == [once] * len(EDITS)


@given(documents=st.lists(texts, min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_clean_corpus_passes_through_unchanged_byte_for_byte(documents):
    documents = [d.encode("utf-8", "replace").decode() for d in documents] + ["A good text of the most common words."]
    once, _ = clean(Dataset.from_dict({"text": documents}))
    twice, report = clean(once)
    assert twice["text"][:] == once["text"][:]
    assert all(line.changed == line.removed == 0 for line in report.steps)


def sample_of(name, n):
    if not corpus.is_cached(name):
        pytest.skip(f"{name} is not in the cache; minigpt data fetch {name}")
    rows = load_corpus(name)["text"]
    return rows[:: max(1, len(rows) // n)]


def lost(before, after):
    """Characters of `before` that are not in `after`, or were put in between."""
    if before == after:
        return 0
    if after is None:
        return len(before)
    total = 0
    matcher = difflib.SequenceMatcher(None, before.split("\n"), after.split("\n"), autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        if tag != "equal":
            a, b = "\n".join(matcher.a[i:j]), "\n".join(matcher.b[k:m])
            inner = difflib.SequenceMatcher(None, a, b, autojunk=False)
            total += max(len(a), len(b)) - sum(block.size for block in inner.get_matching_blocks())
    return total


@pytest.mark.parametrize(
    ("name", "n", "steps"),
    [("shakespeare", 120, STEPS), ("sotu", 12, STEPS), ("stories", 300, STEPS), ("python-stdlib", 60, CODE_STEPS)],
)
def test_less_than_a_thousandth_of_a_clean_text_is_damaged(name, n, steps):
    documents = sample_of(name, n)
    kept, report = clean(Dataset.from_dict({"text": documents, "row": list(range(len(documents)))}), steps)
    after = dict(zip(kept["row"], kept["text"]))
    damage = sum(lost(text, after.get(row)) for row, text in enumerate(documents))
    assert damage < 0.001 * sum(map(len, documents)), report


HOSTILE = [
    "<", "<a ", "<!--", "<script ", "&", "&amp;", "&#5&#52;;", "@", "a@", "a@b.", "1", "1 ", "12-", "1.", "+1", "(1", "[[",
    "{{", "{|\n", "]]", "''", "'''x", "=", "==\n", "== x ", "<ref>", "[http://", "{{a|[[b", "a-\n", "ab-\nab ", "a", "aaab",
    " ", " \n", "\t", "\n", "\xa0", "\u200b", "\u200d", "â€", "Ã ", "\x92a", "\x1b[", "\u0301", "*** START OF THE ",
    "home | ", "copyright ", "we use cookies x ", "gnu general public license ", "share on facebook ", "GB82WEST", "AB12 ",
    "A", "!", ".", "漢", "the ", "fu", "#", "*#:;", "<EMAIL>@", "\r", "I",
]  # fmt: skip


def fastest(function, text):
    times = []
    for _ in range(2):
        started = time.process_time()
        function(text)
        times.append(time.process_time() - started)
    return min(times)


def grows_faster(function, short, long, noise=0.02):
    """Whether ten times the text takes more than thirty times as long; quadratic time would be a hundred times."""
    seconds = fastest(function, long)
    return seconds > noise and seconds > 30 * max(fastest(function, short), noise / 10)


def grows_faster_than_the_text(function, unit, size):
    short, long = (unit * (times * size // len(unit)) + "x\n" for times in (1, 10))
    return grows_faster(function, short, long)


@pytest.mark.parametrize("step", EDITS + DROPS, ids=lambda step: step.name)
def test_ten_times_the_hostile_text_takes_about_ten_times_as_long(step):
    assert not [unit for unit in HOSTILE if grows_faster_than_the_text(step.function, unit, 8000)]


def test_a_pattern_that_takes_quadratic_time_would_be_caught():
    assert grows_faster_than_the_text(lambda text: re.sub(r"a+b", "", text), "a", 3000)


def one_line(characters):
    """Words in random order without a line break, which no rule on repetition or language throws out."""
    words = sorted({word for row in stories(100) for word in row["text"].split()})
    return " ".join(random.Random(0).choices(words, k=characters // 4))[:characters].rstrip()


def passes_unchanged(text):
    assert clean(Dataset.from_dict({"text": [text]}))[0]["text"][:] == [text]


def test_a_single_line_of_megabytes_takes_time_in_proportion():
    line = one_line(5_000_000)
    assert not grows_faster(passes_unchanged, line[:500_000].rstrip(), line)


def test_a_single_line_takes_memory_in_proportion():
    line = one_line(500_000)
    passes_unchanged(line)  # loads what the steps keep
    tracemalloc.start()
    try:
        passes_unchanged(line)
        assert tracemalloc.get_traced_memory()[1] < 30 * len(line)  # bytes; the words of a text by themselves take 12
    finally:
        tracemalloc.stop()
