"""Weights in 8 or 4 bits: rounding, layers that stay so in memory, GPTQ, and a whole model."""

from minigpt.quantize.convert import (
    ACTIVATIONS,
    METHODS,
    Quantization,
    dequantize,
    from_stored,
    is_quantized,
    quantize,
    size_in_bytes,
    to_stored,
)
from minigpt.quantize.gptq import gptq, round_columns
from minigpt.quantize.layers import DynamicLinear, Int4Linear, Int8Linear, QuantizedEmbedding, QuantizedLinear
from minigpt.quantize.rounding import Rounded, absmax, affine, grouped, least_error

__all__ = [
    "ACTIVATIONS",
    "METHODS",
    "DynamicLinear",
    "Int4Linear",
    "Int8Linear",
    "Quantization",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "Rounded",
    "absmax",
    "affine",
    "dequantize",
    "from_stored",
    "gptq",
    "grouped",
    "is_quantized",
    "least_error",
    "quantize",
    "round_columns",
    "size_in_bytes",
    "to_stored",
]
