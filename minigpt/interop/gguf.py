"""Models of llama.cpp: the weights, the shape and the tokenizer in one GGUF file, mostly in few bits a weight.

The file is read with the package `gguf` of llama.cpp's authors, tensor by tensor, and its weights become floating-point
numbers again. Its layout differs from ours where llama.cpp turns neighbouring pairs by rotary positions: its converter
reorders the rows of Llama's queries and keys, which is undone here. `gguf_writer` writes by what this module knows.
H heads (n_head, or n_kv_head for keys), D = head_dim.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.interop.weights import Names, build, fit, plan, put_together, take_apart, template
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer
from minigpt.tokenizer_files import check_bytes

OUTER = {
    "token_embedding": "token_embd",
    "position_embedding": "position_embd",
    "norm": "output_norm",
    "head": "output",
}
INNER = {
    "attention_norm": "attn_norm",
    "attention.proj": "attn_output",
    "mlp_norm": "ffn_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.proj": "ffn_down",
}
GPT2 = Names(OUTER, "blk", INNER | {"attention.qkv": "attn_qkv"})
LLAMA = Names(
    OUTER,
    "blk",
    INNER | {f"attention.{part}": f"attn_{part}" for part in ("q", "k", "v", "q_norm", "k_norm")},
)
ARCHITECTURES = {"gpt2": GPT2, "llama": LLAMA, "qwen3": LLAMA}

# How text is cut into words before merging, by the name of llama.cpp: the patterns of Llama 3 and Qwen2. None is GPT-2's.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "default": None,
    "gpt-2": None,
    "smollm": None,
    "llama-bpe": WORDS.replace("DIGITS", "{1,3}"),
    "qwen2": WORDS.replace("DIGITS", ""),
}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens


def reordered(architecture: str, config: GPTConfig) -> dict[str, int]:
    """The matrices and biases whose rows are in another order there than here, each with its number of heads."""
    return {"attn_q": config.n_head, "attn_k": config.n_kv_head} if architecture == "llama" else {}


def to_halves(rows: Tensor, heads: int) -> Tensor:
    """Rows (H D, ...) in which rotary positions turn neighbours, reordered to turn row j with row j + D/2, as ours do."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)  # (H D, ...)


def to_pairs(rows: Tensor, heads: int) -> Tensor:
    """The inverse, from our order to llama.cpp's."""
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)  # (H D, ...)


