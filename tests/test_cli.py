import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import FAMILIES, assert_is_told, make_model
from datasets import Dataset

from minigpt import BPETokenizer, cli, corpus, load_checkpoint, save_checkpoint
from minigpt.cli import train as cli_train
from minigpt.corpus import FetchError
from minigpt.doctor import Finding
from minigpt.recipes import Recipe

TEXT = "The cat sat on the mat. The dog sat on the log. The bird sang in the tree.\n" * 40
SMALL = ["--preset", "tiny", "--vocab-size", "280", "--batch-size", "4", "--eval-every", "5", "--warmup-steps", "2"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def train(folder, text, *more, steps=10):
    return ["train", folder, "--corpus", text, "--max-steps", steps, *SMALL, *more]


def losses(folder):
    return [row["train_loss"] for row in torch.load(folder / "resume.pt", weights_only=True)["rows"]]


# What it does


def test_train_writes_a_checkpoint_that_says_how_it_came_to_be_and_generate_writes_with_it(run, text, tmp_path):
    folder = tmp_path / "model"
    status, out, _ = run(*train(folder, text, "--bf16", steps=40))
    assert status == 0 and re.search(r"validation loss \d\.\d{3} nats per token; .*model holds the checkpoint", out)
    told = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    assert told["corpus"] == "mine.txt" and told["train"]["max_steps"] == 40 and told["tokens"] == 40 * 4 * 8
    assert told["val_loss"] == pytest.approx(float(re.search(r"validation loss ([\d.]+)", out)[1]), abs=1e-3)
    model, tokenizer = load_checkpoint(folder)
    assert model.config.vocab_size == tokenizer.vocab_size <= 280
    status, out, _ = run("generate", folder, "--prompt", "The cat", "--max-new-tokens", 12, "--seed", 1)
    assert status == 0 and out.startswith("The cat") and len(out) > 8
    assert run("generate", folder, "--prompt", "The cat", "--max-new-tokens", 12, "--seed", 1)[1] == out
    assert run("generate", folder, "--prompt", "The cat", "--max-new-tokens", 12, "--seed", 2)[1] != out


def test_bits_per_byte_counts_the_bytes_of_the_text_alone(run, tmp_path):
    folder = tmp_path / "documents"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02}.txt").write_text(f"Document {i}. " + TEXT[:300], encoding="utf-8")
    run(*train(tmp_path / "model", folder))
    told = json.loads((tmp_path / "model" / "training.json").read_text(encoding="utf-8"))
    _, tokenizer = load_checkpoint(tmp_path / "model")
    ids = np.fromfile(tmp_path / "model" / "packed" / "val.bin", dtype=np.uint16).tolist()
    text = tokenizer.decode(ids).replace("<|endoftext|>", "")
    expected = told["val_loss"] * (len(ids) - 1) / (len(text.encode()) * np.log(2))
    assert tokenizer.eos_id in ids and told["val_bits_per_byte"] == pytest.approx(expected, abs=2e-4)


def test_the_data_are_listed_and_shown(run, text):
    status, out, _ = run("data", "list")
    assert status == 0 and re.search(r"^stories +generated here +\S", out, re.MULTILINE)
    assert len(out.splitlines()) == len(corpus.catalog())
    status, out, _ = run("data", "show", text, "--characters", 7)
    assert status == 0 and out == f"{text}: 1 documents, columns text, file\n\nThe cat\n"


def test_fetching_brings_all_that_the_course_needs_and_goes_on_after_a_failure(run, monkeypatch):
    asked = []

    def fetch(name):
        asked.append(name)
        if name == "milton":
            raise FetchError("no network today")

    monkeypatch.setattr(corpus, "fetch", fetch)
    assert run("data", "fetch") == (0, "", "") and tuple(asked) == corpus.COURSE_SOURCES
    assert run("data", "fetch", "milton", "tweets") == (1, "", "minigpt: no network today\n")
    assert asked[-1] == "tweets"


def test_the_doctor_marks_what_is_to_be_mended(run, monkeypatch):
    monkeypatch.setattr(cli, "diagnose", lambda: [Finding("Python", "3.12"), Finding("disk", "0 GB", "free some")])
    assert run("doctor") == (0, "  Python: 3.12\n! disk: 0 GB\n    free some\n", "")


def test_without_a_network_the_default_is_stories_and_the_checkpoint_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path / "empty"))
    stories = corpus.load_corpus("stories").select(range(30))
    real = corpus.load_corpus
    monkeypatch.setattr(corpus.sources, "load_corpus", lambda name: stories if name == "stories" else real(name))
    status, _, err = run("train", tmp_path / "model", "--max-steps", 2, *SMALL)
    assert status == 0 and "minigpt: using generated stories instead of shakespeare" in err
    assert json.loads((tmp_path / "model" / "training.json").read_text(encoding="utf-8"))["corpus"] == "stories"


# A run that is stopped, killed, resumed


