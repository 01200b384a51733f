"""The card of the shipped checkpoint against its files: every figure, and the command that makes it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from conftest import transformers_tokenizer

from minigpt import GPTConfig, TrainConfig, cli, load_checkpoint, save_checkpoint

FOLDER = Path(__file__).resolve().parents[1] / "data" / "checkpoints" / "shakespeare"
CARD = (FOLDER / "README.md").read_text(encoding="utf-8")
TRAINING = json.loads((FOLDER / "training.json").read_text(encoding="utf-8"))
MODEL, TOKENIZER = load_checkpoint(FOLDER)


@pytest.mark.parametrize(
    "said",
    [
        f"{MODEL.num_parameters():,}, stored in bfloat16",
        f"BPE with {TOKENIZER.vocab_size:,} tokens",
        f"{MODEL.config.n_layer} layers, width {MODEL.config.n_embd}",
        f"{MODEL.config.n_head} heads sharing {MODEL.config.n_kv_head} key/value heads",
        f"{MODEL.config.context_length} tokens of context",
        f"{TRAINING['train']['max_steps']:,} updates, {TRAINING['tokens']:,} tokens, {TRAINING['seconds']:,.0f} seconds",
        f"in {TRAINING['precision']}",
        f"{TRAINING['val_loss']} nats per token, {TRAINING['val_bits_per_byte']} bits per byte",
    ],
)
def test_the_card_says_what_the_files_hold(said):
    assert said in CARD


def test_the_weights_are_stored_as_the_card_says():
    assert json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert (FOLDER / "model.safetensors").stat().st_size < 2.01 * MODEL.num_parameters()


def test_it_has_every_file_of_a_checkpoint_and_a_card(tmp_path):
    save_checkpoint(tmp_path, MODEL, TOKENIZER, TRAINING)
    assert {path.name for path in FOLDER.iterdir()} == {path.name for path in tmp_path.iterdir()} | {"README.md"}
    config = "tokenizer_config.json"
    assert (FOLDER / config).read_text(encoding="utf-8") == TOKENIZER.to_files()[config]


def test_transformers_opens_its_tokenizer_and_gives_the_same_ids():
    there, text = transformers_tokenizer(FOLDER), f"HAMLET:\n  To be, or not -- é😀<|endoftext|>\r\n{CARD}"
    assert there.encode(text, split_special_tokens=True) == TOKENIZER.encode(text)
    assert there.encode(text) == TOKENIZER.encode(text, allowed_special=True)
    assert there.decode(TOKENIZER.encode(text)) == text
    assert (there.eos_token_id, len(there)) == (TOKENIZER.eos_id, TOKENIZER.vocab_size)


def test_the_command_on_the_card_has_the_settings_of_the_training():
    command = re.search(r"^minigpt (train .+)$", CARD, re.MULTILINE)[1]
    choices = cli._choices(cli._parser().parse_args(shlex.split(command)))
    settings = TrainConfig.make(**{name: choices[name] for name in cli.FIELDS}).to_dict()
    assert json.loads(json.dumps(settings)) == TRAINING["train"] and TRAINING["corpus"] == "shakespeare"
    shape = GPTConfig.preset(choices["preset"], vocab_size=choices["vocab_size"], dropout=choices["dropout"])
    assert shape == MODEL.config and "--bf16" in command
