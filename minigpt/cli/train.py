"""The commands that train: `minigpt train`, which makes a checkpoint of a text, and `minigpt speedrun`."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minigpt import corpus
from minigpt.checkpoint import save_checkpoint
from minigpt.config import GPTConfig, TrainConfig
from minigpt.corpus.batching import Together, TokenData, pack, token_data
from minigpt.estimate import as_bytes, flops_per_token, training_memory
from minigpt.evaluate import bits_per_byte, evaluate_loss
from minigpt.files import as_text, write_atomically
from minigpt.hardware import machine, matmul_speed, memory_gb
from minigpt.model import GPT
from minigpt.recipes import find_recipe, mixture
from minigpt.speedrun import TARGETS, speedrun
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import RESUME_FILE, Trainer

RUN_FILE = "run.json"  # what a run was told, so that --resume needs no more than the folder
FIELDS = ("max_steps", "batch_size", "warmup_steps", "eval_every", "seed", "learning_rate", "weight_decay")
FIELDS += ("patience", "min_delta", "val_smoothing", "restarts", "restart_factor")
OF_NO_RECIPE = {"corpus", "preset", "vocab_size", "context_length", "dropout", "label_smoothing"}
CHOICES = {  # of `minigpt train`, where nothing else is told
    **{"recipe": None, "corpus": None, "preset": "first", "vocab_size": 1024, "context_length": None, "dropout": 0.0},
    "label_smoothing": 0.0,
    **{name: getattr(TrainConfig(), name) for name in FIELDS},
}


def add_train(commands: Any) -> None:
    """The command `minigpt train`."""
    about = "train a model; Ctrl-C saves, --resume goes on"
    train = commands.add_parser("train", help=about, argument_default=argparse.SUPPRESS)  # to know what was told
    train.add_argument("folder", type=Path, help="where the checkpoint goes")
    train.add_argument("--recipe", help="text, shape and training from minigpt/recipes.toml, such as base")
    train.add_argument("--corpus", help="a source's name, or a file or folder of yours (shakespeare)")
    train.add_argument("--preset", help="the model's shape (first)")
    train.add_argument("--vocab-size", type=int, help="tokens of the BPE tokenizer trained on the text (1024)")
    add_field(train, GPTConfig, "context_length", int, "the preset's")
    for name in ("dropout", "label_smoothing"):
        add_field(train, GPTConfig, name, float)
    for name in FIELDS:
        add_field(train, TrainConfig, name, int if name == "patience" else type(CHOICES[name]))
    train.add_argument(
        "--resume", action="store_true", help="go on with the run that is in the folder, as it was begun"
    )
    train.add_argument("--bf16", action="store_true", help="store the weights in half the space")
    train.set_defaults(run=_train, resume=False, bf16=False)


def add_speedrun(commands: Any) -> None:
    """The command `minigpt speedrun`."""
    run = commands.add_parser("speedrun", help="train on Tiny Shakespeare until a loss is reached; the seconds it took")
    run.add_argument("--target", type=float, default=1.88, help="validation loss in nats per character (1.88)")
    run.add_argument("--recipe", help="baseline, fast-1.88 or fast-1.47 (the fast one for the target)")
    run.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    run.set_defaults(run=_speedrun)


def add_field(parser: argparse.ArgumentParser, config: type, name: str, kind: type, default: str = "") -> None:
    """An option for a field of a config, with its sentence as help."""
    default = default or str(config.__dataclass_fields__[name].default)
    about = config.describe()[name].replace("%", "%%")
    parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{about} ({default})")


def _speedrun(options: argparse.Namespace) -> int:
    name = options.recipe or next((n for n, loss in TARGETS.items() if loss <= options.target), "fast-1.47")
    result = speedrun(name, options.target, options.seed)
    print(result)
    return 0 if result.reached else 1


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    told = what_was_told(options, CHOICES, paths=("corpus",))
    if "recipe" in told and (clash := OF_NO_RECIPE & told.keys()):
        raise ValueError(f"--recipe brings its own {', '.join(sorted(clash))}: leave out one or the other.")
    usual = CHOICES | (dict.fromkeys(FIELDS) if "recipe" in told else {})  # a recipe has settings of its own
    return begun_or_told(options.folder, options.resume, usual, told)


def what_was_told(options: argparse.Namespace, choices: dict[str, Any], paths: tuple[str, ...]) -> dict[str, Any]:
    """The choices that were made on the command line; those of `paths` that lie here as absolute paths."""
    told = {name: getattr(options, name) for name in choices if hasattr(options, name)}
    for name in paths:
        if told.get(name) and Path(told[name]).expanduser().exists():
            told[name] = str(Path(told[name]).expanduser().resolve())  # to be found from elsewhere too
    return told


def begun_or_told(folder: Path, resume: bool, usual: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """What a run does: as told now, the rest as usual; or, for a run that goes on, as told when it began.

    Raises:
        ValueError: a folder that holds a run, or holds none to go on with, or one with other settings (named).
    """
    if not resume:
        if (folder / RESUME_FILE).exists():
            raise ValueError(f"{folder} already holds a run: go on with --resume, or choose another folder.")
        return usual | told
    path = folder / RUN_FILE
    if not path.exists():
        raise ValueError(f"there is no run to go on with in {folder}: leave out --resume to begin one there.")
    try:
        begun = usual | json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove the folder to begin again.") from error
    if strange := begun.keys() - usual.keys():
        raise ValueError(
            f"the run in {folder} was begun by another command, which knows {', '.join(sorted(strange))}: go on with that."
        )
    changed = [f"{name}: {begun[name]} there, {value} here" for name, value in told.items() if begun[name] != value]
    if changed:
        raise ValueError(
            f"the run in {folder} was begun with other settings ({'; '.join(changed)}): leave them out, or "
            "choose another folder for a run of its own."
        )
    return begun


@dataclass
class _Work:
    """What is to be done: the tokenizer, the shape, the settings, and the text on each side, by source."""

    tokenizer: BPETokenizer
    shape: GPTConfig
    config: TrainConfig
    train: TokenData
    val: dict[str, TokenData]


def _work(choices: dict[str, Any], folder: Path) -> _Work:
    settings = {name: choices[name] for name in FIELDS}
    if choices["recipe"] is not None:
        recipe = find_recipe(choices["recipe"])
        changes = {name: value for name, value in settings.items() if value is not None}
        mixed, held_out = mixture(recipe, show_progress=sys.stderr.isatty())
        tokenizer = BPETokenizer.train(mixed["text"], vocab_size=recipe.vocab_size)
        shape, config = recipe.model_config(tokenizer.vocab_size), recipe.train_config(**changes)
        train, *val = (
            token_data(tokenizer, texts, shape.context_length, config.seed)
            for texts in (mixed["text"][:], *held_out.values())
        )
        return _Work(tokenizer, shape, config, train, dict(zip(held_out, val)))
    dataset = corpus.load_corpus(choices["corpus"])
    tokenizer = BPETokenizer.train(dataset["text"], vocab_size=choices["vocab_size"])
    sizes = {"vocab_size": tokenizer.vocab_size} | {name: choices[name] for name in ("dropout", "label_smoothing")}
    if choices["context_length"] is not None:
        sizes["context_length"] = choices["context_length"]
    shape, config = GPTConfig.preset(choices["preset"], **sizes), TrainConfig.make(**settings)
    train, val = pack(dataset, tokenizer, folder / "packed", context_length=shape.context_length, seed=config.seed)
    return _Work(tokenizer, shape, config, train, {_corpus_name(choices["corpus"]): val})


def _train(options: argparse.Namespace) -> int:
    choices = _choices(options)
    work = _work(choices, options.folder)
    write_atomically(options.folder, {RUN_FILE: as_text(json.dumps(choices, indent=2))})
    torch.manual_seed(work.config.seed)
    model = GPT(work.shape)
    trainer = Trainer(model, work.train, Together(list(work.val.values())), work.config, folder=options.folder)
    print(
        f"{model.num_parameters():,} parameters, {len(work.train):,} training and {sum(map(len, work.val.values())):,} "
        f"validation tokens\n{expected_memory(trainer, work.shape)}"
    )
    history = trainer.fit(resume=options.resume)
    tell_how_it_ended(trainer)
    if not history.rows:
        return 0
    print(_speed(trainer, work.shape))
    judged = {name: _judge(trainer, data, work.tokenizer) for name, data in work.val.items()}
    training = {
        "corpus": choices["recipe"] or _corpus_name(choices["corpus"]),
        "train": work.config.to_dict(),
        "tokens": int(history.last("tokens")),
        "seconds": round(history.last("seconds"), 1),
        "precision": trainer.precision,
        "machine": machine(),
        **_told(list(judged.values())),
    }
    if len(work.val) > 1:
        training["sources"] = {name: _told([one]) for name, one in judged.items()}
    save_checkpoint(options.folder, model, work.tokenizer, training, torch.bfloat16 if options.bf16 else None)
    for name, found in training.get("sources", {}).items():
        print(f"{name}: {found['val_loss']:.3f} nats per token, {found['val_bits_per_byte']:.3f} bits per byte")
    print(f"validation loss {training['val_loss']:.3f} nats per token; {options.folder} holds the checkpoint")
    return 0


def tell_how_it_ended(trainer: Trainer) -> None:
    """A line where a training ended before its last update: by early stopping, or because it was asked to."""
    if trainer.rescue is not None and trainer.rescue.over:
        kept = trainer.rescue.rule.best_step
        whose = f"those of update {kept}" if kept else "the last ones, as no evaluation was a number"
        print(f"early stopping ended it at update {trainer.step}; the weights are {whose}")
    elif trainer.history.stopped_early:
        print(f"stopped at update {trainer.step}; --resume goes on from there")


def _judge(trainer: Trainer, data: TokenData, tokenizer: BPETokenizer) -> tuple[float, int, int]:
    """A text that was held out: the loss on all of it in nats per token, its targets, and its bytes."""
    loss = evaluate_loss(trainer.model, data.windows(trainer.config.batch_size), trainer.autocast())
    text = tokenizer.decode([token for token in data.tokens.tolist() if token != tokenizer.eos_id])
    return loss, len(data) - 1, len(text.encode())


def _told(judged: list[tuple[float, int, int]]) -> dict[str, float]:
    """The loss on all of these texts together, in nats per token and in bits per byte."""
    tokens, n_bytes = sum(n for _, n, _ in judged), sum(n for _, _, n in judged)
    loss = sum(loss * n for loss, n, _ in judged) / tokens
    return {"val_loss": round(loss, 4), "val_bits_per_byte": round(bits_per_byte(loss, tokens, n_bytes), 4)}


def expected_memory(trainer: Trainer, shape: GPTConfig) -> str:
    """What training all of a model of this shape takes, in words; a warning where that is more than is free."""
    config = trainer.config.replace(precision=trainer.precision, device=trainer.device.type)
    needed, memory = training_memory(shape, config).total, memory_gb()
    if memory and trainer.device.type == "cpu" and needed > 1e9 * memory[1]:
        warnings.warn(
            f"training needs about {as_bytes(needed)}, and {memory[1]:.1f} GB are free: take a smaller batch_size with "
            "more grad_accum_steps, or activation_checkpointing=True.",
            stacklevel=2,
        )
    return f"about {as_bytes(needed)} of memory for training"


def _speed(trainer: Trainer, shape: GPTConfig) -> str:
    """Tokens a second, and the share of this machine's matrix products that they are."""
    speed = trainer.history.tokens_per_second()
    dtype = torch.bfloat16 if trainer.precision == "bf16" else torch.float32
    share = speed * flops_per_token(shape) / (1e9 * matmul_speed(dtype, trainer.device))
    return f"{speed:,.0f} tokens a second, {share:.0%} of what matrix products reach here in {dtype}"


def _corpus_name(choice: str | None) -> str:
    if choice is None:  # the default falls back to stories where it cannot be fetched
        return corpus.DEFAULT if corpus.is_cached(corpus.DEFAULT) else "stories"
    return without_place(choice)


def without_place(where: str) -> str:
    """The name alone of a path on this machine; a name of the catalog or of the hub as it is."""
    return Path(where).name if Path(where).is_absolute() else where
