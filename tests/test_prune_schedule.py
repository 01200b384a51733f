import itertools
import re

import pytest
import torch
from test_trainer import At, fresh

from minigpt import Trainer
from minigpt.averaging import WeightAverage
from minigpt.prune import GradualPruning, KeepZeros, prune, sparsity_at, sparsity_of
from minigpt.prune.magnitude import matrices


def zeros_of(model):
    return {name: weight == 0 for name, weight in matrices(model).items()}


def same(ours, others):
    return all(torch.equal(ours[name], others[name]) for name in ours.keys() | others.keys())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_zeros_stay_zeros_and_the_others_learn(small_data, quick, optimizer):
    tokenizer, train, val = small_data
    model = prune(fresh(tokenizer), 0.5)
    zeros, seen = zeros_of(model), []

    class Watch:
        def on_step(self, trainer, row):
            seen.append(same(zeros_of(trainer.model), zeros))

    average = WeightAverage()
    config = quick.replace(optimizer=optimizer, max_steps=40)
    history = Trainer(model, train, val, config, callbacks=[Watch(), average, KeepZeros()]).fit()
    assert len(seen) == 40 and all(seen)
    assert same(zeros_of(average.model), zeros)
    assert history.last("val_loss") < history["val_loss"][1][0]
    Trainer(model, train, val, config.replace(max_steps=1), callbacks=[]).fit()
    assert not same(zeros_of(model), zeros), "without the callback they come back, and nothing is left of it"


def test_an_evaluation_sees_the_zeros(small_data, quick):
    tokenizer, train, val = small_data
    model, found = prune(fresh(tokenizer), 0.5), []
    trainer = Trainer(model, train, val, quick, callbacks=[KeepZeros()])
    evaluate = trainer.evaluate
    trainer.evaluate = lambda: found.append(sparsity_of(model)["total"]) or evaluate()
    trainer.fit()
    assert found == [pytest.approx(0.5)] * 2


def test_the_best_weights_of_early_stopping_have_the_zeros(small_data, quick):
    tokenizer, train, val = small_data
    model = prune(fresh(tokenizer), 0.5, "2:4")
    zeros = zeros_of(model)
    config = quick.replace(
        max_steps=60, eval_every=5, patience=2, restarts=1, min_delta=10.0
    )  # nothing is better by that much
    trainer = Trainer(model, train, val, config, callbacks=[KeepZeros()])
    trainer.fit()
    assert trainer.rescue.restarted and same(zeros_of(model), zeros)


@pytest.mark.parametrize("callback", [KeepZeros, lambda: GradualPruning(4, 18, 4, 0.7, "per_layer")])
def test_a_run_that_was_cut_off_goes_on_bit_for_bit(small_data, quick, tmp_path, callback):
    tokenizer, train, val = small_data
    config = quick.replace(max_steps=30, checkpoint_every=5)
    whole, half = prune(fresh(tokenizer), 0.1), prune(fresh(tokenizer), 0.1)
    Trainer(whole, train, val, config, callbacks=[callback()]).fit()
    cut = [callback(), At(13, lambda trainer: trainer.stop())]
    Trainer(half, train, val, config, callbacks=cut, folder=tmp_path).fit()
    again = fresh(tokenizer)  # not even pruned: the zeros come from the checkpoint
    history = Trainer(again, train, val, config, callbacks=[callback()], folder=tmp_path).fit(resume=True)
    assert len(history.rows) == 30 and same(again.state_dict(), whole.state_dict())


def test_the_cubic_is_zhu_and_guptas():
    told = [sparsity_at(step, 10, 30, 5, 0.8) for step in (0, 9, 10, 14, 15, 19, 20, 25, 29, 30, 99)]
    cubic = [0.8 + (0 - 0.8) * (1 - (t - 10) / (4 * 5)) ** 3 for t in (10, 10, 10, 10, 15, 15, 20, 25, 25, 30, 30)]
    assert told == pytest.approx(cubic)
    assert sparsity_at(12, 0, 12, 5, 0.5) == 0.5 and sparsity_at(11, 0, 12, 5, 0.5) < 0.5


