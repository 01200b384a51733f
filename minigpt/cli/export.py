"""The command `minigpt export`: a trained model written for other programs, as GGUF, as ONNX, or as Hugging Face's folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from minigpt import interop
from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.config import nearest
from minigpt.estimate import as_bytes
from minigpt.model import GPT
from minigpt.quantize import dequantize, is_quantized
from minigpt.tokenizer import Tokenizer

TYPES = {  # of the weights, by the ending of the name; the first is taken where none is told
    ".gguf": ("f16", "q8_0", "q4_0", "f32"),
    ".onnx": ("f32", "int8"),
}


def add_export(commands: Any) -> None:
    """The command `minigpt export`."""
    export = commands.add_parser("export", help="write a model for llama.cpp, ONNX Runtime or transformers")
    export.add_argument("folder", type=Path, help="a checkpoint")
    export.add_argument("out", type=Path, help="NAME.gguf, NAME.onnx, or a folder in the Hugging Face layout")
    known = "; ".join(f"{ending}: {', '.join(types)}" for ending, types in TYPES.items())
    export.add_argument("--type", help=f"of the weights ({known}; without, the first)")
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    kind = _type(options.out, options.type)
    model, tokenizer = load_checkpoint(options.folder)
    if is_quantized(model):  # others have ways of their own to keep few bits
        model = dequantize(model)
    how = _write(model, tokenizer, options.out, kind)
    print(f"{options.out}: {as_bytes(_size(options.out))}{f', {kind}' if kind else ''}\n{how}")
    return 0


def _type(out: Path, told: str | None) -> str | None:
    """The type of the weights; None for a folder, whose weights stay as they are."""
    types = TYPES.get(out.suffix.lower())
    if types is None and told is not None:
        raise ValueError(
            f"--type goes with a name that ends in {' or '.join(TYPES)}, and {out} names a folder, whose weights are in "
            "fp32: leave it out."
        )
    if types is None:
        return None
    kind = (told or types[0]).lower()
    if kind not in types:
        raise ValueError(f"--type {told} is no type of a {out.suffix} file.{nearest(kind, [*types])}")
    return kind


def _write(model: GPT, tokenizer: Tokenizer, out: Path, kind: str | None) -> str:
    """Write it; a line that says how to open it."""
    if out.suffix.lower() == ".gguf":
        model.save_gguf(out, tokenizer, kind)
        return f"to open it: llama-server -m {out}, or in Python: from llama_cpp import Llama; Llama({str(out)!r})"
    if out.suffix.lower() == ".onnx":
        from minigpt.interop.onnx import save_onnx

        save_onnx(model, out, bits=8 if kind == "int8" else 32)
        return f"to open it: import onnxruntime; onnxruntime.InferenceSession({str(out)!r})"
    interop.to_hf_config(model.config)  # refuses, with the reason, what no model of transformers computes
    if out.is_file():
        raise ValueError(f"{out} is a file, and the Hugging Face layout is a folder: choose another name.")
    save_checkpoint(out, model, tokenizer)
    return (
        f"to open it: from transformers import AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained({str(out)!r})"
    )


def _size(out: Path) -> int:
    return sum(path.stat().st_size for path in out.iterdir()) if out.is_dir() else out.stat().st_size
