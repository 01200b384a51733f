"""The same arithmetic in fewer walks through memory, for training on a CPU, where the walks take most of the time.

Each function has a plain form, to which it is equal within rounding (the tests compare them), and which is used where
nothing is trained, on a GPU, which has kernels of its own, and under torch.compile, which fuses by itself. B batch,
H heads, G key/value heads, T tokens, S tokens seen, D head_dim.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function


def _pays(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.requires_grad and not torch.compiler.is_compiling()


class _RMSNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)  # sums want more digits than bf16 has
        square = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=exact).square_()
        scale = (square / x.size(-1)).add_(eps).rsqrt_().to(x.dtype)  # (..., 1)
        normed = x * scale
        ctx.save_for_backward(normed, scale, weight)
        return normed * weight.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normed, scale, weight = ctx.saved_tensors
        along = gradient * normed  # (..., C)
        of_weight = along.flatten(0, -2).sum(dim=0, dtype=torch.promote_types(along.dtype, torch.float32))  # (C,)
        share = (along @ weight.to(along.dtype)).unsqueeze(-1) / -normed.size(-1)  # (..., 1)
        gradient = (gradient * weight.to(gradient.dtype)).addcmul_(normed, share).mul_(scale)
        return gradient, of_weight.to(weight.dtype), None


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`torch.nn.functional.rms_norm`: x (..., C) in any precision, weight (C,) (Zhang & Sennrich 2019, equation 4)."""
    if not _pays(x):
        return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)
    return _RMSNorm.apply(x, weight, eps)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form (Hendrycks & Gimpel 2016, section 2), any shape.

    Training in bf16 on a CPU, the exact form stands in: it takes a quarter of the time there, and the two differ by less
    than 0.0005, where bf16 keeps two or three digits.
    """
    return F.gelu(x, approximate="none" if x.dtype == torch.bfloat16 and _pays(x) else "tanh")


class _SquaredReLU(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        above = F.relu(x)
        ctx.save_for_backward(above)
        return above * above

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return (gradient * ctx.saved_tensors[0]).mul_(2)


def squared_relu(x: Tensor) -> Tensor:
    """What is above zero, squared (So et al. 2021, section 4.1), any shape."""
    if not _pays(x):
        return F.relu(x).square()
    return _SquaredReLU.apply(x)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x[i], x[i + D/2]) by its position's angle (Su et al. 2021, equation 34).

    x (B, H, T, D); cos, sin (T, D) or (B, 1, T, D), each of them two equal halves.
    """
    half = x.size(-1) // 2
    sin = torch.cat([-sin[..., :half], sin[..., half:]], dim=-1).to(x.dtype)
    return torch.addcmul(x * cos.to(x.dtype), x.roll(half, dims=-1), sin)


class _CausalAttention(Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        B, H, T, D = q.shape
        q, k, v = (x.reshape(B * H, T, D) for x in (q, k, v))
        future = torch.full((T, T), -math.inf, dtype=q.dtype).triu(1)
        weights = torch.baddbmm(future, q, k.mT, alpha=1 / math.sqrt(D)).softmax(dim=-1)  # (B H, T, T)
        ctx.save_for_backward(q, k, v, weights)
        return (weights @ v).view(B, H, T, D)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (q, k, v, weights), shape = ctx.saved_tensors, gradient.shape
        gradient = gradient.reshape(q.shape)  # (B H, T, D)
        scores = torch._softmax_backward_data(gradient @ v.mT, weights, -1, weights.dtype)  # (B H, T, T)
        scaled = {"beta": 0, "alpha": 1 / math.sqrt(q.size(-1))}
        of_q, of_k = torch.baddbmm(q, scores, k, **scaled), torch.baddbmm(k, scores.mT, q, **scaled)
        return of_q.view(shape), of_k.view(shape), (weights.mT @ gradient).view(shape)


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, is_causal: bool = True) -> Tensor:
    """PyTorch's `scaled_dot_product_attention`: q (B, H, T, D), k and v (B, H or G, S, D) -> (B, H, T, D).

    Training in bf16 on a CPU, it is made of batched matrix products that keep the weights (B, H, T, T), and takes a third
    of the time of PyTorch's kernel, whose backward pass knows no bf16 there (torch 2.13).
    """
    shared = q.size(1) // k.size(1)
    if q.dtype == torch.bfloat16 and is_causal and _pays(q):
        if shared > 1:
            k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        return _CausalAttention.apply(q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=shared > 1)


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cut: int) -> Tensor:
        draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        draws = draws.view(torch.uint8)[: x.numel()].view(x.shape)  # 0 to 255; those below `cut` fall
        kept = draws.to(x.dtype).sub_(cut - 1).clamp_(0, 1).mul_(256 / (256 - cut))
        ctx.save_for_backward(kept)
        return x * kept

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None


def dropout(x: Tensor, share: float, training: bool) -> Tensor:
    """In training, set a `share` of the numbers to 0 and enlarge the others (Srivastava et al. 2014), any shape.

    On a CPU the share is rounded to 256ths: one byte of chance decides on each number. PyTorch draws 32 bits for each,
    in one thread, which takes several times as long.
    """
    if not (training and share and _pays(x)):
        return F.dropout(x, share, training)
    return _Dropout.apply(x, round(256 * share))
