"""Training beside the classic recipe, the same step in plain PyTorch, and `transformers`: what `minigpt bench train` prints.

All speeds are at the field's configuration of 10.65 M parameters: 6 layers, 6 heads, width 384, a context of 256, 16
windows, GPT-2's block. They are measured in turn in one run, each as the median over updates after the first three.
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor

from minigpt.config import GPTConfig, TrainConfig
from minigpt.estimate import flops_per_token, training_memory
from minigpt.hardware import has_fast_bf16, machine, matmul_speed
from minigpt.model import GPT
from minigpt.speedrun import TARGETS, speedrun
from minigpt.trainer import Trainer

SHAPE = GPTConfig.gpt2(vocab_size=65, n_layer=6, n_head=6, n_embd=384, context_length=256)
BATCH_SIZE, WARM_UP = 16, 3
TOKENS = BATCH_SIZE * SHAPE.context_length  # in an update


@dataclass(frozen=True)
class Ratio:
    """One line: what was measured, ours and the other's figure, and how many times better ours is."""

    what: str
    ours: float
    other: float
    unit: str
    times: float

    def __str__(self) -> str:
        return f"{self.what}: {self.ours:,.4g} against {self.other:,.4g} {self.unit}: {self.times:.2f} times"


class RandomText:
    """Windows of random tokens: speed does not depend on what the text says."""

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """idx and targets, both (B, T), the same for the same step."""
        generator = torch.Generator().manual_seed(step)
        idx = torch.randint(SHAPE.vocab_size, (batch_size, SHAPE.context_length), generator=generator)
        return idx, idx.roll(-1, dims=1)


class Clock:
    """Notes when each update ended, for so many seconds; as a callback it stops the training then."""

    def __init__(self, seconds: float):
        self.seconds, self.ends = seconds, [time.perf_counter()]

    def tick(self) -> bool:
        """Note the end of an update; whether it was the last."""
        self.ends.append(time.perf_counter())
        return len(self.ends) > WARM_UP + 2 and self.ends[-1] - self.ends[0] > self.seconds

    def on_step(self, trainer: Trainer, row: dict[str, float]) -> None:
        if self.tick():
            trainer.stop()

    def tokens_per_second(self) -> float:
        """The median over the updates after the first few."""
        return TOKENS / median([end - start for start, end in itertools.pairwise(self.ends)][WARM_UP:])


def _ours(seconds: float) -> float:
    clock = Clock(seconds)
    config = TrainConfig(max_steps=10_000, batch_size=BATCH_SIZE, device="cpu", eval_every=10_000)
    Trainer(GPT(SHAPE), RandomText(), None, config, [clock]).fit()
    return clock.tokens_per_second()


def _plain(seconds: float) -> float:
    """The step as a first loop has it: fp32, AdamW as PyTorch gives it, nothing else."""
    model, data = GPT(SHAPE).train(), RandomText()
    optimizer, clock, done = torch.optim.AdamW(model.parameters(), lr=1e-3), Clock(seconds), False
    while not done:
        loss = model(*data.batch(len(clock.ends), BATCH_SIZE))[1]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        done = clock.tick()
    return clock.tokens_per_second()


def _transformers(seconds: float) -> float:
    """GPT2LMHeadModel of the same shape, without dropout as ours, in Trainer with its defaults."""
    import transformers

    config = transformers.GPT2Config(
        vocab_size=SHAPE.vocab_size, n_positions=SHAPE.context_length, n_embd=SHAPE.n_embd, n_layer=SHAPE.n_layer,
        n_head=SHAPE.n_head, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    clock = Clock(seconds)

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = clock.tick()

    windows = RandomText().batch(0, 64)[0]
    rows = [{"input_ids": window, "labels": window} for window in windows]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = transformers.TrainingArguments(
            folder, per_device_train_batch_size=BATCH_SIZE, max_steps=10_000, use_cpu=True, report_to=[],
            save_strategy="no", disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        model = transformers.GPT2LMHeadModel(config)
        transformers.Trainer(model, arguments, train_dataset=rows, callbacks=[Watch()]).train()
    return clock.tokens_per_second()


def _memory() -> Ratio:
    """Peak of the process during training, beyond what it held before, against the estimate."""
    from minigpt.course import MemoryMeter

    config = TrainConfig(
        max_steps=8,
        batch_size=BATCH_SIZE,
        device="cpu",
        precision="bf16" if has_fast_bf16(torch.device("cpu")) else "fp32",
    )
    estimate = training_memory(SHAPE, config).total
    gc.collect()
    with MemoryMeter(os.getpid()) as meter:
        before = meter.peak
        Trainer(GPT(SHAPE), RandomText(), None, config, []).fit()
    measured = meter.peak - before
    return Ratio(
        "memory for training, measured against the estimate", measured / 1e9, estimate / 1e9, "GB", measured / estimate
    )


def bench_train(seconds: float = 20.0, speedruns: bool = True) -> Iterator[Any]:
    """Yield a line for each comparison; `speedruns` adds the runs to a loss, which take some minutes.

    Args:
        seconds: of training for each speed.
    """
    yield machine()
    if importlib.util.find_spec("psutil"):
        yield _memory()
    ours = _ours(seconds)
    yield _ratio("Trainer against the plain step in fp32", ours, _plain(seconds))
    if importlib.util.find_spec("accelerate"):
        yield _ratio("Trainer against transformers' Trainer", ours, _transformers(seconds))
    bf16 = has_fast_bf16(torch.device("cpu"))
    peak = 1e9 * matmul_speed(torch.bfloat16 if bf16 else torch.float32, torch.device("cpu"))
    used = ours * flops_per_token(SHAPE)
    yield Ratio("useful arithmetic against a matrix product's", used / 1e9, peak / 1e9, "GFLOP/s", used / peak)
    if speedruns:
        yield from _speedruns()


def _ratio(what: str, ours: float, other: float) -> Ratio:
    return Ratio(what, ours, other, "tokens/s", ours / other)


def _speedruns() -> Iterator[Any]:
    target = TARGETS["fast-1.88"]
    fast, classic = speedrun("fast-1.88", target), speedrun("baseline", target)
    yield fast
    yield classic
    yield Ratio(f"seconds to {target}", fast.seconds, classic.seconds, "s", classic.seconds / fast.seconds)
    yield speedrun("fast-1.47", TARGETS["fast-1.47"])
