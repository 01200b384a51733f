"""Every exercise against its bank: the right answer passes, a stub raises nothing, each wrong answer gets its diagnosis."""

import importlib.util
import math
import random
from pathlib import Path

import pytest
import torch

import minigpt.lab.exercises  # noqa: F401 - registers them
from minigpt.lab.check import EXERCISES, check, judge, messages


def _bank():
    answers, also_right = {}, []
    for path in sorted((Path(__file__).parent / "exercises").glob("*_answers.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        answers |= module.ANSWERS
        also_right += [(name, other) for name, others in getattr(module, "ALSO_RIGHT", {}).items() for other in others]
    return answers, also_right


BANK, ALSO_RIGHT = _bank()
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


@pytest.mark.parametrize(("name", "answer"), ALSO_RIGHT, ids=[f"{name}-{i}" for i, (name, _) in enumerate(ALSO_RIGHT)])
def test_a_right_answer_in_another_style_is_right_too(name, answer):
    verdict = judge(name, answer)
    assert verdict.status == "right", verdict


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


@pytest.mark.parametrize("name", BANK)
def test_an_answer_that_prints_and_returns_nothing_is_told_so(name, capsys):
    def answer(*given):
        print(len(given))

    verdict = judge(name, answer)
    assert (verdict.status, verdict.code) == ("wrong", "nothing_returned") and "`return`" in verdict.message


def test_an_operation_that_pytorch_has_not_implemented_is_no_untouched_stub():
    def answer(scores, temperature):
        return torch.tensor([2, 1, 0]).softmax(dim=0)

    assert judge("start/probabilities", answer).code == "raised"


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
    for topic in {name.partition("/")[0] for name in EXERCISES}:
        shown = {code for name, code in codes if name.startswith(topic)}
        assert messages(topic).get("mistakes", {}).keys() <= shown


def test_of_two_mistakes_one_is_named_and_the_other_announced():
    def answer(logits, idx):
        return torch.nn.functional.cross_entropy(logits.mT, idx, reduction="sum")

    verdict = judge("transformer/next_token_loss", answer)
    assert verdict.code == "not_shifted" and verdict.message.endswith(messages()["more"])


def test_a_number_that_agrees_with_a_mistake_by_chance_is_not_explained_by_it():
    bits = {}
    judge("transformer/next_token_loss", lambda logits, idx: bits.setdefault("first", _bits(logits, idx)))
    verdict = judge("transformer/next_token_loss", lambda logits, idx: bits["first"])
    assert verdict.code == "value"


def _bits(logits, idx):
    return torch.nn.functional.cross_entropy(logits[:, :-1].mT, idx[:, 1:]).item() / math.log(2)


def test_check_shows_the_verdict_and_refuses_unknown_exercises(capsys):
    check("transformer/block", BANK["transformer/block"][0])
    assert "Right: you wrote the block" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"Did you mean 'transformer/block'"):
        check("transformer/blok", None)