class GGUFFile:
    """One .gguf file, opened: its facts are read at once, its tensors when a model is asked for.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is no GGUF file or a damaged one, or the package `gguf` is missing.
    """

    def __init__(self, path: str | PathLike):
        try:
            import gguf
        except ImportError as error:
            raise ValueError("a .gguf file is read with the package gguf; run: pip install gguf") from error
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {path}; expected is a model as one .gguf file.")
        try:
            with self.path.open("rb") as file:
                if file.read(4) != b"GGUF":
                    raise ValueError("it does not begin with the letters GGUF")
            reader = gguf.GGUFReader(self.path)
            if reader.byte_order != "I":
                raise ValueError("its numbers are big-endian")
            self._facts = {name: field.contents() for name, field in reader.fields.items()}
            self._tensors = {
                t.name: (t.tensor_type, t.data_offset, t.data.dtype, t.data.shape, tuple(map(int, reversed(t.shape))))
                for t in reader.tensors
            }
            self.architecture = self._fact("general.architecture")
        except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:  # how the reader stumbles
            raise ValueError(
                f"{self.path} is no GGUF file, or is damaged or half-written ({error}); fetch it again."
            ) from error

    def _fact(self, name: str, *default: Any) -> Any:
        if name not in self._facts and default:
            return default[0]
        if name not in self._facts:
            raise ValueError(f"{self.path} lacks {name}, which a model needs; fetch it again or convert it anew.")
        return self._facts[name]

    def config(self) -> GPTConfig:
        """The model's shape. ValueError for an architecture or an option that is not known here."""
        if self.architecture not in ARCHITECTURES:
            raise ValueError(
                f"{self.path} holds the architecture {self.architecture!r}, which is not known here; minigpt reads "
                f"{', '.join(ARCHITECTURES)}."
            )

        def fact(name: str, *default: Any) -> Any:
            return self._fact(f"{self.architecture}.{name}", *default)

        table = self._tensors.get("token_embd.weight")
        sizes = {
            "vocab_size": table[-1][0] if table else 1,  # without its table `fit` refuses the file
            "context_length": fact("context_length"),
            "n_layer": fact("block_count"),
            "n_head": fact("attention.head_count"),
            "n_embd": fact("embedding_length"),
            "n_hidden": fact("feed_forward_length"),
            "tie_embedding": "output.weight" not in self._tensors,
        }
        if self.architecture == "gpt2":
            return GPTConfig.gpt2(**sizes, norm_eps=fact("attention.layer_norm_epsilon"))
        unstretched = {"rope.scaling.type": ("none",), "rope.scaling.factor": (0, 1), "rope.scale_linear": (0, 1)}
        bent = [f"{n}={fact(n)}" for n, values in unstretched.items() if fact(n, values[0]) not in values]
        bent += [name for name in self._tensors if name == "rope_freqs.weight"]
        if bent:
            raise ValueError(
                f"{self.path} stretches its rotary positions ({', '.join(bent)}), as for a longer context; minigpt turns them "
                "unstretched, and would write nonsense with these weights."
            )
        config = GPTConfig.llama(
            **sizes,
            n_kv_head=fact("attention.head_count_kv", None),
            bias=self.architecture == "llama" and "blk.0.attn_output.bias" in self._tensors,
            head_dim=fact("attention.key_length", None),
            qk_norm=self.architecture == "qwen3",
            rope_theta=fact("rope.freq_base", 10000.0),
            norm_eps=fact("attention.layer_norm_rms_epsilon"),
        )
        for name in ("rope.dimension_count", "attention.value_length"):
            if fact(name, config.head_dim) != config.head_dim:
                raise ValueError(
                    f"{name}={fact(name)} in {self.path} is not the head's width of {config.head_dim}; minigpt reads models "
                    "whose keys and values are equally wide, and turned over their whole width."
                )
        return config

    def model(self, dtype: torch.dtype = torch.float32) -> GPT:
        """The model in evaluation mode, its weights as floating-point numbers of `dtype`.

        Raises:
            ValueError: an unknown architecture, option or type of weights; missing or unexpected tensors (listed).
        """
        config = self.config()
        made_of = plan(config, ARCHITECTURES[self.architecture])
        fit(take_apart(config, made_of, template(config)), {name: facts[-1] for name, facts in self._tensors.items()})
        heads = reordered(self.architecture, config)

        def read(name: str) -> Tensor:
            part = name.split(".")[-2]
            return to_halves(self._read(name), heads[part]) if part in heads else self._read(name)

        return build(config, put_together(config, made_of, read, dtype))

    def _read(self, name: str) -> Tensor:
        """One tensor in fp32. It is read and not mapped: its bytes are let go of with it."""
        import gguf

        kind, offset, dtype, stored, shape = self._tensors[name]
        raw = np.fromfile(self.path, dtype, int(np.prod(stored)), offset=offset).reshape(stored)
        try:
            return torch.from_numpy(gguf.dequantize(raw, kind).reshape(shape))
        except NotImplementedError as error:
            raise ValueError(
                f"{name} in {self.path} is stored as {kind.name}, which is not read here; minigpt reads F32, F16, BF16, Q8_0, "
                "Q4_0, Q4_1, Q5_0, Q5_1, Q2_K to Q6_K and what else the package gguf dequantises."
            ) from error

    def tokenizer(self) -> BPETokenizer:
        """The tokenizer: byte-level BPE with its special tokens, the end of a text and the chat template.

        Raises:
            ValueError: another kind of tokenizer, an unknown way to cut words, or a damaged vocabulary.
        """
        kind, cut = self._fact("tokenizer.ggml.model"), self._fact("tokenizer.ggml.pre", "default")
        if kind != "gpt2":
            raise ValueError(
                f"{self.path} holds a {kind!r} tokenizer, which joins characters, as SentencePiece does, or words; minigpt reads "
                "byte-level BPE ('gpt2'). If the model is also published with a tokenizer.json of that kind, use "
                "load_tokenizer on that."
            )
        if cut not in PATTERNS:
            raise ValueError(
                f"{self.path} cuts words as {cut!r}, which is not known here; minigpt knows {', '.join(PATTERNS)}."
            )
        tokens, merges = self._fact("tokenizer.ggml.tokens"), self._fact("tokenizer.ggml.merges")
        vocabulary = {token: i for i, token in enumerate(tokens)}
        check_bytes(self.path, vocabulary)
        try:
            pairs = [tuple(merge.split(" ")) for merge in merges]
            tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=ignores_merges(cut)))
        except Exception as error:  # the library raises plain Exception
            raise ValueError(
                f"the vocabulary and the merges of {self.path} do not fit ({error}); fetch it again."
            ) from error
        tokenizer.normalizer = normalizer(cut)
        tokenizer.pre_tokenizer = pre_tokenizer(cut)
        tokenizer.decoder = decoders.ByteLevel()
        kinds = self._fact("tokenizer.ggml.token_type", [])
        for kind, add in ((CONTROL, tokenizer.add_special_tokens), (USER_DEFINED, tokenizer.add_tokens)):
            add([AddedToken(token, normalized=False) for token, k in zip(tokens, kinds, strict=False) if k == kind])
        eos = self._fact("tokenizer.ggml.eos_token_id", None)
        return BPETokenizer(
            tokenizer,
            eos_token=tokens[eos] if isinstance(eos, int) and 0 <= eos < len(tokens) else None,
            chat_template=self._fact("tokenizer.chat_template", None),
        )


def ignores_merges(cut: str) -> bool:
    """Whether a word that is a token needs no merges to become it."""
    return cut == "llama-bpe"


def normalizer(cut: str) -> normalizers.Normalizer | None:
    """What text goes through before it is cut, by llama.cpp's name for the way of cutting."""
    return normalizers.NFC() if cut == "qwen2" else None


def pre_tokenizer(cut: str) -> pre_tokenizers.PreTokenizer:
    """How text is cut into words, by llama.cpp's name for it."""
    pattern = PATTERNS[cut]
    if pattern is None:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(True), words]) if cut == "smollm" else words
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
