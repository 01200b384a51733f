import json
import re
from pathlib import Path

import pytest
import torch
from conftest import FAMILIES, TINY, make_model, transformers_tokenizer

from minigpt import (
    GPT,
    BPETokenizer,
    CharTokenizer,
    GPTConfig,
    generate,
    load_checkpoint,
    load_tokenizer,
    save_checkpoint,
)
from minigpt.chat_template import CHAT_TOKENS
from minigpt.corpus import FetchError
from minigpt.interop import architecture, from_hf_config, to_hf_config, to_transformers
from minigpt.tokenizer import END_OF_TEXT

IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(2))
KNOWN = [name for name, config in FAMILIES.items() if architecture(config)]


@pytest.mark.parametrize("family", KNOWN)
def test_transformers_computes_the_same_logits(family):
    model = make_model(FAMILIES[family])
    torch.testing.assert_close(to_transformers(model)(IDX).logits, model(IDX)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", KNOWN)
def test_a_saved_folder_opens_in_transformers(family, tmp_path):
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    model = make_model(FAMILIES[family])
    save_checkpoint(tmp_path, model, CharTokenizer.train(["to be\nor not"]))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(theirs(IDX).logits, model(IDX)[0], atol=1e-5, rtol=1e-5)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode("be\nnot to")) == "be\nnot to"


def greedy(theirs, ids, **options):
    """What `generate` of transformers writes after one prompt, the prompt included."""
    idx = torch.tensor([ids])
    return theirs.generate(idx, attention_mask=torch.ones_like(idx), do_sample=False, **options)[0].tolist()


