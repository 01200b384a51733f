import re
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from minigpt import course
from minigpt.course import (
    Run,
    clean,
    course_notebooks,
    main,
    over_memory,
    over_time,
    run_notebook,
    stated_seconds,
    write_html,
)


def notebook(*cells, head="# A title\n\nTakes 2 minutes on 2 cores."):
    return v4.new_notebook(cells=[v4.new_markdown_cell(head), *(v4.new_code_cell(cell) for cell in cells)])


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a folder of notebooks and nothing else; returns a function that writes one."""
    monkeypatch.setattr(course, "PROJECT", tmp_path / "project")
    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path / "project" / "notebooks")

    def write(name, *cells):
        path = course.NOTEBOOKS / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook(*cells), path)
        return path

    return write


@pytest.fixture
def pretend(monkeypatch):
    """Instead of running, give each notebook the outputs and the cost in a dictionary, or what all share."""

    def prepare(text="", seconds=1.0, peak=2e8, error=""):
        def run(path, on_cell):
            ran = nbformat.read(path, as_version=4)
            for number, cell in enumerate((cell for cell in ran.cells if cell.cell_type == "code"), start=1):
                cell.execution_count, cell.outputs = number, [v4.new_output("stream", name="stdout", text=text)]
            on_cell(len(ran.cells), len(ran.cells))
            return Run(path, ran, seconds, int(peak), error)

        monkeypatch.setattr(course, "run_notebook", run)

    return prepare


# Running


def test_a_failing_cell_ends_the_run_and_is_shown_and_memory_is_measured(project):
    path = project("00_fails", "block = b'x' * 300_000_000\nlen(block)", "1 / 0", "print('never')")
    done = []
    run = run_notebook(path, lambda cells, total: done.append((cells, total)))
    assert "ZeroDivisionError: division by zero" in run.error and "\x1b" not in run.error
    assert run.cells == 2 and not run.notebook.cells[3].outputs and done[-1] == (3, 4)
    assert run.notebook.cells[1].outputs[0].data["text/plain"] == "300000000"
    assert 3.3e8 < run.peak_bytes < 1.2e9 and run.seconds > 0
    assert run.problem == run.error and nbformat.read(path, as_version=4).cells[1].execution_count is None


def test_a_kernel_that_dies_is_an_error_and_not_a_crash(project):
    run = run_notebook(project("00_dies", "import os\nos._exit(1)"))
    assert "died" in run.error.lower()


def test_storing_runs_from_a_clean_kernel_keeps_the_outputs_and_counts_from_one(project, capsys):
    path = project("00_good", "from pathlib import Path\nPath.cwd().name", "print('two')")
    stale = nbformat.read(path, as_version=4)
    stale.cells[2].outputs, stale.cells[2].execution_count = [v4.new_output("stream", text="old")], 7
    nbformat.write(stale, path)
    assert main(["store"]) == 0
    stored = nbformat.read(path, as_version=4)
    assert [cell.execution_count for cell in stored.cells[1:]] == [1, 2]
    assert stored.cells[1].outputs[0].data["text/plain"] == "'notebooks'" and stored.cells[2].outputs[0].text == "two\n"
    assert re.search(r"00_good +\d\.\d min +\d\.\d\d GB +2 cells", capsys.readouterr().out)
    assert [file.name for file in path.parent.iterdir()] == ["00_good.ipynb"]


# Budgets


@pytest.mark.parametrize(
    ("sentence", "seconds"),
    [
        ("About 2 minutes on 2 cores, 1 GB", 120),
        ("1.5 minutes on two cores", 90),
        ("1 minute on 2 cores", 60),
        ("**45 seconds on 2 cores**", 45),
        ("1 to 3 minutes on 2 cores", 180),
        ("2 minutes on a GPU", None),
        ("", None),
    ],
)
def test_the_minutes_that_a_head_promises_are_read(sentence, seconds):
    assert stated_seconds(notebook("1", head=f"# Title\n\n{sentence}.")) == seconds


def test_only_the_head_makes_promises():
    late = v4.new_markdown_cell("This cell alone takes 9 minutes on 2 cores.")
    assert stated_seconds(v4.new_notebook(cells=[*notebook("1", "2", head="# Title").cells, late])) is None


def test_a_run_over_its_memory_or_its_time_is_told_with_the_numbers(monkeypatch):
    quick, silent = notebook("1"), notebook("1", head="# No promise")
    assert over_memory(1.4e9) == over_time(quick, 179) == over_time(silent, 179) == ""
    assert over_memory(1.61e9) == "it took 1.61 GB of memory at its peak; 1.50 GB are allowed."
    assert over_memory(4e8, allowed=3e8) == "it took 0.40 GB of memory at its peak; 0.30 GB are allowed."
    assert over_time(quick, 181) == "slower than its head promises: 181 s instead of 120"
    assert over_time(silent, 181) == "slower than a notebook should be: 181 s instead of 120"
    monkeypatch.setenv("MINIGPT_PATIENCE", "3")
    assert not over_time(quick, 530) and over_time(quick, 550)


@pytest.mark.parametrize(
    ("what", "cost", "words", "status"),
    [
        ("html", {"peak": 2e9}, "it took 2.00 GB of memory", 1),
        ("store", {"peak": 2e9}, "it took 2.00 GB of memory", 1),
        ("html", {"seconds": 999}, "slower than its head promises: 999 s", 0),
        ("store", {"seconds": 999}, "slower than its head promises: 999 s instead of 120. Quicken it, or", 1),
        ("html", {"error": "Oops", "seconds": 999}, "Oops", 1),
        ("store", {"error": "Oops", "seconds": 999}, "Oops", 1),
    ],
)
def test_a_run_that_took_too_much_or_failed_is_told_and_not_stored(project, pretend, capsys, what, cost, words, status):
    path = project("00_heavy", "1")
    before = path.read_bytes()
    pretend("an output", **cost)
    assert main([what]) == status
    told = capsys.readouterr().err
    assert told.startswith(f"00_heavy: {words}") and told.count("\n") == 1 and path.read_bytes() == before


# What may be stored


@pytest.mark.parametrize(
    "shown", ["{project}/data/x.txt", "{home}", "('{home}/.cache',)", "{project}", "File '{project}/a.py', line 1"]
)
def test_a_path_of_this_machine_is_refused_and_named(project, pretend, capsys, shown):
    path = project("00_leaks", "1", "2")
    before = path.read_bytes()
    pretend(shown.format(project=course.PROJECT, home=Path.home()))
    assert main(["store"]) == 1 and path.read_bytes() == before
    assert "00_leaks: cell 1 shows a path of this machine: " in capsys.readouterr().err


def test_a_path_that_only_begins_like_the_projects_is_no_leak(project, pretend):
    path = project("00_fine", "1")
    shown = f"{course.PROJECT}-two and /usr/lib/python"
    pretend(shown)
    assert main(["store"]) == 0 and shown in nbformat.read(path, as_version=4).cells[1].outputs[0].text


def test_a_full_disk_leaves_the_notebook_as_it_was(project, pretend, monkeypatch, capsys):
    path = project("00_kept", "1")
    before = path.read_bytes()
    pretend("new")

    def full(notebook, path):
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nbformat, "write", full)
    assert main(["store"]) == 1
    assert "No space left on device); what was stored before is untouched" in capsys.readouterr().err
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ["00_kept.ipynb"]


def test_cleaning_drops_what_differs_from_run_to_run_and_keeps_the_rest():
    bar = v4.new_output("stream", name="stderr", text="training:  40%|####      | 8/20 [00:01<00:02, 5.1 updates/s]")
    warning = v4.new_output("stream", name="stderr", text="a warning that matters")
    data = {"text/plain": "words", "image/png": "AAAA", course.WIDGET_VIEW: {"model_id": "1f2e"}}
    view = v4.new_output("display_data", data=data, metadata={"image/png": {"alt": "words"}})
    made = notebook("a", "b")
    made.metadata = {"language_info": {"name": "python", "version": "3.11.2"}, "widgets": {"state": 1}}
    made.cells[1].outputs = [bar, warning, view]
    made.cells[1].metadata = {"tags": ["nbval-ignore-output"], "execution": {"iopub": "2026-01-01"}}
    once = nbformat.writes(clean(made))
    kept = made.cells[1]
    assert [output.output_type for output in kept.outputs] == ["stream", "display_data"]
    assert kept.outputs[0].text == "a warning that matters"
    assert kept.outputs[1].data == {"text/plain": "words", "image/png": "AAAA"}
    assert kept.outputs[1].metadata == {"image/png": {"alt": "words"}}
    assert kept.metadata == {"tags": ["nbval-ignore-output"]} and [cell.id for cell in made.cells][1] == "cell-001"
    assert made.metadata == {"kernelspec": course.KERNEL, "language_info": {"name": "python"}}
    assert nbformat.writes(clean(made)) == once
    nbformat.validate(made)


# Choosing, and the pages


def test_notebooks_come_in_order_with_their_solutions_and_may_be_chosen_by_number(project):
    for name in ("03_second", "00_first", "solutions/03_second", "scratch"):
        project(name, "1")
    names = [path.relative_to(course.NOTEBOOKS).as_posix() for path in course_notebooks()]
    assert names == ["00_first.ipynb", "03_second.ipynb", "solutions/03_second.ipynb"]
    assert [path.stem for path in course_notebooks("03")] == ["03_second", "03_second"]


def test_an_unknown_number_lists_what_there_is(project, capsys):
    project("00_first", "1")
    assert main(["html", "07"]) == 1
    assert capsys.readouterr().err == "no notebook's name begins with '07'; there are: 00_first\n"


def test_a_file_that_is_no_notebook_is_named_and_the_others_run(project, pretend, capsys):
    project("00_first", "1")
    project("03_broken", "1").write_text('{"cells": [', encoding="utf-8")
    pretend("an output")
    assert main(["html"]) == 1
    shown = capsys.readouterr()
    assert "03_broken: this is no notebook" in shown.err and "00_first" in shown.out


def test_the_index_lists_minutes_memory_cells_and_what_went_wrong(tmp_path):
    good, bad = notebook("1", "2"), notebook("3")
    for number, cell in enumerate(good.cells[1:], start=1):
        cell.execution_count = number
    runs = [
        Run(tmp_path / "00_start_here.ipynb", good, 90.0, 640_000_000),
        Run(tmp_path / "03_a&b.ipynb", bad, 6.0, 100_000_000, "ZeroDivisionError: <secret>"),
        Run(tmp_path / "solutions" / "03_heavy.ipynb", bad, 6.0, 1_900_000_000),
        Run(tmp_path / "04_slow.ipynb", bad, 300.0, 100_000_000),
    ]
    write_html(runs, tmp_path / "pages")
    index = (tmp_path / "pages" / "index.html").read_text(encoding="utf-8")
    rows = [re.sub(r"<[^>]+>", "|", row) for row in index.split("<tr>")[2:]]
    assert [re.findall(r"[^|]+", row)[:5] for row in rows] == [
        ["00 start here", "1.5", "0.64", "2", "complete"],
        ["03 a&amp;b", "0.1", "0.10", "0", "stopped by an error"],
        ["03 heavy (solutions)", "0.1", "1.90", "0", "it took 1.90 GB of memory at its peak; 1.50 GB are allowed."],
        ["04 slow", "5.0", "0.10", "0", "complete, slower than its head promises: 300 s instead of 120"],
    ]
    assert 'href="00_start_here.html"' in index and 'href="solutions-03_heavy.html"' in index
    page = (tmp_path / "pages" / "00_start_here.html").read_text(encoding="utf-8")
    assert "A title" in page and "<title>00_start_here</title>" in page


def test_the_pages_are_written_even_where_a_notebook_failed(project, pretend, capsys):
    project("00_fails", "1 / 0")
    pretend(error="ZeroDivisionError")
    assert main(["html"]) == 1
    assert "stopped by an error" in (course.PROJECT / "build/course/index.html").read_text(encoding="utf-8")
    assert "build/course/index.html lists the pages" in capsys.readouterr().out


def test_a_picture_in_a_page_comes_with_its_words(tmp_path):
    seen, words = notebook("1"), 'A curve named "x" & <y>.'
    data = {"text/plain": words, "image/png": "AAAA"}
    seen.cells[1].outputs = [v4.new_output("display_data", data=data, metadata={"image/png": {"alt": words}})]
    write_html([Run(tmp_path / "00.ipynb", seen, 1.0, 1)], tmp_path)
    page = (tmp_path / "00.html").read_text(encoding="utf-8")
    assert [image["alt"] for image in BeautifulSoup(page, "html.parser").find_all("img")] == [words]