@pytest.mark.parametrize(("optimizer", "pattern"), [("adamw", "global"), ("muon", "per_layer")])
def test_zeros_become_more_along_the_way_and_none_comes_back(small_data, quick, optimizer, pattern):
    tokenizer, train, val = small_data
    model, zeros = fresh(tokenizer), []

    class Watch:
        def on_step(self, trainer, row):
            zeros.append(zeros_of(trainer.model))

    config = quick.replace(optimizer=optimizer, max_steps=40)
    gradual = GradualPruning(start=5, end=25, every=5, sparsity=0.8, pattern=pattern)
    history = Trainer(model, train, val, config, callbacks=[gradual, Watch()]).fit()
    steps, told = history["sparsity"]
    assert told == pytest.approx([sparsity_at(step, 5, 25, 5, 0.8) for step in steps], abs=1e-3) and len(set(told)) == 5
    for before, after in itertools.pairwise(zeros):
        assert all((after[name] | ~before[name]).all() for name in after)
    counted = [sum(int(z.sum()) for z in found.values()) / sum(z.numel() for z in found.values()) for found in zeros]
    assert counted == pytest.approx(told)
    assert sparsity_of(model)["total"] == pytest.approx(0.8, abs=1e-3)
    if pattern == "per_layer":
        assert list(sparsity_of(model).values()) == pytest.approx([0.8] * len(sparsity_of(model)), abs=2e-3)


def test_a_matrix_that_begins_at_zero_learns_and_zeros_of_before_stay(small_data, quick):
    tokenizer, train, val = small_data
    untrained = fresh(tokenizer)
    torch.nn.init.zeros_(untrained.blocks[0].mlp.proj.weight)
    Trainer(untrained, train, val, quick, callbacks=[GradualPruning(5, 15, 5, 0.5, "per_layer")]).fit()
    assert sparsity_of(untrained)["total"] == pytest.approx(0.5, abs=1e-3)
    assert sparsity_of(untrained)["blocks.0.mlp.proj.weight"] == 0.5
    pruned = prune(fresh(tokenizer), 0.4)
    zeros = zeros_of(pruned)
    history = Trainer(pruned, train, val, quick, callbacks=[GradualPruning(5, 15, 5, 0.3)]).fit()
    assert same(zeros_of(pruned), zeros) and history["sparsity"][1] == pytest.approx([0.4] * 20, abs=1e-3)


def test_what_gives_no_schedule_is_refused(small_data, quick):
    tokenizer, train, val = small_data
    for numbers, words in (
        ((10, 10, 1), "start=10, end=10, every=1 give no schedule"),
        ((-1, 10, 1), "start=-1"),
        ((0, 10, 11), "every=11"),
        ((0, 10, 0), "every=0"),
        ((0, 10, 1, 1.5), "sparsity=1.5 is no share"),
        ((0, 10, 1, 0.5, "2:4"), "no pattern '2:4' here"),
    ):
        with pytest.raises(ValueError, match=re.escape(words)):
            GradualPruning(*numbers)
    with pytest.raises(ValueError, match=r"max_steps=20, before end=21"):
        Trainer(fresh(tokenizer), train, val, quick, callbacks=[GradualPruning(0, 21, 5)]).fit()
    patient = quick.replace(patience=2)
    with pytest.raises(ValueError, match=r"second run recover with KeepZeros\(\) and patience"):
        Trainer(fresh(tokenizer), train, val, patient, callbacks=[GradualPruning(0, 20, 5)]).fit()


def test_a_model_without_zeros_has_none_to_keep(small_data, quick):
    tokenizer, train, val = small_data
    with pytest.raises(ValueError, match="the model has no zeros to keep"):
        Trainer(fresh(tokenizer), train, val, quick, callbacks=[KeepZeros()]).fit()
    untrained = fresh(tokenizer)
    torch.nn.init.zeros_(untrained.blocks[0].mlp.proj.weight)
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.proj\.weight is zero throughout"):
        Trainer(untrained, train, val, quick, callbacks=[KeepZeros()]).fit()
