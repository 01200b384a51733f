"""The command `minigpt`: data, clean, train, speedrun, finetune, prune, quantize, generate, chat, classify, export, bench,
doctor.

Each does what a few lines of Python do.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from minigpt import corpus
from minigpt.bench.augment import bench_augment
from minigpt.bench.clean import bench_clean, bench_memory
from minigpt.bench.compress import bench_compress
from minigpt.bench.decode import bench_decode
from minigpt.bench.train import bench_train
from minigpt.checkpoint import load_checkpoint
from minigpt.cli.chat import add_chat
from minigpt.cli.export import add_export
from minigpt.cli.finetune import add_classify, add_finetune
from minigpt.cli.prune import add_prune
from minigpt.cli.quantize import add_quantize
from minigpt.cli.train import add_field, add_speedrun, add_train
from minigpt.config import SampleConfig
from minigpt.corpus.cleaning import clean
from minigpt.corpus.datasheet import save_corpus
from minigpt.doctor import diagnose
from minigpt.generate import stream
from minigpt.tokenizer import decode_pieces
from minigpt.trainer import TrainingDiverged


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

    add_train(commands)
    add_speedrun(commands)
    add_finetune(commands)
    add_prune(commands)
    add_quantize(commands)

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
        add_field(write, SampleConfig, name, kind)
    write.set_defaults(run=_generate)

    add_chat(commands)
    add_classify(commands)
    add_export(commands)

    bench = commands.add_parser("bench", help="how fast the package is").add_subparsers(required=True)
    of_cleaning = bench.add_parser("clean", help="each cleaning step in MB/s, beside datatrove where it is installed")
    of_cleaning.add_argument("--megabytes", type=float, default=4.0, help="of text (4)")
    of_cleaning.add_argument("--workers", type=int, default=2, help="processes for the whole pipeline (2)")
    of_cleaning.add_argument(
        "--memory", type=float, default=None, metavar="GB", help="memory on a stream of GB instead"
    )
    of_cleaning.set_defaults(run=_bench_clean)

    of_augmenting = bench.add_parser("augment", help="each kind of augmentation in MB/s, beside a plain regex")
    of_augmenting.add_argument("--megabytes", type=float, default=4.0, help="of text (4)")
    of_augmenting.set_defaults(run=_bench_augment)

    of_training = bench.add_parser("train", help="training beside the classic recipe, plain PyTorch and transformers")
    of_training.add_argument("--seconds", type=float, default=20.0, help="for each speed (20)")
    of_training.add_argument("--skip-speedruns", action="store_true", help="leave out the runs to a loss: minutes")
    of_training.set_defaults(run=_bench_train)

    of_decoding = bench.add_parser(
        "decode", help="one token after the other, beside transformers, llama.cpp, ONNX Runtime"
    )
    of_decoding.add_argument("--tokens", type=int, default=64, help="written in each round (64)")
    of_decoding.add_argument("--rounds", type=int, default=5, help="of which the median counts (5)")
    of_decoding.add_argument(
        "--small", action="store_true", help="leave out the 124 M shape: minutes, and 3 GB of memory"
    )
    of_decoding.set_defaults(run=_bench_decode)

    of_compressing = bench.add_parser(
        "compress", help="the base model in few bits, pruned, distilled: bytes, loss, speed"
    )
    of_compressing.set_defaults(run=_bench_compress)

    commands.add_parser("doctor", help="what this machine has, and how to mend what is missing").set_defaults(
        run=_doctor
    )
    return parser


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


def _generate(options: argparse.Namespace) -> int:
    model, tokenizer = load_checkpoint(options.folder)
    fields = {name: value for name, value in vars(options).items() if name in SampleConfig.describe()}
    prompt = tokenizer.encode(options.prompt)
    stop = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    written = stream(model, prompt, stop_tokens=stop, **fields)
    first = True
    for piece in decode_pieces(tokenizer, (token for token in written if token not in stop)):
        print(options.prompt * first + piece, end="", flush=True)
        first = False
    print()
    return 0


def _bench_clean(options: argparse.Namespace) -> int:
    if options.memory is not None:
        print(bench_memory(options.memory, options.workers))
        return 0
    for line in bench_clean(options.megabytes, options.workers):
        print(line, flush=True)
    return 0


def _bench_augment(options: argparse.Namespace) -> int:
    for line in bench_augment(options.megabytes):
        print(line, flush=True)
    return 0


def _bench_train(options: argparse.Namespace) -> int:
    for line in bench_train(options.seconds, speedruns=not options.skip_speedruns):
        print(line, flush=True)
    return 0


def _bench_decode(options: argparse.Namespace) -> int:
    for line in bench_decode(options.tokens, options.rounds, options.small):
        print(line, flush=True)
    return 0


def _bench_compress(options: argparse.Namespace) -> int:
    for line in bench_compress():
        print(line, flush=True)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    findings = diagnose()
    for finding in findings:
        print(f"{'!' if finding.mend else ' '} {finding.what}: {finding.value}")
        if finding.mend:
            print(f"    {finding.mend}")
    return 0
