"""The training loop: batches in, updates out, with evaluation, history, callbacks, checkpoints and exact resume.

It knows nothing of GPT or of text. It takes a model whose `model(idx, targets)` returns (anything, loss), and data with
`batch(step, batch_size)` and `windows(batch_size, max_batches)` such as `minigpt.corpus.batching.TokenData`.
"""

from __future__ import annotations

import math
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

from minigpt.config import TrainConfig
from minigpt.early_stopping import Rescue
from minigpt.evaluate import evaluate_loss
from minigpt.hardware import has_fast_bf16, pick_device, pick_precision, release_memory
from minigpt.history import History, ProgressBar
from minigpt.interruption import asked_by_signals
from minigpt.optim import learning_rate_at, make_optimizers
from minigpt.resume import RESUME_FILE, load_state, save_state

SMOOTHING = 0.9  # of the training loss, before a rise is called one
IGNORED = -100  # a target that does not count


class TrainingDiverged(RuntimeError):
    """The loss or the gradient stopped being a number, or the loss climbed far above its best."""


class Data(Protocol):
    """What the loop asks of its data."""

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]: ...
    def windows(self, batch_size: int, max_batches: int | None = None) -> Iterator[tuple[Tensor, Tensor]]: ...


class Trainer:
    """Trains `model` on `train_data` as `config` says; `fit` returns the History.

    A callback is any object with some of on_start(trainer), on_step(trainer, row), on_eval(trainer, row),
    on_end(trainer). The default is a progress bar; `callbacks=[]` is silent. With a `folder`, a checkpoint that
    resumes bit for bit is kept there. Ctrl-C (the stop button in Jupyter) or SIGTERM ends the run after the current
    update, saves, and returns what was done; a second one ends it at once.

    With `patience` in the config the run ends when the validation loss no longer improves, and the model has its best
    weights then. `rescue` is None without; a run that is interrupted keeps its last weights, to go on from them, and
    `rescue.weights` holds the best.

    Raises:
        ValueError: a device or a precision that is not there, a model of which nothing can be trained, activation
            checkpointing for a model without it, or patience without val_data.
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
        self.config = config = config or TrainConfig()
        self.device = pick_device(config.device)
        self.precision = pick_precision(config.precision, self.device)
        self.model = model.to(self.device)
        self.train_data, self.val_data = train_data, val_data
        self.callbacks = [ProgressBar()] if callbacks is None else list(callbacks)
        self.folder = Path(folder) if folder is not None else None
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ValueError(
                "nothing in this model can be trained: every parameter stands still, as those of a quantized model do. Train "
                "the model that it was made from, or let parameters be trained: model.requires_grad_(True)."
            )
        if config.activation_checkpointing and not hasattr(model, "activation_checkpointing"):
            raise ValueError(f"{type(model).__name__} cannot compute its blocks twice: activation_checkpointing=False.")
        self.optimizers = make_optimizers(
            model, config, torch.bfloat16 if has_fast_bf16(self.device) else torch.float32
        )
        if config.patience is not None and val_data is None:
            raise ValueError(f"patience={config.patience} judges the validation loss: give the Trainer val_data.")
        self.rescue = Rescue(config) if config.patience is not None else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.history = History()
        self.step = 0
        self._forward: Any = self.model
        self._stop = threading.Event()

    def stop(self) -> None:
        """Ask for a clean end after the current update; may be called from any thread."""
        self._stop.set()

    def fit(self, resume: bool = False) -> History:
        """Run to `max_steps`; with `resume`, go on from the checkpoint in `folder` if there is one.

        Raises:
            TrainingDiverged: the loss or the gradient became NaN or infinite, or the loss rose by `max_rise`.
            ValueError: the folder holds another run, or its checkpoint belongs to other settings.
        """
        self._stop.clear()
        self.history.stopped_early = False
        products = torch.get_float32_matmul_precision()
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(self.config.seed)
            self._open_folder(resume)
            if self.precision == "tf32":
                torch.set_float32_matmul_precision("high")
            with asked_by_signals(self.stop), self._recomputing():
                self._call("on_start")
                try:
                    self._compile()
                    self._loop()
                finally:
                    torch.set_float32_matmul_precision(products)
                    self._call("on_end")
                    release_memory()
        return self.history

    def _loop(self) -> None:
        config, saved_at = self.config, self.step
        self._level, self._lowest = None, math.inf  # the smoothed loss, and its best
        for row in self.history.rows:
            self._watch(row)
        self.model.train()
        try:
            while self.step < config.max_steps and not self._stop.is_set() and not self._is_over():
                row = self._update()
                self.history.rows.append(row)
                due = self.step % config.eval_every == 0 or self.step == config.max_steps
                if due and self.val_data is not None:
                    started = time.perf_counter()
                    row["val_loss"] = self.evaluate()
                    row["eval_seconds"] = time.perf_counter() - started
                self._call("on_step", row)
                if "val_loss" in row:
                    self._call("on_eval", row)
                    if self.rescue is not None:
                        self.rescue.judge(row, self.model, self.optimizers)
                self._check_rise(row)
                if self.step % (config.checkpoint_every or config.eval_every) == 0 or self.step == config.max_steps:
                    saved_at = self._save(saved_at)
        finally:
            self.history.stopped_early = self.step < config.max_steps
            self.model.eval()
        if saved_at != self.step:
            self._save(saved_at)
        if self.rescue is not None and (self._is_over() or self.step == config.max_steps):
            self.rescue.give_back(self.model)

    def _is_over(self) -> bool:
        return self.rescue is not None and self.rescue.over

    def _update(self) -> dict[str, float]:
        config, started = self.config, time.perf_counter()
        learning_rate = learning_rate_at(self.step, config) * (self.rescue.rate if self.rescue else 1.0)
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate * group["ratio"]
        train_loss, tokens = self._accumulate()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        longest = config.grad_clip or math.inf
        grad_norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), longest))
        overflow = self.scaler.is_enabled() and not math.isfinite(grad_norm)  # fp16: the scaler skips and scales down
        if not math.isfinite(train_loss) or not (math.isfinite(grad_norm) or overflow):
            self._zero_grad()
            raise TrainingDiverged(
                f"at update {self.step + 1} the loss is {train_loss} and the gradient's length {grad_norm}. The weights are "
                f"those before this update{self._kept()}. {self._advice(learning_rate)}"
            )
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self._zero_grad()
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

    def _accumulate(self) -> tuple[float, int]:
        """Gradients of one update: each micro-batch weighs by the targets that count in it, as in one large batch."""
        n, first = self.config.grad_accum_steps, self.step * self.config.grad_accum_steps
        batches = [self.train_data.batch(first + micro, self.config.batch_size) for micro in range(n)]
        counts = [int((targets != IGNORED).sum()) for _, targets in batches] if n > 1 else [1]
        train_loss, tokens = 0.0, 0
        for (idx, targets), count in zip(batches, counts):
            with self.autocast():
                loss = self._forward(*(t.to(self.device, non_blocking=True) for t in (idx, targets)))[1]
            loss = loss * (count / max(1, sum(counts))) if n > 1 else loss
            self.scaler.scale(loss).backward()
            train_loss, tokens = train_loss + float(loss.detach()), tokens + idx.numel()
        return train_loss, tokens

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _watch(self, row: dict[str, float]) -> None:
        loss = row["train_loss"]
        self._level = loss if self._level is None else SMOOTHING * self._level + (1 - SMOOTHING) * loss
        self._lowest = min(self._lowest, self._level)
        if self.rescue is not None and row["step"] in self.rescue.restarted:
            self._level, self._lowest = None, math.inf  # the weights are older now, and their training loss is higher

    def _rise(self) -> float:
        return 0.0 if self._level is None else self._level - self._lowest

    def _check_rise(self, row: dict[str, float]) -> None:
        self._watch(row)
        if self._rise() > (self.config.max_rise or math.inf):
            raise TrainingDiverged(
                f"at update {self.step} the loss, averaged over the last ten, is {self._level:.2f}, and it had come down to "
                f"{self._lowest:.2f}{self._kept()}. {self._advice(row['learning_rate'])} (max_rise=None goes on.)"
            )

    def _advice(self, learning_rate: float) -> str:
        clip = "" if self.config.grad_clip else "grad_clip=1.0, "
        return f"Try a learning_rate below {learning_rate:.2g}, a longer warm-up, {clip}or precision='fp32'."

    def evaluate(self, model: nn.Module | None = None) -> float:
        """Loss on the validation set in nats per token, of the model or another: always the same windows, no dropout."""
        batches = self.val_data.windows(self.config.batch_size, self.config.eval_batches)
        return evaluate_loss(model or self.model, batches, self.autocast())

    def autocast(self) -> AbstractContextManager:
        """The context in which the model computes in this run's precision."""
        if self.precision in ("fp32", "tf32"):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.precision == "bf16" else torch.float16)

    def _compile(self) -> None:
        """With `compile`, fuse the model by trying one batch; where that fails, warn and go on without."""
        if not self.config.compile:
            return
        state = torch.get_rng_state()
        try:
            self._forward = torch.compile(self.model.train())
            self._accumulate()
        except Exception as error:  # a missing compiler, an old processor: torch has many ways to say so
            self._forward = self.model
            warnings.warn(f"torch.compile does not work here, and training goes on without: {error}", stacklevel=3)
        finally:
            self._zero_grad()
            torch.set_rng_state(state)

    def _kept(self) -> str:
        return f", and {RESUME_FILE} in {self.folder.name} holds the last checkpoint" if self.folder else ""

    def _call(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            if hasattr(callback, event):
                getattr(callback, event)(self, *arguments)

    @contextmanager
    def _recomputing(self) -> Iterator[None]:
        if self.config.activation_checkpointing:
            self.model.activation_checkpointing = True
        try:
            yield
        finally:
            if self.config.activation_checkpointing:
                self.model.activation_checkpointing = False

    def _open_folder(self, resume: bool) -> None:
        path = self.folder / RESUME_FILE if self.folder else None
        if path is None or self.step or not path.exists():
            return  # a trainer that goes on after a stop has everything in memory
        if not resume:
            raise ValueError(
                f"{self.folder} already holds a run; fit(resume=True) goes on with it, or choose another folder."
            )
        load_state(self)

    def _save(self, saved_at: int) -> int:
        """Keep a checkpoint, unless the loss is on its way up; returns the step that the file now holds."""
        rising = self._rise() > (self.config.max_rise or math.inf) / 2
        if self.folder is None:
            return self.step
        return self.step if not rising and save_state(self) else saved_at
