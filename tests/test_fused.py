"""Fewer walks through memory, the same arithmetic: every function against its plain form, forwards and backwards."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from minigpt import GPT, GPTConfig, fused

B, H, G, T, D = 2, 4, 2, 7, 6


def both_ways(function, *tensors):
    """What a function gives, and the gradients of all that it was given."""
    given = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    out = function(*given)
    weights = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return [out, *torch.autograd.grad(out, given, weights)]


def assert_close(ours, plain, tolerance):
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        scale = other.float().abs().max().clamp(min=1e-3)
        assert (one.float() - other.float()).abs().max() <= tolerance * scale


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_rms_norm_equals_pytorchs(dtype, tolerance):
    x, weight = torch.randn(3, 5, 16, dtype=dtype), torch.rand(16)
    plain = both_ways(lambda x, w: F.rms_norm(x, (16,), w.to(x.dtype), 1e-5), x, weight)
    assert_close(both_ways(lambda x, w: fused.rms_norm(x, w, 1e-5), x, weight), plain, tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_squared_relu_equals_the_square_of_relu(dtype):
    x = torch.randn(5, 9, dtype=dtype)
    assert_close(both_ways(fused.squared_relu, x), both_ways(lambda x: F.relu(x).square(), x), 1e-2)


def test_gelu_is_gpt2s_and_in_bf16_nearly():
    x = torch.linspace(-6, 6, 4001)
    plain = both_ways(lambda x: F.gelu(x, approximate="tanh"), x)
    assert_close(both_ways(fused.gelu, x), plain, 1e-7)
    ours = fused.gelu(x.bfloat16().requires_grad_()).float()
    assert (ours - F.gelu(x.bfloat16().float(), approximate="tanh")).abs().max() < 0.016  # half a step of bf16 near 6


@pytest.mark.parametrize("batched", [False, True])
def test_rotate_turns_each_pair_by_its_angle_and_its_gradient_back(batched):
    x, angle = torch.randn(B, H, T, D), torch.randn(B if batched else 1, 1, T, D // 2)
    angle = torch.cat([angle, angle], dim=-1) if batched else torch.cat([angle, angle], dim=-1)[0, 0]

    def plain(x):
        left, right = x.chunk(2, dim=-1)
        pairs = torch.polar(torch.ones_like(angle), angle)[..., : D // 2] * torch.complex(left, right)
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    assert_close(both_ways(lambda x: fused.rotate(x, angle.cos(), angle.sin()), x), both_ways(plain, x), 1e-6)
    with torch.no_grad():
        assert torch.allclose(fused.rotate(x, angle.cos(), angle.sin()), plain(x), atol=1e-6)


@pytest.mark.parametrize("heads", [H, G, 1])
def test_attention_in_bf16_equals_pytorchs_in_fp32_within_bf16(heads):
    q, k, v = (torch.randn(B, n, T, D) for n in (H, heads, heads))
    with sdpa_kernel(SDPBackend.MATH):
        plain = both_ways(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True, enable_gqa=True), q, k, v)
    ours = both_ways(fused.attention, *(x.bfloat16() for x in (q, k, v)))
    assert ours[0].dtype == torch.bfloat16
    assert_close([x.float() for x in ours], plain, 3e-2)


def test_attention_lets_no_gradient_flow_back_from_the_future():
    q, k, v = (torch.randn(1, H, T, D).bfloat16().requires_grad_() for _ in range(3))
    fused.attention(q, k, v)[:, :, :3].float().sum().backward()
    assert v.grad[:, :, 3:].abs().max() == 0 and k.grad[:, :, 3:].abs().max() == 0 and v.grad[:, :, :3].abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_dropout_sets_its_share_to_zero_and_keeps_the_mean(share, dtype):
    x = torch.ones(301, 333, dtype=dtype, requires_grad=True)
    out = fused.dropout(x, share, training=True)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    n = x.numel()
    assert (out == 0).float().mean() == pytest.approx(round(256 * share) / 256, abs=4 * math.sqrt(0.25 / n))
    assert out.detach().float().mean() == pytest.approx(1, abs=4 * math.sqrt(share / (1 - share) / n) + 4e-3)
    assert torch.equal(gradient == 0, out == 0) and len(gradient.unique()) == 2
    rows = (out.detach() == 0).float().mean(dim=1)
    assert rows.std() < 2 * math.sqrt(0.25 / x.size(1))  # no row is spared


def test_dropout_follows_the_seed_and_does_nothing_out_of_training():
    x = torch.randn(50, 50, requires_grad=True)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(fused.dropout(x, 0.3, training=True).detach())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert fused.dropout(x, 0.3, training=False) is x


@pytest.mark.parametrize("mlp", ["relu2", "swiglu"])
def test_a_model_computes_the_same_with_and_without_gradients(mlp):
    """Without them the plain forms are used."""
    sizes = {"vocab_size": 31, "n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8, "mlp": mlp}
    model = GPT(GPTConfig.llama(**sizes, qk_norm=True))
    idx = torch.randint(31, (2, 8))
    trained = model(idx, idx)[0]
    with torch.no_grad():
        assert torch.allclose(model(idx, idx)[0], trained, atol=1e-5)
