"""Layers whose weights stay in 8 or 4 bits in memory, multiplied by PyTorch's integer kernels for processors.

N outputs, K inputs, g inputs in a group, M rows of what is multiplied. Biases and what comes in and goes out are
floating-point numbers. `state_dict` holds whole numbers and scales in one layout for every machine (`stored` reads them); a
kernel's own layout is made with the layer. This module knows nothing of a GPT.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.quantize.rounding import Rounded, limits, pack_nibbles, unpack_nibbles

GROUPS_OF_4_BITS = (32, 64, 128, 256)  # what the kernel knows
MANY = 64  # rows of what is multiplied; the kernels are made for few
BLOCK = 64  # rows; the kernel takes whole blocks of them
STRIDE = 16  # numbers of a row that the kernel for 8 bits takes at once; of other rows it reads beyond the end


class QuantizedLinear(nn.Module):
    """What the quantized layers share: (..., K) -> (..., N) of the input's precision, and the weights as `Rounded`.

    Raises:
        ValueError: an input that asks for a gradient, which kernels for whole numbers do not give.
    """

    bits: int
    activations = "float"
    bias: Tensor | None

    def __init__(self, n_out: int, n_in: int, bias: Tensor | None):
        super().__init__()
        self.out_features, self.in_features = n_out, n_in
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                f"a layer in {self.bits} bits gives no gradient: train the model that it was made from, and quantize that "
                "one anew."
            )
        rows = x.reshape(-1, self.in_features).contiguous()  # (M, K)
        y = (self.multiply if len(rows) <= MANY else self.multiply_many)(rows)  # (M, N)
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype).view(*x.shape[:-1], self.out_features)

    def multiply(self, x: Tensor) -> Tensor:
        """(M, K) -> (M, N), without the bias."""
        raise NotImplementedError

    def multiply_many(self, x: Tensor) -> Tensor:
        """The same for a prompt or a batch of windows, where making the weights once costs less than the kernel."""
        return nn.functional.linear(x.to(torch.bfloat16).float(), self.rounded().dequantize())

    def rounded(self) -> Rounded:
        """The whole numbers and the scales, in the layout of `minigpt.quantize.rounding`."""
        raise NotImplementedError

    def rows(self, idx: Tensor) -> Tensor:
        """Some rows of the matrix in fp32: idx (...) -> (..., K)."""
        raise NotImplementedError

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantizedLinear:
        """A cast of the model, such as model.half(), reaches the bias alone: the kernels know one type of scale."""
        kept = {name: buffer for name, buffer in self.named_buffers(recurse=False) if name != "bias"}
        super()._apply(function, recurse)
        for name, buffer in kept.items():
            setattr(self, name, buffer)
        return self

    @property
    def n_numbers(self) -> int:
        """How many numbers of the model stand here: weights and bias."""
        return self.out_features * (self.in_features + (self.bias is not None))

    def extra_repr(self) -> str:
        """What `print(model)` shows of it."""
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, activations={self.activations}"


def _with_scales_of_rows(weight: Rounded, bits: int) -> Rounded:
    """The same, where a scale of the whole matrix is told for each row. ValueError for what the kernels do not know."""
    low, high = limits(bits)
    if weight.zero is not None or weight.q.amin() < low or weight.q.amax() > high:
        raise ValueError(
            f"the kernels for {bits} bits take whole numbers from {low} to {high} that stand for 0 at 0: round with "
            f"absmax(weight, bits={bits})."
        )
    return weight._replace(scale=weight.scale.expand(len(weight.q), -1, 1))


class Int8Linear(QuantizedLinear):
    """Weights in 8 bits, a scale for each row or group; what is multiplied is rounded to bf16, which the kernel is fast in.

    The kernel knows scales of rows; groups are multiplied one after the other.

    Raises:
        ValueError: whole numbers with a zero point.
    """

    bits = 8

    def __init__(self, weight: Rounded, bias: Tensor | None = None):
        super().__init__(*weight.q.shape, bias)
        weight = _with_scales_of_rows(weight, self.bits)
        groups = weight.q.view(len(weight.q), weight.scale.size(1), -1).transpose(0, 1)  # (K / g, N, g)
        self.register_buffer("weight", groups.contiguous())
        self.register_buffer("scale", weight.scale.squeeze(-1).T.to(torch.bfloat16).contiguous())  # (K / g, N)

    def multiply(self, x: Tensor) -> Tensor:
        x, weight = x.to(torch.bfloat16), self.weight
        product = torch.ops.aten._weight_int8pack_mm
        parts = x.view(len(x), *weight.shape[::2]).transpose(0, 1).contiguous()  # (K / g, M, g)
        if missing := -weight.size(-1) % STRIDE:
            parts, weight = (nn.functional.pad(numbers, (0, missing)) for numbers in (parts, weight))
        if len(weight) == 1:
            return product(parts[0], weight[0], self.scale[0])
        return torch.stack([product(*part) for part in zip(parts, weight, self.scale)]).sum(0, dtype=torch.float32)

    def scaled_rows(self) -> tuple[Tensor, Tensor] | None:
        """The whole numbers (N, K) and the scale of each row (N,) in fp32; None where there are groups."""
        return (self.weight[0], self.scale[0].float()) if len(self.weight) == 1 else None

    def rounded(self) -> Rounded:
        q = self.weight.transpose(0, 1).reshape(self.out_features, self.in_features)
        return Rounded(q, self.scale.T.unsqueeze(-1).float())

    def rows(self, idx: Tensor) -> Tensor:
        numbers = self.weight[:, idx].float() * self.scale[:, idx].unsqueeze(-1)  # (K / g, ..., g)
        return numbers.movedim(0, -2).flatten(-2)


class DynamicLinear(QuantizedLinear):
    """Weights and what is multiplied both in 8 bits, so that the products are products of whole numbers.

    Each row of the input has its own scale, found when it comes: it is divided by its largest magnitude, and one more row
    from -1 to 1 tells the kernel, which looks for the range of all it is given, that it is that. So no row's result
    depends on the others. The kernel (FBGEMM's) has 7 bits for the input, to stay inside of 16 bits on any processor.

    Raises:
        ValueError: groups, which the kernel does not know, or whole numbers with a zero point.
    """

    bits, activations = 8, "int8"

    def __init__(self, weight: Rounded, bias: Tensor | None = None):
        super().__init__(*weight.q.shape, bias)
        weight = _with_scales_of_rows(weight, self.bits)
        if weight.scale.size(1) != 1:
            raise ValueError("the kernel for whole numbers on both sides takes one scale for each row, and no groups.")
        self._pack(weight.q, weight.scale.flatten())

    @staticmethod
    def available() -> bool:
        """Whether this PyTorch has the kernel: its builds for x86 have."""
        return "fbgemm" in torch.backends.quantized.supported_engines

    def _pack(self, q: Tensor, scale: Tensor) -> None:
        zeros = torch.zeros(len(q), dtype=torch.long)
        with warnings.catch_warnings():  # these tensors are deprecated, and have no successor on processors yet
            warnings.simplefilter("ignore")
            whole = torch._make_per_channel_quantized_tensor(q.contiguous(), scale.double(), zeros, 0)
            self.packed = torch.ops.quantized.linear_prepack(whole, None)
        self.ends = torch.zeros(1, self.in_features)
        self.ends[0, 0], self.ends[0, -1] = -1.0, 1.0

    def multiply(self, x: Tensor) -> Tensor:
        x = x.float()
        largest = x.abs().amax(dim=1, keepdim=True).clamp_(min=1e-30)  # (M, 1)
        given = torch.cat([x / largest, self.ends])  # (M + 1, K)
        return torch.ops.quantized.linear_dynamic(given, self.packed, True)[:-1].mul_(largest)

    multiply_many = multiply

    def rows(self, idx: Tensor) -> Tensor:
        return self.rounded().dequantize()[idx]

    def rounded(self) -> Rounded:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole = torch.ops.quantized.linear_unpack(self.packed)[0]
            return Rounded(whole.int_repr(), whole.q_per_channel_scales().float().view(-1, 1, 1))

    def nbytes(self) -> int:
        """Bytes that the packed weights take, which are no buffer."""
        return self.out_features * (self.in_features + 8)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = self.rounded()
        destination[f"{prefix}weight"] = weight.q.unsqueeze(0)
        destination[f"{prefix}scale"] = weight.scale.squeeze(-1).T.to(torch.bfloat16)

    def __reduce__(self) -> tuple[Any, ...]:
        """What a copy and a pickle are made of, since `packed` is no tensor."""
        return DynamicLinear, (self.rounded(), self.bias), {"training": self.training}


@functools.cache
def _order() -> tuple[int, Tensor]:
    """How this machine's kernel lays out 4-bit numbers: rows in a block, and the place of each of them.

    A block is one line of bytes for each column; row r stands in nibble `place[r]` of that line. Found by packing a matrix
    whose numbers tell where they come from.
    """
    found = []
    for digit in (1, 16):
        probe = (torch.arange(BLOCK) // digit % 16).to(torch.int32)[:, None].expand(BLOCK, 32).contiguous()
        found.append(_pack(probe).flatten())
    nibbles = [torch.stack([packed & 15, packed >> 4], dim=-1).flatten().long() for packed in found]
    row = nibbles[0] + 16 * nibbles[1]  # of each nibble in turn
    size = next(size for size in (16, 32, 64) if (row[: 32 * size] < size).all())
    assert (row.view(-1, 32, size) == row.view(-1, 32, size)[:, :1]).all(), "an unknown layout of 4-bit weights"
    return size, row[:size].argsort()


def _pack(numbers: Tensor) -> Tensor:
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(numbers, 1)


class Int4Linear(QuantizedLinear):
    """Weights in 4 bits, a scale for each group; what is multiplied is rounded to bf16, which the kernel is fast in.

    Raises:
        ValueError: groups that the kernel does not know, or whole numbers beyond 4 bits.
    """

    bits = 4

    def __init__(self, weight: Rounded, bias: Tensor | None = None):
        super().__init__(*weight.q.shape, bias)
        weight = _with_scales_of_rows(weight, self.bits)
        self.group_size = self.in_features // weight.scale.size(1)
        if self.group_size not in GROUPS_OF_4_BITS:
            raise ValueError(
                f"the kernel for 4 bits takes groups of {', '.join(map(str, GROUPS_OF_4_BITS))}, not of {self.group_size}."
            )
        missing = -len(weight.q) % BLOCK
        numbers = nn.functional.pad((weight.q + 8).to(torch.int32), (0, 0, 0, missing))
        scale = nn.functional.pad(weight.scale.squeeze(-1), (0, 0, 0, missing)).T  # (K / g, N)
        self.register_buffer("packed", _pack(numbers), persistent=False)
        pairs = torch.stack([scale, torch.zeros_like(scale)], dim=-1)  # (K / g, N, 2); what is added to each is 0
        self.register_buffer("pairs", pairs.to(torch.bfloat16), persistent=False)

    def multiply(self, x: Tensor) -> Tensor:
        product = torch.ops.aten._weight_int4pack_mm_for_cpu
        return product(x.to(torch.bfloat16), self.packed, self.group_size, self.pairs)[:, : self.out_features]

    def rounded(self) -> Rounded:
        scale = self.pairs[:, : self.out_features, 0].T.unsqueeze(-1).float()  # (N, K / g, 1)
        return Rounded(self._numbers(torch.arange(self.out_features)), scale)

    def _numbers(self, idx: Tensor) -> Tensor:
        """Rows of whole numbers, (...) -> (..., K) int8."""
        size, place = _order()
        blocks = self.packed.view(-1, self.in_features, size // 2)
        where = place[idx % size]
        found = blocks[idx // size, :, where // 2]  # (..., K)
        return (found >> (4 * (where % 2)).to(torch.uint8).unsqueeze(-1) & 15).to(torch.int8) - 8

    def rows(self, idx: Tensor) -> Tensor:
        scale = self.pairs[:, idx, 0].movedim(0, -1).float()  # (..., K / g)
        numbers = self._numbers(idx).unflatten(-1, (-1, self.group_size)).float()  # (..., K / g, g)
        return (numbers * scale.unsqueeze(-1)).flatten(-2)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight = self.rounded()
        destination[f"{prefix}weight"] = pack_nibbles(weight.q)
        destination[f"{prefix}scale"] = weight.scale.squeeze(-1).T.to(torch.bfloat16).contiguous()


class QuantizedEmbedding(nn.Module):
    """The rows of a quantized matrix by number, (...) -> (..., K): its own, or the head's where they share the table.

    They come in the precision that the model was cast to, such as by model.bfloat16(); `like` follows those casts.
    """

    def __init__(self, table: QuantizedLinear):
        super().__init__()
        self.table = table
        self.register_buffer("like", torch.empty(0), persistent=False)

    def forward(self, idx: Tensor) -> Tensor:
        return self.table.rows(idx).to(self.like.dtype)


def stored(weight: Tensor, scale: Tensor) -> Rounded:
    """`Rounded` from what `state_dict` holds: int8 (K / g, N, g) or pairs of 4 bits (N, K / 2), and scales (K / g, N)."""
    scale = scale.float().T.unsqueeze(-1)  # (N, K / g, 1)
    if weight.dtype == torch.uint8:
        return Rounded(unpack_nibbles(weight), scale)
    return Rounded(weight.transpose(0, 1).reshape(len(scale), -1), scale)
