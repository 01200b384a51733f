"""What the exercises of notebook 01 ask for, and the ways in which answers go wrong.

Each exercise is a function that computes the result with an option for each way to go wrong (see `lab.diagnose`), for
inputs (in cleaning.toml) chosen so that no two ways give the same. Answers that are right there are tried on edges too.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, close, is_row, plain
from minigpt.lab.check import Mistake, Untouched, call, exercise, messages, mistake
from minigpt.lab.diagnose import Mistakes, Simulate, each, explain

INPUTS = messages("cleaning")["inputs"]
Runs = Sequence[Hashable]


def _outcome(got: Any) -> Any:
    """The answer's numbers, or in words what it is instead."""
    try:
        return plain(got)
    except NotNumbers as error:
        return f"a {type(got).__name__}" + (f" of {error}" if type(got).__name__ != str(error) else "")


def _try(answer: Callable[..., Any], *given: Any) -> Any:
    """The outcome where an answer may well stop, or have nothing to give: then that, in words."""
    try:
        return _outcome(call(answer, *given))
    except Untouched:
        return "nothing"
    except Exception as error:
        return f"a stop with {type(error).__name__}"


def _differs(got: Any, simulate: Simulate, mistakes: Mistakes, cases: Sequence[Any]) -> Mistake | None:
    """A known mistake, or the first of the cases for which the result is wrong."""
    got, right = torch.tensor(got, dtype=simulate().dtype), simulate()
    shown = [(some.round(decimals=4) if some.is_floating_point() else some).tolist() for some in (got, right)]
    wrong = (mistake("value", given=case, got=a, expected=b) for case, a, b in zip(cases, *shown) if not close(a, b))
    return (other := next(wrong, None)) and (explain([(got, simulate)], mistakes) or other)


def _edges(answer: Callable[..., Any], name: str) -> Mistake | None:
    """The first of the edges at which this answer goes wrong."""
    for code, cases in INPUTS["edges"][name].items():
        for *given, expected in cases:
            came = _try(answer, *copy.deepcopy(given))  # which an answer may change
            if isinstance(came, str) or not close(came, expected):
                return mistake(code, given=given, got=came, expected=expected)
    return None


def _every(words: Sequence[str], n: int) -> Runs:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _runs(text: str, n: int, lower: Any = str.lower, cut: Any = str.split, size: Any = int, runs: Any = _every) -> Runs:
    return runs(cut(lower(text)), size(n))


CUTTING: Mistakes = {
    "characters": each("cut", list, lambda text: "".join(text.split()), lambda text: " ".join(text.split())),
    "case_kept": each("lower", str),
    "punctuation_cut_off": each("cut", re.compile(r"\w+").findall, lambda text: re.sub(r"[^\w\s]", "", text).split()),
    "split_on_spaces": each("cut", lambda text: text.split(" ")),
    "n_ignored": each("size", lambda n: 3, lambda n: 5, lambda n: 2),
    "n_off": each("size", lambda n: n + 1, lambda n: n - 1),
    "last_missing": each("runs", lambda words, n: _every(words, n)[:-1]),
    "tails_too": each("runs", lambda words, n: [tuple(words[i : i + n]) for i in range(len(words))]),
    "in_blocks": each("runs", lambda words, n: [tuple(words[i : i + n]) for i in range(0, len(words), n)]),
    "order_lost": each("runs", lambda words, n: [tuple(sorted(run)) for run in _every(words, n)]),
    "joined_without_space": each("runs", lambda words, n: ["".join(run) for run in _every(words, n)]),
}


def _sets(a: Collection[Hashable], b: Collection[Hashable]) -> tuple[int, int, int]:
    """How many two collections have in common, and how many each has."""
    return len({*a} & {*b}), len({*a}), len({*b})


def _in_place(a: Collection[Any], b: Collection[Any]) -> tuple[int, int, int]:
    return sum(x == y for x, y in zip(a, b)), len(a), len(b)


def _jaccard(c: float, a: float, b: float) -> float:
    return c / (a + b - c)


