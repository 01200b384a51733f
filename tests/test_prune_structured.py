import re

import pytest
import torch
from conftest import FAMILIES, make_model

from minigpt import GPTConfig, Trainer, generate
from minigpt.interop import architecture, to_transformers
from minigpt.prune import prune_structured
from minigpt.prune.structured import by_loss, by_norm

SIZES = {"vocab_size": 31, "n_layer": 2, "n_head": 4, "n_embd": 16, "n_hidden": 96, "context_length": 8}
SHAPES = {
    "gpt2": GPTConfig.gpt2(**SIZES),
    "llama": GPTConfig.llama(**SIZES),
    "llama-grouped": GPTConfig.llama(**SIZES, n_kv_head=2),
    "qwen3": GPTConfig.llama(**SIZES, n_kv_head=2, head_dim=12, qk_norm=True, tie_embedding=False),
    "own": GPTConfig(**SIZES, n_kv_head=2, mlp="relu2", norm="rmsnorm", position="rotary"),
}
IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(2))
BATCHES = [(IDX, IDX.roll(-1, 1)), (IDX.flip(1), IDX)]


def silence(model, groups=(1,), channels=range(20, 52)):
    """Zero what leads into and out of these parts in the first layer, and others in the second."""
    config = model.config
    wide = config.head_dim * config.n_head // config.n_kv_head
    with torch.no_grad():
        for layer, block in enumerate(model.blocks):
            for group in groups:
                group = (group + layer) % config.n_kv_head
                block.attention.proj.weight[:, group * wide : (group + 1) * wide] = 0
            for channel in channels:
                channel = (channel + 7 * layer) % config.n_hidden
                block.mlp.proj.weight[:, channel] = block.mlp.up.weight[channel] = 0
                if config.mlp == "swiglu":
                    block.mlp.gate.weight[channel] = 0
    return model


@pytest.mark.parametrize("batches", [None, BATCHES])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_parts_that_do_nothing_the_logits_are_the_same(shape, batches):
    model = silence(make_model(SHAPES[shape]))
    smaller = prune_structured(model, heads=1 / SHAPES[shape].n_kv_head, mlp=1 / 3, batches=batches)
    torch.testing.assert_close(smaller(IDX)[0], model(IDX)[0], atol=1e-4, rtol=1e-4)
    before, after = model.config, smaller.config
    assert (after.n_hidden, after.head_dim, after.n_embd) == (64, before.head_dim, before.n_embd)
    assert (
        after.n_kv_head == before.n_kv_head - 1 and after.n_head * before.n_kv_head == after.n_kv_head * before.n_head
    )
    assert smaller.num_parameters() < model.num_parameters()
    assert architecture(after) == (None if shape in ("gpt2", "own") else architecture(before))


@pytest.mark.parametrize("batches", [None, BATCHES])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_masking_the_parts_with_the_lowest_scores(shape, batches):
    model, masked = make_model(SHAPES[shape]), make_model(SHAPES[shape])
    smaller = prune_structured(model, heads=0.5, mlp=0.67, batches=batches)
    G = model.config.n_kv_head
    wide = model.config.head_dim * model.config.n_head // G
    scores = by_norm(model) if batches is None else by_loss(model, batches)
    with torch.no_grad():
        for block, (groups, channels) in zip(masked.blocks, scores):
            for group in groups.argsort()[: G // 2]:
                block.attention.proj.weight[:, group * wide : (group + 1) * wide] = 0
            block.mlp.proj.weight[:, channels.argsort()[:64]] = 0
    torch.testing.assert_close(smaller(IDX)[0], masked(IDX)[0], atol=1e-4, rtol=1e-4)
    assert (model(IDX)[0] - masked(IDX)[0]).abs().max() > 0.1


def test_norms_are_those_of_the_weights_that_a_part_has():
    model = make_model(SHAPES["llama-grouped"]).requires_grad_(False)
    block = model.blocks[1]
    groups, channels = by_norm(model)[1]
    assert float(groups[1]) == pytest.approx(float(block.attention.proj.weight[:, 8:].norm()), rel=1e-5)
    parts = [block.mlp.up.weight[5], block.mlp.gate.weight[5], block.mlp.proj.weight[:, 5]]
    assert float(channels[5]) == pytest.approx(float(torch.cat(parts).norm()), rel=1e-5)


def test_the_score_from_batches_is_the_derivative_by_a_factor_on_the_part():
    model = make_model(SHAPES["llama-grouped"]).double()
    model.requires_grad_(False)
    groups, channels = by_loss(model, BATCHES[:1])[0]
    weights = {"attention": model.blocks[0].attention.proj.weight, "mlp": model.blocks[0].mlp.proj.weight}
    for part, columns, score in (("attention", slice(8, 16), groups[1]), ("mlp", slice(7, 8), channels[7])):
        losses, small = [], 0.01
        for factor in (1 + small, 1 - small):
            before = weights[part][:, columns].clone()
            weights[part][:, columns] *= factor
            losses.append(float(model(*BATCHES[0])[1]))
            weights[part][:, columns] = before
        assert float(score) == pytest.approx(abs(losses[0] - losses[1]) / (2 * small), rel=1e-2)
    both = by_loss(model, BATCHES)[0][0]
    torch.testing.assert_close(both, groups + by_loss(model, BATCHES[1:])[0][0])
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_the_original_stays_as_it_is_and_the_smaller_one_is_a_model_like_others(small_data, quick, tmp_path):
    tokenizer, train, val = small_data
    model = make_model(SHAPES["llama-grouped"].replace(vocab_size=tokenizer.vocab_size)).train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    smaller = prune_structured(model, heads=0.5, mlp=0.5, batches=train.windows(4, 2))
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items()) and model.training
    idx = torch.tensor([tokenizer.encode("the cat")])
    torch.testing.assert_close(to_transformers(smaller)(idx).logits, smaller(idx)[0], atol=1e-4, rtol=1e-4)
    assert generate(smaller, idx, max_new_tokens=3).shape == (1, 10)
    smaller.save_pretrained(tmp_path)
    assert torch.equal(type(smaller).from_pretrained(tmp_path)(idx)[0], smaller(idx)[0])
    history = Trainer(smaller, train, val, quick.replace(max_steps=60), callbacks=[]).fit()
    assert history.last("val_loss") < history["val_loss"][1][0]


@pytest.mark.parametrize(("mlp", "n_hidden"), [(0.0, 96), (0.3, 64), (0.1, 96), (0.95, 32)])
def test_channels_stay_in_blocks_of_32(mlp, n_hidden):
    smaller = prune_structured(make_model(SHAPES["gpt2"]), heads=0, mlp=mlp)
    assert smaller.config == SHAPES["gpt2"].replace(n_hidden=n_hidden)
    odd = make_model(SHAPES["gpt2"].replace(n_hidden=20))
    assert prune_structured(odd, 0, 0.5).config.n_hidden == 20  # there is no smaller block


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 1.0}, "heads=1.0 is no share"),
        ({"mlp": -1}, "mlp=-1 is no share"),
        ({"heads": 0.9}, "heads=0.9 leaves none of the 2 groups of heads in each layer; use at most 0.5"),
        ({"batches": []}, "the batches hold nothing"),
    ],
)
def test_what_leaves_nothing_is_refused(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        prune_structured(make_model(FAMILIES["llama"]), **options)
