import re

import pytest

from minigpt import GPTConfig, SampleConfig, TrainConfig


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_embd": 384, "n_head": 7}, "use n_embd=385 or n_head=6"),
        ({"n_head": 4, "n_kv_head": 3}, "use one of [1, 2, 4]"),
        ({"n_embd": 6, "n_head": 2, "position": "rotary"}, "head_dim=3 is odd"),
        ({"head_dim": 0}, "head_dim=0 does not fit GPTConfig: use a whole number above 0, or None"),
        ({"head_dim": 7, "position": "rotary"}, "use head_dim=8 or position='learned'"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"norm": "rmsnrom"}, "Did you mean 'rmsnorm'?"),
    ],
)
def test_an_impossible_shape_is_refused_with_what_to_do(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        GPTConfig(**fields)


def test_an_unknown_field_or_preset_suggests_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'n_head'"):
        GPTConfig.llama(n_heads=4)
    with pytest.raises(ValueError, match="Did you mean 'gpt2-124m'"):
        GPTConfig.preset("gpt2-124")
    with pytest.raises(ValueError, match="Did you mean 'learning_rate'"):
        TrainConfig.make(learning_rat=1)


@pytest.mark.parametrize(
    "config", [GPTConfig.llama(n_kv_head=2), TrainConfig(betas=(0.8, 0.9)), SampleConfig(stop_tokens=[1])]
)
def test_json_there_and_back_is_the_same(config):
    assert type(config).from_json(config.to_json()) == config


def test_every_field_says_what_it_is():
    for kind in (GPTConfig, TrainConfig, SampleConfig):
        assert all(len(sentence) > 20 for sentence in kind.describe().values())


def test_replace_checks_again():
    with pytest.raises(ValueError, match="n_embd"):
        GPTConfig(n_embd=128, n_head=4).replace(n_head=5)


def test_heads_share_the_width_out_unless_they_are_told_their_own():
    shared, own = GPTConfig(n_embd=128, n_head=4), GPTConfig(n_embd=128, n_head=4, head_dim=20)
    assert shared.head_dim == 32 and shared == GPTConfig(n_embd=128, n_head=4, head_dim=32)
    assert shared.replace(n_embd=64).head_dim == 16 and shared.replace(n_head=2, n_kv_head=2).head_dim == 64
    assert own.replace(n_embd=64).head_dim == 20 and own.replace(head_dim=None) == shared
    assert GPTConfig(n_embd=130, n_head=4, head_dim=20).n_embd == 130  # no multiple of n_head


def test_a_shape_that_was_written_before_heads_had_a_width_of_their_own_is_the_same():
    shape = GPTConfig.llama(n_kv_head=2)
    old = {name: value for name, value in shape.to_dict().items() if name != "head_dim"}
    assert GPTConfig.make(**old) == shape == GPTConfig.make(**shape.to_dict())


def test_a_preset_has_its_published_size():
    import torch

    from minigpt import GPT

    for name, millions in {"gpt2-124m": 124.4, "smollm2-135m": 134.5}.items():
        with torch.device("meta"):
            count = GPT(GPTConfig.preset(name)).num_parameters()
        assert count / 1e6 == pytest.approx(millions, abs=0.1)
