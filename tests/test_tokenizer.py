import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from minigpt import BPETokenizer, CharTokenizer, load_tokenizer
from minigpt.chat_template import CHAT_TOKENS
from minigpt.tokenizer import END_OF_TEXT, PIECE, byte_alphabet, pieces

TEXT = "the cat sat on the mat, and the cat ate the rat. " * 20
BPE = BPETokenizer.train([TEXT], vocab_size=300, special_tokens=(END_OF_TEXT, *CHAT_TOKENS))
CHAR = CharTokenizer.train([TEXT, "é😀\n"])
characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from(
    "\0\r\n\t\x85\u2028\u200b\ufeff\ufffdé好😀👨‍👩‍👧 1"
)
any_text = st.lists(st.text(characters) | st.sampled_from([END_OF_TEXT, *CHAT_TOKENS, "the cat"])).map("".join)


@given(any_text)
def test_bpe_writes_any_text_and_reads_it_back(text):
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert b"".join(BPE.token_bytes(ids)) == text.encode()
    assert not set(ids) & set(BPE.special_tokens.values())


@given(any_text)
def test_special_tokens_that_are_meant_come_back_as_they_were(text):
    ids = BPE.encode(text, allowed_special=True)
    assert BPE.decode(ids) == text and b"".join(BPE.token_bytes(ids)) == text.encode()
    assert ids.count(BPE.eos_id) == text.count(END_OF_TEXT)


@given(any_text, st.integers(0xD800, 0xDFFF).map(chr), any_text)
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(before, half, after):
    with pytest.raises(ValueError, match=f"character {len(before)} is .*surrogate"):
        BPE.encode(before + half + after)


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert load_tokenizer(tmp_path).encode("the cat") == BPE.encode("the cat")


def test_frequent_words_become_one_token_and_special_tokens_are_whole():
    assert len(BPE.encode(" the")) == 1
    assert BPE.encode(END_OF_TEXT, allowed_special=True) == [BPE.eos_id]
    assert BPE.decode([BPE.eos_id]) == END_OF_TEXT
    assert CHAR.eos_id is None


def test_a_special_token_that_somebody_typed_is_text_also_in_a_batch_and_in_another_process():
    typed = f"a{END_OF_TEXT}b"
    ids = BPE.encode(typed)
    assert BPE.eos_id not in ids
    assert BPE.encode_batch([typed]) == [ids]
    assert BPE.encode_batch([typed], allowed_special=True) == [BPE.encode(typed, allowed_special=True)] != [ids]
    assert pickle.loads(pickle.dumps(BPE)).encode(typed) == ids


def test_token_strings_show_white_space_and_what_has_no_shape():
    assert BPE.token_strings(BPE.encode(" the\n")) == ["·the", "↵"]
    assert CHAR.token_strings(CHAR.encode("a \n")) == ["a", "·", "↵"]
    assert BPE.token_strings(BPE.encode("\r\0\t")) == ["\\r", "\\x00", "→"]
    assert BPE.token_strings(BPE.encode("é")) == ["C3", "A9"]
    assert BPE.token_strings([BPE.eos_id]) == [END_OF_TEXT]


def test_the_alphabet_of_bytes_is_the_librarys():
    assert sorted(byte_alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    for byte in range(256):
        character = next(c for c, b in byte_alphabet().items() if b == byte)
        assert BPE.token_bytes([BPE._tokenizer.token_to_id(character)]) == [bytes([byte])]
    assert BPE._tokenizer.encode(" ").tokens == ["Ġ"]


@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_learnt_from_no_text_it_knows_the_bytes_alone_and_writes_any_text(texts):
    tokenizer = BPETokenizer.train(texts, vocab_size=300)
    assert tokenizer.vocab_size == 257
    assert tokenizer.token_bytes(tokenizer.encode("aé")) == [b"a", b"\xc3", b"\xa9"]


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
