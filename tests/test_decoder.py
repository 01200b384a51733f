import pytest
import torch
from conftest import FAMILIES, TINY, make_model
from torch import nn

from minigpt import GPT, GPTConfig, generate
from minigpt.decoder import MOST_ROWS, Decoder, is_lean, lean_norm, product
from minigpt.generate import KVCache
from minigpt.model import RMSNorm

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


@pytest.mark.parametrize("cores", [1, 2, 3, 40])
@pytest.mark.parametrize("rows", [1, 2, MOST_ROWS + 1])
@pytest.mark.parametrize(("n_out", "n_in"), [(24, 6), (6, 24), (25, 7), (1, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_shared_out_over_cores_equals_the_layer(cores, rows, n_out, n_in, bias):
    torch.manual_seed(0)
    linear, x, more = nn.Linear(n_in, n_out, bias=bias), torch.randn(rows, n_in), torch.randn(rows, n_out)
    multiply = product(linear, cores)
    with torch.inference_mode():
        torch.testing.assert_close(multiply(x, None), linear(x))
        torch.testing.assert_close(multiply(x, more), linear(x) + more)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_norm_equals_the_layers(rows):
    torch.manual_seed(0)
    x = 3 * torch.randn(rows, 16) + 1
    for norm in (RMSNorm(16, eps=1e-5), nn.LayerNorm(16), nn.LayerNorm(16, bias=False)):
        nn.init.normal_(norm.weight)
        torch.testing.assert_close(lean_norm(norm, rows)(x), norm(x))


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


def test_weights_in_half_precision_are_decoded_too():
    model = make_model(FAMILIES["llama"]).bfloat16()
    with torch.no_grad():
        whole = model(IDX[:1])[0]
    torch.testing.assert_close(_step_by_step(model, IDX[:1]), whole[:, 3:], atol=0.2, rtol=0.05)
