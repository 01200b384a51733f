"""A GPT whose matrices are in 8 or 4 bits: made from one in floating point, and from what is stored of one.

B windows, T tokens, g neighbours in a row that share a scale. Norms, biases and learned positions stay in fp32: they are
hundreds of numbers where the matrices have thousands, and every token passes through them. This module opens no file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.calibration import as_batches
from minigpt.config import GPTConfig, nearest
from minigpt.interop.weights import build, fit, hollow
from minigpt.model import GPT
from minigpt.quantize.gptq import gptq
from minigpt.quantize.layers import (
    GROUPS_OF_4_BITS,
    DynamicLinear,
    Int4Linear,
    Int8Linear,
    QuantizedEmbedding,
    QuantizedLinear,
    stored,
)
from minigpt.quantize.rounding import Rounded, absmax, check_finite, least_error

METHODS = ("rtn", "mse", "gptq")
ACTIVATIONS = ("float", "int8")
TABLE, HEAD = "token_embedding", "head"


@dataclass(frozen=True)
class Quantization:
    """How a model was quantized. `group_size` None is a scale for each row."""

    bits: int = 8
    group_size: int | None = None
    method: str = "rtn"
    activations: str = "float"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in (8, 4):
            raise ValueError(f"bits={self.bits!r} has no kernel on a processor; use bits=8 or bits=4.")
        for name, choices in (("method", METHODS), ("activations", ACTIVATIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is unknown.{nearest(str(getattr(self, name)), choices)}"
                )
        if self.bits == 4 and self.group_size is None:
            object.__setattr__(self, "group_size", 32)
        if self.bits == 4 and self.group_size not in GROUPS_OF_4_BITS:
            raise ValueError(
                f"group_size={self.group_size!r} has no kernel for 4 bits; use {', '.join(map(str, GROUPS_OF_4_BITS))}."
            )
        if self.group_size is not None and (type(self.group_size) is not int or self.group_size < 1):
            raise ValueError(
                f"group_size={self.group_size!r} is no number of weights; use 32, 64, 128, or None for a scale for each row."
            )
        if self.activations == "int8" and (self.bits, self.group_size) != (8, None):
            raise ValueError(
                "activations='int8' multiplies whole numbers of 8 bits with one scale for each row: use it with bits=8 and "
                "group_size=None."
            )


def quantize(
    model: GPT,
    bits: int = 8,
    group_size: int | None = None,
    method: str = "rtn",
    activations: str = "float",
    calibration: Tensor | Sequence[Tensor] | None = None,
) -> GPT:
    """A copy of `model` with its matrices in few bits: about a quarter (8) or a seventh (4) of the bytes of fp32.

    It stays in few bits in memory, is multiplied by kernels for whole numbers, writes through `generate`, is saved and
    opened as any model, and is not for training. The original is left as it is.

    Args:
        model: a GPT in fp32, bf16 or fp16.
        bits: 8, or 4.
        group_size: how many neighbours in a row share a scale; None is a whole row in 8 bits, and 32 in 4.
        method: "rtn" rounds each weight to the nearest; "mse" first chooses how far to cut off the largest weights of each
            group, so that its squared error is least; "gptq" makes up for the rounding of one column in those that follow
            (Frantar et al. 2022, algorithm 1), and needs `calibration`. The table and the head are outside of gptq.
        activations: "float" keeps what is multiplied (weight-only; `generate` rounds it to 16 bits); "int8" rounds it to 7
            bits as it comes (dynamic), for products of whole numbers; in 8 bits, on x86. A tied table stays weight-only.
        calibration: token ids (B, T) that gptq measures the layers' inputs on, or a list of such batches; 16 windows of
            the context do. The other methods read none.

    Raises:
        ValueError: bits, a method or activations that are unknown; a group that does not divide a matrix's width; a
            weight that is not finite; a model that is quantized already, has adapters or is not on the CPU; gptq without
            calibration, or with ids that the model cannot take.
    """
    how = Quantization(bits, group_size, method, activations)
    _check(model, how)
    matrices = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    rounded: dict[str, Rounded] = {}
    if how.method == "gptq":
        windows = as_batches(calibration, "method='gptq'", "use method='mse'")
        rounded |= gptq(model, windows, how.bits, how.group_size or "row")
    choose = absmax if how.method == "rtn" else least_error
    if not model.config.tie_embedding:
        matrices[TABLE] = model.token_embedding
    for name, module in matrices.items():
        if name not in rounded:
            rounded[name] = choose(module.weight.detach().float(), how.bits, how.group_size or "row")
    floats = {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if name.rpartition(".")[0] not in {*rounded, TABLE}
    }
    biases = {
        name: module.bias.detach().float()
        for name, module in matrices.items()
        if getattr(module, "bias", None) is not None
    }
    return _assemble(model.config, how, rounded.items(), biases, floats)


def _check(model: GPT, how: Quantization) -> None:
    if not isinstance(model, GPT):
        raise ValueError(
            f"this is a {type(model).__name__}, and what is quantized is a GPT; of a classifier, quantize its body: "
            "classifier.gpt = quantize(classifier.gpt)."
        )
    if is_quantized(model):
        raise ValueError(
            f"this model is in {model.quantization.bits} bits already, and rounding it again would add a second error; "
            "quantize the model that it was made from."
        )
    if (device := next(model.parameters()).device.type) != "cpu":
        raise ValueError(f"this model is on {device}, and the kernels for few bits are a processor's; use model.cpu().")
    if model.state_dict().keys() != hollow(model.config).state_dict().keys():
        raise ValueError("the model has adapters beside its matrices: merge_lora(model) first.")
    widths = {}
    for name, parameter in model.named_parameters():
        check_finite(torch.atleast_2d(parameter.detach()), name)
        if parameter.dim() == 2 and name != "position_embedding.weight":
            widths[name] = parameter.size(1)
    for name, width in widths.items():
        if how.group_size is not None and width % how.group_size:
            fitting = [g for g in GROUPS_OF_4_BITS if not any(other % g for other in widths.values())]
            advice = f"group_size={fitting[-1]}" if fitting else "bits=8 with group_size=None"
            raise ValueError(
                f"group_size={how.group_size} does not divide the width {width} of {name}; use {advice}, or train a model whose "
                f"n_embd and n_hidden are multiples of {how.group_size}."
            )
    if how.activations == "int8" and not DynamicLinear.available():
        raise ValueError(
            "activations='int8' needs a kernel that this build of PyTorch lacks (it is for x86); use 'float'."
        )


def _assemble(
    config: GPTConfig,
    how: Quantization,
    rounded: Iterable[tuple[str, Rounded]],
    biases: Mapping[str, Tensor],
    floats: Mapping[str, Tensor],
) -> GPT:
    model = hollow(config)
    for name, weight in rounded:
        kind = Int4Linear if how.bits == 4 else Int8Linear
        shared = name == HEAD and config.tie_embedding
        if how.activations == "int8" and name != TABLE and not shared:
            kind = DynamicLinear
        layer = kind(weight, biases.get(name))
        model.set_submodule(name, QuantizedEmbedding(layer) if name == TABLE else layer)
    if config.tie_embedding:
        model.token_embedding = QuantizedEmbedding(model.head)
    model.load_state_dict(floats, strict=False, assign=True)
    model.quantization = how
    return model.requires_grad_(False).eval()


def is_quantized(model: nn.Module) -> bool:
    """Whether its matrices are in few bits."""
    return getattr(model, "quantization", None) is not None


def dequantize(model: GPT) -> GPT:
    """The same model in fp32 again, with the rounding errors: for what knows no whole numbers, and to be trained.

    Raises:
        ValueError: a model that is not quantized.
    """
    if not is_quantized(model):
        raise ValueError("this model is not quantized: its weights are floating-point numbers as they are.")
    state = {name: p.detach().float().clone() for name, p in model.named_parameters()}
    for place, module in model.named_modules():
        if isinstance(module, QuantizedLinear):  # a tied table is met at its first place, the embedding's
            name = place.removesuffix(".table")
            state[f"{name}.weight"] = module.rounded().dequantize()
            if module.bias is not None:
                state[f"{name}.bias"] = module.bias.float().clone()
    if model.config.tie_embedding:
        state[f"{HEAD}.weight"] = state[f"{TABLE}.weight"]
    return build(model.config, state)


def size_in_bytes(model: nn.Module) -> int:
    """Bytes of memory that a model's weights take: parameters and buffers, what is shared once. Any module."""
    tensors = [*model.parameters(), *(b for n, b in model.named_buffers() if n not in ("cos", "sin"))]
    distinct = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(distinct.values()) + sum(m.nbytes() for m in model.modules() if isinstance(m, DynamicLinear))


