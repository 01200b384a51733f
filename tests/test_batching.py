import numpy as np
import pytest
import torch
from datasets import Dataset

from minigpt import BPETokenizer, CharTokenizer, TokenData, pack
from minigpt.corpus import load_corpus

DOCUMENTS = [f"document {i} says {'ab' * (i + 5)}." for i in range(40)]
DATASET = Dataset.from_dict({"text": DOCUMENTS})
BPE = BPETokenizer.train(DOCUMENTS, vocab_size=280)


def test_targets_are_the_tokens_shifted_by_one():
    data = TokenData(np.arange(100, dtype=np.uint16), context_length=8, seed=1)
    idx, targets = data.batch(step=3, batch_size=5)
    assert idx.shape == targets.shape == (5, 8) and idx.dtype == torch.int64
    assert torch.equal(targets, idx + 1)


def test_a_batch_is_a_pure_function_of_seed_and_step():
    tokens = np.arange(1000, dtype=np.uint16)
    one, two = TokenData(tokens, 8, seed=1), TokenData(tokens, 8, seed=1)
    one.batch(0, 4)
    assert torch.equal(one.batch(7, 4)[0], two.batch(7, 4)[0])
    assert not torch.equal(one.batch(7, 4)[0], one.batch(8, 4)[0])
    assert not torch.equal(one.batch(7, 4)[0], TokenData(tokens, 8, seed=2).batch(7, 4)[0])


@pytest.mark.parametrize("length", [9, 17, 64, 65, 66, 99])
def test_windows_predict_every_token_but_the_first_exactly_once(length):
    data = TokenData(np.arange(length, dtype=np.uint16), context_length=8)
    predicted = torch.cat([targets[targets != -100] for _, targets in data.windows(3)])
    assert predicted.tolist() == list(range(1, length))


def test_limited_windows_are_spread_over_the_text_and_always_the_same():
    data = TokenData(np.arange(1000, dtype=np.uint16), context_length=8)
    one, two = ([idx for idx, _ in data.windows(4, max_batches=3)] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True)) and len(one) == 3
    assert one[0].min() == 0 and one[-1].max() > 950


def test_no_document_is_on_both_sides_and_none_is_lost():
    train, val = pack(DATASET, BPE, context_length=8, val_fraction=0.2)
    sides = [BPE.decode(side.tokens.tolist()).split("<|endoftext|>") for side in (train, val)]
    assert sorted(sides[0] + sides[1]) == sorted(DOCUMENTS)
    assert 0.15 < len(val) / (len(train) + len(val)) < 0.3


def test_a_single_document_is_cut_at_the_end():
    text = "abcdefghij" * 100
    tokenizer = CharTokenizer.train([text])
    train, val = pack(Dataset.from_dict({"text": [text]}), tokenizer, context_length=8)
    assert tokenizer.decode([*train.tokens, *val.tokens]) == text and len(train) == 900


def test_a_long_document_is_encoded_in_pieces_and_gives_the_tokens_of_the_whole(monkeypatch):
    text, encode_batch, lengths = "a cat and a dog saw a rat " * 4000, BPETokenizer.encode_batch, []

    def watch(tokenizer, texts):
        lengths.extend(map(len, texts))
        return encode_batch(tokenizer, texts)

    monkeypatch.setattr(BPETokenizer, "encode_batch", watch)
    train, val = pack(Dataset.from_dict({"text": [text]}), BPE, context_length=8)
    assert [*train.tokens, *val.tokens] == BPE.encode(text) and max(lengths) < len(text) / 9


def test_packed_files_are_memory_mapped_and_used_again(tmp_path, monkeypatch):
    first = pack(DATASET, BPE, tmp_path, context_length=8)
    assert isinstance(first[0].tokens, np.memmap)
    monkeypatch.setattr("minigpt.corpus.batching._encode_and_split", lambda *_: pytest.fail("encoded again"))
    again = pack(DATASET, BPE, tmp_path, context_length=4)
    assert np.array_equal(first[0].tokens, again[0].tokens) and again[0].context_length == 4


def test_packed_files_of_another_text_are_replaced(tmp_path):
    pack(DATASET, BPE, tmp_path, context_length=8)
    train, _ = pack(Dataset.from_dict({"text": ["something else entirely " * 20] * 9}), BPE, tmp_path, context_length=8)
    assert "something else" in BPE.decode(train.tokens.tolist())


def test_a_full_disk_is_named_and_leaves_what_was_packed_before(tmp_path, monkeypatch):
    pack(DATASET, BPE, tmp_path, context_length=8)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    class Full(np.ndarray):
        def tofile(self, path):
            path.write_bytes(b"half")
            raise OSError("252000 requested and 124928 written")  # NumPy's words on a disk that is really full

    monkeypatch.setattr(
        "minigpt.corpus.batching._encode_and_split", lambda *_: (np.arange(100).view(Full), np.arange(50).view(Full))
    )
    with pytest.raises(OSError, match=r"the 150 tokens do not fit on the disk .* keep the tokens in memory"):
        pack(Dataset.from_dict({"text": ["another text"] * 9}), BPE, tmp_path, context_length=8)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_text_shorter_than_the_context_says_so():
    with pytest.raises(ValueError, match=r"validation side .* context_length=64 and its targets need 65"):
        pack(Dataset.from_dict({"text": ["abc " * 40]}), BPE, context_length=64)
    with pytest.raises(ValueError, match="every document is empty"):
        pack(Dataset.from_dict({"text": ["", ""]}), BPE, context_length=8)
    with pytest.raises(ValueError, match="val_fraction=1"):
        pack(DATASET, BPE, context_length=8, val_fraction=1)


def test_a_vocabulary_beyond_two_bytes_is_kept_whole():
    text = "".join(chr(0x4E00 + i) for i in range(20000)) + "".join(chr(0x20000 + i) for i in range(50000))
    tokenizer = CharTokenizer.train([text])
    train, _ = pack(Dataset.from_dict({"text": [text]}), tokenizer, context_length=8)
    assert tokenizer.decode(train.tokens.tolist()) == text[: len(train)]


def test_stories_train_without_any_download():
    stories = load_corpus("stories").select(range(50))
    train, val = pack(stories, BPETokenizer.train(stories["text"], vocab_size=400), context_length=32)
    assert len(train) > len(val) > 32
