import json
import re

import pytest
import torch
from conftest import assert_is_told, make_model

from minigpt import BPETokenizer, GPTConfig, load_checkpoint, save_checkpoint
from minigpt.chat_template import CHAT_TOKENS
from minigpt.quantize import Quantization, is_quantized, size_in_bytes
from minigpt.tokenizer import END_OF_TEXT

TEXT = "the cat sat on the mat. " * 60
BPE = BPETokenizer.train([TEXT], vocab_size=280, special_tokens=(END_OF_TEXT, *CHAT_TOKENS))
CONFIG = GPTConfig.llama(vocab_size=BPE.vocab_size, n_layer=2, n_head=2, n_embd=64, n_hidden=128, context_length=32)
IDX = torch.arange(20)[None]


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(tmp_path / "mine", make_model(CONFIG), BPE)
    return tmp_path / "mine"


@pytest.fixture
def text(tmp_path):
    (tmp_path / "cats.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "cats.txt"


@pytest.mark.parametrize(
    ("told", "how"),
    [
        ([], Quantization()),
        (["--bits", "8", "--group-size", "16", "--method", "mse"], Quantization(8, 16, "mse")),
        (["--bits", "4"], Quantization(4, 32)),
        (["--bits", "4", "--group-size", "64"], Quantization(4, 64)),
    ],
)
def test_it_writes_a_smaller_checkpoint_and_says_how_small(told, how, run, folder, tmp_path):
    out = tmp_path / "deep" / "small"
    status, shown, err = run("quantize", folder, out, *told)
    first, second = shown.splitlines()
    assert status == 0 and not err
    sizes = re.fullmatch(r"([\d.]+) kB before, ([\d.]+) kB after: ([\d.]+)%", first)
    before, after, share = map(float, sizes.groups())
    model, tokenizer = load_checkpoint(out)
    assert before == pytest.approx(size_in_bytes(make_model(CONFIG)) / 1e3, abs=0.06)
    assert after == pytest.approx(size_in_bytes(model) / 1e3, abs=0.06) and share == pytest.approx(
        100 * after / before, abs=0.1
    )
    assert second.endswith(f"to try it: minigpt generate {out}")
    assert model.quantization == how and tokenizer.encode("the cat") == BPE.encode("the cat")
    training = json.loads((out / "training.json").read_text(encoding="utf-8"))
    assert training["command"] == "quantize" and training["base"] == "mine" and training["bits"] == how.bits


def test_gptq_calibrates_on_a_text_of_ones_own(run, folder, text, tmp_path):
    for out in ("a", "b"):
        status, _, err = run("quantize", folder, tmp_path / out, "--bits", 4, "--method", "gptq", "--calibrate", text)
        assert status == 0 and not err
    run("quantize", folder, tmp_path / "mse", "--bits", 4, "--method", "mse")
    first, again, other = (load_checkpoint(tmp_path / out)[0](IDX)[0] for out in ("a", "b", "mse"))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_generate_chat_and_export_take_it(run, folder, tmp_path, monkeypatch):
    run("quantize", folder, tmp_path / "small", "--bits", 4)
    options = ("--prompt", "the", "--max-new-tokens", 5, "--seed", 1)
    first, again = (run("generate", tmp_path / "small", *options) for _ in range(2))
    assert first == again and first[0] == 0 and first[1].startswith("the")
    typed = iter(["the cat", "/quit"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    status, shown, err = run("chat", tmp_path / "small", "--max-new-tokens", 5, "--seed", 1)
    assert status == 0 and not err and "/reset" in shown
    for out in ("m.gguf", "theirs"):
        assert run("export", tmp_path / "small", tmp_path / out)[0] == 0
        assert not is_quantized(load_checkpoint(tmp_path / out)[0])


def test_what_cannot_be_done_is_told_and_nothing_is_written(run, folder, text, tmp_path):
    out = tmp_path / "out"
    assert_is_told(run("quantize", folder, out, "--bits", 3), "bits=3 has no kernel", "use bits=8 or bits=4")
    assert_is_told(run("quantize", folder, out, "--method", "gtpq"), "Did you mean 'gptq'?")
    assert_is_told(run("quantize", folder, out, "--activations", "int4"), "Did you mean 'int8'?")
    assert_is_told(
        run("quantize", folder, out, "--bits", 4, "--group-size", 128), "does not divide the width 64", "group_size=64"
    )
    assert_is_told(run("quantize", folder, out, "--method", "gptq"), "--calibrate", "--method mse")
    assert_is_told(run("quantize", folder, out, "--calibrate", text), "--calibrate goes with --method gptq")
    assert_is_told(run("quantize", folder, folder), "already holds a model, which would be lost")
    assert_is_told(run("quantize", tmp_path / "none", out), "none")
    (tmp_path / "short.txt").write_text("the cat", encoding="utf-8")
    assert_is_told(run("quantize", folder, out, "--method", "gptq", "--calibrate", tmp_path / "short.txt"), "too short")
    assert not out.exists()


def test_a_quantized_model_is_not_quantized_or_trained_again(run, folder, text, tmp_path):
    run("quantize", folder, tmp_path / "small")
    for more in ((), ("--method", "gptq", "--calibrate", text)):
        assert_is_told(run("quantize", tmp_path / "small", tmp_path / "twice", *more), "is in 8 bits already")
    told = run(
        "finetune", tmp_path / "ready", "--task", "code", "--base", tmp_path / "small", "--data", text, "--epochs", 1
    )
    assert_is_told(told, "the model is in 8 bits, and minigpt finetune reads floating-point weights")
    assert not (tmp_path / "twice").exists() and not (tmp_path / "ready").exists()
