"""Answers to the exercises of notebook 00: the right one, and wrong ones with the mistake that each must be told."""

import itertools
import math
import random
import statistics

import numpy as np
import torch


def _example(first=lambda s, n: (s, s + n), second=lambda s, n: (s + 1, s + n + 1)):
    def answer(ids, start, length):
        return ids[slice(*first(start, length))], ids[slice(*second(start, length))]

    return answer


def _then(change):
    """An answer that makes the right inputs and something else of the targets, or of both."""

    def answer(ids, start, length):
        return change(list(ids[start : start + length]), list(ids[start + 1 : start + length + 1]))

    return answer


def _inputs_only(ids, start, length):
    inputs = ids[start : start + length]
    return inputs, inputs[1:]


def _rolled(ids, start, length):
    inputs = torch.tensor(ids[start : start + length])
    return inputs, inputs.roll(-1)


def _padded(ids, start, length):
    inputs = list(ids[start : start + length])
    return inputs, [*inputs[1:], -100]


def _shorter_window(ids, start, length):
    window = ids[start : start + length]
    return window[:-1], window[1:]


def _careful(ids, start, length):
    if start + length + 1 >= len(ids):
        raise IndexError("too close to the end")
    return ids[start : start + length], ids[start + 1 : start + length + 1]


def _too_careful(ids, start, length):
    return _careful(ids, start, length) if start + length + 1 < len(ids) else None


