import math

import numpy as np
import pytest
import torch
from test_trainer import At, fresh

from minigpt import TokenData, TrainConfig, Trainer
from minigpt.early_stopping import EarlyStopping


def told(losses, **options):
    """The number of the evaluation after which the rule stops (None: never), and the rule."""
    rule = EarlyStopping(**options)
    for number, loss in enumerate(losses, start=1):
        if rule.update(10 * number, loss):
            return number, rule
    return None, rule


def test_it_stops_after_so_many_evaluations_in_a_row_without_improvement():
    stopped, rule = told([3, 2, 2.5, 1.9, 2, 2, 2, 1], patience=3)
    assert stopped == 7 and (rule.best_step, rule.best_loss) == (40, 1.9)


def test_an_improvement_begins_the_count_anew_and_without_a_rise_it_never_stops():
    assert told([3, 3.1, 2.9, 3.0, 2.8, 2.9, 2.7], patience=2)[0] is None
    assert told([5 - 0.1 * i for i in range(30)], patience=1)[0] is None


def test_an_equal_loss_is_no_improvement():
    assert told([2, 2, 2], patience=2)[0] == 3


def test_what_falls_by_less_than_min_delta_does_not_count_however_long_it_goes_on():
    crawling = [2 - 0.001 * i for i in range(10)]
    stopped, rule = told(crawling, patience=4, min_delta=0.01)
    assert stopped == 5 and rule.best_loss == 2
    assert told(crawling, patience=4, min_delta=0.0005)[0] is None


def test_small_steps_add_up_because_they_are_compared_with_the_best_and_not_with_the_last():
    stopped, rule = told([2 - 0.004 * i for i in range(10)], patience=4, min_delta=0.01)
    assert stopped is None and rule.best_step > 10


def test_smoothing_overlooks_a_jump_that_would_have_ended_the_run():
    noisy = [3, 2.5, 2.7, 2.2, 2.5, 2.0, 2.3, 1.8]
    assert told(noisy, patience=1)[0] == 3
    assert told(noisy, patience=1, smoothing=0.6)[0] is None


def test_smoothing_is_the_average_that_its_docstring_says():
    _, rule = told([4, 2, 1], patience=9, smoothing=0.5)
    assert rule.best_loss == pytest.approx(0.5 * (0.5 * 4 + 0.5 * 2) + 0.5 * 1)


