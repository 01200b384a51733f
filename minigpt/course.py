"""Runs the notebooks headless and measures them: `python -m minigpt.course html|store [ONLY]`.

`html` writes the course as pages that a person can read, into build/course. `store` executes each notebook in place and
keeps its outputs. Both show a progress line, and seconds and peak memory of the kernel and its children.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "notebooks"
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 300  # seconds
MEMORY_BUDGET = 1.5e9  # bytes, what a small Binder session has
TIME_BUDGET = 120  # seconds on 2 cores


class MemoryMeter:
    """Peak resident memory, in bytes, of a process and its children, looked at ten times a second while it is open."""

    def __init__(self, pid: int):
        self.process, self.peak = psutil.Process(pid), 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(0.1):
            try:
                family = [self.process, *self.process.children(recursive=True)]
                self.peak = max(self.peak, sum(member.memory_info().rss for member in family))
            except psutil.Error:  # ended while we looked
                continue


@dataclass(frozen=True)
class Run:
    """One executed notebook: how long it took, how much memory, and the error of the cell that stopped it."""

    path: Path
    notebook: nbformat.NotebookNode
    seconds: float
    peak_bytes: int
    error: str = ""

    def over_budget(self, peak_bytes: float = MEMORY_BUDGET, seconds: float = TIME_BUDGET) -> str:
        """A sentence when the run took more memory or time than it may; empty when it kept within."""
        return over_budget(self.path.name, self.peak_bytes, self.seconds, peak_bytes, seconds)


def over_budget(
    name: str, peak: float, took: float, peak_budget: float = MEMORY_BUDGET, time_budget: float = TIME_BUDGET
) -> str:
    """See `Run.over_budget`."""
    if peak > peak_budget:
        return f"{name} took {peak / 1e9:.2f} GB of memory at its peak; {peak_budget / 1e9:.2f} GB are allowed."
    if took > time_budget:
        return f"{name} took {took:.0f} seconds; {time_budget:.0f} are allowed on 2 cores."
    return ""


def run_notebook(path: Path, on_cell: Callable[[int, int], Any] = lambda done, cells: None) -> Run:
    """Execute a notebook from a clean kernel; a cell's error ends the run and is kept in `error`."""
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = KERNEL
    cells = len(notebook.cells)
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=lambda cell, cell_index: on_cell(cell_index, cells),
    )
    started, error = time.perf_counter(), ""
    with client.setup_kernel(), MemoryMeter(client.km.provisioner.pid) as meter:
        try:
            client.execute(reset_kc=False)
        except CellExecutionError as failure:
            error = str(failure)
    return Run(path, notebook, time.perf_counter() - started, meter.peak, error)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run and says nothing: times, widget ids and state, language versions."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
            output.get("metadata", {}).pop(WIDGET_VIEW, None)
    return notebook


def course_notebooks(only: str = "") -> list[Path]:
    """The numbered notebooks and their solutions, those whose name begins with `only`."""
    found = [*sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))]
    return [path for path in found if path.name.startswith(only)]


def write_html(runs: list[Run], folder: Path) -> None:
    """A page for each notebook, and an index with minutes and memory."""
    from nbconvert import HTMLExporter

    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for run in runs:
        name = (
            f"{run.path.parent.name}-{run.path.stem}.html" if run.path.parent != NOTEBOOKS else f"{run.path.stem}.html"
        )
        body, _ = HTMLExporter().from_notebook_node(clean(run.notebook))
        (folder / name).write_text(body, encoding="utf-8")
        state = "stopped by an error" if run.error else "ran"
        measured = f"<td>{run.seconds / 60:.1f}</td><td>{run.peak_bytes / 1e9:.2f}</td><td>{state}</td>"
        rows.append(f'<tr><td><a href="{name}">{run.path.stem}</a></td>{measured}</tr>')
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>minigpt: the course</title>'
    table = f"<tr><th>notebook</th><th>minutes</th><th>peak GB</th><th></th></tr>{''.join(rows)}"
    body = f"<h1>minigpt: the course</h1><table cellpadding='6'>{table}</table>"
    page = f"{head}<body style='font-family:sans-serif'>{body}</body></html>"
    (folder / "index.html").write_text(page, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the notebooks; 1 when a cell failed or a budget was broken."""
    parser = argparse.ArgumentParser(prog="minigpt.course", description="Run the notebooks headless.")
    parser.add_argument("what", choices=["html", "store"])
    parser.add_argument("only", nargs="?", default="", help="the beginning of a notebook's name, such as 03")
    options = parser.parse_args(arguments)
    runs, failed = [], False
    for path in course_notebooks(options.only):
        with tqdm(desc=path.stem, unit=" cells", leave=False) as bar:

            def show(done: int, cells: int, bar: tqdm = bar) -> None:
                bar.total = cells
                bar.update(done + 1 - bar.n)

            run = run_notebook(path, show)
        runs.append(run)
        print(f"{path.stem:40} {run.seconds / 60:5.1f} min {run.peak_bytes / 1e9:6.2f} GB", flush=True)
        problem = run.error or run.over_budget()
        if problem:
            failed = True
            print(problem, file=sys.stderr)
        if options.what == "store" and not run.error:
            nbformat.write(clean(run.notebook), path)
    if options.what == "html":
        write_html(runs, PROJECT / "build" / "course")
        print(f"{PROJECT.name}/build/course/index.html lists the pages")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
