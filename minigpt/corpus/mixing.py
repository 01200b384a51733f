"""A mixture of sources by weight, counted in tokens (or characters), not in files: 200 novels are more than 200 tweets."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from tqdm import tqdm

from minigpt.config import nearest
from minigpt.tokenizer import Tokenizer

CHUNK = 256  # documents encoded at once


@dataclass(frozen=True)
class Share:
    """What one source gave: `size` in tokens (characters without a tokenizer), the share of the mixture that it makes,
    and how often its text is in there, `epochs`: 0.5 is half of it, 2 all of it twice."""

    source: str
    wanted: float
    share: float
    size: int
    documents: int
    epochs: float

    def __str__(self) -> str:
        amount = f"{self.size:,} in {self.documents:,} documents, {self.epochs:.2f} times its text"
        return f"{self.source}: {self.share:.3f} (wanted {self.wanted:.3f}), {amount}"


def mix(
    sources: Mapping[str, Dataset],
    weights: Mapping[str, float],
    *,
    size: int | None = None,
    tokenizer: Tokenizer | None = None,
    max_epochs: int = 4,
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[Dataset, list[Share]]:
    """Draw whole documents at random until each source fills its share of `size`; shuffled, with a column `source`.

    A source that runs out begins again, `max_epochs` times in all: four times is nearly as good as fresh text
    (Muennighoff et al. 2023). When it has run out for good a warning says so, and the mixture is smaller: no other source
    takes its place.

    Args:
        sources: name -> documents in the column `text`; other columns are left out.
        weights: name -> share; they are divided by their sum.
        size: tokens (characters without a tokenizer) of the mixture; None is as much as the weights allow with no
            document twice.

    Raises:
        ValueError: names that do not match, a negative weight or only zeros, an empty source, or a size below 1.
    """
    wanted = _checked(sources, weights, size, max_epochs)
    texts = {name: sources[name]["text"][:] for name in wanted}
    sizes = {name: _sizes(name, texts[name], tokenizer, show_progress) for name in wanted}
    if size is None:
        size = min(int(sizes[name].sum() / weight) for name, weight in wanted.items())
    drawn: list[tuple[str, str]] = []
    taken: dict[str, np.ndarray] = {}
    for name, weight in wanted.items():
        random = np.random.default_rng((seed, *name.encode()))
        order = np.concatenate([random.permutation(len(texts[name])) for _ in range(max_epochs)])
        reached = np.concatenate([[0], np.cumsum(sizes[name][order])])
        n = int(np.abs(reached - weight * size).argmin())  # the whole document more or less that comes nearest
        taken[name] = order[:n]
        drawn += [(texts[name][i], name) for i in order[:n]]
        if n == len(order) and reached[-1] < weight * size:
            times = "once" if max_epochs == 1 else f"{max_epochs} times"
            warnings.warn(
                f"{name} has run out: read {times} it gives {reached[-1]:,} of {weight * size:,.0f}. Lower its "
                "weight, ask for a smaller size, or raise max_epochs.",
                stacklevel=2,
            )
    shuffled = [drawn[i] for i in np.random.default_rng(seed).permutation(len(drawn))]
    total = sum(int(sizes[name][taken[name]].sum()) for name in wanted)
    shares = []
    for name, weight in wanted.items():
        got = int(sizes[name][taken[name]].sum())
        shares.append(Share(name, weight, got / max(1, total), got, len(taken[name]), got / int(sizes[name].sum())))
    return Dataset.from_dict({"text": [text for text, _ in shuffled], "source": [name for _, name in shuffled]}), shares


def _checked(
    sources: Mapping[str, Dataset], weights: Mapping[str, float], size: int | None, max_epochs: int
) -> dict[str, float]:
    """The weights above zero, as shares that add up to 1."""
    for name in weights:
        if name not in sources:
            raise ValueError(f"there is a weight for {name!r} and no such source.{nearest(name, list(sources))}")
    for name, dataset in sources.items():
        if name not in weights:
            raise ValueError(f"{name!r} has no weight; give it one, 0 to leave it out.")
        if weights[name] < 0:
            raise ValueError(f"weights[{name!r}]={weights[name]} is negative; use 0 to leave a source out.")
        if weights[name] and not len(dataset):
            raise ValueError(f"{name!r} has no documents; leave it out, or give it weight 0.")
    total = sum(weights.values())
    if total <= 0:
        raise ValueError("every weight is 0; at least one source must have some.")
    if size is not None and size < 1:
        raise ValueError(f"size={size} must be 1 or more, or None for as much as there is.")
    if max_epochs < 1:
        raise ValueError(f"max_epochs={max_epochs} must be 1 or more: 1 reads every document at most once.")
    return {name: weight / total for name, weight in weights.items() if weight > 0}


def _sizes(name: str, texts: Sequence[str], tokenizer: Tokenizer | None, show_progress: bool) -> np.ndarray:
    """Tokens, or characters, of each document."""
    if tokenizer is None:
        return np.array([len(text) for text in texts])
    bar = tqdm(range(0, len(texts), CHUNK), desc=f"counting {name}", disable=not show_progress)
    return np.array([len(ids) for first in bar for ids in tokenizer.encode_batch(texts[first : first + CHUNK])])
