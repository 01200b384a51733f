"""The command `minigpt`: data, train, generate, doctor. Each does what a few lines of a notebook do."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch

from minigpt import corpus
from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.config import GPTConfig, SampleConfig, TrainConfig
from minigpt.corpus.batching import pack
from minigpt.doctor import diagnose
from minigpt.evaluate import bits_per_byte
from minigpt.generate import stream
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import Trainer, TrainingDiverged


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when it did what was asked. Errors meant for the user are one paragraph on stderr."""
    options = _parser().parse_args(arguments)
    warnings.showwarning = lambda message, *_, **__: print(f"minigpt: {message}", file=sys.stderr)
    try:
        return options.run(options)
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"minigpt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("minigpt: stopped.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="minigpt", description="From raw text to a GPT of your own.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    data = commands.add_parser("data", help="list, fetch or look at the texts").add_subparsers(required=True)
    listing = data.add_parser("list", help="every source, and whether it is here")
    listing.set_defaults(run=_data_list)
    fetching = data.add_parser("fetch", help="fetch sources; without a name, all that the course uses")
    fetching.add_argument("names", nargs="*", metavar="NAME")
    fetching.set_defaults(run=_data_fetch)
    show = data.add_parser("show", help="the beginning of a source, a file or a folder of yours")
    show.add_argument("name")
    show.add_argument("--characters", type=int, default=600)
    show.set_defaults(run=_data_show)

    train = commands.add_parser("train", help="train a model; Ctrl-C saves, --resume goes on")
    train.add_argument("folder", type=Path, help="where the checkpoint goes")
    train.add_argument("--corpus", default=None, help="a source's name, or a file or folder of yours (shakespeare)")
    train.add_argument("--preset", default="first", help="the model's shape (first)")
    train.add_argument("--vocab-size", type=int, default=1024, help="tokens of the BPE tokenizer trained on the text")
    train.add_argument("--context-length", type=int, default=None)
    train.add_argument("--dropout", type=float, default=0.0)
    train.add_argument("--resume", action="store_true", help="go on with the run that is in the folder")
    train.add_argument("--bf16", action="store_true", help="store the weights in half the space")
    for name in ("max_steps", "batch_size", "warmup_steps", "eval_every", "seed"):
        _add_field(train, TrainConfig, name, int)
    for name in ("learning_rate", "weight_decay"):
        _add_field(train, TrainConfig, name, float)
    train.set_defaults(run=_train)

    write = commands.add_parser("generate", help="let a trained model write")
    write.add_argument("folder", type=Path, help="a checkpoint")
    write.add_argument("--prompt", default="\n")
    for name, kind in (
        ("max_new_tokens", int),
        ("temperature", float),
        ("top_k", int),
        ("top_p", float),
        ("seed", int),
    ):
        _add_field(write, SampleConfig, name, kind)
    write.set_defaults(run=_generate)

    commands.add_parser("doctor", help="what this machine has, and how to mend what is missing").set_defaults(
        run=_doctor
    )
    return parser


def _add_field(parser: argparse.ArgumentParser, config: type, name: str, kind: type) -> None:
    default = config.__dataclass_fields__[name].default
    help_text = f"{config.describe()[name].replace('%', '%%')} ({default})"
    parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default, help=help_text)


def _data_list(options: argparse.Namespace) -> int:
    for source in corpus.catalog():
        state = "generated here" if not source.downloads else "here" if corpus.is_cached(source.name) else "not fetched"
        print(f"{source.name:16} {state:15} {source.title} ({source.licence})")
    return 0


def _data_fetch(options: argparse.Namespace) -> int:
    failed = 0
    for name in options.names or corpus.COURSE_SOURCES:
        try:
            corpus.fetch(name)
        except corpus.FetchError as error:
            print(f"minigpt: {error}", file=sys.stderr)
            failed = 1
    return failed


def _data_show(options: argparse.Namespace) -> int:
    dataset = corpus.load_corpus(options.name)
    print(f"{options.name}: {len(dataset):,} documents, columns {', '.join(dataset.column_names)}\n")
    print(dataset[0]["text"][: options.characters])
    return 0


def _train(options: argparse.Namespace) -> int:
    dataset = corpus.load_corpus(options.corpus)
    tokenizer = BPETokenizer.train(dataset["text"], vocab_size=options.vocab_size)
    sizes = {"vocab_size": tokenizer.vocab_size, "dropout": options.dropout}
    if options.context_length:
        sizes["context_length"] = options.context_length
    shape = GPTConfig.preset(options.preset, **sizes)
    names = ("max_steps", "batch_size", "warmup_steps", "eval_every", "seed", "learning_rate", "weight_decay")
    config = TrainConfig.make(**{name: getattr(options, name) for name in names})
    train_data, val_data = pack(
        dataset, tokenizer, options.folder / "packed", context_length=shape.context_length, seed=config.seed
    )
    torch.manual_seed(config.seed)
    model = GPT(shape)
    print(
        f"{model.num_parameters():,} parameters, {len(train_data):,} training and {len(val_data):,} validation tokens"
    )
    trainer = Trainer(model, train_data, val_data, config, folder=options.folder)
    history = trainer.fit(resume=options.resume)
    text_bytes = len(tokenizer.decode(val_data.tokens.tolist()).encode())
    full_loss = trainer.evaluate() if config.eval_batches is None else _whole_loss(trainer)
    training = {
        "corpus": options.corpus or "shakespeare",
        "train": config.to_dict(),
        "tokens": int(history.last("tokens")),
        "seconds": round(history.last("seconds"), 1),
        "precision": trainer.precision,
        "val_loss": round(full_loss, 4),
        "val_bits_per_byte": round(bits_per_byte(full_loss, len(val_data), text_bytes), 4),
    }
    save_checkpoint(options.folder, model, tokenizer, training, torch.bfloat16 if options.bf16 else None)
    if history.stopped_early:
        print(f"stopped at update {trainer.step}; --resume goes on from there")
    print(f"validation loss {full_loss:.3f} nats per token; {options.folder} holds the checkpoint")
    return 0


def _whole_loss(trainer: Trainer) -> float:
    trainer.config = trainer.config.replace(eval_batches=None)
    return trainer.evaluate()


def _generate(options: argparse.Namespace) -> int:
    model, tokenizer = load_checkpoint(options.folder)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    prompt = tokenizer.encode(options.prompt)
    stop = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    print(options.prompt, end="", flush=True)
    written, shown = [], ""
    for token in stream(model, prompt, stop_tokens=stop, **{name: getattr(options, name) for name in names}):
        written.append(token)
        text = tokenizer.decode([t for t in written if t not in stop])
        if not text.endswith("�"):  # a character whose last bytes are still to come
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    return 0


def _doctor(options: argparse.Namespace) -> int:
    findings = diagnose()
    for finding in findings:
        print(f"{'!' if finding.mend else ' '} {finding.what}: {finding.value}")
        if finding.mend:
            print(f"    {finding.mend}")
    return 0