class Interrupted(cli_train.Trainer):
    """A trainer that gets a signal during its seventh update."""

    number = signal.SIGINT

    def _update(self):
        row = super()._update()
        if self.step == 7:
            os.kill(os.getpid(), self.number)
        return row


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent to a process of its own kind there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_sigterm_saves_and_says_how_to_go_on_and_resume_needs_only_the_folder(
    run, text, tmp_path, monkeypatch, number
):
    whole, folder = tmp_path / "whole", tmp_path / "model"
    run(*train(whole, text))
    monkeypatch.setattr(Interrupted, "number", number)
    with monkeypatch.context() as patch:
        patch.setattr(cli_train, "Trainer", Interrupted)
        status, out, _ = run(*train(folder, text))
    assert status == 0 and "stopped at update 7; --resume goes on from there" in out
    assert load_checkpoint(folder) and len(losses(folder)) == 7
    monkeypatch.chdir(tmp_path)
    status, out, _ = run("train", "model", "--resume")
    assert status == 0 and "stopped" not in out and "holds the checkpoint" in out
    assert losses(folder) == losses(whole)


def test_patience_ends_a_run_and_says_whose_weights_are_kept(run, text, tmp_path):
    status, out, _ = run(*train(tmp_path / "model", text, "--patience", 1, "--min-delta", 9.0, steps=50))
    assert status == 0 and "early stopping ended it at update 10; the weights are those of update 5" in out
    assert "--resume" not in out and load_checkpoint(tmp_path / "model")
    status, out, _ = run("train", tmp_path / "model", "--resume")
    assert status == 0 and len(losses(tmp_path / "model")) == 10


