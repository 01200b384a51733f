"""Recipes: a text, a shape and a training under a name, as data (recipes.toml), and the ladder between two of them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset

from minigpt.config import GPTConfig, TrainConfig, nearest
from minigpt.corpus import load_corpus
from minigpt.corpus.batching import split
from minigpt.corpus.cleaning import clean
from minigpt.corpus.mixing import mix

NOTHING = {"none", "all"}  # what TOML has no word for: None


@dataclass(frozen=True)
class Recipe:
    """One recipe. `corpus` gives weights of sources for `tokens` in a mixture; the speedruns have Tiny Shakespeare.

    `steps` are a source's cleaning steps where they are not all of them.
    """

    name: str
    about: str
    family: str
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    corpus: Mapping[str, float] = field(default_factory=dict)
    steps: Mapping[str, list[str]] = field(default_factory=dict)
    vocab_size: int | None = None
    tokens: int | None = None
    held_out: float = 0.1

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The shape, for a tokenizer of this size."""
        return getattr(GPTConfig, self.family)(vocab_size=vocab_size, **self.model)

    def train_config(self, **changes: Any) -> TrainConfig:
        """The training, with fields of your own on top."""
        values = {name: None if value in NOTHING else value for name, value in self.train.items() if name != "betas"}
        return TrainConfig.make(**({"betas": tuple(self.train.get("betas", (0.9, 0.95)))} | values | changes))

    def changed(self, about: str, model: Mapping[str, Any] = {}, train: Mapping[str, Any] = {}) -> Recipe:
        """The same recipe with some fields of model and training replaced."""
        return replace(self, about=about, model={**self.model, **model}, train={**self.train, **train})


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("recipes.toml").read_text(encoding="utf-8"))


def recipes() -> dict[str, Recipe]:
    """All recipes by name."""
    return {name: Recipe(name=name, **entry) for name, entry in _data().items() if name != "ladder"}


def find_recipe(name: str) -> Recipe:
    """The recipe `name`. ValueError for an unknown one."""
    if name not in recipes():
        raise ValueError(f"there is no recipe {name!r}.{nearest(name, list(recipes()))}")
    return recipes()[name]


def ladder() -> Iterator[Recipe]:
    """From the baseline, one change at a time: each recipe's `about` says what changed."""
    rung = find_recipe("baseline").changed("the classic recipe")
    yield rung
    for change in _data()["ladder"]:
        rung = rung.changed(change["changed"], change.get("model", {}), change.get("train", {}))
        yield rung


def mixture(recipe: Recipe, seed: int = 0, show_progress: bool = False) -> tuple[Dataset, dict[str, list[str]]]:
    """The cleaned texts of a recipe: a mixture to train on, and the documents held out of each source.

    Whole documents are held out, drawn at random, until they make `held_out` of a source's characters. `tokens` are
    counted in characters here, at about 3.5 a token, as the tokenizer is learned from the mixture.

    Raises:
        ValueError: a recipe without texts of its own.
        FetchError: a text is not here, and cannot be fetched.
    """
    if not recipe.corpus:
        raise ValueError(
            f"{recipe.name} has no texts of its own; it is run by: minigpt speedrun --recipe {recipe.name}"
        )
    sources: dict[str, Dataset] = {}
    held_out: dict[str, list[str]] = {}
    for name in recipe.corpus:
        cleaned, _ = clean(load_corpus(name), recipe.steps.get(name), show_progress=show_progress)
        kept, held_out[name] = split(cleaned["text"][:], recipe.held_out, seed)
        sources[name] = Dataset.from_dict({"text": kept})
    mixed, _ = mix(sources, recipe.corpus, size=int(3.5 * recipe.tokens), seed=seed)
    return mixed, held_out
