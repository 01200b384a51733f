"""A model as one .onnx file, which ONNX Runtime computes without PyTorch: with a key/value cache, in fp32 or int8.

The graph is put together operator by operator, as `minigpt.model` reads from top to bottom: opset 23 (2025) knows rotary
positions, RMSNorm and attention by name. B prompts, T new positions, S positions in the cache, L = n_layer, C = n_embd,
H = n_head, G = n_kv_head, D = head_dim, V = vocab_size. Nothing here knows of text; `minigpt.interop.onnx_runtime` runs
what is written here.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from minigpt.config import GPTConfig
from minigpt.files import write_atomically
from minigpt.interop.weights import check_floats
from minigpt.model import GPT

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 23  # the first with RotaryEmbedding, RMSNormalization and Attention
IR_VERSION = 11  # of the file format; goes with the opset, so that a runtime of its year opens the file
LARGEST = 2**31  # bytes that one file holds: it is one protobuf message
FIELD = "minigpt"  # under this name the file holds the model's shape
INSTALL = 'run: pip install "onnx>=1.18" "onnxruntime>=1.23"'


def save_onnx(model: GPT, path: str | PathLike, bits: int = 32) -> None:
    """Write a model as one .onnx file, its weights inside.

    Inputs: `idx` (B, T) int64, `past_keys` and `past_values` (L, B, G, S, D), empty (S = 0) at first. Outputs: `logits`
    (B, T, V), `keys` and `values` (L, B, G, S + T, D), which are the next call's past. B, T and S are free; S + T is
    context_length at most.

    Args:
        model: of any shape and precision; nothing in it changes.
        path: ends in .onnx.
        bits: 32, or 8 for matrices inside the blocks, and a head of its own, as int8 from -64 to 64 with one scale per
            column; what they multiply is rounded to 8 bits anew at each call (Jacob et al. 2018, equation 1). Token and
            position vectors, a head that is the table of token vectors (stored once), norms, biases, attention and
            the cache stay in fp32.

    Raises:
        ValueError: bits or a name that is not known, weights that are no numbers, a model with adapters, quantized, or too
            large for one file, or a package that is missing.
        OSError: the disk is full or not writable; an earlier file is kept.
    """
    path = Path(path).expanduser()
    if bits not in (8, 32):
        raise ValueError(f"bits={bits!r} is not known here; use 32 (fp32) or 8 (int8).")
    if path.suffix.lower() != ".onnx":
        raise ValueError(f"{path.name} does not end in .onnx; name the file {path.stem}.onnx.")
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"a .onnx file is written with the package onnx; {INSTALL}") from error
    graph = _Graph(_weights(model))
    written = _gpt(graph, model.config)
    write = (lambda part: onnx.save(written, part)) if bits == 32 else (lambda part: _quantize(written, part))
    write_atomically(path.parent, {path.name: write})


def _weights(model: GPT) -> dict[str, np.ndarray]:
    """The state dict in fp32, checked."""
    check_floats(model, "an ONNX file's writer")
    state = model.state_dict()
    if "token_embedding.weight" not in state or any(".plain." in name for name in state):
        raise ValueError("the model has adapters beside its matrices: merge_lora(model) first.")
    if model.config.tie_embedding:
        del state["head.weight"]
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise ValueError(
                f"{name} holds NaN or infinity, as after a training that diverged; open an earlier checkpoint."
            )
    size = 4 * sum(tensor.numel() for tensor in state.values())
    if size >= LARGEST:
        raise ValueError(
            f"the weights take {size / 1e9:.1f} GB in fp32, and one .onnx file holds 2.1; save_pretrained writes any size."
        )
    if model.config.position == "rotary":
        half = model.config.head_dim // 2  # the tables are two equal halves
        state |= {"cos": model.cos[:, :half], "sin": model.sin[:, :half]}
    return {name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in state.items()}


class _Graph:
    """Nodes in the order in which they are computed, and the constants that they read."""

    def __init__(self, weights: dict[str, np.ndarray]):
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def weight(self, name: str) -> str:
        """A tensor of the state dict; matrices are stored as (in, out), which is how MatMul reads them."""
        value = self.weights[name]
        return self.constant(
            np.ascontiguousarray(value.T) if value.ndim == 2 and "embedding" not in name else value, name
        )

    def constant(self, value: Any, name: str = "") -> str:
        """A tensor under a name; a small number, or a list of some, gets one from what it holds."""
        value = np.asarray(value)
        name = name or f"{value.dtype}_{value.tolist()}"
        self.constants[name] = value
        return name

    def add(self, kind: str, *inputs: str, to: str | list[str] = "", **attributes: Any) -> Any:
        """One operator; the name of its output, which `to` may say, or the names where it lists several."""
        from onnx import helper

        outputs = to if isinstance(to, list) else [to or f"{kind}_{len(self.nodes)}"]
        self.nodes.append(helper.make_node(kind, inputs, outputs, name=f"{kind}_{len(self.nodes)}", **attributes))
        return outputs if isinstance(to, list) else outputs[0]

    def linear(self, x: str, name: str) -> str:
        y = self.add("MatMul", x, self.weight(f"{name}.weight"))
        return self.add("Add", y, self.weight(f"{name}.bias")) if f"{name}.bias" in self.weights else y

    def norm(self, x: str, name: str, config: GPTConfig) -> str:
        kind = "RMSNormalization" if config.norm == "rmsnorm" else "LayerNormalization"
        weights = [self.weight(f"{name}.{part}") for part in ("weight", "bias") if f"{name}.{part}" in self.weights]
        return self.add(kind, x, *weights, axis=-1, epsilon=config.norm_eps)


def _gpt(graph: _Graph, config: GPTConfig) -> ModelProto:
    """The whole model, as `GPT.forward` computes it."""
    from onnx import TensorProto, helper, numpy_helper

    add, constant = graph.add, graph.constant
    seen = add("Squeeze", add("Shape", "past_keys", start=3, end=4))  # S
    end = add("Add", seen, add("Squeeze", add("Shape", "idx", start=1, end=2)))  # S + T
    one = constant(np.int64(1))
    positions = add("Range", seen, end, one)  # (T,)
    column = add("Unsqueeze", positions, constant(np.int64([1])))  # (T, 1)
    mask = add("LessOrEqual", add("Range", constant(np.int64(0)), end, one), column)  # (T, S + T)
    x = add("Gather", graph.weight("token_embedding.weight"), "idx")  # (B, T, C)
    rotary = None
    if config.position == "learned":
        x = add("Add", x, add("Gather", graph.weight("position_embedding.weight"), positions))
    else:
        rotary = add("Expand", positions, add("Shape", "idx"))  # (B, T)
    past = [
        add("Split", name, axis=0, num_outputs=config.n_layer, to=[f"{name}_{i}" for i in range(config.n_layer)])
        for name in ("past_keys", "past_values")
    ]
    grown: list[tuple[str, str]] = []
    for layer in range(config.n_layer):
        block = f"blocks.{layer}"
        normed = graph.norm(x, f"{block}.attention_norm", config)
        y, kept = _attention(graph, config, f"{block}.attention", normed, rotary, mask, [p[layer] for p in past])
        grown.append(kept)
        x = add("Add", x, y)
        x = add("Add", x, _mlp(graph, config, f"{block}.mlp", graph.norm(x, f"{block}.mlp_norm", config)))
    for name, of_layers in zip(("keys", "values"), zip(*grown)):
        add("Concat", *of_layers, axis=0, to=name)
    x = graph.norm(x, "norm", config)
    if config.tie_embedding:
        logits = add("MatMul", x, add("Transpose", "token_embedding.weight", perm=[1, 0]))  # (B, T, V)
    else:
        logits = graph.linear(x, "head")
    if config.logit_cap is not None:
        cap = constant(np.float32(config.logit_cap))
        logits = add("Mul", add("Tanh", add("Div", logits, cap)), cap)
    add("Identity", logits, to="logits")

    def tensor(name: str, shape: str, kind: int = TensorProto.FLOAT) -> Any:
        sizes = {"L": config.n_layer, "G": config.n_kv_head, "D": config.head_dim, "V": config.vocab_size}
        return helper.make_tensor_value_info(name, kind, [sizes.get(size, size) for size in shape.split(", ")])

    made = helper.make_graph(
        graph.nodes,
        "minigpt",
        [
            tensor("idx", "B, T", TensorProto.INT64),
            tensor("past_keys", "L, B, G, S, D"),
            tensor("past_values", "L, B, G, S, D"),
        ],
        [tensor("logits", "B, T, V"), tensor("keys", "L, B, G, S+T, D"), tensor("values", "L, B, G, S+T, D")],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(made, opset_imports=opset, ir_version=IR_VERSION, producer_name="minigpt")
    helper.set_model_props(model, {FIELD: config.to_json()})
    return model


def _attention(
    graph: _Graph, config: GPTConfig, name: str, x: str, rotary: str | None, mask: str, past: list[str]
) -> tuple[str, tuple[str, str]]:
    """What the layer adds (B, T, C), and its keys and values (1, B, G, S + T, D)."""
    add, D = graph.add, config.head_dim
    heads = [config.n_head, config.n_kv_head, config.n_kv_head]
    sizes = graph.constant(np.int64([count * D for count in heads]))
    parts = add("Split", graph.linear(x, f"{name}.qkv"), sizes, axis=-1, to=[f"{name}.{part}" for part in "qkv"])
    by_head = []
    for count, part in zip(heads, parts):
        part = add("Reshape", part, graph.constant(np.int64([0, 0, count, D])))  # (B, T, H or G, D)
        by_head.append(add("Transpose", part, perm=[0, 2, 1, 3]))  # (B, H or G, T, D)
    q, k, v = by_head
    if config.qk_norm:
        q, k = graph.norm(q, f"{name}.q_norm", config), graph.norm(k, f"{name}.k_norm", config)
    if rotary is not None:
        tables = [graph.constant(graph.weights[part], part) for part in ("cos", "sin")]
        q, k = add("RotaryEmbedding", q, *tables, rotary), add("RotaryEmbedding", k, *tables, rotary)
    first = graph.constant(np.int64([0]))
    kept = [add("Concat", old, add("Unsqueeze", new, first), axis=3) for old, new in zip(past, (k, v))]
    k, v = (add("Squeeze", both, first) for both in kept)  # (B, G, S + T, D)
    y = add("Transpose", add("Attention", q, k, v, mask), perm=[0, 2, 1, 3])  # (B, T, H, D)
    y = add("Reshape", y, graph.constant(np.int64([0, 0, config.n_head * D])))  # (B, T, H D)
    return graph.linear(y, f"{name}.proj"), tuple(kept)


def _mlp(graph: _Graph, config: GPTConfig, name: str, x: str) -> str:
    add, up = graph.add, graph.linear(x, f"{name}.up")  # (B, T, n_hidden)
    if config.mlp == "swiglu":
        gate = graph.linear(x, f"{name}.gate")
        hidden = add("Mul", add("Mul", gate, add("Sigmoid", gate)), up)
    elif config.mlp == "relu2":
        above = add("Relu", up)
        hidden = add("Mul", above, above)
    else:
        hidden = add("Gelu", up, approximate="tanh")
    return graph.linear(hidden, f"{name}.proj")


def _quantize(model: ModelProto, path: Path) -> None:
    try:
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.quant_utils import add_pre_process_metadata
    except ImportError as error:
        raise ValueError(f"int8 needs the package onnxruntime; {INSTALL}") from error
    # Otherwise it logs the advice to prepare the graph, of which nothing is left to do: shapes are known.
    add_pre_process_metadata(model)
    quantize_dynamic(
        model,
        path,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=True,  # 7 bits: sums of two products overflow 16 bits on processors with AVX2 alone otherwise
        weight_type=QuantType.QInt8,
    )
