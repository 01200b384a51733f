"""A step of cleaning: a name, a kind, and a function over one document or over the whole corpus."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from datasets.fingerprint import Hasher

Kind = Literal["edit", "drop", "corpus"]
KINDS = ("edit", "drop", "corpus")
ROUNDS = 8  # an edit that has not come to rest by then never will, or is being attacked


@runtime_checkable
class CorpusRule(Protocol):
    """A rule that compares documents, in the form that needs neither one process nor all documents in memory."""

    def sketch(self, texts: Sequence[str]) -> Sequence[Any]:
        """What is kept of each document, by itself alone: workers make the sketches, so they are small and pickle."""

    def judge(self) -> Callable[[Sequence[Any]], Sequence[str | None]]:
        """A fresh judge: given the sketches list after list, in order, it says why each document goes, or None."""


@dataclass(frozen=True)
class Step:
    """One thing done to a corpus.

    `function` depends on `kind`:

    - "edit": str -> str, the same text when there is nothing to do.
    - "drop": str -> the reason why the document goes, or None. What stands before a colon is counted as the rule.
    - "corpus": list[str] -> list[str | None], a reason or None for each document; or a `CorpusRule`, which also streams.

    Its docstring says what it may damage. `version` is raised when the function changes, so that cached results are
    made again; a function written in a notebook is told apart by its code as well.
    """

    name: str
    kind: Kind
    function: Callable[..., Any]
    version: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"step {self.name!r} has kind={self.kind!r}; use one of {', '.join(KINDS)}.")
        if not callable(self.function) and not (self.kind == "corpus" and isinstance(self.function, CorpusRule)):
            raise ValueError(f"step {self.name!r} needs a function, and this is {type(self.function).__name__}.")

    @property
    def doc(self) -> str:
        """What the step does and what it may damage."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def streams(self) -> bool:
        """Whether it runs on a corpus that does not fit into memory."""
        return self.kind != "corpus" or isinstance(self.function, CorpusRule)

    def fingerprint(self) -> str:
        """The same for the same step with the same settings, in every process."""
        return Hasher.hash((self.name, self.kind, self.version, self.function))


def until_stable(edit: Callable[[str], str]) -> Callable[[str], str]:
    """`edit`, repeated until it changes nothing more, which makes it idempotent.

    Taking something out may join its neighbours to what has to go as well: &amp;lt; becomes &lt; becomes <. A text
    that has not come to rest after a few rounds was made to that end; it is given back as it came.
    """

    @functools.wraps(edit)
    def stable(text: str) -> str:
        current = text
        for _ in range(ROUNDS):
            after = edit(current)
            if after == current:
                return after
            current = after
        return text

    return stable
