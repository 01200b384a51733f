"""Writes a model of ours as llama.cpp's converter would, with the package `gguf` alone, for the tests to read."""

import json

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from minigpt.interop import to_hf_config, to_hf_weights
from minigpt.tokenizer import END_OF_TEXT


def their_name(config, name):
    """What the package `gguf` calls a tensor of `transformers`."""
    kind = {"GPT2LMHeadModel": "GPT2", "LlamaForCausalLM": "LLAMA", "Qwen3ForCausalLM": "QWEN3"}
    architecture = gguf.MODEL_ARCH[kind[to_hf_config(config)["architectures"][0]]]
    return gguf.get_tensor_name_map(architecture, config.n_layer).get_name(name, (".weight", ".bias"))


def tensors_of(model, kind=Type.F32):
    """Name to (numbers, type), as llama.cpp's converter lays them out."""
    config, found = model.config, {}
    architecture = to_hf_config(config)["model_type"]
    for name, tensor in to_hf_weights(config, model.state_dict()).items():
        x = tensor.detach().numpy()
        if architecture == "gpt2" and ".h." in name:
            x = x.T  # Conv1D; a vector stays as it is
        heads = {"q_proj": config.n_head, "k_proj": config.n_kv_head}.get(name.split(".")[-2])
        if heads and architecture == "llama":
            x = x.reshape(heads, 2, -1, x.shape[-1]).swapaxes(1, 2).reshape(x.shape)
        found[their_name(config, name)] = (np.ascontiguousarray(x), kind if x.ndim == 2 else Type.F32)
    return found


def write_gguf(
    path, model, kind=Type.F32, *, tensors=None, tokenizer=None, change=lambda writer: None, architecture=None
):
    """A model as llama.cpp's converter would write it, by the package `gguf`; `change` adds facts to it."""
    config = model.config
    architecture = architecture or to_hf_config(config)["model_type"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.context_length)
    writer.add_block_count(config.n_layer)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.n_hidden)
    writer.add_head_count(config.n_head)
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    if config.norm == "layernorm":
        writer.add_layer_norm_eps(config.norm_eps)
    else:
        writer.add_head_count_kv(config.n_kv_head)
        writer.add_layer_norm_rms_eps(config.norm_eps)
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.head_dim)
    if tokenizer is not None:
        write_tokenizer(writer, tokenizer)
    change(writer)
    for name, (x, stored) in (tensors_of(model, kind) if tensors is None else tensors).items():
        writer.add_tensor(name, gguf.quantize(x, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tokenizer(writer, tokenizer, pre="gpt-2", kind="gpt2"):
    """The vocabulary of a tokenizer of the library `tokenizers`, its special tokens as control tokens."""
    vocabulary = tokenizer.get_vocab()
    added = tokenizer.get_added_tokens_decoder().values()
    kinds = {t.content: gguf.TokenType.CONTROL if t.special else gguf.TokenType.USER_DEFINED for t in added}
    tokens = sorted(vocabulary, key=vocabulary.get)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(vocabulary[END_OF_TEXT])
    writer.add_chat_template("{{ 'hello' }}")
