import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from minigpt import fused, kernels
from minigpt.model import RMSNorm

THEN = {
    kernels.SET: lambda y, before: y,
    kernels.ADD: lambda y, before: before + y,
    kernels.TIMES: lambda y, before: before * y,
    kernels.GELU: lambda y, before: F.gelu(y, approximate="tanh"),
    kernels.SQUARED_RELU: lambda y, before: F.relu(y).square(),
    kernels.SILU: lambda y, before: F.silu(y),
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def whole_numbers(n_out, n_in):
    return torch.randint(-127, 128, (n_out, n_in), dtype=torch.int8), torch.rand(n_out) / 127


@pytest.mark.parametrize("then", THEN)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("n_out", "n_in"), [(24, 6), (7, 1200), (1, 5)])
def test_a_product_equals_pytorchs_and_what_follows_it_too(then, rows, n_out, n_in):
    x, weight, bias, before = (torch.randn(*shape) for shape in ((rows, n_in), (n_out, n_in), (n_out,), (rows, n_out)))
    weight /= n_in**0.5
    out = before.clone()
    kernels.multiply(x.numpy(), weight.numpy(), bias.numpy(), then, out.numpy())
    torch.testing.assert_close(out, THEN[then](F.linear(x, weight, bias), before), atol=1e-5, rtol=1e-5)

    half, out = weight.bfloat16(), before.clone()
    kernels.multiply(x.numpy(), half.view(torch.uint16).numpy(), bias.numpy(), then, out.numpy())
    torch.testing.assert_close(out, THEN[then](F.linear(x, half.float(), bias), before), atol=1e-5, rtol=1e-5)

    q, scale = whole_numbers(n_out, n_in)
    out = before.clone()
    kernels.multiply_whole(x.numpy(), q.numpy(), scale.numpy(), bias.numpy(), then, out.numpy())
    expected = THEN[then](F.linear(x, q * scale[:, None], bias), before)
    torch.testing.assert_close(out, expected, atol=2e-3 * n_in**0.5 / 10, rtol=2e-3)


def test_inputs_in_16_bits_lose_less_than_pytorchs_kernel_does_in_bf16():
    x, (q, scale) = torch.randn(1, 768), whole_numbers(512, 768)
    exact = F.linear(x.double(), q.double() * scale.bfloat16().double()[:, None])
    ours = torch.empty(1, 512)
    kernels.multiply_whole(x.numpy(), q.numpy(), scale.bfloat16().float().numpy(), np.zeros(512, "f4"), 0, ours.numpy())
    theirs = torch.ops.aten._weight_int8pack_mm(x.bfloat16(), q, scale.bfloat16())
    assert (ours - exact).norm() < 0.1 * (theirs - exact).norm()


def test_the_longest_sum_of_the_largest_whole_numbers_does_not_overflow():
    width = 3 * kernels.SAFE + 1
    q = torch.tensor([[127], [-127]], dtype=torch.int8).expand(2, width).contiguous()
    out = np.empty((1, 2), np.float32)
    ones = np.ones(2, np.float32)
    kernels.multiply_whole(np.ones((1, width), np.float32), q.numpy(), ones, 0 * ones, kernels.SET, out)
    np.testing.assert_allclose(out, [[127 * width, -127 * width]], rtol=1e-6)
    assert 127 * 32767 * kernels.SAFE < 2**31


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(bad):
    x, out = np.ones((2, 8), np.float32), np.zeros((2, 3), np.float32)
    x[0, 5] = bad
    none = np.zeros(3, np.float32)
    kernels.multiply(x, np.ones((3, 8), np.float32), none, kernels.SET, out)
    assert not np.isfinite(out[0]).any() and (out[1] == 8).all()
    kernels.multiply_whole(x, np.ones((3, 8), np.int8), none + 1, none, kernels.SET, out)
    assert not np.isfinite(out[0]).any() and np.allclose(out[1], 8)


def test_a_row_of_zeros_gives_the_bias():
    out, bias = np.ones((1, 2), np.float32), np.array([3, 4], np.float32)
    kernels.multiply_whole(np.zeros((1, 8), np.float32), np.ones((2, 8), np.int8), bias, bias, kernels.SET, out)
    assert out.tolist() == [[3, 4]]


@pytest.mark.parametrize("norm", [RMSNorm(16, eps=1e-3), nn.LayerNorm(16), nn.LayerNorm(16, bias=False)])
def test_a_norm_equals_pytorchs(norm):
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x, out = 3 * torch.randn(4, 16) + 1, torch.empty(4, 16)
    centred, bias = isinstance(norm, nn.LayerNorm), getattr(norm, "bias", None)
    bias = torch.zeros(16) if bias is None else bias
    kernels.normalise(x.numpy(), norm.weight.detach().numpy(), bias.detach().numpy(), norm.eps, centred, out.numpy())
    torch.testing.assert_close(out, norm(x), atol=1e-5, rtol=1e-5)


def test_heads_are_turned_as_the_model_turns_them():
    heads = torch.randn(2, 5, 8)
    angle = torch.randn(10, 4).repeat(1, 2)
    positions = np.array([3, 7])
    expected = [
        fused.rotate(row[None, :3, None], angle[p : p + 1].cos(), angle[p : p + 1].sin())[0, :, 0]
        for row, p in zip(heads, positions)
    ]
    turned = heads.clone()
    kernels.rotate(turned.numpy(), 3, angle.cos().numpy(), angle.sin().numpy(), positions)
    torch.testing.assert_close(turned[:, :3], torch.stack(expected))
    assert torch.equal(turned[:, 3:], heads[:, 3:])


@pytest.mark.parametrize("attend", [kernels.attend, kernels.attend_alone])
@pytest.mark.parametrize("grouped", [1, 2, 4])
def test_attention_over_a_cache_equals_pytorchs(attend, grouped):
    rows, heads, width, place = 3, 4, 8, 5
    qkv = torch.randn(rows, heads + 2 * grouped, width)
    keys, values = torch.randn(2, rows, grouped, 9, width)
    padding, out, scores = np.array([0, 2, 5]), torch.empty(rows, heads, width), np.empty((rows, heads, 9), np.float32)
    beyond = keys[:, :, place + 1 :].clone()
    attend(qkv.numpy(), keys.numpy(), values.numpy(), place, padding, scores, out.numpy())
    q, k, v = qkv.split([heads, grouped, grouped], dim=1)
    assert torch.equal(keys[:, :, place], k) and torch.equal(values[:, :, place], v)
    assert torch.equal(keys[:, :, place + 1 :], beyond)
    for row, first in enumerate(padding):
        seen = [t[row, :, first : place + 1].repeat_interleave(heads // grouped, 0) for t in (keys, values)]
        expected = F.scaled_dot_product_attention(q[row, :, None], *seen)[:, 0]
        torch.testing.assert_close(out[row], expected, atol=1e-5, rtol=1e-5)
