"""A trained model as one folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, training.json.

The first two follow the Hugging Face layout wherever `transformers` has a model that computes the same, so that what is
saved here opens there; a shape of our own is saved under our own names. The files are written beside their places and
moved there when all are complete: a full disk or a killed process leaves the earlier checkpoint as it was.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minigpt import interop
from minigpt.config import GPTConfig
from minigpt.files import Files, as_text, write_atomically
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.tokenizer_files import load_tokenizer


def _model_files(model: GPT, dtype: torch.dtype | None) -> Files:
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    fields: dict[str, Any] = {"minigpt": model.config.to_dict()}
    if interop.architecture(model.config):
        weights = interop.to_hf_weights(model.config, weights)
        fields |= interop.to_hf_config(model.config)
    elif model.config.tie_embedding:
        del weights["head.weight"]
    dtype = dtype or next(model.parameters()).dtype
    fields["dtype"] = str(dtype).removeprefix("torch.")
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()}
    return {
        "model.safetensors": lambda path: save_file(weights, path, metadata={"format": "pt"}),
        "config.json": as_text(json.dumps(fields, indent=2)),
    }


def save_model(model: GPT, folder: str | PathLike, dtype: torch.dtype | None = None) -> None:
    """Write config.json and model.safetensors. `dtype` (such as torch.bfloat16, half the size) casts the weights.

    Raises:
        OSError: the disk is full or not writable; an earlier checkpoint in `folder` is kept.
    """
    write_atomically(Path(folder), _model_files(model, dtype))


def load_model(folder: str | PathLike) -> GPT:
    """Open a folder of ours or one in the Hugging Face layout, as fp32, in evaluation mode.

    Raises:
        FileNotFoundError: no such folder, or a file is missing from it.
        ValueError: a damaged file, an unknown architecture, missing or unexpected tensors (listed).
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder} holds no {name}; a checkpoint is a folder with config.json and model.safetensors, "
                "as model.save_pretrained(folder) writes it."
            )
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        if not isinstance(fields, dict):
            raise ValueError("config.json names no fields")
    except (ValueError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint in {folder} is damaged or half-written ({error}); save or fetch it again."
        ) from error
    try:
        config = GPTConfig.make(**fields["minigpt"]) if "minigpt" in fields else interop.from_hf_config(fields)
        if interop.architecture(config):
            weights = interop.from_hf_weights(config, weights)
        elif config.tie_embedding:
            weights["head.weight"] = weights["token_embedding.weight"]
        model = GPT(config)
        model.load_state_dict(weights)  # copies into fp32, whatever was stored
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"config.json and model.safetensors in {folder} do not belong together, or lack something ({error}); "
            "save or fetch both again."
        ) from error
    return model.eval()


def save_checkpoint(
    folder: str | PathLike,
    model: GPT,
    tokenizer: Tokenizer,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the whole folder; `training` (how the model came to be) becomes training.json. Raises as `save_model`."""
    files = _model_files(model, dtype) | {name: as_text(content) for name, content in tokenizer.to_files().items()}
    if training is not None:
        files["training.json"] = as_text(json.dumps(training, indent=2))
    write_atomically(Path(folder), files)


def load_checkpoint(folder: str | PathLike) -> tuple[GPT, Tokenizer]:
    """The model and its tokenizer. Raises as `load_model`."""
    return load_model(folder), load_tokenizer(folder)