SIMILARITY: Mistakes = CUTTING | {
    "single_words": each("size", lambda n: 1),
    "by_position": each("count", _in_place, lambda a, b: (c := _in_place(a, b)[0], len({*a, *b}), c or 1)),
    "repeats_counted": each(
        "count",
        lambda a, b: ((Counter(a) & Counter(b)).total(), len(a), len(b)),
        lambda a, b: (sum(run in b for run in a), len(a), len(b)),
        lambda a, b: (c := sum(run in b for run in a), len({*a, *b}), c or 1),
        lambda a, b: (len({*a} & {*b}), len(a), len(b)),
    ),
    "by_the_smaller": each("measure", lambda c, a, b: c / min(a, b)),
    "by_one_text": each("measure", lambda c, a, b: c / a, lambda c, a, b: c / b, lambda c, a, b: c / max(a, b)),
    "dice": each("measure", lambda c, a, b: 2 * c / (a + b)),
    "union_as_sum": each("measure", lambda c, a, b: c / (a + b)),
    "distance": each("measure", lambda c, a, b: 1 - _jaccard(c, a, b)),
    "upside_down": each("measure", lambda c, a, b: (a + b - c) / max(c, 0.1)),
    "not_divided": each("measure", lambda c, a, b: c, lambda c, a, b: a + b - c),
    "percent": each("measure", lambda c, a, b: 100 * _jaccard(c, a, b)),
    "rounded": each("measure", *(lambda c, a, b, d=d: round(_jaccard(c, a, b), d) for d in range(4))),
}


@exercise("cleaning/jaccard")
def jaccard(answer: Callable[[str, str, int], float]) -> Mistake | None:
    """answer(a, b, n): how many different runs of n words both texts have, over how many at least one has."""
    pairs = INPUTS["jaccard"]
    got = [_outcome(call(answer, *pair)) for pair in pairs]
    for came in got:
        if isinstance(came, str | list | bool):
            return mistake("yes_or_no" if isinstance(came, bool) else "not_a_number", got=came)

    def simulate(count: Any = _sets, measure: Any = _jaccard, **options: Any) -> Tensor:
        sizes = [count(*(_runs(text, n, **options) for text in texts)) for *texts, n in pairs]
        return torch.tensor([measure(*some) for some in sizes], dtype=torch.double)

    return _differs(got, simulate, SIMILARITY, pairs) or _edges(answer, "jaccard")


def _digits(text: str) -> str | None:
    """The digits of what may be a card number."""
    return re.sub("[ -]", "", text) if re.fullmatch("[0-9 -]*", text) else None


def _weigh(digit: int, i: int, size: int = 0) -> int:
    """What a digit adds to the sum; i counts from the right, from 0."""
    return 2 * digit - 9 * (digit > 4) if i % 2 else digit


def _is_card(
    text: str,
    digits: Callable[[str], str | None] = _digits,
    sizes: Collection[int] = range(13, 20),
    counted: Callable[[str, str], str] = lambda digits, text: digits,
    weigh: Callable[[int, int, int], int] = _weigh,
    passes: Callable[[int, int], bool] = lambda total, last: total % 10 == 0,
) -> bool:
    kept = digits(text)
    row = [int(digit) for digit in reversed(kept or "")]  # from the right
    total = sum(weigh(digit, i, len(row)) for i, digit in enumerate(row))
    return kept is not None and len(counted(kept, text)) in sizes and passes(total, row[0] if row else 0)


