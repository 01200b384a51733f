"""The command `minigpt prune`: a model with zeros among its weights, or without some of its heads and channels."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.cli.quantize import calibration_windows
from minigpt.prune import PATTERNS, check_choice, prune, prune_structured, sparsity_of

ZEROS = {"sparsity": 0.5, "pattern": "global", "calibrate": None}  # where nothing else is told
PARTS = {"heads": 0.0, "mlp": 0.0}


def add_prune(commands: Any) -> None:
    """The command `minigpt prune`."""
    about = "make a trained model sparse or smaller; nothing is trained"
    command = commands.add_parser("prune", help=about, argument_default=argparse.SUPPRESS)  # to know what was told
    command.add_argument("folder", help="a checkpoint, a .gguf, or a name on the hub")
    command.add_argument("out", type=Path, help="where the pruned model goes")
    command.add_argument("--sparsity", type=float, help="share of the weights in the blocks that become zero (0.5)")
    command.add_argument(
        "--pattern", choices=PATTERNS, help="which: the smallest of all, of each matrix, 2 of 4 (global)"
    )
    command.add_argument(
        "--calibrate",
        metavar="TEXT",
        help="a source's name, or a file or folder of yours, by which the other weights make up for the zeros",
    )
    command.add_argument("--heads", type=float, help="instead: share of the attention heads that are taken out (0)")
    command.add_argument("--mlp", type=float, help="instead: share of the MLP's channels that are taken out (0)")
    command.add_argument("--bf16", action="store_true", default=False, help="store the weights in half the space")
    command.set_defaults(run=_prune)


def _prune(options: argparse.Namespace) -> int:
    zeros, parts = ({n: getattr(options, n) for n in names if hasattr(options, n)} for names in (ZEROS, PARTS))
    if zeros and parts:
        raise ValueError(
            f"--{', --'.join(zeros)} set weights to zero, --{', --'.join(parts)} take whole parts out: prune one way, and "
            "the result the other way."
        )
    if (options.out / "config.json").exists():
        raise ValueError(
            f"{options.out} already holds a model, which would be lost: choose a new folder for the result."
        )
    told = PARTS | parts if parts else ZEROS | zeros
    text = told.pop("calibrate", None)
    if not parts:
        check_choice(**told, calibrated=text is not None)  # before a text is read
    model, tokenizer = load_checkpoint(options.folder)
    windows = None if text is None else calibration_windows(text, tokenizer, model.config.context_length)
    pruned = prune_structured(model, **told) if parts else prune(model, **told, calibration=windows)
    training = {"command": "prune", "base": Path(options.folder).name, **told}
    if text is not None:
        training["calibrate"] = Path(text).name
    save_checkpoint(options.out, pruned, tokenizer, training, torch.bfloat16 if options.bf16 else None)
    before, after = model.config, pruned.config
    if parts:
        print(f"parameters {model.num_parameters():,} before, {pruned.num_parameters():,} after")
        print(
            f"heads {before.n_head} before, {after.n_head} after; n_hidden {before.n_hidden} before, {after.n_hidden} after"
        )
    else:
        print(f"{sparsity_of(pruned)['total']:.1%} of the weights in the blocks are zero ({told['pattern']})")
    print(f"{options.out} holds the checkpoint; it has lost something, which training brings back:")
    print(_recovery(options.out, bool(parts)))
    return 0


def _recovery(out: Path, is_smaller: bool) -> str:
    if is_smaller:
        return f"minigpt finetune FOLDER --task code --base {out} --data TEXT"
    return "Trainer(model, ..., callbacks=[KeepZeros()]), since minigpt finetune would fill the zeros again"
