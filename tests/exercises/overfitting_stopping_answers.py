"""Answers to notebook 06's exercises about choosing and stopping: right ones, and wrong ones with their mistake."""

import itertools
import math

import numpy as np
import torch


def _honest_epoch(val_losses, test_losses):
    chosen = min(range(len(val_losses)), key=lambda i: val_losses[i])
    return chosen, test_losses[chosen]


def _by_numpy(val_losses, test_losses):
    at = np.argmin(val_losses)
    return at, np.asarray(test_losses)[at]


def _by_torch(val_losses, test_losses):
    at = torch.as_tensor(val_losses).argmin()
    return at, torch.as_tensor(test_losses)[at]


def _by_index(val_losses, test_losses):
    return [val_losses.index(min(val_losses)), test_losses[val_losses.index(min(val_losses))]]


def _by_loop(val_losses, test_losses):
    chosen, lowest = None, math.inf
    for i, (val, _) in enumerate(zip(val_losses, test_losses)):
        if val < lowest:
            chosen, lowest = i, val
    return torch.tensor([chosen, test_losses[chosen]])


def _by_sorting(val_losses, test_losses):
    (_, at, loss), *_ = sorted((val, i, test_losses[i]) for i, val in enumerate(val_losses))
    return np.array([at, loss])


def _chosen(
    by=lambda val, test: val, pick=np.argmin, report=lambda val, test, i: test[i], end=lambda i, loss, val: (i, loss)
):
    """An answer that goes wrong in one of its steps."""

    def answer(val_losses, test_losses):
        val, test = np.array(val_losses), np.array(test_losses)
        i = int(pick(by(val, test)))
        return end(i, report(val, test, i), val)

    return answer


def _guess(val_losses, test_losses):
    """Begins with a first guess that is not above all losses."""
    chosen, lowest = 0, 100.0
    for i, val in enumerate(val_losses):
        if val < lowest:
            chosen, lowest = i, val
    return chosen, test_losses[chosen]


def _needs_two(val_losses, test_losses):
    assert len(val_losses) > 1
    return _honest_epoch(val_losses, test_losses)


def _first_rise(losses):
    for i, (one, other) in enumerate(itertools.pairwise(losses)):
        if other > one:
            return i
    return len(losses) - 1


HONEST = [
    ("not_numbers", lambda val, test: {"index": _by_numpy(val, test)[0]}),
    ("not_a_pair", lambda val, test: _by_numpy(val, test)[1]),
    ("not_a_pair", lambda val, test: (*_by_numpy(val, test), min(val))),
    ("chosen_on_the_test_set", lambda val, test: _by_numpy(test, test)),
    ("chosen_on_the_test_set", _chosen(by=lambda val, test: test, report=lambda val, test, i: val[i])),
    ("chosen_on_the_test_set", lambda val, test: (np.argmin(test), min(val))),
    ("chosen_on_both", _chosen(by=lambda val, test: (val + test) / 2)),
    ("smallest_gap", _chosen(by=lambda val, test: abs(val - test))),
    ("smallest_gap", _chosen(by=lambda val, test: test - val)),
    ("last", lambda val, test: (len(val) - 1, test[-1])),
    ("last", lambda val, test: (-1, test[-1])),
    ("last", _chosen(pick=lambda losses: len(losses) - 1, report=lambda val, test, i: val[i])),
    ("worst", _chosen(pick=np.argmax)),
    ("worst", lambda val, test: max(enumerate(test), key=lambda pair: val[pair[0]])),
    ("ties_late", _chosen(pick=lambda losses: len(losses) - 1 - np.argmin(losses[::-1]))),
    (
        "ties_late",
        lambda val, test: min(((i, test[i]) for i in range(len(val))), key=lambda pair: (val[pair[0]], -pair[0])),
    ),
    ("first_dip", _chosen(pick=_first_rise)),
    ("luckiest_reported", lambda val, test: (np.argmin(val), min(test))),
    ("validation_reported", lambda val, test: (np.argmin(val), min(val))),
    ("last_reported", lambda val, test: (np.argmin(val), test[-1])),
    ("mean_reported", lambda val, test: (np.argmin(val), np.mean(test))),
    ("neighbour_reported", _chosen(report=lambda val, test, i: test[i + 1])),
    ("neighbour_reported", _chosen(report=lambda val, test, i: test[i - 1])),
    ("counted_from_one", lambda val, test: (np.argmin(val) + 1, test[np.argmin(val)])),
    ("loss_for_index", lambda val, test: (min(val), test[np.argmin(val)])),
    ("swapped", lambda val, test: _by_numpy(val, test)[::-1]),
    (
        "ties_late",
        _chosen(pick=lambda losses: len(losses) - 1 - np.argmin(losses[::-1]), report=lambda val, test, i: val[i]),
    ),
    ("index", lambda val, test: (2, 1.5)),
    ("index", _chosen(pick=lambda losses: np.argsort(losses, kind="stable")[2])),
    ("loss", _chosen(report=lambda val, test, i: test[i] + 0.5)),
    ("elsewhere", _guess),
    ("elsewhere", _needs_two),
    ("raised", lambda val, test: val.best(test)),
]


