import json
import re
import warnings

import pytest
from conftest import transformers_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from minigpt import GPT, BPETokenizer, CharTokenizer, GPTConfig, load_corpus, load_tokenizer, save_checkpoint
from minigpt.chat_template import CHAT_TEMPLATE, CHAT_TOKENS
from minigpt.corpus import is_cached
from minigpt.tokenizer import END_OF_TEXT, byte_alphabet

TEXT = "the cat sat on the mat, and the cat ate the rat in 1603. " * 20
BPE = BPETokenizer.train([TEXT], vocab_size=320, special_tokens=(END_OF_TEXT, *CHAT_TOKENS))
CHAR = CharTokenizer.train([TEXT, "é😀\n"])
HOSTILE = [
    "",
    " ",
    "the cat\r\n\r\n\tsat  on   the mat ,and ' ll",
    "é́ ﬁ İ ß 好好 👨‍👩‍👧 \u200b\ufeff\u2028\x85\0\x7f\ufffd",
    "12345678901234567890",
    f"a {END_OF_TEXT} b{END_OF_TEXT}{END_OF_TEXT}<|im_start|>system\n<|im_end|><|endoftext",
]
characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from("\0\r\n\t\x85\u2028\u200b\ufeff é好😀'1")
any_text = st.lists(st.text(characters) | st.sampled_from([END_OF_TEXT, *CHAT_TOKENS, " the"])).map("".join)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Our BPE, as `transformers` opens it."""
    folder = tmp_path_factory.mktemp("saved")
    BPE.save(folder)
    return transformers_tokenizer(folder)


def _pair(folder, names=("vocab.json", "merges.txt")):
    """Our BPE as GPT-2's pair of files."""
    model = json.loads(BPE.to_json())["model"]
    merges = "\n".join(map(" ".join, model["merges"]))
    (folder / names[0]).write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    (folder / names[1]).write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")


def _changed(folder, change):
    """Our tokenizer.json, after `change(content)`."""
    content = json.loads(BPE.to_json())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@settings(max_examples=200, deadline=None)
@given(text=any_text)
def test_transformers_gives_equal_ids_with_special_tokens_as_text_and_as_what_they_are(opened, text):
    assert opened.encode(text, split_special_tokens=True) == BPE.encode(text)
    assert opened.encode(text) == BPE.encode(text, allowed_special=True)
    assert opened.decode(BPE.encode(text)) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_survive_saving_and_opening_here_and_there(opened, text, tmp_path):
    BPE.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.encode(text) == BPE.encode(text) == opened.encode(text, split_special_tokens=True)
    assert again.decode(again.encode(text, allowed_special=True)) == text == opened.decode(opened.encode(text))


def test_transformers_knows_the_end_of_the_text_the_padding_and_the_size(opened):
    assert (opened.eos_token_id, opened.pad_token_id, len(opened)) == (BPE.eos_id, BPE.eos_id, BPE.vocab_size)
    assert opened.chat_template == CHAT_TEMPLATE
    marked = BPE.encode("".join([*CHAT_TOKENS, "the cat", END_OF_TEXT]), allowed_special=True)
    assert opened.decode(marked, skip_special_tokens=True) == "the cat"
    padded = opened(["the cat sat", "the"], padding=True)["input_ids"]
    assert padded[1] == BPE.encode("the") + [BPE.eos_id] * (len(padded[0]) - 1)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_checkpoints_tokenizer_opens_in_transformers_beside_its_config(family, tmp_path):
    sizes = {"vocab_size": BPE.vocab_size, "n_layer": 1, "n_head": 2, "n_embd": 16, "context_length": 8}
    save_checkpoint(tmp_path, GPT(getattr(GPTConfig, family)(**sizes)), BPE)
    there = transformers_tokenizer(tmp_path)
    for text in HOSTILE:
        assert there.encode(text) == BPE.encode(text, allowed_special=True)
    assert there.eos_token == END_OF_TEXT and there.bos_token is None


def test_the_character_tokenizer_opens_in_transformers_too(tmp_path):
    CHAR.save(tmp_path)
    there, text = transformers_tokenizer(tmp_path), "the é😀\n  cat"
    assert there.encode(text) == CHAR.encode(text)
    assert there.decode(CHAR.encode(text)) == text
    assert there.eos_token is None


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_gpt2s_pair_of_files_gives_the_same_tokenizer(names, tmp_path):
    _pair(tmp_path, names)
    for where in (tmp_path, tmp_path / names[0]):
        again = load_tokenizer(where)
        assert (again.vocab_size, again.eos_id) == (BPE.vocab_size, BPE.eos_id)
        for text in HOSTILE[:-1]:
            assert again.encode(text) == BPE.encode(text)
    assert again.encode(END_OF_TEXT, allowed_special=True) == [BPE.eos_id]


def test_gpt2s_pair_of_files_is_read_as_transformers_reads_it(tmp_path):
    from transformers import GPT2Tokenizer

    _pair(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        there = GPT2Tokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    for text in HOSTILE[:-1]:
        assert there.encode(text) == ours.encode(text)


def test_the_published_files_of_gpt2_give_the_published_ids(tmp_path):
    if not is_cached("gpt2-tokenizer"):
        pytest.skip("gpt2-tokenizer is not in the cache")
    for row in load_corpus("gpt2-tokenizer"):
        (tmp_path / row["file"]).write_text(row["text"], encoding="utf-8")
    gpt2 = load_tokenizer(tmp_path)
    assert (gpt2.vocab_size, gpt2.eos_id) == (50257, 50256)
    # from the documentation of GPT2Tokenizer in `transformers`
    assert gpt2.encode("Hello world") == [15496, 995] and gpt2.encode(" Hello world") == [18435, 995]
    for text in HOSTILE:
        assert gpt2.decode(gpt2.encode(text)) == text


def test_what_others_files_add_to_a_text_is_switched_off(tmp_path):
    def meddle(content):
        content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        content["padding"] = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
        content["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": END_OF_TEXT}
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {END_OF_TEXT: {"id": END_OF_TEXT, "ids": [0], "tokens": [END_OF_TEXT]}},
        }

    text = "the cat sat on the mat"
    again = load_tokenizer(_changed(tmp_path, meddle))
    assert again.encode(text) == again.encode_batch([text])[0] == BPE.encode(text)


