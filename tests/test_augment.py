import json
import re
import time

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.bench import augment as bench
from minigpt.cli import main
from minigpt.corpus import FetchError, is_cached, synonyms
from minigpt.corpus.augment import KINDS, WORD, augment, augmented, turns
from minigpt.corpus.stories import stories
from minigpt.corpus.synonyms import SHIFTERS, Lexicon, build, inflect, lexicon
from minigpt.lab.experiments.augmentation_check import RATES, RESULTS, kept, sample
from minigpt.lab.experiments.augmentation_check import main as check

RULES = [kind for kind in KINDS if kind != "synonyms"]
KNOWN = Lexicon(
    forms={
        "movie": ("noun", ("film",)), "movies": ("noun", ("films",)), "big": ("adjective", ("enormous", "large")),
        "use": ("verb", ("employ",)), "kind": ("noun", ("sort",)), "rose": ("noun", ("bloom",)),
    },
    compounds=frozenset({"movie star"}),
    names=frozenset({"rose"}),
)  # fmt: skip
TEXT = (
    "The dog did not see the cat. It never barked, and hardly slept!\n\nBut we can't say that it was too bad; no, sir."
)
LONG = " ".join(row["text"].replace("\n", " ") for row in stories(60, 3))

# A WordNet of a few words. A line of data.*: offset, file, kind, number of words, words with ids, pointers, gloss.
FILES = {
    "data.noun": "  1 licence\n"
    "01 10 n 03 movie 0 film 0 Hollywood 0 000 | a story in pictures\n"
    "02 06 n 02 film 1 layer 0 000 | a thin coat\n"
    "03 18 n 02 man 0 fellow 0 000 | a person\n"
    "04 18 n 02 fellow 1 bloke 0 000 | (British informal) a man\n"
    "05 28 n 02 minute 0 min 0 000 | sixty seconds\n"
    "06 15 n 02 city 0 town 0 000 | a place\n",
    "data.verb": "07 30 v 02 stop 0 halt 0 000 01 + 02 00 | come to an end\n"
    "08 30 v 02 see 0 behold 0 000 01 + 02 00 | look\n"
    "09 30 v 02 film 0 shoot 0 000 01 + 02 00 | record\n"
    "14 30 v 02 carry 0 bear 0 000 01 + 02 00 | hold\n",
    "data.adj": "10 00 a 02 big 0 large 0 001 ! 11 a 0101 | of size\n11 00 a 02 little 0 small 1 001 ! 10 a 0101 | small\n"
    "15 00 s 02 warm 0 hot 0 000 | not cold\n16 00 s 01 hot 1 001 ! 17 a 0101 | burning\n17 00 s 01 warm 1 000 | tepid\n",
    "data.adv": "12 02 r 02 often 0 frequently 0 000 | many times\n",
    "index.sense": "movie%1:10:00:: 01 1 26\nfilm%1:10:00:: 01 1 40\nfilm%1:06:00:: 02 2 5\nlayer%1:06:00:: 02 1 9\n"
    "man%1:18:00:: 03 1 50\nfellow%1:18:00:: 03 1 9\nfellow%1:18:01:: 04 2 0\nbloke%1:18:00:: 04 1 3\n"
    "minute%1:28:00:: 05 1 9\nmin%1:28:00:: 05 1 9\nstop%2:30:00:: 07 1 9\nhalt%2:30:00:: 07 1 9\n"
    "see%2:30:00:: 08 1 9\nbehold%2:30:00:: 08 1 9\nfilm%2:30:00:: 09 1 2\nshoot%2:30:00:: 09 1 2\n"
    "big%3:00:00:: 10 1 9\nlarge%3:00:00:: 10 1 9\noften%4:02:00:: 12 1 9\nfrequently%4:02:00:: 12 1 9\n"
    "city%1:15:00:: 06 1 9\ntown%1:15:00:: 06 1 9\ncarry%2:30:00:: 14 1 9\nbear%2:30:00:: 14 1 9\n"
    "warm%5:00:00:x:00 15 1 9\nhot%5:00:00:x:00 15 1 9\nmovie_star%1:18:00:: 13 1 0\n",
    "noun.exc": "men man\n",
    "verb.exc": "beheld behold\nsaw see\nseen see\nbore bear\nborne bear\n",
    "adj.exc": "bigger big\nbiggest big\n",
}  # fmt: skip


def words(text):
    return WORD.split(text)[1::2]


