import inspect
import json
import re
import warnings

import gguf
import numpy as np
import pytest
import tokenizers
import torch
from conftest import make_model
from gguf import GGMLQuantizationType as Type
from gguf_files import tensors_of, write_gguf, write_tokenizer
from tokenizers import decoders, models, pre_tokenizers

from minigpt import GPT, BPETokenizer, GPTConfig, generate, load_checkpoint, load_tokenizer
from minigpt.chat_template import CHAT_TOKENS
from minigpt.interop import to_hf_config
from minigpt.tokenizer import END_OF_TEXT

SIZES = {"vocab_size": 320, "n_layer": 2, "n_head": 4, "n_embd": 64, "n_hidden": 96, "context_length": 16}
CONFIGS = {
    "llama": GPTConfig.llama(**SIZES, n_kv_head=2, rope_theta=5e4, norm_eps=1e-6),
    "llama-untied": GPTConfig.llama(**SIZES, tie_embedding=False),
    "gpt2": GPTConfig.gpt2(**SIZES),
    "qwen3": GPTConfig.llama(**SIZES, n_kv_head=1, qk_norm=True),
    "llama-narrow-heads": GPTConfig.llama(**SIZES, n_kv_head=2, head_dim=8),
    "qwen3-wide-heads": GPTConfig.llama(**SIZES, n_kv_head=1, head_dim=32, qk_norm=True),
}
IDX = torch.randint(0, 320, (2, 16), generator=torch.Generator().manual_seed(2))
TEXT = "the cat sat on the mat, and 12 cats ate 1,603 rats in 2024; we'll see: def f(x): return x ** 2\n\n" * 20
BPE = BPETokenizer.train([TEXT], vocab_size=320, special_tokens=(END_OF_TEXT, *CHAT_TOKENS))
TEXTS = [
    "The cats' rats sat IN 1234567 mats.  It's what WE'LL see   \n\n  12 3\t4",
    "def f(x):\n    return {'a': x**2, \"b\": 0x1F}  # 10_000\r\n",
    "cafe\u0301 is unmerged",
    "é́ ﬁ İ ß 好好 １２ ½ Ⅷ 👨‍👩‍👧 \u200b\u2028x\x85 naïve Ελλάδα क्षि",
    f"a {END_OF_TEXT}<|im_start|>user\nthe cat<|im_end|>\n <think>the rat",
    "",
]


def theirs(path, config):
    """The same file as `transformers` opens it; of Llama alone it reads all sizes from the file."""
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = to_hf_config(config)
    options = {} if "Llama" in fields["architectures"][0] else {"config": AutoConfig.for_model(**fields)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32, **options
        ).eval()


