import pytest
from conftest import make_model

from minigpt import BPETokenizer, GPTConfig
from minigpt.finetune.code import complete, end_of_function, parses, same_next_line, started_functions

MODULE = '''import os


class Shelf:
    def short(self):
        return 1

    @property
    def books(self):
        """How many there are."""
        found = []
        for name in self.names:
            found.append(name)
        return len(found)


async def fetch(one,
                two):
    first = await one()
    second = await two()
    if first:
        return second
    return first
'''


def test_functions_with_enough_body_are_cut_between_two_statements():
    books, fetch = sorted(started_functions(MODULE, "shelves"), key=lambda task: task.name)
    assert (books.name, fetch.name) == ("shelves.books", "shelves.fetch")
    assert books.given.splitlines()[0] == "    @property" and books.given.endswith("found = []")
    assert fetch.given.splitlines()[-1] == "    first = await one()"
    for task in (books, fetch):
        assert MODULE.startswith(task.before + task.given + task.rest) and parses(task, task.rest)
    assert not list(started_functions("def broken(:"))


def test_the_completion_ends_where_the_function_does():
    task = next(t for t in started_functions(MODULE) if t.name == "books")
    inside = "\n        for name in self:\n\n            pass\n        return 1\n"
    assert end_of_function(task, inside + "\n    def other(self):\n        pass\n") == (inside + "\n", True)
    assert end_of_function(task, inside + "        retur") == (inside, False)
    assert end_of_function(task, " + []\n    def other(self):\n") == (" + []\n", True)


@pytest.mark.parametrize(
    ("written", "good"),
    [
        ("\n        return len(found)\n\n\nclass Next", True),
        ("\n        return (len(found)\n\n\nclass Next", False),
        ("\n        for x in found:\n    def other():\n", False),
        ("\n      return 1\n", False),
        ("\n\n", False),
        ("\n        return [\n            1,\n    ]\n\nx = 1", True),
    ],
)
def test_what_is_written_must_be_python_together_with_what_was_given(written, good):
    task = next(t for t in started_functions(MODULE) if t.name == "books")
    assert parses(task, written) is good


def test_the_next_line_is_compared_without_the_white_space_around_it():
    task = next(t for t in started_functions(MODULE) if t.name == "books")
    assert same_next_line(task, "\n\n  for name in self.names:\n  anything")
    assert not same_next_line(task, " + 1\n        for name in self.names:\n")
    assert not same_next_line(task, "\n        for name in self.name:\n") and not same_next_line(task, "")


def test_several_tasks_are_completed_at_a_time_as_they_would_be_alone():
    tokenizer = BPETokenizer.train([MODULE], vocab_size=300)
    shape = GPTConfig.llama(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=64)
    model, tasks = make_model(shape), list(started_functions(MODULE))
    together = complete(model, tokenizer, tasks, max_new_tokens=8)
    assert together == [complete(model, tokenizer, [task], max_new_tokens=8)[0] for task in tasks] and all(together)


def test_a_form_feed_ends_no_line():
    (task,) = started_functions("import os\n\x0c\n\ndef f(a):\n    b = a\n    c = b\n    return c\n")
    assert task.given == "def f(a):\n    b = a" and task.rest == "\n    c = b\n    return c\n"


def test_a_context_without_room_for_the_prompt_is_refused():
    tokenizer = BPETokenizer.train([MODULE], vocab_size=300)
    shape = GPTConfig.llama(vocab_size=tokenizer.vocab_size, n_layer=1, n_head=2, n_embd=16, context_length=64)
    with pytest.raises(ValueError, match="max_new_tokens=120 leaves no room for the prompt in 64 tokens"):
        complete(make_model(shape), tokenizer, list(started_functions(MODULE)))
