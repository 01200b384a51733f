"""SparseGPT: beside the algorithm written out, on the inputs that it was made for, and on a whole model."""

import copy
import re

import pytest
import torch
from conftest import assert_is_told, make_model
from test_quantize_gptq import inputs, matrix
from test_quantize_model import CONFIGS, IDX, small

from minigpt import CharTokenizer, load_checkpoint, save_checkpoint
from minigpt.calibration import DAMPING, TOGETHER
from minigpt.prune import prune, prune_blocks, prune_columns, sparsity_of
from minigpt.prune.magnitude import choose_zeros, matrices


def smallest(weight, sparsity, pattern):
    return weight.masked_fill(choose_zeros({"w": weight}, sparsity, pattern)["w"], 0.0)


def written_out(weight, hessian, sparsity, together, of_each):
    """Zeros chosen in parts of columns, `sparsity` of a part or `of_each` in each row of it; then one column after the other
    is settled by the optimal brain surgeon's rule, with the inverse of what is left of the hessian."""
    n_out, n_in = weight.shape
    hessian = hessian.double() + DAMPING * hessian.diagonal().mean().double() * torch.eye(n_in)
    inverses = [torch.linalg.inv(hessian[k:, k:]) for k in range(n_in)]
    left, zeros = weight.double().clone(), torch.zeros_like(weight, dtype=torch.bool)
    for k, inverse in enumerate(inverses):
        if k % together == 0:
            columns = range(k, min(k + together, n_in))
            cost = torch.stack([left[:, c] ** 2 / inverses[c][0, 0] for c in columns], dim=1)
            if of_each:
                chosen = cost.argsort(dim=1)[:, :of_each]
                zeros[:, columns.start : columns.stop].scatter_(1, chosen, True)
            else:
                count = round(sparsity * n_out * columns.stop) - round(sparsity * n_out * columns.start)
                for place in cost.flatten().argsort()[:count].tolist():
                    zeros[place // len(columns), columns.start + place % len(columns)] = True
        error = left[:, k].masked_fill(~zeros[:, k], 0.0) / inverse[0, 0]
        left[:, k:] -= error[:, None] * inverse[0]
    return left.masked_fill(zeros, 0.0)


@pytest.mark.parametrize(
    ("width", "sparsity", "pattern", "together", "of_each"),
    [(12, 0.5, "per_layer", TOGETHER, 0), (96, 0.3, "per_layer", TOGETHER, 0), (96, 0.5, "2:4", 4, 2)],
)
def test_it_is_the_papers_algorithm(width, sparsity, pattern, together, of_each):
    x, weight = inputs(width=width), matrix(width=width)
    ours = prune_columns(weight, x.T @ x, sparsity, pattern)
    theirs = written_out(weight, x.T @ x, sparsity, together, of_each)
    assert torch.equal(ours == 0, theirs == 0)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-3, atol=1e-3)


def test_one_zero_is_the_optimal_brain_surgeons():
    """Where a single weight goes, the rest of its row is the least-squares answer, and no other weight would cost less."""
    x, weight = inputs(width=8), matrix(n_out=1, width=8)
    hessian = x.T @ x
    damped = (hessian + DAMPING * hessian.diagonal().mean() * torch.eye(8)).double()
    pruned = prune_columns(weight, hessian, 1 / 8)[0].double()
    [gone] = (pruned == 0).nonzero()[0].tolist()
    kept = [k for k in range(8) if k > gone]  # columns before it are settled when its turn comes
    expected = weight[0].double().clone()
    expected[gone] = 0
    expected[kept] += torch.linalg.solve(damped[kept][:, kept], damped[kept, gone]) * weight[0, gone].double()
    torch.testing.assert_close(pruned, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9])
def test_the_share_of_zeros_is_exact(sparsity):
    x = inputs(width=100)
    pruned = prune_columns(matrix(n_out=23, width=100), x.T @ x, sparsity)
    assert int((pruned == 0).sum()) == round(sparsity * 2300)
    assert torch.equal(pruned, matrix(n_out=23, width=100)) == (sparsity == 0)