TALK = "user\nhow are you?\nassistant\nfine, thank you.\n\n" * 20
TOKENIZERS = {
    "bpe": BPETokenizer.train([TALK], vocab_size=280),
    "chat": BPETokenizer.train([TALK], vocab_size=280, special_tokens=(END_OF_TEXT, *CHAT_TOKENS)),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("family", KNOWN)
def test_transformers_opens_the_folder_with_equal_tokens_and_stops_where_ours_does(family, kind, tmp_path):
    from transformers import AutoModelForCausalLM

    tokenizer = TOKENIZERS[kind]
    model = make_model(FAMILIES[family].replace(vocab_size=280, context_length=64))
    save_checkpoint(tmp_path, model, tokenizer)
    theirs, there = AutoModelForCausalLM.from_pretrained(tmp_path), transformers_tokenizer(tmp_path)
    torch.testing.assert_close(theirs(IDX).logits, model(IDX)[0], atol=1e-5, rtol=1e-5)
    ends = [
        tokenizer.special_tokens[token] for token in (END_OF_TEXT, *CHAT_TOKENS) if token in tokenizer.special_tokens
    ]
    assert theirs.generation_config.eos_token_id == (ends if kind == "chat" else ends[0])
    assert there.eos_token_id == tokenizer.eos_id and there.pad_token_id == tokenizer.eos_id
    assert there("fine, you?")["input_ids"] == tokenizer.encode("fine, you?")
    prompt = tokenizer.encode("how")
    free = generate(model, [prompt], max_new_tokens=30, temperature=0)[0]
    for end in ends:
        other = next(i for i in free if i not in (*prompt, *ends))
        renamed = make_model(model.config)  # the same model, in which the two tokens have each other's place
        for table in {renamed.token_embedding.weight, renamed.head.weight}:
            table.data[[end, other]] = table.data[[other, end]]
        save_checkpoint(tmp_path, renamed, tokenizer)
        written = greedy(
            AutoModelForCausalLM.from_pretrained(tmp_path), prompt, max_new_tokens=30, pad_token_id=ends[0]
        )
        assert written == generate(renamed, [prompt], max_new_tokens=30, temperature=0, stop_tokens=ends)[0]
        assert written[-1] == end and len(written) <= len(prompt) + 30


def test_without_a_tokenizer_or_an_end_config_names_none(tmp_path):
    model = make_model(FAMILIES["llama"])
    for save in (model.save_pretrained, lambda folder: save_checkpoint(folder, model, CharTokenizer.train(["abc"]))):
        save(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["eos_token_id"] is None


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_a_folder_written_by_transformers_opens_here(kind, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = to_hf_config(FAMILIES[kind])
    torch.manual_seed(1)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(fields.pop("model_type"), **fields)).eval()
    theirs.save_pretrained(tmp_path)
    torch.testing.assert_close(GPT.from_pretrained(tmp_path)(IDX)[0], theirs(IDX).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "llama-grouped"])
def test_a_folder_in_shards_opens_here(family, tmp_path):
    model = make_model(FAMILIES[family])
    to_transformers(model).save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    opened = GPT.from_pretrained(tmp_path)
    torch.testing.assert_close(opened(IDX)[0], to_transformers(model)(IDX).logits, atol=1e-5, rtol=1e-5)
    assert opened.head.weight is opened.token_embedding.weight and not opened.training
    next(tmp_path.glob("model-*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no model-0000\d-of"):
        GPT.from_pretrained(tmp_path)


def test_a_folder_with_pytorch_model_bin_alone_says_how_to_convert_it(tmp_path):
    make_model(FAMILIES["gpt2"]).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    words = (
        r"holds no model\.safetensors.*AutoModelForCausalLM\.from_pretrained\(FOLDER\)\.save_pretrained\(NEW_FOLDER\)"
    )
    with pytest.raises(FileNotFoundError, match=words):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("config", [*FAMILIES.values(), GPTConfig.gpt2(**TINY, position="rotary")], ids=str)
def test_bf16_weights_take_half_the_memory_and_hardly_move_the_logits(config, tmp_path):
    model = make_model(config)
    model.save_pretrained(tmp_path)
    half = GPT.from_pretrained(tmp_path, torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    assert {buffer.dtype for buffer in half.buffers()} <= {torch.float32}
    logits, expected = half(IDX)[0], model(IDX)[0]
    assert logits.dtype == torch.bfloat16 and (logits - expected).abs().mean() < 0.02 * expected.std()
    assert len(generate(half, IDX[:, :4], max_new_tokens=8, temperature=0)[0]) == 12
    with pytest.raises(ValueError, match=r"dtype=torch\.int8 cannot hold weights"):
        GPT.from_pretrained(tmp_path, torch.int8)


def test_a_name_on_the_hub_is_fetched_without_what_is_not_needed(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, make_model(FAMILIES["gpt2"]), CharTokenizer.train(["abc"]))
    asked = []

    def snapshot_download(name, allow_patterns, ignore_patterns, local_files_only):
        asked.append((name, local_files_only))
        assert {"*.safetensors", "*.json"} <= set(allow_patterns) and "*/*" in ignore_patterns
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.delenv("MINIGPT_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert GPT.from_pretrained("gpt2").config == FAMILIES["gpt2"]
    assert load_tokenizer("HuggingFaceTB/SmolLM2-135M").encode("cab") == [2, 0, 1]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert load_checkpoint("owner/name.v1")
    assert asked == [("openai-community/gpt2", False), ("HuggingFaceTB/SmolLM2-135M", False), ("owner/name.v1", True)]


@pytest.mark.parametrize("switch", ["MINIGPT_OFFLINE", "HF_HUB_OFFLINE"])
@pytest.mark.parametrize("open_it", [GPT.from_pretrained, load_checkpoint, load_tokenizer])
def test_a_name_on_the_hub_without_a_network_says_what_to_do(open_it, switch, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MINIGPT_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(switch, "1")
    words = f"no file or folder 'nobody/nothing-0', and .* {switch} forbids fetching it.*connect once and run"
    with pytest.raises(FetchError, match=words):
        open_it("nobody/nothing-0")


def test_a_network_that_fails_is_told(tmp_path, monkeypatch):
    def snapshot_download(name, **options):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.delenv("MINIGPT_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(FetchError, match=r"could not be fetched \(ConnectionError: no route to host\)"):
        GPT.from_pretrained("gpt2")


def test_a_path_is_never_taken_for_a_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(FAMILIES["gpt2"]).save_pretrained("owner/name")
    assert GPT.from_pretrained("owner/name")
    for where in ("nothing", "a/b/c", "./a/b", Path("owner") / "other", "models/m.gguf"):
        with pytest.raises(FileNotFoundError, match="holds no config.json|there is no file models/m.gguf"):
            GPT.from_pretrained(where)


def test_the_config_survives_the_journey_there_and_back():
    for name in KNOWN:
        assert from_hf_config(to_hf_config(FAMILIES[name])) == FAMILIES[name]


def test_heads_are_as_wide_as_the_file_says_or_as_it_means():
    from transformers import AutoConfig

    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96}
    sizes |= {"vocab_size": 31, "max_position_embeddings": 8, "num_hidden_layers": 2}
    for kind in ("llama", "qwen3"):
        for said in ({}, {"head_dim": 32}):
            theirs = AutoConfig.for_model(kind, **sizes, **said)
            assert from_hf_config({"model_type": kind, **sizes, **said}).head_dim == theirs.head_dim
    assert architecture(FAMILIES["gpt2"].replace(head_dim=12)) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "mamba"}, "model_type='mamba' is not known"),
        (to_hf_config(FAMILIES["gpt2"]) | {"activation_function": "relu"}, "activation_function='relu'"),
        (to_hf_config(FAMILIES["llama"]) | {"rope_parameters": {"rope_type": "yarn"}}, "rope_type='yarn'"),
        (to_hf_config(FAMILIES["llama"]) | {"head_dim": 5}, "head_dim=5 is odd"),
        (to_hf_config(FAMILIES["llama"]) | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "type='linear'"),
        (to_hf_config(FAMILIES["gpt2"]) | {"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx=True"),
        (to_hf_config(FAMILIES["qwen3"]) | {"use_sliding_window": True}, "use_sliding_window=True"),
    ],
)
def test_an_unknown_architecture_or_option_is_named(fields, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        from_hf_config(fields)


@pytest.mark.parametrize("own", [{"position": "rotary"}, {"head_dim": 12}])
def test_a_shape_of_our_own_is_saved_and_opened_too(own, tmp_path):
    model = make_model(GPTConfig.gpt2(**TINY, **own))
    assert architecture(model.config) is None
    model.save_pretrained(tmp_path)
    assert torch.equal(GPT.from_pretrained(tmp_path)(IDX)[0], model(IDX)[0])
    with pytest.raises(ValueError, match="no model of transformers"):
        to_transformers(model)


def test_saving_in_bf16_halves_the_file_and_hardly_moves_the_logits(tmp_path):
    model, tokenizer = make_model(FAMILIES["llama"]), CharTokenizer.train(["abc"])
    sizes = []
    for name, dtype in (("full", None), ("half", torch.bfloat16)):
        save_checkpoint(tmp_path / name, model, tokenizer, {"steps": 1}, dtype)
        sizes.append((tmp_path / name / "model.safetensors").stat().st_size)
    assert sizes[1] < 0.65 * sizes[0]
    half, back = load_checkpoint(tmp_path / "half")
    assert next(half.parameters()).dtype == torch.float32 and back.encode("cab") == [2, 0, 1]
    with torch.no_grad():
        assert (half(IDX)[0] - model(IDX)[0]).abs().max().item() < 0.2


def test_a_damaged_or_incomplete_checkpoint_is_named(tmp_path):
    model = make_model(FAMILIES["llama"])
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        GPT.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged or half-written"):
        GPT.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    (tmp_path / "config.json").write_text(FAMILIES["llama"].replace(n_layer=3).to_json().join(['{"minigpt": ', "}"]))
    with pytest.raises(ValueError, match=r"Missing: \['model\.layers\.2"):
        GPT.from_pretrained(tmp_path)


def test_a_full_disk_keeps_the_earlier_checkpoint(tmp_path, monkeypatch):
    model = make_model(FAMILIES["llama"])
    model.save_pretrained(tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def full(weights, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt.checkpoint.save_file", full)
    with pytest.raises(OSError, match="What was saved there before is untouched"):
        make_model(FAMILIES["llama"], seed=1).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
