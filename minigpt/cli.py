"""The command `minigpt`: data, clean, train, generate, bench, doctor. Each does what a few lines of a notebook do."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from minigpt import corpus
from minigpt.bench import bench_clean, bench_memory
from minigpt.checkpoint import load_checkpoint, save_checkpoint
from minigpt.config import GPTConfig, SampleConfig, TrainConfig
from minigpt.corpus.batching import pack
from minigpt.corpus.cleaning import clean
from minigpt.corpus.datasheet import save_corpus
from minigpt.doctor import diagnose
from minigpt.evaluate import bits_per_byte
from minigpt.files import as_text, write_atomically
from minigpt.generate import stream
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import RESUME_FILE, Trainer, TrainingDiverged

RUN_FILE = "run.json"  # what a run was told, so that --resume needs no more than the folder
FIELDS = ("max_steps", "batch_size", "warmup_steps", "eval_every", "seed", "learning_rate", "weight_decay")
CHOICES = {  # of `minigpt train`, where nothing else is told
    **{"corpus": None, "preset": "first", "vocab_size": 1024, "context_length": None, "dropout": 0.0},
    **{name: getattr(TrainConfig(), name) for name in FIELDS},
}


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

    cleaning = commands.add_parser("clean", help="clean a corpus, and write it with its datasheet")
    cleaning.add_argument("name", help="a source's name, or a file or folder of yours")
    cleaning.add_argument("folder", type=Path, help="where the corpus, its datasheet and the cache go")
    cleaning.add_argument("--steps", default=None, help="names with commas between; without, all of them")
    cleaning.add_argument("--workers", type=int, default=1, help="processes that share the work (1)")
    cleaning.set_defaults(run=_clean)

    about = "train a model; Ctrl-C saves, --resume goes on"
    train = commands.add_parser("train", help=about, argument_default=argparse.SUPPRESS)  # to know what was told
    train.add_argument("folder", type=Path, help="where the checkpoint goes")
    train.add_argument("--corpus", help="a source's name, or a file or folder of yours (shakespeare)")
    train.add_argument("--preset", help="the model's shape (first)")
    train.add_argument("--vocab-size", type=int, help="tokens of the BPE tokenizer trained on the text (1024)")
    _add_field(train, GPTConfig, "context_length", int, "the preset's")
    _add_field(train, GPTConfig, "dropout", float)
    for name in FIELDS:
        _add_field(train, TrainConfig, name, type(CHOICES[name]))
    train.add_argument(
        "--resume", action="store_true", help="go on with the run that is in the folder, as it was begun"
    )
    train.add_argument("--bf16", action="store_true", help="store the weights in half the space")
    train.set_defaults(run=_train, resume=False, bf16=False)

    about = "let a trained model write"
    write = commands.add_parser("generate", help=about, argument_default=argparse.SUPPRESS)
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

    bench = commands.add_parser("bench", help="how fast the package is").add_subparsers(required=True)
    of_cleaning = bench.add_parser("clean", help="each cleaning step in MB/s, beside datatrove where it is installed")
    of_cleaning.add_argument("--megabytes", type=float, default=4.0, help="of text (4)")
    of_cleaning.add_argument("--workers", type=int, default=2, help="processes for the whole pipeline (2)")
    of_cleaning.add_argument(
        "--memory", type=float, default=None, metavar="GB", help="memory on a stream of GB instead"
    )
    of_cleaning.set_defaults(run=_bench_clean)

    commands.add_parser("doctor", help="what this machine has, and how to mend what is missing").set_defaults(
        run=_doctor
    )
    return parser


def _add_field(parser: argparse.ArgumentParser, config: type, name: str, kind: type, default: str = "") -> None:
    default = default or str(config.__dataclass_fields__[name].default)
    about = config.describe()[name].replace("%", "%%")
    parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help=f"{about} ({default})")


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


def _clean(options: argparse.Namespace) -> int:
    steps = options.steps.split(",") if options.steps else None
    dataset, report = clean(
        corpus.load_corpus(options.name),
        steps,
        workers=options.workers,
        cache=options.folder / ".cleaning",
        show_progress=sys.stderr.isatty(),
    )
    command = f"minigpt clean {options.name} {options.folder.name}" + (f" --steps {options.steps}" if steps else "")
    save_corpus(dataset, options.folder, [options.name], report=report, command=command)
    print(f"{report}\n{options.folder} holds the corpus and its datasheet")
    return 0


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    """What to train and on what: as told now or, for a run that goes on, as told when it began."""
    told = {name: getattr(options, name) for name in CHOICES if hasattr(options, name)}
    if told.get("corpus") and Path(told["corpus"]).expanduser().exists():
        told["corpus"] = str(Path(told["corpus"]).expanduser().resolve())  # to be found from elsewhere too
    if not options.resume:
        if (options.folder / RESUME_FILE).exists():
            raise ValueError(f"{options.folder} already holds a run: go on with --resume, or choose another folder.")
        return CHOICES | told
    path = options.folder / RUN_FILE
    if not path.exists():
        raise ValueError(f"there is no run to go on with in {options.folder}: leave out --resume to begin one there.")
    try:
        begun = CHOICES | json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove the folder to begin again.") from error
    changed = [f"{name}: {begun[name]} there, {value} here" for name, value in told.items() if begun[name] != value]
    if changed:
        raise ValueError(
            f"the run in {options.folder} was begun with other settings ({'; '.join(changed)}): leave them out, or "
            "choose another folder for a run of its own."
        )
    return begun


def _train(options: argparse.Namespace) -> int:
    choices = _choices(options)
    dataset = corpus.load_corpus(choices["corpus"])
    tokenizer = BPETokenizer.train(dataset["text"], vocab_size=choices["vocab_size"])
    sizes = {"vocab_size": tokenizer.vocab_size, "dropout": choices["dropout"]}
    if choices["context_length"] is not None:
        sizes["context_length"] = choices["context_length"]
    shape = GPTConfig.preset(choices["preset"], **sizes)
    config = TrainConfig.make(**{name: choices[name] for name in FIELDS})
    train_data, val_data = pack(
        dataset, tokenizer, options.folder / "packed", context_length=shape.context_length, seed=config.seed
    )
    write_atomically(options.folder, {RUN_FILE: as_text(json.dumps(choices, indent=2))})
    torch.manual_seed(config.seed)
    model = GPT(shape)
    print(
        f"{model.num_parameters():,} parameters, {len(train_data):,} training and {len(val_data):,} validation tokens"
    )
    trainer = Trainer(model, train_data, val_data, config, folder=options.folder)
    history = trainer.fit(resume=options.resume)
    if history.stopped_early:
        print(f"stopped at update {trainer.step}; --resume goes on from there")
    if not history.rows:
        return 0
    trainer.config = config.replace(eval_batches=None)
    full_loss = trainer.evaluate()
    ids = [token for token in val_data.tokens.tolist() if token != tokenizer.eos_id]
    n_bytes = len(tokenizer.decode(ids).encode())
    training = {
        "corpus": _corpus_name(choices["corpus"]),
        "train": config.to_dict(),
        "tokens": int(history.last("tokens")),
        "seconds": round(history.last("seconds"), 1),
        "precision": trainer.precision,
        "val_loss": round(full_loss, 4),
        "val_bits_per_byte": round(bits_per_byte(full_loss, len(val_data) - 1, n_bytes), 4),
    }
    save_checkpoint(options.folder, model, tokenizer, training, torch.bfloat16 if options.bf16 else None)
    print(f"validation loss {full_loss:.3f} nats per token; {options.folder} holds the checkpoint")
    return 0


def _corpus_name(choice: str | None) -> str:
    if choice is None:  # the default falls back to stories where it cannot be fetched
        return corpus.DEFAULT if corpus.is_cached(corpus.DEFAULT) else "stories"
    return Path(choice).name if Path(choice).is_absolute() else choice


def _generate(options: argparse.Namespace) -> int:
    model, tokenizer = load_checkpoint(options.folder)
    fields = {name: value for name, value in vars(options).items() if name in SampleConfig.describe()}
    prompt = tokenizer.encode(options.prompt)
    stop = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    written, shown = [], ""
    for token in stream(model, prompt, stop_tokens=stop, **fields):
        if not written:
            print(options.prompt, end="")
        written.append(token)
        text = tokenizer.decode([t for t in written if t not in stop])
        if not text.endswith("�"):  # a character whose last bytes are still to come
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    return 0


def _bench_clean(options: argparse.Namespace) -> int:
    if options.memory is not None:
        print(bench_memory(options.memory, options.workers))
        return 0
    for line in bench_clean(options.megabytes, options.workers):
        print(line, flush=True)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    findings = diagnose()
    for finding in findings:
        print(f"{'!' if finding.mend else ' '} {finding.what}: {finding.value}")
        if finding.mend:
            print(f"    {finding.mend}")
    return 0
