"""Answers in whatever container a learner likes: lists, NumPy arrays, tensors, numbers of any kind, all made alike.

For exercises about plain numbers. Those about tensors, whose shape is part of the task, use `check.compare`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from minigpt.lab.check import Mistake, Untouched, call, mistake


class NotNumbers(Exception):
    """An answer, or a part of it, is neither a number nor a row of numbers; the text is its type."""


def ask(answer: Callable[..., Any], values: list[float], *others: Any) -> Any:
    """What the answer makes of a list or, where it cannot use one, of a tensor or an array: as `plain` gives it.

    Raises:
        Untouched: it gave nothing back.
        NotNumbers: it gave something else than numbers.
        Exception: whatever the answer raised; its TypeError or AttributeError only where all three containers fail.
    """
    refused = None
    for form in (list, torch.tensor, np.array):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return plain(call(answer, form(values), *others))
        except (Untouched, NotNumbers):
            raise
        except Exception as error:
            if refused is None and not isinstance(error, TypeError | AttributeError):
                raise
            refused = refused or error
    raise refused


def unless_random(found: Mistake | None, got: Any, answer: Callable[..., Any], *given: Any) -> Mistake | None:
    """`found`, or else that the answer is random: asked the same again, it gives another result than `got`."""
    return mistake("unsteady") if found and repr(ask(answer, *given)) != repr(got) else found


def plain(got: Any) -> Any:
    """Numbers as Python's own, and rows of them (tensors, arrays, tuples, iterators) as lists. NotNumbers for others."""
    if isinstance(got, torch.Tensor | np.ndarray | np.generic):
        return plain(got.tolist())
    if isinstance(got, int | float):
        return got
    if isinstance(got, str | bytes | Mapping) or not isinstance(got, Iterable):
        raise NotNumbers(type(got).__name__)
    return [plain(part) for part in got]


def is_row(got: Any) -> bool:
    """Whether this is a list of numbers, and not of lists."""
    return isinstance(got, list) and not any(isinstance(part, list) for part in got)


def close(got: Any, expected: Any, tolerance: float = 1e-4) -> bool:
    """Whether two numbers, or two rows of them, are equal to the rounding of float32."""
    if isinstance(got, list) or isinstance(expected, list):
        alike = is_row(got) and is_row(expected) and len(got) == len(expected)
        return alike and all(close(a, b, tolerance) for a, b in zip(got, expected))
    return got == expected or abs(got - expected) <= tolerance * max(abs(expected), 1e-2)


def known(got: Any, wrong: Iterable[tuple[str, Any]]) -> Mistake | None:
    """The first known mistake, of pairs (code, result), that has the same result."""
    return next((mistake(code) for code, result in wrong if close(got, result)), None)
