"""Whole numbers and their scales, beside PyTorch's, llama.cpp's and torchao's."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.quantize import Rounded, absmax, affine, grouped, least_error
from minigpt.quantize.rounding import check_finite, limits, pack_nibbles, unpack_nibbles


def matrix(n_out=12, n_in=64, seed=0):
    return torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(seed))


def with_largest(weight, share, largest):
    """The same with one number in each group of which every scale is exact in 16 bits."""
    groups = grouped(weight.clamp(-0.2, 0.2), share).clone()
    groups[..., 3] = largest
    return groups.view(weight.shape)


def test_rows_in_8_bits_are_pytorchs_quantization_per_channel():
    rounded = absmax(matrix())
    scale = rounded.scale.flatten()
    zeros = torch.zeros(len(scale), dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(matrix(), scale, zeros, 0, -127, 127)
    torch.testing.assert_close(rounded.dequantize(), theirs, rtol=0, atol=0)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7])
def test_groups_in_few_bits_are_pytorchs_quantization_of_each_group(bits):
    rounded = absmax(matrix(), bits, 16)
    groups, scale = grouped(matrix(), 16).flatten(0, 1), rounded.scale.flatten()
    zeros = torch.zeros(len(scale), dtype=torch.int32)
    theirs = torch.fake_quantize_per_channel_affine(groups, scale, zeros, 0, *limits(bits))
    torch.testing.assert_close(rounded.dequantize().view_as(groups), theirs, rtol=0, atol=0)


def test_affine_numbers_are_pytorchs_with_a_zero_point():
    weight = matrix().abs() + 0.1 * matrix(seed=1)
    rounded = affine(weight)
    scale, zero = rounded.scale.flatten(), rounded.zero.flatten().int()
    theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, 0, 255)
    torch.testing.assert_close(rounded.dequantize(), theirs, rtol=1e-6, atol=1e-7)
    assert rounded.q.dtype == torch.uint8


@pytest.mark.parametrize("largest", [127 / 256, -127 / 256])
def test_groups_of_32_in_8_bits_are_llama_cpps_q8_0(largest):
    import gguf

    weight = with_largest(matrix(), 32, largest)
    blocks = gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q8_0).reshape(-1, 34)
    rounded = absmax(weight, 8, 32)
    assert np.array_equal(blocks[:, 2:].view(np.int8), rounded.q.view(-1, 32).numpy())
    assert np.array_equal(blocks[:, :2].copy().view(np.float16).ravel(), rounded.scale.flatten().numpy())


@pytest.mark.parametrize("largest", [0.5, -0.5])
def test_groups_of_32_in_4_bits_are_llama_cpps_q4_0(largest):
    import gguf

    weight = with_largest(matrix(), 32, largest)
    blocks = gguf.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q4_0).reshape(-1, 18)
    rounded = absmax(weight, 4, 32)
    theirs = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.int8) - 8
    assert np.array_equal(theirs, rounded.q.view(-1, 32).numpy())
    assert np.array_equal(blocks[:, :2].copy().view(np.float16).ravel(), rounded.scale.flatten().numpy())


def test_scales_of_any_size_change_llama_cpps_numbers_by_one_at_most():
    import gguf

    blocks = gguf.quantize(matrix().numpy(), gguf.GGMLQuantizationType.Q8_0).reshape(-1, 34)
    apart = absmax(matrix(), 8, 32).q.view(-1, 32).numpy() - blocks[:, 2:].view(np.int8).astype(int)
    assert abs(apart).max() == 1


def test_rows_in_8_bits_are_as_exact_as_torchaos():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("torchao", exc_type=ImportError)
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        linear = torch.nn.Linear(64, 48, bias=False)
        weight = linear.weight.detach().clone()
        quantize_(linear, Int8WeightOnlyConfig())
        theirs = linear.weight.dequantize()
    step = weight.abs().amax(1, keepdim=True) / 127
    ours = absmax(weight).dequantize()
    assert ((ours - theirs).abs() <= 1.01 * step).all()
    assert (ours - weight).square().mean() < 1.05 * (theirs - weight).square().mean()


numbers = st.floats(-100, 100, width=32)
rows = st.lists(st.lists(numbers, min_size=8, max_size=8), min_size=1, max_size=4).map(torch.tensor)


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from([2, 3, 4, 5, 8]), st.sampled_from([2, 4, 8, "row", "tensor"]))
def test_what_is_not_cut_off_is_wrong_by_half_a_scale_at_most(weight, bits, share):
    rounded = absmax(weight, bits, share)
    groups, back = grouped(weight, share), grouped(rounded.dequantize(), share)
    low, high = (rounded.scale * end for end in limits(bits))
    inside = (groups >= torch.minimum(low, high)) & (groups <= torch.maximum(low, high))
    wrong = (groups - back).abs()
    assert (wrong <= rounded.scale.abs() * 0.5001)[inside].all()
    assert (wrong <= rounded.scale.abs() * 1.05).all()  # 7 stands for what lies opposite to -8
    assert (rounded.dequantize()[weight == 0] == 0).all()
    assert rounded.share == share or share == "row" or len(weight) == 1


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from([4, 8]), st.sampled_from([4, "row", "tensor"]))
def test_affine_rounding_keeps_zeros_and_is_wrong_by_one_and_a_half_scales_at_most(weight, bits, share):
    rounded = affine(weight, bits, share)
    wrong = grouped(weight - rounded.dequantize(), share).abs()
    assert (wrong <= rounded.scale * 1.51 + 1e-6).all()
    assert (rounded.dequantize()[weight == 0] == 0).all()


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from([3, 4, 8]), st.sampled_from([4, "row", "tensor"]))
def test_a_chosen_clip_is_never_worse_than_none(weight, bits, share):
    def error(rounded):
        return grouped(rounded.dequantize() - weight, share).square().sum(-1)

    assert (error(least_error(weight, bits, share)) <= error(absmax(weight, bits, share)) * 1.0001 + 1e-12).all()


def test_a_chosen_clip_is_that_of_the_best_of_those_tried():
    chosen = least_error(matrix(), 4, 32)
    tried = [absmax(matrix(), 4, 32, clip).dequantize() for clip in (1.0, 0.95, 0.9, 0.85, 0.8)]
    errors = torch.stack([grouped(each - matrix(), 32).square().sum(-1) for each in tried])
    ours = grouped(chosen.dequantize() - matrix(), 32).square().sum(-1)
    torch.testing.assert_close(ours, errors.amin(0))
    assert (ours < 0.999 * errors[0]).any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(-8, 7), min_size=6, max_size=6), min_size=1, max_size=3))
def test_two_numbers_of_4_bits_in_a_byte_come_back(q):
    q = torch.tensor(q, dtype=torch.int8)
    packed = pack_nibbles(q)
    assert packed.shape == (len(q), 3) and packed.dtype == torch.uint8 and torch.equal(unpack_nibbles(packed), q)


@pytest.mark.parametrize("way", [absmax, affine, least_error])
def test_a_row_of_zeros_stays_one(way):
    weight = matrix()
    weight[2] = 0
    back = way(weight, 4, 32).dequantize()
    assert torch.isfinite(back).all() and (back[2] == 0).all() and (back[1] != 0).any()


def test_scales_are_those_that_16_bits_hold_and_the_largest_becomes_the_end_of_the_range():
    for bits, share in ((8, "row"), (4, 32)):
        rounded = absmax(matrix(), bits, share)
        assert torch.equal(rounded.scale, rounded.scale.bfloat16().float())
        groups, q = grouped(matrix(), share), grouped(rounded.q, share)
        ends = q.gather(-1, groups.abs().argmax(-1, keepdim=True))
        assert set(ends.flatten().tolist()) <= ({127, -127, 126, -126} if bits == 8 else {-8})


def test_tiny_and_huge_weights_stay_numbers():
    for size in (1e-42, 1e-30, 1e30):
        weight = matrix() * size
        back = absmax(weight, 4, 32).dequantize()
        assert torch.isfinite(back).all() and (back - weight).abs().max() <= weight.abs().max()


def test_the_matrix_comes_back_in_the_scales_precision_and_its_share_is_known():
    half = absmax(matrix().bfloat16(), 8, 16)
    assert half.dequantize().dtype == torch.float32 and half.share == 16
    assert absmax(matrix(), 8, "row").share == 64 and absmax(matrix(), 8, "tensor").share == "tensor"
    assert Rounded(half.q, half.scale.double()).dequantize().dtype == torch.float64


@pytest.mark.parametrize("bits", [1, 9, 0, 8.0, "8", True, None])
def test_bits_that_are_none_are_told(bits):
    for way in (absmax, affine, least_error):
        with pytest.raises(ValueError, match=re.escape(f"bits={bits!r} is no number of bits")):
            way(matrix(), bits)


@pytest.mark.parametrize("share", [48, 0, -32, 128, 32.0, True])
def test_a_group_that_does_not_divide_a_row_is_told(share):
    with pytest.raises(ValueError, match="do not divide a row of 64 weights; use one of 16, 32, 64"):
        absmax(matrix(), 4, share)


@pytest.mark.parametrize("clip", [0, -1.0, 1.5, math.nan])
def test_a_clip_that_is_no_share_is_told(clip):
    with pytest.raises(ValueError, match="is no share of the largest magnitude"):
        absmax(matrix(), 4, 32, clip)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_told_with_their_place(bad):
    weight = matrix()
    weight[3, 5] = bad
    for way in (absmax, affine, least_error):
        with pytest.raises(
            ValueError,
            match=re.escape(f"the matrix holds 1 numbers that are not finite (the first, {bad}, in row 3, column 5)"),
        ):
            way(weight, 4, 32)
    with pytest.raises(ValueError, match=r"^blocks\.0\.mlp\.up holds"):
        check_finite(weight, "blocks.0.mlp.up")
