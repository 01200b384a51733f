"""The same folds, scores and choices as scikit-learn's, and a paired test that keeps its word where the plain one does not."""

import builtins
import re

import numpy as np
import pytest
from scipy.stats import ttest_rel
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, StratifiedKFold, cross_val_score

from minigpt.cross_validation import Comparison, cross_validate, folds, nested, paired_comparison

X, Y = make_classification(120, n_features=12, n_informative=3, flip_y=0.2, random_state=0)
STRENGTHS = [0.001, 0.01, 0.1, 1.0, 10.0]


def fit_and_score(strength, train_rows, test_rows):
    model = LogisticRegression(C=strength).fit(X[train_rows], Y[train_rows])
    return model.score(X[test_rows], Y[test_rows])


def test_every_row_is_in_one_fold_and_folds_are_about_equal():
    sizes = np.bincount(folds(n=23, k=5))
    assert sizes.sum() == 23 and sorted(sizes) == [4, 4, 5, 5, 5]


def test_every_fold_has_about_the_share_of_every_class():
    labels = np.repeat(["rare", "common"], [15, 85])
    number = folds(labels)
    assert [int((labels[number == fold] == "rare").sum()) for fold in range(5)] == [3] * 5


@pytest.mark.parametrize("stratified", [False, True])
def test_copies_of_a_document_are_never_in_two_folds(stratified):
    rng = np.random.default_rng(0)
    groups = rng.integers(40, size=300)
    labels = rng.permutation(2 * [*range(20)])[groups] % 2  # of the document, and so of its copies
    number = folds(labels if stratified else None, groups, k=4)
    assert all(len(set(number[groups == group])) == 1 for group in set(groups.tolist()))
    if stratified:
        shares = [labels[number == fold].mean() for fold in range(4)]
        assert max(shares) - min(shares) < 0.1


def test_another_seed_gives_other_folds_and_the_same_seed_the_same():
    assert np.array_equal(folds(Y, seed=1), folds(Y, seed=1))
    assert not np.array_equal(folds(Y, seed=1), folds(Y, seed=2))
    groups = np.arange(120) // 3
    assert not np.array_equal(folds(groups=groups, seed=1), folds(groups=groups, seed=2))


def test_scores_are_those_of_cross_val_score():
    splitter = StratifiedKFold(5, shuffle=True, random_state=3)
    expected = cross_val_score(LogisticRegression(C=1.0), X, Y, cv=splitter)
    got = cross_validate(lambda train, test: fit_and_score(1.0, train, test), folds(Y, seed=3))
    assert np.allclose(got, expected)


def test_the_rows_to_score_are_not_among_those_to_fit_on_and_all_others_are():
    seen = []

    def look(train_rows, test_rows):
        assert sorted([*train_rows, *test_rows]) == list(range(10))
        seen.extend(test_rows)
        return 0.0

    assert cross_validate(look, [0, 0, 1, 1, 2, 2, 0, 1, 2, 2]).shape == (3,)
    assert sorted(seen) == list(range(10))


def test_a_nested_choice_is_that_of_a_grid_search_inside_a_cross_validation():
    inner, outer = (KFold(k, shuffle=True, random_state=0) for k in (3, 4))
    search = GridSearchCV(LogisticRegression(), {"C": STRENGTHS}, cv=inner, scoring="accuracy")
    expected, chosen = [], []
    for train_rows, test_rows in outer.split(X):
        search.fit(X[train_rows], Y[train_rows])
        expected.append(search.score(X[test_rows], Y[test_rows]))
        chosen.append(search.best_params_["C"])
    got = nested(STRENGTHS, fit_and_score, folds(n=120, k=4), lambda rows: folds(n=len(rows), k=3))
    assert np.allclose(got.scores, expected) and got.chosen == chosen