KILLED = """
import os, signal, sys
from minigpt import cli
from minigpt.cli import train as cli_train

class Killed(cli_train.Trainer):
    def _update(self):
        if self.step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._update()

cli_train.Trainer = Killed
cli.main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is no signal there")
def test_a_killed_run_keeps_its_last_checkpoint_and_resumes_to_the_same_losses(run, text, tmp_path):
    folder, whole = tmp_path / "model", tmp_path / "whole"
    command = [sys.executable, "-c", KILLED, *map(str, train(folder, text))]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert len(losses(folder)) == 5 and not list(folder.glob("*.part"))
    assert run("train", folder, "--resume")[0] == 0
    run(*train(whole, text))
    assert losses(folder) == losses(whole)


# What the learner may get wrong


def test_a_corpus_or_preset_that_does_not_exist_suggests_the_nearest(run, text, tmp_path):
    folder = tmp_path / "model"
    assert_is_told(run("train", folder, "--corpus", "shakespear"), "Did you mean 'shakespeare'?")
    assert_is_told(run("data", "show", "storys"), "Did you mean 'stories'?")
    assert_is_told(run("data", "fetch", "tweet"), "Did you mean 'tweets'?")
    assert_is_told(run("train", folder, "--corpus", text, "--preset", "frist"), "Did you mean 'first'?")
    assert not folder.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--max-steps", "0"], "max_steps=0 does not fit TrainConfig"),
        (["--learning-rate", "-1"], "learning_rate=-1.0"),
        (["--dropout", "1.5"], "dropout=1.5"),
        (["--vocab-size", "100"], "use at least 257"),
        (["--context-length", "0"], "context_length=0"),
        (["--context-length", "5000"], "one window of context_length=5000 and its targets need 5001"),
    ],
)
def test_a_choice_that_cannot_work_is_refused_before_anything_is_trained(run, text, tmp_path, more, words):
    assert_is_told(run("train", tmp_path / "model", "--corpus", text, "--preset", "tiny", *more), words)
    assert not (tmp_path / "model" / "resume.pt").exists()


def test_a_loss_that_explodes_is_told_with_what_to_try_and_the_last_checkpoint_is_kept(
    run, text, tmp_path, monkeypatch
):
    class Exploding(cli_train.Trainer):
        def _update(self):
            if self.step == 7:
                torch.nn.init.constant_(self.model.norm.weight, torch.inf)
            return super()._update()

    monkeypatch.setattr(cli_train, "Trainer", Exploding)
    status, _, err = run(*train(tmp_path / "model", text))
    assert status == 1 and "at update 8 the loss is nan" in err and "Try a learning_rate below" in err
    assert len(losses(tmp_path / "model")) == 5


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "empty.txt is empty"),
        ("binary.txt", b"PK\x03\x04\x00", "is a binary file"),
        ("short.txt", b"To be.", "Use more text, or a context_length of at most"),
        ("photo.png", b"\x89PNG", "is of a kind that cannot be read here"),
    ],
)
def test_a_text_that_cannot_be_learned_from_is_refused(run, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert_is_told(run(*train(tmp_path / "model", tmp_path / name)), words)


def test_a_recipe_brings_text_shape_and_training_and_is_judged_on_each_source(run, text, tmp_path, monkeypatch):
    small = Recipe(
        name="small", about="", family="llama", model={"n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8},
        train={"max_steps": 12, "batch_size": 4, "optimizer": "muon", "eval_every": 6, "learning_rate": 1e-2},
        corpus={"cats": 1, "dogs": 1}, vocab_size=280, tokens=400,
    )  # fmt: skip
    held_out = {"cats": ["The cat sat on the mat."], "dogs": ["The dog sat on the log, and the log on the dog."]}
    monkeypatch.setattr(cli_train, "find_recipe", lambda name: {"small": small}[name])
    texts = Dataset.from_dict({"text": [TEXT, TEXT]})
    monkeypatch.setattr(cli_train, "mixture", lambda recipe, show_progress: (texts, held_out))
    status, out, _ = run("train", tmp_path / "model", "--recipe", "small", "--max-steps", 10)
    assert status == 0 and "cats: " in out and "dogs: " in out and "tokens a second" in out
    assert re.search(r"about [\d.]+ [kM]B of memory for training", out)
    told = json.loads((tmp_path / "model" / "training.json").read_text(encoding="utf-8"))
    assert told["corpus"] == "small" and told["train"]["max_steps"] == 10 and told["train"]["optimizer"] == "muon"
    losses = [told["sources"][name]["val_loss"] for name in ("cats", "dogs")]
    assert min(losses) <= told["val_loss"] <= max(losses)
    assert run("train", tmp_path / "model", "--resume")[0] == 0
    clash = run("train", tmp_path / "other", "--recipe", "small", "--preset", "tiny")
    assert_is_told(clash, "--recipe brings its own preset")


def test_too_little_memory_is_told_before_the_run(run, text, tmp_path, monkeypatch):
    monkeypatch.setattr(cli_train, "memory_gb", lambda: (1e-3, 1e-4))
    status, _, err = run(*train(tmp_path / "model", text))
    assert status == 0 and "training needs about" in err and "activation_checkpointing=True" in err


def test_a_folder_with_a_run_is_not_begun_anew_and_a_run_goes_on_only_as_it_was_begun(run, text, tmp_path):
    folder = tmp_path / "model"
    assert_is_told(run("train", folder, "--resume"), "there is no run to go on with", "leave out --resume")
    assert run(*train(folder, text))[0] == 0
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert_is_told(run(*train(folder, text)), "already holds a run: go on with --resume")
    changed = run("train", folder, "--resume", "--preset", "first", "--max-steps", 90)
    assert_is_told(changed, "preset: tiny there, first here", "max_steps: 10 there, 90 here")
    (folder / "run.json").write_text("{", encoding="utf-8")
    assert_is_told(run("train", folder, "--resume"), "run.json is damaged")
    (folder / "run.json").write_bytes(before["run.json"])
    (folder / "resume.pt").write_bytes(b"half")
    status, _, err = run("train", folder, "--resume")
    assert status == 1 and "resume.pt is damaged" in err and err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before | {
        "resume.pt": b"half"
    }


@pytest.fixture
def checkpoint(tmp_path):
    tokenizer = BPETokenizer.train([TEXT], vocab_size=270)
    model = make_model(FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size))
    save_checkpoint(tmp_path / "checkpoint", model, tokenizer)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", TEXT[:60]], "and the model's context_length is 8; keep the end of it"),
        (["--temperature", "-1"], "temperature=-1.0"),
        (["--top-p", "2"], "top_p=2.0"),
    ],
)
def test_a_prompt_or_an_option_that_cannot_work_is_told(run, checkpoint, arguments, words):
    assert_is_told(run("generate", checkpoint, *arguments), words)


def test_a_checkpoint_that_is_missing_or_damaged_is_told(run, checkpoint, tmp_path):
    assert_is_told(run("generate", tmp_path / "nowhere"), "holds no config.json; a checkpoint is a folder with")
    (checkpoint / "model.safetensors").write_bytes(b"half")
    assert_is_told(run("generate", checkpoint), "is damaged or half-written")


def test_a_place_that_cannot_be_written_is_told(run, text, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert_is_told(run(*train(tmp_path / "file" / "model", text)), "file")


def test_ctrl_c_outside_of_training_ends_without_a_traceback(run, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(corpus, "load_corpus", interrupt)
    assert run("data", "show", "stories") == (130, "", "minigpt: stopped.\n")


def test_every_command_has_help_and_a_wrong_one_gets_usage(capsys):
    for command in (
        [],
        ["data"],
        ["data", "show"],
        ["train"],
        ["speedrun"],
        ["finetune"],
        ["generate"],
        ["classify"],
        ["bench", "train"],
        ["doctor"],
    ):
        with pytest.raises(SystemExit) as end:
            cli.main([*command, "--help"])
        assert end.value.code == 0 and "usage: minigpt" in capsys.readouterr().out
    for wrong in ([], ["data"], ["tain"], ["train"], ["train", "x", "--max-steps", "many"]):
        with pytest.raises(SystemExit) as end:
            cli.main(wrong)
        assert end.value.code == 2 and "usage: minigpt" in capsys.readouterr().err