def changed(text, kind, rate=1.0, **options):
    return augment([text], kind, rate, **options)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_made_of_seed_place_and_text_alone(kind):
    texts = [row["text"] for row in stories(20, 1)]
    texts = [text.replace("big", "movie big") + " Of the big movie." for text in texts]
    copies = augment(texts, kind, 0.2, seed=1, known=KNOWN)
    assert copies == augment(texts, kind, 0.2, seed=1, known=KNOWN)
    assert copies[3:4] == augment([*"abc", texts[3]], kind, 0.2, seed=1, known=KNOWN)[3:]
    assert copies != augment(texts, kind, 0.2, seed=2, known=KNOWN)
    assert len(copies) == len(texts) and copies != texts


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_at_rate_zero_and_an_empty_text_stays(kind):
    texts = ["", " ", "\n\n", "Yes", TEXT, LONG]
    assert augment(texts, kind, 0, known=KNOWN) == texts
    assert augment(texts, kind, 1, known=KNOWN)[:3] == texts[:3]
    assert augment([], kind, 0.5, known=KNOWN) == []


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("rate", [0.1, 0.3])
def test_about_the_share_of_words_changes_that_was_asked_for(kind, rate):
    text = " ".join(f"Dog {i} ran." for i in range(400)) if kind == "reorder" else LONG
    after = changed(text, kind, rate)
    if kind == "delete":
        share = 1 - len(words(after)) / len(words(text))
    else:
        share = sum(a != b for a, b in zip(text.split(), after.split(), strict=True)) / len(text.split())
    sentence = 3 if kind == "reorder" else 1  # words, of which one tells it from others
    assert rate / 2 < sentence * share < 1.1 * rate  # two equal words may be swapped


@pytest.mark.parametrize("kind", [*RULES, "synonyms"])
def test_words_that_turn_others_round_stay_and_keep_their_order(kind):
    before = [word for word in words(TEXT) if turns(word)]
    assert before == ["not", "never", "hardly", "But", "can't", "too", "no"]
    for seed in range(20):
        after = [word for word in words(changed(TEXT, kind, 0.8, seed=seed, known=KNOWN)) if turns(word)]
        assert sorted(after) == sorted(before) and (after == before or kind == "reorder")


def test_negations_of_people_who_type_no_apostrophe_stay_too():
    text = "I dont like it and it isnt good, it wont work, no-one can. " * 20
    words = ("dont", "isnt", "wont", "no-one")
    for kind in ("typos", "noise", "delete", "swap"):
        copy = augment([text], kind, rate=1.0)[0]
        assert [copy.count(word) for word in words] == [20] * 4, kind


def test_a_long_paragraph_of_sentences_that_lean_on_each_other_takes_no_time_to_speak_of():
    started = time.process_time()
    augment(["And so it goes. " * 4000], "reorder", rate=1.0)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("kind", [*RULES, "synonyms"])
def test_white_space_and_punctuation_are_kept(kind):
    text = TEXT + "\n\tA big movie (big?) -- of 'kind' words...  The end.\n"
    for seed in range(10):
        after = changed(text, kind, 0.5, seed=seed, known=KNOWN)
        if kind != "noise":
            assert sorted(re.findall(r"[^\w\s]", after)) == sorted(re.findall(r"[^\w\s]", text))
        if kind == "delete":
            assert re.findall(r"[\n\t]", after) == re.findall(r"[\n\t]", text) and " ," not in after
        elif kind == "reorder":  # a sentence takes its own with it
            assert sorted(re.findall(r"\s", after)) == sorted(re.findall(r"\s", text))
        else:
            assert re.findall(r"\s", after) == re.findall(r"\s", text)


@settings(max_examples=60, deadline=None)
@given(st.text(), st.sampled_from(KINDS), st.floats(0, 1))
def test_any_text_comes_back_as_a_text_and_no_word_of_another_script_breaks(text, kind, rate):
    after = augment([text], kind, rate, known=KNOWN)[0]
    assert isinstance(after, str) and (bool(words(after)) == bool(words(text)) or kind == "noise")
    if kind in ("synonyms", "reorder", "swap"):
        assert len(after.split()) == len(text.split())


def test_a_synonym_has_the_form_and_the_capital_of_the_word():
    assert changed("Movies! the movie; MOVIE", "synonyms", known=KNOWN) == "Films! the film; MOVIE"


def test_names_compounds_and_parts_of_words_have_no_synonym():
    for text in ("She saw Rose Movie.", "Rose came.", "a movie star", "movie-goers", "the movie's end", "kind’s"):
        assert changed(text, "synonyms", known=KNOWN) == text


