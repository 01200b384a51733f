import copy
import json
import warnings

import pytest
import torch
from conftest import FAMILIES, TINY, make_model
from safetensors.torch import load_file, save_file

from minigpt import GPTConfig, TrainConfig, Trainer
from minigpt.finetune import (
    Classifier,
    add_lora,
    freeze,
    load_adapter,
    merge_lora,
    save_adapter,
    trainable_parameters,
)
from minigpt.finetune.lora import LoRAEmbedding, lora_layers, places
from minigpt.interop import to_hf_config, to_hf_weights, to_transformers

# peft 0.21 asks transformers 5.24 a question that is asked otherwise by now
PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(2))
KNOWN = ["gpt2", "llama", "llama-grouped", "qwen3"]
NAMES = {"gpt2": ["c_attn", "c_proj", "c_fc"], "llama": ["q_proj", "v_proj", "o_proj", "down_proj"]}


def _stir(model):
    """Adapters that matter: B is zero at first."""
    torch.manual_seed(4)
    for _, layer in lora_layers(model):
        for matrix in [layer.A, layer.B] if isinstance(layer, LoRAEmbedding) else layer.B.values():
            torch.nn.init.normal_(matrix, std=0.3)


def _adapted(family, classes=0, **options):
    model = make_model(FAMILIES[family])
    if classes:
        torch.manual_seed(3)
        model = Classifier(model, classes).eval()
    add_lora(model, **({"rank": 2} | options))
    _stir(model)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_at_first_an_adapter_changes_nothing_and_later_it_does(family):
    model = make_model(FAMILIES[family])
    before = model(IDX)[0]
    add_lora(model, rank=2)
    torch.testing.assert_close(model(IDX)[0], before, atol=1e-5, rtol=1e-5)
    _stir(model)
    assert (model(IDX)[0] - before).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("targets", [None, ["attention_proj"], "kv"])
def test_merged_and_unmerged_logits_agree(family, targets):
    known = places(FAMILIES[family])
    if targets == "kv" and "k" not in known:
        pytest.skip("the GPT-2 family adapts queries, keys and values as one")
    model = _adapted(family, targets=targets if targets is None or isinstance(targets, list) else list(targets))
    unmerged, names = model(IDX)[0], set(make_model(FAMILIES[family]).state_dict())
    merge_lora(model)
    torch.testing.assert_close(model(IDX)[0], unmerged, atol=1e-5, rtol=1e-5)
    assert set(model.state_dict()) == names and all(p.requires_grad for p in model.parameters())


def test_only_the_adapters_are_trained_and_a_classifiers_matrix():
    model = make_model(GPTConfig.llama(**TINY))
    add_lora(model, rank=2, targets=["q", "v"])
    assert trainable_parameters(model)[0] == 2 * 2 * 2 * (16 + 16)  # layers, targets, rank, in and out
    before = {name: p.clone() for name, p in model.named_parameters()}

    class Data:
        def batch(self, step, batch_size):
            return IDX, IDX.roll(-1, 1)

    Trainer(model, Data(), None, TrainConfig(max_steps=2, learning_rate=1e-2, precision="fp32"), callbacks=[]).fit()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if ".A." in name or ".B." in name}
    classifier = Classifier(make_model(FAMILIES["llama"]), 3)
    add_lora(classifier, rank=1)
    assert classifier.score.weight.requires_grad and not classifier.gpt.norm.weight.requires_grad


def test_muon_moves_adapters_too():
    model = make_model(FAMILIES["llama-grouped"])
    add_lora(model, rank=2)

    class Data:
        def batch(self, step, batch_size):
            return IDX, IDX.roll(-1, 1)

    settings = TrainConfig(max_steps=2, optimizer="muon", learning_rate=1e-2, precision="fp32")
    before = next(lora_layers(model))[1].B["q"].clone()
    Trainer(model, Data(), None, settings, callbacks=[]).fit()
    assert not torch.equal(next(lora_layers(model))[1].B["q"], before)


