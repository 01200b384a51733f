"""What fine-tuning buys: `python -m minigpt.lab.experiments.finetuning` writes results/05_finetuning.json.

Three jobs from one base model, and from SmolLM2 where two cores allow: sentiment (from nothing, frozen, full, LoRA, beside
words that are counted), a grid of learning rate, batch size and epochs, dialogue and code, each with what the model says
of its old texts before and after. Rows that the file has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from minigpt.finetune.classifier import Classifier, LabelledData, predict
from minigpt.finetune.lora import add_lora, body, freeze, trainable_parameters
from minigpt.finetune.tasks import sentiment
from minigpt.lab.experiments.finetuning_start import Row, fresh, old_losses, train
from minigpt.lab.experiments.finetuning_writing import converse, program
from minigpt.lab.experiments.vocabulary import write_results

RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "05_finetuning.json"
LONGEST = 96  # tokens of a sentence
SEEDS = (0, 1, 2)
RATES = {"scratch": 1e-3, "full": 1e-3, "lora": 1e-2, "frozen": 1e-2}
GRID = {"learning_rate": (1e-4, 1e-3, 1e-2), "batch_size": (8, 32), "texts": 1000}


def as_hex(right: np.ndarray) -> str:
    """Which texts were judged rightly, as a short string, so that models can be compared text by text."""
    return np.packbits(right.astype(np.uint8)).tobytes().hex()


def from_hex(text: str, count: int) -> np.ndarray:
    """The inverse of `as_hex`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(bool)


def classify(settings: Row) -> Row:
    """One classifier: its accuracy for choosing and in the test, where it was right, and what it cost."""
    parts, seed, method = sentiment(), settings["seed"], settings["method"]
    model, tokenizer = fresh(settings["model"], seed, scratch=method == "scratch")
    classifier = Classifier(model, 2)
    if method == "lora":
        add_lora(classifier, settings["rank"])
    if method == "frozen":
        freeze(classifier)
    texts, labels = parts.train["text"][: settings["texts"]], parts.train["label"][: settings["texts"]]
    data = LabelledData(tokenizer, texts, labels, 2, LONGEST, seed)
    updates = data.steps(settings["epochs"], settings["batch_size"])
    seconds, trainer = train(classifier, data, updates, settings["batch_size"], settings["learning_rate"], seed)
    row = settings | {"updates": updates, "seconds": seconds, "trained": trainable_parameters(classifier)[0]}
    with trainer.autocast():
        for side in ("val", "test"):
            rows = getattr(parts, side)
            right = predict(classifier, tokenizer, rows["text"][:]).argmax(axis=1) == np.array(rows["label"][:])
            row |= {f"{side}_accuracy": right.mean().item(), f"{side}_right": as_hex(right)}
    if settings["model"] == "base" and settings["experiment"] == "sentiment" and method in ("full", "lora"):
        row["old_losses"] = old_losses(body(classifier))
    return row


def count_words(settings: Row) -> Row:
    """TF-IDF of words and pairs of words with logistic regression; its strength is chosen on the validation texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    parts, started = sentiment(), time.perf_counter()
    weigh = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    counted = weigh.fit_transform(parts.train["text"][:])
    y = {side: np.array(getattr(parts, side)["label"][:]) for side in parts._fields}
    x = {side: weigh.transform(getattr(parts, side)["text"][:]) for side in ("val", "test")}
    models = [LogisticRegression(C=c, max_iter=1000).fit(counted, y["train"]) for c in (1, 3, 10, 30)]
    best = max(models, key=lambda m: m.score(x["val"], y["val"]))
    right = {side: best.predict(x[side]) == y[side] for side in x}
    row = settings | {"seconds": time.perf_counter() - started, "trained": best.coef_.size}
    for side in right:
        row |= {f"{side}_accuracy": right[side].mean().item(), f"{side}_right": as_hex(right[side])}
    return row


def _sentiment(model: str, method: str, seed: int, **more: Any) -> Row:
    common = {"experiment": "sentiment", "model": model, "method": method, "seed": seed}
    return common | {"texts": 7554, "epochs": 2, "batch_size": 32, "learning_rate": RATES[method]} | more


def runs() -> Iterator[tuple[Row, Callable[[Row], Row]]]:
    """Settings of every row, and what measures it, the most wanted first."""
    yield {"experiment": "sentiment", "model": "counted words", "method": "tf-idf", "seed": 0}, count_words
    for seed in SEEDS:
        for method in ("full", "scratch", "lora"):
            yield _sentiment("base", method, seed, **({"rank": 2} if method == "lora" else {})), classify
    smol = {"epochs": 1, "batch_size": 16, "learning_rate": 5e-4, "rank": 8}
    yield _sentiment("smollm2", "lora", 0, **smol), classify
    for settings in ({}, {"rehearsal": 0.2}):
        yield {"experiment": "dialogue", "model": "base", "seed": 0, "updates": 250} | settings, converse
    yield {"experiment": "code", "model": "base", "method": "full", "seed": 0, "updates": 120}, program
    for learning_rate in GRID["learning_rate"]:
        for batch_size in GRID["batch_size"]:
            for epochs in (1, 3):
                more = {"learning_rate": learning_rate, "batch_size": batch_size, "epochs": epochs}
                yield _sentiment("base", "full", 0, experiment="grid", texts=GRID["texts"], **more), classify
    for rank in (1, 8):
        yield _sentiment("base", "lora", 0, rank=rank), classify
    yield _sentiment("base", "frozen", 0), classify
    yield {"experiment": "code", "model": "smollm2", "method": "lora", "seed": 0, "updates": 40}, program
    yield {"experiment": "dialogue", "model": "smollm2", "seed": 0, "updates": 60}, converse


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing from the results, and write them after each run."""
    parser = argparse.ArgumentParser(description="Sentiment, dialogue and code from one base model, and from SmolLM2.")
    parser.add_argument("--only", choices=["sentiment", "grid", "dialogue", "code"], help="one experiment")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    how = {
        "command": "python -m minigpt.lab.experiments.finetuning",
        "models": "data/checkpoints/base; SmolLM2-135M-Instruct as its package has it, in bf16",
        "training": "AdamW, warm-up over a tenth of the updates, a cosine to a tenth; precision auto",
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__.split('+')[0]}",
    }
    rows = json.loads(options.output.read_text(encoding="utf-8"))["rows"] if options.output.exists() else []
    wanted = [run for run in runs() if options.only in (None, run[0]["experiment"])]
    missing = [run for run in wanted if not any(run[0].items() <= row.items() for row in rows)]
    for settings, measure in tqdm(missing, unit="run"):
        rows.append(measure(settings))
        write_results(options.output, how, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