def test_a_word_is_replaced_only_where_its_neighbours_say_what_it_is():
    assert changed("I use it; to use it", "synonyms", known=KNOWN) == "I employ it; to employ it"
    for text in ("the use it had", "they use up all", "to movie"):
        assert changed(text, "synonyms", known=KNOWN) == text


def test_the_article_fits_the_synonym():
    assert changed("a big", "synonyms", known=KNOWN) == "a large"
    assert {changed("the big", "synonyms", known=KNOWN, seed=seed) for seed in range(9)} == {
        "the large",
        "the enormous",
    }


def test_sentences_move_within_their_paragraph_and_none_is_torn_apart():
    text = "Mr. Fox ran. He hid! Was it over?\n\nANNA:\nYes. It was."
    for seed in range(10):
        first, second = changed(text, "reorder", seed=seed).split("\n\n")
        assert sorted(re.split(r"(?<=[!?]) |(?<=n\.) ", first)) == sorted(["Mr. Fox ran.", "He hid!", "Was it over?"])
        assert second == "ANNA:\nIt was. Yes."


def test_a_sentence_that_answers_another_stays_behind_it():
    for text in ("It is slow. But it works.", "It is slow. It works, though.", "One sentence only.", "No end. at all"):
        assert changed(text, "reorder") == text


def test_a_text_never_loses_its_last_word():
    assert changed("the ", "delete") == "the " and changed("the of ", "delete") in ("the ", "of ")
    assert changed("the dog of the hills", "delete") == "dog hills"


@pytest.mark.parametrize(
    ("texts", "kind", "rate", "said"),
    [
        ("one text", "swap", 0.1, r"put it into a list: \[text\]"),
        (["a", None], "swap", 0.1, "text 1 is None, and a text is a str"),
        (["a"], "swop", 0.1, r"no kind 'swop'.*'swap'"),
        (["a"], "swap", 1.5, "rate=1.5 must be a share"),
        (["a"], "swap", -0.1, "rate=-0.1 must be a share"),
    ],
)
def test_a_wrong_question_is_answered_with_what_to_do(texts, kind, rate, said):
    with pytest.raises(ValueError, match=said):
        augment(texts, kind, rate)


def test_a_data_set_grows_by_copies_that_know_their_original():
    features = Features({"label": ClassLabel(names=["no", "yes"]), "text": Value("string"), "note": Value("string")})
    rows = {"label": [0, 1, 1], "text": [TEXT, LONG[:300], LONG[300:900]], "note": [None, "a", None]}
    dataset = Dataset.from_dict(rows, features=features).select([2, 0])
    grown = augmented(dataset, "typos", copies=2, rate=0.3, seed=5)
    assert grown.column_names == ["label", "text", "note", "group", "copy"]
    assert grown.features["label"] == features["label"]
    assert grown["group"][:] == [0, 1] * 3 and grown["copy"][:] == [0, 0, 1, 1, 2, 2]
    assert grown["label"][:] == [1, 0] * 3 and grown["text"][:2] == dataset["text"][:]
    assert grown["text"][2:4] == augment(dataset["text"][:], "typos", 0.3, seed=5) != grown["text"][4:]


@pytest.mark.parametrize(
    ("columns", "copies", "said"),
    [({"words": ["a"]}, 1, "no column 'text'"), ({"text": ["a"], "copy": [1]}, 1, "a column 'copy' already; rename"),
     ({"text": ["a"]}, 0, "copies=0 makes nothing")],
)  # fmt: skip
def test_a_data_set_that_cannot_grow_is_refused(columns, copies, said):
    with pytest.raises(ValueError, match=said):
        augmented(Dataset.from_dict(columns), "swap", copies)


def test_a_lexicon_holds_pairs_that_mean_the_same_both_ways_and_their_forms():
    made = build(FILES)
    assert made.forms["movies"] == ("noun", ("films",)) and made.forms["film"] == ("noun", ("movie",))
    assert made.forms["men"] == ("noun", ("fellows",)) and made.forms["fellow"] == ("noun", ("man",))
    assert made.forms["stopped"] == ("verb", ("halted",)) and made.forms["halting"] == ("verb", ("stopping",))
    assert made.forms["cities"] == ("noun", ("towns",)) and made.forms["carries"] == ("verb", ("bears",))
    assert made.forms["biggest"] == ("adjective", ("largest",)) and made.forms["often"][1] == ("frequently",)
    assert made.compounds == {"movie star"} and made.topics["cities"] == "place+s"
    absent = {"layer", "bloke", "minute", "saw", "beheld", "little", "warm", "hot", "carried", "bore", "hollywood"}
    assert not absent & made.forms.keys()  # another meaning, slang, an abbreviation, irregular, a shifter, opposites