@PEFT
@pytest.mark.parametrize("family", ["gpt2", "llama-grouped", "qwen3"])
def test_peft_opens_our_adapter_and_computes_the_same(family, tmp_path):
    from peft import PeftModel

    model = _adapted(family, alpha=3)
    save_adapter(model, tmp_path, base="somewhere")
    theirs = PeftModel.from_pretrained(to_transformers(make_model(FAMILIES[family])), str(tmp_path)).eval()
    torch.testing.assert_close(theirs(IDX).logits, model(IDX)[0], atol=1e-5, rtol=1e-5)


@PEFT
@pytest.mark.parametrize("family", ["gpt2", "llama-grouped"])
def test_peft_opens_the_adapter_of_a_classifier_with_its_matrix(family, tmp_path):
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForSequenceClassification

    model, plain, idx = _adapted(family, 3), make_model(FAMILIES[family]), IDX.clamp(min=1)
    save_adapter(model, tmp_path)
    fields = to_hf_config(plain.config)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields, num_labels=3, pad_token_id=0)
    theirs = AutoModelForSequenceClassification.from_config(config)
    theirs.load_state_dict(to_hf_weights(plain.config, plain.state_dict()), strict=False)
    theirs = PeftModel.from_pretrained(theirs, str(tmp_path)).eval()
    torch.testing.assert_close(theirs(idx).logits, model(idx)[0], atol=1e-5, rtol=1e-5)


@PEFT
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_an_adapter_made_by_peft_opens_here_and_computes_the_same(family, rslora, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = make_model(FAMILIES[family])
    options = {"r": 3, "lora_alpha": 5, "target_modules": NAMES[family], "use_rslora": rslora}
    torch.manual_seed(6)
    theirs = get_peft_model(
        to_transformers(plain),
        LoraConfig(**options, init_lora_weights=False, fan_in_fan_out=family == "gpt2", task_type="CAUSAL_LM"),
    ).eval()
    theirs.save_pretrained(str(tmp_path))
    load_adapter(plain, tmp_path)
    torch.testing.assert_close(plain(IDX)[0], theirs(IDX).logits, atol=1e-5, rtol=1e-5)


@PEFT
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_table_that_peft_adapted_opens_here_and_computes_the_same(family, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForSequenceClassification

    plain, idx = make_model(FAMILIES[family].replace(tie_embedding=False)), IDX.clamp(min=1)
    fields = to_hf_config(plain.config)
    config = AutoConfig.for_model(fields.pop("model_type"), **fields, num_labels=2, pad_token_id=0)
    theirs = AutoModelForSequenceClassification.from_config(config)
    theirs.load_state_dict(to_hf_weights(plain.config, plain.state_dict()), strict=False)
    targets = [NAMES[family][0], "wte" if family == "gpt2" else "embed_tokens"]
    options = {"r": 2, "target_modules": targets, "init_lora_weights": False, "task_type": "SEQ_CLS"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it puts the table into the file, too
        theirs = get_peft_model(theirs, LoraConfig(**options, fan_in_fan_out=family == "gpt2")).eval()
        theirs.save_pretrained(str(tmp_path))
    ours = Classifier(plain, 2).eval()
    load_adapter(ours, tmp_path)
    torch.testing.assert_close(ours(idx)[0], theirs(idx).logits, atol=1e-5, rtol=1e-5)
    unmerged = ours(idx)[0]
    merge_lora(ours)
    torch.testing.assert_close(ours(idx)[0], unmerged, atol=1e-5, rtol=1e-5)


def test_the_table_of_a_writing_model_that_is_its_head_too_is_not_adapted():
    with pytest.raises(ValueError, match="leave 'embedding' out of the targets"):
        add_lora(make_model(FAMILIES["llama"]), targets=["q", "embedding"])
    untied = make_model(FAMILIES["llama"].replace(tie_embedding=False))
    add_lora(untied, targets=["embedding"])
    _stir(untied)
    before = untied(IDX)[0]
    merge_lora(untied)
    torch.testing.assert_close(untied(IDX)[0], before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("classes", [0, 3])
def test_there_and_back_through_a_folder_nothing_changes(classes, tmp_path):
    model = _adapted("llama-grouped", classes, targets=["k", "mlp_gate"], dropout=0.1)
    save_adapter(model, tmp_path)
    other = make_model(FAMILIES["llama-grouped"])
    other = Classifier(other, classes) if classes else other
    load_adapter(other, tmp_path)
    assert torch.equal(other.eval()(IDX)[0], model(IDX)[0])
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) < 10_000


def test_an_adapter_for_another_model_is_refused_and_this_one_is_left_as_it_was(tmp_path):
    save_adapter(_adapted("llama-grouped"), tmp_path, base="their-base")
    for config in (FAMILIES["llama"], FAMILIES["llama-grouped"].replace(n_layer=3), FAMILIES["gpt2"]):
        model = make_model(config)
        before = model(IDX)[0]
        with pytest.raises(ValueError, match=r"belongs to another model \(their-base\)"):
            load_adapter(model, tmp_path)
        assert torch.equal(model(IDX)[0], before) and all(p.requires_grad for p in model.parameters())
        assert not list(lora_layers(model))
    save_adapter(_adapted("llama", 2), tmp_path / "classifier")
    with pytest.raises(ValueError, match="belongs to a classifier"):
        load_adapter(make_model(FAMILIES["llama"]), tmp_path / "classifier")
    with pytest.raises(ValueError, match=r"missing \['base_model.model.score.weight'\]"):
        load_adapter(Classifier(make_model(FAMILIES["llama-grouped"]), 2), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern="),
        ({"peft_type": "IA3"}, "is IA3; only LORA"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"layers_to_transform": [0]}, "layers_to_transform="),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save="),
        ({"r": 0}, "r=0 and lora_alpha=4.0 should be numbers"),
        ({"lora_alpha": None}, "lora_alpha=None should be numbers"),
    ],
)
def test_an_option_of_peft_that_is_not_known_here_is_named(change, words, tmp_path):
    save_adapter(_adapted("llama"), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text()) | change
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=words):
        load_adapter(make_model(FAMILIES["llama"]), tmp_path)


