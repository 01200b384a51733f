"""How far a result can be trusted: intervals, a paired test, calibration; and two measures that scikit-learn lacks.

N rows, K classes. Inputs are lists or arrays, a row of one belonging to the same row of the others. This module knows
nothing of models; accuracy, F1 and the like are scikit-learn's.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Interval(NamedTuple):
    """A value, and the interval in which it would lie in most samples of the same size."""

    value: float
    low: float
    high: float

    def __repr__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class McNemar(NamedTuple):
    """Rows that one of two classifiers alone has right, and how likely so uneven a split is between equal ones."""

    only_first: int
    only_second: int
    p_value: float

    def __repr__(self) -> str:
        return f"right in the first alone {self.only_first}, in the second alone {self.only_second}, p = {self.p_value:.3g}"


class Calibration(NamedTuple):
    """Mean confidence, accuracy and rows of each bin that holds any, and the expected calibration error."""

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    error: float

    def __repr__(self) -> str:
        return f"expected calibration error {self.error:.3f} over {self.count.sum()} rows in {len(self.count)} bins"


def _columns(**given: ArrayLike) -> list[np.ndarray]:
    """What was given as arrays. ValueError unless all have the same number of rows, and at least one."""
    arrays = {name: np.asarray(column) for name, column in given.items()}
    rows = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(rows.values())) != 1 or 0 in rows.values():
        came = ", ".join(f"{name} {count}" for name, count in rows.items())
        raise ValueError(f"rows that came: {came}; pass columns of one length, with at least one row.")
    return list(arrays.values())


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name}={value} is no share between 0 and 1; pass 0.95 for 95 %.")


def bootstrap_interval(
    metric: Callable[..., float], *columns: ArrayLike, repeats: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """metric(*columns), and the interval that a share `level` of its values on resampled rows lies in.

    Rows are drawn with replacement, the same ones from every column (the percentile method of Efron & Tibshirani, An
    Introduction to the Bootstrap, 1993, chapter 13). Draws for which the metric is undefined are left out.

    Raises:
        ValueError: no columns or unequal ones, no repeats, a level outside 0 to 1, or a metric that is undefined (it
            raises ValueError or gives NaN) on the rows themselves or in every draw.
    """
    arrays = _columns(**{f"column {number}": column for number, column in enumerate(columns, start=1)})
    _share("level", level)
    if repeats < 1:
        raise ValueError(f"repeats={repeats} draws nothing; 1000 give a steady interval.")
    value = float(metric(*arrays))
    if math.isnan(value):
        raise ValueError("the metric is NaN on the rows that came; pass rows on which it is defined.")
    rng, values = np.random.default_rng(seed), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a metric may warn of what is dealt with here
        for _ in range(repeats):
            rows = rng.integers(len(arrays[0]), size=len(arrays[0]))
            try:
                values.append(float(metric(*(array[rows] for array in arrays))))
            except ValueError:
                continue
    values = [drawn for drawn in values if not math.isnan(drawn)]
    if not values:
        raise ValueError(f"the metric was undefined in all {repeats} draws; pass more rows.")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean of a few values, such as one for each seed, and Student's interval for it (Student, Biometrika 6, 1908).

    ValueError for fewer than two values, values that are no numbers, or a level outside 0 to 1.
    """
    (found,) = _columns(values=values)
    _share("level", level)
    if found.ndim != 1 or len(found) < 2 or not np.isfinite(found.astype(float)).all():
        raise ValueError(f"{found.tolist()} came; pass two numbers or more, such as the losses of three seeds.")
    try:
        from scipy.stats import t
    except ImportError as error:
        raise ValueError('scipy is not installed; run: pip install -e ".[course]".') from error
    mean, reach = float(found.mean()), float(t.ppf((1 + level) / 2, len(found) - 1))
    reach *= float(found.std(ddof=1)) / math.sqrt(len(found))
    return Interval(mean, mean - reach, mean + reach)


def mcnemar(labels: ArrayLike, first: ArrayLike, second: ArrayLike) -> McNemar:
    """Whether two classifiers differ on the same rows: the exact test on those that only one of them has right.

    If they are equally good, each such row is a toss of a coin (McNemar, Psychometrika 12, 1947; recommended for one
    test set by Dietterich, Neural Computation 10, 1998). Two-sided.

    Raises:
        ValueError: no rows, unequal numbers of them, or columns that are no single row of numbers or names.
    """
    truth, one, two = _columns(labels=labels, first=first, second=second)
    if any(column.ndim != 1 for column in (truth, one, two)):
        shapes = ", ".join(str(column.shape) for column in (truth, one, two))
        raise ValueError(
            f"labels, first and second have shapes {shapes}; each is one row, (N,): the class of each text."
        )
    only_first = int(((one == truth) & (two != truth)).sum())
    only_second = int(((one != truth) & (two == truth)).sum())
    tosses = only_first + only_second
    tail = sum(math.comb(tosses, k) for k in range(min(only_first, only_second) + 1))
    return McNemar(only_first, only_second, min(1.0, 2 * tail / 2**tosses))


