"""What a training run costs before it starts: parameters, operations, memory, hours and money.

Formulas only, no tensors: the published counts of operations (Kaplan et al. 2020; Hoffmann et al. 2022), what autograd
keeps for the model in `minigpt.model`, and the data of accelerators.toml, where every figure names its source.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from minigpt.config import GPTConfig, TrainConfig, nearest

FP32, BF16 = 4, 2  # bytes of one number
BYTES_PER_PARAMETER = 4 * FP32  # the weight, its gradient, and AdamW's two moments
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, table 3, rounded
# What glibc holds on to between blocks of many sizes, by bytes of a number: a share of Muon's step, logits and every
# block's activations, computed again or not. Seen beside `Memory.tensors`: 0.3 to 0.75 in fp32, 0.35 to 0.55 in bf16.
GAPS = {FP32: 0.65, BF16: 0.5}


def _matrices(config: GPTConfig) -> int:
    """Numbers in the matrices of one block: queries, keys and values, projection, MLP."""
    C, M, heads = config.n_embd, config.n_hidden, 2 * (config.n_head + config.n_kv_head) * config.head_dim
    return C * heads + (3 if config.mlp == "swiglu" else 2) * C * M


def _look_ups(config: GPTConfig) -> int:
    """Numbers in tables that are only read: positions, and the input's tokens where the output has its own table."""
    tables = config.vocab_size * (not config.tie_embedding) + config.context_length * (config.position == "learned")
    return tables * config.n_embd


def num_parameters(config: GPTConfig) -> int:
    """How many numbers training may change, as `GPT(config).num_parameters()` counts them; a tied table counts once."""
    C, M, D = config.n_embd, config.n_hidden, config.head_dim
    per_norm = 2 if config.norm == "layernorm" and config.bias else 1  # a gain, and with a bias a shift
    norms = 2 * C + 2 * D * config.qk_norm
    biases = (config.n_head + 2 * config.n_kv_head) * D + C + (2 if config.mlp == "swiglu" else 1) * M + C
    block = _matrices(config) + per_norm * norms + config.bias * biases
    return config.n_layer * block + per_norm * C + config.vocab_size * C + _look_ups(config)


def flops_per_token(config: GPTConfig) -> float:
    """Floating-point operations that one token costs in training, forward and backward (Kaplan et al. 2020, table 1).

    6 for each parameter that is multiplied: looking a token or a position up costs nothing, scoring the whole vocabulary
    does, so a tied table counts once. And 12 for each layer, position in the window and number per token, which is
    attention as if every token looked at the whole window. The causal half of it would be 6; the 12 are what tables of
    utilisation count (Chowdhery et al. 2022, appendix B).
    """
    attention = 12 * config.n_layer * config.context_length * config.n_head * config.head_dim
    return 6.0 * (num_parameters(config) - _look_ups(config)) + attention


def training_flops(parameters: float, tokens: float) -> float:
    """Floating-point operations of a whole run: 6 N D, attention left out (Kaplan et al. 2020, section 2.1)."""
    return 6.0 * parameters * tokens


def chinchilla_tokens(parameters: float) -> float:
    """How many tokens a model of this size is best trained on when operations are what is short: 20 N.

    Hoffmann et al. 2022, table 3, rounded. A model that many people will run is worth training on far more.
    """
    return TOKENS_PER_PARAMETER * float(parameters)


@dataclass(frozen=True)
class Memory:
    """Bytes that a training run holds at its peak, by what they are for. `str` gives a table."""

    weights: int
    gradients: int
    optimizer: int
    copies: int  # of the weights in bf16
    activations: int
    logits: int
    step: int  # of Muon, where it takes more than activations and logits did
    gaps: int  # between blocks of memory on a CPU, see GAPS

    @property
    def total(self) -> int:
        """What to have free before the run."""
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def tensors(self) -> int:
        """Without the gaps: what PyTorch asks for."""
        return self.total - self.gaps

    def __str__(self) -> str:
        rows = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return "\n".join(f"{name:12}{as_bytes(size):>10}" for name, size in [*rows, ("total", self.total)] if size)


