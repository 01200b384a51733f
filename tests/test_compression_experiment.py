import json

import numpy as np
import pytest
import torch
from conftest import make_model

from minigpt import GPTConfig
from minigpt.bench import compress as bench
from minigpt.corpus.batching import TokenData
from minigpt.lab.experiments import compression, compression_forms, compression_training
from minigpt.lab.experiments.decoding import any_tokenizer

SMALL = GPTConfig.llama(vocab_size=300, n_layer=1, n_head=4, n_kv_head=2, n_embd=64, n_hidden=64, context_length=64)


@pytest.fixture
def laboratory(monkeypatch, tmp_path):
    """The laboratory with a small model and a text of numbers, and its places in a temporary folder."""
    text = TokenData(np.arange(4000, dtype=np.uint16) * 7 % 300, 32)
    model, tokenizer = make_model(SMALL), any_tokenizer(300)
    wide = torch.from_numpy(text.tokens[: 4 * 33].reshape(4, 33).astype(np.int64))
    for name, value in (("base", (model, tokenizer)), ("windows", wide), ("training_text", text)):
        monkeypatch.setattr(compression_training, name, lambda value=value: value)
    for module in (compression_training, compression_forms):
        monkeypatch.setattr(module, "TRAINED", tmp_path / "runs")
    monkeypatch.setattr(compression_forms, "base", lambda: (model, tokenizer))
    monkeypatch.setattr(compression_training, "STUDENT", {"n_layer": 1, "n_embd": 32, "n_head": 1, "n_kv_head": 1})
    runs = {name: how | {"updates": 20} for name, how in compression_training.RUNS.items()}
    monkeypatch.setattr(compression_training, "RUNS", runs)
    return model


@pytest.mark.parametrize("name", compression_training.RUNS)
def test_a_run_is_kept_with_what_it_is_and_its_losses_before_and_after(laboratory, name):
    row = compression_training.trained(name)
    assert row["name"] == name and len(row["before"]) == len(row["after"]) == 4
    assert np.mean(row["after"]) < np.mean(row["before"])
    from minigpt.checkpoint import load_model
    from minigpt.prune import sparsity_of

    kept = load_model(compression_training.TRAINED / compression_training.folder(name))
    assert compression_training.window_losses(lambda x: kept(x)[0]) == row["after"]
    how = compression_training.RUNS[name]
    if "sparsity" in how:
        assert sparsity_of(kept)["total"] == pytest.approx(how["sparsity"], abs=0.01)
    else:
        assert kept.num_parameters() < laboratory.num_parameters()


def test_losses_are_those_of_the_model_window_by_window(laboratory):
    idx = compression_training.windows()
    losses = compression_training.window_losses(lambda x: laboratory(x)[0])
    for window, loss in zip(idx, losses):
        assert loss == pytest.approx(float(laboratory(window[None, :-1], window[None, 1:])[1].detach()), abs=1e-3)


def test_every_form_says_how_large_it_is_and_writes(laboratory, tmp_path, monkeypatch):
    monkeypatch.setattr(compression_forms, "TOKENS", 3)
    monkeypatch.setattr(compression_forms, "ROUNDS", 2)
    ours = {name: make for name, make in compression_forms.forms() if name in ("fp32", "int8", "int4, gptq")}
    ours["fp32 again"] = ours["fp32"]
    rows = {row["name"]: row for row in compression_forms.measured(ours)}
    whole = rows["fp32"]
    assert whole["losses"] == rows["fp32 again"]["losses"] and len(whole["losses"]) == 4
    assert rows["int8"]["memory"] < 0.3 * whole["memory"] and rows["int8"]["disk"] < 0.35 * whole["disk"]
    assert rows["int4, gptq"]["memory"] < rows["int8"]["memory"]
    assert all(row["tokens_per_s"][1] <= row["tokens_per_s"][0] <= row["tokens_per_s"][2] for row in rows.values())


def test_the_command_measures_only_what_is_missing(laboratory, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(compression, "_train", lambda names, workers, keep: asked.append(names))
    monkeypatch.setattr(compression, "forms", lambda: iter([("fp32", None), ("int8", None)]))
    monkeypatch.setattr(compression, "measured", lambda wanted: ({"experiment": "form", "name": n} for n in wanted))
    output = tmp_path / "rows.json"
    output.write_text(
        json.dumps({"rows": [{"experiment": "form", "name": "fp32"}, {"experiment": "trained", "name": "2:4"}]})
    )
    assert compression.main(["--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [row["name"] for row in rows if row["experiment"] == "form"] == ["fp32", "int8"]
    assert asked == [[name for name in compression.RUNS if name != "2:4"]]


def test_the_bench_prints_shares_of_fp32_and_an_interval(monkeypatch, capsys):
    rows = [
        {"name": "fp32", "memory": 400, "disk": 410, "losses": [1.0, 2.0], "tokens_per_s": [10.0, 9.0, 11.0]},
        {"name": "int8", "memory": 100, "disk": 123, "losses": [1.01, 2.01], "tokens_per_s": [20.0, 19.0, 21.0]},
        {"name": "elsewhere", "memory": None, "disk": 82, "losses": [1.0, 2.0], "tokens_per_s": [5.0, 5.0, 5.0]},
    ]
    monkeypatch.setattr(bench, "forms", lambda: iter([]))
    monkeypatch.setattr(bench, "measured", lambda wanted: rows)
    lines = [str(line) for line in bench.bench_compress()][1:]
    assert "memory 25.0%  disk 30.0%  perplexity   +1.01 % (+1.01 to +1.01)" in lines[1]
    assert "20.0 tokens/s, 2.00 times fp32" in lines[1] and "memory     -  disk 20.0%" in lines[2]
