import json
import re

import pytest
import torch
from conftest import FAMILIES, TINY, make_model
from safetensors.torch import save_file

from minigpt import GPT, BPETokenizer, GPTConfig, load_checkpoint, save_checkpoint
from minigpt.files import write_atomically

TOKENIZER = BPETokenizer.train(["the cat sat on the mat. " * 20], vocab_size=270)
IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(2))
OWN = GPTConfig.gpt2(**TINY, position="rotary")  # a shape that transformers has not


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_checkpoint_is_five_files_and_comes_back_as_it_was(config, tmp_path):
    model, training = make_model(config), {"val_loss": 1.5, "corpus": "mine"}
    save_checkpoint(tmp_path / "new" / "folder", model, TOKENIZER, training)
    folder = tmp_path / "new" / "folder"
    tokenizer_files = {"tokenizer.json", "tokenizer_config.json"}
    assert set(contents(folder)) == {"config.json", "model.safetensors", "training.json", *tokenizer_files}
    loaded, tokenizer = load_checkpoint(folder)
    assert torch.equal(loaded(IDX)[0], model(IDX)[0]) and loaded.config == config and not loaded.training
    assert tokenizer.encode("the cat") == TOKENIZER.encode("the cat")
    assert json.loads((folder / "training.json").read_text(encoding="utf-8")) == training


def test_saving_anew_replaces_the_weights_and_keeps_what_is_not_told(tmp_path):
    save_checkpoint(tmp_path, make_model(FAMILIES["llama"]), TOKENIZER, {"steps": 1})
    other = make_model(FAMILIES["llama"], seed=1)
    save_checkpoint(tmp_path, other, TOKENIZER)
    assert torch.equal(load_checkpoint(tmp_path)[0](IDX)[0], other(IDX)[0]) and "training.json" in contents(tmp_path)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("failure", "expected", "words"),
    [
        (OSError(28, "No space left on device"), OSError, r"could not write tokenizer\.json .* is untouched"),
        (RuntimeError("unexpected pos"), OSError, r"could not write tokenizer\.json .* is untouched"),
        (Killed("by hand"), Killed, "by hand"),
    ],
)
def test_a_full_disk_or_a_killed_process_leaves_all_files_of_the_earlier_checkpoint(
    tmp_path, monkeypatch, failure, expected, words
):
    save_checkpoint(tmp_path, make_model(FAMILIES["llama"]), TOKENIZER, {"steps": 1})
    before = contents(tmp_path)

    def fail(path, text, encoding):
        path.open("w").close()
        if "tokenizer.json" in path.name:  # the third of five
            raise failure

    monkeypatch.setattr("pathlib.Path.write_text", fail)
    with pytest.raises(expected, match=words):
        save_checkpoint(tmp_path, make_model(FAMILIES["gpt2"]), TOKENIZER, {"steps": 2})
    assert contents(tmp_path) == before


def test_files_are_written_together_or_not_at_all(tmp_path):
    def fail(path):
        raise OSError(28, "No space left on device")

    write_atomically(tmp_path, {"a": lambda path: path.write_text("1"), "b": lambda path: path.write_text("1")})
    with pytest.raises(OSError, match="could not write b "):
        write_atomically(tmp_path, {"a": lambda path: path.write_text("2"), "b": fail})
    assert contents(tmp_path) == {"a": b"1", "b": b"1"}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", b"", "is damaged or half-written"),
        ("config.json", b"\xff\xfe", "is damaged or half-written"),
        ("config.json", b"[1, 2]", "config.json names no fields"),
        ("config.json", b"{}", "model_type=None is not known here"),
        ("config.json", b'{"model_type": "llama"}', "lack something ('vocab_size')"),
        ("config.json", b'{"minigpt": 5}', "do not belong together, or lack something"),
        ("config.json", b'{"minigpt": {"n_layers": 2}}', "Did you mean 'n_layer'?"),
        ("config.json", json.dumps({"minigpt": OWN.replace(n_layer=3).to_dict()}).encode(), "blocks.2.attention_norm.weight"),
        ("config.json", json.dumps({"minigpt": OWN.replace(n_embd=32).to_dict()}).encode(), "the config asks for (32,)"),
        ("model.safetensors", b"", "is damaged or half-written"),
        ("model.safetensors", b"\x00" * 100, "is damaged or half-written"),
    ],
)  # fmt: skip
def test_a_file_that_is_damaged_or_of_another_model_is_told(tmp_path, name, content, words):
    make_model(OWN).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("config", [OWN, FAMILIES["llama"]], ids=["own", "llama"])
def test_weights_of_something_else_are_told(tmp_path, config):
    make_model(config).save_pretrained(tmp_path)
    save_file({"something": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="do not belong together|Missing"):
        GPT.from_pretrained(tmp_path)


def test_a_folder_without_a_tokenizer_is_told(tmp_path):
    make_model(FAMILIES["llama"]).save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .* expected is a tokenizer\.json"):
        load_checkpoint(tmp_path)