def _stop_at(val_losses, eval_every, patience, min_delta):
    lowest, best_at, waited = math.inf, 0, 0
    for i, loss in enumerate(val_losses):
        if loss < lowest - min_delta:
            lowest, best_at, waited = loss, i, 0
        else:
            waited += 1
        if waited == patience:
            break
    return (i + 1) * eval_every, (best_at + 1) * eval_every


def _by_updates(val_losses, eval_every, patience, min_delta):
    best, best_update, update = None, None, 0
    for loss in val_losses:
        update += eval_every
        if best is None or best - loss > min_delta:
            best, best_update = loss, update
        elif update - best_update >= patience * eval_every:
            return update, best_update
    return update, best_update


def _from_the_second(val_losses, eval_every, patience, min_delta):
    best_at = stop = 0
    for i in range(1, len(val_losses)):
        stop = i
        if val_losses[i] + min_delta < val_losses[best_at]:
            best_at = i
        if i - best_at >= patience:
            break
    return torch.tensor([stop + 1, best_at + 1]) * eval_every


def _recursive(val_losses, eval_every, patience, min_delta, best_at=0):
    """The next improvement within the patience, and on from there."""
    losses = np.asarray(val_losses)
    ahead = np.flatnonzero(losses[best_at + 1 : best_at + 1 + patience] < losses[best_at] - min_delta)
    if len(ahead):
        return _recursive(losses, eval_every, patience, min_delta, best_at + 1 + int(ahead[0]))
    return np.array([min(best_at + patience, len(losses) - 1) + 1, best_at + 1]) * eval_every


def _with_tensors(val_losses, eval_every, patience, min_delta):
    best, at, stop = torch.tensor(math.inf), 0, len(val_losses)
    for i, loss in enumerate(torch.as_tensor(val_losses), start=1):
        if torch.lt(loss, best - min_delta):
            best, at = loss, i
        if i - at == patience:
            stop = i
            break
    return stop * eval_every, torch.tensor(at * eval_every)


def _stops(
    better=lambda loss, best, delta: loss < best - delta,
    against=lambda best, last: best,
    lose=lambda waited, patience, eval_every: waited >= patience,
    reset=True,
    creep=False,
    start=None,
    give=lambda losses, i, best_at: best_at,
    end=lambda i, b, eval_every: ((i + 1) * eval_every, (b + 1) * eval_every),
):
    """An answer that goes wrong in one of its steps."""

    def answer(val_losses, eval_every, patience, min_delta):
        losses = list(map(float, val_losses))
        best = last = math.inf if start is None else start(losses)
        best_at = waited = 0
        for i, loss in enumerate(losses):
            if better(loss, against(best, last), min_delta):
                best, best_at = loss, i
                if reset:
                    waited = 0
            else:
                waited += 1
                if creep:
                    best = min(best, loss)
            last = loss
            if lose(waited, patience, eval_every):
                break
        return end(i, give(losses, i, best_at), eval_every)

    return answer


def _argmin_so_far(losses, i, best_at):
    return losses.index(min(losses[: i + 1]))


def _returns_at_the_stop_alone(val_losses, eval_every, patience, min_delta):
    lowest, best_at = math.inf, 0
    for i, loss in enumerate(val_losses):
        if loss < lowest - min_delta:
            lowest, best_at = loss, i
        elif i - best_at >= patience:
            return (i + 1) * eval_every, (best_at + 1) * eval_every


def _stop_of_none(val_losses, eval_every, patience, min_delta):
    stop = None
    lowest, best_at = math.inf, 0
    for i, loss in enumerate(val_losses):
        if loss < lowest - min_delta:
            lowest, best_at = loss, i
        elif i - best_at >= patience:
            stop = (i + 1) * eval_every
            break
    return stop, (best_at + 1) * eval_every


def _unbound(val_losses, eval_every, patience, min_delta):
    best_at = 0
    for i in range(1, len(val_losses)):
        if val_losses[i] < val_losses[best_at] - min_delta:
            best_at = i
        elif i - best_at >= patience:
            stop = (i + 1) * eval_every
            break
    return stop, (best_at + 1) * eval_every


def _best_not_moved(val_losses, eval_every, patience, min_delta):
    best_at, waited = 0, 0
    for i, loss in enumerate(val_losses):
        if loss < val_losses[0] - min_delta:
            best_at, waited = i, 0
        else:
            waited += 1
        if waited == patience:
            break
    return (i + 1) * eval_every, (best_at + 1) * eval_every


