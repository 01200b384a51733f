"""Answers to notebook 05's exercises about F1: right ones, and wrong ones with their mistake."""

import itertools
import math
from collections import Counter

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_curve, precision_score, recall_score


def _macro_f1(labels, predictions, n_classes):
    scores = []
    for c in range(n_classes):
        right = sum(y == p == c for y, p in zip(labels, predictions))
        wrong = sum((y == c) != (p == c) for y, p in zip(labels, predictions))
        scores.append(2 * right / (2 * right + wrong) if right else 0)
    return sum(scores) / n_classes


def _by_numpy(labels, predictions, n_classes):
    scores = np.zeros(n_classes)
    for c in range(n_classes):
        tp = np.sum((labels == c) & (predictions == c))
        both = np.sum(labels == c) + np.sum(predictions == c)
        scores[c] = 2 * tp / both if both > 0 else 0.0
    return scores.mean()


def _by_lists(labels, predictions, n_classes):
    pairs, total = list(zip(labels, predictions)), 0
    for c in range(n_classes):
        denominator = labels.count(c) + predictions.count(c)
        total += 2 * pairs.count((c, c)) / denominator if denominator else 0
    return total / n_classes


def _by_tensors(labels, predictions, n_classes):
    labels, predictions = torch.as_tensor(labels), torch.as_tensor(predictions)
    table = torch.zeros(n_classes, n_classes).index_put((labels, predictions), torch.ones(len(labels)), accumulate=True)
    f1 = 2 * table.diag() / (table.sum(0) + table.sum(1))
    return f1.nan_to_num(0).mean()


def _by_precision_and_recall(labels, predictions, n_classes):
    scores = []
    for c in range(n_classes):
        tp = sum(y == c and p == c for y, p in zip(labels, predictions))
        found, there = sum(p == c for p in predictions), sum(y == c for y in labels)
        precision, recall = tp / found if found else 0, tp / there if there else 0
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    return np.mean(scores)


def _by_scikit_learn(labels, predictions, n_classes):
    return f1_score(labels, predictions, average="macro", labels=range(n_classes), zero_division=0)


def _only_tensors(labels, predictions, n_classes):
    tp = torch.stack([((labels == c) & (predictions == c)).sum().float() for c in range(n_classes)])
    both = torch.stack([(labels == c).float().sum() + (predictions == c).float().sum() for c in range(n_classes)])
    return [(2 * tp / both.clamp(min=1)).mean().item()]


def _sklearn(score=f1_score, **options):
    """An answer by a function of scikit-learn, with the options that people forget or confuse."""

    def answer(labels, predictions, n_classes):
        return score(labels, predictions, **{"labels": range(n_classes), "zero_division": 0, **options})

    return answer


def _each(score, mean=lambda scores, rows: sum(scores) / len(scores), classes=range):
    """An answer that makes a score of each class's precision and recall."""

    def answer(labels, predictions, n_classes):
        scores = []
        for c in classes(n_classes):
            tp = sum(y == c == p for y, p in zip(labels, predictions))
            found, there = list(predictions).count(c), list(labels).count(c)
            scores.append(score(tp / found if found else 0, tp / there if there else 0))
        return mean(scores, len(labels))

    return answer


def _f1(p, r):
    return 2 * p * r / (p + r) if p + r else 0


def _of_means(labels, predictions, n_classes):
    options = {"labels": range(n_classes), "average": "macro", "zero_division": 0}
    return _f1(precision_score(labels, predictions, **options), recall_score(labels, predictions, **options))


def _micro(labels, predictions, n_classes):
    tp = fp = fn = 0
    for c in range(n_classes):
        tp += sum(y == c and p == c for y, p in zip(labels, predictions))
        fp += sum(y != c and p == c for y, p in zip(labels, predictions))
        fn += sum(y == c and p != c for y, p in zip(labels, predictions))
    return 2 * tp / (2 * tp + fp + fn)


def _without_guard(labels, predictions, n_classes):
    return sum(
        2 * sum(y == p == c for y, p in zip(labels, predictions)) / (list(labels).count(c) + list(predictions).count(c))
        for c in range(n_classes)
    )


def _nan(labels, predictions, n_classes):
    table = confusion_matrix(labels, predictions, labels=range(n_classes))
    return (2 * table.diagonal() / (table.sum(0) + table.sum(1))).mean()


def _guards_half(labels, predictions, n_classes):
    """Forgets that precision and recall may both be 0."""
    scores = []
    for c in range(n_classes):
        tp = sum(y == c and p == c for y, p in zip(labels, predictions))
        found, there = sum(p == c for p in predictions), sum(y == c for y in labels)
        if not found or not there:
            scores.append(0)
            continue
        precision, recall = tp / found, tp / there
        scores.append(2 * precision * recall / (precision + recall))
    return np.mean(scores)


