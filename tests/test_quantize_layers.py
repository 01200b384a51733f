"""Layers in 8 or 4 bits: what they multiply, what they keep, and that no row depends on another."""

import copy
import pickle

import pytest
import torch

from minigpt.quantize import (
    DynamicLinear,
    Int4Linear,
    Int8Linear,
    QuantizedEmbedding,
    absmax,
    affine,
    layers,
)

needs_dynamic = pytest.mark.skipif(not DynamicLinear.available(), reason="this PyTorch lacks FBGEMM, which is for x86")
KINDS = {
    "8 rows": (Int8Linear, 8, "row"),
    "8 groups": (Int8Linear, 8, 32),
    "8 matrix": (Int8Linear, 8, "tensor"),
    "8 dynamic": (DynamicLinear, 8, "row"),
    "4 groups of 32": (Int4Linear, 4, 32),
    "4 groups of 64": (Int4Linear, 4, 64),
    "4 rows": (Int4Linear, 4, "row"),
}
HEIGHTS = (5, 64, 100)  # rows of the matrix; a kernel for 4 bits takes whole blocks of 64


def matrix(n_out=100, n_in=128, seed=0):
    return torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(seed))


def inputs(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=[pytest.param(k, marks=needs_dynamic if "dynamic" in k else ()) for k in KINDS])
def kind(request):
    return KINDS[request.param]


def make(kind, n_out=100, bias=True):
    layer, bits, share = kind
    return layer(absmax(matrix(n_out), bits, share), matrix(1, n_out, seed=2)[0] if bias else None)


def exactly(layer, x):
    """The product with the dequantized weights, and how far bf16 (7 bits where the input is rounded too) may be from it."""
    y = x.double() @ layer.rounded().dequantize().double().T
    size = x.double().norm(dim=-1, keepdim=True) * layer.rounded().dequantize().double().norm(dim=-1)
    return y + (0 if layer.bias is None else layer.bias.double()), size * (
        0.02 if layer.activations == "int8" else 0.006
    )


@pytest.mark.parametrize("n_out", HEIGHTS)
@pytest.mark.parametrize("rows", [1, 2, 17, 64, 65, 200])
def test_the_product_is_that_with_the_dequantized_weights(kind, n_out, rows):
    layer, x = make(kind, n_out), inputs(rows, 128)
    expected, near = exactly(layer, x)
    y = layer(x)
    assert y.shape == (rows, n_out) and y.dtype == torch.float32
    assert ((y - expected).abs() <= near).all()


@pytest.mark.parametrize("width", [4, 12, 24, 40, 120])
@pytest.mark.parametrize("groups", [1, 2])
def test_rows_of_any_width_are_multiplied_in_8_bits(width, groups):
    layer = Int8Linear(absmax(matrix(33, groups * width), 8, width))
    for rows in (1, 3, 5):
        x = inputs(rows, groups * width)
        expected, near = exactly(layer, x)
        assert ((layer(x) - expected).abs() <= near).all()


def test_one_row_and_many_rows_agree(kind):
    layer, x = make(kind, bias=False), inputs(100, 128)
    many, near = layer(x), exactly(layer, x)[1]
    one = torch.cat([layer(row[None]) for row in x])
    assert ((one - many).abs() <= 2 * near).all()


def test_weights_keep_the_numbers_that_they_were_made_of(kind):
    _, bits, share = kind
    given = absmax(matrix(), bits, share)
    rounded = make(kind).rounded()
    assert torch.equal(rounded.q, given.q) and torch.equal(rounded.dequantize(), given.dequantize())


