import io
import sys

import pytest
from conftest import assert_is_told
from finetune_files import TEXT, finetune, saved

from minigpt import BPETokenizer, CharTokenizer, cli
from minigpt.cli import jobs


def test_data_that_cannot_be_learned_from_is_named_by_its_row(run, base, tmp_path):
    mine = tmp_path / "mine.jsonl"
    for task, content, words in (
        ("sentiment", '{"text": "good"}', "row 1 of mine.jsonl has no column 'label'"),
        ("sentiment", "", "mine.jsonl is empty"),
        ("dialogue", '{"messages": "good"}', "row 1 of mine.jsonl has 'good' as its messages"),
        ("code", '{"lines": "good"}', "row 1 of mine.jsonl has no column 'text'"),
    ):
        mine.write_text(content, encoding="utf-8")
        assert_is_told(run(*finetune(tmp_path / "model", task, base, mine)), words)
    assert not (tmp_path / "model").exists()


def test_a_text_that_comes_twice_is_on_one_side_alone_and_that_is_said(run, base, reviews, tmp_path):
    reviews.write_text(reviews.read_text(encoding="utf-8") + "\nso bad 3,down\nso bad 4,up\n", encoding="utf-8")
    status, out, err = run(*finetune(tmp_path / "model", "sentiment", base, reviews, "--max-steps", 1))
    assert status == 0 and "30 texts to learn from" in out
    assert err == "minigpt: 2 rows of reviews.csv repeat the text of an earlier row and are left out.\n"


@pytest.mark.parametrize("method", ["lora", "frozen"])
def test_tokens_that_the_base_lacks_cannot_be_learned_by_an_adapter(run, base, talks, tmp_path, method):
    refused = run(*finetune(tmp_path / "model", "dialogue", base, talks, "--method", method))
    assert_is_told(refused, "rows of its table must be learned", f"with --method {method} the table stands still")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "lora", "--rank", 0], "rank=0 with"),
        (["--rank", 4], "--rank is for the matrices of --method lora"),
        (["--epochs", 0], "epochs=0 trains nothing"),
        (["--max-steps", 0], "max_steps=0 does not fit TrainConfig"),
        (["--batch-size", 0], "batch_size=0 does not fit TrainConfig"),
        (["--dropout", 2], "dropout=2.0"),
        (["--context-length", 49], "context_length=49 does not fit this base model: use 1 to 48"),
        (["--base", "nowhere"], "nowhere holds no config.json"),
        (["--data", "nowhere.csv"], "there is no file 'nowhere.csv'"),
    ],
)
def test_a_choice_that_cannot_work_is_refused_before_anything_is_trained(run, base, reviews, tmp_path, more, words):
    assert_is_told(run(*finetune(tmp_path / "model", "sentiment", base, reviews, *more)), words)
    assert not (tmp_path / "model").exists()


def test_a_base_of_a_kind_that_the_task_cannot_use_is_refused(run, talks, reviews, tmp_path):
    letters = saved(tmp_path / "letters", CharTokenizer.train([TEXT]))
    assert_is_told(run(*finetune(tmp_path / "a", "dialogue", letters, talks)), "tokenizer is one of characters")
    assert_is_told(run("finetune", tmp_path / "b", "--task", "code", "--base", letters), "no end-of-text token")
    odd = saved(tmp_path / "odd", BPETokenizer.train([TEXT], vocab_size=280), norm="layernorm")
    assert_is_told(run(*finetune(tmp_path / "c", "sentiment", odd, reviews)), "transformers")


def test_without_scikit_learn_the_way_to_install_it_is_told(run, base, reviews, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs.importlib.util, "find_spec", lambda name: None)
    assert_is_told(run(*finetune(tmp_path / "model", "sentiment", base, reviews)), "pip install -e")


def test_a_folder_that_holds_something_else_is_left_alone(run, base, reviews, talks, tmp_path):
    held = finetune(base, "sentiment", base, reviews)
    assert_is_told(run(*held), "already holds a model", "--base names the model to begin from")
    folder = tmp_path / "model"
    assert_is_told(run("finetune", folder, "--resume"), "there is no run to go on with")
    assert_is_told(run("finetune", folder), "--task sentiment or --task dialogue or --task code")
    run(*finetune(folder, "sentiment", base, reviews, "--max-steps", 2))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert_is_told(run(*finetune(folder, "dialogue", base, talks)), "already holds a run: go on with --resume")
    changed = run("finetune", folder, "--resume", "--method", "lora", "--max-steps", 3)
    assert_is_told(changed, "method: full there, lora here", "max_steps: 2 there, 3 here")
    assert_is_told(run("train", folder, "--resume"), "was begun by another command, which knows base, data")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unknown_task_or_two_lengths_get_usage(capsys):
    for wrong in (["--task", "poetry"], ["--task", "code", "--epochs", "1", "--max-steps", "1"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["finetune", "x", *wrong])
        assert end.value.code == 2 and "usage: minigpt finetune" in capsys.readouterr().err


def test_what_classify_cannot_judge_is_told(run, base, reviews, tmp_path, monkeypatch):
    run(*finetune(tmp_path / "mood", "sentiment", base, reviews, "--max-steps", 1))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert_is_told(run("classify", tmp_path / "mood"), "no text came")
    assert_is_told(run("classify", tmp_path / "mood", "good", ""), "text 1 is empty")
    assert_is_told(run("classify", base, "good"), "no classifier of ours")
    assert_is_told(run("classify", tmp_path / "nowhere", "good"), "holds no config.json")
