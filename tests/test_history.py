import math
import sys
from types import SimpleNamespace

import pytest
from conftest import make_model

from minigpt import GPTConfig, History, Trainer
from minigpt.history import StopAtLoss, TensorBoard

ROWS = [
    {"step": 1, "tokens": 100, "train_loss": 4.0, "seconds": 3.0},
    {"step": 2, "tokens": 200, "train_loss": 3.0, "seconds": 4.0, "val_loss": 3.5},
    {"step": 3, "tokens": 300, "train_loss": 2.0, "seconds": 5.0},
]


def test_the_best_is_the_first_of_the_lowest_and_never_what_is_no_number():
    losses = [math.nan, 2.0, 1.0, 1.0, math.inf]
    history = History([{"step": step, "val_loss": loss} for step, loss in enumerate(losses, start=1)])
    assert history.best() == (3, 1.0)
    with pytest.raises(ValueError, match="no 'val_loss' was recorded"):
        History(ROWS[:1]).best()


def test_a_column_gives_the_steps_at_which_it_was_recorded():
    history = History(ROWS)
    assert history["val_loss"] == ([2], [3.5]) and history.last("train_loss") == 2.0
    with pytest.raises(ValueError, match="no 'accuracy' was recorded"):
        history.last("accuracy")


def test_the_speed_leaves_out_the_first_slow_updates():
    history = History(ROWS)
    assert history.tokens_per_second() == 60.0 and history.tokens_per_second(skip=1) == 100.0
    with pytest.raises(ValueError, match="there are 3 updates, and 3 of them"):
        history.tokens_per_second(skip=3)


def test_the_table_has_a_row_for_each_update():
    table = History(ROWS).table()
    assert list(table["step"]) == [1, 2, 3] and table["val_loss"].isna().tolist() == [True, False, True]


def test_a_run_stops_when_its_target_is_reached_and_counts_evaluation_apart(small_data, quick):
    tokenizer, train, val = small_data
    model = make_model(
        GPTConfig.llama(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=8)
    )
    history = Trainer(model, train, val, quick.replace(max_steps=200, eval_every=5), callbacks=[StopAtLoss(1.5)]).fit()
    losses = history["val_loss"][1]
    assert losses[-1] <= 1.5 < min(losses[:-1]) and history.rows[-1]["step"] < 200
    assert len(history["eval_seconds"][1]) == len(losses) and min(history["eval_seconds"][1]) > 0


def test_tensorboard_gets_every_column_and_its_absence_is_told(monkeypatch, tmp_path, small_data, quick):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        TensorBoard(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    written, made = [], []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            made.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            written.append((name, step))

        def close(self):
            made.append("closed")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    tokenizer, train, val = small_data
    model = make_model(
        GPTConfig.llama(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=8)
    )
    Trainer(model, train, val, quick.replace(max_steps=10), callbacks=[TensorBoard(tmp_path)]).fit()
    assert made == [(tmp_path, 1), "closed"] and ("val_loss", 10) in written and ("train_loss", 1) in written
