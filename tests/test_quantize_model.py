"""A whole model in 8 or 4 bits: what it computes, what is stored of it, and who does not take it."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, make_model
from safetensors.torch import load_file, save_file

from minigpt import (
    GPT,
    BPETokenizer,
    GPTConfig,
    TrainConfig,
    Trainer,
    generate,
    load_checkpoint,
    quantize,
    save_checkpoint,
)
from minigpt.estimate import num_parameters
from minigpt.finetune import Classifier, add_chat_tokens, add_lora
from minigpt.finetune.classifier_files import save_classifier
from minigpt.generate import KVCache
from minigpt.interop import save_gguf, to_transformers
from minigpt.interop.onnx import save_onnx
from minigpt.prune import prune
from minigpt.quantize import (
    DynamicLinear,
    Int4Linear,
    Quantization,
    dequantize,
    from_stored,
    is_quantized,
    size_in_bytes,
    to_stored,
)

BASE = Path(__file__).resolve().parents[1] / "data/checkpoints/base"
WIDE = {"vocab_size": 300, "n_layer": 2, "n_head": 2, "n_embd": 32, "n_hidden": 64, "context_length": 16}
CONFIGS = {
    "gpt2": GPTConfig.gpt2(**WIDE),
    "gpt2-untied": GPTConfig.gpt2(**WIDE, tie_embedding=False),
    "llama": GPTConfig.llama(**WIDE),
    "llama-grouped": GPTConfig.llama(**WIDE, n_kv_head=1, bias=True),
    "qwen3": GPTConfig.llama(**WIDE, n_kv_head=1, qk_norm=True, tie_embedding=False),
    "relu2": GPTConfig.llama(**WIDE, mlp="relu2", logit_cap=15.0),
}
WAYS = {
    "8": {"bits": 8},
    "8 groups": {"bits": 8, "group_size": 16},
    "8 dynamic": {"bits": 8, "activations": "int8"},
    "4": {"bits": 4},
    "4 mse": {"bits": 4, "method": "mse"},
}
IDX = torch.randint(0, 300, (2, 16), generator=torch.Generator().manual_seed(2))
BPE = BPETokenizer.train(["the cat sat on the mat, and the rat. " * 20], vocab_size=300)
needs_dynamic = pytest.mark.skipif(not DynamicLinear.available(), reason="this PyTorch lacks FBGEMM, which is for x86")


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(params=[pytest.param(way, marks=needs_dynamic if "dynamic" in way else ()) for way in WAYS])
def way(request):
    return WAYS[request.param]


def small(seed=0, name="llama"):
    """Weights of the size that training leaves, so that bf16 is near enough to compare logits."""
    model = make_model(CONFIGS[name], seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_near_its_floats(family):
    model = make_model(FAMILIES[family])
    idx = IDX[:, :8] % 31
    ours, theirs = quantize(model)(idx)[0], model(idx)[0]
    assert (ours - theirs).norm() < 0.1 * theirs.norm()


def test_it_computes_what_its_dequantized_weights_compute(config, way):
    quantized = quantize(make_model(config), **way)
    with torch.no_grad():
        theirs = dequantize(quantized)(IDX)[0]
    ours = quantized(IDX)[0]
    near = 0.2 if way.get("activations") == "int8" else 0.05
    assert (ours - theirs).norm() < near * theirs.norm()
    assert not torch.equal(ours, make_model(config)(IDX)[0])


def test_the_original_is_untouched_and_shares_nothing(config, way):
    model = make_model(config).train()
    before = copy.deepcopy(model.state_dict())
    quantized = quantize(model, **way)
    with torch.no_grad():
        for tensor in quantized.state_dict().values():
            tensor.zero_()
        for parameter in quantized.parameters():
            parameter.zero_()
    assert model.training and not is_quantized(model) and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert is_quantized(quantized) and not quantized.training


def test_dequantized_it_is_a_model_of_floats_again_on_the_same_numbers(config, way):
    quantized = quantize(make_model(config), **way)
    plain = dequantize(quantized)
    assert not is_quantized(plain) and all(p.requires_grad and p.dtype == torch.float32 for p in plain.parameters())
    assert (plain.head.weight is plain.token_embedding.weight) == config.tie_embedding
    assert plain.state_dict().keys() == make_model(config).state_dict().keys()
    for name, tensor in make_model(config).state_dict().items():
        step = tensor.abs().max() * (0.08 if way["bits"] == 8 else 0.2)
        assert (plain.state_dict()[name] - tensor).abs().max() <= step, name
    plain(IDX, IDX)[1].backward()
    with pytest.raises(ValueError, match="this model is not quantized"):
        dequantize(plain)


def test_a_later_token_never_moves_an_earlier_logit(config, way):
    quantized, other = quantize(make_model(config), **way), IDX.clone()
    other[:, 9:] = (other[:, 9:] + 1) % 300
    ours, theirs = quantized(IDX)[0], quantized(other)[0]
    assert torch.equal(ours[:, :9], theirs[:, :9]) and not torch.equal(ours[:, 9:], theirs[:, 9:])


def test_with_a_cache_it_computes_what_it_does_without(config, way):
    quantized = quantize(small(), **way) if config is CONFIGS["llama"] else quantize(make_model(config), **way)
    whole, cache, parts = quantized(IDX)[0], KVCache(config, 2), []
    for first, last in ((0, 7), (7, 8), (8, 16)):
        parts.append(quantized(IDX[:, first:last], cache=cache)[0])
    near = 0.1 if way.get("activations") == "int8" else 0.05
    assert (torch.cat(parts, dim=1) - whole).norm() < near * whole.norm()


def test_it_writes_and_writes_the_same_again(config, way):
    quantized = quantize(make_model(config), **way)
    first = generate(quantized, IDX[:, :4], max_new_tokens=20, temperature=0)
    assert first.shape == (2, 24) and torch.equal(
        first, generate(quantized, IDX[:, :4], max_new_tokens=20, temperature=0)
    )
    sampled = [generate(quantized, IDX[:, :4], max_new_tokens=8, seed=3) for _ in range(2)]
    assert torch.equal(*sampled)


def test_a_deep_copy_computes_the_same(way):
    quantized = quantize(small(name="gpt2"), **way)
    again = copy.deepcopy(quantized)
    assert torch.equal(again(IDX)[0], quantized(IDX)[0]) and again.quantization == quantized.quantization
    assert again.head is again.token_embedding.table


def test_it_says_how_many_numbers_it_has_as_its_floats_did(config, way):
    assert (
        quantize(make_model(config), **way).num_parameters()
        == make_model(config).num_parameters()
        == num_parameters(config)
    )


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_model_in_bf16_is_taken_and_a_quantized_one_may_be_cast(way, name):
    quantized = quantize(small(name=name).bfloat16(), **way)
    assert quantized(IDX)[0].dtype == torch.float32
    cast = quantize(small(name=name), **way).bfloat16()
    assert torch.isfinite(cast(IDX)[0]).all()
    assert generate(cast, IDX[:, :3], max_new_tokens=3, temperature=0).shape == (len(IDX), 6)


def test_a_model_on_a_card_is_refused(way):
    with pytest.raises(ValueError, match=r"this model is on meta, .* use model\.cpu\(\)"):
        quantize(small().to("meta"), **way)


@pytest.mark.parametrize("bits", [8, 4])
def test_it_takes_the_memory_that_is_promised(bits):
    model = load_checkpoint(BASE)[0]
    share = size_in_bytes(quantize(model, bits)) / size_in_bytes(model)
    assert size_in_bytes(model) == 4 * model.num_parameters() and share < {8: 0.27, 4: 0.17}[bits]


def test_it_comes_back_from_disk_bit_for_bit(config, way, tmp_path):
    quantized = quantize(make_model(config), **way)
    save_checkpoint(tmp_path, quantized, BPE, {"steps": 1})
    fields = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert fields.keys() == {"minigpt", "quantization"} and fields["quantization"]["bits"] == way["bits"]
    for loaded in (load_checkpoint(tmp_path)[0], GPT.from_pretrained(tmp_path, dtype=torch.bfloat16)):
        assert loaded.quantization == quantized.quantization and loaded.config == config and not loaded.training
        assert torch.equal(loaded(IDX)[0], quantized(IDX)[0])
        assert not any(p.requires_grad for p in loaded.parameters())


def test_what_was_cast_is_saved_in_the_types_of_any_other(way, tmp_path):
    quantized = quantize(small(name="gpt2"), **way)
    quantized.bfloat16().save_pretrained(tmp_path)
    assert GPT.from_pretrained(tmp_path).norm.weight.dtype == torch.float32


def test_the_file_of_the_courses_model_is_small(tmp_path):
    model = load_checkpoint(BASE)[0]
    for bits, most in ((8, 0.27), (4, 0.17)):
        quantize(model, bits).save_pretrained(tmp_path / str(bits))
        size = (tmp_path / str(bits) / "model.safetensors").stat().st_size
        assert size <= most * 4 * model.num_parameters(), size


def test_saving_it_in_another_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="whole numbers in 4 bits, which torch.bfloat16 does not apply to"):
        save_checkpoint(tmp_path, quantize(small(), 4), BPE, dtype=torch.bfloat16)


def test_tensors_are_read_when_their_turn_comes():
    quantized = quantize(small(name="qwen3"), 4)
    tensors, how = to_stored(quantized)

    class Watched(dict):
        looked_up = 0

        def __getitem__(self, name):
            self.looked_up += 1
            return super().__getitem__(name)

    watched = Watched(tensors)
    assert torch.equal(from_stored(quantized.config, watched, how)(IDX)[0], quantized(IDX)[0])
    assert watched.looked_up == 2 * len(tensors)  # its type, and its numbers


@needs_dynamic
def test_a_machine_without_a_kernel_for_whole_numbers_multiplies_the_same_weights(monkeypatch):
    quantized = quantize(small(), activations="int8")
    tensors, how = to_stored(quantized)
    monkeypatch.setattr(DynamicLinear, "available", staticmethod(lambda: False))
    opened = from_stored(quantized.config, tensors, how)
    assert opened.quantization == Quantization(8)
    assert torch.equal(dequantize(opened)(IDX)[0], dequantize(quantized)(IDX)[0])
    with pytest.raises(ValueError, match="needs a kernel that this build of PyTorch lacks"):
        quantize(small(), activations="int8")


def change(folder, **fields):
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["quantization"] |= fields
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 8, "group_size": None}, "blocks.0.attention.qkv.weight has shape (192, 32); the config asks for (1, 192, 64)"),
        ({"group_size": 64}, "the weights do not fit the config: blocks.0.attention.qkv.scale has shape (2, 192)"),
        ({"bits": 3}, "bits=3 has no kernel"),
        ({"unheard": 1}, "do not belong together, or lack something"),
        ({"method": "none"}, "method='none' is unknown"),
    ],
)  # fmt: skip
def test_a_config_of_other_weights_is_told(fields, words, tmp_path):
    quantize(make_model(GPTConfig.llama(**WIDE | {"n_embd": 64})), 4).save_pretrained(tmp_path)
    change(tmp_path, **fields)
    with pytest.raises(ValueError) as told:
        GPT.from_pretrained(tmp_path)
    assert words in str(told.value)


def test_weights_of_something_else_are_told(tmp_path):
    make_model(CONFIGS["relu2"]).save_pretrained(tmp_path / "floats")
    quantize(make_model(CONFIGS["relu2"])).save_pretrained(tmp_path / "few")
    both = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("floats", "few")]
    (tmp_path / "few/model.safetensors").write_bytes(both[0])
    with pytest.raises(ValueError, match=r"Missing: \['blocks\.0\.attention\.proj\.scale'"):
        GPT.from_pretrained(tmp_path / "few")
    (tmp_path / "floats/model.safetensors").write_bytes(both[1])
    with pytest.raises(ValueError, match=r"Unexpected: \['blocks\.0\.attention\.proj\.scale'"):
        GPT.from_pretrained(tmp_path / "floats")
    (tmp_path / "few/model.safetensors").write_bytes(both[1][:-10])
    with pytest.raises(ValueError, match="is damaged or half-written"):
        GPT.from_pretrained(tmp_path / "few")


@pytest.mark.parametrize("content", ["null", '"8"', "[8]", "8"])
def test_a_description_of_the_wrong_kind_is_told(content, tmp_path):
    quantize(small()).save_pretrained(tmp_path)
    config = json.dumps(CONFIGS["llama"].to_dict())
    (tmp_path / "config.json").write_text(f'{{"minigpt": {config}, "quantization": {content}}}', encoding="utf-8")
    with pytest.raises(ValueError, match="do not belong together"):
        GPT.from_pretrained(tmp_path)


def test_a_tensor_of_another_type_is_told(tmp_path):
    quantize(small()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["head.weight"] = tensors["head.weight"].float()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"head\.weight is stored as torch\.float32, and 8 bits are torch\.int8"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("method", ["rtn", "mse"])
def test_llama_cpps_q4_0_holds_the_weights_of_the_blocks_as_they_are(method, tmp_path):
    plain = dequantize(quantize(make_model(GPTConfig.llama(**WIDE | {"vocab_size": BPE.vocab_size})), 4, method=method))
    save_gguf(plain, BPE, tmp_path / "m.gguf", "q4_0")
    back = load_checkpoint(tmp_path / "m.gguf")[0].state_dict()
    for name, tensor in plain.state_dict().items():
        if name not in ("head.weight", "token_embedding.weight"):  # the table is in more bits there
            assert torch.equal(back[name], tensor), name


def test_who_reads_floats_alone_says_what_to_do(tmp_path):
    quantized, told = (
        quantize(small(), 4),
        r"is in 4 bits, and .* minigpt\.quantize\.dequantize\(model\), or the model that it",
    )
    refusals = [
        lambda: to_transformers(quantized),
        lambda: quantized.save_gguf(tmp_path / "m.gguf", BPE),
        lambda: save_onnx(quantized, tmp_path / "m.onnx"),
        lambda: add_lora(quantized),
        lambda: add_chat_tokens(quantized, BPE),
        lambda: save_classifier(tmp_path, Classifier(quantized, 2), BPE, ["no", "yes"]),
        lambda: prune(quantized),
    ]
    for refuse in refusals:
        with pytest.raises(ValueError, match=told):
            refuse()
    assert not list(tmp_path.iterdir())
    to_transformers(dequantize(quantized))


def test_it_is_not_trained(small_data):
    _, train, _ = small_data
    quantized = quantize(make_model(FAMILIES["llama"]))
    with pytest.raises(ValueError, match="as those of a quantized model do. Train the model that it was made from"):
        Trainer(quantized, train, config=TrainConfig(max_steps=1), callbacks=[])
    with pytest.raises(ValueError, match="in 8 bits gives no gradient"):
        quantized.requires_grad_(True)(IDX[:, :8] % 31, IDX[:, :8] % 31)


def test_a_classifier_may_stand_on_it_and_learns_its_classes_alone():
    classifier = Classifier(quantize(small()), 2)
    loss = classifier(IDX, torch.tensor([0, 1]))[1]
    loss.backward()
    assert classifier.score.weight.grad.abs().sum() > 0 and all(p.grad is None for p in classifier.gpt.parameters())
    with pytest.raises(ValueError, match="quantize its body: classifier.gpt = quantize"):
        quantize(classifier)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 3}, "bits=3 has no kernel on a processor; use bits=8 or bits=4"),
        ({"bits": "8"}, "bits='8' has no kernel"),
        ({"bits": True}, "bits=True has no kernel"),
        ({"bits": 8.0}, "bits=8.0 has no kernel"),
        ({"bits": 4, "group_size": 48}, "group_size=48 has no kernel for 4 bits; use 32, 64, 128, 256"),
        ({"bits": 4, "group_size": 16}, "group_size=16 has no kernel for 4 bits"),
        ({"bits": 4, "group_size": True}, "group_size=True"),
        ({"group_size": 0}, "group_size=0 is no number of weights"),
        ({"group_size": -32}, "group_size=-32 is no number of weights"),
        ({"group_size": "32"}, "group_size='32' is no number of weights"),
        ({"group_size": 48}, "group_size=48 does not divide the width 32 of token_embedding.weight; use group_size=32,"),
        ({"bits": 4, "group_size": 64}, "group_size=64 does not divide the width 32 of"),
        ({"method": "gtpq"}, "method='gtpq' is unknown. Did you mean 'gptq'?"),
        ({"method": None}, "method=None is unknown"),
        ({"activations": "int4"}, "activations='int4' is unknown. Did you mean 'int8'?"),
        ({"bits": 4, "activations": "int8"}, "use it with bits=8 and group_size=None"),
        ({"group_size": 32, "activations": "int8"}, "use it with bits=8 and group_size=None"),
    ],
)  # fmt: skip
def test_options_that_are_none_are_told(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        quantize(small(), **options)


def test_a_width_that_no_group_divides_is_told_with_the_matrix():
    with pytest.raises(
        ValueError, match=r"group_size=32 does not divide the width 80 of blocks\.0\.mlp\.proj\.weight; use bits=8 with"
    ):
        quantize(make_model(GPTConfig.llama(**WIDE | {"n_hidden": 80})), 4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["blocks.1.mlp.up.weight", "token_embedding.weight", "norm.weight"])
def test_weights_that_are_no_numbers_are_told_with_their_place(name, bad):
    model = small()
    with torch.no_grad():
        torch.atleast_2d(model.get_parameter(name))[0, 5] = bad
    with pytest.raises(
        ValueError,
        match=rf"{re.escape(name)} holds 1 numbers that are not finite .the first, {bad}, in row 0, column 5",
    ):
        quantize(model)


def test_quantizing_twice_and_quantizing_adapters_is_refused():
    with pytest.raises(ValueError, match="in 4 bits already, and rounding it again would add a second error"):
        quantize(quantize(small(), 4))
    model = small()
    add_lora(model)
    with pytest.raises(ValueError, match=r"has adapters beside its matrices: merge_lora\(model\) first"):
        quantize(model)


def test_a_row_of_zeros_is_taken():
    model = small()
    with torch.no_grad():
        model.blocks[0].mlp.up.weight[3] = 0
    for bits in (8, 4):
        assert torch.isfinite(quantize(model, bits)(IDX)[0]).all()


def test_4_bits_stay_4_bits_in_memory():
    layer = quantize(small(), 4).blocks[0].mlp.up
    assert type(layer) is Int4Linear and layer.packed.numel() == 64 * 32 // 2
