"""What notebook 05's exercise about an honest F1 asks for, and how each wrong answer is told from the others.

Labels are 0 or 1. A mistake has to give the same two numbers in several splits.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, close
from minigpt.lab.check import Mistake, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each, explain
from minigpt.lab.exercises.finetuning_metrics import Answer, Score, asked, best, f1, number, precision, recall


class Scored(NamedTuple):
    """Labels, 0 or 1, and scores of the validation set and of the test set."""

    val_labels: list[int]
    val_scores: list[float]
    test_labels: list[int]
    test_scores: list[float]


Half = tuple[list[int], list[float]]  # labels and scores
Measure = Callable[[list[int], list[bool]], float]


def _sixteenths(*scores: int) -> list[float]:
    """Scores that float32 holds exactly, so that a tensor of them says what a list does."""
    return [score / 16 for score in scores]


# No two kinds of mistake below give the same numbers in all of them. The third has logits; in the first and the third two
# thresholds are equally good, with precision and recall exchanged, so that no formula's rounding sets them apart.
SPLITS = (
    Scored(
        [0, 1, 1, 0, 1, 0, 0, 0, 0, 1],
        _sixteenths(13, 5, 15, 1, 14, 0, 8, 13, 6, 4),
        [0, 0, 0, 1, 0, 0, 0, 1, 1],
        _sixteenths(10, 1, 8, 0, 13, 10, 0, 9, 14),
    ),
    Scored(
        [0, 1, 0, 1, 1, 1, 1, 0, 0],
        _sixteenths(3, 6, 4, 0, 7, 12, 4, 1, 8),
        [0, 0, 1, 1, 0, 0, 1, 0, 1, 1],
        _sixteenths(16, 11, 10, 2, 11, 7, 6, 4, 16, 11),
    ),
    Scored(
        [1, 0, 0, 1, 0, 1, 1, 0, 0],
        _sixteenths(38, 9, 8, -6, -14, 35, 6, 1, 26),
        [0, 1, 1, 1, 1, 0, 0, 0, 1],
        _sixteenths(-40, -5, 27, 22, -23, -17, 2, 34, 11),
    ),
    Scored(
        [0, 0, 1, 0, 1, 1, 1], _sixteenths(12, 6, 3, 15, 0, 12, 13), [0, 1, 1, 0, 0, 1], _sixteenths(0, 0, 0, 0, 12, 6)
    ),
)


def _counts(labels: list[int], found: list[bool]) -> tuple[int, int, int]:
    return sum(y and p for y, p in zip(labels, found)), sum(found), sum(labels)


def _binary(score: Score) -> Measure:
    return lambda labels, found: score(*_counts(labels, found))


F1 = _binary(f1)


def _negative(labels: list[int], found: list[bool]) -> float:
    return f1(*_counts([1 - y for y in labels], [not p for p in found]))


def _accuracy(labels: list[int], found: list[bool]) -> float:
    return sum(bool(y) == p for y, p in zip(labels, found)) / len(labels)


def _both_classes(labels: list[int], found: list[bool]) -> float:
    return (F1(labels, found) + _negative(labels, found)) / 2


def _pooled(val: Half, test: Half) -> Half:
    return val[0] + test[0], val[1] + test[1]


def _at_least(score: float, threshold: float) -> bool:
    return score >= threshold


def _above(score: float, threshold: float) -> bool:
    return score > threshold


def _place(row: list[float], threshold: float) -> int:
    return row.index(threshold) if threshold in row else -1


def _midpoints(chosen: Half, val: Half, test: Half) -> list[float]:
    return [(a + b) / 2 for a, b in itertools.pairwise(sorted(set(chosen[1])))]


def _honest(splits: Sequence[Scored]) -> Callable[..., Tensor]:
    """(threshold, F1) of each split, (splits, 2)."""

    def one(
        split: Scored,
        choose: Callable[[Half, Half], Half] = lambda val, test: val,
        candidates: Callable[[Half, Half, Half], list[float]] = lambda chosen, val, test: chosen[1],
        criterion: Measure = F1,
        passes: Callable[[float, float], bool] = _at_least,
        passes_test: Callable[[float, float], bool] | None = None,
        tie: Callable[[list[float]], float] = max,
        report: Callable[[Half, Half], Half] = lambda val, test: test,
        measure: Measure = F1,
        end: Callable[[float, float, Half], tuple[float, float]] = lambda threshold, value, val: (threshold, value),
    ) -> tuple[float, float]:
        val, test = split[:2], split[2:]
        labels, scores = chosen = choose(val, test)
        tried = [(t, criterion(labels, [passes(s, t) for s in scores])) for t in candidates(chosen, val, test)]
        top = max(value for _, value in tried)
        threshold = tie([t for t, value in tried if value == top])
        labels, scores = report(val, test)
        found = [(passes_test or passes)(s, threshold) for s in scores]
        return end(threshold, measure(labels, found), val)

    return lambda **options: torch.tensor([one(split, **options) for split in splits], dtype=torch.float64)


HONEST: Mistakes = {
    "always_half": each("candidates", lambda chosen, val, test: [0.5]),
    "chosen_on_the_test_set": [
        {"choose": lambda val, test: test},
        {"choose": lambda val, test: test, "candidates": lambda chosen, val, test: val[1]},
    ],
    "validation_reported": each("report", lambda val, test: val),
    "chosen_on_both": [
        {"choose": _pooled},
        {"choose": _pooled, "candidates": lambda chosen, val, test: val[1]},
    ],
    "reported_on_both": each("report", _pooled),
    "test_scores_tried": each("candidates", lambda chosen, val, test: test[1]),
    "accuracy_maximised": each("criterion", _accuracy),
    "other_criterion": each("criterion", _binary(precision), _binary(recall), _both_classes, _negative),
    "strictly_above": [{"passes": _above}, {"passes_test": _above}, {"passes": _above, "passes_test": _at_least}],
    "ties_to_the_lowest": each("tie", min),
    "ties_in_order": each("tie", lambda tied: tied[0], lambda tied: tied[-1]),
    "negative_class": [{"measure": _negative}, {"measure": _negative, "criterion": _negative}],
    "accuracy_reported": [{"measure": _accuracy}, {"measure": _accuracy, "criterion": _accuracy}],
    "precision_or_recall_reported": each("measure", _binary(precision), _binary(recall)),
    "macro_reported": [{"measure": _both_classes}, {"measure": _both_classes, "criterion": _both_classes}],
    "nothing_found": each("measure", lambda labels, found: F1(labels, found) if any(found) else 1.0),
    "swapped": each("end", lambda threshold, value, val: (value, threshold)),
    "place_returned": each(
        "end",
        lambda threshold, value, val: (_place(val[1], threshold), value),
        lambda threshold, value, val: (_place(sorted(val[1]), threshold), value),
        lambda threshold, value, val: (_place(sorted(set(val[1])), threshold), value),
    ),
    "between_the_scores": each("candidates", _midpoints),
    "grid": each(
        "candidates",
        *(lambda chosen, val, test, n=n: [i / n for i in range(n + 1)] for n in (10, 20, 100)),
        *(lambda chosen, val, test, n=n: [i / n for i in range(1, n)] for n in (10, 20, 100)),
        *(lambda chosen, val, test, n=n: [i / n for i in range(n)] for n in (10, 20, 100)),
    ),
}

# All positive; one text; nothing found in the test set; scores that are all alike; a tie at the top score.
EDGES = (
    Scored([1, 1, 1], _sixteenths(3, 9, 5), [1, 0, 1], _sixteenths(4, 2, 3)),
    Scored([1], _sixteenths(7), [0, 1], _sixteenths(7, 6)),
    Scored([0, 1], _sixteenths(2, 30), [1, 0], _sixteenths(9, 3)),
    Scored([0, 1, 0, 1], _sixteenths(8, 8, 8, 8), [1, 0], _sixteenths(9, 3)),
    Scored([1, 0, 1, 0], _sixteenths(-4, -4, -40, -50), [1, 1, 0], _sixteenths(-3, -39, -41)),
)


@exercise("finetuning/honest_f1")
def honest_f1(answer: Answer) -> Mistake | None:
    """answer(val_labels, val_scores, test_labels, test_scores) -> the threshold best on validation, F1 of the test set."""
    try:
        rows = [_chosen(answer, split) for split in SPLITS]
        wrong = next((row for row in rows if not _is_pair(row)), None)
        if wrong is not None:
            return mistake("not_a_pair")
        got, right = torch.tensor(rows, dtype=torch.float64), _honest(SPLITS)()
        if got.isnan().any():
            return mistake("nan")
        if not torch.allclose(got, right, 1e-5, 1e-6):
            return explain([(got, _honest(SPLITS))], HONEST) or _first_difference(got, right)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    except ZeroDivisionError:
        return mistake("division_by_zero")
    for split in EDGES:
        expected = _honest([split])()[0].tolist()
        try:
            row = _chosen(answer, split)
        except Exception as error:
            return mistake("elsewhere", **split._asdict(), what=f"it stops with {type(error).__name__}")
        if not close(row, expected, 1e-5):
            return mistake("elsewhere", **split._asdict(), what=f"{row} came instead of {expected}")
    return None


def _chosen(answer: Answer, split: Scored) -> Any:
    right = _honest([split])()[0].tolist()
    results = [[*map(number, got)] if isinstance(got, list) else got for got in asked(answer, split)]
    return best(results, lambda got: close(got, right, 1e-5))


def _is_pair(got: Any) -> bool:
    return isinstance(got, list) and len(got) == 2 and not any(isinstance(part, list) for part in got)


def _first_difference(got: Tensor, right: Tensor) -> Mistake:
    """Which of the two numbers is wrong; a wrong threshold brings a wrong F1 with it."""
    near = torch.isclose(got, right, 1e-5, 1e-6)  # (splits, 2)
    place = int(near[:, 0].all())
    at = int(near[:, place].int().argmin())
    numbers = {"got": f"{got[at, place]:.4g}", "expected": f"{right[at, place]:.4g}"}
    return mistake(("threshold", "f1")[place], **SPLITS[at]._asdict(), **numbers)
