"""A model filled from tensors under other names, one after the other, so that no second copy of it is ever in memory.

A plan says of which of theirs each of our tensors is made: ours keeps queries, keys and values in one matrix `qkv`, where
most have three. This module knows nothing of files, and nothing of who "they" are.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minigpt.config import GPTConfig
from minigpt.model import GPT

Plan = dict[str, list[str]]


class Names(NamedTuple):
    """What others call our tensors: outside the blocks, the blocks themselves, and inside one."""

    outer: dict[str, str]
    blocks: str
    inner: dict[str, str]


class _WithoutNumbers(TorchFunctionMode):
    """Parameters of layers made here are on the device "meta": shapes that take no memory, and nothing is drawn for them."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__module__", None) == nn.init.__name__:
            return None
        return function(*args, **(kwargs or {}) | ({"device": "meta"} if function is torch.empty else {}))


def hollow(config: GPTConfig) -> GPT:
    """A model whose parameters are shapes without numbers; its rotary tables are real."""
    with _WithoutNumbers():
        return GPT(config)


def template(config: GPTConfig) -> dict[str, Tensor]:
    """The state dict of a hollow model. A tied head is left out."""
    tensors = hollow(config).state_dict()
    return {name: t for name, t in tensors.items() if not (name == "head.weight" and config.tie_embedding)}


def plan(config: GPTConfig, names: Names | None = None) -> Plan:
    """Each of our tensors with those of theirs that it is made of, one below the other. Without `names`, with itself."""
    made_of = {}
    for name in template(config):
        stem, _, leaf = name.rpartition(".")
        if names is None:
            made_of[name] = [name]
        elif not stem.startswith("blocks."):
            made_of[name] = [f"{names.outer[stem]}.{leaf}"]
        else:
            _, layer, inner = stem.split(".", 2)
            parts = [inner] if inner in names.inner else [inner.replace("qkv", letter) for letter in "qkv"]
            made_of[name] = [f"{names.blocks}.{layer}.{names.inner[part]}.{leaf}" for part in parts]
    return made_of


def take_apart(config: GPTConfig, plan: Plan, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, as views of ours."""
    rows = [heads * config.head_dim for heads in (config.n_head, config.n_kv_head, config.n_kv_head)]
    theirs: dict[str, Tensor] = {}
    for name, parts in plan.items():
        theirs |= zip(parts, ours[name].split(rows) if len(parts) > 1 else [ours[name]], strict=True)
    return theirs


def put_together(
    config: GPTConfig, plan: Plan, read: Callable[[str], Tensor], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Our state dict, copied: `read` gives one of their tensors, which may be let go of before the next is read.

    Raises:
        ValueError: a dtype that weights cannot have.
    """
    if not dtype.is_floating_point:
        raise ValueError(
            f"dtype={dtype} cannot hold weights; use torch.float32, or torch.bfloat16 for half the memory."
        )
    ours = {}
    for name, parts in plan.items():
        ours[name] = torch.cat([read(part) for part in parts], out=torch.empty(0, dtype=dtype))
    if config.tie_embedding:
        ours["head.weight"] = ours["token_embedding.weight"]
    return ours


def fit(expected: Mapping[str, Tensor], found: Mapping[str, Sequence[int]], ignored: Collection[str] = ()) -> None:
    """Compare the shapes found in a file with those that the config asks for, before anything is read.

    Raises:
        ValueError: all that is missing, unexpected (unless `ignored`) or of another shape, each named.
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys() - set(ignored))
    if missing or unexpected:
        raise ValueError(f"the weights do not fit the config. Missing: {missing}. Unexpected: {unexpected}.")
    shapes = {name: (tuple(found[name]), tuple(tensor.shape)) for name, tensor in expected.items()}
    wrong = [
        f"{name} has shape {there}; the config asks for {here}"
        for name, (there, here) in shapes.items()
        if there != here
    ]
    if wrong:
        raise ValueError(f"the weights do not fit the config: {', '.join(wrong)}.")


def from_own_weights(
    config: GPTConfig, stored: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Our state dict from a file with our own names, copied into `dtype`. Raises as `fit`."""
    fit(template(config), {name: tensor.shape for name, tensor in stored.items()})
    return put_together(config, plan(config), stored.__getitem__, dtype)


def check_floats(model: GPT, who: str) -> None:
    """ValueError for a quantized model, whose whole numbers `who`, such as "LoRA", does not read."""
    if model.quantization is not None:
        raise ValueError(
            f"the model is in {model.quantization.bits} bits, and {who} reads floating-point weights: give it "
            "minigpt.quantize.dequantize(model), or the model that it was made from."
        )


def build(config: GPTConfig, ours: Mapping[str, Tensor]) -> GPT:
    """The model that owns these very tensors, in evaluation mode. Its rotary tables are in fp32, whatever the weights are."""
    model = hollow(config)
    model.load_state_dict(ours, assign=True)
    if config.tie_embedding:
        model.head.weight = model.token_embedding.weight
    return model.eval()
