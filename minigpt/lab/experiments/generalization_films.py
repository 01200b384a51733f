"""What a classifier of film snippets makes of texts that it has not seen: rows for results/06_generalization.json.

Questions to the fine-tuned base model and to counted words beside it: does it help to change the texts where there are
few of them (`augment_model`, `augment_counts`), how far do folds and seeds lie apart (`fold`), how much too good is the
score that a setting was chosen by (`choice`), and what is left of the accuracy where texts are spelled otherwise or speak
of something else (`robustness`). Each function takes the
settings of a row and gives the row: settings and results. Rows share nothing, so that they may be measured in processes
side by side; who wants the same numbers again takes one thread.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from datasets import Dataset

from minigpt.corpus.augment import augment
from minigpt.cross_validation import cross_validate, folds, nested
from minigpt.finetune.augmented import AugmentedData
from minigpt.finetune.classifier import Classifier, predict
from minigpt.finetune.contextual import replace_in_context
from minigpt.finetune.tasks import sentiment
from minigpt.lab.experiments.finetuning import LONGEST, as_hex
from minigpt.lab.experiments.finetuning_start import Row, fresh, start, train

KINDS = ("none", "synonyms", "typos", "delete", "swap")  # and "contextual", which takes 60 ms for a text, at the end
SEEDS = (0, 1, 2)
UPDATES = {50: 60, 500: 120}  # by how many texts there are; the same with and without changes
BATCH_SIZE, LEARNING_RATE = 16, 1e-3
COPIES = 4  # of each text beside itself, for counted words
STRENGTH = 30.0  # C of the logistic regression: best of 1, 3, 10, 30, 100 with 50, 500 and 5,000 texts alike
COUNTED = {50: 20, 200: 20, 500: 10, 1000: 10, 2000: 10, 5000: 5}  # seeds by how many texts there are
FILMS, FOLDS = 1000, 5
CHOICES, OTHERS = 12, 3000  # draws of 60 films to choose a setting on, and how many others say what it is worth
STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # each with every way to count
TESTED = 600  # of the test films in each condition
CHANGES = (
    *(("typos", rate) for rate in (0.05, 0.1, 0.2, 0.4)),
    *(("synonyms", 0.2), ("delete", 0.1), ("swap", 0.2)),
)
DOMAINS = ("product", "newspaper", "tweet")
Judge = Callable[[Sequence[str]], np.ndarray]  # texts to their classes, (N,)


@cache
def _sides(domain: str = "movie") -> dict[str, Dataset]:
    return sentiment(domain)._asdict()


def _films(count: int, seed: int | None) -> tuple[list[str], np.ndarray]:
    """Texts to learn from and their labels: the first ones, or those that a seed draws."""
    train_side = _sides()["train"]
    order = np.arange(len(train_side)) if seed is None else np.random.default_rng(seed).permutation(len(train_side))
    texts, labels = train_side["text"][:], np.array(train_side["label"][:])
    return [texts[i] for i in order[:count]], labels[order[:count]]


def _test(domain: str = "movie", count: int | None = None) -> tuple[list[str], np.ndarray]:
    rows = _sides(domain)["test"]
    return rows["text"][:count], np.array(rows["label"][:count])


def altered(kind: str, texts: Sequence[str], seed: int) -> list[str]:
    """A copy of each text, a tenth of its words changed: a kind of `augment`, or contextual by the base model."""
    if kind == "contextual":
        return replace_in_context(*start("base"), list(texts), seed=seed)
    return augment(list(texts), kind, seed=seed)


def half_altered(kind: str, seed: int) -> Callable[[list[str], int], list[str]]:
    """For `AugmentedData`: in every epoch another half of the texts is changed, and anew."""

    def change(texts: list[str], epoch: int) -> list[str]:
        chosen = np.flatnonzero(np.random.default_rng((seed, epoch)).random(len(texts)) < 0.5)
        shown = list(texts)
        if kind != "none" and len(chosen):
            for i, text in zip(chosen, altered(kind, [texts[i] for i in chosen], 1000 * seed + epoch)):
                shown[i] = text
        return shown

    return change


def tuned(texts: Sequence[str], labels: Sequence[int], settings: Row) -> Judge:
    """The base model fine-tuned on these texts: `seed`, `updates`, `batch_size`, `learning_rate` and `kind` of change."""
    seed = settings["seed"]
    model, tokenizer = fresh("base", seed)
    classifier = Classifier(model, 2)
    change = half_altered(settings.get("kind", "none"), seed)
    data = AugmentedData(change, tokenizer, texts, labels, 2, LONGEST, seed)
    given = (settings[name] for name in ("updates", "batch_size", "learning_rate"))
    _, trainer = train(classifier, data, *given, seed)

    def judge(texts: Sequence[str]) -> np.ndarray:
        with trainer.autocast():
            return predict(classifier, tokenizer, texts).argmax(axis=1)

    return judge


def counted(
    texts: Sequence[str],
    labels: Sequence[int],
    kind: str = "none",
    copies: int = COPIES,
    seed: int = 0,
    by: str = "words",
) -> Judge:
    """TF-IDF of words and pairs of words, or of two to five letters, with logistic regression.

    A text and its copies together weigh as much as the text alone, in the loss and in the count of texts with a word, so
    that copies without a change would change nothing.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    grams = {"words": {"ngram_range": (1, 2)}, "letters": {"analyzer": "char_wb", "ngram_range": (2, 5)}}[by]
    copies = 0 if kind == "none" else copies
    rows = [*texts, *(text for copy in range(copies) for text in altered(kind, texts, 1000 * seed + copy))]
    model = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, smooth_idf=False, **grams),
        LogisticRegression(C=STRENGTH / (1 + copies), max_iter=1000),
    )
    return model.fit(rows, np.tile(labels, 1 + copies)).predict


