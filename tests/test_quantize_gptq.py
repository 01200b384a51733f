"""GPTQ: beside the algorithm written out, on the inputs that it was made for, and on a whole model."""

import copy
import math
import sys

import pytest
import torch
from conftest import make_model
from test_quantize_model import CONFIGS, IDX, small

from minigpt import quantize
from minigpt.calibration import DAMPING, TOGETHER
from minigpt.quantize import absmax, dequantize, gptq, least_error, round_columns


def inputs(rows=400, width=96, seed=0):
    """Inputs that move together, as those of a real layer do."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, width // 4, generator=random) @ torch.randn(width // 4, width, generator=random)
    return mixed + 0.3 * torch.randn(rows, width, generator=random)


def matrix(n_out=24, width=96):
    return torch.randn(n_out, width, generator=torch.Generator().manual_seed(7))


def written_out(weight, hessian, bits, share):
    """Algorithm 1 of the paper one column at a time, with the inverse of what is left after each (its equations 2 and 3)."""
    scale = least_error(weight, bits, share).scale
    scale = scale.squeeze(-1).repeat_interleave(weight.size(1) // scale.size(1), dim=1).double()
    hessian = hessian.double() + DAMPING * hessian.diagonal().mean().double() * torch.eye(len(hessian))
    left, q = weight.double().clone(), torch.zeros_like(weight)
    open_ = hessian.diagonal().argsort(descending=True, stable=True).tolist()
    low, high = (-127, 127) if bits == 8 else (-8, 7)
    while open_:
        inverse = torch.linalg.inv(hessian[open_][:, open_])
        k = open_[0]
        q[:, k] = (left[:, k] / scale[:, k]).round().clamp(low, high)
        error = (left[:, k] - q[:, k] * scale[:, k]) / inverse[0, 0]
        left[:, open_] -= error[:, None] * inverse[0]
        open_ = open_[1:]
    return q


@pytest.mark.parametrize(("bits", "share"), [(4, 32), (8, "row"), (4, "row")])
def test_it_is_the_papers_algorithm(bits, share):
    hessian = inputs().T @ inputs()
    ours = round_columns(matrix(), hessian, bits, share)
    theirs = written_out(matrix(), hessian, bits, share)
    assert matrix().size(1) > TOGETHER  # errors cross from one part to the next
    assert (ours.q == theirs).float().mean() > 0.99  # a number that lies between two may fall to either side
    assert torch.equal(ours.scale, least_error(matrix(), bits, share).scale) and ours.q.dtype == torch.int8


@pytest.mark.parametrize(("bits", "share"), [(4, 32), (4, 96), (8, "row"), (3, 16), (4, "tensor")])
def test_its_error_on_the_layers_inputs_is_below_that_of_rounding(bits, share):
    x, weight = inputs(), matrix()
    found = round_columns(weight, x.T @ x, bits, share)

    def error(rounded):
        return (x @ (rounded.dequantize() - weight).T).square().sum()

    assert error(found) < 0.7 * min(error(absmax(weight, bits, share)), error(least_error(weight, bits, share)))
    assert (found.dequantize() - weight).square().sum() > (
        least_error(weight, bits, share).dequantize() - weight
    ).square().sum()


def test_inputs_that_know_nothing_of_each_other_leave_rounding_to_the_nearest():
    found = round_columns(matrix(), torch.eye(96), 4, 32)
    assert torch.equal(found.q, least_error(matrix(), 4, 32).q)


def test_an_input_that_was_never_there_is_rounded_to_the_nearest():
    x = inputs()
    x[:, [3, 40]] = 0
    for hessian in (x.T @ x, torch.zeros(96, 96)):
        found = round_columns(matrix(), hessian, 4, 32)
        assert torch.equal(found.q[:, [3, 40]], least_error(matrix(), 4, 32).q[:, [3, 40]])


def test_fewer_inputs_than_columns_are_enough():
    x = inputs(rows=5)
    found = round_columns(matrix(), x.T @ x, 4, 32).dequantize()
    assert (x @ (found - matrix()).T).norm() < 0.5 * (x @ (absmax(matrix(), 4, 32).dequantize() - matrix()).T).norm()


def test_an_error_of_the_inputs_is_told():
    with pytest.raises(ValueError, match=r"the hessian has shape \(95, 95\); expected \(96, 96\)"):
        round_columns(matrix(), torch.eye(95))
    with pytest.raises(ValueError, match="not finite: the model overflows on the text to calibrate on"):
        round_columns(matrix(), torch.full((96, 96), math.inf))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_is_nearer_to_its_floats_than_by_rounding_and_left_as_it_was(name):
    model = small(name=name).train()
    before = copy.deepcopy(model.state_dict())
    found = gptq(model, [IDX, IDX[:1, :9]], bits=4)
    assert model.training and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    parts = {n.removesuffix(".weight") for n, t in before.items() if n.startswith("blocks.") and t.dim() == 2}
    assert found.keys() == parts
    assert all(r.q.shape == before[f"{n}.weight"].shape for n, r in found.items())
    model.eval()
    body = model.hidden(IDX)

    def apart(rounded):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for part, matrix in rounded.items():
                other.get_submodule(part).weight.copy_(matrix.dequantize())
        return (other.hidden(IDX) - body).square().mean()

    assert apart(found) < 0.8 * apart({n: absmax(before[f"{n}.weight"], 4, 32) for n in found})


def test_each_matrix_is_rounded_for_what_the_rounded_ones_before_it_give(monkeypatch):
    """The last matrix of the last block sees the inputs that it has in the quantized model, but for the table and bf16."""
    module = sys.modules[gptq.__module__]
    seen, plain = [], module.round_columns
    monkeypatch.setattr(module, "round_columns", lambda w, h, *o: seen.append(h) or plain(w, h, *o))
    model = small(name="gpt2")
    found, given = gptq(model, [IDX], bits=4), []
    with torch.no_grad():
        for part, matrix in found.items():
            model.get_submodule(part).weight.copy_(matrix.dequantize())
        model.blocks[1].mlp.proj.register_forward_pre_hook(lambda _, args: given.append(args[0].flatten(0, 1)))
        model(IDX)
    torch.testing.assert_close(seen[-1], given[0].T @ given[0], rtol=1e-3, atol=1e-3)


def test_quantize_takes_it_for_the_blocks_and_the_best_clip_for_the_rest():
    model = small()
    for calibration in (IDX, [IDX]):
        plain = dequantize(quantize(model, 4, method="gptq", calibration=calibration)).state_dict()
        assert torch.equal(
            plain["token_embedding.weight"], least_error(model.token_embedding.weight.detach(), 4, 32).dequantize()
        )
        found = gptq(model, [IDX], 4, 32)
        assert all(torch.equal(plain[f"{part}.weight"], matrix.dequantize()) for part, matrix in found.items())


@pytest.mark.parametrize(
    "calibration", [None, [], torch.empty(0, 16, dtype=torch.long), [torch.empty(1, 0, dtype=torch.long)]]
)
def test_it_asks_for_text(calibration):
    with pytest.raises(
        ValueError, match=r"method='gptq' needs text to calibrate on: calibration=idx, token ids \(B, T\)"
    ):
        quantize(small(), 4, method="gptq", calibration=calibration)


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (IDX + 300, "lies outside the vocabulary 0 to 299"),
        (IDX.repeat(1, 2), "32 tokens do not fit context_length=16"),
        (IDX[0], r"idx has shape \(16,\); expected \(B, T\)"),
        (IDX.float(), "a token id is a whole number"),
        ([IDX, IDX - 300], "lies outside the vocabulary"),
    ],
)
def test_ids_that_the_model_cannot_take_are_told_and_the_model_stays(calibration, words):
    model = make_model(CONFIGS["llama"]).train()
    with pytest.raises(ValueError, match=words):
        quantize(model, 4, method="gptq", calibration=calibration)
    assert model.training
