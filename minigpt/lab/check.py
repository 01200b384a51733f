"""The exercise checker: an untouched stub is told so, a wrong answer is told its mistake, a right one what it now can do.

An exercise is a function that looks at an answer and returns None or a `Mistake`; its sentences are data in
exercises/TOPIC.toml. Checks are seeded, leave the learner's random numbers alone, and never raise for a wrong answer.
"""

from __future__ import annotations

import functools
import html
import importlib.resources
import inspect
import tomllib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from IPython.display import display

from minigpt.config import nearest

SEED = 5


@dataclass(frozen=True)
class Mistake:
    """What is wrong: the code of a sentence in its topic's file, the values that it mentions, and whether more is."""

    code: str
    values: dict[str, Any]
    more: bool = False


def mistake(code: str, **values: Any) -> Mistake:
    """The mistake `code`, with the values that its sentence mentions."""
    return Mistake(code, values)


@dataclass(frozen=True)
class Verdict:
    """What the checker says. `status` is untouched, wrong or right; `code` names the mistake."""

    exercise: str
    status: str
    message: str
    code: str | None = None

    def __repr__(self) -> str:
        return f"{ {'untouched': 'Not tried yet', 'wrong': 'Not yet', 'right': 'Right'}[self.status] }: {self.message}"

    def _repr_html_(self) -> str:
        colour = {"untouched": "#777777", "wrong": "#D55E00", "right": "#009E73"}[self.status]
        word, _, rest = repr(self).partition(": ")
        style = f"border-left:4px solid {colour};padding:4px 10px"
        return f'<div style="{style}"><b>{word}</b>: {html.escape(rest)}</div>'


class Untouched(Exception):
    """Raised by `call` when the stub was left as it is."""


Diagnose = Callable[[Any], Mistake | None]
EXERCISES: dict[str, Diagnose] = {}


def exercise(name: str) -> Callable[[Diagnose], Diagnose]:
    """Register a function that diagnoses answers to the exercise `name`."""

    def register(diagnose: Diagnose) -> Diagnose:
        EXERCISES[name] = diagnose
        return diagnose

    return register


@functools.cache
def messages(topic: str = "") -> dict[str, Any]:
    """What the checkers say: for each exercise of a topic task, right, and mistakes by code; without one, what all share."""
    file = f"exercises/{topic}.toml" if topic else "messages.toml"
    return tomllib.loads(importlib.resources.files("minigpt.lab").joinpath(file).read_text(encoding="utf-8"))


def call(answer: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run the learner's function on copies of the tensors; `Untouched` when it gives nothing back."""
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    result = answer(*copies, **options)
    if result is None or result is ...:
        raise Untouched
    return result


def check(name: str, answer: Any) -> None:
    """Look at an answer and show the verdict. ValueError only for an exercise that does not exist."""
    display(judge(name, answer))


def judge(name: str, answer: Any) -> Verdict:
    """The verdict of `check`, not shown."""
    import minigpt.lab.exercises  # noqa: F401 - registers them

    if name not in EXERCISES:
        raise ValueError(f"there is no exercise {name!r}.{nearest(name, list(EXERCISES))}")
    topic, _, short = name.partition("/")
    sentences, common = messages(topic)[short], messages()
    try:
        if answer is None or answer is ...:
            raise Untouched
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            found = EXERCISES[name](answer)
    except Exception as error:
        if isinstance(error, Untouched) and _is_written(answer):
            return Verdict(name, "wrong", common["mistakes"]["nothing_returned"], "nothing_returned")
        # PyTorch raises NotImplementedError too, for types of number that an operation does not know
        if isinstance(error, Untouched) or (isinstance(error, NotImplementedError) and "for '" not in str(error)):
            return Verdict(name, "untouched", f"{sentences['task']} {common['untouched']}")
        return Verdict(name, "wrong", _raised(error), "raised")
    if found is None:
        return Verdict(name, "right", sentences["right"])
    return Verdict(name, "wrong", _sentence(found, topic, short), found.code)


def _sentence(found: Mistake, topic: str, short: str) -> str:
    """What is said about a mistake: in the words of the exercise, else of its topic, else those that all topics share."""
    own, common = messages(topic), messages()
    tables = (own[short]["mistakes"], own.get("mistakes", {}), common["mistakes"])
    sentence = next(table[found.code] for table in tables if found.code in table).format(**found.values)
    hint = own[short].get("hint") if tables[2].get(found.code) and found.code != "not_a_tensor" else None
    return " ".join(filter(None, (sentence, common["more"] if found.more else None, hint)))


def _is_written(answer: Any) -> bool:
    """Whether a function does anything: it has a variable of its own, or uses a name that is not its argument."""
    code = getattr(answer, "__code__", None)
    return bool(code and (code.co_names or code.co_nlocals > len(inspect.signature(answer).parameters)))


def _raised(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "minigpt" not in frame.filename and "torch" not in frame.filename]
    where = f" at your line `{own[-1].line}`" if own and own[-1].line else ""
    common = messages()
    shapes = ("shape", "size", "dimension", "mat1", "broadcast")
    hint = common["shape_hint"] if any(word in str(error) for word in shapes) else ""
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return common["raised"].format(kind=type(error).__name__, text=first_line, where=where, hint=hint).strip()


def compare(got: Any, expected: torch.Tensor, tolerance: float = 1e-5) -> Mistake | None:
    """The mistakes that any tensor answer can make: its type, its shape, NaN, and where it first differs."""
    if not isinstance(got, torch.Tensor):
        return mistake("not_a_tensor", kind=type(got).__name__)
    if got.is_complex():
        return mistake("not_a_tensor", kind="complex tensor")
    if got.shape != expected.shape:
        return mistake("shape", got=tuple(got.shape), expected=tuple(expected.shape))
    if not torch.isfinite(got.float()).all():
        return mistake("not_finite", share=f"{1 - torch.isfinite(got.float()).float().mean():.0%}")
    far = (got.float() - expected.float()).abs() > tolerance * (1 + expected.float().abs())
    if far.any():
        if not expected.dim():
            return mistake("value", got=f"{got:.4g}", expected=f"{expected:.4g}")
        where = tuple(int(i) for i in far.nonzero()[0])
        return mistake("values", where=where, got=f"{got[where]:.4g}", expected=f"{expected[where]:.4g}")
    return None


def same(got: Any, expected: torch.Tensor, tolerance: float = 1e-5) -> bool:
    """Whether an answer equals a tensor, or a known wrong one, to rounding."""
    return compare(got, expected, tolerance) is None