CARDS: Mistakes = {
    "always": each("verdict", lambda right: True, lambda right: False),
    "no_checksum": each("passes", lambda total, last: True),
    "inverted": [{"verdict": lambda right: not right}, {"passes": lambda total, last: total % 10 != 0}],
    "from_the_left": each("weigh", lambda d, i, size: _weigh(d, size - i), lambda d, i, size: _weigh(d, size - i - 1)),
    "last_doubled": each("weigh", lambda d, i, size: _weigh(d, i + 1)),
    "all_doubled": each("weigh", lambda d, i, size: _weigh(d, 1)),
    "none_doubled": each("weigh", lambda d, i, size: d),
    "nine_not_taken_off": each("weigh", lambda d, i, size: d * (1 + i % 2)),
    "nine_always_taken_off": each("weigh", lambda d, i, size: 2 * d - 9 if i % 2 else d),
    "remainder_of_nine": each("weigh", lambda d, i, size: 2 * d % 9 if i % 2 else d),
    "other_divisor": each("passes", *(lambda total, last, by=by: total % by == 0 for by in (9, 11, 5, 2))),
    "check_digit_left_out": each("weigh", *(lambda d, i, size, k=k: i and _weigh(d, i + k) for k in (0, 1))),
    "not_completed": each("passes", lambda total, last: (total - last) % 10 == last),
    "ten_for_zero": each("passes", lambda total, last: 10 - (total - last) % 10 == last),
    "separators_refused": each(
        "digits", *(lambda text, no=no: None if re.search(no, text) else _digits(text) for no in ("[ -]", " ", "-"))
    ),
    "other_signs_ignored": each("digits", *(lambda text, s=s: re.sub(s, "", text) for s in (r"\D", r"[^\d -].*|\D"))),
    "leading_zeros_lost": each("digits", lambda text: (_digits(text) or "").lstrip("0")),
    "any_length": each("sizes", range(99), range(1, 99)),
    "long_accepted": each("sizes", range(13, 99)),
    "short_accepted": each("sizes", range(20), range(1, 20)),
    "sixteen_only": each("sizes", (16,), (15, 16), (13, 16), (13, 15, 16), (14, 15, 16)),
    "end_left_out": each("sizes", range(13, 19), range(14, 20), range(14, 19)),
    "signs_counted": each("counted", lambda digits, text: text),
}


@exercise("cleaning/luhn")
def luhn(answer: Callable[[str], bool]) -> Mistake | None:
    """answer(text): whether it is 13 to 19 digits, with or without spaces and hyphens, that pass Luhn's checksum."""
    first, *others = texts = INPUTS["luhn"]
    got = [_outcome(call(answer, first)), *(_try(answer, text) for text in others)]
    for text, came in zip(texts, got):
        if not isinstance(came, bool):
            return mistake("stops_at" if "a stop" in str(came) else "not_a_bool", text=text, got=came)

    def simulate(verdict: Any = bool, **options: Any) -> Tensor:
        return torch.tensor([verdict(_is_card(text, **options)) for text in texts])

    return _differs(got, simulate, CARDS, texts)