def test_two_of_each_four_neighbours_stay():
    x = inputs()
    pruned = prune_columns(matrix(), x.T @ x, pattern="2:4")
    assert ((pruned.unflatten(1, (-1, 4)) != 0).sum(-1) == 2).all()


@pytest.mark.parametrize(
    ("sparsity", "pattern"), [(0.3, "per_layer"), (0.5, "per_layer"), (0.8, "per_layer"), (0.5, "2:4")]
)
def test_its_error_on_the_layers_inputs_is_below_that_of_the_smallest_weights(sparsity, pattern):
    x, weight = inputs(), matrix()

    def error(pruned):
        return (x @ (pruned - weight).T).square().sum()

    found, plain = prune_columns(weight, x.T @ x, sparsity, pattern), smallest(weight, sparsity, pattern)
    assert error(found) < 0.7 * error(plain)
    assert error(weight.where(found != 0, 0.0)) > error(found), "what is left makes up for what is gone"


def test_inputs_that_know_nothing_of_each_other_leave_the_smallest_weights():
    found = prune_columns(matrix(width=TOGETHER), torch.eye(TOGETHER), 0.5)
    assert torch.equal(found, smallest(matrix(width=TOGETHER), 0.5, "per_layer"))
    assert torch.equal(prune_columns(matrix(), torch.eye(96), pattern="2:4"), smallest(matrix(), 0.5, "2:4"))


def test_what_reads_an_input_that_was_never_there_goes_first_and_moves_nothing():
    x, weight = inputs(width=32), matrix(width=32)
    x[:, [3, 20]] = 0
    found = prune_columns(weight, x.T @ x, 2 / 32)
    expected = weight.clone()
    expected[:, [3, 20]] = 0
    assert torch.equal(found, expected)
    nothing = prune_columns(weight, torch.zeros(32, 32), 0.5)
    assert torch.equal(nothing, smallest(weight, 0.5, "per_layer"))


@pytest.mark.parametrize("pattern", ["per_layer", "2:4"])
def test_fewer_inputs_than_columns_are_enough(pattern):
    x = inputs(rows=5)
    found, plain = prune_columns(matrix(), x.T @ x, 0.5, pattern), smallest(matrix(), 0.5, pattern)
    assert (x @ (found - matrix()).T).norm() < 0.5 * (x @ (plain - matrix()).T).norm()


@pytest.mark.parametrize("before", ["per_layer", "2:4"])
def test_zeros_stay_zeros_and_count(before):
    x, once = inputs(), smallest(matrix(), 0.5, before)
    zeros = int((once == 0).sum())
    for sparsity, expected in ((0.2, zeros), (0.5, zeros), (0.7, round(0.7 * once.numel()))):
        again = prune_columns(once, x.T @ x, sparsity)
        assert (again[once == 0] == 0).all() and int((again == 0).sum()) == expected
        assert torch.equal(again, once) == (expected == zeros)
    fours = prune_columns(once, x.T @ x, pattern="2:4")
    assert (fours[once == 0] == 0).all() and ((fours.unflatten(1, (-1, 4)) != 0).sum(-1) <= 2).all()
    assert torch.equal(fours, once) == (before == "2:4")


def test_inputs_that_overflow_are_told():
    with pytest.raises(ValueError, match="not finite: the model overflows on the text to calibrate on"):
        prune_columns(matrix(), torch.full((96, 96), torch.inf))


# A whole model


@pytest.mark.parametrize("pattern", ["per_layer", "2:4"])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_is_nearer_to_the_whole_one_than_without_text_and_left_as_it_was(name, pattern):
    model = small(name=name).train()
    before = copy.deepcopy(model.state_dict())
    pruned = prune(model, 0.5, pattern, [IDX, IDX[:1, :9]])
    assert model.training and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    assert set(sparsity_of(pruned).values()) == {0.5}
    touched = {n for n, p in pruned.named_parameters() if not torch.equal(p, model.get_parameter(n))}
    assert touched == matrices(model).keys()
    assert (pruned.head.weight is pruned.token_embedding.weight) == model.config.tie_embedding
    assert all(p.requires_grad for p in pruned.parameters())
    model.eval()

    def apart(other):
        return (other.eval().hidden(IDX) - model.hidden(IDX)).square().mean()

    assert apart(pruned) < 0.9 * apart(prune(model, 0.5, pattern))


