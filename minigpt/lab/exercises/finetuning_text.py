"""What notebook 05's exercise about the targets of a conversation asks for, and the ways in which answers go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, is_row, plain
from minigpt.lab.check import Mistake, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, Simulate, each, explain

Answer = Callable[..., Any]
Turn = tuple[str, list[int], list[int]]  # role, ids of the opening, ids of what was said and of the end
Flags = Callable[[list[Turn]], list[bool]]  # whether each id of a conversation counts as a target
Row = list[Any]

IGNORED = -100
START, BREAK, END, FIRST_WORD = 1, 2, 9, 11
ROLES = {"system": 50, "user": 51, "assistant": 52}


def _talk(*turns: tuple[str, int]) -> list[Turn]:
    """A conversation of (role, number of words) in which no word occurs twice, so that each tells where it stood."""
    made, word = [], FIRST_WORD
    for role, words in turns:
        made.append((role, [START, ROLES[role], BREAK], [*range(word, word + words), END]))
        word += words
    return made


# The first is diagnosed. The others: one answer, none, two in a row, an empty one, words that were said before.
USUAL = _talk(("system", 2), ("user", 3), ("assistant", 4), ("user", 2), ("assistant", 3), ("user", 2))
OTHERS = (
    _talk(("user", 2), ("assistant", 3)),
    _talk(("system", 1), ("user", 4)),
    _talk(("assistant", 2), ("assistant", 3), ("user", 1)),
    _talk(("user", 5), ("assistant", 0)),
    [(role, opening, [13, 14, END]) for role, opening, _ in _talk(("user", 1), ("assistant", 1), ("user", 1))],
)


def _ids(turns: list[Turn]) -> list[int]:
    return [i for _, opening, said in turns for i in (*opening, *said)]


def _counts(
    role: Callable[[str], bool] = lambda role: role == "assistant",
    opening: bool = False,
    said: slice = slice(None),
    some: Callable[[list[int]], list[int]] = lambda numbers: numbers,
) -> Flags:
    """Flags for the turns of a role, or some of them: of the opening too, or of a part of what was said."""

    def flags(turns: list[Turn]) -> list[bool]:
        chosen = some([number for number, turn in enumerate(turns) if role(turn[0])])
        made = []
        for number, (_, start, words) in enumerate(turns):
            here = number in chosen
            counted = set(range(len(words))[said]) if here else ()
            made += [here and opening] * len(start) + [at in counted for at in range(len(words))]
        return made

    return flags


ANSWERS = _counts()


def _after_the_first(turns: list[Turn]) -> list[bool]:
    answers = ANSWERS(turns)
    first = answers.index(True) if any(answers) else len(answers)
    return [at >= first for at in range(len(answers))]


def _inverted(turns: list[Turn]) -> list[bool]:
    return [not counted for counted in ANSWERS(turns)]


def _pair(turns: list[Turn]) -> Simulate:
    """idx and targets as one tensor, (2, N - 1), with an option for each way to go wrong."""
    ids = _ids(turns)

    def simulate(
        flags: Flags = ANSWERS,
        shift: int = 1,
        beside: int = 0,
        fill: int = IGNORED,
        read: str = "ids",
        length: int = len(ids) - 1,
        order: Callable[[list[Row]], list[Row]] = lambda pair: pair,
    ) -> Tensor:
        counts = flags(turns)

        def at(row: Row, place: int, otherwise: Any) -> Any:
            return row[place] if 0 <= place < len(row) else otherwise

        masked = [at(ids, t + shift, fill) if at(counts, t + shift + beside, False) else fill for t in range(length)]
        if read == "masked":  # in the place of the targets
            idx = [ids[t] if at(counts, t + beside, False) else fill for t in range(length)]
            return torch.tensor(order([idx, [at(ids, t + shift, fill) for t in range(length)]]))
        if read == "both masked":
            return torch.tensor(order([[ids[t] if counts[t] else fill for t in range(length)], masked]))
        return torch.tensor(order([ids[:length], masked]))

    return simulate


def _pairing(turns: list[Turn]) -> Mistakes:
    N = len(_ids(turns))
    return {
        "no_mask": each("flags", lambda turns: [True] * N),
        "nothing_counts": each("flags", lambda turns: [False] * N),
        "mask_inverted": each("flags", _inverted),
        "user_instead": each("flags", _counts(lambda role: role == "user")),
        "every_role": each("flags", _counts(lambda role: True), _counts(lambda role: role != "system")),
        "system_too": each("flags", _counts(lambda role: role != "user")),
        "openings_too": each("flags", _counts(opening=True)),
        "end_left_out": each("flags", _counts(said=slice(-1))),
        "only_the_end": each("flags", _counts(said=slice(-1, None))),
        "first_word_left_out": each("flags", _counts(said=slice(1, None))),
        "last_answer_only": each("flags", _counts(some=lambda numbers: numbers[-1:])),
        "first_answer_only": each("flags", _counts(some=lambda numbers: numbers[:1])),
        "after_the_first": each("flags", _after_the_first),
        "mask_of_the_inputs": each("beside", -1),
        "mask_shifted_twice": each("beside", 1),
        "not_shifted": [{"shift": 0}, {"shift": 0, "beside": 1}],
        "shifted_by_the_model": [{"shift": 0, "length": N}],
        "shifted_twice": [
            *({"shift": 2, "beside": beside} for beside in (0, -1, -2)),
            *({"shift": 2, "beside": beside, "length": N - 2} for beside in (0, -1)),
        ],
        "shifted_backwards": [{"shift": -1}, {"shift": -1, "beside": 1}],
        "one_too_long": each("length", N),
        "one_too_short": each("length", N - 2),
        "other_number": each("fill", 0, -1, 1, 100, END, BREAK, START),
        "mask_in_idx": [*each("read", "masked", "both masked"), {"read": "masked", "beside": 1}],
        "swapped": each("order", lambda pair: pair[::-1]),
    }


def _targets(answer: Answer, turns: list[Turn]) -> Mistake | None:
    ids, counts, right = _ids(turns), ANSWERS(turns), _pair(turns)().tolist()
    got = call(answer, [(role, [*opening], [*said]) for role, opening, said in turns])
    kinds = [part.dtype for part in (got if isinstance(got, tuple | list) else [got]) if hasattr(part, "dtype")]
    try:
        got = plain(got)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    if isinstance(got, list) and len(got) == 2 and all(isinstance(row, list) and len(row) == 1 for row in got):
        return mistake("in_a_batch")
    if not isinstance(got, list) or len(got) != 2 or not all(map(is_row, got)):
        return mistake("not_two_rows")
    if got == right:
        wrong = [kind for kind in kinds if kind not in (torch.int64, np.int64)]
        return mistake("dtype", kind=str(wrong[0]).removeprefix("torch.")) if wrong else None
    idx, targets = got
    answers = [i for i, counted in zip(ids, counts) if counted]
    if targets in (answers, answers[1:]):
        return mistake("answers_only", got=len(targets), expected=len(ids) - 1)
    if idx == [i for _, opening, said in turns for i in [*opening, *said][:-1]]:
        return mistake("turn_by_turn")
    if targets and targets in (counts[1:], counts[:-1], counts):
        return mistake("mask_returned")
    if len(idx) != len(targets):
        return mistake("lengths", idx=len(idx), targets=len(targets), expected=len(ids) - 1)
    found = explain([(torch.tensor(got), _pair(turns))], _pairing(turns))
    if found or len(idx) != len(ids) - 1:
        return found or mistake("lengths", idx=len(idx), targets=len(targets), expected=len(ids) - 1)
    name, row, expected = ("idx", idx, right[0]) if idx != right[0] else ("targets", targets, right[1])
    at = next(t for t, pair in enumerate(zip(row, expected)) if pair[0] != pair[1])
    return mistake("id_differs", name=name, at=at, got=row[at], expected=expected[at])


@exercise("finetuning/answer_targets")
def answer_targets(answer: Answer) -> Mistake | None:
    """answer(turns) -> idx, targets, (N - 1,) each: the next id where the assistant says it, -100 elsewhere."""
    found = _targets(answer, USUAL)
    if found:
        return found
    for turns in OTHERS:
        roles = ", ".join(role for role, *_ in turns)
        try:
            found = _targets(answer, turns)
        except Exception as error:
            return mistake("elsewhere", roles=roles, what=f"it stops with {type(error).__name__}")
        if found:
            return mistake("elsewhere", roles=roles, what="it gives other ids than were expected")
    return None
