"""The training loop: batches in, updates out, with evaluation, history, callbacks, checkpoints and exact resume.

It knows nothing of GPT or of text. It takes a model whose `model(idx, targets)` returns (anything, loss), and data with
`batch(step, batch_size)` and `windows(batch_size, max_batches)` such as `minigpt.corpus.batching.TokenData`.
"""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from minigpt.config import TrainConfig
from minigpt.evaluate import evaluate_loss
from minigpt.files import write_atomically
from minigpt.optim import learning_rate_at, make_optimizer

RESUME_FILE = "resume.pt"


class TrainingDiverged(RuntimeError):
    """The loss or the gradient stopped being a number. The weights are those before the update that would have spoiled."""


class Data(Protocol):
    """What the loop asks of its data."""

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]: ...
    def windows(self, batch_size: int, max_batches: int | None = None) -> Iterator[tuple[Tensor, Tensor]]: ...


class History:
    """What happened, a row per update: step, tokens, train_loss, learning_rate, grad_norm, seconds, at times val_loss.

    `seconds` counts training alone; evaluation and saving are left out. `history["val_loss"]` gives (steps, values).
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


def pick_device(wish: str = "auto") -> torch.device:
    """The device named, or the fastest there is. ValueError when the one named is not there."""
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wish != "auto" and not present[wish]:
        raise ValueError(
            f"device={wish!r} is not available here; use 'auto' or one of {[d for d in present if present[d]]}."
        )
    return torch.device(next(d for d in present if present[d]) if wish == "auto" else wish)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 has instructions of its own: AMX or AVX512-BF16 on CPUs, Ampere and later on NVIDIA."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    present = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and any(present.get(name) for name in ("amx_bf16", "avx512_bf16"))


class Trainer:
    """Trains `model` on `train_data` as `config` says; `fit` returns the History.

    A callback is any object with some of on_start(trainer), on_step(trainer, row), on_eval(trainer, row),
    on_end(trainer). The default is a progress bar; `callbacks=[]` is silent. With a `folder`, a checkpoint that
    resumes bit for bit is kept there. Ctrl-C (the stop button in Jupyter) or SIGTERM ends the run after the current
    update, saves, and returns what was done; a second one ends it at once.
    """

    def __init__(
        self,
        model: nn.Module,
        train_data: Data,
        val_data: Data | None = None,
        config: TrainConfig | None = None,
        callbacks: Sequence[Any] | None = None,
        folder: str | PathLike | None = None,
    ):
        self.config = config or TrainConfig()
        self.device = pick_device(self.config.device)
        self.model = model.to(self.device)
        self.train_data, self.val_data = train_data, val_data
        self.callbacks = [ProgressBar()] if callbacks is None else list(callbacks)
        self.folder = Path(folder) if folder is not None else None
        self.optimizer = make_optimizer(model, self.config)
        self.history = History()
        self.step = 0
        self._stop = threading.Event()
        wish = self.config.precision
        self.precision = ("bf16" if has_fast_bf16(self.device) else "fp32") if wish == "auto" else wish

    def stop(self) -> None:
        """Ask for a clean end after the current update; may be called from any thread."""
        self._stop.set()

    def fit(self, resume: bool = False) -> History:
        """Run to `max_steps`; with `resume`, go on from the checkpoint in `folder` if there is one.

        Raises:
            TrainingDiverged: the loss or the gradient became NaN or infinite.
            ValueError: the folder holds another run, or its checkpoint belongs to other settings.
        """
        self._stop.clear()
        self.history.stopped_early = False
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            self._open_folder(resume)
            with self._stop_on_signals():
                self._call("on_start")
                try:
                    self._loop()
                finally:
                    self._call("on_end")
        return self.history

    def _loop(self) -> None:
        config, saved_at = self.config, self.step
        self.model.train()
        try:
            while self.step < config.max_steps and not self._stop.is_set():
                row = self._update()
                self.history.rows.append(row)
                due = self.step % config.eval_every == 0 or self.step == config.max_steps
                if due and self.val_data is not None:
                    row["val_loss"] = self.evaluate()
                self._call("on_step", row)
                if "val_loss" in row:
                    self._call("on_eval", row)
                if self.step % (config.checkpoint_every or config.eval_every) == 0 or self.step == config.max_steps:
                    saved_at = self._save(saved_at)
        finally:
            self.history.stopped_early = self.step < config.max_steps
            self.model.eval()
        if saved_at != self.step:
            self._save(saved_at)

    def _update(self) -> dict[str, float]:
        config, started = self.config, time.perf_counter()
        learning_rate = learning_rate_at(self.step, config)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        train_loss, tokens = 0.0, 0
        for micro in range(config.grad_accum_steps):
            batch = self.train_data.batch(self.step * config.grad_accum_steps + micro, config.batch_size)
            idx, targets = (t.to(self.device, non_blocking=True) for t in batch)
            with self._autocast():
                loss = self.model(idx, targets)[1] / config.grad_accum_steps
            loss.backward()
            train_loss, tokens = train_loss + float(loss.detach()), tokens + idx.numel()
        longest = config.grad_clip or math.inf
        grad_norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), longest))
        if not (math.isfinite(train_loss) and math.isfinite(grad_norm)):
            self.optimizer.zero_grad(set_to_none=True)
            raise TrainingDiverged(
                f"at update {self.step + 1} the loss is {train_loss} and the gradient's length {grad_norm}. The weights are "
                f"those before this update{self._kept()}. Try a learning_rate below {learning_rate:.2g}, a longer warm-up, "
                f"{'' if config.grad_clip else 'grad_clip=1.0, '}or precision='fp32'."
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        past = self.history.rows[-1] if self.history.rows else {"tokens": 0, "seconds": 0.0}
        return {
            "step": self.step,
            "tokens": past["tokens"] + tokens,
            "train_loss": train_loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "seconds": past["seconds"] + time.perf_counter() - started,
        }

    def evaluate(self) -> float:
        """Loss on the validation set in nats per token: always the same windows, without dropout."""
        batches = self.val_data.windows(self.config.batch_size, self.config.eval_batches)
        return evaluate_loss(self.model, batches, self._autocast())

    def _autocast(self) -> AbstractContextManager:
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _kept(self) -> str:
        return f", and {RESUME_FILE} in {self.folder.name} holds the last checkpoint" if self.folder else ""

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if hasattr(callback, event):
                getattr(callback, event)(self, *arguments)

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: Any) -> None:
            self.stop()
            restore()  # a second signal acts as it would have without us

        def restore() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            restore()

    def _open_folder(self, resume: bool) -> None:
        path = self.folder / RESUME_FILE if self.folder else None
        if path is None or self.step or not path.exists():
            return  # a trainer that goes on after a stop has everything in memory
        if not resume:
            raise ValueError(
                f"{self.folder} already holds a run; fit(resume=True) goes on with it, or choose another folder."
            )
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # torch reports a damaged file in many types
            raise ValueError(f"{path} is damaged ({error}); remove it to begin again.") from error
        shapes = ({k: list(v.shape) for k, v in w.items()} for w in (state["model"], self.model.state_dict()))
        theirs, ours = state["config"] | next(shapes), self.config.to_dict() | next(shapes)
        names = [name for name in theirs | ours if theirs.get(name) != ours.get(name)]
        if names:
            changed = "; ".join(f"{name}: {theirs.get(name)} there, {ours.get(name)} here" for name in names[:4])
            raise ValueError(f"the run in {self.folder} was begun with other settings ({changed}).")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = History(state["rows"])
        self.step = state["step"]
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(state["random_cuda"].cpu(), self.device)

    def _save(self, saved_at: int) -> int:
        """Write the resume checkpoint; returns the step that the file now holds. A full disk does not end the run."""
        if self.folder is None:
            return self.step
        state = {
            "config": self.config.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rows": self.history.rows,
            "step": self.step,
            "random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["random_cuda"] = torch.cuda.get_rng_state(self.device)
        try:
            write_atomically(self.folder, {RESUME_FILE: lambda path: torch.save(state, path)})
        except OSError as error:
            warnings.warn(f"training goes on without a checkpoint of step {self.step}: {error}", stacklevel=2)
            return saved_at
        return self.step
