"""What notebook 06's exercise about an honest measurement asks for, on a model that was partly frozen.

It goes one step further than notebook 04's: dropout may be on in one part of a model and off in another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from minigpt.lab.check import Mistake, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, Simulate, each, explain
from minigpt.lab.exercises.pretraining_model import Answer, Batch, NotALoss, Watched, batch, loss_number, sizes
from minigpt.lab.exercises.pretraining_steps import MEAN, WEIGHTS, Report, weighted


class Partly(Watched):
    """The model in miniature with a body that may be frozen, its dropout off, under a head that trains."""

    def __init__(self, training: bool, frozen: bool):
        super().__init__(dropout=0.5)
        self.body = nn.Sequential(nn.Dropout(0.5))
        self.train(training)
        self.body.train(training and not frozen)
        self.before = self.modes()
        self.dropped = False  # whether dropout was on in any forward pass

    def modes(self) -> dict[str, bool]:
        """For each part, whether it is in training mode."""
        return {name: part.training for name, part in self.named_modules()}

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        self.dropped = self.dropped or any(self.modes().values())
        return super().forward(idx, targets)


SAME = ("ignored_counted", "summed", "not_divided", "divided_twice")  # codes that notebook 04's exercises use as well
MEASURED: Mistakes = {
    "first_batch_only": each("some", slice(1)),
    "last_batch_only": each("some", slice(-1, None)),
    "last_batch_left_out": each("some", slice(-1)),
    "mean_of_means": each("report", *map(weighted, WEIGHTS["by_batches"])),
    **{code: each("report", *map(weighted, WEIGHTS[code])) for code in SAME},
    "perplexity": each("end", math.exp),
    "bits": each("end", lambda loss: loss / math.log(2)),
    "sign": each("end", lambda loss: -loss),
}


def _mean(batches: list[Batch]) -> Simulate:
    model = Watched().eval()

    def simulate(some: slice = slice(None), report: Report = MEAN, end: Callable[[float], float] = float) -> Tensor:
        chosen = batches[some]
        with torch.no_grad():
            return torch.tensor(end(report([float(model(*each)[1]) for each in chosen], *sizes(chosen))))

    return simulate


def _left(model: Partly) -> Mistake | None:
    """What a right number leaves behind."""
    if any(parameter.grad is not None for parameter in model.parameters()):
        return mistake("backward")
    if any(graph for *_, graph in model.passes):
        return mistake("graph_kept")
    after = model.modes()
    if after == model.before:
        return None
    if not any(after.values()):
        return mistake("left_in_eval")
    return mistake("left_in_training" if not any(model.before.values()) else "frozen_part_woken")


def _measure(answer: Answer, batches: Sequence[Batch], model: Partly) -> float | Mistake:
    got = loss_number(call(answer, model, copy.deepcopy(batches)))
    if any(not torch.equal(*pair) for pair in zip(model.parameters(), Watched().parameters())):
        return mistake("weights_changed")
    return mistake("dropout_on") if model.dropped else got


@exercise("overfitting/evaluate")
def evaluate(answer: Answer) -> Mistake | None:
    """answer(model, batches) -> the mean loss of the targets that count, and every part of the model in its old mode."""
    unlike = [batch(4, 4, 3), batch(4, 4, 4, ignored=7), batch(1, 4, 5)]
    even = [batch(2, 3, 6, ignored=1), batch(2, 3, 7), batch(2, 3, 8, ignored=4), batch(1, 3, 9)]
    results, models = [], []
    for batches, training, frozen in ((unlike, True, False), (even, False, False), (even[::-1], True, True)):
        models.append(Partly(training, frozen))
        try:
            got = _measure(answer, batches, models[-1])
        except NotALoss as error:
            return error.found
        if isinstance(got, Mistake):
            return got
        results.append((torch.tensor(got), _mean(batches)))
    for got, simulate in results:
        if not torch.allclose(got, simulate(), 1e-4, 1e-5):
            return explain(results, MEASURED) or mistake("value", got=f"{got:.4g}", expected=f"{simulate():.4g}")
    return next(filter(None, map(_left, models)), None)