def calibration(labels: ArrayLike, probabilities: ArrayLike, bins: int = 10) -> Calibration:
    """Whether a classifier is right as often as it says: accuracy by the probability of the class that it chose.

    Args:
        labels: (N,) numbers of the true classes, from 0.
        probabilities: (N, K), each row summing to 1.
        bins: how many parts of equal width confidence is cut into; the upper edge belongs to a part.

    Raises:
        ValueError: unequal numbers of rows, labels that are no classes, or probabilities that are none.
    Source:
        Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.
    """
    truth, shares = _columns(labels=labels, probabilities=probabilities)
    if shares.ndim != 2 or truth.ndim != 1:
        raise ValueError(
            f"labels of shape {truth.shape} and probabilities of shape {shares.shape} came; (N,) and (N, K) are "
            "expected, for two classes with the columns 1 - p and p."
        )
    _check_labels(truth, shares.shape[1])
    # written so that NaN fails too; half precision sums to 1 within a thousandth or two
    wrong = ~((shares >= 0).all(axis=1) & (abs(shares.sum(axis=1) - 1) < 5e-3))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"row {row} of the probabilities sums to {shares[row].sum():.4g} with {shares[row].min():.4g} as its smallest; "
            "each row must sum to 1 with none below 0: apply a softmax to logits first."
        )
    if bins < 1:
        raise ValueError(f"bins={bins} holds nothing; pass 1 or more.")
    right, confident = shares.argmax(axis=1) == truth, shares.max(axis=1)  # (N,)
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], confident)  # (N,) the bin of each row
    count = np.bincount(place, minlength=bins)  # (bins,)
    held = count > 0
    count, confidence, accuracy = (
        total[held] for total in (count, np.bincount(place, confident, bins), np.bincount(place, right, bins))
    )
    confidence, accuracy = confidence / count, accuracy / count
    error = float((count * abs(accuracy - confidence)).sum() / len(truth))
    return Calibration(confidence, accuracy, count, error)


def distinct_n(texts: Iterable[str], n: int = 2) -> float:
    """How varied texts are: the share of different n-grams of words among all, counted over the texts together.

    Words are what stands between white space; no n-gram goes from one text into the next. It falls as texts get longer,
    so compare texts of one length (Li et al., A Diversity-Promoting Objective Function for Neural Conversation Models,
    2016).

    Raises:
        ValueError: a single text, n below 1, or no text of n words.
    """
    if isinstance(texts, str):
        raise ValueError("one text came, whose letters would count as texts; pass a list of texts.")
    if n < 1:
        raise ValueError(f"n={n} is no number of words; pass 1 or more.")
    rows = [text.split() for text in texts]
    grams = [tuple(words[i : i + n]) for words in rows for i in range(len(words) - n + 1)]
    if not grams:
        raise ValueError(f"none of {len(rows)} texts has {n} words; pass longer texts or a smaller n.")
    return len(set(grams)) / len(grams)


def threshold_for(labels: ArrayLike, scores: ArrayLike, precision: float = 0.9) -> float:
    """The lowest threshold at which `score >= threshold` is at least as precise as wanted, so that recall is largest.

    Args:
        labels: (N,) 1 for what is to be found, 0 for the rest.
        scores: (N,) the higher, the likelier 1.

    Raises:
        ValueError: unequal numbers of rows, labels other than 0 and 1, scores that are NaN, or a precision that no
            threshold reaches.
    """
    truth, values = _columns(labels=labels, scores=scores)
    if truth.ndim != 1 or values.ndim != 1:
        raise ValueError(f"labels of shape {truth.shape} and scores of shape {values.shape} came; pass (N,) for both.")
    _check_labels(truth, 2)
    if not 0 < precision <= 1:
        raise ValueError(f"precision={precision} is no share above 0; pass 0.9 for 90 %.")
    if np.isnan(values).any():
        raise ValueError(f"score {int(np.isnan(values).argmax())} is NaN; score every row with a number.")
    order = np.argsort(-values, kind="stable")
    values, found = values[order], np.cumsum(truth[order])  # (N,) positives among the highest, row by row
    ends = np.append(values[1:] != values[:-1], True)  # rows of one score come in together
    precise = (found / np.arange(1, len(values) + 1))[ends]  # (thresholds,)
    reached = precise >= precision
    if not reached.any():
        raise ValueError(
            f"no threshold reaches a precision of {precision:g}; the best is {precise.max():.3f} "
            f"at {values[ends][precise.argmax()]:.4g}. Ask for less, or score better."
        )
    return float(values[ends][reached][-1])


def _check_labels(labels: np.ndarray, n_classes: int) -> None:
    unknown = ~np.isin(labels, np.arange(n_classes))
    if unknown.any():
        row = int(unknown.argmax())
        raise ValueError(f"label {labels[row]} in row {row} is none of the {n_classes} classes; number them from 0.")