def test_a_nested_choice_never_sees_the_rows_that_it_is_scored_on():
    outer, seen = folds(n=30, k=3), []

    def look(setting, train_rows, test_rows):
        seen.append((set(outer[train_rows]), set(outer[test_rows])))
        return 0.0

    nested(["a", "b"], look, outer, lambda rows: folds(n=len(rows), k=2))
    choosing = [(fit, score) for fit, score in seen if score & fit]
    scoring = [(fit, score) for fit, score in seen if not score & fit]
    assert len(choosing) == 3 * 2 * 2 and all(len(fit | score) == 2 for fit, score in choosing)
    assert [score for _, score in scoring] == [{0}, {1}, {2}]


def test_of_pure_noise_the_best_of_many_settings_looks_good_and_the_nested_score_does_not():
    best, honest = [], []
    for repeat in range(30):
        rng = np.random.default_rng(repeat)
        labels, guesses = rng.integers(2, size=60), rng.integers(2, size=(30, 60))  # settings that guess

        def score(setting, train_rows, test_rows, labels=labels, guesses=guesses):
            return (guesses[setting, test_rows] == labels[test_rows]).mean()

        outer = folds(n=60, seed=repeat)
        best.append(max(cross_validate(lambda a, b, s=s: score(s, a, b), outer).mean() for s in range(30)))
        honest.append(nested(range(30), score, outer, lambda rows: folds(n=len(rows))).scores.mean())
    assert np.mean(best) > 0.6 and abs(np.mean(honest) - 0.5) < 0.03


def _false_alarms(repeats=400, rows=60, k=10):
    """The share of comparisons of two equally useless settings that each test calls different, at p < 0.05."""
    corrected = plain = 0
    for repeat in range(repeats):
        rng = np.random.default_rng(repeat)
        labels, features = rng.integers(2, size=rows) * 2 - 1, rng.normal(size=(2, rows, 5))

        def score(train_rows, test_rows, x, labels=labels):
            direction = labels[train_rows] @ x[train_rows]  # (5,) towards the mean of class 1
            return ((x[test_rows] @ direction > 0) == (labels[test_rows] > 0)).mean()

        parts = folds(n=rows, k=k, seed=repeat)
        one, two = (cross_validate(lambda a, b, x=x: score(a, b, x), parts) for x in features)
        corrected += paired_comparison(one, two, 1 / k).p_value < 0.05
        plain += ttest_rel(one, two).pvalue < 0.05
    return corrected / repeats, plain / repeats


def test_the_corrected_test_finds_a_difference_that_is_none_about_as_often_as_it_says_and_the_plain_one_more_often():
    corrected, plain = _false_alarms()
    assert 0.01 <= corrected <= 0.08 < plain


def test_without_a_part_to_fit_on_the_comparison_would_be_the_paired_t_test():
    one, two = np.random.default_rng(0).random((2, 10))
    expected = ttest_rel(one, two)
    got = paired_comparison(one, two, test_share=1e-12)
    low, high = expected.confidence_interval()
    assert got == pytest.approx((np.mean(one - two), low, high, expected.pvalue))


def test_the_variance_of_a_mean_over_folds_has_the_share_of_the_test_rows_added():
    one, two = np.array([0.8, 0.7, 0.9, 0.75, 0.85]), np.array([0.7, 0.7, 0.8, 0.70, 0.8])
    plain, got = paired_comparison(one, two, 1e-12), paired_comparison(one, two, 1 / 5)
    wider = np.sqrt((1 / 5 + 1 / 4) / (1 / 5))  # n_test / n_train of five folds is a fifth to four fifths
    assert got.high - got.low == pytest.approx(wider * (plain.high - plain.low))
    assert got.low < 0 < plain.low < got.difference == pytest.approx(0.06)