def _returns_at_the_stop_alone_too_late(val_losses, eval_every, patience, min_delta):
    return _returns_at_the_stop_alone(val_losses, eval_every, patience + 1, min_delta)


def _loss_given(val_losses, eval_every, patience, min_delta):
    stop, best = _stop_at(val_losses, eval_every, patience, min_delta)
    return stop, val_losses[best // eval_every - 1]


STOP = [
    ("not_numbers", lambda *given: dict(zip(("stop", "best"), _stop_at(*given)))),
    ("not_a_pair", lambda *given: _stop_at(*given)[0]),
    ("not_a_pair", lambda *given: (*_stop_at(*given), 0.5)),
    ("without_a_stop", _returns_at_the_stop_alone),
    ("without_a_stop", _stop_of_none),
    ("without_a_stop", _unbound),
    ("one_too_patient", _returns_at_the_stop_alone_too_late),
    ("patience_in_updates", _stops(lose=lambda waited, patience, eval_every: waited * eval_every >= patience)),
    ("patience_in_updates", _stops(lose=lambda waited, patience, eval_every: waited >= patience * eval_every)),
    ("one_too_patient", _stops(lose=lambda waited, patience, eval_every: waited > patience)),
    ("one_too_hasty", _stops(lose=lambda waited, patience, eval_every: waited + 1 >= patience)),
    ("patience_ignored", _stops(lose=lambda waited, patience, eval_every: waited)),
    ("never_stops", _stops(lose=lambda *_: False)),
    ("not_reset", _stops(reset=False)),
    ("min_delta_ignored", lambda losses, eval_every, patience, _: _stop_at(losses, eval_every, patience, 0.0)),
    ("min_delta_wrong_sign", _stops(lambda loss, best, delta: loss < best + delta)),
    ("exactly_min_delta", _stops(lambda loss, best, delta: best - loss >= delta)),
    ("min_delta_relative", _stops(lambda loss, best, delta: loss < best * (1 - delta))),
    ("previous", _stops(against=lambda best, last: last)),
    ("previous", _stops(against=lambda best, last: last, give=_argmin_so_far)),
    ("best_creeps", _stops(creep=True)),
    ("best_creeps", _stops(creep=True, give=_argmin_so_far)),
    ("first_counts", _stops(start=lambda losses: losses[0])),
    ("first_guess_too_low", _stops(start=lambda losses: 0.0)),
    ("best_not_moved", _best_not_moved),
    ("higher_is_better", _stops(lambda loss, best, delta: loss > best + delta, start=lambda losses: -math.inf)),
    ("last_weights", _stops(give=lambda losses, i, best_at: i)),
    ("lowest_given_back", _stops(give=_argmin_so_far)),
    ("looks_ahead", _stops(give=lambda losses, i, best_at: int(np.argmin(losses)))),
    ("evaluations", _stops(end=lambda i, b, eval_every: (i, b))),
    ("evaluations", _stops(end=lambda i, b, eval_every: (i + 1, b + 1))),
    ("evaluations", _stops(end=lambda i, b, eval_every: ((i + 1) * eval_every, b))),
    ("counted_from_zero", _stops(end=lambda i, b, eval_every: (i * eval_every, b * eval_every))),
    ("stops_at_the_best", _stops(end=lambda i, b, eval_every: ((b + 1) * eval_every,) * 2)),
    ("loss_returned", _loss_given),
    ("swapped", lambda *given: _stop_at(*given)[::-1]),
    ("not_reset", _stops(reset=False, give=lambda losses, i, best_at: i)),
    ("one_too_patient", _stops(lose=lambda waited, patience, _: waited > patience, end=lambda i, b, _: (i, b))),
    ("stop", lambda *given: (7, 7)),
    ("stop", lambda *given: (_stop_at(*given)[0] + 1, _stop_at(*given)[1])),
    ("best", lambda *given: (_stop_at(*given)[0], 7)),
    ("elsewhere", _stops(start=lambda losses: 100.0)),
    ("elsewhere", lambda losses, *others: _stop_at(losses, *others) if losses[1] is not None else None),
    ("raised", lambda losses, *others: losses.stop(*others)),
]

ANSWERS = {"overfitting/honest_epoch": (_honest_epoch, HONEST), "overfitting/when_to_stop": (_stop_at, STOP)}
ALSO_RIGHT = {
    "overfitting/honest_epoch": [_by_numpy, _by_torch, _by_index, _by_loop, _by_sorting, _chosen()],
    "overfitting/when_to_stop": [_by_updates, _from_the_second, _recursive, _with_tensors, _stops()],
}
