"""Text to token ids and back: one token per character, or byte-level BPE (Sennrich et al. 2016; Radford et al. 2019).

Both speak the same words (encode, decode, encode_batch, token_strings, to_json, to_files) and are stored as the
tokenizer.json of Hugging Face's `tokenizers`, with a tokenizer_config.json beside it, so that `transformers` opens them.
Files, ours and those of others, are read by `minigpt.tokenizer_files`. This module knows nothing of models or tensors:
ids are lists of int.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Protocol

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minigpt.chat_template import CHAT_TEMPLATE, CHAT_TOKENS
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
    def to_files(self) -> dict[str, str]: ...


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
    write_atomically(Path(folder), {name: as_text(content) for name, content in tokenizer.to_files().items()})


def _files(tokenizer: Tokenizer, **special: str | None) -> dict[str, str]:
    """tokenizer.json, and the tokenizer_config.json that tells `transformers` which class opens it."""
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    config |= {name: value for name, value in special.items() if value is not None}
    return {
        "tokenizer.json": tokenizer.to_json(),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False),
    }


def _visible(piece: str) -> str:
    """White space as signs, and what else has no shape of its own as its escape."""
    piece = piece.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in piece)


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """The 256 characters that stand for bytes in a byte-level vocabulary, each with its byte (Radford et al. 2019).

    A byte that is a printable character of Latin-1 stands for itself; the others are U+0100, U+0101 and so on, in
    order. The space is byte 32 and becomes U+0120, Ġ.
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = sorted(set(range(256)) - set(own))
    return {chr(byte): byte for byte in own} | {chr(256 + i): byte for i, byte in enumerate(others)}


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

    to_files = _files
    save = _save


class BPETokenizer:
    """Byte-level byte-pair encoding: frequent strings are one token, and any text at all can be written.

    Special tokens, such as the end of a text, are ids that no text can produce by accident: where a text contains the
    characters `<|endoftext|>`, `encode` reads them as characters, unless `allowed_special` says that they are meant.

    Args:
        tokenizer: of the `tokenizers` library; how it cuts text to a length or pads it is switched off.
        eos_token: the special token that ends a text; None when the vocabulary has none.
        chat_template: Jinja for conversations; by default ours, where the vocabulary has its tokens.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        eos_token: str | None = END_OF_TEXT,
        chat_template: str | None = None,
    ):
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.vocab_size = max(tokenizer.get_vocab().values()) + 1  # the files of others may leave ids out
        self._added = tokenizer.get_added_tokens_decoder()
        self.special_tokens = {token.content: i for i, token in self._added.items() if token.special}
        self.eos_id = tokenizer.token_to_id(eos_token) if eos_token is not None else None
        self.eos_token = eos_token if self.eos_id is not None else None
        has_ours = all(token in self.special_tokens for token in CHAT_TOKENS)
        self.chat_template = chat_template or (CHAT_TEMPLATE if has_ours else None)

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
            initial_alphabet=sorted(byte_alphabet()),
            show_progress=show_progress,
        )
        tokenizer.train_from_iterator((piece for text in texts for piece in pieces(_check_text(text))), trainer)
        return cls(tokenizer)

    def with_special_tokens(self, tokens: Sequence[str]) -> BPETokenizer:
        """A copy with more special tokens, whose ids follow the others. ValueError for one that is there already."""
        if known := [token for token in tokens if self._tokenizer.token_to_id(token) is not None]:
            raise ValueError(f"{known[0]} is in the vocabulary already; leave it out.")
        wider = tokenizers.Tokenizer.from_str(self._tokenizer.to_str())
        wider.add_special_tokens(list(tokens))
        return BPETokenizer(wider, self.eos_token, self.chat_template)

    def encode(self, text: str, allowed_special: bool = False) -> list[int]:
        """Ids for any text. ValueError for a lone surrogate, which is not text.

        Args:
            allowed_special: read special tokens that stand in the text as what they are. For a text that you wrote,
                never for one that somebody sent you.
        """
        return self._reader(allowed_special).encode(_check_text(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str], allowed_special: bool = False) -> list[list[int]]:
        """Ids for many texts at once, on all cores."""
        texts = [_check_text(text) for text in texts]
        encodings = self._reader(allowed_special).encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def _reader(self, allowed_special: bool) -> tokenizers.Tokenizer:
        reader = self._reads_special if allowed_special else self._tokenizer
        reader.encode_special_tokens = not allowed_special  # at every call, as a copy or a pickle forgets it
        return reader

    @functools.cached_property
    def _reads_special(self) -> tokenizers.Tokenizer:
        """A second one, so that two threads may encode with and without special tokens at the same time."""
        return tokenizers.Tokenizer.from_str(self._tokenizer.to_str())

    def decode(self, ids: Sequence[int]) -> str:
        """Text for ids, special tokens included; bytes that are no complete character become U+FFFD."""
        return self._tokenizer.decode(_check_ids(ids, self.vocab_size), skip_special_tokens=False)

    def token_bytes(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes that each id stands for; together they are the text in UTF-8."""
        alphabet, contents = byte_alphabet(), []
        for i in _check_ids(ids, self.vocab_size):
            if i in self._added:  # stands as it is, not in the alphabet of bytes
                contents.append(self._added[i].content.encode())
            else:
                contents.append(bytes(alphabet[character] for character in self._tokenizer.id_to_token(i) or ""))
        return contents

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """One printable piece per id, for pictures: white space made visible, half a character as its bytes in hex."""
        return [_piece(content) for content in self.token_bytes(ids)]

    def to_json(self) -> str:
        return self._tokenizer.to_str(pretty=True)

    def to_files(self) -> dict[str, str]:
        """What `save` writes, by file name. The padding that `transformers` asks for is the end of the text."""
        return _files(self, eos_token=self.eos_token, pad_token=self.eos_token, chat_template=self.chat_template)

    save = _save


def decode_pieces(tokenizer: Tokenizer, tokens: Iterable[int]) -> Iterator[str]:
    """Text as its tokens come, a piece at a time; a character whose last bytes are still to come waits for them."""
    ids: list[int] = []
    shown = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    yield tokenizer.decode(ids)[len(shown) :]


def _piece(content: bytes) -> str:
    try:
        return _visible(content.decode())
    except UnicodeDecodeError:
        return content.hex(" ").upper()
