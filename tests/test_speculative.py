import itertools

import pytest
import torch
from conftest import FAMILIES, TINY, make_model

from minigpt import GPT, GPTConfig, SampleConfig, generate
from minigpt.generate import next_token_probabilities
from minigpt.speculative import accept, speculative_generate

PROMPT = [3, 1, 4]
FEW = {**TINY, "vocab_size": 4}  # so few tokens that every text of three can be counted


@pytest.fixture(scope="module")
def pair():
    return make_model(GPTConfig.llama(**FEW), seed=1), make_model(GPTConfig.gpt2(**FEW), seed=2)


def test_greedy_text_is_that_of_the_large_model_alone(model):
    draft = make_model(FAMILIES["llama"], seed=9)
    for ahead in (1, 3, 7):
        written = speculative_generate(model, draft, PROMPT, ahead=ahead, max_new_tokens=5, temperature=0)
        assert written.ids == generate(model, [PROMPT], max_new_tokens=5, temperature=0)[0]


def test_a_draft_that_is_the_model_itself_is_always_kept(model):
    written = speculative_generate(model, model, PROMPT, ahead=4, max_new_tokens=5, seed=0)
    assert (written.drafted, written.accepted, written.passes) == (4, 4, 1) and written.acceptance == 1
    assert len(written.ids) == 8


def _exact(model, config):
    """The probability of every text of three tokens after token 1, from the model alone."""
    found = {}
    for text in itertools.product(range(4), repeat=3):
        idx, share = torch.tensor([[1, *text]]), 1.0
        with torch.no_grad():
            p = next_token_probabilities(model(idx)[0][0], config)
        for place, token in enumerate(text):
            share *= float(p[place, token])
        found[text] = share
    return found


@pytest.mark.parametrize("options", [{"temperature": 1.0}, {"temperature": 0.7, "top_k": 3}])
def test_what_is_written_is_distributed_as_the_large_model_alone_writes(pair, options):
    """Chi-squared over all texts; the draft is another model, so that most of the work is in what is refused."""
    scipy_stats = pytest.importorskip("scipy.stats")
    model, draft = pair
    exact, counts, draws = _exact(model, SampleConfig(**options)), {}, 400
    refused = 0
    for seed in range(draws):
        written = speculative_generate(model, draft, [1], ahead=2, max_new_tokens=3, seed=seed, **options)
        text = tuple(written.ids[1:])
        counts[text] = counts.get(text, 0) + 1
        refused += written.drafted - written.accepted
    assert refused > draws / 10  # else this would test nothing
    assert all(exact[text] > 0 for text in counts)
    likely = [text for text, share in exact.items() if share * draws >= 5]
    observed = [counts.get(text, 0) for text in likely]
    expected = [exact[text] * draws for text in likely]
    observed.append(draws - sum(observed))
    expected.append(draws - sum(expected))
    if expected[-1] < 1:
        observed, expected = observed[:-1], [e * sum(observed[:-1]) / sum(expected[:-1]) for e in expected[:-1]]
    assert scipy_stats.chisquare(observed, expected).pvalue > 0.001


def test_the_test_of_the_distribution_would_see_a_draft_that_is_believed(pair):
    """Always keeping the draft writes as the draft does, which the same statistic tells apart."""
    scipy_stats = pytest.importorskip("scipy.stats")
    model, draft = pair
    draws, counts = 400, torch.zeros(4)
    for seed in range(draws):
        counts[generate(draft, [[1]], max_new_tokens=1, seed=seed)[0][1]] += 1
    with torch.no_grad():
        expected = next_token_probabilities(model(torch.tensor([[1]]))[0][0, -1:], SampleConfig())[0].double() * draws
    assert scipy_stats.chisquare(counts.double(), expected * counts.sum() / expected.sum()).pvalue < 1e-4


def test_a_token_is_kept_by_the_ratio_and_replaced_by_what_is_left():
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [1.0, 0.0, 0.0]])
    q = torch.tensor([[0.25, 0.5, 0.25], [0.4, 0.4, 0.2]])
    assert accept(p, q, [0, 2], torch.tensor([0.99, 0.99]))[0] == 2  # both likelier than drafted
    assert torch.equal(accept(p, q, [0, 2], torch.tensor([0.99, 0.99]))[1], p[2])
    kept, after = accept(p, q, [1, 2], torch.tensor([0.61, 0.0]))  # 0.3 / 0.5 is 0.6
    assert kept == 0
    torch.testing.assert_close(after, torch.tensor([1.0, 0.0, 0.0]))
    assert accept(p, q, [1, 2], torch.tensor([0.59, 0.0]))[0] == 2
    kept, after = accept(p, q, [0, 0], torch.tensor([0.0, 0.3]))
    assert kept == 1
    torch.testing.assert_close(after, torch.tensor([0.0, 0.0, 1.0]))


def test_a_stop_token_ends_it_and_seeds_repeat(pair):
    model, draft = pair
    first, again, other = (speculative_generate(model, draft, [1], max_new_tokens=7, seed=s).ids for s in (0, 0, 1))
    assert first == again != other
    stop = first[3]
    cut = speculative_generate(model, draft, [1], max_new_tokens=7, seed=0, stop_tokens=(stop,)).ids
    assert cut == first[: first.index(stop, 1) + 1]


def test_both_models_keep_their_mode(pair):
    model, draft = pair
    model.train()
    speculative_generate(model, draft, [1], max_new_tokens=2)
    assert model.training and not draft.training
    model.eval()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ahead": 0}, "ahead=0 drafts nothing"),
        ({"repetition_penalty": 1.2}, "leave it at 1"),
        ({"max_new_tokens": 8}, r"outgrow the context of 8; ask for max_new_tokens=5"),
    ],
)
def test_what_cannot_be_drafted_is_told(pair, options, words):
    with pytest.raises(ValueError, match=words):
        speculative_generate(*pair, [1, 2, 3], **options)


def test_a_model_elsewhere_than_on_a_cpu_is_refused(pair):
    with pytest.raises(ValueError, match="move both there"):
        speculative_generate(pair[0], GPT(pair[1].config).to("meta"), [1])


def test_another_vocabulary_or_an_empty_prompt_is_refused(pair):
    with pytest.raises(ValueError, match="the same tokenizer"):
        speculative_generate(pair[0], make_model(FAMILIES["llama"]), [1])
    with pytest.raises(ValueError, match="the prompt is empty"):
        speculative_generate(*pair, [], max_new_tokens=2)
