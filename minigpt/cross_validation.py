"""Every row is a test row once: folds, scores over them, settings chosen inside them, and two settings compared.

N rows, k folds. What is fitted and how it is scored is the caller's; this module knows nothing of models. The splits are
scikit-learn's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

FitAndScore = Callable[[np.ndarray, np.ndarray], float]  # numbers of the rows to fit on, and of those to score


class Nested(NamedTuple):
    """The score of each outer fold, (k,), and the setting that the rest of the rows chose for it."""

    scores: np.ndarray
    chosen: list[Any]

    def __repr__(self) -> str:
        chosen = ", ".join(map(str, self.chosen))
        return f"{self.scores.mean():.3f} over {len(self.scores)} folds; settings chosen: {chosen}"


class Comparison(NamedTuple):
    """By how much the first setting is better, the interval for it, and the p-value of no difference (two-sided)."""

    difference: float
    low: float
    high: float
    p_value: float

    def __repr__(self) -> str:
        return f"{self.difference:+.3f} ({self.low:+.3f} to {self.high:+.3f}), p = {self.p_value:.3g}"


def _needs_scikit_learn(error: ImportError) -> ValueError:
    return ValueError(f'{error.name} is not installed, and folds need it; run: pip install -e ".[course]".')


def folds(
    labels: ArrayLike | None = None, groups: ArrayLike | None = None, k: int = 5, seed: int = 0, n: int | None = None
) -> np.ndarray:
    """The number of the fold, 0 to k - 1, in which each row is a test row: (N,).

    Args:
        labels: (N,) classes; each fold gets about the same share of every class.
        groups: (N,) names of what must stay together, such as the document that a row is a copy of.
        k: how many folds.
        seed: another one gives other folds, to repeat a cross-validation.
        n: the number of rows, where there are neither labels nor groups.

    Raises:
        ValueError: k below 2, or above the rows, the groups, the rows of the smallest class or the groups that hold it;
            unequal lengths; fewer than two rows, or nothing that says how many there are.
    Source:
        Stone, Cross-Validatory Choice and Assessment of Statistical Predictions, 1974; scikit-learn's KFold,
        StratifiedKFold, GroupKFold and StratifiedGroupKFold.
    """
    given = {"labels": labels, "groups": groups}
    columns = {name: np.asarray(column) for name, column in given.items() if column is not None}
    lengths = {name: len(column) if column.ndim else 0 for name, column in columns.items()}
    if n is not None:
        lengths["n"] = n
    if len(set(lengths.values())) != 1 or min(lengths.values()) < 2:
        came = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "nothing"
        raise ValueError(f"rows that came: {came}; pass labels and groups of one length, or n; two rows at least.")
    rows = next(iter(lengths.values()))
    if k < 2:
        raise ValueError(f"k={k} leaves nothing to fit on; use 2 folds or more, 5 and 10 are usual.")
    if k > rows:
        raise ValueError(f"k={k} folds of {rows} rows leave some folds empty; use k={rows} or fewer.")
    for name, what in (("groups", "groups"), ("labels", "rows of the smallest class")):
        if name in columns:
            counts = np.unique(columns[name], return_counts=True)[1]
            most = len(counts) if name == "groups" else int(counts.min())
            if k > most:
                raise ValueError(
                    f"k={k} folds, but {most} {what}: some folds would go without; k may be {most} at most."
                )
    if len(columns) == 2:
        for name in np.unique(columns["labels"]):
            held = len(np.unique(columns["groups"][columns["labels"] == name]))
            if held < k:
                raise ValueError(
                    f"class {name} is in {held} groups, and k={k} folds keep each group whole: some folds would lack the "
                    f"class; k may be {held} at most."
                )
    try:
        from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
    except ImportError as error:
        raise _needs_scikit_learn(error) from error
    splitters = {(): KFold, ("labels",): StratifiedKFold, ("groups",): GroupKFold}
    splitter = splitters.get(tuple(columns), StratifiedGroupKFold)(k, shuffle=True, random_state=seed)
    number = np.empty(rows, dtype=np.int64)
    splits = splitter.split(np.zeros(rows), columns.get("labels"), columns.get("groups"))
    for fold, (_, test_rows) in enumerate(splits):
        number[test_rows] = fold
    return number


def cross_validate(fit_and_score: FitAndScore, folds: ArrayLike) -> np.ndarray:
    """fit_and_score(train_rows, test_rows) for each fold, the others being what is fitted on: (k,).

    Args:
        folds: (N,) the number of each row's fold, as `folds` gives them.

    Raises:
        ValueError: fewer than two folds, or a score that is no number.
    """
    number = np.asarray(folds)
    names = np.unique(number)
    if number.ndim != 1 or len(names) < 2:
        raise ValueError(
            f"folds of shape {number.shape} hold {len(names)} numbers; pass (N,) with two or more of them."
        )
    scores = np.array(
        [float(fit_and_score(np.flatnonzero(number != name), np.flatnonzero(number == name))) for name in names]
    )
    if not np.isfinite(scores).all():
        wrong = names[~np.isfinite(scores)][0]
        raise ValueError(f"the score of fold {wrong} is no number; score every fold, or leave the setting out.")
    return scores


def nested(
    settings: Sequence[Any],
    fit_and_score: Callable[[Any, np.ndarray, np.ndarray], float],
    outer: ArrayLike,
    inner: Callable[[np.ndarray], ArrayLike],
) -> Nested:
    """What choosing a setting by cross-validation is worth: chosen without the rows that it is then scored on.

    The best score of a plain cross-validation over many settings is too good, since it was chosen for being high
    (Varma & Simon, Bias in error estimation when using cross-validation for model selection, 2006).

    Args:
        settings: what is chosen from; the first of equals is taken.
        fit_and_score: (setting, train_rows, test_rows) to a score, the higher the better.
        outer: (N,) folds to score on.
        inner: the rows of the outer folds but one, (M,), to folds of them, (M,), as `lambda rows: folds(labels[rows])`.

    Raises:
        ValueError: no settings, fewer than two folds, or inner folds of another length.
    """
    if not len(settings):
        raise ValueError("there are no settings to choose from; pass one or more.")
    chosen = []

    def choose_and_score(train_rows: np.ndarray, test_rows: np.ndarray) -> float:
        parts = np.asarray(inner(train_rows))
        if parts.shape != train_rows.shape:
            raise ValueError(
                f"{len(train_rows)} rows to choose on have folds of shape {parts.shape}; give one for each."
            )

        def mean_score(setting: Any) -> float:
            return cross_validate(lambda a, b: fit_and_score(setting, train_rows[a], train_rows[b]), parts).mean()

        chosen.append(max(settings, key=mean_score))
        return fit_and_score(chosen[-1], train_rows, test_rows)

    return Nested(cross_validate(choose_and_score, outer), chosen)


def paired_comparison(first: ArrayLike, second: ArrayLike, test_share: float, level: float = 0.95) -> Comparison:
    """Whether two settings differ, by their scores on the same folds: the corrected resampled t-test.

    Folds share most of what was fitted on, so their differences are no independent draws, and the plain paired t-test
    finds a difference too often. With J differences of mean m and variance s², t = m / sqrt((1/J + n_test/n_train) s²)
    with J - 1 degrees of freedom. Of the plain test, n_test/n_train is missing.

    Args:
        first: (J,) scores of the first setting: k folds, or all folds of several repeats.
        second: (J,) scores of the second setting on the same folds.
        test_share: of all rows, how many are in a fold: 1 / k.
        level: of the interval.

    Raises:
        ValueError: unequal lengths, fewer than two scores, scores that are no numbers, a share or level outside 0 to 1,
            or differences that are all the same.
    Source:
        Nadeau & Bengio, Inference for the Generalization Error, Machine Learning 52, 2003; repeats of
        cross-validation: Bouckaert & Frank, Evaluating the Replicability of Significance Tests, 2004.
    """
    one, two = (np.asarray(scores, dtype=float) for scores in (first, second))
    if one.ndim != 1 or one.shape != two.shape or len(one) < 2:
        raise ValueError(
            f"scores of shapes {one.shape} and {two.shape} came; pass two or more each, on the same folds."
        )
    for name, share in (("test_share", test_share), ("level", level)):
        if not 0 < share < 1:
            raise ValueError(f"{name}={share} is no share between 0 and 1; of k folds a test has 1 / k of the rows.")
    differences = one - two
    if not np.isfinite(differences).all():
        raise ValueError(
            f"the scores of fold {int(np.isfinite(differences).argmin())} are no numbers; score every fold."
        )
    mean, spread = float(differences.mean()), float(differences.std(ddof=1))
    if spread <= 1e-12 * max(1.0, abs(one).max(), abs(two).max()):
        raise ValueError(
            f"the difference is {mean:g} in every fold, so nothing says how much it varies; compare settings that differ "
            "and score on more rows."
        )
    try:
        from scipy.stats import t
    except ImportError as error:
        raise _needs_scikit_learn(error) from error
    error_of_mean = math.sqrt(1 / len(one) + test_share / (1 - test_share)) * spread
    freedom = len(one) - 1
    reach = float(t.ppf((1 + level) / 2, freedom)) * error_of_mean
    return Comparison(mean, mean - reach, mean + reach, float(2 * t.sf(abs(mean) / error_of_mean, freedom)))