def test_a_comparison_and_a_choice_are_read_at_a_glance():
    assert repr(Comparison(0.06, -0.01, 0.13, 0.0812)) == "+0.060 (-0.010 to +0.130), p = 0.0812"
    found = nested([1, 2], lambda setting, train, test: setting / 4, [0, 0, 1, 1], lambda rows: [0, 1])
    assert repr(found) == "0.500 over 2 folds; settings chosen: 2, 2"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "nothing; pass labels"),
        ({"labels": [0, 1, 0], "groups": [0, 1]}, "labels 3, groups 2"),
        ({"labels": [0, 1] * 5, "n": 9}, "labels 10, n 9"),
        ({"labels": 3}, "labels 0"),
        ({"labels": [0, 1] * 5, "k": 1}, "k=1"),
        ({"n": 1}, "n 1; pass labels"),
        ({"n": 4}, "k=5 folds of 4 rows"),
        ({"labels": [0] * 9 + [1] * 3}, "k=5 folds, but 3 rows of the smallest class"),
        ({"groups": [0, 1, 2] * 4}, "k=5 folds, but 3 groups"),
    ],
)
def test_folds_that_cannot_be_are_refused_with_what_came(given, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        folds(**given)


@pytest.mark.parametrize("numbers", [[], [1, 1, 1], [[0, 1], [1, 0]], 3])
def test_one_fold_is_no_cross_validation(numbers):
    with pytest.raises(ValueError, match="two or more"):
        cross_validate(lambda train_rows, test_rows: 0.0, numbers)


def test_a_choice_needs_settings_and_a_fold_for_every_row():
    outer = folds(n=12, k=3)
    with pytest.raises(ValueError, match="no settings"):
        nested([], lambda *rows: 0.0, outer, lambda rows: folds(n=len(rows)))
    with pytest.raises(ValueError, match=r"8 rows to choose on have folds of shape \(12,\)"):
        nested([1], lambda *rows: 0.0, outer, lambda rows: outer)


@pytest.mark.parametrize(
    ("first", "second", "share", "says"),
    [
        ([0.1, 0.2], [0.1, 0.2, 0.3], 0.2, "(2,) and (3,)"),
        ([0.1], [0.2], 0.2, "two or more"),
        ([[0.1, 0.2]], [[0.2, 0.1]], 0.2, "(1, 2)"),
        ([0.1, 0.2], [0.3, 0.1], 5, "test_share=5"),
        ([0.1, 0.2], [0.3, 0.1], 0, "test_share=0"),
        ([0.1, float("nan")], [0.3, 0.1], 0.5, "fold 1"),
        ([0.7, 0.8], [0.7, 0.8], 0.5, "0 in every fold"),
        ([0.7, 0.8, 0.9], [0.6, 0.7, 0.8], 0.5, "0.1 in every fold"),
    ],
)
def test_scores_that_say_nothing_of_a_difference_are_refused(first, second, share, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        paired_comparison(first, second, share)


@pytest.mark.parametrize(
    ("package", "call"),
    [("sklearn", lambda: folds(Y)), ("scipy", lambda: paired_comparison([0.1, 0.2], [0.3, 0.1], 0.5))],
)
def test_where_scikit_learn_is_missing_it_is_said_how_to_get_it(package, call, monkeypatch):
    given = builtins.__import__

    def without(name, *rest, **more):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return given(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=rf'{package} is not installed.*pip install -e "\.\[course\]"'):
        call()


def test_a_class_that_too_few_groups_hold_is_refused_by_name():
    labels, groups = np.array([0] * 8 + [1] * 20), np.array([0] * 8 + [1, 2, 3, 4, 5] * 4)
    with pytest.raises(ValueError, match="class 0 is in 1 groups, and k=5"):
        folds(labels, groups, k=5)


@pytest.mark.parametrize("score", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused_before_it_is_chosen_or_averaged(score):
    with pytest.raises(ValueError, match="the score of fold 0 is no number"):
        cross_validate(lambda train_rows, test_rows: score, np.arange(10) % 5)
    with pytest.raises(ValueError, match="is no number"):
        nested(
            ["bad", "good"],
            lambda s, a, b: score if s == "bad" else 0.5,
            np.arange(20) % 4,
            lambda r: np.arange(len(r)) % 3,
        )
