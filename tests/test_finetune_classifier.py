import json

import numpy as np
import pytest
import torch
from conftest import FAMILIES, make_model

from minigpt import CharTokenizer, GPTConfig, TrainConfig, Trainer, save_checkpoint
from minigpt.finetune import (
    Classifier,
    LabelledData,
    add_lora,
    freeze,
    load_classifier,
    predict,
    save_classifier,
    trainable_parameters,
)
from minigpt.interop import to_hf_config, to_hf_weights

WORDS = ["good", "bad", "good good", "bad bad bad", "a bad one", "one good"]
LABELS = [1, 0, 1, 0, 0, 1]
TOKENIZER = CharTokenizer.train(["abdegno "])


def _classifier(pooling="last", n_classes=3, **changes):
    torch.manual_seed(1)
    return Classifier(make_model(FAMILIES["llama-grouped"].replace(**changes)), n_classes, pooling).eval()


def _idx(rows, padding=-1):
    width = max(map(len, rows))
    return torch.tensor([row + [padding] * (width - len(row)) for row in rows])


ROWS = [[3, 4, 5, 6, 7], [9, 8], [1]]


@pytest.mark.parametrize("family", ["gpt2", "llama", "llama-grouped", "qwen3"])
def test_transformers_gives_the_same_logits_from_the_same_weights(family):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model = make_model(FAMILIES[family])
    ours = Classifier(model, 3).eval()
    fields = to_hf_config(model.config)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields, num_labels=3, pad_token_id=30)
    theirs = AutoModelForSequenceClassification.from_config(config).eval()
    weights = {n: t for n, t in to_hf_weights(model.config, model.state_dict()).items() if n != "lm_head.weight"}
    problems = theirs.load_state_dict(weights | {"score.weight": ours.score.weight.data}, strict=False)
    assert not problems.missing_keys and not problems.unexpected_keys
    idx = _idx(ROWS, padding=30)
    expected = theirs(idx, attention_mask=(idx != 30).long()).logits
    torch.testing.assert_close(ours(_idx(ROWS))[0], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_filling_changes_nothing(pooling):
    classifier = _classifier(pooling)
    together = classifier(_idx(ROWS))[0]
    alone = torch.cat([classifier(torch.tensor([row]))[0] for row in ROWS])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_the_mean_is_over_all_tokens_of_a_text_and_the_last_is_one_of_them():
    mean, last = _classifier("mean"), _classifier("last")
    hidden = mean.gpt.hidden(torch.tensor([ROWS[0]]))
    torch.testing.assert_close(mean.features(torch.tensor([ROWS[0]])), hidden.mean(dim=1))
    torch.testing.assert_close(last.features(torch.tensor([ROWS[0]])), hidden[:, -1])


def test_a_body_in_half_precision_has_its_classes_in_full():
    classifier = Classifier(make_model(FAMILIES["llama"]).bfloat16(), 2).eval()
    logits, loss = classifier(_idx(ROWS), torch.tensor([0, 1, 0]))
    assert logits.dtype == loss.dtype == torch.float32 and classifier.score.weight.dtype == torch.float32


@pytest.mark.parametrize(("idx", "words"), [([[31]], "token id 31 lies outside"), ([[1] * 9], "9 tokens do not fit")])
def test_ids_that_the_body_cannot_take_are_named(idx, words):
    with pytest.raises(ValueError, match=words):
        _classifier()(torch.tensor(idx))


def test_it_learns_to_tell_classes_apart():
    torch.manual_seed(0)
    config = GPTConfig.llama(vocab_size=TOKENIZER.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=16)
    classifier = Classifier(make_model(config), 2)
    data = LabelledData(TOKENIZER, WORDS * 4, LABELS * 4, 2, 16)
    before = predict(classifier, TOKENIZER, WORDS)
    settings = TrainConfig(max_steps=data.steps(20, 8), batch_size=8, learning_rate=1e-2, precision="fp32")
    history = Trainer(classifier, data, data, settings, callbacks=[]).fit()
    probabilities = predict(classifier, TOKENIZER, WORDS, batch_size=4)
    assert before.shape == (6, 2) and not np.allclose(before, probabilities)
    assert (probabilities.argmax(axis=1) == LABELS).all()
    assert history.last("val_loss") == pytest.approx(-np.log(probabilities[range(6), LABELS]).mean(), abs=1e-4)


def test_an_epoch_shows_every_text_once_and_the_next_one_in_another_order():
    texts = ["a" * n for n in range(1, 14)]
    data = LabelledData(TOKENIZER, texts, [n % 2 for n in range(13)], 2, 16, seed=3)
    epochs = []
    for first in (0, data.steps(1, 4)):
        batches = [data.batch(step, 4) for step in range(first, first + 4)]
        lengths = [int(n) for idx, _ in batches for n in (idx >= 0).sum(dim=1)]
        labels = [int(label) for _, targets in batches for label in targets]
        assert labels == [(n - 1) % 2 for n in lengths]
        epochs.append(lengths)
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(1, 14)) and epochs[0] != epochs[1]
    again = LabelledData(TOKENIZER, texts, [n % 2 for n in range(13)], 2, 16, seed=3)
    assert torch.equal(again.batch(6, 4)[0], data.batch(6, 4)[0])