def test_each_matrix_is_pruned_for_what_the_pruned_ones_before_it_give():
    model, given = small(name="gpt2").eval(), []
    pruned = prune(model, 0.5, "per_layer", IDX)
    pruned.blocks[1].mlp.proj.register_forward_pre_hook(lambda _, args: given.append(args[0].detach().flatten(0, 1)))
    pruned(IDX)
    expected = prune_columns(model.blocks[1].mlp.proj.weight.detach(), given[0].T @ given[0])
    torch.testing.assert_close(pruned.blocks[1].mlp.proj.weight.detach(), expected, rtol=1e-3, atol=1e-3)


def test_a_model_in_bf16_stays_so():
    model = small().bfloat16()
    pruned = prune(model, 0.5, "per_layer", IDX)
    assert {p.dtype for p in pruned.parameters()} == {torch.bfloat16} and sparsity_of(pruned)["total"] >= 0.5
    assert all(matrix.dtype == torch.float32 for matrix in prune_blocks(model, [IDX]).values())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": "global"}, "pattern='global' compares matrices that read different inputs"),
        ({"calibration": []}, "calibration=idx, token ids (B, T), such as 16 windows"),
        ({"calibration": torch.empty(0, 16, dtype=torch.long)}, "or leave calibration out for the smallest weights"),
        ({"calibration": IDX + 300}, "lies outside the vocabulary 0 to 299"),
        ({"calibration": IDX.repeat(1, 2)}, "32 tokens do not fit context_length=16"),
        ({"calibration": IDX[0]}, "idx has shape (16,); expected (B, T)"),
        ({"calibration": IDX.float()}, "a token id is a whole number"),
        ({"sparsity": 1.0}, "sparsity=1.0 is no share"),
        ({"pattern": "2:4", "sparsity": 0.7}, "half of the weights to zero, and sparsity=0.7"),
    ],
)
def test_what_it_cannot_do_is_refused_and_the_model_stays(options, words):
    model = make_model(CONFIGS["llama"]).train()
    with pytest.raises(ValueError, match=re.escape(words)):
        prune(model, **{"pattern": "per_layer", "calibration": IDX} | options)
    assert model.training


def test_a_width_that_does_not_come_in_fours_is_named():
    odd = make_model(CONFIGS["gpt2"].replace(n_hidden=30))
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.proj\.weight reads 30 numbers, which do not come in fours"):
        prune(odd, pattern="2:4", calibration=IDX)


# The command


@pytest.fixture
def stored(tmp_path):
    text = "the cat sat on the mat and the dog lay by the door. " * 8
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    tokenizer = CharTokenizer.train([text])
    save_checkpoint(tmp_path / "big", make_model(CONFIGS["llama"].replace(vocab_size=tokenizer.vocab_size)), tokenizer)
    return tmp_path / "big"


def test_the_command_calibrates_on_a_text_of_ones_own(run, stored, tmp_path):
    text = ("--calibrate", stored.parent / "text.txt")
    for out, pattern in (("a", "per_layer"), ("b", "2:4")):
        status, told, _ = run("prune", stored, tmp_path / out, "--pattern", pattern, *text)
        assert status == 0 and f"50.0% of the weights in the blocks are zero ({pattern})" in told
        model, plain = load_checkpoint(tmp_path / out)[0], prune(load_checkpoint(stored)[0], 0.5, pattern)
        weights, theirs = model.blocks[0].mlp.up.weight, plain.blocks[0].mlp.up.weight
        assert sparsity_of(model)["total"] == 0.5 and not torch.equal(weights, theirs)


def test_the_command_refuses_what_a_text_does_not_go_with(run, stored, tmp_path):
    out, text = tmp_path / "x", ("--calibrate", tmp_path / "nowhere.txt")
    assert_is_told(run("prune", stored, out, *text), "pattern='global' compares", "use pattern='per_layer' or '2:4'")
    assert_is_told(run("prune", stored, out, "--heads", 0.5, *text), "--calibrate set weights to zero, --heads take")
    assert_is_told(run("prune", stored, out, "--pattern", "per_layer", *text), "nowhere.txt")
    assert not out.exists()
