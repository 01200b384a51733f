"""Files written whole or not at all: beside their places first, and moved there when all are complete.

A full disk or a killed process leaves what was there before. This module knows nothing of what is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

Files = dict[str, Callable[[Path], Any]]


def as_text(content: str) -> Callable[[Path], Any]:
    """A writer, for `write_atomically`, of a text in UTF-8."""
    return lambda path: path.write_text(content, encoding="utf-8")


def write_atomically(folder: Path, files: Files) -> None:
    """Write files, a name and a function that writes to the path it is given, into `folder`: all of them or none.

    Raises:
        OSError: the disk is full or not writable. What was there before is untouched, and no debris is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = {name: folder / f".{name}.{os.getpid()}.part" for name in files}
    name = ""
    try:
        for name, write in files.items():
            write(beside[name])
        for name, path in beside.items():
            os.replace(path, folder / name)
    except (
        OSError,
        RuntimeError,
        SafetensorError,
    ) as error:  # the last two are a full disk, as torch and safetensors say
        raise OSError(
            f"could not write {name} ({error}). What was saved there before is untouched; "
            f"free some space on the disk that holds {folder.name} and save again."
        ) from error
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
