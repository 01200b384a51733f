"""The base model in every form: bytes, perplexity and speed, beside fp32 in one run: what `minigpt bench compress` prints.

Perplexity is measured on windows that the model has not read; the interval is of the change, by the bootstrap over windows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt.hardware import machine
from minigpt.lab.experiments.compression_forms import forms, measured
from minigpt.metrics import bootstrap_interval


@dataclass(frozen=True)
class Compressed:
    """One line: shares of fp32's bytes in memory and on disk, the change of perplexity in percent, times fp32's speed."""

    name: str
    memory: float | None
    disk: float
    change: Any
    tokens_per_s: float
    times: float

    def __str__(self) -> str:
        memory = "    -" if self.memory is None else f"{self.memory:5.1%}"
        value, low, high = (100 * math.expm1(x) for x in (self.change.value, self.change.low, self.change.high))
        return (
            f"{self.name:24} memory {memory}  disk {self.disk:5.1%}  perplexity {value:+7.2f} % ({low:+.2f} to {high:+.2f})  "
            f"{self.tokens_per_s:7.1f} tokens/s, {self.times:.2f} times fp32"
        )


def bench_compress() -> Iterator[Any]:
    """Yield a line for each form: those in few bits, what `minigpt.lab.experiments.compression` trained, other programs."""
    yield machine()
    rows = list(measured(dict(forms())))
    whole = rows[0]
    for row in rows:
        change = bootstrap_interval(np.mean, np.subtract(row["losses"], whole["losses"]))
        yield Compressed(
            row["name"],
            row["memory"] and row["memory"] / whole["memory"],
            row["disk"] / whole["disk"],
            change,
            row["tokens_per_s"][0],
            row["tokens_per_s"][0] / whole["tokens_per_s"][0],
        )
