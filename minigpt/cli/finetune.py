"""The commands `minigpt finetune`, which gives a model a job, and `minigpt classify`, which asks one that sorts texts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from minigpt.checkpoint import load_checkpoint
from minigpt.cli.jobs import Choices, Sorting, Writing, updates
from minigpt.cli.train import (
    RUN_FILE,
    add_field,
    begun_or_told,
    expected_memory,
    tell_how_it_ended,
    what_was_told,
    without_place,
)
from minigpt.config import GPTConfig, TrainConfig
from minigpt.files import as_text, write_atomically
from minigpt.finetune import add_lora, freeze, load_classifier, merge_lora, predict, save_adapter, trainable_parameters
from minigpt.finetune.tasks import BASE
from minigpt.hardware import machine
from minigpt.interop import build, check_floats, packaged_smollm2, to_hf_config
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.trainer import Trainer

TASKS = {  # what is usual for each, `full` as notebook 05 measured it; max_steps on the catalog's texts, two epochs on one's own
    "sentiment": {"batch_size": 32, "dropout": 0.1, "max_steps": None, "full": 1e-3, "lora": 1e-2, "frozen": 1e-2},
    "dialogue": {"batch_size": 16, "dropout": 0.05, "max_steps": 250, "full": 3e-4, "lora": 3e-3, "frozen": 1e-3},
    "code": {"batch_size": 16, "dropout": 0.05, "max_steps": 120, "full": 5e-4, "lora": 3e-3, "frozen": 5e-4},
}
METHODS = ("full", "frozen", "lora")
EPOCHS, RANK, LONGEST = 2, 8, 256
LARGE = 20_000_000  # parameters from which on the usual learning rate is a tenth
CHOICES = {  # where nothing else is told; None is what is usual for the task
    **dict.fromkeys(("task", "base", "data", "rank", "context_length", "dropout", "epochs", "max_steps")),
    **dict.fromkeys(("batch_size", "learning_rate", "patience")),
    **{"method": "full", "eval_every": 100, "seed": 0},
}


def add_finetune(commands: Any) -> None:
    """The command `minigpt finetune`."""
    about = "give a model a job: sort texts, converse, write code; Ctrl-C saves, --resume goes on"
    tune = commands.add_parser("finetune", help=about, argument_default=argparse.SUPPRESS)  # to know what was told
    tune.add_argument("folder", type=Path, help="where the result goes")
    tune.add_argument("--task", choices=TASKS, help="the job; code goes on with any text that --data names")
    tune.add_argument("--base", help="the model to begin from: a folder, a .gguf, a hub name or smollm2 (the course's)")
    tune.add_argument(
        "--data",
        help="your own: for sentiment a .csv, .jsonl or .parquet with text and label; for dialogue a .jsonl with "
        "messages; for code a file or folder of text (the catalog's)",
    )
    about = "what learns: all, the upper half (in sentiment the new matrix alone), or thin matrices beside it (full)"
    tune.add_argument("--method", choices=METHODS, help=about)
    tune.add_argument("--rank", type=int, help=f"columns of LoRA's matrices ({RANK})")
    length = tune.add_mutually_exclusive_group()
    length.add_argument(
        "--epochs", type=float, help=f"how often all examples are seen ({EPOCHS} for sentiment and your own data)"
    )
    add_field(length, TrainConfig, "max_steps", int, "the task's")
    for name, kind in (("batch_size", int), ("learning_rate", float)):
        add_field(tune, TrainConfig, name, kind, "the task's")
    add_field(tune, GPTConfig, "dropout", float, "the task's")
    tune.add_argument("--context-length", type=int, help=f"tokens of an example at most ({LONGEST})")
    for name in ("eval_every", "seed", "patience"):
        add_field(tune, TrainConfig, name, int)
    about = "go on with the run that is in the folder, as it was begun"
    tune.add_argument("--resume", action="store_true", help=about)
    tune.set_defaults(run=_finetune, resume=False)


def add_classify(commands: Any) -> None:
    """The command `minigpt classify`."""
    sort = commands.add_parser("classify", help="the class of a text, and how probable it is")
    sort.add_argument("folder", type=Path, help="a classifier, as `minigpt finetune` makes one")
    sort.add_argument("texts", nargs="*", metavar="TEXT", help="without any, the lines of the standard input")
    sort.set_defaults(run=_classify)


def _choices(options: argparse.Namespace) -> Choices:
    told = what_was_told(options, CHOICES, paths=("base", "data"))
    choices = begun_or_told(options.folder, options.resume, CHOICES, told)
    if choices["task"] is None:
        raise ValueError(f"say which job is to be learned: --task {' or --task '.join(TASKS)}.")
    if choices["rank"] is not None and choices["method"] != "lora":
        raise ValueError("--rank is for the matrices of --method lora: add that, or leave it out.")
    if not options.resume and (options.folder / "config.json").exists():
        raise ValueError(
            f"{options.folder} already holds a model, which would be lost: choose a new folder for the result. "
            "--base names the model to begin from."
        )
    return choices


def _begin(choices: Choices) -> tuple[Sorting | Writing, TrainConfig]:
    """The job, its model made ready for the method, and how it is trained."""
    usual = TASKS[choices["task"]]
    told = {n: choices[n] for n in ("max_steps", "batch_size", "learning_rate", "eval_every", "seed", "patience")}
    if choices["epochs"] is choices["data"] is told["max_steps"] is None:
        told["max_steps"] = usual["max_steps"]
    settings = {"batch_size": usual["batch_size"], **{n: v for n, v in told.items() if v is not None}}
    TrainConfig.make(**settings)  # a wrong one is told before anything is loaded
    torch.manual_seed(choices["seed"])
    base, tokenizer = _base(choices)
    job = _job(choices, base, tokenizer)
    if choices["method"] == "lora":
        add_lora(job.model, RANK if choices["rank"] is None else choices["rank"])
    elif choices["method"] == "frozen":
        freeze(job.model, None if isinstance(job, Sorting) else len(job.model.blocks) // 2)
    rate = usual[choices["method"]] / (10 if base.num_parameters() > LARGE else 1)
    epochs = EPOCHS if choices["epochs"] is None else choices["epochs"]
    steps = settings.get("max_steps") or updates(epochs, job, settings["batch_size"])
    more = {"max_steps": steps, "warmup_steps": steps // 10, "max_rise": None}  # examples differ by more than a nat
    return job, TrainConfig.make(**{"learning_rate": rate} | settings | more)


def _base(choices: Choices) -> tuple[GPT, Tokenizer]:
    named = choices["base"] or BASE
    model, tokenizer = load_checkpoint(packaged_smollm2() if named == "smollm2" else named)
    check_floats(model, "minigpt finetune")
    dropout = TASKS[choices["task"]]["dropout"] if choices["dropout"] is None else choices["dropout"]
    if choices["task"] == "sentiment" or choices["method"] == "lora":
        to_hf_config(model.config)  # a shape that could not be saved is told now
    return build(model.config.replace(dropout=dropout), model.state_dict()), tokenizer


def _job(choices: Choices, base: GPT, tokenizer: Tokenizer) -> Sorting | Writing:
    most, wanted = base.config.context_length, choices["context_length"]
    if wanted is not None and not 1 <= wanted <= most:
        raise ValueError(f"context_length={wanted} does not fit this base model: use 1 to {most}.")
    kind = Sorting if choices["task"] == "sentiment" else Writing
    return kind(choices, base, tokenizer, wanted or min(most, LONGEST))


def _finetune(options: argparse.Namespace) -> int:
    choices, folder = _choices(options), options.folder
    job, config = _begin(choices)
    write_atomically(folder, {RUN_FILE: as_text(json.dumps(choices, indent=2))})
    trainer = Trainer(job.model, job.train, job.val, config, folder=folder)
    trained, parameters = trainable_parameters(job.model)
    print(f"{job}\n{trained:,} of {parameters:,} parameters learn, in {config.max_steps:,} updates")
    if choices["method"] == "full" and isinstance(job, Writing):  # the estimate is for full windows and their logits
        print(expected_memory(trainer, job.model.config.replace(context_length=job.context_length)))
    before = job.judge(trainer)
    history = trainer.fit(resume=options.resume)
    tell_how_it_ended(trainer)
    if not history.rows:
        return 0
    after = job.judge(trainer)
    base = choices["base"] or str(BASE)
    training = {
        **{
            "task": choices["task"],
            "base": without_place(base),
            "data": without_place(choices["data"] or "the catalog's"),
        },
        **{"method": choices["method"], "trained": trained, "parameters": parameters},
        "train": config.to_dict(),
        "updates": trainer.step,
        "seconds": round(history.last("seconds"), 1),
        "precision": trainer.precision,
        "machine": machine(),
        **after,
        "before": before,
    }
    if choices["method"] == "lora":
        save_adapter(job.model, folder / "adapter", base)
        merge_lora(job.model)
    go_on = job.save(folder, training)
    print(*job.tell(before, after), f"{training['seconds']} s of training; {folder} holds the model", sep="\n")
    if choices["method"] == "lora":
        print(f"{folder / 'adapter'} holds the adapter alone")
    print(f"go on with: {go_on}")
    return 0


def _classify(options: argparse.Namespace) -> int:
    classifier, tokenizer, classes = load_classifier(options.folder)
    texts = options.texts or [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        raise ValueError('no text came: minigpt classify FOLDER "some text", or lines on the standard input.')
    for text, shares in zip(texts, predict(classifier, tokenizer, texts)):
        print(f"{classes[shares.argmax()]} {shares.max():.3f} {text}")
    return 0