def _perfect_is_one(labels, predictions, n_classes):
    """Forgets the classes that do not occur."""
    return 1.0 if list(labels) == list(predictions) else _macro_f1(labels, predictions, n_classes)


MACRO = [
    ("not_numbers", lambda labels, predictions, n_classes: str(_macro_f1(labels, predictions, n_classes))),
    ("not_numbers", lambda labels, predictions, n_classes: Counter(predictions)),
    ("one_for_each", _sklearn(average=None)),
    ("one_for_each", _each(_f1, mean=lambda scores, rows: torch.tensor(scores))),
    ("nan", _without_guard),
    ("division_by_zero", _guards_half),
    ("nan", _nan),
    ("nan", _sklearn(average="macro", zero_division=np.nan, labels=[9])),
    ("accuracy", lambda labels, predictions, n_classes: np.mean(np.equal(labels, predictions))),
    ("accuracy", _micro),
    ("accuracy", _sklearn(average="micro")),
    ("weighted", _sklearn(average="weighted")),
    ("weighted", lambda labels, predictions, n: f1_score(predictions, labels, average="weighted", zero_division=0)),
    ("f1_of_means", _of_means),
    ("macro_precision", _sklearn(precision_score, average="macro")),
    ("macro_recall", _sklearn(recall_score, average="macro")),
    ("one_class", _each(_f1, classes=lambda n: [1])),
    ("one_class", _each(_f1, classes=lambda n: [0])),
    ("without_predictions_left_out", lambda y, p, n: f1_score(y, p, labels=sorted(set(p)), average="macro")),
    ("without_examples_left_out", lambda y, p, n: f1_score(y, p, labels=sorted(set(y)), average="macro")),
    ("absent_left_out", _sklearn(average="macro", labels=None)),
    ("absent_left_out", _sklearn(average="macro", zero_division=np.nan)),
    ("zeros_left_out", _each(_f1, mean=lambda scores, rows: np.mean([s for s in scores if s]))),
    ("empty_counts_one", _sklearn(average="macro", zero_division=1)),
    ("arithmetic_mean", _each(lambda p, r: (p + r) / 2)),
    ("geometric_mean", _each(lambda p, r: math.sqrt(p * r))),
    ("product", _each(lambda p, r: p * r)),
    ("two_forgotten", _each(lambda p, r: _f1(p, r) / 2)),
    ("jaccard", _each(lambda p, r: _f1(p, r) / (2 - _f1(p, r)))),
    ("smaller_of_the_two", _each(min)),
    ("larger_of_the_two", _each(max)),
    ("not_divided", _each(_f1, mean=lambda scores, rows: sum(scores))),
    ("divided_by_rows", _each(_f1, mean=lambda scores, rows: sum(scores) / rows)),
    ("range_off", _each(_f1, classes=lambda n: range(1, n))),
    ("range_off", _each(_f1, classes=lambda n: range(1, n + 1))),
    ("range_off", _each(_f1, classes=lambda n: range(n - 1))),
    ("range_off", _each(_f1, mean=lambda scores, rows: sum(scores[1:]) / len(scores))),
    ("percent", lambda labels, predictions, n_classes: 100 * _macro_f1(labels, predictions, n_classes)),
    ("error", lambda labels, predictions, n_classes: 1 - _macro_f1(labels, predictions, n_classes)),
    ("rounded", lambda labels, predictions, n_classes: round(_macro_f1(labels, predictions, n_classes), 2)),
    ("macro_recall", _each(lambda p, r: r, classes=lambda n: range(1, n))),
    ("value", lambda labels, predictions, n_classes: 0.5),
    ("value", lambda labels, predictions, n_classes: _macro_f1(labels, predictions, n_classes) ** 2),
    ("value", _perfect_is_one),
    ("raised", lambda labels, predictions, n_classes: labels.f1(predictions)),
]


def _f1_at(labels, scores, threshold):
    found = [score >= threshold for score in scores]
    tp = sum(y and p for y, p in zip(labels, found))
    return 2 * tp / (sum(labels) + sum(found)) if tp else 0.0


def _honest_f1(val_labels, val_scores, test_labels, test_scores):
    threshold = max(val_scores, key=lambda t: (_f1_at(val_labels, val_scores, t), t))
    return threshold, _f1_at(test_labels, test_scores, threshold)


def _by_sorting(val_labels, val_scores, test_labels, test_scores):
    best, threshold = -1, None
    for t in sorted(set(val_scores)):
        f1 = _f1_at(val_labels, val_scores, t)
        if f1 >= best:
            best, threshold = f1, t
    return threshold, _f1_at(test_labels, test_scores, threshold)


