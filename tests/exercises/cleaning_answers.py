"""Answers to the exercises of notebook 01: the right one, and wrong ones with the mistake that each must be told."""

import collections
import difflib
import functools
import itertools
import math
import re

import numpy as np
import torch


def _runs(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)] or [tuple(words)]


def _cut(text):
    return text.lower().split()


def _similar(measure=lambda a, b: len(a & b) / len(a | b), cut=_cut, runs=_runs, collect=set):
    def answer(a, b, n):
        return measure(collect(runs(cut(a), n)), collect(runs(cut(b), n)))

    return answer


def _written_out(a, b, n=3):
    sets = []
    for text in (a, b):
        words, found = text.lower().split(), set()
        for start in range(max(1, len(words) - n + 1)):
            found.add(" ".join(words[start : start + n]))
        sets.append(found)
    common = sum(1 for run in sets[0] if run in sets[1])
    return common / (len(sets[0]) + len(sets[1]) - common)


def _dictionaries(a, b, n):
    a, b = (dict.fromkeys(_runs(_cut(text), n)) for text in (a, b))
    return np.float64(len(a.keys() & b.keys())) / len(a.keys() | b.keys())


def _zipped(a, b, n):
    def runs(text):
        words = text.casefold().split()
        return frozenset(zip(*(words[k:] for k in range(n)))) if len(words) >= n else frozenset([tuple(words)])

    return torch.tensor(len(runs(a) & runs(b)) / len(runs(a) | runs(b)))


def _incidence(a, b, n):
    a, b = _runs(_cut(a), n), _runs(_cut(b), n)
    names = sorted({*a, *b})
    table = np.array([[name in a for name in names], [name in b for name in names]])
    return table.all(axis=0).sum() / table.any(axis=0).sum()


def _ngrams(a, b, n):
    a, b = a.lower(), b.lower()
    a, b = ({text[i : i + n] for i in range(len(text) - n + 1)} for text in (a, b))
    return len(a & b) / len(a | b)


