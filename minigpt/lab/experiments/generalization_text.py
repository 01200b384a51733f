"""One language model and little text: what it does to make either larger, and what each remedy for overfitting does.

Every run has the same tokenizer, the same scenes held out, and the same multiplications: `UPDATES` of the usual model, or
fewer where early stopping ends it. A row holds the losses on the way, in nats per token, and on the test scenes twice:
with the last weights, and with those that were best on the validation scenes. The runs are listed in `runs` and recorded
by `generalization`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from minigpt.averaging import WeightAverage
from minigpt.config import GPTConfig, TrainConfig
from minigpt.corpus import load_corpus
from minigpt.corpus.augment import augment
from minigpt.corpus.batching import TokenData, split, token_data
from minigpt.estimate import flops_per_token
from minigpt.evaluate import evaluate_loss
from minigpt.lab.experiments.finetuning_start import finished
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.trainer import Trainer

VOCAB_SIZE, CONTEXT = 1024, 64
TOKENS = 131_072  # all of the text: about fifty scenes
MOST_SCENES = 100  # that hold them
N_LAYER, N_HEAD = 3, 4
UPDATES, BATCH, RATE = 240, 16, 4e-3
POINTS = 20  # evaluations on the way
SEEDS = (0, 1, 2)
NEVER = 10**6  # evaluations of patience: no run ends early, and the best weights are kept all the same
USUAL: dict[str, Any] = {
    **{"experiment": "text", "n_embd": 128, "share": 0.125, "updates": UPDATES, "dropout": 0.0, "weight_decay": 0.0},
    **{"label_smoothing": 0.0, "augment": "none", "averaging": 0.0, "pretraining": 0, "restarts": 0, "seed": 0},
}
REMEDIES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "2 times the text": {"share": 0.25},
    "4 times the text": {"share": 0.5},
    "8 times the text": {"share": 1.0},
    "smaller model": {"n_embd": 64},
    "dropout": {"dropout": 0.2},
    "weight decay": {"weight_decay": 4.0},
    "label smoothing": {"label_smoothing": 0.1},
    "synonyms": {"augment": "synonyms"},
    "words left out": {"augment": "delete"},
    "weight averaging": {"averaging": 0.98},
    "pretraining on speeches": {"pretraining": UPDATES // 2},
    "smaller steps from the best": {"restarts": 3},
    "four together": {"dropout": 0.2, "label_smoothing": 0.1, "augment": "delete", "pretraining": UPDATES // 2},
    "8 times the text, dropout, averaging": {"share": 1.0, "dropout": 0.1, "averaging": 0.98},
}
SIZES, SHARES, DROPOUTS = (32, 64, 128), (0.125, 0.25, 0.5, 1.0), (0.0, 0.2, 0.4)  # of the curves to be turned by hand
SPLITS = ("scenes", "windows", "overlapping windows")
COPIES = 8  # of the text, the first as it is
Row = dict[str, Any]


class Text(NamedTuple):
    """Scenes in an order drawn at random, as tokens: to train on, to validate on, to test on; and their tokenizer."""

    tokenizer: BPETokenizer
    train: TokenData
    val: TokenData
    test: TokenData


@cache
def scenes() -> Text:
    """The plays, split by scene."""
    learned, held_out = split(load_corpus("shakespeare")["text"][:])
    tokenizer = BPETokenizer.train(learned, vocab_size=VOCAB_SIZE)
    order = np.random.default_rng(0).permutation(len(learned))[:MOST_SCENES]
    sides = ([learned[i] for i in order], held_out[::2], held_out[1::2])
    train, val, test = (token_data(tokenizer, side, CONTEXT, 0) for side in sides)
    return Text(tokenizer, TokenData(train.tokens[:TOKENS], CONTEXT), val, test)


def part(share: float, kind: str = "none") -> TokenData:
    """The first scenes, a share of TOKENS; with a kind of augmentation, eight times as long, the first time as they are."""
    text = scenes()
    tokens = text.train.tokens[: round(share * TOKENS)]
    if kind != "none":
        ends = np.flatnonzero(tokens == text.tokenizer.eos_id)
        passages = [text.tokenizer.decode(ids[ids != text.tokenizer.eos_id]) for ids in np.split(tokens, ends)]
        changed = [augment(passages, kind, rate=0.1, seed=copy) for copy in range(1, COPIES)]
        copies = [token_data(text.tokenizer, passages, CONTEXT, 0).tokens for passages in changed]
        tokens = np.concatenate([tokens, *copies])
    return TokenData(tokens, CONTEXT)


def shape(settings: Row) -> GPTConfig:
    """The model of a row."""
    own = {name: settings[name] for name in ("n_embd", "dropout", "label_smoothing")}
    return GPTConfig.llama(vocab_size=VOCAB_SIZE, context_length=CONTEXT, n_layer=N_LAYER, n_head=N_HEAD, **own)


def training(settings: Row) -> TrainConfig:
    """The training of a row: Muon at a level rate, so that a run that is cut off is the beginning of a longer one."""
    return TrainConfig(
        **{"max_steps": settings["updates"], "batch_size": BATCH, "optimizer": "muon", "learning_rate": RATE},
        **{"schedule": "wsd", "decay_share": 0.0, "weight_decay": settings["weight_decay"], "seed": settings["seed"]},
        **{"eval_every": settings["updates"] // POINTS, "eval_batches": 8, "max_rise": None},
        patience=2 if settings["restarts"] else NEVER,
        restarts=settings["restarts"],
    )


def _loss(trainer: Trainer, model: nn.Module, data: Any, batches: int | None = 32) -> float:
    return round(evaluate_loss(model, data.windows(BATCH, batches), trainer.autocast()), 4)


class Watch:
    """A callback that judges the training text as the validation text is, and a validation text of 512 tokens."""

    def __init__(self, train: TokenData, val: TokenData, test: TokenData):
        self.train, self.few, self.test = train, TokenData(val.tokens[:513], CONTEXT), test
        self.rows: list[dict[str, float]] = []

    def on_eval(self, trainer: Trainer, row: dict[str, float]) -> None:
        judged = {"train": (self.train, 4), "few": (self.few, None)}
        if row["step"] == trainer.config.max_steps:
            judged["last_test"] = (self.test, 32)
        losses = {name: _loss(trainer, trainer.model, data, n) for name, (data, n) in judged.items()}
        self.rows.append({"step": row["step"], "val": round(row["val_loss"], 4)} | losses)


def measure(settings: Row) -> Row:
    """Train as the settings say; the row, with the loss of the weights that were best in validation."""
    text, seed = scenes(), settings["seed"]
    train = TokenData(part(settings["share"], settings["augment"]).tokens, CONTEXT, seed)
    torch.manual_seed(seed)
    model = GPT(shape(settings))
    updates = settings["updates"] - settings["pretraining"]
    if settings["pretraining"]:
        _pretrain(model, settings)
    watch = Watch(part(settings["share"]), text.val, text.test)
    average = WeightAverage(settings["averaging"]) if settings["averaging"] else None
    trainer = Trainer(
        model, train, text.val, training(settings | {"updates": updates}), [watch, *filter(None, [average])]
    )
    started = time.perf_counter()
    finished(trainer)
    rows, best = watch.rows, trainer.rescue.rule.best_step + settings["pretraining"]
    result = settings | {
        **{"parameters": model.num_parameters(), "seconds": round(time.perf_counter() - started, 1), "best_step": best},
        "steps": [row["step"] + settings["pretraining"] for row in rows],
        **{name: [row[name] for row in rows] for name in ("train", "val", "few")},
        **{"best_test": _loss(trainer, model, text.test), "last_test": rows[-1].get("last_test")},
    }
    if average is not None:
        result["average_val"] = [round(loss, 4) for loss in trainer.history["average_val_loss"][1]]
        result["average_test"] = _loss(trainer, average.model, text.test)
    return result


def _pretrain(model: GPT, settings: Row) -> None:
    """The first updates on the speeches of presidents, which nobody has put aside a part of for this."""
    speeches = token_data(scenes().tokenizer, load_corpus("sotu")["text"][:40], CONTEXT, settings["seed"])
    config = training(settings | {"updates": settings["pretraining"]}).replace(patience=None, restarts=0)
    finished(Trainer(model, speeches, None, config, callbacks=[]))


class Windows:
    """Windows cut beforehand, (N, T + 1) ids, as data for the `Trainer`."""

    def __init__(self, windows: np.ndarray, seed: int):
        self.rows, self.seed = torch.from_numpy(windows.astype(np.int64)), seed

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """Random windows, a pure function of (seed, step)."""
        rows = self.rows[np.random.default_rng((self.seed, step)).integers(0, len(self.rows), size=batch_size)]
        return rows[:, :-1], rows[:, 1:].contiguous()

    def windows(self, batch_size: int, max_batches: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All windows in order, or the first batches of them."""
        for rows in self.rows.split(batch_size)[:max_batches]:
            yield rows[:, :-1], rows[:, 1:].contiguous()


