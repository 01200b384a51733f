"""A pytest plugin that watches every notebook while nbval runs it, and fails one that takes too much memory.

Behind the last cell of each notebook it adds an item, `memory`, while nbval's kernel still stands. A notebook that takes
longer than its head promises fails nothing, as a busy machine may be why; the summary of the run says so. Where the
texts of the course are not in the cache, the notebooks run on generated stories and their outputs are not compared.
"""

from __future__ import annotations

import time

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from minigpt.corpus import COURSE_SOURCES, is_cached
from minigpt.course import MEMORY_BUDGET, MemoryMeter, over_memory, over_time


class Watch:
    """One notebook under nbval: when it began, how much memory it took, how many cells ran and were compared."""

    def __init__(self, pid: int):
        self.started, self.seconds = time.perf_counter(), 0.0
        self.cells = self.compared = 0
        self.meter = MemoryMeter(pid).__enter__()

    def stop(self) -> None:
        """Hold the clock and the meter; once is enough."""
        if not self.seconds:
            self.seconds = time.perf_counter() - self.started
            self.meter.__exit__()


WATCHES: dict[IPyNbFile, Watch] = {}


class Budget(pytest.Item):
    """Fails when the notebook whose cells ran before took more than it may."""

    def runtest(self) -> None:
        watch = WATCHES.get(self.parent)
        if watch is None:
            pytest.skip("no cell of this notebook ran")
        watch.stop()
        allowed = self.config.getoption("--notebook-memory") * 1e9
        problem = over_memory(watch.meter.peak, allowed)
        if problem:
            raise AssertionError(f"{self.path.name}: {problem}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: str | None = None) -> str:
        return str(excinfo.value)

    def reportinfo(self) -> tuple[object, None, str]:
        return self.path, None, f"{self.path.name}: memory"


def pytest_addoption(parser: pytest.Parser) -> None:
    help_text = "GB of memory that the kernel of a notebook and its children may take together"
    parser.addoption("--notebook-memory", type=float, default=MEMORY_BUDGET / 1e9, metavar="GB", help=help_text)


def pytest_configure(config: pytest.Config) -> None:
    if config.option.nbval and not all(map(is_cached, COURSE_SOURCES)):
        config.option.nbval, config.option.nbval_lax = False, True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    last = {item.parent: number for number, item in enumerate(items) if isinstance(item, IPyNbCell)}
    for notebook, number in sorted(last.items(), key=lambda entry: -entry[1]):
        items.insert(number + 1, Budget.from_parent(notebook, name="memory"))
        notebook.skip_compare += ("stderr",)  # progress bars: how often they are drawn depends on the machine


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> object:
    if not isinstance(item, IPyNbCell):
        return (yield)
    if item.parent not in WATCHES:
        WATCHES[item.parent] = Watch(item.parent.kernel.km.provisioner.pid)
    watch = WATCHES[item.parent]
    watch.cells += not item.options["skip"]
    watch.compared += bool(item.options["check"] and item.cell.outputs)
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not WATCHES:
        return
    terminalreporter.section("notebooks")
    for notebook, watch in WATCHES.items():
        watch.stop()
        took = f"{watch.seconds / 60:4.1f} min  {watch.meter.peak / 1e9:4.2f} GB"
        terminalreporter.write_line(f"{took}  {watch.cells:3} cells  {watch.compared:3} compared  {notebook.name}")
        delay = over_time(notebook.nb, watch.seconds)
        if delay:
            terminalreporter.write_line(f"{' ' * len(took)}  {delay}")
    if config.option.nbval_lax:
        terminalreporter.write_line("Outputs were not compared: the texts of the course are not in the cache.")
