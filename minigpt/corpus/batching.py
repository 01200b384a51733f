"""From documents to batches: one long array of token ids on disk, and windows cut out of it.

B windows, T = context_length. A window's targets are its tokens shifted by one. The split into training and validation
text is by document, so that no sentence is on both sides.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from tqdm import tqdm

from minigpt.tokenizer import BPETokenizer, Tokenizer, pieces

CHUNK = 64  # pieces of text encoded at once: what the library keeps for each token is many times its id


class TokenData:
    """A long array of token ids (N,), in memory or memory-mapped, that gives batches of windows.

    `batch` draws windows at random, as a pure function of (seed, step): a run that is resumed at step 500 sees the
    batches that it would have seen. `windows` walks through the text in order and predicts every token once.
    """

    def __init__(self, tokens: np.ndarray, context_length: int, seed: int = 0):
        if len(tokens) < context_length + 1:
            raise ValueError(
                f"the text has {len(tokens)} tokens; one window of context_length={context_length} and its targets need "
                f"{context_length + 1}. Use more text, or a context_length of at most {max(1, len(tokens) - 1)}."
            )
        self.tokens, self.context_length, self.seed = tokens, context_length, seed

    def __len__(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)

    def _cut(self, starts: np.ndarray) -> tuple[Tensor, Tensor]:
        windows = self.tokens[starts[:, None] + np.arange(self.context_length + 1)]  # (B, T + 1)
        windows = torch.from_numpy(windows.astype(np.int64))
        return windows[:, :-1], windows[:, 1:].clone()  # targets may be masked without touching idx

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """Random windows: idx and targets, both (B, T) int64."""
        random = np.random.default_rng((self.seed, step))
        return self._cut(random.integers(0, len(self.tokens) - self.context_length, size=batch_size))

    def windows(self, batch_size: int, max_batches: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Windows that together predict every token but the first exactly once: (B, T) pairs.

        The last window is moved back to fit, with -100 on the targets that another one covers. With `max_batches`,
        so many batches of windows spread evenly over the text: always the same ones.
        """
        T = self.context_length
        starts = np.arange(0, len(self.tokens) - 1, T)
        if max_batches is not None and len(starts) > max_batches * batch_size:
            starts = starts[np.linspace(0, len(starts) - 1, max_batches * batch_size).astype(int)]
        for first in range(0, len(starts), batch_size):
            wanted = starts[first : first + batch_size]
            fitting = np.minimum(wanted, len(self.tokens) - 1 - T)
            idx, targets = self._cut(fitting)
            for row, skip in enumerate(wanted - fitting):
                targets[row, :skip] = -100
            yield idx, targets