def augment_model(settings: Row) -> Row:
    """The base model fine-tuned on few texts, some of them changed: accuracy on all test films, and where it was right."""
    started = time.perf_counter()
    judge = tuned(*_films(settings["texts"], settings["seed"]), settings)
    texts, labels = _test()
    right = judge(texts) == labels
    seconds = time.perf_counter() - started
    return settings | {"seconds": seconds, "test_accuracy": right.mean().item(), "test_right": as_hex(right)}


def augment_counts(settings: Row) -> Row:
    """Counted words on few texts with changed copies: accuracy on all test films for each of `seeds` draws of texts."""
    started, found = time.perf_counter(), []
    texts, labels = _test()
    for seed in range(settings["seeds"]):
        judge = counted(*_films(settings["texts"], seed), settings["kind"], settings["copies"], seed)
        found.append(round((judge(texts) == labels).mean().item(), 4))
    return settings | {"seconds": time.perf_counter() - started, "test_accuracies": found}


def fold(settings: Row) -> Row:
    """The base model fine-tuned on all folds of some films but one, and judged on that one."""
    started = time.perf_counter()
    texts, labels = _films(settings["texts"], None)
    held_out = folds(labels, k=settings["k"]) == settings["fold"]
    judge = tuned([texts[i] for i in np.flatnonzero(~held_out)], labels[~held_out], settings)
    right = judge([texts[i] for i in np.flatnonzero(held_out)]) == labels[held_out]
    seconds = time.perf_counter() - started
    return settings | {"seconds": seconds, "n": len(right), "accuracy": right.mean().item(), "right": as_hex(right)}


