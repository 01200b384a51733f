"""Intervals that cover, and the same numbers as scikit-learn and SciPy where they have them."""

import re

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score, precision_recall_curve, roc_auc_score

from minigpt.metrics import bootstrap_interval, calibration, distinct_n, mcnemar, mean_interval, threshold_for


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_it_says():
    rng, covered = np.random.default_rng(1), 0
    for seed in range(300):
        _, low, high = bootstrap_interval(np.mean, rng.normal(3.0, 2.0, size=40), repeats=300, seed=seed)
        covered += low <= 3.0 <= high
    assert 0.90 <= covered / 300 <= 0.99


def test_the_interval_of_a_few_values_is_scipys_and_covers_as_often_as_it_says():
    values = [4.81, 4.86, 4.79]
    theirs = ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean_interval(values) == pytest.approx((np.mean(values), theirs.low, theirs.high))
    rng = np.random.default_rng(0)
    covered = sum(low <= 3.0 <= high for _, low, high in (mean_interval(rng.normal(3, 2, size=3)) for _ in range(400)))
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("values", [[1.0], [], [1.0, np.nan], [[1.0, 2.0]], [[1.0], [2.0]]])
def test_an_interval_of_values_that_have_none_is_refused(values):
    with pytest.raises(ValueError, match="came"):
        mean_interval(values)


def test_a_lower_level_gives_a_narrower_interval_around_the_same_value():
    rows = np.random.default_rng(0).normal(size=50)
    wide, narrow = (bootstrap_interval(np.mean, rows, level=level) for level in (0.95, 0.5))
    assert wide.low < narrow.low < wide.value == narrow.value == rows.mean() < narrow.high < wide.high


def test_rows_of_all_columns_are_drawn_together():
    labels = np.arange(30)
    assert bootstrap_interval(accuracy_score, labels, labels) == (1.0, 1.0, 1.0)


def test_a_column_may_be_a_table_or_a_list_of_texts():
    table = np.random.default_rng(0).random((20, 3))
    got = bootstrap_interval(lambda table, words: table[words == "b"].mean(), table, ["a", "b"] * 10, repeats=50)
    assert got.low <= got.value == table[1::2].mean() <= got.high


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    rows = np.random.default_rng(0).normal(size=30)
    assert bootstrap_interval(np.mean, rows) == bootstrap_interval(np.mean, rows)
    assert bootstrap_interval(np.mean, rows) != bootstrap_interval(np.mean, rows, seed=1)


def _strict(labels, scores):
    if len(set(labels)) < 2:
        raise ValueError("one class only")
    return roc_auc_score(labels, scores)


@pytest.mark.parametrize("metric", [roc_auc_score, _strict], ids=["gives NaN", "raises ValueError"])
def test_draws_on_which_the_metric_is_undefined_are_left_out_in_silence(metric):
    got = bootstrap_interval(metric, [1, 0, 0, 0], [0.6, 0.1, 0.9, 0.3], repeats=200)
    assert 0 <= got.low <= got.value <= got.high <= 1


def test_an_interval_is_read_at_a_glance():
    always = bootstrap_interval(lambda rows: 0.8124, [1, 2])
    assert f"{always}" == repr(always) == "0.812 (0.812 to 0.812)"


def _bad_metric(rows):
    if len(set(rows.tolist())) < 4:
        raise ValueError("too few")
    return 1.0


@pytest.mark.parametrize(
    ("columns", "options", "says"),
    [
        ((), {}, "at least one row"),
        (([],), {}, "column 1 0"),
        (([1, 2], [1]), {}, "column 1 2, column 2 1"),
        ((3,), {}, "column 1 0"),
        (([1, 2],), {"level": 95}, "level=95"),
        (([1, 2],), {"repeats": 0}, "repeats=0"),
        (([1.0, np.nan],), {}, "NaN on the rows"),
    ],
)
def test_what_cannot_be_resampled_is_refused_with_what_came(columns, options, says):
    with pytest.raises(ValueError, match=says):
        bootstrap_interval(lambda *columns: np.mean(columns[0]), *columns, **options)


def test_a_metric_that_no_draw_defines_is_an_error():
    with pytest.raises(ValueError, match="undefined in all 3 draws"):
        bootstrap_interval(_bad_metric, [1, 2, 3, 4], repeats=3)


@pytest.mark.parametrize("rows", [1, 2, 7, 60, 3000])
def test_mcnemar_is_the_exact_binomial_test_on_the_rows_that_one_alone_has_right(rows):
    rng = np.random.default_rng(rows)
    labels, first, second = rng.integers(3, size=(3, rows))
    second = np.where(rng.random(rows) < 0.2, labels, second)
    got = mcnemar(labels, first.tolist(), second)
    assert got.only_first == sum(a == y != b for y, a, b in zip(labels, first, second))
    assert got.only_second == sum(b == y != a for y, a, b in zip(labels, first, second))
    tosses = got.only_first + got.only_second
    expected = binomtest(got.only_first, tosses).pvalue if tosses else 1.0
    assert got.p_value == pytest.approx(expected, rel=1e-9)
    assert str(got.only_first) in str(got)


def test_classifiers_that_err_alike_do_not_differ():
    assert mcnemar(["a", "b", "b"], ["a", "a", "b"], ["a", "a", "b"]) == (0, 0, 1.0)


def test_mcnemar_refuses_rows_that_do_not_belong_together():
    with pytest.raises(ValueError, match="labels 2, first 2, second 3"):
        mcnemar([0, 1], [0, 1], [0, 1, 1])


def _probabilities(rows, classes, seed=0):
    powers = np.exp(2 * np.random.default_rng(seed).normal(size=(rows, classes)))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(("classes", "bins"), [(2, 10), (4, 7), (3, 1)])
