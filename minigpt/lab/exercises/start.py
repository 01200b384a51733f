"""What the exercises of notebook 00 ask for, and how each wrong answer is told from the others.

A diagnosis compares the answer with the results of known mistakes, then looks at properties (do the probabilities add
up to 1?), and only then says that a value differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

from minigpt.lab.answers import NotNumbers, ask, close, is_row, known, unless_random
from minigpt.lab.check import Mistake, Untouched, exercise, mistake

Row = list[float]

# Different ids in no order, so that a row of them tells where it was cut out.
IDS = [31, 8, 77, 52, 19, 64, 5, 40, 93, 26, 70, 12, 58, 3, 85, 47, 21, 66, 34, 90, 15, 73, 50, 29, 61, 7, 82, 44]


@exercise("start/make_example")
def make_example(answer: Callable[..., Any]) -> Mistake | None:
    """answer(ids, start, length) -> inputs, targets: `length` ids from position `start`, and the successor of each."""
    try:
        got = ask(answer, IDS, 3, 5)
        found = unless_random(_example(got, 3, 5), got, answer, IDS, 3, 5)
        for start, length in ((0, 4), (11, 3), (len(IDS) - 5, 4)):
            try:
                found = found or _example(ask(answer, IDS, start, length), start, length)
            except (Untouched, IndexError, ValueError):
                return mistake("fails_at_edge", start=start, length=length, total=len(IDS))
        return found
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)


def _example(got: Any, start: int, length: int) -> Mistake | None:
    inputs, targets = IDS[start : start + length], IDS[start + 1 : start + length + 1]
    if got == [inputs, targets]:
        return None
    if not isinstance(got, list) or is_row(got):
        return mistake("one_row", length=length)
    if got == [list(pair) for pair in zip(inputs, targets)]:
        return mistake("pairs", length=length)
    if len(got) == 2 and got[0] == inputs and got[1] in (targets[-1], targets[-1:]):
        return mistake("one_target", length=length)
    if got[0] == [inputs[: i + 1] for i in range(length)]:
        return mistake("prefixes", length=length)
    if len(got) != 2 or not all(map(is_row, got)):
        return mistake("not_two_rows", length=length)
    x, y = got
    if x == inputs and y == [i + 1 for i in inputs]:
        return mistake("ids_plus_one")
    if x == inputs and len(y) == length and y[:-1] == targets[:-1]:
        return mistake("last_target", got=y[-1], expected=targets[-1])
    if [x, y] == [targets, inputs]:
        return mistake("swapped")
    if [x, y] == [IDS[start:], IDS[start + 1 :]]:
        return mistake("length_ignored", length=length)
    if x == IDS[start:length]:
        return mistake("end_without_start", start=start, length=length)
    if [x, y] == [inputs[:-1], targets[:-1]]:
        return mistake("window_short", length=length)
    if (len(x), len(y)) != (length, length):
        return mistake("lengths", inputs=len(x), targets=len(y), length=length)
    if [x, y] == [[*range(start, start + length)], [*range(start + 1, start + length + 1)]]:
        return mistake("positions")
    if x != inputs:
        at = _place(x)
        return (
            mistake("inputs_differ", got=x, expected=inputs) if at is None else mistake("start_off", at=at, start=start)
        )
    at = _place(y)
    if at is not None:
        named = {start: "not_shifted", start + length: "next_window"}
        return mistake(named.get(at, "shifted_backwards" if at < start else "shift_off"), shift=at - start)
    where = next(i for i in range(length) if y[i] != targets[i])
    return mistake("target_differs", where=where, read=x[where], got=y[where], expected=targets[where])


def _place(row: Row) -> int | None:
    """The position in IDS at which this row was cut out, or None."""
    return next((i for i in range(len(IDS)) if IDS[i : i + len(row)] == row), None)


@exercise("start/perplexity")
def perplexity(answer: Callable[..., Any]) -> Mistake | None:
    """answer(probabilities) -> exp of the mean of -ln p, for the probabilities that the true tokens were given."""
    p = [0.5, 0.1, 0.8, 0.05, 0.3]
    try:
        got = ask(answer, p)
        return unless_random(_perplexity(got, p), got, answer, p) or _other_texts(answer)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)


def _single(got: Any) -> Any:
    """The number in a list of one."""
    return _single(got[0]) if isinstance(got, list) and len(got) == 1 else got


def _perplexity(got: Any, p: Row) -> Mistake | None:
    got, n, mean, product = _single(got), len(p), sum(p) / len(p), math.prod(p)
    loss = -sum(math.log(x) for x in p) / n
    right, bits, digits = math.exp(loss), loss / math.log(2), loss / math.log(10)
    if isinstance(got, list):
        return mistake("one_for_each", count=len(got))
    if close(got, right):
        return None
    entropy = -sum(x * math.log(x) for x in p)
    wrong = {
        "no_exponential": [loss],
        "bits": [bits],
        "bases_mixed": [2**loss, 10**loss, math.exp(bits), 10**bits, math.exp(digits), 2**digits],
        "sign": [-loss, 1 / right],
        "mean_of_probabilities": [mean, 1 - mean],
        "log_of_mean": [1 / mean, -math.log(mean)],
        "mean_of_inverses": [sum(1 / x for x in p) / n, sum(1 / x for x in p)],
        "summed": [1 / product, product, loss * n, -loss * n],
        "made_to_add_up": [right * sum(p), math.exp(-sum(map(math.log, _softmax(p))) / n)],
        "entropy": [entropy, entropy / n, math.exp(entropy), math.exp(entropy / n), 2 ** (entropy / math.log(2))],
        "no_logarithm": [math.exp(mean), math.exp(-mean), math.exp(1 - mean), math.exp(sum(p)), math.exp(-sum(p))],
        "square_root": [product**-0.5],
        "count_off": [math.exp(loss * n / (n - 1)), math.exp(loss * n / (n + 1))],
        "one_token_only": [1 / x for x in p],
    }
    found = known(got, ((code, result) for code, results in wrong.items() for result in results))
    if found:
        return found
    if close(got, right, 0.005) or got in (math.floor(right), round(right, 1)):
        return mistake("rounded")
    if not got >= 1:
        return mistake("below_one", got=f"{got:.4g}")
    return mistake("value", text=p, got=f"{got:.4g}", expected=f"{right:.4g}")


def _other_texts(answer: Callable[..., Any]) -> Mistake | None:
    """A text of one token, two with the same probability everywhere, and one whose product of probabilities is 0."""
    for p in ([0.25], [1.0, 1.0, 1.0], [0.1] * 7):
        try:
            got = _single(ask(answer, p))
        except (ArithmeticError, ValueError, IndexError, Untouched):
            return mistake("fails_on", text=p)
        if not close(got, 1 / p[0]):
            return mistake("even_text", text=p, expected=f"{1 / p[0]:g}", got=got)
    long = [0.2, 0.5] * 3000
    try:
        vanished = not close(_single(ask(answer, long)), math.sqrt(10), 1e-3)
    except (ArithmeticError, ValueError):
        vanished = True
    return mistake("product_vanishes", count=len(long)) if vanished else None


@exercise("start/probabilities")
def probabilities(answer: Callable[..., Any]) -> Mistake | None:
    """answer(scores, temperature) -> softmax(scores / temperature), and for 0 all of it to the highest score."""
    scores = [0.4, -1.1, 2.0, 0.1, 1.5]
    try:
        for temperature in (0.5, 2.0, 1):
            got = ask(answer, scores, temperature)
            found = unless_random(_probabilities(got, scores, temperature), got, answer, scores, temperature)
            if found:
                return found
        return _greedy(answer, scores) or _large_scores(answer)
    except NotNumbers as error:
        return mistake("not_numbers", kind=error)


def _softmax(scores: Iterable[float], base: float = math.e) -> Row:
    scores = list(scores)
    return _share(base ** (score - max(scores)) for score in scores)


def _share(row: Iterable[float]) -> Row:
    row = list(row)
    return [x / sum(row) for x in row]


def _one_hot(count: int, hot: int) -> Row:
    return [float(i == hot) for i in range(count)]


def _probabilities(got: Any, scores: Row, T: float) -> Mistake | None:
    scaled, n, right = [s / T for s in scores], len(scores), _softmax(s / T for s in scores)
    if close(got, right):
        return None
    if not isinstance(got, list):
        return mistake("one_number", count=n)
    if not is_row(got) or len(got) != n:
        return mistake("length", count=n)
    unscaled, powers = _softmax(scores), [math.exp(s) for s in scaled]
    sigmoids = [1 / (1 + math.exp(-s)) for s in scaled]
    wrong = {
        "temperature_ignored": [unscaled],
        "multiplied": [_softmax(s * T for s in scores)],
        "power_of_temperature": [_softmax(s / T**2 for s in scores), _softmax(s / T**0.5 for s in scores)],
        "divided_after": [[x / T for x in unscaled], [x * T for x in unscaled]],
        "half_divided": [
            [power / sum(map(math.exp, scores)) for power in powers],
            [math.exp(s) / sum(powers) for s in scores],
        ],
        "not_shared_out": [powers, [x / max(powers) for x in powers], [x / n for x in powers]],
        "power_not_shared_out": [[x ** (1 / T) for x in unscaled]],
        "only_divided": [scaled, [s - max(scaled) for s in scaled]],
        "no_exponential": [
            *(_share(row) for row in (scaled, map(abs, scaled), [s - min(scores) for s in scores])),
            *(_share(max(s, 0) for s in row) for row in (scaled, scores)),
        ],
        "logarithms": [[math.log(x) for x in right]],
        "other_base": [_softmax(scaled, 2), _softmax(scaled, 10)],
        "upside_down": [_softmax(-s for s in scaled)],
        "each_for_itself": [sigmoids, _share(sigmoids)],
        "twice": [_softmax(right), _softmax(x / T for x in unscaled)],
        "whole_division": [_softmax(s // T for s in scores)],
        "percent": [[100 * x for x in right]],
        "always_greedy": [_one_hot(n, scores.index(max(scores)))],
        "always_even": [[1 / n] * n],
        "reordered": [sorted(right), sorted(right, reverse=True), right[::-1]],
    }
    found = known(got, ((code, result) for code, results in wrong.items() for result in results))
    if found:
        return found
    if any(got == [round(x, places) for x in right] for places in range(4)):
        return mistake("rounded")
    if not all(map(math.isfinite, got)):
        return mistake("not_finite", share=f"{sum(not math.isfinite(x) for x in got) / n:.0%}")
    if min(got) < 0:
        return mistake("negative", got=f"{min(got):.3g}")
    if abs(sum(got) - 1) > 0.01:
        return mistake("sum", total=f"{sum(got):.3g}")
    where = max(range(n), key=lambda i: abs(got[i] - right[i]))
    numbers = {"got": f"{got[where]:.3f}", "expected": f"{right[where]:.3f}"}
    return mistake("value", score=scores[where], scores=scores, temperature=T, **numbers)


def _greedy(answer: Callable[..., Any], scores: Row) -> Mistake | None:
    n, best = len(scores), scores.index(max(scores))
    try:
        got = ask(answer, scores, 0)
    except (ArithmeticError, ValueError, RuntimeError):
        return mistake("zero_fails")
    except Untouched:
        return mistake("zero_gives_nothing")
    if close(got, _one_hot(n, best)):
        return None
    if not isinstance(got, list) or len(got) != n:
        return mistake("zero_gives_index", count=n)
    if not all(map(math.isfinite, got)):
        return mistake("zero_fails")
    if got[best] > 0.9 and abs(sum(got) - 1) < 0.01:
        return mistake("zero_almost", rest=f"{max(got[:best] + got[best + 1 :]):.2g}")
    wrong = [("zero_as_one", _softmax(scores)), ("zero_even", [1 / n] * n)]
    return known(got, wrong) or mistake("zero_differs", got=[round(x, 3) for x in got], expected=_one_hot(n, best))


def _large_scores(answer: Callable[..., Any]) -> Mistake | None:
    for scores in ([1000.0, 998.0, 1001.0], [-1000.0, -1002.0, -999.0]):
        try:
            overflows = not close(ask(answer, scores, 1.0), _softmax(scores))
        except (ArithmeticError, ValueError):
            overflows = True
        if overflows:
            return mistake("overflow", score=f"{scores[0]:g}")
    return None
