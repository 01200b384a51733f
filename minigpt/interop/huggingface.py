"""The same weights under the names that Hugging Face's `transformers` gives them: GPT-2, Llama and Qwen3.

Queries, keys and values are one matrix here and in GPT-2, which stores it transposed (Conv1D), and three in Llama.
Nothing here reads or writes files. Every mapping is tested by equal logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.interop.weights import Names, Plan, check_floats, fit, plan, put_together, take_apart, template
from minigpt.model import GPT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Ours to theirs, outside the blocks and inside block {i}; a weight or a bias follows each name.
OUTER = {
    "gpt2": {
        "token_embedding": "transformer.wte",
        "position_embedding": "transformer.wpe",
        "norm": "transformer.ln_f",
        "head": "lm_head",
    },
    "llama": {"token_embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"},
}
INNER = {
    "gpt2": {
        "attention_norm": "ln_1",
        "attention.qkv": "attn.c_attn",
        "attention.proj": "attn.c_proj",
        "mlp_norm": "ln_2",
        "mlp.up": "mlp.c_fc",
        "mlp.proj": "mlp.c_proj",
    },
    "llama": {
        "attention_norm": "input_layernorm",
        "attention.q": "self_attn.q_proj",
        "attention.k": "self_attn.k_proj",
        "attention.v": "self_attn.v_proj",
        "attention.q_norm": "self_attn.q_norm",
        "attention.k_norm": "self_attn.k_norm",
        "attention.proj": "self_attn.o_proj",
        "mlp_norm": "post_attention_layernorm",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    },
}
BLOCKS = {"gpt2": "transformer.h", "llama": "model.layers"}
NAMES = {kind: Names(OUTER[kind], BLOCKS[kind], INNER[kind]) for kind in BLOCKS}


def architecture(config: GPTConfig) -> str | None:
    """Which model of `transformers` computes the same: gpt2, llama, qwen3, or None when none does."""
    if config.logit_cap is not None:
        return None
    if (config.norm, config.position, config.mlp) == ("layernorm", "learned", "gelu"):
        plain = config.bias and not config.qk_norm and config.n_kv_head == config.n_head
        plain = plain and config.n_head * config.head_dim == config.n_embd
        return "gpt2" if plain else None
    if (config.norm, config.position, config.mlp) == ("rmsnorm", "rotary", "swiglu"):
        if config.qk_norm:
            return "qwen3" if not config.bias else None
        return "llama"
    return None


def _require_architecture(config: GPTConfig) -> str:
    name = architecture(config)
    if name is None:
        raise ValueError(
            f"no model of transformers has norm={config.norm}, position={config.position}, mlp={config.mlp}, "
            f"bias={config.bias}, qk_norm={config.qk_norm}, logit_cap={config.logit_cap}, n_kv_head={config.n_kv_head} of "
            f"n_head={config.n_head}, head_dim={config.head_dim} at n_embd={config.n_embd}; "
            "GPTConfig.gpt2(...) and GPTConfig.llama(...) have a counterpart when these fields are left as they are."
        )
    return name


def to_hf_config(config: GPTConfig) -> dict[str, Any]:
    """The fields that `transformers` expects in config.json. ValueError where no architecture there fits."""
    name = _require_architecture(config)
    if name == "gpt2":
        return {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "vocab_size": config.vocab_size,
            "n_positions": config.context_length,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_head": config.n_head,
            "n_inner": config.n_hidden,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": 0.0,
            "tie_word_embeddings": config.tie_embedding,
            "bos_token_id": None,
            "eos_token_id": None,
        }
    return {
        "architectures": ["LlamaForCausalLM" if name == "llama" else "Qwen3ForCausalLM"],
        "model_type": name,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.n_embd,
        "intermediate_size": config.n_hidden,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "attention_bias": config.bias,
        "mlp_bias": config.bias,
        "tie_word_embeddings": config.tie_embedding,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def from_hf_config(hf: dict[str, Any]) -> GPTConfig:
    """The inverse, for a config.json that others wrote. ValueError for an architecture or option not known here."""
    kind = hf.get("model_type")
    if kind == "gpt2":
        _refuse(hf, "activation_function", "gelu_new", "gelu_pytorch_tanh")
        _refuse(hf, "scale_attn_weights", True)
        _refuse(hf, "scale_attn_by_inverse_layer_idx", False)
        return GPTConfig.gpt2(
            vocab_size=hf["vocab_size"],
            context_length=hf["n_positions"],
            n_layer=hf["n_layer"],
            n_head=hf["n_head"],
            n_embd=hf["n_embd"],
            n_hidden=hf.get("n_inner"),
            dropout=hf.get("resid_pdrop", 0.1),
            norm_eps=hf.get("layer_norm_epsilon", 1e-5),
            tie_embedding=hf.get("tie_word_embeddings", True),
        )
    if kind in ("llama", "qwen3"):
        _refuse(hf, "hidden_act", "silu")
        rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
        _refuse(rope, "rope_type" if "rope_type" in rope else "type", "default")
        _refuse(rope, "partial_rotary_factor", 1.0)
        _refuse(hf, "use_sliding_window", False)
        return GPTConfig.llama(
            vocab_size=hf["vocab_size"],
            context_length=hf["max_position_embeddings"],
            n_layer=hf["num_hidden_layers"],
            n_head=hf["num_attention_heads"],
            n_kv_head=hf.get("num_key_value_heads"),
            n_embd=hf["hidden_size"],
            head_dim=hf.get("head_dim", 128 if kind == "qwen3" else None),  # what a file without it stands for there
            n_hidden=hf["intermediate_size"],
            bias=hf.get("attention_bias", False),
            qk_norm=kind == "qwen3",
            rope_theta=float(hf.get("rope_theta") or rope.get("rope_theta", 10000.0)),
            norm_eps=hf.get("rms_norm_eps", 1e-6),
            tie_embedding=hf.get("tie_word_embeddings", kind == "qwen3"),
        )
    raise ValueError(f"model_type={kind!r} is not known here; minigpt reads gpt2, llama and qwen3.")


def _refuse(options: dict[str, Any], name: str, *accepted: Any) -> None:
    """ValueError for an option that changes what a model computes in a way that ours does not know."""
    if options.get(name, accepted[0]) not in accepted:
        known = " or ".join(map(str, accepted))
        raise ValueError(f"{name}={options[name]!r} is not supported here; minigpt reads {known}.")


def to_hf_weights(config: GPTConfig, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under the names and in the layout of `transformers`. A tied head is left out."""
    theirs = take_apart(config, _plan(config), ours)
    return {name: (tensor.T if _is_conv1d(name, tensor) else tensor).contiguous() for name, tensor in theirs.items()}