def test_calibration_gives_the_curve_of_scikit_learn(classes, bins):
    shares = _probabilities(500, classes)
    labels = np.random.default_rng(1).integers(classes, size=500)
    got = calibration(labels.tolist(), shares, bins)
    right, confident = shares.argmax(1) == labels, shares.max(1)
    accuracy, confidence = calibration_curve(right, confident, n_bins=bins)
    np.testing.assert_allclose(got.accuracy, accuracy)
    np.testing.assert_allclose(got.confidence, confidence)
    assert got.count.sum() == 500
    by_hand = sum(n * abs(a - c) for n, a, c in zip(got.count, got.accuracy, got.confidence)) / 500
    assert got.error == pytest.approx(by_hand)


def test_labels_drawn_from_the_probabilities_are_calibrated_and_sharpened_ones_are_not():
    shares = _probabilities(4000, 3)
    labels = [np.random.default_rng(row).choice(3, p=p) for row, p in enumerate(shares)]
    sharp = shares**3 / (shares**3).sum(axis=1, keepdims=True)
    honest, boastful = calibration(labels, shares), calibration(labels, sharp)
    assert honest.error < 0.03 < 0.1 < boastful.error
    assert (boastful.confidence >= boastful.accuracy)[boastful.count > 100].all()
    assert "over 4000 rows" in str(honest)


def test_full_confidence_lies_in_the_last_bin_and_an_edge_in_the_bin_below():
    got = calibration([0, 0], [[1.0, 0.0], [0.5, 0.5]], bins=2)
    assert got.confidence.tolist() == [0.5, 1.0] and got.error == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("labels", "probabilities", "bins", "says"),
    [
        ([0], [[0.9, 0.9]], 10, "row 0 of the probabilities sums to 1.8"),
        ([0, 1], [[0.5, 0.5], [1.2, -0.2]], 10, "row 1"),
        ([0], [[np.nan, 1.0]], 10, "softmax"),
        ([2], [[0.5, 0.5]], 10, "label 2 in row 0 is none of the 2 classes"),
        ([0.5], [[0.5, 0.5]], 10, "label 0.5"),
        (["a"], [[0.5, 0.5]], 10, "label a"),
        ([1], [0.5], 10, "1 - p and p"),
        ([0, 1], [[0.5, 0.5]], 10, "labels 2, probabilities 1"),
        ([], [], 10, "at least one row"),
        ([0], [[0.5, 0.5]], 0, "bins=0"),
    ],
)
def test_calibration_refuses_what_are_no_probabilities(labels, probabilities, bins, says):
    with pytest.raises(ValueError, match=says):
        calibration(labels, probabilities, bins)


def test_distinct_n_counts_over_all_texts_and_not_across_their_borders():
    texts = ["the cat saw the cat", "the dog", "so"]  # the cat, cat saw, saw the, the cat; the dog
    assert distinct_n(texts) == 4 / 5
    assert distinct_n(texts, n=1) == 5 / 8
    assert distinct_n(iter(texts), n=5) == 1.0


@pytest.mark.parametrize(
    ("texts", "n", "says"),
    [(["one", ""], 2, "none of 2 texts has 2 words"), ([], 1, "none of 0"), ("a b", 1, "list"), (["a"], 0, "n=0")],
)
def test_distinct_n_refuses_texts_without_n_grams(texts, n, says):
    with pytest.raises(ValueError, match=says):
        distinct_n(texts, n)


@pytest.mark.parametrize("digits", [1, 6])
@pytest.mark.parametrize("wanted", [0.3, 0.5, 0.75, 0.9])
def test_the_threshold_is_the_lowest_that_scikit_learns_curve_has_for_the_precision(wanted, digits):
    rng = np.random.default_rng(3)
    labels = rng.integers(2, size=400)
    scores = (labels + rng.normal(size=400)).round(digits)
    precisions, recalls, thresholds = precision_recall_curve(labels, scores)
    expected = min(t for p, t in zip(precisions, thresholds) if p >= wanted)
    got = threshold_for(labels, scores.tolist(), wanted)
    assert got == expected
    assert labels[scores >= got].mean() >= wanted


def test_scores_that_are_equal_come_in_together():
    assert threshold_for([1, 0, 1, 1], [0.9, 0.5, 0.5, 0.5], precision=0.75) == 0.5
    assert threshold_for([1, 0, 1, 1], [0.9, 0.5, 0.5, 0.5], precision=0.8) == 0.9


@pytest.mark.parametrize(
    ("labels", "scores", "precision", "says"),
    [
        ([0, 1], [0.9, 0.1], 0.9, "the best is 0.500 at 0.1"),
        ([0, 0], [0.9, 0.1], 0.1, "the best is 0.000"),
        ([0, 2], [0.9, 0.1], 0.9, "label 2 in row 1"),
        ([0, 1], [0.9, np.nan], 0.9, "score 1 is NaN"),
        ([0, 1], [0.9], 0.9, "labels 2, scores 1"),
        ([0, 1], [[0.1, 0.9], [0.5, 0.5]], 0.9, "pass (N,) for both"),
        ([], [], 0.9, "at least one row"),
        ([0, 1], [0.1, 0.9], 90, "precision=90"),
    ],
)
def test_a_precision_out_of_reach_is_an_error_that_names_the_best(labels, scores, precision, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        threshold_for(labels, scores, precision)


def test_columns_that_are_no_rows_are_not_compared_crosswise():
    with pytest.raises(ValueError, match=r"shapes \(3,\), \(3, 1\), \(3,\)"):
        mcnemar([0, 1, 1], [[0], [1], [0]], [0, 1, 1])
