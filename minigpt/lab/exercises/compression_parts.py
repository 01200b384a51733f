"""What notebook 07's exercises share: an answer of several parts is laid out as one row of numbers, and so diagnosed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from minigpt.lab.answers import NotNumbers
from minigpt.lab.check import Mistake, Untouched, mistake
from minigpt.lab.diagnose import Mistakes, Simulate, explain

Answer = Callable[..., Any]


class Case(NamedTuple):
    """What an answer is called with, what makes its row of numbers, and how a sentence names the case."""

    arguments: tuple[Any, ...]
    simulate: Simulate
    shown: str


class Watching(TorchFunctionMode):
    """Runs with an eye on every operation of PyTorch: `seen` becomes true once `see(arguments, result)` was."""

    def __init__(self, see: Callable[[tuple[Any, ...], Any], bool]):
        super().__init__()
        self.see, self.seen = see, False

    def __torch_function__(
        self, func: Answer, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen = self.seen or self.see(args, result)
        return result


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two rows have equal lengths and are equal to rounding."""
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), 1e-4, 1e-5)


def diagnose_parts(
    answer: Answer,
    cases: Sequence[Case],
    row: Callable[..., Tensor | Mistake],
    mistakes: Mistakes,
    look: Callable[[Tensor, Tensor], Mistake],
) -> Mistake | None:
    """None for a right answer, else a known mistake, else what `look` sees in the first case, else which case is wrong.

    Args:
        row: asks the answer, and lays out what it gave; or says what is no answer at all.
        look: compares the row that came with the right one, where no known mistake makes it.
    """
    for number, case in enumerate(cases):
        try:
            got = row(answer, *case.arguments)
        except (Untouched, NotNumbers):
            raise
        except Exception as error:
            if not number:
                raise
            return mistake("elsewhere", case=case.shown, what=f"your function stops with {type(error).__name__}")
        if isinstance(got, Mistake):
            return got
        expected = case.simulate()
        if not alike(got, expected):
            elsewhere = mistake("elsewhere", case=case.shown, what="the numbers are wrong")
            return explain([(got, case.simulate)], mistakes) or (elsewhere if number else look(got, expected))
    return None
