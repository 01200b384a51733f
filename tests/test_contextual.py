import pytest
import torch
from conftest import make_model

from minigpt import BPETokenizer, CharTokenizer, GPTConfig
from minigpt.corpus.augment import WORD
from minigpt.corpus.synonyms import Lexicon
from minigpt.finetune.contextual import replace_in_context

NOUNS = ["king", "queen", "boy", "dog", "cat", "house"]
KNOWN = Lexicon(
    forms={"cat": ("noun", ("puss",))},
    compounds=frozenset({"king cat"}),
    topics={"king": "person", "queen": "person", "boy": "person", "dog": "animal", "cat": "animal", "house": "thing"},
)
TEXTS = ["The king saw a queen in the house, not a boy.", "No word of a topic here", "", "A boy! The boy?\nThe boy."]


@pytest.fixture(scope="module")
def tokenizer():
    return BPETokenizer.train([f" {word} the {word} a {word} saw." for word in NOUNS] * 50, vocab_size=320)


@pytest.fixture
def model(tokenizer):
    return make_model(
        GPTConfig.llama(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=32)
    )


def words(text):
    return WORD.split(text)[1::2]


def test_a_noun_becomes_another_of_its_topic_and_all_else_stays(model, tokenizer):
    copies = replace_in_context(model, tokenizer, TEXTS, rate=1.0, known=KNOWN)
    assert copies[1:3] == TEXTS[1:3]
    for before, after in zip(TEXTS, copies):
        assert WORD.sub("", before) == WORD.sub("", after)
        for a, b in zip(words(before), words(after)):
            if a in ("king", "queen", "boy"):
                assert a != b and KNOWN.topics[b] == "person"
            else:
                assert a == b


def test_words_with_a_synonym_and_topics_of_one_word_are_left_alone(model, tokenizer):
    text = "The cat and the house."
    assert replace_in_context(model, tokenizer, [text], rate=1.0, known=KNOWN) == [text]


def test_the_copy_is_the_same_for_the_same_seed_and_in_every_batch(model, tokenizer):
    long = [" ".join(TEXTS[:1] * 4), *TEXTS] * 3  # longer than the context
    copies = replace_in_context(model, tokenizer, long, rate=0.5, seed=3, known=KNOWN)
    assert copies == replace_in_context(model, tokenizer, long, rate=0.5, seed=3, batch_size=1, known=KNOWN)
    assert copies != replace_in_context(model, tokenizer, long, rate=0.5, seed=4, known=KNOWN)
    assert replace_in_context(model, tokenizer, long, rate=0, known=KNOWN) == long


def test_the_likeliest_word_is_taken_where_only_one_is_weighed(model, tokenizer):
    before = [tokenizer.eos_id, *tokenizer.encode("The")]
    with torch.no_grad():
        logits = model(torch.tensor([before]))[0][0, -1]
    expected = max(("queen", "boy"), key=lambda word: logits[tokenizer.encode(f" {word}")[0]].item())
    copies = replace_in_context(model, tokenizer, ["The king"], rate=1.0, candidates=1, known=KNOWN)
    assert copies == [f"The {expected}"]


def test_the_model_is_left_in_its_mode(model, tokenizer):
    model.train()
    replace_in_context(model, tokenizer, TEXTS, rate=1.0, known=KNOWN)
    assert model.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"texts": "one text"}, r"put it into a list"),
        ({"rate": 2}, "rate=2 must lie"),
        ({"candidates": 0}, "candidates=0"),
    ],
)
def test_a_wrong_question_is_answered_with_what_to_do(model, tokenizer, options, said):
    with pytest.raises(ValueError, match=said):
        replace_in_context(model, tokenizer, **{"texts": TEXTS, "known": KNOWN, **options})


def test_a_tokenizer_of_letters_proposes_no_words(model):
    letters = CharTokenizer.train(["".join(NOUNS) + " The."])
    with pytest.raises(ValueError, match="whole noun; use a BPETokenizer"):
        replace_in_context(model, letters, ["The king"], known=KNOWN)
