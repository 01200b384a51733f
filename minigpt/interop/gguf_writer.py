"""Our models for llama.cpp: shape, weights and tokenizer as one GGUF file, in 32, 16, 8 or 4 bits a weight.

The opposite of `gguf`, with the same names and the same order of rows. llama.cpp takes from the file alone what it has to
compute, so a model that none of its architectures computes is refused. Nothing here reads files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from torch import Tensor

from minigpt.config import GPTConfig, nearest
from minigpt.files import write_atomically
from minigpt.interop import gguf as layout
from minigpt.interop.huggingface import architecture
from minigpt.interop.weights import check_floats, plan, take_apart, template
from minigpt.model import GPT
from minigpt.tokenizer import BPETokenizer, Tokenizer

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType, GGUFWriter

BLOCK = 32  # numbers in a row that share one scale in Q8_0, Q4_0 and Q5_1
LARGEST_F16 = 65504.0  # of the weights, and of those scales
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_0": 2}  # what llama.cpp calls most of the file's weights
FAMILIES: dict[str, dict[str, Any]] = {  # what llama.cpp's architectures have in common with our fields
    "gpt2": {"norm": "layernorm", "position": "learned", "mlp": "gelu", "bias": True, "qk_norm": False},
    "llama": {"norm": "rmsnorm", "position": "rotary", "mlp": "swiglu", "qk_norm": False},
    "qwen3": {"norm": "rmsnorm", "position": "rotary", "mlp": "swiglu", "bias": False, "qk_norm": True},
}


def save_gguf(model: GPT, tokenizer: Tokenizer, path: str | PathLike, dtype: str = "f16") -> None:
    """Write one .gguf file, which llama.cpp and what is built on it open; `load_checkpoint` opens it too.

    The format is that of llama.cpp's authors (the document gguf.md of ggml). Tensors are converted and written one by one,
    and the file takes its place when it is complete. What is not of `dtype`:

    - norms, biases and learned positions are in fp32, as llama.cpp's own converter leaves them;
    - with q4_0, the table that logits are made with (`output`, or `token_embd` where it is tied) is in Q5_1, 6 bits a
      weight, since every logit reads it: the course's base model loses 0.026 nats per token so, and 0.036 all in Q4_0;
    - with q8_0 and q4_0, a matrix whose rows are no multiple of 32 long (`ffn_down`, where n_hidden is none) is in fp16.

    Args:
        model: GPT-2's, Llama's or Qwen3's family.
        tokenizer: the byte-level BPE that the model was trained with; its chat template goes into the file.
        path: ends in .gguf; folders on the way are made.
        dtype: f32, f16, q8_0 (8.5 bits a weight) or q4_0 (4.5), in small letters or capitals.

    Raises:
        ValueError: llama.cpp cannot hold this model, this tokenizer or these weights (why, and what it can), the model is
            quantized (`dequantize(model)` is not, and Q4_0 holds the block matrices of 4 bits that rtn or mse rounded in
            groups of 32 as they are), or the package `gguf` is missing.
        OSError: the disk is full or not writable; what was at `path` before is kept.
    """
    path, name = Path(path).expanduser(), str(dtype).lower()
    if path.suffix.lower() != ".gguf":
        raise ValueError(
            f"{path.name} does not end in .gguf, by which llama.cpp knows its files: use {path.name}.gguf."
        )
    if name not in FILE_TYPES:
        raise ValueError(
            f"dtype={dtype!r} is no type of a GGUF file that is written here.{nearest(name, [*FILE_TYPES])}"
        )
    check_floats(model, "a GGUF file's writer")
    kind = _architecture(model.config)
    cut = _check_tokenizer(tokenizer, model.config)
    tensors = _tensors(model, kind)
    _check_weights(tensors, model.config, name)
    try:
        import gguf
    except ImportError as error:
        raise ValueError("a .gguf file is written with the package gguf; run: pip install gguf") from error

    def write(beside: Path) -> None:
        writer = gguf.GGUFWriter(beside, kind)
        try:
            writer.add_name(path.stem)
            writer.add_file_type(FILE_TYPES[name])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_shape(writer, model.config)
            _add_tokenizer(writer, tokenizer, cut)
            types = {part: _type(part, tensor, model.config, name) for part, tensor in tensors.items()}
            for part, tensor in tensors.items():
                block, n_bytes = gguf.GGML_QUANT_SIZES[types[part]]
                size = tensor.numel() // block * n_bytes
                writer.add_tensor_info(part, tuple(tensor.shape), np.dtype("f4"), size, types[part])
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            for part, numbers in _in_their_order(tensors, kind, model.config):
                writer.write_tensor_data(gguf.quantize(numbers, types[part]))
        finally:
            writer.close()

    write_atomically(path.parent, {path.name: write})


def _architecture(config: GPTConfig) -> str:
    """gpt2, llama or qwen3; ValueError for a shape that none of them has, with what would have to be otherwise."""
    if kind := architecture(config):
        return kind

    def others(family: str) -> dict[str, Any]:
        wanted = FAMILIES[family] | {"logit_cap": None} | ({"n_kv_head": config.n_head} if family == "gpt2" else {})
        return {field: value for field, value in wanted.items() if getattr(config, field) != value}

    closest = min(FAMILIES, key=lambda family: len(others(family)))
    changes = others(closest)
    has = ", ".join(f"{field}={getattr(config, field)!r}" for field in changes)
    raise ValueError(
        f"llama.cpp has no architecture that computes {has}. The nearest that it has is {closest}: train with "
        f"{', '.join(f'{field}={value!r}' for field, value in changes.items())}."
    )


def _check_tokenizer(tokenizer: Tokenizer, config: GPTConfig) -> str:
    """How the tokenizer cuts words, by llama.cpp's name; ValueError where it has none, or the tokenizer is another's."""
    if not isinstance(tokenizer, BPETokenizer):
        raise ValueError(
            f"llama.cpp knows no tokenizer of characters, and this is a {type(tokenizer).__name__}; the nearest that it has "
            "is byte-level BPE: train the model with a BPETokenizer."
        )
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model vocab_size={config.vocab_size}; give the "
            "tokenizer that the model was trained with."
        )
    content = json.loads(tokenizer.to_json())
    if tokenizer.eos_id is None or not content["model"]["merges"]:
        raise ValueError(
            "llama.cpp needs a token that ends a text (it takes token 11 where none is named) and at least one merge, and "
            "this tokenizer lacks one of them; BPETokenizer.train(texts) makes both."
        )
    for cut in reversed(layout.PATTERNS):  # "gpt-2" before "default", which llama.cpp cuts otherwise
        known = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=layout.ignores_merges(cut)))
        known.pre_tokenizer = layout.pre_tokenizer(cut)
        known.normalizer = layout.normalizer(cut)
        if _way_of_cutting(json.loads(known.to_str())) == _way_of_cutting(content):
            return cut
    raise ValueError(
        "the tokenizer cuts text into words in a way that has no name here for llama.cpp, which would cut it otherwise; "
        f"those with a name are {', '.join(layout.PATTERNS)}, and BPETokenizer.train makes gpt-2's."
    )


def _way_of_cutting(content: dict[str, Any]) -> str:
    """What decides where a tokenizer.json cuts, as text; how it counts characters (trim_offsets) does not."""
    step = content["pre_tokenizer"] or {}
    steps = [s | {"trim_offsets": None} for s in step.get("pretokenizers", [step])]
    return json.dumps([content["normalizer"], content["model"].get("ignore_merges", False), steps], sort_keys=True)


def _tensors(model: GPT, kind: str) -> dict[str, Tensor]:
    """Their tensors as views of ours, rows in our order. ValueError for a model with more or other weights than a GPT's."""
    ours = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    if ours.keys() - {"head.weight"} != template(model.config).keys() - {"head.weight"}:
        raise ValueError(
            "the model has adapters beside its matrices, or layers of its own, which llama.cpp does not know: "
            "merge_lora(model) first."
        )
    return take_apart(model.config, plan(model.config, layout.ARCHITECTURES[kind]), ours)


