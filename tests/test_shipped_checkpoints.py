"""The cards of the shipped checkpoints against their files: every figure, and the command that makes each."""

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import transformers_tokenizer

from minigpt import GPTConfig, TrainConfig, generate, load_checkpoint, save_checkpoint
from minigpt.cli import _parser
from minigpt.cli.train import FIELDS, _choices
from minigpt.lab.experiments import compression
from minigpt.lab.experiments import compression_training as training
from minigpt.recipes import find_recipe

CHECKPOINTS = Path(__file__).resolve().parents[1] / "data" / "checkpoints"
LARGEST = 12_000_000  # bytes of one checkpoint


@pytest.fixture(scope="module", params=sorted(path.name for path in CHECKPOINTS.iterdir()))
def shipped(request):
    folder = CHECKPOINTS / request.param
    model, tokenizer = load_checkpoint(folder)
    card = (folder / "README.md").read_text(encoding="utf-8")
    training = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return SimpleNamespace(folder=folder, model=model, tokenizer=tokenizer, card=card, training=training)


def test_the_card_says_what_the_files_hold(shipped):
    config, training = shipped.model.config, shipped.training
    said = [
        f"{shipped.model.num_parameters():,}, stored in bfloat16",
        f"BPE with {shipped.tokenizer.vocab_size:,} tokens",
        f"{config.n_layer} layers, width {config.n_embd}",
        f"{config.n_head} heads sharing {config.n_kv_head} key/value heads",
        f"{config.context_length} tokens of context",
        f"{training['train']['max_steps']:,} updates, {training['tokens']:,} tokens",
        f"{training['seconds']:,.0f} seconds in {training['precision']}",
        f"{training['val_loss']} nats per token, {training['val_bits_per_byte']} bits per byte",
    ]
    said += [f"{found['val_loss']} | {found['val_bits_per_byte']} |" for found in training.get("sources", {}).values()]
    missing = [words for words in said if words not in shipped.card]
    assert not missing


def test_the_weights_are_stored_as_the_card_says_and_the_whole_is_small(shipped):
    assert json.loads((shipped.folder / "config.json").read_text(encoding="utf-8"))["dtype"] == "bfloat16"
    assert (shipped.folder / "model.safetensors").stat().st_size < 2.01 * shipped.model.num_parameters()
    assert sum(path.stat().st_size for path in shipped.folder.iterdir()) < LARGEST


def test_it_has_every_file_of_a_checkpoint_and_a_card(shipped, tmp_path):
    save_checkpoint(tmp_path, shipped.model, shipped.tokenizer, shipped.training)
    assert {path.name for path in shipped.folder.iterdir()} == {path.name for path in tmp_path.iterdir()} | {
        "README.md"
    }
    config = "tokenizer_config.json"
    assert (shipped.folder / config).read_text(encoding="utf-8") == shipped.tokenizer.to_files()[config]


def test_transformers_opens_its_tokenizer_and_gives_the_same_ids(shipped):
    there, tokenizer = transformers_tokenizer(shipped.folder), shipped.tokenizer
    text = f"HAMLET:\n  To be, or not -- é😀<|endoftext|>\r\n{shipped.card}"
    assert there.encode(text, split_special_tokens=True) == tokenizer.encode(text)
    assert there.encode(text) == tokenizer.encode(text, allowed_special=True)
    assert there.decode(tokenizer.encode(text)) == text
    assert (there.eos_token_id, len(there)) == (tokenizer.eos_id, tokenizer.vocab_size)


def test_transformers_writes_the_same_and_stops_at_the_end_of_a_text(shipped):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(shipped.folder, dtype=torch.float32)
    there, end = transformers_tokenizer(shipped.folder), shipped.tokenizer.eos_id
    assert theirs.generation_config.eos_token_id == end
    for prompt in ("ROMEO:\n", "A: Hello! How are you?\nB:"):
        idx = there(prompt, return_tensors="pt")
        written = theirs.generate(**idx, do_sample=False, max_new_tokens=60, pad_token_id=end)
        ours = generate(shipped.model, idx["input_ids"], temperature=0, max_new_tokens=60, stop_tokens=(end,))
        assert torch.equal(written, ours) and there.decode(written[0]) == shipped.tokenizer.decode(ours[0].tolist())


def test_the_command_on_the_card_has_the_settings_of_the_training(shipped):
    command = re.search(r"^minigpt (train .+)$", shipped.card, re.MULTILINE)
    if command is None:
        pytest.skip("the laboratory of notebook 07 makes it")
    command = command[1]
    choices = _choices(_parser().parse_args(shlex.split(command)))
    if choices["recipe"]:
        recipe = find_recipe(choices["recipe"])
        config, shape = recipe.train_config(), recipe.model_config(recipe.vocab_size)
    else:
        config = TrainConfig.make(**{name: choices[name] for name in FIELDS})
        shape = GPTConfig.preset(choices["preset"], vocab_size=choices["vocab_size"], dropout=choices["dropout"])
    settings = json.loads(json.dumps(config.to_dict()))
    assert shipped.training["train"].items() <= settings.items()  # an older run knows fewer fields
    assert shape == shipped.model.config and "--bf16" in command


def test_the_student_has_the_settings_of_the_laboratory():
    shipped, name = CHECKPOINTS / "student", "student, distilled"
    written = json.loads((shipped / "training.json").read_text(encoding="utf-8"))
    assert written["train"].items() <= training.settings(name).to_dict().items()
    assert written["alpha"] == training.RUNS[name]["alpha"]
    assert load_checkpoint(shipped)[0].config == training.cut(training.RUNS[name]).config
    assert f"python -m {compression.__name__} --only trained" in (shipped / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "prompt", "known"), [
    ("base", "A: Hello! How are you?\nB:", "chitchat"),
    ("base", "Fellow-Citizens of the Senate", "sotu"),
    ("base", "ROMEO:\n", "shakespeare"),
    ("base", "import os\n\ndef ", "python-stdlib"),
    ("shakespeare", "ROMEO:\n", "shakespeare"),
])  # fmt: skip
def test_most_of_the_words_that_it_writes_are_words(name, prompt, known):
    """Words of its own texts, that is, or of the other prose: a model that stutters or mixes letters fails."""
    from minigpt import load_corpus
    from minigpt.corpus import is_cached

    if not is_cached(known):
        pytest.skip(f"the text {known} is not here")
    model, tokenizer = load_checkpoint(CHECKPOINTS / name)
    ids = generate(model, [tokenizer.encode(prompt)], max_new_tokens=200, temperature=0.8, top_k=50, seed=1)
    words = re.findall(r"[a-z]+", tokenizer.decode(ids[0]).lower())
    vocabulary = set(re.findall(r"[a-z]+", "\n".join(load_corpus(known)["text"][:]).lower()))
    assert len(words) > 60 and sum(word in vocabulary for word in words) > 0.9 * len(words)
    assert len(set(words)) > 0.3 * len(words)