def _plan(config: GPTConfig) -> Plan:
    return plan(config, NAMES["gpt2" if _require_architecture(config) == "gpt2" else "llama"])


def _is_conv1d(name: str, tensor: Tensor) -> bool:
    """Whether GPT-2 keeps this matrix as (in, out)."""
    return name.startswith(BLOCKS["gpt2"]) and tensor.dim() == 2


def from_hf_weights(
    config: GPTConfig, theirs: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The inverse, copied into `dtype`; each of theirs is looked up once more when its turn comes, and then let go of.

    Raises:
        ValueError: all tensors that are missing, unexpected or of another shape.
    """
    expected = to_hf_weights(config, template(config))
    bare = {n for n in theirs if n not in expected and f"transformer.{n}" in expected}  # the bare GPT2Model's names
    there = {f"transformer.{n}" if n in bare else n: n for n in theirs}
    ignored = {n for n in there if n.endswith((".attn.bias", ".attn.masked_bias", "rotary_emb.inv_freq"))}
    if config.tie_embedding:
        ignored |= {"lm_head.weight", "transformer.lm_head.weight"}
    fit(expected, {name: theirs[stored].shape for name, stored in there.items()}, ignored)

    def read(name: str) -> Tensor:
        tensor = theirs[there[name]]
        return tensor.T if _is_conv1d(name, tensor) else tensor

    return put_together(config, _plan(config), read, dtype)


def to_transformers(model: GPT) -> PreTrainedModel:
    """The same model as a `transformers` class, weights copied: equal logits, in evaluation mode.

    Raises:
        ValueError: a shape that `transformers` does not have, or a quantized model.
    """
    check_floats(model, "transformers")
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = to_hf_config(model.config)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields))
    weights = to_hf_weights(model.config, model.state_dict())
    problems = theirs.load_state_dict(weights, strict=False)
    tied = {"lm_head.weight"} if model.config.tie_embedding else set()
    assert not problems.unexpected_keys and set(problems.missing_keys) <= tied, problems
    return theirs.eval()
