import importlib.util

import pytest
import torch
from conftest import FAMILIES, TINY, make_model

from minigpt import GPTConfig, generate
from minigpt.bench import decode as bench
from minigpt.cli import main
from minigpt.lab.experiments import decoding

LONGER = {**TINY, "context_length": 48}


def test_writers_take_turns_and_the_median_stands_between_least_and_most():
    calls = []
    found = decoding.speeds({"a": lambda n: calls.append(("a", n)), "b": lambda n: calls.append(("b", n))}, 5, 3)
    warm = decoding.WARM_UP
    assert calls == [("a", warm), ("b", warm), *[("a", 5), ("b", 5)] * 3]
    assert found.keys() == {"a", "b"} and all(s.low <= s.value <= s.high for s in found.values())


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_everyone_writes_the_same_tokens_that_are_counted(monkeypatch, tmp_path):
    model = make_model(GPTConfig.llama(**LONGER, n_kv_head=1))
    expected = generate(model, decoding.prompt(model), max_new_tokens=6, temperature=0)
    written = []
    monkeypatch.setattr(decoding, "generate", lambda *a, **o: written.append(generate(*a, **o)))
    decoding.ours(model)(6)
    assert torch.equal(written[0], expected)
    decoding.ours(model, 3)(2)
    assert written[1].shape == (3, decoding.PROMPT + 2)
    seen = []
    hook = model.register_forward_hook(lambda m, args, out: seen.append(args[0].size(1)))
    decoding.without_cache(model)(3)
    hook.remove()
    assert seen == [decoding.PROMPT, decoding.PROMPT + 1, decoding.PROMPT + 2]
    for name, write in decoding.peers(model, tmp_path, onnx=(32,)):
        write(3)
        assert "fp32" in name


def test_a_tokenizer_of_any_size_is_one_that_goes_there_and_back():
    tokenizer = decoding.any_tokenizer(400)
    assert tokenizer.vocab_size == 400 and tokenizer.decode(tokenizer.encode("Ünder 3 tests")) == "Ünder 3 tests"
    with pytest.raises(ValueError, match="use 257 to 65793"):
        decoding.any_tokenizer(65)


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_the_command_prints_a_line_for_each_with_its_ratio(monkeypatch, capsys):
    monkeypatch.setattr(bench, "SMALL", GPTConfig.gpt2(**LONGER))
    wide = GPTConfig.gpt2(**{**LONGER, "n_embd": 64, "vocab_size": 300})
    monkeypatch.setattr(bench, "LARGE", wide)
    assert main(["bench", "decode", "--tokens", "8", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    for who in ("ours, fp32", "without a cache", "8 prompts", "ours, int8", "ours, int4"):
        assert who in out
    for package, who in (
        ("transformers", "transformers, fp32"),
        ("onnxruntime", "ONNX"),
        ("llama_cpp", "llama.cpp, q8_0"),
    ):
        assert (who in out) == bool(importlib.util.find_spec(package))
    assert "times transformers, fp32" in out


def test_a_model_that_takes_ids_of_any_family_is_measured():
    for config in FAMILIES.values():
        model = make_model(config.replace(context_length=32))
        assert decoding.speeds({"ours": decoding.ours(model)}, 2, 1)["ours"].value > 0


@pytest.mark.parametrize("tokens", ["0", "12", "248"])
def test_tokens_that_cannot_be_measured_are_refused_before_anything_runs(capsys, tokens):
    assert main(["bench", "decode", "--tokens", tokens]) == 1
    assert "use a multiple of 8 up to 240" in capsys.readouterr().err
