"""Every exercise against its bank: the right answer passes, a stub raises nothing, each wrong answer gets its diagnosis."""

import importlib.util
import random
from pathlib import Path

import pytest
import torch

import minigpt.lab.exercises  # noqa: F401 - registers them
from minigpt.lab.check import EXERCISES, check, judge, messages


def _bank():
    answers = {}
    for path in sorted((Path(__file__).parent / "exercises").glob("*_answers.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        answers |= module.ANSWERS
    return answers


BANK = _bank()
WRONG = [(name, code, answer) for name, (_, wrong) in BANK.items() for code, answer in wrong]


def test_every_exercise_has_a_bank_of_at_least_six_mistakes():
    assert BANK.keys() == EXERCISES.keys()
    for name, (_, wrong) in BANK.items():
        assert len({code for code, _ in wrong}) >= 6, name


@pytest.mark.parametrize("name", BANK)
def test_the_right_answer_is_told_what_it_now_can_do(name):
    verdict = judge(name, BANK[name][0])
    assert verdict.status == "right", verdict
    assert len(verdict.message) > 30


@pytest.mark.parametrize(
    "stub", [None, ..., lambda *_: None, lambda *_: ...], ids=["None", "dots", "returns None", "pass"]
)
@pytest.mark.parametrize("name", BANK)
def test_an_untouched_stub_is_told_so_and_raises_nothing(name, stub):
    assert judge(name, stub).status == "untouched"


@pytest.mark.parametrize("name", BANK)
def test_a_stub_that_raises_not_implemented_is_untouched(name):
    def stub(*_):
        raise NotImplementedError

    assert judge(name, stub).status == "untouched"


@pytest.mark.parametrize(("name", "code", "answer"), WRONG, ids=[f"{n}-{c}-{i}" for i, (n, c, _) in enumerate(WRONG)])
def test_a_wrong_answer_gets_its_own_diagnosis(name, code, answer):
    verdict = judge(name, answer)
    assert (verdict.status, verdict.code) == ("wrong", code), verdict
    assert "{" not in verdict.message and len(verdict.message) > 30


def test_a_crash_names_the_line_of_the_learner_and_hints_at_shapes():
    def answer(q, k, v, window):
        return q @ k

    verdict = judge("transformer/window_attention", answer)
    assert (
        "RuntimeError" in verdict.message
        and "`return q @ k`" in verdict.message
        and "Print the shapes" in verdict.message
    )


def test_a_check_leaves_random_numbers_and_the_learners_tensors_alone():
    def meddler(q, k, v, window):
        q += 1
        torch.manual_seed(1)
        return q

    torch.manual_seed(7)
    state, python_state = torch.get_rng_state(), random.getstate()
    judge("transformer/window_attention", meddler)
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python_state


def test_every_sentence_is_used_and_every_code_has_one():
    codes = {(name, code) for name, code, _ in WRONG}
    for name in EXERCISES:
        topic, _, short = name.partition("/")
        sentences = messages(topic)[short]
        unused = {code for code in sentences["mistakes"] if (name, code) not in codes}
        assert not unused, f"{name}: no wrong answer in the bank shows {unused}"


def test_check_shows_the_verdict_and_refuses_unknown_exercises(capsys):
    check("transformer/block", BANK["transformer/block"][0])
    assert "Right: you wrote the block" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"Did you mean 'transformer/block'"):
        check("transformer/blok", None)
