import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt import BPETokenizer, CharTokenizer, load_tokenizer
from minigpt.tokenizer import END_OF_TEXT, PIECE, pieces

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


spaced_text = st.lists(st.sampled_from([*"a1é中!' \n\t\r\u3000\x1f", "the", "'s", "  ", "\n\n", END_OF_TEXT])).map(
    "".join
)


@given(any_text | spaced_text, st.integers(1, 8))
def test_a_text_in_pieces_gives_the_ids_of_the_whole(text, length):
    parts = list(pieces(text, length))
    assert "".join(parts) == text
    assert [i for ids in BPE.encode_batch(parts) for i in ids] == BPE.encode(text)


def test_a_long_text_is_cut_into_short_pieces_and_learned_from_as_the_whole():
    text = "".join(f"{number} cats\nsat on {number * 7} mats; " for number in range(2000))
    assert max(map(len, pieces(text))) < 1.01 * PIECE
    assert BPETokenizer.train([text], 400).to_json() == BPETokenizer.train(pieces(text, 50), 400).to_json()


def test_a_full_disk_keeps_the_earlier_tokenizer(tmp_path, monkeypatch):
    BPE.save(tmp_path)

    def full(path, text, encoding):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        CHAR.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    assert load_tokenizer(tmp_path).encode("the cat") == BPE.encode("the cat")


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
