"""What notebook 04's exercise about a learning-rate schedule asks for, and the ways in which answers go wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minigpt.lab.answers import NotNumbers, plain
from minigpt.lab.check import Mistake, Untouched, call, exercise, mistake
from minigpt.lab.diagnose import Mistakes, Simulate, each, explain


class Schedule(NamedTuple):
    """What an answer is given after the step."""

    max_steps: int
    warmup_steps: int
    decay_steps: int
    peak: float
    final: float


Rule = Callable[[int, Schedule], float]  # the share of the way up, or down, at a step of that part

# The first is diagnosed. The others: no stable part, no warm-up, no decay, decay to nothing, one step for each.
USUAL = Schedule(24, 5, 8, 0.003, 0.0006)
EDGES = {
    "without_a_stable_part": [Schedule(9, 4, 5, 0.003, 0.0003)],
    "without_warmup": [Schedule(10, 0, 4, 0.01, 0.001)],
    "without_decay": [Schedule(10, 3, 0, 0.003, 0.0003)],
    "elsewhere": [Schedule(30, 10, 3, 0.001, 0.0), Schedule(3, 1, 1, 0.5, 0.05), Schedule(40, 2, 30, 0.02, 0.002)],
}


def _rates(s: Schedule) -> Simulate:
    """The rates of all updates, as shares of the peak."""

    def simulate(
        climb: Rule = lambda step, s: (step + 1) / s.warmup_steps,
        warm: Callable[[Schedule], int] = lambda s: s.warmup_steps,
        low: float = 0.0,
        begin: Callable[[Schedule], int] = lambda s: s.max_steps - s.decay_steps,
        fall: Rule = lambda k, s: (k + 1) / s.decay_steps,
        way: Callable[[float, float, float], float] = lambda peak, final, share: peak + (final - peak) * share,
        final: float = s.final,
        end: Callable[[float], float] = lambda rate: rate,
    ) -> Tensor:
        rates = []
        for step in range(s.max_steps):
            k = step - begin(s)
            if step < warm(s):
                rate = low + (s.peak - low) * climb(step, s)
            else:
                rate = way(s.peak, final, fall(k, s)) if k >= 0 else s.peak
            rates.append(end(rate))
        return torch.tensor(rates, dtype=torch.float64) / s.peak

    return simulate


def _after_warmup(s: Schedule) -> int:
    return s.warmup_steps


def _after_both(s: Schedule) -> int:
    return s.warmup_steps + s.decay_steps


def _of_the_rest(k: int, s: Schedule) -> float:
    return (k + 1) / (s.max_steps - s.warmup_steps)


def _half_a_cosine(share: float) -> float:
    return (1 - math.cos(math.pi * share)) / 2


def _mistakes(s: Schedule) -> Mistakes:
    """The known mistakes; `s` is for those that need its peak or its final rate."""
    return {
        "starts_at_zero": each(
            "climb", lambda step, s: step / s.warmup_steps, lambda step, s: step / max(1, s.warmup_steps - 1)
        ),
        "never_at_peak": each("climb", lambda step, s: (step + 1) / (s.warmup_steps + 1)),
        "starts_too_high": each("climb", lambda step, s: (step + 2) / (s.warmup_steps + 1)),
        "climb_too_long": each("warm", lambda s: s.warmup_steps + 1),
        "no_warmup": each("warm", lambda s: 0),
        "warmup_counted_from_all": each("climb", lambda step, s: (step + 1) / s.max_steps),
        "warmup_of_zero": each("climb", lambda step, s: 0.0),
        "climbs_from_final": [
            {"low": s.final},
            {"low": s.final, "climb": lambda step, s: step / s.warmup_steps},
            {"low": s.final, "climb": lambda step, s: step / max(1, s.warmup_steps - 1)},
        ],
        "curved_climb": each(
            "climb",
            lambda step, s: _half_a_cosine((step + 1) / s.warmup_steps),
            lambda step, s: ((step + 1) / s.warmup_steps) ** 2,
            lambda step, s: math.sin(math.pi / 2 * (step + 1) / s.warmup_steps),
        ),
        "never_decays": each("begin", lambda s: s.max_steps),
        "no_stable_part": [
            {"begin": _after_warmup, "fall": _of_the_rest},
            {"begin": _after_warmup, "fall": lambda k, s: k / (s.max_steps - s.warmup_steps)},
            {"begin": _after_warmup, "fall": lambda k, s: k / (s.max_steps - s.warmup_steps - 1)},
        ],
        "cosine_to_the_end": [
            {"begin": _after_warmup, "fall": lambda k, s: _half_a_cosine(_of_the_rest(k, s))},
            {"begin": _after_warmup, "fall": lambda k, s: _half_a_cosine(k / (s.max_steps - s.warmup_steps))},
            {"begin": _after_warmup, "fall": lambda k, s: _half_a_cosine(k / (s.max_steps - s.warmup_steps - 1))},
        ],
        "decay_after_warmup": [
            {"begin": _after_warmup, "fall": lambda k, s, off=off: min(1.0, (k + off) / s.decay_steps)}
            for off in (1, 0)
        ],
        "decay_begins_at_its_length": [
            *(
                {"begin": begin, "fall": lambda k, s, most=most: min(most, (k + 1) / s.decay_steps)}
                for begin in (lambda s: s.decay_steps, _after_both)
                for most in (1.0, math.inf)
            ),
            {
                "begin": _after_both,
                "fall": lambda k, s: (_after_both(s) + k - s.max_steps + s.decay_steps + 1) / s.decay_steps,
            },
        ],
        "plateau_too_long": each("fall", lambda k, s: (k + 1) / s.decay_steps if k else 0.0),
        "final_not_reached": each("fall", lambda k, s: k / s.decay_steps),
        "final_missed": each("fall", lambda k, s: (k + 1) / (s.decay_steps + 1)),
        "one_step_short": each("fall", lambda k, s: k / max(1, s.decay_steps - 1)),
        "decay_too_early": [
            {"begin": lambda s: s.max_steps - s.decay_steps - 1, "fall": fall}
            for fall in (
                lambda k, s: min(1.0, (k + 1) / s.decay_steps),
                lambda k, s: (k + 1) / s.decay_steps,
                lambda k, s: (k + 1) / (s.decay_steps + 1),
            )
        ],
        "decays_to_zero": each("final", 0.0),
        "upside_down": each("fall", lambda k, s: 1 - (k + 1) / s.decay_steps, lambda k, s: 1 - k / s.decay_steps),
        "jump": [
            {"fall": lambda k, s: (s.max_steps - s.decay_steps + k + 1) / s.max_steps},
            {"fall": lambda k, s: (s.max_steps - s.decay_steps + k) / s.max_steps},
            {"fall": lambda k, s: _of_the_rest(s.max_steps - s.decay_steps - s.warmup_steps + k, s)},
            *(
                {"fall": lambda k, s, off=off: (s.max_steps - s.decay_steps + k + off) / s.decay_steps}
                for off in (0, 1)
            ),
            {"fall": lambda k, s: 1.0},
        ],
        "curved_fall": [
            *({"fall": lambda k, s, off=off: _half_a_cosine((k + off) / s.decay_steps)} for off in (1, 0)),
            {"fall": lambda k, s: 1 - math.sqrt(1 - (k + 1) / s.decay_steps)},
            {"fall": lambda k, s: math.sqrt((k + 1) / s.decay_steps)},
            {"fall": lambda k, s: ((k + 1) / s.decay_steps) ** 2},
        ],
        "exponential": each("way", lambda peak, final, share: peak * (final / peak) ** share if final else peak),
        "final_added": each("way", lambda peak, final, share: final + peak * (1 - share)),
        "final_as_share": each("final", s.peak * s.final),
        "never_below_final": each("way", lambda peak, final, share: max(final, peak * (1 - share))),
        "climbs_on": each("way", lambda peak, final, share: peak + (peak - final) * share),
        "lengths_swapped": [
            {
                "warm": lambda s: s.decay_steps,
                "climb": lambda step, s: (step + 1) / s.decay_steps,
                "begin": lambda s: s.max_steps - s.warmup_steps,
                "fall": lambda k, s: (k + 1) / s.warmup_steps,
            }
        ],
        "peak_twice": each("end", lambda rate: rate * s.peak),
        "share_of_peak": each("end", lambda rate: rate / s.peak),
    }


def _ask(answer: Callable[..., Any], s: Schedule) -> Tensor:
    """What it gives for every step, as shares of the peak, NaN for nothing. NotNumbers for what is no single number."""
    rates = []
    for step in range(s.max_steps):
        try:
            rates.append(plain(call(answer, step, *s)))
        except Untouched:
            rates.append(math.nan)
        if isinstance(rates[-1], list):
            raise NotNumbers("row of numbers")
    if all(math.isnan(rate) for rate in rates):
        raise Untouched
    return torch.tensor(rates, dtype=torch.float64) / s.peak


def _differs(got: Tensor, s: Schedule) -> dict[str, Any] | None:
    """The first step whose rate is wrong, and the rates there."""
    right = _rates(s)()
    far = ((got - right).abs() > 1e-6) | got.isnan()
    if not far.any():
        return None
    step = int(far.nonzero()[0])
    return {"step": step, "got": f"{got[step] * s.peak:.6g}", "expected": f"{right[step] * s.peak:.6g}", **s._asdict()}


@exercise("pretraining/warmup_stable_decay")
def warmup_stable_decay(answer: Callable[..., Any]) -> Mistake | None:
    """answer(step, max_steps, warmup_steps, decay_steps, peak, final) -> the learning rate of update `step`, from 0."""
    try:
        got = _ask(answer, USUAL)
        if where := _differs(got, USUAL):
            if got.isnan().any():
                return mistake("nothing_at", step=int(got.isnan().nonzero()[0]))
            return explain([(got, _rates(USUAL))], _mistakes(USUAL)) or mistake(_part(where["step"]), **where)
        for code, schedules in EDGES.items():
            for s in schedules:
                try:
                    where = _differs(_ask(answer, s), s)
                except (ArithmeticError, LookupError, ValueError) as error:
                    return mistake(code, **s._asdict(), what=f"your function stops with {type(error).__name__}")
                if where:
                    what = f"update {where['step']} gets {where['got']} instead of {where['expected']}"
                    return mistake(code, **s._asdict(), what=what)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)
    return None


def _part(step: int) -> str:
    """The code of a wrong rate of no known cause, by the part of the schedule in which it lies."""
    if step < USUAL.warmup_steps:
        return "climb_differs"
    return "plateau_differs" if step < USUAL.max_steps - USUAL.decay_steps else "fall_differs"
