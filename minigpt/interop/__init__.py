"""The models of others, in and out: GPT-2, Llama and Qwen3 in the layout of `transformers`, and in llama.cpp's GGUF."""

from minigpt.interop.gguf import GGUFFile
from minigpt.interop.hub import locate
from minigpt.interop.huggingface import (
    BLOCKS,
    INNER,
    NAMES,
    architecture,
    from_hf_config,
    from_hf_weights,
    to_hf_config,
    to_hf_weights,
    to_transformers,
)
from minigpt.interop.packaged import packaged_smollm2
from minigpt.interop.weights import Names, build, from_own_weights

__all__ = [
    "BLOCKS",
    "INNER",
    "NAMES",
    "GGUFFile",
    "Names",
    "architecture",
    "build",
    "from_hf_config",
    "from_hf_weights",
    "from_own_weights",
    "locate",
    "packaged_smollm2",
    "to_hf_config",
    "to_hf_weights",
    "to_transformers",
]
