import contextlib
import copy
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from conftest import FAMILIES, TINY, make_model
from torch import nn

from minigpt import GPT, GPTConfig, generate
from minigpt.decoder import ALONE, MOST_ROWS, Decoder, is_lean, kernels
from minigpt.finetune import add_lora
from minigpt.generate import KVCache
from minigpt.lab.experiments.decoding import by_forward
from minigpt.quantize import DynamicLinear, quantize

pytestmark = pytest.mark.usefixtures("two_threads")
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
    with nn.modules.module.register_module_forward_hook(lambda *_: None):
        assert not is_lean(model)
    model.blocks[1].mlp.forward = lambda x: 0 * x
    assert not is_lean(model)
    del model.blocks[1].mlp.forward
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_the_kernels_do_not_know_are_called(dtype):
    model = make_model(FAMILIES["llama"])
    add_lora(model, rank=2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    model = model.to(dtype).eval()
    with torch.no_grad():
        whole = model(IDX)[0][:, 3:].float()
    tolerance = {torch.float32: 1e-4, torch.bfloat16: 0.3}[dtype]
    torch.testing.assert_close(_step_by_step(model, IDX), whole, atol=tolerance, rtol=tolerance)


@pytest.mark.skipif(not DynamicLinear.available(), reason="this build of PyTorch has no kernel for it")
def test_inputs_in_few_bits_are_decoded_too():
    model = quantize(GPT(FAMILIES["llama"].replace(n_embd=64, n_hidden=96)).eval(), 8, activations="int8")
    with torch.no_grad():
        whole = model(IDX)[0]
    torch.testing.assert_close(_step_by_step(model, IDX), whole[:, 3:], atol=0.02, rtol=0.02)


def test_a_full_cache_takes_no_more():
    model = make_model(FAMILIES["llama"])
    cache = KVCache(model.config, 1)
    with torch.inference_mode():
        model(IDX[:1], cache=cache)
    with pytest.raises(ValueError, match="the cache holds 8 tokens, all of context_length=8"):
        Decoder(model, cache)(IDX[:1, 0])


def test_a_weight_that_is_no_number_is_seen():
    model = make_model(FAMILIES["gpt2"])
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[0, 0] = torch.nan
    assert _step_by_step(model, IDX[:1]).isnan().all()


def test_several_threads_write_at_once():
    model = make_model(FAMILIES["llama"])

    def write(seed):
        return generate(model, IDX[:1, :3], max_new_tokens=12, seed=seed)

    alone = [write(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(write, range(4)))
    assert all(map(torch.equal, alone, together))


def test_cores_that_wait_for_each_other_are_left_to_what_keeps_them(monkeypatch):
    model = make_model(FAMILIES["llama"].replace(context_length=128))
    cache = KVCache(model.config, 1)
    with torch.inference_mode():
        model(IDX[:1, :1], cache=cache)
    decoder, asked, clock = Decoder(model, cache), [], itertools.count()
    took = itertools.chain([9.0, 1.0, 1.5, 3.0], itertools.repeat(1.0))  # the first is slow, as kernels are loaded
    monkeypatch.setattr("minigpt.decoder.torch.get_num_threads", lambda: 2)
    monkeypatch.setattr(kernels(), "threads", lambda count: asked.append(count) or contextlib.nullcontext())
    times = itertools.chain.from_iterable((100.0 * n, 100.0 * n + next(took)) for n in clock)
    monkeypatch.setattr("minigpt.decoder.time.perf_counter", lambda: next(times))
    for _ in range(4 + ALONE + 1):
        decoder(IDX[0, :1])
    assert asked == [1, 1, 2, 2, *[1] * ALONE, 2]


def test_calling_forward_for_each_token_writes_the_same():
    model = make_model(FAMILIES["llama"].replace(context_length=64))
    seen = []
    forward = model.forward
    model.forward = lambda idx, cache: seen.append(idx) or forward(idx, cache=cache)
    by_forward(model)(6)
    del model.forward
    written = generate(model, seen[0], max_new_tokens=5, temperature=0)
    assert torch.equal(torch.cat(seen, dim=1), written)
