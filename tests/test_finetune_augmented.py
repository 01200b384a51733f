import numpy as np
import pytest
import torch
from conftest import make_model

from minigpt import BPETokenizer, GPTConfig, TrainConfig, Trainer
from minigpt.finetune import AugmentedData, Classifier, LabelledData

TEXTS = ["good", "bad film", "so very good", "so bad", "good and warm", "bad and cold", "fine"]
LABELS = [1, 0, 1, 0, 1, 0, 1]
TOKENIZER = BPETokenizer.train(TEXTS, vocab_size=270)


def _numbered(texts, epoch):
    return [f"{text} {epoch}" for text in texts]


def _shown(data, steps, batch_size=3):
    shown = []
    for step in steps:
        idx, targets = data.batch(step, batch_size)
        shown += [(TOKENIZER.decode([i for i in row if i >= 0]), y) for row, y in zip(idx.tolist(), targets.tolist())]
    return sorted(shown)


def test_an_epoch_shows_every_text_once_as_it_is_changed_for_this_epoch_and_with_its_label():
    data = AugmentedData(_numbered, TOKENIZER, TEXTS, LABELS, 2, 32)
    assert len(data) == 7 and data.steps(2, 3) == 6
    for epoch in (0, 1, 5):
        expected = sorted((f"{text} {epoch}", label) for text, label in zip(TEXTS, LABELS))
        assert _shown(data, range(3 * epoch, 3 * epoch + 3)) == expected


def test_texts_that_are_not_changed_come_as_from_labelled_data():
    plain = LabelledData(TOKENIZER, TEXTS, LABELS, 2, 32, seed=3)
    data = AugmentedData(lambda texts, epoch: texts, TOKENIZER, TEXTS, LABELS, 2, 32, seed=3)
    for step in range(7):
        assert all(map(torch.equal, data.batch(step, 3), plain.batch(step, 3)))


def test_a_step_is_the_same_whatever_was_asked_before():
    data, other = (AugmentedData(_numbered, TOKENIZER, TEXTS, LABELS, 2, 32) for _ in range(2))
    first = [data.batch(step, 2) for step in range(9)]
    for step in np.random.default_rng(0).permutation(9):
        assert all(map(torch.equal, other.batch(int(step), 2), first[step]))


def test_a_change_that_loses_a_text_is_refused_when_it_is_shown():
    data = AugmentedData(lambda texts, epoch: texts[epoch:], TOKENIZER, TEXTS, LABELS, 2, 32)
    data.batch(0, 7)
    with pytest.raises(ValueError, match="6 texts and 7 labels"):
        data.batch(1, 7)


def test_the_trainer_takes_it():
    shape = GPTConfig.llama(vocab_size=TOKENIZER.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=32)
    data = AugmentedData(_numbered, TOKENIZER, TEXTS, LABELS, 2, 32)
    settings = TrainConfig(max_steps=8, batch_size=4, learning_rate=1e-2, warmup_steps=0, eval_every=8)
    history = Trainer(Classifier(make_model(shape), 2), data, None, settings, callbacks=[]).fit()
    assert np.isfinite(history.rows[-1]["train_loss"])
