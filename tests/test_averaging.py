import pytest
import torch
from test_trainer import fresh

from minigpt import Trainer
from minigpt.averaging import WeightAverage
from minigpt.evaluate import evaluate_loss


def test_it_is_the_moving_average_of_the_weights(small_data, quick):
    tokenizer, train, val = small_data
    average, model, expected = WeightAverage(0.9), fresh(tokenizer), {}

    class ByHand:
        def on_step(self, trainer, row):
            for name, weight in trainer.model.named_parameters():
                weight = weight.detach()
                expected[name] = weight.clone() if name not in expected else 0.9 * expected[name] + 0.1 * weight

    history = Trainer(model, train, val, quick, callbacks=[average, ByHand()]).fit()
    for name, weight in average.model.named_parameters():
        torch.testing.assert_close(weight, expected[name])
    assert history["average_val_loss"][0] == history["val_loss"][0] == [10, 20]
    batches = val.windows(quick.batch_size, quick.eval_batches)
    assert history.last("average_val_loss") == pytest.approx(evaluate_loss(average.model, batches), rel=1e-6)
    assert not any(torch.equal(a, b) for a, b in zip(average.model.parameters(), model.parameters()))


def test_it_changes_nothing_in_the_run_itself(small_data, quick):
    tokenizer, train, val = small_data
    plain, watched = (
        Trainer(fresh(tokenizer, dropout=0.2), train, val, quick, callbacks=callbacks).fit()
        for callbacks in ([], [WeightAverage()])
    )
    assert plain["train_loss"] == watched["train_loss"] and plain["val_loss"] == watched["val_loss"]


def test_what_stands_still_stays_frozen_in_the_average(small_data, quick):
    tokenizer, train, val = small_data
    average, model = WeightAverage(), fresh(tokenizer)
    model.blocks[0].requires_grad_(False)
    Trainer(model, train, val, quick, callbacks=[average]).fit()
    assert [p.requires_grad for p in average.model.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("decay", [0, 1, -0.5])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(decay)