def test_a_few_batches_to_evaluate_on_are_spread_over_the_lengths():
    data = LabelledData(TOKENIZER, ["a" * n for n in range(1, 14)], [n % 2 for n in range(13)], 2, 16)
    assert sum(len(targets) for _, targets in data.windows(4)) == 13
    longest = [int((idx >= 0).sum(dim=1).max()) for idx, _ in data.windows(2, max_batches=2)]
    assert longest == [5, 13] and {idx.size(1) for idx, _ in data.windows(2)} == {16}


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        (WORDS[:2], [1], "2 texts and 1 labels"),
        ([], [], "0 texts"),
        (WORDS[:3], [0, 1, 2], "label 2 is outside the 2 classes"),
        (WORDS[:3], [0, 1, -1], "label -1 is outside"),
        (WORDS[:3], [0, 1, 0.5], "label 0.5 is outside"),
        (WORDS[:3], [0, 1, None], "label None is outside"),
        (WORDS[:3], torch.tensor([0, 5, 1]), "label 5 is outside"),
        (WORDS[:2], [True, False], "label True is outside"),
        (WORDS[:2], [[0], [1]], r"label \[0\] is outside"),
        (WORDS[:2], ["good", "bad"], "label 'good' is outside"),
        ("good", [0, 1, 0, 1], "texts is one str"),
        (WORDS[:3], [1, 1, 1], "class 0 of 2 has no example"),
        (["good", ""], [0, 1], "text 1 is empty"),
    ],
)
def test_labels_and_texts_that_cannot_work_are_named(texts, labels, words):
    with pytest.raises(ValueError, match=words):
        LabelledData(TOKENIZER, texts, labels, 2, 16)


def test_a_text_longer_than_the_context_loses_its_end_and_that_is_said():
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 8 tokens, and their ends are cut off"):
        data = LabelledData(TOKENIZER, ["a" * 5 + "b" * 9, "a"], [0, 1], 2, 8)
    assert TOKENIZER.decode(data.rows[0]) == "aaaaabbb"


@pytest.mark.parametrize(("options", "words"), [({"n_classes": 1}, "n_classes=1"), ({"pooling": "max"}, "'max'")])
def test_a_classifier_that_cannot_work_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        _classifier(**options)


def test_frozen_weights_stand_still_and_the_rest_moves():
    classifier = _classifier(n_classes=2, vocab_size=TOKENIZER.vocab_size)
    freeze(classifier)
    assert trainable_parameters(classifier)[0] == classifier.score.weight.numel()
    before = {name: p.clone() for name, p in classifier.named_parameters()}
    data = LabelledData(TOKENIZER, ["good", "bad"], [1, 0], 2, 8)
    Trainer(classifier, data, None, TrainConfig(max_steps=3, batch_size=2, learning_rate=1e-2), callbacks=[]).fit()
    moved = {name for name, p in classifier.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"score.weight"}


def test_freezing_the_first_blocks_leaves_the_others_free():
    model = make_model(FAMILIES["gpt2"])
    freeze(model, 1)
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert free and all(name.startswith(("blocks.1.", "norm.")) for name in free)
    with pytest.raises(ValueError, match="layers=3 of a model with 2"):
        freeze(model, 3)


@pytest.mark.parametrize("family", ["gpt2", "llama-grouped", "qwen3"])
def test_a_saved_classifier_opens_in_transformers_and_here(family, tmp_path):
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(2)
    ours = Classifier(make_model(FAMILIES[family]), 3).eval()
    save_classifier(tmp_path, ours, TOKENIZER, ["bad", "so so", "good"], {"accuracy": 0.5})
    back, tokenizer, classes = load_classifier(tmp_path)
    assert torch.equal(back(_idx(ROWS))[0], ours(_idx(ROWS))[0])
    assert classes == ["bad", "so so", "good"] and tokenizer.encode("good") == TOKENIZER.encode("good")
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label[2] == "good"
    idx = torch.tensor([ROWS[0]])
    torch.testing.assert_close(theirs(idx).logits, ours(idx)[0], atol=1e-5, rtol=1e-5)


def test_a_mean_is_kept_and_no_class_of_transformers_is_named(tmp_path):
    from transformers import AutoConfig

    classifier = _classifier("mean")
    save_classifier(tmp_path, classifier, TOKENIZER, ["a", "b", "c"])
    assert torch.equal(load_classifier(tmp_path)[0](_idx(ROWS))[0], classifier(_idx(ROWS))[0])
    with pytest.raises(ValueError, match="model_type"):
        AutoConfig.from_pretrained(tmp_path)


def test_what_is_no_classifier_is_refused(tmp_path):
    with pytest.raises(ValueError, match="2 names for 3 classes"):
        save_classifier(tmp_path, _classifier(), TOKENIZER, ["a", "b"])
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load_classifier(tmp_path)
    save_checkpoint(tmp_path, _classifier().gpt, TOKENIZER)
    with pytest.raises(ValueError, match=r"no classifier of ours"):
        load_classifier(tmp_path)
    save_classifier(tmp_path, _classifier(), TOKENIZER, ["a", "b", "c"])
    whole = json.loads((tmp_path / "config.json").read_text())
    for damage in ({"id2label": {"0": "a", "1": "b"}}, {"id2label": ["a", "b", "c"]}, {"minigpt": "llama"}):
        (tmp_path / "config.json").write_text(json.dumps(whole | damage))
        with pytest.raises(ValueError, match="do not belong together"):
            load_classifier(tmp_path)
    with pytest.raises(ValueError, match="1 names for 3 classes"):
        save_classifier(tmp_path, _classifier(), TOKENIZER, ["a", "a", "a"])
    adapted = _classifier()
    add_lora(adapted, rank=1)
    with pytest.raises(ValueError, match=r"has adapters: merge_lora\(classifier\) first"):
        save_classifier(tmp_path, adapted, TOKENIZER, ["a", "b", "c"])
    (tmp_path / "model.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="damaged or half-written"):
        load_classifier(tmp_path)
