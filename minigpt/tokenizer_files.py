"""Opens tokenizer files, ours and those of others: tokenizer.json, and GPT-2's pair of vocab.json and merges.txt.

What is refused, with its reason: files that are damaged, tokenizers of another kind, and byte-level ones that lack bytes
which texts are made of, since text with those bytes would vanish without a word.
"""

from __future__ import annotations

import json
from os import PathLike
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from minigpt.tokenizer import END_OF_TEXT, BPETokenizer, CharTokenizer, Tokenizer, byte_alphabet

PAIRS = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}  # the names in `transformers`, and those of 2019

# No printed text has them: control characters, and bytes that no UTF-8 character begins with, or none that has a shape.
RARE_BYTES = ({*range(0x20), 0x7F} - set(b"\t\n\r")) | {0xC0, 0xC1, *range(0xF1, 0x100)}


def load_tokenizer(where: str | PathLike) -> Tokenizer:
    """Open the tokenizer in a folder, or a tokenizer.json or vocab.json itself: characters or byte-level BPE.

    A model on the Hugging Face hub, by its name, and a .gguf file have one too (see `minigpt.checkpoint`). A folder's
    tokenizer_config.json and chat_template.jinja say which token ends a text, and how a conversation is laid out.
    `vocab.json` needs its `merges.txt` beside it (`encoder.json` its `vocab.bpe`). Control characters may be missing from
    the vocabulary of others, as from SmolLM2's: `encode` then leaves them out, as `transformers` does.

    Raises:
        FileNotFoundError: there is none, or half of a pair is missing.
        ValueError: the file is damaged, holds another kind of tokenizer, or cannot write every text.
        FetchError: neither a path, nor a model on the hub that could be fetched.
    """
    from minigpt import interop

    path = interop.locate(where)
    if path.suffix == ".gguf":
        return interop.GGUFFile(path).tokenizer()
    names = ["tokenizer.json", *PAIRS]
    if path.is_dir():
        path = path / next((name for name in names if (path / name).is_file()), names[0])
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no tokenizer at {where}; expected is a tokenizer.json, GPT-2's pair vocab.json and merges.txt, or a "
            "folder that holds them, as tokenizer.save(folder) makes it."
        )
    if path.name in PAIRS:
        return _from_pair(path, path.with_name(PAIRS[path.name]))
    content = _read_json(path)
    try:
        model = content["model"]
        kind, vocabulary = model["type"], model.get("vocab")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or is no tokenizer.json ({error!r}); save it again.") from error
    if kind == "WordLevel":
        return _characters(path, vocabulary)
    if kind != "BPE":
        raise ValueError(
            f"{path} holds a {kind} tokenizer; minigpt reads byte-level BPE and its own character tokenizers."
        )
    if not _is_byte_level(content.get("pre_tokenizer")):
        raise ValueError(
            f"{path} holds a BPE that joins characters, as SentencePiece makes it; minigpt reads byte-level BPE, as GPT-2, "
            "Llama 3, Qwen and SmolLM have it."
        )
    check_bytes(path, vocabulary)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path} is damaged ({error}); save or fetch it again.") from error
    tokenizer.decoder = tokenizer.decoder or decoders.ByteLevel()
    return _with_config(tokenizer, path.parent)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or brackets in brackets without end
        raise ValueError(f"{path} is damaged ({error}); save or fetch it again.") from error


def _is_byte_level(step: Any) -> bool:
    """Whether a pre-tokenizer, or one of the steps that it is made of, writes text as bytes."""
    if not isinstance(step, dict):
        return False
    return step.get("type") == "ByteLevel" or any(map(_is_byte_level, step.get("pretokenizers") or ()))


def check_bytes(path: Path, vocabulary: Any) -> None:
    """Refuse a byte-level vocabulary, token to id, that cannot write every printed text. ValueError names a byte."""
    if not isinstance(vocabulary, dict) or not all(type(i) is int and i >= 0 for i in vocabulary.values()):
        raise ValueError(f"{path} is damaged: its vocabulary is no table of tokens and ids; save or fetch it again.")
    missing = [byte for character, byte in byte_alphabet().items() if character not in vocabulary]
    if not RARE_BYTES.issuperset(missing):
        raise ValueError(
            f"the vocabulary of {path} has {len(vocabulary)} tokens and lacks {len(missing)} of the 256 bytes, such as "
            f"0x{missing[0]:02x}; text with them would vanish. Train it again with the whole alphabet of bytes, as "
            "BPETokenizer.train does."
        )


def _characters(path: Path, vocabulary: Any) -> CharTokenizer:
    if not isinstance(vocabulary, dict) or sorted(vocabulary.values(), key=str) != sorted(
        range(len(vocabulary)), key=str
    ):
        raise ValueError(f"{path} is damaged: its ids are not 0 to {len(vocabulary or ()) - 1}; save it again.")
    longer = next((word for word in vocabulary if len(word) != 1), None)
    if longer is not None:
        raise ValueError(
            f"{path} holds a WordLevel tokenizer of whole words, such as {longer!r}; minigpt reads byte-level BPE and its "
            "own character tokenizers."
        )
    return CharTokenizer(sorted(vocabulary, key=vocabulary.get))


def _from_pair(vocabulary: Path, merges: Path) -> BPETokenizer:
    if not merges.is_file():
        raise FileNotFoundError(f"{vocabulary.name} needs {merges.name} beside it, and {vocabulary.parent} has none.")
    check_bytes(vocabulary, _read_json(vocabulary))
    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{vocabulary.name} and {merges.name} do not fit or are damaged ({error}).") from error
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id(END_OF_TEXT) is not None:
        tokenizer.add_special_tokens([END_OF_TEXT])
    return _with_config(tokenizer, vocabulary.parent)


def _with_config(tokenizer: tokenizers.Tokenizer, folder: Path) -> BPETokenizer:
    """With the end of the text and the chat template that the files beside it name."""
    path, template_path = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    config = _read_json(path) if path.is_file() else {}
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged: it holds a {type(config).__name__} instead of named values.")
    eos = config.get("eos_token", END_OF_TEXT)
    template = template_path.read_text(encoding="utf-8") if template_path.is_file() else config.get("chat_template")
    return BPETokenizer(
        tokenizer,
        eos_token=eos.get("content") if isinstance(eos, dict) else eos,
        chat_template=template if isinstance(template, str) else None,
    )
