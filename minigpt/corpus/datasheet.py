"""A cleaned corpus on disk with its datasheet beside it: where the text is from, what was removed, what to mind.

The headings follow Gebru et al. (2021), "Datasheets for Datasets". What the catalog knows of a source is copied from
there; nothing is asked that a program can count.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import pyarrow.parquet
from datasets import Dataset

from minigpt.corpus.cleaning.report import Report
from minigpt.corpus.mixing import Share
from minigpt.corpus.sources import Source, catalog
from minigpt.files import as_text, write_atomically

CORPUS, DATA, PAGE = "corpus.parquet", "datasheet.json", "datasheet.md"
UNKNOWN = "not stated: the text is not in the catalog"


def datasheet(
    dataset: Dataset,
    sources: Sequence[str],
    report: Report | None = None,
    *,
    mixture: Sequence[Share] = (),
    command: str = "",
    seed: int | None = None,
) -> dict[str, Any]:
    """What is known of a corpus, as a dictionary that JSON can hold.

    Args:
        dataset: the documents, in the column `text`.
        sources: names of the catalog, or of the learner's own texts.
        report: what `clean` did. mixture: what `mix` drew.
        command, seed: what makes the same corpus again.
    """
    known = {source.name: source for source in catalog()}
    texts = dataset["text"][:]
    return {
        "made_with": f"minigpt {importlib.metadata.version('minigpt')}",
        "command": command,
        "seed": seed,
        "documents": len(texts),
        "characters": sum(map(len, texts)),
        "bytes": sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
        "words": sum(len(text.split()) for text in texts),
        "columns": dataset.column_names,
        "sources": [_about(name, known.get(name)) for name in sources],
        "mixture": [asdict(share) for share in mixture],
        "cleaning": [] if report is None else [_step(row) for row in report.rows()],
    }


def _about(name: str, source: Source | None) -> dict[str, str]:
    if source is None:
        return {"name": name} | dict.fromkeys(("title", "origin", "licence", "citation", "language", "limits"), UNKNOWN)
    release = f"{source.package} {source.version}, " if source.package else ""
    origin = f"{release}{source.file}, sha256 {source.sha256}" if source.downloads else "made on this machine"
    fields = {field: getattr(source, field) for field in ("licence", "citation", "language", "limits")}
    return {"name": name, "title": source.title, "origin": origin} | fields


def _step(row: dict[str, Any]) -> dict[str, Any]:
    names = ("step", "documents_in", "documents_out", "characters_in", "characters_out", "changed", "reasons")
    return {name: row[name] for name in names}


def page(sheet: dict[str, Any]) -> str:
    """The datasheet as Markdown, to be read."""
    size = f"{sheet['documents']:,} documents, {sheet['words']:,} words, {sheet['characters']:,} characters"
    lines = [
        "# Datasheet",
        "",
        f"{size}, {sheet['bytes']:,} bytes as UTF-8. Columns: {', '.join(sheet['columns'])}.",
        "",
    ]
    for source in sheet["sources"]:
        lines += [f"## {source['name']}: {source['title']}", ""]
        lines += [f"- {name}: {source[name]}" for name in ("origin", "licence", "language", "citation")]
        lines += [f"- known limits: {source['limits']}", ""]
    if sheet["mixture"]:
        lines += [
            "## Mixture",
            "",
            "| source | wanted | share | size | documents | epochs |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {m['source']} | {m['wanted']:.3f} | {m['share']:.3f} | {m['size']:,} | {m['documents']:,} | {m['epochs']:.2f} |"
            for m in sheet["mixture"]
        ]
        lines.append("")
    if sheet["cleaning"]:
        lines += [
            "## What cleaning removed",
            "",
            "| step | documents out of | characters out of | edited | why documents went |",
        ]
        lines.append("|---|---|---|---|---|")
        for step in sheet["cleaning"]:
            why = ", ".join(f"{reason} ({n:,})" for reason, n in step["reasons"].items()) or "-"
            cells = (f"{step[f'{unit}_out']:,} of {step[f'{unit}_in']:,}" for unit in ("documents", "characters"))
            lines.append(f"| {step['step']} | {' | '.join(cells)} | {step['changed']:,} | {why} |")
        lines.append("")
    seed = "" if sheet["seed"] is None else f", seed {sheet['seed']}"
    lines += [
        "## How to make it again",
        "",
        f"{sheet['command'] or 'The command was not stated'}{seed} ({sheet['made_with']}).",
    ]
    return "\n".join(lines) + "\n"


def save_corpus(dataset: Dataset, folder: str | PathLike, sources: Sequence[str], **about: Any) -> Path:
    """Write corpus.parquet, datasheet.json and datasheet.md; `load_corpus(folder)` reads the corpus back.

    `about` is what `datasheet` takes: report, mixture, command, seed.

    Raises:
        OSError: the disk is full or not writable. What was there before is untouched.
    """
    folder = Path(folder)
    sheet = datasheet(dataset, sources, **about)
    table = dataset.with_format("arrow")[:]
    files = {
        CORPUS: lambda path: pyarrow.parquet.write_table(table, path),
        DATA: as_text(json.dumps(sheet, indent=2, ensure_ascii=False)),
        PAGE: as_text(page(sheet)),
    }
    write_atomically(folder, files)
    return folder
