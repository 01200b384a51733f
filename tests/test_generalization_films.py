import json

import numpy as np
import pytest
from conftest import make_model
from datasets import Dataset

from minigpt import BPETokenizer, GPTConfig
from minigpt.corpus.augment import augment
from minigpt.finetune.tasks import Parts
from minigpt.lab.experiments import finetuning_start
from minigpt.lab.experiments import generalization_films as films
from minigpt.lab.experiments.finetuning import from_hex

TEXTS = ["a good film", "a bad film", "good and warm", "bad and cold", "so good", "so bad"]
TOKENIZER = BPETokenizer.train(TEXTS, vocab_size=270)
SHAPE = GPTConfig.llama(vocab_size=TOKENIZER.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=64)
TUNING = {"model": "base", "seed": 1, "texts": 12, "updates": 2, "batch_size": 4, "learning_rate": 1e-2}


def _augment_without_synonyms(texts, kind, rate=0.1, seed=0):
    """WordNet, which synonyms come from, may not be here."""
    return augment(texts, "swap" if kind == "synonyms" else kind, rate, seed)


@pytest.fixture
def tiny(monkeypatch):
    """The experiments with a tiny model and a few texts."""
    labelled = Dataset.from_dict({"text": TEXTS * 3, "label": [1, 0] * 9})
    monkeypatch.setattr(finetuning_start, "start", lambda model: (make_model(SHAPE), TOKENIZER))
    monkeypatch.setattr(films, "start", finetuning_start.start)
    monkeypatch.setattr(films, "sentiment", lambda domain: Parts(labelled, labelled, labelled))
    monkeypatch.setattr(films, "augment", _augment_without_synonyms)
    monkeypatch.setattr(films, "replace_in_context", lambda model, tokenizer, texts, seed: list(texts))
    for cached in (films._sides, films.ways_to_count):
        cached.cache_clear()
    yield
    for cached in (films._sides, films.ways_to_count):
        cached.cache_clear()


def test_every_row_is_asked_for_once_and_knows_its_own_settings_alone():
    keys = [json.dumps(settings, sort_keys=True) for settings, _ in films.runs()]
    assert len(set(keys)) == len(keys)
    settings = [settings for settings, _ in films.runs()]
    assert not [(a, b) for a in settings for b in settings if a is not b and a.items() <= b.items()]


def test_texts_are_changed_in_the_same_training_with_the_same_number_of_updates():
    rows = [s for s, _ in films.runs() if s["experiment"] == "augmentation" and s["model"] == "base"]
    plain = {json.dumps(row | {"kind": None}, sort_keys=True) for row in rows if row["kind"] == "none"}
    assert {json.dumps(row | {"kind": None}, sort_keys=True) for row in rows} == plain


@pytest.mark.parametrize("kind", ["none", "synonyms", "contextual"])
def test_a_model_trained_on_changed_texts_is_measured_the_same_twice(kind, tiny):
    settings = TUNING | {"experiment": "augmentation", "kind": kind}
    row, again = films.augment_model(settings), films.augment_model(settings)
    assert row["test_accuracy"] == from_hex(row["test_right"], 18).mean()
    assert {**row, "seconds": 0} == {**again, "seconds": 0}


@pytest.mark.parametrize("kind", ["none", "delete"])
def test_counted_words_learn_the_words_from_every_draw(kind, tiny):
    row = films.augment_counts({"texts": 18, "kind": kind, "copies": 2, "seeds": 3})
    assert row["test_accuracies"] == [1.0] * 3


def test_copies_that_change_nothing_change_nothing_of_what_counted_words_learn(tiny, monkeypatch):
    monkeypatch.setattr(films, "altered", lambda kind, texts, seed: list(texts))
    found = [films.counted(TEXTS, [1, 0] * 3, kind).__self__[-1].coef_ for kind in ("none", "typos")]
    assert np.allclose(*found, atol=1e-2)


def test_every_fold_is_judged_by_a_model_of_its_own(tiny):
    settings = TUNING | {"experiment": "folds", "texts": 18, "k": 3}
    rows = [films.fold(settings | {"fold": number}) for number in range(3)]
    assert [row["n"] for row in rows] == [6, 6, 6]
    assert all(row["accuracy"] == from_hex(row["right"], 6).mean() for row in rows)


def test_the_score_that_a_setting_was_chosen_by_stands_beside_the_nested_one_and_the_truth(tiny, monkeypatch):
    monkeypatch.setattr(films, "STRENGTHS", (1.0, 10.0))
    labelled = Dataset.from_dict({"text": TEXTS * 8, "label": [1, 0] * 24})
    monkeypatch.setattr(films, "sentiment", lambda domain: Parts(labelled, labelled, labelled))
    row = films.choice({"experiment": "choice", "seed": 0, "texts": 24, "others": 24, "k": 3})
    assert row["tried"] == 16 and row["best"] == row["truth"] == 1.0 and row["nested"] > 0.9


def test_half_of_the_texts_are_changed_and_other_ones_in_the_next_epoch(monkeypatch):
    monkeypatch.setattr(films, "altered", lambda kind, texts, seed: [text.upper() for text in texts])
    texts = ["abc"] * 400
    first, second = (films.half_altered("typos", seed=0)(texts, epoch) for epoch in (0, 1))
    assert 150 < first.count("ABC") < 250 and first != second and texts == ["abc"] * 400
    assert films.half_altered("typos", seed=0)(texts, 0) == first
    assert films.half_altered("none", seed=0)(texts, 0) == texts


@pytest.mark.parametrize("model", ["base", "counted words", "counted letters"])
def test_a_classifier_is_measured_under_every_condition(model, tiny):
    row = films.robustness(TUNING | {"experiment": "robustness", "model": model, "kind": "typos", "tested": 6})
    found = row["conditions"]
    assert len(found) == 3 + len(films.CHANGES) + len(films.DOMAINS)
    assert found["as it is"]["n"] == 6 and found["tweet"]["n"] == 18
    assert all(0 <= condition["accuracy"] <= 1 for condition in found.values())
    if model != "base":
        assert found["lower case"] == found["as it is"] == found["upper case"]
