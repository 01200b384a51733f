"""What notebook 06's exercise about cross-validation asks for, and how each wrong answer is told from the others.

Vectoriser and classifier are scikit-learn's own, which note what they are fitted on: a vectoriser that has seen a fold
before it is scored need not change any score here, and it is wrong all the same.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, close, is_row, plain
from minigpt.lab.check import Mistake, Untouched, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each, explain
from minigpt.lab.exercises.finetuning_metrics import Answer, number

TEXTS = (
    ("a warm and clever film", 1),
    ("dull and slow", 0),
    ("a slow, dull mess", 0),
    ("funny from start to end", 1),
    ("a mess from start to end", 0),
    ("not funny, not clever", 0),
    ("slow but never dull", 1),
    ("the end is a joy", 1),
    ("no joy in it", 0),
    ("a joy, warm and slow", 1),
    ("the plot is a mess", 0),
    ("what a film", 1),
    ("never a dull end", 1),
    ("plot and light are clever", 1),
    ("no plot, no end", 0),
    ("it is not a waste", 1),
    ("we want more", 1),
    ("more of the dull plot", 0),
)
FOLDS = ([*map(int, "101002202120221210")], [*map(int, "223202203101330011")])  # no two folds score alike


class Seen(NamedTuple):
    """What the objects were fitted on: the texts of each vectoriser, and the number of rows of each classifier."""

    texts: set[frozenset[str]]
    rows: list[int]


def _makers(seen: Seen) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Makers of a CountVectorizer and of a naive Bayes classifier that note what they are fitted on."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    class Vectorizer(CountVectorizer):
        def fit_transform(self, raw_documents: Any, y: Any = None) -> Any:  # fit calls it
            raw_documents = [str(text) for text in raw_documents]
            seen.texts.add(frozenset(raw_documents))
            return super().fit_transform(raw_documents)

    class Classifier(MultinomialNB):
        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            seen.rows.append(len(y))
            return super().fit(X, y, sample_weight)

    return Vectorizer, Classifier


Part = Callable[[np.ndarray, int, int], np.ndarray]  # which rows, from the fold of each, a fold and k


def _others(folds: np.ndarray, f: int, k: int) -> np.ndarray:
    return folds != f


def _fold(folds: np.ndarray, f: int, k: int) -> np.ndarray:
    return folds == f


def _all(folds: np.ndarray, f: int, k: int) -> np.ndarray:
    return folds >= 0


@functools.cache  # the pairs of mistakes ask for the same rows again and again
def _accuracy(learned: tuple[bool, ...], judged: tuple[bool, ...]) -> float:
    """The accuracy on some rows of what was fitted on some rows."""
    new, classifier = (make() for make in _makers(Seen(set(), [])))
    texts, labels = zip(*itertools.compress(TEXTS, learned))
    classifier.fit(new.fit_transform(texts), labels)
    texts, labels = zip(*itertools.compress(TEXTS, judged))
    return float(classifier.score(new.transform(texts), labels))


def _accuracies(
    train: Part = _others,
    test: Part = _fold,
    end: Callable[[list[float], np.ndarray], list[float]] = lambda scores, folds: scores,
) -> Tensor:
    """The scores of all `FOLDS`, one row after the other: few texts score alike by chance, and so few folds may."""
    scores = []
    for row in map(np.array, FOLDS):
        k = row.max() + 1
        masks = [(tuple(train(row, f, k).tolist()), tuple(test(row, f, k).tolist())) for f in range(k)]
        scores += end([_accuracy(*mask) for mask in masks], row)
    return torch.tensor(scores, dtype=torch.float64)


SCORES: Mistakes = {
    "scored_on_training": each("test", _others),
    "scored_on_all": each("test", _all),
    "swapped": [{"train": _fold, "test": _others}],
    "same_fold": each("test", *(lambda folds, f, k, at=at: folds == at % k for at in (0, -1))),
    "trained_once": each("train", *(lambda folds, f, k, at=at: folds != at % k for at in (0, -1))),
    "one_other_fold": each("train", *(lambda folds, f, k, d=d: folds == (f + d) % k for d in (1, -1))),
    "earlier_folds": each("train", lambda folds, f, k: folds < f if f else folds > f),
    "order": each(
        "end",
        lambda scores, folds: scores[::-1],
        lambda scores, folds: [scores[f] for f in dict.fromkeys(folds.tolist())],
        lambda scores, folds: sorted(scores),
        lambda scores, folds: sorted(scores, reverse=True),
    ),
    "errors": each("end", lambda scores, folds: [1 - score for score in scores]),
    "counts": each("end", lambda scores, folds: [s * (folds == f).sum() for f, s in enumerate(scores)]),
    "percent": each("end", lambda scores, folds: [100 * score for score in scores]),
}


@exercise("overfitting/cross_validate")
def cross_validate(answer: Answer) -> Mistake | None:
    """answer(texts, labels, folds, make_vectorizer, make_classifier) -> the accuracy on each fold, in their order."""
    scores: list[float] = []
    seen: list[Seen] = []
    try:
        for folds in FOLDS:
            got, noted = _asked(answer, folds)
            if found := _not_scores(got, noted, folds):
                return found
            scores += got
            seen.append(noted)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    except ValueError as error:
        if "features" in str(error):
            return mistake("fitted_again")
        raise
    right = _accuracies().tolist()
    at = next((i for i, pair in enumerate(zip(scores, right)) if not close(*pair, 1e-5)), None)
    if at is None:
        return None
    found = explain([(torch.tensor(scores, dtype=torch.float64), _accuracies)], SCORES)
    if found is None and not seen[0].texts & _parts(FOLDS[0]):
        return mistake("own_folds")
    k = max(FOLDS[0]) + 1
    fold, k = (at, k) if at < k else (at - k, max(FOLDS[1]) + 1)
    return found or mistake("value", fold=fold, k=k, got=f"{scores[at]:.4g}", expected=f"{right[at]:.4g}")


def _asked(answer: Answer, folds: list[int]) -> tuple[Any, Seen]:
    """What the answer gives, as arrays or, where it can use none, as lists; and what was fitted meanwhile."""
    texts, labels = zip(*TEXTS)
    refused = None
    for form in (np.array, list):
        seen = Seen(set(), [])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = plain(call(answer, *(form(list(row)) for row in (texts, labels, folds)), *_makers(seen)))
            return [*map(number, got)] if isinstance(got, list) else got, seen
        except (Untouched, NotNumbers):
            raise
        except Exception as error:
            refused = refused or error
    raise refused


def _parts(folds: list[int]) -> set[frozenset[str]]:
    """The texts of each fold, and those outside it."""
    masks = [(set(folds) - {f}, {f}) for f in set(folds)]
    return {frozenset(text for (text, _), f in zip(TEXTS, folds) if f in part) for pair in masks for part in pair}


def _not_scores(got: Any, seen: Seen, folds: list[int]) -> Mistake | None:
    """What is wrong with how the scores came about, or with their number."""
    k, N = max(folds) + 1, len(TEXTS)
    if N in seen.rows:
        return mistake("trained_on_all", N=N)
    if any(len(texts) == N for texts in seen.texts):
        return mistake("vectorizer_saw_all", N=N)
    if not (seen.texts and seen.rows):
        return mistake("makers_unused")
    if len(seen.texts) == 1 < len(seen.rows):
        return mistake("vectorizer_once", k=k)
    if not is_row(got):
        return mistake("not_a_row" if isinstance(got, list) else "one_number", k=k)
    if len(got) != k:
        code = {k + 1: "one_more", N: "one_for_each_text", 1: "first_only"}.get(len(got), "length")
        return mistake(code, got=len(got), k=k)
    return None
