import itertools
import re

import pytest
from matplotlib.figure import Figure
from test_widgets import Screen, assert_is_seen_without_a_front_end, plain

from minigpt.lab import chat_window, widgets
from minigpt.lab.chat_window import ChatWindow

MODELS = {"base <1>": ("base", "its tokenizer"), "tuned": ("tuned", "another tokenizer")}
OPENING = "Who are you?"


class Reply:
    """Stands in for a model that writes: counts the words it was asked, and keeps how it was asked."""

    def __init__(self):
        self.calls = []

    def __call__(self, model, tokenizer, messages, **options):
        self.calls.append((model, tokenizer, [dict(message) for message in messages], options))
        if "<fail>" in messages[-1]["content"] and model == "base":
            yield "half of"
            raise ValueError("the conversation does not fit the context.")
        yield from (f"{model} ", "hears ", f"{len(messages[-1]['content'].split())} & answers")


@pytest.fixture
def reply():
    return Reply()


@pytest.fixture
def window(reply):
    return ChatWindow(MODELS, OPENING, reply)


def send(window, words):
    window.message.value = words
    window.send.click()


def press_enter(window):
    """What a front end sends."""
    pressed = {"method": "custom", "content": {"event": "submit"}}
    window.message._handle_msg({"content": {"data": pressed}, "buffers": []})


def shown(column):
    return plain(column.view.value)


def test_a_message_goes_to_every_model_with_its_own_tokenizer_and_the_knobs(window, reply):
    window.temperature.value, window.seed.value = 0.3, 7
    window.send.click()
    asked, options = [{"role": "user", "content": OPENING}], {"temperature": 0.3, "seed": 7}
    assert reply.calls == [(*pair, asked, options) for pair in MODELS.values()]
    assert [shown(column) for column in window.columns] == [
        "base <1>user\nWho are you?assistant\nbase hears 3 & answers",
        "tuneduser\nWho are you?assistant\ntuned hears 3 & answers",
    ]
    assert window.message.value == window.note.value == ""


def test_each_model_goes_on_from_what_it_said_itself_until_one_starts_again(window, reply):
    send(window, "one")
    send(window, "two words")
    for (model, _, messages, _), column in zip(reply.calls[2:], window.columns):
        assert [message["role"] for message in messages] == ["user", "assistant", "user"]
        assert messages[1]["content"] == f"{model} hears 1 & answers" and len(column.messages) == 4
    window.again.click()
    assert [shown(column) for column in window.columns] == [*MODELS] and window.message.value == OPENING
    send(window, "anew")
    assert len(reply.calls[-1][2]) == 1


def test_an_answer_is_seen_while_it_is_written_and_nothing_more_can_be_sent(window, reply, monkeypatch):
    clock = itertools.count(1)
    monkeypatch.setattr(chat_window.time, "perf_counter", lambda: next(clock))
    told = []

    def look(change):
        told.append(plain(change.new))
        assert window.send.disabled and window.again.disabled
        press_enter(window)

    window.columns[1].view.observe(look, names="value")
    send(window, "hello")
    answers = [text.partition("assistant\n")[2] for text in told]
    assert answers == ["tuned  …", "tuned hears  …", "tuned hears 1 & answers …", "tuned hears 1 & answers"]
    assert len(reply.calls) == 2 and not (window.send.disabled or window.again.disabled or window.note.value)


def test_enter_sends(window, reply):
    press_enter(window)
    assert len(reply.calls) == 2


@pytest.mark.parametrize("words", ["", "  "])
def test_an_empty_message_is_told_and_goes_to_nobody(window, reply, words):
    send(window, words)
    assert plain(window.note.value).startswith("The message is empty. Type what") and not reply.calls
    send(window, "something")
    assert not window.note.value


def test_what_one_model_cannot_answer_is_told_and_forgotten_and_the_others_answer(window):
    send(window, "one")
    before = shown(window.columns[0])
    send(window, "<fail>")
    assert plain(window.note.value) == "base <1>: the conversation does not fit the context."
    assert shown(window.columns[0]) == before and "<fail>" in shown(window.columns[1])
    assert window.message.value == "<fail>" and not window.send.disabled


def test_what_looks_like_markup_is_shown_as_text(window):
    send(window, "<script>alert(1)</script>")
    assert all("<script" not in column.view.value for column in window.columns)


def test_the_roles_are_told_in_words_and_not_by_colour_alone(window):
    send(window, "one")
    assert re.findall(r"<b>(\w+)</b>", window.columns[1].view.value) == ["tuned", "user", "assistant"]


def test_no_model_is_named(reply):
    with pytest.raises(ValueError, match="there is no model to talk with; pass a dict"):
        ChatWindow({}, OPENING, reply)


def test_a_chat_window_is_seen_without_a_front_end_with_each_likeliest_answer_and_words_that_quote_none(
    reply, monkeypatch
):
    screen, drawn = Screen(), []
    monkeypatch.setattr(widgets, "display", screen)

    def draw(paint, *arguments, **options):
        paint(figure := Figure())
        drawn.extend(text.get_text() for axes in figure.axes for text in axes.texts)
        return widgets.draw(paint, *arguments, **options)

    monkeypatch.setattr(chat_window, "draw", draw)
    assert chat_window.chat_window(MODELS, OPENING, reply=reply) is None
    assert drawn == [OPENING, "base hears 3 & answers", OPENING, "tuned hears 3 & answers"]
    assert all(options["temperature"] == 0 for _, _, _, options in reply.calls)
    words = r"^One question, and what each model answers\. Chat window\. Columns: base <1>, tuned\.$"
    assert_is_seen_without_a_front_end(screen.shown[0], words)


def test_a_still_view_that_cannot_be_made_says_why(reply, monkeypatch):
    monkeypatch.setattr(widgets, "display", screen := Screen())
    chat_window.chat_window(MODELS, "<fail>", reply=reply)
    assert_is_seen_without_a_front_end(screen.shown[0], "the conversation does not fit the context")


def test_a_long_answer_is_broken_into_lines_that_fit_its_column(reply):
    def long(*_, **__):
        yield "word " * 60 + "\n\nthe end"

    def height(png):
        return int.from_bytes(png[20:24], "big")

    one, two = (ChatWindow(dict([*MODELS.items()][:n]), OPENING, long).picture().png for n in (1, 2))
    short = ChatWindow(MODELS, OPENING, reply).picture().png
    assert height(short) < height(one) < height(two)
