import json

import pytest
from datasets import Dataset

from minigpt import BPETokenizer
from minigpt.corpus.stories import stories
from minigpt.lab.experiments import cleaning

TEXTS = [row["text"] for row in stories(120)]
SPEECHES = [f"My fellow citizens. {row['text']}" for row in stories(120, seed=1)]
SOURCES = {"shakespeare": TEXTS, "sotu": SPEECHES}


@pytest.fixture(autouse=True)
def texts(monkeypatch):
    monkeypatch.setattr(cleaning, "load_corpus", lambda name: Dataset.from_dict({"text": SOURCES[name]}))
    monkeypatch.setattr(cleaning, "VOCAB_SIZE", 300)
    monkeypatch.setattr(cleaning, "BODY", {"n_layer": 1, "n_head": 1, "n_embd": 32, "context_length": 32})


def test_a_run_reports_the_loss_on_each_text():
    tokenizer = BPETokenizer.train(TEXTS, vocab_size=300)
    row = cleaning.measure(TEXTS[:100], {"same": TEXTS[100:110], "other": ["Zyx! " * 60]}, tokenizer, updates=20)
    assert row["loss_same"] < row["loss_other"] and row["documents"] == 100
    assert row["epochs"] == pytest.approx(20 * 32 * 32 / row["tokens"])


def test_dirty_cleaned_and_clean_text_are_versions_of_the_same(monkeypatch):
    seen = []

    def measure(train, val, tokenizer, updates, seed):
        seen.append((train, val["plays"], tokenizer.to_json()))
        return {"tokens": 0}

    monkeypatch.setattr(cleaning, "measure", measure)
    rows = list(cleaning.cleaning(seed=2, updates=1, dirt=[2.0]))
    assert [(row["text"], row["dirt"]) for row in rows] == [("clean", 0.0), ("dirty", 2.0), ("cleaned", 2.0)]
    (clean, *_), (dirty, *_), (cleaned, *_) = seen
    assert len({tokenizer for *_, tokenizer in seen}) == 1  # a token is the same in all three
    assert all(val == seen[0][1] and not set(val) & set(clean) for _, val, _ in seen)
    same = len(set(clean) & set(dirty)), len(set(clean) & set(cleaned))
    assert same[0] < same[1] and len(dirty) > len(cleaned)


def test_mixtures_have_the_shares_they_say_and_one_size(monkeypatch):
    monkeypatch.setattr(cleaning, "measure", lambda train, val, *_: {"size": sum(map(len, train)), "on": sorted(val)})
    rows = list(cleaning.mixtures(seed=0, updates=1))
    assert [row["wanted"] for row in rows] == [0.0, 0.5, 1.0]
    assert [row["plays"] for row in rows] == pytest.approx([0.0, 0.5, 1.0], abs=0.02)
    assert all(row["size"] == pytest.approx(rows[0]["size"], rel=0.02) for row in rows)
    assert rows[0]["on"] == ["plays", "speeches"]


def test_the_command_writes_every_run_and_how_it_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(cleaning, "measure", lambda *arguments: {"loss_plays": 1 / 3})
    assert cleaning.main(["--seeds", "4", "6", "--output", str(tmp_path / "new" / "results.json")]) == 0
    written = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    assert len(written["rows"]) == 2 * (1 + 2 * len(cleaning.DIRT) + len(cleaning.SHARES))
    assert {row["seed"] for row in written["rows"]} == {4, 6} and written["rows"][0]["loss_plays"] == 0.333333
