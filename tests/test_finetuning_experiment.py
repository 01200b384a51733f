import json

import numpy as np
import pytest
import torch
from conftest import make_model
from datasets import Dataset

from minigpt import BPETokenizer, GPTConfig
from minigpt.finetune import add_chat_tokens
from minigpt.finetune.tasks import Parts
from minigpt.lab.experiments import finetuning, finetuning_start, finetuning_writing

TEXTS = ["a good film", "a bad film", "good and warm", "bad and cold", "so good", "so bad"]
CODE = "def add(a, b):\n    total = a\n    for x in b:\n        total += x\n    return total\n"
TOKENIZER = BPETokenizer.train([*TEXTS, CODE, "A: hello\nB: fine, and you?\n"], vocab_size=300)
SHAPE = GPTConfig.llama(vocab_size=TOKENIZER.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=256)
TALK = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine, and you?"}]


def _talks(count):
    return Dataset.from_list([{"messages": TALK, "source": s} for s in ("chitchat", "trivia")] * count)


@pytest.fixture
def tiny(monkeypatch):
    """The experiments with a tiny model, and a few texts for each job."""
    labelled = Dataset.from_dict({"text": TEXTS * 3, "label": [1, 0] * 9})
    modules = Dataset.from_dict({"text": [CODE] * 20, "module": [f"m{i}" for i in range(20)]})
    monkeypatch.setattr(finetuning_start, "start", lambda model: (make_model(SHAPE), TOKENIZER))
    monkeypatch.setattr(finetuning_start, "unread", lambda name: [CODE * 20])
    finetuning_start._old.cache_clear()
    monkeypatch.setattr(finetuning, "sentiment", lambda: Parts(labelled, labelled, labelled))
    monkeypatch.setattr(finetuning_writing, "dialogue", lambda: Parts(_talks(20), _talks(8), _talks(8)))
    monkeypatch.setattr(finetuning_writing, "code", lambda: Parts(modules, modules, modules))
    yield
    finetuning_start._old.cache_clear()


def test_every_row_is_asked_for_once_and_all_but_words_over_three_seeds_where_it_is_claimed():
    settings = [run[0] for run in finetuning.runs()]
    keys = [json.dumps(row, sort_keys=True) for row in settings]
    assert len(set(keys)) == len(keys)
    claimed = [r for r in settings if r["experiment"] == "sentiment" and r["model"] == "base"]
    for method in ("full", "scratch", "lora"):
        assert {row["seed"] for row in claimed if row["method"] == method} == {0, 1, 2}


def test_which_texts_were_right_survives_as_a_short_string():
    right = np.random.default_rng(0).random(1_511) < 0.8
    assert np.array_equal(finetuning.from_hex(finetuning.as_hex(right), 1_511), right)


@pytest.mark.parametrize("method", ["scratch", "full", "frozen", "lora"])
def test_a_classifier_is_measured_as_its_predictions_say(method, tiny):
    settings = {"experiment": "sentiment", "model": "base", "method": method, "seed": 1, "texts": 12, "epochs": 1}
    row = finetuning.classify(settings | {"batch_size": 4, "learning_rate": 1e-2, "rank": 1})
    right = finetuning.from_hex(row["test_right"], 18)
    assert row["test_accuracy"] == right.mean() and row["updates"] == 3
    counts = {"scratch": make_model(SHAPE).num_parameters() + 32, "frozen": 32}
    assert row["trained"] == counts.get(method, row["trained"])
    assert ("old_losses" in row) == (method in ("full", "lora"))


def test_counted_words_learn_the_words(tiny):
    assert finetuning.count_words({"experiment": "sentiment"})["test_accuracy"] == 1.0


def test_the_loss_of_answers_in_the_old_form_counts_the_lines_of_b_alone():
    model = make_model(SHAPE)
    found = finetuning_writing.plain_loss(model, TOKENIZER, [TALK])
    head = TOKENIZER.encode("A: hello\n") + TOKENIZER.encode("B:")
    said = TOKENIZER.encode(" fine, and you?\n")
    idx = torch.tensor([[TOKENIZER.eos_id, *head, *said]])
    with torch.no_grad():
        logits = model(idx[:, :-1])[0].log_softmax(dim=-1)
    expected = -logits[0, -len(said) :].gather(1, idx[0, -len(said) :, None]).mean().item()
    assert found == {"loss": pytest.approx(expected, abs=1e-4), "tokens": len(said)}


def test_dialogue_is_measured_before_and_after(tiny, monkeypatch):
    monkeypatch.setattr(finetuning_writing, "ASKED", 12)
    row = finetuning_writing.converse({"experiment": "dialogue", "model": "base", "seed": 0, "updates": 60})
    assert row["after"]["chitchat"]["loss"] < row["before"]["chitchat"]["loss"]
    assert 0 <= row["after"]["stopped"] <= 1 and 0 < row["after"]["distinct_2"] <= 1
    assert row["after"]["chitchat"]["bytes"] == 8 * len("fine, and you?")
    assert set(row["old_after"]) == set(finetuning_start.OLD_TEXTS)


def test_an_answer_stops_by_itself_where_its_end_was_written(monkeypatch):
    _, tokenizer = add_chat_tokens(make_model(SHAPE), TOKENIZER)
    end, said = tokenizer.special_tokens["<|im_end|>"], tokenizer.encode("fine, and you?")

    def written(model, prompts, **options):
        assert options["stop_tokens"] == (end,)
        return [[*prompt, *said, *([end] if number % 4 else [])] for number, prompt in enumerate(prompts)]

    monkeypatch.setattr(finetuning_writing, "generate", written)
    found = finetuning_writing.sampled_answers(None, tokenizer, [TALK[:1]] * 16)
    assert found["stopped"] == 0.75 and found["distinct_1"] == round(3 / 48, 4)
    assert found["examples"][0] == {"user": "hello", "assistant": "fine, and you?"}


def test_code_is_measured_before_and_after(tiny):
    row = finetuning_writing.program({"experiment": "code", "model": "base", "method": "lora", "seed": 0, "updates": 2})
    assert row["before"]["functions"] == 20 and 0 <= row["after"]["parses"] <= 1
    assert {"name", "given", "written"} == set(row["after"]["examples"][0])


def test_rows_that_are_there_are_not_measured_again(tiny, tmp_path, monkeypatch):
    asked = []
    runs = [({"experiment": "code", "seed": seed}, lambda row: asked.append(row) or row | {"x": 1}) for seed in (0, 1)]
    monkeypatch.setattr(finetuning, "runs", lambda: iter(runs))
    for _ in range(2):
        assert finetuning.main(["--output", str(tmp_path / "rows.json")]) == 0
    assert [row["seed"] for row in asked] == [0, 1]
    assert len(json.loads((tmp_path / "rows.json").read_text())["rows"]) == 2
