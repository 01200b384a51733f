import copy
import sys

import pytest
import torch
from conftest import FAMILIES, TINY, make_model
from torch import nn

from minigpt import GPT, GPTConfig, generate
from minigpt.decoder import MOST_ROWS, Decoder, is_lean, kernels
from minigpt.generate import KVCache
from minigpt.quantize import quantize

IDX = torch.randint(0, 31, (3, 8), generator=torch.Generator().manual_seed(3))
MORE = {
    "relu2": GPTConfig.gpt2(**TINY, mlp="relu2"),
    "capped": GPTConfig.llama(**TINY, logit_cap=5.0),
    "rotary and layernorm": GPTConfig.gpt2(**TINY, position="rotary", qk_norm=True),
    "biases": GPTConfig.llama(**TINY, bias=True),
    "three layers, odd head": GPTConfig.gpt2(**{**TINY, "n_layer": 3, "n_embd": 18, "n_head": 3, "vocab_size": 29}),
}


def _step_by_step(model, idx, padding=None, read=3):
    """Logits of all positions after the first `read`, one token at a time: (B, T - read, V)."""
    cache = KVCache(model.config, len(idx), padding)
    with torch.inference_mode():
        model(idx[:, :read], cache=cache)
    decoder = Decoder(model, cache)
    return torch.stack([decoder(idx[:, i]) for i in range(read, idx.size(1))], dim=1)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("name", [*FAMILIES, *MORE])
def test_token_by_token_equals_the_whole_text_at_once(name, rows):
    model = make_model((FAMILIES | MORE)[name])
    with torch.no_grad():
        whole = model(IDX[:rows] % model.config.vocab_size)[0]
    torch.testing.assert_close(
        _step_by_step(model, IDX[:rows] % model.config.vocab_size), whole[:, 3:], atol=1e-5, rtol=1e-4
    )


def test_rows_with_filling_on_the_left_equal_each_row_alone(model):
    padding = torch.tensor([0, 2, 1])
    together = _step_by_step(model, IDX, padding)
    for row, filled in enumerate(padding.tolist()):
        alone = _step_by_step(model, IDX[row : row + 1, filled:], read=3 - filled)
        torch.testing.assert_close(together[row], alone[0], atol=1e-5, rtol=1e-4)


def test_a_model_that_somebody_looks_into_or_changed_is_read_by_its_own_forward():
    model = make_model(FAMILIES["llama"])
    assert is_lean(model)
    seen = []
    hook = model.blocks[0].mlp.register_forward_hook(lambda *_: seen.append(1))
    assert not is_lean(model)
    generate(model, IDX[:1, :2], max_new_tokens=5)
    assert len(seen) == 5
    hook.remove()

    class Loud(GPT):
        pass

    assert is_lean(model) and not is_lean(Loud(model.config))
    model.blocks[0].mlp = nn.Identity()
    assert not is_lean(model)


@pytest.mark.parametrize("how", [{"bits": 8}, {"bits": 8, "group_size": 32}, {"bits": 4}], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama-grouped"])
def test_matrices_in_few_bits_are_decoded_as_the_model_reads_them(how, name):
    torch.manual_seed(0)
    config = FAMILIES[name].replace(n_embd=64, n_hidden=96, vocab_size=31)
    model = quantize(GPT(config).eval(), **how)
    with torch.no_grad():
        whole = model(IDX)[0]
    torch.testing.assert_close(_step_by_step(model, IDX), whole[:, 3:], atol=0.02, rtol=0.02)


def test_what_cannot_be_decoded_by_the_kernels_is_read_by_forward(monkeypatch):
    model = make_model(FAMILIES["llama"])
    assert not is_lean(model, MOST_ROWS + 1)
    assert not is_lean(make_model(FAMILIES["llama"]).half())
    options = {"max_new_tokens": 5, "temperature": 0}
    written = generate(model, IDX[:, :3], **options)
    monkeypatch.setitem(sys.modules, "minigpt.kernels", None)  # as where numba is missing
    monkeypatch.delattr("minigpt.kernels", raising=False)
    kernels.cache_clear()
    try:
        assert not is_lean(model)
        assert torch.equal(generate(model, IDX[:, :3], **options), written)
    finally:
        kernels.cache_clear()


def test_many_rows_are_written_all_the_same():
    model = make_model(FAMILIES["llama"])
    one = generate(model, IDX[:1, :3], max_new_tokens=5, temperature=0)
    many = generate(model, IDX[:1, :3].expand(MOST_ROWS + 1, -1), max_new_tokens=5, temperature=0)
    assert torch.equal(many, one.expand(MOST_ROWS + 1, -1))


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_in_bf16_are_used_as_they_are_and_the_rest_is_computed_in_fp32(name):
    model = make_model(FAMILIES[name]).bfloat16()
    with torch.no_grad():
        exact = copy.deepcopy(model).float()(IDX)[0][:, 3:]
        rough = model(IDX)[0][:, 3:].float()
    found = _step_by_step(model, IDX)
    assert found.dtype == torch.float32
    assert (found - exact).norm() < (rough - exact).norm()  # only the first tokens were read in bf16


def test_a_cache_that_was_decoded_from_is_still_read_by_a_model_in_bf16():
    model = make_model(FAMILIES["llama"]).bfloat16()
    cache = KVCache(model.config, 1)
    with torch.inference_mode():
        model(IDX[:1, :3], cache=cache)
        Decoder(model, cache)(IDX[:1, 3])
        last = model(IDX[:1, 4:], cache=cache)[0][0, -1]
        whole = model(IDX[:1])[0][0, -1]
    torch.testing.assert_close(last, whole, atol=0.2, rtol=0.05)
