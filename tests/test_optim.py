"""What moves the weights: Muon against PyTorch's own and against the singular values, groups, schedules."""

import math

import pytest
import torch
from conftest import FAMILIES
from torch import nn

from minigpt import GPT, TrainConfig
from minigpt.optim import Muon, learning_rate_at, make_optimizers, orthogonalise, parameter_groups

SHAPES = [(16, 16), (16, 16), (64, 16), (16, 64), (64, 16)]


def matrices(seed=0):
    torch.manual_seed(seed)
    return [nn.Parameter(torch.randn(shape)) for shape in SHAPES]


def test_muon_takes_the_steps_of_pytorchs_within_rounding():
    ours, theirs = matrices(), matrices()
    one = Muon(ours, lr=0.01, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for step in range(5):
        torch.manual_seed(step + 10)
        for mine, its in zip(ours, theirs):
            mine.grad = torch.randn_like(mine)
            its.grad = mine.grad.clone()
        before = [parameter.detach().clone() for parameter in theirs]
        one.step(), other.step()
        for mine, its, was in zip(ours, theirs, before):
            moved = (its - was).norm()
            assert (mine - its).norm() < 0.03 * (step + 1) * moved  # bf16 keeps three digits, five products deep


def test_orthogonalise_brings_singular_values_near_one_and_keeps_the_directions():
    torch.manual_seed(1)
    for rows, columns in ((12, 12), (12, 40), (40, 12)):
        stack = torch.randn(3, rows, columns)
        left, values, right = torch.linalg.svd(orthogonalise(stack), full_matrices=False)
        assert values.max() < 1.3 and values.mean() == pytest.approx(0.95, abs=0.15)
        u, _, v = torch.linalg.svd(stack, full_matrices=False)
        assert torch.einsum("nij,nij->n", orthogonalise(stack), u @ v).div(min(rows, columns)).min() > 0.8
    assert orthogonalise(stack.bfloat16()).dtype == torch.bfloat16


def test_matrices_on_top_of_each_other_are_orthogonalised_apart():
    torch.manual_seed(2)
    start = torch.randn(48, 16)
    together, apart = nn.Parameter(start.clone()), [nn.Parameter(part.clone()) for part in start.split([16, 16, 16])]
    gradient = torch.randn(48, 16)
    together.grad = gradient
    for part, its in zip(apart, gradient.split([16, 16, 16])):
        part.grad = its.clone()
    Muon([{"params": [together], "heights": (16, 16, 16)}], lr=0.1, weight_decay=0.0, dtype=torch.float32).step()
    Muon(apart, lr=0.1, weight_decay=0.0, dtype=torch.float32).step()
    assert torch.allclose(together, torch.cat(list(apart)), atol=1e-5)


def test_muon_refuses_what_is_no_matrix_and_skips_what_has_no_gradient():
    with pytest.raises(ValueError, match=r"here is a parameter of shape \(7,\); give it to AdamW"):
        Muon([nn.Parameter(torch.zeros(7))])
    (still,) = matrices()[:1]
    before = still.detach().clone()
    Muon([still], lr=0.1).step()
    assert torch.equal(still, before)


def test_norms_biases_and_tables_do_not_decay_and_nothing_is_listed_twice():
    for name in ("gpt2", "qwen3"):
        model = GPT(FAMILIES[name])
        decaying, free = parameter_groups(model, 0.1)
        tables = {id(model.token_embedding.weight)}
        if name == "gpt2":
            tables.add(id(model.position_embedding.weight))
        assert all(p.dim() == 2 and id(p) not in tables for p in decaying["params"])
        assert all(p.dim() == 1 or id(p) in tables for p in free["params"])
        assert free["weight_decay"] == 0
        assert sum(p.numel() for g in (decaying, free) for p in g["params"]) == model.num_parameters()


def test_with_muon_the_blocks_matrices_go_to_it_and_all_else_to_adamw():
    model = GPT(FAMILIES["qwen3"])
    muon, adamw = make_optimizers(model, TrainConfig(optimizer="muon", learning_rate=1e-3, matrix_lr=1e-2))
    inside = {id(p) for p in model.blocks.parameters() if p.dim() == 2}
    assert {id(p) for g in muon.param_groups for p in g["params"]} == inside
    assert {id(p) for g in adamw.param_groups for p in g["params"]} == {id(p) for p in model.parameters()} - inside
    assert {g["ratio"] for g in muon.param_groups} == {10.0} and adamw.param_groups[0]["ratio"] == 1.0
    stacked = [g for g in muon.param_groups if g["heights"]]
    assert [tuple(g["heights"]) for g in stacked] == [(16, 8, 8)] and len(stacked[0]["params"]) == 2


def test_the_learning_rate_climbs_then_follows_half_a_cosine():
    config = TrainConfig(max_steps=101, warmup_steps=10, learning_rate=1.0, min_lr=0.1)
    rates = [learning_rate_at(step, config) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.55) and rates[100] == pytest.approx(0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90, eta_min=0.1)
    for rate in rates[10:]:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-6)
        optimizer.step()
        theirs.step()


def test_warm_up_stable_decay_ends_exactly_at_the_lowest_rate():
    config = TrainConfig(schedule="wsd", max_steps=20, warmup_steps=4, decay_share=0.25, learning_rate=1.0, min_lr=0.0)
    rates = [learning_rate_at(step, config) for step in range(20)]
    assert rates == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 12 + [0.8, 0.6, 0.4, 0.2, 0.0])
    flat = [learning_rate_at(step, config.replace(decay_share=0.0)) for step in range(4, 20)]
    assert set(flat) == {1.0}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"optimizer": "moun"}, "Did you mean 'muon'"),
        ({"schedule": "linear"}, "Known: cosine, wsd"),
        ({"decay_share": 1.5}, "a share from 0 to 1"),
        ({"matrix_lr": 0.0}, "a number above 0"),
        ({"max_rise": 0.0}, "None or a number above 0"),
        ({"learning_rate": math.nan}, "a number above 0"),
    ],
)
def test_a_wrong_choice_is_refused_before_any_work(wrong, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**wrong)
