import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import BPETokenizer, CharTokenizer, load_tokenizer
from minigpt.tokenizer import END_OF_TEXT

TEXT = "the cat sat on the mat, and the cat ate the rat. " * 20
BPE = BPETokenizer.train([TEXT], vocab_size=300)
CHAR = CharTokenizer.train([TEXT, "é😀\n"])
any_text = st.text(st.characters(exclude_categories=["Cs"]))


@given(any_text)
def test_bpe_writes_any_text_and_reads_it_back(text):
    assert BPE.decode(BPE.encode(text)) == text


@given(st.text(st.sampled_from(CHAR.characters)))
def test_characters_there_and_back(text):
    ids = CHAR.encode(text)
    assert len(ids) == len(text) and CHAR.decode(ids) == text


@pytest.mark.parametrize("tokenizer", [BPE, CHAR])
def test_a_batch_is_the_same_as_one_by_one_and_saving_changes_nothing(tokenizer, tmp_path):
    texts = ["the cat", "", "rat, mat"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert type(again) is type(tokenizer) and again.vocab_size == tokenizer.vocab_size
    assert again.encode("the rat sat") == tokenizer.encode("the rat sat")


def test_frequent_words_become_one_token_and_special_tokens_are_whole():
    assert len(BPE.encode(" the")) == 1
    assert BPE.encode(END_OF_TEXT) == [BPE.eos_id]
    assert BPE.decode([BPE.eos_id]) == END_OF_TEXT
    assert CHAR.eos_id is None


def test_token_strings_show_white_space():
    assert BPE.token_strings(BPE.encode(" the\n")) == ["·the", "↵"]
    assert CHAR.token_strings(CHAR.encode("a \n")) == ["a", "·", "↵"]


def test_every_id_stays_below_the_vocabulary_size():
    assert max(BPE.encode(TEXT)) < BPE.vocab_size <= 300


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda: CHAR.encode("the ż"), "character 4 is 'ż'"),
        (lambda: BPE.encode("a\ud800"), "character 1 is '\\ud800', half of a surrogate pair"),
        (lambda: BPE.decode([300]), "token id 300 lies outside"),
        (lambda: CHAR.decode([-1]), "token id -1 lies outside"),
        (lambda: BPETokenizer.train([TEXT], vocab_size=200), "use at least 257"),
        (lambda: CharTokenizer.train([""]), "the texts are empty"),
        (lambda: BPE.encode(["the"]), "use encode_batch"),
    ],
)
def test_impossible_input_is_refused_with_what_to_do(action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action()


def test_a_damaged_or_missing_tokenizer_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {')
    with pytest.raises(ValueError, match="damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
    with pytest.raises(ValueError, match="Unigram"):
        load_tokenizer(tmp_path)
