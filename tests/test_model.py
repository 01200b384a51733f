import math
import re

import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES, TINY, make_model

from minigpt import GPT, GPTConfig
from minigpt.fused import rotate
from minigpt.model import make_norm, rotary_table

IDX = torch.randint(0, 31, (3, 8), generator=torch.Generator().manual_seed(1))


def test_label_smoothing_is_pytorchs_in_training_and_absent_in_evaluation(config):
    model = make_model(config.replace(label_smoothing=0.2))
    logits, loss = model.train()(IDX, IDX)
    expected = F.cross_entropy(logits.flatten(0, 1), IDX.flatten(), label_smoothing=0.2)
    torch.testing.assert_close(loss, expected)
    _, plain = model.eval()(IDX, IDX)
    torch.testing.assert_close(plain, F.cross_entropy(logits.flatten(0, 1), IDX.flatten()))
    assert not torch.isclose(plain, loss)


def test_logits_and_loss_have_the_documented_shapes(model):
    logits, loss = model(IDX, IDX)
    assert logits.shape == (3, 8, 31) and loss.shape == ()
    assert model(IDX)[1] is None


def test_a_later_token_never_moves_an_earlier_logit(model):
    changed = IDX.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 31
    before, after = model(IDX)[0], model(changed)[0]
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_attention_equals_pytorchs_multi_head_attention():
    model = make_model(FAMILIES["gpt2"])
    ours = model.blocks[0].attention
    theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.weight.copy_(ours.proj.weight)
        theirs.out_proj.bias.copy_(ours.proj.bias)
    x = torch.randn(2, 8, 16)
    ahead = torch.ones(8, 8, dtype=torch.bool).triu(1)
    expected, weights = theirs(x, x, x, attn_mask=ahead, average_attn_weights=False)
    maps = []
    torch.testing.assert_close(ours(x), expected)
    torch.testing.assert_close(ours(x, maps=maps), expected)
    torch.testing.assert_close(maps[0], weights)


def test_the_path_for_pictures_computes_the_same_and_its_rows_sum_to_one(model):
    maps = []
    torch.testing.assert_close(model(IDX, maps=maps)[0], model(IDX)[0], atol=1e-4, rtol=1e-4)
    assert [m.shape for m in model.attention_maps(IDX)] == [(3, 2, 8, 8)] * 2
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 8))


def test_ignored_targets_are_left_out_of_the_mean(model):
    targets = IDX.clone()
    targets[:, 3:] = -100
    logits, loss = model(IDX, targets)
    expected = F.cross_entropy(logits[:, :3].flatten(0, 1), IDX[:, :3].flatten())
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_untrained_model_is_as_unsure_as_can_be(family):
    torch.manual_seed(0)
    config = FAMILIES[family].replace(vocab_size=1000, n_embd=64, context_length=64)
    idx = torch.randint(0, 1000, (8, 64))
    targets = torch.randint(0, 1000, (8, 64))
    assert GPT(config)(idx, targets)[1].item() == pytest.approx(math.log(1000), abs=0.1)


def test_residual_projections_start_smaller_by_the_root_of_twice_the_depth():
    torch.manual_seed(0)
    model = GPT(GPTConfig.gpt2(n_layer=8, n_embd=128, n_head=4))
    for block in model.blocks:
        for name, weight in (("attention", block.attention.proj.weight), ("mlp", block.mlp.proj.weight)):
            assert weight.std().item() == pytest.approx(0.02 / 4, rel=0.05), name
        assert block.attention.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_dropout_acts_in_training_only():
    model = make_model(FAMILIES["llama"].replace(dropout=0.5))
    assert torch.equal(model(IDX)[0], model(IDX)[0])
    model.train()
    assert not torch.equal(model(IDX)[0], model(IDX)[0])


def test_a_tied_embedding_is_one_table_and_counts_once():
    tied, free = (GPT(FAMILIES["llama"].replace(tie_embedding=t)) for t in (True, False))
    assert tied.head.weight is tied.token_embedding.weight
    assert free.num_parameters() - tied.num_parameters() == 31 * 16


def test_rotary_scores_depend_on_the_distance_alone():
    config = GPTConfig.llama(n_embd=16, n_head=2, context_length=32)
    cos, sin = rotary_table(config)
    q, k = torch.randn(2, 1, 1, 1, 8)

    def score(i, j):
        return float((rotate(q, cos[i : i + 1], sin[i : i + 1]) * rotate(k, cos[j : j + 1], sin[j : j + 1])).sum())

    assert score(5, 2) == pytest.approx(score(25, 22), abs=1e-5)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


def test_rmsnorm_divides_by_the_root_of_the_mean_square():
    norm = make_norm(FAMILIES["llama"], 16)
    x = torch.randn(4, 16)
    torch.testing.assert_close(norm(x), x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt())


@pytest.mark.parametrize(
    ("idx", "words"),
    [
        (torch.zeros(1, 9, dtype=torch.long), "9 tokens do not fit context_length=8"),
        (torch.tensor([[31]]), "token id 31 lies outside the vocabulary 0 to 30"),
        (torch.tensor([[-1]]), "token id -1 lies outside"),
        (torch.tensor([[1.0]]), "a token id is a whole number"),
        (torch.zeros(8, dtype=torch.long), "expected (B, T)"),
    ],
)
def test_impossible_input_is_refused_with_what_to_do(idx, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make_model(FAMILIES["gpt2"])(idx)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.tensor([[1, -100, 31]]), "target 31 lies outside the vocabulary 0 to 30"),
        (torch.tensor([[1, -100, -1]]), "target -1 lies outside"),
        (torch.tensor([[0.5, 1.0, 2.0]]), "a target is a whole number, and these are torch.float32; use .long()"),
        (torch.tensor([[1, 2]]), "targets have shape (1, 2), idx (1, 3)"),
    ],
)
def test_impossible_targets_are_refused_and_ignored_ones_are_not(targets, words):
    model = make_model(FAMILIES["gpt2"])
    with pytest.raises(ValueError, match=re.escape(words)):
        model(torch.tensor([[1, 2, 3]]), targets)
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]]), torch.tensor([[1, -100, 30]]))[1])


def test_both_families_learn_one_batch_by_heart():
    for family in ("gpt2", "llama"):
        torch.manual_seed(0)
        model = GPT(GPTConfig.make(**(FAMILIES[family].to_dict() | TINY)))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(150):
            loss = model(IDX[:, :-1], IDX[:, 1:])[1]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss.item() < 0.1, family
