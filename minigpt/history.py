"""What a training did, a row per update, and those who watch it: a progress bar, TensorBoard."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    import pandas

    from minigpt.trainer import Trainer


class History:
    """What happened, a row per update: step, tokens, train_loss, learning_rate, grad_norm, seconds, at times val_loss.

    `seconds` counts training alone; evaluation and saving are left out, and add up in `eval_seconds`.
    `history["val_loss"]` gives (steps, values).
    """

    def __init__(self, rows: Sequence[dict[str, float]] = ()):
        self.rows = list(rows)
        self.stopped_early = False

    def __getitem__(self, name: str) -> tuple[list[int], list[float]]:
        rows = [row for row in self.rows if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def last(self, name: str) -> float:
        """The latest value of a column. ValueError when it was never recorded."""
        values = self[name][1]
        if not values:
            raise ValueError(f"no {name!r} was recorded; a run without val_data or stopped at once has none.")
        return values[-1]

    def best(self, name: str = "val_loss") -> tuple[int, float]:
        """The update at which a column was lowest, and its value then. ValueError when it was never recorded."""
        self.last(name)
        return min(zip(*self[name]), key=lambda found: found[1] if math.isfinite(found[1]) else math.inf)

    def tokens_per_second(self, skip: int = 0) -> float:
        """Training speed over the updates after the first `skip`, in tokens a second. ValueError without such updates."""
        if len(self.rows) <= skip:
            raise ValueError(f"there are {len(self.rows)} updates, and {skip} of them are to be left out.")
        first = self.rows[skip - 1] if skip else {"tokens": 0, "seconds": 0.0}
        return (self.last("tokens") - first["tokens"]) / (self.last("seconds") - first["seconds"])

    def table(self) -> pandas.DataFrame:
        """The rows as a table of pandas, to be sorted, plotted or written: `history.table().to_csv("run.csv")`."""
        import pandas

        return pandas.DataFrame(self.rows)

    def __repr__(self) -> str:
        if not self.rows:
            return "History of 0 updates"
        losses = [f"{name} {self.last(name):.3f}" for name in ("train_loss", "val_loss") if self[name][1]]
        return f"History of {self.rows[-1]['step']} updates: {', '.join(losses)}, {self.rows[-1]['seconds']:.1f} s"


class ProgressBar:
    """The default callback: one line of text with the losses."""

    def on_start(self, trainer: Trainer) -> None:
        self._bar = tqdm(total=trainer.config.max_steps, initial=trainer.step, desc="training", unit=" updates")

    def on_step(self, trainer: Trainer, row: dict[str, float]) -> None:
        self._bar.set_postfix({k: f"{row[k]:.3f}" for k in ("train_loss", "val_loss") if k in row}, refresh=False)
        self._bar.update(row["step"] - self._bar.n)

    def on_end(self, trainer: Trainer) -> None:
        self._bar.close()


class TensorBoard:
    """A callback that writes every column of the history for TensorBoard: `tensorboard --logdir FOLDER` shows it.

    Raises:
        ValueError: the package tensorboard is not installed.
    """

    def __init__(self, folder: str | PathLike):
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError("TensorBoard is not installed; run: pip install tensorboard, or leave this callback out.")
        self.folder = folder

    def on_start(self, trainer: Trainer) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(self.folder, purge_step=trainer.step + 1)

    def on_step(self, trainer: Trainer, row: dict[str, float]) -> None:
        for name in row.keys() - {"step"}:
            self._writer.add_scalar(name, row[name], row["step"])

    def on_end(self, trainer: Trainer) -> None:
        self._writer.close()


class StopAtLoss:
    """A callback that ends the training when the validation loss has come down to `target` nats per token."""

    def __init__(self, target: float):
        self.target = target

    def on_eval(self, trainer: Trainer, row: dict[str, float]) -> None:
        if row["val_loss"] <= self.target:
            trainer.stop()
