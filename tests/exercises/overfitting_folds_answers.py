"""Answers to notebook 06's exercises about folds: right ones, and wrong ones with their mistake."""

import random

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline


def _assign_folds(groups, k):
    fold = {group: i % k for i, group in enumerate(sorted(set(groups)))}
    return [fold[group] for group in groups]


def _by_group_k_fold(groups, k):
    folds = np.empty(len(groups), dtype=int)
    for fold, (_, held_out) in enumerate(GroupKFold(k).split(groups, groups=groups)):
        folds[held_out] = fold
    return folds


def _by_shuffled_group_k_fold(groups, k):
    folds = [0] * len(groups)
    for fold, (_, held_out) in enumerate(GroupKFold(k, shuffle=True, random_state=1).split(groups, None, groups)):
        for row in held_out:
            folds[row] = fold
    return folds


def _by_unique(groups, k):
    _, number = np.unique(groups, return_inverse=True)
    return number % k


def _by_blocks_of_groups(groups, k):
    """Neighbouring groups in one fold, which is as good."""
    names, number = np.unique(np.asarray(groups), return_inverse=True)
    return number * k // len(names)


def _shuffled_with_torch(groups, k):
    names, number = torch.as_tensor(groups).unique(return_inverse=True)
    return torch.randperm(len(names), generator=torch.Generator().manual_seed(3))[number] % k


def _in_order_of_appearance(groups, k):
    fold = {}
    for group in groups:
        fold.setdefault(int(group), len(fold) % k)
    return torch.tensor([fold[int(group)] for group in groups])


def _by_array_split(groups, k):
    names = list(dict.fromkeys(np.asarray(groups).tolist()))
    random.Random(0).shuffle(names)
    parts = np.array_split(names, k)
    return np.array([next(f for f, part in enumerate(parts) if group in part) for group in groups])


def _splits(groups, k, splitter, y=None):
    folds = np.zeros(len(groups), dtype=int)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(groups)), y)):
        folds[held_out] = fold
    return folds


def _firsts_alone(rest):
    def answer(groups, k):
        folds = np.full(len(groups), rest)
        _, first = np.unique(groups, return_index=True)
        folds[first] = np.arange(len(first)) % k
        return folds

    return answer


def _by_changes(groups, k):
    """Takes each change from one row to the next for a new group."""
    return np.cumsum(np.append(0, np.diff(np.asarray(groups)) != 0)) % k


def _by_ranks(deal):
    def answer(groups, k):
        names = sorted(set(np.asarray(groups).tolist()))
        folds = {group: deal(i, len(names), k) for i, group in enumerate(names)}
        return [folds[int(group)] for group in groups]

    return answer


def _by_chance(groups, k):
    draw = random.Random(1)
    fold = {group: draw.randrange(k) for group in sorted(set(np.asarray(groups).tolist()))}
    return [fold[int(group)] for group in groups]


def _needs_copies(groups, k):
    sizes = np.unique(np.asarray(groups), return_counts=True)[1]
    return _by_unique(groups, k) // min(1, *(sizes - 1))


def _needs_many(groups, k):
    assert len(groups) > 10
    return _by_unique(groups, k)


