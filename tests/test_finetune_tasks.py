import pytest

from minigpt import clean, load_corpus
from minigpt.corpus import is_cached
from minigpt.corpus.batching import split
from minigpt.finetune.tasks import code, dialogue, sentiment, unread
from minigpt.recipes import find_recipe


def needs(*names):
    return pytest.mark.skipif(not all(map(is_cached, names)), reason="the text is not in the cache")


def _disjoint(parts, key):
    sides = [set(map(key, side)) for side in parts]
    return not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])


@needs("sentiment")
def test_sentiment_is_clear_labelled_and_split():
    parts = sentiment()
    assert _disjoint(parts, lambda row: (row["text"], row["score"]))
    assert sum(map(len, parts)) == 10_072 and len(parts.test) == 1_511
    for side in parts:
        assert all(row["domain"] == "movie" and row["label"] == (row["score"] > 0) for row in side)
        assert min(abs(score) for score in side["score"]) >= 0.5
        assert 0.4 < sum(side.select(range(400))["label"]) / 400 < 0.6
    with pytest.raises(ValueError, match="there is no domain 'film'; there are movie, newspaper, product, tweet"):
        sentiment("film")


@needs("chitchat", "trivia")
def test_conversations_that_the_base_model_read_are_in_no_test():
    parts = dialogue()
    assert {row["source"] for row in parts.test} == {"chitchat", "trivia"}
    unknown = set(unread("chitchat"))
    for side in (parts.val, parts.test):
        chat = [row["messages"] for row in side if row["source"] == "chitchat"]
        texts = {"\n".join(f"{'A' if m['role'] == 'user' else 'B'}: {m['content']}" for m in talk) for talk in chat}
        assert texts <= unknown and len(chat) in (95, 96)
    assert len([row for row in parts.train if row["source"] == "chitchat"]) == 3_791


@pytest.mark.parametrize("name", ["shakespeare", "chitchat"])
def test_what_the_base_model_has_not_read_is_what_its_recipe_held_out(name):
    if not is_cached(name):
        pytest.skip("the text is not in the cache")
    corpus = load_corpus(name)
    cleaned, _ = clean(corpus.add_column("row", range(len(corpus))), find_recipe("base").steps.get(name))
    held_out = set(split(cleaned["text"][:], find_recipe("base").held_out)[1])
    rows = [row for row, text in zip(cleaned["row"], cleaned["text"]) if text in held_out]
    assert unread(name) == corpus.select(rows)["text"][:] and len(rows) > 30


def test_code_is_split_by_module():
    parts = code()
    assert _disjoint(parts, lambda row: row["module"])
    assert set(parts.test["text"]) == set(unread("python-stdlib")) and len(parts.test) >= 15 and len(parts.val) >= 10
