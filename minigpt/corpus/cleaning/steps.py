"""The steps by name: `STEPS`, in the order that `clean` takes, and those that are there to be asked for.

Edits come first, for the rules judge what a model would read; and duplicates last, for two texts may differ in their
dirt alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minigpt.config import nearest
from minigpt.corpus.cleaning.boilerplate import strip_boilerplate
from minigpt.corpus.cleaning.language import Language
from minigpt.corpus.cleaning.markup import strip_html, strip_wiki
from minigpt.corpus.cleaning.private import MaskPrivateData, mask_profanity
from minigpt.corpus.cleaning.quality import Quality
from minigpt.corpus.cleaning.repair import (
    fix_encoding,
    join_broken_words,
    normalise_unicode,
    shorten_elongations,
    tidy_whitespace,
)
from minigpt.corpus.cleaning.step import Step
from minigpt.corpus.dedup import Decontaminate, ExactDuplicates, NearDuplicates

STEPS = (
    Step("encoding", "edit", fix_encoding),
    Step("unicode", "edit", normalise_unicode),
    Step("html", "edit", strip_html),
    Step("wiki", "edit", strip_wiki),
    Step("boilerplate", "edit", strip_boilerplate),
    Step("whitespace", "edit", tidy_whitespace),
    Step("broken_words", "edit", join_broken_words),
    Step("elongations", "edit", shorten_elongations),
    Step("private_data", "edit", MaskPrivateData()),
    Step("profanity", "edit", mask_profanity),
    Step("language", "drop", Language()),
    Step("quality", "drop", Quality()),
    Step("exact_duplicates", "corpus", ExactDuplicates()),
    Step("near_duplicates", "corpus", NearDuplicates()),
)
BY_NAME = {step.name: step for step in STEPS}
CODE_STEPS = tuple(  # program text: its white space has a meaning, and its tags, brackets and short words are its own
    BY_NAME[name] for name in ("encoding", "unicode", "private_data", "exact_duplicates", "near_duplicates")
)


def decontaminate(against: Iterable[str], n: int | None = None, allowed: float = 0.0) -> Step:
    """The step that drops training text which the evaluation texts `against` hold too, as `Decontaminate` says.

    Raises:
        ValueError: no evaluation text, none that is long enough, or `allowed` is no share.
    """
    return Step("decontaminate", "drop", Decontaminate(against, n, allowed))


def choose(steps: Sequence[Step | str] | None) -> list[Step]:
    """Steps from steps or their names, in the order given; None is all of STEPS.

    Raises:
        ValueError: an unknown name (the nearest is suggested), something that is no step, a step twice, or none at all.
    """
    if isinstance(steps, str | Step):
        steps = [steps]
    chosen: list[Step] = []
    for step in STEPS if steps is None else steps:
        if isinstance(step, str):
            if step not in BY_NAME:
                raise ValueError(
                    f"there is no step {step!r}.{nearest(step, list(BY_NAME))} Or make one: Step(name, kind, function)."
                )
            step = BY_NAME[step]
        elif not isinstance(step, Step):
            raise ValueError(f"{step!r} is no step; use a name, or Step(name, kind, function).")
        if step.name in [other.name for other in chosen]:
            raise ValueError(f"the step {step.name!r} is there twice; give one of them another name.")
        chosen.append(step)
    if not chosen:
        raise ValueError("there are no steps to run; leave steps out for all of them.")
    return chosen