def test_a_damaged_or_missing_file_is_named(tmp_path):
    model = make_model(FAMILIES["llama"])
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json"):
        load_adapter(model, tmp_path)
    save_adapter(_adapted("llama"), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:200])
    with pytest.raises(ValueError, match="damaged or half-written"):
        load_adapter(model, tmp_path)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=r"missing \['base_model"):
        load_adapter(model, tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "rank=0"),
        ({"targets": ["q", "vv"]}, "no matrix 'vv'. Did you mean"),
        ({"targets": []}, "0 targets"),
    ],
)
def test_an_adapter_that_cannot_work_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        add_lora(make_model(FAMILIES["llama"]), **options)


def test_adapters_are_added_once_and_merged_once(tmp_path):
    model = _adapted("llama")
    with pytest.raises(ValueError, match=r"merge_lora\(model\) first"):
        model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"merge_lora\(model\) first"):
        freeze(model)
    with pytest.raises(ValueError, match="adapters already"):
        add_lora(model)
    merge_lora(model)
    with pytest.raises(ValueError, match="no adapters to merge"):
        merge_lora(model)
    with pytest.raises(ValueError, match="no adapter to save"):
        save_adapter(model, "anywhere")


def test_a_shape_that_transformers_does_not_have_is_merged_and_not_saved_apart(tmp_path):
    model = make_model(GPTConfig.gpt2(**TINY, position="rotary"))
    add_lora(model, rank=1)
    with pytest.raises(ValueError, match="no model of transformers is like this one"):
        save_adapter(model, tmp_path)


def test_a_frozen_model_in_half_precision_takes_an_adapter_in_full():
    model = make_model(FAMILIES["llama"])
    full = copy.deepcopy(model)
    for m in (model.bfloat16(), full):
        torch.manual_seed(3)
        add_lora(m, rank=2)
        _stir(m)
    assert next(lora_layers(model))[1].A["q"].dtype == torch.float32
    assert (model(IDX)[0] - full(IDX)[0]).abs().max() < 0.3
