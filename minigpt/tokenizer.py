"""Text to token ids and back: one token per character, or byte-level BPE (Sennrich et al. 2016; Radford et al. 2019).

Both speak the same five words (encode, decode, encode_batch, token_strings, to_json) and are stored as the
tokenizer.json of Hugging Face's `tokenizers`, which `transformers.PreTrainedTokenizerFast` opens.
This module knows nothing of models or tensors: ids are lists of int.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minigpt.files import as_text, write_atomically

END_OF_TEXT = "<|endoftext|>"
PIECE = 10_000  # characters
BETWEEN_WORDS = re.compile(r"(?<=\S)(?= \S)|(?<=\S\n)(?=\S)")


class Tokenizer(Protocol):
    """What every tokenizer here can do."""

    vocab_size: int
    eos_id: int | None

    def encode(self, text: str) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def token_strings(self, ids: Sequence[int]) -> list[str]: ...
    def to_json(self) -> str: ...


def pieces(text: str, length: int = PIECE) -> Iterator[str]:
    """A long text in pieces of about `length` characters, which give the ids that the whole gives.

    The library takes a hundred times the memory of what it encodes or learns from at once. A piece ends before a space or
    after a line break between two words, where the pattern of byte-level BPE (Radford et al. 2019) ends a token anyway.
    """
    start = 0
    while end := BETWEEN_WORDS.search(text, start + length):
        yield text[start : end.start()]
        start = end.start()
    yield text[start:]


def _check_text(text: str) -> str:
    if not isinstance(text, str):
        raise ValueError(f"encode takes a str, and this is {type(text).__name__}; use encode_batch for several texts.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is {text[error.start]!r}, half of a surrogate pair and no character of its own; "
            'repair the text first, for example with text.encode("utf-16", "surrogatepass").decode("utf-16").'
        ) from None
    return text


def _check_ids(ids: Sequence[int], vocab_size: int) -> list[int]:
    ids = [int(i) for i in ids]
    for i in ids:
        if not 0 <= i < vocab_size:
            raise ValueError(f"token id {i} lies outside the vocabulary 0 to {vocab_size - 1}.")
    return ids


def _save(tokenizer: Tokenizer, folder: str | PathLike) -> None:
    write_atomically(Path(folder), {"tokenizer.json": as_text(tokenizer.to_json())})


class CharTokenizer:
    """One token per character. Nothing to learn, long sequences, and no way to write a character it has not seen."""

    eos_id = None

    def __init__(self, characters: Sequence[str]):
        self.characters = list(characters)
        self._ids = {character: i for i, character in enumerate(self.characters)}
        self.vocab_size = len(self.characters)

    @classmethod
    def train(cls, texts: Iterable[str]) -> CharTokenizer:
        """The sorted set of all characters in `texts`. ValueError when there are none."""
        characters = sorted(set().union(*texts))
        if not characters:
            raise ValueError("there is no character to learn from: the texts are empty.")
        return cls(characters)

    def encode(self, text: str) -> list[int]:
        """Ids, one per character. ValueError for a character outside the vocabulary (position named)."""
        _check_text(text)
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            at = next(i for i, character in enumerate(text) if character not in self._ids)
            raise ValueError(
                f"character {at} is {text[at]!r}, which is not among the {self.vocab_size} characters this tokenizer "
                "was trained on; leave it out, or use a BPETokenizer, which can write any text."
            ) from None

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text for ids. ValueError for an id outside the vocabulary."""
        return "".join(self.characters[i] for i in _check_ids(ids, self.vocab_size))

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """One printable piece per id, for pictures: white space made visible."""
        return [_visible(self.decode([i])) for i in ids]

    def to_json(self) -> str:
        """The text of tokenizer.json, in the format of the `tokenizers` library."""
        tokenizer = tokenizers.Tokenizer(models.WordLevel(dict(self._ids)))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        return tokenizer.to_str(pretty=True)

    save = _save


class BPETokenizer:
    """Byte-level byte-pair encoding: frequent strings are one token, and any text at all can be written."""

    def __init__(self, tokenizer: tokenizers.Tokenizer):
        self._tokenizer = tokenizer
        self.vocab_size = tokenizer.get_vocab_size()
        self.eos_id = tokenizer.token_to_id(END_OF_TEXT)

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int = 1024,
        special_tokens: Sequence[str] = (END_OF_TEXT,),
        show_progress: bool = False,
    ) -> BPETokenizer:
        """Learn merges from `texts` until there are `vocab_size` tokens (fewer when the text runs out of pairs).

        Raises:
            ValueError: vocab_size is too small to hold the 256 bytes and the special tokens.
        """
        smallest = 256 + len(special_tokens)
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size={vocab_size} cannot hold the 256 bytes and {len(special_tokens)} special tokens; "
                f"use at least {smallest}."
            )
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(special_tokens),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=show_progress,
        )
        tokenizer.train_from_iterator((piece for text in texts for piece in pieces(_check_text(text))), trainer)
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Ids for any text. ValueError for a lone surrogate, which is not text."""
        return self._tokenizer.encode(_check_text(text)).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids for many texts at once, on all cores."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast([_check_text(text) for text in texts])]

    def decode(self, ids: Sequence[int]) -> str:
        """Text for ids, special tokens included; bytes that are no complete character become U+FFFD."""
        return self._tokenizer.decode(_check_ids(ids, self.vocab_size), skip_special_tokens=False)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """One printable piece per id, for pictures: white space made visible."""
        return [_visible(self.decode([i])) for i in ids]

    def to_json(self) -> str:
        return self._tokenizer.to_str(pretty=True)

    save = _save


def _visible(piece: str) -> str:
    return piece.replace(" ", "·").replace("\n", "↵").replace("\t", "→")


def load_tokenizer(folder: str | PathLike) -> Tokenizer:
    """Open the tokenizer.json in `folder` (or the file itself): characters or BPE, whichever it holds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged, or holds another kind of tokenizer.
    """
    path = Path(folder)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer.json at {path}; tokenizer.save(folder) writes one.")
    text = path.read_text(encoding="utf-8")
    try:
        model = json.loads(text)["model"]
        kind = model["type"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or is no tokenizer.json ({error}); save it again.") from error
    if kind == "WordLevel":
        return CharTokenizer(sorted(model["vocab"], key=model["vocab"].get))
    if kind == "BPE":
        return BPETokenizer(tokenizers.Tokenizer.from_str(text))
    raise ValueError(f"{path} holds a {kind} tokenizer; minigpt reads BPE and its own character tokenizers.")
