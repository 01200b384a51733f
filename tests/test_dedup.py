import itertools
import math
import random
import zlib

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from rensa import RMinHash, RMinHashLSH

from minigpt import clean, corpus, load_corpus
from minigpt.corpus.cleaning.steps import decontaminate
from minigpt.corpus.dedup import (
    WORD,
    Decontaminate,
    ExactDuplicates,
    NearDuplicates,
    bands_for,
    chance_to_meet,
    jaccard,
    runs_of_words,
    shingles,
)
from minigpt.corpus.stories import stories

STORIES = [row["text"] for row in stories(300)]


def edited(text, n_words, seed):
    """The text with `n_words` of its words replaced."""
    words, chance = text.split(), random.Random(seed)
    for place in chance.sample(range(len(words)), n_words):
        words[place] = "changed"
    return " ".join(words)


def verdicts(rule, texts):
    return rule.judge()(rule.sketch(texts))


def same_hash(words):
    """The hash of a run of words, with Python's own integers."""
    value = 0
    for word in words:
        value = (value + zlib.crc32(word.encode())) * 0x9E3779B97F4A7C15 % 2**64
        value ^= value >> 32
    return value


def test_runs_of_words_are_hashed_the_same_everywhere():
    words = ["to", "be", "or", "not", "to", "be"]
    expected = [same_hash(words[i : i + 3]) for i in range(4)]
    assert runs_of_words("To be, or NOT to be!", 3).tolist() == expected
    assert runs_of_words("To be", 3).tolist() == [same_hash(["to", "be"])]


@pytest.mark.parametrize("text", ["", "...", "\ud800", "word"])
def test_a_text_without_enough_words_is_one_run(text):
    assert len(runs_of_words(text, 5)) == 1 and jaccard(shingles(text), shingles(text)) == 1


def test_a_chinese_character_is_a_word():
    assert WORD.findall("北京a b") == ["北", "京", "a", "b"]
    assert len(shingles("开往北京的火车今天晚点了", 5)) == 8


@settings(max_examples=50)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=3),
    st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=3),
)
def test_jaccard_is_that_of_the_sets_of_word_runs(a, b):
    runs_a, runs_b = ({tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (a, b))
    expected = len(runs_a & runs_b) / len(runs_a | runs_b)
    assert jaccard(shingles(" ".join(a), 3), shingles(" ".join(b), 3)) == pytest.approx(expected)


def tokens(hashes):
    return hashes.astype(np.uint32).view("V4").tolist()


def pair(similarity, size, chance):
    """Two sets of `size` hashes in all, of which they share just so many."""
    hashes = chance.choice(2**32, size, replace=False)
    common, a = int(similarity * size), (1 + similarity) / 2
    return tokens(hashes[: int(a * size)]), tokens(np.concatenate([hashes[:common], hashes[int(a * size) :]]))


@pytest.mark.parametrize("similarity", [0.2, 0.5, 0.8])
def test_minhash_estimates_the_true_jaccard_within_its_error(similarity):
    chance, n = np.random.default_rng(0), 400
    a, b = zip(*(pair(similarity, 400, chance) for _ in range(n)))
    errors = [
        first.jaccard(second) - similarity
        for first, second in zip(RMinHash.from_token_sets(a, 128, 0), RMinHash.from_token_sets(b, 128, 0))
    ]
    deviation = math.sqrt(similarity * (1 - similarity) / 128)  # of a share counted in 128 independent places
    assert abs(np.mean(errors)) < 4 * deviation / math.sqrt(n)
    assert (
        0.3 * deviation < np.std(errors) < 1.2 * deviation
    )  # the library's places are less than independent, and better


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7])
def test_pairs_meet_in_a_band_as_often_as_the_formula_says(similarity):
    chance, n, bands, rows = np.random.default_rng(1), 600, 16, 4
    met = 0
    for _ in range(n):
        first, second = RMinHash.from_token_sets(pair(similarity, 400, chance), bands * rows, 0)
        index = RMinHashLSH(0.5, bands * rows, bands)
        index.insert(0, first)
        met += bool(index.query(second))
    expected = chance_to_meet(similarity, bands, rows)
    assert abs(met / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n) + 0.01


