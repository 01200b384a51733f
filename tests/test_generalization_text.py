import json
import math

import numpy as np
import pytest
from datasets import Dataset

from minigpt.corpus.augment import augment
from minigpt.corpus.stories import stories
from minigpt.estimate import flops_per_token
from minigpt.lab.experiments import generalization, vocabulary
from minigpt.lab.experiments import generalization_text as laboratory

TEXTS = [row["text"] for row in stories()][:400]
SMALL = {"n_embd": 16, "updates": 20}


@pytest.fixture(scope="module", autouse=True)
def tiny():
    """The laboratory on stories in place of the plays and the speeches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "load_corpus", lambda name: Dataset.from_dict({"text": TEXTS}))
        patch.setattr(laboratory, "TOKENS", 8192)
        patch.setattr(laboratory, "MOST_SCENES", len(TEXTS))
        patch.setattr(laboratory, "POINTS", 4)
        laboratory.scenes.cache_clear()
        yield
        laboratory.scenes.cache_clear()


def test_every_remedy_changes_one_thing_and_costs_the_same_multiplications():
    def cost(row):
        return row["updates"] * flops_per_token(laboratory.shape(row))

    usual = laboratory.USUAL
    for name, changes in laboratory.REMEDIES.items():
        row = laboratory.settings_of(name, seed=1)
        assert cost(row) == pytest.approx(cost(usual), rel=0.03), name
        assert {key for key in usual if row[key] != usual[key]} == {"seed"} | changes.keys() | (
            {"updates"} if "n_embd" in changes else set()
        )
        assert len(changes) == 1 or name in ("nothing", "four together", "8 times the text, dropout, averaging")


def test_all_texts_lie_apart_and_a_share_is_the_beginning_of_the_whole():
    text = laboratory.scenes()
    sides = [text.tokenizer.decode(side.tokens.tolist()) for side in (text.train, text.val, text.test)]
    stories_of = [set(side.split("<|endoftext|>")[:-1]) for side in sides]
    assert not stories_of[0] & stories_of[1] and not stories_of[1] & stories_of[2]
    assert np.array_equal(laboratory.part(0.25).tokens, text.train.tokens[:2048])


def test_augmented_text_is_eight_times_as_long_and_begins_with_the_text_itself():
    plain, changed = laboratory.part(0.125), laboratory.part(0.125, "delete")
    assert np.array_equal(changed.tokens[: len(plain)], plain.tokens)
    assert 6.5 * len(plain) < len(changed) <= 8.2 * len(plain)
    assert augment(["of the"], "delete", rate=1.0) != ["of the"]  # the kind takes something away


@pytest.mark.parametrize(
    "name", ["nothing", "words left out", "weight averaging", "pretraining on speeches", "dropout"]
)
def test_a_row_has_its_curves_and_is_the_same_when_measured_again(name):
    settings = laboratory.settings_of(name, 0) | SMALL
    settings["pretraining"] = min(settings["pretraining"], 10)
    row, again = laboratory.measure(settings), laboratory.measure(settings)
    assert {**row, "seconds": 0} == {**again, "seconds": 0} and settings.items() <= row.items()
    assert len(row["steps"]) == len(row["train"]) == len(row["val"]) == len(row["few"]) >= 4
    assert row["steps"][-1] == 20 and row["val"][row["steps"].index(row["best_step"])] == min(row["val"])
    assert all(0 < loss < 1.2 * math.log(1024) for loss in (row["best_test"], row["last_test"]))
    assert ("average_test" in row) == bool(settings["averaging"])


def test_a_training_that_was_cut_off_is_no_row(monkeypatch):
    def cut_off(self):
        self.history.stopped_early, self.step = True, 7
        return self.history

    monkeypatch.setattr(laboratory.Trainer, "fit", cut_off)
    with pytest.raises(KeyboardInterrupt, match="cut off at update 7 of 20"):
        laboratory.measure(laboratory.settings_of("nothing", 0) | SMALL)


@pytest.mark.parametrize("split", laboratory.SPLITS)
def test_a_leak_has_the_best_loss_that_was_claimed_and_the_loss_of_those_weights_elsewhere(split):
    settings = laboratory.USUAL | SMALL | {"experiment": "leak", "split": split, "share": 1.0}
    row = laboratory.leak(settings)
    assert {**row, "seconds": 0} == {**laboratory.leak(settings), "seconds": 0} and row["best_step"] % 5 == 0
    assert 0 < row["claimed"] <= row["truth"] + 0.5  # the stories are alike


def places(windows):
    """Every token of some windows with where it stands: here each token is its own place."""
    return set(windows.ravel().tolist())


def test_only_windows_that_overlap_share_their_tokens_with_those_held_out_and_scenes_stay_whole():
    tokens = np.arange(1, 8193)
    for eos, how in ((-1, "windows"), (-1, "overlapping windows")):
        train, val = laboratory.cut(tokens, eos, how, seed=0)
        assert len(val) == (len(train) + len(val)) // 10
        assert bool(places(train) & places(val)) == (how == "overlapping windows")
    tokens[np.arange(500, 8192, 700)] = 0  # the ends of scenes
    train, val = laboratory.cut(tokens, 0, "scenes", seed=0)
    scene = np.cumsum(tokens == 0)
    scene_of = dict(zip(tokens.tolist(), scene.tolist()))
    sides = [{scene_of[place] for place in places(side) - {0}} for side in (train, val)]
    assert sides[0] and sides[1] and not sides[0] & sides[1]


# The driver


def test_no_run_is_asked_for_twice_and_none_is_the_beginning_of_another():
    settings = [row for row, _ in generalization.runs()]
    assert len({json.dumps(row, sort_keys=True) for row in settings}) == len(settings)
    assert {row["experiment"] for row in settings} == set(generalization.EXPERIMENTS)


def test_it_goes_on_where_it_was_cut_off():
    wanted = list(generalization.runs())
    done = [settings | {"result": 1} for settings, _ in wanted[:5]]
    assert generalization.missing(wanted, done) == wanted[5:]


def _fails(settings):
    raise OSError("disk full")


def _double(settings):
    return settings | {"twice": 2 * settings["number"]}


def test_rows_are_written_those_that_are_there_are_kept_and_a_run_that_fails_is_named_when_the_others_are_done(
    tmp_path, monkeypatch
):
    output = ["--output", str(tmp_path / "results.json"), "--workers", "1"]
    runs = [({"experiment": "text", "number": n}, _fails if n == 0 else _double) for n in range(4)]
    monkeypatch.setattr(generalization, "runs", lambda: iter(runs))
    vocabulary.write_results(tmp_path / "results.json", {}, [{"experiment": "text", "number": 1, "twice": 77}])
    with pytest.raises(RuntimeError, match="1 runs were not measured.*'number': 0.*disk full"):
        generalization.main(output)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert sorted((row["number"], row["twice"]) for row in found["rows"]) == [(1, 77), (2, 4), (3, 6)]
    runs.pop(0)
    assert generalization.main(output) == 0
