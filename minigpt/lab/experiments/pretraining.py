"""What the knobs of a training do: `python -m minigpt.lab.experiments.pretraining` writes results/04_pretraining.json.

Three experiments on the same scenes and the same tokens. `sweep`: learning rate, batch size and epochs, on a part of the
text, and fresh text in place of the later epochs. `schedule`: three ways for the learning rate to go, with the loss on the
way. `scaling`: five sizes, each on 20 tokens a parameter or, where the text is too short, on one epoch of it.
A window starts anywhere, so an epoch is as many tokens as the text has, drawn at random: no training here goes through it
in order. Rows that the file has already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tqdm import tqdm

from minigpt.config import GPTConfig, TrainConfig
from minigpt.corpus import load_corpus
from minigpt.corpus.batching import TokenData
from minigpt.estimate import chinchilla_tokens, flops_per_token, num_parameters
from minigpt.evaluate import evaluate_loss
from minigpt.lab.experiments.vocabulary import split, token_data, write_results
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import Trainer, TrainingDiverged

VOCAB_SIZE, CONTEXT = 1024, 64
BODY = {"n_layer": 3, "n_head": 4, "n_embd": 128}
PART = 80_000  # tokens of the sweep's text
RATES, BATCHES, EPOCHS = (5e-4, 2e-3, 8e-3, 3.2e-2), (4, 16, 64), (1, 4)
REPEATED = (16, 2e-3)  # batch size and learning rate of the runs that set repeated text against fresh
SCHEDULES = (("cosine", "cosine", 0.0), ("wsd", "wsd", 0.3), ("constant", "wsd", 0.0))  # name, schedule, decay_share
UPDATES, SEEDS, POINTS = 200, (0, 1, 2), 20  # of the schedules; POINTS evaluations on the way
SIZES = ((2, 2, 16), (2, 2, 32), (3, 3, 48), (3, 4, 80), (3, 4, 112))  # n_layer, n_head, n_embd
MOST_EPOCHS = 1  # more would take minutes, for a line that is straight only so far
EVAL_BATCHES = 40  # of 32 windows
RESULTS = Path(__file__).resolve().parents[3] / "notebooks" / "results" / "04_pretraining.json"
Row = dict[str, Any]


class Text(NamedTuple):
    """The scenes as tokens: to train on, and to validate on."""

    tokenizer: BPETokenizer
    train: TokenData
    val: TokenData


def prepare(texts: Sequence[str]) -> Text:
    """Scenes split into two sides, and a tokenizer learnt from the first."""
    train_texts, val_texts = split(texts)
    tokenizer = BPETokenizer.train(train_texts, vocab_size=VOCAB_SIZE)
    return Text(tokenizer, *(token_data(tokenizer, side, CONTEXT, seed=0) for side in (train_texts, val_texts)))


def _settings(
    experiment: str, text_tokens: int, tokens: int, batch_size: int, learning_rate: float, **more: Any
) -> Row:
    usual = BODY | {"schedule": "cosine", "decay_share": 0.0, "seed": 0}
    drawn = {"text_tokens": text_tokens, "tokens": tokens, "batch_size": batch_size, "learning_rate": learning_rate}
    return {"experiment": experiment} | usual | drawn | more


def sweep(total: int) -> list[Row]:
    """Settings of the grid, and of runs on repeated and on fresh text; `total` tokens are there."""
    part = min(PART, total)
    grid = [
        _settings("sweep", part, epochs * part, batch_size, rate)
        for epochs in EPOCHS
        for batch_size in BATCHES
        for rate in RATES
    ]
    again = [_settings("sweep", part, epochs * part, *REPEATED) for epochs in (2, 8)]
    fresh = [_settings("sweep", n * part, n * part, *REPEATED) for n in (2, 4, 8) if n * part <= total]
    return grid + again + fresh


def schedules(total: int) -> list[Row]:
    """Settings of three schedules and three seeds, at the same number of updates."""
    tokens = UPDATES * 32 * CONTEXT
    return [
        _settings("schedule", total, tokens, 32, 4e-3, name=name, schedule=schedule, decay_share=share, seed=seed)
        for seed in SEEDS
        for name, schedule, share in SCHEDULES
    ]


def scaling(total: int) -> list[Row]:
    """Settings of five sizes, smallest first; narrow models take larger steps."""
    rows = []
    for n_layer, n_head, n_embd in SIZES:
        sizes = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd}
        best = int(chinchilla_tokens(num_parameters(shape_of(sizes))))
        rate = round(4e-3 * (64 / n_embd) ** 0.5, 5)
        rows.append(_settings("scaling", total, min(best, MOST_EPOCHS * total), 16, rate, **sizes))
    return rows


EXPERIMENTS = {"sweep": sweep, "schedule": schedules, "scaling": scaling}


def shape_of(settings: Row) -> GPTConfig:
    """The model of a row."""
    sizes = {name: settings[name] for name in BODY}
    return GPTConfig.llama(vocab_size=VOCAB_SIZE, context_length=CONTEXT, **sizes)


def measure(settings: Row, text: Text, callbacks: Sequence[Any] = ()) -> Row:
    """Train as the settings say, in fp32 so that no processor is favoured; a row with the losses and what it cost.

    `val_loss` is None where the training diverged. Schedules get `steps` and `val_losses`, from the way.
    """
    shape, seed = shape_of(settings), settings["seed"]
    torch.manual_seed(seed)
    model = GPT(shape)
    updates = max(1, round(settings["tokens"] / settings["batch_size"] / CONTEXT))
    on_the_way = settings["experiment"] == "schedule"
    config = TrainConfig(
        max_steps=updates,
        batch_size=settings["batch_size"],
        learning_rate=settings["learning_rate"],
        schedule=settings["schedule"],
        decay_share=settings["decay_share"],
        warmup_steps=updates // 10,
        eval_every=max(1, updates // POINTS) if on_the_way else updates,
        seed=seed,
        precision="fp32",
        device="cpu",
        max_rise=None,  # a rate that is too large shall show what it costs
    )
    data = TokenData(text.train.tokens[: settings["text_tokens"]], CONTEXT, seed)
    trainer = Trainer(model, data, text.val if on_the_way else None, config, callbacks=list(callbacks))
    started, val_loss = time.process_time(), None
    try:
        trainer.fit()
        seconds = time.process_time() - started
        val_loss = evaluate_loss(model, text.val.windows(32, EVAL_BATCHES))
    except TrainingDiverged:
        seconds = time.process_time() - started
    steps, losses = trainer.history["val_loss"]
    tokens = updates * settings["batch_size"] * CONTEXT
    return settings | {
        "updates": updates,
        "epochs": tokens / settings["text_tokens"],
        "parameters": num_parameters(shape),
        "flops": tokens * flops_per_token(shape),
        "train_cpu_seconds": seconds,
        "val_loss": val_loss,
        **({"steps": steps, "val_losses": [round(loss, 4) for loss in losses]} if on_the_way else {}),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing from the results, and write them after each run."""
    parser = argparse.ArgumentParser(
        description="Learning rate, batch size, epochs, schedules and sizes, on Shakespeare."
    )
    parser.add_argument("--only", choices=list(EXPERIMENTS), help="one experiment; the others' rows stay as they are")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    text = prepare(load_corpus("shakespeare")["text"][:])
    how = {
        "command": "python -m minigpt.lab.experiments.pretraining",
        "text": f"shakespeare, {len(text.train)} tokens to train on and {len(text.val)} to validate on, {VOCAB_SIZE} kinds",
        "model": f"llama family, {CONTEXT} tokens in a window, tied table",
        "training": "AdamW, warm-up over a tenth of the updates, down to a tenth of the learning rate where it falls",
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__.split('+')[0]}",
    }
    rows = json.loads(options.output.read_text(encoding="utf-8"))["rows"] if options.output.exists() else []
    chosen = [options.only] if options.only else list(EXPERIMENTS)
    wanted = [settings for name in chosen for settings in EXPERIMENTS[name](len(text.train))]
    missing = [settings for settings in wanted if not any(settings.items() <= row.items() for row in rows)]
    for settings in tqdm(missing, unit="run"):
        rows.append(measure(settings, text))
        write_results(options.output, how, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
