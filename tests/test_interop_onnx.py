import builtins
import itertools
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from conftest import FAMILIES, TINY, make_model
from onnx.reference import ReferenceEvaluator

from minigpt import GPTConfig, generate, load_checkpoint, load_corpus
from minigpt.corpus import is_cached
from minigpt.finetune import add_lora
from minigpt.interop import OnnxGPT, save_onnx

CONFIGS = FAMILIES | {
    "relu2": GPTConfig.llama(**TINY, mlp="relu2", qk_norm=True),
    "logit-cap": GPTConfig.gpt2(**TINY, logit_cap=2.0, tie_embedding=False),
    "llama-biased": GPTConfig.llama(**TINY, bias=True),
    "rotary-layernorm": GPTConfig.gpt2(**TINY, position="rotary", bias=False, qk_norm=True, rope_theta=500.0),
    "one-layer": GPTConfig.llama(**TINY | {"n_layer": 1}, norm_eps=0.1),
}
IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(2))
BASE = Path(__file__).resolve().parents[1] / "data" / "checkpoints" / "base"
PROMPTS = ["A: Hello! How are you?\nB:", "import os\n\ndef "]


def write(folder, model, bits=32):
    save_onnx(model, folder / "m.onnx", bits)
    return OnnxGPT(folder / "m.onnx")


def close(a, b, atol=1e-4):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_onnx_runtime_computes_the_same_logits_with_the_cache_at_every_split(name, tmp_path):
    model = make_model(CONFIGS[name])
    there = write(tmp_path, model)
    expected = model(IDX)[0].detach()
    assert there.config == model.config
    whole, cache = there(IDX)
    close(whole, expected)
    for first in range(1, 8):
        logits, half = there(IDX[:, :first])
        close(logits, expected[:, :first])
        logits, both = there(IDX[:, first:], half)
        close(logits, expected[:, first:])
        assert half[0].shape == (model.config.n_layer, 2, model.config.n_kv_head, first, model.config.head_dim)
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(both, cache))


@pytest.mark.parametrize("name", CONFIGS)
def test_one_token_at_a_time_is_the_same(name, tmp_path):
    model = make_model(CONFIGS[name])
    there, cache, steps = write(tmp_path, model), None, []
    for t in range(8):
        logits, cache = there(IDX[:, t : t + 1], cache)
        steps.append(logits)
    close(torch.cat(steps, dim=1), model(IDX)[0].detach())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_operators_are_used_as_the_standard_says(name, tmp_path):
    """By the reference implementation of ONNX itself, which shares no code with ONNX Runtime."""
    model = make_model(CONFIGS[name])
    save_onnx(model, tmp_path / "m.onnx")
    onnx.checker.check_model(tmp_path / "m.onnx", full_check=True)
    there = ReferenceEvaluator(str(tmp_path / "m.onnx"))
    keys = values = np.zeros((model.config.n_layer, 2, model.config.n_kv_head, 0, model.config.head_dim), np.float32)
    for part in (slice(5), slice(5, 8)):
        inputs = {"idx": IDX[:, part].numpy(), "past_keys": keys, "past_values": values}
        logits, keys, values = there.run(None, inputs)
        close(torch.from_numpy(logits), model(IDX)[0][:, part].detach())


def test_one_file_takes_batches_lengths_and_caches_of_any_size(tmp_path):
    model = make_model(FAMILIES["qwen3"])
    there = write(tmp_path, model)
    for B, T in itertools.product((1, 2, 5), (1, 3, 8)):
        idx = torch.randint(0, 31, (B, T), generator=torch.Generator().manual_seed(B + T))
        close(there(idx)[0], model(idx)[0].detach())
    close(there(IDX.int())[0], model(IDX)[0].detach())


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"seed": 3, "temperature": 0.8, "top_k": 9, "top_p": 0.9, "repetition_penalty": 1.3},
        {"seed": 4, "stop_tokens": (3, 7, 11, 19)},
    ],
)
def test_it_writes_what_generate_writes_beyond_the_context_too(name, options, tmp_path):
    model = make_model(CONFIGS[name])
    there = write(tmp_path, model)
    for idx in (IDX[:, :3], IDX[:1]):
        written = there.generate(idx, max_new_tokens=20, **options)
        assert torch.equal(written, generate(model, idx, max_new_tokens=20, **options))
    assert torch.equal(there.generate(IDX, max_new_tokens=0), IDX)


