"""Every choice a run makes, as frozen dataclasses: the shape of a model, its training, its sampling.

Each field carries one sentence of documentation (`describe`), which widgets show as a tooltip. Values are checked
when a config is made, so a wrong number is refused before any work is done. This module knows nothing of tensors.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from dataclasses import dataclass
from typing import Any, Self


def _field(default: Any, doc: str) -> Any:
    return dataclasses.field(default=default, metadata={"doc": doc})


def nearest(word: str, known: list[str]) -> str:
    """The end of an error message: the closest known name as a question, then all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    question = f" Did you mean {close[0]!r}?" if close else ""
    return f"{question} Known: {', '.join(sorted(known))}."


class _Config:
    """What the three configs share: checked keyword names, JSON in and out, a changed copy."""

    @classmethod
    def make(cls, **values: Any) -> Self:
        """Build from keywords; an unknown one is a `ValueError` that suggests the nearest field."""
        names = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise ValueError(f"{cls.__name__} has no field {name!r}.{nearest(name, names)}")
        return cls(**values)

    @classmethod
    def describe(cls) -> dict[str, str]:
        """Field name to its one sentence of documentation."""
        return {f.name: f.metadata["doc"] for f in dataclasses.fields(cls)}

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        return cls.make(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again."""
        return self.make(**{f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changes)

    def _need(self, ok: bool, name: str, expected: str) -> None:
        if not ok:
            raise ValueError(f"{name}={getattr(self, name)!r} does not fit {type(self).__name__}: use {expected}.")

    def _choice(self, name: str, *choices: str) -> None:
        if getattr(self, name) not in choices:
            raise ValueError(
                f"{name}={getattr(self, name)!r} is unknown.{nearest(str(getattr(self, name)), [*choices])}"
            )


@dataclass(frozen=True)
class GPTConfig(_Config):
    """The shape of a GPT. `GPTConfig.gpt2(...)` and `GPTConfig.llama(...)` start from the two families' choices."""

    vocab_size: int = _field(65, "How many different tokens there are: the width of the output.")
    context_length: int = _field(128, "How many tokens the model sees at once.")
    n_layer: int = _field(4, "How many blocks are stacked.")
    n_head: int = _field(4, "How many attention heads each block has.")
    n_kv_head: int | None = _field(None, "Heads for keys and values, shared by groups of query heads; None is n_head.")
    n_embd: int = _field(128, "Width of the residual stream: how many numbers describe a token.")
    head_dim: int | None = _field(
        None, "Width of one attention head: how many numbers it has; None is n_embd / n_head."
    )
    n_hidden: int | None = _field(None, "Width inside the MLP; None is 4 n_embd, or about 8/3 n_embd for SwiGLU.")
    dropout: float = _field(0.0, "Share of what each layer adds that is set to zero in training, against overfitting.")
    label_smoothing: float = _field(
        0.0,
        "Share of each target's probability that training spreads over all tokens; its loss counts that.",
    )
    norm: str = _field("layernorm", "Normalisation of the residual stream: layernorm or rmsnorm.")
    position: str = _field("learned", "How order is told: learned (a vector per position) or rotary (turned pairs).")
    mlp: str = _field("gelu", "Non-linearity of the MLP: gelu, swiglu or relu2 (the square of what is above zero).")
    bias: bool = _field(True, "Whether linear layers add a bias.")
    qk_norm: bool = _field(False, "Whether queries and keys are normalised per head before they meet.")
    tie_embedding: bool = _field(True, "Whether input and output share one table of token vectors.")
    rope_theta: float = _field(10000.0, "Base of the rotary wavelengths; larger reaches further.")
    norm_eps: float = _field(1e-5, "Small number that keeps a norm from dividing by zero.")
    embed_std: float = _field(0.02, "Spread of the numbers that token vectors begin with.")
    zero_init: bool = _field(False, "Whether every layer begins by adding nothing: its last matrix starts at zero.")
    logit_cap: float | None = _field(
        None, "Bound that logits are bent towards, cap * tanh(logit / cap); None bends none."
    )

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context_length", "n_layer", "n_head", "n_embd"):
            self._need(isinstance(getattr(self, name), int) and getattr(self, name) > 0, name, "a whole number above 0")
        self._choice("norm", "layernorm", "rmsnorm")
        self._choice("position", "learned", "rotary")
        self._choice("mlp", "gelu", "swiglu", "relu2")
        self._need(self.logit_cap is None or self.logit_cap > 0, "logit_cap", "None or a number above 0, such as 15")
        self._need(0 <= self.dropout < 1, "dropout", "a share from 0 up to, not including, 1")
        self._need(0 <= self.label_smoothing < 1, "label_smoothing", "a share from 0 up to, not including, 1")
        self._need(self.embed_std > 0, "embed_std", "a number above 0, such as 0.02")
        self._need(self.norm_eps > 0, "norm_eps", "a small number above 0, such as 1e-5")
        if self.n_kv_head is None:
            object.__setattr__(self, "n_kv_head", self.n_head)
        if self.n_hidden is None:
            object.__setattr__(self, "n_hidden", self._default_hidden())
        self._need(self.n_hidden > 0, "n_hidden", "a whole number above 0")
        if self.head_dim is None and self.n_embd % self.n_head:
            raise ValueError(
                f"n_embd={self.n_embd} does not split into n_head={self.n_head} equal heads; use "
                f"n_embd={-(-self.n_embd // self.n_head) * self.n_head} or n_head={self._nearest_divisor()}."
            )
        if self.head_dim is None:
            object.__setattr__(self, "head_dim", self.n_embd // self.n_head)
        self._need(
            isinstance(self.head_dim, int) and self.head_dim > 0,
            "head_dim",
            "a whole number above 0, or None for n_embd / n_head",
        )
        if self.n_kv_head < 1 or self.n_head % self.n_kv_head:
            raise ValueError(
                f"n_kv_head={self.n_kv_head} does not share out n_head={self.n_head} query heads equally; "
                f"use one of {[h for h in range(1, self.n_head + 1) if self.n_head % h == 0]}."
            )
        if self.position == "rotary" and self.head_dim % 2:
            raise ValueError(
                f"rotary positions turn pairs of numbers, and head_dim={self.head_dim} is odd; "
                f"use head_dim={self.head_dim + 1} or position='learned'."
            )

    def _default_hidden(self) -> int:
        if self.mlp != "swiglu":
            return 4 * self.n_embd
        return -(-8 * self.n_embd // 3 // 32) * 32  # two thirds of 4 n_embd, rounded up to a multiple of 32

    def _nearest_divisor(self) -> int:
        divisors = [h for h in range(1, self.n_embd + 1) if self.n_embd % h == 0]
        return min(divisors, key=lambda h: abs(h - self.n_head))

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, checked again; heads that share n_embd out among them go on doing so."""
        shared_out = self.n_head * self.head_dim == self.n_embd
        return super().replace(**({"head_dim": None} if shared_out else {}) | changes)

    @classmethod
    def gpt2(cls, **sizes: Any) -> GPTConfig:
        """The classic family (Radford et al. 2019): LayerNorm, learned positions, GELU, biases."""
        return cls.make(**({"norm": "layernorm", "position": "learned", "mlp": "gelu", "bias": True} | sizes))

    @classmethod
    def llama(cls, **sizes: Any) -> GPTConfig:
        """The modern family (Touvron et al. 2023): RMSNorm, rotary positions, SwiGLU, no biases, grouped heads."""
        return cls.make(**({"norm": "rmsnorm", "position": "rotary", "mlp": "swiglu", "bias": False} | sizes))

    @classmethod
    def preset(cls, name: str, **sizes: Any) -> GPTConfig:
        """A named shape (`minigpt.config.PRESETS`), with fields of your own on top."""
        if name not in PRESETS:
            raise ValueError(f"there is no preset {name!r}.{nearest(name, list(PRESETS))}")
        family, preset_sizes = PRESETS[name]
        return getattr(cls, family)(**(preset_sizes | sizes))


def _gpt2(n_layer: int, n_head: int, n_embd: int, context_length: int = 1024) -> tuple[str, dict[str, Any]]:
    sizes = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "context_length": context_length}
    return "gpt2", sizes | {"vocab_size": 50257}


# Published shapes: Radford et al. 2019 (GPT-2), Brown et al. 2020, table 2.1 (GPT-3), Allal et al. 2025 (SmolLM2).
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": ("llama", {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}),
    "first": ("llama", {"n_layer": 4, "n_head": 4, "n_embd": 128, "context_length": 64}),
    "shakespeare": ("llama", {"n_layer": 6, "n_head": 6, "n_kv_head": 2, "n_embd": 192, "context_length": 256}),
    "gpt2-124m": _gpt2(12, 12, 768),
    "gpt2-350m": _gpt2(24, 16, 1024),
    "gpt2-774m": _gpt2(36, 20, 1280),
    "gpt2-1.5b": _gpt2(48, 25, 1600),
    "gpt3-175b": _gpt2(96, 96, 12288, 2048),
    "smollm2-135m": (
        "llama",
        {"n_layer": 30, "n_head": 9, "n_kv_head": 3, "n_embd": 576, "n_hidden": 1536}
        | {"context_length": 8192, "vocab_size": 49152, "rope_theta": 100000.0},
    ),
}


@dataclass(frozen=True)
class TrainConfig(_Config):
    """How a model is trained. A step is one optimiser update, on batch_size x grad_accum_steps windows."""

    max_steps: int = _field(500, "How many optimiser updates to make.")
    batch_size: int = _field(32, "Windows of text in one forward pass.")
    grad_accum_steps: int = _field(1, "Forward passes whose gradients are averaged into one update.")
    optimizer: str = _field("adamw", "adamw, or muon: Muon for the matrices in the blocks, AdamW for the rest.")
    learning_rate: float = _field(1e-3, "Largest step size, reached after the warm-up.")
    matrix_lr: float | None = _field(None, "Largest step size of Muon's matrices; None is learning_rate.")
    momentum: float = _field(0.95, "Muon's memory of the gradient.")
    schedule: str = _field("cosine", "How the step size falls: cosine, or wsd (level, then straight down at the end).")
    decay_share: float = _field(0.2, "Share of the updates over which wsd goes down at the end.")
    min_lr: float | None = _field(None, "Step size at the end of the run; None is a tenth of learning_rate.")
    warmup_steps: int = _field(20, "Updates over which the step size climbs from zero.")
    weight_decay: float = _field(0.1, "How strongly matrices are pulled towards zero; norms and biases are left alone.")
    betas: tuple[float, float] = _field((0.9, 0.95), "AdamW's memory of the gradient and of its square.")
    grad_clip: float | None = _field(1.0, "Longest gradient allowed; a longer one is shortened. None never clips.")
    eval_every: int = _field(100, "Updates between two evaluations on the validation set.")
    eval_batches: int | None = _field(20, "Batches in one evaluation, always the same ones; None is the whole set.")
    patience: int | None = _field(
        None,
        "Evaluations in a row without improvement after which the run ends, with its best weights; None never ends it.",
    )
    min_delta: float = _field(0.0, "Nats by which the validation loss must fall below its best to have improved.")
    val_smoothing: float = _field(
        0.0, "How much of its past goes into the validation loss that patience judges; the average lags behind."
    )
    restarts: int = _field(0, "How often patience goes back to the best weights with a smaller rate before it ends.")
    restart_factor: float = _field(0.5, "What the learning rate is multiplied by at each restart.")
    checkpoint_every: int | None = _field(None, "Updates between two checkpoints; None saves at evaluations.")
    seed: int = _field(0, "Fixes the order of the data and the dropout, so that a run can be repeated.")
    precision: str = _field("auto", "fp32, bf16, fp16, tf32, or auto: bf16 where there are instructions for it.")
    device: str = _field("auto", "cpu, cuda, mps, or auto: the fastest that this machine has.")
    compile: bool = _field(False, "Whether torch.compile fuses the model first: a minute's wait, then often faster.")
    activation_checkpointing: bool = _field(False, "Whether blocks are computed twice, to keep less in memory.")
    max_rise: float | None = _field(1.0, "The run stops when the loss climbs so many nats above its best; None never.")

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch_size", "grad_accum_steps", "eval_every"):
            self._need(isinstance(getattr(self, name), int) and getattr(self, name) > 0, name, "a whole number above 0")
        for name in ("eval_batches", "checkpoint_every", "patience"):
            value = getattr(self, name)
            self._need(value is None or (isinstance(value, int) and value > 0), name, "None or a whole number above 0")
        self._need(self.learning_rate > 0, "learning_rate", "a number above 0, such as 1e-3")
        if self.min_lr is None:
            object.__setattr__(self, "min_lr", self.learning_rate / 10)
        self._need(0 <= self.min_lr <= self.learning_rate, "min_lr", f"0 to learning_rate={self.learning_rate}")
        self._need(self.matrix_lr is None or self.matrix_lr > 0, "matrix_lr", "None or a number above 0, such as 1e-3")
        self._need(0 <= self.momentum < 1, "momentum", "a share from 0 up to, not including, 1")
        self._need(0 <= self.decay_share <= 1, "decay_share", "a share from 0 to 1")
        self._choice("optimizer", "adamw", "muon")
        self._choice("schedule", "cosine", "wsd")
        self._need(self.warmup_steps >= 0, "warmup_steps", "0 or more")
        self._need(self.weight_decay >= 0, "weight_decay", "0 or more")
        self._need(len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", "two numbers in [0, 1)")
        self._need(self.grad_clip is None or self.grad_clip > 0, "grad_clip", "None or a number above 0")
        self._need(self.max_rise is None or self.max_rise > 0, "max_rise", "None or a number above 0, such as 1.0")
        self._need(0 <= self.min_delta < math.inf, "min_delta", "0 or more nats, such as 0.002")
        self._need(0 <= self.val_smoothing < 1, "val_smoothing", "a share from 0 up to, not including, 1")
        self._need(isinstance(self.restarts, int) and self.restarts >= 0, "restarts", "a whole number from 0")
        self._need(0 < self.restart_factor <= 1, "restart_factor", "a number above 0, at most 1")
        for name in ("min_delta", "val_smoothing", "restarts"):
            unused = self.patience is None and getattr(self, name) != 0
            self._need(not unused, name, "it together with patience, such as patience=3, or 0")
        self._choice("precision", "auto", "fp32", "bf16", "fp16", "tf32")
        self._choice("device", "auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class SampleConfig(_Config):
    """How the next token is drawn from the model's probabilities."""

    max_new_tokens: int = _field(100, "How many tokens to write at most.")
    temperature: float = _field(
        1.0, "Below 1 the likely gets likelier, above 1 the unlikely; 0 always takes the likeliest."
    )
    top_k: int | None = _field(None, "Only the k likeliest tokens may be drawn; None allows all.")
    top_p: float | None = _field(None, "Only the likeliest tokens that together reach probability p may be drawn.")
    repetition_penalty: float = _field(1.0, "Above 1, tokens that were already used become less likely.")
    stop_tokens: tuple[int, ...] = _field((), "Writing ends after any of these token ids.")
    seed: int | None = _field(None, "The same seed writes the same text; None draws anew each time.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop_tokens", tuple(self.stop_tokens))
        self._need(isinstance(self.max_new_tokens, int) and self.max_new_tokens >= 0, "max_new_tokens", "0 or more")
        divides = self.temperature == 0 or self.temperature >= 1e-4  # what is divided by less overflows
        self._need(divides, "temperature", "0 (greedy) or a number from 0.0001 up, such as 0.8")
        self._need(self.top_k is None or self.top_k >= 1, "top_k", "None or a whole number from 1")
        self._need(self.top_p is None or 0 < self.top_p <= 1, "top_p", "None or a share above 0, at most 1")
        self._need(self.repetition_penalty > 0, "repetition_penalty", "a number above 0; 1 changes nothing")
