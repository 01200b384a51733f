"""Do changed copies keep their label? `python -m minigpt.lab.experiments.augmentation_check --output check.txt` shows a sample.

Film sentences and their copies, one below the other, as they were judged for results/06_augmentation_check.json. The file
of judgements holds the number of each row and the words that changed, and no text of others: that comes from here.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from minigpt.checkpoint import load_checkpoint
from minigpt.corpus.augment import augment
from minigpt.files import as_text, write_atomically
from minigpt.finetune.contextual import replace_in_context
from minigpt.finetune.tasks import BASE, CLASSES, sentiment

RATES = {"synonyms": 0.2, "swap": 0.1, "delete": 0.1, "typos": 0.1, "noise": 0.1, "contextual": 0.1, "reorder": 1.0}
EACH = 40  # copies of each kind that differ from their originals
DRAWN = {"reorder": 650, "contextual": 75}  # rows to find them among: few texts here have two sentences
SHOWN = 3  # words of a change at most, so that no sentence is stored
RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "06_augmentation_check.json"


class Copy(NamedTuple):
    """One changed copy; `row` is its number in sentiment("movie").train."""

    row: int
    kind: str
    label: int
    before: str
    after: str

    @property
    def changes(self) -> list[list[str]]:
        """The words that changed, [before, after], at most SHOWN of each."""
        a, b = self.before.split(), self.after.split()
        found = difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
        return [
            [" ".join(a[i : min(j, i + SHOWN)]), " ".join(b[k : min(m, k + SHOWN)])]
            for what, i, j, k, m in found
            if what != "equal"
        ]


def sample(films: Dataset | None = None, kinds: tuple[str, ...] = tuple(RATES), seed: int = 0) -> list[Copy]:
    """EACH copies of each kind, every kind from other rows. FetchError where the films or WordNet are not here."""
    films = sentiment("movie").train if films is None else films
    order, texts, labels = np.random.default_rng(seed).permutation(len(films)), films["text"][:], films["label"][:]
    copies, first = [], 0
    for kind, rate in RATES.items():
        rows = order[first : first + DRAWN.get(kind, 3 * EACH)].tolist()
        first += len(rows)
        if kind not in kinds:
            continue
        before = [texts[row] for row in rows]
        if kind == "contextual":
            after = replace_in_context(*load_checkpoint(BASE), before, rate, seed)
        else:
            after = augment(before, kind, rate, seed)
        changed = [Copy(row, kind, labels[row], a, b) for row, a, b in zip(rows, before, after) if a != b]
        copies += changed[:EACH]
    return copies


def kept(rows: list[dict]) -> dict[str, tuple[int, int]]:
    """For each kind, and for `all`, how many of the judged copies keep their label, and how many there are."""
    by_kind = {kind: [row["kept"] for row in rows if row["kind"] == kind] for kind in RATES}
    counts = {kind: (sum(values), len(values)) for kind, values in by_kind.items() if values}
    return counts | {"all": (sum(row["kept"] for row in rows), len(rows))}


def main(arguments: list[str] | None = None) -> int:
    """Write the sample as a text, each copy below its original, with what was said of it where that is recorded."""
    parser = argparse.ArgumentParser(description="Film sentences and their changed copies, to be judged by reading.")
    parser.add_argument("--output", type=Path, default=Path("augmentation_check.txt"))
    parser.add_argument("--judged", type=Path, default=RESULTS, help="the recorded judgements")
    options = parser.parse_args(arguments)
    known = json.loads(options.judged.read_text(encoding="utf-8"))["rows"] if options.judged.exists() else []
    said = {(row["row"], row["kind"]): row for row in known}
    lines = []
    for copy in sample():
        row = said.get((copy.row, copy.kind))
        judgement = "" if row is None else f"  kept: {row['kept']} {row['note']}"
        lines += [f"{copy.kind} {copy.row} {CLASSES[copy.label]}{judgement}", copy.before, copy.after, ""]
    write_atomically(options.output.parent, {options.output.name: as_text("\n".join(lines))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