def cut(tokens: np.ndarray, eos_id: int, how: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows to train on and a tenth to validate on, (N, T + 1) each, split as one of SPLITS says.

    By scene, whole scenes are held out, and a window that lies in two of them is left out.
    """
    random, stride = np.random.default_rng(seed), CONTEXT // 4 if how == "overlapping windows" else CONTEXT + 1
    starts = np.arange(0, len(tokens) - CONTEXT, stride)
    scene = np.cumsum(tokens == eos_id)  # the number of the scene that each token is in
    first, last = scene[starts], scene[starts + CONTEXT]
    if how == "scenes":
        wanted = random.permutation(scene[-1] + 1)
        reached = np.cumsum(np.bincount(scene)[wanted]) <= max(len(tokens) / 10, np.bincount(scene)[wanted[0]])
        held_out = np.isin(first, wanted[reached])
        whole = first == last
    else:
        held_out = np.isin(np.arange(len(starts)), random.permutation(len(starts))[: len(starts) // 10])
        whole = np.ones(len(starts), bool)
    windows = tokens[starts[:, None] + np.arange(CONTEXT + 1)]  # (N, T + 1)
    return windows[~held_out & whole], windows[held_out & whole]


def leak(settings: Row) -> Row:
    """A validation loss after a split by scene or by window, and the loss on scenes that have nothing to do with either."""
    text, seed = scenes(), settings["seed"]
    sides = cut(part(settings["share"]).tokens, text.tokenizer.eos_id, settings["split"], seed)
    train, val = (Windows(side, seed) for side in sides)
    torch.manual_seed(seed)
    model = GPT(shape(settings))
    trainer = Trainer(model, train, val, training(settings).replace(eval_batches=None), callbacks=[])
    started = time.perf_counter()
    best_step, claimed = finished(trainer).best()
    seconds = round(time.perf_counter() - started, 1)
    return (
        settings
        | {"seconds": seconds}
        | {
            "claimed": round(claimed, 4),
            "truth": _loss(trainer, model, text.test, None),
            "best_step": best_step,
        }
    )


def same_compute(n_embd: int) -> int:
    """Updates of a model of this width that cost as many multiplications as the usual ones, a multiple of POINTS."""
    costs = [flops_per_token(shape(USUAL | {"n_embd": width})) for width in (USUAL["n_embd"], n_embd)]
    return round(UPDATES * costs[0] / costs[1] / POINTS) * POINTS


def settings_of(remedy: str, seed: int) -> Row:
    """The settings of a remedy's row: what it changes, at the usual multiplications."""
    settings = USUAL | {"seed": seed} | REMEDIES[remedy]
    return settings | {"updates": same_compute(settings["n_embd"])}


def runs() -> Iterator[tuple[Row, Any]]:
    """Settings of every row, and what measures it, the most wanted first."""
    for seed in SEEDS:
        for remedy in REMEDIES:
            yield settings_of(remedy, seed), measure
    for seed in SEEDS:
        for name in SPLITS:
            yield (
                USUAL | {"experiment": "leak", "split": name, "seed": seed, "share": 0.5, "updates": 2 * UPDATES},
                leak,
            )
    for n_embd in reversed(SIZES):
        for share in SHARES:
            for dropout in DROPOUTS:
                yield USUAL | {"n_embd": n_embd, "share": share, "dropout": dropout}, measure
