import json
import math

import pytest
from datasets import Dataset

from minigpt.corpus.stories import stories
from minigpt.lab.experiments import pretraining

TEXTS = [row["text"] for row in stories()][:300]
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "tokens": 4096}


@pytest.fixture(scope="module")
def text():
    return pretraining.prepare(TEXTS)


def test_the_grid_has_every_cell_and_repeated_text_its_fresh_partner():
    rows = pretraining.sweep(total=2_000_000)
    grid = {(row["learning_rate"], row["batch_size"], row["tokens"] // row["text_tokens"]) for row in rows}
    wanted = {(r, b, e) for r in pretraining.RATES for b in pretraining.BATCHES for e in pretraining.EPOCHS}
    assert wanted <= grid
    repeated = {row["tokens"] for row in rows if row["tokens"] > row["text_tokens"] == pretraining.PART}
    fresh = {row["tokens"] for row in rows if row["tokens"] == row["text_tokens"] > pretraining.PART}
    assert repeated == fresh


def test_sizes_get_the_tokens_that_are_best_for_them_as_far_as_the_text_goes():
    rows = pretraining.scaling(total=1_000_000)
    for row in rows:
        best = 20 * pretraining.num_parameters(pretraining.shape_of(row))
        assert row["tokens"] == min(best, pretraining.MOST_EPOCHS * 1_000_000)
    assert rows[0]["tokens"] < rows[-1]["tokens"] == pretraining.MOST_EPOCHS * 1_000_000


def test_a_run_reports_its_loss_and_what_it_cost(text):
    settings = pretraining.sweep(len(text.train))[0] | SMALL
    row = pretraining.measure(settings, text)
    assert (
        row["updates"] == 4096 / row["batch_size"] / pretraining.CONTEXT
        and row["epochs"] == 4096 / settings["text_tokens"]
    )
    assert 0 < row["val_loss"] < 1.1 * math.log(pretraining.VOCAB_SIZE) and "steps" not in row
    assert pretraining.measure(settings, text)["val_loss"] == row["val_loss"]


def test_a_schedule_keeps_its_losses_on_the_way(text):
    row = pretraining.measure(pretraining.schedules(len(text.train))[2] | SMALL, text)
    assert row["name"] == "constant" and row["steps"] == [1, 2]
    assert row["val_losses"][-1] < row["val_losses"][0]


def test_a_training_that_diverges_has_no_loss(text):
    row = pretraining.measure(pretraining.sweep(len(text.train))[0] | SMALL | {"learning_rate": 1e38}, text)
    assert row["val_loss"] is None


def test_the_command_measures_only_what_is_missing(tmp_path, monkeypatch):
    seen = []

    def measure(settings, text):
        seen.append(settings)
        return settings | {"val_loss": 1 / 3}

    monkeypatch.setattr(pretraining, "load_corpus", lambda name: Dataset.from_dict({"text": TEXTS}))
    monkeypatch.setattr(pretraining, "measure", measure)
    output = ["--output", str(tmp_path / "new" / "results.json")]
    assert pretraining.main(["--only", "scaling", *output]) == 0
    assert [row["n_embd"] for row in seen] == [size[-1] for size in pretraining.SIZES]
    assert pretraining.main(output) == 0
    assert len(seen) == len({json.dumps(row) for row in seen})
    written = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    assert len(written["rows"]) == len(seen) and written["rows"][0]["val_loss"] == 0.333333


def test_the_stored_results_are_those_of_the_command():
    rows = json.loads(pretraining.RESULTS.read_text(encoding="utf-8"))["rows"]
    total = max(row["text_tokens"] for row in rows)  # that of the schedules and sizes: the whole text
    wanted = [settings for plan in pretraining.EXPERIMENTS.values() for settings in plan(total)]
    assert len(rows) == len(wanted)
    assert all(any(settings.items() <= row.items() for row in rows) for settings in wanted)
