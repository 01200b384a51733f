"""What notebook 06's exercise about folds and copies asks for, and how each wrong answer is told from the others.

Any assignment that keeps copies together and is even is right, so that answers are judged by what holds for their folds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minigpt.lab.answers import NotNumbers, is_row
from minigpt.lab.check import Mistake, Untouched, exercise, mistake
from minigpt.lab.exercises.finetuning_metrics import Answer, asked


class Rows(NamedTuple):
    """The number of the original of each row, and how many folds are wanted."""

    groups: list[int]
    k: int


def _shuffled(numbers: Sequence[int], copies: Sequence[int], seed: int) -> list[int]:
    rows = [number for number, times in zip(numbers, copies) for _ in range(times)]
    return [rows[i] for i in np.random.default_rng(seed).permutation(len(rows))]


ODD = [3, 4, 7, 8, 11, 15, 16, 19, 23, 24, 27, 28, 31]  # cleaning left gaps, and no evenness by their remainders
IN_ORDER = Rows([number for number in ODD for _ in range(4)], 3)  # first the copies lie side by side
MIXED = (
    Rows(_shuffled(ODD, [4] * 13, 1), 4),
    Rows(_shuffled(range(100, 160, 6), [2, 3, 2, 3, 2, 2, 3, 3, 2, 2], 2), 3),
    Rows(_shuffled(range(0, 46, 2), [4] * 23, 3), 5),
    Rows([9, 5, 9, 5], 2),
    Rows([6, 2, 4, 8, 1], 5),
)


@exercise("overfitting/folds_with_copies")
def folds_with_copies(answer: Answer) -> Mistake | None:
    """answer(groups, k) -> the fold of each row, 0 to k - 1: a group in one fold, and folds of equally many groups."""
    try:
        if found := _folds(answer, IN_ORDER):
            return found
        for rows in MIXED:
            try:
                found = _folds(answer, rows)
            except (Untouched, NotNumbers):
                raise
            except Exception as error:
                return mistake("elsewhere", groups=_shown(rows.groups), k=rows.k, what=type(error).__name__)
            if found and rows is MIXED[0] and found.code == "copies_apart":
                return mistake("only_side_by_side")
            if found:
                return found
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    return None


def _shown(groups: list[int]) -> str:
    return str(groups) if len(groups) < 20 else f"{str(groups[:20])[:-1]}, ...]"


def _folds(answer: Answer, rows: Rows) -> Mistake | None:
    """The mistake in the folds of these rows: the answer may use arrays, lists or tensors, and is right if one is."""
    mistakes = [_uneven(got, rows) for got in asked(answer, rows[:1], rows.k)]
    return None if None in mistakes else mistakes[0]


def _uneven(got: Any, rows: Rows) -> Mistake | None:
    """What does not hold for these folds."""
    groups, k = rows
    N, G = len(groups), len(set(groups))
    if not is_row(got):
        return _nested(got, rows) if isinstance(got, list) else mistake("one_number", N=N)
    if len(got) != N:
        return mistake("one_for_each_group" if len(got) == G else "length", got=len(got), expected=N)
    if any(fold != fold or fold != int(fold) for fold in got):
        return mistake("not_whole")
    folds = [int(fold) for fold in got]
    seen = {group: {fold for g, fold in zip(groups, folds) if g == group} for group in groups}
    if folds == groups or (k < G == len(set(folds)) and all(len(of) == 1 for of in seen.values())):
        return mistake("groups_returned")
    firsts = [group not in groups[:i] for i, group in enumerate(groups)]
    rest = {fold for fold, first in zip(folds, firsts) if not first}
    if min(folds) < 0 or (N > G and rest == {0} and {fold for fold, first in zip(folds, firsts) if first} != {0}):
        return mistake("copies_left_over", got=min([fold for fold in folds if fold < 0], default=0))
    if set(folds) == set(range(1, k + 1)):
        return mistake("counted_from_one", k=k)
    if max(folds) >= k:
        return mistake("range", got=max(folds), last=k - 1, k=k)
    apart = [group for group, of in seen.items() if len(of) > 1]
    if apart:
        return _apart(folds, rows, apart)
    used = Counter({fold: 0 for fold in range(k)})
    used.update(next(iter(of)) for of in seen.values())
    lengths = [folds.count(fold) for fold in range(k)]
    even = max(lengths) - min(lengths) <= max(Counter(groups).values())  # by rows, as GroupKFold has them
    if min(used.values()) and (even or max(used.values()) - min(used.values()) <= 1):
        return None
    counts = [used[fold] for fold in range(k)]
    if folds == [group % k for group in groups]:
        return mistake("remainders", counts=counts)
    if not min(counts):
        return mistake("empty_fold", fold=counts.index(0), k=k)
    return mistake("rest_in_last" if len(set(counts[:-1])) == 1 and counts[-1] > counts[0] else "uneven", counts=counts)


def _apart(folds: list[int], rows: Rows, apart: list[int]) -> Mistake:
    groups, k = rows
    if folds == [i % k for i in range(len(groups))]:
        return mistake("rows_dealt", count=len(apart), total=len(set(groups)))
    if folds == sorted(folds):
        return mistake("row_blocks", count=len(apart), total=len(set(groups)))
    lie_in = {group: {fold for g, fold in zip(groups, folds) if g == group} for group in groups}
    if all(len(of) == min(k, groups.count(group)) for group, of in lie_in.items()):
        return mistake("spread_evenly")
    return mistake("copies_apart", group=apart[0], count=len(apart), total=len(set(groups)))


def _nested(got: list[Any], rows: Rows) -> Mistake:
    groups, k = rows
    halves = [half for part in got if isinstance(part, list) for half in part]
    if len(got) == k and len(halves) == 2 * k and all(isinstance(half, list) for half in halves):
        return mistake("pairs", k=k)
    if len(got) == len(groups):
        return mistake("table", N=len(groups))
    return mistake("members_listed", k=k)
