"""Runs the notebooks headless and measures them: `python -m minigpt.course html|store [ONLY]`.

`html` writes the course as pages that a person can read, into build/course. `store` executes each notebook in place and
keeps its outputs. Both show a progress line, and minutes and peak memory of the kernel and its children. A notebook that
takes longer than its head promises is told by both and refused by `store` alone: a busy machine spoils no page.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat.reader import NotJSONError
from tqdm import tqdm

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "notebooks"
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_TIMEOUT = 300  # seconds
MEMORY_BUDGET = 1.5e9  # bytes, what a small Binder session has
TIME_BUDGET = 120.0  # seconds on 2 cores, for a notebook whose head states no minutes
SLACK = 1.5  # the minutes that a head states are those of a quiet machine
TOO_SLOW = (
    "Quicken it, or state more in its head; on a machine slower than two laptop cores, set MINIGPT_PATIENCE=2 or more."
)


class MemoryMeter:
    """Peak memory, in bytes, of a process and its children, looked at ten times a second while it is open.

    It adds up all that the process holds in memory (its resident set), and what each of its children does not share with
    another: a forked worker has nearly everything from its parent.
    """

    def __init__(self, pid: int):
        self.process = psutil.Process(pid)
        self.peak = resident(self.process)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.is_set():
            try:
                self.peak = max(self.peak, resident(self.process))
            except psutil.NoSuchProcess:
                return
            self._closed.wait(0.1)


def resident(process: psutil.Process) -> int:
    """Bytes of memory that a process holds, with what its children do not share."""
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it ended while we looked
            total += child.memory_full_info().uss
    return total


def stated_seconds(notebook: nbformat.NotebookNode) -> float | None:
    """What the head promises, such as `2 minutes on 2 cores`, in seconds; None when it promises nothing."""
    head = "\n".join(cell.source for cell in notebook.cells[:3])
    found = re.search(r"(\d+(?:\.\d+)?)\s+(minute|second)s? on (?:2|two) cores", head)
    return float(found[1]) * (60 if found[2] == "minute" else 1) if found else None


def over_memory(peak: float, allowed: float = MEMORY_BUDGET) -> str:
    """A sentence when a run took more memory (bytes) than it may; empty when it kept within."""
    return f"it took {peak / 1e9:.2f} GB of memory at its peak; {allowed / 1e9:.2f} GB are allowed." * (peak > allowed)


def over_time(notebook: nbformat.NotebookNode, seconds: float) -> str:
    """Words for a run that took longer than it should; empty when it kept within.

    That is half as much again as its head promises, times MINIGPT_PATIENCE where the machine is slower than two laptop cores.
    """
    stated = stated_seconds(notebook)
    promised, who = (stated, "its head promises") if stated else (TIME_BUDGET, "a notebook should be")
    if seconds <= promised * SLACK * float(os.environ.get("MINIGPT_PATIENCE", "1")):
        return ""
    return f"slower than {who}: {seconds:.0f} s instead of {promised:.0f}"


@dataclass(frozen=True)
class Run:
    """One executed notebook: how long it took, how much memory, and the error of the cell that stopped it."""

    path: Path
    notebook: nbformat.NotebookNode
    seconds: float
    peak_bytes: int
    error: str = ""

    @property
    def cells(self) -> int:
        """How many code cells ran."""
        return sum(cell.get("execution_count") is not None for cell in self.notebook.cells)

    @property
    def problem(self) -> str:
        """The error, or a sentence when the run took too much memory; empty when all is well."""
        return self.error or over_memory(self.peak_bytes)

    @property
    def delay(self) -> str:
        """Words for a run that ended and took longer than its head promises; else empty."""
        return "" if self.error else over_time(self.notebook, self.seconds)


def run_notebook(path: Path, on_cell: Callable[[int, int], Any] = lambda done, cells: None) -> Run:
    """Execute a notebook from a clean kernel; a cell's error ends the run and is kept in `error`.

    Args:
        on_cell: called after each cell with how many are done, and how many there are.
    """
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = KERNEL
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    meters: list[MemoryMeter] = []
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        coalesce_streams=True,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(path.parent)}},
        on_notebook_start=lambda **_: meters.append(MemoryMeter(client.km.provisioner.pid).__enter__()),
        on_cell_complete=lambda cell, cell_index: on_cell(cell_index + 1, len(notebook.cells)),
    )
    started, error = time.perf_counter(), ""
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
        error = re.sub(r"\x1b\[[\d;]*m", "", str(failure)).strip()
    finally:
        for meter in meters:
            meter.__exit__()
    return Run(path, notebook, time.perf_counter() - started, max((meter.peak for meter in meters), default=0), error)


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop what differs from run to run and says nothing: times, widget ids, progress bars, language versions."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:03d}"
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k == "tags"})
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
            output.get("metadata", {}).pop(WIDGET_VIEW, None)
    return notebook


def _is_passing(output: nbformat.NotebookNode) -> bool:
    """A progress bar, or the line with the time that PyTorch's profiler begins and ends with."""
    return output.get("name") == "stderr" and bool(re.search(r"^USDT:|\d%\||\d(it|B|[kMG]B)/s", output.text))


