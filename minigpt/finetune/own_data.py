"""The learner's own examples: a table of texts with labels, or a file of conversations, checked and split in three.

What is wrong is named with the number of its row. This module knows nothing of models or tokens.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from minigpt.chat_template import chat_text
from minigpt.config import nearest
from minigpt.corpus.own_text import read_table
from minigpt.finetune.tasks import Parts

SHARES = {"val": 0.1, "test": 0.15}  # of the rows; the rest is learned from
FEWEST = 3  # examples of a class, or conversations: one for each part


def labelled_texts(path: str | PathLike, seed: int = 0) -> tuple[Parts, list[str]]:
    """Rows of a .csv, .jsonl or .parquet file with `text` and `label`, and the names of the classes: its labels, sorted.

    In the rows `label` is the number of the class. Of each class, a tenth is for choosing and 15 % for the test. A text
    that was there before is left out, with a warning, so that no text is on two sides.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row without a text or a label, one class alone, a class with too few examples, an unreadable file.
    """
    path = Path(path).expanduser()
    rows = list(_unlike((_labelled(row, f"row {n} of {path.name}") for n, row in _table(path)), "text", path.name))
    classes = sorted({row["label"] for row in rows})
    if len(classes) < 2:
        raise ValueError(f"every row of {path.name} has the label {classes[0]!r}; two or more are needed to decide.")
    groups = [[number for number, row in enumerate(rows) if row["label"] == name] for name in classes]
    for name, group in zip(classes, groups):
        _enough(len(group), f"the class {name!r} in {path.name} has", "texts")
    numbered = Dataset.from_list([row | {"label": classes.index(row["label"])} for row in rows])
    return _split(numbered, groups, seed), classes


def conversations(path: str | PathLike, seed: int = 0) -> Parts:
    """Rows of a .jsonl or .parquet file with `messages`, a list of {"role": ..., "content": ...} that holds an answer.

    A tenth is for choosing and 15 % for the test; a conversation that was there before is left out, with a warning.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a row without messages or without an answer, a bad message, too few rows, an unreadable file.
    """
    path = Path(path).expanduser()
    rows = list(_unlike((_spoken(row, f"row {n} of {path.name}") for n, row in _table(path)), "messages", path.name))
    _enough(len(rows), f"{path.name} has", "conversations")
    return _split(Dataset.from_list(rows), [range(len(rows))], seed)


def _table(path: Path) -> Iterator[tuple[int, Any]]:
    return enumerate(read_table(path), start=1)


def _cell(row: Any, column: str, where: str) -> Any:
    if not isinstance(row, dict) or column not in row:
        known = (
            nearest(column, [*map(str, row)]) if isinstance(row, dict) else f" It is {row!r:.60}, not named columns."
        )
        raise ValueError(f"{where} has no column {column!r}.{known}")
    return row[column]


def _labelled(row: Any, where: str) -> dict[str, Any]:
    text, label = _cell(row, "text", where), _cell(row, "label", where)
    for column, value, kinds in (("text", text, str), ("label", label, str | int)):
        if not isinstance(value, kinds) or not str(value).strip():
            raise ValueError(
                f"{where} has {value!r} as its {column}; a {'text' if column == 'text' else 'word or a whole number'} is "
                "expected. Fill it, or take the row out."
            )
    return {"text": text, "label": str(label).strip()}


def _spoken(row: Any, where: str) -> dict[str, Any]:
    messages = _cell(row, "messages", where)
    if not isinstance(messages, list) or not messages:
        raise ValueError(
            f"{where} has {messages!r:.60} as its messages; a list of messages is expected, such as "
            '[{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].'
        )
    try:
        chat_text(messages)
    except ValueError as error:
        raise ValueError(f"in {where}, {error}") from None
    if all(message["role"] != "assistant" for message in messages):
        raise ValueError(f"{where} has no answer to learn from; a message of the role 'assistant' is one.")
    return {"messages": [{"role": m["role"], "content": m["content"]} for m in messages]}


def _unlike(rows: Iterable[dict[str, Any]], column: str, name: str) -> Iterator[dict[str, Any]]:
    """The rows that differ from all before them in a column; a warning says how many do not."""
    seen, repeated = set(), 0
    for row in rows:
        key = json.dumps(row[column])
        repeated += key in seen
        if key not in seen:
            seen.add(key)
            yield row
    if repeated:
        warnings.warn(
            f"{repeated} rows of {name} repeat the {column} of an earlier row and are left out.", stacklevel=4
        )


def _enough(count: int, who: str, what: str) -> None:
    if count < FEWEST:
        raise ValueError(
            f"{who} {count} {what}; {FEWEST} are the fewest, one to learn from, one to choose on and one for the test. "
            "Add some, or take these out."
        )


def _split(dataset: Dataset, groups: Iterable[Sequence[int]], seed: int) -> Parts:
    """Each group of row numbers shared out between the three parts; a small share is one row."""
    random, sides = np.random.default_rng(seed), Parts([], [], [])
    for group in groups:
        order = random.permutation(group)
        val, test = (max(1, round(share * len(group))) for share in SHARES.values())
        for side, part in zip(sides, (order[val + test :], order[test : val + test], order[:test])):
            side += part.tolist()
    return Parts(*(dataset.select(sorted(side)) for side in sides))