@pytest.mark.parametrize("eos", ["<|im_end|>", {"content": "<|im_end|>", "__type": "AddedToken"}])
def test_the_end_of_the_text_and_the_template_of_a_file_are_kept(eos, tmp_path):
    BPE.save(tmp_path)
    config = {"eos_token": eos, "chat_template": "{{ messages[0]['content'] }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    again = load_tokenizer(tmp_path)
    assert again.eos_id == BPE.special_tokens["<|im_end|>"]
    again.save(tmp_path / "copy")
    copy = load_tokenizer(tmp_path / "copy")
    assert (copy.eos_token, copy.chat_template) == ("<|im_end|>", config["chat_template"])
    (tmp_path / "chat_template.jinja").write_text("{{ 'x' }}")
    assert load_tokenizer(tmp_path).chat_template == "{{ 'x' }}"


def test_a_vocabulary_with_gaps_leaves_room_for_its_highest_id(tmp_path):
    def raise_one(content):
        content["model"]["vocab"]["Ġthe"] = 500

    again = load_tokenizer(_changed(tmp_path, raise_one))
    assert again.encode(" the") == [500] and again.vocab_size == 501
    assert again.decode([500, 400]) == " the" and again.token_bytes([400]) == [b""]


def _without_bytes(content):
    for character in "!Ġé":
        del content["model"]["vocab"][character]
    content["model"]["merges"] = []


def _metaspace(content):
    content["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}


def _merge_of_nothing(content):
    content["model"]["merges"].append(["qq", "zz"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without_bytes, "lacks 3 of the 256 bytes, such as 0x21"),
        (_metaspace, "joins characters, as SentencePiece makes it"),
        (_merge_of_nothing, "is damaged"),
        (lambda content: content.update(pre_tokenizer=None), "joins characters"),
        (lambda content: content["model"].update(vocab=["a", "b"]), "no table of tokens and ids"),
        (lambda content: content["model"].update(vocab={"a": "b"}), "no table of tokens and ids"),
        (lambda content: content.pop("model"), "is no tokenizer.json"),
        (lambda content: content.update(model=[1]), "is no tokenizer.json"),
        (lambda content: content["model"].update(type="WordPiece"), "holds a WordPiece tokenizer"),
        (lambda content: content["model"].update(type="WordLevel"), "whole words"),
    ],
)
def test_a_file_that_cannot_serve_is_refused_with_its_reason(change, words, tmp_path):
    with pytest.raises(ValueError, match=re.escape(words)):
        load_tokenizer(_changed(tmp_path, change))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"model": {', "is damaged"),
        (b"[" * 100_000, "is damaged"),
        (b"\xff\xfe{", "is damaged"),
        (b"[]", "is no tokenizer.json"),
        (b'{"model": {"type": "Unigram"}}', "holds a Unigram tokenizer"),
        (b'{"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2}}}', "ids are not 0 to 1"),
    ],
)
def test_a_damaged_or_foreign_tokenizer_file_is_named(content, words, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(words)):
        load_tokenizer(tmp_path)


def test_real_files_of_other_kinds_are_named(tmp_path):
    kinds = {
        "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer(show_progress=False)),
        "Unigram": (models.Unigram(), trainers.UnigramTrainer(vocab_size=60, show_progress=False)),
    }
    for kind, (model, trainer) in kinds.items():
        other = Tokenizer(model)
        other.pre_tokenizer = pre_tokenizers.Whitespace()
        other.train_from_iterator([TEXT], trainer)
        other.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(ValueError, match=kind):
            load_tokenizer(tmp_path)


def test_a_library_tokenizer_trained_without_the_alphabet_is_refused_rather_than_dropping_text(tmp_path):
    other = Tokenizer(models.BPE())
    other.pre_tokenizer, other.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    other.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=100, show_progress=False))
    assert other.decode(other.encode("the Q").ids) == "the "  # what would happen
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="of the 256 bytes"):
        load_tokenizer(tmp_path)


def test_a_vocabulary_that_lacks_control_characters_alone_opens_and_leaves_them_out(tmp_path):
    def without_controls(content):
        vocabulary = content["model"]["vocab"]
        for byte in (0x04, 0x1D, 0xC0, 0xF1, 0xFF):
            del vocabulary[next(character for character, b in byte_alphabet().items() if b == byte)]

    again = load_tokenizer(_changed(tmp_path, without_controls))
    assert again.encode("the cat\x04") == BPE.encode("the cat") and again.encode("\x05é😀") == BPE.encode("\x05é😀")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    _pair(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nonly-one-word\n")
    with pytest.raises(ValueError, match="do not fit or are damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match="needs merges.txt beside it"):
        load_tokenizer(tmp_path)


def test_a_damaged_config_beside_the_tokenizer_is_named(tmp_path):
    BPE.save(tmp_path)
    for content in ("{", "[]"):
        (tmp_path / "tokenizer_config.json").write_text(content)
        with pytest.raises(ValueError, match="tokenizer_config.json is damaged"):
            load_tokenizer(tmp_path)
