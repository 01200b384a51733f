import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from minigpt import load_corpus


def test_text_files_are_one_document_each_and_folders_are_read_by_name(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("# Title\r\nsecond", encoding="utf-8", newline="")
    (tmp_path / "a.txt").write_bytes("\ufefffirst é".encode())
    (tmp_path / "sub" / "c.txt").write_bytes("third".encode("utf-16"))
    (tmp_path / ".hidden.txt").write_text("secret")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    dataset = load_corpus(tmp_path)
    assert dataset["text"][:] == ["first é", "# Title\nsecond", "third"]
    assert load_corpus(str(tmp_path / "a.txt"))["text"][:] == ["first é"]


def test_tables_are_a_document_a_row(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "one", "n": 1}\n\n{"text": "two", "n": 2}\n', encoding="utf-8")
    (tmp_path / "t.csv").write_text('body,n\n"first, with\na line break",1\nsecond,2\n', encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.table({"text": ["p", "q"]}), tmp_path / "t.parquet")
    assert load_corpus(tmp_path / "t.jsonl")["text"][:] == ["one", "two"]
    assert load_corpus(tmp_path / "t.csv", text_column="body")["text"][:] == ["first, with\na line break", "second"]
    assert load_corpus(tmp_path / "t.parquet")["text"][:] == ["p", "q"]


def test_another_encoding_can_be_named(tmp_path):
    (tmp_path / "old.txt").write_bytes("naïve café".encode("cp1252"))
    assert load_corpus(tmp_path / "old.txt", encoding="cp1252")["text"][:] == ["naïve café"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "empty.txt is empty"),
        ("blank.txt", b" \n\n ", "nothing but white space"),
        ("binary.txt", b"PK\x03\x04\x00\x00", "is a binary file (byte 4 is zero)"),
        (
            "latin.txt",
            "café".encode("latin-1"),
            'byte 3 is 0xe9. If it is an old Western file, load_corpus(..., encoding="cp1252")',
        ),
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 of bad.jsonl is not JSON"),
        ("list.jsonl", b"[1, 2]\n", "row 1 of list.jsonl has no column 'text'. It is [1, 2], not named"),
        (
            "other.csv",
            b"body,n\nx,1\n",
            "Known: body, n. Name the one with the text: load_corpus(..., text_column=...)",
        ),
        ("case.csv", b"Text,n\nx,1\n", "has no column 'text'. Did you mean 'Text'?"),
        ("open.csv", b'text\nfirst\n"second\n', "open.csv is not CSV after line 2"),
        ("half.jsonl", b'{"text": "\\ud83d"}\n', "row 1 of half.jsonl holds half of a character"),
        ("broken.parquet", b"PAR1 and no more", "is no readable parquet file"),
        ("photo.png", b"\x89PNG", "is of a kind that cannot be read here"),
    ],
)
def test_a_file_that_is_no_text_is_refused_with_what_to_do(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        load_corpus(tmp_path / name)


def test_a_folder_without_text_lists_what_it_holds(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"holds no \.txt.*found: \.png"):
        load_corpus(tmp_path)


def test_a_missing_file_is_told_from_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("missing.txt", "missing/folder", tmp_path / "missing.txt"):
        with pytest.raises(ValueError, match=f"there is no file or folder .*{tmp_path.name} on"):
            load_corpus(name)


def test_no_name_is_not_the_folder_that_one_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="there is no corpus, file or folder ''"):
        load_corpus("")


def test_spaces_and_the_tilde_of_the_home_folder_are_part_of_a_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "my texts").mkdir()
    (tmp_path / "my texts" / "a b.txt").write_text("x")
    assert load_corpus("~/my texts")["file"][:] == ["a b.txt"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("né\r\nà".encode(encoding))
    assert load_corpus(tmp_path / "a.txt")["text"][:] == ["né\nà"]


def test_an_unknown_encoding_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(json.dumps("x"))
    with pytest.raises(ValueError, match="there is no encoding 'utf-9'"):
        load_corpus(tmp_path / "a.txt", encoding="utf-9")
