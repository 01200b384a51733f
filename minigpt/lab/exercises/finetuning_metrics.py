"""What notebook 05's exercise about macro F1 asks for, and how each wrong answer is told from the others.

Answers are asked with arrays, lists and tensors, and are right if they are so in any of them. One number may be right or
wrong in the same way by chance, so a mistake has to give the same numbers in several cases.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, close, plain
from minigpt.lab.check import Mistake, Untouched, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each, explain

Answer = Callable[..., Any]
Rows = Sequence[Sequence[float]]
FORMS = (np.array, list, torch.tensor)


def asked(answer: Answer, rows: Rows, *others: Any) -> list[Any]:
    """What the answer makes of rows as arrays, as lists and as tensors, where it can use them.

    Raises:
        Untouched: it gave nothing back.
        NotNumbers: it gave something else than numbers.
        Exception: what it raised for arrays, if it can use none of the three.
    """
    results, refused = [], None
    for form in FORMS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results.append(plain(call(answer, *map(form, rows), *others)))
        except (Untouched, NotNumbers):
            raise
        except Exception as error:
            refused = refused or error
    if refused and not results:
        raise refused
    return results


def best(results: list[Any], right: Callable[[Any], bool]) -> Any:
    """The first right result, or the first one."""
    return next(filter(right, results), results[0])


class Counted(NamedTuple):
    """Labels and predictions, and what can be counted for each class."""

    labels: list[int]
    predictions: list[int]
    n_classes: int

    def counts(self, classes: Sequence[int] | None = None) -> list[tuple[int, int, int]]:
        """Right, predicted and true ones of each class."""
        return [
            (list(zip(*self[:2])).count((c, c)), self.predictions.count(c), self.labels.count(c))
            for c in (range(self.n_classes) if classes is None else classes)
        ]


Score = Callable[[int, int, int], float]  # of the right, the predicted and the true ones of a class

# In each: a class that is only labelled, one that is only predicted, one that is neither; and unlike counts.
CONFUSIONS = (
    Counted([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 0, 1], [0, 0, 1, 5, 0, 1, 2, 1, 2, 0, 0, 0, 1], 6),
    Counted([2, 2, 2, 4, 4, 4, 4, 0, 0, 4, 2], [2, 4, 2, 4, 4, 2, 4, 4, 2, 1, 2], 5),
    Counted([1, 1, 3, 3, 3, 3, 3, 0, 0, 0], [1, 3, 3, 1, 3, 4, 3, 0, 3, 3], 6),
)
CASES = (  # of which the answers are known without a formula, and where a division by 0 lurks
    (Counted([0, 0], [0, 0], 1), 1.0),
    (Counted([0, 1, 2], [1, 2, 0], 3), 0.0),
    (Counted([0, 1, 2, 2], [0, 1, 2, 2], 3), 1.0),
    (Counted([1], [1], 4), 0.25),
)


def over(a: float, b: float, otherwise: float = 0.0) -> float:
    """a / b, and something else where b is 0."""
    return a / b if b else otherwise


def f1(right: int, predicted: int, true: int) -> float:
    """2 * right / (predicted + true), 0 where there is nothing."""
    return over(2 * right, predicted + true)


def precision(right: int, predicted: int, true: int) -> float:
    """Share of the predicted ones that are right."""
    return over(right, predicted)


def recall(right: int, predicted: int, true: int) -> float:
    """Share of the true ones that are right."""
    return over(right, true)


def _macro(counted: Counted) -> Callable[..., Tensor]:
    def simulate(
        score: Score = f1,
        classes: Callable[[Counted], Sequence[int]] = lambda counted: range(counted.n_classes),
        divide: Callable[[Counted, int], float] = lambda counted, classes: classes,
        whole: Callable[[Counted], float] | None = None,
        end: Callable[[float], float] = lambda value: value,
    ) -> Tensor:
        if whole is not None:
            return torch.tensor(end(whole(counted)), dtype=torch.float64)
        scores = [score(*counts) for counts in counted.counts(classes(counted))]
        return torch.tensor(end(sum(scores) / divide(counted, len(scores))), dtype=torch.float64)

    return simulate


def _weighted(by: int) -> Callable[[Counted], float]:
    """The classes weighed by how often they are predicted (1) or true (2)."""
    return lambda counted: sum(f1(*counts) * counts[by] for counts in counted.counts()) / len(counted.labels)


def _of_means(counted: Counted) -> float:
    p, r = (sum(score(*counts) for counts in counted.counts()) / counted.n_classes for score in (precision, recall))
    return over(2 * p * r, p + r)


MACRO: Mistakes = {
    "accuracy": each("whole", lambda counted: sum(map(int.__eq__, *counted[:2])) / len(counted.labels)),
    "weighted": each("whole", _weighted(2), _weighted(1)),
    "f1_of_means": each("whole", _of_means),
    "macro_precision": each("score", precision),
    "macro_recall": each("score", recall),
    "one_class": each("classes", *(lambda counted, c=c: [c] for c in range(5))),
    "without_predictions_left_out": each("classes", lambda counted: sorted(set(counted.predictions))),
    "without_examples_left_out": each("classes", lambda counted: sorted(set(counted.labels))),
    "absent_left_out": each("classes", lambda counted: sorted({*counted.labels, *counted.predictions})),
    "zeros_left_out": each("classes", lambda counted: [c for c, (right, *_) in enumerate(counted.counts()) if right]),
    "empty_counts_one": each(
        "score",
        lambda right, predicted, true: over(2 * right, predicted + true, 1.0),
        lambda right, predicted, true: f1(right, predicted, true) if predicted and true else 1.0,
    ),
    "arithmetic_mean": each("score", lambda *counts: (precision(*counts) + recall(*counts)) / 2),
    "geometric_mean": each("score", lambda *counts: math.sqrt(precision(*counts) * recall(*counts))),
    "product": each("score", lambda *counts: precision(*counts) * recall(*counts)),
    "two_forgotten": each("score", lambda *counts: f1(*counts) / 2),
    "jaccard": each("score", lambda right, predicted, true: over(right, predicted + true - right)),
    "smaller_of_the_two": each("score", lambda *counts: min(precision(*counts), recall(*counts))),
    "larger_of_the_two": each("score", lambda *counts: max(precision(*counts), recall(*counts))),
    "not_divided": each("divide", lambda counted, classes: 1),
    "divided_by_rows": each("divide", lambda counted, classes: len(counted.labels)),
    "range_off": [
        *each("classes", lambda counted: range(1, counted.n_classes), lambda counted: range(counted.n_classes - 1)),
        *each("classes", lambda counted: range(1, counted.n_classes + 1)),
        {"classes": lambda counted: range(1, counted.n_classes), "divide": lambda counted, classes: classes + 1},
        {"classes": lambda counted: range(counted.n_classes - 1), "divide": lambda counted, classes: classes + 1},
    ],
    "percent": each("end", lambda value: 100 * value),
    "error": each("end", lambda value: 1 - value),
}


def number(got: Any) -> Any:
    """The number in a list of one."""
    return number(got[0]) if isinstance(got, list) and len(got) == 1 else got


@exercise("finetuning/macro_f1")
def macro_f1(answer: Answer) -> Mistake | None:
    """answer(labels, predictions, n_classes) -> the mean of the classes' F1, 0 for a class that has none."""
    try:
        results = [_answered(answer, counted, float(_macro(counted)())) for counted in CONFUSIONS]
        return _macro_f1(results) or _known_without_a_formula(answer)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    except ZeroDivisionError:
        return mistake("division_by_zero")