def _no_short_rule(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _only_whole_divided(a, b, n):
    a, b = {*_no_short_rule(_cut(a), n)}, {*_no_short_rule(_cut(b), n)}
    return len(a & b) / len(a | b) if a | b else 0.0


def _short_is_equal(a, b, n):
    a, b = {*_no_short_rule(_cut(a), n)}, {*_no_short_rule(_cut(b), n)}
    return len(a & b) / len(a | b) if a | b else 1.0


def _multisets(a, b):
    a, b = collections.Counter(a), collections.Counter(b)
    return sum((a & b).values()) / sum((a | b).values())


def _digits(text):
    return [int(character) for character in text.replace(" ", "").replace("-", "")]


def _passes(digits, first=-2, fold=lambda double: double - 9 if double > 9 else double):
    digits = list(digits)
    digits[first::-2] = [fold(2 * digit) for digit in digits[first::-2]]
    return sum(digits) % 10 == 0


def _card(passes=_passes, sizes=range(13, 20), clean=lambda text: re.sub("[ -]", "", text)):
    def answer(text):
        kept = clean(text)
        if not kept.isdigit() or len(kept) not in sizes:
            return False
        return passes([int(digit) for digit in kept])

    return answer


def _table_lookup(text):
    doubled = "0246813579"
    digits = text.translate(str.maketrans("", "", " -"))
    if re.fullmatch("[0-9]{13,19}", digits) is None:
        return False
    total = 0
    for place, digit in enumerate(digits[::-1]):
        total += int(doubled[int(digit)] if place % 2 else digit)
    return not total % 10


def _with_arrays(text):
    kept = text.replace("-", "").replace(" ", "")
    if not (kept.isdecimal() and 12 < len(kept) < 20):
        return np.False_
    digits = np.array([*kept], dtype=int)[::-1]
    digits[1::2] *= 2
    return (digits // 10 + digits % 10).sum() % 10 == 0


def _check_digit(text):
    try:
        *rest, last = _digits(text)
    except ValueError:
        return False
    total = sum(sum(divmod(digit * (2 - i % 2), 10)) for i, digit in enumerate(reversed(rest)))
    return 12 <= len(rest) <= 18 and (10 - total % 10) % 10 == last


def _from_left_loop(text):
    kept = re.sub("[ -]", "", text)
    if not re.fullmatch(r"\d{13,19}", kept):
        return False
    total = 0
    for i in range(len(kept)):
        digit = int(kept[i])
        if i % 2 == 0:
            digit *= 2
            if digit > 9:
                digit -= 9
        total += digit
    return total % 10 == 0


def _sum_of_rest(compare):
    def passes(digits):
        *rest, last = digits
        rest[::-2] = [sum(divmod(2 * digit, 10)) for digit in rest[::-2]]
        return compare(sum(rest), last)

    return passes


def _only_if_true(text):
    if _check_digit(text):
        return True


def _no_look_before_int(text):
    digits = _digits(text)
    return 13 <= len(digits) <= 19 and _passes(digits)


def _int_of_the_whole(text):
    text = text.replace(" ", "").replace("-", "")
    number = int(text) if text.isdigit() else 0
    digits = [int(digit) for digit in str(number)]
    return 13 <= len(digits) <= 19 and _passes(digits)


def _by_arithmetic(text):
    kept = re.sub("[ -]", "", text)
    if not kept.isdigit():
        return False
    number, total, count = int(kept), 0, 0
    while number:
        number, digit = divmod(number, 10)
        total += sum(divmod(digit * (1 + count % 2), 10))
        count += 1
    return 13 <= count <= 19 and total % 10 == 0


def _no_length(text):
    kept = re.sub("[ -]", "", text)
    return re.fullmatch("[0-9]*", kept) is not None and _passes(map(int, kept))


def _shares(give):
    """An answer that keeps the conventions for empty sets, and gives give(right, planted, changed) of three numbers."""

    def answer(planted, changed):
        if not planted or not changed:
            return _careful(planted, changed)
        return give(len(planted & changed), len(planted), len(changed))

    return answer


def _careful(planted, changed):
    right = len(planted & changed)
    precision = right / len(changed) if changed else 1.0
    recall = right / len(planted) if planted else 1.0
    return precision, recall


def _confusion(planted, changed):
    counts = collections.Counter((i in planted, i in changed) for i in planted | changed)
    right, false_alarms, missed = counts[True, True], counts[False, True], counts[True, False]
    precision = 1.0 if right + false_alarms == 0 else right / (right + false_alarms)
    recall = 1.0 if right + missed == 0 else right / (right + missed)
    return [precision, recall]


def _as_masks(planted, changed):
    masks = torch.zeros(2, 100, dtype=torch.bool)
    masks[0, [*planted]] = True
    masks[1, [*changed]] = True
    right = (masks[0] & masks[1]).sum()
    sizes = masks.flip(0).sum(1)
    return torch.where(sizes > 0, right / sizes.clamp(min=1), 1.0)


def _consumed(planted, changed):
    if not planted or not changed:
        return _careful(planted, changed)
    planted &= changed
    return len(planted) / len(changed), len(planted) / len(planted)


def _consumed_changed(planted, changed):
    if not planted or not changed:
        return _careful(planted, changed)
    changed.intersection_update(planted)
    return len(changed) / len(changed), len(changed) / len(planted)


def _all_zero_when_empty(planted, changed):
    if not planted or not changed:
        return 0.0, 0.0
    return _careful(planted, changed)


def _all_one_when_empty(planted, changed):
    return _careful(planted, changed) if planted and changed else (1.0, 1.0)


def _no_care(planted, changed):
    right = planted & changed
    return len(right) / len(changed), len(right) / len(planted)


def _precision_cared_for(planted, changed):
    right = planted & changed
    return len(right) / len(changed) if changed else 1.0, len(right) / max(len(planted), 1)


def _half_when_nothing_right(planted, changed):
    precision, recall = _careful(planted, changed)
    return (precision, recall) if planted & changed or not planted or not changed else (0.5, 0.5)


def _in_order(planted, changed):
    if not planted or not changed:
        return _careful(planted, changed)
    right = 0
    for one, other in zip(sorted(planted), sorted(changed)):
        if one == other:
            right += 1
    return right / len(changed), right / len(planted)


def _added_up(planted, changed):
    if not planted or not changed:
        return _careful(planted, changed)
    right = sum(planted & changed)
    return right / sum(changed), right / sum(planted)


def _grams(text, n, cut=_cut):
    words = cut(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _found(runs=_grams, match=lambda a, b: bool(a & b), take=list, enough=any, report=None):
    def answer(train, evaluation, n):
        seen = [runs(text, n) for text in take(evaluation)]
        hits = [[match(runs(text, n), other) for other in seen] for text in train]
        found = [i for i, row in enumerate(hits) if enough(row)]
        return found if report is None else report(found, hits, train)

    return answer


def _one_set(train, evaluation, n):
    seen = set().union(*(_grams(text, n) for text in evaluation))
    return np.flatnonzero([not seen.isdisjoint(_grams(text, n)) for text in train])


def _slices(train, evaluation, n=5):
    def has(row, part):
        return any(row[i : i + len(part)] == part for i in range(len(row)))

    found = set()
    for i, text in enumerate(train):
        words = text.lower().split()
        for start in range(len(words) - n + 1):
            if any(has(_cut(other), words[start : start + n]) for other in evaluation):
                found.add(i)
    return found


def _padded_strings(train, evaluation, n):
    others = [f" {' '.join(_cut(text))} " for text in evaluation]
    for i, text in enumerate(train):
        runs = (f" {' '.join(run)} " for run in _grams(text, n))
        if any(run in other for run in runs for other in others):
            yield i


def _longest_match(train, evaluation, n):
    def longest(a, b):
        return difflib.SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size

    return torch.tensor([i for i, a in enumerate(train) if any(longest(_cut(a), _cut(b)) >= n for b in evaluation)])


def _substring(train, evaluation, n):
    found = []
    for i, text in enumerate(train):
        words = text.lower().split()
        runs = [" ".join(words[k : k + n]) for k in range(len(words) - n + 1)]
        if any(run in " ".join(other.lower().split()) for run in runs for other in evaluation):
            found.append(i)
    return found


def _for_each_run(train, evaluation, n):
    seen = set().union(*(_grams(text, n) for text in evaluation))
    return [i for i, text in enumerate(train) for run in _grams(text, n) if run in seen]


def _for_each_evaluation(train, evaluation, n):
    found = []
    for i, text in enumerate(train):
        for other in evaluation:
            if _grams(text, n) & _grams(other, n):
                found.append(i)
    return found


def _returns_at_once(train, evaluation, n):
    for i, text in enumerate(train):
        if any(_grams(text, n) & _grams(other, n) for other in evaluation):
            return [i]
    return []


def _begins_anew(train, evaluation, n):
    found = []
    for i, text in enumerate(train):
        if any(_grams(text, n) & _grams(other, n) for other in evaluation):
            found = [i]
    return found


def _returns_in_the_loop(train, evaluation, n):
    for other in evaluation:
        return [i for i, text in enumerate(train) if _grams(text, n) & _grams(other, n)]
    return []


def _overwrites_in_the_loop(train, evaluation, n):
    found = []
    for other in evaluation:
        found = [i for i, text in enumerate(train) if _grams(text, n) & _grams(other, n)]
    return found


def _shares_words(train, evaluation, n):
    words = {word for text in evaluation for word in _cut(text)}
    return [i for i, text in enumerate(train) if words & {*_cut(text)}]


def _enough_words(train, evaluation, n):
    return [i for i, a in enumerate(train) if any(len({*_cut(a)} & {*_cut(b)}) >= n for b in evaluation)]


RIGHT_FOUND = _found()

ANSWERS = {
    "cleaning/jaccard": (
        _similar(),
        [
            ("not_a_number", _similar(lambda a, b: a & b)),
            ("not_a_number", _similar(lambda a, b: f"{len(a & b) / len(a | b):.0%}")),
            ("not_a_number", _similar(lambda a, b: (len(a & b), len(a | b)))),
            ("yes_or_no", _similar(lambda a, b: a == b)),
            ("yes_or_no", _similar(lambda a, b: not a.isdisjoint(b))),
            ("characters", _ngrams),
            ("characters", _similar(cut=lambda text: "".join(_cut(text)))),
            ("characters", _similar(cut=lambda text: [*text])),
            ("case_kept", _similar(cut=str.split)),
            ("punctuation_cut_off", _similar(cut=lambda text: re.findall(r"\w+", text.lower()))),
            ("punctuation_cut_off", _similar(cut=lambda text: [word.strip(".,;") for word in _cut(text)])),
            ("split_on_spaces", _similar(cut=lambda text: text.lower().split(" "))),
            ("single_words", lambda a, b, n: len({*_cut(a)} & {*_cut(b)}) / len({*_cut(a)} | {*_cut(b)})),
            ("n_ignored", lambda a, b, n: _similar()(a, b, 3)),
            ("n_ignored", _similar(runs=lambda words, n: [*itertools.pairwise(words)])),
            ("n_off", _similar(runs=lambda words, n: _runs(words, n + 1))),
            ("n_off", _similar(runs=lambda words, n: [tuple(words[i : i + n - 1]) for i in range(len(words) - n + 2)])),
            ("last_missing", _similar(runs=lambda words, n: [tuple(words[i : i + n]) for i in range(len(words) - n)])),
            ("tails_too", _similar(runs=lambda words, n: [" ".join(words[i : i + n]) for i in range(len(words))])),
            ("in_blocks", _similar(runs=lambda words, n: [tuple(words[i : i + n]) for i in range(0, len(words), n)])),
            ("order_lost", _similar(runs=lambda words, n: [frozenset(run) for run in _runs(words, n)])),
            ("order_lost", _similar(runs=lambda words, n: [" ".join(sorted(run)) for run in _runs(words, n)])),
            ("joined_without_space", _similar(runs=lambda words, n: ["".join(run) for run in _runs(words, n)])),
            ("by_position", _similar(lambda a, b: sum(x == y for x, y in zip(a, b)) / len({*a, *b}), collect=list)),
            ("by_position", _similar(lambda a, b: sum(map(tuple.__eq__, a, b)) / max(len(a), len(b)), collect=list)),
            ("by_position", _similar(lambda a, b: np.mean([x == y for x, y in zip(a, b)]), collect=list)),
            ("repeats_counted", _similar(_multisets, collect=list)),
            (
                "repeats_counted",
                _similar(lambda a, b: len({*a} & {*b}) / (len(a) + len(b) - len({*a} & {*b})), collect=list),
            ),
            ("repeats_counted", _similar(lambda a, b: sum(x in b for x in a) / len({*a, *b}), collect=list)),
            ("by_the_smaller", _similar(lambda a, b: len(a & b) / min(len(a), len(b)))),
            ("by_one_text", _similar(lambda a, b: len(a & b) / len(a))),
            ("by_one_text", _similar(lambda a, b: sum(run in a for run in b) / len(b))),
            ("by_one_text", _similar(lambda a, b: len(a & b) / max(len(a), len(b)))),
            ("dice", _similar(lambda a, b: 2 * len(a & b) / (len(a) + len(b)))),
            ("union_as_sum", _similar(lambda a, b: len(a & b) / (len(a) + len(b)))),
            ("repeats_counted", _similar(lambda a, b: len({*a} & {*b}) / len(a + b), collect=list)),
            ("distance", _similar(lambda a, b: 1 - len(a & b) / len(a | b))),
            ("distance", _similar(lambda a, b: len(a ^ b) / len(a | b))),
            ("upside_down", _similar(lambda a, b: len(a | b) / len(a & b))),
            ("not_divided", _similar(lambda a, b: len(a & b))),
            ("not_divided", _similar(lambda a, b: len(a.union(b)))),
            ("percent", _similar(lambda a, b: 100 * len(a & b) / len(a | b))),
            ("rounded", _similar(lambda a, b: round(len(a & b) / len(a | b), 2))),
            ("rounded", _similar(lambda a, b: len(a & b) // len(a | b))),
            ("value", _similar(lambda a, b: math.sqrt(len(a & b) / len(a | b)))),
            ("value", lambda a, b, n: difflib.SequenceMatcher(None, _cut(a), _cut(b)).ratio()),
            ("value", _similar(lambda a, b: float("nan"))),
            ("short_text", _similar(runs=_no_short_rule)),
            ("short_text", _only_whole_divided),
            ("short_text", _short_is_equal),
            ("nothing_in_common", _similar(lambda a, b: len(a & b) / len(a | b) or None)),
            ("nothing_in_common", _similar(lambda a, b: 1 / (len(a | b) / len(a & b)))),
            ("raised", lambda a, b, n: len(a & b) / len(a | b)),
        ],
    ),
    "cleaning/luhn": (
        _card(),
        [
            ("not_a_bool", lambda text: re.sub("[ -]", "", text) if _check_digit(text) else False),
            ("not_a_bool", lambda text: "yes" if _check_digit(text) else "no"),
            ("not_a_bool", _card(lambda digits: sum(digits) % 10)),
            ("not_a_bool", _only_if_true),
            ("stops_at", _no_look_before_int),
            ("stops_at", lambda text: 13 <= len(text) <= 19 and _passes(map(int, text))),
            ("always", lambda text: True),
            ("always", lambda text: 13 <= int(text.isdigit()) <= 19),
            ("no_checksum", _card(lambda digits: True)),
            ("no_checksum", lambda text: re.fullmatch("[0-9]([ -]?[0-9]){12,18}", text) is not None),
            ("inverted", lambda text: not _check_digit(text)),
            ("inverted", _card(lambda digits: not _passes(digits))),
            ("from_the_left", _from_left_loop),
            (
                "from_the_left",
                _card(lambda d: sum(sum(divmod(x * (1 + i % 2), 10)) for i, x in enumerate(d)) % 10 == 0),
            ),
            ("last_doubled", _card(functools.partial(_passes, first=-1))),
            (
                "last_doubled",
                _card(lambda d: (sum(sum(divmod(2 * x, 10)) for x in d[::-2]) + sum(d[-2::-2])) % 10 == 0),
            ),
            ("all_doubled", _card(lambda digits: sum(sum(divmod(2 * digit, 10)) for digit in digits) % 10 == 0)),
            ("none_doubled", _card(lambda digits: sum(digits) % 10 == 0)),
            ("nine_not_taken_off", _card(functools.partial(_passes, fold=lambda double: double))),
            ("nine_not_taken_off", _card(functools.partial(_passes, fold=lambda double: double % 10))),
            ("nine_not_taken_off", _card(lambda d: (2 * sum(d[-2::-2]) + sum(d[::-2])) % 10 == 0)),
            ("nine_always_taken_off", _card(functools.partial(_passes, fold=lambda double: double - 9))),
            ("remainder_of_nine", _card(functools.partial(_passes, fold=lambda double: double % 9))),
            (
                "other_divisor",
                _card(lambda d: (sum(sum(divmod(2 * x, 10)) for x in d[-2::-2]) + sum(d[::-2])) % 9 == 0),
            ),
            ("check_digit_left_out", _card(_sum_of_rest(lambda total, last: total % 10 == 0))),
            ("check_digit_left_out", _card(lambda digits: _passes(digits[:-1]))),
            ("not_completed", _card(_sum_of_rest(lambda total, last: total % 10 == last))),
            ("ten_for_zero", _card(_sum_of_rest(lambda total, last: 10 - total % 10 == last))),
            ("separators_refused", _card(clean=str)),
            ("separators_refused", _card(clean=lambda text: text.replace("-", ""))),
            ("separators_refused", _card(clean=lambda text: "".join(text.split()))),
            ("other_signs_ignored", _card(clean=lambda text: re.sub(r"\D", "", text))),
            ("other_signs_ignored", _card(clean=lambda text: "".join(filter(str.isdigit, text)))),
            ("other_signs_ignored", _card(clean=lambda text: re.sub("[^0-9]", "", re.match("[0-9 -]*", text)[0]))),
            ("leading_zeros_lost", _int_of_the_whole),
            ("leading_zeros_lost", _by_arithmetic),
            ("any_length", _no_length),
            ("any_length", _card(sizes=range(1, 1000))),
            ("long_accepted", _card(sizes=range(13, 1000))),
            ("short_accepted", _card(sizes=range(20))),
            ("sixteen_only", _card(sizes=[16])),
            ("sixteen_only", lambda text: _check_digit(text) and len(re.sub("[ -]", "", text)) in (15, 16)),
            ("end_left_out", _card(sizes=range(13, 19))),
            ("end_left_out", _card(sizes=range(14, 20))),
            ("signs_counted", lambda text: 13 <= len(text) <= 19 and _card(sizes=range(100))(text)),
            ("value", _card(sizes=range(15, 20))),
            ("value", _card(lambda digits: len({*digits}) > 6)),
            ("raised", lambda text: text + 1 > 12),
        ],
    ),
    "cleaning/precision_recall": (
        _careful,
        [
            ("not_two_numbers", lambda planted, changed: planted & changed and {"precision": 1.0, "recall": 1.0}),
            ("not_two_numbers", lambda planted, changed: (planted & changed, planted - changed)),
            ("not_two_numbers", lambda planted, changed: (planted <= changed, changed <= planted)),
            ("not_two_numbers", lambda planted, changed: "{:.2f} {:.2f}".format(*_careful(planted, changed))),
            ("not_two_numbers", lambda planted, changed: [*_careful(planted, changed), 0.5, 1]),
            ("swapped", lambda planted, changed: _careful(planted, changed)[::-1]),
            ("swapped", _shares(lambda right, p, c: (right / p, right / c))),
            ("one_of_the_two", lambda planted, changed: _careful(planted, changed)[0]),
            ("one_of_the_two", lambda planted, changed: len(planted & changed) / len(planted)),
            ("twice_the_same", _shares(lambda right, p, c: (right / p, right / p))),
            ("twice_the_same", _shares(lambda right, p, c: np.full(2, right / c))),
            ("f1", _shares(lambda right, p, c: 2 * right / (p + c))),
            (
                "f1",
                lambda planted, changed: (
                    (2 * math.prod(_careful(planted, changed)) / sum(_careful(planted, changed)),) * 2
                ),
            ),
            ("three_numbers", _shares(lambda right, p, c: (right / c, right / p, 2 * right / (p + c)))),
            ("union", _shares(lambda right, p, c: (right / (p + c - right), right / (p + c - right)))),
            ("union", lambda planted, changed: len(planted & changed) / len(planted | changed)),
            ("counts", _shares(lambda right, p, c: (right, right))),
            ("counts", lambda planted, changed: (len(planted & changed), len(changed - planted))),
            ("counts", lambda planted, changed: (len(planted & changed), len(planted - changed))),
            ("sizes_compared", _shares(lambda right, p, c: (c / p, p / c))),
            ("sizes_compared", lambda planted, changed: (len(planted) / len(changed), len(changed) / len(planted))),
            ("upside_down", _shares(lambda right, p, c: (c / right, p / right))),
            ("mistakes_counted", lambda planted, changed: [1 - share for share in _careful(planted, changed)]),
            ("mistakes_counted", lambda p, c: (len(c - p) / len(c), len(p - c) / len(p))),
            ("right_over_wrong", _shares(lambda right, p, c: (right / (c - right), right / (p - right)))),
            ("emptied", _consumed),
            ("emptied", _consumed_changed),
            ("percent", lambda planted, changed: [100 * share for share in _careful(planted, changed)]),
            ("whole_division", _shares(lambda right, p, c: (right // c, right // p))),
            ("rounded", lambda planted, changed: [round(share, 2) for share in _careful(planted, changed)]),
            ("rounded", lambda planted, changed: np.round(_careful(planted, changed), 1)),
            ("by_position", _in_order),
            ("numbers_added", _added_up),
            ("value", _shares(lambda right, p, c: ((right + 1) / (c + 2), (right + 1) / (p + 2)))),
            ("value", _shares(lambda right, p, c: right / c * right / p)),
            ("nothing_changed", _no_care),
            ("nothing_changed", _all_zero_when_empty),
            ("nothing_changed", _all_one_when_empty),
            ("nothing_changed", lambda planted, changed: _no_care(planted, changed) if planted and changed else None),
            ("nothing_planted", lambda p, c: (0.0, 0.0) if c and not p else _careful(p, c)),
            ("nothing_planted", lambda p, c: _no_care(p, c) if c else _careful(p, c)),
            ("nothing_changed", _precision_cared_for),
            ("nothing_right", _half_when_nothing_right),
            ("raised", lambda planted, changed: planted / changed),
        ],
    ),
    "cleaning/contaminated": (
        RIGHT_FOUND,
        [
            ("not_indices", lambda train, evaluation, n: len(RIGHT_FOUND(train, evaluation, n))),
            ("not_indices", lambda train, evaluation, n: dict.fromkeys(RIGHT_FOUND(train, evaluation, n))),
            ("not_indices", lambda train, evaluation, n: str(RIGHT_FOUND(train, evaluation, n))),
            ("not_indices", _found(report=lambda found, hits, train: np.argwhere(hits))),
            ("texts_returned", _found(report=lambda found, hits, train: [train[i] for i in found])),
            ("texts_returned", _found(report=lambda found, hits, train: {train[i] for i in found})),
            ("booleans", _found(report=lambda found, hits, train: [any(row) for row in hits])),
            ("booleans", _found(report=lambda found, hits, train: np.any(hits, axis=1).astype(int))),
            ("no_such_text", _found(report=lambda found, hits, train: [i - len(train) for i in found])),
            ("repeated", _for_each_run),
            ("repeated", _for_each_evaluation),
            ("characters", _found(lambda text, n: {text.lower()[i : i + n] for i in range(len(text) - n + 1)})),
            ("characters", _found(functools.partial(_grams, cut=lambda text: "".join(_cut(text))))),
            ("case_kept", _found(functools.partial(_grams, cut=str.split))),
            (
                "punctuation_cut_off",
                _found(functools.partial(_grams, cut=lambda text: re.findall(r"\w+", text.lower()))),
            ),
            ("split_on_spaces", _found(functools.partial(_grams, cut=lambda text: text.lower().split(" ")))),
            ("n_ignored", _found(lambda text, n: _grams(text, 5))),
            ("n_ignored", lambda train, evaluation, n: RIGHT_FOUND(train, evaluation, 3)),
            ("n_off", _found(lambda text, n: _grams(text, n - 1))),
            ("n_off", lambda train, evaluation, n: RIGHT_FOUND(train, evaluation, n + 1)),
            (
                "last_missing",
                _found(lambda text, n: {tuple(_cut(text)[i : i + n]) for i in range(len(_cut(text)) - n)}),
            ),
            ("tails_too", _found(lambda text, n: {" ".join(_cut(text)[i : i + n]) for i in range(len(_cut(text)))})),
            ("in_blocks", _found(lambda text, n: {tuple(_cut(text)[i : i + n]) for i in range(0, len(_cut(text)), n)})),
            ("order_lost", _found(lambda text, n: {tuple(sorted(run)) for run in _grams(text, n)})),
            ("joined_without_space", _found(lambda text, n: {"".join(run) for run in _grams(text, n)})),
            ("short_counted", _found(lambda text, n: _grams(text, n) or {tuple(_cut(text))})),
            ("short_counted", _found(lambda text, n: {*_runs(text.lower().split(), n)})),
            ("any_word", _shares_words),
            ("any_word", _found(lambda text, n: {*_cut(text)})),
            ("bag_of_words", _enough_words),
            ("bag_of_words", _found(lambda text, n: ({*_cut(text)}, n), lambda a, b: len(a[0] & b[0]) >= a[1])),
            ("inside_words", _substring),
            ("only_equal", lambda train, evaluation, n: [i for i, text in enumerate(train) if text in evaluation]),
            ("only_equal", _found(lambda text, n: _cut(text), lambda a, b: a == b)),
            ("only_equal", _found(match=lambda a, b: bool(a) and a == b)),
            ("whole_text", _found(match=lambda a, b: bool(a) and a <= b)),
            ("whole_text", _found(match=lambda a, b: bool(b) and all(run in a for run in b))),
            (
                "only_beginnings",
                _found(lambda t, n: _cut(t)[:n] if len(_cut(t)) >= n else [], lambda a, b: bool(a) and a == b),
            ),
            (
                "only_beginnings",
                lambda train, evaluation, n: [
                    i for i, t in enumerate(train) if any({tuple(_cut(t)[:n])} & _grams(e, n) for e in evaluation)
                ],
            ),
            ("one_evaluation", lambda train, evaluation, n: RIGHT_FOUND(train, evaluation[:1], n)),
            ("one_evaluation", _returns_in_the_loop),
            ("one_evaluation", _overwrites_in_the_loop),
            ("across_texts", lambda train, evaluation, n: RIGHT_FOUND(train, [" ".join(evaluation)], n)),
            ("across_texts", lambda train, evaluation, n: RIGHT_FOUND(train, ["\n".join(evaluation)], n)),
            ("every_evaluation", _found(enough=all)),
            ("evaluation_indices", lambda train, evaluation, n: RIGHT_FOUND(evaluation, train, n)),
            ("evaluation_indices", _found(report=lambda found, hits, train: [*np.flatnonzero(np.any(hits, axis=0))])),
            ("inverted", _found(report=lambda found, hits, train: [i for i in range(len(train)) if i not in found])),
            ("inverted", _found(report=lambda found, hits, train: [i for i, row in enumerate(hits) if not any(row)])),
            ("from_one", _found(report=lambda found, hits, train: [i + 1 for i in found])),
            ("one_found", _returns_at_once),
            ("one_found", _begins_anew),
            ("all_or_none", lambda train, evaluation, n: range(len(train))),
            ("all_or_none", lambda train, evaluation, n: []),
            ("value", _found(report=lambda found, hits, train: found[1:])),
            ("value", _found(report=lambda found, hits, train: [*found, 0])),
            ("empty_list", lambda train, evaluation, n: RIGHT_FOUND(train, evaluation, n) if evaluation[0] else []),
            ("empty_list", lambda train, evaluation, n: RIGHT_FOUND(train, evaluation, n) or None),
            ("raised", lambda train, evaluation, n: [i for i in train if train[i] in evaluation]),
        ],
    ),
}

# Right answers in other styles.
ALSO_RIGHT = {
    "cleaning/jaccard": [_written_out, _dictionaries, _zipped, _incidence],
    "cleaning/luhn": [_table_lookup, _with_arrays, _check_digit, lambda text: torch.tensor(_check_digit(text))],
    "cleaning/precision_recall": [_confusion, _as_masks, lambda planted, changed: np.array(_careful(planted, changed))],
    "cleaning/contaminated": [
        _one_set,
        _slices,
        _padded_strings,
        _longest_match,
        _found(report=lambda found, hits, train: found[::-1]),
        lambda train, evaluation, n: tuple(RIGHT_FOUND(train, evaluation, n)),
    ],
}