def test_the_longest_bands_are_taken_that_still_find_the_pairs():
    for threshold in (0.5, 0.7, 0.9):
        bands, rows = bands_for(threshold)
        assert chance_to_meet(threshold, bands, rows) >= 0.99 and bands * rows <= 128
        assert chance_to_meet(threshold, 128 // (rows + 1), rows + 1) < 0.99
    with pytest.raises(ValueError, match="use more, or a higher threshold"):
        bands_for(0.001, num_hashes=16)


def test_near_duplicates_are_those_that_comparing_everything_with_everything_finds():
    texts = STORIES[:150] + [edited(text, 1 + i % 8, i) for i, text in enumerate(STORIES[:150])]
    random.Random(0).shuffle(texts)
    sets, kept, expected = [shingles(text) for text in texts], [], []
    for each in sets:
        expected.append(any(jaccard(each, other) >= 0.7 for other in kept))
        if not expected[-1]:
            kept.append(each)
    found = [reason is not None for reason in verdicts(NearDuplicates(), texts)]
    assert 50 < sum(expected) < 100 and found == expected


def test_the_verdict_is_the_same_in_one_piece_and_in_many():
    texts = STORIES[:40] + [edited(text, 1, i) for i, text in enumerate(STORIES[:40])]
    for rule in (NearDuplicates(), ExactDuplicates()):
        judge, pieces = rule.judge(), [texts[i : i + 7] for i in range(0, len(texts), 7)]
        assert list(itertools.chain(*(judge(rule.sketch(piece)) for piece in pieces))) == verdicts(rule, texts)


def test_the_reason_shows_the_document_that_stays():
    text = STORIES[0]
    assert verdicts(NearDuplicates(), [text, edited(text, 1, 0)])[1].endswith(f"begins {text[:40]!r}")


def test_no_chain_of_small_changes_leads_to_another_text():
    words = [f"w{i}" for i in range(100)]
    a, b, c = words, [*words[:90], *(f"x{i}" for i in range(10))], [*words[:80], *(f"x{i}" for i in range(20))]
    texts = [" ".join(each) for each in (a, b, c)]
    assert jaccard(shingles(texts[1]), shingles(texts[2])) > 0.7 > jaccard(shingles(texts[0]), shingles(texts[2]))
    assert [reason is None for reason in verdicts(NearDuplicates(), texts)] == [True, False, True]


def test_exact_duplicates_differ_in_case_white_space_and_encoding_alone():
    texts = ["Caf\u00e9 au lait", "cafe\u0301  AU\nlait", "cafe au lait", "caf\u00e9 au lait.", "Caf\u00e9 au lait"]
    assert verdicts(ExactDuplicates(), texts) == [None, "duplicate", None, None, "duplicate"]


EVALUATION = ["one two three four five six seven eight nine ten eleven twelve thirteen fourteen"]


def test_the_share_of_words_that_the_evaluation_holds_is_known():
    rule = Decontaminate(EVALUATION, n=8)
    own = " ".join(f"own{i}" for i in range(10))
    assert rule.share(own) == 0
    assert rule.share(f"{own} {EVALUATION[0]}") == pytest.approx(14 / 24)
    assert rule.share(f"{own} Two, three four five six seven -- EIGHT nine!") == pytest.approx(8 / 18)
    assert rule.share(f"{own} two three four five six seven eight") == 0  # seven words in a row are no run of eight
    assert rule(f"{own} {EVALUATION[0]}") == "in the evaluation: 58.3% of its words" and rule(own) is None
    assert Decontaminate(EVALUATION, n=8, allowed=0.6)(f"{own} {EVALUATION[0]}") is None


def test_a_run_is_as_long_as_a_short_evaluation_text_and_8_to_13_words():
    lengths = {7: 8, 10: 10, 40: 13}
    for n_words, n in lengths.items():
        texts = [" ".join(f"w{i}" for i in range(n_words))] * 5 + [" ".join(f"v{i}" for i in range(50))] * 2
        assert Decontaminate(texts).n == n


def test_training_text_that_quotes_the_evaluation_goes():
    training = Dataset.from_dict({"text": [*STORIES[:20], f"{STORIES[30]} {EVALUATION[0]}"]})
    cleaned, report = clean(training, [decontaminate(EVALUATION)])
    assert cleaned["text"][:] == STORIES[:20]
    assert report["decontaminate"].reasons == {"in the evaluation": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NearDuplicates(threshold=0), "threshold=0 is no similarity"),
        (lambda: NearDuplicates(n=0), "n=0 words make no shingle"),
        (lambda: Decontaminate("a text"), "against is one text"),
        (lambda: Decontaminate([]), "against holds no text"),
        (lambda: Decontaminate(["too short"]), "no text in against has 8 words; give longer texts, or n=2"),
        (lambda: Decontaminate(EVALUATION, allowed=1), "allowed=1 must be a share"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_two_editions_of_hamlet_are_as_alike_as_the_datasheet_says():
    if not (corpus.is_cached("shakespeare") and corpus.is_cached("shakespeare-editions")):
        pytest.skip("the editions are not in the cache; minigpt data fetch shakespeare shakespeare-editions")
    scenes = load_corpus("shakespeare")
    hamlet = "\n\n".join(row["text"] for row in scenes if row["play"] == "Hamlet")
    editions = {row["edition"]: row["text"] for row in load_corpus("shakespeare-editions") if row["title"] == "Hamlet"}
    assert jaccard(shingles(hamlet), shingles(editions["modern"])) == pytest.approx(0.61, abs=0.01)
    assert jaccard(shingles(editions["modern"]), shingles(editions["folio"])) == pytest.approx(0.17, abs=0.01)


def test_the_seven_doubles_in_milton_are_found():
    if not corpus.is_cached("milton"):
        pytest.skip("milton is not in the cache; minigpt data fetch milton")
    texts = load_corpus("milton")["text"][:]
    assert verdicts(ExactDuplicates(), texts).count("duplicate") == 7
