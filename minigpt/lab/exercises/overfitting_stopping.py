"""What notebook 06's exercises about choosing and stopping ask for, and how each wrong answer is told from the others.

Losses are sixteenths, which float32 holds exactly, so that a tensor of them says what a list does. A mistake has to give
the same numbers for several rows of losses.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, close
from minigpt.lab.check import Mistake, Untouched, exercise, mistake
from minigpt.lab.diagnose import Mistakes, each, explain
from minigpt.lab.exercises.finetuning_metrics import Answer, asked, best, number

Losses = list[float]
Pair = tuple[float, float]


def _sixteenths(*losses: int) -> Losses:
    return [loss / 16 for loss in losses]


class Measured(NamedTuple):
    """The losses of one training, one for each evaluation."""

    val_losses: Losses
    test_losses: Losses


def _first_min(losses: Losses) -> int:
    return losses.index(min(losses))


def _last_min(losses: Losses) -> int:
    return max(i for i, loss in enumerate(losses) if loss == min(losses))


def _before_a_rise(losses: Losses) -> int:
    return next((i for i, pair in enumerate(itertools.pairwise(losses)) if pair[1] > pair[0]), len(losses) - 1)


# In each: ties, a first dip that is not the deepest, a test set that is lowest elsewhere, and an end that is not the worst.
TRAININGS = (
    Measured(_sixteenths(62, 50, 53, 40, 44, 40, 47, 45), _sixteenths(67, 55, 41, 48, 40, 43, 50, 46)),
    Measured(_sixteenths(70, 58, 60, 49, 35, 39, 35, 52, 51), _sixteenths(71, 57, 50, 33, 37, 38, 39, 54, 41)),
    Measured(_sixteenths(30, 33, 28, 22, 22, 27, 25), _sixteenths(27, 35, 24, 25, 26, 23, 31)),
)


def _honest(trainings: Sequence[Measured]) -> Callable[..., Tensor]:
    """(index, loss to report) of each training, (trainings, 2)."""

    def one(
        losses: Measured,
        by: Callable[[Losses, Losses], Losses] = lambda val, test: val,
        pick: Callable[[Losses], int] = _first_min,
        report: Callable[[Losses, Losses, int], float] = lambda val, test, i: test[i],
        end: Callable[[int, float, Losses], Pair] = lambda i, loss, val: (i, loss),
    ) -> Pair:
        val, test = losses
        i = pick(by(val, test))
        return end(i, report(val, test, i), val)

    return lambda **options: torch.tensor([one(losses, **options) for losses in trainings], dtype=torch.float64)


HONEST: Mistakes = {
    "chosen_on_the_test_set": [
        {"by": lambda val, test: test, **report} for report in ({}, {"report": lambda val, test, i: min(val)})
    ],
    "chosen_on_both": each("by", lambda val, test: [v + t for v, t in zip(val, test)]),
    "smallest_gap": each(
        "by",
        lambda val, test: [abs(v - t) for v, t in zip(val, test)],
        lambda val, test: [t - v for v, t in zip(val, test)],
        lambda val, test: [v - t for v, t in zip(val, test)],
    ),
    "last": each("pick", lambda losses: len(losses) - 1, lambda losses: -1),
    "worst": each("pick", lambda losses: losses.index(max(losses))),
    "ties_late": each("pick", _last_min),
    "first_dip": each("pick", _before_a_rise),
    "luckiest_reported": each("report", lambda val, test, i: min(test)),
    "validation_reported": each("report", lambda val, test, i: val[i]),
    "last_reported": each("report", lambda val, test, i: test[-1]),
    "mean_reported": each("report", lambda val, test, i: sum(test) / len(test)),
    "neighbour_reported": each("report", lambda val, test, i: test[i + 1], lambda val, test, i: test[i - 1]),
    "counted_from_one": each("end", lambda i, loss, val: (i + 1, loss)),
    "loss_for_index": each("end", lambda i, loss, val: (val[i], loss)),
    "swapped": each("end", lambda i, loss, val: (loss, i)),
}
OTHER_TRAININGS = (  # one evaluation; losses far above any first guess; all alike; best at the very end
    Measured([2.5], [3.0]),
    Measured([4096.0, 2048.5, 3000.0], [4000.0, 2500.0, 1024.0]),
    Measured([1.5, 1.5, 1.5], [1.0, 2.0, 0.5]),
    Measured([3.0, 2.0, 1.0], [0.5, 1.0, 2.0]),
)


@exercise("overfitting/honest_epoch")
def honest_epoch(answer: Answer) -> Mistake | None:
    """answer(val_losses, test_losses) -> which evaluation is best on validation, from 0, and its test loss."""
    return _pairs(lambda losses: asked(answer, losses), TRAININGS, OTHER_TRAININGS, _honest, HONEST, ("index", "loss"))


def _pairs(
    ask: Callable[[Any], list[Any]],
    rows: Sequence[Any],
    others: Sequence[Any],
    simulated: Callable[[Sequence[Any]], Callable[..., Tensor]],
    mistakes: Mistakes,
    codes: tuple[str, str],
) -> Mistake | None:
    """The mistake of an answer of two numbers; `codes` are those of a wrong first and of a wrong second one."""

    def one(row: Any) -> Any:
        right = simulated([row])()[0].tolist()
        results = [[*map(number, got)] if isinstance(got, list) else got for got in ask(row)]
        return best(results, lambda got: close(got, right, 1e-5))

    try:
        found = [one(row) for row in rows]
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    if not all(isinstance(got, list) and len(got) == 2 and not any(isinstance(n, list) for n in got) for got in found):
        return mistake("not_a_pair")
    got, right = torch.tensor(found, dtype=torch.float64), simulated(rows)()
    near = torch.isclose(got, right, 1e-5, 1e-6)  # (rows, 2)
    if not near.all():
        place = int(near[:, 0].all())
        at = int(near[:, place].int().argmin())
        numbers = {"got": f"{got[at, place]:.6g}", "expected": f"{right[at, place]:.6g}"}
        return explain([(got, simulated(rows))], mistakes) or mistake(codes[place], **rows[at]._asdict(), **numbers)
    for row in others:
        expected = simulated([row])()[0].tolist()
        try:
            pair = one(row)
        except Exception as error:
            return mistake("elsewhere", **row._asdict(), what=f"it stops with {type(error).__name__}")
        if not close(pair, expected, 1e-5):
            return mistake("elsewhere", **row._asdict(), what=f"{pair} came instead of {expected}")
    return None


class Run(NamedTuple):
    """A training as it is watched: a loss for each evaluation, and when to lose patience."""

    val_losses: Losses
    eval_every: int
    patience: int
    min_delta: float


# In order: a stop long before the lowest loss; improvements too small, which add up; the first loss is the best;
# an improvement of exactly min_delta; no stop at all; a rise that is mended within the patience, several times.
RUNS = (
    Run(_sixteenths(60, 50, 52, 50, 51, 46, 45, 47, 30, 28), 5, 3, 1 / 16),
    Run(_sixteenths(60, 48, 46, 44, 42, 47, 41, 40, 39, 50), 2, 5, 4 / 16),
    Run(_sixteenths(40, 42, 39, 44, 45, 46, 47, 48, 49, 20, 19), 2, 3, 2 / 16),
    Run(_sixteenths(64, 60, 58, 56, 57, 55, 59, 55, 54), 10, 3, 2 / 16),
    Run(_sixteenths(64, 60, 62, 50, 53, 47, 48, 47), 4, 3, 1 / 16),
    Run(_sixteenths(64, 66, 50, 52, 53, 40, 41, 42, 30, 35, 33, 37, 10), 7, 3, 0.0),
)
OTHER_RUNS = (  # one evaluation; the least patience; losses far above any first guess; all alike
    Run([2.5], 50, 2, 0.0),
    Run([3.0, 2.0, 2.0, 1.0], 1, 1, 0.0),
    Run([4096.0, 2048.5, 3000.0, 3001.0, 1.0], 100, 2, 0.5),
    Run([1.5, 1.5, 1.5, 1.5], 20, 2, 0.0),
)


def _stops(runs: Sequence[Run]) -> Callable[..., Tensor]:
    """(update of the stop, update whose weights are given back) of each run, (runs, 2)."""

    def one(
        run: Run,
        watched: Callable[[Losses], Losses] = list,
        better: Callable[[float, float, float], bool] = lambda loss, best, delta: loss < best - delta,
        reference: Callable[[float, float], float] = lambda best, last: best,
        limit: Callable[[Run], float] = lambda run: run.patience,
        reset: bool = True,
        creeps: bool = False,
        start: Callable[[Losses], float] = lambda losses: math.inf,
        moves: bool = True,
        give: Callable[[Losses, int, int], int] = lambda losses, i, best_at: best_at,
        end: Callable[[Run, int, int], Pair] = lambda run, i, b: ((i + 1) * run.eval_every, (b + 1) * run.eval_every),
    ) -> Pair:
        losses, i, best_at, waited = watched(run.val_losses), 0, 0, 0
        lowest = last = start(losses)
        for i, loss in enumerate(losses):
            if better(loss, reference(lowest, last), run.min_delta):
                lowest, best_at, waited = loss if moves else lowest, i, 0 if reset else waited
            else:
                waited += 1
                lowest = min(lowest, loss) if creeps else lowest
            last = loss
            if waited >= limit(run):
                break
        return end(run, i, give(losses, i, best_at))

    return lambda **options: torch.tensor([one(run, **options) for run in runs], dtype=torch.float64)


def _lowest(losses: Losses, i: int, best_at: int) -> int:
    return _first_min(losses[: i + 1])


STOPS: Mistakes = {
    "patience_in_updates": each(
        "limit", lambda run: run.patience / run.eval_every, lambda r: r.patience * r.eval_every
    ),
    "one_too_patient": each("limit", lambda run: run.patience + 1),
    "one_too_hasty": each("limit", lambda run: run.patience - 1),
    "patience_ignored": each("limit", lambda run: 1),
    "never_stops": each("limit", lambda run: math.inf),
    "not_reset": each("reset", False),
    "min_delta_ignored": each("better", lambda loss, best, delta: loss < best),
    "min_delta_wrong_sign": each("better", lambda loss, best, delta: loss < best + delta),
    "exactly_min_delta": each("better", lambda loss, best, delta: loss <= best - delta),
    "min_delta_relative": each("better", lambda loss, best, delta: loss < best * (1 - delta)),
    "previous": [{"reference": lambda best, last: last, **give} for give in ({}, {"give": _lowest})],
    "best_creeps": [{"creeps": True, **give} for give in ({}, {"give": _lowest})],
    "first_counts": each("start", lambda losses: losses[0]),
    "first_guess_too_low": each("start", lambda losses: 0.0),
    "best_not_moved": [{"moves": False, **start} for start in ({}, {"start": lambda losses: losses[0]})],
    "higher_is_better": each("watched", lambda losses: [-loss for loss in losses]),
    "last_weights": each("give", lambda losses, i, best_at: i),
    "lowest_given_back": each("give", _lowest),
    "looks_ahead": each("give", lambda losses, i, best_at: _first_min(losses)),
    "evaluations": each(
        "end",
        lambda run, i, b: (i, b),
        lambda run, i, b: (i + 1, b + 1),
        *(lambda run, i, b, off=off: ((i + 1) * run.eval_every, b + off) for off in (0, 1)),
    ),
    "counted_from_zero": each("end", lambda run, i, b: (i * run.eval_every, b * run.eval_every)),
    "stops_at_the_best": each("end", lambda run, i, b: ((b + 1) * run.eval_every,) * 2),
    "loss_returned": each("end", lambda run, i, b: ((i + 1) * run.eval_every, run.val_losses[b])),
    "swapped": each("end", lambda run, i, b: ((b + 1) * run.eval_every, (i + 1) * run.eval_every)),
}


@exercise("overfitting/when_to_stop")
def when_to_stop(answer: Answer) -> Mistake | None:
    """answer(val_losses, eval_every, patience, min_delta) -> the update of the stop, and that of the best weights."""

    def ask(run: Run) -> list[Any]:
        return asked(answer, run[:1], *run[1:])

    def answers(run: Run) -> bool:
        try:
            return bool(ask(run))
        except (Untouched, NotNumbers, UnboundLocalError):
            return False

    answered = [run for run in RUNS if answers(run)]
    if len(answered) in (0, len(RUNS)):
        return _pairs(ask, RUNS, OTHER_RUNS, _stops, STOPS, ("stop", "best"))
    return _pairs(ask, answered, (), _stops, STOPS, ("stop", "best")) or mistake("without_a_stop")