def test_without_a_seed_each_text_is_another(tmp_path):
    there = write(tmp_path, make_model(FAMILIES["llama"]))
    texts = {tuple(there.generate(IDX[:1, :2], max_new_tokens=20)[0].tolist()) for _ in range(4)}
    assert len(texts) > 1


@pytest.mark.parametrize("name", CONFIGS)
def test_int8_hardly_moves_the_logits(name, tmp_path):
    model = make_model(CONFIGS[name])
    expected = model(IDX)[0].detach()
    error = (write(tmp_path, model, bits=8)(IDX)[0] - expected).abs().mean() / expected.std()
    assert 0 < error < 0.1


def test_the_weights_are_stored_once_and_in_the_bits_that_the_docstring_says(tmp_path):
    for tied in (True, False):
        model = make_model(GPTConfig.llama(**TINY | {"n_embd": 64, "vocab_size": 512}, tie_embedding=tied))
        there = {bits: write(tmp_path, model, bits) and onnx.load(tmp_path / "m.onnx") for bits in (32, 8)}
        stored = {t.name: t for t in there[8].graph.initializer}
        tables = {name for name, t in stored.items() if sorted(t.dims) == [64, 512]}
        assert tables == {"token_embedding.weight"} | (set() if tied else {"head.weight_quantized"})
        matrices = [t for name, t in stored.items() if name.startswith("blocks") and len(t.dims) == 2]
        assert len(matrices) == 10 and {t.data_type for t in matrices} == {onnx.TensorProto.INT8}
        assert {stored[f"{t.name.removesuffix('quantized')}scale"].dims[0] == t.dims[1] for t in matrices} == {True}
        in_fp32 = sum(np.prod(t.dims) for t in there[32].graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        assert (
            in_fp32 == model.num_parameters() + 8 * 32
        )  # and 8 cosines and sines for half of the 32 numbers of a head


def test_a_model_in_bf16_or_in_training_is_written_and_stays_as_it_is(tmp_path):
    model = make_model(FAMILIES["gpt2"]).bfloat16().train()
    there = write(tmp_path, model)
    assert model.training and model.head.weight.dtype == torch.bfloat16
    close(there(IDX)[0], model.float().eval()(IDX)[0].detach())


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    model, tokenizer = load_checkpoint(BASE)
    for bits in (32, 8):
        save_onnx(model, folder / f"{bits}.onnx", bits)
    return folder, model, tokenizer


def test_the_base_model_writes_the_same_in_onnx_runtime(base):
    folder, model, tokenizer = base
    there = OnnxGPT(folder / "32.onnx")
    for prompt, options in itertools.product(
        PROMPTS, ({"temperature": 0}, {"temperature": 0.8, "top_k": 50, "seed": 1})
    ):
        idx = torch.tensor([tokenizer.encode(prompt)])
        written = there.generate(idx, max_new_tokens=48, **options)
        assert torch.equal(written, generate(model, idx, max_new_tokens=48, **options))


def test_the_base_model_in_int8_is_small_and_predicts_almost_as_well(base):
    folder, model, tokenizer = base
    sizes = [(folder / f"{bits}.onnx").stat().st_size for bits in (32, 8)]
    assert sizes[0] < 1.01 * 4 * model.num_parameters() and sizes[1] < 0.42 * sizes[0]
    if not is_cached("shakespeare"):
        pytest.skip("the text shakespeare is not here")
    text = "\n".join(load_corpus("shakespeare")["text"][:])[-20_000:]
    idx = torch.tensor(tokenizer.encode(text)[: 4 * 257]).view(4, 257)
    losses = {}
    for bits in (32, 8):
        logits = OnnxGPT(folder / f"{bits}.onnx")(idx[:, :-1])[0]
        losses[bits] = F.cross_entropy(logits.flatten(0, 1), idx[:, 1:].flatten()).item()
    with torch.no_grad():
        assert losses[32] == pytest.approx(model(idx[:, :-1], idx[:, 1:])[1].item(), abs=1e-5)
    assert 0 < abs(losses[8] - losses[32]) < 0.02 * losses[32]


@pytest.fixture
def llama(tmp_path):
    return write(tmp_path, make_model(FAMILIES["llama"]))


@pytest.mark.parametrize(
    ("idx", "words"),
    [
        (torch.zeros(1, 9).long(), "9 tokens do not fit context_length=8; keep the last ones, idx[:, -8:]"),
        (torch.tensor([[3, 31]]), "token id 31 lies outside the vocabulary 0 to 30"),
        (torch.tensor([[-1, 3]]), "token id -1 lies outside the vocabulary 0 to 30"),
        (torch.tensor([3]), "idx has shape (1,) and type torch.int64; expected are ids (B, T)"),
        (torch.zeros(1, 0).long(), "idx has shape (1, 0)"),
        (torch.zeros(1, 2), "and type torch.float32; expected are ids (B, T), whole numbers"),
    ],
)
def test_ids_that_do_not_fit_are_refused(idx, words, llama):
    for call in (llama, llama.generate):
        with pytest.raises(ValueError, match=re.escape(words)):
            call(idx)


def test_a_cache_that_is_full_or_of_other_rows_is_refused(llama):
    cache = llama(IDX[:, :6])[1]
    with pytest.raises(ValueError, match=re.escape("9 tokens do not fit context_length=8")):
        llama(IDX[:, :3], cache)
    with pytest.raises(ValueError, match=re.escape("(2, 2, 2, 6, 8), expected (2, 1, 2, 6, 8) for 1 rows")):
        llama(IDX[:1, :1], cache)
    with pytest.raises(ValueError, match="temperature=-1 does not fit"):
        llama.generate(IDX, temperature=-1)


def with_nan():
    model = make_model(FAMILIES["llama"])
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[0, 0] = torch.nan
    return model


def with_adapters():
    model = make_model(FAMILIES["llama"])
    add_lora(model)
    return model


@pytest.mark.parametrize(
    ("make", "name", "bits", "words"),
    [
        (lambda: make_model(FAMILIES["llama"]), "m.onnx", 4, "bits=4 is not known here; use 32 (fp32) or 8 (int8)"),
        (lambda: make_model(FAMILIES["llama"]), "m.bin", 32, "m.bin does not end in .onnx; name the file m.onnx"),
        (with_nan, "m.onnx", 32, "blocks.1.mlp.up.weight holds NaN or infinity"),
        (with_adapters, "m.onnx", 32, "the model has adapters beside its matrices: merge_lora(model) first"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_no_file(make, name, bits, words, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)):
        save_onnx(make(), tmp_path / name, bits)
    assert not list(tmp_path.iterdir())


def test_a_model_too_large_for_one_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("minigpt.interop.onnx.LARGEST", 10_000)
    with pytest.raises(ValueError, match=r"GB in fp32, and one \.onnx file holds"):
        save_onnx(make_model(FAMILIES["llama"]), tmp_path / "m.onnx")


def test_a_full_disk_keeps_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "m.onnx"
    save_onnx(make_model(FAMILIES["llama"]), path)
    before = path.read_bytes()

    def full(model, part):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save", full)
    with pytest.raises(OSError, match="What was saved there before is untouched"):
        save_onnx(make_model(FAMILIES["gpt2"]), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("package", "act"),
    [
        ("onnx", lambda path: save_onnx(make_model(FAMILIES["llama"]), path)),
        ("onnxruntime", lambda path: save_onnx(make_model(FAMILIES["llama"]), path, 8)),
        ("onnxruntime", OnnxGPT),
    ],
)
def test_a_package_that_is_missing_is_named(package, act, tmp_path, monkeypatch):
    genuine = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return genuine(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=rf"the package {package}; run: pip install"):
        act(tmp_path / "m.onnx")


def test_what_is_no_file_of_ours_is_told(tmp_path):
    path = tmp_path / "m.onnx"
    with pytest.raises(FileNotFoundError, match=r"there is no file .*m\.onnx; save_onnx\(model, path\) writes it"):
        OnnxGPT(path)
    save_onnx(make_model(FAMILIES["llama"]), path)
    whole = path.read_bytes()
    for damaged in (b"", b"PK\3\4" * 100, whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"m\.onnx (is no \.onnx file that can be opened|does not say)"):
            OnnxGPT(path)
    model = onnx.load_from_string(whole)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(ValueError, match="does not say which shape its model has"):
        OnnxGPT(path)


@pytest.mark.parametrize("bits", [32, 8])
def test_nothing_is_said_while_it_is_written_and_run(bits, tmp_path, capfd, caplog):
    there = write(tmp_path, make_model(FAMILIES["gpt2-grouped"]), bits)
    there.generate(IDX, max_new_tokens=3)
    said = capfd.readouterr()
    assert (said.out, said.err, caplog.records) == ("", "", [])


def test_it_takes_as_many_threads_as_pytorch(tmp_path, two_threads):
    save_onnx(make_model(FAMILIES["llama"]), tmp_path / "m.onnx")
    there = OnnxGPT(tmp_path / "m.onnx")
    assert there._session.get_session_options().intra_op_num_threads == torch.get_num_threads() == 2
