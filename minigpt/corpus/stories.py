"""Small stories from a grammar of our own: people, things, places, events, and the facts of each story kept beside it.

They need no network, no licence and no cleaning, and what is true in each is known. Words and plots are data, in
stories.toml. Every choice comes from one seeded generator, so the same seed tells the same stories on every machine.
"""

from __future__ import annotations

import functools
import importlib.resources
import random
import re
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any

SHE, HE = ("she", "her", "her"), ("he", "him", "his")


@functools.cache
def _grammar() -> dict[str, Any]:
    return tomllib.loads(
        importlib.resources.files("minigpt.corpus").joinpath("stories.toml").read_text(encoding="utf-8")
    )


def plots() -> list[str]:
    """The names of the plots."""
    return list(_grammar()["plots"])


def article(noun: str) -> str:
    """The noun with a or an: by its first letter, which decides for every word here but honest."""
    return f"{'an' if noun[0] in 'aeiou' or noun.startswith('honest') else 'a'} {noun}"


def tell(chance: random.Random) -> dict[str, Any]:
    """One story as a row: text, title, and `facts`, each of which stands in the text."""
    grammar, words = _grammar(), _grammar()["words"]

    def pick(choices: Sequence[Any], but: str = "") -> Any:
        choices = [choice for choice in choices if choice != but]
        return choices[int(chance.random() * len(choices))]  # random() is the same in every Python version

    woman, plot = chance.random() < 0.5, pick(plots())
    role = {name: pick(words[name]) for name in ("trade", "trait", "kin", "animal", "noun")}
    role["who"], role["friend"] = pick(words["women" if woman else "men"]), pick(words["men" if woman else "women"])
    role["friend_trade"] = pick(words["trade"], but=role["trade"])
    role["other"] = pick(words["noun"], but=role["noun"])
    look = pick(words["look"])
    role["thing"] = f"{look} {role['noun']}"
    role["other_a"] = article(f"{pick(words['look'], but=look)} {role['other']}")
    role["they"], role["them"], role["their"] = SHE if woman else HE
    left = {name: list(words[name]) for name in ("place", "time", "sky", "feeling", "joy", "food")}

    def fill(match: re.Match) -> str:
        key = match[2].lower()
        word = role.get(key) or left[key].pop(int(chance.random() * len(left[key])))  # never the same twice in a story
        word = article(word) if match[1] else word
        return word[0].upper() + word[1:] if match[2][0].isupper() else word

    steps = [grammar["steps"][step] if isinstance(step, str) else step for step in grammar["plots"][plot]]
    sentences = [re.sub(r"\{(a:)?(\w+)\}", fill, pick(step)) for step in steps]
    cut = 3 + int(chance.random() * 3)
    facts = {"hero": role["who"], "trade": role["trade"], "friend": role["friend"], "thing": role["noun"], "plot": plot}
    text = " ".join(sentences[:cut]) + "\n" + " ".join(sentences[cut:])
    return {"text": text, "title": f"{role['who']} and the {role['noun']}", "facts": facts}


def stories(n: int = 4000, seed: int = 0) -> Iterator[dict[str, Any]]:
    """`n` stories as rows with text, title and facts (hero, trade, friend, thing, plot).

    Each fact but the plot, which is the story's shape, stands in the text word for word. ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n={n} stories cannot be told; ask for at least 1.")
    chance = random.Random(seed)
    for _ in range(n):
        yield tell(chance)
