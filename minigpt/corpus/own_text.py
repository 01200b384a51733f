"""The learner's own text: a file or a folder of .txt, .md, .jsonl, .csv or .parquet becomes rows with `text`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from minigpt.config import nearest

Row = dict[str, Any]
TABLES = (".jsonl", ".csv", ".parquet")
READABLE = (".txt", ".md", *TABLES)
DATASHEETS = ("datasheet.md", "datasheet.json")  # they describe the texts of a folder and are none
BYTE_ORDER_MARKS = {  # the longer ones first: UTF-32 begins as UTF-16 does
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
LONGEST_FIELD = 2**31 - 1  # of a .csv, in characters; Python's own limit is 131,072, and a chapter is longer than that


def read_own(path: Path, text_column: str = "text", encoding: str = "utf-8") -> Iterator[Row]:
    """Rows of one file, or of every readable file in a folder and its subfolders, by name.

    A .txt or .md file is one document. The others hold one document a row, in the column `text_column`. In a folder,
    files without a word and datasheet.md are passed over. Every row has the same columns: what a row lacks is None
    there, and a column that holds numbers in one place and words in another becomes words.

    Raises:
        ValueError: nothing readable, an empty or binary file, another encoding, a broken line, no such column.
    """
    if not path.is_dir():
        return _alike(list(_read_file(path, path.name, text_column, encoding)))
    inside = {file.relative_to(path): file for file in sorted(path.rglob("*")) if file.is_file()}
    files = {
        name: file
        for name, file in inside.items()
        if not any(part.startswith(".") for part in name.parts) and name.name not in DATASHEETS
    }
    readable = {name: file for name, file in files.items() if file.suffix.lower() in READABLE}
    if not readable:
        seen = sorted({file.suffix or file.name for file in files.values()}) or ["no file at all"]
        raise ValueError(f"{path} holds no {', '.join(READABLE)} file; found: {', '.join(seen[:10])}.")
    rows: list[Row] = []
    for name, file in readable.items():
        if file.read_bytes().strip():
            rows += _read_file(file, name.as_posix(), text_column, encoding)
    if not rows:
        raise ValueError(f"every readable file in {path} is empty; there is nothing to learn from them.")
    return _alike(rows)


def read_table(path: Path, name: str = "", encoding: str = "utf-8") -> Iterator[Any]:
    """Rows of a .jsonl, .csv or .parquet file as they stand there, at least one; errors call the file `name`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another kind of file, an empty or binary one, another encoding, a broken line.
    """
    name, kind = name or path.name, path.suffix.lower()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}; a path is looked for from {Path.cwd()} on.")
    if kind not in TABLES:
        raise ValueError(f"{name} is no table that can be read here; use a file that ends in {', '.join(TABLES)}.")
    if kind == ".parquet":
        rows = _parquet_rows(path, name)
    else:
        rows = (_jsonl_rows if kind == ".jsonl" else _csv_rows)(_text(path, name, encoding), name)
    count = 0
    for row in rows:
        count += 1
        yield row
    if count == 0:
        raise ValueError(f"{name} has no rows; there is nothing to learn from it.")


def _text(path: Path, name: str, encoding: str) -> str:
    text = decode(path.read_bytes(), name, encoding)
    if not text.strip():
        found = "holds nothing but white space" if text else "is empty"
        raise ValueError(f"{name} {found}; there is nothing to learn from it.")
    return text


def _read_file(path: Path, name: str, text_column: str, encoding: str) -> Iterator[Row]:
    kind = path.suffix.lower()
    if kind not in READABLE:
        raise ValueError(
            f"{name} is of a kind that cannot be read here; use one of {', '.join(READABLE)}. Plain text under another "
            "name is read when it ends in .txt; a document (.pdf, .docx, .html) has to be saved as text first."
        )
    if kind not in TABLES:
        yield {"text": _text(path, name, encoding), "file": name}
        return
    for number, row in enumerate(read_table(path, name, encoding), start=1):
        if not isinstance(row, dict) or text_column not in row:
            known = nearest(text_column, [*row]) if isinstance(row, dict) else f" It is {row!r:.60}, not named columns."
            raise ValueError(
                f"row {number} of {name} has no column {text_column!r}.{known} "
                "Name the one with the text: load_corpus(..., text_column=...)."
            )
        if not isinstance(row[text_column], str):
            raise ValueError(
                f"row {number} of {name} has {row[text_column]!r} where text is expected, in the column {text_column!r}; "
                "fill it, take the row out, or name another column: load_corpus(..., text_column=...)."
            )
        try:
            row[text_column].encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"row {number} of {name} holds half of a character (a lone surrogate), as if it was cut in the middle of "
                "an escape; write the file again, or take the row out."
            ) from None
        yield {"file": name} | row | {"text": row[text_column]}


def decode(content: bytes, name: str, encoding: str = "utf-8") -> str:
    """Text of a file's bytes; a byte-order mark decides where there is one. ValueError for binary or other encodings."""
    mark = next((known for start, known in BYTE_ORDER_MARKS.items() if content.startswith(start)), None)
    zero = content.find(b"\0")
    if mark is None and zero >= 0 and not encoding.lower().startswith(("utf-16", "utf16", "utf-32", "utf32")):
        raise ValueError(
            f"{name} is a binary file (byte {zero} is zero), not text; save it as plain text, or take it out of the "
            'folder. If it comes from an old Windows program, load_corpus(..., encoding="utf-16-le") may read it.'
        )
    try:
        return content.decode(mark or encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        where = f"{name} is not {mark or encoding}: byte {error.start} is 0x{content[error.start]:02x}."
        if mark:
            raise ValueError(f"{where} It begins as {mark} does, so it may have been cut short.") from None
        raise ValueError(
            f'{where} If it is an old Western file, load_corpus(..., encoding="cp1252") reads it; common for others are '
            "gb18030 (Chinese), shift_jis (Japanese), cp1251 (Russian). Or save it again as UTF-8."
        ) from None
    except LookupError:
        raise ValueError(
            f"there is no encoding {encoding!r}; common ones are utf-8, cp1252, latin-1, utf-16."
        ) from None


def _jsonl_rows(text: str, name: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines would cut at U+2028, which JSON allows
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"line {number} of {name} is not JSON ({error.msg} at column {error.colno}); each line has to be a "
                    'record of its own, such as {"text": "..."}.'
                ) from None


def _csv_rows(text: str, name: str) -> Iterator[Row]:
    header = text.partition("\n")[0]
    csv.field_size_limit(LONGEST_FIELD)
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    try:
        for row in table:
            if None in row:  # where DictReader puts the cells that have no column
                raise ValueError(
                    f"line {table.line_num} of {name} has {len(row) - 1 + len(row[None])} cells and the header names "
                    f"{len(row) - 1} columns; put quotes around a text with commas in it."
                )
            yield row
    except csv.Error as error:
        raise ValueError(
            f"{name} is not CSV after line {table.line_num} ({error}); a quotation mark inside a text is written twice."
        ) from None


def _parquet_rows(path: Path, name: str) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{name} is no readable parquet file ({error}); it may have been cut short.") from error


def _alike(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows with the same columns in each, and one type in each column, as a table needs them."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    columns.sort(key="text".__ne__)  # the text comes first, the others keep their order
    kinds = {column: {type(row[column]) for row in rows if row.get(column) is not None} for column in columns}
    mixed = {column for column, found in kinds.items() if len(found) > 1 and found != {int, float}}
    for row in rows:
        values = {column: row.get(column) for column in columns}
        yield values | {column: str(values[column]) for column in mixed if values[column] is not None}