def test_nan_is_never_an_improvement_and_never_spoils_the_average():
    stopped, rule = told([2, math.nan, 1.9, math.inf, math.nan], patience=2, smoothing=0.5)
    assert stopped == 5 and rule.best_step == 30 and math.isfinite(rule.best_loss)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"patience": 0}, "patience=0"),
        ({"patience": 2, "min_delta": -0.1}, "min_delta=-0.1"),
        ({"patience": 2, "min_delta": math.nan}, "min_delta=nan"),
        ({"patience": 2, "min_delta": math.inf}, "min_delta=inf"),
        ({"patience": 2, "smoothing": 1.0}, "smoothing=1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        EarlyStopping(**options)


class Scripted(Trainer):
    """A Trainer whose evaluations are read from a list; notes its weights at each of them, and what every update began with."""

    def __init__(self, losses, *arguments, **options):
        super().__init__(*arguments, callbacks=options.pop("callbacks", []), **options)
        self.losses, self.had, self.began = losses, {}, {}

    def _update(self):
        weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.began[self.step] = weights, sum(len(optimizer.state) for optimizer in self.optimizers)
        return super()._update()

    def evaluate(self):
        self.had[self.step] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return self.losses[self.step // self.config.eval_every - 1]


CURVE = [3.0, 2.5, 2.2, 2.4, 2.3, 2.6, 2.1, 2.0]


@pytest.fixture
def scripted(small_data, quick):
    tokenizer, train, val = small_data

    def make(losses=CURVE, **options):
        own = {name: options.pop(name) for name in ("callbacks", "folder") if name in options}
        config = quick.replace(**{"max_steps": 2 * len(losses), "eval_every": 2, "patience": 3} | options)
        return Scripted(losses, fresh(tokenizer), train, val, config, **own)

    return make


def same(weights, others):
    return all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_run_ends_and_the_model_has_its_best_weights(scripted):
    trainer = scripted()
    history = trainer.fit()
    assert history.rows[-1]["step"] == 12 and history.stopped_early
    assert history.best() == (6, 2.2)
    assert same(trainer.model.state_dict(), trainer.had[6]) and not same(trainer.had[6], trainer.had[12])


def test_a_run_that_comes_to_its_end_gives_back_the_best_weights_too(scripted):
    trainer = scripted([3.0, 2.0, 2.1, 2.2], patience=9)
    assert not trainer.fit().stopped_early
    assert same(trainer.model.state_dict(), trainer.had[4])


def test_without_patience_the_last_weights_stay(scripted):
    trainer = scripted(patience=None)
    trainer.fit()
    assert same(trainer.model.state_dict(), trainer.had[16]) and trainer.rescue is None


def test_min_delta_and_smoothing_reach_the_rule(scripted):
    assert scripted(min_delta=0.6).fit().rows[-1]["step"] == 2 * 6  # 2.5 is no improvement on 3.0, 2.2 is
    trainer = scripted(val_smoothing=0.9)
    assert trainer.fit().rows[-1]["step"] == 16 and trainer.rescue.rule.best_step == 16


def test_patience_counts_evaluations_and_not_updates(scripted):
    assert scripted(patience=1, eval_every=4, max_steps=16, losses=[2.0, 2.1, 2.2, 2.3]).fit().rows[-1]["step"] == 8


def test_a_restart_goes_on_from_the_best_weights_at_a_smaller_rate(scripted):
    losses = [3.0, 2.0, 2.1, 2.2, 1.9, 2.3, 2.4, 2.5]
    trainer = scripted(
        losses, patience=2, restarts=1, restart_factor=0.25, schedule="wsd", decay_share=0, warmup_steps=0
    )
    rates = dict(zip(*trainer.fit()["learning_rate"]))
    assert same(trainer.began[8][0], trainer.had[4])  # the third and fourth evaluation were worse: back to the second
    assert rates[8] == 0.01 and rates[9] == 0.0025
    assert trainer.history.rows[-1]["step"] == 14 and same(trainer.model.state_dict(), trainer.had[10])


def test_the_optimiser_forgets_where_it_was_going_at_a_restart(scripted):
    trainer = scripted([2.0, 2.1, 2.2, 2.3], patience=1, restarts=1)
    trainer.fit()
    assert trainer.began[4][1] == 0 < trainer.began[3][1]


@pytest.mark.parametrize("stop_at", [5, 6, 8, 9, 12])
def test_interrupted_and_resumed_it_decides_as_it_would_have(scripted, tmp_path, stop_at):
    options = {"patience": 2, "restarts": 1, "losses": [3.0, 2.0, 2.1, 2.2, 1.9, 2.3, 2.4, 2.5]}
    whole = scripted(**options)
    whole.fit()
    begun = scripted(**options, callbacks=[At(stop_at, Trainer.stop)], folder=tmp_path)
    begun.fit()
    resumed = scripted(**options, folder=tmp_path)
    history = resumed.fit(resume=True)
    assert (
        history["train_loss"] == whole.history["train_loss"]
        and history["learning_rate"] == whole.history["learning_rate"]
    )
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_a_run_that_was_interrupted_keeps_its_last_weights_and_has_the_best_beside_them(scripted):
    trainer = scripted(callbacks=[At(9, Trainer.stop)])
    trainer.fit()
    assert not same(trainer.model.state_dict(), trainer.had[6]) and same(trainer.rescue.weights, trainer.had[6])


def test_a_run_that_is_over_stays_over(scripted, tmp_path):
    first = scripted(folder=tmp_path)
    first.fit()
    again = scripted(folder=tmp_path)
    history = again.fit(resume=True)
    assert history.rows[-1]["step"] == 12 and same(again.model.state_dict(), first.had[6])


def test_a_restart_is_no_divergence_although_the_older_weights_know_the_training_text_less(small_data, quick, tmp_path):
    tokenizer, train, _ = small_data
    unlike = TokenData(np.roll(train.tokens, 3)[::-1].copy(), 8)  # what is learned by heart does not help there
    config = quick.replace(max_steps=150, eval_every=5, patience=12, restarts=2, max_rise=0.3)
    rise = {}

    class Watch:
        def on_step(self, trainer, row):
            rise[row["step"]] = row["train_loss"]

    trainer = Trainer(fresh(tokenizer), train, unlike, config, callbacks=[Watch()], folder=tmp_path)
    trainer.fit()  # raises TrainingDiverged where the rise counts
    restart = trainer.rescue.restarted[0]
    assert rise[restart + 1] > rise[restart] + config.max_rise


def test_callbacks_see_the_weights_that_were_judged(scripted):
    trainer, seen = scripted([3.0, 2.0, 2.1, 2.2, 2.3], patience=1, restarts=2), {}

    class Watch:
        def on_eval(self, trainer, row):
            seen[row["step"]] = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}

    trainer.callbacks.append(Watch())
    trainer.fit()
    assert seen and all(same(seen[step], trainer.had[step]) for step in seen)


def test_without_a_single_number_the_last_weights_stay(scripted):
    trainer = scripted([math.nan] * 4, patience=2)
    trainer.fit()
    assert trainer.rescue.over and trainer.rescue.rule.best_step is None
    assert same(trainer.model.state_dict(), trainer.had[4])


def test_weights_that_are_tied_are_kept_once(scripted):
    trainer = scripted()
    trainer.fit()
    kept = trainer.rescue.weights
    assert kept["head.weight"].data_ptr() == kept["token_embedding.weight"].data_ptr()


def test_patience_without_a_validation_set_is_refused(small_data, quick):
    tokenizer, train, _ = small_data
    with pytest.raises(ValueError, match="give the Trainer val_data"):
        Trainer(fresh(tokenizer), train, None, quick.replace(patience=2))


@pytest.mark.parametrize(
    "field, value", [("patience", 0), ("min_delta", -1), ("val_smoothing", 1), ("restarts", -1), ("restart_factor", 0)]
)
def test_settings_outside_their_range_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{"patience": 3, field: value})


@pytest.mark.parametrize("field, value", [("min_delta", 0.1), ("val_smoothing", 0.5), ("restarts", 2)])
def test_settings_that_patience_alone_would_use_are_refused_without_it(field, value):
    with pytest.raises(ValueError, match=f"{field}.*together with patience"):
        TrainConfig(**{field: value})
