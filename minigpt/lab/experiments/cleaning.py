"""What clean text is worth: `python -m minigpt.lab.experiments.cleaning` writes results/01_cleaning.json.

The same small model, from the same start, for the same number of updates, on three versions of the same scenes: clean, with
defects planted, and cleaned again; each is measured on clean scenes that none has seen. Then on mixtures of plays and
speeches of the same size, each measured on both. One tokenizer for all runs of a kind, learnt from clean text, so that a
token is the same everywhere. Times are CPU seconds, added up over all cores.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm import tqdm

from minigpt.config import GPTConfig
from minigpt.corpus import load_corpus
from minigpt.corpus.cleaning import clean
from minigpt.corpus.mixing import mix
from minigpt.corpus.planted import plant
from minigpt.evaluate import bits_per_byte, evaluate_loss
from minigpt.lab.experiments.vocabulary import split, token_data, train, write_results
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer

BODY = {"n_layer": 2, "n_head": 2, "n_embd": 64, "context_length": 64}
VOCAB_SIZE, BATCH_SIZE, LEARNING_RATE = 1024, 32, 4e-3
UPDATES = 400  # 0.8 million tokens, of 1.9 in the clean scenes
DIRT = (1.0, 4.0)  # times the usual rates of defects
SHARES = (0.0, 0.5, 1.0)  # of plays, the rest being speeches
SEEDS = (0, 1, 2)
RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "01_cleaning.json"
Row = dict[str, Any]


def measure(
    train_texts: Sequence[str],
    val_texts: Mapping[str, Sequence[str]],
    tokenizer: BPETokenizer,
    updates: int = UPDATES,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
) -> Row:
    """Train a model on some texts and evaluate it on others, by name; losses in nats per token and bits per byte."""
    torch.manual_seed(seed)
    shape = GPTConfig.llama(vocab_size=tokenizer.vocab_size, **BODY)
    model = GPT(shape)
    train_data = token_data(tokenizer, train_texts, shape.context_length, seed)
    train_seconds = train(model, train_data, updates, BATCH_SIZE, LEARNING_RATE, seed, callbacks)
    row = {
        "documents": len(train_texts),
        "tokens": len(train_data),
        "updates": updates,
        "epochs": updates * BATCH_SIZE * shape.context_length / len(train_data),
        "train_cpu_seconds": train_seconds,
    }
    for name, texts in val_texts.items():
        data = token_data(tokenizer, texts, shape.context_length, seed)
        loss = evaluate_loss(model, data.windows(BATCH_SIZE))
        row[f"loss_{name}"] = loss
        row[f"bits_per_byte_{name}"] = bits_per_byte(loss, len(data) - 1, sum(len(text.encode()) for text in texts))
    return row


def cleaning(seed: int, updates: int, dirt: Sequence[float] = DIRT) -> Iterator[Row]:
    """Rows for clean text and, at each amount of dirt, for dirty and cleaned text."""
    train_texts, val_texts = split(load_corpus("shakespeare")["text"][:], seed=seed)
    tokenizer = BPETokenizer.train(train_texts, vocab_size=VOCAB_SIZE)

    def row(text: str, amount: float, texts: Sequence[str]) -> Row:
        about = {"experiment": "cleaning", "text": text, "dirt": amount, "seed": seed}
        return about | measure(texts, {"plays": val_texts}, tokenizer, updates, seed)

    yield row("clean", 0.0, train_texts)
    for amount in dirt:
        planted = plant(Dataset.from_dict({"text": train_texts}), amount, seed=seed)
        yield row("dirty", amount, planted["text"][:])
        yield row("cleaned", amount, clean(planted.select_columns("text"))[0]["text"][:])


def mixtures(seed: int, updates: int, shares: Sequence[float] = SHARES) -> Iterator[Row]:
    """Rows for mixtures of plays and speeches, all of the size of the plays, with the loss on each."""
    texts = {
        name: split(load_corpus(source)["text"][:], seed=seed)
        for name, source in (("plays", "shakespeare"), ("speeches", "sotu"))
    }
    sources = {name: Dataset.from_dict({"text": train}) for name, (train, _) in texts.items()}
    size = sum(map(len, texts["plays"][0]))
    even, _ = mix(sources, {"plays": 1, "speeches": 1}, size=size, seed=seed)
    tokenizer = BPETokenizer.train(even["text"], vocab_size=VOCAB_SIZE)
    for share in shares:
        mixture, got = mix(sources, {"plays": share, "speeches": 1 - share}, size=size, seed=seed)
        realised = sum(part.share for part in got if part.source == "plays")
        about = {"experiment": "mixture", "wanted": share, "plays": realised, "seed": seed}
        yield about | measure(
            mixture["text"][:], {name: val for name, (_, val) in texts.items()}, tokenizer, updates, seed
        )


def main(arguments: list[str] | None = None) -> int:
    """Run both experiments and write the results, after each run what there is so far."""
    parser = argparse.ArgumentParser(description="Dirty, cleaned and clean text; mixtures of plays and speeches.")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    how = {
        "command": "python -m minigpt.lab.experiments.cleaning",
        "text": "scenes of shakespeare and addresses of sotu, a tenth of each held out; another tenth for each seed",
        "model": "llama family, {n_layer} layers, {n_head} heads, {n_embd} numbers per token, {context_length} tokens in a "
        "window, {vocab} tokens".format(**BODY, vocab=VOCAB_SIZE),
        "updates": f"{options.updates} of {BATCH_SIZE} windows",
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__.split('+')[0]}",
    }
    rows: list[Row] = []
    runs = ((experiment, seed) for seed in options.seeds for experiment in (cleaning, mixtures))
    with tqdm(unit="run", total=len(options.seeds) * (1 + 2 * len(DIRT) + len(SHARES))) as bar:
        for experiment, seed in runs:
            for row in experiment(seed, options.updates):
                rows.append(row)
                write_results(options.output, how, rows)
                bar.update()
    return 0


if __name__ == "__main__":
    sys.exit(main())