class Together:
    """Several texts judged as one: `windows` walks through each in turn, and every target weighs the same."""

    def __init__(self, parts: Sequence[TokenData]):
        self.parts = parts

    def windows(self, batch_size: int, max_batches: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """As `TokenData.windows`; `max_batches` are shared out equally, at least one for each."""
        share = None if max_batches is None else max(1, max_batches // len(self.parts))
        for part in self.parts:
            yield from part.windows(batch_size, share)


def split(texts: Sequence[str], val_fraction: float = 0.1, seed: int = 0) -> tuple[list[str], list[str]]:
    """Training and validation documents, the same for every tokenizer; the second hold `val_fraction` of the characters."""
    order, wanted = np.random.default_rng(seed).permutation(len(texts)), val_fraction * sum(map(len, texts))
    reached = np.cumsum([len(texts[i]) for i in order])
    cut = int(np.searchsorted(reached, wanted)) + 1
    return [texts[i] for i in sorted(order[cut:])], [texts[i] for i in sorted(order[:cut])]


def token_data(tokenizer: BPETokenizer, texts: Sequence[str], context_length: int, seed: int) -> TokenData:
    """The documents as one row of ids, each closed by the end-of-text token."""
    ids = [
        np.array([*document, tokenizer.eos_id], dtype=_dtype(tokenizer))
        for first in range(0, len(texts), CHUNK)
        for document in tokenizer.encode_batch(texts[first : first + CHUNK])
    ]
    return TokenData(np.concatenate(ids), context_length, seed)


def pack(
    dataset: Dataset,
    tokenizer: Tokenizer,
    folder: str | PathLike | None = None,
    *,
    context_length: int,
    val_fraction: float = 0.1,
    seed: int = 0,
    show_progress: bool = False,
) -> tuple[TokenData, TokenData]:
    """Encode the `text` column and split it into training and validation tokens, by document.

    Whole documents, drawn at random, go to the validation side until it holds `val_fraction` of the tokens. A corpus
    of one document is cut: its end is the validation text. Documents are separated by the tokenizer's end-of-text
    token or, for a tokenizer without one, by an empty line.

    Args:
        folder: where train.bin and val.bin are kept, memory-mapped; None keeps the ids in memory. A folder that
            already holds the same text, tokenizer and split is used as it is.
        context_length: T, tokens in a window.

    Raises:
        ValueError: no text, or a side with fewer than context_length + 1 tokens.
    """
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction={val_fraction} must lie between 0 and 1; 0.1 keeps a tenth for validation.")
    texts = dataset["text"]
    key = hashlib.sha256(f"{tokenizer.to_json()}{val_fraction}{seed}".encode())
    for text in texts:
        key.update(text.encode("utf-8", "surrogatepass") + b"\0")
    meta = {"key": key.hexdigest(), "vocab_size": tokenizer.vocab_size}
    meta_path = Path(folder) / "packed.json" if folder is not None else None
    if meta_path is None or not meta_path.exists() or json.loads(meta_path.read_text(encoding="utf-8")) != meta:
        sides = _encode_and_split(list(texts), tokenizer, val_fraction, seed, show_progress)
        if meta_path is not None:
            _write(meta_path, meta, sides)
    if meta_path is not None:
        sides = tuple(
            np.memmap(meta_path.with_name(f"{n}.bin"), dtype=_dtype(tokenizer), mode="r") for n in ("train", "val")
        )
    train, val = (
        _token_data(name, side, context_length, seed) for name, side in zip(("training", "validation"), sides)
    )
    return train, val


def _token_data(name: str, tokens: np.ndarray, context_length: int, seed: int) -> TokenData:
    try:
        return TokenData(tokens, context_length, seed)
    except ValueError as error:
        raise ValueError(f"the {name} side of the split is too short: {error}") from None


def _dtype(tokenizer: Tokenizer) -> type:
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32


def _encode_and_split(
    texts: list[str], tokenizer: Tokenizer, val_fraction: float, seed: int, show_progress: bool
) -> tuple[np.ndarray, np.ndarray]:
    parts = ((number, piece) for number, text in enumerate(texts) for piece in pieces(text))
    encoded: list[list[np.ndarray]] = [[] for _ in texts]
    bar = tqdm(
        desc="encoding", total=sum(map(len, texts)), unit=" characters", unit_scale=True, disable=not show_progress
    )
    with bar:
        while chunk := list(itertools.islice(parts, CHUNK)):
            for (number, piece), ids in zip(chunk, tokenizer.encode_batch([piece for _, piece in chunk])):
                encoded[number].append(np.array(ids, dtype=_dtype(tokenizer)))
                bar.update(len(piece))
    documents = [np.concatenate(arrays) for arrays in encoded]
    total = sum(map(len, documents))
    if total == 0:
        raise ValueError("there is no text to pack: every document is empty.")
    if len(documents) == 1:
        cut = int(total * (1 - val_fraction))
        return documents[0][:cut], documents[0][cut:]
    order, held_out, size = np.random.default_rng(seed).permutation(len(documents)), set(), 0
    for i in order[:-1]:
        if size >= val_fraction * total:
            break
        held_out.add(int(i))
        size += len(documents[i])
    separator = _separator(tokenizer)
    sides: tuple[list, list] = ([], [])
    for i, document in enumerate(documents):
        side = sides[i in held_out]
        side += [separator, document] if side else [document]
    return np.concatenate(sides[0]), np.concatenate(sides[1])


def _separator(tokenizer: Tokenizer) -> np.ndarray:
    if tokenizer.eos_id is not None:
        return np.array([tokenizer.eos_id], dtype=_dtype(tokenizer))
    try:
        return np.array(tokenizer.encode("\n\n"), dtype=_dtype(tokenizer))
    except ValueError:  # a text without a line break has no such character
        return np.array([], dtype=_dtype(tokenizer))


def _write(meta_path: Path, meta: dict, sides: tuple[np.ndarray, np.ndarray]) -> None:
    folder = meta_path.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        try:
            for name, side in zip(("train", "val"), sides, strict=True):
                side.tofile(Path(beside) / f"{name}.bin")
            (Path(beside) / meta_path.name).write_text(json.dumps(meta), encoding="utf-8")
        except OSError as error:  # NumPy reports a full disk as a count of what it wrote
            raise OSError(
                f"the {sum(map(len, sides)):,} tokens do not fit on the disk that holds {folder} ({error}). What was packed "
                "there before is untouched; free some space, or keep the tokens in memory: pack(..., folder=None)."
            ) from error
        meta_path.unlink(missing_ok=True)  # it vouches for the other two, so it goes first and comes last
        for name in ("train.bin", "val.bin", meta_path.name):
            (Path(beside) / name).replace(folder / name)
