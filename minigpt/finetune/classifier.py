"""A GPT that sorts texts into classes: its last hidden state through one small matrix, and the data that trains it.

B texts, T tokens of the longest, C = n_embd, K classes. Texts of a batch are filled up on the right with PADDING, which
no earlier token can see. What is trained here is trained by `minigpt.Trainer`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.finetune.batches import Examples, pad
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer

PADDING = -1  # in idx: no token at all


class Classifier(nn.Module):
    """A GPT body and a matrix `score` (K, C) on the hidden state of each text's last token (Radford et al. 2018, eq. 3-4).

    The same as `GPT2ForSequenceClassification` and `LlamaForSequenceClassification` of `transformers`, or, with
    `pooling="mean"`, with the mean over a text's tokens in place of the last.
    """

    def __init__(self, gpt: GPT, n_classes: int, pooling: str = "last"):
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"n_classes={n_classes} leaves nothing to decide; use 2 or more.")
        if pooling not in ("last", "mean"):
            raise ValueError(f"pooling={pooling!r} is unknown; use 'last' or 'mean'.")
        self.gpt, self.pooling = gpt, pooling
        like = gpt.norm.weight
        self.score = nn.Linear(gpt.config.n_embd, n_classes, bias=False, device=like.device, dtype=torch.float32)
        nn.init.normal_(self.score.weight, std=0.02)

    def features(self, idx: Tensor) -> Tensor:
        """What `score` reads: one row of numbers for each text, (B, T) -> (B, C)."""
        real = idx != PADDING  # (B, T)
        self.gpt.check(idx.clamp(min=0))
        hidden = self.gpt.hidden(idx.clamp(min=0))  # (B, T, C)
        if self.pooling == "mean":
            return (hidden * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True)
        return hidden[torch.arange(len(idx), device=idx.device), real.sum(dim=1) - 1]

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Logits (B, K) for texts (B, T) and, with targets (B,), their mean cross-entropy in nats per text."""
        features = self.features(idx)
        if not torch.is_autocast_enabled(features.device.type):
            features = features.to(self.score.weight.dtype)  # a body in half precision has its classes in full
        logits = self.score(features).float()  # (B, K)
        return logits, None if targets is None else F.cross_entropy(logits, targets, ignore_index=-100)


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], context_length: int) -> list[list[int]]:
    """Ids of each text; the end of one that is longer than the context is cut off, and a warning says how many were.

    Raises:
        ValueError: an empty text, or one text in place of several.
    """
    if isinstance(texts, str):
        raise ValueError("texts is one str; put it into a list: [text].")
    rows = tokenizer.encode_batch(list(texts))
    empty = next((number for number, row in enumerate(rows) if not row), None)
    if empty is not None:
        raise ValueError(f"text {empty} is empty, and there is nothing to judge; leave it out.")
    long = sum(len(row) > context_length for row in rows)
    if long:
        warnings.warn(
            f"{long} of {len(rows)} texts have more than {context_length} tokens, and their ends are cut off.",
            stacklevel=3,
        )
    return [row[:context_length] for row in rows]


class LabelledData(Examples):
    """Texts and their classes as batches for the `Trainer`. An epoch shows every text once, in an order of its own.

    Args:
        labels: a class from 0 to n_classes - 1 for each text.
        context_length: tokens of a text at most; the rest is cut off.

    Raises:
        ValueError: unequal lengths, no text, an empty text, a label outside the range, or a class without examples.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        texts: Sequence[str],
        labels: Sequence[int],
        n_classes: int,
        context_length: int,
        seed: int = 0,
    ):
        if len(texts) != len(labels) or not len(texts):
            raise ValueError(f"there are {len(texts)} texts and {len(labels)} labels; each text needs one label.")
        given = [label.item() if hasattr(label, "item") and np.ndim(label) == 0 else label for label in labels]
        wrong = next((label for label in given if type(label) is not int or not 0 <= label < n_classes), None)
        if wrong is not None or None in given:
            raise ValueError(
                f"label {wrong!r} is outside the {n_classes} classes: use whole numbers 0 to {n_classes - 1}."
            )
        self.labels = np.array(given)
        missing = sorted(set(range(n_classes)) - set(self.labels.tolist()))
        if missing:
            raise ValueError(
                f"class {missing[0]} of {n_classes} has no example: nothing can be learned or said about it. Add some, or "
                "leave the class out and number the others anew."
            )
        self.context_length = context_length
        self.rows = encode_texts(tokenizer, texts, context_length)
        super().__init__([len(row) for row in self.rows], seed)

    def _take(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        idx = pad([self.rows[i] for i in numbers], PADDING, self.context_length)
        return idx, torch.from_numpy(self.labels[numbers].astype(np.int64))


@torch.inference_mode()
def read_features(
    classifier: Classifier, tokenizer: Tokenizer, texts: Sequence[str], batch_size: int = 64
) -> np.ndarray:
    """What `score` reads of each text, (N, C), the texts in batches of about one length.

    The model is left in the mode that it was in. Errors as `encode_texts`.
    """
    longest = classifier.gpt.config.context_length
    rows = encode_texts(tokenizer, texts, longest)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    features = np.empty((len(rows), classifier.score.in_features), dtype=np.float32)
    device, was_training = classifier.score.weight.device, classifier.training
    classifier.eval()
    try:
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            idx = pad([rows[i] for i in numbers], PADDING, longest).to(device)
            features[numbers] = classifier.features(idx).float().cpu().numpy()
    finally:
        classifier.train(was_training)
    return features


@torch.inference_mode()
def predict(classifier: Classifier, tokenizer: Tokenizer, texts: Sequence[str], batch_size: int = 64) -> np.ndarray:
    """The probability of each class for each text, (N, K). Mode and errors as `read_features`."""
    features = torch.from_numpy(read_features(classifier, tokenizer, texts, batch_size))
    return classifier.score(features.to(classifier.score.weight)).float().softmax(dim=-1).cpu().numpy()
