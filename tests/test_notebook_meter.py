"""What the plugin that watches the notebooks makes of one that takes too much."""

from types import SimpleNamespace

import notebook_meter
import pytest
from nbformat import v4


class Notebook(SimpleNamespace):
    """One that the plugin may keep by."""

    __hash__ = object.__hash__


class Reporter:
    """Keeps the lines of a summary."""

    def __init__(self):
        self.lines = []

    def section(self, title):
        self.lines.append(title)

    write_line = section


@pytest.fixture
def watched(monkeypatch):
    """A notebook that promises two minutes and has run; returns a function that says what it took."""

    def took(seconds, peak):
        head = v4.new_markdown_cell("# A title\n\nTakes 2 minutes on 2 cores.")
        notebook = Notebook(nb=v4.new_notebook(cells=[head]), name="00_title.ipynb")
        watch = SimpleNamespace(
            seconds=seconds, meter=SimpleNamespace(peak=peak), cells=7, compared=5, stop=lambda: None
        )
        monkeypatch.setattr(notebook_meter, "WATCHES", {notebook: watch})
        monkeypatch.delenv("MINIGPT_PATIENCE", raising=False)
        return notebook

    return took


def fail_over_budget(notebook):
    item = SimpleNamespace(parent=notebook, path=SimpleNamespace(name=notebook.name))
    item.config = SimpleNamespace(getoption={"--notebook-memory": 1.5}.__getitem__)
    notebook_meter.Budget.runtest(item)


def summary():
    reporter = Reporter()
    notebook_meter.pytest_terminal_summary(reporter, SimpleNamespace(option=SimpleNamespace(nbval_lax=False)))
    return reporter.lines


def test_a_slow_notebook_fails_nothing_and_is_named_in_the_summary(watched):
    fail_over_budget(watched(seconds=240, peak=1.4e9))
    first, line, delay = summary()
    assert first == "notebooks" and line == " 4.0 min  1.40 GB    7 cells    5 compared  00_title.ipynb"
    assert delay.strip() == "slower than its head promises: 240 s instead of 120"


def test_one_that_keeps_to_its_promise_has_one_line(watched):
    fail_over_budget(watched(seconds=170, peak=1.4e9))
    assert len(summary()) == 2


def test_too_much_memory_fails(watched):
    with pytest.raises(
        AssertionError, match="00_title.ipynb: it took 1.60 GB of memory at its peak; 1.50 GB are allowed"
    ):
        fail_over_budget(watched(seconds=60, peak=1.6e9))
