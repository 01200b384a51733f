"""How fast one token after the other is written, by this package and by others, measured in turn in one run.

Speed depends on a model's shape and not on what it says, so that weights may be random. Peers that are not installed are
left out.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from minigpt.generate import KVCache, generate
from minigpt.interop import OnnxGPT, save_gguf, save_onnx, to_transformers
from minigpt.model import GPT
from minigpt.tokenizer import END_OF_TEXT, BPETokenizer, byte_alphabet

Write = Callable[[int], Any]  # writes so many tokens after the prompt
PROMPT = 16  # tokens
WARM_UP = 4  # tokens


class Speed(NamedTuple):
    """Tokens per second: the median over the rounds, the least and the most."""

    value: float
    low: float
    high: float


def speeds(writers: Mapping[str, Write], tokens: int = 64, rounds: int = 5) -> dict[str, Speed]:
    """Tokens per second of each writer. They take turns in each round, so that what else the machine does hits all alike."""
    found: dict[str, list[float]] = {name: [] for name in writers}
    for write in writers.values():
        write(WARM_UP)
    for _ in range(rounds):
        for name, write in writers.items():
            started = time.perf_counter()
            write(tokens)
            found[name].append(tokens / (time.perf_counter() - started))
    return {name: Speed(median(each), min(each), max(each)) for name, each in found.items()}


def ours(model: GPT, rows: int = 1) -> Write:
    """`generate`, greedy, for one prompt or several at once."""
    idx = prompt(model).expand(rows, -1)
    return lambda tokens: generate(model, idx, max_new_tokens=tokens, temperature=0)


def prompt(model: GPT) -> torch.Tensor:
    """The same random ids (1, PROMPT) for everyone."""
    return torch.randint(model.config.vocab_size, (1, PROMPT), generator=torch.Generator().manual_seed(0))


def without_cache(model: GPT) -> Write:
    """The textbook's loop: all that was written is read again for each token."""

    @torch.inference_mode()
    def write(tokens: int) -> None:
        idx = prompt(model)
        for _ in range(tokens):
            seen = idx[:, -model.config.context_length :]
            idx = torch.cat([idx, model(seen)[0][:, -1:].argmax(dim=-1)], dim=1)

    return write


def by_forward(model: GPT) -> Write:
    """Greedy, with a cache, but each step of the arithmetic a call of PyTorch, as `GPT.forward` has it."""

    @torch.inference_mode()
    def write(tokens: int) -> None:
        cache, unread = KVCache(model.config, 1), prompt(model)
        for _ in range(tokens):
            unread = model(unread, cache=cache)[0][:, -1:].argmax(dim=-1)

    return write


def transformers(model: GPT) -> Write:
    """The same weights in `transformers`, whose `generate` has a cache as well."""
    theirs, idx = to_transformers(model), prompt(model)
    theirs.generation_config.eos_token_id = None

    def write(tokens: int) -> None:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            theirs.generate(idx, max_new_tokens=tokens, do_sample=False, pad_token_id=0)

    return write


def onnx_runtime(model: GPT, bits: int, folder: Path) -> Write:
    """The same weights in ONNX Runtime."""
    path = folder / f"{bits}.onnx"
    save_onnx(model, path, bits)
    theirs, idx = OnnxGPT(path), prompt(model)
    return lambda tokens: theirs.generate(idx, max_new_tokens=tokens, temperature=0)


def llama_cpp(model: GPT, dtype: str, folder: Path, tokenizer: BPETokenizer | None = None) -> Write:
    """The same weights in llama.cpp, through its Python bindings; dtype is one of `save_gguf`'s."""
    import llama_cpp

    path = folder / f"{dtype}.gguf"
    save_gguf(model, tokenizer or any_tokenizer(model.config.vocab_size), path, dtype)
    threads = torch.get_num_threads()
    theirs = llama_cpp.Llama(
        str(path), n_ctx=model.config.context_length, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    first = prompt(model)[0].tolist()

    def write(tokens: int) -> None:
        theirs.reset()
        theirs.eval(first)
        for _ in range(tokens - 1):
            theirs.eval([theirs.sample(temp=0.0)])

    return write


def any_tokenizer(vocab_size: int) -> BPETokenizer:
    """A byte-level tokenizer of a size, learned from nothing: bytes, pairs of bytes, and the end of a text.

    ValueError for fewer tokens than the bytes and the end, or more than there are pairs.
    """
    letters = list(byte_alphabet())
    if not len(letters) + 1 <= vocab_size <= len(letters) * (len(letters) + 1) + 1:
        raise ValueError(f"vocab_size={vocab_size} cannot be made of bytes and pairs; use 257 to 65793.")
    pairs = [(a, b) for a in letters for b in letters][: vocab_size - len(letters) - 1]
    vocabulary = {piece: i for i, piece in enumerate([*letters, *(a + b for a, b in pairs)])}
    made = tokenizers.Tokenizer(models.BPE(vocabulary, pairs))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False)])
    return BPETokenizer(made, eos_token=END_OF_TEXT)


def peers(model: GPT, folder: Path, gguf: Sequence[str] = (), onnx: Sequence[int] = ()) -> Iterator[tuple[str, Write]]:
    """Those of the others that are installed and can hold this shape, each with its writer."""
    if importlib.util.find_spec("transformers"):
        yield "transformers, fp32", transformers(model)
    if importlib.util.find_spec("onnxruntime"):
        yield from (
            (f"ONNX Runtime, {'fp32' if bits == 32 else 'int8'}", onnx_runtime(model, bits, folder)) for bits in onnx
        )
    if importlib.util.find_spec("llama_cpp"):
        yield from ((f"llama.cpp, {dtype}", llama_cpp(model, dtype, folder)) for dtype in gguf)


def temporary_folder() -> tempfile.TemporaryDirectory:
    """A folder for the files of peers, which is gone afterwards, also where Windows still holds a file open."""
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
