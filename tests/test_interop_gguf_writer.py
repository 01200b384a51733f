import atexit
import json
import os
import re
import warnings
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import torch.nn.functional as F
from conftest import make_model
from gguf import GGMLQuantizationType as Type
from gguf_files import write_gguf

from minigpt import GPT, BPETokenizer, CharTokenizer, GPTConfig, generate, load_checkpoint, load_tokenizer
from minigpt.chat_template import CHAT_TOKENS
from minigpt.finetune import add_lora
from minigpt.interop import save_gguf
from minigpt.interop.gguf import pre_tokenizer
from minigpt.tokenizer import END_OF_TEXT

PROJECT = Path(__file__).resolve().parents[1]
TEXT = "the cat sat on the mat, and 12 cats ate 1,603 rats in 2024; we'll see: def f(x): return x ** 2\n\n" * 20
TEXTS = [
    "The cats' rats sat IN 1234567 mats.  It's what WE'LL see   \n\n  12 3\t4",
    "def f(x):\n    return {'a': x**2, \"b\": 0x1F}  # 10_000\r\n",
    "é́ ﬁ İ ß 好好 １２ ½ Ⅷ 👨‍👩‍👧 \u200b\u2028x\x85 naïve Ελλάδα क्षि",
    f"a {END_OF_TEXT}<|im_start|>user\nthe cat<|im_end|>\n",
    "\n\n\n   x\x00  ",
    "",
]
BPE = BPETokenizer.train([TEXT, *TEXTS], vocab_size=320, special_tokens=(END_OF_TEXT, *CHAT_TOKENS))
SIZES = {"vocab_size": 320, "n_layer": 2, "n_head": 4, "n_embd": 64, "n_hidden": 96, "context_length": 16}
CONFIGS = {
    "llama": GPTConfig.llama(**SIZES, n_kv_head=2, rope_theta=5e4, norm_eps=2**-20),
    "llama-untied": GPTConfig.llama(**SIZES, norm_eps=2**-17, tie_embedding=False),
    "llama-biased": GPTConfig.llama(**SIZES, n_kv_head=2, norm_eps=2**-17, bias=True),
    "gpt2": GPTConfig.gpt2(**SIZES, norm_eps=2**-17),
    "gpt2-untied": GPTConfig.gpt2(**SIZES, norm_eps=2**-17, tie_embedding=False),
    "qwen3": GPTConfig.llama(**SIZES, n_kv_head=1, qk_norm=True, norm_eps=2**-17),
}  # a GGUF file keeps norm_eps in fp32, which holds powers of 2 as they are
IDX = torch.randint(0, 320, (1, 16), generator=torch.Generator().manual_seed(2))
TYPES = {"f32": Type.F32, "f16": Type.F16, "q8_0": Type.Q8_0, "q4_0": Type.Q4_0}


