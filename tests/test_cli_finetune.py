import io
import json
import os
import re
import signal
import sys

import numpy as np
import pytest
import torch
from finetune_files import BAD, GOOD, conversation, finetune

from minigpt import load_checkpoint
from minigpt.chat_template import CHAT_TOKENS
from minigpt.cli import finetune as cli_finetune
from minigpt.cli import jobs
from minigpt.finetune import Classifier, load_adapter, load_classifier, predict
from minigpt.finetune.own_data import labelled_texts
from minigpt.finetune.tasks import Parts


def told_in(folder):
    return json.loads((folder / "training.json").read_text(encoding="utf-8"))


def weights(folder):
    return load_checkpoint(folder)[0].state_dict()


# What it does


def test_own_labels_become_a_classifier_that_classify_asks(run, base, reviews, tmp_path, monkeypatch):
    folder = tmp_path / "mood"
    status, out, err = run(*finetune(folder, "sentiment", base, reviews, "--epochs", 16))
    assert (status, err) == (0, "")
    assert "30 texts to learn from, 4 to choose on, 6 for the test; classes: down, up" in out
    assert f'minigpt classify {folder} "some text"' in out and "always 'down': 0.500" in out
    told = told_in(folder)
    assert told["train"]["max_steps"] == told["updates"] == 16 * 8 and told["trained"] == told["parameters"]
    assert told["base"] == "base" and told["data"] == "reviews.csv" and str(tmp_path) not in json.dumps(told)
    assert told["val_accuracy"] == told["test_accuracy"] == told["test_macro_f1"] == 1 > told["before"]["test_macro_f1"]
    assert 0 <= told["test_low"] <= told["test_accuracy"] <= told["test_high"] <= 1
    classifier, tokenizer, classes = load_classifier(folder)
    assert classes == ["down", "up"] and tuple(predict(classifier, tokenizer, ["so bad 2"]).argmax(axis=1)) == (0,)
    status, out, _ = run("classify", folder, "so bad 2", "good and fine")
    assert status == 0 and re.fullmatch(r"down [01]\.\d{3} so bad 2\nup [01]\.\d{3} good and fine\n", out)
    monkeypatch.setattr(sys, "stdin", io.StringIO("good and fine\n\n"))
    assert run("classify", folder)[1] == out.partition("\n")[2]


