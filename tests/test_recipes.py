import itertools

import pytest
from datasets import Dataset

from minigpt import GPT, recipes
from minigpt.recipes import Recipe, find_recipe, ladder, mixture


def test_every_recipe_makes_a_model_and_a_training():
    for recipe in recipes.recipes().values():
        config = recipe.train_config()
        assert recipe.model_config(300).vocab_size == 300 and config.max_steps > 100
        assert recipe.about and (recipe.corpus or recipe.model["context_length"])


def test_the_baseline_is_the_classic_one():
    shape, config = find_recipe("baseline").model_config(65), find_recipe("baseline").train_config()
    assert (shape.n_layer, shape.n_head, shape.n_embd, shape.context_length) == (4, 4, 128, 64)
    assert (shape.norm, shape.position, shape.mlp, shape.bias) == ("layernorm", "learned", "gelu", True)
    assert (config.max_steps, config.batch_size, config.learning_rate) == (2000, 12, 1e-3)
    assert (config.optimizer, config.precision, config.eval_batches) == ("adamw", "fp32", None)
    assert GPT(shape).num_parameters() == 809_856


def test_the_ladder_changes_one_thing_at_a_time_and_ends_in_the_fast_recipe():
    rungs = list(ladder())
    assert len({rung.about for rung in rungs}) == len(rungs) >= 8
    for before, after in itertools.pairwise(rungs):
        assert (before.model, before.train) != (after.model, after.train)
    last, fast = rungs[-1], find_recipe("fast-1.88")
    own = {"max_steps", "eval_every"}  # the experiment finds these
    assert dict(last.model) == dict(fast.model)
    assert {k: v for k, v in last.train.items() if k not in own} == {
        k: v for k, v in fast.train.items() if k not in own
    }


def test_the_long_recipe_is_judged_at_the_context_of_the_published_loss():
    assert find_recipe("fast-1.47").model["context_length"] == 256


def test_a_recipe_of_a_speedrun_has_no_mixture():
    with pytest.raises(ValueError, match="minigpt speedrun --recipe baseline"):
        mixture(find_recipe("baseline"))


def test_an_unknown_recipe_is_told_with_the_nearest():
    with pytest.raises(ValueError, match=r"Did you mean 'baseline'"):
        find_recipe("base-line")


def test_a_mixture_keeps_what_is_held_out_out_and_cleans_each_source_its_own_way(monkeypatch):
    texts = {
        "prose": [f"Here is the {i}th of the letters  that she wrote to her brother in the summer." for i in range(60)],
        "code": [f"def f{i}(x):\n    return   {i}\n" for i in range(60)],
    }
    monkeypatch.setattr(recipes, "load_corpus", lambda name: Dataset.from_dict({"text": texts[name]}))
    recipe = Recipe(
        name="small", about="", family="llama", model={}, train={}, corpus={"prose": 0.5, "code": 0.5},
        steps={"prose": ["whitespace"], "code": ["exact_duplicates"]}, vocab_size=300, tokens=800, held_out=0.2,
    )  # fmt: skip
    mixed, held_out = mixture(recipe)
    trained = set(mixed["text"][:])
    assert held_out.keys() == texts.keys() and not any(set(kept) & trained for kept in held_out.values())
    assert 0.15 < len(held_out["code"]) / 60 < 0.3
    assert any("return   " in text for text in trained) and not any("letters  that" in text for text in trained)
    again, _ = mixture(recipe)
    assert again["text"][:] == mixed["text"][:]