def to_stored(model: GPT) -> tuple[dict[str, Tensor], dict[str, object]]:
    """What a file keeps of a quantized model: its tensors, and how it was quantized."""
    tensors = {}
    for name, tensor in model.state_dict().items():
        cast = tensor.is_floating_point() and not name.endswith(".scale")  # model.bfloat16() may have been called
        tensors[name] = (tensor.float() if cast else tensor).contiguous()
    if model.config.tie_embedding:
        tensors = {name: t for name, t in tensors.items() if not name.startswith(f"{TABLE}.")}
    return tensors, dataclasses.asdict(model.quantization)


def from_stored(config: GPTConfig, tensors: Mapping[str, Tensor], fields: Mapping[str, object]) -> GPT:
    """The inverse; each tensor is looked up once more when its turn comes, and let go of when its layer is made.

    Products of whole numbers need a kernel of x86: a machine without it multiplies the same weights in floating point.

    Raises:
        ValueError: all tensors that are missing, unexpected, or of another shape or type.
    """
    how = Quantization(**fields)
    if how.activations == "int8" and not DynamicLinear.available():
        how = dataclasses.replace(how, activations="float")
    model = hollow(config)
    layers = {name: name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if not config.tie_embedding:
        layers[TABLE] = f"{TABLE}.table"
    expected = _shapes(model, how, layers)
    fit(expected, {name: tensor.shape for name, tensor in tensors.items()})
    for name, tensor in expected.items():
        if tensors[name].dtype != tensor.dtype:
            raise ValueError(
                f"{name} is stored as {tensors[name].dtype}, and {how.bits} bits are {tensor.dtype}: config.json and "
                "model.safetensors do not belong together."
            )
    rounded = ((name, stored(tensors[f"{at}.weight"], tensors[f"{at}.scale"])) for name, at in layers.items())
    biases = {name: tensors[f"{at}.bias"] for name, at in layers.items() if f"{at}.bias" in expected}
    used = {f"{at}.{part}" for at in layers.values() for part in ("weight", "scale", "bias")}
    return _assemble(config, how, rounded, biases, {name: tensors[name] for name in expected if name not in used})


def _shapes(model: GPT, how: Quantization, layers: Mapping[str, str]) -> dict[str, Tensor]:
    """What is stored of such a model, as tensors without numbers; `layers` says where a layer's are."""
    weights = {f"{name}.weight" for name in (*layers, TABLE)}
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in weights}
    for name, at in layers.items():
        n_out, n_in = model.get_submodule(name).weight.shape
        groups = n_in // (how.group_size or n_in)
        shape, dtype = (
            ((n_out, n_in // 2), torch.uint8) if how.bits == 4 else ((groups, n_out, n_in // groups), torch.int8)
        )
        expected[f"{at}.weight"] = torch.empty(shape, dtype=dtype, device="meta")
        expected[f"{at}.scale"] = torch.empty(groups, n_out, dtype=torch.bfloat16, device="meta")
    return expected