def test_accuracy_and_macro_f1_are_those_of_the_test_texts_beside_the_commonest_class(run, base, reviews, tmp_path):
    words = [f"{text} {n},{'up' if n % 3 else 'down'}" for n in range(16) for text in GOOD + BAD]
    reviews.write_text("\n".join(["text,label", *words]), encoding="utf-8")
    _, out, _ = run(*finetune(tmp_path / "mood", "sentiment", base, reviews, "--max-steps", 30))
    rows, (classifier, tokenizer, _) = labelled_texts(reviews)[0].test, load_classifier(tmp_path / "mood")
    labels, said = np.array(rows["label"]), predict(classifier, tokenizer, rows["text"][:]).argmax(axis=1)
    told, right = told_in(tmp_path / "mood"), said == labels
    assert told["test_accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    f1 = [2 * (right & (labels == n)).sum() / ((labels == n).sum() + (said == n).sum()) for n in (0, 1)]
    assert told["test_macro_f1"] == pytest.approx(np.mean(f1), abs=1e-4) != told["test_accuracy"]
    assert told["test_commonest_class"] == pytest.approx(labels.mean(), abs=1e-4) and "always 'up': 0." in out


def test_conversations_teach_new_tokens_and_the_result_can_chat(run, base, talks, tmp_path):
    folder = tmp_path / "partner"
    status, out, err = run(*finetune(folder, "dialogue", base, talks, "--max-steps", 12))
    assert (status, err) == (0, "") and f"go on with: minigpt chat {folder}" in out
    assert "15 in train, 2 in val, 3 in test" in out and "12 updates" in out and "of memory for training" in out
    _, tokenizer = load_checkpoint(folder)
    assert set(CHAT_TOKENS) <= tokenizer.special_tokens.keys()
    told = told_in(folder)
    assert told["test_loss"] < told["before"]["test_loss"] and told["val_loss"] < told["before"]["val_loss"]
    assert f"test loss {told['before']['test_loss']:.3f} nats per token before, {told['test_loss']:.3f} after" in out


def test_any_text_is_learned_from_as_code_is(run, base, tmp_path):
    (tmp_path / "mine.py.txt").write_text("def cat(mat):\n    return mat\n" * 40, encoding="utf-8")
    folder = tmp_path / "coder"
    status, out, _ = run(*finetune(folder, "code", base, tmp_path / "mine.py.txt", "--context-length", 16))
    assert status == 0 and f'minigpt generate {folder} --prompt "def "' in out
    tokens = int(re.search(r"([\d,]+) in train", out)[1].replace(",", ""))
    told = told_in(folder)
    assert told["updates"] == round(2 * tokens / (4 * 16)) and told["val_loss"] < told["before"]["val_loss"]


@pytest.mark.parametrize("task", ["sentiment", "dialogue", "code"])
def test_without_data_the_texts_of_the_catalog_are_taken_at_the_usual_settings(
    run, talker, tmp_path, monkeypatch, task
):
    from datasets import Dataset

    rows = {
        "sentiment": [{"text": text, "label": n % 2} for n, text in enumerate(GOOD)],
        "dialogue": [{"messages": conversation(n)} for n in range(4)],
        "code": [{"text": "def cat(mat): return mat\n" * 20}],
    }
    parts = Parts(*(Dataset.from_list(rows[task]) for _ in Parts._fields))
    monkeypatch.setattr(jobs, task, lambda: parts)
    monkeypatch.setattr(cli_finetune, "BASE", talker)
    assert run("finetune", tmp_path / "model", "--task", task, "--max-steps", 3)[0] == 0
    told, usual = told_in(tmp_path / "model"), cli_finetune.TASKS[task]
    assert told["train"]["batch_size"] == usual["batch_size"] and told["train"]["learning_rate"] == usual["full"]
    assert (
        told["train"]["max_rise"] is None
        and told["base"] == "talker"
        and told["updates"] == 3
        and told["data"] == "the catalog's"
    )
    config = cli_finetune._begin(cli_finetune.CHOICES | {"task": task})[1]
    assert config.max_steps == (usual["max_steps"] or 2) and config.warmup_steps == config.max_steps // 10


@pytest.mark.parametrize("task", ["sentiment", "dialogue"])
def test_an_adapter_is_kept_beside_the_merged_model_and_gives_the_same(run, talker, reviews, talks, tmp_path, task):
    folder, data = tmp_path / "model", {"sentiment": reviews, "dialogue": talks}[task]
    status, out, _ = run(*finetune(folder, task, talker, data, "--method", "lora", "--rank", 2, "--max-steps", 6))
    assert status == 0 and f"{folder / 'adapter'} holds the adapter alone" in out
    assert 0 < told_in(folder)["trained"] < told_in(folder)["parameters"] / 2
    model = load_checkpoint(talker)[0]
    idx = torch.tensor([[5, 6, 7, 8]])
    merged = load_checkpoint(folder)[0] if task == "dialogue" else load_classifier(folder)[0]
    if task == "sentiment":
        model = Classifier(model, 2).eval()
    before = model(idx)[0]
    load_adapter(model, folder / "adapter")
    torch.testing.assert_close(model(idx)[0], merged(idx)[0], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, merged(idx)[0], atol=1e-3)


def test_frozen_weights_stay_as_they_were(run, talker, reviews, talks, tmp_path):
    frozen = ["--method", "frozen", "--max-steps", 4]
    run(*finetune(tmp_path / "partner", "dialogue", talker, talks, *frozen))
    before, after = weights(talker), weights(tmp_path / "partner")
    moved = {name.split(".")[1] if "blocks" in name else name for name in before if not before[name].equal(after[name])}
    assert moved == {"1", "norm.weight"}
    run(*finetune(tmp_path / "mood", "sentiment", talker, reviews, *frozen))
    body = load_classifier(tmp_path / "mood")[0].gpt.state_dict()
    assert all(before[name].equal(body[name]) for name in before if name != "head.weight")
    assert told_in(tmp_path / "mood")["trained"] == 2 * 16


# A run that is stopped and goes on


class Interrupted(cli_finetune.Trainer):
    """A trainer that gets Ctrl-C during its seventh update."""

    def _update(self):
        row = super()._update()
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return row


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a process of its own kind there")
@pytest.mark.parametrize(("task", "method"), [("sentiment", "lora"), ("dialogue", "full")])
def test_a_run_that_was_stopped_goes_on_to_the_same_model_with_no_more_than_its_folder(
    run, base, reviews, talks, tmp_path, monkeypatch, task, method
):
    data, more = {"sentiment": reviews, "dialogue": talks}[task], ["--max-steps", 12, "--method", method]
    whole, folder = tmp_path / "whole", tmp_path / "model"
    run(*finetune(whole, task, base, data, *more))
    with monkeypatch.context() as patch:
        patch.setattr(cli_finetune, "Trainer", Interrupted)
        monkeypatch.chdir(tmp_path)
        status, out, _ = run(*finetune(folder, task, "base", data.name, *more))
    assert status == 0 and "stopped at update 7; --resume goes on from there" in out and told_in(folder)["updates"] == 7
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, out, _ = run("finetune", folder, "--resume")
    assert status == 0 and "stopped at" not in out
    assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    told, expected = told_in(folder), told_in(whole)
    assert told | {"seconds": 0} == expected | {"seconds": 0}


def test_patience_ends_the_run_with_the_best_weights(run, base, talks, tmp_path):
    more = ("--max-steps", 60, "--learning-rate", 0.5, "--eval-every", 2, "--patience", 2)  # a rate that spoils it
    status, out, _ = run(*finetune(tmp_path / "model", "dialogue", base, talks, *more))
    assert status == 0 and "early stopping ended it at update" in out and "--resume" not in out
    kept = int(re.search(r"the weights are those of update (\d+)", out)[1])
    told = told_in(tmp_path / "model")
    assert told["updates"] == kept + 4 < 60


def test_smollm2_names_the_model_that_comes_with_the_data(monkeypatch, talker, reviews):
    monkeypatch.setattr(cli_finetune, "packaged_smollm2", lambda: talker)
    monkeypatch.setattr(cli_finetune, "LARGE", 1000)
    chosen = {"task": "sentiment", "base": "smollm2", "data": str(reviews), "method": "lora"}
    job, config = cli_finetune._begin(cli_finetune.CHOICES | chosen)
    assert job.model.gpt.config.n_embd == 16 and config.learning_rate == pytest.approx(1e-3)


def test_a_base_from_the_hub_is_told_by_its_whole_name(run, monkeypatch, talker, reviews, tmp_path):
    monkeypatch.setattr(cli_finetune, "load_checkpoint", lambda where: load_checkpoint(talker))
    run(*finetune(tmp_path / "mood", "sentiment", "owner/name", reviews, "--max-steps", 1, "--method", "lora"))
    adapter = json.loads((tmp_path / "mood" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert told_in(tmp_path / "mood")["base"] == adapter["base_model_name_or_path"] == "owner/name"
