"""The jobs of `minigpt finetune`: which model is trained on what, how it is judged before and after, and how it is saved."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.chat_template import CHAT_TOKENS
from minigpt.checkpoint import save_checkpoint
from minigpt.corpus import load_corpus
from minigpt.corpus.batching import TokenData, pack, token_data
from minigpt.evaluate import evaluate_loss
from minigpt.finetune import ChatData, Classifier, LabelledData, add_chat_tokens, predict, save_classifier
from minigpt.finetune.own_data import conversations, labelled_texts
from minigpt.finetune.tasks import CLASSES, code, dialogue, sentiment
from minigpt.metrics import bootstrap_interval
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer, Tokenizer
from minigpt.trainer import Trainer

Choices = dict[str, Any]
JUDGED = 40  # batches of a text that a loss is measured on, spread evenly over it
SIDES = {"val": "validation", "test": "test"}


class Sorting:
    """Texts into classes, judged by accuracy beside the commonest class, and by macro F1.

    Raises:
        ValueError: scikit-learn is not installed, or the learner's own data cannot be used.
        FetchError: the catalog's texts cannot be fetched.
    """

    def __init__(self, choices: Choices, base: GPT, tokenizer: Tokenizer, context_length: int):
        if importlib.util.find_spec("sklearn") is None:
            raise ValueError('macro F1 needs scikit-learn, which is not installed; run: pip install -e ".[course]".')
        seed, own = choices["seed"], choices["data"]
        self.parts, self.classes = labelled_texts(own, seed) if own else (sentiment(), list(CLASSES))
        self.model, self.tokenizer, self.context_length = Classifier(base, len(self.classes)), tokenizer, context_length
        self.train, self.val = (
            LabelledData(tokenizer, rows["text"][:], rows["label"][:], len(self.classes), context_length, seed)
            for rows in (self.parts.train, self.parts.val)
        )
        labels = np.bincount(self.parts.train["label"][:])
        self.commonest = self.classes[labels.argmax()]
        self.commonest_share = float(np.mean(np.array(self.parts.test["label"][:]) == labels.argmax()))

    def __str__(self) -> str:
        train, val, test = map(len, self.parts)
        classes = ", ".join(self.classes)
        return f"{train:,} texts to learn from, {val:,} to choose on, {test:,} for the test; classes: {classes}"

    def judge(self, trainer: Trainer) -> dict[str, float]:
        """Accuracy on the validation and test texts, with an interval of 95 % and macro F1 for the test."""
        from sklearn.metrics import f1_score

        found: dict[str, float] = {}
        for side in SIDES:
            rows = getattr(self.parts, side)
            with trainer.autocast():
                said = predict(self.model, self.tokenizer, rows["text"][:]).argmax(axis=1)
            labels = np.array(rows["label"][:])
            accuracy = bootstrap_interval(np.mean, said == labels)
            found[f"{side}_accuracy"] = round(accuracy.value, 4)
        found["test_low"], found["test_high"] = round(accuracy.low, 4), round(accuracy.high, 4)
        found["test_macro_f1"] = round(float(f1_score(labels, said, average="macro")), 4)
        return found | {"test_commonest_class": round(self.commonest_share, 4)}

    def tell(self, before: dict[str, float], after: dict[str, float]) -> Iterator[str]:
        """What was gained, in lines."""
        yield f"validation accuracy {before['val_accuracy']:.3f} before, {after['val_accuracy']:.3f} after"
        yield (
            f"test accuracy {before['test_accuracy']:.3f} before, {after['test_accuracy']:.3f} after "
            f"({after['test_low']:.3f} to {after['test_high']:.3f}); always {self.commonest!r}: {self.commonest_share:.3f}"
        )
        yield f"test macro F1 {before['test_macro_f1']:.3f} before, {after['test_macro_f1']:.3f} after"

    def save(self, folder: Path, training: Choices) -> str:
        """Write the classifier; the command to go on with."""
        save_classifier(folder, self.model, self.tokenizer, self.classes, training)
        return f'minigpt classify {folder} "some text"'


class Writing:
    """Text that is gone on with, or conversations, judged by the loss in nats per token.

    Raises:
        ValueError: a tokenizer that cannot do the job, a method that cannot learn the tokens of a conversation, or the
            learner's own data cannot be used.
        FetchError: the catalog's texts cannot be fetched.
    """

    def __init__(self, choices: Choices, base: GPT, tokenizer: Tokenizer, context_length: int):
        self.context_length, self.converses = context_length, choices["task"] == "dialogue"
        seed, own = choices["seed"], choices["data"]
        self.sides: dict[str, Any]
        if self.converses:
            self.model, self.tokenizer = _with_chat_tokens(base, tokenizer, choices["method"])
            parts = conversations(own, seed) if own else dialogue()
            self.sides = {
                side: ChatData(self.tokenizer, rows["messages"][:], context_length, seed)
                for side, rows in parts._asdict().items()
            }
        else:
            self.model, self.tokenizer = base, tokenizer
            if own:
                packed = pack(load_corpus(own), tokenizer, context_length=context_length, seed=seed)
                self.sides = dict(zip(("train", "val"), packed))
            elif tokenizer.eos_id is None:
                raise ValueError("the base model's tokenizer has no end-of-text token to put between modules.")
            else:
                self.sides = {
                    side: token_data(tokenizer, rows["text"][:], context_length, seed)
                    for side, rows in code()._asdict().items()
                }
        self.train, self.val = self.sides["train"], self.sides["val"]

    def __str__(self) -> str:
        what = "conversations, or parts of long ones" if self.converses else "tokens"
        return ", ".join(f"{len(data):,} in {side}" for side, data in self.sides.items()) + f" ({what})"

    def judge(self, trainer: Trainer) -> dict[str, float]:
        """The loss in nats per token of the answers, or of all tokens, on each side that is not learned from."""
        batches = {s: d.windows(trainer.config.batch_size, JUDGED) for s, d in self.sides.items() if s in SIDES}
        return {f"{s}_loss": round(evaluate_loss(self.model, b, trainer.autocast()), 4) for s, b in batches.items()}

    def tell(self, before: dict[str, float], after: dict[str, float]) -> Iterator[str]:
        """What was gained, in lines."""
        for name, loss in after.items():
            side = SIDES[name.removesuffix("_loss")]
            yield f"{side} loss {before[name]:.3f} nats per token before, {loss:.3f} after"

    def save(self, folder: Path, training: Choices) -> str:
        """Write the checkpoint; the command to go on with."""
        save_checkpoint(folder, self.model, self.tokenizer, training)
        return f"minigpt chat {folder}" if self.converses else f'minigpt generate {folder} --prompt "def "'


def _with_chat_tokens(base: GPT, tokenizer: Tokenizer, method: str) -> tuple[GPT, BPETokenizer]:
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError("the base model's tokenizer is one of characters and has no room for the tokens of a chat.")
    missing = [token for token in CHAT_TOKENS if token not in tokenizer.special_tokens]
    if missing and method != "full":
        raise ValueError(
            f"the base model does not know {' and '.join(missing)}, so their rows of its table must be learned, and with "
            f"--method {method} the table stands still: use --method full, or a base that knows them, such as smollm2."
        )
    return add_chat_tokens(base, tokenizer)


def updates(epochs: float, job: Sorting | Writing, batch_size: int) -> int:
    """How many updates so many epochs are; an epoch of a text is as many tokens as it has."""
    if epochs <= 0:
        raise ValueError(f"epochs={epochs:g} trains nothing; use a number above 0, such as 2.")
    if isinstance(job.train, TokenData):
        return max(1, round(epochs * len(job.train) / (batch_size * job.context_length)))
    return job.train.steps(epochs, batch_size)
