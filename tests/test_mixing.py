import warnings

import pytest
from datasets import Dataset

from minigpt import CharTokenizer
from minigpt.corpus.mixing import mix


def texts(letter, n, length):
    return Dataset.from_dict({"text": [f"{letter}{i:04d}".ljust(length, letter) for i in range(n)]})


SOURCES = {"long": texts("a", 20, 1000), "short": texts("b", 4000, 10)}


def test_weights_count_characters_and_not_documents():
    mixture, shares = mix(SOURCES, {"long": 3, "short": 1}, size=16_000)
    characters = {name: sum(len(r["text"]) for r in mixture if r["source"] == name) for name in SOURCES}
    assert characters == {"long": 12_000, "short": 4000}
    assert [(s.source, s.wanted, s.share, s.size, s.documents) for s in shares] == [
        ("long", 0.75, 0.75, 12_000, 12),
        ("short", 0.25, 0.25, 4000, 400),
    ]
    assert shares[0].epochs == 0.6 and shares[1].epochs == 0.1


def test_weights_count_tokens_where_there_is_a_tokenizer():
    class Pairs:
        def encode_batch(self, batch):
            return [[0] * (len(text) // 2 if text[0] == "a" else len(text)) for text in batch]

    _, shares = mix(SOURCES, {"long": 1, "short": 1}, size=10_000, tokenizer=Pairs())
    assert [(s.size, s.documents) for s in shares] == [(5000, 10), (5000, 500)]
    tokenizer = CharTokenizer.train(["ab0123456789"])
    assert mix(SOURCES, {"long": 1, "short": 1}, size=10_000, tokenizer=tokenizer)[1][0].size == 5000


def test_without_a_size_nothing_is_read_twice_and_one_source_is_read_whole():
    mixture, shares = mix(SOURCES, {"long": 1, "short": 1})
    assert len(set(mixture["text"])) == len(mixture) and shares[0].epochs == 1 and shares[1].size == 20_000


def test_a_source_begins_again_a_few_times_and_its_end_is_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture, shares = mix(SOURCES, {"long": 0.9, "short": 0.1}, size=40_000)
    assert shares[0].epochs == 1.8
    counts = [mixture["text"][:].count(text) for text in SOURCES["long"]["text"]]
    assert sorted(counts) == [1] * 4 + [2] * 16  # nothing a third time before all was read twice
    with pytest.warns(UserWarning, match="long has run out: read 2 times it gives 40,000 of 90,000"):
        _, shares = mix(SOURCES, {"long": 0.9, "short": 0.1}, size=100_000, max_epochs=2)
    assert shares[0].size == 40_000 and shares[1].size == 10_000 and shares[0].share == 0.8


def test_a_seed_fixes_the_mixture_and_its_order():
    first, second, other = (mix(SOURCES, {"long": 1, "short": 1}, size=20_000, seed=seed)[0] for seed in (0, 0, 1))
    assert first.to_list() == second.to_list() != other.to_list()
    assert 0 < first["source"][: len(first) // 2].count("long") < 10  # of ten: the sources are shuffled together


def test_a_weight_of_zero_leaves_a_source_out():
    mixture, shares = mix(SOURCES, {"long": 0, "short": 2}, size=1000)
    assert set(mixture["source"]) == {"short"} and [share.source for share in shares] == ["short"]


def test_a_share_says_itself():
    _, shares = mix(SOURCES, {"long": 3, "short": 1}, size=16_000)
    assert str(shares[0]) == "long: 0.750 (wanted 0.750), 12,000 in 12 documents, 0.60 times its text"


@pytest.mark.parametrize(
    ("weights", "options", "message"),
    [
        ({"long": 1, "shrt": 1}, {}, r"no such source\. Did you mean 'short'"),
        ({"long": 1}, {}, "'short' has no weight"),
        ({"long": 1, "short": -1}, {}, "is negative"),
        ({"long": 0, "short": 0}, {}, "every weight is 0"),
        ({"long": 1, "short": 1}, {"size": 0}, "size=0 must be 1 or more"),
        ({"long": 1, "short": 1}, {"max_epochs": 0}, "max_epochs=0 must be 1 or more"),
    ],
)
def test_a_mixture_that_cannot_be_made_is_refused(weights, options, message):
    with pytest.raises(ValueError, match=message):
        mix(SOURCES, weights, **options)


def test_an_empty_source_is_named():
    with pytest.raises(ValueError, match="'none' has no documents"):
        mix({"none": Dataset.from_dict({"text": []})}, {"none": 1})