COPIES = [
    ("not_numbers", lambda groups, k: dict(zip(groups, _assign_folds(groups, k)))),
    ("one_number", lambda groups, k: len(set(groups)) // k),
    ("one_for_each_group", lambda groups, k: np.arange(len(np.unique(groups))) % k),
    ("length", lambda groups, k: _by_unique(groups, k)[1:]),
    ("length", lambda groups, k: list(range(k))),
    ("pairs", lambda groups, k: list(GroupKFold(k).split(groups, groups=groups))),
    ("pairs", lambda groups, k: GroupKFold(k).split(groups, groups=groups)),
    ("table", lambda groups, k: np.eye(k, dtype=int)[_by_unique(groups, k)]),
    ("table", lambda groups, k: list(zip(groups, _by_unique(groups, k)))),
    ("members_listed", lambda groups, k: [np.flatnonzero(_by_unique(groups, k) == fold) for fold in range(k)]),
    ("members_listed", lambda groups, k: [sorted(set(groups))[fold::k] for fold in range(k)]),
    ("not_whole", lambda groups, k: _by_unique(groups, k) / k),
    ("not_whole", lambda groups, k: _by_unique(groups, k) * np.nan),
    ("groups_returned", lambda groups, k: groups),
    ("groups_returned", lambda groups, k: np.unique(groups, return_inverse=True)[1]),
    ("copies_left_over", _firsts_alone(-1)),
    ("copies_left_over", _firsts_alone(0)),
    ("counted_from_one", lambda groups, k: _by_unique(groups, k) + 1),
    ("range", _by_ranks(lambda i, G, k: i // (G // k))),
    ("range", lambda groups, k: _by_unique(groups, k + 1)),
    ("rows_dealt", lambda groups, k: np.arange(len(groups)) % k),
    ("row_blocks", lambda groups, k: _splits(groups, k, KFold(k))),
    ("row_blocks", lambda groups, k: np.arange(len(groups)) * k // len(groups)),
    ("spread_evenly", lambda groups, k: _splits(groups, k, StratifiedKFold(k), groups)),
    ("copies_apart", lambda groups, k: _splits(groups, k, KFold(k, shuffle=True, random_state=0))),
    ("copies_apart", lambda groups, k: np.random.default_rng(0).integers(k, size=len(groups))),
    ("only_side_by_side", _by_changes),
    ("only_side_by_side", lambda groups, k: np.arange(len(groups)) // 4 % k),
    ("remainders", lambda groups, k: np.asarray(groups) % k),
    ("empty_fold", lambda groups, k: _by_unique(groups, k - 1)),
    ("empty_fold", lambda groups, k: [0] * len(groups)),
    ("rest_in_last", _by_ranks(lambda i, G, k: min(i // max(2, G // k - 1), k - 1))),
    ("uneven", _by_chance),
    ("uneven", _by_ranks(lambda i, G, k: 0 if i < G - k + 1 else i - (G - k))),
    ("elsewhere", _needs_many),
    ("raised", lambda groups, k: groups.folds(k)),
]


def _fold_scores(texts, labels, folds, make_vectorizer, make_classifier):
    scores = []
    for fold in range(max(folds) + 1):
        held_out = folds == fold
        vectorizer, classifier = make_vectorizer(), make_classifier()
        classifier.fit(vectorizer.fit_transform(texts[~held_out]), labels[~held_out])
        predictions = classifier.predict(vectorizer.transform(texts[held_out]))
        scores.append((predictions == labels[held_out]).mean())
    return scores


def _with_lists(texts, labels, folds, make_vectorizer, make_classifier):
    scores = []
    for fold in sorted(set(folds)):
        learn = [(text, label) for text, label, f in zip(texts, labels, folds) if f != fold]
        judge = [(text, label) for text, label, f in zip(texts, labels, folds) if f == fold]
        vectorizer = make_vectorizer().fit([text for text, _ in learn])
        classifier = make_classifier().fit(vectorizer.transform([t for t, _ in learn]), [y for _, y in learn])
        guesses = classifier.predict(vectorizer.transform([text for text, _ in judge])).tolist()
        scores.append(sum(guess == y for guess, (_, y) in zip(guesses, judge)) / len(judge))
    return scores


def _with_pipeline(texts, labels, folds, make_vectorizer, make_classifier):
    pipeline = make_pipeline(make_vectorizer(), make_classifier())
    return cross_val_score(pipeline, texts, labels, cv=PredefinedSplit(folds))


def _with_one_pair(texts, labels, folds, make_vectorizer, make_classifier):
    """The same two objects each time: fit forgets what was before."""
    vectorizer, classifier, scores = make_vectorizer(), make_classifier(), []
    for fold in np.unique(folds):
        rest, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        classifier.fit(vectorizer.fit_transform(texts[rest]).toarray(), labels[rest])
        scores.append(classifier.score(vectorizer.transform(texts[held_out]).toarray(), labels[held_out]))
    return torch.tensor(scores)


def _made(
    train=lambda folds, f: folds != f,
    test=lambda folds, f: folds == f,
    which=lambda folds: np.unique(folds),
    score=lambda guesses, labels: (guesses == labels).mean(),
    words=lambda folds, f: folds != f,
    end=lambda scores: scores,
):
    """An answer that goes wrong in one of its steps."""

    def answer(texts, labels, folds, make_vectorizer, make_classifier):
        texts, labels, folds = map(np.asarray, (texts, labels, folds))
        scores = []
        for f in which(folds):
            vectorizer = make_vectorizer().fit(texts[words(folds, f)])
            learn, judge = train(folds, f), test(folds, f)
            classifier = make_classifier().fit(vectorizer.transform(texts[learn]), labels[learn])
            scores.append(score(classifier.predict(vectorizer.transform(texts[judge])), labels[judge]))
        return end(scores)

    return answer


def _trains(train):
    """Vectorizer and classifier on the same wrong rows."""
    return {"train": train, "words": train}


def _all(folds, *_):
    return folds >= 0


def _vectorized_first(texts, labels, folds, make_vectorizer, make_classifier):
    X = make_vectorizer().fit_transform(texts)
    return [
        make_classifier().fit(X[folds != f], labels[folds != f]).score(X[folds == f], labels[folds == f])
        for f in np.unique(folds)
    ]


def _vectorized_first_then_scored(texts, labels, folds, make_vectorizer, make_classifier):
    return cross_val_score(make_classifier(), make_vectorizer().fit_transform(texts), labels, cv=PredefinedSplit(folds))


def _fitted_again(texts, labels, folds, make_vectorizer, make_classifier):
    scores = []
    for f in np.unique(folds):
        vectorizer, classifier = make_vectorizer(), make_classifier()
        classifier.fit(vectorizer.fit_transform(texts[folds != f]), labels[folds != f])
        scores.append(classifier.score(vectorizer.fit_transform(texts[folds == f]), labels[folds == f]))
    return scores


def _first_vectorizer(texts, labels, folds, make_vectorizer, make_classifier):
    vectorizer = make_vectorizer().fit(texts[folds != 0])
    scores = []
    for f in np.unique(folds):
        classifier = make_classifier().fit(vectorizer.transform(texts[folds != f]), labels[folds != f])
        scores.append(classifier.score(vectorizer.transform(texts[folds == f]), labels[folds == f]))
    return scores


def _fitted_once(texts, labels, folds, make_vectorizer, make_classifier):
    pipeline = make_pipeline(make_vectorizer(), make_classifier()).fit(texts[folds != 0], labels[folds != 0])
    return [pipeline.score(texts[folds == f], labels[folds == f]) for f in np.unique(folds)]


def _own_objects(texts, labels, folds, make_vectorizer, make_classifier):
    return _fold_scores(texts, labels, folds, CountVectorizer, MultinomialNB)


def _own_folds(texts, labels, folds, make_vectorizer, make_classifier):
    return cross_val_score(make_pipeline(make_vectorizer(), make_classifier()), texts, labels, cv=max(folds) + 1)


def _return_in_the_loop(*given):
    return _fold_scores(*given)[:1]


SCORES = [
    ("not_numbers", lambda *given: dict(enumerate(_fold_scores(*given)))),
    ("trained_on_all", _made(**_trains(_all))),
    ("trained_on_all", _made(train=_all)),
    ("vectorizer_saw_all", _made(words=_all)),
    ("vectorizer_saw_all", _vectorized_first),
    ("vectorizer_saw_all", _vectorized_first_then_scored),
    ("vectorizer_once", _first_vectorizer),
    ("fitted_again", _fitted_again),
    ("makers_unused", _own_objects),
    ("makers_unused", lambda texts, labels, folds, *_: [0.5] * (max(folds) + 1)),
    ("one_number", _made(end=np.mean)),
    ("one_number", lambda *given: np.mean(_fold_scores(*given))),
    ("not_a_row", _made(score=lambda guesses, labels: guesses == labels)),
    ("not_a_row", lambda *given: list(enumerate(_fold_scores(*given)))),
    (
        "one_for_each_text",
        lambda texts, labels, folds, *make: np.take(_fold_scores(texts, labels, folds, *make), folds),
    ),
    ("one_more", _made(end=lambda scores: [*scores, np.mean(scores)])),
    ("first_only", _return_in_the_loop),
    ("length", _made(end=lambda scores: scores[1:])),
    ("length", _made(which=lambda folds: range(max(folds)))),
    ("scored_on_training", _made(test=lambda folds, f: folds != f)),
    ("scored_on_all", _made(test=_all)),
    ("swapped", _made(**_trains(lambda folds, f: folds == f), test=lambda folds, f: folds != f)),
    ("same_fold", _made(test=lambda folds, f: folds == 0)),
    ("same_fold", _made(test=lambda folds, f: folds == max(folds))),
    ("trained_once", _fitted_once),
    ("one_other_fold", _made(**_trains(lambda folds, f: folds == (f + 1) % (max(folds) + 1)))),
    ("earlier_folds", _made(**_trains(lambda folds, f: folds < f if f else folds > f))),
    ("order", _made(end=lambda scores: scores[::-1])),
    ("order", _made(which=lambda folds: list(dict.fromkeys(folds.tolist())))),
    ("order", _made(end=sorted)),
    ("errors", _made(end=lambda scores: 1 - np.array(scores))),
    ("counts", _made(score=lambda guesses, labels: (guesses == labels).sum())),
    ("percent", _made(end=lambda scores: 100 * np.array(scores))),
    ("scored_on_training", _made(test=lambda folds, f: folds != f, end=lambda scores: 100 * np.array(scores))),
    (
        "own_folds",
        lambda texts, labels, folds, *make: (
            _with_pipeline(texts, labels, np.arange(len(texts)) % 3, *make)
            if max(folds) == 2
            else _with_pipeline(texts, labels, folds, *make)
        ),
    ),
    ("own_folds", _own_folds),
    ("value", _made(score=lambda guesses, labels: guesses.mean())),
    ("raised", lambda texts, labels, folds, *make: texts.scores(labels)),
]

ANSWERS = {
    "overfitting/folds_with_copies": (_assign_folds, COPIES),
    "overfitting/cross_validate": (_fold_scores, SCORES),
}
ALSO_RIGHT = {
    "overfitting/folds_with_copies": [
        _by_group_k_fold,
        _by_shuffled_group_k_fold,
        _by_unique,
        _by_blocks_of_groups,
        _shuffled_with_torch,
        _in_order_of_appearance,
        _by_array_split,
    ],
    "overfitting/cross_validate": [_with_lists, _with_pipeline, _with_one_pair, _made()],
}
