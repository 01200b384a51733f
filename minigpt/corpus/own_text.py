"""The learner's own text: a file or a folder of .txt, .md, .jsonl, .csv or .parquet becomes rows with `text`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

READABLE = (".txt", ".md", ".jsonl", ".csv", ".parquet")
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def read_own(path: Path, text_column: str = "text", encoding: str = "utf-8") -> Iterator[dict[str, Any]]:
    """Rows of one file, or of every readable file in a folder and its subfolders, by name.

    A .txt or .md file is one document. The others hold one document a row, in the column `text_column`.

    Raises:
        ValueError: nothing readable, an empty or binary file, another encoding, a broken line, no such column.
    """
    if path.is_dir():
        files = [f for f in sorted(path.rglob("*")) if f.is_file() and not _hidden(f.relative_to(path))]
        readable = [f for f in files if f.suffix.lower() in READABLE]
        if not readable:
            seen = sorted({f.suffix or f.name for f in files}) or ["no file at all"]
            raise ValueError(f"{path} holds no {', '.join(READABLE)} file; found: {', '.join(seen[:10])}.")
        for file in readable:
            yield from _read_file(file, text_column, encoding)
    else:
        yield from _read_file(path, text_column, encoding)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _read_file(path: Path, text_column: str, encoding: str) -> Iterator[dict[str, Any]]:
    kind = path.suffix.lower()
    if kind not in READABLE:
        raise ValueError(f"{path.name} is of a kind that cannot be read here; use one of {', '.join(READABLE)}.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path.name} is empty; there is nothing to learn from it.")
    if kind == ".parquet":
        rows = _parquet_rows(path)
    else:
        text = decode(path.read_bytes(), path.name, encoding)
        if not text.strip():
            raise ValueError(f"{path.name} holds nothing but white space; there is nothing to learn from it.")
        if kind in (".txt", ".md"):
            yield {"text": text, "file": path.name}
            return
        rows = _jsonl_rows(text, path.name) if kind == ".jsonl" else csv.DictReader(text.splitlines(keepends=True))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get(text_column), str):
            columns = sorted(map(str, row)) if isinstance(row, dict) else [type(row).__name__]
            raise ValueError(
                f"row {number} of {path.name} has no text in a column {text_column!r}; it has {', '.join(columns)}. "
                "Name the right one: load_corpus(..., text_column=...)."
            )
        yield row | {"text": row[text_column], "file": path.name}


def decode(content: bytes, name: str, encoding: str = "utf-8") -> str:
    """Text of a file's bytes; a byte-order mark decides where there is one. ValueError for binary or other encodings."""
    mark = next((known for start, known in BYTE_ORDER_MARKS.items() if content.startswith(start)), None)
    if mark is None and b"\0" in content[:8192]:
        raise ValueError(
            f"{name} is a binary file (byte {content.index(0)} is zero), not text; convert it to .txt first."
        )
    try:
        return content.decode(mark or encoding).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not {mark or encoding}: byte {error.start} is 0x{content[error.start]:02x}. If it is an old "
            'Western file, load_corpus(..., encoding="cp1252") reads it; otherwise save it again as UTF-8.'
        ) from None
    except LookupError:
        raise ValueError(
            f"there is no encoding {encoding!r}; common ones are utf-8, cp1252, latin-1, utf-16."
        ) from None


def _jsonl_rows(text: str, name: str) -> Iterator[Any]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"line {number} of {name} is not JSON ({error.msg} at column {error.colno})."
                ) from None


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path.name} is no readable parquet file ({error}); it may have been cut short.") from error
