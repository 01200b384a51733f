import re

import pytest
import torch
from conftest import FAMILIES, assert_is_told, make_model
from torch.nn.utils import prune as theirs

from minigpt import CharTokenizer, GPTConfig, load_checkpoint, save_checkpoint
from minigpt.finetune import Classifier, add_lora
from minigpt.prune import prune, prune_structured, sparsity_of
from minigpt.prune.magnitude import matrices

IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(2))
BATCHES = [(IDX, IDX.roll(-1, 1)), (IDX.flip(0, 1), IDX)]


def same_weights(ours, others):
    return all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), others.state_dict().values(), strict=True))


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("pattern", ["global", "per_layer"])
def test_the_same_weights_become_zero_as_with_torch(model, pattern, sparsity):
    pruned, expected = prune(model, sparsity, pattern), make_model(model.config)
    layers = [expected.get_submodule(name.removesuffix(".weight")) for name in matrices(expected)]
    if pattern == "global":
        theirs.global_unstructured([(layer, "weight") for layer in layers], theirs.L1Unstructured, amount=sparsity)
    else:
        for layer in layers:
            theirs.l1_unstructured(layer, "weight", amount=sparsity)
    for layer in layers:
        theirs.remove(layer, "weight")
    assert same_weights(pruned, make_model(model.config)) == (sparsity == 0)
    for name, weight in pruned.state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name]), name


def test_two_of_four_neighbours_that_a_row_reads_stay_and_they_are_the_largest(model):
    for name, weight in matrices(prune(model, pattern="2:4")).items():
        before = matrices(model)[name].unflatten(1, (-1, 4)).abs()
        fours = weight.unflatten(1, (-1, 4)).abs()
        assert ((fours != 0).sum(-1) == 2).all()
        assert torch.equal(fours.sum(-1), before.sort(-1).values[..., 2:].sum(-1)), name


def test_the_original_stays_and_what_is_outside_the_blocks_too(model):
    pruned = prune(model, 0.9)
    assert same_weights(model, make_model(model.config))
    touched = {name for name, p in pruned.named_parameters() if not torch.equal(p, model.get_parameter(name))}
    assert touched == matrices(model).keys() and all(".weight" in name and "norm" not in name for name in touched)
    assert (pruned.head.weight is pruned.token_embedding.weight) == model.config.tie_embedding


def test_zeros_stay_zeros_whatever_is_asked_for_later():
    model = make_model(FAMILIES["llama"])
    once = prune(model, 0.6, "per_layer")
    for again in (prune(once, 0.2), prune(once, 0.6, "per_layer"), prune(once, 0.0)):
        assert same_weights(once, again)
    more = prune(once, 0.8)
    assert all((w[o == 0] == 0).all() for w, o in zip(matrices(more).values(), matrices(once).values()))
    both = prune(prune(model, pattern="2:4"), 0.7)
    assert sparsity_of(both)["total"] == pytest.approx(0.7, abs=1e-3)