def _answered(answer: Answer, counted: Counted, right: float) -> Any:
    results = map(number, asked(answer, counted[:2], counted.n_classes))
    return best(list(results), lambda got: close(got, right, 1e-5))


def _macro_f1(results: list[Any]) -> Mistake | None:
    rows = [got for got in results if isinstance(got, list)]
    if rows:
        return mistake("one_for_each", count=len(rows[0]))
    if any(map(math.isnan, results)):
        return mistake("nan")
    rights = [float(_macro(counted)()) for counted in CONFUSIONS]
    wrong = [i for i, (got, right) in enumerate(zip(results, rights)) if not close(got, right, 1e-5)]
    if not wrong:
        return None
    known = [(torch.tensor(float(got)).double(), _macro(counted)) for got, counted in zip(results, CONFUSIONS)]
    found = explain(known, MACRO)
    if found:
        return found
    if all(any(got == round(right, digits) for digits in range(1, 5)) for got, right in zip(results, rights)):
        return mistake("rounded")
    return _value(CONFUSIONS[wrong[0]], results[wrong[0]], rights[wrong[0]])


def _value(counted: Counted, got: Any, expected: float) -> Mistake:
    shown = f"{got:.4g}" if isinstance(got, int | float) else got
    return mistake("value", **counted._asdict(), got=shown, expected=f"{expected:.4g}")


def _known_without_a_formula(answer: Answer) -> Mistake | None:
    for counted, right in CASES:
        got = _answered(answer, counted, right)
        if not close(got, right, 1e-5):
            return mistake("division_by_zero") if got != got else _value(counted, got, right)
    return None
