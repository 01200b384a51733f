"""The models of others, in and out: GPT-2, Llama and Qwen3 in the layout of `transformers`, in llama.cpp's GGUF, and as ONNX."""

from minigpt.interop.gguf import GGUFFile
from minigpt.interop.gguf_writer import save_gguf
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
from minigpt.interop.onnx import save_onnx
from minigpt.interop.onnx_runtime import OnnxGPT
from minigpt.interop.packaged import packaged_smollm2
from minigpt.interop.weights import Names, build, check_floats, from_own_weights

__all__ = [
    "BLOCKS",
    "INNER",
    "NAMES",
    "GGUFFile",
    "Names",
    "OnnxGPT",
    "architecture",
    "build",
    "check_floats",
    "from_hf_config",
    "from_hf_weights",
    "from_own_weights",
    "locate",
    "packaged_smollm2",
    "save_gguf",
    "save_onnx",
    "to_hf_config",
    "to_hf_weights",
    "to_transformers",
]
