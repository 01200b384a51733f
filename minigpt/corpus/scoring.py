"""How good cleaning is, on text whose defects are known: precision and recall of each step, and what it costs clean text.

`plant` made the text and knows where each defect lies and what belongs there. Each step is scored in its place: it is
given what the steps before it would hand on if they made no mistake, so that one step's mistakes are not counted as
another's. The whole pipeline is scored as it is, mistakes and all.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datasets import Dataset

from minigpt.corpus.cleaning.pipeline import clean
from minigpt.corpus.cleaning.step import Step
from minigpt.corpus.cleaning.steps import choose
from minigpt.corpus.defects import INVENTED
from minigpt.corpus.differences import Change, differences, reach, touches
from minigpt.corpus.planted import Row, put_right
from minigpt.corpus.table import as_html, as_lines

SERVES: dict[str, tuple[str, ...]] = {
    "encoding": ("mojibake",),
    "unicode": ("unseen",),
    "html": ("tags", "entities"),
    "wiki": ("wiki",),
    "boilerplate": ("boilerplate",),
    "whitespace": ("whitespace",),
    "broken_words": ("hyphenation",),
    "elongations": ("elongation",),
    "private_data": tuple(INVENTED),
    "language": ("language",),
    "quality": ("mash", "symbols", "repetition", "stub"),
    "exact_duplicates": ("exact_duplicate",),
    "near_duplicates": ("near_duplicate",),
    "decontaminate": ("contamination",),
}  # step -> the kinds of defects that it is there for
SHOWN, AROUND = 8, 30  # mistakes of each sort that a score keeps; characters shown on both sides
CLOSE = 12  # characters: changes nearer to each other than that are one


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % confidence interval of a share, from 0 to 1 (Wilson 1927); all of it, (0, 1), when n is 0."""
    if n == 0:
        return 0.0, 1.0
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


@dataclass
class StepScore:
    """What one step did right and wrong.

    `right`, `missed`: defects of its kinds that are as in the clean text afterwards, or as before. `mangled`: changed
    into something else. `false_alarms`: changes where there is no defect, or clean documents dropped.
    `lost`: characters of clean text that went by false alarms, as a share.
    """

    step: str
    kinds: tuple[str, ...]
    right: int = 0
    missed: int = 0
    mangled: int = 0
    false_alarms: int = 0
    lost: float = 0.0
    mistakes: list[str] = field(default_factory=list)

    @property
    def planted(self) -> int:
        """Planted defects of its kinds, in documents that were still there."""
        return self.right + self.missed + self.mangled

    @property
    def precision(self) -> float:
        """Share of its changes that are right; NaN when it changed nothing, or serves no kind that could be planted."""
        changes = self.right + self.mangled + self.false_alarms
        return self.right / changes if changes and self.kinds else math.nan

    @property
    def recall(self) -> float:
        """Share of the planted defects of its kinds that are right afterwards; NaN when there were none."""
        return self.right / self.planted if self.planted else math.nan

    @property
    def precision_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the precision."""
        return wilson(self.right, self.right + self.mangled + self.false_alarms)

    @property
    def recall_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the recall."""
        return wilson(self.right, self.planted)

    def note(self, sort: str, what: str) -> None:
        """Count a mistake and keep the first few of its sort as examples."""
        count = getattr(self, sort) + 1
        setattr(self, sort, count)
        if count <= SHOWN:
            self.mistakes.append(f"{sort.replace('_', ' ').rstrip('s')}: {what}")


