"""The command `minigpt quantize`: a trained model in 8 or 4 bits, which generate, chat and export take as any other."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.corpus import load_corpus
from minigpt.corpus.batching import pack
from minigpt.estimate import as_bytes
from minigpt.quantize import ACTIVATIONS, METHODS, Quantization, is_quantized, quantize, size_in_bytes
from minigpt.tokenizer import Tokenizer

WINDOWS = 16  # of the context, to calibrate on


def add_quantize(commands: Any) -> None:
    """The command `minigpt quantize`."""
    command = commands.add_parser("quantize", help="round a trained model to 8 or 4 bits a weight")
    command.add_argument("folder", help="a checkpoint, a .gguf, or a name on the hub")
    command.add_argument("out", type=Path, help="where the quantized model goes")
    command.add_argument("--bits", type=int, default=8, help="8, or 4 (8)")
    command.add_argument(
        "--group-size",
        type=int,
        metavar="N",
        help="neighbours in a row that share a scale (in 8 bits a whole row, in 4 bits 32)",
    )
    command.add_argument("--method", default="rtn", help=f"{', '.join(METHODS)} (rtn)")
    command.add_argument("--activations", default="float", help=f"{', '.join(ACTIVATIONS)} (float)")
    command.add_argument("--calibrate", metavar="TEXT", help="a source's name, or a file or folder of yours, for gptq")
    command.set_defaults(run=_quantize)


def _quantize(options: argparse.Namespace) -> int:
    how = Quantization(options.bits, options.group_size, options.method, options.activations)  # told before all else
    if (options.out / "config.json").exists():
        raise ValueError(
            f"{options.out} already holds a model, which would be lost: choose a new folder for the result."
        )
    if how.method == "gptq" and options.calibrate is None:
        raise ValueError(
            "--method gptq needs text to calibrate on: --calibrate with a source's name (minigpt data list) or a file of "
            "yours, best of the kind that the model was trained on; or --method mse, which needs none."
        )
    if how.method != "gptq" and options.calibrate is not None:
        raise ValueError(f"--calibrate goes with --method gptq; {how.method} reads no text: leave one of them out.")
    model, tokenizer = load_checkpoint(options.folder)
    windows = None
    if options.calibrate is not None and not is_quantized(model):
        windows = calibration_windows(options.calibrate, tokenizer, model.config.context_length)
    quantized = quantize(model, how.bits, how.group_size, how.method, how.activations, windows)
    training = {"command": "quantize", "base": Path(options.folder).name, **vars(how)}
    save_checkpoint(options.out, quantized, tokenizer, training)
    before, after = size_in_bytes(model), size_in_bytes(quantized)
    print(f"{as_bytes(before)} before, {as_bytes(after)} after: {after / before:.1%}")
    print(f"{options.out} holds the checkpoint; to try it: minigpt generate {options.out}")
    return 0


def calibration_windows(name: str, tokenizer: Tokenizer, context_length: int) -> Tensor:
    """Token ids to calibrate on, (WINDOWS, context_length), from all over a text."""
    train, _ = pack(load_corpus(name), tokenizer, context_length=context_length)
    return train.batch(0, WINDOWS)[0]