def _with_scikit_learn(val_labels, val_scores, test_labels, test_scores):
    candidates = np.unique(val_scores)[::-1]
    values = [f1_score(val_labels, val_scores >= t, zero_division=0) for t in candidates]
    threshold = candidates[np.argmax(values)]
    return threshold, f1_score(test_labels, test_scores >= threshold, zero_division=0)


def _by_the_curve(val_labels, val_scores, test_labels, test_scores):
    precision, recall, thresholds = precision_recall_curve(val_labels, val_scores)
    f1 = (2 * precision * recall / np.maximum(precision + recall, 1e-12))[:-1]
    threshold = thresholds[np.flatnonzero(np.isclose(f1, f1.max()))[-1]]
    return threshold, _f1_at(test_labels, test_scores, threshold)


def _with_tensors(val_labels, val_scores, test_labels, test_scores):
    val_labels, val_scores, test_labels, test_scores = map(
        torch.as_tensor, (val_labels, val_scores, test_labels, test_scores)
    )

    def f1(labels, scores, t):
        found = scores >= t
        return (2 * (found & (labels == 1)).sum() / (found.sum() + labels.sum())).item()

    candidates = val_scores.unique().flip(0)
    values = torch.tensor([f1(val_labels, val_scores, t) for t in candidates])
    threshold = candidates[values.argmax()]
    return torch.stack([threshold, torch.tensor(f1(test_labels, test_scores, threshold))])


def _sure(tp, found, there):
    return 2 * tp / (found + there) if tp else 0.0


def _made(
    choose=lambda val, test: val,
    candidates=lambda chosen, val, test: chosen[1],
    criterion=_sure,
    report=lambda val, test: test,
    measure=_sure,
    above=lambda s, t: s >= t,
    above_test=None,
    tie=max,
    end=lambda threshold, f1, val: (threshold, f1),
):
    """An answer that goes wrong in one of its steps; measures are functions of tp, found and there, or of rows."""

    def score(measure, labels, scores, t, above):
        found = [bool(above(s, t)) for s in scores]
        counts = sum(y and p for y, p in zip(labels, found)), sum(found), sum(labels)
        return measure(*counts) if measure.__code__.co_argcount == 3 else measure(labels, found)

    def answer(*given):
        val_labels, val_scores, test_labels, test_scores = (np.asarray(row).tolist() for row in given)
        val, test = (val_labels, val_scores), (test_labels, test_scores)
        chosen = choose(val, test)
        values = {t: score(criterion, *chosen, t, above) for t in candidates(chosen, val, test)}
        threshold = tie([t for t, value in values.items() if value == max(values.values())])
        return end(threshold, score(measure, *report(val, test), threshold, above_test or above), val)

    return answer


def _pooled(val, test):
    return [*val[0], *test[0]], [*val[1], *test[1]]


def _accuracy(labels, found):
    return np.mean(np.equal(labels, found))


def _negative(labels, found):
    return f1_score(labels, found, pos_label=0, zero_division=0)


def _macro(labels, found):
    return f1_score(labels, found, average="macro", zero_division=0)


def _above(s, t):
    return s > t


def _at_least(s, t):
    return s >= t


def _argmax(val_labels, val_scores, test_labels, test_scores):
    values = [_f1_at(val_labels, val_scores, t) for t in val_scores]
    at = max(range(len(values)), key=lambda i: (values[i], val_scores[i]))
    return at, _f1_at(test_labels, test_scores, val_scores[at])


def _divides(val_labels, val_scores, test_labels, test_scores):
    """Divides by the texts found, of which there may be none."""

    def f1(labels, scores, t):
        found = [s >= t for s in scores]
        tp = sum(y and p for y, p in zip(labels, found))
        precision, recall = int(tp) / sum(map(int, found)), int(tp) / int(sum(labels))
        return 2 * precision * recall / (precision + recall) if tp else 0

    threshold = max(val_scores, key=lambda t: (f1(val_labels, val_scores, t), t))
    return threshold, f1(test_labels, test_scores, threshold)


def _needs_two_scores(val_labels, val_scores, test_labels, test_scores):
    """Fails where all scores are alike."""
    smallest_step = min(b - a for a, b in itertools.pairwise(sorted(set(val_scores))))
    threshold, _ = _honest_f1(val_labels, val_scores, test_labels, test_scores)
    return threshold, _f1_at(test_labels, test_scores, threshold - smallest_step * 1e-9)