def types_in(path):
    return {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_in_fp32_gives_back_the_model_and_the_tokenizer(name, tmp_path):
    written = make_model(CONFIGS[name])
    written.save_gguf(tmp_path / "deep" / "m.GGUF", BPE, "F32")
    model, tokenizer = load_checkpoint(tmp_path / "deep" / "m.GGUF")
    assert model.config == written.config
    for part, tensor in written.state_dict().items():
        assert torch.equal(model.state_dict()[part], tensor), part
    assert tokenizer.encode_batch(TEXTS) == BPE.encode_batch(TEXTS)
    assert tokenizer.encode_batch(TEXTS, allowed_special=True) == BPE.encode_batch(TEXTS, allowed_special=True)
    assert (tokenizer.eos_id, tokenizer.special_tokens) == (BPE.eos_id, BPE.special_tokens)
    assert tokenizer.chat_template == BPE.chat_template
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("dtype", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("name", CONFIGS)
def test_fewer_bits_are_those_of_the_package_gguf(name, dtype, tmp_path):
    config = CONFIGS[name]
    written = make_model(config)
    save_gguf(written, BPE, tmp_path / "m.gguf", dtype)
    found, types = GPT.from_pretrained(tmp_path / "m.gguf").state_dict(), types_in(tmp_path / "m.gguf")
    table = "token_embd.weight" if config.tie_embedding else "output.weight"
    for part, kind in types.items():
        whole = part.endswith((".bias", "norm.weight")) or part == "position_embd.weight"
        expected = Type.Q5_1 if part == table and dtype == "q4_0" else TYPES[dtype]
        assert kind == (Type.F32 if whole else expected), part
    for part, tensor in written.state_dict().items():
        kind = Type.F32 if tensor.dim() == 1 or "position" in part else TYPES[dtype]
        if dtype == "q4_0" and part == ("token_embedding.weight" if config.tie_embedding else "head.weight"):
            kind = Type.Q5_1
        if part != "head.weight" or not config.tie_embedding:
            expected = gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind)
            assert np.array_equal(found[part].numpy(), expected), part


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "llama-biased"])
def test_the_tensors_are_those_that_llama_cpps_converter_would_write(name, tmp_path):
    model = make_model(CONFIGS[name])
    save_gguf(model, BPE, tmp_path / "ours.gguf", "f16")
    write_gguf(tmp_path / "theirs.gguf", model, Type.F16)
    ours, theirs = (
        {t.name: t for t in gguf.GGUFReader(tmp_path / f"{whose}.gguf").tensors} for whose in ("ours", "theirs")
    )
    assert ours.keys() == theirs.keys()
    for part in ours.keys() - {"position_embd.weight"}:
        assert np.array_equal(ours[part].data, theirs[part].data), part


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_how_words_are_cut_is_written_under_the_name_it_was_read_by(pre, tmp_path):
    content = json.loads(BPE.to_json())
    content["pre_tokenizer"] = json.loads(pre_tokenizer(pre).__getstate__())
    content["normalizer"] = {"type": "NFC"} if pre == "qwen2" else None
    content["model"]["ignore_merges"] = pre == "llama-bpe"
    tokenizer = BPETokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)))
    save_gguf(make_model(CONFIGS["llama"]), tokenizer, tmp_path / "m.gguf")
    assert gguf.GGUFReader(tmp_path / "m.gguf").fields["tokenizer.ggml.pre"].contents() == pre
    read = load_tokenizer(tmp_path / "m.gguf")
    assert read.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    save_gguf(make_model(CONFIGS["llama"]), read, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes()[-4096:] == (tmp_path / "m.gguf").read_bytes()[-4096:]
    assert gguf.GGUFReader(tmp_path / "again.gguf").fields["tokenizer.ggml.pre"].contents() == pre


def test_ids_that_no_token_has_and_tokens_that_are_not_special_keep_their_kind(tmp_path):
    content = json.loads(BPE.to_json())
    content["added_tokens"].append(content["added_tokens"][0] | {"id": 322, "content": "<think>", "special": False})
    content["model"]["vocab"]["<think>"] = 322
    tokenizer = BPETokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)))
    model = make_model(CONFIGS["llama"].replace(vocab_size=323))
    save_gguf(model, tokenizer, tmp_path / "m.gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    assert fields["tokenizer.ggml.tokens"].contents()[-3:] == ["[PAD320]", "[PAD321]", "<think>"]
    assert fields["tokenizer.ggml.token_type"].contents()[-4:] == [1, 5, 5, 4]
    assert fields["tokenizer.ggml.token_type"].contents()[:3] == [3, 3, 3]
    assert load_tokenizer(tmp_path / "m.gguf").encode("a <think> b") == tokenizer.encode("a <think> b")


def test_a_matrix_whose_rows_are_no_multiple_of_32_long_is_in_fp16(tmp_path):
    model = make_model(CONFIGS["llama"].replace(n_hidden=90))
    save_gguf(model, BPE, tmp_path / "m.gguf", "q8_0")
    types = types_in(tmp_path / "m.gguf")
    assert types["blk.0.ffn_down.weight"] == Type.F16 and types["blk.0.ffn_up.weight"] == Type.Q8_0
    assert GPT.from_pretrained(tmp_path / "m.gguf").config.n_hidden == 90


def test_weights_in_bf16_are_written_as_they_are(tmp_path):
    model = make_model(CONFIGS["llama"]).bfloat16()
    save_gguf(model, BPE, tmp_path / "m.gguf", "f32")
    assert torch.equal(GPT.from_pretrained(tmp_path / "m.gguf").head.weight, model.head.weight.float())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (GPTConfig.gpt2(**SIZES, n_kv_head=2), "computes n_kv_head=2. The nearest that it has is gpt2: train with n_kv_head=4"),
        (GPTConfig.gpt2(**SIZES, mlp="relu2"), "computes mlp='relu2'. The nearest that it has is gpt2: train with mlp='gelu'"),
        (GPTConfig.llama(**SIZES, mlp="relu2"), "The nearest that it has is llama: train with mlp='swiglu'"),
        (GPTConfig.llama(**SIZES, logit_cap=15.0), "logit_cap=15.0. The nearest that it has is llama: train with logit_cap=None"),
        (GPTConfig.gpt2(**SIZES, bias=False), "is gpt2: train with bias=True"),
        (GPTConfig.llama(**SIZES, bias=True, qk_norm=True), "qk_norm"),
        (GPTConfig.llama(**SIZES, position="learned"), "is llama: train with position='rotary'"),
    ],
)  # fmt: skip
def test_a_shape_that_llama_cpp_lacks_is_refused_with_the_nearest_that_it_has(config, words, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)):
        save_gguf(make_model(config), BPE, tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def _broken(value):
    model = make_model(CONFIGS["llama"])
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[3, 5] = value
    return model


LLAMA = make_model(CONFIGS["llama"])
NARROW = make_model(GPTConfig.llama(**SIZES | {"n_embd": 48}))
SMALL = BPETokenizer.train([TEXT], vocab_size=300)
WITH_SPACE = BPE.to_json().replace('"add_prefix_space": false', '"add_prefix_space": true')
CUT_OTHERWISE = BPETokenizer(tokenizers.Tokenizer.from_str(WITH_SPACE))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((LLAMA, BPE, "m.bin"), "m.bin does not end in .gguf, by which llama.cpp knows its files: use m.bin.gguf"),
        ((LLAMA, BPE, "m.gguf", "q8"), "dtype='q8' is no type of a GGUF file that is written here. Did you mean 'q8_0'?"),
        ((LLAMA, BPE, "m.gguf", torch.float16), "Known: f16, f32, q4_0, q8_0"),
        ((LLAMA, CharTokenizer(["a", "b"]), "m.gguf"), "llama.cpp knows no tokenizer of characters"),
        ((LLAMA, SMALL, "m.gguf"), "the tokenizer has 300 tokens and the model vocab_size=320"),
        ((LLAMA, CUT_OTHERWISE, "m.gguf"), "cuts text into words in a way that has no name here"),
        ((LLAMA, BPETokenizer(BPE._tokenizer, eos_token=None), "m.gguf"), "llama.cpp needs a token that ends a text"),
        ((NARROW, BPE, "m.gguf", "q4_0"), 'n_embd=48 is no multiple of 32; use dtype="f16", or train with n_embd=64'),
        ((_broken(float("nan")), BPE, "m.gguf"), "blk.1.ffn_up.weight holds numbers that are infinite or none (NaN)"),
        ((_broken(float("-inf")), BPE, "m.gguf", "f32"), "blk.1.ffn_up.weight holds numbers that are infinite"),
        ((_broken(-1e5), BPE, "m.gguf"), 'blk.1.ffn_up.weight holds 100000, and f16 at most 65504; use dtype="f32"'),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is(arguments, words, tmp_path):
    model, tokenizer, name, *dtype = arguments
    with pytest.raises(ValueError, match=re.escape(words)):
        save_gguf(model, tokenizer, tmp_path / name, *dtype)
    assert not list(tmp_path.iterdir())


def test_adapters_are_to_be_merged_first(tmp_path):
    model = make_model(CONFIGS["llama"])
    add_lora(model)
    with pytest.raises(ValueError, match=re.escape("merge_lora(model) first")):
        save_gguf(model, BPE, tmp_path / "m.gguf")


def test_a_disk_that_is_full_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "m.gguf"
    save_gguf(LLAMA, BPE, path)
    before = path.read_bytes()

    def full(self, tensor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(OSError, match=r"could not write m\.gguf .*No space left"):
        save_gguf(LLAMA, BPE, path, "f32")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.gguf"]


def test_tensors_are_converted_one_by_one(tmp_path, monkeypatch):
    """No more than one is waiting: each is written before the next is converted."""
    events, quantize, write = [], gguf.quantize, gguf.GGUFWriter.write_tensor_data
    monkeypatch.setattr(gguf, "quantize", lambda *a: events.append("convert") or quantize(*a))
    monkeypatch.setattr(gguf.GGUFWriter, "write_tensor_data", lambda *a: events.append("write") or write(*a))
    save_gguf(LLAMA, BPE, tmp_path / "m.gguf", "q8_0")
    assert events == ["convert", "write"] * (len(events) // 2) and len(events) > 20


# llama.cpp itself


@pytest.fixture(scope="module")
def llama_cpp():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("llama_cpp", exc_type=ImportError)
    for name in ("outnull_file", "errnull_file"):  # opened at its import, and never closed
        if opened := getattr(module._utils, name, None):
            atexit.register(opened.close)
    return module


@pytest.fixture
def llama(llama_cpp):
    """Opens a file in llama.cpp, quietly, on one thread: with more, its threads wait for each other on a busy machine."""
    opened = []

    def open_file(path, **options):
        threads = {"n_threads": 1, "n_threads_batch": 1}
        opened.append(llama_cpp.Llama(str(path), logits_all=True, verbose=False, **threads, **options))
        return opened[-1]

    yield open_file
    for model in opened:
        model.close()


def logits(llama, ids):
    llama.reset()
    llama.eval(ids)
    return torch.from_numpy(llama.scores[: len(ids)].copy())


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_our_logits(name, llama, tmp_path):
    save_gguf(make_model(CONFIGS[name]), BPE, tmp_path / "m.gguf", "f32")
    theirs = logits(llama(tmp_path / "m.gguf", n_ctx=16, type_k=0, type_v=0), IDX[0].tolist())
    ours = GPT.from_pretrained(tmp_path / "m.gguf")(IDX)[0][0].detach()
    torch.testing.assert_close(theirs, ours, atol=0.01 * float(ours.std()), rtol=0)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe"])
def test_llama_cpp_cuts_text_as_we_do(pre, llama, tmp_path):
    content = json.loads(BPE.to_json())
    content["pre_tokenizer"] = json.loads(pre_tokenizer(pre).__getstate__())
    content["model"]["ignore_merges"] = pre == "llama-bpe"
    tokenizer = BPETokenizer(tokenizers.Tokenizer.from_str(json.dumps(content)))
    save_gguf(LLAMA, tokenizer, tmp_path / "m.gguf")
    theirs = llama(tmp_path / "m.gguf", n_ctx=16)
    for text in TEXTS:
        assert theirs.tokenize(text.encode(), special=False) == tokenizer.encode(text)
        assert theirs.tokenize(text.encode(), special=True) == tokenizer.encode(text, allowed_special=True)
    assert theirs.token_eos() == tokenizer.eos_id
    assert theirs.metadata["tokenizer.chat_template"] == tokenizer.chat_template


@pytest.fixture(scope="module")
def base():
    return load_checkpoint(PROJECT / "data/checkpoints/base")


@pytest.fixture(scope="module")
def text():
    """Code and English, 2,048 tokens and more."""
    return "".join((PROJECT / name).read_text(encoding="utf-8")[:5000] for name in ("minigpt/model.py", "README.md"))


@pytest.mark.parametrize(("dtype", "share"), [("f16", 0.51), ("q8_0", 0.273), ("q4_0", 0.16)])
def test_the_base_model_has_our_perplexity_in_llama_cpp_and_a_small_file(dtype, share, base, text, llama, tmp_path):
    model, tokenizer = base
    path = tmp_path / "base.gguf"
    save_gguf(model, tokenizer, path, dtype)
    assert path.stat().st_size < share * 4 * model.num_parameters()
    ours, theirs = model if dtype == "f16" else GPT.from_pretrained(path), llama(path, n_ctx=512)
    ids = torch.tensor(tokenizer.encode(text)[:2048]).view(4, 512)
    assert theirs.tokenize(text.encode(), special=False) == tokenizer.encode(text)
    with torch.no_grad():
        _, loss = ours(ids[:, :-1], ids[:, 1:])
    their_logits = torch.stack([logits(theirs, row[:-1].tolist()) for row in ids])  # (4, T, V)
    their_loss = F.cross_entropy(their_logits.flatten(0, 1), ids[:, 1:].flatten())
    assert their_loss.exp().item() == pytest.approx(loss.exp().item(), rel=0.01)


def test_the_base_model_writes_the_same_in_llama_cpp(base, llama, tmp_path):
    model, tokenizer = base
    model.save_gguf(tmp_path / "base.gguf", tokenizer)
    theirs = llama(tmp_path / "base.gguf", n_ctx=512)
    for prompt in ("The President of the United States", "def main(", "ROMEO:\n"):
        ids = tokenizer.encode(prompt)
        (ours,) = generate(model, [ids], max_new_tokens=64, temperature=0)
        theirs.reset()
        written = theirs.generate(ids, temp=0, top_k=1, repeat_penalty=1.0)
        assert [next(written) for _ in range(64)] == ours[len(ids) :]
