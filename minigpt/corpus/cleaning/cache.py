"""A folder of what cleaning passes did, one small file each, by a key. Damaged or missing files are made again."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from minigpt.corpus.cleaning.run import Changes
from minigpt.files import write_atomically


class Cache:
    """Changes by key, in a folder; with folder=None it is empty, stays so, and is false."""

    def __init__(self, folder: str | PathLike | None):
        self.folder = None if folder is None else Path(folder)

    def __bool__(self) -> bool:
        return self.folder is not None

    def load(self, key: str) -> Changes | None:
        """What was saved under the key, or None."""
        path = self.folder / f"{key}.parquet"
        try:
            table = parquet.read_table(path)
            return Changes(*(table[name].to_pylist() for name in ("row", "text", "reason")))
        except (pa.ArrowException, OSError, KeyError):  # missing, cut short, or another program's
            return None

    def save(self, key: str, changes: Changes) -> None:
        """Keep the changes under the key, whole or not at all. OSError when the disk is full or not writable."""
        if self.folder is None:
            return
        columns = {"row": pa.array(changes.rows, pa.int64())}
        columns |= {
            "text": pa.array(changes.texts, pa.large_string()),
            "reason": pa.array(changes.reasons, pa.string()),
        }
        write_atomically(self.folder, {f"{key}.parquet": lambda path: parquet.write_table(pa.table(columns), path)})
