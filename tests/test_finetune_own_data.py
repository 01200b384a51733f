import json
import re
from collections import Counter

import pyarrow
import pyarrow.parquet
import pytest

from minigpt.finetune.own_data import conversations, labelled_texts

COUNTS = {"dull": 40, "fine": 20, "rare": 3}
TEXTS = {f"{name} {n}": name for name, count in COUNTS.items() for n in range(count)}


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [json.dumps({"text": text, "label": label}) for text, label in TEXTS.items()]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def test_every_class_is_on_every_side_in_its_share_and_every_text_on_one(table):
    parts, classes = labelled_texts(table)
    assert classes == ["dull", "fine", "rare"]
    assert [Counter(side["label"][:]) for side in parts] == [
        {0: 30, 1: 15, 2: 1},
        {0: 4, 1: 2, 2: 1},
        {0: 6, 1: 3, 2: 1},
    ]
    rows = [(row["text"], classes[row["label"]]) for side in parts for row in side]
    assert len(rows) == len(TEXTS) and dict(rows) == TEXTS


def test_a_seed_decides_who_is_on_which_side(table):
    tests = [set(labelled_texts(table, seed)[0].test["text"]) for seed in (0, 0, 1)]
    assert tests[0] == tests[1] != tests[2]


def test_labels_may_be_numbers_and_columns_may_be_more(tmp_path):
    path = tmp_path / "texts.parquet"
    columns = {"id": list(range(6)), "label": [0, 1] * 3, "text": [f"text {n}" for n in range(6)]}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    parts, classes = labelled_texts(path)
    assert classes == ["0", "1"] and [sorted(side["label"][:]) for side in parts] == [[0, 1]] * 3


def test_conversations_keep_their_words_and_lose_what_else_a_message_holds(tmp_path):
    talks = [[{"role": "user", "content": str(n)}, {"role": "assistant", "content": "ja"}] for n in range(40)]
    rows = [json.dumps({"messages": [m | {"time": n} for m in talk], "id": n}) for n, talk in enumerate(talks)]
    (tmp_path / "talks.jsonl").write_text("\n".join(rows + rows[:2]), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"2 rows of talks\.jsonl repeat the messages of an earlier row"):
        parts = conversations(tmp_path / "talks.jsonl")
    assert list(map(len, parts)) == [30, 4, 6]
    kept = [row["messages"] for side in parts for row in side]
    assert sorted(kept, key=str) == sorted(talks, key=str)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        labelled_texts(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,lable\ngood,1\n", "row 1 of a.csv has no column 'label'. Did you mean 'lable'?"),
        ("b.csv", "text,label\ngood,1\n,0\n", "row 2 of b.csv has '' as its text; a text is expected"),
        (
            "c.jsonl",
            '{"text": "good", "label": [1]}',
            "row 1 of c.jsonl has [1] as its label; a word or a whole number",
        ),
        ("d.csv", "text,label\ngood,up\nfine,up\n", "every row of d.csv has the label 'up'"),
        ("e.csv", "text,label\na,x\nb,x\nc,x\nd,y\ne,y\n", "the class 'y' in e.csv has 2 texts; 3 are the fewest"),
        ("f.csv", "", "f.csv is empty"),
        ("g.csv", "text,label\n", "g.csv has no rows"),
        ("h.txt", "good", "h.txt is no table that can be read here; use a file that ends in .jsonl, .csv, .parquet"),
        ("i.jsonl", "[1]", "row 1 of i.jsonl has no column 'text'. It is [1], not named columns"),
        ("j.jsonl", '{"text": "a"\n', "line 1 of j.jsonl is not JSON"),
        ("k.parquet", "", "k.parquet is no readable parquet file"),
    ],
)
def test_labelled_texts_that_cannot_be_learned_from_are_named_by_their_row(tmp_path, name, content, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words)):
        labelled_texts(tmp_path / name)


HELLO = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hello you"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "hello"}, "row 1 of talks.jsonl has no column 'messages'"),
        ({"messages": "hello"}, "row 1 of talks.jsonl has 'hello' as its messages; a list of messages is expected"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "in row 1 of talks.jsonl, message 0 is"),
        ({"messages": [HELLO]}, "row 1 of talks.jsonl has no answer to learn from"),
        ({"messages": [HELLO, ANSWER]}, "talks.jsonl has 1 conversations; 3 are the fewest"),
    ],
)
def test_conversations_that_cannot_be_learned_from_are_named_by_their_row(tmp_path, row, words):
    (tmp_path / "talks.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(words)):
        conversations(tmp_path / "talks.jsonl")
