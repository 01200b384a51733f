"""The rules of the notebooks, as they are stored: one clean run, short cells, a head and a foot, links and numbers that exist."""

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

import minigpt.lab.exercises  # noqa: F401 - registers them
from minigpt.course import KERNEL, course_notebooks, machine_paths, stated_seconds
from minigpt.lab.check import EXERCISES
from minigpt.lab.expect import read_bands

PROJECT = Path(__file__).resolve().parents[1]
NOTEBOOKS = PROJECT / "notebooks"
ALL = sorted(path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
NUMBERED = [path for path in ALL if path.parent == NOTEBOOKS and re.match(r"\d\d_", path.name)]
SOLUTIONS = [path for path in ALL if path.parent.name == "solutions"]
PAGES = [*ALL, *PROJECT.glob("*.md"), *(PROJECT / "data").rglob("*.md"), *NOTEBOOKS.rglob("*.md")]

LARGEST = 500_000  # bytes
USUAL_CELL, LONGEST_CELL = 15, 40  # lines of code
LONG_CELLS = 0.1  # share of the cells that may have more than the usual lines
MEMORY = re.compile(r"\d+(?:\.\d+)? GB of memory")


@cache
def _read(path: Path):
    import nbformat

    return nbformat.read(path, as_version=4)


def _cells(path: Path, kind: str) -> list:
    return [cell for cell in _read(path).cells if cell.cell_type == kind]


def _code(path: Path) -> list:
    return _cells(path, "code")


def _prose(path: Path) -> str:
    return "\n\n".join(cell.source for cell in _cells(path, "markdown"))


def _calls(path: Path, function: str) -> list[str]:
    """The first argument of every call of a function: a name between quotation marks."""
    names = []
    for cell in _code(path):
        for node in ast.walk(ast.parse(re.sub(r"^[%!].*", "", cell.source, flags=re.MULTILINE))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == function:
                assert node.args and isinstance(node.args[0], ast.Constant), (
                    f"{function}(...) wants a name, not a formula"
                )
                names.append(node.args[0].value)
    return names


def _name(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


each_notebook = pytest.mark.parametrize("path", ALL, ids=_name)
each_numbered = pytest.mark.parametrize("path", NUMBERED, ids=_name)


def test_there_are_notebooks_and_the_course_runs_all_of_them():
    assert NUMBERED and set(course_notebooks()) == {*NUMBERED, *SOLUTIONS} == set(ALL)
    numbers = [path.name[:2] for path in NUMBERED]
    assert numbers == sorted(set(numbers))


@each_notebook
def test_it_opens_without_a_question(path):
    import nbformat

    notebook = _read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == KERNEL  # without one, JupyterLab asks which kernel it should be
    ids = [cell["id"] for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


@each_notebook
def test_it_is_stored_as_one_clean_run(path):
    code = _code(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "make notebooks stores it"
    numbers = {
        output.get("execution_count", cell.execution_count) == cell.execution_count
        for cell in code
        for output in cell.outputs
    }
    assert numbers <= {True}
    errors = [output.ename for cell in code for output in cell.outputs if output.output_type == "error"]
    assert not errors


@each_notebook
def test_it_shows_no_path_of_the_machine_and_is_small(path):
    assert not machine_paths(_read(path))
    assert path.stat().st_size < LARGEST


@each_notebook
def test_its_cells_are_short(path):
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in _code(path)]
    assert max(lengths) <= LONGEST_CELL
    long = sum(length > USUAL_CELL for length in lengths)
    assert long <= max(1, LONG_CELLS * len(lengths)), (
        f"{long} of {len(lengths)} cells have more than {USUAL_CELL} lines"
    )
    assert min(lengths) > 0, "an empty cell"


@each_notebook
def test_no_line_ends_in_a_semicolon(path):
    """nbval runs cells without history, where a semicolon hides nothing."""
    assert not [line for cell in _code(path) for line in cell.source.splitlines() if line.rstrip().endswith(";")]


@each_numbered
def test_its_head_says_what_one_will_be_able_to_do_and_what_it_takes(path):
    first = _read(path).cells[0]
    assert first.cell_type == "markdown"
    assert re.match(rf"# {path.name[:2]} · \S", first.source)
    for part in ("**You will be able to**", "**Needs**", "**Time**"):
        assert part in first.source
    assert stated_seconds(_read(path)), "the head says it as `2 minutes on 2 cores`"
    assert MEMORY.search(first.source), "the head says it as `1.0 GB of memory`"


@each_numbered
def test_its_foot_sums_up_and_leads_on(path):
    last = "\n\n".join(cell.source for cell in _read(path).cells[-3:] if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+)$", last, re.MULTILINE)
    assert "Summary" in headings and headings[-1] == "Next"
    after = last.rpartition("## Next")[2]
    later = NUMBERED[NUMBERED.index(path) + 1 :]
    assert not later or later[0].name in after, "the next notebook"


@pytest.mark.parametrize("path", SOLUTIONS, ids=_name)
def test_a_solution_belongs_to_a_notebook(path):
    assert [numbered for numbered in NUMBERED if numbered.name[:2] == path.name[:2]]
    assert _read(path).cells[0].source.startswith(f"# {path.name[:2]} · ")


@each_numbered
def test_its_exercises_exist_and_are_solved(path):
    asked = set(_calls(path, "check"))
    assert asked <= EXERCISES.keys()
    solved = set()
    for solution in (solution for solution in SOLUTIONS if solution.name[:2] == path.name[:2]):
        for name in set(_calls(solution, "check")):
            shown = [str(cell.outputs) for cell in _code(solution) if f'"{name}"' in cell.source]
            assert all("Right: " in outputs and "Not yet: " not in outputs for outputs in shown), name
            solved.add(name)
    assert solved == asked


def test_every_exercise_is_asked_once():
    asked = [name for path in NUMBERED for name in _calls(path, "check")]
    assert sorted(asked) == sorted(EXERCISES)


def test_every_quoted_number_has_a_band_and_every_band_a_number():
    used = {path: set(_calls(path, "expect")) for path in ALL}
    for path, names in used.items():
        assert all(name.startswith(f"{path.name[:2]}/") for name in names), path.name
    assert set().union(*used.values()) == read_bands().keys()


def _anchors(path: Path) -> set[str]:
    """The places in a page that a link may name, as GitHub and JupyterLab make them."""
    prose = _prose(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.strip()) for heading in headings]
    return {text.replace(" ", "-") for text in plain} | {text.replace(" ", "-").lower() for text in plain}


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_its_links_lead_somewhere_and_its_pictures_have_words(path):
    prose = _prose(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|`[^`\n]+`", "", prose, flags=re.DOTALL | re.MULTILINE)
    for mark, words, target in re.findall(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\(([^)\s]+)\)", prose):
        assert words.strip(), f"{target} has no words"
        if mark:
            assert len(words) > 10, f"{target}: say what is on the picture"
        if re.match(r"(https?|mailto):", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), f"{target} is not there"
        assert not anchor or anchor in _anchors(place), f"{target} names no heading there"


@each_notebook
def test_its_pictures_have_words_for_those_who_do_not_see_them(path):
    for cell in _code(path):
        for data in (output.data for output in cell.outputs if "image/png" in output.get("data", {})):
            words = data.get("text/plain", "")
            assert len(words) > 20 and not words.startswith("<"), f"cell {cell.execution_count}: {words!r}"


def test_the_first_notebook_lists_the_course():
    table = re.findall(r"^\| (?:\[(\d\d)\]\((\S+)\)|(\d\d)) \| ([^|]+) \| [^|]+ \|$", _prose(NUMBERED[0]), re.MULTILINE)
    listed = [(number or own, file or NUMBERED[0].name, title.strip()) for number, file, own, title in table]
    titles = [re.match(r"# (\d\d) · (.+)", _read(path).cells[0].source).groups() for path in NUMBERED]
    assert listed == [(number, path.name, title) for path, (number, title) in zip(NUMBERED, titles, strict=True)]


def test_a_term_of_the_glossary_stands_in_the_notebook_that_it_names_and_terms_are_in_order():
    content = (NOTEBOOKS / "GLOSSARY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[[^]]+\]\((\S+)\) \|$", content, re.MULTILINE)
    assert len(rows) == content.count("\n| ") - 1  # every row but the head
    assert [term for term, _ in rows] == sorted((term for term, _ in rows), key=str.lower)
    for terms, file in rows:
        prose = _prose(NOTEBOOKS / file).replace("*", "").lower()
        assert all(term.lower() in prose for term in terms.split(", ")), (terms, file)


def test_a_notebook_is_stored_as_text_that_git_compares_well():
    for path in ALL:
        content = path.read_bytes()
        assert b"\r" not in content and content.endswith(b"\n")
        assert json.loads(content)["nbformat_minor"] >= 5  # the first with ids