def as_bytes(size: float) -> str:
    """A number of bytes for people, in powers of ten: 512 B, 38.2 MB, 2.8 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _setting(train: TrainConfig) -> tuple[int, bool]:
    """Bytes of one activation, and whether the run is on a CPU."""
    return BF16 if train.precision in ("bf16", "fp16") else FP32, train.device in ("cpu", "auto")


def block_activations(config: GPTConfig, train: TrainConfig) -> dict[str, int]:
    """Bytes that autograd keeps for each token in one block, by part, of windows as long as the context.

    In bf16 and fp16 the residual stream and what matrices read have 2 bytes a number. Attention never stores its weights,
    except in bf16 on a CPU (`minigpt.fused.attention`); there, each head gets keys and values of its own.
    """
    number, cpu = _setting(train)
    C, H, rmsnorm = config.n_embd, config.n_head, config.norm == "rmsnorm"
    Q, K = H * config.head_dim, config.n_kv_head * config.head_dim  # widths of all queries, of all keys
    stored, normed = cpu and number < FP32, number if cpu else FP32  # a GPU's autocast norms in fp32
    changed = config.position == "rotary" or config.qk_norm  # queries and keys are no longer what the matrix returned
    copied = cpu and not stored and config.qk_norm and not rmsnorm  # then it comes in an order that does not suit
    return {
        "norms": 2 * ((normed + number) * C + 2 * FP32),  # what goes in, and what the next matrix reads
        "queries, keys and values": number * (3 * Q if stored else Q + 2 * K + (Q + K) * changed),
        "their norms": normed * (Q + K + K * (stored and not rmsnorm)) * config.qk_norm * (number < FP32 or rmsnorm),
        "weights of attention": number * H * config.context_length * stored,
        "what attention returns": number * Q * (1 + copied) + FP32 * H * (not stored),
        "MLP": (4 if config.mlp == "swiglu" else 2) * number * config.n_hidden,
        "dropout": 2 * (number if cpu else 1) * C * (config.dropout > 0),
    }


def _muon_bytes(config: GPTConfig, number: int) -> int:
    """What Muon's step holds: updates (not of qkv), the MLP's stack three times with two squares, and the stack before."""
    C, M = config.n_embd, config.n_hidden
    updates = _matrices(config) - C * (config.n_head + 2 * config.n_kv_head) * config.head_dim
    stack = (3 * C * M + 2 * min(C, M) ** 2) * (2 if config.mlp == "swiglu" else 1)  # gate and up have one shape
    return config.n_layer * (FP32 * (updates + C * M) + number * stack)


def training_memory(config: GPTConfig, train: TrainConfig) -> Memory:
    """What training `config` as `train` says will hold at its peak, beyond what the process held before.

    Weights, gradients and moments are fp32: two moments for AdamW, one where Muon moves the matrices of blocks.
    Activations and logits are of one micro-batch. With `activation_checkpointing` each block keeps its input alone, and
    one at a time is computed again. "auto" counts as fp32 and as cpu: this module looks at no machine. On a CPU PyTorch's
    own count was 0.8 to 1.05 of `tensors`, and the process held 0.8 to 1.1 of `total` in runs of 100 to 1,200 MB, but two
    small runs of Muon in bf16 held 170 and 240 MB beside their tensors. On other devices nothing was measured.
    """
    number, cpu = _setting(train)
    tokens, C, V, L = train.batch_size * config.context_length, config.n_embd, config.vocab_size, config.n_layer
    parameters, matrices, muon = num_parameters(config), L * _matrices(config), train.optimizer == "muon"
    # log-softmax, on the way back two gradients at once, and the logits as they were before they were bent
    logits = V * (3 * FP32 + number * (config.logit_cap is not None))
    every = blocks = L * sum(block_activations(config, train).values())
    if train.activation_checkpointing:  # a block is there again, with gradients, when the logits are gone
        blocks = L * number * C + max(0, every // L + 2 * number * config.n_hidden - logits)
    ends = (2 * number if cpu else FP32 + number) * C + (FP32 if cpu else 1) * C * (config.dropout > 0) + 5 * 8
    copies = number * (matrices + V * C) * (number < FP32)
    activations, logits = tokens * (blocks + ends), tokens * logits
    step = max(0, _muon_bytes(config, number) * muon - copies - activations - logits)  # those are gone by then
    return Memory(
        weights=FP32 * parameters,
        gradients=FP32 * parameters,
        optimizer=FP32 * (2 * parameters - matrices * muon),
        copies=copies,
        activations=activations,
        logits=logits,
        step=step,
        gaps=int(cpu * GAPS[number] * (tokens * (every + ends) + logits + step)),
    )


@dataclass(frozen=True)
class Accelerator:
    """One device: peak of dense matrix products in bf16 or fp16, memory, and an assumed price, each with its source."""

    name: str
    teraflops: float
    memory_gb: float
    usd_per_hour: float
    source: str
    price: str


@dataclass(frozen=True)
class PublishedRun:
    """What somebody said of a run. None is what they did not say; `utilisation` is their own figure."""

    name: str
    parameters: float
    tokens: float
    source: str
    flops: float | None = None
    accelerator: str | None = None
    device_hours: float | None = None
    usd: float | None = None
    utilisation: float | None = None


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("accelerators.toml").read_text(encoding="utf-8"))


def accelerators() -> dict[str, Accelerator]:
    """The devices of accelerators.toml by short name: a100, h100, tpu-v5e and others."""
    return {name: Accelerator(**entry) for name, entry in _data()["accelerators"].items()}


def published_runs() -> dict[str, PublishedRun]:
    """The runs of accelerators.toml by name, from GPT-3 to a GPT-2 that cost 20 dollars."""
    return {entry["name"]: PublishedRun(**entry) for entry in _data()["published"]}


def _accelerator(wish: str | Accelerator) -> Accelerator:
    if isinstance(wish, Accelerator):
        return wish
    if wish not in accelerators():
        raise ValueError(f"there is no accelerator {wish!r}.{nearest(wish, list(accelerators()))}")
    return accelerators()[wish]


@dataclass(frozen=True)
class Bill:
    """What a run takes: operations, hours on the wall and of devices, dollars, and the memory that it cannot do without."""

    flops: float
    hours: float
    device_hours: float
    usd: float
    memory: float  # bytes of weights, gradients and moments
    devices_needed: int  # to hold them, before any activation
    count: int
    utilisation: float
    accelerator: Accelerator

    def __str__(self) -> str:
        device = self.accelerator
        time = f"{self.hours:,.1f} hours" if self.hours < 48 else f"{self.hours / 24:,.1f} days"
        plural = "device" if self.devices_needed == 1 else "devices"
        lines = [
            f"{self.flops:.2e} operations on {self.count:,} x {device.name} at {self.utilisation:.0%} of its peak",
            f"{time}, {self.device_hours:,.1f} device hours",
            f"{self.usd:,.2f} USD at {device.usd_per_hour:.2f} a device hour ({device.price})",
            f"{as_bytes(self.memory)} for weights, gradients and AdamW: {self.devices_needed:,} {plural} at least",
        ]
        return "\n".join(lines)


def bill(
    parameters: float, tokens: float, accelerator: str | Accelerator, utilisation: float = 0.4, count: int = 1
) -> Bill:
    """What it costs to train so many parameters on so many tokens.

    Args:
        parameters: of the model.
        tokens: that it reads, repeated ones counted each time.
        accelerator: a name of `accelerators()`, or a device of your own.
        utilisation: the share of the peak that useful arithmetic gets; `implied_utilisation` says what others got.
        count: devices that share the work, as if they shared it without loss.

    Raises:
        ValueError: an unknown accelerator, or a number that cannot be.
    """
    device = _accelerator(accelerator)
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation={utilisation} is not a share of the peak; use 0.2 to 0.6, as others got.")
    if not (parameters > 0 and tokens > 0 and count >= 1):
        raise ValueError(f"parameters={parameters}, tokens={tokens}, count={count}: all of them must be above 0.")
    flops, memory = training_flops(parameters, tokens), BYTES_PER_PARAMETER * float(parameters)
    device_hours = flops / (device.teraflops * 1e12 * utilisation) / 3600
    return Bill(
        flops=flops,
        hours=device_hours / count,
        device_hours=device_hours,
        usd=device_hours * device.usd_per_hour,
        memory=memory,
        devices_needed=math.ceil(memory / (device.memory_gb * 1e9)),
        count=count,
        utilisation=utilisation,
        accelerator=device,
    )


def implied_utilisation(run: PublishedRun) -> float:
    """The share of the peak that a published run's hours imply: 6 N D over hours x peak. Attention is not counted.

    Raises:
        ValueError: the run does not say on what, or for how long, it ran.
    """
    if run.accelerator is None or run.device_hours is None:
        raise ValueError(f"{run.name} was published without its hours; use a run that has device_hours.")
    peak = _accelerator(run.accelerator).teraflops * 1e12
    return training_flops(run.parameters, run.tokens) / (run.device_hours * 3600 * peak)
