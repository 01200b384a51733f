"""Labelled texts that are changed anew in every epoch: more to learn from where there are few."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from torch import Tensor

from minigpt.finetune.classifier import LabelledData
from minigpt.tokenizer import Tokenizer


class AugmentedData:
    """`LabelledData` for the `Trainer` whose texts are `change(texts, epoch)` in each epoch; the labels stay.

    Args:
        change: texts and the number of the epoch, from 0, to as many texts in the same order. A pure function, so that
            a training that is cut off goes on as it would have.
        others: as in `LabelledData`, the texts as they are.

    Raises:
        ValueError: as `LabelledData`, for the texts as they are at once, for changed ones in the epoch that shows them.
    """

    def __init__(
        self,
        change: Callable[[list[str], int], Sequence[str]],
        tokenizer: Tokenizer,
        texts: Sequence[str],
        labels: Sequence[int],
        n_classes: int,
        context_length: int,
        seed: int = 0,
    ):
        def show(epoch: int) -> LabelledData:
            return LabelledData(tokenizer, change(list(texts), epoch), labels, n_classes, context_length, seed)

        self.plain = LabelledData(tokenizer, texts, labels, n_classes, context_length, seed)
        self._shown = functools.lru_cache(maxsize=1)(show)

    def __len__(self) -> int:
        """How many texts there are."""
        return len(self.plain)

    def steps(self, epochs: float, batch_size: int) -> int:
        """How many updates so many epochs are."""
        return self.plain.steps(epochs, batch_size)

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """The batch of one step, a pure function of (seed, step), as of `LabelledData` with the texts of its epoch."""
        return self._shown(step // -(-len(self) // batch_size)).batch(step, batch_size)