def _check_weights(tensors: dict[str, Tensor], config: GPTConfig, dtype: str) -> None:
    """ValueError for weights that the type cannot hold."""
    if dtype.startswith("q") and config.n_embd % BLOCK:
        raise ValueError(
            f"{dtype} gives {BLOCK} neighbours in a row one scale, and n_embd={config.n_embd} is no multiple of {BLOCK}; use "
            f'dtype="f16", or train with n_embd={-(-config.n_embd // BLOCK) * BLOCK}.'
        )
    for name, tensor in tensors.items():
        largest = tensor.abs().max().item()
        if not math.isfinite(largest):
            raise ValueError(
                f"{name} holds numbers that are infinite or none (NaN): the training diverged. Write an earlier checkpoint."
            )
        if dtype != "f32" and largest > LARGEST_F16:
            raise ValueError(f'{name} holds {largest:g}, and {dtype} at most {LARGEST_F16:g}; use dtype="f32".')


def _type(name: str, tensor: Tensor, config: GPTConfig, dtype: str) -> GGMLQuantizationType:
    """In which type a tensor is written (see `save_gguf`)."""
    from gguf import GGMLQuantizationType as Type

    if tensor.dim() == 1 or name.startswith("position_embd"):
        return Type.F32
    if dtype.startswith("q") and tensor.size(1) % BLOCK:
        return Type.F16
    if dtype == "q4_0" and name == ("token_embd.weight" if config.tie_embedding else "output.weight"):
        return Type.Q5_1
    return Type[dtype.upper()]


def _in_their_order(tensors: dict[str, Tensor], kind: str, config: GPTConfig) -> Iterator[tuple[str, np.ndarray]]:
    """Each tensor in fp32, made when its turn comes."""
    heads = layout.reordered(kind, config)
    for name, tensor in tensors.items():
        rows = tensor.cpu().float()
        part = name.split(".")[-2]
        yield name, (layout.to_pairs(rows, heads[part]) if part in heads else rows).contiguous().numpy()


def _add_shape(writer: GGUFWriter, config: GPTConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_block_count(config.n_layer)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_hidden)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    if config.norm == "layernorm":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_rope_dimension_count(config.head_dim)
        writer.add_rope_freq_base(config.rope_theta)


def _add_tokenizer(writer: GGUFWriter, tokenizer: BPETokenizer, cut: str) -> None:
    content = json.loads(tokenizer.to_json())
    tokens = [f"[PAD{i}]" for i in range(tokenizer.vocab_size)]  # the files of others may leave ids out
    types = [layout.UNUSED] * tokenizer.vocab_size
    for token, i in content["model"]["vocab"].items():
        tokens[i], types[i] = token, layout.NORMAL
    for added in content["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = layout.CONTROL if added["special"] else layout.USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(pair) for pair in content["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.eos_id)  # between two texts stands one token, which ends and begins
    writer.add_eos_token_id(tokenizer.eos_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)
