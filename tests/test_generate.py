import re

import pytest
import torch
from conftest import FAMILIES, make_model

from minigpt import SampleConfig, generate, stream
from minigpt.generate import KVCache, filter_logits, next_token_probabilities

IDX = torch.randint(0, 31, (2, 8), generator=torch.Generator().manual_seed(3))


def test_cached_equals_uncached_at_every_prefix(model):
    whole = model(IDX)[0]
    cache = KVCache(model.config, batch=2)
    with torch.no_grad():
        for start, end in ((0, 3), (3, 4), (4, 7), (7, 8)):
            torch.testing.assert_close(
                model(IDX[:, start:end], cache=cache)[0], whole[:, start:end], atol=1e-5, rtol=1e-4
            )


def test_prompts_of_different_lengths_are_continued_as_if_alone(model):
    prompts = [[1, 2, 3, 4, 5], [7], [9, 8, 7]]
    together = generate(model, prompts, max_new_tokens=3, temperature=0)
    assert together == [generate(model, [p], max_new_tokens=3, temperature=0)[0] for p in prompts]


def test_greedy_is_the_likeliest_token_each_time(model):
    expected = IDX[:, :4]
    for _ in range(4):
        expected = torch.cat([expected, model(expected)[0][:, -1].argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(generate(model, IDX[:, :4], max_new_tokens=4, temperature=0), expected)


def test_greedy_equals_transformers():
    from minigpt.interop import to_transformers

    for family in ("gpt2", "llama-grouped"):
        model = make_model(FAMILIES[family])
        theirs = to_transformers(model).generate(IDX[:, :3], max_new_tokens=5, do_sample=False, pad_token_id=0)
        assert torch.equal(generate(model, IDX[:, :3], max_new_tokens=5, temperature=0), theirs)


def test_writing_goes_on_beyond_the_context(model):
    out = generate(model, IDX[:, :5], max_new_tokens=40, temperature=0)
    assert out.shape == (2, 45)
    reread = out[:, 5:9]  # after 9 tokens the context of 8 is full: its last 4 are read again
    assert torch.equal(out[:, 9], model(reread)[0][:, -1].argmax(-1))


def test_a_seed_repeats_and_another_does_not(model):
    first, again, other = (generate(model, IDX, max_new_tokens=20, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_stream_gives_what_generate_gives(model):
    options = {"max_new_tokens": 12, "seed": 4, "temperature": 0.9, "top_k": 10}
    assert list(stream(model, [1, 2], **options)) == generate(model, [[1, 2]], **options)[0][2:]


def test_writing_stops_after_a_stop_token(model):
    free = generate(model, IDX, max_new_tokens=12, temperature=0)
    stop = int(free[0, 8 + 4])
    ragged = generate(model, IDX.tolist(), max_new_tokens=12, temperature=0, stop_tokens=[stop])
    first = free[0, 8:].tolist().index(stop)
    assert ragged[0] == free[0, : 8 + first + 1].tolist()
    filled = generate(model, IDX, max_new_tokens=12, temperature=0, stop_tokens=[stop])
    assert set(filled[0, 8 + first :].tolist()) == {stop}


def test_generating_leaves_the_training_mode_as_it_was(model):
    model.train()
    generate(model, IDX, max_new_tokens=2)
    assert model.training


def test_the_filters_equal_those_of_transformers():
    from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    logits = torch.randn(4, 31, generator=torch.Generator().manual_seed(5))
    for k in (1, 5, 31, 100):
        assert torch.equal(filter_logits(logits, top_k=k), TopKLogitsWarper(min(k, 31))(None, logits))
    for p in (0.1, 0.5, 0.9):
        assert torch.equal(filter_logits(logits, top_p=p), TopPLogitsWarper(p)(None, logits))
    used = torch.zeros(4, 31, dtype=torch.bool).scatter(1, IDX[:, :1].repeat(2, 2), True)
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(IDX[:, :1].repeat(2, 2), logits.clone())
    theirs = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(12)(None, TemperatureLogitsWarper(0.7)(None, theirs)))
    config = SampleConfig(temperature=0.7, top_k=12, top_p=0.8, repetition_penalty=1.3)
    torch.testing.assert_close(next_token_probabilities(logits, config, used), theirs.softmax(-1))


def test_tokens_are_drawn_as_often_as_their_probability_says():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    probability = next_token_probabilities(logits, SampleConfig())
    drawn = torch.multinomial(probability.repeat(20000, 1), 1, generator=torch.Generator().manual_seed(0))
    share = torch.bincount(drawn[:, 0], minlength=4) / 20000
    torch.testing.assert_close(share, logits[0].softmax(-1), atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (lambda m: generate(m, [[]]), "the prompt is empty"),
        (lambda m: generate(m, [[1] * 9]), "has 9 tokens and the model's context_length is 8"),
        (lambda m: generate(m, [[1, 31]]), "token id 31 in the prompt lies outside the vocabulary 0 to 30"),
        (lambda m: generate(m, IDX[0]), "expected (B, T)"),
        (lambda m: generate(m, IDX, temperature=-1), "temperature=-1"),
        (lambda m: generate(m, IDX, temperature=1e-40), "use 0 (greedy) or a number from 0.0001 up"),
        (lambda m: generate(m, IDX, top_p=0), "top_p=0"),
        (lambda m: generate(m, IDX, topk=3), "Did you mean 'top_k'"),
    ],
)
def test_impossible_requests_are_refused_with_what_to_do(model, action, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        action(model)


@pytest.mark.parametrize(
    ("idx", "words"), [([1, 2, 3], r"put one prompt in as \[ids\]"), ([[]], "the prompt is empty"), ([[99]], "outside")]
)
def test_a_prompt_is_judged_even_where_nothing_is_written(idx, words):
    with pytest.raises(ValueError, match=words):
        generate(make_model(FAMILIES["llama"]), idx, max_new_tokens=0)
