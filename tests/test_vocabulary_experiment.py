import json
import math

import pytest
from datasets import Dataset

from minigpt import GPT, BPETokenizer, GPTConfig
from minigpt.corpus.stories import stories
from minigpt.estimate import flops_per_token
from minigpt.lab.experiments import vocabulary

TEXTS = [row["text"] for row in stories()][:200]


def test_no_document_is_on_both_sides_and_the_split_is_always_the_same():
    train, val = vocabulary.split(TEXTS)
    assert sorted(train + val) == sorted(TEXTS)
    assert sum(map(len, val)) == pytest.approx(0.1 * sum(map(len, TEXTS)), rel=0.1)
    assert vocabulary.split(TEXTS) == (train, val)


def test_documents_become_one_row_with_an_end_after_each():
    tokenizer = BPETokenizer.train(TEXTS, vocab_size=300)
    data = vocabulary.token_data(tokenizer, TEXTS, context_length=8, seed=0)
    assert tokenizer.decode(data.tokens.tolist()) == "".join(text + "<|endoftext|>" for text in TEXTS)


def test_operations_are_those_of_the_matrices_and_of_attention():
    config = GPTConfig.llama(vocab_size=300, **vocabulary.BODY)
    parameters = GPT(config).num_parameters()
    attention = (
        2 * 2 * config.context_length * config.n_embd
    )  # scores and mixing: a multiplication and an addition each
    assert flops_per_token(config) == 3 * (2 * parameters + config.n_layer * attention)


def test_a_run_reports_bits_of_the_text_and_spends_what_it_was_given():
    train, val = vocabulary.split(TEXTS)
    row = vocabulary.measure(train, val, vocab_size=300, compute=6e9)
    config = GPTConfig.llama(vocab_size=300, **vocabulary.BODY)
    cost = 32 * config.context_length * flops_per_token(config)  # of an update
    assert row["updates"] * cost <= 6e9 < (row["updates"] + 1) * cost
    assert 0 < row["val_loss"] < 1.1 * math.log(300)
    tokens = BPETokenizer.train(train, vocab_size=300).encode_batch(val)
    bits = row["val_loss"] / math.log(2) * (sum(map(len, tokens)) + len(val) - 1)
    assert row["bits_per_byte"] == pytest.approx(bits / sum(len(text.encode()) for text in val))


def test_the_command_writes_every_run_and_how_it_was_measured(tmp_path, monkeypatch):
    def measure(train, val, size, compute, seed):
        return {"vocab_size": size, "seed": seed, "compute": compute, "bits_per_byte": seed + 1 / 3}

    monkeypatch.setattr(vocabulary, "load_corpus", lambda name: Dataset.from_dict({"text": TEXTS}))
    monkeypatch.setattr(vocabulary, "measure", measure)
    monkeypatch.setattr(vocabulary, "BUDGETS", ((1e9, (300, 512), (4, 6)), (2e9, (512,), (4,))))
    assert vocabulary.main(["--output", str(tmp_path / "new" / "results.json")]) == 0
    written = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    assert "learning rate 0.004" in written["how"]["training"]
    small = [row for row in written["rows"] if row["compute"] == 1e9]
    assert len(written["rows"]) == 5 and len(small) == 4
    assert vocabulary.summary(small, "bits_per_byte")[512] == pytest.approx((16 / 3, 13 / 3, 19 / 3), rel=1e-5)


def test_the_stored_results_are_those_of_the_command():
    written = json.loads(vocabulary.RESULTS.read_text(encoding="utf-8"))
    found = {(row["compute"], row["seed"], row["vocab_size"]) for row in written["rows"]}
    runs = {(compute, s, size) for compute, sizes, seeds in vocabulary.BUDGETS for s in seeds for size in sizes}
    assert found == runs and len(written["rows"]) == len(runs)
