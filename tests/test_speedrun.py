import json
import re

import pytest
from datasets import Dataset

from minigpt import cli, speedrun
from minigpt.lab.experiments import ladder
from minigpt.recipes import find_recipe
from minigpt.speedrun import tiny_shakespeare

TEXT = "the cat sat on the mat, and the dog sat on the log. " * 60
FIELDS = {"n_layer": 1, "n_head": 1, "n_embd": 16, "context_length": 16}
SMALL = {"max_steps": 40, "eval_every": 10, "batch_size": 8, "learning_rate": 1e-2, "matrix_lr": 1e-2}


@pytest.fixture
def small():
    return find_recipe("fast-1.88").changed("a small one", FIELDS, SMALL)


def test_the_first_nine_tenths_train_and_the_last_tenth_judges():
    vocab_size, train, val = tiny_shakespeare(16, text=TEXT)
    assert vocab_size == len(set(TEXT)) and len(train) == int(0.9 * len(TEXT))
    assert len(train) + len(val) == len(TEXT)
    targets = sum(int((targets != -100).sum()) for _, targets in val.windows(4))
    assert targets == len(val) - 1  # every character of it, once


def test_a_run_ends_when_the_target_is_reached_and_says_what_it_took(small):
    run = speedrun.speedrun(small, target=2.5, text=TEXT)
    assert run.reached and run.val_loss <= 2.5 and run.updates < 40 and run.updates % 10 == 0
    assert run.tokens == run.updates * 8 * 16 and run.seconds > 0 and run.eval_seconds > 0
    assert re.search(r"reached 2\.5 with \d\.\d{4}, in [\d.]+ s of training and [\d.]+ s of evaluation", str(run))
    assert f"{run.parameters:,} parameters" in str(run)


def test_a_run_that_falls_short_says_so(small):
    run = speedrun.speedrun(small, target=0.001, text=TEXT)
    assert not run.reached and run.updates == 40 and "did not reach 0.001; best" in str(run)


@pytest.mark.parametrize("target", [0.0, -1.0, float("nan")])
def test_a_target_that_is_no_loss_is_refused(small, target):
    with pytest.raises(ValueError, match="is no loss to reach"):
        speedrun.speedrun(small, target, text=TEXT)


def test_the_command_takes_the_recipe_for_the_target(monkeypatch, capsys, small):
    asked = []

    def run(name, target, seed):
        asked.append(name)
        return real(small, 3.0 if target > 1.9 else 0.001, seed, TEXT)

    real = speedrun.speedrun
    monkeypatch.setattr("minigpt.cli.train.speedrun", run)
    assert cli.main(["speedrun", "--target", "1.95"]) == 0 and "reached" in capsys.readouterr().out
    assert cli.main(["speedrun", "--target", "1.4697", "--seed", "1"]) == 1
    assert cli.main(["speedrun", "--target", "1.6", "--recipe", "baseline"]) == 1
    assert asked == ["fast-1.88", "fast-1.47", "baseline"]


def test_the_command_names_an_unknown_recipe(capsys, monkeypatch):
    assert cli.main(["speedrun", "--recipe", "fats-1.88"]) == 1
    assert "Did you mean 'fast-1.88'" in capsys.readouterr().err


def test_the_ladder_gives_each_rung_the_fewest_updates_that_reach_the_target(monkeypatch, small, tmp_path):
    quick = small.changed("a quicker one", train={"learning_rate": 2e-2, "matrix_lr": 2e-2})
    monkeypatch.setattr(ladder, "ladder", lambda: [small.changed("first"), quick])
    monkeypatch.setattr(ladder, "UPDATES", (40, 30, 20, 10))
    rows = list(ladder.climb(2.0, seeds=(0, 1), text=TEXT))
    assert [(row["rung"], row["seed"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [row["max_steps"] for row in rows[:2]] == [40, 40] and rows[2]["max_steps"] == rows[3]["max_steps"]
    assert rows[2]["reached"] and rows[2]["max_steps"] <= 40
    fewer = [n for n in (40, 30, 20, 10) if n < rows[2]["max_steps"]]
    if fewer:
        assert not speedrun.speedrun(quick, 2.0, text=TEXT, max_steps=fewer[0], eval_every=fewer[0]).reached


def test_the_recorded_rows_are_written_as_they_come(monkeypatch, small, tmp_path):
    monkeypatch.setattr(ladder, "climb", lambda target, seeds: iter([{"rung": 0, "seed": 0}]))
    monkeypatch.setattr(ladder, "speedrun", lambda name, target, seed: speedrun.speedrun(small, target, seed, TEXT))
    assert ladder.main(["--seeds", "0", "--output", str(tmp_path / "rows.json")]) == 0
    found = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert len(found["rows"]) == 3 and found["how"]["command"].startswith("python -m minigpt.lab")


def test_without_the_text_the_fetch_error_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MINIGPT_DATA", str(tmp_path))
    assert cli.main(["speedrun"]) == 1
    assert "tinyshakespeare" in capsys.readouterr().err


def test_the_text_may_be_in_the_cache(monkeypatch):
    monkeypatch.setattr(speedrun, "load_corpus", lambda name: Dataset.from_dict({"text": [TEXT]}))
    assert tiny_shakespeare(16)[0] == len(set(TEXT))