def test_words_are_inflected_by_the_rules_of_spelling():
    forms = {
        "try": "tries trying tried",
        "stop": "stops stopping stopped",
        "hope": "hopes hoping hoped",
        "push": "pushes pushing pushed",
    }
    for lemma, expected in forms.items():
        assert " ".join(form for _, form in list(inflect(lemma, "verb"))[1:]) == expected
    assert dict(inflect("happy", "adjective", ["happier", "happiest"]))["est"] == "happiest"
    assert dict(inflect("beautiful", "adjective")) == {"": "beautiful"}


def test_without_wordnet_the_message_says_where_it_would_come_from(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    lexicon.cache_clear()
    with pytest.raises(FetchError, match="wordnet"):
        augment(["a film"], "synonyms")
    lexicon.cache_clear()


@pytest.fixture
def wordnet():
    if not is_cached("wordnet"):
        pytest.skip("WordNet is not in the cache: minigpt data fetch wordnet")
    return lexicon()


def test_in_wordnet_films_are_movies_and_no_word_turns_into_one_that_negates(wordnet):
    assert wordnet.forms["films"] == ("noun", ("movies",)) and wordnet.forms["often"] == ("adverb", ("frequently",))
    assert len(wordnet.forms) > 3000
    for word, (_, others) in wordnet.forms.items():
        assert word not in others and not SHIFTERS & {word, *others} and all(map(str.isalpha, others))


def test_the_kept_lexicon_is_made_anew_where_it_is_damaged(wordnet, tmp_path, monkeypatch):
    monkeypatch.setattr(synonyms, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(synonyms, "_read", lambda archive: FILES)
    for damaged in ("{", "{}", "null", "[]"):
        lexicon.cache_clear()
        assert lexicon() == build(FILES)
        (kept_file,) = tmp_path.iterdir()
        kept_file.write_text(damaged, encoding="utf-8")
    lexicon.cache_clear()
    assert lexicon() == build(FILES)
    lexicon.cache_clear()


RECORDED = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]


def test_at_least_95_of_100_judged_copies_of_each_kind_keep_their_label():
    counts = kept(RECORDED)
    assert counts["all"][1] >= 200 and counts.keys() == {*RATES, "all"}
    assert all(right >= 0.95 * n for right, n in counts.values())
    assert all(len(side.split()) <= 3 for row in RECORDED for change in row["changes"] for side in change)


def test_the_judged_copies_are_those_that_the_code_makes(wordnet, tmp_path):
    if not is_cached("sentiment"):
        pytest.skip("the films are not in the cache: minigpt data fetch sentiment")
    made = {(copy.row, copy.kind): copy for copy in sample()}
    judged = {(row["row"], row["kind"]): row for row in RECORDED if row["kind"] != "contextual"}
    for key, row in judged.items():
        assert made[key].changes == row["changes"] and made[key].label == row["label"], key
    written = [row for row in RECORDED if row["kind"] == "contextual"]
    same = [row for row in written if (c := made.get((row["row"], "contextual"))) and c.changes == row["changes"]]
    assert len(same) >= 0.8 * len(written)  # near ties of the model fall otherwise on another processor


def test_the_sample_is_written_as_a_text_to_judge(monkeypatch, tmp_path):
    text = "The dog saw the cat and the bird in the garden behind the old house."
    films = Dataset.from_dict({"text": [text] * 400, "label": [0, 1] * 200})
    copies = sample(films, ("typos", "swap"))
    assert len(copies) == 80 and {copy.kind for copy in copies} == {"typos", "swap"}
    monkeypatch.setattr("minigpt.lab.experiments.augmentation_check.sample", lambda: copies)
    assert check(["--output", str(tmp_path / "check.txt")]) == 0
    first = (tmp_path / "check.txt").read_text(encoding="utf-8").split("\n")[:3]
    assert first[0].startswith("swap ") and first[1:] == [copies[0].before, copies[0].after]


def test_the_speed_of_each_kind_is_printed_beside_a_plain_regex(monkeypatch, capsys):
    monkeypatch.setattr("minigpt.bench.clean.is_cached", lambda name: name == "stories")
    monkeypatch.setattr(bench, "is_cached", lambda name: False)
    assert main(["bench", "augment", "--megabytes", "0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == RULES and all("times a plain regex" in line for line in lines)
