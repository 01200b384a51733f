"""Answers to notebook 05's exercise about targets: right ones, and wrong ones with their mistake."""

import numpy as np
import torch


def _joined(turns):
    return [i for _, opening, said in turns for i in opening + said]


def _said(turns, role=lambda role: role == "assistant", opening=False, cut=lambda said: [True] * len(said)):
    counts = []
    for who, start, said in turns:
        chosen = role(who)
        counts += [chosen and opening] * len(start) + [chosen and c for c in cut(said)]
    return counts


def _answer_targets(turns):
    ids, counts = [], []
    for role, opening, said in turns:
        ids += opening + said
        counts += [False] * len(opening) + [role == "assistant"] * len(said)
    targets = [i if counted else -100 for i, counted in zip(ids, counts)]
    return torch.tensor(ids[:-1]), torch.tensor(targets[1:])


def _masked_in_place(turns):
    ids = torch.tensor(_joined(turns))
    targets, at = ids.clone(), 0
    for role, opening, said in turns:
        end = at + len(opening) + len(said)
        targets[at : at + len(opening) if role == "assistant" else end] = -100
        at = end
    return ids[:-1], targets[1:]


def _with_numpy(turns):
    ids, counts = np.array(_joined(turns)), np.array(_said(turns))
    return ids[:-1], np.where(counts, ids, -100)[1:]


def _as_lists(turns):
    ids, counts = _joined(turns), _said(turns)
    return ids[:-1], [i if c else -100 for i, c in zip(ids[1:], counts[1:])]


def _as_one_tensor(turns):
    return torch.stack(_answer_targets(turns))


def _made(counts=_said, join=_joined, pick=lambda ids, counts: [i if c else -100 for i, c in zip(ids, counts)]):
    """An answer that masks all ids and then shifts."""

    def answer(turns):
        ids = join(turns)
        return torch.tensor(ids[:-1]), torch.tensor(pick(ids, counts(turns))[1:])

    return answer


def _shifted(cut):
    """An answer that cuts its two rows otherwise, from (ids, masked ids, counts)."""

    def answer(turns):
        ids, counts = torch.tensor(_joined(turns)), torch.tensor(_said(turns))
        return cut(ids, torch.where(counts, ids, -100), counts)

    return answer


def _only(which):
    def answer(turns):
        answers = [n for n, turn in enumerate(turns) if turn[0] == "assistant"]
        counts = [
            n == answers[which] and part == 1 for n, turn in enumerate(turns) for part in (0, 1) for _ in turn[1 + part]
        ]
        ids = _joined(turns)
        return ids[:-1], [i if c else -100 for i, c in zip(ids, counts)][1:]

    return answer


def _prompt_length(turns):
    prompt = 0
    for role, opening, said in turns:
        if role == "assistant":
            prompt += len(opening)
            break
        prompt += len(opening) + len(said)
    ids = _joined(turns)
    return ids[:-1], ([-100] * prompt + ids[prompt:])[1:]


def _turn_by_turn(turns):
    idx, targets = [], []
    for role, opening, said in turns:
        ids = opening + said
        idx += ids[:-1]
        targets += ([-100] * len(opening) + said)[1:] if role == "assistant" else [-100] * (len(ids) - 1)
    return idx, targets


def _by_lookup(turns):
    """Forgets that a user may say the same words."""
    words = {i for role, _, said in turns if role == "assistant" for i in said[:-1]}
    ids, inside, counts = _joined(turns), _said(turns), []
    for i, c in zip(ids, inside):
        counts.append(c or i in words)
    return ids[:-1], [i if c else -100 for i, c in zip(ids, counts)][1:]


def _needs_an_answer(turns):
    assert any(role == "assistant" for role, *_ in turns)
    return _answer_targets(turns)


def _one_id_wrong(turns):
    idx, targets = _answer_targets(turns)
    targets[12] = 7
    return idx, targets