@cache
def ways_to_count() -> list[Any]:
    """All films to learn from as eight tables (films, words): with pairs of words or not, rare words, and common ones.

    Which words there are is known from all films, and no label: what is chosen by labels is chosen in `choice`.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = _sides()["train"]["text"][:]
    return [
        TfidfVectorizer(ngram_range=(1, n), min_df=rare, stop_words=common).fit_transform(texts)
        for n in (1, 2)
        for rare in (1, 5)
        for common in (None, "english")
    ]


def choice(settings: Row) -> Row:
    """The best score that cross-validation finds among many settings on few films, the nested one, and the truth."""
    from sklearn.linear_model import LogisticRegression

    started, tables = time.perf_counter(), ways_to_count()
    labels = np.array(_sides()["train"]["label"][:])
    order = np.random.default_rng(settings["seed"]).permutation(len(labels))
    few, others = order[: settings["texts"]], order[settings["texts"] :][: settings["others"]]
    tried = [(way, strength) for way in range(len(tables)) for strength in STRENGTHS]

    def score(setting: tuple[int, float], train_rows: np.ndarray, test_rows: np.ndarray) -> float:
        table, model = tables[setting[0]], LogisticRegression(C=setting[1], solver="liblinear")
        seen, unseen = table[train_rows], table[test_rows]
        known = np.unique(seen.indices)  # a word that none of them has gets no weight, and takes as long as any other
        return model.fit(seen[:, known], labels[train_rows]).score(unseen[:, known], labels[test_rows])

    def on_few(setting: tuple[int, float], train_rows: np.ndarray, test_rows: np.ndarray) -> float:
        return score(setting, few[train_rows], few[test_rows])

    def split(rows: np.ndarray) -> np.ndarray:
        return folds(labels[few[rows]], k=settings["k"], seed=settings["seed"])

    outer = split(np.arange(len(few)))
    means = [cross_validate(functools.partial(on_few, setting), outer).mean() for setting in tried]
    found = {
        "tried": len(tried),
        "best": float(max(means)),
        "nested": float(nested(tried, on_few, outer, split).scores.mean()),
        "truth": score(tried[int(np.argmax(means))], few, others),
    }
    return settings | {"seconds": time.perf_counter() - started} | found


def conditions(count: int = TESTED) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Name, texts and labels of each test: films as they are and spelled otherwise, and sentences of other domains."""
    films, labels = _test(count=count)
    yield "as it is", films, labels
    yield "lower case", [text.lower() for text in films], labels
    yield "upper case", [text.upper() for text in films], labels
    for kind, rate in CHANGES:
        yield f"{kind} {rate:g}", augment(films, kind, rate=rate, seed=0), labels
    for domain in DOMAINS:
        yield domain, *_test(domain)


def robustness(settings: Row) -> Row:
    """One classifier of films under all `conditions`: accuracy and number of texts of each."""
    started = time.perf_counter()
    texts, labels = _films(settings["texts"], None)
    if settings["model"] == "base":
        judge = tuned(texts, labels, settings)
    else:
        by = settings["model"].removeprefix("counted ")
        judge = counted(texts, labels, settings["kind"], copies=1, seed=settings["seed"], by=by)
    found = {
        name: {"accuracy": (judge(texts) == labels).mean().item(), "n": len(texts)}
        for name, texts, labels in conditions(settings["tested"])
    }
    return settings | {"seconds": time.perf_counter() - started, "conditions": found}


def _tuning(experiment: str, seed: int, texts: int, updates: int, **more: object) -> Row:
    about = {"experiment": experiment, "model": "base", "seed": seed, "texts": texts, "updates": updates}
    return about | {"batch_size": BATCH_SIZE, "learning_rate": LEARNING_RATE} | more


def runs() -> Iterator[tuple[Row, Callable[[Row], Row]]]:
    """Settings of every row, and what measures it, the most wanted first."""
    for kind in ("none", "typos"):
        for model in ("counted words", "counted letters"):
            about = {"experiment": "robustness", "model": model, "kind": kind, "seed": 0}
            yield about | {"texts": 2500, "tested": TESTED}, robustness
    for count, seeds in COUNTED.items():
        for kind in KINDS:
            about = {"experiment": "augmentation", "model": "counted words", "kind": kind, "texts": count}
            yield about | {"seeds": seeds, "copies": COPIES}, augment_counts
    for seed in range(CHOICES):
        about = {"experiment": "choice", "model": "counted words", "seed": seed, "texts": 60}
        yield about | {"others": OTHERS, "k": FOLDS}, choice
    for number in range(FOLDS):
        yield _tuning("folds", 0, FILMS, 100, k=FOLDS, fold=number), fold
    for seed in range(1, FOLDS):
        yield _tuning("folds", seed, FILMS, 100, k=FOLDS, fold=0), fold
    for seed in SEEDS:
        for kind in ("none", "typos"):
            yield _tuning("robustness", seed, 2500, 120, batch_size=32, kind=kind, tested=TESTED), robustness
    for count, kinds, seeds in ((500, KINDS, SEEDS), (50, KINDS[:2], SEEDS)):
        for seed in seeds:
            for kind in kinds:
                yield _tuning("augmentation", seed, count, UPDATES[count], kind=kind), augment_model
    for seed in SEEDS:
        yield _tuning("augmentation", seed, 50, UPDATES[50], kind="contextual"), augment_model