def _from_batches(ids, start, length):
    rows = np.array(ids)[: len(ids) // length * length].reshape(-1, length)
    return rows[start // length], rows[start // length + 1]


def _loss(p, log=math.log):
    return -sum(log(x) for x in p) / len(p)


def _over_n_minus_one(p):
    return math.exp(-sum(math.log(x) for x in p) / (len(p) - 1)) if len(p) > 1 else 1 / p[0]


def _standard_deviation_too(p):
    logs = [-math.log(x) for x in p]
    return math.exp(statistics.mean(logs) + 0 * statistics.stdev(logs))


def _capped(p):
    return min(math.exp(_loss(p)), 9.0)


def _softmax(scores, temperature=1.0, base=math.e):
    highest = max(scores)
    powers = [base ** ((s - highest) / temperature) for s in scores]
    return [x / sum(powers) for x in powers]


def _hot(scores):
    best = list(scores).index(max(scores))
    return [1.0 if i == best else 0.0 for i in range(len(scores))]


def _warm(make, at_zero=_hot):
    """An answer that shares out by `make` above temperature 0, and by `at_zero` there."""
    return lambda scores, temperature: at_zero(scores) if temperature == 0 else make(scores, temperature)


def _naive(scores, temperature):
    powers = [math.exp(s / temperature) for s in scores]
    return [x / sum(powers) for x in powers]


def _share(row):
    return [x / sum(row) for x in row]


ANSWERS = {
    "start/make_example": (
        _example(),
        [
            ("one_row", lambda ids, start, length: ids[start : start + length + 1]),
            ("one_row", lambda ids, start, length: ids[start + length]),
            ("pairs", _then(lambda x, y: list(zip(x, y)))),
            ("pairs", _then(lambda x, y: torch.tensor([x, y]).T)),
            ("one_target", _then(lambda x, y: (x, y[-1]))),
            ("one_target", _then(lambda x, y: (x, y[-1:]))),
            ("prefixes", _then(lambda x, y: ([x[: i + 1] for i in range(len(x))], y))),
            ("not_two_rows", _then(lambda x, y: ([x], [y]))),
            ("not_two_rows", _then(lambda x, y: torch.tensor([x])[None])),
            ("not_two_rows", _then(lambda x, y: (x, y, len(x)))),
            ("ids_plus_one", _then(lambda x, y: (x, [i + 1 for i in x]))),
            ("ids_plus_one", lambda ids, start, length: (ids[start : start + length], ids[start : start + length] + 1)),
            (
                "positions",
                lambda ids, start, length: (range(start, start + length), range(start + 1, start + length + 1)),
            ),
            ("last_target", _rolled),
            ("last_target", _padded),
            ("lengths", _inputs_only),
            ("lengths", _example(second=lambda s, n: (s + 1, s + n))),
            ("lengths", _example(lambda s, n: (s, s + n + 1), lambda s, n: (s + 1, s + n + 2))),
            ("lengths", _example(lambda s, n: (0, s), lambda s, n: (1, s + 1))),
            ("swapped", _then(lambda x, y: (y, x))),
            ("length_ignored", lambda ids, start, length: (ids[start:], ids[start + 1 :])),
            ("end_without_start", _example(lambda s, n: (s, n), lambda s, n: (s + 1, n + 1))),
            ("window_short", _shorter_window),
            ("start_off", _example(lambda s, n: (0, n), lambda s, n: (1, n + 1))),
            ("start_off", _example(lambda s, n: (s - 1, s + n - 1), lambda s, n: (s, s + n))),
            ("start_off", _example(lambda s, n: (s * n, s * n + n), lambda s, n: (s * n + 1, s * n + n + 1))),
            ("unsteady", lambda ids, start, length: (random.sample(ids, length), random.sample(ids, length))),
            ("inputs_differ", _then(lambda x, y: (x[::-1], y[::-1]))),
            ("inputs_differ", _then(lambda x, y: (sorted(x), sorted(y)))),
            ("not_shifted", _example(second=lambda s, n: (s, s + n))),
            ("shifted_backwards", _example(second=lambda s, n: (s - 1, s + n - 1))),
            ("shift_off", _example(second=lambda s, n: (s + 2, s + n + 2))),
            ("next_window", _example(second=lambda s, n: (s + n, s + 2 * n))),
            ("target_differs", _then(lambda x, y: (x, y[::-1]))),
            ("target_differs", _then(lambda x, y: (x, [0] * len(x)))),
            ("start_off", _from_batches),
            ("fails_at_edge", _careful),
            ("fails_at_edge", _too_careful),
            ("not_numbers", _then(lambda x, y: {"inputs": x, "targets": y})),
            ("not_numbers", _then(lambda x, y: (x, " ".join(map(str, y))))),
            ("not_numbers", _then(lambda x, y: (x, [*y[:-1], None]))),
            (
                "raised",
                lambda ids, start, length: (ids[start : start + length], ids[start + 1 : start + length + 1]) / 2,
            ),
        ],
    ),
    "start/perplexity": (
        lambda p: math.exp(_loss(p)),
        [
            ("one_for_each", lambda p: [1 / x for x in p]),
            ("one_for_each", lambda p: torch.tensor(p).log().neg().exp()),
            ("one_for_each", lambda p: np.exp(-np.cumsum(np.log(p)) / np.arange(1, len(p) + 1))),
            ("no_exponential", _loss),
            ("bits", lambda p: _loss(p, math.log2)),
            ("bases_mixed", lambda p: 2 ** _loss(p)),
            ("bases_mixed", lambda p: math.exp(_loss(p, math.log2))),
            ("bases_mixed", lambda p: np.exp(-np.mean(np.log10(p)))),
            ("sign", lambda p: torch.tensor(p).log().mean().exp()),
            ("sign", lambda p: np.log(p).mean()),
            ("mean_of_probabilities", lambda p: sum(p) / len(p)),
            ("log_of_mean", lambda p: 1 / np.mean(p)),
            ("log_of_mean", lambda p: math.exp(-math.log(sum(p) / len(p)))),
            ("log_of_mean", lambda p: -math.log(sum(p) / len(p))),
            ("mean_of_inverses", lambda p: sum(1 / x for x in p) / len(p)),
            ("mean_of_inverses", lambda p: np.mean(np.exp(-np.log(p)))),
            ("summed", lambda p: math.exp(-sum(map(math.log, p)))),
            ("summed", lambda p: -sum(math.log(x) for x in p)),
            ("summed", math.prod),
            ("mean_of_inverses", lambda p: np.exp(-np.log(p)).sum()),
            ("made_to_add_up", lambda p: math.exp(_loss([x / sum(p) for x in p]))),
            ("made_to_add_up", lambda p: torch.tensor(p).log_softmax(0).mean().neg().exp()),
            ("entropy", lambda p: math.exp(-sum(x * math.log(x) for x in p))),
            ("entropy", lambda p: 2 ** -sum(x * math.log2(x) for x in p)),
            ("entropy", lambda p: -(p * p.log()).mean()),
            ("no_logarithm", lambda p: math.exp(-sum(p) / len(p))),
            ("no_logarithm", lambda p: np.exp(np.mean(p))),
            ("square_root", lambda p: math.prod(p) ** -0.5),
            ("count_off", _over_n_minus_one),
            ("one_token_only", lambda p: 1 / min(p)),
            ("one_token_only", lambda p: 1 / statistics.median(p)),
            ("one_token_only", lambda p: math.exp(-math.log(p[-1]))),
            ("rounded", lambda p: round(math.exp(_loss(p)), 2)),
            ("rounded", lambda p: np.float16(math.exp(_loss(p)))),
            ("value", len),
            ("rounded", lambda p: int(math.exp(_loss(p)))),
            ("below_one", lambda p: sum(math.log(x) for x in p) / sum(p)),
            ("below_one", lambda p: float("nan")),
            ("value", lambda p: math.exp(_loss(p)) + 1),
            ("value", lambda p: math.exp(_loss(sorted(p)[1:]))),
            ("fails_on", _standard_deviation_too),
            ("even_text", _capped),
            ("product_vanishes", lambda p: math.prod(p) ** (-1 / len(p))),
            ("product_vanishes", lambda p: np.prod(p) ** (-1 / len(p))),
            ("product_vanishes", lambda p: torch.tensor(p).prod() ** (-1 / len(p))),
            ("not_numbers", lambda p: f"{math.exp(_loss(p)):.2f}"),
            ("raised", lambda p: math.exp(-math.log(p) / len(p)) + undefined),  # noqa: F821
        ],
    ),
    "start/probabilities": (
        _warm(_softmax),
        [
            ("one_number", _warm(lambda s, t: max(_softmax(s, t)))),
            ("one_number", lambda s, t: s.index(max(s))),
            ("length", _warm(lambda s, t: [_softmax(s, t)] * 2)),
            ("length", _warm(lambda s, t: torch.tensor([_softmax(s, t)]))),
            ("length", _warm(lambda s, t: _softmax(sorted(s)[-3:], t))),
            ("temperature_ignored", lambda s, t: _softmax(s)),
            ("temperature_ignored", lambda s, t: _share([x / t for x in _softmax(s)]) if t else _hot(s)),
            ("temperature_ignored", lambda s, t: _softmax([x - t for x in s])),
            ("multiplied", lambda s, t: _softmax([x * t for x in s])),
            ("multiplied", lambda s, t: torch.softmax(torch.tensor(s) * t, dim=0)),
            ("power_of_temperature", _warm(lambda s, t: _softmax(s, t * t))),
            ("divided_after", _warm(lambda s, t: [x / t for x in _softmax(s)])),
            ("divided_after", _warm(lambda s, t: s.softmax(-1) / t)),
            ("half_divided", _warm(lambda s, t: [math.exp(x / t) / sum(map(math.exp, s)) for x in s])),
            ("not_shared_out", _warm(lambda s, t: [math.exp(x / t) for x in s])),
            ("not_shared_out", _warm(lambda s, t: np.exp(np.array(s) / t - max(s) / t))),
            ("power_not_shared_out", _warm(lambda s, t: [x ** (1 / t) for x in _softmax(s)])),
            ("only_divided", _warm(lambda s, t: [x / t for x in s])),
            ("no_exponential", _warm(lambda s, t: _share([x / t for x in s]))),
            ("no_exponential", _warm(lambda s, t: _share([max(x, 0) / t for x in s]))),
            ("logarithms", _warm(lambda s, t: (torch.tensor(s) / t).log_softmax(0))),
            ("other_base", _warm(lambda s, t: _softmax(s, t, base=2))),
            ("upside_down", _warm(lambda s, t: _softmax([-x for x in s], t))),
            ("each_for_itself", _warm(lambda s, t: torch.sigmoid(torch.tensor(s) / t))),
            ("each_for_itself", _warm(lambda s, t: _share([1 / (1 + math.exp(-x / t)) for x in s]))),
            ("twice", _warm(lambda s, t: _softmax(_softmax(s, t)))),
            ("twice", _warm(lambda s, t: _softmax(_softmax(s), t))),
            ("whole_division", _warm(lambda s, t: _softmax([x // t for x in s]))),
            ("percent", _warm(lambda s, t: [100 * x for x in _softmax(s, t)])),
            ("always_greedy", lambda s, t: _hot(s)),
            ("always_even", lambda s, t: [1 / len(s)] * len(s)),
            ("reordered", _warm(lambda s, t: sorted(_softmax(s, t), reverse=True))),
            ("reordered", _warm(lambda s, t: torch.tensor(s).sort().values.div(t).softmax(0))),
            ("negative", _warm(lambda s, t: [x - 1 / len(s) for x in _softmax(s, t)])),
            ("sum", _warm(lambda s, t: [x / (1 + sum(math.exp(y / t) for y in s)) for x in _softmax(s, t)])),
            ("half_divided", _warm(lambda s, t: [math.exp(x) / sum(math.exp(y / t) for y in s) for x in s])),
            ("rounded", _warm(lambda s, t: [round(x, 2) for x in _softmax(s, t)])),
            ("value", _warm(lambda s, t: _softmax([max(x, 0) for x in s], t))),
            ("value", _warm(lambda s, t: _softmax(s, t + 1))),
            ("not_finite", _warm(lambda s, t: [float("nan")] * len(s))),
            ("zero_fails", _softmax),
            ("zero_fails", lambda s, t: (torch.tensor(s) / t).softmax(0)),
            ("zero_fails", _naive),
            ("zero_gives_nothing", _warm(_softmax, at_zero=lambda s: None)),
            ("zero_gives_index", _warm(_softmax, at_zero=lambda s: s.index(max(s)))),
            ("zero_as_one", lambda s, t: _softmax(s, t or 1)),
            ("zero_even", _warm(_softmax, at_zero=lambda s: [1 / len(s)] * len(s))),
            ("zero_differs", _warm(_softmax, at_zero=lambda s: _hot([-x for x in s]))),
            ("zero_differs", _warm(_softmax, at_zero=lambda s: [max(s) if x == max(s) else 0 for x in s])),
            ("zero_almost", lambda s, t: _softmax(s, max(t, 0.1))),
            ("unsteady", _warm(lambda s, t: [p + random.random() / 9 for p in _softmax(s, t)])),
            ("overflow", _warm(_naive)),
            ("overflow", _warm(lambda s, t: np.exp(np.array(s) / t) / np.exp(np.array(s) / t).sum())),
            ("not_numbers", _warm(lambda s, t: dict(enumerate(_softmax(s, t))))),
            ("raised", _warm(lambda s, t: _softmax(s, t)[len(s)])),
        ],
    ),
}

# Right answers in other styles.
ALSO_RIGHT = {
    "start/make_example": [
        lambda ids, start, length: [torch.tensor(ids[start : start + length]), torch.tensor(ids[start + 1 :][:length])],
        lambda ids, start, length: np.lib.stride_tricks.sliding_window_view(np.array(ids), length)[start : start + 2],
        lambda ids, start, length: zip(*itertools.islice(itertools.pairwise(ids), start, start + length)),
        lambda ids, start, length: torch.as_tensor(ids).unfold(0, length, 1)[start : start + 2],
        lambda ids, start, length: (
            [ids[start + i] for i in range(length)],
            (ids[start + i + 1] for i in range(length)),
        ),
        lambda ids, start, length: (ids.narrow(0, start, length), ids.narrow(0, start + 1, length)),
    ],
    "start/perplexity": [
        lambda p: 2 ** _loss(p, math.log2),
        lambda p: torch.exp(-torch.log(torch.tensor(p)).mean()),
        lambda p: p.log().mean().neg().exp().item(),
        lambda p: [1 / statistics.geometric_mean(p)],
        lambda p: np.exp(np.mean(-np.log(p))),
        lambda p: math.prod(x ** (-1 / len(p)) for x in p),
        lambda p: torch.nn.functional.nll_loss(torch.tensor(p)[:, None].log(), torch.zeros(len(p), dtype=int)).exp(),
    ],
    "start/probabilities": [
        _warm(lambda s, t: torch.softmax(torch.tensor(s) / t, dim=-1)),
        _warm(lambda s, t: (s / t).softmax(0), at_zero=lambda s: torch.nn.functional.one_hot(s.argmax(), len(s))),
        _warm(lambda s, t: tuple(np.exp((np.array(s) - max(s)) / t) / np.exp((np.array(s) - max(s)) / t).sum())),
        _warm(_softmax, at_zero=lambda s: [int(x == max(s)) for x in s]),
        lambda s, t: _softmax(s, max(t, 1e-9)),
        _warm(lambda s, t: _share([math.exp(x - max(s)) ** (1 / t) for x in s])),
        _warm(lambda s, t: np.exp(np.array(s) / t - np.logaddexp.reduce(np.array(s) / t))),
    ],
}
