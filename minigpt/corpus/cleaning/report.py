"""What cleaning did, as a table: documents and characters in and out of each step, why they went, examples, time."""

from __future__ import annotations

import html
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from minigpt.corpus.differences import shared
from minigpt.corpus.table import as_html, as_lines

EXAMPLES = 5  # that a step keeps
AROUND, BEGINNING = 60, 160  # characters shown about a change, and of a lost document


@dataclass(frozen=True)
class Example:
    """One change as an excerpt. `after` is None, and `reason` says why, where the document went."""

    row: int
    before: str
    after: str | None
    reason: str | None = None

    def __str__(self) -> str:
        end = f"gone ({self.reason})" if self.after is None else repr(self.after)
        return f"document {self.row}: {self.before!r} -> {end}"


def _excerpt(row: int, before: str, after: str | None, reason: str | None) -> Example:
    if after is None:
        return Example(row, before[:BEGINNING], None, reason)
    first = max(0, shared(before, after) - AROUND // 2)
    before, after = before[first:], after[first:]
    same = shared(before[::-1], after[::-1])  # the end, which both have
    stop = max(0, same - AROUND // 2)
    return Example(row, before[: len(before) - stop][:BEGINNING], after[: len(after) - stop][:BEGINNING])


@dataclass
class StepReport:
    """One line of the report. `seconds` are of processor time, summed over workers; `cached` when none was needed."""

    step: str
    kind: str
    documents_in: int = 0
    characters_in: int = 0
    changed: int = 0
    removed: int = 0
    characters_removed: int = 0
    seconds: float = 0.0
    cached: bool = False
    reasons: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def documents_out(self) -> int:
        """Documents that are left after the step."""
        return self.documents_in - self.removed

    @property
    def characters_out(self) -> int:
        """Characters that are left after the step, those of lost documents taken off."""
        return self.characters_in - self.characters_removed

    def note(self, row: int, before: str, after: str | None, reason: str | None) -> None:
        """Count one change, and keep it as an example with the chance that every change so far has had."""
        self.characters_removed += len(before) - len(after or "")
        if after is None:
            self.removed += 1
            self.reasons[(reason or "").partition(":")[0]] += 1
        else:
            self.changed += 1
        seen = self.changed + self.removed
        place = seen - 1 if seen <= EXAMPLES else int(random.Random(f"{self.step}{seen}").random() * seen)
        if place < EXAMPLES:
            self.examples[place : place + 1] = [_excerpt(row, before, after, reason)]


COLUMNS = {
    "step": "step",
    "documents_in": "documents in",
    "documents_out": "out",
    "characters_in": "characters in",
    "characters_out": "out",
    "changed": "edited",
    "seconds": "seconds",
}


@dataclass
class Report:
    """What `clean` did, a `StepReport` for each step in order. Shows as a table in a notebook and in print.

    `report["whitespace"]` is one step; `examples` and `reasons` of a step say what went. `seconds` is the time that
    passed, all in all.
    """

    steps: list[StepReport] = field(default_factory=list)
    seconds: float = 0.0

    def __getitem__(self, name: str) -> StepReport:
        for line in self.steps:
            if line.step == name:
                return line
        raise KeyError(f"no step {name!r} ran; these did: {', '.join(line.step for line in self.steps)}")

    def removed_by(self) -> dict[tuple[str, str], int]:
        """(step, reason) -> how many documents it removed, the most first."""
        counts = Counter({(line.step, reason): n for line in self.steps for reason, n in line.reasons.items()})
        return dict(counts.most_common())

    def rows(self) -> list[dict[str, Any]]:
        """The table as a list of dictionaries, one a step."""
        return [
            {name: getattr(line, name) for name in COLUMNS}
            | {"cached": line.cached, "reasons": dict(line.reasons), "examples": [str(e) for e in line.examples]}
            for line in self.steps
        ]

    def _cells(self) -> list[list[str]]:
        lines = [list(COLUMNS.values())]
        for line in self.steps:
            seconds = "cached" if line.cached else f"{line.seconds:.2f}"
            numbers = [getattr(line, name) for name in COLUMNS if name not in ("step", "seconds")]
            lines.append([line.step, *(f"{number:,}" for number in numbers), seconds])
        return lines

    def __str__(self) -> str:
        went = (f"{n:,} removed by {step}: {reason}" for (step, reason), n in self.removed_by().items())
        return "\n".join([*as_lines(self._cells()), *went])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        went = "".join(
            f"<li>{n:,} removed by {html.escape(step)}: {html.escape(reason)}</li>"
            for (step, reason), n in self.removed_by().items()
        )
        return f"{as_html(self._cells())}<ul>{went}</ul>"


def nothing_left(report: Report) -> ValueError:
    """The error for a corpus of which no document is left: it names the rules that took them."""
    total = report.steps[0].documents_in
    took = "; ".join(f"{n:,} by {step} ({reason})" for (step, reason), n in list(report.removed_by().items())[:5])
    (step, reason), _ = next(iter(report.removed_by().items()))
    return ValueError(
        f"all {total:,} documents were removed: {took}. Leave out the step {step!r} or loosen its thresholds, "
        f"if a document that has {reason!r} may be good text here."
    )
