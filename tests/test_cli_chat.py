import io
import signal
import sys
import types

import pytest
from conftest import FAMILIES, make_model

from minigpt import BPETokenizer, CharTokenizer, cli, save_checkpoint
from minigpt.chat_template import CHAT_TOKENS
from minigpt.tokenizer import END_OF_TEXT

TEXT = "The cat sat on the mat. " * 20


def saved(folder, tokenizer):
    save_checkpoint(folder, make_model(FAMILIES["llama"].replace(vocab_size=tokenizer.vocab_size)), tokenizer)
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    special = (END_OF_TEXT, *CHAT_TOKENS)
    return saved(tmp_path / "chat", BPETokenizer.train([TEXT], vocab_size=280, special_tokens=special))


class Reply:
    """Stands in for a model that answers: says how many turns it was given, and keeps how it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, tokenizer, messages, **options):
        self.calls.append((messages, options))
        words = messages[-1]["content"]
        if words == "too long":
            raise ValueError("the message is longer than the context.")
        if words == "silence":
            return
        yield "turn "
        if words == "interrupt":
            signal.raise_signal(signal.SIGINT)
        yield f"{len(messages)}."


@pytest.fixture
def reply(monkeypatch):
    module = types.ModuleType("minigpt.finetune")
    module.reply = Reply()
    monkeypatch.setitem(sys.modules, "minigpt.finetune", module)
    return module.reply


@pytest.fixture
def chat(checkpoint, reply, monkeypatch, capsys):
    """Type these lines, the end of the input after them: (exit status, stdout after the greeting, stderr)."""

    def chat(*lines, options=(), folder=checkpoint):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        status = cli.main(["chat", str(folder), *options])
        shown = capsys.readouterr()
        return status, shown.out.partition("\n")[2], shown.err

    return chat


def contents(messages):
    return [(message["role"], message["content"]) for message in messages]


def test_every_message_is_answered_in_the_light_of_all_before(chat, reply):
    assert chat("hello", "  and now? ", "", "/quit", "nobody reads this") == (0, "> turn 1.\n> turn 3.\n> > ", "")
    assert contents(reply.calls[1][0]) == [("user", "hello"), ("assistant", "turn 1."), ("user", "and now?")]
    assert [options for _, options in reply.calls] == [{}, {}]


def test_the_greeting_says_how_to_leave(checkpoint, reply, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(["chat", str(checkpoint)]) == 0
    greeting = capsys.readouterr().out
    assert all(word in greeting for word in ("/reset", "/quit", "Ctrl-C", "Ctrl-D"))


def test_options_reach_the_model_and_a_system_message_stays_through_a_reset(chat, reply):
    options = ["--temperature", "0.5", "--max-new-tokens", "9", "--seed", "3", "--system", "Be kind."]
    chat("one", "/reset", "two", options=options)
    assert [contents(messages) for messages, _ in reply.calls] == [
        [("system", "Be kind."), ("user", "one")],
        [("system", "Be kind."), ("user", "two")],
    ]
    assert reply.calls[0][1] == {"temperature": 0.5, "max_new_tokens": 9, "seed": 3}


def test_the_end_of_the_input_leaves(chat):
    assert chat("hello") == (0, "> turn 1.\n> \n", "")


def test_ctrl_c_stops_the_answer_and_what_was_written_counts(chat, reply):
    assert chat("interrupt", "go on") == (0, "> turn  [stopped]\n> turn 3.\n> \n", "")
    assert contents(reply.calls[1][0])[1] == ("assistant", "turn ")


def test_ctrl_c_at_the_prompt_leaves(chat, reply, monkeypatch):
    def interrupted(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    assert chat() == (0, "\n", "") and not reply.calls


def test_what_cannot_be_answered_is_told_and_forgotten(chat, reply):
    status, out, err = chat("one", "too long", "silence", "two")
    assert (status, out) == (0, "> turn 1.\n> > \n> turn 3.\n> \n")
    assert err == "minigpt: the message is longer than the context.\n"
    assert [content for _, content in contents(reply.calls[-1][0])] == ["one", "turn 1.", "two"]


@pytest.mark.parametrize("kind", [CharTokenizer, BPETokenizer])
def test_a_model_that_never_learned_to_take_turns_is_told_before_anything_is_typed(kind, chat, reply, tmp_path):
    tokenizer = BPETokenizer.train([TEXT], vocab_size=270) if kind is BPETokenizer else CharTokenizer.train([TEXT])
    status, out, err = chat("hello", folder=saved(tmp_path / "base", tokenizer))
    assert (status, out, reply.calls) == (1, "", []) and err.count("\n") == 1
    assert "has no <|im_start|>, so its model never learned to take turns" in err and "minigpt generate" in err


def test_a_wrong_option_or_checkpoint_is_told_before_anything_is_typed(chat, reply, tmp_path):
    status, _, err = chat("hello", options=["--temperature", "-1"])
    assert status == 1 and "temperature=-1.0 does not fit SampleConfig" in err
    status, _, err = chat("hello", folder=tmp_path / "nowhere")
    assert status == 1 and "holds no config.json" in err and not reply.calls