TARGETS = [
    ("not_two_rows", lambda turns: _joined(turns)),
    ("not_two_rows", lambda turns: list(zip(*_as_lists(turns)))),
    ("not_two_rows", lambda turns: (*_answer_targets(turns), torch.tensor(_said(turns)))),
    ("not_numbers", lambda turns: {"idx": _joined(turns)}),
    ("in_a_batch", lambda turns: tuple(row[None] for row in _answer_targets(turns))),
    ("dtype", lambda turns: tuple(row.float() for row in _answer_targets(turns))),
    ("dtype", lambda turns: (_answer_targets(turns)[0], _answer_targets(turns)[1].int())),
    ("dtype", lambda turns: tuple(np.float64(row) for row in _as_lists(turns))),
    ("answers_only", _shifted(lambda ids, masked, counts: (ids[:-1], ids[counts]))),
    ("answers_only", _shifted(lambda ids, masked, counts: (ids[counts][:-1], ids[counts][1:]))),
    ("turn_by_turn", _turn_by_turn),
    ("mask_returned", _shifted(lambda ids, masked, counts: (ids[:-1], counts[1:]))),
    ("mask_returned", _shifted(lambda ids, masked, counts: (ids, counts.long()))),
    ("lengths", _shifted(lambda ids, masked, counts: (ids, masked[1:]))),
    ("lengths", _shifted(lambda ids, masked, counts: (ids[:-1], masked))),
    ("lengths", _shifted(lambda ids, masked, counts: (ids[:3], masked[1:4]))),
    ("no_mask", _made(lambda turns: [True] * 99)),
    ("no_mask", _shifted(lambda ids, masked, counts: (ids[:-1], ids[1:]))),
    ("mask_inverted", _made(lambda turns: [not c for c in _said(turns)])),
    ("mask_inverted", _shifted(lambda ids, masked, counts: (ids[:-1], ids.masked_fill(counts, -100)[1:]))),
    ("user_instead", _made(lambda turns: _said(turns, lambda role: role == "user"))),
    ("every_role", _made(lambda turns: _said(turns, lambda role: True))),
    ("every_role", _made(lambda turns: _said(turns, lambda role: role != "system"))),
    ("system_too", _made(lambda turns: _said(turns, lambda role: role != "user"))),
    ("openings_too", _made(lambda turns: _said(turns, opening=True))),
    ("end_left_out", _made(lambda turns: _said(turns, cut=lambda said: [True] * (len(said) - 1) + [False]))),
    ("only_the_end", _made(lambda turns: _said(turns, cut=lambda said: [False] * (len(said) - 1) + [True]))),
    ("first_word_left_out", _made(lambda turns: _said(turns, cut=lambda said: [False] + [True] * (len(said) - 1)))),
    ("last_answer_only", _only(-1)),
    ("first_answer_only", _only(0)),
    ("after_the_first", _prompt_length),
    (
        "mask_of_the_inputs",
        _shifted(lambda ids, masked, counts: (ids[:-1], torch.where(counts[:-1], ids[1:], -100))),
    ),
    (
        "mask_shifted_twice",
        _shifted(
            lambda ids, masked, counts: (
                ids[:-1],
                torch.where(torch.cat([counts[2:], torch.tensor([False])]), ids[1:], -100),
            )
        ),
    ),
    ("not_shifted", _shifted(lambda ids, masked, counts: (ids[:-1], masked[:-1]))),
    ("shifted_by_the_model", _shifted(lambda ids, masked, counts: (ids, masked))),
    ("shifted_twice", _shifted(lambda ids, masked, counts: (ids[:-2], masked[2:]))),
    (
        "shifted_twice",
        _shifted(lambda ids, masked, counts: (ids[:-1], torch.cat([masked[2:], torch.tensor([-100])]))),
    ),
    (
        "shifted_backwards",
        _shifted(lambda ids, masked, counts: (ids[:-1], torch.cat([torch.tensor([-100]), masked[:-2]]))),
    ),
    ("one_too_long", _shifted(lambda ids, masked, counts: (ids, torch.cat([masked[1:], torch.tensor([-100])])))),
    ("one_too_short", _shifted(lambda ids, masked, counts: (ids[:-2], masked[1:-1]))),
    ("other_number", _made(pick=lambda ids, counts: [i * c for i, c in zip(ids, counts)])),
    ("other_number", _made(pick=lambda ids, counts: [i if c else -1 for i, c in zip(ids, counts)])),
    ("other_number", _made(pick=lambda ids, counts: [i if c else ids[-1] for i, c in zip(ids, counts)])),
    ("mask_in_idx", _shifted(lambda ids, masked, counts: (masked[:-1], ids[1:]))),
    ("mask_in_idx", _shifted(lambda ids, masked, counts: (masked[:-1], masked[1:]))),
    ("mask_in_idx", _shifted(lambda ids, masked, counts: (torch.where(counts[1:], ids[:-1], -100), ids[1:]))),
    ("swapped", lambda turns: _answer_targets(turns)[::-1]),
    ("nothing_counts", _made(lambda turns: _said(turns, lambda role: role == "Assistant"))),
    (
        "openings_too",
        _made(lambda turns: _said(turns, opening=True), pick=lambda ids, c: [i * f for i, f in zip(ids, c)]),
    ),
    ("id_differs", _one_id_wrong),
    ("id_differs", lambda turns: [row.flip(0) for row in _answer_targets(turns)]),
    ("elsewhere", _by_lookup),
    ("elsewhere", _needs_an_answer),
    ("raised", lambda turns: [opening + said for opening, said in turns]),
]

ANSWERS = {"finetuning/answer_targets": (_answer_targets, TARGETS)}
ALSO_RIGHT = {"finetuning/answer_targets": [_masked_in_place, _with_numpy, _as_lists, _as_one_tensor, _made()]}