@pytest.mark.parametrize("n_out", HEIGHTS)
def test_rows_are_those_of_the_dequantized_weights(kind, n_out):
    layer, idx = make(kind, n_out), torch.tensor([[0, n_out - 1, 3], [2, 2, n_out // 2]])
    expected = layer.rounded().dequantize()[idx]
    assert torch.equal(layer.rows(idx), expected) and torch.equal(QuantizedEmbedding(layer)(idx), expected)


@needs_dynamic
def test_rows_multiplied_in_whole_numbers_do_not_depend_on_each_other():
    layer = make(KINDS["8 dynamic"])
    x = inputs(5, 128)
    x[1] *= 1e6
    x[2] *= 1e-6
    x[3] = 0
    together = layer(x)
    for row in range(5):
        assert torch.equal(together[row], layer(x[row : row + 1])[0])
    assert torch.equal(together[3], layer.bias)
    assert (together[2] - layer.bias).abs().max() > 0


@needs_dynamic
def test_what_is_multiplied_has_7_bits():
    """A row whose numbers are multiples of its largest in 1 / 63.5 comes through almost without an error."""
    layer = make(KINDS["8 dynamic"], bias=False)
    x = torch.randint(-63, 64, (3, 128), generator=torch.Generator().manual_seed(0)) / 63.5
    x[:, 0] = 1.0
    torch.testing.assert_close(layer(x), x @ layer.rounded().dequantize().T, atol=0.2, rtol=0.01)


def test_rows_do_not_depend_on_the_other_rows_of_a_product(kind):
    layer, x = make(kind), inputs(70, 128)
    other = x.clone()
    other[1:] = 100 * inputs(69, 128, seed=3)
    for rows in (2, 70):
        assert torch.equal(layer(x[:rows])[0], layer(other[:rows])[0])


def test_shapes_views_and_types_of_what_comes_in(kind):
    layer, x = make(kind), inputs(2, 3, 128)
    assert torch.equal(layer(x), layer(x.view(6, 128)).view(2, 3, 100))
    strided = inputs(128, 6).T
    assert torch.equal(layer(strided), layer(strided.contiguous()))
    assert layer(x[:0]).shape == (0, 3, 100)
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_state_dict_is_the_same_layout_on_every_machine(kind):
    layer, bits, share = kind
    state = make(kind).state_dict()
    groups = {"row": 1, "tensor": 1}.get(share) or 128 // share
    shape = (100, 64) if bits == 4 else (groups, 100, 128 // groups)
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "weight": shape,
        "scale": (groups, 100),
        "bias": (100,),
    }
    assert (
        state["weight"].dtype == (torch.uint8 if bits == 4 else torch.int8) and state["scale"].dtype == torch.bfloat16
    )
    again = layer(layers.stored(state["weight"], state["scale"]), state["bias"])
    assert torch.equal(again(inputs(3, 128)), make(kind)(inputs(3, 128)))


@pytest.mark.parametrize("size", [16, 32, 64])
def test_4_bits_are_read_from_whatever_layout_a_kernel_has(size, monkeypatch):
    """A layout of another machine: blocks of `size` rows, of which the second half stands in the high nibbles."""

    def pack(numbers):
        blocks = numbers.view(-1, 2, size // 2, numbers.size(1))  # (N / size, 2, size / 2, K)
        low, high = blocks[:, 0].transpose(1, 2), blocks[:, 1].transpose(1, 2)
        return (low | high << 4).to(torch.uint8).reshape(len(numbers), -1)

    here = make(KINDS["4 groups of 32"])
    state, q = here.state_dict(), here.rounded().q
    idx = torch.tensor([0, 1, 15, 16, 31, 33, 63, 64, 99])
    rows = here.rows(idx)
    monkeypatch.setattr(layers, "_pack", pack)
    layers._order.cache_clear()
    try:
        there = Int4Linear(layers.stored(state["weight"], state["scale"]), state["bias"])
        assert layers._order()[0] == size
        assert torch.equal(there.rounded().q, q) and torch.equal(there.rows(idx), rows)
        assert torch.equal(there.state_dict()["weight"], state["weight"])
    finally:
        monkeypatch.undo()
        layers._order.cache_clear()


def test_a_copy_and_a_pickled_layer_compute_the_same(kind):
    layer, x = make(kind), inputs(3, 128)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), layer(x)) and other.bias is not layer.bias


@pytest.mark.parametrize("cast", ["half", "double", "bfloat16", "float"])
def test_casting_a_model_leaves_the_weights_as_they_are(kind, cast):
    layer, x = make(kind, bias=False), inputs(3, 128)
    expected = layer(x)
    assert torch.equal(getattr(copy.deepcopy(layer), cast)()(x), expected)


def test_a_layer_tells_what_it_is_and_how_many_numbers_it_has(kind):
    layer, bits, _ = kind
    assert f"128, 100, bits={bits}, activations={layer.activations}" in repr(make(kind))
    assert make(kind).n_numbers == 12_900 and make(kind, bias=False).n_numbers == 12_800


def test_what_asks_for_a_gradient_is_refused(kind):
    layer, x = make(kind), inputs(2, 128).requires_grad_()
    with pytest.raises(ValueError, match=r"in [48] bits gives no gradient: train the model that it was made from"):
        layer(x)
    with torch.no_grad():
        assert layer(x).shape == (2, 100)


def test_whole_numbers_that_a_kernel_does_not_know_are_told(kind):
    layer, bits, share = kind
    with pytest.raises(ValueError, match=f"kernels for {bits} bits take whole numbers from"):
        layer(affine(matrix(), bits, share))


def test_groups_and_numbers_that_a_kernel_does_not_know_are_told():
    with pytest.raises(ValueError, match="takes groups of 32, 64, 128, 256, not of 16"):
        Int4Linear(absmax(matrix(), 4, 16))
    with pytest.raises(ValueError, match="kernels for 4 bits take whole numbers from -8 to 7"):
        Int4Linear(absmax(matrix(), 8, 32))


@needs_dynamic
def test_products_of_whole_numbers_take_no_groups():
    with pytest.raises(ValueError, match="one scale for each row, and no groups"):
        DynamicLinear(absmax(matrix(), 8, 32))
