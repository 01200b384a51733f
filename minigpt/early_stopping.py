"""When a training has learned what it can: a rule on the validation loss, and the best weights kept, gone back to, given back.

The rule is Prechelt's third (Early Stopping - But When?, 1998, section 2.1): stop after so many evaluations in a row
without an improvement. This module knows nothing of what is trained.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from minigpt.config import TrainConfig


class EarlyStopping:
    """The rule alone, told one evaluation after the other.

    Args:
        patience: evaluations in a row without an improvement after which it is time to stop.
        min_delta: nats by which a loss must lie below the best to be an improvement.
        smoothing: how much of its past goes into the loss that is judged, 0 to below 1. The average lags behind, so that
            the best of it comes a little after the best loss.

    Raises:
        ValueError: a patience below 1, a negative min_delta, a smoothing outside 0 to 1.
    """

    def __init__(self, patience: int, min_delta: float = 0.0, smoothing: float = 0.0):
        if patience < 1:
            raise ValueError(f"patience={patience} stops before it has looked; use 1 or more evaluations, such as 3.")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"min_delta={min_delta} would call a worse loss an improvement; use 0 or more nats.")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing={smoothing} must lie from 0 (none) to below 1; 0.5 is much already.")
        self.patience, self.min_delta, self.smoothing = patience, min_delta, smoothing
        self.best_step: int | None = None
        self.best_loss = math.inf
        self.waited = 0
        self._level: float | None = None

    def update(self, step: int, loss: float) -> bool:
        """Judge the loss of one evaluation, in nats, after update `step`; whether it is time to stop.

        A loss that is no number is never an improvement.
        """
        if math.isfinite(loss):
            self._level = loss if self._level is None else self.smoothing * self._level + (1 - self.smoothing) * loss
        if math.isfinite(loss) and self._level < self.best_loss - self.min_delta:
            self.best_step, self.best_loss, self.waited = step, self._level, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def begin_again(self) -> None:
        """Wait anew, from the best: what has been judged since does not count."""
        self.waited, self._level = 0, self.best_loss if self.best_step is not None else None


class Rescue:
    """The rule at work in a training: it keeps the best weights, restarts from them with a smaller rate, gives them back.

    What it knows follows from the evaluations alone, so that a run which is resumed needs only them and `weights`.
    """

    def __init__(self, config: TrainConfig):
        self.rule = EarlyStopping(config.patience, config.min_delta, config.val_smoothing)
        self.restarts, self.factor = config.restarts, config.restart_factor
        self.over = False
        self.restarted: list[int] = []  # after which updates
        self.weights: dict[str, Tensor] | None = None

    @property
    def rate(self) -> float:
        """What the schedule's learning rate is multiplied by."""
        return self.factor ** len(self.restarted)

    def judge(self, row: dict[str, float], model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        """One evaluation, a row of the history: keep these weights, restart from better ones, or be over."""
        restarts_here = self._decide(row)
        if self.rule.best_step == row["step"]:
            self.weights = copy.deepcopy(model.state_dict())  # what is tied stays tied, and is kept once
        if restarts_here:
            self.give_back(model)
            for optimizer in optimizers:
                optimizer.state.clear()  # its momentum leads to where the loss rose

    def replay(self, rows: Iterable[dict[str, float]], weights: dict[str, Any] | None) -> None:
        """Stand where a run stood after these rows, with the best weights that it had kept."""
        self.weights = weights
        for row in rows:
            if "val_loss" in row:
                self._decide(row)

    def give_back(self, model: nn.Module) -> None:
        """Put the best weights into the model."""
        if self.weights is not None:
            model.load_state_dict(self.weights)

    def _decide(self, row: dict[str, float]) -> bool:
        """Whether this evaluation restarts the run."""
        if not self.rule.update(int(row["step"]), row["val_loss"]):
            return False
        self.over = len(self.restarted) == self.restarts
        if not self.over:
            self.restarted.append(int(row["step"]))
            self.rule.begin_again()
        return not self.over