@dataclass
class Score:
    """The scores of the steps in order, and of the whole. Shows as a table in a notebook and in print.

    `kinds`: kind -> (right in the end, planted). `damage`: share of the characters of clean text that the pipeline lost, by
    changes where no defect is and by dropping clean documents. `exact`: share of the documents that ought to stay which
    came out as a perfect cleaner leaves them, but for kinds that no step serves.
    """

    steps: list[StepScore]
    kinds: dict[str, tuple[int, int]]
    damage: float
    exact: float
    losses: list[str]

    def __getitem__(self, name: str) -> StepScore:
        return next(line for line in self.steps if line.step == name)

    def rows(self) -> list[dict[str, Any]]:
        """The table, a dictionary for each step."""
        names = ("step", "planted", "precision", "precision_interval", "recall", "recall_interval", "lost")
        return [{name: getattr(line, name) for name in names} for line in self.steps]

    def _cells(self) -> list[list[str]]:
        head = ["step", "planted", "precision", "(95 %)", "recall", "(95 %)", "clean text lost"]
        return [head] + [
            [
                row["step"],
                f"{row['planted']:,}",
                *(
                    cell
                    for name in ("precision", "recall")
                    for cell in ("-" if math.isnan(row[name]) else f"{row[name]:.3f}", _interval(row, name))
                ),
                f"{row['lost']:.4%}",
            ]
            for row in self.rows()
        ]

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {right}/{planted}" for kind, (right, planted) in self.kinds.items())
        return "\n".join([*as_lines(self._cells()), f"in the end: {kinds}", self._whole()])

    __repr__ = __str__

    def _whole(self) -> str:
        return f"{self.exact:.1%} of the clean documents come out exactly; damage {self.damage:.4%} of clean characters"

    def _repr_html_(self) -> str:
        return f"{as_html(self._cells())}<p>{html.escape(self._whole())}</p>"


def _interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_interval"]
    return "" if math.isnan(row[name]) else f"{low:.3f}-{high:.3f}"


def score(
    planted: Dataset, steps: Sequence[Step | str] | None = None, serves: Mapping[str, Sequence[str]] = SERVES
) -> Score:
    """Compare what steps make of planted text with what was there before.

    An edit is right on a defect of a kind that its step serves when the text there equals the clean text afterwards. A
    change elsewhere is a false alarm, unless it touches a defect of another kind: that counts neither way. A dropped
    document is right when its `clean` is None, whatever ails it; recall counts the kinds that the step serves, in
    documents that no step before has dropped.

    Args:
        planted: what `minigpt.corpus.planted.plant` made.
        steps: as for `clean`.
        serves: step name -> the kinds of defects that it is there for.

    Raises:
        ValueError: `planted` has other columns than `plant` gives.
    """
    if not {"text", "clean", "defects"} <= {*planted.column_names}:
        raise ValueError(
            f"score needs the columns text, clean and defects, as plant(dataset) makes them; these are {planted.column_names}."
        )
    rows, chosen = planted.to_list(), choose(steps)
    total = sum(len(row["clean"]) for row in rows if row["clean"] is not None)
    served, gone, lines = set(), set(), []
    for step in chosen:
        line = StepScore(step.name, tuple(serves.get(step.name, ())))
        alive = [i for i in range(len(rows)) if i not in gone]
        if step.kind == "edit":
            for i in alive:
                if rows[i]["clean"] is not None:
                    _score_edit(line, i, rows[i], step, served)
        else:
            texts = [put_right(rows[i], served)[0] for i in alive]
            for i, text, reason in zip(alive, texts, _reasons(step, texts), strict=True):
                _score_drop(line, i, rows[i], text, reason)
                if reason is not None and rows[i]["clean"] is None:
                    gone.add(i)
        line.lost /= total
        served |= {*line.kinds}
        lines.append(line)
    kinds, lost, exact, losses = _score_whole(planted, rows, chosen, served)
    stay = sum(row["clean"] is not None for row in rows)
    return Score(lines, kinds, lost / total, exact / stay, losses)


def _reasons(step: Step, texts: list[str]) -> Sequence[str | None]:
    if step.kind == "drop":
        return [step.function(text) for text in texts]
    return step.function.judge()(step.function.sketch(texts)) if step.streams else step.function(texts)


