"""The forms that notebook 07 compares: one model kept in many ways, each with its bytes, its losses and its speed.

Speeds are measured in turn, alone on the machine. Forms of programs that are not installed are left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from minigpt.checkpoint import load_model, save_model
from minigpt.finetune.tasks import BASE
from minigpt.interop import OnnxGPT
from minigpt.lab.experiments.compression_training import TRAINED, Row, base, calibration, folder, window_losses
from minigpt.lab.experiments.decoding import Write, llama_cpp, onnx_runtime, ours, speeds, temporary_folder
from minigpt.model import GPT
from minigpt.quantize import DynamicLinear, quantize, size_in_bytes

TOKENS, ROUNDS = 96, 7


class Form(NamedTuple):
    """One form: bytes of the weights in memory and of the file, what gives logits, and what writes."""

    kind: str
    memory: int | None
    disk: int
    logits: Callable[[torch.Tensor], torch.Tensor] | None
    write: Write


Make = Callable[[Path], Form]


def forms() -> Iterator[tuple[str, Make]]:
    """Every form by name, and what makes it, given a folder for files."""
    yield "fp32", lambda path: _ours("whole", base()[0], path)
    yield "bf16", lambda path: _ours("whole", load_model(BASE, torch.bfloat16), path)
    quantized: dict[str, dict[str, Any]] = {"int8": {"bits": 8}}
    if DynamicLinear.available():
        quantized["int8, activations too"] = {"bits": 8, "activations": "int8"}
    quantized |= {f"int4, {method}": {"bits": 4, "method": method} for method in ("rtn", "mse", "gptq")}
    for name, how in quantized.items():
        yield name, lambda path, how=how: _ours("quantized", _quantized(base()[0], **how), path)
    for name in ("per layer, 50 %", "2:4", "structured, 30 %", "student, distilled"):
        if (TRAINED / folder(name)).exists():
            yield name, lambda path, name=name: _ours("smaller", load_model(TRAINED / folder(name)), path)
    for name in ("per layer, 50 %", "structured, 30 %", "student, distilled"):
        if (TRAINED / folder(name)).exists():
            yield (
                f"{name}, int8",
                lambda path, name=name: _ours("both", quantize(load_model(TRAINED / folder(name)), 8), path),
            )
    if importlib.util.find_spec("onnxruntime"):
        for bits, name in ((32, "ONNX Runtime, fp32"), (8, "ONNX Runtime, int8")):
            yield name, lambda path, bits=bits: _onnx(bits, path)
    if importlib.util.find_spec("llama_cpp"):
        for dtype in ("f16", "q8_0", "q4_0"):
            yield f"llama.cpp, {dtype.upper()}", lambda path, dtype=dtype: _gguf(dtype, path)
    if importlib.util.find_spec("torchao"):
        yield "torchao, int8", _torchao


def _quantized(model: GPT, **how: Any) -> GPT:
    return quantize(model, **how, calibration=calibration() if how.get("method") == "gptq" else None)


def _ours(kind: str, model: GPT, path: Path) -> Form:
    save_model(model, path)
    disk = (path / "model.safetensors").stat().st_size
    return Form(kind, size_in_bytes(model), disk, lambda idx: model(idx)[0], ours(model))


def _onnx(bits: int, path: Path) -> Form:
    write = onnx_runtime(base()[0], bits, path)
    theirs = OnnxGPT(path / f"{bits}.onnx")
    size = (path / f"{bits}.onnx").stat().st_size
    return Form("other programs", None, size, lambda idx: torch.as_tensor(theirs(idx)[0]), write)


def _gguf(dtype: str, path: Path) -> Form:
    model, tokenizer = base()
    write = llama_cpp(model, dtype, path, tokenizer)
    file = path / f"{dtype}.gguf"
    again = load_model(file)  # llama.cpp's own perplexities are the same within 0.1 %, by a test
    return Form("other programs", None, file.stat().st_size, lambda idx: again(idx)[0], write)


def _torchao(path: Path) -> Form:
    """int8 weight-only as torchao does it, of the blocks: the table, which is tied to the head, stays in fp32."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = load_model(BASE)
    quantize_(model.blocks, Int8WeightOnlyConfig())
    file = path / "torchao.pt"
    torch.save(model.state_dict(), file)
    return Form("other programs", None, file.stat().st_size, lambda idx: model(idx)[0], ours(model))


def measured(wanted: Mapping[str, Make]) -> Iterator[Row]:
    """A row for each form; speeds are taken in turn, when all are made."""
    with temporary_folder() as place:
        made = {}
        for number, (name, make) in enumerate(wanted.items()):
            path = Path(place) / str(number)
            path.mkdir()
            made[name] = make(path)
        found = speeds({name: form.write for name, form in made.items()}, TOKENS, ROUNDS)
        for name, form in made.items():
            yield {
                "experiment": "form",
                "name": name,
                "kind": form.kind,
                "memory": form.memory,
                "disk": form.disk,
                "losses": window_losses(form.logits),
                "tokens_per_s": [round(value, 1) for value in found[name]],
            }