def machine_paths(notebook: nbformat.NotebookNode) -> list[str]:
    """A sentence for each cell whose outputs show where this machine keeps the project, or the home of its user."""
    places = {form for folder in (PROJECT, Path.home()) for form in (str(folder), folder.as_posix()) if len(form) > 1}
    pattern = re.compile(rf"({'|'.join(map(re.escape, sorted(places)))})(?![\w.-])")
    outputs = (str(cell.get("outputs", "")).replace("\\\\", "\\") for cell in notebook.cells)
    found = [(number, pattern.search(text)) for number, text in enumerate(outputs)]
    return [f"cell {number} shows a path of this machine: {hit[0]}" for number, hit in found if hit]


def course_notebooks(only: str = "") -> list[Path]:
    """The numbered notebooks and their solutions, those whose name begins with `only`."""
    found = [*sorted(NOTEBOOKS.glob("[0-9]*.ipynb")), *sorted((NOTEBOOKS / "solutions").glob("*.ipynb"))]
    return [path for path in found if path.name.startswith(only)]


def _store(run: Run) -> list[str]:
    """Write the notebook with its outputs in place of the old one; a sentence when that cannot be done."""
    beside = run.path.with_suffix(".part")
    try:
        nbformat.write(run.notebook, beside)
        os.replace(beside, run.path)
    except OSError as error:
        return [f"it could not be stored ({error}); what was stored before is untouched."]
    finally:
        beside.unlink(missing_ok=True)
    return []


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:3rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.4rem .8rem;border-bottom:1px solid #ddd}
td.number,th.number{text-align:right}a{color:#0072b2}strong{color:#b34700}"""
INDEX = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>minigpt: the course</title><style>{style}</style></head>
<body><h1>The course, executed</h1><table><thead><tr><th>Notebook</th><th class="number">Minutes</th>
<th class="number">Peak memory, GB</th><th class="number">Code cells run</th><th>State</th></tr></thead>
<tbody>{rows}</tbody></table></body></html>
"""
PAGE = """{% extends "lab/index.html.j2" %}
{% block data_png scoped %}{% set words = output | get_metadata("alt", "image/png") or "" %}
{{ super() | replace("<img ", '<img alt="' ~ (words | escape_html) ~ '" ') }}{% endblock %}
"""  # nbconvert's own page leaves the words of a picture out


def write_html(runs: list[Run], folder: Path) -> None:
    """A page for each notebook, and index.html with a table of minutes and memory."""
    from jinja2 import DictLoader
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(extra_loaders=[DictLoader({"page.html.j2": PAGE})], template_file="page.html.j2")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for run in runs:
        solution = run.path.parent.name == "solutions"
        name = f"{'solutions-' if solution else ''}{run.path.stem}.html"
        body, _ = exporter.from_notebook_node(clean(run.notebook), {"metadata": {"name": run.path.stem}})
        (folder / name).write_text(body, encoding="utf-8")
        title = html.escape(run.path.stem.replace("_", " ") + (" (solutions)" if solution else ""))
        numbers = (f"{run.seconds / 60:.1f}", f"{run.peak_bytes / 1e9:.2f}", str(run.cells))
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        trouble = "stopped by an error" if run.error else html.escape(run.problem)
        state = f"<strong>{trouble}</strong>" if trouble else ", ".join(filter(None, ("complete", run.delay)))
        rows.append(f'<tr><td><a href="{html.escape(name)}">{title}</a></td>{cells}<td>{state}</td></tr>')
    (folder / "index.html").write_text(INDEX.format(style=STYLE, rows="\n".join(rows)), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the notebooks; 1 when one failed or took too much memory, or an output may not be stored."""
    parser = argparse.ArgumentParser(prog="minigpt.course", description="Run the notebooks headless.")
    parser.add_argument("what", choices=["html", "store"])
    parser.add_argument("only", nargs="?", default="", help="the beginning of a notebook's name, such as 03")
    options = parser.parse_args(arguments)
    runs, failed, paths = [], False, course_notebooks(options.only)
    if not paths:
        known = ", ".join(dict.fromkeys(path.stem for path in course_notebooks())) or "none yet"
        print(f"no notebook's name begins with {options.only!r}; there are: {known}", file=sys.stderr)
        return 1
    width = max(len(path.stem) for path in paths)
    for path in paths:
        with tqdm(desc=path.stem, unit="cell", leave=False, disable=None) as bar:

            def show(done: int, cells: int, bar: tqdm = bar) -> None:
                bar.total = cells
                bar.update(done - bar.n)

            try:
                run = run_notebook(path, show)
            except (NotJSONError, nbformat.ValidationError) as error:
                failed = True
                print(f"{path.stem}: this is no notebook ({str(error)[:200]})", file=sys.stderr)
                continue
        runs.append(run)
        took = f"{run.seconds / 60:5.1f} min  {run.peak_bytes / 1e9:5.2f} GB  {run.cells:3} cells"
        print(f"{path.stem:{width}}  {took}", flush=True)
        problems = [run.problem] if run.problem else []
        delays = [run.delay] if run.delay else []
        if options.what == "store" and not run.error:
            problems += [f"{delay}. {TOO_SLOW}" for delay in delays] + machine_paths(clean(run.notebook))
            delays = []
            problems += [] if problems else _store(run)
        failed = failed or bool(problems)
        for sentence in problems + delays:
            print(f"{path.stem}: {sentence}", file=sys.stderr)
    if options.what == "html":
        write_html(runs, PROJECT / "build" / "course")
        print("build/course/index.html lists the pages")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
