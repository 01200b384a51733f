"""What the size of the vocabulary buys: `python -m minigpt.lab.experiments.vocabulary` writes results/02_vocabulary.json.

Every size gets a tokenizer of its own, the same body of a model, the same plays and the same number of multiplications.
What differs is what the size itself brings: how much text a token covers, how much text a window shows, how large the
table of tokens is, and how many updates the multiplications pay for. Times are CPU seconds, added up over all cores, so
that a busy machine measures about the same.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from minigpt.config import GPTConfig, TrainConfig
from minigpt.corpus import load_corpus
from minigpt.corpus.batching import TokenData, split, token_data
from minigpt.estimate import flops_per_token
from minigpt.evaluate import bits_per_byte, evaluate_loss
from minigpt.files import as_text, write_atomically
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import Trainer

BODY = {"n_layer": 2, "n_head": 2, "n_embd": 64, "context_length": 64}
# Floating-point operations for a run (30 or 100 CPU seconds in fp32), the sizes that get so many, and the seeds.
BUDGETS = (
    (1.2e12, (257, 512, 1024, 2048, 4096, 8192), (0, 1, 2)),
    (3.6e12, (257, 512, 2048, 8192), (0,)),
)
BATCH, LEARNING_RATE = 32, 4e-3
RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "02_vocabulary.json"


def train(
    model: GPT,
    data: TokenData,
    updates: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    callbacks: Sequence[Any] = (),
) -> float:
    """Train a model for so many updates, in fp32 so that no processor is favoured; the CPU seconds that it took."""
    settings = TrainConfig(
        max_steps=updates,
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup_steps=min(40, updates // 4),
        eval_every=updates,
        seed=seed,
        precision="fp32",
    )
    started = time.process_time()
    Trainer(model, data, None, settings, callbacks=list(callbacks)).fit()
    return time.process_time() - started


def measure(
    train_texts: Sequence[str],
    val_texts: Sequence[str],
    vocab_size: int,
    compute: float,
    seed: int = 0,
    callbacks: Sequence[Any] = (),
) -> dict[str, float]:
    """Train a tokenizer of `vocab_size`, and a model on its tokens for `compute` operations; a row of what came out.

    Losses are `val_loss` in nats per token, and `bits_per_byte` of the validation text; the end of each document is
    predicted too, and its cost counted, but it adds no byte.
    """
    started = time.process_time()
    tokenizer = BPETokenizer.train(train_texts, vocab_size=vocab_size)
    tokenizer_seconds = time.process_time() - started
    torch.manual_seed(seed)
    shape = GPTConfig.llama(vocab_size=tokenizer.vocab_size, **BODY)
    model = GPT(shape)
    train_data, val_data = (
        token_data(tokenizer, side, shape.context_length, seed) for side in (train_texts, val_texts)
    )
    tokens_per_step = BATCH * shape.context_length
    updates = max(1, int(compute / flops_per_token(shape) / tokens_per_step))
    train_seconds = train(model, train_data, updates, BATCH, LEARNING_RATE, seed, callbacks)
    val_loss = evaluate_loss(model, val_data.windows(BATCH))
    train_bytes, val_bytes = (sum(len(text.encode()) for text in side) for side in (train_texts, val_texts))
    return {
        "vocab_size": tokenizer.vocab_size,
        "seed": seed,
        "compute": compute,
        "bytes_per_token": train_bytes / len(train_data),
        "tokenizer_cpu_seconds": tokenizer_seconds,
        "parameters": model.num_parameters(),
        "table_parameters": tokenizer.vocab_size * shape.n_embd,
        "updates": updates,
        "epochs": updates * tokens_per_step / len(train_data),
        "train_cpu_seconds": train_seconds,
        "val_loss": val_loss,
        "bits_per_byte": bits_per_byte(val_loss, len(val_data) - 1, val_bytes),
    }


def summary(rows: Sequence[dict[str, float]], name: str) -> dict[int, tuple[float, float, float]]:
    """Mean, lowest and highest of a column over the seeds, by vocabulary size."""
    sizes = sorted({row["vocab_size"] for row in rows})
    values = {size: [row[name] for row in rows if row["vocab_size"] == size] for size in sizes}
    return {size: (sum(found) / len(found), min(found), max(found)) for size, found in values.items()}


def write_results(path: Path, how: dict[str, str], rows: Sequence[dict[str, Any]]) -> None:
    """Write how it was measured, and the rows, a line each; numbers to six digits. The file is there whole or not at all."""
    rounded = [{k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rounded)
    text = f'{{\n  "how": {json.dumps(how)},\n  "rows": [\n{lines}\n  ]\n}}\n'
    write_atomically(path.parent, {path.name: as_text(text)})


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep and write the results, after each run what there is so far."""
    parser = argparse.ArgumentParser(description="Vocabulary size against loss, length and time, on Shakespeare.")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    train_texts, val_texts = split(load_corpus("shakespeare")["text"][:])
    how = {
        "command": "python -m minigpt.lab.experiments.vocabulary",
        "text": f"shakespeare, {len(train_texts)} scenes to train on and {len(val_texts)} to validate on",
        "model": "llama family, {n_layer} layers, {n_head} heads, {n_embd} numbers per token, {context_length} tokens in a "
        "window, tied table".format(**BODY),
        "training": f"AdamW, {BATCH} windows in an update, learning rate {LEARNING_RATE:g}",
        "machine": f"{torch.get_num_threads()} thread, {platform.machine()}, torch {torch.__version__.split('+')[0]}",
    }
    rows: list[dict[str, float]] = []
    runs = [(compute, seed, size) for compute, sizes, seeds in BUDGETS for seed in seeds for size in sizes]
    for compute, seed, size in tqdm(runs, unit="run"):
        rows.append(measure(train_texts, val_texts, size, compute, seed))
        write_results(options.output, how, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
