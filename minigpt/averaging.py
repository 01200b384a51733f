"""The mean of the weights along the way, as a callback: steadier than the last ones of a run that jumps about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from minigpt.trainer import Trainer


class WeightAverage:
    """A callback that keeps an exponential moving average of the weights (Polyak & Juditsky 1992; torch's `AveragedModel`).

    `model` is the averaged model, None before the first update. Each evaluation adds `average_val_loss` to the history,
    in nats per token. A run that goes on in a new process begins its average anew.

    Args:
        decay: share of the old average that stays at each update; 0.98 looks back over about 50 updates.

    Raises:
        ValueError: a decay outside 0 to 1.
    """

    def __init__(self, decay: float = 0.98):
        if not 0 < decay < 1:
            raise ValueError(f"decay={decay} must lie between 0 and 1; 0.98 averages over about 50 updates.")
        self.decay = decay
        self.model: nn.Module | None = None

    def on_step(self, trainer: Trainer, row: dict[str, float]) -> None:
        if self.model is None:
            self._average = AveragedModel(trainer.model, multi_avg_fn=get_ema_multi_avg_fn(self.decay))
            self.model = self._average.module
        self._average.update_parameters(trainer.model)

    def on_eval(self, trainer: Trainer, row: dict[str, float]) -> None:
        row["average_val_loss"] = trainer.evaluate(self.model)

    def on_end(self, trainer: Trainer) -> None:
        if self.model is not None:
            self.model.eval()