SHARES: Mistakes = {
    "swapped": each("give", lambda c, p, f: (c / p, c / f)),
    "one_of_the_two": each("give", lambda c, p, f: (c / f,), lambda c, p, f: (c / p,)),
    "twice_the_same": each("give", lambda c, p, f: (c / f, c / f), lambda c, p, f: (c / p, c / p)),
    "f1": each("give", *(lambda c, p, f, times=times: (2 * c / (p + f),) * times for times in (1, 2))),
    "three_numbers": each("give", lambda c, p, f: (c / f, c / p, 2 * c / (p + f))),
    "union": each("give", *(lambda c, p, f, times=times: (_jaccard(c, p, f),) * times for times in (1, 2))),
    "counts": each("give", lambda c, p, f: (c, c), lambda c, p, f: (c, f - c), lambda c, p, f: (c, p - c)),
    "sizes_compared": each("give", lambda c, p, f: (f / p, p / f), lambda c, p, f: (p / f, f / p)),
    "upside_down": each("give", lambda c, p, f: (f / c, p / c)),
    "mistakes_counted": each("give", lambda c, p, f: (1 - c / f, 1 - c / p)),
    "right_over_wrong": each("give", lambda c, p, f: (c / (f - c), c / (p - c))),
    "emptied": each("give", lambda c, p, f: (c / f, 1), lambda c, p, f: (1, c / p)),
    "percent": each("give", lambda c, p, f: (100 * c / f, 100 * c / p)),
    "whole_division": each("give", lambda c, p, f: (c // f, c // p)),
    "rounded": each("give", *(lambda c, p, f, d=d: (round(c / f, d), round(c / p, d)) for d in (3, 2, 1, 0))),
    "by_position": each("count", lambda p, f: _in_place(sorted(p), sorted(f))),
    "numbers_added": each("count", lambda p, f: (sum(p & f), sum(p), sum(f))),
}


@exercise("cleaning/precision_recall")
def precision_recall(answer: Callable[[set[int], set[int]], tuple[float, float]]) -> Mistake | None:
    """answer(planted, changed): which share of the changed documents is planted, and of the planted ones is changed."""
    cases = INPUTS["precision_recall"]
    got = [_outcome(call(answer, {*planted}, {*changed})) for planted, changed in cases]
    got = [[came] if isinstance(came, int | float) else came for came in got]
    for came in got:
        if not is_row(came) or len(came) not in (1, 2, 3) or len(came) != len(got[0]) or bool in map(type, came):
            return mistake("not_two_numbers", got=came)

    def simulate(count: Any = _sets, give: Any = lambda c, p, f: (c / f, c / p)) -> Tensor:
        return torch.tensor([give(*count(*map(set, case))) for case in cases], dtype=torch.double)

    return _differs(got, simulate, SHARES, cases) or _edges(lambda p, f: answer({*p}, {*f}), "precision_recall")


def _meet(a: Runs, b: Runs, n: int) -> bool:
    return not {*a}.isdisjoint(b)


def _stands_in(a: Runs, b: Runs, n: int) -> bool:
    """Whether n words of `a`, joined by spaces, stand in `b` as characters. Words come as runs of 1."""
    words, others = (["".join(word) for word in text] for text in (a, b))
    return any(" ".join(run) in " ".join(others) for run in _every(words, n))


CONTAMINATION: Mistakes = CUTTING | {
    "short_counted": each("runs", lambda words, n: _every(words, n) or [tuple(words)]),
    "any_word": each("size", lambda n: 1),
    "bag_of_words": [{"size": lambda n: 1, "match": lambda a, b, n: _sets(a, b)[0] >= n}],
    "inside_words": [{"size": lambda n: 1, "match": _stands_in}],
    "only_equal": each("runs", *(lambda words, n, k=k: [tuple(words)] if len(words) >= n * k else [] for k in (0, 1))),
    "whole_text": each("match", lambda a, b, n: a and {*a} <= {*b}, lambda a, b, n: b and {*a} >= {*b}),
    "only_beginnings": each("match", lambda a, b, n: _meet(a[:1], b, n), lambda a, b, n: _meet(a[:1], b[:1], n)),
    "one_evaluation": each("take", lambda texts: texts[:1], lambda texts: texts[-1:]),
    "across_texts": each("take", lambda texts: [" ".join(texts)]),
    "every_evaluation": each("enough", all),
    "evaluation_indices": each("report", lambda found, hits: [j for j, hit in enumerate(zip(*hits)) if any(hit)]),
    "inverted": each("report", lambda found, hits: {*range(len(hits))} - {*found}),
    "from_one": each("report", lambda found, hits: [i + 1 for i in found]),
    "one_found": each("report", lambda found, hits: found[:1], lambda found, hits: found[-1:]),
    "all_or_none": each("report", lambda found, hits: range(len(hits)), lambda found, hits: []),
}


@exercise("cleaning/contaminated")
def contaminated(answer: Callable[[list[str], list[str], int], list[int]]) -> Mistake | None:
    """answer(train, evaluation, n): the indices of the training texts with n words in a row that an evaluation text has."""
    cases = [(case["train"], case["evaluation"], case["n"]) for case in INPUTS["contaminated"]]
    repeated, got = False, []
    for train, evaluation, n in cases:
        came = _outcome(call(answer, [*train], [*evaluation], n))
        if not is_row(came):
            return mistake("texts_returned" if str(came).endswith("of str") else "not_indices", got=came)
        if len(came) == len(train) and {*came} <= {0, 1}:
            return mistake("booleans")
        if not {*came} <= {*range(len(train) + 1)}:
            return mistake("no_such_text", got=came, last=len(train) - 1)
        repeated |= len({*came}) < len(came)
        got += [i in came for i in range(len(train) + 1)]  # one more than there are, for who counts from 1

    def simulate(take: Any = list, match: Any = _meet, enough: Any = any, report: Any = None, **options: Any) -> Tensor:
        rows = []
        for train, evaluation, n in cases:
            a, b = ([_runs(text, n, **options) for text in texts] for texts in (train, take(evaluation)))
            hits = [[match(one, other, n) for other in b] for one in a]
            found = [i for i, hit in enumerate(hits) if enough(hit)]
            found = report(found, hits) if report else found
            rows += [i in found for i in range(len(train) + 1)]
        return torch.tensor(rows)

    texts = [(text, n) for train, _, n in cases for text in [*train, "(there is none)"]]
    found = _differs(got, simulate, CONTAMINATION, texts)
    return found or (mistake("repeated") if repeated else _edges(answer, "contaminated"))
