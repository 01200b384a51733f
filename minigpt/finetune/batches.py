"""Examples of different lengths as batches for the `Trainer`: an epoch shows each of them once, neighbours in length together.

B examples, T tokens of the longest one in a batch.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

POOL = 16  # batches whose examples are sorted by length together: little filling, and enough chance
STRIDE = 16  # lengths of batches are multiples of it: a processor prepares itself anew for every shape of a product


def pad(rows: Sequence[Sequence[int]], filling: int, longest: int) -> Tensor:
    """Rows of ids as one tensor (B, T), filled up on the right; T is a multiple of STRIDE, at most `longest`."""
    width = max(map(len, rows))
    padded = torch.full((len(rows), max(width, min(longest, -(-width // STRIDE) * STRIDE))), filling)
    for filled, row in zip(padded, rows):
        filled[: len(row)] = torch.tensor(row)
    return padded


class Data(Protocol):
    """What gives batches, such as `Examples` and `minigpt.TokenData`."""

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]: ...


class Examples:
    """What the two kinds of data share: the order in which examples with these `lengths` come. `_take` makes a batch."""

    def __init__(self, lengths: Sequence[int], seed: int):
        self.lengths, self.seed = np.asarray(lengths), seed
        self._epoch = functools.lru_cache(maxsize=1)(self._order)

    def __len__(self) -> int:
        """How many examples there are."""
        return len(self.lengths)

    def _take(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def steps(self, epochs: float, batch_size: int) -> int:
        """How many updates so many epochs are."""
        return max(1, round(epochs * -(-len(self) // batch_size)))

    def _order(self, epoch: int, batch_size: int) -> list[np.ndarray]:
        random = np.random.default_rng((self.seed, epoch))
        order, many = random.permutation(len(self)), POOL * batch_size
        pools = (order[first : first + many] for first in range(0, len(order), many))
        order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        batches = [order[first : first + batch_size] for first in range(0, len(order), batch_size)]
        return [batches[i] for i in random.permutation(len(batches))]

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """The batch of one step, a pure function of (seed, step): idx and targets. One in each epoch may be smaller."""
        epoch, at = divmod(step, -(-len(self) // batch_size))
        return self._take(self._epoch(epoch, batch_size)[at])

    def windows(self, batch_size: int, max_batches: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """All examples once, shortest first; with `max_batches`, so many batches spread evenly over the lengths."""
        order = np.argsort(self.lengths, kind="stable")
        if max_batches is not None and len(order) > max_batches * batch_size:
            order = order[np.linspace(0, len(order) - 1, max_batches * batch_size).astype(int)]
        for first in range(0, len(order), batch_size):
            yield self._take(order[first : first + batch_size])


class Rehearsal:
    """Every so many batches one from the text of before, so that a model does not forget it (Robins 1995).

    Args:
        share: of the batches that come from `before`, spread evenly.

    Raises:
        ValueError: a share that is not between 0 and 1.
    """

    def __init__(self, task: Data, before: Data, share: float = 0.2):
        if not 0 < share < 1:
            raise ValueError(f"share={share} must lie between 0 and 1; 0.2 makes every fifth batch one of before.")
        self.task, self.before, self.share = task, before, share

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """A batch of one or of the other, a pure function of the step."""
        rehearsed = int(step * self.share)
        if int((step + 1) * self.share) > rehearsed:
            return self.before.batch(rehearsed, batch_size)
        return self.task.batch(step - rehearsed, batch_size)