HONEST = [
    ("not_numbers", lambda *rows: dict(zip(("threshold", "f1"), _honest_f1(*rows)))),
    ("not_a_pair", lambda *rows: _honest_f1(*rows)[1]),
    ("not_a_pair", lambda *rows: (*_honest_f1(*rows), 1.0)),
    ("not_a_pair", lambda val_labels, val_scores, *rest: [_f1_at(val_labels, val_scores, t) for t in val_scores]),
    ("nan", lambda *rows: (_honest_f1(*rows)[0], math.nan)),
    ("always_half", _made(candidates=lambda chosen, val, test: [0.5])),
    ("always_half", lambda _, __, labels, scores: (0.5, _f1_at(labels, scores, 0.5))),
    ("chosen_on_the_test_set", lambda _, __, labels, scores: _honest_f1(labels, scores, labels, scores)),
    ("chosen_on_the_test_set", _made(lambda val, test: test, lambda chosen, val, test: val[1])),
    ("validation_reported", lambda labels, scores, *_: _honest_f1(labels, scores, labels, scores)),
    ("chosen_on_both", _made(_pooled)),
    ("chosen_on_both", _made(_pooled, lambda chosen, val, test: val[1])),
    ("reported_on_both", _made(report=_pooled)),
    ("test_scores_tried", _made(candidates=lambda chosen, val, test: test[1])),
    ("accuracy_maximised", _made(criterion=_accuracy)),
    ("other_criterion", _made(criterion=lambda tp, found, there: tp / found)),
    ("other_criterion", _made(criterion=lambda tp, found, there: tp / there)),
    ("other_criterion", _made(criterion=_macro)),
    ("strictly_above", _made(above=_above)),
    ("strictly_above", _made(above_test=_above)),
    ("strictly_above", _made(above=_above, above_test=_at_least)),
    ("ties_to_the_lowest", _made(tie=min)),
    ("ties_in_order", lambda *rows: (t := max(rows[1], key=lambda t: _f1_at(*rows[:2], t)), _f1_at(*rows[2:], t))),
    ("negative_class", _made(measure=_negative)),
    ("negative_class", _made(measure=_negative, criterion=_negative)),
    ("accuracy_reported", _made(measure=_accuracy)),
    ("accuracy_reported", _made(measure=_accuracy, criterion=_accuracy)),
    ("precision_or_recall_reported", _made(measure=lambda tp, found, there: tp / found if found else 0)),
    ("precision_or_recall_reported", _made(measure=lambda tp, found, there: tp / there)),
    ("macro_reported", _made(measure=_macro)),
    ("macro_reported", _made(measure=_macro, criterion=_macro)),
    ("swapped", lambda *rows: _honest_f1(*rows)[::-1]),
    ("place_returned", _argmax),
    ("place_returned", _made(end=lambda threshold, f1, val: (sorted(set(val[1])).index(threshold), f1))),
    (
        "between_the_scores",
        _made(candidates=lambda chosen, val, test: [(a + b) / 2 for a, b in itertools.pairwise(sorted(set(val[1])))]),
    ),
    ("grid", _made(candidates=lambda chosen, val, test: [i / 100 for i in range(101)])),
    ("grid", _made(candidates=lambda chosen, val, test: [i / 10 for i in range(1, 10)])),
    ("grid", _made(candidates=lambda chosen, val, test: [i / 20 for i in range(21)])),
    ("test_scores_tried", _made(candidates=lambda chosen, val, test: test[1], tie=min)),
    ("threshold", lambda *rows: (_honest_f1(*rows)[0] + 1, _honest_f1(*rows)[1])),
    ("threshold", lambda *rows: (0.25, 0.25)),
    ("f1", lambda *rows: (_honest_f1(*rows)[0], 0.25)),
    ("nothing_found", _made(measure=lambda tp, found, there: 2 * tp / (found + there) if found else 1.0)),
    ("division_by_zero", _divides),
    ("threshold", _made(candidates=lambda chosen, val, test: sorted(set(val[1]))[1:] or val[1])),
    ("elsewhere", _needs_two_scores),
    ("raised", lambda val_labels, val_scores, test_labels, test_scores: val_scores.best(val_labels)),
]

ANSWERS = {"finetuning/macro_f1": (_macro_f1, MACRO), "finetuning/honest_f1": (_honest_f1, HONEST)}
ALSO_RIGHT = {
    "finetuning/macro_f1": [
        _by_numpy,
        _by_lists,
        _by_tensors,
        _by_precision_and_recall,
        _by_scikit_learn,
        _only_tensors,
        _each(_f1),
    ],
    "finetuning/honest_f1": [_by_sorting, _with_scikit_learn, _by_the_curve, _with_tensors, _made()],
}
