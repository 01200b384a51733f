"""Which mistakes make this tensor? Known ones are tried, alone and two at a time, until one gives the same numbers.

An exercise describes its result as a function with an option for each way to go wrong, so that a mistake is a choice of
options, and two of them together are still recognised.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from minigpt.lab.check import Mistake, call, compare, mistake

Simulate = Callable[..., Tensor]
Mistakes = Mapping[str, Sequence[Mapping[str, Any]]]  # code to the forms it takes, each the options that bring it about


class Problem(NamedTuple):
    """What an answer is called with, and what makes its result: without options the right one."""

    arguments: tuple[Any, ...]
    simulate: Simulate


def each(option: str, *choices: Any) -> list[dict[str, Any]]:
    """The forms of a mistake that lies in one option."""
    return [{option: choice} for choice in choices]


def explain(results: Sequence[tuple[Tensor, Simulate]], mistakes: Mistakes) -> Mistake | None:
    """The known mistake that gives the same numbers, or the first of two that do so together; None where none does.

    Args:
        results: what the answer gave for each problem, and what simulates it. A single number may agree by chance, so
            it must agree in all problems.
    """
    got = results[0][0]
    if got.isnan().all():  # which could come from anything
        return None
    forms = [(code, form) for code, several in mistakes.items() for form in several]
    paired = [
        (code, {**one, **two})
        for (code, one), (other, two) in itertools.combinations(forms, 2)
        if code != other and not one.keys() & two.keys()
    ]
    needed = results if got.numel() == 1 else results[:1]
    for number, (code, options) in enumerate(forms + paired):
        if all(_makes(simulate, options, result) for result, simulate in needed):
            return Mistake(code, {}, more=number >= len(forms))
    return None


def _makes(simulate: Simulate, options: Mapping[str, Any], result: Tensor) -> bool:
    try:
        made = simulate(**options)
    except (RuntimeError, IndexError):  # two mistakes that do not fit together
        return False
    return made.shape == result.shape and torch.allclose(result.double(), made.double(), 1e-4, 1e-5, equal_nan=True)


def diagnose(
    answer: Callable[..., Any],
    problems: Sequence[Problem],
    mistakes: Mistakes,
    look: Callable[[Tensor], Mistake | None] = lambda got: None,
) -> Mistake | None:
    """None for a right answer, else a known mistake, else what `look` sees, else the first value that differs.

    Args:
        problems: the first is diagnosed; an answer that is right there must be right in the others, of other sizes.
        look: sees properties of a wrong result, such as whether a later token moves it.
    """
    first, *others = problems
    got = tensor(call(answer, *first.arguments))
    expected = first.simulate()
    found = _compare(got, expected)
    if found is None:
        return next(filter(None, (_elsewhere(answer, problem) for problem in others)), None)
    if found.code == "not_a_tensor":
        return found
    results = [(got, first.simulate)]
    with contextlib.suppress(Exception):  # an answer that works for the first sizes only
        results += [(torch.as_tensor(call(answer, *problem.arguments)), problem.simulate) for problem in others]
    return explain(results, mistakes) or _unsteady(answer, first, got) or look(got) or _nearly(got, expected) or found


def _compare(got: Any, expected: Tensor) -> Mistake | None:
    """`compare`, with more patience for numbers of half precision."""
    short = isinstance(got, Tensor) and got.dtype in (torch.float16, torch.bfloat16)
    return compare(got, expected, 0.03 if short else 1e-5)


def _nearly(got: Tensor, expected: Tensor) -> Mistake | None:
    """What is odd about a result of the right shape: all of it too large, right in one text alone, or almost right."""
    if got.shape != expected.shape or not got.isfinite().all():
        return None
    got, expected = got.double(), expected.double()
    factor = (got * expected).sum() / expected.square().sum()
    if got.numel() > 1 and factor.abs() > 1e-3 and torch.allclose(got, factor * expected, 1e-4, 1e-5):
        return mistake("times", factor=f"{factor:.4g}")
    if got.dim() > 1 and torch.allclose(got[0], expected[0], 1e-4, 1e-5):
        return mistake("only_first_text")
    difference = (got - expected).abs().max()
    return mistake("nearly", difference=f"{difference:.2g}") if difference < 0.01 * expected.abs().max() else None


def tensor(got: Any) -> Any:
    """Numbers, NumPy arrays and lists of equal tensors as a tensor; anything else as it came."""
    if isinstance(got, int | float | np.ndarray | np.generic):
        return torch.as_tensor(got)
    return got


def _elsewhere(answer: Callable[..., Any], problem: Problem) -> Mistake | None:
    given = (tuple(a.shape) if isinstance(a, Tensor) else a for a in problem.arguments)
    sizes = ", ".join(str(size) for size in given if not callable(size))
    try:
        found = _compare(tensor(call(answer, *problem.arguments)), problem.simulate())
    except Exception as error:
        return mistake("only_one_size", what=f"stops with {type(error).__name__}", sizes=sizes)
    return found and mistake("only_one_size", what="gives other numbers", sizes=sizes)


def _unsteady(answer: Callable[..., Any], problem: Problem, got: Tensor) -> Mistake | None:
    again = tensor(call(answer, *problem.arguments))
    return mistake("unsteady") if got.shape == again.shape and not torch.allclose(got, again, equal_nan=True) else None