@pytest.mark.parametrize("kind", [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_1])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_gguf_file_gives_the_logits_that_transformers_reads_from_it(name, kind, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", make_model(CONFIGS[name]), kind)
    model = GPT.from_pretrained(path)
    assert model.config == CONFIGS[name].replace(norm_eps=model.config.norm_eps) and not model.training
    assert model.config.norm_eps == pytest.approx(CONFIGS[name].norm_eps)  # a GGUF file keeps it in fp32
    torch.testing.assert_close(model(IDX)[0], theirs(path, model.config)(IDX).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_gguf_file_in_fp32_is_the_model_that_was_written(name, tmp_path):
    written = make_model(CONFIGS[name])
    read = GPT.from_pretrained(write_gguf(tmp_path / "m.gguf", written))
    assert {n: t.tolist() for n, t in read.state_dict().items()} == {
        n: t.tolist() for n, t in written.state_dict().items()
    }
    assert (read.head.weight is read.token_embedding.weight) == written.config.tie_embedding


def test_bf16_from_a_gguf_file_takes_half_and_writes_what_fp32_would(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", make_model(CONFIGS["llama"]), tokenizer=BPE._tokenizer)
    full, (half, tokenizer) = GPT.from_pretrained(path), load_checkpoint(path, torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {
        torch.bfloat16
    } and half.cos.dtype == half.sin.dtype == torch.float32
    expected = full(IDX)[0]
    assert (half(IDX)[0].float() - expected).abs().mean() < 0.02 * expected.std()
    prompt = tokenizer.encode("the cat")
    ids = generate(half, [prompt], max_new_tokens=8, temperature=0)[0]
    logits = full(torch.tensor([ids]))[0][0].detach()
    behind = [float(logits[i - 1].max() - logits[i - 1, ids[i]]) for i in range(len(prompt), len(ids))]
    assert max(behind) < 0.05 * logits.std(), "each token is the likeliest, or as good as"


def split(pattern):
    return pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


def llama_3_pattern():
    from transformers.convert_slow_tokenizer import TikTokenConverter

    return inspect.signature(TikTokenConverter.__init__).parameters["pattern"].default


GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CUTS = {  # as the projects that trained the models have published them
    "gpt-2": lambda: [split(GPT2_WORDS)],
    "default": lambda: [split(GPT2_WORDS)],
    "smollm": lambda: [split(r"\p{N}"), split(GPT2_WORDS)],
    "llama-bpe": lambda: [split(llama_3_pattern())],
    "qwen2": lambda: [split(llama_3_pattern().replace("{1,3}", ""))],
}


@pytest.mark.parametrize("pre", CUTS)
def test_the_tokenizer_in_the_file_is_the_one_of_tokenizer_json(pre, tmp_path):
    original = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    original.pre_tokenizer, original.decoder = to_bytes, decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=600,  # learned across the borders of words, so that where they are makes a difference
        special_tokens=[END_OF_TEXT, *CHAT_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    original.train_from_iterator(TEXTS * 3, trainer)
    content = json.loads(original.to_str())
    content["model"]["vocab"]["Ġunmerged"] = original.get_vocab_size()  # a token that no merge leads to
    original = tokenizers.Tokenizer.from_str(json.dumps(content))
    original.pre_tokenizer = pre_tokenizers.Sequence([*CUTS[pre](), to_bytes])
    if pre == "qwen2":
        original.normalizer = tokenizers.normalizers.NFC()
    original.add_tokens([tokenizers.AddedToken("<think>", normalized=False)])  # user-defined: read wherever it stands
    original.save(str(tmp_path / "tokenizer.json"))
    expected = load_tokenizer(tmp_path)

    def tokenizer_alone(writer):
        write_tokenizer(writer, original, pre)

    path = write_gguf(tmp_path / "m.gguf", make_model(CONFIGS["llama"]), tensors={}, change=tokenizer_alone)
    ours = load_tokenizer(path)
    for text in TEXTS:
        for allowed in (False, True):
            assert ours.encode(text, allowed_special=allowed) == expected.encode(text, allowed_special=allowed)
        assert ours.decode(ours.encode(text)) == expected.decode(expected.encode(text))
    assert (ours.eos_token, ours.chat_template) == (END_OF_TEXT, "{{ 'hello' }}")
    assert ours.special_tokens == expected.special_tokens and ours.vocab_size == expected.vocab_size


LLAMA = make_model(CONFIGS["llama"])
F32 = tensors_of(LLAMA)


def without(*names):
    return {name: tensor for name, tensor in F32.items() if name not in names}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tensors": without("blk.0.attn_q.weight", "output_norm.weight")}, "['blk.0.attn_q.weight', 'output_norm.weight']"),
        ({"tensors": F32 | {"x.a": F32["output_norm.weight"], "x.b": F32["output_norm.weight"]}}, "Unexpected: ['x.a', 'x.b']"),
        ({"tensors": F32 | {"output_norm.weight": (np.zeros(32, "f4"), Type.F32)}}, "output_norm.weight has shape (32,)"),
        ({"tensors": {}}, "Missing: ['blk.0.attn_k.weight'"),
        ({"architecture": "mamba"}, "the architecture 'mamba', which is not known here; minigpt reads gpt2, llama, qwen3"),
        ({"change": lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN)}, "(rope.scaling.type=yarn)"),
        ({"change": lambda w: w.add_rope_scaling_factor(4.0)}, "(rope.scaling.factor=4.0)"),
        ({"tensors": F32 | {"rope_freqs.weight": (np.ones(8, "f4"), Type.F32)}}, "(rope_freqs.weight), as for a longer context"),
        ({"change": lambda w: setattr(w.kv_data[0]["llama.attention.value_length"], "value", 8)}, "value_length=8 in"),
        ({"change": lambda w: setattr(w.kv_data[0]["llama.attention.key_length"], "value", 8)}, "not the head's width of 8;"),
    ],
)  # fmt: skip
def test_a_model_that_does_not_fit_is_refused_with_all_that_is_wrong(options, words, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)):
        GPT.from_pretrained(write_gguf(tmp_path / "m.gguf", LLAMA, **options))


def test_a_type_of_weights_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf, "quantize", lambda x, kind: x.astype(np.float64) if kind == Type.F64 else x)
    path = write_gguf(tmp_path / "m.gguf", LLAMA, Type.F64)
    with pytest.raises(
        ValueError, match=r"token_embd\.weight in .* is stored as F64, .* minigpt reads F32, F16, BF16, Q8_0"
    ):
        GPT.from_pretrained(path)


@pytest.mark.parametrize(
    ("kind", "pre", "words"),
    [
        ("llama", "default", "holds a 'llama' tokenizer, which joins characters, as SentencePiece does"),
        ("gpt2", "tekken", "cuts words as 'tekken', which is not known here; minigpt knows default, gpt-2, smollm"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused_with_its_reason(kind, pre, words, tmp_path):
    def change(writer):
        write_tokenizer(writer, BPE._tokenizer, pre, kind)

    path = write_gguf(tmp_path / "m.gguf", LLAMA, change=change)
    assert GPT.from_pretrained(path)
    with pytest.raises(ValueError, match=re.escape(words)):
        load_tokenizer(path)


def test_a_file_without_a_tokenizer_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"lacks tokenizer\.ggml\.model"):
        load_checkpoint(write_gguf(tmp_path / "m.gguf", LLAMA))


def test_a_file_cut_anywhere_is_no_model(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", LLAMA, Type.Q8_0, tokenizer=BPE._tokenizer)
    whole = path.read_bytes()
    for length in [0, 2, 4, 9, *range(16, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is no GGUF file, or is damaged or half-written"):
            GPT.from_pretrained(path)


def test_what_is_no_gguf_file_is_told(tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_checkpoint(path)
    writer = gguf.GGUFWriter(path, "llama", endianess=gguf.GGUFEndian.BIG)
    for write in (
        writer.write_header_to_file,
        writer.write_kv_data_to_file,
        writer.write_tensors_to_file,
        writer.close,
    ):
        write()
    with pytest.raises(ValueError, match="its numbers are big-endian"):
        load_tokenizer(path)
    path.write_bytes(b"PK\3\4" * 1000)
    with pytest.raises(ValueError, match="does not begin with the letters GGUF"):
        load_tokenizer(path)