def _score_edit(line: StepScore, number: int, row: Row, step: Step, before: set[str]) -> None:
    """Compare a document after the step with the same document after a perfect one."""
    given = put_right(row, before)[0]
    after = step.function(given)
    wanted, places = put_right(row, before | {*line.kinds})
    mine = [i for i, defect in enumerate(row["defects"]) if defect["kind"] in line.kinds]
    touched: dict[int, list[Change]] = {}
    alarm = -CLOSE
    for change in differences(wanted, after):
        span = reach(change, wanted, after)
        at = [i for i, place in enumerate(places) if touches(span, place)]
        for i in at:
            touched.setdefault(i, []).append(change)
        if not at:
            line.lost += change[1] - change[0]
            if change[0] - alarm >= CLOSE:
                line.note("false_alarms", _shown(number, wanted, after, change))
            alarm = change[1]
    for i in mine:
        if i not in touched:
            line.right += 1
            continue
        (start, end), first, last = places[i], touched[i][0], touched[i][-1]
        low, high = min(start, first[0]), max(end, last[1])
        hull = (low, high, first[2] - (first[0] - low), last[3] + (high - last[1]))
        dirty = row["text"][row["defects"][i]["start"] : row["defects"][i]["end"]]
        missed = after[hull[2] : hull[3]] == wanted[low:start] + dirty + wanted[end:high]
        line.note("missed" if missed else "mangled", _shown(number, wanted, after, hull))


def _score_drop(line: StepScore, number: int, row: Row, text: str, reason: str | None) -> None:
    mine = row["clean"] is None and row["defects"][0]["kind"] in line.kinds
    if reason is not None and row["clean"] is not None:
        line.lost += len(row["clean"])
        line.note("false_alarms", f"document {number} ({reason}): {text[: AROUND * 3]!r}")
    elif reason is not None and mine:
        line.right += 1
    elif mine:
        line.note("missed", f"document {number} ({row['defects'][0]['kind']}): {text[: AROUND * 3]!r}")


def _shown(number: int, wanted: str, after: str, change: Change) -> str:
    start, end, new_start, new_end = change
    old = wanted[max(0, start - AROUND) : end + AROUND]
    return f"document {number}: {old!r} became {after[max(0, new_start - AROUND) : new_end + AROUND]!r}"


def _score_whole(
    planted: Dataset, rows: list[Row], steps: Sequence[Step], served: set[str]
) -> tuple[dict[str, tuple[int, int]], float, int, list[str]]:
    """The pipeline as it is: right and planted for each kind, characters lost, exact documents, examples of losses."""
    cleaned, _ = clean(Dataset.from_dict({"text": planted["text"], "row": range(len(rows))}), steps)
    final = dict(zip(cleaned["row"], cleaned["text"]))
    right, n, lost, exact, losses = Counter(), Counter(), 0, 0, []
    for number, row in enumerate(rows):
        n.update(defect["kind"] for defect in row["defects"])
        after = final.get(number)
        if row["clean"] is None:
            right[row["defects"][0]["kind"]] += after is None
            continue
        if after is None:
            lost += len(row["clean"])
            losses.append(f"document {number} dropped: {row['text'][: AROUND * 3]!r}")
            continue
        wanted, places = put_right(row, served)
        changes = differences(wanted, after)
        exact += not changes
        spans = [reach(change, wanted, after) for change in changes]
        for change, span in zip(changes, spans):
            if not any(touches(span, place) for place in places):
                lost += change[1] - change[0]
                losses.append(_shown(number, wanted, after, change))
        for defect, place in zip(row["defects"], places):
            if defect["kind"] in served:
                spoilt = [change for change, span in zip(changes, spans) if touches(span, place)]
                right[defect["kind"]] += not spoilt
                losses += [f"{defect['kind']}, {_shown(number, wanted, after, change)}" for change in spoilt]
    return {kind: (right[kind], n[kind]) for kind in n}, lost, exact, losses
