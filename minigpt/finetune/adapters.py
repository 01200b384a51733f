"""An adapter on disk, as `peft` keeps it: adapter_config.json and adapter_model.safetensors, a few hundred kilobytes.

What is saved here opens in `peft` on the same model in the Hugging Face layout, and the other way round.
"""

from __future__ import annotations

import json
import math
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minigpt.files import as_text, write_atomically
from minigpt.finetune.classifier import Classifier
from minigpt.finetune.lora import EMBEDDING, LoRAEmbedding, add_lora, body, lora_layers, places, replace_layers
from minigpt.interop import NAMES, Names, architecture
from minigpt.model import GPT

PREFIX = "base_model.model."
SCORE = f"{PREFIX}score.weight"
FROZEN = "embed_tokens.base_layer.weight", "wte.base_layer.weight"  # `peft` puts an adapted table into the file as well
REFUSED = {  # options of `peft` that change what an adapter computes, with the values that change nothing
    "bias": ("none",),
    "use_dora": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
    "layers_to_transform": (None,),
    "modules_to_save": (None, [], ["score"], ["classifier", "score"]),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),  # others change the weights below
}


def _names(model: GPT | Classifier) -> Names:
    """What `transformers` calls our tensors. ValueError for a model that it does not have."""
    config = body(model).config
    kind = architecture(config)
    if kind is None:
        raise ValueError(
            f"no model of transformers is like this one (position={config.position}, mlp={config.mlp}, norm={config.norm}), "
            "so that no adapter file can name its matrices; merge_lora(model) and save the whole model."
        )
    return NAMES["gpt2" if kind == "gpt2" else "llama"]


def _theirs(model: GPT | Classifier) -> dict[str, str]:
    """Our target names to those of `transformers`."""
    names = _names(model)
    ours = {n: f"attention.{n}" if n in "qkv" else n.replace("_", ".") for n in places(body(model).config)}
    theirs = {target: names.inner[name] for target, name in ours.items()}
    return theirs | {EMBEDDING: names.outer["token_embedding"].rpartition(".")[2]}


def _matrices(model: GPT | Classifier) -> dict[str, Tensor]:
    """Every A and B under the name that `peft` gives it, not copied, and a classifier's `score`."""
    theirs, names, found = _theirs(model), _names(model), {}
    for path, layer in lora_layers(body(model)):
        if isinstance(layer, LoRAEmbedding):
            key = f"{PREFIX}{names.outer['token_embedding']}.lora_embedding"
            found |= {f"{key}_A": layer.A.data, f"{key}_B": layer.B.data}
            continue
        for part in layer.parts:
            key = f"{PREFIX}{names.blocks}.{path.split('.')[1]}.{theirs[part]}.lora"
            found |= {f"{key}_A.weight": layer.A[part].data, f"{key}_B.weight": layer.B[part].data}
    return found | ({SCORE: model.score.weight.data} if isinstance(model, Classifier) else {})


def save_adapter(model: GPT | Classifier, folder: str | PathLike, base: str | None = None) -> None:
    """Write the adapter of a model, and the `score` of a classifier, without the weights that stand still.

    Args:
        base: where the model is that the adapter belongs to, for those who open it.

    Raises:
        ValueError: a model without adapters, or one of a shape that `transformers` does not have.
        OSError: the disk is full; what was saved before is kept.
    """
    layers = [layer for _, layer in lora_layers(model)]
    if not layers:
        raise ValueError("the model has no adapter to save; add_lora(model) puts one there.")
    names, first = _theirs(model), layers[0]
    adapted = {p for layer in layers for p in ([EMBEDDING] if isinstance(layer, LoRAEmbedding) else layer.parts)}
    classifies = isinstance(model, Classifier)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if classifies else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": first.rank,
        "lora_alpha": first.scale * first.rank,
        "lora_dropout": first.dropout,
        "target_modules": [theirs for name, theirs in names.items() if name in adapted],
        "modules_to_save": ["score"] if classifies else None,
        "fan_in_fan_out": architecture(body(model).config) == "gpt2",
        "bias": "none",
        "inference_mode": True,
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in _matrices(model).items()}
    write_atomically(
        Path(folder),
        {
            "adapter_model.safetensors": lambda path: save_file(weights, path, metadata={"format": "pt"}),
            "adapter_config.json": as_text(json.dumps(config, indent=2)),
        },
    )


def load_adapter(model: GPT | Classifier, folder: str | PathLike) -> None:
    """Put the adapter of a folder on a model, in place, ready to write, to train on or to be merged.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a damaged file, an option that is not known here, or an adapter for another model (named).
    """
    config, weights = _read(Path(folder))
    if SCORE in weights and not isinstance(model, Classifier):
        raise ValueError(
            "the adapter belongs to a classifier, and this model writes: put a Classifier around it first."
        )
    names = _theirs(model)
    back = {theirs: ours for ours, theirs in names.items()}
    found = {key.partition(".lora_")[0] for key in weights if ".lora_" in key}
    targets = {next((ours for theirs, ours in back.items() if key.endswith(f".{theirs}")), key) for key in found}
    strange = sorted(targets - names.keys()) or ([] if found else ["nothing at all"])
    if strange:
        raise ValueError(_other(config, f"it adapts {strange[0]}, and this model has {', '.join(names.values())}"))
    rank, alpha = config["r"], config.get("lora_alpha", config["r"])
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    before = [parameter.requires_grad for parameter in model.parameters()]
    add_lora(model, rank, scale * rank, [name for name in names if name in targets], config.get("lora_dropout", 0.0))
    places_for = _matrices(model)
    problem = _mismatch(places_for, weights)
    if problem:
        _take_off(model, before)
        raise ValueError(_other(config, problem))
    for name, place in places_for.items():
        place.copy_(weights[name])


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} holds no {name}; save_adapter and peft's save_pretrained write one.")
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "adapter_model.safetensors")
        weights = {name: tensor for name, tensor in weights.items() if not name.endswith(FROZEN)}
        kind, rank, alpha = config["peft_type"], config["r"], config.get("lora_alpha", config["r"])
        if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float):
            raise TypeError(f"r={rank!r} and lora_alpha={alpha!r} should be numbers, r a whole one above 0")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the adapter in {folder} is damaged or half-written ({error}); save it again.") from error
    if kind != "LORA":
        raise ValueError(f"the adapter in {folder} is {kind}; only LORA is known here.")
    for name, harmless in REFUSED.items():
        if config.get(name, harmless[0]) not in harmless:
            raise ValueError(f"the adapter in {folder} has {name}={config[name]!r}, which is not known here.")
    return config, weights


def _other(config: dict[str, Any], reason: str) -> str:
    base = config.get("base_model_name_or_path")
    return f"the adapter belongs to another model{f' ({base})' if base else ''}: {reason}. Open it on its own model."


def _mismatch(places_for: dict[str, Tensor], weights: dict[str, Tensor]) -> str | None:
    missing, unexpected = sorted(places_for.keys() - weights.keys()), sorted(weights.keys() - places_for.keys())
    if missing or unexpected:
        return f"missing {missing[:4]}, unexpected {unexpected[:4]} ({len(missing)} and {len(unexpected)} in all)"
    for name, place in places_for.items():
        if weights[name].shape != place.shape:
            return f"{name} has shape {tuple(weights[name].shape)}, and this model asks for {tuple(place.shape)}"
    return None


def _take_off(model: GPT | Classifier, before: list[bool]) -> None:
    replace_layers(model, lambda layer: layer.plain)
    for parameter, trained in zip(model.parameters(), before):
        parameter.requires_grad_(trained)
