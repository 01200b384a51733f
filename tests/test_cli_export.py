import sys
import warnings
from types import SimpleNamespace

import pytest
import torch
from conftest import FAMILIES, assert_is_told, make_model

from minigpt import BPETokenizer, CharTokenizer, GPTConfig, load_checkpoint, save_checkpoint

BPE = BPETokenizer.train(["the cat sat on the mat. " * 20], vocab_size=270)
CONFIG = GPTConfig.llama(vocab_size=BPE.vocab_size, n_layer=2, n_head=2, n_embd=32, n_hidden=64, context_length=16)


@pytest.fixture
def folder(tmp_path):
    save_checkpoint(tmp_path / "mine", make_model(CONFIG), BPE)
    return tmp_path / "mine"


@pytest.mark.parametrize(("told", "kind"), [([], "f16"), (["--type", "q8_0"], "q8_0"), (["--type", "Q4_0"], "q4_0")])
def test_a_name_in_gguf_makes_a_file_for_llama_cpp(told, kind, run, folder, tmp_path):
    out = tmp_path / "deep" / "mine.gguf"
    status, shown, err = run("export", folder, out, *told)
    first, second = shown.splitlines()
    assert status == 0 and not err and first.startswith(f"{out}: ") and first.endswith(f" kB, {kind}")
    assert second.startswith(f"to open it: llama-server -m {out}, or in Python: from llama_cpp import Llama")
    model, tokenizer = load_checkpoint(out)
    assert (model.config.n_hidden, tokenizer.encode("the cat")) == (64, BPE.encode("the cat"))


def test_a_folder_opens_in_transformers(run, folder, tmp_path):
    from transformers import AutoModelForCausalLM

    status, shown, _ = run("export", folder, tmp_path / "theirs")
    assert status == 0 and "AutoModelForCausalLM.from_pretrained" in shown and " kB\n" in shown
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs").eval()
    idx = torch.arange(16)[None]
    torch.testing.assert_close(theirs(idx).logits, make_model(CONFIG)(idx)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("told", "bits"), [([], 32), (["--type", "int8"], 8)])
def test_a_name_in_onnx_is_written_by_the_module_for_it(told, bits, run, folder, tmp_path, monkeypatch):
    asked = []

    def save_onnx(model, path, bits):
        asked.append(bits)
        path.write_bytes(b"x" * 1500)

    monkeypatch.setitem(sys.modules, "minigpt.interop.onnx", SimpleNamespace(save_onnx=save_onnx))
    status, shown, _ = run("export", folder, tmp_path / "mine.onnx", *told)
    assert status == 0 and asked == [bits] and "1.5 kB" in shown and "onnxruntime.InferenceSession" in shown


def test_what_cannot_be_exported_is_told(run, folder, tmp_path):
    assert_is_told(
        run("export", folder, tmp_path / "m.gguf", "--type", "q8"), "--type q8 is no type of a .gguf", "'q8_0'"
    )
    assert_is_told(run("export", folder, tmp_path / "m.onnx", "--type", "f16"), "is no type of a .onnx file", "int8")
    assert_is_told(run("export", folder, tmp_path / "m", "--type", "f16"), "--type goes with a name that ends in .gguf")
    assert_is_told(run("export", tmp_path / "none", tmp_path / "m.gguf"), "holds no config.json")
    (tmp_path / "file").write_text("x")
    assert_is_told(run("export", folder, tmp_path / "file"), "is a file", "choose another name")
    save_checkpoint(tmp_path / "grouped", make_model(FAMILIES["gpt2-grouped"]), CharTokenizer([*"abc"]))
    assert_is_told(run("export", tmp_path / "grouped", tmp_path / "m"), "no model of transformers has", "n_kv_head=1")
    assert_is_told(
        run("export", tmp_path / "grouped", tmp_path / "m.gguf"), "no architecture that computes n_kv_head=1"
    )
    assert not (tmp_path / "m").exists() and not (tmp_path / "m.gguf").exists()
