"""Answers to notebook 04's exercise about a schedule: right ones, and wrong ones with their mistake."""

import math

import numpy as np
import torch


def _right(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    k = step - (max_steps - decay_steps)
    if k < 0:
        return peak
    return peak + (final - peak) * (k + 1) / decay_steps


def _from_the_end(step, max_steps, warmup_steps, decay_steps, peak, final):
    left = max_steps - 1 - step
    if left < decay_steps:
        return final + (peak - final) * left / decay_steps
    return min(1.0, (step + 1) / max(1, warmup_steps)) * peak


def _interpolated(step, max_steps, warmup_steps, decay_steps, peak, final):
    x = [-1 if warmup_steps else -2, warmup_steps - 1, max_steps - decay_steps - 1, max_steps - 1]
    return np.interp(step, x, [0 if warmup_steps else peak, peak, peak, final if decay_steps else peak])


def _by_torch(step, max_steps, warmup_steps, decay_steps, peak, final):
    share = torch.tensor((step + 1) / warmup_steps if warmup_steps else 1.0, dtype=torch.float64).clamp(max=1)
    gone = (step - (max_steps - decay_steps) + 1) / decay_steps if decay_steps else 0.0
    return torch.lerp(share * peak, torch.tensor(final, dtype=torch.float64), max(0.0, gone))


def _wsd(
    climb=lambda step, n: (step + 1) / n,
    fall=lambda k, n: (k + 1) / n,
    begin=lambda most, warmup, decay: most - decay,
    way=lambda peak, final, share: peak + (final - peak) * share,
    end=lambda rate, peak: rate,
    low=lambda final: 0.0,
    warmed=True,
):
    """An answer that goes wrong in one of its parts."""

    def answer(step, max_steps, warmup_steps, decay_steps, peak, final):
        if warmed and step < warmup_steps:
            return end(low(final) + (peak - low(final)) * climb(step, warmup_steps), peak)
        k = step - begin(max_steps, warmup_steps, decay_steps)
        return end(peak if k < 0 else way(peak, final, fall(k, decay_steps)), peak)

    return answer


def _after_warmup(most, warmup, decay):
    return warmup


def _no_stable(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    return peak + (final - peak) * (step - warmup_steps + 1) / (max_steps - warmup_steps)


def _cosine_to_the_end(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - 1 - warmup_steps)
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


def _from_max_steps(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < max_steps - decay_steps:
        return _right(step, max_steps, warmup_steps, decay_steps, peak, final)
    return peak + (final - peak) * (step + 1) / max_steps


def _one_too_many_up(step, max_steps, warmup_steps, decay_steps, peak, final):
    if warmup_steps and step <= warmup_steps:
        return peak * (step + 1) / warmup_steps
    return _right(step, max_steps, warmup_steps, decay_steps, peak, final)


def _one_too_many_flat(step, max_steps, warmup_steps, decay_steps, peak, final):
    if warmup_steps <= step <= max_steps - decay_steps:
        return peak
    return _right(step, max_steps, warmup_steps, decay_steps, peak, final)


def _plateau_of_the_wrong_length(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if step < warmup_steps + decay_steps:
        return peak
    return peak - (peak - final) * (step - (max_steps - decay_steps) + 1) / decay_steps


def _step_for_k(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < max_steps - decay_steps:
        return _right(step, max_steps, warmup_steps, decay_steps, peak, final)
    return peak + (final - peak) * (step + 1) / decay_steps


def _all_at_once(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < max_steps - decay_steps:
        return _right(step, max_steps, warmup_steps, decay_steps, peak, final)
    return final


def _warmup_divided(step, max_steps, warmup_steps, decay_steps, peak, final):
    warm = peak * (step + 1) / warmup_steps
    return warm if step < warmup_steps else _right(step, max_steps, warmup_steps, decay_steps, peak, final)


def _decay_divided(step, max_steps, warmup_steps, decay_steps, peak, final):
    slope = (final - peak) / decay_steps
    k = step - (max_steps - decay_steps)
    return peak + slope * (k + 1) if k >= 0 else peak * min(1, (step + 1) / max(1, warmup_steps))


def _smaller_of_both(step, max_steps, warmup_steps, decay_steps, peak, final):
    fall = peak if step < max_steps - decay_steps else final
    return min(fall, _right(step, max_steps, warmup_steps, decay_steps, peak, final))


def _forgotten_plain(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step < warmup_steps or step >= max_steps - decay_steps:
        return _right(step, max_steps, warmup_steps, decay_steps, peak, final)


def _warmup_in_the_way(step, max_steps, warmup_steps, decay_steps, peak, final):
    if step <= warmup_steps:
        return peak * min(1, (step + 1) / warmup_steps) if warmup_steps else peak
    return _right(step, max_steps, warmup_steps, decay_steps, peak, final)


def _last_slice(step, max_steps, warmup_steps, decay_steps, peak, final):
    rates = [_right(i, max_steps, warmup_steps, decay_steps, peak, final) for i in range(max_steps)]
    rates[-decay_steps:] = [peak + (final - peak) * (k + 1) / decay_steps for k in range(decay_steps)]
    return rates[step]


def _never_zero(step, max_steps, warmup_steps, decay_steps, peak, final):
    return max(_right(step, max_steps, warmup_steps, decay_steps, peak, final), peak / 100)


def _changed(part, change):
    """The right rate, changed in one part: 0 is the climb, 1 the plain, 2 the fall."""

    def answer(step, max_steps, warmup_steps, decay_steps, peak, final):
        rate = _right(step, max_steps, warmup_steps, decay_steps, peak, final)
        here = 0 if step < warmup_steps else 1 if step < max_steps - decay_steps else 2
        return change(rate, peak) if here == part else rate

    return answer


SCHEDULE = [
    ("nothing_at", _forgotten_plain),
    ("starts_at_zero", _wsd(climb=lambda step, n: step / n)),
    ("starts_at_zero", _wsd(climb=lambda step, n: step / n, fall=lambda k, n: k / n)),
    ("starts_at_zero", _wsd(climb=lambda step, n: step / max(1, n - 1))),
    ("climb_too_long", _one_too_many_up),
    ("plateau_too_long", _one_too_many_flat),
    ("decay_begins_at_its_length", _wsd(begin=lambda most, warmup, decay: warmup + decay)),
    ("decay_begins_at_its_length", _plateau_of_the_wrong_length),
    ("jump", _step_for_k),
    ("never_at_peak", _wsd(climb=lambda step, n: (step + 1) / (n + 1))),
    ("starts_too_high", _wsd(climb=lambda step, n: (step + 2) / (n + 1))),
    ("no_warmup", _wsd(warmed=False)),
    (
        "warmup_counted_from_all",
        lambda step, n, w, d, peak, final: peak * (step + 1) / n if step < w else _right(step, n, w, d, peak, final),
    ),
    ("warmup_of_zero", _wsd(climb=lambda step, n: 0)),
    ("warmup_of_zero", _wsd(climb=lambda step, n: step // n)),
    ("climbs_from_final", _wsd(low=lambda final: final)),
    ("climbs_from_final", _wsd(low=lambda final: final, climb=lambda step, n: step / n)),
    ("curved_climb", _wsd(climb=lambda step, n: (1 - math.cos(math.pi * (step + 1) / n)) / 2)),
    ("curved_climb", _wsd(climb=lambda step, n: ((step + 1) / n) ** 2)),
    ("never_decays", _wsd(begin=lambda most, warmup, decay: most)),
    ("no_stable_part", _no_stable),
    ("cosine_to_the_end", _cosine_to_the_end),
    ("decay_after_warmup", _wsd(begin=_after_warmup, fall=lambda k, n: min(1, (k + 1) / n))),
    ("decay_after_warmup", _wsd(begin=_after_warmup, fall=lambda k, n: min(1, k / n))),
    ("decay_begins_at_its_length", _wsd(begin=lambda most, warmup, decay: decay)),
    (
        "decay_begins_at_its_length",
        _wsd(begin=lambda most, warmup, decay: decay, fall=lambda k, n: min(1, (k + 1) / n)),
    ),
    ("final_not_reached", _wsd(fall=lambda k, n: k / n)),
    ("final_missed", _wsd(fall=lambda k, n: (k + 1) / (n + 1))),
    ("one_step_short", _wsd(fall=lambda k, n: k / max(1, n - 1))),
    ("decay_too_early", _wsd(begin=lambda most, warmup, decay: most - decay - 1)),
    (
        "decay_too_early",
        _wsd(begin=lambda most, warmup, decay: most - decay - 1, fall=lambda k, n: min(1, (k + 1) / n)),
    ),
    ("final_not_reached", _wsd(begin=lambda most, warmup, decay: most - decay + 1)),
    ("decays_to_zero", _wsd(way=lambda peak, final, share: peak * (1 - share))),
    ("upside_down", _wsd(fall=lambda k, n: 1 - (k + 1) / n)),
    ("upside_down", _wsd(way=lambda peak, final, share: final + (peak - final) * share)),
    ("jump", _from_max_steps),
    ("jump", _all_at_once),
    ("jump", _smaller_of_both),
    ("curved_fall", _wsd(fall=lambda k, n: (1 - math.cos(math.pi * (k + 1) / n)) / 2)),
    ("curved_fall", _wsd(fall=lambda k, n: 1 - math.sqrt(1 - (k + 1) / n))),
    ("exponential", _wsd(way=lambda peak, final, share: peak * (final / peak) ** share)),
    ("final_added", _wsd(way=lambda peak, final, share: final + peak * (1 - share))),
    ("final_as_share", _wsd(way=lambda peak, final, share: peak + (peak * final - peak) * share)),
    ("never_below_final", _wsd(way=lambda peak, final, share: max(final, peak * (1 - share)))),
    ("climbs_on", _wsd(way=lambda peak, final, share: peak + (peak - final) * share)),
    ("lengths_swapped", lambda step, n, w, d, peak, final: _right(step, n, d, w, peak, final)),
    ("peak_twice", _wsd(end=lambda rate, peak: peak * rate)),
    ("share_of_peak", _wsd(end=lambda rate, peak: rate / peak)),
    ("climb_differs", _changed(0, lambda rate, peak: rate * 0.9)),
    ("plateau_differs", _changed(1, lambda rate, peak: peak / 3)),
    ("fall_differs", _changed(2, lambda rate, peak: math.sqrt(rate * peak))),
    ("without_a_stable_part", _warmup_in_the_way),
    ("without_warmup", _warmup_divided),
    ("without_decay", _decay_divided),
    ("without_decay", _last_slice),
    ("elsewhere", _never_zero),
    ("not_numbers", lambda *given: [_right(*given)] * 2),
    ("not_numbers", lambda *given: f"{_right(*given):.4f}"),
    ("raised", lambda step, *others: 1 / step),
]

ANSWERS = {"pretraining/warmup_stable_decay": (_right, SCHEDULE)}
ALSO_RIGHT = {"pretraining/warmup_stable_decay": [_from_the_end, _interpolated, _by_torch, _wsd()]}
