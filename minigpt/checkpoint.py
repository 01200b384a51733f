"""A trained model as one folder: config.json, model.safetensors, tokenizer.json, tokenizer_config.json, training.json.

The first two follow the Hugging Face layout wherever `transformers` has a model that computes the same, so that what is
saved here opens there, and its `generate` stops where ours does; a shape of our own, and weights in 8 or 4 bits, are
saved under our own names. The files are written beside their places and moved there when all are complete: a full disk or
a killed process leaves the earlier checkpoint as it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from minigpt import interop
from minigpt.chat_template import CHAT_TOKENS
from minigpt.config import GPTConfig
from minigpt.files import Files, as_text, write_atomically
from minigpt.model import GPT
from minigpt.quantize import from_stored, is_quantized, to_stored
from minigpt.tokenizer import BPETokenizer, Tokenizer
from minigpt.tokenizer_files import load_tokenizer


def _ends(tokenizer: Tokenizer) -> list[int]:
    """The tokens after which `minigpt generate` and `reply` write no more: the end of a text, and those of the chat."""
    special = tokenizer.special_tokens if isinstance(tokenizer, BPETokenizer) else {}
    ends = [tokenizer.eos_id, *(special.get(token) for token in CHAT_TOKENS)]
    return list(dict.fromkeys(i for i in ends if i is not None))


def _model_files(model: GPT, dtype: torch.dtype | None, tokenizer: Tokenizer | None = None) -> Files:
    if is_quantized(model):
        return _quantized_files(model, dtype)
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if "token_embedding.weight" not in weights or any(".plain." in name for name in weights):
        raise ValueError(
            "the model has adapters beside its matrices: merge_lora(model) first, or save_adapter(model, folder)."
        )
    fields: dict[str, Any] = {"minigpt": model.config.to_dict()}
    if interop.architecture(model.config):
        weights = interop.to_hf_weights(model.config, weights)
        fields |= interop.to_hf_config(model.config)
        if tokenizer is not None and (ends := _ends(tokenizer)):
            fields["eos_token_id"] = ends if len(ends) > 1 else ends[0]  # where `generate` of transformers stops
    elif model.config.tie_embedding:
        del weights["head.weight"]
    dtype = dtype or next(model.parameters()).dtype
    fields["dtype"] = str(dtype).removeprefix("torch.")
    return _as_files(fields, {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()})


def _quantized_files(model: GPT, dtype: torch.dtype | None) -> Files:
    """In few bits; config.json names no class of `transformers`, none of which would understand them."""
    weights, how = to_stored(model)
    if dtype is not None:
        raise ValueError(
            f"the weights are whole numbers in {model.quantization.bits} bits, which {dtype} does not apply to: save them "
            "without dtype, or dequantize(model) in it."
        )
    return _as_files({"minigpt": model.config.to_dict(), "quantization": how}, weights)


def _as_files(fields: dict[str, Any], weights: dict[str, Tensor]) -> Files:
    return {
        "model.safetensors": lambda path: save_file(weights, path, metadata={"format": "pt"}),
        "config.json": as_text(json.dumps(fields, indent=2)),
    }


def save_model(model: GPT, folder: str | PathLike, dtype: torch.dtype | None = None) -> None:
    """Write config.json and model.safetensors. `dtype` (such as torch.bfloat16, half the size) casts the weights.

    A quantized model (`minigpt.quantize`) is written in its few bits, and config.json says how it was quantized.

    Raises:
        ValueError: a model with adapters, which have files of their own, or a dtype for a quantized model.
        OSError: the disk is full or not writable; an earlier checkpoint in `folder` is kept.
    """
    write_atomically(Path(folder), _model_files(model, dtype))


class _Stored(Mapping[str, Tensor]):
    """The tensors of a folder, in one safetensors file or in the shards that an index names, each read when asked for.

    A file is opened anew each time: what was read of it leaves memory together with the tensor.
    """

    def __init__(self, folder: Path):
        files = [folder / "model.safetensors"]
        if not files[0].is_file() and (index := folder / "model.safetensors.index.json").is_file():
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            files = [folder / name for name in sorted(set(weight_map.values()))]
        _need(*files)
        self._files: dict[str, Path] = {}
        for path in files:
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def __getitem__(self, name: str) -> Tensor:
        with safe_open(self._files[name], "pt") as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _need(*paths: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.parent} holds no {path.name}; a checkpoint is a folder with config.json and model.safetensors, "
                "as model.save_pretrained(folder) writes it. One with pytorch_model.bin alone is converted by transformers: "
                "AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)."
            )


def load_model(where: str | PathLike, dtype: torch.dtype = torch.float32) -> GPT:
    """Open a folder of ours, one in the Hugging Face layout, a model of its hub, or a .gguf file, in evaluation mode.

    Little more memory is taken than the weights need: they are read one by one.

    Args:
        where: a path, or a name on the hub such as "gpt2" or "HuggingFaceTB/SmolLM2-135M".
        dtype: of the weights, whatever they are stored in; torch.bfloat16 takes half the memory. A quantized model stays
            in its few bits.

    Raises:
        FileNotFoundError: no such folder, or a file is missing from it.
        FetchError: neither a path, nor a model that could be fetched.
        ValueError: a damaged file, an unknown architecture, missing or unexpected tensors (listed).
    """
    path = interop.locate(where)
    return interop.GGUFFile(path).model(dtype) if path.suffix.lower() == ".gguf" else _load_folder(path, dtype)


def _load_folder(folder: Path, dtype: torch.dtype) -> GPT:
    _need(folder / "config.json")
    try:
        fields = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        stored = _Stored(folder)
        if not isinstance(fields, dict):
            raise ValueError("config.json names no fields")
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ValueError(
            f"the checkpoint in {folder} is damaged or half-written ({error}); save or fetch it again."
        ) from error
    try:
        config = GPTConfig.make(**fields["minigpt"]) if "minigpt" in fields else interop.from_hf_config(fields)
        if "quantization" in fields:
            return from_stored(config, stored, fields["quantization"])
        if interop.architecture(config):
            weights = interop.from_hf_weights(config, stored, dtype)
        else:
            weights = interop.from_own_weights(config, stored, dtype)
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"config.json and model.safetensors in {folder} do not belong together, or lack something ({error}); "
            "save or fetch both again."
        ) from error
    return interop.build(config, weights)


def save_checkpoint(
    folder: str | PathLike,
    model: GPT,
    tokenizer: Tokenizer,
    training: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write the whole folder; `training` (how the model came to be) becomes training.json. Raises as `save_model`."""
    files = _model_files(model, dtype, tokenizer) | {
        name: as_text(content) for name, content in tokenizer.to_files().items()
    }
    if training is not None:
        files["training.json"] = as_text(json.dumps(training, indent=2))
    write_atomically(Path(folder), files)


def load_checkpoint(where: str | PathLike, dtype: torch.dtype = torch.float32) -> tuple[GPT, Tokenizer]:
    """The model and its tokenizer, from all that `load_model` opens. Raises as `load_model`."""
    path = interop.locate(where)
    if path.suffix.lower() == ".gguf":
        file = interop.GGUFFile(path)
        return file.model(dtype), file.tokenizer()
    return _load_folder(path, dtype), load_tokenizer(path)