def test_the_share_of_zeros_is_told_for_each_matrix_and_in_all():
    model = make_model(FAMILIES["llama"])
    assert set(sparsity_of(model).values()) == {0.0}
    told = sparsity_of(prune(model, 0.5, "per_layer"))
    assert told.keys() == matrices(model).keys() | {"total"} and set(told.values()) == {0.5}
    overall = sparsity_of(prune(model, 0.4))
    assert overall["total"] == pytest.approx(0.4, abs=1e-3) and len(set(overall.values())) > 2
    assert sparsity_of(Classifier(prune(model, 0.5), 3))["total"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "sparsity=1.0 is no share that can be taken away"),
        ({"sparsity": -0.1}, "sparsity=-0.1"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"pattern": "globl"}, "there is no pattern 'globl' here. Did you mean 'global'?"),
        ({"pattern": "2:4", "sparsity": 0.7}, "half of the weights to zero, and sparsity=0.7"),
    ],
)
def test_what_cannot_be_pruned_so_is_refused(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        prune(make_model(FAMILIES["llama"]), **options)


def test_a_matrix_that_does_not_come_in_fours_is_named():
    odd = make_model(GPTConfig.gpt2(vocab_size=31, n_layer=1, n_head=2, n_embd=16, n_hidden=30, context_length=8))
    words = (
        "blocks.0.mlp.proj.weight reads 30 numbers, which do not come in fours; 2:4 needs a multiple of 4, such as 32"
    )
    with pytest.raises(ValueError, match=re.escape(words)):
        prune(odd, pattern="2:4")


@pytest.mark.parametrize("cut", [prune, prune_structured])
@pytest.mark.parametrize(("number", "words"), [(float("nan"), "not finite"), (0.0, "zero throughout")])
def test_weights_whose_size_says_nothing_are_named(cut, number, words):
    model = make_model(FAMILIES["llama"])
    torch.nn.init.constant_(model.blocks[1].mlp.up.weight, number)
    with pytest.raises(ValueError, match=rf"blocks\.1\.mlp\.up\.weight .*{words}"):
        cut(model)


@pytest.mark.parametrize("cut", [prune, prune_structured])
def test_adapters_are_merged_first(cut):
    model = make_model(FAMILIES["llama"])
    add_lora(model, rank=2)
    with pytest.raises(ValueError, match=r"merge_lora\(model\) first"):
        cut(model)
    with pytest.raises(ValueError, match="Linear has no plain matrices"):
        sparsity_of(torch.nn.Linear(4, 4))


# The command


@pytest.fixture
def stored(tmp_path):
    tokenizer = CharTokenizer.train(["the cat sat on the mat"])
    save_checkpoint(
        tmp_path / "big",
        make_model(FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size, n_head=4, n_kv_head=2)),
        tokenizer,
    )
    return tmp_path / "big"


def test_the_command_writes_a_sparse_model_and_says_how_it_recovers(run, stored, tmp_path):
    status, out, err = run("prune", stored, tmp_path / "a", "--sparsity", 0.6, "--pattern", "per_layer")
    assert status == 0 and not err
    assert "60.0% of the weights in the blocks are zero (per_layer)" in out and "KeepZeros" in out
    model, _ = load_checkpoint(tmp_path / "a")
    assert same_weights(model, prune(load_checkpoint(stored)[0], 0.6, "per_layer"))
    run("prune", stored, tmp_path / "b", "--bf16")
    assert sparsity_of(load_checkpoint(tmp_path / "b")[0])["total"] == pytest.approx(0.5)


def test_the_command_writes_a_smaller_model(run, stored, tmp_path):
    status, out, _ = run("prune", stored, tmp_path / "a", "--heads", 0.5, "--mlp", 0.5)
    assert status == 0 and "heads 4 before, 2 after; n_hidden 64 before, 32 after" in out
    assert f"minigpt finetune FOLDER --task code --base {tmp_path / 'a'}" in out
    model, _ = load_checkpoint(tmp_path / "a")
    assert (model.config.n_head, model.config.n_kv_head, model.config.head_dim) == (2, 1, 4)
    assert same_weights(model, prune_structured(load_checkpoint(stored)[0], 0.5, 0.5))


def test_the_command_refuses_what_it_cannot_do(run, stored, tmp_path):
    assert_is_told(run("prune", stored, stored), "already holds a model")
    assert_is_told(
        run("prune", stored, tmp_path / "x", "--sparsity", 0.5, "--mlp", 0.5), "--sparsity set", "--mlp take"
    )
    assert_is_told(run("prune", stored, tmp_path / "x", "--sparsity", 2), "sparsity=2.0 is no share")
    assert_is_told(run("prune", tmp_path / "nowhere", tmp_path / "x"), "holds no config.json")
    assert not (tmp_path / "x").exists()
